"""A pinned release, built: its wheel and sources brought, the series applied, the plan done."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stackpatch.artefacts.base import Base, open_base
from stackpatch.artefacts.build import BuildResult, Prepared, build
from stackpatch.artefacts.plan import Plan, make_plan
from stackpatch.model.reference import SourceKind, VersionRef

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stackpatch.artefacts.base import OpenRemote
    from stackpatch.artefacts.external import External
    from stackpatch.artefacts.lock import PinnedStack
    from stackpatch.artefacts.plan import Companion
    from stackpatch.model.arch import Arch
    from stackpatch.model.collection import Collection
    from stackpatch.model.recipe import Recipe, Release
    from stackpatch.model.series import Series

    Report = Callable[[str, int, int | None], None]


def plan_release(
    recipe: Recipe,
    release: Release,
    arch: Arch,
    series: Series,
    *,
    engine: str = "auto",
    base: str = "scratch",
    site: str | None = None,
    remote: OpenRemote | None = None,
    collection: Collection | None = None,
    external: External | None = None,
) -> tuple[Plan, Base]:
    """Decide a build and find its base; no layer is fetched and nothing written.

    base, site, remote: as `open_base` takes them. collection: where the recipes of the stacks
    are that this one stands on; without it they are left out. external: the engine for the image
    where it is not the built-in one. Raises InputError, and what `remote` raises.
    """
    opened = open_base(base, arch, site=site, recorded=release.bases, remote=remote)
    companions: tuple[Companion, ...] = ()
    requires: tuple[PinnedStack, ...] = ()
    if collection is not None and release.requires:
        from stackpatch.artefacts.stacked import plan_companions

        companions, requires = plan_companions(
            collection, release, arch, base=base, remote=remote, above=(recipe.stack,)
        )
    plan = make_plan(
        recipe,
        release,
        arch,
        series,
        engine=engine,
        base=opened.pinned,
        companions=companions,
        requires=requires,
        external=external,
    )
    return plan, opened


def build_release(
    recipe: Recipe,
    release: Release,
    arch: Arch,
    plan: Plan,
    base: Base,
    *,
    out: Path,
    offline: bool = False,
    report: Report | None = None,
    caches: Sequence[Mapping[str, Any]] = (),
) -> BuildResult:
    """Carry out a plan of `plan_release`. A result that is there costs no look at the sources.

    The series goes onto the release as the source store has it; that those files are also the
    wheel's is compared file by file, by the wheel's own hashes. report: called with a label,
    bytes done, bytes in all. Raises FindingError with every failure when the series does not
    apply, and what fetching raises.
    """

    def prepare() -> Prepared:
        one = prepare_release(recipe, release, arch, plan, offline=offline, report=report)
        companions = tuple(
            prepare_release(c.recipe, c.release, arch, c.plan, offline=offline, report=report)
            for c in plan.companions
        )
        return replace(one, companions=companions)

    return build(plan, base, prepare, out=out, caches=caches, report=report)


def prepare_release(
    recipe: Recipe,
    release: Release,
    arch: Arch,
    plan: Plan,
    *,
    offline: bool = False,
    report: Report | None = None,
) -> Prepared:
    """The released wheel and what the series changes in it: from git, the index or the cache.

    Raises FindingError with every failure when the series does not apply, and what fetching
    raises.
    """
    # Only here: a build that is found again reads neither git nor the network.
    from stackpatch.artefacts.rawzip import RawZip
    from stackpatch.artefacts.shipped import shipped_changes
    from stackpatch.series.apply import apply_series
    from stackpatch.series.failures import not_applied
    from stackpatch.sources.fetch import artefact, bring
    from stackpatch.sources.store import SourceStore

    store = SourceStore(recipe.stack)
    wheel = artefact(
        recipe, release, SourceKind.WHEEL, arch.platform, offline=offline, report=report
    )
    reference = VersionRef(release.source, release.version)
    stored = bring(recipe, reference, store=store, offline=offline, report=report)
    objects = store.objects.scratch()
    patches, among = plan.patches, plan.series
    result = apply_series(objects, stored.tree, patches, parent=stored.commit, among=among)
    if not result.applied:
        raise not_applied(plan.inputs.series or recipe.stack, stored.label, result)
    with RawZip(wheel) as source:
        held = frozenset(source.members)
    changes = shipped_changes(objects, stored.tree, result.changes, plan.layout, held)
    return Prepared(wheel, changes)
