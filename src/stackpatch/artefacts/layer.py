"""One image layer as bytes that depend on its entries alone.

The tar: entries sorted by path, ustar headers with a pax record where a path needs one, numeric
owners, no user names. Parent folders are written out: Docker's graph drivers unpack a layer
without the layers below it and give a parent that the tar does not name mode 0600 (before 25.0)
or 0755, which then hides the base's own. The gzip frame holds stored deflate blocks: the layer
holds little, and a compressor's output would differ between zlib, zlib-ng and their versions.
"""

from __future__ import annotations

import io
import posixpath
import struct
import tarfile
import zlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import IO, TYPE_CHECKING

from stackpatch.artefacts.rawzip import unsafe_name
from stackpatch.errors import InputError
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

WHITEOUT = ".wh."
_STORED_BLOCK = 0xFFFF


class Kind(StrEnum):
    """What an entry of a layer is."""

    FILE = "file"
    FOLDER = "folder"
    WHITEOUT = "whiteout"  # the path is hidden, with everything below it


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. path: relative, without a trailing slash. mode: permission bits. mtime: seconds.

    Owners are numbers; content is empty for folders and whiteouts.
    """

    path: str
    kind: Kind = Kind.FILE
    content: bytes = field(default=b"", repr=False)
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as it goes into an image: gzipped bytes, their digest, and the tar's digest."""

    blob: bytes = field(repr=False)
    digest: Digest
    diff_id: Digest


def make_layer(
    entries: Iterable[Entry], *, epoch: int, folders: Mapping[str, Entry] | None = None
) -> Layer:
    """Build the layer. epoch: the mtime of parent folders that `folders` does not describe.

    folders: how the base has its folders (mode, owner, mtime), by path. Raises InputError for
    paths that leave the root, occur twice, pose as whiteouts, or lie below a file.
    """
    by_path: dict[str, Entry] = {}
    for entry in entries:
        name = posixpath.basename(entry.path)
        why = unsafe_name(entry.path)
        if why is None and entry.path.endswith("/"):
            why = "ends in a slash"
        if why is None and name.startswith(WHITEOUT):
            why = "would be read as a whiteout"
        if why is not None or entry.path in by_path:
            msg = f"cannot put {entry.path!r} into a layer: it {why or 'is there twice'}"
            raise InputError(msg)
        by_path[entry.path] = entry
    for path in list(by_path):
        above = path
        while above := posixpath.dirname(above):
            known = (folders or {}).get(above)
            usual = Entry(above, Kind.FOLDER, mode=0o755, mtime=epoch)
            there = by_path.setdefault(above, known or usual)
            if there.kind is not Kind.FOLDER:
                msg = f"cannot put {path!r} into a layer: {above} is a {there.kind}"
                raise InputError(msg)
    archive = _tar(by_path)
    blob = gzip_stored(archive)
    return Layer(blob, Digest.of(blob), Digest.of(archive))


def _tar(entries: Mapping[str, Entry]) -> bytes:
    names = {_name(entry): entry for entry in entries.values()}
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer,
        mode="w",
        format=tarfile.PAX_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
    ) as tar:
        for name in sorted(names, key=lambda one: one.encode("utf-8", "surrogateescape")):
            entry = names[name]
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if entry.kind is Kind.FOLDER else tarfile.REGTYPE
            info.size = len(entry.content)
            info.mode, info.mtime = entry.mode, entry.mtime
            info.uid, info.gid = entry.uid, entry.gid
            tar.addfile(info, io.BytesIO(entry.content))
    return buffer.getvalue()


def _name(entry: Entry) -> str:
    match entry.kind:
        case Kind.FILE:
            return entry.path
        case Kind.FOLDER:
            return f"{entry.path}/"
        case Kind.WHITEOUT:
            folder, name = posixpath.split(entry.path)
            return posixpath.join(folder, WHITEOUT + name)


def gzip_stored(content: bytes) -> bytes:
    """A gzip file (RFC 1952) of stored deflate blocks (RFC 1951, 3.2.4): no compressor involved."""
    out = io.BytesIO()
    write_stored(io.BytesIO(content), out)
    return out.getvalue()


def write_stored(source: IO[bytes], out: IO[bytes]) -> None:
    """Write all of `source` to `out` as `gzip_stored` has it, holding one block at a time."""
    # No name, mtime 0, unknown system, no extra flags.
    out.write(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
    crc = size = 0
    block = source.read(_STORED_BLOCK)
    while True:
        after = source.read(_STORED_BLOCK) if block else b""
        out.write(struct.pack("<BHH", not after, len(block), len(block) ^ 0xFFFF))
        out.write(block)
        crc, size = zlib.crc32(block, crc), size + len(block)
        if not after:
            break
        block = after
    out.write(struct.pack("<LL", crc, size & 0xFFFFFFFF))
