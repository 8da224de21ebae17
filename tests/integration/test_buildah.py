"""The buildah engine where it differs: no daemon, a storage of its own, a build that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from tests.engine import Engine, engine
from tests.engine_builds import own_files, request

from stackpatch.artefacts.engines import build_image, identify
from stackpatch.errors import EnvironmentProblem

SLOW = "ARG BASE\nFROM ${BASE}\nRUN echo started; sleep 60; echo done\n"


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = engine()
    found.use(monkeypatch)
    return found


def storage(folder: Path, monkeypatch: pytest.MonkeyPatch, driver: str) -> None:
    """An empty storage: nothing was pulled into it yet."""
    folder.mkdir()
    config = folder / "storage.conf"
    lines = (f'driver = "{driver}"', f'graphroot = "{folder}/g"', f'runroot = "{folder}/r"')
    config.write_text("\n".join(["[storage]", *lines, ""]))
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(config))


def containers() -> set[str]:
    done = subprocess.run(["buildah", "containers", "--quiet"], capture_output=True, text=True)
    return set(done.stdout.split())


def test_no_daemon_is_asked(real: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    build_image(request(real, tmp_path, engine="buildah"), tmp_path / "image")


def test_an_empty_storage_gives_the_same_image(
    real: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = build_image(request(real, tmp_path / "a", engine="buildah"), tmp_path / "a" / "image")
    driver = identify("buildah").partition("(")[2].rstrip(")")
    storage(tmp_path / "storage", monkeypatch, driver)
    try:
        empty = request(real, tmp_path / "b", engine="buildah")
        assert build_image(empty, tmp_path / "b" / "image").digest == usual.digest
    finally:
        subprocess.run(["buildah", "rmi", "--all", "--force"], capture_output=True)
        for mounted in ("g/overlay", "g"):
            subprocess.run(["umount", tmp_path / "storage" / mounted], capture_output=True)


def test_another_storage_driver_is_another_engine_in_the_lock(
    real: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = identify("buildah")
    storage(tmp_path / "storage", monkeypatch, "vfs")
    assert identify("buildah").endswith("(vfs)")
    assert usual != identify("buildah")


def test_a_build_that_is_killed_leaves_no_image_and_no_container(
    real: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage(tmp_path / "storage", monkeypatch, "vfs")  # where no other test's containers are
    one = request(real, tmp_path / "build", SLOW, engine="buildah")
    killed: list[int] = []

    def kill_it() -> None:
        found = subprocess.run(["pgrep", "-f", "buildah build"], capture_output=True, text=True)
        for pid in map(int, found.stdout.split()):
            if Path(f"/proc/{pid}/cwd").resolve().is_relative_to(tmp_path):
                killed.append(pid)
                os.kill(pid, signal.SIGTERM)

    def when_started(line: str) -> None:
        if line == "started":
            threading.Thread(target=kill_it).start()

    begun = time.monotonic()
    with pytest.raises(EnvironmentProblem) as caught:
        build_image(one, tmp_path / "out" / "image", progress=when_started)
    assert killed
    assert time.monotonic() - begun < 55
    assert str(one.log) in str(caught.value.hint)
    assert not list((tmp_path / "out").iterdir())
    assert len(containers()) <= 1  # a SIGTERM gives buildah no time to remove its own


def test_what_an_image_says_of_its_making_names_no_folder_of_ours(
    real: Engine, tmp_path: Path
) -> None:
    image = build_image(request(real, tmp_path, engine="buildah"), tmp_path / "image")
    said = image.config.decode() + image.manifest.decode()
    assert str(tmp_path) not in said
    assert "oci:" not in said
    assert "io.buildah.version" not in json.dumps(image.config_json()["config"])
    assert "srv/two" in own_files(tmp_path / "image")
