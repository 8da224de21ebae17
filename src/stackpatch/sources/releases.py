"""Which upstream versions the package index has for a recipe, pinned or not, and as which files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from stackpatch.errors import InputError
from stackpatch.model.recipe import USUAL_PLATFORM
from stackpatch.model.reference import SourceKind
from stackpatch.sources.pipconfig import read_settings
from stackpatch.sources.pypi import IndexFile, PackageIndex
from stackpatch.sources.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stackpatch.model.recipe import Recipe

_SDIST = re.compile(r"(?P<name>.+?)-(?P<version>[0-9][^-]*)\.(?:tar\.(?:gz|bz2|xz)|tgz|zip)")
_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class IndexVersion:
    """One version on the index.

    files: everything it has there. source: the file whose contents we read, by kind. yanked: why,
    when every file was withdrawn ("" for no reason given); else None.
    """

    version: str
    files: tuple[IndexFile, ...]
    sources: Mapping[SourceKind, IndexFile]
    yanked: str | None

    @property
    def kind(self) -> SourceKind:
        """The kind we take when nobody asks for one: an sdist holds more than a wheel."""
        return SourceKind.SDIST if SourceKind.SDIST in self.sources else SourceKind.WHEEL


def open_index() -> PackageIndex:
    """The indexes of this person's pip."""
    return PackageIndex(Transport(read_settings()))


def list_index_versions(
    recipe: Recipe,
    *,
    index: PackageIndex | None = None,
    pre: bool = False,
    platform: str | None = None,
) -> list[IndexVersion]:
    """Every version of the recipe's project that has a file we can read, in PEP 440 order.

    pre: with pre-releases and development releases. platform: whose wheels are preferred. Raises
    InputError for a project that no index has, EnvironmentProblem for an index that cannot be
    read.
    """
    files = (index or open_index()).files(recipe.upstream.pypi)
    found: dict[Version, list[IndexFile]] = {}
    for file in dict.fromkeys(files):
        number = _version_of(file.name, recipe.upstream.pypi)
        if number is not None and (pre or not number.is_prerelease):
            found.setdefault(number, []).append(file)
    versions = []
    for number in sorted(found):
        sources = _sources(found[number], platform or USUAL_PLATFORM, recipe.python)
        if sources:
            reasons = [file.yanked for file in found[number]]
            yanked = None if None in reasons else next((r for r in reasons if r), "")
            versions.append(IndexVersion(str(number), tuple(found[number]), sources, yanked))
    return versions


def index_versions(recipe: Recipe, *, pre: bool = False) -> list[str]:
    """The version numbers on the index that were not yanked, oldest first; final ones without pre.

    Raises as list_index_versions.
    """
    return [found.version for found in list_index_versions(recipe, pre=pre) if found.yanked is None]


def all_versions(distribution: str, index: PackageIndex) -> list[str]:
    """Every version of a distribution of which some file was not withdrawn, in PEP 440 order.

    Pre-releases included, whatever the machine that its files are for. Raises as `files`.
    """
    found = {
        number
        for file in index.files(distribution)
        if file.yanked is None and (number := _version_of(file.name, distribution)) is not None
    }
    return [str(number) for number in sorted(found)]


def index_version(
    recipe: Recipe, version: str, index: PackageIndex, platform: str | None = None
) -> IndexVersion:
    """One version on the index, pre-release or yanked included.

    Raises InputError that names its neighbours where there is none.
    """
    from stackpatch.sources.store import neighbours  # it imports pygit2

    found = list_index_versions(recipe, index=index, pre=True, platform=platform)
    for candidate in found:
        if Version(candidate.version) == Version(version):
            return candidate
    near = neighbours(version, [candidate.version for candidate in found])
    msg = f"the index has no version {version} of {recipe.upstream.pypi}"
    raise InputError(msg, hint=f"nearest: {', '.join(near)}" if near else None)


def index_files(recipe: Recipe, version: str) -> list[IndexFile]:
    """The files of one version with their sizes, as a recipe pins them; sdist first.

    An index that gives no size is asked for the length of each file. Files without a sha256 are
    left out: there is nothing to pin.
    """
    from dataclasses import replace

    index = open_index()
    found = index_version(recipe, version, index).files
    named = {file.name: file for file in found if file.sha256 is not None}
    return [
        replace(file, size=index.transport.length(file.url)) if file.size is None else file
        for file in sorted(named.values(), key=lambda file: (file.name.endswith(".whl"), file.name))
    ]


def _version_of(file: str, project: str) -> Version | None:
    """The version in the name of an sdist or wheel of that project."""
    try:
        if file.endswith(".whl"):
            name, version, _, _ = parse_wheel_filename(file)
            return version if name == canonicalize_name(project) else None
        found = _SDIST.fullmatch(file)
        if found is None or canonicalize_name(found["name"]) != canonicalize_name(project):
            return None
        return Version(found["version"])
    except (InvalidVersion, InvalidWheelFilename):
        return None


def _sources(
    files: Iterable[IndexFile], platform: str, python: str | None
) -> dict[SourceKind, IndexFile]:
    usable = [file for file in files if file.sha256 is not None]
    sdists = sorted(
        (file for file in usable if not file.name.endswith(".whl")),
        key=lambda file: (not file.name.endswith(".tar.gz"), file.name),
    )
    wheels = sorted(
        (rank, file.name, file)
        for file in usable
        if file.name.endswith(".whl") and (rank := _rank(file.name, platform, python)) is not None
    )
    found = {}
    if sdists:
        found[SourceKind.SDIST] = sdists[0]
    if wheels:
        found[SourceKind.WHEEL] = wheels[0][2]
    return found


def _rank(file: str, platform: str, python: str | None) -> tuple[int, int, tuple[int, ...]] | None:
    """How well a wheel serves to read sources from, smaller is better; None for not at all."""
    tags = parse_wheel_filename(file)[3]
    best = None
    for tag in tags:
        if tag.platform == "any":
            place = 0
        elif "linux" in tag.platform and tag.platform.endswith(_MACHINES.get(platform, "?")):
            place = 1
        elif "linux" in tag.platform and tag.platform.endswith("x86_64"):
            place = 2
        else:
            continue  # other machines' wheels may lack what only Linux has
        free = tag.abi in ("none", "abi3")
        wanted = free or python is None or tag.interpreter == f"cp{python.replace('.', '')}"
        digits = re.sub(r"\D", "", tag.interpreter)
        newest = (-int(digits[:1] or 0), -int(digits[1:] or 0))
        rank = (place, 0 if wanted else 1, (0 if free else 1, *newest))
        best = rank if best is None or rank < best else best
    return best
