"""The files of a tar, an sdist or one layer of an image, streamed from front to back."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, BinaryIO, cast

from stackpatch.checks.code import DamagedError
from stackpatch.checks.members import Alias, Found, Member, Unread
from stackpatch.checks.window import skip_by_reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackpatch.checks.window import Source

# tarfile reads a long name or a pax record as a whole, however long the header says it is.
_LONGEST_READ = 16 << 20
_MAGIC_AT = 257


def is_tar(start: bytes) -> bool:
    """Whether a file that begins with these at least 265 bytes is a tar, after decompression."""
    return start[_MAGIC_AT : _MAGIC_AT + 5] == b"ustar"


def tar_entries(
    source: Source, *, marked: bool = True
) -> Iterator[tuple[tarfile.TarInfo, Source | None]]:
    """Every entry and, for a regular file, its bytes, good until the next entry is asked for.

    marked: whether a tar that just ends, without the zeros that mark it, counts as cut off.
    Raises DamagedError when the tar cannot be read on.
    """
    stream = _Forward(source)
    try:
        tar = tarfile.TarFile(fileobj=cast("BinaryIO", stream), mode="r")
        while (entry := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # else all entries stay in memory
            yield entry, _content(tar, entry) if entry.isreg() else None
        # tarfile takes a header that it cannot read for the end.
        if stream.last.strip(b"\0"):
            msg = "a header in the middle of the tar is damaged"
            raise DamagedError(msg)
        if marked and not stream.last:
            msg = "the tar has no end mark: it may be cut off"
            raise DamagedError(msg)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        if isinstance(error, DamagedError):
            raise
        msg = f"not a whole tar: {error}"
        raise DamagedError(msg) from error


def tar_members(source: Source) -> Iterator[Found]:
    """Every file of a tar. Damage ends it, and is told as the last thing."""
    try:
        for entry, content in tar_entries(source):
            if content is not None:
                yield Member(entry.name, content)
            elif entry.islnk():
                yield Alias(entry.name, entry.linkname)
    except DamagedError as error:
        yield Unread("", str(error))


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Source:
    file = tar.extractfile(entry)
    if file is None:
        msg = f"{entry.name} has no content"
        raise DamagedError(msg)
    return _Content(file)


class _Content:
    """One entry's bytes."""

    def __init__(self, file: object) -> None:
        self._file = cast("BinaryIO", file)

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except tarfile.TarError as error:
            msg = f"the tar ends inside it: {error}"
            raise DamagedError(msg) from error

    def skip(self, size: int) -> int:
        return skip_by_reading(self.read, size)


class _Forward:
    """A source as the file object that tarfile asks for: it only ever moves forward."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._at = 0
        self.last = b""  # what was read last

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int) -> int:
        if offset < self._at:
            msg = "the tar's headers point backwards"
            raise DamagedError(msg)
        self._at += self._source.skip(offset - self._at)
        return self._at

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_READ:
            msg = f"a tar header of {size} bytes"
            raise DamagedError(msg)
        pieces = []
        while size and (piece := self._source.read(size)):
            pieces.append(piece)
            size -= len(piece)
            self._at += len(piece)
        self.last = b"".join(pieces)
        return self.last
