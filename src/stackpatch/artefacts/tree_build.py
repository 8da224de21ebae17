"""A build of a release that is its commit: planned on its base, and carried out or found again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stackpatch.artefacts.base import open_base
from stackpatch.artefacts.build import BuildResult, find_or_make
from stackpatch.artefacts.plan import Engine
from stackpatch.artefacts.tree_plan import (
    TreePlan,
    choose_tree_engine,
    plan_tree,
    recorded_base,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stackpatch.artefacts.base import Base, OpenRemote
    from stackpatch.artefacts.lock import Outputs, PinnedStack
    from stackpatch.artefacts.plan import Companion
    from stackpatch.artefacts.tree_source import Source
    from stackpatch.model.arch import Arch
    from stackpatch.model.collection import Collection
    from stackpatch.model.recipe import Recipe, Release
    from stackpatch.model.series import Series

    Report = Callable[[str, int, int | None], None]


def plan_tree_release(
    recipe: Recipe,
    release: Release,
    arch: Arch,
    series: Series,
    *,
    engine: str = "auto",
    base: str | None = None,
    site: str | None = None,
    remote: OpenRemote | None = None,
    collection: Collection | None = None,
    source: Source | None = None,
    look: bool = True,
) -> tuple[TreePlan, Base | None]:
    """Decide a build and find its base; no layer is fetched and nothing written.

    base: as a person named it, None for the recipe's image of the release, which only an overlay
    takes by itself. The rest as `plan_release` and `plan_tree` take it. look: False opens no base
    that the recipe pins, so that the plan costs no network. The base is None where it is not
    known, or was not opened. Raises InputError, and what `remote` raises.
    """
    chosen, _ = choose_tree_engine(recipe, arch, series, engine)
    known, evidence = recorded_base(release, arch)
    if base is None and (chosen is not Engine.OVERLAY or known is None):
        pinned, evidence, named = None, None, None
    else:
        pinned, named = known, base
        if named is None and known is not None:
            named = f"{known.name}@{known.digest}"
    opened = None
    if named is not None and (look or base is not None):
        opened = open_base(named, arch, site=site, recorded=release.bases, remote=remote)
        if base is None and known is not None:
            opened = replace(opened, pinned=replace(opened.pinned, name=known.name))
        pinned, evidence = opened.pinned, opened.evidence
        if known is not None and pinned.recorded and known.digest in (pinned.digest, pinned.index):
            # By whichever digest it was named; its own name stays, the image is told of it.
            pinned = replace(known, name=pinned.name)
    under = named if opened is not None or remote is not None else None
    companions, requires = _stood_on(collection, recipe, release, arch, under, remote)
    plan = plan_tree(
        recipe,
        release,
        arch,
        series,
        engine=engine,
        base=pinned,
        evidence=evidence,
        companions=companions,
        requires=requires,
        source=source,
    )
    return plan, opened


def _stood_on(
    collection: Collection | None,
    recipe: Recipe,
    release: Release,
    arch: Arch,
    base: str | None,
    remote: OpenRemote | None,
) -> tuple[tuple[Companion, ...], tuple[PinnedStack, ...]]:
    """The companions and what is required; the base is opened only where there is a companion."""
    if collection is None or not release.requires:
        return (), ()
    from stackpatch.artefacts.stacked import plan_companions

    above = (recipe.stack,)
    found = plan_companions(collection, release, arch, base="scratch", remote=None, above=above)
    if not found[0] or base is None:
        return found
    return plan_companions(collection, release, arch, base=base, remote=remote, above=above)


def build_tree(
    recipe: Recipe,
    arch: Arch,
    plan: TreePlan,
    base: Base,
    *,
    out: Path,
    offline: bool = False,
    report: Report | None = None,
    caches: Sequence[Mapping[str, Any]] = (),
    wait: float = 600.0,
) -> BuildResult:
    """Carry out a plan of `plan_tree_release` on its base, or find the result that is there.

    Raises FindingError with every failure when the series does not apply, InputError when the
    base has another version or other files than the released ones, what fetching raises, and what
    the engine does.
    """

    def fill(folder: Path) -> Outputs:
        # Only here: a build that is found again needs none of what makes one.
        from stackpatch.artefacts.tree_making import make_tree

        return make_tree(recipe, arch, plan, base, folder, offline=offline, report=report)

    return find_or_make(plan, fill, out=out, caches=caches, wait=wait)
