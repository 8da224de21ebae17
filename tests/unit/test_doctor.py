"""What doctor finds: the real tools of this machine, and programs that lie, hang or are too old."""

from __future__ import annotations

import http.server
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from stackpatch import proc
from stackpatch.checks import doctor, probes, probes_engines, probes_gpu, reachable
from stackpatch.checks.doctor import Finding, Level, Probe
from stackpatch.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Put a shell script of that name first on PATH."""
    folder = tmp_path / "fake-bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty PATH."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


# --- running probes ----------------------------------------------------------------------------


def test_findings_come_in_order_and_at_once() -> None:
    together = threading.Barrier(4)

    def slow(_: float) -> Finding:
        together.wait(4)  # one after the other would break it
        return Finding("slow", Level.OK)

    wanted = [
        Probe(str(n), slow if n % 2 else lambda _: Finding("quick", Level.OK)) for n in range(8)
    ]
    found = doctor.examine(wanted, timeout=5)
    assert [finding.name for finding in found] == ["quick", "slow"] * 4


def test_a_probe_that_hangs_costs_a_line() -> None:
    never = threading.Event()

    def hang(_: float) -> Finding:
        never.wait(60)
        raise AssertionError

    begun = time.monotonic()
    wanted = [Probe("hangs", hang), Probe("quick", lambda _: Finding("quick", Level.OK))]
    found = doctor.examine(wanted, timeout=0.2)
    never.set()
    assert time.monotonic() - begun < 3
    assert [(f.name, f.level) for f in found] == [("hangs", Level.UNKNOWN), ("quick", Level.OK)]
    assert "no answer within 0.2 s" in found[0].detail


def test_a_hang_of_something_required_blocks() -> None:
    def hang(_: float) -> Finding:
        time.sleep(3)
        raise AssertionError

    (found,) = doctor.examine([Probe("git", hang, required=True)], timeout=0.1)
    assert found.blocks


def test_a_probe_that_fails_does_not_hide_the_others() -> None:
    def broken(_: float) -> Finding:
        msg = "surprise"
        raise ZeroDivisionError(msg)

    def known(_: float) -> Finding:
        msg = "it did not finish"
        raise EnvironmentProblem(msg, hint="wait")

    wanted = [Probe("a", broken), Probe("b", known), Probe("c", lambda _: Finding("c", Level.OK))]
    found = doctor.examine(wanted)
    assert found[0].detail == "ZeroDivisionError: surprise"
    assert (found[1].detail, found[1].advice) == ("it did not finish", "wait")
    assert found[2].level is Level.OK
    assert not any(finding.blocks for finding in found)


@pytest.mark.parametrize("level", list(Level))
def test_only_something_required_blocks(level: Level) -> None:
    assert not Finding("x", level).blocks
    usable = level in {Level.OK, Level.LIMITED}
    assert Finding("x", level, required=True).blocks is not usable


# --- git ---------------------------------------------------------------------------------------


def test_the_git_of_this_machine() -> None:
    said = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout
    found = probes.git(10)
    assert found.version
    assert found.version in said
    assert found.level is Level.OK  # the tests need 2.38 themselves
    assert not found.blocks


def test_no_git(nothing: None) -> None:
    found = probes.git(5)
    assert (found.level, found.blocks) == (Level.ABSENT, True)
    assert found.advice


def test_an_old_git_is_good_enough_for_some(fake: Callable[[str, str], Path]) -> None:
    fake(
        "git",
        """case "$1" in
        --version) echo 'git version 2.25.1' ;;
        fast-import) echo 'usage: git fast-import [--date-format=<f>]'; exit 129 ;;
        merge-tree) echo 'usage: git merge-tree <base-tree> <branch1> <branch2>' >&2; exit 129 ;;
        esac""",
    )
    found = probes.git(5)
    assert (found.level, found.version, found.blocks) == (Level.LIMITED, "2.25.1", False)
    assert "rebase" in found.good_for
    assert "2.38" in str(found.advice)


def test_a_git_without_fast_import_is_unusable(fake: Callable[[str, str], Path]) -> None:
    fake(
        "git",
        """case "$1" in
        --version) echo 'git version 2.39.5' ;;
        *) echo "git: '$1' is not a git command." >&2; exit 1 ;;
        esac""",
    )
    # "fast-import" stands in the complaint too: what tells is the usage
    found = probes.git(5)
    assert (found.level, found.blocks) == (Level.UNUSABLE, True)


@pytest.mark.parametrize("script", ["echo hello", "exit 3", "echo 'git version banana'", ":"])
def test_a_git_that_cannot_be_understood(fake: Callable[[str, str], Path], script: str) -> None:
    fake("git", script)
    found = probes.git(5)
    assert (found.level, found.found, found.blocks) == (Level.UNKNOWN, True, True)
    assert "git --version" in str(found.advice)


def test_a_git_that_hangs(fake: Callable[[str, str], Path]) -> None:
    fake("git", "exec sleep 60")
    begun = time.monotonic()
    (found,) = doctor.examine([Probe("git", probes.git, required=True)], timeout=0.3)
    assert time.monotonic() - begun < 5
    assert (found.level, found.blocks) == (Level.UNKNOWN, True)
    assert "did not finish within 0.3 s" in found.detail


# --- engines -----------------------------------------------------------------------------------


def test_docker_with_a_daemon(fake: Callable[[str, str], Path]) -> None:
    fake(
        "docker",
        """
        [ "$1" = version ] &&
            echo '{"Client":{"Version":"28.2.2"},"Server":{"Version":"26.1.5"}}'
        [ "$1" = buildx ] && echo 'github.com/docker/buildx v0.13.1 0de5e8c'""",
    )
    # a `[ … ] &&` that is false leaves status 1, as real clients do without a daemon
    found = probes_engines.docker(5)
    assert (found.level, found.version, found.detail) == (Level.OK, "28.2.2", "daemon 26.1.5")
    assert probes_engines.buildx(5).version == "0.13.1"


def test_docker_without_a_daemon(fake: Callable[[str, str], Path]) -> None:
    fake(
        "docker",
        """echo '{"Client":{"Version":"28.2.2"},"Server":null}'
        echo 'Cannot connect to the Docker daemon' >&2; exit 1""",
    )
    found = probes_engines.docker(5)
    assert (found.level, found.found) == (Level.LIMITED, True)
    assert "Cannot connect" in found.detail


@pytest.mark.parametrize("text", ["", "hello", "{}", "[]", '"x"', '{"Client": null}', "\\0\\377"])
def test_docker_that_says_something_else(fake: Callable[[str, str], Path], text: str) -> None:
    fake("docker", f"printf '%s' '{text}'")
    found = probes_engines.docker(5)
    assert (found.level, found.found, found.blocks) == (Level.UNKNOWN, True, False)


def test_docker_that_hangs_costs_no_more_than_its_time(fake: Callable[[str, str], Path]) -> None:
    fake("docker", "exec sleep 60")
    begun = time.monotonic()
    found = doctor.examine(
        [Probe("docker", probes_engines.docker), Probe("buildx", probes_engines.buildx)],
        timeout=0.3,
    )
    assert time.monotonic() - begun < 5
    assert {finding.level for finding in found} == {Level.UNKNOWN}


def test_no_engines(nothing: None) -> None:
    for probe in (
        probes_engines.docker,
        probes_engines.buildx,
        probes_engines.buildah,
        probes_engines.podman,
    ):
        found = probe(5)
        assert (found.level, found.found, found.blocks) == (Level.ABSENT, False, False)
        assert found.good_for


BUILDAH = """
[ "$1" = --version ] && { echo 'buildah version VERSION (image-spec 1.0.2)'; exit; }
echo '{"store": {"GraphDriverName": "overlay"}}'"""


def test_buildah_and_its_age(fake: Callable[[str, str], Path]) -> None:
    fake("buildah", BUILDAH.replace("VERSION", "1.28.2"))
    found = probes_engines.buildah(5)
    assert (found.level, found.version) == (Level.OK, "1.28.2")
    assert found.detail == "storage driver overlay"
    fake("buildah", BUILDAH.replace("VERSION", "1.9.0"))
    old = probes_engines.buildah(5)
    assert (old.level, old.version) == (Level.LIMITED, "1.9.0")
    assert "1.28 or newer is needed" in old.detail
    fake("buildah", "[ \"$1\" = --version ] && echo 'buildah version 1.28.2'; exit 0")
    assert probes_engines.buildah(5).level is Level.LIMITED  # its storage cannot be read


INSPECT = """
case "$*" in
  "buildx version") echo 'github.com/docker/buildx v0.13.1 0de5e8c';;
  "buildx inspect") printf 'Name: b\nDriver: docker-container\nBuildKit version: VERSION\n';
    printf 'Platforms: linux/amd64, linux/amd64/v2\n';;
esac"""


def test_buildx_says_what_its_builder_is_good_for(fake: Callable[[str, str], Path]) -> None:
    fake("docker", INSPECT.replace("VERSION", "v0.13.2"))
    found = probes_engines.buildx(5)
    assert (found.level, found.good_for) == (Level.OK, "the buildx engine")
    assert found.detail == "builder b (docker-container): buildkit 0.13.2, for linux/amd64"
    fake("docker", INSPECT.replace("VERSION", "v0.12.5"))
    old = probes_engines.buildx(5)
    assert old.level is Level.LIMITED
    assert "0.12.5 is too old, 0.13 or newer is needed" in old.detail
    assert old.advice == "install 0.13 or newer"


def test_podman(fake: Callable[[str, str], Path]) -> None:
    fake("podman", "echo 'podman version 4.3.1'")
    assert probes_engines.podman(5).version == "4.3.1"


# --- CUDA --------------------------------------------------------------------------------------

NVCC = """case "$1" in
--version) echo 'Cuda compilation tools, release {version}, V{version}.88' ;;
--list-gpu-code) printf '%s\\n' {targets} ;;
esac"""


@pytest.mark.parametrize(
    ("version", "targets", "can", "cannot"),
    [
        ("13.0", "sm_89 sm_90 sm_100 sm_103 sm_110 sm_120 sm_121", "sm121", None),
        ("12.8", "sm_89 sm_90 sm_100 sm_101 sm_120", "sm120", "sm121 (needs 12.9)"),
        ("12.9", "", "sm121", "sm110 (needs 13.0)"),
        ("11.5", "sm_80 sm_86", "none of our arches", "sm89 (needs 11.8)"),
    ],
)
def test_nvcc_and_the_arches_it_can_target(
    fake: Callable[[str, str], Path], version: str, targets: str, can: str, cannot: str | None
) -> None:
    fake("nvcc", NVCC.format(version=version, targets=targets))
    found = probes_gpu.nvcc(5)
    assert found.version == version
    assert can in found.good_for
    assert (found.level is Level.LIMITED) is (cannot is not None)
    if cannot:
        assert cannot in found.detail
        assert cannot.split()[0] not in found.good_for


def test_nvcc_beside_path(
    nothing: None, fake: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = fake("nvcc", NVCC.format(version="13.0", targets=""))
    toolkit = tmp_path / "cuda" / "bin" / "nvcc"
    toolkit.parent.mkdir(parents=True)
    there.rename(toolkit)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    assert str(toolkit) in probes_gpu.nvcc(5).detail


def test_the_nvcc_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    found = probes_gpu.nvcc(20)
    if shutil.which("nvcc") or os.access("/usr/local/cuda/bin/nvcc", os.X_OK):
        assert found.version
        assert found.level in {Level.OK, Level.LIMITED}
    else:
        assert found.level is Level.ABSENT


@pytest.mark.parametrize(
    ("lines", "level", "good_for"),
    [
        ("NVIDIA GB10, 12.1, 580.95.05", Level.OK, "sm121"),
        ("NVIDIA H200, 9.0, 570.1\\nNVIDIA RTX 5090, 12.0, 570.1", Level.OK, "sm120, sm90"),
        ("Odd, Name, 12.1, 580.1", Level.OK, "sm121"),
        ("Tesla T4, 7.5, 535.1", Level.LIMITED, "no smoke check"),
        ("", Level.ABSENT, "everything but"),
        ("banana", Level.UNKNOWN, "cannot be read"),
        ("NVIDIA GB10, [N/A], 580", Level.UNKNOWN, "cannot be read"),
    ],
)
def test_gpus(fake: Callable[[str, str], Path], lines: str, level: Level, good_for: str) -> None:
    fake("nvidia-smi", f"printf '{lines}'")
    found = probes_gpu.gpu(5)
    assert found.level is level
    assert good_for in found.good_for
    assert not found.blocks


def test_a_driver_that_does_not_answer(fake: Callable[[str, str], Path]) -> None:
    fake("nvidia-smi", "echo 'couldn'\\''t communicate with the NVIDIA driver'; exit 9")
    found = probes_gpu.gpu(5)
    assert (found.level, found.blocks) == (Level.UNUSABLE, False)
    assert "communicate with the NVIDIA driver" in found.detail


def test_no_gpu_is_fine(nothing: None) -> None:
    assert probes_gpu.gpu(5).level is Level.ABSENT


# --- disk, packages, grammars ------------------------------------------------------------------


def usage(free: int) -> Callable[[Path], shutil._ntuple_diskusage]:
    return lambda _: shutil._ntuple_diskusage(1 << 40, (1 << 40) - free, free)


def test_the_disk_of_this_machine(tmp_path: Path) -> None:
    found = probes.disk("disk: cache", tmp_path / "not" / "yet" / "there")
    assert found.found
    assert str(tmp_path) in found.detail
    assert "not/yet" not in found.detail


@pytest.mark.parametrize(
    ("free", "level"), [(100 << 20, Level.UNUSABLE), (1 << 30, Level.LIMITED), (1 << 36, Level.OK)]
)
def test_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: Level
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", usage(free))
    found = probes.disk("disk: cache", tmp_path)
    assert found.level is level
    assert found.blocks is (level is Level.UNUSABLE)
    if level is not Level.OK:
        assert "STACKPATCH_CACHE_DIR" in str(found.advice)


def test_a_cache_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    found = probes.disk("disk: cache", tmp_path / "file" / "below")
    assert (found.level, found.blocks) == (Level.UNUSABLE, True)


def test_a_cache_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shut = tmp_path / "shut"
    shut.mkdir()
    shut.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.geteuid() == 0:  # root may write anywhere; a read-only mount shows the same to access()
        monkeypatch.setattr(os, "access", lambda *_: False)
    assert probes.disk("disk: cache", shut).blocks
    dist = probes.disk("disk: dist", shut)
    assert dist.level is Level.LIMITED
    assert "--out" in str(dist.advice)


def test_our_packages_are_there() -> None:
    found = probes.packages()
    assert found.level is Level.OK, found.detail
    assert "pygit2" in found.detail
    assert "pytest" not in found.detail  # of an extra


def test_a_package_that_is_missing_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["pygit2>=999", "not-there-at-all", "rich", "nobody; python_version<'3'"]
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    found = probes.packages()
    assert found.level is Level.LIMITED
    assert "not-there-at-all is missing" in found.detail
    assert "is not >=999" in found.detail
    assert "rich" not in found.detail
    assert "nobody" not in found.detail


def test_the_grammars_load() -> None:
    assert probes.grammars().level is Level.OK


def test_a_grammar_that_does_not_load_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(probes._SAMPLES, "klingon", b"")
    found = probes.grammars()
    assert (found.level, found.blocks) == (Level.LIMITED, False)
    assert "klingon" in found.detail


# --- the package index -------------------------------------------------------------------------


class _Index(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Index) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://user:secret@127.0.0.1:{server.server_address[1]}/simple?token=abc"
        monkeypatch.setenv("PIP_INDEX_URL", url)
        yield url
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "level"),
    [(200, Level.OK), (404, Level.LIMITED), (401, Level.UNUSABLE), (503, Level.UNUSABLE)],
)
def test_what_an_index_answers(
    index: str, monkeypatch: pytest.MonkeyPatch, status: int, level: Level
) -> None:
    monkeypatch.setattr(_Index, "status", status)
    found = reachable.package_index(5)
    assert found.level is level
    assert "secret" not in str(found)
    assert "token" not in str(found)
    assert "PIP_INDEX_URL" in found.detail


def test_an_index_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    found = reachable.package_index(5)
    assert (found.level, found.blocks) == (Level.UNUSABLE, False)
    assert "secret" not in str(found)
    assert "refused" in found.detail.lower()


def test_an_index_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        begun = time.monotonic()
        found = reachable.package_index(0.3)
        assert time.monotonic() - begun < 5
    assert found.level is Level.UNUSABLE


def test_an_index_that_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "with space").as_uri())
    assert reachable.package_index(5).level is Level.UNUSABLE
    (tmp_path / "with space").mkdir()
    assert reachable.package_index(5).level is Level.OK
    monkeypatch.setenv("PIP_INDEX_URL", "ftp://example.invalid/simple")
    assert "ftp" in reachable.package_index(5).detail


def test_pips_own_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PIP_CONFIG_FILE", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setattr(reachable, "_system_folders", list)
    assert reachable.index_setting() == ("https://pypi.org/simple", "default")
    old = tmp_path / ".pip" / "pip.conf"
    new = tmp_path / ".config" / "pip" / "pip.conf"
    for path, url in ((old, "https://old.invalid"), (new, "https://u:p%40@new.invalid/simple")):
        path.parent.mkdir(parents=True)
        path.write_text(f"[global]\nindex_url = {url}\n")
    assert reachable.index_setting() == (
        "https://u:p%40@new.invalid/simple",
        "pip's configuration",
    )
    new.write_bytes(b"\xff\xfe not a configuration")
    assert reachable.index_setting()[0] == "https://old.invalid"


def test_credentials_are_never_shown() -> None:
    shown = reachable.without_credentials("https://u:p@host:8443/simple/?t=1#x")
    assert shown == "https://host:8443/simple/"


# --- all of it ---------------------------------------------------------------------------------


def test_everything_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", tmp_path.as_uri())
    wanted = probes.probes(tmp_path)
    found = doctor.examine(wanted, timeout=20)
    assert [finding.name for finding in found] == [probe.name for probe in wanted]
    for finding in found:
        assert finding.good_for or finding.detail
        assert finding.found is (finding.level is not Level.ABSENT) or not finding.found
    assert not [finding for finding in found if finding.blocks]


def test_programs_are_not_asked_in_the_persons_language(
    fake: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    fake("podman", 'echo "podman version 4.$([ "$LC_ALL" = C.UTF-8 ] && echo 3.1)"')
    assert proc.find("podman")
    assert probes_engines.podman(5).version == "4.3.1"
