"""Writing to disk so that a kill or a second process never leaves half of anything."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stackpatch.errors import EnvironmentProblem, InputError, StackpatchError

if TYPE_CHECKING:
    from collections.abc import Iterator


def cache_root() -> Path:
    """The user's stackpatch cache: $STACKPATCH_CACHE_DIR, else $XDG_CACHE_HOME/stackpatch."""
    named = os.environ.get("STACKPATCH_CACHE_DIR")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "stackpatch"


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what a full, read-only or forbidden disk raises into an EnvironmentProblem."""
    try:
        yield
    except OSError as error:
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                msg, hint = f"no space left while writing {path}", "free some space and run again"
            case errno.EACCES | errno.EPERM | errno.EROFS:
                msg, hint = f"not allowed to write {path}", "choose another folder"
            case _:
                raise
        raise EnvironmentProblem(msg, hint=hint, where=str(path)) from error


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Put content at path; a reader sees the old file or the new one, never a part.

    mode: permission bits, set whatever the umask is, so that the same inputs give the same tree.
    Raises InputError for a folder, a device or a pipe: the last two would be replaced for good.
    """
    with disk_errors(path):
        _only_a_file(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, mode)  # noqa: PTH101 - a mkstemp name
            os.replace(name, path)  # noqa: PTH105
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)  # noqa: PTH108
            raise


def write_if_possible(path: Path, content: bytes) -> None:
    """`write_atomically` for what can be made again: where it cannot be written, it is not."""
    with contextlib.suppress(OSError, StackpatchError):
        write_atomically(path, content)


def _only_a_file(path: Path) -> None:
    try:
        there = path.stat().st_mode
    except OSError:
        return  # nothing is there, or the writing will say why it cannot be
    if stat.S_ISDIR(there) and not path.is_symlink():
        msg = f"{path} is a folder"
    elif not (stat.S_ISREG(there) or stat.S_ISDIR(there)):
        msg = f"{path} is a device or a pipe"
    else:
        return
    raise InputError(msg, hint="name a file")


@contextlib.contextmanager
def directory_beside(target: Path) -> Iterator[Path]:
    """A scratch folder next to `target` that becomes `target` when the block ends well.

    An existing `target` is replaced as a whole; when the block raises, it stays as it was and the
    scratch folder is removed. What a SIGKILL leaves is a `.NAME.*.tmp` folder, swept by the next
    call under the same lock.
    """
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{target.name}."
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix, suffix=".tmp"))
        try:
            yield scratch
            scratch.chmod(0o755)
            replace_directory(scratch, target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise


def replace_directory(scratch: Path, target: Path) -> None:
    """Rename scratch to target; an older target is moved aside first and removed afterwards."""
    if not target.exists():
        scratch.rename(target)
        return
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old.", suffix=".tmp"))
    moved = aside / "was"
    target.rename(moved)
    try:
        scratch.rename(target)
    except BaseException:
        moved.rename(target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def sweep(parent: Path, name: str) -> None:
    """Remove scratch folders and files for `name` that a killed process left in parent.

    Call it under the lock of `name`: without it a live process's scratch would be removed.
    """
    for leftover in parent.glob(f".{name}.*.tmp"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                leftover.unlink()


@contextlib.contextmanager
def lock(path: Path, *, wait: float = 600.0, what: str = "another stackpatch") -> Iterator[int]:
    """Hold an exclusive lock on `path` (created when absent), waiting up to `wait` seconds.

    The kernel drops the lock when the process dies, so a kill leaves nothing to clean up. Yields
    the lock's descriptor: a child program that inherits it holds the lock as long as it lives.
    Raises EnvironmentProblem when somebody else holds it for longer.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    msg = f"{what} is still at work (lock {path})"
                    raise EnvironmentProblem(msg, hint="wait for it to end, or stop it") from None
                time.sleep(0.05)
        yield handle
    finally:
        os.close(handle)
