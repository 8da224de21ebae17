"""Single members of a wheel on the package index, by byte ranges: a wheel may have 400 MB.

Nothing but the central directory and the members that are asked for is fetched, a block at a time.
What was read is held against the member's CRC by zipfile; who needs more compares a sha256.
"""

from __future__ import annotations

import io
import urllib.request
import zipfile

from tests.conftest import index_url

_BLOCK = 1 << 18


class _Ranges(io.RawIOBase):
    """A file on a web server that answers ranges."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._at = 0
        self._blocks: dict[int, bytes] = {}
        head = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(head, timeout=60) as answer:
            self.size = int(answer.headers["Content-Length"])

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        number, start = divmod(self._at, _BLOCK)
        block = self._block(number)[start : start + len(view)] if self._at < self.size else b""
        view[: len(block)] = block
        self._at += len(block)
        return len(block)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            first = number * _BLOCK
            last = min(self.size, first + _BLOCK) - 1
            ask = urllib.request.Request(self._url, headers={"Range": f"bytes={first}-{last}"})
            with urllib.request.urlopen(ask, timeout=120) as answer:
                assert answer.status == 206, f"{self._url}: no ranges"
                self._blocks[number] = answer.read()
        return self._blocks[number]


def open_wheel(file: str) -> tuple[zipfile.ZipFile, int]:
    """The wheel of that name on the index, and its size in bytes. Close it."""
    ranges = _Ranges(index_url(file))
    return zipfile.ZipFile(io.BufferedReader(ranges, _BLOCK)), ranges.size


def metadata(file: str) -> bytes:
    """The wheel's METADATA."""
    wheel, _ = open_wheel(file)
    with wheel:
        (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
        return wheel.read(name)
