"""A file seen through a small window that moves from its first byte to its last."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Protocol

from stackpatch.checks.code import DamagedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

CHUNK = 1 << 18
# How much of what was passed over one by one stays visible behind the place.
HISTORY = 512


class Source(Protocol):
    """Bytes that come once, in order. Both methods raise DamagedError when they cannot go on."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, b"" only at the end."""

    def skip(self, size: int, /) -> int:
        """Pass over up to `size` bytes without looking at them; how many there were."""


class FileSource:
    """A file on disk; passing over bytes costs nothing. A context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._size = os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *ignored: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        try:
            return self._file.read(size) or b""
        except OSError as error:
            msg = f"cannot be read: {error.strerror}"
            raise DamagedError(msg) from error

    def skip(self, size: int) -> int:
        """Move forward without reading."""
        at = self._file.tell()
        passed = max(0, min(size, self._size - at))
        self._file.seek(at + passed)
        return passed


def skip_by_reading(read: Callable[[int], bytes], size: int) -> int:
    """What `skip` does where the bytes must be produced to be passed over."""
    left = size
    while left:
        piece = read(min(left, CHUNK))
        if not piece:
            break
        left -= len(piece)
    return size - left


class Kept:
    """Bytes that lie in memory; then the fault that ended them too early, or what follows."""

    def __init__(
        self,
        pieces: Iterable[bytes],
        *,
        fault: DamagedError | None = None,
        rest: Source | None = None,
    ) -> None:
        self._pieces = deque(pieces)
        self._fault = fault
        self._rest = rest

    def read(self, size: int) -> bytes:
        """Up to `size` bytes. Raises DamagedError where they end too early."""
        if self._pieces:
            piece = self._pieces.popleft()
            if len(piece) > size:
                self._pieces.appendleft(piece[size:])
            return piece[:size]
        if self._fault is not None:
            raise self._fault
        return self._rest.read(size) if self._rest is not None else b""

    def skip(self, size: int) -> int:
        """Read and drop."""
        return skip_by_reading(self.read, size)


class Window:
    """The bytes of a source around the current place.

    Memory: what `fill` was asked for and one CHUNK, whatever the length of the source.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = b""
        self._start = 0  # offset in the file of the buffer's first byte
        self._at = 0  # place in the buffer
        self._ended = False

    @property
    def offset(self) -> int:
        """The current place, in bytes from the file's first."""
        return self._start + self._at

    @property
    def ended(self) -> bool:
        """Whether nothing comes behind what is in the window."""
        return self._ended

    @property
    def ready(self) -> int:
        """How many bytes from the current place on are in the window."""
        return len(self._buffer) - self._at

    def fill(self, size: int) -> int:
        """Have `size` bytes from the current place on in the window, fewer only at the end."""
        if self.ready >= size or self._ended:
            return self.ready
        kept = min(self._at, HISTORY)
        rest = self._buffer[self._at - kept :]
        pieces = [rest] if rest else []
        have = self.ready
        while have < size:
            piece = self._source.read(max(CHUNK, min(size - have, 1 << 22)))
            if not piece:
                self._ended = True
                break
            pieces.append(piece)
            have += len(piece)
        self._start, self._at = self.offset - kept, kept
        self._buffer = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return have

    def find(self, mark: bytes, start: int, end: int) -> int:
        """Where `mark` is between two places, all in bytes from the current one; -1 for nowhere."""
        found = self._buffer.find(mark, self._at + start, self._at + end)
        return found if found < 0 else found - self._at

    def peek(self, size: int, at: int = 0) -> bytes:
        """Up to `size` bytes that are in the window, without moving."""
        return self._buffer[self._at + at : self._at + at + size]

    def before(self) -> bytes:
        """Up to HISTORY bytes in front of the current place, as far as they were read."""
        return self._buffer[max(0, self._at - HISTORY) : self._at]

    def view(self, size: int) -> memoryview:
        """As `peek`, without a copy; release it before the window moves on."""
        return memoryview(self._buffer)[self._at : self._at + size]

    def skip(self, size: int) -> int:
        """Move forward; how many bytes there were, fewer than `size` only at the end."""
        inside = min(size, self.ready)
        self._at += inside
        if inside == size or self._ended:
            return inside
        passed = self._source.skip(size - inside)
        self._start = self.offset + passed
        self._buffer, self._at = b"", 0
        return inside + passed
