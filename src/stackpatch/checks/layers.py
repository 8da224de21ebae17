"""The files that a container has, from the layers of an image in a layout or a registry.

The layers are read from the topmost down, so that what an upper one replaces or whites out is
known before a lower one has it (image-spec 1.1, layer.md). Nothing is unpacked.
"""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from stackpatch.artefacts.images import choose_image
from stackpatch.artefacts.layer import WHITEOUT
from stackpatch.artefacts.layout import Layout
from stackpatch.artefacts.oci import Platform
from stackpatch.checks.code import DamagedError
from stackpatch.checks.inflate import opened
from stackpatch.checks.members import Alias, Found, Member, Unread
from stackpatch.checks.tars import tar_entries
from stackpatch.errors import InputError
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stackpatch.artefacts.images import ImageSource, RemoteImage
    from stackpatch.artefacts.oci import Descriptor

_OPAQUE = ".wh..wh..opq"


@dataclass(slots=True)
class _Upper:
    """What the layers above hide. Paths without a leading slash."""

    files: set[str] = field(default_factory=set)  # there is something else than a folder
    folders: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)  # whited out, or a file that hides a folder
    opaque: set[str] = field(default_factory=set)  # folders whose lower content is gone

    def hides(self, path: str) -> bool:
        if path in self.files or path in self.folders or path in self.gone:
            return True
        parent = posixpath.dirname(path)
        while True:
            if parent in self.opaque or parent in self.gone or parent in self.files:
                return True
            if not parent:
                return False
            parent = posixpath.dirname(parent)

    def add(self, layer: _Upper) -> None:
        self.files |= layer.files
        self.folders |= layer.folders
        self.gone |= layer.gone
        self.opaque |= layer.opaque


def image_members(path: Path, platform: str, digest: Digest | None = None) -> Iterator[Found]:
    """Every file of the image for this platform (`linux/arm64`), as a container sees it.

    digest: which image, where the layout has several. Raises InputError when the layout, its
    index or the manifest is not what it should be; a damaged or missing layer is told as unread.
    """
    layout = Layout.open(path)
    yield from layer_members(layout, layout.image(Platform.parse(platform), digest).layers)


def remote_members(remote: RemoteImage, platform: str) -> Iterator[Found]:
    """The same of an image in a registry; a layer is read while it comes, and never stored.

    Raises InputError as above, EnvironmentProblem for the network.
    """
    chosen = choose_image(remote.source, (remote.descriptor,), Platform.parse(platform))
    yield from layer_members(remote.source, chosen.image.layers)


def layer_members(source: ImageSource, layers: Sequence[Descriptor]) -> Iterator[Found]:
    """The files of these layers, the lowest of which is first, as a container sees them."""
    upper = _Upper()
    for descriptor in reversed(layers):
        layer = _Upper()
        yield from _layer(source, descriptor, upper, layer)
        upper.add(layer)


def _layer(
    source: ImageSource, descriptor: Descriptor, upper: _Upper, own: _Upper
) -> Iterator[Found]:
    name = str(descriptor.digest)
    try:
        blob = source.open_blob(descriptor)
    except InputError as error:
        yield Unread(name, f"this layer was not read: {error.message}")
        return
    with blob:
        counted = _Counted(blob)
        try:
            yield from _files(counted, upper, own)
            counted.check(descriptor)
        except DamagedError as error:
            yield Unread(name, f"this layer cannot be read to its end: {error}")


def _files(blob: _Counted, upper: _Upper, own: _Upper) -> Iterator[Found]:
    skipped: set[str] = set()
    for entry, content in tar_entries(opened(blob), marked=False):
        path = posixpath.normpath(entry.name.lstrip("/")).removeprefix("./")
        folder, base = posixpath.split(path)
        if base == _OPAQUE:
            own.opaque.add(folder)
        elif base.startswith(WHITEOUT):
            own.gone.add(posixpath.join(folder, base.removeprefix(WHITEOUT)))
        elif entry.isdir():
            own.folders.add(path)
        else:
            own.files.add(path)
            hidden = upper.hides(path)
            if content is not None:
                if hidden:
                    skipped.add(path)
                else:
                    yield Member(path, content)
            elif entry.islnk() and not hidden:
                of = posixpath.normpath(entry.linkname.lstrip("/"))
                if of in skipped:
                    yield Unread(path, f"a hard link to {of}, which an upper layer replaces")
                else:
                    yield Alias(path, of)


class _Counted:
    """A blob that is hashed while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0

    def read(self, size: int) -> bytes:
        piece = self._file.read(size)
        self._hash.update(piece)
        self._size += len(piece)
        return piece

    def check(self, descriptor: Descriptor) -> None:
        """Read what is left and compare. Raises DamagedError."""
        while self.read(1 << 20):
            pass
        if self._size != descriptor.size or Digest(self._hash.hexdigest()) != descriptor.digest:
            msg = f"its {self._size} bytes are not what its digest stands for"
            raise DamagedError(msg)
