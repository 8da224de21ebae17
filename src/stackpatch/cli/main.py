"""The program's entry: runs a command, turns every way it can end into an exit status.

0 done, 1 a finding, 2 wrong usage or input, 3 the environment, 4 waiting for a person, 130
interrupted. An unexpected error is status 3 too (kind `internal`): it is no finding and nothing
the person typed; it writes a log, and a traceback never reaches the screen.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from stackpatch.errors import EnvironmentProblem, InputError, StackpatchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

INTERRUPTED = 130

# What a disk, a user limit or a permission says through the operating system. Anything else that
# arrives as a bare OSError is a mistake of ours.
_ENVIRONMENT_ERRNOS = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EPERM,
        errno.EROFS,
    }
)


class _InterruptedError(StackpatchError):
    """Ctrl-C, or a SIGTERM or SIGHUP."""

    exit_status: ClassVar[int] = INTERRUPTED
    kind: ClassVar[str] = "interrupted"


class _InternalError(StackpatchError):
    """A mistake of ours."""

    exit_status: ClassVar[int] = 3
    kind: ClassVar[str] = "internal"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program. argv: the words after the program's name. Returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    # A run is short and what it imports stays: looking for garbage among it took a twelfth of the
    # start of every command.
    gc.set_threshold(50_000, 20, 100)
    try:
        with _signals():
            status = _run(words)
            _settle()
            return status
    except KeyboardInterrupt:  # during start-up or while telling an error
        return INTERRUPTED


def wants_json(words: Sequence[str]) -> bool:
    """Whether `--json` was asked, read from the words: parsing them may be what failed."""
    own = words[: words.index("--")] if "--" in words else words
    return "--json" in own


def _settle() -> None:
    """Flush what is left; what cannot go out must not fail again, in words, when Python ends."""
    from stackpatch.cli import terminal

    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            terminal.silence(stream)


def _only_shows(words: Sequence[str]) -> bool:
    """Whether click itself wrote to stdout: help or the version."""
    return not {"-h", "--help", "--version", "--show-completion"}.isdisjoint(words)


def _run(words: list[str]) -> int:
    from stackpatch.cli import output, terminal

    output.start()
    try:
        return _invoke(words)
    except StackpatchError as error:
        failure = error
    except KeyboardInterrupt:
        failure = _InterruptedError("interrupted")
    except BrokenPipeError as error:
        if _only_shows(words):  # `stackpatch --help | head`
            terminal.silence(sys.stdout)
            return 0
        failure = _translated(error, words)
    except Exception as error:  # noqa: BLE001 - the one place where everything ends
        failure = _translated(error, words)
    try:
        output.fail(_schema_name(words), failure, json=wants_json(words))
    except StackpatchError as unwritten:  # stdout takes no document; stderr may still be there
        output.fail("error", failure, json=False)
        output.fail("error", unwritten, json=False)
    return failure.exit_status


def _invoke(words: list[str]) -> int:
    """Parse and call. Click's own errors become ours; its wish to exit becomes a status."""
    completing = "_STACKPATCH_COMPLETE" in os.environ
    if words[:1] == ["matrix"] and not completing:
        from stackpatch.cli import matrix_again

        if matrix_again.tell(words):
            return 0
    import typer

    from stackpatch.cli import commands

    group = commands.root_command()
    if completing:
        group.main(args=words, prog_name="stackpatch")
    try:
        with group.make_context("stackpatch", list(words), obj=tuple(words)) as context:
            group.invoke(context)
    except typer.Exit as wish:
        return wish.exit_code
    except typer.Abort as error:
        msg = "interrupted"
        raise _InterruptedError(msg) from error
    except typer.TyperException as error:
        raise _usage(error) from error
    return 0


def _usage(error: Any) -> InputError:
    """A click usage error in our words: its message, and where the help is."""
    message = error.format_message().strip().rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "stackpatch"
    return InputError(
        message[:1].lower() + message[1:] if message else f"{path} needs a command",
        hint=f"`{path} --help` shows what it takes",
    )


def _translated(error: Exception, words: Sequence[str]) -> StackpatchError:
    """The environment's errors by name; everything else is ours and leaves a log."""
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT_ERRNOS:
        where = os.fsdecode(error.filename) if error.filename is not None else None
        return EnvironmentProblem(str(error.strerror or error), where=where)
    if isinstance(error, MemoryError):
        return EnvironmentProblem("out of memory")
    from stackpatch.cli import crash

    log = crash.write_log(error, words)
    return _InternalError(
        f"unexpected error: {crash.summary(error)}",
        where=str(log) if log else None,
        hint="this is a mistake in stackpatch; please report it with that log",
    )


def _schema_name(words: Sequence[str]) -> str:
    """The name that the command's document has, for a run that failed before it made one."""
    from stackpatch.cli import commands

    plain = [word for word in words if not word.startswith("-")]
    if not plain or plain[0] not in commands.TABLE:
        return "error"
    try:
        subcommands = getattr(commands.load(plain[0]), "commands", {})
    except Exception:  # noqa: BLE001 - its module is what failed
        return plain[0]
    return "-".join(plain[:2]) if len(plain) > 1 and plain[1] in subcommands else plain[0]


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the handler's form
    raise KeyboardInterrupt


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the program like Ctrl-C, so that everything is cleaned up.

    One that the parent has set to be ignored (nohup) stays ignored.
    """
    changed = []
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _interrupt)
                changed.append(number)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)
