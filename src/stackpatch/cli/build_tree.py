"""`stackpatch build` for a release that is its commit: no wheel of it is on the index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.cli import output
from stackpatch.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.artefacts.base import OpenRemote
    from stackpatch.artefacts.tree_build import TreeResult
    from stackpatch.cli.engines import EngineOptions
    from stackpatch.cli.workspace import Workspace
    from stackpatch.model.arch import Arch


def run(
    work: Workspace,
    arch: Arch,
    *,
    engine: str,
    base: str | None,
    site: str | None,
    remote: OpenRemote,
    out: Path,
    dry_run: bool,
    offline: bool,
    json: bool,
    options: EngineOptions,
) -> None:
    """Plan it and, but for a dry run, do it. base: as a person named it, None for the recipe's."""
    from dataclasses import replace

    from stackpatch.artefacts.base import open_base
    from stackpatch.artefacts.plan import Engine
    from stackpatch.artefacts.tree_plan import plan_tree
    from stackpatch.artefacts.tree_source import pinned_dockerfile

    plan = plan_tree(work.recipe, work.release, arch, work.series, engine=engine)
    settings = None
    if plan.engine is Engine.OVERLAY:
        options.refuse()
    else:
        settings = options.settings(plan.engine, work.recipe.stack, work.collection.root)
        told = pinned_dockerfile(settings.dockerfile, settings.args, arch, settings.cuda)
        plan = replace(plan, told={**told, "network": settings.network})
    opened = None
    if base is not None:
        opened = open_base(base, arch, site=site, recorded=work.release.bases, remote=remote)
        plan = replace(plan, base=opened.pinned, evidence=opened.evidence)
    elif not dry_run and plan.base is not None:
        # The recipe's image stays what the plan calls it: one index, one platform, one manifest.
        named = f"{plan.base.name}@{plan.base.digest}"
        opened = open_base(named, arch, site=site, recorded=work.release.bases, remote=remote)
    if dry_run:
        document = {
            "plan": plan.json(),
            "key": plan.key,
            "folder": str(out / plan.folder),
            "open": list(plan.open),
        }
        output.emit("build-plan", document, plan.lines(), json=json)
        return
    if opened is None:
        msg = f"{work.recipe.stack} {work.release.version}: {plan.open[0]}"
        raise InputError(msg, hint="the recipe knows no image of this release for the platform")
    from stackpatch.artefacts.tree_build import build_tree
    from stackpatch.checks.proof import how_far, known
    from stackpatch.cli.progress import reporting

    with reporting() as report:
        result = build_tree(
            plan, opened, out=out, offline=offline, report=report, settings=settings
        )
    digest = work.series.for_arch(arch.name).digest
    stack, version = work.recipe.stack, work.release.version
    state = how_far(known(work.collection.recipes, stack, version, arch.name, digest))
    document = {**result.json(), "verified": state}
    output.emit("build", document, _text(result, state), json=json)


def _text(result: TreeResult, state: str) -> list[str]:
    document = result.json()
    return [
        *result.plan.lines(),
        "",
        "reused   nothing changed, so nothing was done" if result.reused else "built",
        f"image    {document['image']['path']}  (OCI layout)",
        f"         {document['image']['digest']}",
        f"papers   {document['lock']}",
        *(f"note     {note}" for note in result.notes),
        f"state    on {result.plan.arch.name}: {state} (docs/proven.md)",
    ]
