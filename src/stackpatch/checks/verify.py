"""Whether an image has the files that a series yields, by reading as few layers as decide it.

The layers are read from the topmost down until every file in question was met or is hidden by
what lies above. An image that an overlay made is decided by its own layer; of the base nothing is
read. A file that could still lie in a layer that was not read, because it is not at hand or is
damaged, is unknown, and an image with an unknown file is never said to be right.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from stackpatch.artefacts.finding import Search
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.installed.record import Row, encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stackpatch.artefacts.images import ImageSource
    from stackpatch.artefacts.oci import Image


class State(StrEnum):
    """What became of a file that the series changes."""

    PATCHED = "patched"  # the bytes that the series yields
    REMOVED = "removed"  # gone, as the series has it
    RELEASED = "released"  # the bytes of the release: not patched
    OTHER = "other"  # other bytes, or no regular file
    PRESENT = "present"  # there, and the series removes it
    MISSING = "missing"  # in no layer
    HIDDEN = "hidden"  # an upper layer takes it away
    UNKNOWN = "unknown"  # a layer that may hold it was not read

    @property
    def right(self) -> bool:
        """Whether it is as the series has it."""
        return self in (State.PATCHED, State.REMOVED)


@dataclass(frozen=True, slots=True)
class Expected:
    """A file of the series. content: what it yields, None where it removes the file.

    released: the sha256 (hex) of the released file, None where there was none.
    """

    content: bytes | None
    released: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an image is held against.

    files: by path in the site folder. distribution: whose dist-info there must state `version`;
    None where the package is imported from a git tree. labels: what the image should say of
    itself. outside: files of the series that no file of the package shows: sources that were
    compiled, tests.
    """

    stack: str
    distribution: str | None
    version: str
    files: Mapping[str, Expected]
    labels: Mapping[str, str]
    outside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileState:
    """One file: what it is, and why where that is not plain."""

    path: str
    state: State
    why: str = ""


@dataclass(frozen=True, slots=True)
class LabelState:
    """One label: what the image says (None: nothing), what the series is."""

    name: str
    found: str | None
    wanted: str

    @property
    def wrong(self) -> bool:
        """Whether it contradicts; an image that says nothing does not."""
        return self.found is not None and self.found != self.wanted


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found. folder: the site folder from the image's root, None where it was not met.

    version: what the dist-info states. read, bytes: how many layers were read, and their stored
    bytes; of, of_bytes: of how many. unread: why reading ended before everything was decided.
    """

    files: tuple[FileState, ...]
    labels: tuple[LabelState, ...]
    folder: str | None
    version: str | None
    read: int
    of: int
    bytes: int
    of_bytes: int
    unread: str | None
    wanted: Wanted

    @property
    def version_right(self) -> bool:
        """Whether the dist-info, where one is looked for, is the patched version's."""
        return self.wanted.distribution is None or self.version == self.wanted.version

    @property
    def right(self) -> bool:
        """Whether the image has what the series yields; never where something is unknown."""
        return (
            all(one.state.right for one in self.files)
            and self.version_right
            and not any(label.wrong for label in self.labels)
        )

    def wrongs(self) -> list[str]:
        """What is not right, in words."""
        found = [
            f"{one.path} is {one.state}{f' ({one.why})' if one.why else ''}"
            for one in self.files
            if not one.state.right
        ]
        if not self.version_right:
            found.append(
                f"its {self.wanted.distribution} is {self.version or 'of no version that was met'}"
                f", not {self.wanted.version}"
            )
        found += [
            f"its label {one.name} is {one.found}, not {one.wanted}"
            for one in self.labels
            if one.wrong
        ]
        return found

    def json(self) -> dict[str, Any]:
        """As `verify --json` has it."""
        return {
            "right": self.right,
            "folder": self.folder,
            "version": {"found": self.version, "wanted": self.wanted.version},
            "files": [
                {"path": one.path, "state": one.state.value, "why": one.why} for one in self.files
            ],
            "outside": list(self.wanted.outside),
            "labels": [
                {"name": one.name, "found": one.found, "wanted": one.wanted} for one in self.labels
            ],
            "layers": {
                "read": self.read,
                "of": self.of,
                "bytes_read": self.bytes,
                "bytes": self.of_bytes,
                "unread": self.unread,
            },
        }


def verify_image(
    source: ImageSource,
    image: Image,
    wanted: Wanted,
    *,
    site: str | None = None,
    report: Callable[[str, int, int | None], None] | None = None,
) -> Verified:
    """Hold an image's files against the series. site: the folder, where it is known.

    report: called with a label, bytes read, bytes at most. A layer that cannot be read ends the
    reading and is told in the result.
    """
    name = canonicalize_name(wanted.distribution) if wanted.distribution is not None else None
    search = Search(name, watched=wanted.files, site=site)
    total = sum(layer.size for layer in image.layers)
    count = size = 0
    unread: str | None = None
    for descriptor in reversed(image.layers):
        if search.enough():
            break
        try:
            search.read(source, descriptor)
        except (InputError, EnvironmentProblem) as error:
            unread = f"layer {descriptor.digest}: {error.message}"
            break
        count, size = count + 1, size + descriptor.size
        if report is not None:
            report(f"reading {source.label}", size, total)
    folder = search.folder()
    files = tuple(
        _state(search, folder, path, one, unread) for path, one in sorted(wanted.files.items())
    )
    return Verified(
        files,
        _labels(image, wanted),
        folder,
        search.version(),
        count,
        len(image.layers),
        size,
        total,
        unread,
        wanted,
    )


def _state(
    search: Search, folder: str | None, path: str, wanted: Expected, unread: str | None
) -> FileState:
    if folder is None:
        why = unread or "the image has no dist-info of the package"
        return FileState(path, State.UNKNOWN if unread else State.MISSING, why)
    place = f"{folder}/{path}"
    if not search.has(place):
        if search.hidden(place):
            state = State.HIDDEN if wanted.content is not None else State.REMOVED
            return FileState(path, state)
        if unread:
            return FileState(path, State.UNKNOWN, unread)
        return FileState(path, State.MISSING if wanted.content is not None else State.REMOVED)
    if wanted.content is None:
        return FileState(path, State.PRESENT)
    found = search.content(place)
    if found is None:
        target = search.linked(place)
        if target is not None:
            return FileState(path, State.UNKNOWN, f"a hard link to {target}, which was not read")
        return FileState(path, State.OTHER, "no regular file")
    if found == Row.of(path, wanted.content).hash:
        return FileState(path, State.PATCHED)
    if wanted.released and found == f"sha256={encoded(bytes.fromhex(wanted.released))}":
        return FileState(path, State.RELEASED)
    return FileState(path, State.OTHER)


def _labels(image: Image, wanted: Wanted) -> tuple[LabelState, ...]:
    """The labels of the config; an annotation of the same name must not say another thing."""
    settings = image.config_json().get("config") or {}
    stated = dict(settings.get("Labels") or {}) if isinstance(settings, dict) else {}
    notes = image.manifest_json().get("annotations") or {}
    if _names(stated) not in (None, wanted.stack):
        # The image of a stack that stands on this one names it so.
        below = str(stated.get("stackpatch.requires") or "").split()
        versions = dict(one.partition("=")[::2] for one in below)
        found = versions.get(wanted.stack)
        return (LabelState("stackpatch.requires", found, wanted.version),)
    states = []
    for name, value in sorted(wanted.labels.items()):
        says = {str(place[name]) for place in (stated, notes) if name in place}
        other = sorted(says - {value})
        found = other[0] if other else (value if says else None)
        states.append(LabelState(name, found, value))
    return tuple(states)


def _names(labels: Mapping[str, object]) -> str | None:
    stack = labels.get("stackpatch.stack")
    return str(stack) if stack is not None else None
