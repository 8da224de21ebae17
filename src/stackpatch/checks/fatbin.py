"""The headers of a fatbin: which images it holds, for what, and how they are compressed.

A fatbin is a 16-byte header and a row of entries, each a header of 64 bytes or more and an image.
An entry's header carries the target's number, `a` and `f`, so that an image rarely has to be
looked into. Found by experiment with nvcc 13.0 and fatbinary 13.5 and held against wheels built
with 11.8 to 13.2, 2026-11-21 (docs/audit.md, "Where the target is written").
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

from stackpatch.checks import cubin, ptx
from stackpatch.checks.code import Code, DamagedError, Form, code

MAGIC = b"\x50\xed\x55\xba"
HEADER_SIZE = 16
ENTRY_SIZE = 64
# Longer entry headers carry options; the longest seen has 2 KiB of them.
MAX_ENTRY_HEADER = 1 << 16

_HEADER = struct.Struct("<4sHHQ")
# kind, version, header size, image size, compressed size, extension's offset, minor, major,
# number, (name: offset, length), flags, (unused), uncompressed size
_ENTRY = struct.Struct("<HHIQIIHHI8xQ8xQ")
_EXTENSION = struct.Struct("<II")

_ENTRY_VERSION = 0x101
_MAX_WINDOW = 1 << 27  # what zstd itself accepts without being asked

_LZ4 = 0x2000
_ZSTD = 0x8000
_OLD_COMPRESSION = 0x1000  # before LZ4 came with CUDA 7; its layout is not known here
_SPECIFIC = 0x10_0000
_FAMILY = 0x20_0000
_HAS_COMPAT = 0x100_0000

_FIRST_ISA_WITH_FLAGS = (9, 0)  # PTX ISA 9.0 is CUDA 13.0, whose fatbinary was seen to set `f`


class Kind(StrEnum):
    """What an entry's image is; numbers not listed are kept as OTHER."""

    PTX = "ptx"
    ELF = "elf"
    LTO = "lto"
    OTHER = "other"


_KINDS = {1: Kind.PTX, 2: Kind.ELF, 8: Kind.LTO}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry's header. Sizes in bytes; `size` is the image with its padding.

    number: the kind as it is written. compressed: the image's bytes without padding, 0 where it
    is not compressed. isa: PTX ISA version of a PTX image. compat: the copy of the cubin's
    `.nv.compat`, None where it has none.
    """

    kind: Kind
    number: int
    arch: int
    size: int
    compressed: int
    uncompressed: int
    flags: int
    isa: tuple[int, int]
    compat: bytes | None


def is_header(start: bytes) -> bool:
    """Whether these at least 16 bytes begin a fatbin, of whatever version.

    The magic number alone also stands in the code of programs that read fatbins.
    """
    if len(start) < HEADER_SIZE:
        return False
    magic, version, header_size, _ = _HEADER.unpack_from(start)
    return bool(magic == MAGIC and 1 <= version <= 15 and 16 <= header_size <= 256)


def body_size(start: bytes) -> int:
    """The bytes of all entries behind the header. Raises DamagedError for an unknown version."""
    _, version, header_size, size = _HEADER.unpack_from(start)
    if version != 1 or header_size != HEADER_SIZE:
        msg = f"a fatbin of version {version}, which this reader does not know"
        raise DamagedError(msg)
    return int(size)


def entry_header_size(start: bytes) -> int:
    """How long the header of the entry is that begins with these 64 bytes. Raises DamagedError."""
    _, version, size, *_ = _ENTRY.unpack_from(start)
    if version != _ENTRY_VERSION:
        msg = f"a fatbin entry of version {version:#x}, which this reader does not know"
        raise DamagedError(msg)
    if not ENTRY_SIZE <= size <= MAX_ENTRY_HEADER:
        msg = f"a fatbin entry whose header has {size} bytes"
        raise DamagedError(msg)
    return int(size)


def entry(head: bytes) -> Entry:
    """The entry of this header, which must be whole."""
    (kind, _, _, size, compressed, extension, minor, major, arch, flags, uncompressed) = (
        _ENTRY.unpack_from(head)
    )
    return Entry(
        kind=_KINDS.get(kind, Kind.OTHER),
        number=kind,
        arch=arch,
        size=size,
        compressed=compressed,
        uncompressed=uncompressed,
        flags=flags,
        isa=(major, minor),
        compat=_compat(head, extension) if flags & _HAS_COMPAT else None,
    )


def read_entry(found: Entry) -> Code:
    """The target as the entry's header says it; several candidates where `look_inside` helps."""
    if not 0 < found.arch < 1000:
        msg = f"a fatbin entry for architecture number {found.arch}"
        raise DamagedError(msg)
    form = {Kind.PTX: Form.PTX, Kind.ELF: Form.MACHINE, Kind.LTO: Form.LTO}.get(
        found.kind, Form.OTHER
    )
    suffixes = {s for s, bit in (("a", _SPECIFIC), ("f", _FAMILY)) if found.flags & bit}
    specific = cubin.compat_specific(found.compat) if found.compat is not None else None
    contradictory = (specific == 1 and suffixes != {"a"}) or (specific == 0 and "a" in suffixes)
    if len(suffixes) > 1 or contradictory:
        suffixes = set(cubin.suffixes_possible(found.arch)) | suffixes
        return code(form, found.arch, suffixes, why="the fatbin entry contradicts itself")
    if suffixes:
        return code(form, found.arch, suffixes)
    certain = found.arch < cubin.FIRST_FAMILY or specific is not None
    if found.kind is Kind.PTX:
        certain = certain or found.isa >= _FIRST_ISA_WITH_FLAGS
    elif found.kind is not Kind.ELF:
        certain = True
    # Fatbins of CUDA 12.9 could hold `f` code: whether its fatbinary set the flag was not seen.
    return code(form, found.arch, {""} if certain else {"", "f"}, why="the fatbin does not say")


def look_inside(found: Entry, image: bytes) -> Code:
    """The target from the image itself, which is decompressed to no more than it declares.

    Raises DamagedError when the image is not what the header says.
    """
    plain = image
    if found.flags & (_LZ4 | _ZSTD | _OLD_COMPRESSION):
        plain = _decompressed(found, image[: found.compressed or len(image)])
    inside = ptx.read_ptx(plain) if found.kind is Kind.PTX else cubin.read_cubin(memoryview(plain))
    if inside.candidates[0].number != found.arch:
        msg = f"a fatbin entry for {found.arch} whose image is for {inside.candidates[0].number}"
        raise DamagedError(msg)
    return inside


def _decompressed(found: Entry, image: bytes) -> bytes:
    """At most `found.uncompressed` bytes, which the caller has bounded."""
    if found.flags & _ZSTD:
        import zstandard

        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        try:
            with decompressor.stream_reader(image) as reader:
                return reader.read(found.uncompressed)
        except zstandard.ZstdError as error:
            msg = f"a zstd image in a fatbin: {error}"
            raise DamagedError(msg) from error
    if found.flags & _LZ4:
        import lz4.block  # type: ignore[import-untyped]

        try:
            return bytes(lz4.block.decompress(image, uncompressed_size=found.uncompressed))
        except (lz4.block.LZ4BlockError, ValueError) as error:
            msg = f"an LZ4 image in a fatbin: {error}"
            raise DamagedError(msg) from error
    msg = "a fatbin image in a compression that this reader does not know"
    raise DamagedError(msg)


def _compat(head: bytes, extension: int) -> bytes | None:
    """The `.nv.compat` copy that the header's extension points to; None where it does not fit."""
    if not ENTRY_SIZE <= extension <= len(head) - _EXTENSION.size:
        return None
    offset, length = _EXTENSION.unpack_from(head, extension)
    if offset + length > len(head):
        return None
    return head[offset : offset + length]
