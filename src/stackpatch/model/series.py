"""A series: ordered patches for one release, as a quilt `series` file and the mails beside it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stackpatch.errors import EnvironmentProblem, InputError, Problems

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stackpatch.model.patch import Patch

_LISTING = "series"
_LINE = re.compile(r"(?P<name>\S+)(?:\s+-p(?P<strip>\S+))?\s*$")


@dataclass(frozen=True, slots=True)
class Series:
    """Ordered patches. where: the folder, for messages. arch: the arch it was narrowed to."""

    where: str
    patches: tuple[Patch, ...]
    arch: str | None = None

    def for_arch(self, arch: str) -> Series:
        """The patches that are part of the series for this arch."""
        kept = tuple(
            patch
            for patch in self.patches
            if patch.trailers.archs is None or arch in patch.trailers.archs
        )
        return replace(self, patches=kept, arch=arch)

    @property
    def digest(self) -> str:
        """64 hex digits over the names and bytes of the patches, in order."""
        whole = hashlib.sha256()
        for patch in self.patches:
            whole.update(f"{patch.sha256}  {patch.name}\n".encode())
        return whole.hexdigest()

    @property
    def short(self) -> str:
        """The first 8 hex digits of the digest, for a local version."""
        return self.digest[:8]


@dataclass(frozen=True, slots=True)
class SeriesFiles:
    """The files of a series' folder as they were read, not parsed yet (name → bytes).

    None at all for a release without a series. where: the folder, for messages.
    """

    where: str
    files: Mapping[str, bytes]

    def parse(self) -> Series:
        """The series. Raises Problems for what is wrong in the files."""
        if not self.files:
            return Series(self.where, ())
        patches = {name: content for name, content in self.files.items() if name != _LISTING}
        return parse_series(self.where, self.files[_LISTING], patches)


def parse_series(where: str, listing: bytes, files: Mapping[str, bytes]) -> Series:
    """Parse a `series` file and the patch files beside it (name → bytes, without `series`).

    Raises Problems with every problem: of the list, of each mail.
    """
    from stackpatch.model.patch import parse_patch

    problems: list[str] = []
    names: dict[str, int] = {}
    try:
        text = listing.decode("utf-8")
    except UnicodeDecodeError:
        msg = f"{where}/series is not UTF-8"
        raise Problems(msg, (f"{where}/series:1: not UTF-8 text",)) from None
    for number, line in enumerate(text.splitlines(), 1):
        content = re.sub(r"(^|\s)#.*$", "", line).strip()
        if not content:
            continue
        place = f"{where}/series:{number}"
        found = _LINE.match(content)
        if not found:
            problems.append(f"{place}: want one patch file name a line, found {content!r}")
            continue
        name = found["name"]
        if found["strip"] not in (None, "1"):
            problems.append(f"{place}: {name}: only -p1 patches (git format-patch's own) are taken")
        if "/" in name or "\\" in name or name.startswith("."):
            problems.append(f"{place}: {name}: must be a plain file name in {where}/")
        elif name in names:
            problems.append(f"{place}: {name}: listed twice (first at line {names[name]})")
        elif name not in files:
            problems.append(f"{place}: {name}: no such file in {where}/")
        else:
            names[name] = number
    problems += [
        f"{where}/{name}:1: lies beside the series but is not listed in it"
        for name in sorted(set(files) - set(names))
        if name.endswith((".patch", ".diff", ".mbox", ".eml"))
        and not any(f": {name}:" in problem for problem in problems)
    ]
    patches: list[Patch] = []
    for name in names:
        try:
            patches.append(parse_patch(name, files[name], where=f"{where}/{name}"))
        except Problems as error:
            problems.extend(error.problems)
    if problems:
        count = len(problems)
        msg = f"{where}: {count} problem{'s' * (count != 1)} in the series"
        raise Problems(msg, tuple(problems))
    return Series(where, tuple(patches))


def read_series(folder: Path, *, where: str | None = None) -> SeriesFiles:
    """Read the files of the series in a folder. `where` is how messages name it.

    Raises InputError when there is no `series` file, EnvironmentProblem for what we may not read.
    """
    place = where or str(folder)
    try:
        files = {_LISTING: (folder / _LISTING).read_bytes()}
        files |= {
            file.name: file.read_bytes()
            for file in sorted(folder.iterdir())
            if file.is_file() and file.name != _LISTING
        }
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        msg = f"no series in {place}"
        raise InputError(
            msg, hint="a series is a folder with a `series` file", where=place
        ) from None
    except PermissionError as error:
        msg = f"not allowed to read {error.filename}"
        raise EnvironmentProblem(msg, where=place) from error
    return SeriesFiles(place, files)


def load_series(folder: Path, *, where: str | None = None) -> Series:
    """Read and parse the series in a folder. Raises as `read_series`, and Problems."""
    return read_series(folder, where=where).parse()
