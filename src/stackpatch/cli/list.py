"""`stackpatch list`: what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackpatch.cli import output
from stackpatch.cli.context import JsonOption, RootOption
from stackpatch.cli.roots import find_root
from stackpatch.errors import Problems, StackpatchError

if TYPE_CHECKING:
    from stackpatch.model.collection import Collection
    from stackpatch.model.recipe import Recipe, Release


def command(*, json: JsonOption = False, root: RootOption = None) -> None:
    """List the stacks, their pinned releases, arches and patches."""
    from stackpatch.model.collection import Collection

    collection = Collection(find_root(root).path)
    stacks: list[dict[str, Any]] = []
    lines: list[str] = []
    problems: list[str] = []
    for name in collection.stacks():
        try:
            recipe = collection.recipe(name)
        except StackpatchError as error:
            problems += _problem_lines(error)
            continue
        counts = {
            release.version: _count(collection, recipe, release, problems)
            for release in recipe.releases
        }
        stacks.append(_document(recipe, counts))
        lines += [*([""] if lines else []), *_text(recipe, counts)]
    failure = None
    if problems:
        count = len(problems)
        msg = f"{count} problem{'s' * (count != 1)} in the recipes and series"
        failure = Problems(msg, tuple(problems), hint="`stackpatch lint` checks all of them")
    output.emit("list", {"stacks": stacks}, lines, json=json, failure=failure)


def _problem_lines(error: StackpatchError) -> tuple[str, ...]:
    if isinstance(error, Problems):
        return error.problems
    return (f"{error.where}: {error.message}" if error.where else error.message,)


def _count(
    collection: Collection, recipe: Recipe, release: Release, problems: list[str]
) -> int | None:
    """How many patches the release gets; None where its series cannot be read."""
    try:
        return len(collection.series(recipe.stack, release).patches)
    except StackpatchError as error:
        problems += _problem_lines(error)
        return None


def _document(recipe: Recipe, counts: dict[str, int | None]) -> dict[str, Any]:
    return {
        "name": recipe.stack,
        "summary": recipe.summary,
        "releases": [
            {
                "version": release.version,
                "tag": release.tag,
                "commit": release.commit,
                "commit_evidence": release.commit_evidence.kind.value,
                "default": release.version == recipe.default,
                "series": release.series,
                "patches": counts[release.version],
            }
            for release in recipe.releases
        ],
        "arches": list(recipe.archs),
    }


def _text(recipe: Recipe, counts: dict[str, int | None]) -> list[str]:
    rows = []
    for release in recipe.releases:
        patches = counts[release.version]
        commit = release.commit[:12] if release.commit else "unknown"
        if release.commit and release.commit_evidence.kind.value != "first-hand":
            commit += f" ({release.commit_evidence.kind})"
        rows.append(
            (
                f"  {release.version}{' *' if release.version == recipe.default else ''}",
                release.tag or "-",
                commit,
                "?" if patches is None else str(patches),
            )
        )
    table = output.table(("  RELEASE", "TAG", "COMMIT", "PATCHES"), rows)
    return [f"{recipe.stack}: {recipe.summary}", f"  arches: {' '.join(recipe.archs)}", *table]
