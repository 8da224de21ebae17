"""`Effect:` lines that do not tell the patch from its absence, for `lint`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.errors import InputError, StackpatchError
from stackpatch.model.lint import Remark

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stackpatch.model.collection import Collection
    from stackpatch.model.recipe import Recipe, Release
    from stackpatch.model.series import Series
    from stackpatch.sources.objects import Objects


def wrong_effects(collection: Collection, stacks: Iterable[str]) -> list[Remark]:
    """Effects that hold before their patch is applied, or not afterwards.

    Only for releases that the source store has: lint uses no network. A series that does not
    apply, or a recipe that cannot be read, is told elsewhere.
    """
    found: list[Remark] = []
    for stack in tuple(stacks) or collection.stacks():
        try:
            recipe = collection.recipe(stack)
        except StackpatchError:
            continue
        for release in recipe.releases:
            found += _of_release(collection, recipe, release)
    return sorted(dict.fromkeys(found))


def _of_release(collection: Collection, recipe: Recipe, release: Release) -> Iterator[Remark]:
    from stackpatch.storage import cache_root

    folder = collection.series_dir(recipe.stack, release)
    if folder is None or not (cache_root() / "sources" / f"{recipe.stack}.git").exists():
        return
    try:
        series = collection.series(recipe.stack, release)
    except (StackpatchError, OSError):
        return
    if not any(patch.trailers.effects for patch in series.patches):
        return
    from stackpatch.sources.store import SourceStore

    store = SourceStore(recipe.stack)
    stored = store.find(release.source, release.version)
    if stored is not None:
        where = collection.shown(folder)
        yield from _of_series(store.objects.scratch(), stored.tree, series, where)


def _of_series(objects: Objects, tree: str, series: Series, where: str) -> Iterator[Remark]:
    from stackpatch.series.apply import apply_patch
    from stackpatch.series.effects import judge

    for patch in series.patches:
        applied = apply_patch(objects, tree, patch)
        if not applied.applied:
            return
        for effect in patch.trailers.effects:
            line = _line(patch.raw, str(effect))
            place = f"{where}/{patch.name}"
            try:
                before = judge(objects, tree, effect)
                after = judge(objects, applied.tree, effect)
            except InputError as error:
                yield Remark(place, line, error.message)
                continue
            if before.holds is True:
                says = f"Effect: holds before the patch is applied, so it tells nothing: {effect}"
                yield Remark(place, line, says)
            elif after.holds is not True:
                yield Remark(place, line, f"Effect: does not hold with the patch: {after.says}")
        tree = applied.tree


def _line(raw: bytes, effect: str) -> int:
    """The line of the mail that the effect stands at."""
    wanted = effect.encode("utf-8", "surrogateescape")
    lines = raw.split(b"\n")
    exact = (
        number
        for number, line in enumerate(lines, 1)
        if line.startswith(b"Effect:") and line.partition(b":")[2].strip() == wanted
    )
    any_ = (number for number, line in enumerate(lines, 1) if line.startswith(b"Effect:"))
    return next(exact, next(any_, 1))
