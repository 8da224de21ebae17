"""What is known of a distribution's installation in an image: where it lies, and how.

`find_installed` reads the layers of an image in a layout, which are local files. For an image
whose layers are not read, `Site` says only what somebody stated: the folder.
"""

from __future__ import annotations

import lzma
import posixpath
import re
import tarfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from stackpatch.artefacts.layer import WHITEOUT, Entry, Kind
from stackpatch.artefacts.record import Row, parse_record
from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from stackpatch.artefacts.layout import Layout
    from stackpatch.artefacts.oci import Descriptor, Image

_OPAQUE = ".wh..wh..opq"
_SITE = re.compile(r"^(?:.*/)?(?:site|dist)-packages/")
_DIST_INFO = re.compile(r"^(?P<name>[^/]+)-(?P<version>[^/-]+)\.dist-info$")
_KEPT = ("INSTALLER", "REQUESTED")
_MAX_FILE = 64 << 20
# tarfile leaks what its parts raise: TypeError for a gzip header cut short, ValueError and
# OverflowError for numbers that are none.
_UNREADABLE = (
    *(tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(ValueError, TypeError, OverflowError),
)


@dataclass(frozen=True, slots=True)
class Installed:
    """An installation that was read from an image.

    version as its dist-info states it. record: RECORD's rows by path in the site folder. kept:
    content by name of the dist-info files that an installer wrote and that stay true. paths:
    every file in the site folder. hashes: as RECORD writes them, of the content of the watched
    ones. distributions: canonical names of all that are there.
    """

    version: str
    dist_info: str
    record: Mapping[str, Row]
    kept: Mapping[str, bytes]
    paths: frozenset[str]
    hashes: Mapping[str, str]
    distributions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Site:
    """The folder that takes the package's files, relative to the image's root.

    folders: how the image has it and the folders above and in it, by path. installed: None where
    the image was not read.
    """

    path: str
    installed: Installed | None = None
    folders: Mapping[str, Entry] = field(default_factory=dict, repr=False)


def find_installed(
    layout: Layout, image: Image, distribution: str, *, watched: Collection[str] = ()
) -> Site:
    """Where the image has the distribution, by its dist-info, as Python would find it.

    watched: paths in the site folder whose content is hashed. Reads every layer. Raises
    InputError when it is there not at all, more than once, or as an editable installation, whose
    files lie elsewhere.
    """
    wanted = canonicalize_name(distribution)
    files = _Files(wanted, watched)
    for descriptor in image.layers:
        files.add_layer(layout, descriptor)
    found = sorted(path for path in files.documents if path.endswith("/RECORD"))
    where = f"{layout.path}@{image.digest}"
    if not found:
        msg = f"the base image has no {distribution}"
        near = sorted(
            {posixpath.dirname(p) for p in files.paths if _SITE.match(p) and ".dist-" in p}
        )
        hint = "its package folders hold " + (
            f"{len(near)} other distributions" if near else "none"
        )
        raise InputError(msg, hint=hint, where=where)
    if len(found) > 1:
        msg = f"the base image has {distribution} {len(found)} times: {', '.join(found)}"
        raise InputError(msg, hint="take a base image with one", where=where)
    folder = posixpath.dirname(found[0])
    site, dist_info = posixpath.split(folder)
    if f"{folder}/direct_url.json" in files.documents and (
        b'"editable"' in files.documents[f"{folder}/direct_url.json"]
    ):
        msg = f"the base image has {distribution} as an editable installation"
        hint = "its files lie elsewhere; the overlay engine cannot patch them there yet"
        raise InputError(msg, hint=hint, where=where)
    try:
        record = parse_record(files.documents[found[0]])
    except ValueError as error:
        msg = f"the base image's {found[0]} cannot be read: {error}"
        raise InputError(msg, where=where) from error
    inside = f"{site}/"
    below = frozenset(p.removeprefix(inside) for p in files.paths if p.startswith(inside))
    matches = (_DIST_INFO.match(path.split("/")[0]) for path in below)
    stated = _DIST_INFO.match(dist_info)
    return Site(
        site,
        Installed(
            stated["version"] if stated else "",
            dist_info,
            record,
            {
                name: files.documents[f"{folder}/{name}"]
                for name in _KEPT
                if f"{folder}/{name}" in files.documents
            },
            below,
            {p.removeprefix(inside): h for p, h in files.hashes.items() if p.startswith(inside)},
            frozenset(canonicalize_name(match["name"]) for match in matches if match),
        ),
        files.folders,
    )


class _Files:
    """What the layers leave, as far as it matters: folders, and files in package folders."""

    def __init__(self, distribution: str, watched: Collection[str]) -> None:
        self.distribution = distribution
        self.watched = watched
        self.paths: set[str] = set()
        self.folders: dict[str, Entry] = {}
        self.documents: dict[str, bytes] = {}
        self.hashes: dict[str, str] = {}

    def add_layer(self, layout: Layout, descriptor: Descriptor) -> None:
        """Put one layer on top. Raises InputError for one that cannot be read."""
        hidden: set[str] = set()
        emptied: set[str] = set()
        folders: dict[str, Entry] = {}
        paths: set[str] = set()
        documents: dict[str, bytes] = {}
        hashes: dict[str, str] = {}
        try:
            with (
                layout.open_blob(descriptor) as blob,
                tarfile.open(fileobj=blob, mode="r|*") as tar,
            ):
                for info in tar:
                    path = posixpath.normpath(info.name).lstrip("/")
                    parent, name = posixpath.split(path)
                    if name == _OPAQUE:
                        emptied.add(parent)
                    elif name.startswith(WHITEOUT):
                        hidden.add(posixpath.join(parent, name.removeprefix(WHITEOUT)))
                    elif info.isdir():
                        folders[path] = _folder(path, info)
                    else:
                        hidden.add(path)
                        if found := _SITE.match(path):
                            paths.add(path)
                            inside = path[found.end() :]
                            if info.isreg() and self._is_document(path):
                                documents[path] = _content(tar, info)
                            elif info.isreg() and inside in self.watched:
                                hashes[path] = Row.of(path, _content(tar, info)).hash
        except _UNREADABLE as error:
            msg = f"layer {descriptor.digest} ({descriptor.media_type}) cannot be read: {error}"
            hint = "zstd layers are not read; convert the image with `skopeo copy --dest-compress`"
            raise InputError(msg, hint=hint, where=str(layout.path)) from error

        def covered(path: str) -> bool:
            above = path
            while above:
                if above in hidden:
                    return True
                above = posixpath.dirname(above)
                if above in emptied:
                    return True
            return False

        lost = {p for known in (self.paths, self.folders) for p in known if covered(p)}
        kept = self.paths - lost - set(folders) - paths
        self.paths = kept | paths
        self.folders = {p: e for p, e in self.folders.items() if p not in lost} | folders
        self.documents = {p: c for p, c in self.documents.items() if p in kept} | documents
        self.hashes = {p: h for p, h in self.hashes.items() if p in kept} | hashes

    def _is_document(self, path: str) -> bool:
        folder, name = posixpath.split(path)
        match = _DIST_INFO.match(posixpath.basename(folder))
        wanted = name in ("RECORD", "direct_url.json", *_KEPT)
        return bool(wanted and match) and (
            canonicalize_name(match["name"]) == self.distribution if match else False
        )


def _folder(path: str, info: tarfile.TarInfo) -> Entry:
    return Entry(
        path,
        Kind.FOLDER,
        mode=info.mode & 0o7777,
        uid=info.uid,
        gid=info.gid,
        mtime=int(info.mtime),
    )


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    if file is None or info.size > _MAX_FILE:
        msg = f"{info.name} has {info.size} bytes"
        raise tarfile.TarError(msg)
    return file.read()


def compiled_leftovers(site: Site, sources: Iterable[str]) -> tuple[str, ...]:
    """Bytecode files of these sources in the site folder, which Python may prefer to them.

    A .pyc is taken where its source has the size and the time that it states, or unchecked: a
    patch that keeps the size, in an image with clamped times, would not be seen. From the image
    where it was read, else the names that the folder's Python version would give them.
    """
    found: set[str] = set()
    version = re.search(r"python(\d+)\.(\d+)/", f"{site.path}/")
    by_stem: dict[str, list[str]] = {}
    if site.installed is not None:
        for path in site.installed.paths:
            if path.endswith(".pyc") and "/__pycache__/" in f"/{path}":
                folder, name = posixpath.split(path)
                stem = posixpath.join(posixpath.dirname(folder), name.split(".")[0])
                by_stem.setdefault(stem, []).append(path)
    for source in sources:
        if not source.endswith(".py"):
            continue
        stem = source.removesuffix(".py")
        if site.installed is not None:
            found.update(by_stem.get(stem, ()))
        elif version:
            folder, name = posixpath.split(stem)
            tag = f"cpython-{version[1]}{version[2]}"
            found.update(
                posixpath.join(folder, "__pycache__", f"{name}.{tag}{level}.pyc")
                for level in ("", ".opt-1", ".opt-2")
            )
    return tuple(sorted(found))
