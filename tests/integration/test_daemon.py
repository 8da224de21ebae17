"""A docker daemon through its SDK: on a socket, behind ssh, away; containers to their end."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.engine import Engine, engine

from stackpatch.artefacts.engines.inspect import (
    ContainerRun,
    Mount,
    find_daemon,
    find_image,
    run_with_gpu,
)
from stackpatch.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = f"of-process-{os.getpid()}"


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = engine()
    found.use(monkeypatch)
    found.run("docker", "pull", "-q", found.small)
    return found


def run(real: Engine, *command: str, **how: object) -> ContainerRun:
    return ContainerRun(real.small, command, gpus=False, **how)  # type: ignore[arg-type]


def left(real: Engine) -> list[str]:
    """Containers of this process; others may run their own meanwhile."""
    said = real.run("docker", "ps", "-a", "--no-trunc", "--format", "{{.Command}}")
    return [line for line in said.splitlines() if MARK in line]


def test_the_daemon_says_what_it_is(real: Engine) -> None:
    found = find_daemon()
    assert found.version.startswith("26.1")
    assert (found.platform, found.containerd_store) == ("linux/amd64", True)
    assert found.where == real.env["DOCKER_HOST"]


def test_images_are_found_by_name_and_digest(real: Engine) -> None:
    found = find_image(real.small)
    assert found is not None
    assert real.small in found.digests
    assert found.platform == "linux/amd64"
    assert find_image(f"{real.registry}/no-such-image:1") is None


def test_a_container_runs_to_its_end_and_is_removed(real: Engine, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)  # another user reads it in there
    (tmp_path / "in").write_text("from the host")
    ran = run_with_gpu(
        run(
            real,
            *(
                "sh",
                "-c",
                f'cat /in/in; echo; echo "$A"; id -u; pwd; touch /in/new; exit 3 # {MARK}',
            ),
            env={"A": "x  y"},
            mounts=[Mount(tmp_path, "/in")],
            user="10001",
            workdir="/srv",
        ),
        timeout=60,
    )
    assert ran.status == 3
    # The engine hands over both streams, and keeps no order between them.
    lines = ran.output.splitlines()
    refused = [line for line in lines if "Read-only" in line]
    assert len(refused) == 1
    assert [line for line in lines if line not in refused] == [
        "from the host",
        "x  y",
        "10001",
        "/srv",
    ]
    assert not (tmp_path / "new").exists()
    assert not left(real)


def test_words_are_never_read_by_a_shell(real: Engine) -> None:
    ran = run_with_gpu(run(real, "echo", "$(id)", "a b", "`id`"), timeout=60)
    assert ran.output == "$(id) a b `id`\n"


def test_no_network_is_there_unless_asked_for(real: Engine) -> None:
    words = ("wget", "-q", "-O", "-", f"http://{real.registry}/v2/")
    assert run_with_gpu(run(real, *words), timeout=60).status != 0
    assert run_with_gpu(run(real, *words, network="host"), timeout=60).status == 0


def test_a_container_that_hangs_is_stopped_at_its_time(real: Engine) -> None:
    begun = time.monotonic()
    ran = run_with_gpu(run(real, "sh", "-c", f"echo begun; sleep 600 # {MARK}"), timeout=6)
    assert (ran.status, ran.output) == (None, "begun\n")
    assert time.monotonic() - begun < 60
    assert not left(real)


def test_a_gpu_is_handed_over_or_the_daemon_is_named_as_the_reason(real: Engine) -> None:
    if find_daemon().gpus:
        assert run_with_gpu(ContainerRun(real.small, ["true", MARK]), timeout=60).status == 0
        return
    with pytest.raises(EnvironmentProblem, match="cannot hand a GPU") as caught:
        run_with_gpu(ContainerRun(real.small, ["true", MARK]), timeout=60)
    assert "NVIDIA container toolkit" in str(caught.value.hint)
    assert not left(real)


def test_an_image_that_is_not_there_is_not_pulled(real: Engine) -> None:
    with pytest.raises(InputError, match="has no image"):
        run_with_gpu(ContainerRun(f"{real.registry}/none:1", ["true"]), timeout=60)


# The SDK drops its socket where the first word to a daemon fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("host", ["unix:///no/such.sock", "tcp://127.0.0.1:1", "nonsense://x"])
def test_a_daemon_that_is_away_is_the_environment(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(EnvironmentProblem, match="no docker daemon answers") as caught:
        find_daemon(timeout=5)
    assert "DOCKER_HOST" in str(caught.value.hint)
    del caught
    gc.collect()


@pytest.fixture
def behind_ssh(real: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The daemon behind a real sshd; its key may do one thing: talk to the daemon."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert sshd is not None, "this test needs sshd (Debian: openssh-server)"
    for name in ("host", "user"):
        keygen = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name)
        subprocess.run(keygen, check=True)
    docker = shutil.which("docker", path=real.env["PATH"])
    only = f'command="DOCKER_HOST={real.env["DOCKER_HOST"]} {docker} system dial-stdio"'
    (tmp_path / "keys").write_text(f"{only} {(tmp_path / 'user.pub').read_text()}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    (tmp_path / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {tmp_path}/host\nPidFile none\n"
        f"AuthorizedKeysFile {tmp_path}/keys\nStrictModes no\nPermitRootLogin yes\nUsePAM no\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    child = subprocess.Popen(
        [sshd, "-D", "-e", "-f", tmp_path / "sshd_config"], stderr=subprocess.DEVNULL
    )
    known = f"[127.0.0.1]:{port} {(tmp_path / 'host.pub').read_text()}"
    (tmp_path / "known").write_text(known)
    (tmp_path / "bin").mkdir()
    ssh = shutil.which("ssh")
    (tmp_path / "bin" / "ssh").write_text(
        f"#!/bin/sh\nexec {ssh} -o UserKnownHostsFile={tmp_path}/known -o BatchMode=yes "
        f'-i {tmp_path}/user "$@"\n'
    )
    (tmp_path / "bin" / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{real.env['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", f"ssh://root@127.0.0.1:{port}")
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"ssh://root@127.0.0.1:{port}"
    child.terminate()
    child.wait()


PROGRAM = """
import sys
from stackpatch.artefacts.engines.inspect import ContainerRun, find_daemon, run_with_gpu
found = find_daemon()
print(found.where, found.version[:4])
ran = run_with_gpu(ContainerRun(sys.argv[1], ["echo", "over there"], gpus=False), timeout=60)
print(ran.status, ran.output)
"""


def test_a_daemon_behind_ssh_serves_as_well(real: Engine, behind_ssh: str) -> None:
    """In a process of its own: the SDK leaves its ssh to the end of the process."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, real.small], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split("\n")[:2] == [f"{behind_ssh} 26.1", "0 over there"], done.stderr
