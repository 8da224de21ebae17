"""The files of an sdist or a wheel, streamed one by one; nothing is unpacked to disk.

The archive is somebody else's input even when its sha256 is pinned: paths and links that leave
the tree, devices, bombs, and archives that end early are refused with the member's name.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Self, cast

from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.sources.objects import EXECUTABLE, REGULAR, SYMLINK
from stackpatch.sources.shape import WHOLE, Refusal, Shape, as_input_error, clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Progress = Callable[[int, int | None], None]

_CHUNK = 1 << 20
_OPENERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".tar.gz": lambda packed: cast("IO[bytes]", gzip.GzipFile(fileobj=packed)),
    ".tgz": lambda packed: cast("IO[bytes]", gzip.GzipFile(fileobj=packed)),
    ".tar.bz2": lambda packed: cast("IO[bytes]", bz2.BZ2File(packed)),
    ".tar.xz": lambda packed: cast("IO[bytes]", lzma.LZMAFile(packed)),  # noqa: SIM115 - closed by _open_tar
}
# What the decoders raise for bytes that are no archive, or not all of one.
_DAMAGE = (
    EOFError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    struct.error,
    NotImplementedError,  # zipfile: an unknown compression
    RuntimeError,  # zipfile: an encrypted member
    UnicodeError,
    ValueError,
    OverflowError,
)


@dataclass(frozen=True, slots=True)
class Member:
    """One file: path, git file mode, content (for a symbolic link: where it points), blob id."""

    path: str
    mode: int
    content: bytes
    blob: str

    @classmethod
    def of(cls, path: str, mode: int, content: bytes) -> Self:
        """With the id that git gives the content."""
        digest = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
        digest.update(content)
        return cls(path, mode, content, digest.hexdigest())


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may ask of us: members, bytes of one file and in all, and the ratio.

    ratio: unpacked to packed bytes, looked at once `ratio_from` bytes are unpacked. flashinfer
    0.7.2.post1, the largest we know, has 10,235 files, 420 MB and a ratio of 8.
    """

    members: int = 200_000
    file: int = 512 << 20
    total: int = 4 << 30
    ratio: int = 150
    ratio_from: int = 64 << 20


def members(
    archive: Path, *, limits: Limits | None = None, progress: Progress | None = None
) -> Iterator[Member]:
    """The files of an sdist (without its one top folder) or a wheel, in archive order.

    What can only be judged at the end (where links lead, a damaged tail) raises there: treat
    nothing as good before the iterator is exhausted. progress: packed bytes read, of how many.
    Raises InputError naming the archive and the member.
    """
    bounds = limits or Limits()
    shape = Shape()
    with _explained(archive):
        if archive.name.endswith((".whl", ".zip")):
            strip = str if archive.name.endswith(".whl") else _TopFolder()
            yield from _zip_members(archive, shape, strip, bounds, progress)
        elif any(archive.name.endswith(suffix) for suffix in _OPENERS):
            yield from _tar_members(archive, shape, bounds, progress)
        else:
            msg = f"{archive.name} is neither a wheel nor an sdist"
            raise InputError(msg, hint=f"known: .whl, .zip, {', '.join(_OPENERS)}")
        shape.finish()


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    try:
        yield
    except Refusal as refusal:
        raise as_input_error(refusal, archive.name) from None
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        # gzip and bz2 give no number; zipfile follows a broken offset to before the start.
        if error.errno in (None, errno.EINVAL):
            raise _damaged(archive, error) from error
        msg = f"cannot read {archive}: {error.strerror}"
        raise EnvironmentProblem(msg) from error


def _damaged(archive: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    msg = f"{archive.name} is damaged or cut off: {reason}"
    return InputError(msg, hint="remove the file and fetch it again", where=str(archive))


@dataclass(slots=True)
class _TopFolder:
    """Takes the one top folder (`NAME-VERSION/`) off the paths of an sdist."""

    name: str | None = None

    def __call__(self, path: str) -> str:
        """The path below the top folder, "" for that itself. Raises Refusal for a second one."""
        first, _, rest = path.partition("/")
        if self.name is None:
            self.name = first
        elif first != self.name:
            raise Refusal(path, f"an sdist has one top folder, and this one began in {self.name}")
        return rest


# --- tar ----------------------------------------------------------------------------------------


class _Unpacked:
    """The decompressed stream, counted; refuses a bomb before it has burst."""

    def __init__(self, stream: IO[bytes], packed: IO[bytes], limits: Limits) -> None:
        self._stream, self._packed, self._limits = stream, packed, limits
        self.position = 0
        self.last_content = 0  # the offset behind the last byte that is not zero

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        content = len(block.rstrip(b"\0"))
        if content:
            self.last_content = self.position + content
        self.position += len(block)
        if self.position > self._limits.total:
            msg = f"it unpacks to more than {self._limits.total:,} bytes"
            raise Refusal(WHOLE, msg)
        if self.position > self._limits.ratio_from:
            ratio = self.position // max(self._packed.tell(), 1)
            if ratio > self._limits.ratio:
                raise Refusal(WHOLE, f"it unpacks to {ratio} times its size")
        return block


def _tar_members(
    archive: Path, shape: Shape, limits: Limits, progress: Progress | None
) -> Iterator[Member]:
    hard_links: dict[str, str] = {}
    strip = _TopFolder()
    size = archive.stat().st_size
    with _open_tar(archive, limits) as (tar, packed, unpacked):
        for count, info in enumerate(tar, 1):
            if count > limits.members:
                raise Refusal(info.name, f"it has more than {limits.members:,} members")
            path = strip(clean(info.name))
            if info.isdir():
                shape.add_folder(path)
                continue
            if not path:
                raise Refusal(info.name, "an sdist has everything in one folder")
            if info.islnk():
                hard_links[path] = clean(info.linkname)
                continue
            member = _tar_member(tar, info, path, limits)
            if _admit(shape, member):
                yield member
            if progress:
                progress(min(packed.tell(), size), size)
        _refuse_cut_off(tar, unpacked)
    if hard_links:
        yield from _hard_linked(archive, hard_links, shape, limits)
    if progress:
        progress(size, size)


@contextmanager
def _open_tar(
    archive: Path, limits: Limits
) -> Iterator[tuple[tarfile.TarFile, IO[bytes], _Unpacked]]:
    suffix = next(suffix for suffix in _OPENERS if archive.name.endswith(suffix))
    # We decompress: tarfile's own stream mode never looks at gzip's checksum.
    with archive.open("rb") as packed, _OPENERS[suffix](packed) as stream:
        unpacked = _Unpacked(stream, packed, limits)
        with tarfile.open(
            fileobj=cast("IO[bytes]", unpacked),
            mode="r|",
            bufsize=_CHUNK,
            encoding="utf-8",
            errors="surrogateescape",
        ) as tar:
            yield tar, packed, unpacked


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo, path: str, limits: Limits) -> Member:
    if info.issym():
        return Member.of(path, SYMLINK, info.linkname.encode("utf-8", "surrogateescape"))
    if not info.isreg() or info.issparse():
        kind = {
            tarfile.CHRTYPE: "a device",
            tarfile.BLKTYPE: "a device",
            tarfile.FIFOTYPE: "a named pipe",
        }.get(info.type, "a sparse file" if info.issparse() else f"of the kind {info.type!r}")
        raise Refusal(info.name, f"it is {kind}")
    _refuse_size(info.name, info.size, limits)
    file = tar.extractfile(info)
    content = file.read() if file is not None else b""
    if len(content) != info.size:
        msg = "unexpected end of data"
        raise tarfile.ReadError(msg)
    return Member.of(path, EXECUTABLE if info.mode & 0o100 else REGULAR, content)


def _refuse_cut_off(tar: tarfile.TarFile, unpacked: _Unpacked) -> None:
    """tarfile takes a broken header for the end: look whether it is the end."""
    while unpacked.read(_CHUNK):  # also makes the decoder check its checksum
        pass
    end = tar.offset
    if unpacked.last_content > end:
        msg = f"a broken header at byte {end:,} of the unpacked archive"
        raise tarfile.ReadError(msg)
    if unpacked.position < end + tarfile.BLOCKSIZE:
        msg = "it has no end mark"
        raise tarfile.ReadError(msg)


def _hard_linked(
    archive: Path, links: dict[str, str], shape: Shape, limits: Limits
) -> Iterator[Member]:
    """Hard links as copies of what they name, by a second pass over the archive."""
    wanted = set(links.values())
    content: dict[str, Member] = {}
    with _open_tar(archive, limits) as (tar, _, _):
        for info in tar:
            if info.isreg() and (path := clean(info.name)) in wanted:
                content[path] = _tar_member(tar, info, path, limits)
    for path, target in links.items():
        original = content.get(target)
        if original is None:
            raise Refusal(path, f"it is a hard link to {target}, which is no file in the archive")
        member = Member(path, original.mode, original.content, original.blob)
        if _admit(shape, member):
            yield member


# --- zip ----------------------------------------------------------------------------------------


def _zip_members(
    archive: Path,
    shape: Shape,
    strip: Callable[[str], str],
    limits: Limits,
    progress: Progress | None,
) -> Iterator[Member]:
    size = archive.stat().st_size
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        _refuse_zip_bomb(infos, size, limits)
        done = 0
        for info in infos:
            path = strip(clean(info.orig_filename))
            if info.is_dir():
                shape.add_folder(path)
                continue
            if not path:
                raise Refusal(info.orig_filename, "an sdist has everything in one folder")
            member = Member.of(path, _zip_mode(info), opened.read(info))
            if _admit(shape, member):
                yield member
            done += info.compress_size
            if progress:
                progress(min(done, size), size)
    if progress:
        progress(size, size)


def _refuse_zip_bomb(infos: list[zipfile.ZipInfo], size: int, limits: Limits) -> None:
    if len(infos) > limits.members:
        raise Refusal(WHOLE, f"it has more than {limits.members:,} members")
    for info in infos:
        _refuse_size(info.orig_filename, info.file_size, limits)
        if info.flag_bits & 0x1:
            raise Refusal(info.orig_filename, "it is encrypted")
    total = sum(info.file_size for info in infos)
    if total > limits.total:
        raise Refusal(WHOLE, f"it unpacks to more than {limits.total:,} bytes")
    if total > limits.ratio_from and total // max(size, 1) > limits.ratio:
        raise Refusal(WHOLE, f"it unpacks to {total // max(size, 1)} times its size")
    if sum(info.compress_size for info in infos) > size:
        raise Refusal(WHOLE, "its members overlap")


def _zip_mode(info: zipfile.ZipInfo) -> int:
    mode = info.external_attr >> 16
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        return SYMLINK
    if kind not in (0, stat.S_IFREG):
        raise Refusal(info.orig_filename, "it is neither a file nor a link")
    return EXECUTABLE if mode & 0o100 else REGULAR


# --- both ---------------------------------------------------------------------------------------


def _refuse_size(name: str, size: int, limits: Limits) -> None:
    if size > limits.file:
        raise Refusal(name, f"it has {size:,} bytes, more than the {limits.file:,} we allow")
    if size < 0:
        raise Refusal(name, "it has a negative size")


def _admit(shape: Shape, member: Member) -> bool:
    link = member.content.decode("utf-8", "surrogateescape") if member.mode == SYMLINK else None
    return shape.add(member.path, member.mode, member.blob, link)
