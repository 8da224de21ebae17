"""`--builder` with a builder that is not on this machine: its own store, network and loopback."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from tests.engine import Engine, engine
from tests.engine_builds import base_in_folder, base_in_registry, request
from tests.far_builder import Line, far_daemon

from stackpatch.artefacts.engines import build_image, identify
from stackpatch.errors import EnvironmentProblem, FindingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLOW = "ARG BASE\nFROM ${BASE}\nRUN echo started; sleep 60; echo done\n"


@pytest.fixture(scope="module")
def far() -> Iterator[Path]:
    with far_daemon(engine()) as socket:
        yield socket


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = engine()
    found.use(monkeypatch)
    # The builders that a test makes are its own.
    monkeypatch.setenv("BUILDX_CONFIG", str(tmp_path / "buildx"))
    found.env["BUILDX_CONFIG"] = str(tmp_path / "buildx")
    return found


@pytest.fixture
def line(real: Engine, far: Path) -> Iterator[Line]:
    """The way to the builder `farm`."""
    made = Line(far)
    real.run("docker", "buildx", "create", "--name", "farm", "--driver", "remote", made.address)
    yield made
    made.cut()


def test_a_builder_elsewhere_makes_what_ours_makes(
    real: Engine, line: Line, tmp_path: Path
) -> None:
    base = base_in_folder(real)
    secret = tmp_path / "secret"
    secret.write_text("hunter2-for-the-builder")
    text = (
        "ARG BASE\nFROM ${BASE}\nCOPY f /srv/f\n"
        "RUN --mount=type=secret,id=pip cat /run/secrets/pip && echo a > /srv/own\n"
    )
    made = {}
    for name, builder in (("here", None), ("there", "farm")):
        folder = tmp_path / name
        one = request(real, folder, text, base=base, builder=builder, secrets={"pip": secret})
        made[name] = build_image(one, folder / "image")
        said = one.log.read_text()
        assert "hunter2" not in said
        assert "***" in said, "the step printed its secret"
    assert made["here"].digest == made["there"].digest
    assert identify("buildx", builder="farm") == "buildkit 0.13.1"


def test_a_base_that_only_we_can_reach_is_told_with_a_way_out(
    real: Engine, line: Line, tmp_path: Path
) -> None:
    one = request(real, tmp_path / "b", base=base_in_registry(real), builder="farm")
    with pytest.raises(EnvironmentProblem, match="cannot read the image 127") as caught:
        build_image(one, tmp_path / "out" / "image")
    assert "--base DIR" in str(caught.value.hint)
    assert not list((tmp_path / "out").iterdir())


def test_a_step_that_fails_there_shows_what_it_said(
    real: Engine, line: Line, tmp_path: Path
) -> None:
    text = "ARG BASE\nFROM ${BASE}\nRUN echo out of ideas; exit 7\n"
    one = request(real, tmp_path / "b", text, base=base_in_folder(real), builder="farm")
    with pytest.raises(FindingError, match=r"status 7.*\n  out of ideas"):
        build_image(one, tmp_path / "out" / "image")


def test_a_line_that_is_cut_in_mid_build_leaves_nothing(
    real: Engine, line: Line, tmp_path: Path
) -> None:
    one = request(real, tmp_path / "b", SLOW, base=base_in_folder(real), builder="farm")

    def cut_when_started(said: str) -> None:
        if "started" in said and "RUN" not in said:
            threading.Thread(target=line.cut).start()

    with pytest.raises(EnvironmentProblem) as caught:
        build_image(one, tmp_path / "out" / "image", progress=cut_when_started)
    assert str(one.log) in str(caught.value.hint)
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(EnvironmentProblem, match="builder farm is inactive") as caught:
        build_image(one, tmp_path / "out" / "image")
    assert "--bootstrap farm" in str(caught.value.hint)


def test_one_that_does_not_say_its_version_is_refused(real: Engine, far: Path) -> None:
    nameless = Line(far, named=False)
    words = ("docker", "buildx", "create", "--name", "plain", "--driver", "remote")
    real.run(*words, nameless.address)
    try:
        with pytest.raises(EnvironmentProblem, match=r"plain .*\(v0\.0\.0\+unknown\), 0\.13"):
            identify("buildx", builder="plain")
    finally:
        nameless.cut()


def test_a_cache_in_a_folder_is_the_persons_folder(
    real: Engine, line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines run in a folder of ours; what a person names is meant from where they are."""
    monkeypatch.chdir(tmp_path)
    text = f"ARG BASE\nFROM ${{BASE}}\nRUN echo {tmp_path.name} > /srv/own\n"
    shared = {"base": base_in_folder(real), "builder": "farm"}
    out = request(
        real, tmp_path / "out", text, cache_to=("type=local,dest=my cache,mode=max",), **shared
    )
    first = build_image(out, tmp_path / "out" / "image")
    assert (tmp_path / "my cache" / "index.json").is_file()
    real.run("docker", "buildx", "prune", "--builder", "farm", "--all", "--force")
    back = request(
        real, tmp_path / "in", text, cold=False, cache_from=("type=local,src=my cache",), **shared
    )
    second = build_image(back, tmp_path / "in" / "image")
    assert "CACHED" in back.log.read_text()
    assert first.digest == second.digest
