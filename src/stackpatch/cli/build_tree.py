"""`stackpatch build` for a release that is its commit: no wheel of it is on the index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.errors import InputError

if TYPE_CHECKING:
    from stackpatch.artefacts.base import Base, OpenRemote
    from stackpatch.artefacts.locked import Locked
    from stackpatch.artefacts.tree_plan import TreePlan
    from stackpatch.cli.engines import EngineOptions
    from stackpatch.cli.workspace import Workspace
    from stackpatch.model.arch import Arch


def planned(
    work: Workspace,
    arch: Arch,
    *,
    engine: str,
    base: str | None,
    site: str | None,
    remote: OpenRemote,
    options: EngineOptions,
    locked: Locked | None,
    dry_run: bool,
) -> tuple[TreePlan, Base | None]:
    """The plan and its base, None where a dry run did not open it.

    base: as a person named it, None for the recipe's. locked: the lock that the build is held to.
    Raises InputError where nothing can be built, and what the engine and the registry raise.
    """
    from stackpatch.artefacts.plan import Engine
    from stackpatch.artefacts.tree_build import plan_tree_release
    from stackpatch.artefacts.tree_plan import choose_tree_engine
    from stackpatch.cli.engines import from_source

    chosen, _ = choose_tree_engine(work.recipe, arch, work.series, engine)
    source = None
    if chosen is Engine.OVERLAY:
        options.refuse()
    else:
        source = from_source(
            chosen,
            options,
            work.recipe,
            root=work.collection.root,
            arch=arch,
            locked=locked.inputs["engine"] if locked is not None else None,
            planning=dry_run,
        )
    plan, opened = plan_tree_release(
        work.recipe,
        work.release,
        arch,
        work.series,
        engine=engine,
        base=base,
        site=site,
        remote=remote,
        collection=work.collection,
        source=source,
        look=not dry_run,
    )
    if opened is None and not dry_run:
        msg = f"{work.recipe.stack} {work.release.version}: {plan.open[0]}"
        raise InputError(msg, hint="the recipe knows no image of this release for the platform")
    return plan, opened
