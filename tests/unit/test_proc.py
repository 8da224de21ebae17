"""Starting programs: what they see, what becomes of their end."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from stackpatch import proc
from stackpatch.errors import EnvironmentProblem


def python(code: str) -> tuple[str, str, str]:
    return sys.executable, "-c", code


def test_both_streams_and_the_status_are_kept_apart() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    done = proc.run(python(code), check=False)
    assert (done.status, done.stdout, done.stderr) == (3, b"out\n", b"err\n")


def test_words_are_never_read_by_a_shell() -> None:
    done = proc.run((sys.executable, "-c", "import sys; print(sys.argv[1])", "$(id); `id` *"))
    assert done.text() == "$(id); `id` *\n"


def test_a_foreign_repository_does_not_leak_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/somewhere/else")
    monkeypatch.setenv("GIT_INDEX_FILE", "/somewhere/index")
    monkeypatch.setenv("GIT_SSH_COMMAND", "ssh -i key")
    monkeypatch.setenv("LANGUAGE", "de")
    env = proc.environment({"MORE": "1"})
    assert "GIT_DIR" not in env
    assert "GIT_INDEX_FILE" not in env
    assert "LANGUAGE" not in env
    assert env["GIT_SSH_COMMAND"] == "ssh -i key"
    assert (env["LC_ALL"], env["MORE"]) == ("C.UTF-8", "1")


def test_a_status_never_comes_through(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="ended with status 128") as raised:
        proc.run(("git", "-C", tmp_path, "rev-parse", "HEAD"))
    assert raised.value.exit_status == 3


def test_a_missing_program_is_named() -> None:
    with pytest.raises(EnvironmentProblem, match="no-such-program is not installed") as raised:
        proc.run(("no-such-program",))
    assert "doctor" in (raised.value.hint or "")


def test_a_missing_folder_is_not_a_missing_program(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"the folder .* does not exist"):
        proc.run(("git", "--version"), cwd=tmp_path / "gone")


def test_what_does_not_end_is_ended() -> None:
    with pytest.raises(EnvironmentProblem, match=r"did not finish within 0\.2 s"):
        proc.run(python("import time; time.sleep(60)"), timeout=0.2)


@pytest.mark.parametrize("words", ["No space left on device", "write error. Out of diskspace"])
def test_a_full_disk_is_told_as_one(words: str) -> None:
    code = f"import sys; sys.exit('fatal: sha1 file x: {words}')"
    with pytest.raises(EnvironmentProblem, match="no space left while") as raised:
        proc.run(python(code))
    assert raised.value.hint == "free some space and run again"
    with (
        pytest.raises(EnvironmentProblem, match="no space left while"),
        proc.feeding(python(code)) as write,
    ):
        write(b"")


def test_standard_input_is_empty_unless_given() -> None:
    echo = python("import sys; sys.stdout.write(sys.stdin.read())")
    assert proc.run(echo).stdout == b""
    assert proc.run(echo, stdin=b"given").stdout == b"given"


# --- following a program that runs for long ---------------------------------------------------


def test_lines_come_one_by_one_from_both_streams_while_it_runs(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; print('one', flush=True); print('two', file=sys.stderr);"
        "p = pathlib.Path('go')\n"
        "while not p.exists(): time.sleep(0.01)\n"
        "print('three'); sys.exit(4)"
    )
    seen: list[str] = []

    def note(line: str) -> None:
        seen.append(line)
        if len(seen) == 2:  # it waits for us: the first two were not kept until its end
            (tmp_path / "go").touch()

    assert proc.follow(python(code), note, cwd=tmp_path) == 4
    assert sorted(seen) == ["one", "three", "two"]
    assert seen[-1] == "three"


def test_a_signal_is_told_as_its_negative_number() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert proc.follow(python(code), lambda _: None) == -9


def test_what_stops_us_stops_the_program_and_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(60)']); print(child.pid, flush=True); child.wait()"
    )
    children: list[int] = []

    def stop(line: str) -> None:
        children.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        proc.follow(python(code), stop)
    deadline = time.monotonic() + 5
    while running(children[0]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not running(children[0])


def test_a_program_that_will_not_end_is_made_to() -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('ready', flush=True); time.sleep(60)"
    )

    def stop(_: str) -> None:
        raise RuntimeError

    begun = time.monotonic()
    with pytest.raises(RuntimeError):
        proc.follow(python(code), stop, patience=0.3)
    assert time.monotonic() - begun < 5


def test_a_program_that_is_missing_is_named_when_followed() -> None:
    with pytest.raises(EnvironmentProblem, match="no-such-program is not installed"):
        proc.follow(("no-such-program",), lambda _: None)


def running(pid: int) -> bool:
    """Alive and no zombie that somebody else has to collect."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
