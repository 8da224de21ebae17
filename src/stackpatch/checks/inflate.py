"""Compressed bytes as a source that never holds more than a few pieces of them.

ISA-L inflates twice as fast as zlib, and inflating is most of the work in a wheel's audit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from isal import isal_zlib

from stackpatch.checks.code import DamagedError
from stackpatch.checks.window import skip_by_reading

if TYPE_CHECKING:
    from collections.abc import Callable

# The stubs of isal declare its exception as a value.
_ERROR: type[Exception] = isal_zlib.IsalError  # type: ignore[assignment]

_PIECE = 1 << 16
# One piece gives at most this much at a time: 64 KiB of a bomb would be 64 MiB.
_MOST = 1 << 20
# All that one piece gives comes at once, and a zstd block of 4 bytes may give 128 KiB.
_ZSTD_PIECE = 1 << 10

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
RAW_DEFLATE = -15
GZIP = 31


class Readable(Protocol):
    """Something to read from, such as a file."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, b"" only at the end."""


class Inflated:
    """What a deflated (RAW_DEFLATE) or gzipped (GZIP) stream expands to.

    read: gives the next compressed bytes, b"" at their end. Several gzip streams in a row are one.
    """

    def __init__(self, read: Callable[[int], bytes], wbits: int) -> None:
        self._read = read
        self._wbits = wbits
        self._inflater = isal_zlib.decompressobj(wbits)
        self._pending = b""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        most = min(size, _MOST)
        while True:
            if self._inflater.eof:
                self._pending = self._inflater.unused_data
                if self._wbits != GZIP:
                    return b""
                self._pending = (self._pending or self._read(_PIECE)).lstrip(b"\0")
                if not self._pending:
                    return b""
                self._inflater = isal_zlib.decompressobj(self._wbits)
            fresh = self._pending or self._read(_PIECE)
            try:
                piece = self._inflater.decompress(fresh, most)
            except _ERROR as error:
                msg = f"damaged compressed data: {error}"
                raise DamagedError(msg) from error
            self._pending = self._inflater.unconsumed_tail
            if piece:
                return piece
            if not fresh:
                msg = "compressed data ends early"
                raise DamagedError(msg)

    def skip(self, size: int) -> int:
        """Produce and drop."""
        return skip_by_reading(self.read, size)


class Unzstd:
    """What zstd frames expand to, several in a row as one.

    Not zstandard's own stream reader: that one takes a frame that is cut off for a whole one.
    """

    def __init__(self, file: Readable) -> None:
        import zstandard

        self._file = file
        # The zstd program accepts windows of 128 MiB; half of that keeps what we promise of memory.
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 26)
        self._error = zstandard.ZstdError
        self._frame = self._decompressor.decompressobj()
        self._ready = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        while not self._ready:
            if self._frame.eof:
                if not (fresh := self._frame.unused_data or self._file.read(_ZSTD_PIECE)):
                    return b""
                self._frame = self._decompressor.decompressobj()
            elif not (fresh := self._file.read(_ZSTD_PIECE)):
                msg = "compressed data ends early"
                raise DamagedError(msg)
            try:
                self._ready = memoryview(self._frame.decompress(fresh))
            except self._error as error:
                msg = f"damaged compressed data: {error}"
                raise DamagedError(msg) from error
        piece, self._ready = self._ready[:size], self._ready[size:]
        return bytes(piece)

    def skip(self, size: int) -> int:
        """Produce and drop."""
        return skip_by_reading(self.read, size)


class Pushed:
    """A stream with bytes that were read from it before put back in front."""

    def __init__(self, start: bytes, file: Readable) -> None:
        self._start = start
        self._file = file

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        if self._start:
            piece, self._start = self._start[:size], self._start[size:]
            return piece
        return self._file.read(size)

    def skip(self, size: int) -> int:
        """Read and drop."""
        return skip_by_reading(self.read, size)


def is_compressed(start: bytes) -> bool:
    """Whether `opened` expands a stream that begins with these bytes."""
    return start[:2] == GZIP_MAGIC or start[:4] == ZSTD_MAGIC


def opened(file: Readable) -> Inflated | Unzstd | Pushed:
    """What a stream expands to that may be gzipped or zstd-compressed, by its first bytes."""
    start = b""
    while len(start) < len(ZSTD_MAGIC) and (piece := file.read(len(ZSTD_MAGIC) - len(start))):
        start += piece
    whole = Pushed(start, file)
    if start[:2] == GZIP_MAGIC:
        return Inflated(whole.read, GZIP)
    if start == ZSTD_MAGIC:
        return Unzstd(whole)
    return whole
