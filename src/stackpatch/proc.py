"""The one place that starts programs: argv only, clean environment, timeouts, captured output."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Self

from stackpatch.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

# A user's GIT_DIR, GIT_INDEX_FILE or GIT_CONFIG_* would make git act on another repository than
# the one we name (pre-commit met this inside hooks); what git needs to reach a server stays.
_GIT_KEPT = frozenset(
    {
        "GIT_SSL_CAINFO",
        "GIT_SSL_CAPATH",
        "GIT_SSL_NO_VERIFY",
        "GIT_SSH",
        "GIT_SSH_COMMAND",
        "GIT_SSH_VARIANT",
        "GIT_ASKPASS",
        "GIT_HTTP_PROXY_AUTHMETHOD",
        "GIT_ALLOW_PROTOCOL",
        "GIT_TRACE",
    }
)


@dataclass(frozen=True, slots=True)
class Completed:
    """What a program left behind: exit status and both streams as bytes."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes

    def text(self) -> str:
        """Standard output as UTF-8, undecodable bytes replaced."""
        return self.stdout.decode("utf-8", "replace")

    def error_text(self) -> str:
        """The last 2,000 characters of standard error, for a message."""
        return self.stderr.decode("utf-8", "replace").strip()[-2000:]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for child programs: ours, in the C.UTF-8 locale, without inherited GIT_*."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k in _GIT_KEPT}
    env["LC_ALL"] = "C.UTF-8"
    env.pop("LANGUAGE", None)
    if extra:
        env.update(extra)
    return env


def find(program: str) -> Path | None:
    """Where `program` is on PATH, or None."""
    from pathlib import Path

    found = shutil.which(program)
    return Path(found) if found else None


def _failed(done: Completed) -> EnvironmentProblem:
    """A program that did not end well; a full disk is told as what it is."""
    said = done.error_text()
    if "No space left on device" in said or "Out of diskspace" in said:  # git's own words
        msg = f"no space left while {done.argv[0]} was writing"
        return EnvironmentProblem(msg, hint="free some space and run again")
    return EnvironmentProblem(
        f"`{' '.join(done.argv[:4])}` ended with status {done.status}: {said}"
    )


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout: float | None = None,
    check: bool = True,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Run a program to its end and capture what it printed.

    env: variables added to `environment()`. timeout: seconds. pass_fds: descriptors that the
    program inherits; a lock's, so that the lock is held until the program has ended too.
    Raises EnvironmentProblem when the program is missing or runs into the timeout and, with
    check, when it ends with another status than 0. The program's own status is never ours.
    """
    words = tuple(str(word) for word in argv)
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=environment(env),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            pass_fds=pass_fds,
        )
    except FileNotFoundError as error:
        if cwd is not None and not cwd.is_dir():
            msg = f"cannot run {words[0]}: the folder {cwd} does not exist"
            raise EnvironmentProblem(msg) from error
        msg = f"{words[0]} is not installed or not on PATH"
        raise EnvironmentProblem(msg, hint="`stackpatch doctor` says what is missing") from error
    except subprocess.TimeoutExpired as error:
        msg = f"`{' '.join(words[:4])}` did not finish within {timeout:g} s"
        raise EnvironmentProblem(msg) from error
    result = Completed(words, done.returncode, done.stdout, done.stderr)
    if check and result.status != 0:
        raise _failed(result)
    return result


def _widen(child: subprocess.Popen[bytes]) -> None:
    """Let its input hold 1 MiB, so that writer and reader need not take turns. Linux only."""
    if child.stdin is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(child.stdin, fcntl.F_SETPIPE_SZ, 1 << 20)


@contextlib.contextmanager
def feeding(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    output: BinaryIO | None = None,
) -> Iterator[Callable[[bytes], object]]:
    """Run a program that reads what the block writes; the block's end is the end of its input.

    output: a file that takes what it prints, which is dropped without one; then each line written
    reaches the program at once, so that it works while the block does.
    Yields the function that writes. When the block raises, the program is killed. Raises
    EnvironmentProblem when the program is missing, stops reading, or ends with another status
    than 0; its standard error is in the message.
    """
    words = tuple(str(word) for word in argv)
    with tempfile.TemporaryFile() as errors:
        try:
            child = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL if output is None else output,
                stderr=errors,
                env=environment(env),
                pass_fds=pass_fds,
                bufsize=1 << 20 if output is None else 0,
            )
        except FileNotFoundError as error:
            msg = f"{words[0]} is not installed or not on PATH"
            hint = "`stackpatch doctor` says what is missing"
            raise EnvironmentProblem(msg, hint=hint) from error
        _widen(child)
        pipe = child.stdin
        assert pipe is not None  # noqa: S101 - by PIPE above, for mypy
        try:
            yield pipe.write
            pipe.close()
            child.wait()
        except BrokenPipeError:  # it ended early: its status and words say why
            child.wait()
        except BaseException:
            child.kill()
            child.wait()
            raise
        finally:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        if child.returncode != 0:
            errors.seek(0)
            done = Completed(words, child.returncode, b"", errors.read())
            raise _failed(done)


class Beside:
    """A program that works beside this one: it reads all that it is told, then it answers.

    One that is missing, fails or is killed answers nothing; that is for the caller to make good.
    """

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child: subprocess.Popen[bytes] | None = child

    @classmethod
    def start(cls, argv: Sequence[str | Path]) -> Self | None:
        """Start the program; None where that cannot be done."""
        try:
            child = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment(),
                bufsize=1 << 20,
            )
        except OSError:
            return None
        _widen(child)
        return cls(child)

    def tell(self, *parts: bytes) -> None:
        """Hand over input; waits while the program has enough of it."""
        if self._child is not None and self._child.stdin is not None:
            try:
                for part in parts:
                    self._child.stdin.write(part)
            except OSError:  # it has ended
                self.end()

    def answer(self) -> bytes:
        """End its input and read its output to the end; nothing unless it ended well."""
        if self._child is None:
            return b""
        try:
            said, _ = self._child.communicate()
        except OSError:
            said = b""
        status = self._child.returncode
        self.end()
        return said if status == 0 else b""

    def end(self) -> None:
        """See it ended, whatever it was doing."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def processors() -> int:
    """How many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def follow(
    argv: Sequence[str | Path],
    on_line: Callable[[str], object],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    patience: float = 20.0,
) -> int:
    """Run a program and hand over each line that it prints, on either stream, as it comes.

    Returns its exit status; minus the signal's number where one ended it. The program gets a
    process group of its own. When the block raises (Ctrl-C too), the group is asked to end, and
    after `patience` seconds made to. Raises EnvironmentProblem when the program is missing.
    """
    words = tuple(str(word) for word in argv)
    try:
        child = subprocess.Popen(
            words,
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    except FileNotFoundError as error:
        msg = f"{words[0]} is not installed or not on PATH"
        hint = "`stackpatch doctor` says what is missing"
        raise EnvironmentProblem(msg, hint=hint) from error
    assert child.stdout is not None  # noqa: S101 - by PIPE above, for mypy
    try:
        for raw in child.stdout:
            on_line(raw.decode("utf-8", "replace").rstrip("\r\n"))
        return child.wait()
    except BaseException:
        _end_group(child, patience)
        raise
    finally:
        child.stdout.close()


def _end_group(child: subprocess.Popen[bytes], patience: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(patience)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
