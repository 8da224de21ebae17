"""Taking pieces out of a cache folder: lock, one rename aside, delete; never through a link.

Moving aside comes first, so that a process that looks for the entry finds all of it or none. The
aside folder lies in the cache folder itself (the same file system); what a kill leaves there is
named `.stackpatch-cleared-*` and is swept by the next clear.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from typing import TYPE_CHECKING

from stackpatch.installed.guard import FOLDER
from stackpatch.installed.survey import Left, Parts, Piece, Why, describe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stackpatch.installed.guard import Root


def pieces(root: Root, wanted: Sequence[Piece]) -> tuple[set[Piece], list[Left]]:
    """Remove pieces of one cache folder; returns those that are gone, and what stayed and why."""
    gone: set[Piece] = set()
    left: list[Left] = []
    try:
        top = root.open()
    except OSError as error:
        return gone, [Left((), Why.FAILED, describe(error))]
    try:
        with _aside(top) as aside:
            for number, piece in enumerate(wanted):
                stays = _move(top, aside, piece, str(number))
                if stays is not None:
                    left.append(stays)
                    continue
                gone.add(piece)
                left += _discard(top, aside, piece, str(number), root.identity[0])
    except OSError as error:
        left += [Left(p.parts, Why.FAILED, describe(error)) for p in wanted if p not in gone]
    finally:
        os.close(top)
    return gone, left


def busy(root: Root, piece: Piece) -> str | None:
    """The lock file of the piece that another process holds, as a path; None when all are free."""
    try:
        top = root.open()
    except OSError:
        return None
    try:
        with _held(top, piece) as holder:
            return holder
    finally:
        os.close(top)


def look_at_file(path: Path) -> int | str | None:
    """The size of a cache that is one file; a string says why it is not one; None: absent."""
    if not path.is_absolute():
        return "is a relative path, which depends on the folder that the server starts in"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return "is a symbolic link" if path.is_symlink() else f"cannot be read: {describe(error)}"
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            return "is not a file"
        if found.st_uid != os.geteuid():
            return f"belongs to user {found.st_uid}, not to you ({os.geteuid()})"
        begins = os.read(handle, 4096).lstrip()[:1]
        if begins not in {b"{", b"["}:
            return "is not JSON, which the cache would be"
        return found.st_size
    finally:
        os.close(handle)


def file(path: Path) -> str | None:
    """Remove a cache that is one file; returns what is in the way."""
    now = look_at_file(path)
    if isinstance(now, str):
        return now
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        return describe(error)
    return None


@contextlib.contextmanager
def _aside(top: int) -> Iterator[int]:
    """A folder of our own in the cache folder, locked while we work in it."""
    name = f".stackpatch-cleared-{secrets.token_hex(4)}"
    os.mkdir(name, 0o700, dir_fd=top)
    handle = os.open(name, FOLDER, dir_fd=top)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield handle
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):  # not empty: what stays in it was reported
            os.rmdir(name, dir_fd=top)


def _move(top: int, aside: int, piece: Piece, name: str) -> Left | None:
    """Rename the piece into the aside folder under its locks; None when that is done."""
    try:
        with _parent(top, piece.parts) as parent, _held(top, piece) as holder:
            if holder is not None:
                detail = f"{holder} is locked: a process is at work on it"
                return Left(piece.parts, Why.BUSY, detail)
            own = piece.parts[-1]
            if _identity(parent, own) == piece.identity:
                os.rename(own, name, src_dir_fd=parent, dst_dir_fd=aside)
                if _identity(aside, name) == piece.identity:
                    return None
                os.rename(name, own, src_dir_fd=aside, dst_dir_fd=parent)
            return Left(piece.parts, Why.FAILED, "was replaced by another one meanwhile")
    except FileNotFoundError:
        return Left(piece.parts, Why.KEPT, "was gone already")
    except OSError as error:
        return Left(piece.parts, Why.FAILED, describe(error))


def _identity(folder: int, name: str) -> tuple[int, int]:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return found.st_dev, found.st_ino


def _discard(top: int, aside: int, piece: Piece, name: str, device: int) -> list[Left]:
    """Delete what was moved aside; what arrived in it since it was looked at goes back."""
    found = os.stat(name, dir_fd=aside, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=aside)
        return []
    late = _empty(aside, name, piece, device, ())
    if not late:
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=aside)
        return []
    return [_back(top, aside, piece, name, parts) for parts in late]


def _empty(folder: int, name: str, piece: Piece, device: int, above: Parts) -> list[Parts]:
    """Delete the recognised files below a folder, and the folders that become empty.

    Returns the paths, below the piece, of what is not recognised.
    """
    strange: list[Parts] = []
    handle = os.open(name, FOLDER, dir_fd=folder)
    try:
        for child in os.listdir(handle):  # noqa: PTH208 - a descriptor
            try:
                found = os.stat(child, dir_fd=handle, follow_symlinks=False)
            except FileNotFoundError:
                continue
            ours = found.st_uid == os.geteuid() and found.st_dev == device
            if stat.S_ISDIR(found.st_mode) and ours:
                strange += _empty(handle, child, piece, device, (*above, child))
                with contextlib.suppress(OSError):  # not empty
                    os.rmdir(child, dir_fd=handle)
            elif stat.S_ISREG(found.st_mode) and ours and piece.entry.accepts(child):
                os.unlink(child, dir_fd=handle)
            else:
                strange.append((*above, child))
    finally:
        os.close(handle)
    return strange


def _back(top: int, aside: int, piece: Piece, name: str, parts: Parts) -> Left:
    """Put a thing that is not the cache's back to where it was."""
    place = (*piece.parts, *parts)
    try:
        _make_folders(top, place[:-1], len(piece.parts) - 1)
        with _parent(aside, (name, *parts)) as source, _parent(top, place) as target:
            if _exists(target, place[-1]):
                detail = "arrived meanwhile and is kept in the folder .stackpatch-cleared-*"
                return Left(place, Why.FAILED, detail)
            os.rename(parts[-1], place[-1], src_dir_fd=source, dst_dir_fd=target)
            _prune(aside, (name, *parts[:-1]))
    except OSError as error:
        detail = f"arrived meanwhile and could not be put back: {describe(error)}"
        return Left(place, Why.FAILED, detail)
    return Left(
        place, Why.UNRECOGNISED, "arrived meanwhile and is not a file that this cache makes"
    )


def _make_folders(top: int, parts: Parts, known: int) -> None:
    """Create the folders of a path that are gone by now; those above `known` must be there."""
    for depth in range(known, len(parts)):
        with _parent(top, parts[: depth + 1]) as parent, contextlib.suppress(FileExistsError):
            os.mkdir(parts[depth], 0o755, dir_fd=parent)


def _prune(aside: int, parts: Parts) -> None:
    for depth in range(len(parts), 0, -1):
        with contextlib.suppress(OSError), _parent(aside, parts[:depth]) as parent:
            os.rmdir(parts[depth - 1], dir_fd=parent)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def _parent(top: int, parts: Parts) -> Iterator[int]:
    """A descriptor of the folder that holds the last of parts, reached without following links."""
    handle = os.dup(top)
    try:
        for part in parts[:-1]:
            below = os.open(part, FOLDER, dir_fd=handle)
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def _held(top: int, piece: Piece) -> Iterator[str | None]:
    """Hold all locks of a piece. Yields None, or the path of one that another process holds.

    filelock (which FlashInfer uses), tvm-ffi, QuACK and SGLang all lock with flock.
    """
    handles: list[int] = []
    try:
        for parts in (*piece.entry.lock_paths(piece.unit), *piece.locks):
            handle = _open_lock(top, parts)
            if handle is None:
                continue
            handles.append(handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield "/".join(parts)
                return
        yield None
    finally:
        for handle in handles:
            os.close(handle)


def _open_lock(top: int, parts: Parts) -> int | None:
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with _parent(top, parts) as parent:
            try:
                handle = os.open(parts[-1], os.O_RDWR | flags, dir_fd=parent)
            except PermissionError:
                handle = os.open(parts[-1], os.O_RDONLY | flags, dir_fd=parent)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return None
    return handle
