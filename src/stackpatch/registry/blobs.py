"""Blobs that are to be sent: from memory, a file or another repository, from any byte on."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stackpatch.model.digest import Digest
from stackpatch.sources.transport import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from stackpatch.registry.client import Registry


@dataclass(frozen=True, slots=True)
class Blob:
    """Something to send. size: bytes. open: a context with `read(n)`, for the bytes from the first
    number to before the second.

    copied: the bytes come from another repository. Everything is opened again for each attempt.
    """

    digest: Digest
    size: int
    open: Callable[[int, int], AbstractContextManager[Any]] = field(repr=False)
    copied: bool = False

    @classmethod
    def of_bytes(cls, content: bytes) -> Blob:
        """A blob in memory."""

        def opened(start: int, end: int) -> AbstractContextManager[Any]:
            return io.BytesIO(content[start:end])

        return cls(Digest.of(content), len(content), opened)

    @classmethod
    def of_file(cls, path: Path, digest: Digest, size: int) -> Blob:
        """A blob in a file; that it has the digest is the caller's to know."""

        @contextlib.contextmanager
        def opened(start: int, _end: int) -> Iterator[Any]:
            with path.open("rb") as file:
                file.seek(start)
                yield file

        return cls(digest, size, opened)

    @classmethod
    def of_registry(cls, source: Registry, digest: Digest, size: int) -> Blob:
        """A blob of another repository, read while it is sent."""

        @contextlib.contextmanager
        def opened(start: int, end: int) -> Iterator[Any]:
            yield _Reader(source.blob_from(digest, size, start, end))

        return cls(digest, size, opened, copied=True)


class Window:
    """The next so many bytes of something readable, for a request's body."""

    def __init__(self, source: Any, size: int) -> None:
        self._source = source
        self._size = size
        self._left = size

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        """The next bytes; raises Interrupted where the source ends early."""
        wanted = self._left if size < 0 else min(size, self._left)
        piece: bytes = self._source.read(wanted) if wanted else b""
        if wanted and not piece:
            reason = f"the source ended {self._left} bytes early"
            raise Interrupted(reason)
        self._left -= len(piece)
        return piece


class _Reader:
    """`read(n)` over blocks."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end."""
        if not self._rest:
            self._rest = next(self._blocks, b"")
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece
