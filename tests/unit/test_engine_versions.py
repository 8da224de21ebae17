"""Engines that are missing, old, silent or odd: programs put in their place that say so."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from stackpatch.artefacts.engines import identify, versions
from stackpatch.artefacts.engines.versions import find_buildah, find_buildx
from stackpatch.errors import EnvironmentProblem

if TYPE_CHECKING:
    from pathlib import Path

INSPECT = """\
Name: {name}
Driver: {driver}

Nodes:
Name: n0
Status: running
{version}
Platforms: linux/amd64*, linux/arm64
"""


class Docker:
    """A `docker` that answers what a test puts into it: a fault, not the real one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bin"
        self.folder.mkdir()
        self.answers: dict[str, tuple[int, str]] = {}
        self.says("buildx version", "github.com/docker/buildx v0.13.1 abc")
        self.inspect()
        self.says("version", json.dumps({"Version": "26.1.5+dfsg1"}))
        self.says("info", '[["driver-type","io.containerd.snapshotter.v1"]]')

    def says(self, words: str, text: str, status: int = 0) -> None:
        self.answers[words] = (status, text)

    def inspect(self, driver: str = "docker", *versions: str, name: str = "default") -> None:
        lines = "\n".join(f"BuildKit version: {one}" for one in versions or ("v0.13.2",))
        text = INSPECT.format(driver=driver, version=lines, name=name)
        self.says("buildx inspect", text)

    def install(self, program: str = "docker") -> None:
        """Write the program: a shell script that knows these answers."""
        lines = ["#!/bin/sh", 'case "$*" in']
        for number, (words, (status, text)) in enumerate(
            sorted(self.answers.items(), reverse=True)
        ):
            file = self.folder / f"answer-{number}"
            file.write_text(text)
            where = 1 if status == 0 else 2
            lines.append(f'"{words}"*) cat {file} >&{where}; exit {status};;')
        (self.folder / program).write_text("\n".join([*lines, "esac", "exit 64", ""]))
        (self.folder / program).chmod(0o755)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    made = Docker(tmp_path)
    monkeypatch.setenv("PATH", f"{made.folder}:/usr/bin:/bin")
    return made


def refused(engine: str = "buildx", **how: str) -> EnvironmentProblem:
    with pytest.raises(EnvironmentProblem) as caught:
        identify(engine, **how)  # type: ignore[arg-type]
    return caught.value


def test_a_good_one_is_named_for_the_lock(docker: Docker) -> None:
    docker.install()
    assert identify("buildx") == "buildkit 0.13.2"
    docker.inspect("docker", "v0.0.0+unknown")  # as Debian builds it
    docker.install()
    assert identify("buildx") == "dockerd 26.1.5"


@pytest.mark.parametrize(
    ("versions", "driver", "found", "needed"),
    [
        (("v0.12.5",), "docker-container", "0.12.5", "0.13"),
        (("v0.14.0", "v0.11.6"), "kubernetes", "0.11.6", "0.13"),  # the oldest node decides
    ],
)
def test_an_old_buildkit_is_named_with_both_versions(
    docker: Docker, versions: tuple[str, ...], driver: str, found: str, needed: str
) -> None:
    docker.inspect(driver, *versions, name="farm")
    docker.install()
    error = refused(builder="farm")
    assert found in error.message
    assert needed in error.message
    assert "farm" in error.message


def test_an_old_buildx_is_named_with_both_versions(docker: Docker) -> None:
    docker.says("buildx version", "github.com/docker/buildx v0.9.1 abc")
    docker.install()
    error = refused()
    assert "0.9.1" in error.message
    assert "0.10" in error.message


def test_an_old_dockerd_is_named_with_both_versions(docker: Docker) -> None:
    docker.inspect("docker", "v0.0.0+unknown")
    docker.says("version", json.dumps({"Version": "24.0.7"}))
    docker.install()
    error = refused()
    assert "24.0.7" in error.message
    assert "26.0" in error.message


def test_a_dockerd_without_the_image_store_says_what_to_set(docker: Docker) -> None:
    docker.says("info", '[["Backing Filesystem","extfs"]]')
    docker.install()
    error = refused()
    assert "containerd image store" in error.message
    assert "containerd-snapshotter" in str(error.hint)


def test_a_builder_that_does_not_say_its_version_is_not_trusted(docker: Docker) -> None:
    docker.inspect("remote", "")
    docker.install()
    assert "does not say which BuildKit" in refused().message


def test_a_builder_whose_buildkit_has_no_version_is_quoted(docker: Docker) -> None:
    docker.inspect("remote", "v0.0.0+unknown", name="farm")
    docker.install()
    error = refused(builder="farm")
    assert "builder farm does not say which BuildKit it is (v0.0.0+unknown)" in error.message
    assert "0.13 or newer" in error.message
    assert "inspect --bootstrap farm" in str(error.hint)


@pytest.mark.parametrize("state", ["inactive", "stopped"])
def test_a_builder_that_does_not_run_is_said_not_to(docker: Docker, state: str) -> None:
    """As `docker buildx inspect` shows a remote one that is away, and a new container's."""
    docker.says(
        "buildx inspect",
        f"Name: farm\nDriver: remote\n\nNodes:\nName: n0\nEndpoint: tcp://x:1\nStatus: {state}\n",
    )
    docker.install()
    error = refused(builder="farm")
    assert error.message.startswith(f"builder farm is {state}")
    assert "docker buildx inspect --bootstrap farm" in str(error.hint)
    assert "starts it" in str(error.hint)


def test_a_docker_without_buildx_says_what_to_install(docker: Docker) -> None:
    docker.says("buildx version", "docker: 'buildx' is not a docker command.", 1)
    docker.install()
    error = refused()
    assert "no buildx plugin" in error.message
    assert "docker-buildx" in str(error.hint)


def test_a_daemon_that_is_away_is_told_with_its_words(docker: Docker) -> None:
    docker.says("buildx inspect", "ERROR: Cannot connect to the Docker daemon at unix:///x", 1)
    docker.install()
    assert "Cannot connect to the Docker daemon" in refused().message


def test_a_builder_whose_node_fails_is_told_with_its_words(docker: Docker) -> None:
    docker.says("buildx inspect", "Name: farm\nDriver: remote\nError: dial tcp: refused\n")
    docker.install()
    assert "dial tcp: refused" in refused(builder="farm").message


def test_another_platform_is_refused_with_those_there(docker: Docker) -> None:
    docker.install()
    assert identify("buildx", platform="linux/arm64") == "buildkit 0.13.2"
    error = refused(platform="linux/riscv64")
    assert "linux/riscv64" in error.message
    assert "linux/arm64" in str(error.hint)


def test_nonsense_is_not_read_as_a_version(docker: Docker) -> None:
    docker.says("buildx version", "hello")
    docker.install()
    assert "no answer that we can read" in refused().message


def test_missing_programs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "docker is not installed" in refused("buildx").message
    assert "buildah is not installed" in refused("buildah").message


@pytest.mark.parametrize(
    ("version", "info", "words"),
    [
        ("buildah version 1.18.0", None, "1.18.0 is too old, 1.28"),
        ("what?", None, "no answer that we can read"),
        ("buildah version 1.28.2", "not json", "no answer that we can read"),
    ],
)
def test_a_buildah_that_cannot_is_named(
    docker: Docker, version: str, info: str | None, words: str
) -> None:
    docker.answers = {}
    docker.says("--version", version)
    docker.says("info", info or json.dumps({"store": {"GraphDriverName": "overlay"}}))
    docker.install("buildah")
    assert words in refused("buildah").message


def test_a_buildah_that_cannot_work_here_is_told_with_its_words(docker: Docker) -> None:
    docker.answers = {}
    docker.says("--version", "mkdir /run/user/7: permission denied", 1)
    docker.install("buildah")
    assert refused("buildah").message == (
        "`buildah --version` fails here: mkdir /run/user/7: permission denied"
    )


def test_buildahs_driver_is_part_of_what_it_is(docker: Docker) -> None:
    docker.answers = {}
    docker.says("--version", "buildah version 1.33.7 (image-spec 1.1.0)")
    docker.says("info", json.dumps({"store": {"GraphDriverName": "vfs"}}))
    docker.install("buildah")
    assert identify("buildah") == "buildah 1.33.7 (vfs)"
    assert find_buildah().problem() is None


def test_buildah_runs_no_steps_of_another_machine_without_emulation(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.answers = {}
    docker.says("--version", "buildah version 1.33.7")
    docker.says("info", json.dumps({"store": {"GraphDriverName": "overlay"}}))
    docker.install("buildah")
    monkeypatch.setattr(versions, "_BINFMT", tmp_path)
    own = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    other = {"amd64": "arm64", "arm64": "amd64"}[own]
    assert identify("buildah", platform=f"linux/{own}")
    error = refused("buildah", platform=f"linux/{other}")
    assert f"linux/{other}" in error.message
    assert "emulation" in str(error.hint)
    (tmp_path / {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}[other]).touch()
    assert identify("buildah", platform=f"linux/{other}")


def test_what_was_found_can_be_looked_at_without_a_refusal(docker: Docker) -> None:
    docker.inspect("docker-container", "v0.12.5", name="old")
    docker.install()
    found = find_buildx("old")
    assert (found.driver, found.buildkit, found.builder) == ("docker-container", "0.12.5", "old")
    assert found.problem() is not None
