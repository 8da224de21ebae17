"""Smoke checks on another machine: a real sshd on loopback, with keys of its own.

Host keys are checked: the settings that a test gives to ssh name its own file of known hosts, and
nothing switches the check off.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stackpatch.checks.code import DamagedError
from stackpatch.checks.members import Member
from stackpatch.checks.place_ssh import Behind
from stackpatch.checks.places import Here, Job, ask
from stackpatch.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Server:
    """A running sshd. config: for `ssh -F`."""

    port: int
    config: Path
    folder: Path

    def place(self, path: str = sys.executable) -> Behind:
        return Behind.parse(f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{path}", self.config)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert sshd is not None, "these tests need sshd (Debian: openssh-server)"
    folder = tmp_path_factory.mktemp("sshd")
    folder.chmod(0o700)
    for name in ("host", "user"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(argv, check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    settings = (
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nPidFile {folder}/pid\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin yes\n"
    )
    (folder / "sshd_config").write_text(settings)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd as root wants it to be there
    log = (folder / "log").open("wb")
    child = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    key = (folder / "host.pub").read_text()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {key}")
    (folder / "config").write_text(
        f"UserKnownHostsFile {folder}/known\nGlobalKnownHostsFile /dev/null\n"
        f"IdentityFile {folder}/user\nIdentitiesOnly yes\n"
    )
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield Server(port, folder / "config", folder)
    child.terminate()
    child.wait()
    log.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int) -> bool:
    for _ in range(300):
        if not alive(pid):
            return True
        time.sleep(0.1)
    return False


def test_a_job_runs_there_with_its_files_and_leaves_none(server: Server) -> None:
    program = (
        b"import os, sys\n"
        b"here = os.path.dirname(__file__)\n"
        b"print(here, sys.argv[1:], os.environ['A'], open(os.path.join(here, 'b')).read())\n"
        b"print('to the other stream', file=sys.stderr)\n"
        b"sys.exit(3)\n"
    )
    files = {"a.py": program, "b": "ü 'quoted' $HOME".encode()}
    done = server.place().run(Job(files, ("a.py", "x y", '"$z"'), 60, {"A": "1 2"}))
    assert done.status == 3
    folder, _, rest = done.text().partition(" ")
    assert rest == "['x y', '\"$z\"'] 1 2 ü 'quoted' $HOME\n"
    assert done.error_text() == "to the other stream"
    assert not Path(folder).exists()


def test_it_answers_as_the_same_interpreter_does_here(server: Server) -> None:
    here = Here(Path(sys.executable))
    for program, argument in (("installed.py", "numpy"), ("listing.py", "numpy")):
        assert ask(server.place(), program, argument) == ask(here, program, argument)
    assert ask(server.place(), "installed.py", "no-such-distribution") is None


def test_the_files_of_a_folder_come_over(server: Server, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "b").write_bytes(b"2" * 100_000)
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "fifo").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "fifo")  # is not waited for
    (tmp_path / "link").symlink_to(tmp_path / "a")
    found = {}
    for member in server.place().members(str(tmp_path)):
        assert isinstance(member, Member)
        content = b""
        while piece := member.source.read(1 << 16):
            content += piece
        found[member.path] = content
    assert found == {"a": b"1", "link": b"1", "below/b": b"2" * 100_000}


def test_a_host_that_is_not_known_is_refused(server: Server, tmp_path: Path) -> None:
    known = server.folder / "known"
    before = known.read_bytes()
    config = tmp_path / "config"
    config.write_text(server.config.read_text().replace(str(known), str(tmp_path / "none")))
    place = Behind.parse(f"ssh://127.0.0.1:{server.port}{sys.executable}", config)
    with pytest.raises(EnvironmentProblem, match="Host key verification failed") as caught:
        place.run(Job({"a.py": b""}, ("a.py",), 10))
    assert "connect once by hand" in (caught.value.hint or "")
    assert not (tmp_path / "none").exists()  # nor is its key taken over
    assert known.read_bytes() == before


def test_another_key_than_the_known_one_is_refused(server: Server, tmp_path: Path) -> None:
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")]
    subprocess.run(argv, check=True)
    other = (tmp_path / "other.pub").read_text()
    (tmp_path / "known").write_text(f"[127.0.0.1]:{server.port} {other}")
    config = tmp_path / "config"
    text = server.config.read_text()
    config.write_text(text.replace(str(server.folder / "known"), str(tmp_path / "known")))
    place = Behind.parse(f"ssh://127.0.0.1:{server.port}{sys.executable}", config)
    with pytest.raises(EnvironmentProblem, match="Host key verification failed"):
        place.run(Job({"a.py": b""}, ("a.py",), 10))


def test_a_key_that_the_server_does_not_take_is_one_sentence(
    server: Server, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(server.config.read_text().replace("/user\n", "/host\n"))
    place = Behind.parse(f"ssh://127.0.0.1:{server.port}{sys.executable}", config)
    with pytest.raises(EnvironmentProblem, match="Permission denied"):
        place.run(Job({"a.py": b""}, ("a.py",), 10))


def test_a_python_that_is_not_there_is_wrong_usage(server: Server) -> None:
    with pytest.raises(InputError, match=r"/none/python cannot be run on 127\.0\.0\.1"):
        server.place("/none/python").run(Job({"a.py": b""}, ("a.py",), 10))


def test_nobody_listening_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        place = Behind.parse(f"ssh://127.0.0.1:{port}/usr/bin/python3")
        with pytest.raises(EnvironmentProblem, match="Connection refused"):
            place.run(Job({"a.py": b""}, ("a.py",), 10))


HANG = b"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1], "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


def test_the_time_limit_kills_what_runs_there(server: Server, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    runner = (ROOT / "recipes" / "flashinfer" / "smoke" / "run_all.py").read_bytes()
    words = ["run_all.py", "--arch", "sm121", "--stream", "--python", sys.executable]
    # The check takes no --arch; its second argument is the option's name.
    hang = HANG.replace(b"sys.argv[1]", repr(str(pids)).encode())
    job = Job({"run_all.py": runner, "hang.py": hang}, (*words, "--check", "h=hang.py:3"), 30)
    done = server.place().run(job)
    result = json.loads(next(line for line in done.text().splitlines() if line.startswith("{")))
    assert (result["status"], "did not end within 3 s" in result["why"]) == ("failed", True)
    for pid in map(int, pids.read_text().split()):
        assert gone(pid)


def test_the_other_end_keeps_its_own_time(server: Server, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(EnvironmentProblem, match="did not end in time and was stopped"):
        server.place().run(Job({"hang.py": HANG}, ("hang.py", str(pids)), 2))
    for pid in map(int, pids.read_text().split()):
        assert gone(pid)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_when_we_are_killed_nothing_runs_on_there(
    server: Server, tmp_path: Path, how: signal.Signals
) -> None:
    pids = tmp_path / "pids"
    argv = server.place()._argv()
    files = {"hang.py": HANG}
    from stackpatch.checks.place_ssh import _line

    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert child.stdin is not None
    child.stdin.write(_line(Job(files, ("hang.py", str(pids)), 600)))
    child.stdin.flush()
    for _ in range(200):
        if pids.exists() and pids.read_text().count(" "):
            break
        time.sleep(0.05)
    child.send_signal(how)
    child.wait()
    child.stdin.close()
    for pid in map(int, pids.read_text().split()):
        assert gone(pid)


def test_a_folder_that_cannot_be_sent_is_an_error(server: Server) -> None:
    with pytest.raises((EnvironmentProblem, InputError, DamagedError)):
        list(server.place("/none/python").members("/tmp"))
    assert list(server.place().members("/no/such/folder")) == []


def test_smoke_says_the_same_there_as_here(server: Server, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "stackpatch", "smoke", "flashinfer", "--arch", "sm121", "--json"]
    argv += ["--root", str(ROOT)]
    argv += ["--only", "files", "--only", "audit", "--only", "shadowing", "--only", "device"]
    url = f"ssh://127.0.0.1:{server.port}{sys.executable}"
    told = {}
    for name, options in (
        ("here", ["--python", sys.executable]),
        ("there", ["--python", url, "--ssh-config", str(server.config)]),
    ):
        done = subprocess.run([*argv, *options], capture_output=True, text=True, cwd=tmp_path)
        assert "Traceback" not in done.stderr
        told[name] = json.loads(done.stdout)
    assert told["there"]["subject"] == {
        "kind": "ssh",
        "host": "127.0.0.1",
        "python": sys.executable,
    }
    keys = ("name", "status", "why", "figures")
    here, there = ([{k: c[k] for k in keys} for c in told[n]["checks"]] for n in ("here", "there"))
    assert here == there
    assert here[0]["status"] == "failed"  # no flashinfer is installed beside stackpatch
