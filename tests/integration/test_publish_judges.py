"""What others make of our pushes: crane validates them, docker pulls and runs them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.engine import Engine, engine
from tests.publishing import base_layout, finished_build, publish

if TYPE_CHECKING:
    from pathlib import Path

    from tests.registries import RunningRegistry

    from stackpatch.registry.finished import Finished


@pytest.fixture(scope="module")
def judges() -> Engine:
    return engine()


@pytest.fixture(scope="module")
def both(
    registry: RunningRegistry, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Finished, Finished]:
    """For two arches, on bases of their own, published under one tag."""
    made = []
    for arch, architecture in (("sm120", "amd64"), ("sm121", "arm64")):
        folder = tmp_path_factory.mktemp(arch)
        base = base_layout(folder / "base", architecture=architecture)
        made.append(finished_build(folder, arch=arch, base=str(base)))
        publish(made[-1], registry.host, "judged/image")
    return made[0], made[1]


def crane(judges: Engine, *words: str) -> str:
    if shutil.which("crane", path=judges.env["PATH"]) is None:
        pytest.fail("scripts/engine brought no crane")
    return judges.run("crane", *words)


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64"])
def test_crane_validates_every_layer(
    judges: Engine, registry: RunningRegistry, both: tuple[Finished, Finished], platform: str
) -> None:
    said = judges.env | {}
    done = subprocess.run(
        [
            "crane",
            "validate",
            "--platform",
            platform,
            "--remote",
            f"{registry.host}/judged/image:t",
        ],
        env=said,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "PASS" in done.stdout + done.stderr


def test_crane_finds_the_same_digest(
    judges: Engine, registry: RunningRegistry, both: tuple[Finished, Finished]
) -> None:
    raw = registry.manifest("judged/image", "t")
    assert raw is not None
    digest = crane(judges, "digest", f"{registry.host}/judged/image:t").strip()
    assert digest == f"sha256:{hashlib.sha256(raw).hexdigest()}"


def test_crane_append_of_our_layer_has_the_same_layer(
    judges: Engine, registry: RunningRegistry, both: tuple[Finished, Finished], tmp_path: Path
) -> None:
    """Its manifest differs: ours also has the labels, the environment and the annotations."""
    finished = both[0]
    layer = finished.image.layers[-1]
    file = tmp_path / "layer.tar.gz"
    file.write_bytes(finished.layout.blob_path(layer.digest).read_bytes())
    base = base_layout(tmp_path / "base", architecture="amd64")
    registry.put_layout("judged/base", base, "v1")
    words = ("append", "-b", f"{registry.host}/judged/base:v1", "-f", str(file))
    crane(judges, *words, "-t", f"{registry.host}/judged/appended:v1")
    theirs = json.loads(registry.manifest("judged/appended", "v1") or b"")
    ours = finished.image.manifest_json()
    assert [one["digest"] for one in theirs["layers"]] == [one["digest"] for one in ours["layers"]]


def test_docker_pulls_it_by_tag_and_by_digest(
    judges: Engine, registry: RunningRegistry, both: tuple[Finished, Finished]
) -> None:
    raw = registry.manifest("judged/image", "t")
    assert raw is not None
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    for name in (f"{registry.host}/judged/image:t", f"{registry.host}/judged/image@{digest}"):
        judges.run("docker", "pull", "--quiet", name)
        try:
            shown = json.loads(judges.run("docker", "image", "inspect", name))[0]
            assert shown["Config"]["Labels"]["stackpatch.arch"] == "sm120"
            assert shown["Architecture"] == "amd64"
        finally:
            judges.run("docker", "image", "rm", "--force", name)
