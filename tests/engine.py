"""The container engine and the registry that `scripts/engine` starts, for the tests.

One engine serves every test process of the machine; what a test puts there carries a name of its
own. Where none can be had the tests skip with the reason, and fail instead when
STACKPATCH_REQUIRE_ENGINE is 1, as in CI.
"""

from __future__ import annotations

import functools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "engine"


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine. env: what a program needs to find it (DOCKER_HOST, PATH, …).

    base: an image with Python and pip, by name and digest; small: one with busybox alone. Both are
    in the registry and, as OCI layouts, on the disk.
    """

    env: dict[str, str]
    registry: str
    base: str
    base_layout: Path
    small: str
    small_layout: Path

    @property
    def base_digest(self) -> str:
        """`sha256:…` of the base image's manifest."""
        return self.base.partition("@")[2]

    def run(self, *argv: str | Path, check: bool = True, timeout: float = 300.0) -> str:
        """Run docker, skopeo, crane or buildah against it; return standard output."""
        done = subprocess.run(
            [str(word) for word in argv],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the code under test find this engine, as after `eval "$(scripts/engine env)"`.

        Nothing else of the environment in which the engine was found: HOME is the test's own.
        """
        for name, value in self.env.items():
            if name == "PATH" or name.startswith(("DOCKER_", "STACKPATCH_TEST_")):
                monkeypatch.setenv(name, value)


def engine() -> Engine:
    """The running engine, started when there is none; else the test skips or fails."""
    found, reason = _start()
    if found is None:
        if os.environ.get("STACKPATCH_REQUIRE_ENGINE") == "1":
            pytest.fail(f"STACKPATCH_REQUIRE_ENGINE=1 and no engine: {reason}")
        pytest.skip(f"no container engine: {reason}")
    return found


def _state() -> str:
    """The engine's folder, the same for every test process: the tests' own HOME is a new one."""
    named = os.environ.get("STACKPATCH_ENGINE_DIR")
    return named or str(Path(os.environ["STACKPATCH_TEST_CACHE"]).parent / "stackpatch-engine")


@functools.cache
def _start() -> tuple[Engine | None, str]:
    try:
        done = subprocess.run(
            [SCRIPT, "start", "--plain"],
            env={**os.environ, "STACKPATCH_ENGINE_DIR": _state()},
            capture_output=True,
            text=True,
            timeout=1200,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        return None, said[-1] if said else f"scripts/engine ended with {done.returncode}"
    told = dict(line.split("=", 1) for line in done.stdout.splitlines())
    path = f"{told.pop('STACKPATCH_ENGINE_BIN')}:{os.environ['PATH']}"
    env = {**os.environ, **told, "PATH": path}
    return Engine(
        env,
        told["STACKPATCH_TEST_REGISTRY"],
        told["STACKPATCH_TEST_BASE"],
        Path(told["STACKPATCH_TEST_BASE_LAYOUT"]),
        told["STACKPATCH_TEST_SMALL"],
        Path(told["STACKPATCH_TEST_SMALL_LAYOUT"]),
    ), ""
