"""Releases that are their commit, laid over the image that has them, by the real program."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from tests.images import merged
from tests.trees import (
    AFTER,
    BEFORE,
    KERNEL,
    LOADER,
    POINTER,
    SITE,
    Shop,
    build_fixture,
    image,
    shop_fixture,
)
from tests.wheels import record_hash

from stackpatch.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

shop, build = shop_fixture, build_fixture


def test_the_image_has_the_patched_file_and_everything_else_of_the_release(
    shop: Shop, build: Callable[..., Any]
) -> None:
    made = build("--base", str(shop.base))
    assert (made["engine"], made["wheel"], made["reused"]) == ("overlay", None, False)
    assert made["version"] == "1.3.0rc20"
    assert made["patched"].startswith("1.3.0rc20+sp.")
    before = merged(shop.base, shop.digest)
    after = merged(shop.root.parent / made["image"]["path"], made["image"]["digest"])
    assert after[f"{SITE}/{LOADER}"][1] == AFTER
    stale = f"{SITE}/tensorrt_llm/_torch/pyexecutor/__pycache__/model_loader.cpython-312.pyc"
    record = f"{SITE}/tensorrt_llm-1.3.0rc20.dist-info/RECORD"
    assert stale in before
    assert stale not in after
    same = {p for p in before if p not in (f"{SITE}/{LOADER}", record, stale)}
    assert {p: after[p][:2] for p in same} == {p: before[p][:2] for p in same}
    assert {p for p in set(after) - set(before) if after[p][0] == "file"} == set()
    rows = dict(line.split(",", 1) for line in after[record][1].decode().splitlines())
    assert rows[LOADER] == f"{record_hash(AFTER)},{len(AFTER)}"
    assert stale.removeprefix(f"{SITE}/") not in rows
    assert "tensorrt_llm/libs/libtensorrt_llm.so" in rows


def test_a_second_run_does_nothing_and_other_places_give_the_same_bytes(
    shop: Shop, build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = build("--base", str(shop.base))
    assert build("--base", str(shop.base))["reused"] is True
    lock = json.loads((tmp_path / first["lock"]).read_text())
    assert lock["inputs"]["upstream"]["commit"] == shop.commit
    assert lock["inputs"]["upstream"]["submodules"] is True
    moved = tmp_path / "elsewhere"
    shutil.copytree(shop.base, moved)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    os.umask(0o077)
    try:
        again = build("--base", str(moved), "--out", str(tmp_path / "other"))
    finally:
        os.umask(0o022)
    assert again["reused"] is False
    assert (again["image"]["digest"], again["key"]) == (first["image"]["digest"], first["key"])
    for file in lock["outputs"]["files"]:
        place = (tmp_path / again["lock"]).parent / file["path"]
        assert hashlib.sha256(place.read_bytes()).hexdigest() == file["sha256"], file["path"]


def test_a_result_that_was_damaged_is_made_again(
    shop: Shop, build: Callable[..., Any], tmp_path: Path
) -> None:
    first = build("--base", str(shop.base))
    lock = tmp_path / first["lock"]
    for damage in (b"{}", b"", b'{"schema": "stackpatch.lock/1", "key": "0"}'):
        lock.write_bytes(damage)
        made = build("--base", str(shop.base))
        assert (made["reused"], made["image"]) == (False, first["image"])
    (lock.parent / "image" / "index.json").write_bytes(b"")
    assert build("--base", str(shop.base))["reused"] is False


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({LOADER: BEFORE + b"# mine\n"}, "is not the one of the commit: it was changed there"),
        ({LOADER: None}, "is not the one of the commit: it is missing there"),
        (
            {"version": "1.3.0rc19"},
            "the base image has tensorrt-llm 1.3.0rc19, the patched release",
        ),
    ],
)
def test_a_base_with_something_else_is_refused(
    shop: Shop, build: Callable[..., Any], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    files: dict[str, Any] = {LOADER: BEFORE, "tensorrt_llm/__init__.py": b""}
    version = change.pop("version", "1.3.0rc20")
    files |= change
    held = {path: content for path, content in files.items() if content is not None}
    base, _ = image(tmp_path / "other-base", held, version)
    error = build("--base", str(base), status=2)["error"]
    assert said in error["message"]
    assert not (tmp_path / "dist").exists() or not list((tmp_path / "dist").rglob("image"))


def test_the_dry_run_pins_every_input_and_reads_nothing(
    shop: Shop, build: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = f"sha256:{'c' * 64}"
    shop.recipe(
        "    bases:\n"
        f"      - {{image: nvcr.test/llm/release, digest: '{digest}', platforms: [linux/arm64],\n"
        f"         kind: site-packages, path: /{SITE}, python: '3.12', evidence: seen there}}\n"
    )
    shutil.rmtree(shop.repository)  # nothing of it is needed to plan
    document = build("--dry-run")
    assert document["open"] == []
    plan = document["plan"]
    assert plan["upstream"]["commit"] == shop.commit
    assert plan["base"] == {
        "digest": digest,
        "index": None,
        "name": "nvcr.test/llm/release",
        "site": SITE,
        "editable": False,
        "python": "3.12",
        "recorded": True,
    }
    assert plan["engine"] == {"name": "overlay", "version": "2"}
    assert len(plan["series"]["patches"][0]["sha256"]) == 64
    assert main(["build", "llm", "--arch", "sm121", "--dry-run", "--root", str(shop.root)]) == 0
    text = capsys.readouterr().out
    assert f"base     nvcr.test/llm/release@{digest}" in text
    assert "pinned   every input above" in text
    assert not (tmp_path / "dist").exists()


def test_what_must_be_compiled_is_built_from_source_and_says_what_is_open(
    shop: Shop,
    build: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    shop.patch("cpp/tensorrt_llm/kernels/kernel.cu", KERNEL, KERNEL + b"// more\n")
    document = build("--dry-run")
    assert document["plan"]["engine"]["name"] == "buildx"
    assert document["plan"]["engine"]["build-args"] == {"CUDA_ARCHS": "120-real"}
    engine = "the version of buildx is known where it runs: `stackpatch doctor`"
    assert document["open"] == [
        "no image to build in is known by digest: say --base IMAGE@sha256:…",
        engine,
    ]
    named = build("--dry-run", "--base", str(shop.base))
    assert (named["open"], named["plan"]["base"]["digest"]) == ([engine], shop.digest)
    assert main(["build", "llm", "--arch", "sm121", "--dry-run", "--root", str(shop.root)]) == 0
    text = capsys.readouterr().out
    assert "checkout with LFS and submodules" in text
    assert "told     CUDA_ARCHS=120-real, with CUDA >=12.9" in text
    assert "from source, because the series changes cpp/tensorrt_llm/kernels/kernel.cu" in text
    assert named["plan"]["engine"]["dockerfile"] == file_digest(shop, "llm.Dockerfile")
    assert set(named["plan"]["engine"]["tools"]) == {"tools/install.py", "tools/source.py"}
    told = build("--dry-run", "--base", str(shop.base), "--build-arg", "JOBS=2")
    assert told["plan"]["engine"]["build-args"] == {"CUDA_ARCHS": "120-real"}
    assert told["plan"]["engine"]["args"] == {"JOBS": "2"}
    assert told["key"] != named["key"]
    error = build("--engine", "overlay", status=2)["error"]
    assert "an overlay cannot change what must be compiled" in error["message"]


def file_digest(shop: Shop, name: str) -> str:
    return hashlib.sha256((shop.root / "dockerfiles" / name).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--build-arg", "COMMIT=main"), "is given by the build itself"),
        (("--build-arg", "NO_SUCH=1"), "is no ARG of llm.Dockerfile"),
        (("--build-arg", "CUDA_ARCHS=121f"), "121f"),
        (("--build-arg", "JOBS"), "has no value"),
    ],
)
def test_arguments_that_are_wrong_for_a_build_from_source(
    shop: Shop, build: Callable[..., Any], words: tuple[str, ...], said: str
) -> None:
    shop.patch("cpp/tensorrt_llm/kernels/kernel.cu", KERNEL, KERNEL + b"// more\n")
    assert said in build("--dry-run", *words, status=2)["error"]["message"]
    (shop.root / "dockerfiles" / "llm.Dockerfile").write_text("FROM scratch\n")
    assert "takes no COMMIT" in build("--dry-run", status=2)["error"]["message"]
    (shop.root / "dockerfiles" / "llm.Dockerfile").unlink()
    assert "cannot read" in build("--dry-run", status=2)["error"]["message"]


def test_an_overlay_takes_no_options_of_other_engines(
    shop: Shop, build: Callable[..., Any]
) -> None:
    error = build("--base", str(shop.base), "--build-arg", "A=1", status=2)["error"]
    assert "--build-arg is for the engines buildx and buildah" in error["message"]


def test_faults_are_told_in_words(shop: Shop, build: Callable[..., Any]) -> None:
    assert "say --base IMAGE" in build(status=2)["error"]["message"]
    assert "unknown engine 'docker'" in build("--engine", "docker", status=2)["error"]["message"]
    shop.patch("tests/test_loader.py", b"assert True\n", b"assert 1\n")
    error = build("--base", str(shop.base), status=2)["error"]
    assert "nothing that the series changes is in the installed package" in error["message"]


def test_a_series_that_does_not_apply_leaves_nothing(
    shop: Shop, build: Callable[..., Any], tmp_path: Path
) -> None:
    (mail,) = (shop.root / "patches" / "llm" / "v1.3.0rc20").glob("*.patch")
    mail.write_text(mail.read_text().replace("     kind = asked", "     kind = wanted"))
    error = build("--base", str(shop.base), status=1)["error"]
    assert LOADER in json.dumps(error)
    assert not list((tmp_path / "dist").rglob("image"))


def test_a_file_that_the_series_adds_and_one_that_it_removes(
    shop: Shop, build: Callable[..., Any]
) -> None:
    folder = shop.repository / "tensorrt_llm"
    (folder / "guard.py").write_text("OPEN = (120, 121)\n")
    (folder / "__init__.py").unlink()
    shop.patch(LOADER, BEFORE, AFTER)
    made = build("--base", str(shop.base))
    after = merged(shop.root.parent / made["image"]["path"], made["image"]["digest"])
    assert after[f"{SITE}/tensorrt_llm/guard.py"][1] == b"OPEN = (120, 121)\n"
    assert f"{SITE}/tensorrt_llm/__init__.py" not in after


def test_without_a_base_the_layer_alone_is_made(shop: Shop, build: Callable[..., Any]) -> None:
    made = build("--base", "scratch")
    held = merged(shop.root.parent / made["image"]["path"], made["image"]["digest"])
    assert {p for p in held if held[p][0] == "file"} == {f"{SITE}/{LOADER}"}
    assert any("made on nothing" in note for note in made["notes"])


def test_a_file_of_git_lfs_is_never_replaced_by_its_pointer(
    shop: Shop, build: Callable[..., Any]
) -> None:
    (shop.repository / "tensorrt_llm" / "kernels.bin").write_bytes(POINTER)
    shop.patch(LOADER, BEFORE, AFTER)
    error = build("--base", str(shop.base), status=2)["error"]
    assert "tensorrt_llm/kernels.bin is kept by Git LFS" in error["message"]
