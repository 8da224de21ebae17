"""The files of a wheel or another zip, streamed out of it without unpacking to disk.

Inflating is half of the work and needs no interpreter lock: small members are inflated by threads
while those before them are looked into. What is seen of a member, and the order, is the same.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from isal import isal_zlib

from stackpatch.checks.code import DamagedError
from stackpatch.checks.inflate import RAW_DEFLATE, Inflated
from stackpatch.checks.members import Found, Member, Unread
from stackpatch.checks.scan import is_prose
from stackpatch.checks.window import Kept, skip_by_reading
from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# What may lie inflated and not yet looked into, in all and of one member.
_AHEAD_TOTAL = 16 << 20
_AHEAD_ONE = 4 << 20
_THREADS = 2
_PIECE = 1 << 18

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
# What zipfile raises for bytes that are no zip, or a hostile one.
_NOT_A_ZIP = (
    zipfile.BadZipFile,
    NotImplementedError,
    OverflowError,
    EOFError,
    ValueError,
    struct.error,
)


def is_zip(start: bytes) -> bool:
    """Whether a file that begins with these bytes is a zip, an empty one included."""
    return start[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def zip_members(path: Path) -> Iterator[Found]:
    """Every file in the zip, in its own order. Raises InputError when it is no whole zip."""
    with path.open("rb") as file:
        try:
            entries = zipfile.ZipFile(file).infolist()
        except _NOT_A_ZIP as error:
            msg = f"not a whole zip or wheel: {error}"
            raise InputError(msg, where=str(path), hint="fetch it again") from error
        size = file.seek(0, 2)
        if sum(entry.compress_size for entry in entries) > size:
            msg = "its members are larger together than the zip: some overlap"
            raise InputError(msg, where=str(path), hint="do not use this file")
        names = Counter(entry.filename for entry in entries)
        wanted = []
        for entry in entries:
            if entry.filename.endswith("/"):  # is_dir() fails on an empty name
                continue
            if names[entry.filename] > 1:
                yield Unread(entry.filename, "the zip has two members of this name")
            else:
                wanted.append(entry)
        yield from _in_order(wanted, lambda entry: _member(file.fileno(), size, entry))


def _in_order(
    entries: list[zipfile.ZipInfo], member: Callable[[zipfile.ZipInfo], Found]
) -> Iterator[Found]:
    """The members, the next small ones being inflated meanwhile."""
    # Others wait as entries: an opened one holds its inflater's window, and there may be thousands.
    waiting: deque[tuple[int, Future[Found] | zipfile.ZipInfo]] = deque()
    ahead = 0

    def ready(found: Future[Found] | zipfile.ZipInfo) -> Found:
        return found.result() if isinstance(found, Future) else member(found)

    with ThreadPoolExecutor(_THREADS, "inflate") as threads:
        try:
            for entry in entries:
                cost = 0
                if entry.file_size <= _AHEAD_ONE and not is_prose(entry.filename):
                    cost = entry.file_size + 4096
                    waiting.append((cost, threads.submit(lambda e: _inflated(member(e)), entry)))
                else:
                    waiting.append((0, entry))
                ahead += cost
                while waiting and ahead > _AHEAD_TOTAL:
                    cost, found = waiting.popleft()
                    ahead -= cost
                    yield ready(found)
            while waiting:
                _, found = waiting.popleft()
                yield ready(found)
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


def _inflated(found: Found) -> Found:
    """The member with its bytes at hand; what ends them too early comes after them."""
    if not isinstance(found, Member):
        return found
    pieces: deque[bytes] = deque()
    fault = None
    try:
        while piece := found.source.read(_PIECE):
            pieces.append(piece)
    except DamagedError as error:
        fault = error
    return Member(found.path, Kept(pieces, fault=fault))


def _member(file: int, size: int, entry: zipfile.ZipInfo) -> Found:
    """One member of the zip with this descriptor, which several threads read from."""
    name = entry.filename
    if entry.flag_bits & 1:
        return Unread(name, "encrypted")
    local = b""
    if 0 <= entry.header_offset < size:  # zipfile shifts it by what seems to be in front
        local = os.pread(file, _LOCAL.size, entry.header_offset)
    if len(local) < _LOCAL.size or local[:4] != b"PK\x03\x04":
        return Unread(name, f"the zip has no member at byte {entry.header_offset}")
    *_, name_size, extra_size = _LOCAL.unpack(local)
    start = entry.header_offset + _LOCAL.size + name_size + extra_size
    if start + entry.compress_size > size:
        return Unread(name, f"its {entry.compress_size} bytes end behind the zip's last")
    part = _Part(file, start, entry.compress_size)
    if entry.compress_type == zipfile.ZIP_STORED:
        if entry.file_size != entry.compress_size:
            return Unread(name, "stored with two different sizes")
        return Member(name, part)
    if entry.compress_type == zipfile.ZIP_DEFLATED:
        return Member(name, _Checked(Inflated(part.read, RAW_DEFLATE), entry))
    return Unread(name, f"zip compression method {entry.compress_type} is not read")


class _Part:
    """A range of the zip's bytes."""

    def __init__(self, file: int, start: int, size: int) -> None:
        self._file = file
        self._at = start
        self._left = size

    def read(self, size: int) -> bytes:
        try:
            piece = os.pread(self._file, min(size, self._left), self._at)
        except OSError as error:
            msg = f"cannot be read: {error.strerror}"
            raise DamagedError(msg) from error
        self._left -= len(piece)
        self._at += len(piece)
        return piece

    def skip(self, size: int) -> int:
        passed = min(size, self._left)
        self._left -= passed
        self._at += passed
        return passed


class _Checked:
    """A deflated member: no more bytes than it declares, no fewer, and the right checksum."""

    def __init__(self, source: Inflated, entry: zipfile.ZipInfo) -> None:
        self._source = source
        self._left = entry.file_size
        self._sum = 0
        self._wanted = entry.CRC

    def read(self, size: int) -> bytes:
        piece = self._source.read(size)
        self._left -= len(piece)
        self._sum = isal_zlib.crc32(piece, self._sum)
        if self._left < 0 or (not piece and self._left):
            msg = "the zip declares another size for it"
            raise DamagedError(msg)
        if not piece and self._sum != self._wanted:
            msg = "the zip's checksum does not fit"
            raise DamagedError(msg)
        return piece

    def skip(self, size: int) -> int:
        return skip_by_reading(self.read, size)
