"""`stackpatch build` for a release that is its commit: no wheel of it is on the index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.cli import output
from stackpatch.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.artefacts.base import OpenRemote
    from stackpatch.artefacts.locked import Locked
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
    locked: Locked | None = None,
    save_lock: bool = False,
) -> None:
    """Plan it and, but for a dry run, do it. base: as a person named it, None for the recipe's.

    locked: the lock that the build is held to. save_lock: keep the result's beside the recipe.
    """
    from dataclasses import replace

    from stackpatch.artefacts.base import open_base
    from stackpatch.artefacts.plan import Engine
    from stackpatch.artefacts.tree_plan import plan_tree
    from stackpatch.artefacts.tree_source import pinned_dockerfile
    from stackpatch.cli.locks import check_result, differing, keep_lock, same_or_differs

    plan = plan_tree(work.recipe, work.release, arch, work.series, engine=engine)
    settings = None
    if plan.engine is Engine.OVERLAY:
        options.refuse()
    else:
        settings = options.settings(plan.engine, work.recipe.stack, work.collection.root)
        told = pinned_dockerfile(settings.dockerfile, settings.args, arch, settings.cuda)
        plan = replace(plan, told={**told, "network": settings.network})
    opened = None
    if locked is not None and plan.json()["base"] == locked.inputs["base"]:
        base = None  # it was the recipe's own
    if base is not None:
        opened = open_base(base, arch, site=site, recorded=work.release.bases, remote=remote)
        plan = replace(plan, base=opened.pinned, evidence=opened.evidence)
    elif not dry_run and plan.base is not None:
        # The recipe's image stays what the plan calls it: one index, one platform, one manifest.
        named = f"{plan.base.name}@{plan.base.digest}"
        opened = open_base(named, arch, site=site, recorded=work.release.bases, remote=remote)
    if locked is not None:
        differing(locked, plan.json(), json=json)
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
    lines, failure = _text(result, state), None
    if save_lock:
        kept = keep_lock(work, result.folder)
        document["saved_lock"] = str(kept)
        lines.append(f"lock     {kept}")
    if locked is not None:
        changed, failure = check_result(locked, result.folder, reused=result.reused)
        document |= {"from_lock": locked.where, "differences": changed}
        lines += same_or_differs(locked, changed)
    output.emit("build", document, lines, json=json, failure=failure)


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
