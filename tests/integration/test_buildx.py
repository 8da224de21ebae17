"""The buildx engine where it differs: its cache, its builders, and a daemon that goes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.engine import Engine, engine
from tests.engine_builds import Wire, request

from stackpatch.artefacts.engines import build_image, identify
from stackpatch.errors import EnvironmentProblem

SLOW = "ARG BASE\nFROM ${BASE}\nRUN echo started; sleep 60; echo done\n"


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = engine()
    found.use(monkeypatch)
    return found


def unique(tmp_path: Path) -> str:
    """A Dockerfile that no cache knows, and whose result is the same each time."""
    return f"ARG BASE\nFROM ${{BASE}}\nCOPY f /srv/f\nRUN echo {tmp_path.name} > /srv/own\n"


def test_a_warm_cache_gives_what_a_cold_one_gives(real: Engine, tmp_path: Path) -> None:
    text = unique(tmp_path)
    cold = request(real, tmp_path / "cold", text, cold=True)
    first = build_image(cold, tmp_path / "cold" / "image")
    warm = request(real, tmp_path / "warm", text, cold=False)
    second = build_image(warm, tmp_path / "warm" / "image")
    assert "CACHED" in warm.log.read_text()
    assert first.digest == second.digest


def test_a_cache_of_another_release_time_changes_nothing(real: Engine, tmp_path: Path) -> None:
    """moby/buildkit#4748: a cached layer kept the times of the build that it came from."""
    text = unique(tmp_path)
    digests = []
    for number, (epoch, cold) in enumerate(
        [(1_770_000_000, True), (1_780_000_000, False), (1_780_000_000, True)]
    ):
        one = request(real, tmp_path / str(number), text, cold=cold, epoch=epoch)
        digests.append(build_image(one, tmp_path / str(number) / "image").digest)
    assert digests[1] == digests[2]
    assert digests[0] != digests[1]


def test_a_cache_goes_out_and_comes_back(real: Engine, tmp_path: Path) -> None:
    where = f"type=registry,ref={real.registry}/engine-cache:{tmp_path.name}"
    text = unique(tmp_path)
    out = request(real, tmp_path / "out", text, cache_to=(f"{where},mode=max",))
    first = build_image(out, tmp_path / "out" / "image")
    back = request(real, tmp_path / "back", text, cold=False, cache_from=(where,))
    second = build_image(back, tmp_path / "back" / "image")
    assert "importing cache manifest" in back.log.read_text()
    assert first.digest == second.digest


def test_a_builder_by_its_name_is_used(real: Engine, tmp_path: Path) -> None:
    real.run("docker", "context", "create", "stackpatch-test", check=False)
    try:
        one = request(real, tmp_path / "a", builder="default")
        build_image(one, tmp_path / "a" / "image")
    finally:
        real.run("docker", "context", "rm", "-f", "stackpatch-test", check=False)


def test_a_builder_that_is_not_there_is_named(real: Engine, tmp_path: Path) -> None:
    one = request(real, tmp_path, builder="no-such-builder")
    with pytest.raises(EnvironmentProblem, match="no-such-builder"):
        build_image(one, tmp_path / "image")


def test_a_platform_that_the_builder_has_not_is_named(real: Engine) -> None:
    with pytest.raises(EnvironmentProblem, match="cannot build for linux/s390x") as caught:
        identify("buildx", platform="linux/s390x")
    assert "linux/amd64" in str(caught.value.hint)


def test_progress_comes_while_the_build_runs(real: Engine, tmp_path: Path) -> None:
    text = "ARG BASE\nFROM ${BASE}\nRUN echo first-line; sleep 4; echo second-line\n"
    seen: dict[str, float] = {}

    def note(line: str) -> None:
        for word in ("first-line", "second-line"):
            if word in line and "RUN" not in line:
                seen[word] = time.monotonic()

    build_image(request(real, tmp_path, text), tmp_path / "image", progress=note)
    assert seen["second-line"] - seen["first-line"] > 2


def test_a_daemon_that_goes_away_in_mid_build_leaves_nothing(
    real: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire(Path("/tmp") / f"stackpatch-wire-{os.getpid()}.sock", real)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{wire.path}")
    one = request(real, tmp_path / "build", SLOW)

    def cut_when_started(line: str) -> None:
        if "started" in line and "RUN" not in line:
            threading.Thread(target=wire.cut).start()

    begin = time.monotonic()
    with pytest.raises(EnvironmentProblem) as caught:
        build_image(one, tmp_path / "out" / "image", progress=cut_when_started)
    assert time.monotonic() - begin < 50
    assert str(one.log) in str(caught.value.hint)
    assert not list((tmp_path / "out").iterdir())


def test_a_daemon_that_is_not_there_is_named(
    real: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = request(real, tmp_path / "build")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(EnvironmentProblem) as caught:
        build_image(one, tmp_path / "out" / "image")
    assert "none.sock" in caught.value.message
    assert "--builder" in str(caught.value.hint)


PROGRAM = """
import sys
from pathlib import Path
from tests.engine import engine
from tests.engine_builds import request
from stackpatch.artefacts.engines import build_image
folder = Path(sys.argv[1])
build_image(request(engine(), folder / "build", sys.argv[2]), folder / "out" / "image",
            progress=lambda line: print(line, flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_an_interrupted_build_stops_its_engine_and_leaves_nothing(
    real: Engine, tmp_path: Path, number: signal.Signals
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path, SLOW],
        env=real.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    for line in child.stdout:
        if "started" in line and "RUN" not in line:
            break
    child.send_signal(number)
    assert child.wait(40) != 0
    child.stdout.close()
    assert not list((tmp_path / "out").iterdir())
    for _ in range(200):
        running = subprocess.run(["pgrep", "-fc", str(tmp_path)], capture_output=True, text=True)
        if running.stdout.strip() == "0":
            return
        time.sleep(0.1)
    pytest.fail("the engine's client runs on")


def test_a_client_that_is_ended_from_outside_is_said_to_be(real: Engine, tmp_path: Path) -> None:
    one = request(real, tmp_path / "build", SLOW)

    def end_the_client(line: str) -> None:
        if "started" in line and "RUN" not in line:
            found = subprocess.run(
                ["pgrep", "-f", "docker-buildx buildx build"], capture_output=True
            )
            for pid in found.stdout.split():
                if Path(f"/proc/{int(pid)}/cwd").resolve().is_relative_to(tmp_path):
                    os.kill(int(pid), signal.SIGKILL)

    with pytest.raises(EnvironmentProblem):
        build_image(one, tmp_path / "out" / "image", progress=end_the_client)
    assert not list((tmp_path / "out").iterdir())


def test_the_layers_of_the_base_need_not_be_in_the_engine_twice(
    real: Engine, tmp_path: Path
) -> None:
    one = request(real, tmp_path / "a")
    image = build_image(one, tmp_path / "a" / "image")
    size = sum(path.stat().st_size for path in (tmp_path / "a" / "image").rglob("*"))
    assert size < 100_000 < sum(layer.size for layer in image.layers)
    assert replace(one, cold=False) != one
