"""Zip members as they lie in the file: copied compressed, verified on the way, written the same.

Python's `zipfile` reads the central directory; members are then copied as the compressed bytes
that they already are. So an unchanged member costs no compression, and its bytes do not depend on
the zlib in use. New content is written uncompressed for the same reason: two zlib builds may
deflate the same text to different bytes.
"""

from __future__ import annotations

import hashlib
import stat
import struct
import time
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, NoReturn, Self

from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_CHUNK = 1 << 18
_UTF8_NAME = 0x800
_ENCRYPTED = 0x1 | 0x40 | 0x2000
# Above these the plain fields overflow and zip64 records are written (APPNOTE 4.4.1.4); module
# values, so that a test need not write 4 GiB.
_MAX_32 = 0xFFFFFFFF
_MAX_16 = 0xFFFF


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of the archive. Sizes in bytes; offset: of its local header; crc: CRC-32."""

    name: str
    method: int
    crc: int
    compressed: int
    size: int
    offset: int
    executable: bool

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder entry (its name ends in a slash)."""
        return self.name.endswith("/")


class RawZip:
    """A zip file opened for raw copying. Use it as a context manager.

    Raises InputError, on opening, for what is no zip, and for members that no unpacker may be
    trusted with: names that leave the folder or occur twice, links, encryption, overlaps.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file: IO[bytes] = path.open("rb")
        except OSError as error:
            msg = f"cannot read {path}: {error.strerror}"
            raise InputError(msg, where=str(path)) from error
        try:
            self.members: dict[str, Member] = self._directory()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def fail(self, text: str, *, hint: str | None = None) -> NoReturn:
        """Raise InputError about this archive."""
        msg = f"{self.path.name}: {text}"
        raise InputError(msg, hint=hint, where=str(self.path))

    def _directory(self) -> dict[str, Member]:
        try:
            with zipfile.ZipFile(self._file) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, struct.error, UnicodeDecodeError) as error:
            self.fail(
                f"not a readable zip file ({error})", hint="fetch it again; it may be truncated"
            )
        members: dict[str, Member] = {}
        for info in infos:
            name = info.orig_filename
            if why := unsafe_name(name):
                self.fail(f"member {name!r} {why}")
            if name in members:
                self.fail(f"member {name!r} occurs twice")
            mode = info.external_attr >> 16 if info.create_system == 3 else 0
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                self.fail(f"member {name!r} is a link or a device, not a file")
            if info.flag_bits & _ENCRYPTED:
                self.fail(f"member {name!r} is encrypted")
            if info.compress_type not in (STORED, DEFLATED):
                self.fail(
                    f"member {name!r} is compressed by method {info.compress_type};"
                    " wheels use stored or deflate"
                )
            members[name] = Member(
                name,
                info.compress_type,
                info.CRC,
                info.compress_size,
                info.file_size,
                info.header_offset,
                bool(mode & 0o111) and not name.endswith("/"),
            )
        end = 0
        for member in sorted(members.values(), key=lambda one: one.offset):
            if member.offset < end:
                self.fail(f"member {member.name!r} overlaps another one")
            end = member.offset + _LOCAL.size + len(member.name) + member.compressed
        return members

    def copy(
        self, member: Member, sink: Callable[[bytes], object], *, algorithm: str = "sha256"
    ) -> bytes:
        """Give the member's compressed bytes to sink in pieces, return the content's digest.

        The content is decompressed beside it and must have the size and the CRC that the
        archive's directory says. Raises InputError.
        """
        content = hashlib.new(algorithm)
        for raw, plain in self._pieces(member):
            if raw:
                sink(raw)
            content.update(plain)
        return content.digest()

    def read(self, member: Member, *, limit: int = 1 << 26) -> bytes:
        """The content, verified like `copy`. Raises InputError also above limit bytes."""
        if member.size > limit:
            self.fail(f"member {member.name!r} has {member.size} bytes, too many to read")
        return b"".join(plain for _, plain in self._pieces(member))

    def _pieces(self, member: Member) -> Iterator[tuple[bytes, bytes]]:
        """Pairs of raw bytes and the content they brought; either may be empty."""
        self._to_content(member)
        inflate = zlib.decompressobj(-15) if member.method == DEFLATED else None
        left, size, crc = member.compressed, 0, 0
        try:
            while left:
                raw = self._file.read(min(_CHUNK, left))
                if not raw:
                    self.fail(f"ends within member {member.name!r}")
                left -= len(raw)
                feed, sent = raw, raw
                while True:
                    # A bound on each piece: a few bytes of input must not become gigabytes.
                    plain = inflate.decompress(feed, 4 * _CHUNK) if inflate else feed
                    size += len(plain)
                    if size > member.size:
                        self.fail(f"member {member.name!r} is longer than it says")
                    crc = zlib.crc32(plain, crc)
                    yield sent, plain
                    sent = b""
                    if inflate is None:
                        break
                    feed = inflate.unconsumed_tail
                    if not feed and len(plain) < 4 * _CHUNK:
                        break
        except zlib.error as error:
            self.fail(f"member {member.name!r} is damaged ({error})")
        if inflate is not None and (not inflate.eof or inflate.unused_data):
            self.fail(f"member {member.name!r} does not end where it says")
        if size != member.size or crc != member.crc:
            self.fail(f"member {member.name!r} does not match its size and CRC")

    def _to_content(self, member: Member) -> None:
        self._file.seek(member.offset)
        head = self._file.read(_LOCAL.size)
        if len(head) != _LOCAL.size or head[:4] != b"PK\3\4":
            self.fail(f"member {member.name!r} is not where the directory says")
        fields = _LOCAL.unpack(head)
        name = self._file.read(fields[9])
        text = name.decode("utf-8" if fields[2] & _UTF8_NAME else "cp437", "replace")
        if text != member.name or fields[3] != member.method:
            self.fail(f"member {member.name!r} is called {text!r} at its own place")
        self._file.seek(fields[10], 1)


def unsafe_name(name: str) -> str | None:
    """Why a member name must not be unpacked, None when it may."""
    parts = name.removesuffix("/").split("/")
    if any("\ud800" <= char <= "\udfff" for char in name):
        return "is not UTF-8"
    if "\0" in name or "\\" in name or "\n" in name or "\r" in name:
        return "holds a character that no path in a wheel may have"
    if name.startswith("/") or (len(name) > 1 and name[1] == ":"):
        return "is an absolute path"
    if ".." in parts:
        return "leaves the folder"
    if "" in parts or "." in parts:
        return "is not a plain relative path"
    return None


class ZipWriter:
    """Writes a zip whose bytes depend on its arguments alone.

    epoch: Unix time for every member, clamped to what the format can hold (1980 to 2107, even
    seconds, written as UTC). Modes are 0644, 0755 and folders 0755; there are no extra fields
    except zip64 where a size asks for it. `sha256` grows with what is written.
    """

    def __init__(self, file: IO[bytes], epoch: int) -> None:
        self._file = file
        self._when = _dos_time(epoch)
        self._offset = 0
        self._central: list[bytes] = []
        self.sha256 = hashlib.sha256()

    def copy(self, source: RawZip, member: Member, name: str, *, algorithm: str) -> bytes:
        """Copy a member's compressed bytes under `name`; return the digest of its content."""
        self._begin(name, member, executable=member.executable)
        return source.copy(member, self._write, algorithm=algorithm)

    def add(self, name: str, content: bytes, *, executable: bool = False) -> None:
        """Write new content, uncompressed."""
        size = len(content)
        member = Member(name, STORED, zlib.crc32(content), size, size, 0, executable)
        self._begin(name, member, executable=executable)
        self._write(content)

    def finish(self) -> None:
        """Write the directory."""
        start = self._offset
        for record in self._central:
            self._write(record)
        size, count = self._offset - start, len(self._central)
        if count > _MAX_16 - 1 or size > _MAX_32 - 1 or start > _MAX_32 - 1:
            at = self._offset
            body = struct.pack("<2H2L4Q", 45, 45, 0, 0, count, count, size, start)
            self._write(b"PK\6\6" + struct.pack("<Q", len(body)) + body)
            self._write(b"PK\6\7" + struct.pack("<LQL", 0, at, 1))
        few, small, near = min(count, _MAX_16), min(size, _MAX_32), min(start, _MAX_32)
        self._write(b"PK\5\6" + struct.pack("<4H2LH", 0, 0, few, few, small, near, 0))

    def _begin(self, name: str, member: Member, *, executable: bool) -> None:
        raw = name.encode("utf-8")
        flags = 0 if raw.isascii() else _UTF8_NAME
        date, clock = self._when
        offset, size, compressed = self._offset, member.size, member.compressed
        big = size >= _MAX_32 or compressed >= _MAX_32
        far = offset >= _MAX_32
        needs = 45 if big or far else 20
        sizes = struct.pack("<2Q", size, compressed) if big else b""
        local_extra = struct.pack("<2H", 1, len(sizes)) + sizes if big else b""
        extra = sizes + (struct.pack("<Q", offset) if far else b"")
        extra = struct.pack("<2H", 1, len(extra)) + extra if extra else b""
        shown = (_MAX_32, _MAX_32) if big else (compressed, size)
        common = (needs, flags, member.method, clock, date, member.crc, *shown, len(raw))
        self._write(_LOCAL.pack(b"PK\3\4", *common, len(local_extra)) + raw + local_extra)
        if name.endswith("/"):
            attributes = (stat.S_IFDIR | 0o755) << 16 | 0x10
        else:
            attributes = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
        made_by = 3 << 8 | needs
        tail = (len(extra), 0, 0, 0, attributes, min(offset, _MAX_32))
        self._central.append(_CENTRAL.pack(b"PK\1\2", made_by, *common, *tail) + raw + extra)

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self.sha256.update(content)
        self._offset += len(content)


def _dos_time(epoch: int) -> tuple[int, int]:
    """DOS date and time of a Unix time in UTC, clamped to 1980-01-01 … 2107-12-31 23:59:58."""
    when = time.gmtime(min(max(epoch, 315532800), 4354819198))
    date = (when.tm_year - 1980) << 9 | when.tm_mon << 5 | when.tm_mday
    return date, when.tm_hour << 11 | when.tm_min << 5 | when.tm_sec // 2
