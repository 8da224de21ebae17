"""Finding a distribution in an image by reading as few of its layers as can be certain.

Layers are read from the topmost down. What an upper one holds or whites out hides what lies below
(image-spec 1.1, layer.md), so the first dist-info that is seen is the one that Python sees. The
reading ends with the layer in which the dist-info and every file that the patches touch were met;
the layers below are not opened, and `Reading` says so.
"""

from __future__ import annotations

import posixpath
import re
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from stackpatch.artefacts.layer import WHITEOUT, Entry, Kind
from stackpatch.artefacts.layer_stream import layer_tar
from stackpatch.artefacts.site import Installed, Reading, Site
from stackpatch.errors import InputError
from stackpatch.installed.record import Row, parse_record

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from stackpatch.artefacts.images import ImageSource
    from stackpatch.artefacts.oci import Descriptor, Image

_OPAQUE = ".wh..wh..opq"
_SITE = re.compile(r"^(?:.*/)?(?:site|dist)-packages/")
_DIST_INFO = re.compile(r"^(?P<name>[^/]+)-(?P<version>[^/-]+)\.dist-info$")
_KEPT = ("INSTALLER", "REQUESTED")
_MAX_FILE = 64 << 20


def find_installed(
    source: ImageSource,
    image: Image,
    distribution: str,
    *,
    watched: Collection[str] = (),
    site: str | None = None,
    shadowing: Collection[str] = (),
    report: Callable[[str, int, int | None], None] | None = None,
) -> Site:
    """Where the image has the distribution, by its dist-info, as Python would find it.

    watched: paths in the site folder whose content is hashed. site: the folder to look in, where
    it is known. shadowing: distributions whose own files are wanted too. Raises InputError when
    it is there not at all, more than once in what was read, or as an editable installation, whose
    files lie elsewhere; and what the source raises.
    """
    wanted = canonicalize_name(distribution)
    others = frozenset(canonicalize_name(name) for name in shadowing)
    search = Search(wanted, watched=watched, site=site, others=others - {wanted})
    total = sum(layer.size for layer in image.layers)
    count = size = 0
    for descriptor in reversed(image.layers):
        search.read(source, descriptor)
        count, size = count + 1, size + descriptor.size
        if report is not None:
            report(f"reading {source.label}", size, total)
        if search.enough():
            break
    where = f"{source.label}@{image.digest}"
    return search.site(distribution, where, Reading(count, len(image.layers), size))


@dataclass(slots=True)
class _View:
    """One layer, as far as it matters. Paths without a leading slash."""

    files: set[str] = field(default_factory=set)  # in package folders, or anything but a folder
    gone: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)
    folders: dict[str, Entry] = field(default_factory=dict)
    paths: set[str] = field(default_factory=set)
    documents: dict[str, bytes] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)


class Search:
    """What the layers from the top down to the last one that was read say together.

    wanted: the distribution's canonical name; None where only the watched files count. watched:
    paths in the site folder. site: that folder, where it is known. others: distributions whose
    RECORD is kept as well.
    """

    def __init__(
        self,
        wanted: str | None,
        *,
        watched: Collection[str],
        site: str | None,
        others: frozenset[str] = frozenset(),
    ) -> None:
        self._wanted = wanted
        self._others = others
        self._watched = frozenset(watched)
        self._inside = f"{site.strip('/')}/" if site else None
        self._upper = _View()

    def read(self, source: ImageSource, descriptor: Descriptor) -> None:
        """Read the next layer below. Raises InputError, EnvironmentProblem; then nothing of it
        counts."""
        self._add(_read(source, descriptor, self))

    def has(self, path: str) -> bool:
        """Whether something lies at the path, of the image, that is no folder."""
        return path in self._upper.paths

    def content(self, path: str) -> str | None:
        """The hash of a watched file, as RECORD writes it; None where it is no regular file."""
        return self._upper.hashes.get(path)

    def linked(self, path: str) -> str | None:
        """What the path is a hard link to."""
        return self._upper.links.get(path)

    def prefix(self, path: str) -> str | None:
        """The package folder that a path lies in, with its slash at the end."""
        if self._inside is not None:
            return self._inside if path.startswith(self._inside) else None
        found = _SITE.match(path)
        return found.group() if found else None

    def wants(self, path: str, prefix: str) -> bool:
        """Whether a file's content matters: a document of the dist-info."""
        folder, _, name = path.removeprefix(prefix).partition("/")
        match = _DIST_INFO.match(folder)
        if match is None:
            return False
        if canonicalize_name(match["name"]) in self._others:
            return name == "RECORD"
        documents = ("RECORD", "direct_url.json", *_KEPT)
        return canonicalize_name(match["name"]) == self._wanted and name in documents

    def watches(self, path: str, prefix: str) -> bool:
        """Whether the content of the file is to be hashed."""
        return path.removeprefix(prefix) in self._watched

    def hidden(self, path: str) -> bool:
        """Whether a layer above has the path, or hides what lies there below it."""
        upper = self._upper
        if path in upper.files or path in upper.folders or path in upper.gone:
            return True
        parent = posixpath.dirname(path)
        while parent:
            if parent in upper.opaque or parent in upper.gone or parent in upper.files:
                return True
            parent = posixpath.dirname(parent)
        return "" in upper.opaque

    def _add(self, layer: _View) -> None:
        """Put the layer below what is there."""
        upper = self._upper
        for path in layer.paths:
            if not self.hidden(path):
                upper.paths.add(path)
                if path in layer.documents:
                    upper.documents[path] = layer.documents[path]
                if path in layer.hashes:
                    upper.hashes[path] = layer.hashes[path]
                if path in layer.links:
                    upper.links[path] = layer.links[path]
        below = {path: entry for path, entry in layer.folders.items() if not self.hidden(path)}
        upper.files |= layer.files
        upper.gone |= layer.gone
        upper.opaque |= layer.opaque
        upper.folders |= below

    def enough(self) -> bool:
        """Whether nothing in a lower layer can change what is wanted."""
        site = self.folder()
        if site is None or (self._wanted is not None and not self._records()):
            return False
        places = (f"{site}/{path}" for path in self._watched)
        return all(path in self._upper.paths or self.hidden(path) for path in places)

    def folder(self) -> str | None:
        """The site folder: the one that was said, or the one of the dist-info that was met."""
        if self._inside is not None:
            return self._inside.rstrip("/")
        records = self._records()
        return posixpath.dirname(posixpath.dirname(records[0])) if records else None

    def version(self) -> str | None:
        """What the dist-info in the site folder states."""
        for path in self._records():
            match = _DIST_INFO.match(posixpath.basename(posixpath.dirname(path)))
            if match is not None:
                return match["version"]
        return None

    def _records(self) -> list[str]:
        """Where the distribution's own RECORD was seen."""
        if self._wanted is None:
            return []
        return sorted(path for path in self._upper.documents if self._names(path) == self._wanted)

    @staticmethod
    def _names(path: str) -> str | None:
        """The distribution whose RECORD lies at the path; None for any other file."""
        folder, name = posixpath.split(path)
        match = _DIST_INFO.match(posixpath.basename(folder)) if name == "RECORD" else None
        return canonicalize_name(match["name"]) if match else None

    def site(self, distribution: str, where: str, reading: Reading) -> Site:
        """What was found. Raises InputError."""
        upper = self._upper
        found = self._records()
        if not found:
            raise self._missing(distribution, where)
        if len(found) > 1:
            msg = f"the base image has {distribution} {len(found)} times: {', '.join(found)}"
            hint = "name the folder that is meant with --site, or take a base image with one"
            raise InputError(msg, hint=hint, where=where)
        folder = posixpath.dirname(found[0])
        site, dist_info = posixpath.split(folder)
        if b'"editable"' in upper.documents.get(f"{folder}/direct_url.json", b""):
            msg = f"the base image has {distribution} as an editable installation"
            hint = (
                "its files lie elsewhere: write the image's digest and the folder of the git tree "
                "into the recipe, below `bases` with `kind: editable`"
            )
            raise InputError(msg, hint=hint, where=where)
        record = self._record(found[0], where)
        inside = f"{site}/"
        below = frozenset(p.removeprefix(inside) for p in upper.paths if p.startswith(inside))
        stated = _DIST_INFO.match(dist_info)
        installed = Installed(
            stated["version"] if stated else "",
            dist_info,
            record,
            {
                name: upper.documents[f"{folder}/{name}"]
                for name in _KEPT
                if f"{folder}/{name}" in upper.documents
            },
            below,
            {p.removeprefix(inside): h for p, h in upper.hashes.items() if p.startswith(inside)},
            _distributions(below),
            {
                name: frozenset(self._record(path, where))
                for path in upper.documents
                if path.startswith(inside) and (name := self._names(path)) in self._others
            },
        )
        return Site(site, installed, upper.folders, reading)

    def _record(self, path: str, where: str) -> dict[str, Row]:
        try:
            return parse_record(self._upper.documents[path])
        except ValueError as error:
            msg = f"the base image's {path} cannot be read: {error}"
            raise InputError(msg, where=where) from error

    def _missing(self, distribution: str, where: str) -> InputError:
        msg = f"the base image has no {distribution}"
        if self._inside is not None:
            msg += f" in /{self._inside.rstrip('/')}"
        folders = {posixpath.dirname(path) for path in self._upper.paths if ".dist-info/" in path}
        others = f"{len(folders)} other" if folders else "no"
        hint = (
            f"its package folders hold {others} distribution{'s' * (len(folders) != 1)}; take one "
            "that has the release, or --engine buildx or buildah, which install the patched wheel"
        )
        return InputError(msg, hint=hint, where=where)


def _distributions(paths: Iterable[str]) -> dict[str, str]:
    """The dist-info folders among the paths, by the distribution's canonical name."""
    folders = {path.split("/")[0] for path in paths if ".dist-info/" in path}
    matches = (_DIST_INFO.match(folder) for folder in sorted(folders))
    return {canonicalize_name(match["name"]): match.group() for match in matches if match}


def _read(source: ImageSource, descriptor: Descriptor, seen: Search) -> _View:
    """One layer, to its end, its digest compared. Raises InputError for one that is damaged."""
    view = _View()
    with layer_tar(source, descriptor) as tar:
        for info in tar:
            _take(view, tar, info, seen)
    return view


def _take(view: _View, tar: tarfile.TarFile, info: tarfile.TarInfo, seen: Search) -> None:
    path = posixpath.normpath(info.name).lstrip("/")
    parent, name = posixpath.split(path)
    if name == _OPAQUE:
        view.opaque.add(parent)
    elif name.startswith(WHITEOUT):
        view.gone.add(posixpath.join(parent, name.removeprefix(WHITEOUT)))
    elif info.isdir():
        view.folders[path] = _folder(path, info)
    else:
        prefix = seen.prefix(path)
        # A file or a link anywhere may hide a folder of the layers below.
        view.files.add(path)
        if prefix is None:
            return
        view.paths.add(path)
        if info.isreg() and seen.wants(path, prefix):
            view.documents[path] = _content(tar, info)
        elif info.isreg() and seen.watches(path, prefix):
            view.hashes[path] = Row.of(path, _content(tar, info)).hash
        elif info.islnk() and seen.watches(path, prefix):
            view.links[path] = posixpath.normpath(info.linkname).lstrip("/")


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
