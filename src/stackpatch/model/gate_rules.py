"""What the `gates` of a recipe must say together, checked on the file's plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackpatch.model import nearest
from stackpatch.model.arch import ARCHES
from stackpatch.model.recipe_gates import GROUPS
from stackpatch.model.trailers import compile_pattern

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackpatch.model.yamlfile import Path


def check_gates(recipe: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Every contradiction inside `gates`, and with the releases that it names."""
    gates = recipe.get("gates")
    if not isinstance(gates, dict):
        return
    kernels = gates.get("kernels")
    kernels = kernels if isinstance(kernels, dict) else {}
    known = [name for name in kernels if isinstance(name, str)]
    releases = [release for _, release in _mappings(recipe.get("releases"), ())]
    names: set[str] = set()
    for path, rule in _mappings(gates.get("rules"), ("gates", "rules")):
        yield from _rule(path, rule, known)
        name = rule.get("name")
        if isinstance(name, str) and name in names:
            yield (*path, "name"), f"{name!r} is another rule's name already"
        if isinstance(name, str):
            names.add(name)
    for name in known:
        yield from _kernels(("gates", "kernels", name), kernels[name], releases)
    folders = [r["series"] for r in releases if isinstance(r.get("series"), str)]
    for path, entry in _mappings(gates.get("shipped"), ("gates", "shipped")):
        named = entry.get("series")
        for index, series in enumerate(named if isinstance(named, list) else ()):
            if isinstance(series, str) and series not in folders:
                text = f"no release has the series {series!r}; {nearest.hint(series, folders)}"
                yield (*path, "series", index), text


def _mappings(value: object, path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict):
                yield (*path, index), item


def _rule(path: Path, rule: dict[str, Any], kernels: list[str]) -> Iterator[tuple[Path, str]]:
    behind, pattern = rule.get("behind"), rule.get("pattern")
    if isinstance(behind, str) and behind not in kernels:
        yield (*path, "behind"), f"no kernels {behind!r}; {nearest.hint(behind, kernels)}"
    if not isinstance(pattern, str):
        return
    try:
        groups = set(compile_pattern(pattern).groupindex)
    except ValueError:
        return  # told by the type
    if foreign := sorted(groups - set(GROUPS)):
        text = f"unknown group {foreign[0]!r}; {nearest.hint(foreign[0], GROUPS)}"
        yield (*path, "pattern"), text
    if not groups and not rule.get("majors"):
        text = f"says nothing about what it admits: want a group ({', '.join(GROUPS)}) or `majors`"
        yield (*path, "pattern"), text
    if groups & set(GROUPS) and rule.get("majors"):
        text = "the pattern's groups say what is admitted; two answers are one too many"
        yield (*path, "majors"), text


def _kernels(
    path: Path, entry: object, releases: list[dict[str, Any]]
) -> Iterator[tuple[Path, str]]:
    if not isinstance(entry, dict):
        return
    kind = entry.get("kind")
    for field, wanted in (("measured", "binaries"), ("compiled", "jit")):
        found = list(_mappings(entry.get(field), (*path, field)))
        if found and kind in ("binaries", "jit", "unknown") and kind != wanted:
            yield (*path, field), f"belongs to kernels of the kind {wanted}, and these are {kind}"
        versions = [r["version"] for r in releases if isinstance(r.get("version"), str)]
        for place, one in found:
            release, arch = one.get("release"), one.get("arch")
            if isinstance(release, str) and release not in versions:
                text = f"no release {release!r} in this recipe; {nearest.hint(release, versions)}"
                yield (*place, "release"), text
            if isinstance(arch, str) and arch not in ARCHES:
                yield (*place, "arch"), f"unknown arch; {nearest.hint(arch, ARCHES)}"
            codes = one.get("codes")
            for code, count in codes.items() if isinstance(codes, dict) else ():
                if isinstance(count, int) and count < 1:
                    yield (*place, "codes", code), f"{count} files; leave out what is not there"
