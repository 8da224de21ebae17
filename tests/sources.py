"""Bytes in memory as the source that a scan reads, in pieces of any size."""

from __future__ import annotations


class BytesSource:
    """piece: the most that one read gives, as a slow stream would."""

    def __init__(self, data: bytes, piece: int = 1 << 30) -> None:
        self._data = data
        self._at = 0
        self._piece = piece
        self.largest = 0  # bytes that were asked for at once

    def read(self, size: int) -> bytes:
        self.largest = max(self.largest, size)
        found = self._data[self._at : self._at + min(size, self._piece)]
        self._at += len(found)
        return found

    def skip(self, size: int) -> int:
        passed = min(size, len(self._data) - self._at)
        self._at += passed
        return passed
