"""What lies in a cache folder: which entries are the cache's own, how large they are, what is not.

Everything is read through directory descriptors and without following links, so that a link or a
folder that is swapped in while we look leads nowhere.
"""

from __future__ import annotations

import fcntl
import os
import stat
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from stackpatch.installed.guard import FOLDER, mount_points
from stackpatch.installed.shape import ASIDE, Entry, step

if TYPE_CHECKING:
    from stackpatch.installed.guard import Root

Parts = tuple[str, ...]
_DEEPEST = 48  # levels; each holds a descriptor while it is walked


class Why(StrEnum):
    """Why something stays."""

    UNRECOGNISED = "unrecognised"  # not the cache's own, as far as we know
    KEPT = "kept"  # the cache's own, and harmless
    NOT_READ = "not-read"  # of another version than the one in question
    CURRENT = "current"  # made from exactly these sources
    BUSY = "busy"  # in use by another process
    FAILED = "failed"  # could not be read or deleted


@dataclass(frozen=True, slots=True)
class Left:
    """A path below the cache folder that stays, and why."""

    parts: Parts
    why: Why
    detail: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A file or folder that is the cache's own through and through.

    unit: the entry's path; parts is the same or lies below it (where the rest of the entry is
    not the cache's). bytes: sum of the sizes of its files, hard links once. locks: lock files
    that lie inside, as paths below the cache folder.
    """

    parts: Parts
    unit: Parts
    entry: Entry
    version: str | None
    identity: tuple[int, int]
    bytes: int
    files: int
    locks: tuple[Parts, ...] = ()


@dataclass(slots=True)
class Survey:
    """All pieces and all that stays, in the order of their paths."""

    pieces: list[Piece] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)


def survey(root: Root, entries: tuple[Entry, ...]) -> Survey:
    """Look through a cache folder. Raises OSError when the folder itself cannot be read."""
    handle = root.open()
    try:
        walk = _Walk(str(root.real), root.identity[0], entries, mount_points())
        walk.level(handle, (), entries, None)
    finally:
        os.close(handle)
    return walk.found


def describe(error: OSError) -> str:
    """An OSError for people."""
    return (error.strerror or str(error)).lower()


@dataclass(slots=True)
class _Walk:
    root: str
    device: int
    entries: tuple[Entry, ...]
    mounts: frozenset[str]
    found: Survey = field(default_factory=Survey)

    def leave(self, parts: Parts, why: Why, detail: str) -> None:
        self.found.left.append(Left(parts, why, detail))

    def foreign(self, found: os.stat_result, parts: Parts) -> str | None:
        """Why a thing cannot be the cache's own, whatever its name."""
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFLNK:
            return "a symbolic link, which this cache never makes"
        if kind not in {stat.S_IFDIR, stat.S_IFREG}:
            return "neither a file nor a folder"
        if found.st_uid != os.geteuid():
            return f"belongs to user {found.st_uid}"
        if found.st_dev != self.device or "/".join((self.root, *parts)) in self.mounts:
            return "is mounted from elsewhere"
        return None

    def level(
        self, handle: int, above: Parts, entries: tuple[Entry, ...], version: str | None
    ) -> None:
        """One folder above or between entries."""
        for name in sorted(os.listdir(handle)):
            parts = (*above, name)
            found = _stat(handle, name)
            if found is None:
                continue
            folder = stat.S_ISDIR(found.st_mode)
            if not above and folder and ASIDE.fullmatch(name):
                self.leftover(handle, name, found)
                continue
            meaning = step(entries, len(above), name, folder=folder)
            kept = next((entry for entry in meaning.ends if entry.keep), None)
            if kept is not None:
                self.leave(parts, Why.KEPT, kept.keep)
            elif (reason := self.foreign(found, parts)) is not None:
                self.leave(parts, Why.UNRECOGNISED, reason)
            elif not meaning.ends and not meaning.deeper:
                self.leave(parts, Why.UNRECOGNISED, "not a name that this cache uses")
            elif not folder:
                piece = _file(parts, parts, meaning.ends[0], version, found)
                self.found.pieces.append(piece)
            else:
                self.folder(handle, parts, meaning.ends, meaning.deeper, meaning.version or version)

    def folder(
        self,
        handle: int,
        parts: Parts,
        ends: tuple[Entry, ...],
        deeper: tuple[Entry, ...],
        version: str | None,
    ) -> None:
        """A folder whose name is right: an entry when it is marked as one, else a way down."""
        try:
            inner = os.open(parts[-1], FOLDER, dir_fd=handle)
        except FileNotFoundError:
            return
        except OSError as error:
            self.leave(parts, Why.FAILED, describe(error))
            return
        try:
            names = frozenset(os.listdir(inner))  # noqa: PTH208 - a descriptor
            entry = next((entry for entry in ends if entry.marked(names, parts[-1])), None)
            if entry is not None:
                self.entry(inner, parts, entry, version)
            elif deeper:
                self.level(inner, parts, deeper, version)
            elif names:
                self.leave(parts, Why.UNRECOGNISED, "lacks the files that this cache puts there")
            else:
                self.leave(parts, Why.KEPT, "an empty folder")
        except OSError as error:
            self.leave(parts, Why.FAILED, describe(error))
        finally:
            os.close(inner)

    def leftover(self, handle: int, name: str, found: os.stat_result) -> None:
        """What an interrupted clear left in our own folder."""
        if (reason := self.foreign(found, (name,))) is not None:
            self.leave((name,), Why.UNRECOGNISED, reason)
            return
        if _in_use(handle, name):
            self.leave((name,), Why.KEPT, "another stackpatch is clearing this cache now")
            return
        inside = "|".join(f"(?:{entry.inside})" for entry in self.entries if entry.inside)
        entry = Entry((ASIDE.pattern,), inside=inside + r"|\d+")
        self.folder(handle, (name,), (entry,), (), None)

    def entry(self, handle: int, parts: Parts, entry: Entry, version: str | None) -> None:
        """An entry: one piece when all of it is the cache's own, else the pieces that are."""
        whole = self.inside(handle, parts, parts, entry, version)
        if whole is not None:
            self.found.pieces.append(whole)

    def inside(
        self, handle: int, parts: Parts, unit: Parts, entry: Entry, version: str | None
    ) -> Piece | None:
        """The folder as one piece; or None, and its own pieces are added one by one."""
        own: list[Piece] = []
        whole = True
        seen: set[tuple[int, int]] = set()
        for name in sorted(os.listdir(handle)):
            below = (*parts, name)
            found = _stat(handle, name)
            if found is None:
                continue
            reason = self.foreign(found, below)
            if reason is None and stat.S_ISREG(found.st_mode) and not entry.accepts(name):
                reason = "not a file that this cache makes"
            if reason is None and len(below) - len(unit) > _DEEPEST:
                reason = "lies too deep"
            if reason is not None:
                self.leave(below, Why.UNRECOGNISED, reason)
                whole = False
            elif stat.S_ISREG(found.st_mode):
                piece = _file(below, unit, entry, version, found)
                if (found.st_dev, found.st_ino) in seen:  # a second name of the same bytes
                    piece = replace(piece, bytes=0)
                seen.add((found.st_dev, found.st_ino))
                own.append(piece)
            elif (piece_or_none := self.below(handle, below, unit, entry, version)) is not None:
                own.append(piece_or_none)
            else:
                whole = False
        if not whole:
            self.found.pieces.extend(own)
            return None
        here = os.fstat(handle)
        return Piece(
            parts,
            unit,
            entry,
            version,
            (here.st_dev, here.st_ino),
            sum(piece.bytes for piece in own),
            sum(piece.files for piece in own),
            tuple(lock for piece in own for lock in piece.locks),
        )

    def below(
        self, handle: int, parts: Parts, unit: Parts, entry: Entry, version: str | None
    ) -> Piece | None:
        try:
            inner = os.open(parts[-1], FOLDER, dir_fd=handle)
        except OSError as error:
            self.leave(parts, Why.FAILED, describe(error))
            return None
        try:
            return self.inside(inner, parts, unit, entry, version)
        except OSError as error:
            self.leave(parts, Why.FAILED, describe(error))
            return None
        finally:
            os.close(inner)


def _stat(handle: int, name: str) -> os.stat_result | None:
    """lstat; None when it is gone by now."""
    try:
        return os.stat(name, dir_fd=handle, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _in_use(handle: int, name: str) -> bool:
    """Whether a live process holds the lock of its aside folder."""
    try:
        inner = os.open(name, FOLDER, dir_fd=handle)
    except OSError:
        return False
    try:
        fcntl.flock(inner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(inner)
    return False


def _file(
    parts: Parts, unit: Parts, entry: Entry, version: str | None, found: os.stat_result
) -> Piece:
    name = parts[-1]
    locks = (parts,) if name == "lock" or name.endswith(".lock") else ()
    identity = (found.st_dev, found.st_ino)
    return Piece(parts, unit, entry, version, identity, found.st_size, 1, locks)
