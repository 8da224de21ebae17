"""`scripts/engine` where it must not start anything: it says why, and changes nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from tests import conftest
from tests import engine as engines

SCRIPT = Path(__file__).parents[2] / "scripts" / "engine"


def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def as_user(folder: Path, number: int = 65534) -> dict[str, str]:
    """An `id` that says who we are; nobody's script stops before it does anything."""
    program = folder / "bin" / "id"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho {number}\n")
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:{os.environ['PATH']}"}


@pytest.mark.parametrize("words", [(), ("begin",), ("--help",)])
def test_wrong_use_shows_the_verbs(words: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*words, STACKPATCH_ENGINE_DIR=str(tmp_path / "e"))
    assert done.returncode == 2
    assert "scripts/engine status | stop" in done.stderr
    assert not (tmp_path / "e").exists()


def test_without_root_nothing_is_started(tmp_path: Path) -> None:
    done = run("start", STACKPATCH_ENGINE_DIR=str(tmp_path / "e"), **as_user(tmp_path))
    assert done.returncode == 3
    assert "needs root" in done.stderr
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("folder", "words"), [("relative/path", "absolute path"), ("/" + "x" * 80, "too long")]
)
def test_a_folder_that_cannot_serve_is_refused(folder: str, words: str, tmp_path: Path) -> None:
    # The question for root comes first; the folder's own comes before anything is written.
    done = run("start", STACKPATCH_ENGINE_DIR=folder, **as_user(tmp_path, 0))
    assert done.returncode == 3
    assert words in done.stderr


def test_what_does_not_run_is_said_not_to(tmp_path: Path) -> None:
    away = {"STACKPATCH_ENGINE_DIR": str(tmp_path / "e")}
    assert run("status", **away).returncode == 1
    assert run("stop", **away).returncode == 0
    env = run("env", **away)
    assert env.returncode == 3
    assert "scripts/engine start" in env.stderr


def test_a_process_that_is_not_ours_is_never_stopped(tmp_path: Path) -> None:
    """A pid file that is left over may name somebody else's process by now."""
    (tmp_path / "e" / "run").mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as other:
        for name in ("docker.pid", "registry.pid"):
            (tmp_path / "e" / "run" / name).write_text(str(other.pid))
        assert run("stop", STACKPATCH_ENGINE_DIR=str(tmp_path / "e")).returncode == 0
        assert other.poll() is None
        other.kill()


def test_the_engine_takes_no_bridge_from_a_docker_that_the_machine_has() -> None:
    """Two daemons would share docker0 and the rules of iptables: the later one takes them over."""
    text = re.search(r"daemon\.json\" <<JSON\n(.*?)\nJSON\n", SCRIPT.read_text("utf-8"), re.DOTALL)
    assert text is not None
    told = json.loads(text[1])
    assert told["bridge"] == "none"
    assert [told[name] for name in ("iptables", "ip6tables", "ip-forward")] == [False] * 3


def test_the_tests_start_the_engine_with_your_settings() -> None:
    """What else begins with STACKPATCH_ is taken out of the tests' environment."""
    read = set(re.findall(r"STACKPATCH_ENGINE_[A-Z]+", SCRIPT.read_text("utf-8")))
    assert read - {"STACKPATCH_ENGINE_BIN"} == {
        name for name in conftest._KEPT if name.startswith("STACKPATCH_ENGINE_")
    }


def test_tests_skip_without_an_engine_and_fail_where_one_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in as_user(tmp_path).items():
        monkeypatch.setenv(name, value)
    fresh = engines._start.__wrapped__
    monkeypatch.setattr(engines, "_start", fresh)
    monkeypatch.delenv("STACKPATCH_REQUIRE_ENGINE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs root"):
        engines.engine()
    monkeypatch.setenv("STACKPATCH_REQUIRE_ENGINE", "1")
    with pytest.raises(pytest.fail.Exception, match="needs root"):
        engines.engine()
