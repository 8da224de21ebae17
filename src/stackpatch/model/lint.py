"""Everything that is wrong with recipes, series and patch headers, and how they fit together.

Never stops at the first fault: a broken recipe does not hide what is wrong with its series, nor
one patch another's.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stackpatch.errors import EnvironmentProblem, InputError, Problems
from stackpatch.model import nearest
from stackpatch.model.collection import SUFFIX, Collection
from stackpatch.model.recipe_file import check_recipe
from stackpatch.model.series import load_series
from stackpatch.model.yamlfile import field_name, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from stackpatch.model.patch import Patch
    from stackpatch.model.recipe import Recipe, Release
    from stackpatch.model.yamlfile import Path as FieldPath

_PLACE = re.compile(r"(?P<path>.*?):(?P<line>\d+): (?P<text>.*)", re.DOTALL)
_PATCH_SUFFIXES = (".patch", ".diff", ".mbox", ".eml")


@dataclass(frozen=True, slots=True, order=True)
class Remark:
    """One thing to say. path: as messages name the file. line: 1-based. text: `field: what`."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


@dataclass(slots=True)
class Report:
    """What lint found, and how much it read."""

    problems: list[Remark] = field(default_factory=list)
    warnings: list[Remark] = field(default_factory=list)
    recipes: int = 0
    series: int = 0
    patches: int = 0


def lint(
    collection: Collection,
    stacks: Iterable[str] = (),
    *,
    known_caches: frozenset[str] | None = None,
) -> Report:
    """Check these stacks, by default all of them and what lies around them.

    known_caches: names that a recipe's `caches` may hold; None: they are not checked.
    Raises InputError when there is no recipes/ folder or no such stack.
    """
    report = Report()
    wanted = tuple(stacks)
    known = collection.stacks()
    recipes: dict[str, Recipe | None] = {}
    for stack in wanted or known:
        recipes[stack] = _recipe(collection, stack, report)
    for stack, recipe in recipes.items():
        _series_folders(collection, stack, recipe, report)
        if recipe is not None:
            _across(collection, recipe, known_caches, report)
    if not wanted:
        _around(collection, known, report)
    report.problems = sorted(dict.fromkeys(report.problems))
    report.warnings = sorted(dict.fromkeys(report.warnings))
    return report


def _recipe(collection: Collection, stack: str, report: Report) -> Recipe | None:
    where = collection.shown(collection.recipe_path(stack))
    report.recipes += 1
    try:
        raw = collection.read_recipe(stack)
    except (InputError, EnvironmentProblem) as error:
        report.problems.append(Remark(where, 1, error.message))
        return None
    recipe, faults = check_recipe(raw, name=stack)
    for fault in faults:
        name = f"{field_name(fault.path)}: " if fault.path else ""
        report.problems.append(Remark(where, fault.line, name + fault.text))
    return recipe


def _series_folders(
    collection: Collection, stack: str, recipe: Recipe | None, report: Report
) -> None:
    """Every series folder of the stack, whether a release names it or not."""
    releases: dict[str, list[Release]] = {}
    for release in recipe.releases if recipe is not None else ():
        if release.series is not None:
            releases.setdefault(release.series, []).append(release)
    for entry in _entries(collection, collection.patches / stack, report):
        where = collection.shown(entry)
        if not entry.is_dir():
            if entry.name.endswith(_PATCH_SUFFIXES) or entry.name == "series":
                text = "lies outside a series folder (patches/STACK/SERIES/); nothing reads it"
                report.problems.append(Remark(where, 1, text))
            continue
        _series(entry, where, releases.get(entry.name, []), recipe, report)
        if recipe is not None and entry.name not in releases:
            text = f"no release of {stack} has this series; nothing reads it"
            report.problems.append(Remark(f"{where}/series", 1, text))


def _series(
    folder: Path, where: str, releases: list[Release], recipe: Recipe | None, report: Report
) -> None:
    report.series += 1
    try:
        series = load_series(folder, where=where)
    except Problems as error:
        report.problems += [_remark(text, where) for text in error.problems]
        return
    except (InputError, EnvironmentProblem) as error:
        report.problems.append(Remark(f"{where}/series", 1, error.message))
        return
    except OSError as error:
        report.problems.append(Remark(f"{where}/series", 1, f"cannot be read: {error.strerror}"))
        return
    report.patches += len(series.patches)
    if not series.patches:
        report.warnings.append(Remark(f"{where}/series", 1, "the series has no patch"))
    for patch in series.patches:
        place = f"{where}/{patch.name}"
        report.problems += [
            Remark(place, _line(patch, text), text) for text in _fit(patch, releases, recipe)
        ]
        report.warnings += [Remark(place, 1, text) for text in _unsaid(patch)]


def _fit(patch: Patch, releases: list[Release], recipe: Recipe | None) -> Iterator[str]:
    """Where a patch's claims contradict the recipe."""
    trailers = patch.trailers
    if trailers.applies_to is not None:
        for release in releases:
            if trailers.meant_for(release.version) is False:
                yield (
                    f"Applies-To: {trailers.applies_to} leaves out {release.version}, "
                    "the release that this series is for"
                )
    if recipe is not None and trailers.archs is not None:
        foreign = [arch for arch in trailers.archs if arch not in recipe.archs]
        if foreign:
            have = ", ".join(recipe.archs)
            yield f"Arch: the recipe has no {' and no '.join(foreign)} (it has {have})"


def _line(patch: Patch, text: str) -> int:
    """The line of the mail with the trailer that the text begins with."""
    trailer = text.partition(" ")[0].encode()
    lines = patch.raw.split(b"\n")
    return next((number for number, line in enumerate(lines, 1) if line.startswith(trailer)), 1)


def _unsaid(patch: Patch) -> Iterator[str]:
    """What a patch should say of itself and does not."""
    if patch.trailers.status is None:
        yield "Upstream-Status: missing; has upstream seen it?"
    if not patch.trailers.effects:
        yield "Effect: missing; without one, `upstream` can only compare texts"


def _across(
    collection: Collection, recipe: Recipe, known_caches: frozenset[str] | None, report: Report
) -> None:
    """What the recipe says of other files."""
    path = collection.recipe_path(recipe.stack)
    where = collection.shown(path)
    document = parse(collection.read_recipe(recipe.stack))

    def problem(place: FieldPath, text: str) -> None:
        remark = Remark(where, document.line(place), f"{field_name(place)}: {text}")
        report.problems.append(remark)

    for index, release in enumerate(recipe.releases):
        folder = collection.series_dir(recipe.stack, release)
        if folder is not None and not folder.is_dir():
            there = collection.patches / recipe.stack
            names = sorted(p.name for p in there.iterdir()) if there.is_dir() else []
            text = f"no folder {collection.shown(folder)}; {nearest.hint(folder.name, names)}"
            problem(("releases", index, "series"), text)
        for other, version in release.requires.items():
            fault = _requirement_fault(collection, other, version)
            if fault is not None:
                problem(("releases", index, "requires", other), fault)
    programs = collection.recipes / recipe.stack / "smoke"
    for index, check in enumerate(recipe.smoke):
        if check.program is not None and not (programs / check.program).is_file():
            others = sorted(p.name for p in programs.glob("[!_]*")) if programs.is_dir() else []
            text = f"no file {collection.shown(programs / check.program)}"
            problem(("smoke", index, "program"), f"{text}; {nearest.hint(check.program, others)}")
    for index, name in enumerate(recipe.caches):
        if known_caches is not None and name not in known_caches:
            text = f"unknown cache {name!r}; {nearest.hint(name, sorted(known_caches))}"
            problem(("caches", index), text)


def _requirement_fault(collection: Collection, stack: str, version: str) -> str | None:
    known = collection.stacks()
    if stack not in known:
        return f"no recipe for {stack!r}; {nearest.hint(stack, known)}"
    try:
        other, _ = check_recipe(collection.read_recipe(stack), name=stack)
    except (InputError, EnvironmentProblem):
        return None  # told where that recipe is checked
    if other is None or any(release.version == version for release in other.releases):
        return None
    versions = [release.version for release in other.releases]
    return f"{stack} has no pinned release {version!r}; {nearest.hint(version, versions)}"


def _around(collection: Collection, known: tuple[str, ...], report: Report) -> None:
    """What lies in the two folders and would be overlooked."""
    if not known:
        where = collection.shown(collection.recipes)
        report.problems.append(Remark(where, 1, f"holds no recipe (STACK{SUFFIX})"))
    for entry in _entries(collection, collection.recipes, report):
        if entry.suffix.lower() in (".yml", ".yaml") and entry.suffix != SUFFIX:
            text = f"recipes end in {SUFFIX}; nothing reads this file"
            report.problems.append(Remark(collection.shown(entry), 1, text))
    for entry in _entries(collection, collection.patches, report):
        if entry.is_dir() and entry.name not in known:
            text = f"patches of a stack without a recipe; {nearest.hint(entry.name, known)}"
            report.problems.append(Remark(collection.shown(entry), 1, text))
        elif entry.name.endswith(_PATCH_SUFFIXES):
            text = "lies outside a series folder (patches/STACK/SERIES/); nothing reads it"
            report.problems.append(Remark(collection.shown(entry), 1, text))


def _entries(collection: Collection, folder: Path, report: Report) -> list[Path]:
    """What a folder holds, sorted, without hidden files; nothing where there is no folder."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names first, in any encoding
    except FileNotFoundError:
        return []
    except OSError as error:
        where = collection.shown(folder)
        report.problems.append(Remark(where, 1, f"cannot be read: {error.strerror}"))
        return []
    return [folder / name for name in names if not name.startswith(".")]


def _remark(text: str, where: str) -> Remark:
    """A Remark from a `file:line: what` line."""
    found = _PLACE.fullmatch(text)
    if found is None:
        return Remark(where, 1, text)
    return Remark(found["path"], int(found["line"]), found["text"])
