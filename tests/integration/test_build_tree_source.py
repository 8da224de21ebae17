"""Releases that are their commit, compiled from source by a real engine, with all papers.

The sources come from a mirror: a repository with a submodule and a file of Git LFS, each over its
own protocol, at an address that only the person's git settings know.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine import Engine, engine
from tests.engine_builds import every_byte, own_files
from tests.integration.test_build_tree_apart import program, until_there
from tests.papers import valid_sbom, valid_statement
from tests.shop import Shop as WheelShop
from tests.trees import (
    AFTER,
    BEFORE,
    CUBIN,
    ISSUE,
    KERNEL,
    LOADER,
    LOGIN,
    Shop,
    build_fixture,
    devel_image,
    served_fixture,
    shop_fixture,
)

from stackpatch import storage
from stackpatch.artefacts.engines import EngineRequest
from stackpatch.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

shop, build, served = shop_fixture, build_fixture, served_fixture
SITE = "usr/local/lib/python3.11/dist-packages"


@pytest.fixture(name="real")
def _real(monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = engine()
    found.use(monkeypatch)
    return found


@pytest.fixture(name="devel")
def _devel(real: Engine) -> str:
    assert real.registry
    return devel_image()


@pytest.fixture(name="words")
def _words(real: Engine, devel: str) -> tuple[str, ...]:
    how = ("--arch", "sm120", "--base", real.base, "--network", "host")
    return (*how, "--build-arg", f"DEVEL={devel}")


def test_a_series_that_touches_cuda_is_compiled_with_submodules_and_large_files(
    served: Shop, words: tuple[str, ...], build: Callable[..., Any], tmp_path: Path
) -> None:
    made = build(*words)
    assert (made["engine"], made["reused"], made["wheel"]) == ("buildx", False, None)
    held = own_files(tmp_path / made["image"]["path"])
    kernel = held[f"{SITE}/tensorrt_llm/kernel.bin"].decode()
    # The patched source, the submodule's header at its pinned commit, the flags of the recipe.
    assert kernel == f"120-real {KERNEL.decode()}// patched\n#pragma once\n"
    large = held[f"{SITE}/tensorrt_llm/fmha.sha256"].decode()
    assert large == hashlib.sha256(CUBIN).hexdigest()
    assert held[f"{SITE}/tensorrt_llm/tool.mode"] == b"0o755", "patched, and still a program"
    assert [name for name in held if name.endswith("/METADATA") and "sp." in name]
    assert build(*words)["reused"] is True
    mirror = (tmp_path / "home" / ".gitconfig").read_text().split('"')[1].encode()
    for content in every_byte(tmp_path / "dist"):
        assert mirror not in content, "where the sources came from is nobody's business"
        assert LOGIN.encode() not in content
    (log,) = (storage.cache_root() / "logs").glob("engine-*.txt")
    assert "***" in log.read_text(), "a step has printed its secret"
    assert LOGIN not in log.read_text()


def test_the_papers_name_every_input(
    served: Shop, words: tuple[str, ...], devel: str, build: Callable[..., Any], tmp_path: Path
) -> None:
    made = build(*words)
    lock = json.loads((tmp_path / made["lock"]).read_text())
    told = lock["inputs"]["engine"]
    assert told["name"] == "buildx"
    assert told["version"].partition(" ")[0] in ("buildkit", "dockerd")
    assert any(digit.isdigit() for digit in told["version"])
    assert told["args"] == {"DEVEL": devel}
    assert told["build-args"] == {"CUDA_ARCHS": "120-real"}
    assert told["package"] == "tensorrt_llm"
    folder = served.root / "dockerfiles"
    digests = {"Dockerfile": folder / "llm.Dockerfile"}
    digests |= {name: folder / name for name in ("tools/install.py", "tools/source.py")}
    wanted = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in digests.items()}
    assert {"Dockerfile": told["dockerfile"], **told["tools"]} == wanted

    statement = valid_statement((tmp_path / made["provenance"]).read_bytes())
    definition = statement["predicate"]["buildDefinition"]
    found = {one["name"]: one["digest"] for one in definition["resolvedDependencies"]}
    assert found["upstream source"] == {"gitCommit": served.commit}
    assert {name: found[name]["sha256"] for name in wanted} == wanted
    image, _, digest = devel.partition("@sha256:")
    assert found[image] == {"sha256": digest}
    assert [one["name"] for one in statement["subject"]] == ["image"]

    sbom = valid_sbom((tmp_path / made["sbom"]).read_bytes())
    pedigree = sbom["metadata"]["component"]["pedigree"]
    (patch,) = pedigree["patches"]
    assert patch["resolves"][0]["references"] == [ISSUE]
    assert pedigree["commits"][0]["uid"] == served.commit
    image = next(one for one in sbom["components"] if one["name"] == "llm")
    assert f"sha256:{image['hashes'][0]['content']}" == made["image"]["digest"]


def test_a_cold_build_elsewhere_gives_the_same_bytes_and_the_lock_brings_them_back(
    served: Shop,
    words: tuple[str, ...],
    build: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    first = build(*words, "--save-lock")
    cold = partial(EngineRequest, cold=True)
    monkeypatch.setattr("stackpatch.artefacts.external.EngineRequest", cold)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    lock = served.root / "recipes" / "llm.lock.json"
    elsewhere = tmp_path / "else where"
    argv = ["build", "--from-lock", str(lock), "--root", str(served.root), "--json"]
    assert main([*argv, "--out", str(elsewhere)]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["reused"], again["differences"]) == (False, [])
    for paper in ("lock", "sbom", "provenance"):
        assert Path(again[paper]).read_bytes() == (tmp_path / first[paper]).read_bytes()

    dockerfile = served.root / "dockerfiles" / "llm.Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + "# changed\n")
    assert main([*argv, "--out", str(tmp_path / "third")]) == 1
    found = json.loads(capsys.readouterr().out)["differences"]
    assert [line.partition(":")[0] for line in found] == ["engine.dockerfile"]


def test_what_was_compiled_verifies_and_is_published_with_its_papers(
    served: Shop,
    words: tuple[str, ...],
    real: Engine,
    build: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    made = build(*words)
    name = f"{real.registry}/tree-source:{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    root = ("--arch", "sm120", "--root", str(served.root), "--json")
    argv = ["publish", "llm", "--to", name, "--out", str(tmp_path / "dist"), *root]
    assert main(argv) == 0
    done = json.loads(capsys.readouterr().out)
    titles = [one["name"] for one in done["referrers"]]
    assert titles == ["sbom.cdx.json", "provenance.json", "lock.json"]
    for place in (tmp_path / made["image"]["path"], done["reference"]):
        assert main(["verify", str(place), "--stack", "llm", *root]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["version"] == {"found": made["patched"], "wanted": made["patched"]}
        # What was compiled cannot be read back from the image, and that is said.
        assert found["outside"] == ["cpp/tensorrt_llm/kernels/kernel.cu", "scripts/tool.sh"]
    # The released image is not this one.
    assert main(["verify", real.base, "--stack", "llm", *root]) == 1


def test_without_submodules_and_large_files_none_are_brought(
    served: Shop, words: tuple[str, ...], build: Callable[..., Any], tmp_path: Path
) -> None:
    served.recipe(submodules="false", lfs="false")
    held = own_files(tmp_path / build(*words)["image"]["path"])
    assert b"no submodule" in held[f"{SITE}/tensorrt_llm/kernel.bin"]
    large = held[f"{SITE}/tensorrt_llm/fmha.sha256"].decode()
    assert large != hashlib.sha256(CUBIN).hexdigest()


def test_a_build_from_source_needs_the_network_and_a_found_one_does_not(
    served: Shop, words: tuple[str, ...], build: Callable[..., Any], tmp_path: Path
) -> None:
    build(*words)
    assert build(*words, "--offline")["reused"] is True
    error = build(*words, "--offline", "--out", str(tmp_path / "new"), status=2)["error"]
    assert "brings upstream's sources over the network" in error["message"]


def test_a_step_that_fails_leaves_nothing_and_says_what_it_said(
    served: Shop, words: tuple[str, ...], build: Callable[..., Any], tmp_path: Path
) -> None:
    error = build(*words, "--build-arg", "BUILD_SCRIPT=scripts/none.py", status=1)["error"]
    assert "scripts/none.py" in json.dumps(error)
    assert not [
        path for path in (tmp_path / "dist").rglob("*") if path.is_file() and path.name[0] != "."
    ]


def test_a_series_of_python_files_is_built_from_source_if_asked(
    served: Shop,
    words: tuple[str, ...],
    build: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """And `verify` knows by the labels that the image states the patched version."""
    served.patch(LOADER, BEFORE, AFTER)
    made = build(*words, "--engine", "buildx")
    place = str(tmp_path / made["image"]["path"])
    argv = ["verify", place, "--stack", "llm", "--arch", "sm120", "--root", str(served.root)]
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["version"]["wanted"] == made["patched"]
    assert [one["path"] for one in found["files"]] == [LOADER]


def test_a_stack_below_is_installed_with_it(
    served: Shop,
    words: tuple[str, ...],
    build: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", str(tmp_path / "cache"))
    below = WheelShop(tmp_path)
    # The base's pip installs it without an index: the small wheel asks for torch.
    assert below.root == served.root
    served.recipe("    requires: {demo: '1.2.3'}\n")
    made = build(*words)
    held = own_files(tmp_path / made["image"]["path"])
    assert b"[10, 12]" in held[f"{SITE}/demo/gate.py"]
    assert f"{SITE}/tensorrt_llm/kernel.bin" in held
    lock = json.loads((tmp_path / made["lock"]).read_text())
    assert lock["inputs"]["requires"][0]["patched"].startswith("1.2.3+sp.")
    assert len(made["wheels"]) == 1


def test_buildah_makes_it_too(
    served: Shop, words: tuple[str, ...], build: Callable[..., Any], tmp_path: Path
) -> None:
    made = build(*words, "--engine", "buildah")
    assert made["engine"] == "buildah"
    held = own_files(tmp_path / made["image"]["path"])
    large = held[f"{SITE}/tensorrt_llm/fmha.sha256"].decode()
    assert large == hashlib.sha256(CUBIN).hexdigest()
    valid_statement((tmp_path / made["provenance"]).read_bytes())


def test_the_secret_of_a_killed_build_is_swept_by_the_next(
    served: Shop, words: tuple[str, ...], build: Callable[..., Any], tmp_path: Path
) -> None:
    argv = ["build", "llm", "--root", str(served.root), "--out", str(tmp_path / "dist"), *words]
    stage = "stackpatch.artefacts.engines.running:write_context"
    running = program(argv, stop=stage)
    until_there(running)
    running.kill()
    running.communicate(timeout=30)
    left = list((tmp_path / "dist").rglob("gitconfig"))
    assert [path.parent.stat().st_mode & 0o777 for path in left] == [0o700]
    build(*words)
    assert not [path for path in (tmp_path / "dist").rglob("*") if path.name.endswith(".tmp")]
