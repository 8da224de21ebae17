"""Handing GPUs to a container: a real docker daemon, and a stand-in for NVIDIA's hook.

dockerd knows a GPU driver when `nvidia-container-runtime-hook` is on its PATH; runc runs that hook
for a container that asked for GPUs, before its program starts. The stand-in makes the device node
that NVIDIA's would make, or fails in its words: there is no GPU here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.engine import Engine, engine

from stackpatch.checks.place_image import in_image
from stackpatch.checks.places import Job
from stackpatch.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

# nvidia-container-cli makes the nodes in the container's /dev; here it is a null device.
GIVES = """#!{python}
import json, os, subprocess, sys
state = json.load(sys.stdin)
with open({log!r}, "a") as log:
    print(sys.argv[1], sorted(state), file=log)
root = json.load(open(os.path.join(state["bundle"], "config.json")))["root"]["path"]
node = os.path.join(state["bundle"], root, "dev/nvidia0")
enter = ["nsenter", "--target", str(state["pid"]), "--mount"]
sys.exit(subprocess.run([*enter, "mknod", "--mode=666", node, "c", "1", "3"]).returncode)
"""
FAILS = """#!/bin/sh
echo "nvidia-container-cli: initialization error: nvml error: driver not loaded" >&2
exit 1
"""
# Asks what a check would: the environment, and the device.
PROGRAM = b"""
import os
print(os.environ.get("NVIDIA_VISIBLE_DEVICES"), os.path.exists("/dev/nvidia0"))
"""


class Daemon:
    """A second daemon, with a hook on its PATH that can be changed while it runs."""

    def __init__(self, found: Engine, folder: Path) -> None:
        self.hook = folder / "bin" / "nvidia-container-runtime-hook"
        self.hook.parent.mkdir()
        self.log = folder / "hook.log"
        self.say(GIVES.format(python=sys.executable, log=str(self.log)))
        program = found.base_layout.parents[1] / "root/usr/sbin/dockerd"  # of scripts/engine
        settings = {
            "features": {"containerd-snapshotter": True},
            "bridge": "none",
            "iptables": False,
        }
        (folder / "daemon.json").write_text(json.dumps(settings))
        self.socket = f"unix://{folder}/s"
        argv = [program, "--config-file", folder / "daemon.json", "--data-root", folder / "data"]
        argv += ["--exec-root", folder / "x", "--pidfile", folder / "pid", "-H", self.socket]
        places = (self.hook.parent, program.parent, program.parents[1] / "bin", "/usr/sbin")
        path = os.pathsep.join((*map(str, places), "/usr/bin", "/sbin", "/bin"))
        self.said = (folder / "dockerd.log").open("wb")
        self.process = subprocess.Popen(
            list(map(str, argv)), env={**os.environ, "PATH": path}, stderr=self.said
        )

    def say(self, script: str) -> None:
        """Another hook from now on."""
        self.hook.write_text(script)
        self.hook.chmod(0o755)

    def wait(self) -> None:
        """Until it answers."""
        for _ in range(240):
            env = {**os.environ, "DOCKER_HOST": self.socket}
            asked = subprocess.run(["docker", "version"], env=env, capture_output=True)
            if asked.returncode == 0:
                return
            assert self.process.poll() is None, Path(self.said.name).read_text()
            time.sleep(0.25)
        pytest.fail(Path(self.said.name).read_text())

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)
        self.said.close()


@pytest.fixture(scope="module")
def found() -> Engine:
    return engine()


@pytest.fixture
def daemon(found: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    found.use(monkeypatch)
    with contextlib.ExitStack() as stack:
        # A short path: containerd's sockets lie below it.
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="sp", dir="/tmp", ignore_cleanup_errors=True)
        )
        made = Daemon(found, Path(folder))
        stack.callback(made.end)
        made.wait()
        monkeypatch.setenv("DOCKER_HOST", made.socket)
        yield made


def test_a_container_gets_all_gpus_of_a_daemon_that_has_them(found: Engine, daemon: Daemon) -> None:
    job = Job({"ask.py": PROGRAM}, ("ask.py",), 60)
    with in_image(str(found.base_layout), "linux/amd64", "python3") as place:
        assert place.run(job).text().split() == ["all", "True"], place.no_gpu
        assert "no_gpu" not in place.document()
        assert daemon.log.read_text().startswith("prestart [")

        # A driver that is not loaded: what needs no GPU runs, and the document has the reason.
        daemon.say(FAILS)
        assert place.run(job).text().split() == ["None", "False"]
        assert "nvml error: driver not loaded" in str(place.document()["no_gpu"])

        # Another failure is none of the GPU's, and is not hidden by a run without.
        place.no_gpu = None
        daemon.say("#!/bin/sh\necho 'no space left on device' >&2\nexit 1\n")
        with pytest.raises(EnvironmentProblem, match="no space left on device"):
            place.run(job)
