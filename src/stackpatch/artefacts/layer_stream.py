"""A base's layer as it streams by: expanded, read as a tar, its digest compared at its end."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import lzma
import tarfile
import zlib
from typing import IO, TYPE_CHECKING, cast

import zstandard

from stackpatch.errors import InputError
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackpatch.artefacts.images import ImageSource
    from stackpatch.artefacts.oci import Descriptor

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# tarfile leaks what its parts raise: TypeError for a gzip header cut short, ValueError and
# OverflowError for numbers that are none.
_UNREADABLE = (
    *(tarfile.TarError, zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError, OSError),
    *(ValueError, TypeError, OverflowError),
)


@contextlib.contextmanager
def layer_tar(source: ImageSource, descriptor: Descriptor) -> Iterator[tarfile.TarFile]:
    """The layer's tar, to be read from front to back. What was read counts once the block ended:
    only then is it known to be what the digest stands for.

    Raises InputError for a layer that is damaged, and what the source raises.
    """
    with source.open_blob(descriptor) as blob:
        counted = _Counted(blob)
        try:
            with tarfile.open(fileobj=_expanded(counted), mode="r|") as tar:
                yield tar
        except _UNREADABLE as error:
            msg = f"layer {descriptor.digest} ({descriptor.media_type}) cannot be read: {error}"
            hint = "copy the image again; if that does not help, it is damaged where it comes from"
            raise InputError(msg, hint=hint, where=source.label) from error
        counted.check(descriptor, source.label)


def _expanded(blob: _Counted) -> IO[bytes]:
    """The tar in a layer, by what its first bytes are: registries lie about media types."""
    start = blob.peek(4)
    if start.startswith(_GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=cast("IO[bytes]", blob), mode="rb"))
    if start == _ZSTD:
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        return decompressor.stream_reader(cast("IO[bytes]", blob), read_across_frames=True)
    return cast("IO[bytes]", blob)


class _Counted:
    """A blob that is hashed while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0
        self._ahead = b""

    def peek(self, size: int) -> bytes:
        while len(self._ahead) < size and (piece := self._more(size - len(self._ahead))):
            self._ahead += piece
        return self._ahead

    def read(self, size: int = -1) -> bytes:
        if self._ahead:
            size = len(self._ahead) if size < 0 else size
            piece, self._ahead = self._ahead[:size], self._ahead[size:]
            return piece
        return self._more(size if size >= 0 else 1 << 20)

    def _more(self, size: int) -> bytes:
        piece = self._file.read(size)
        self._hash.update(piece)
        self._size += len(piece)
        return piece

    def check(self, descriptor: Descriptor, label: str) -> None:
        """Read what is left and compare. Raises InputError."""
        while self._more(1 << 20):
            pass
        if self._size != descriptor.size or Digest(self._hash.hexdigest()) != descriptor.digest:
            msg = (
                f"layer {descriptor.digest} is not what its digest stands for ({self._size} bytes)"
            )
            raise InputError(msg, hint="copy the image again", where=label)
