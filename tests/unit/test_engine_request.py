"""Requests, command lines and build contexts: what reaches an engine, word by word."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.images import LayoutMaker, tar_layer

from stackpatch.artefacts.engines import EngineBase, EngineRequest, buildah, buildx
from stackpatch.artefacts.engines.context import CONTEXT_TIME, write_context
from stackpatch.artefacts.oci import Image, Platform
from stackpatch.errors import InputError

AMD64 = Platform("linux", "amd64")
HERE = Path("/home/me")


def base_image() -> Image:
    maker = LayoutMaker(Path("/nowhere"))
    described = maker.image([tar_layer({"etc/os-release": b"ID=debian"})])
    manifest = maker.blobs[described["digest"].removeprefix("sha256:")]
    config = json.loads(manifest)["config"]["digest"].removeprefix("sha256:")
    return Image.read(manifest, maker.blobs[config], where="a test")


def request(**changes: Any) -> EngineRequest:
    made = EngineRequest(
        engine="buildx",
        stack="demo",
        dockerfile=Path("/d/demo.Dockerfile"),
        files={},
        base=EngineBase(base_image(), "registry.test/a/base"),
        platform="linux/amd64",
        epoch=1_770_000_000,
        log=Path("/l/log"),
    )
    return replace(made, **changes)


def after(words: tuple[str, ...], option: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == option]


def test_a_build_is_reproducible_by_its_options() -> None:
    one = request()
    words = buildx.argv(one, HERE)
    assert "--provenance=false" in words
    assert "--sbom=false" in words
    assert after(words, "--output") == ["type=oci,dest=result,tar=false,rewrite-timestamp=true"]
    named = f"registry.test/a/base@{one.base.image.digest}"
    assert after(words, "--build-arg") == [f"BASE={named}", "SOURCE_DATE_EPOCH=1770000000"]
    assert after(words, "--network") == ["none"]
    assert after(words, "--platform") == ["linux/amd64"]
    assert words[-1] == "context"


def test_what_a_person_adds_is_handed_on() -> None:
    words = buildx.argv(
        request(
            builder="farm",
            cache_from=("type=registry,ref=r.test/c",),
            cache_to=("type=registry,ref=r.test/c,mode=max",),
            network="host",
            cold=True,
        ),
        HERE,
    )
    assert after(words, "--builder") == ["farm"]
    assert after(words, "--cache-from") == ["type=registry,ref=r.test/c"]
    assert after(words, "--cache-to") == ["type=registry,ref=r.test/c,mode=max"]
    assert after(words, "--network") == ["host"]
    assert "--no-cache" in words


@pytest.mark.parametrize(
    ("given", "handed"),
    [
        ("type=local,dest=c,mode=max", "type=local,dest=/home/me/c,mode=max"),
        ("type=local,src=../a b", "type=local,src=/home/me/../a b"),
        ("type=local,src=/abs", "type=local,src=/abs"),
        ('type=local,"dest=a,b"', 'type=local,"dest=/home/me/a,b"'),
        ("type=registry,ref=r.test/c", "type=registry,ref=r.test/c"),
        ("r.test/c:1", "r.test/c:1"),
        ("type=gha,dest=x", "type=gha,dest=x"),
    ],
)
def test_a_local_cache_is_meant_from_where_the_person_is(given: str, handed: str) -> None:
    """The engine runs in a folder of ours, which goes when it has run."""
    words = buildx.argv(request(cache_from=(given,), cache_to=(given,)), HERE)
    assert after(words, "--cache-from") == after(words, "--cache-to") == [handed]


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_a_build_argument_is_one_word_whatever_is_in_it(value: str) -> None:
    for words in (
        buildx.argv(request(args={"NOTE": value}), HERE),
        buildah.argv(request(engine="buildah", args={"NOTE": value}), alone=False),
    ):
        assert f"NOTE={value}" in after(words, "--build-arg")


def test_secrets_are_named_and_never_in_the_words(tmp_path: Path) -> None:
    secret = tmp_path / "a, b.pem"
    secret.write_text("hunter2")
    for words in (
        buildx.argv(request(secrets={"ca": secret}), HERE),
        buildah.argv(request(engine="buildah", secrets={"ca": secret}), alone=False),
    ):
        assert after(words, "--secret") == ["id=ca,src=secrets/ca"]
        assert not [word for word in words if "hunter2" in word or str(tmp_path) in word]


def test_buildah_pulls_first_and_then_needs_no_network() -> None:
    one = request(engine="buildah", base=EngineBase(base_image(), "127.0.0.1:5000/base"))
    (pull,) = buildah.pull_argvs(one)
    assert pull[-1] == f"127.0.0.1:5000/base@{one.base.image.digest}"
    assert "--tls-verify=false" in pull  # loopback only
    words = buildah.argv(one, alone=True)
    assert words[:3] == ("unshare", "--net", "--")
    assert "--pull-never" in words
    assert after(words, "--timestamp") == ["1770000000"]
    assert "--tls-verify=false" not in buildah.argv(request(engine="buildah"), alone=False)


def test_buildah_pulls_the_development_image_too() -> None:
    devel = f"nvcr.test/devel@sha256:{'d' * 64}"
    one = request(engine="buildah", args={"DEVEL": devel})
    base, other = buildah.pull_argvs(one)
    assert other[:-1] == tuple(word for word in base[:-1] if word != "--tls-verify=false")
    assert other[-1] == devel


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"args": {"A B": "x"}}, "not a name"),
        ({"args": {"A=B": "x"}}, "not a name"),
        ({"args": {"-A": "x"}}, "not a name"),
        ({"args": {"A": "x\0y"}}, "NUL"),
        ({"args": {"A": "\ud800"}}, "UTF-8"),
        ({"args": {"HF_TOKEN": "x"}}, "history"),
        ({"args": {"DEVEL": "nvcr.io/a/devel:latest"}}, "another image tomorrow"),
        ({"args": {"MyPassword": "x"}}, "history"),
        ({"env": {"A-B": "x"}}, "environment"),
        ({"labels": {"a b": "x"}}, "label"),
        ({"secrets": {"a,b": Path("/dev/null")}}, "letters"),
        ({"secrets": {"ca": Path("/does/not/exist")}}, "no file"),
        ({"builder": "--push"}, "option"),
        ({"builder": ""}, "option"),
        ({"builder": "a\nb"}, "line end"),
        ({"cache_to": ("--push",)}, "option"),
        ({"network": "bridge"}, "none, host or default"),
        ({"engine": "buildah", "builder": "farm"}, "buildah has no builders"),
        ({"engine": "buildah", "cache_to": ("x",)}, "buildah has no builders"),
        ({"base": EngineBase(Image.scratch(AMD64), "r.test/a")}, "need a base image"),
        ({"base": EngineBase(base_image())}, "neither in a registry nor in a folder"),
        ({"base": EngineBase(base_image(), "R.test/A B")}, "not a reference"),
        ({"base": EngineBase(base_image(), "--push")}, "not a reference"),
    ],
)
def test_a_request_that_cannot_work_is_refused_before_an_engine_sees_it(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        request(**changes)


# --- the build context -----------------------------------------------------------------------


def tree(folder: Path) -> list[tuple[str, int, float, bytes]]:
    return [
        (
            path.relative_to(folder).as_posix(),
            path.lstat().st_mode,
            path.lstat().st_mtime,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(folder.rglob("*"))
    ]


def test_a_context_is_the_same_wherever_and_whenever_it_is_made(tmp_path: Path) -> None:
    dockerfile = tmp_path / "x.Dockerfile"
    dockerfile.write_text("ARG BASE\nFROM ${BASE}\n")
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "run.sh").write_text("#!/bin/sh\n")
    (source / "sub" / "link").symlink_to("run.sh")
    (source / ".git").mkdir()
    made = []
    for number, umask in enumerate((0o022, 0o077)):
        (source / "sub" / "run.sh").chmod(0o700 if number else 0o755)
        os.utime(source / "sub" / "run.sh", (number, number))
        before = os.umask(umask)
        try:
            folder = tmp_path / f"context{number}"
            files: dict[str, Path | bytes] = {"a/b.txt": b"hi\n", "source": source}
            write_context(folder, dockerfile, files, skip=(".git",))
        finally:
            os.umask(before)
        made.append(tree(folder))
    assert made[0] == made[1]
    names = [name for name, *_ in made[0]]
    assert names == [
        "Dockerfile",
        "a",
        "a/b.txt",
        "source",
        "source/sub",
        "source/sub/link",
        "source/sub/run.sh",
    ]
    assert {mtime for _, _, mtime, _ in made[0]} == {CONTEXT_TIME}


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a//b", "", ".git/config", "Dockerfile", ".dockerignore"]
)
def test_nothing_is_put_where_it_must_not_be(tmp_path: Path, name: str) -> None:
    dockerfile = tmp_path / "x.Dockerfile"
    dockerfile.write_text("FROM x\n")
    with pytest.raises(InputError, match="cannot put"):
        write_context(tmp_path / "context", dockerfile, {name: b""})


def test_a_link_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    dockerfile = tmp_path / "x.Dockerfile"
    dockerfile.write_text("FROM x\n")
    source = tmp_path / "source"
    source.mkdir()
    (source / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="leaves its folder"):
        write_context(tmp_path / "context", dockerfile, {"source": source})


@pytest.mark.parametrize("line", ["# syntax=docker/dockerfile:1", "#syntax = x", "# Syntax=x"])
def test_a_frontend_from_the_network_is_refused(tmp_path: Path, line: str) -> None:
    dockerfile = tmp_path / "x.Dockerfile"
    dockerfile.write_text(f"# a comment\n{line}\nFROM x\n")
    with pytest.raises(InputError, match="frontend") as caught:
        write_context(tmp_path / "context", dockerfile, {})
    assert caught.value.where == f"{dockerfile}:2"


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        write_context(tmp_path / "a", tmp_path / "none.Dockerfile", {})
    dockerfile = tmp_path / "x.Dockerfile"
    dockerfile.write_text("FROM x\n")
    with pytest.raises(InputError, match="does not exist"):
        write_context(tmp_path / "b", dockerfile, {"w.whl": tmp_path / "w.whl"})


def test_a_pipe_is_no_source(tmp_path: Path) -> None:
    dockerfile = tmp_path / "x.Dockerfile"
    dockerfile.write_text("FROM x\n")
    (tmp_path / "source").mkdir()
    subprocess.run(["mkfifo", tmp_path / "source" / "pipe"], check=True)
    with pytest.raises(InputError, match="no file, no folder"):
        write_context(tmp_path / "context", dockerfile, {"source": tmp_path / "source"})
