"""Compressed bytes as a source that never holds more than a few pieces of them.

ISA-L inflates twice as fast as zlib, and inflating is most of the work in a wheel's audit.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

from isal import isal_zlib

from stackpatch.checks.code import DamagedError
from stackpatch.checks.window import skip_by_reading

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE = 1 << 16
# One piece gives at most this much at a time: 64 KiB of a bomb would be 64 MiB.
_MOST = 1 << 20

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
RAW_DEFLATE = -15
GZIP = 31


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
            except isal_zlib.IsalError as error:
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
    """What zstd frames expand to."""

    def __init__(self, file: BinaryIO) -> None:
        import zstandard

        # 128 MiB is what the zstd program accepts; ours is smaller, for the memory that we promise.
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 26)
        self._reader = decompressor.stream_reader(file, read_across_frames=True)
        self._error = zstandard.ZstdError

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        try:
            return self._reader.read(min(size, _MOST))
        except self._error as error:
            msg = f"damaged compressed data: {error}"
            raise DamagedError(msg) from error

    def skip(self, size: int) -> int:
        """Produce and drop."""
        return skip_by_reading(self.read, size)


class Plain:
    """A file object's own bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        return self._file.read(size)

    def skip(self, size: int) -> int:
        """Move forward without reading where the file can."""
        if not self._file.seekable():
            return skip_by_reading(self.read, size)
        at = self._file.tell()
        end = self._file.seek(0, io.SEEK_END)
        self._file.seek(min(end, at + size))
        return min(size, end - at)


def opened(file: BinaryIO) -> Inflated | Unzstd | Plain:
    """The bytes of a file that may be gzipped or zstd-compressed, by its first bytes."""
    start = file.read(4)
    file.seek(0)
    if start[:2] == GZIP_MAGIC:
        return Inflated(file.read, GZIP)
    if start == ZSTD_MAGIC:
        return Unzstd(file)
    return Plain(file)
