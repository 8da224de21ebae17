"""`Effect:` lines that do not tell the patch from its absence, for `lint`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch.errors import InputError, StackpatchError
from stackpatch.model.lint import Remark

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stackpatch.model.collection import Collection
    from stackpatch.model.recipe import Recipe, Release
    from stackpatch.model.series import Series
    from stackpatch.sources.objects import Objects


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of trying effects. untried: `STACK VERSION` of what the store does not have."""

    wrong: tuple[Remark, ...]
    untried: tuple[str, ...]


def try_effects(collection: Collection, stacks: Iterable[str]) -> Tried:
    """Effects that hold before their patch is applied, or not afterwards.

    Only for releases that the source store has: lint uses no network. A series that does not
    apply, or a recipe that cannot be read, is told elsewhere.
    """
    found: list[Remark] = []
    untried: list[str] = []
    for stack in tuple(stacks) or collection.stacks():
        try:
            recipe = collection.recipe(stack)
        except StackpatchError:
            continue
        for release in recipe.releases:
            remarks = _of_release(collection, recipe, release)
            if remarks is None:
                untried.append(f"{stack} {release.version}")
            else:
                found += remarks
    return Tried(tuple(sorted(dict.fromkeys(found))), tuple(untried))


def _of_release(
    collection: Collection, recipe: Recipe, release: Release
) -> Iterable[Remark] | None:
    """None when the release would have to be in the store for an answer."""
    from stackpatch.storage import cache_root

    folder = collection.series_dir(recipe.stack, release)
    try:
        series = collection.series(recipe.stack, release)
    except (StackpatchError, OSError):
        return ()
    if folder is None or not any(patch.trailers.effects for patch in series.patches):
        return ()
    if not (cache_root() / "sources" / f"{recipe.stack}.git").exists():
        return None
    from stackpatch.sources.store import SourceStore

    store = SourceStore(recipe.stack)
    stored = store.find(release.source, release.version)
    if stored is None:
        return None
    return _of_series(store.objects.scratch(), stored.tree, series, collection.shown(folder))


def _of_series(objects: Objects, origin: str, series: Series, where: str) -> Iterator[Remark]:
    from stackpatch.series.apply import apply_patch
    from stackpatch.series.effects import judge

    tree = origin
    for patch in series.patches:
        applied = apply_patch(objects, tree, patch)
        if not applied.applied:
            return
        for effect in patch.trailers.effects:
            place = f"{where}/{patch.name}"
            try:
                before = judge(objects, tree, effect, origin)
                after = judge(objects, applied.tree, effect, origin)
            except InputError as error:
                yield Remark(place, effect.line, error.message)
                continue
            if before.holds is True:
                says = f"Effect: holds before the patch is applied, so it tells nothing: {effect}"
                yield Remark(place, effect.line, says)
            elif after.holds is not True:
                yield Remark(
                    place, effect.line, f"Effect: does not hold with the patch: {after.says}"
                )
        tree = applied.tree
