"""Where a stack is installed and its checks run: an interpreter here, behind ssh, in an image.

A place runs small programs with the Python that has the stack; nothing is installed there. What
is asked is the same everywhere, so that a check says the same of the same installation.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stackpatch.checks.agents import MARK, source
from stackpatch.checks.targets import folder_members
from stackpatch.errors import EnvironmentProblem
from stackpatch.proc import Completed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stackpatch.checks.members import Found

# A runner that is told to stop kills its check first, which takes a moment.
_PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Job:
    """Files that are put into a folder of their own, and the one of them that is run there.

    argv: the program's name among the files, and its arguments. limit: seconds after which it is
    killed with everything that it started.
    """

    files: Mapping[str, bytes]
    argv: tuple[str, ...]
    limit: float
    env: Mapping[str, str] = field(default_factory=dict)


class Place(Protocol):
    """Where the stack is. `python`: the interpreter that has it, as it is called there."""

    @property
    def python(self) -> str:
        """The interpreter, as a program there can start it."""

    def run(self, job: Job) -> Completed:
        """Run a job to its end. Raises EnvironmentProblem when it cannot be run there."""

    def members(self, folder: str) -> Iterator[Found]:
        """Every file of a folder there."""

    def document(self) -> dict[str, object]:
        """What it is, for smoke.json."""


def ask(place: Place, program: str, *arguments: str, given: bytes | None = None) -> Any:
    """What one of our own programs answers there. given: a file that it finds as `given.json`.

    Raises EnvironmentProblem when there is no answer.
    """
    files = {program: source(program)}
    words = (program, *arguments)
    if given is not None:
        # A starter that needs no path: the folder's name is known only there.
        files |= {"given.json": given, "start.py": _START}
        words = ("start.py", program, *arguments, "given.json")
    done = place.run(Job(files, words, 120.0))
    lines = [line for line in done.text().splitlines() if line.startswith(MARK)]
    try:
        return json.loads(lines[-1].removeprefix(MARK))
    except (IndexError, ValueError) as error:
        said = done.error_text().splitlines()
        msg = f"{place.python} gave no answer: {said[-1] if said else f'status {done.status}'}"
        raise EnvironmentProblem(msg, hint="name a Python interpreter that works") from error


_START = b"""
import os, runpy, sys
here = os.path.dirname(os.path.abspath(__file__))
sys.argv = [os.path.join(here, sys.argv[1]), *sys.argv[2:-1], os.path.join(here, sys.argv[-1])]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True, slots=True)
class Here:
    """An interpreter on this machine. interpreter: an absolute path."""

    interpreter: Path

    @property
    def python(self) -> str:
        """Its path."""
        return str(self.interpreter)

    def run(self, job: Job) -> Completed:
        """Run it as a child. An interruption lets the runner kill its check first."""
        with written(job.files) as folder:
            name, *rest = job.argv
            words = [self.python, "-I", str(folder / name), *rest]
            return run_until(words, job.limit, env=job.env)

    def members(self, folder: str) -> Iterator[Found]:
        """The files, as the audit of a folder has them."""
        return folder_members(Path(folder))

    def document(self) -> dict[str, object]:
        """Its path."""
        return {"kind": "python", "python": self.python}


@contextlib.contextmanager
def written(files: Mapping[str, bytes]) -> Iterator[Path]:
    """A folder with these files that is gone afterwards; others may read and not write it."""
    with tempfile.TemporaryDirectory(prefix="stackpatch-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for path, content in files.items():
            (folder / path).write_bytes(content)
            (folder / path).chmod(0o644)
        yield folder


def run_until(
    words: list[str],
    limit: float,
    *,
    env: Mapping[str, str] | None = None,
    given: bytes | None = None,
) -> Completed:
    """Run a program; after `limit` seconds, or when we are interrupted, it is told to stop.

    given: written to its standard input, which stays open until it ends. Raises
    EnvironmentProblem when it cannot be started or ran out of time.
    """
    import os

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
                stdout=out,
                stderr=err,
                env={**os.environ, **env} if env else None,
            )
        except OSError as error:
            msg = f"{words[0]} cannot be run: {(error.strerror or str(error)).lower()}"
            raise EnvironmentProblem(msg) from error
        try:
            if child.stdin is not None and given is not None:
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.write(given)
                    child.stdin.flush()
            child.wait(timeout=limit)
        except subprocess.TimeoutExpired as error:
            msg = f"{words[0]} did not end within {limit:g} s"
            raise EnvironmentProblem(msg) from error
        finally:
            _end(child)
        out.seek(0)
        err.seek(0)
        return Completed(tuple(words), child.returncode, out.read(), err.read())


def _end(child: subprocess.Popen[bytes]) -> None:
    """Close its input, tell it to stop, kill it when it does not; nothing when it has ended."""
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
