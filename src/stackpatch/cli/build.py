"""`stackpatch build`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stackpatch.cli import output
from stackpatch.cli.context import JsonOption, RootOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackpatch.artefacts.base import OpenRemote
    from stackpatch.artefacts.build import BuildResult
    from stackpatch.artefacts.images import RemoteImage
    from stackpatch.artefacts.plan import Plan
    from stackpatch.cli.gate_memo import Told
    from stackpatch.cli.progress import Report
    from stackpatch.cli.workspace import Workspace
    from stackpatch.installed.advice import Advice
    from stackpatch.model.arch import Arch


def command(
    stack: Annotated[str, typer.Argument(metavar="STACK[@RELEASE]", help="flashinfer@0.6.3")],
    *,
    arch: Annotated[str, typer.Option("--arch", metavar="ARCH", help="sm120, sm121, …")],
    engine: Annotated[
        str, typer.Option("--engine", metavar="ENGINE", help="auto or overlay.")
    ] = "auto",
    base: Annotated[
        str,
        typer.Option(
            "--base",
            metavar="REF",
            help="Base image: `scratch`, an image in a registry by digest or tag, or the folder "
            "of an OCI layout, FOLDER@sha256:… for one of many.",
        ),
    ] = "scratch",
    site: Annotated[
        str | None,
        typer.Option(
            "--site",
            metavar="PATH",
            help="Folder of the base image that holds the package, where it is not found.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where results go.")] = Path(
        "dist"
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan; fetch and write nothing.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Use no network.")] = False,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Build the patched wheel, the image layout and their lock."""
    from stackpatch.artefacts.release import build_release, plan_release
    from stackpatch.cli.progress import reporting
    from stackpatch.cli.workspace import open_workspace
    from stackpatch.installed.advice import for_build
    from stackpatch.model.arch import parse_arch

    work = open_workspace(stack, root, offline=offline)
    wanted = parse_arch(arch)
    plan, base_image = plan_release(
        work.recipe,
        work.release,
        wanted,
        work.series,
        engine=engine,
        base=base,
        site=site,
        remote=_remote(offline=offline),
    )
    if dry_run:
        document = {"plan": plan.inputs.json(), "key": plan.key, "folder": str(out / plan.folder)}
        output.emit("build-plan", document, [*plan.lines(), *base_image.lines()], json=json)
        return
    advice = for_build(work.recipe.stack, work.release.version, wanted.name)
    with reporting() as report:
        result = build_release(
            work.recipe,
            work.release,
            wanted,
            plan,
            base_image,
            out=out,
            offline=offline,
            report=report,
            caches=[one.document() for one in advice],
        )
        told = _gates(work, wanted, plan, report)
    state = work.recipe.arch(wanted.name).verified.value
    whole: dict[str, object] = {
        **result.json(),
        "verified": state,
        "gates": None if told is None else told.document,
    }
    if told is None:
        gates = ["gates    not looked at: the release's sources are not in the source store"]
    else:
        gates = [f"gate     {line}" for line in told.lines]
    lines = [*_text(result, advice, state), *gates]
    output.emit("build", whole, lines, json=json)


def _remote(*, offline: bool) -> OpenRemote:
    """Opens an image in a registry; imports what speaks with one only when it is called."""

    def remote(text: str) -> RemoteImage:
        from stackpatch.cli.images import opener

        return opener(offline=offline)(text)

    return remote


def _gates(work: Workspace, arch: Arch, plan: Plan, report: Report) -> Told | None:
    """Which gates the series opens, and whether a kernel stands behind them; None: not looked."""
    from stackpatch.cli import gate_memo

    path = gate_memo.place(work, plan.key)
    told = gate_memo.recall(path)
    if told is None:
        from stackpatch.cli.gates import opened_gates

        opened = opened_gates(work, arch, plan.patches, report)
        if opened is None:
            return None
        told = gate_memo.Told([one.json() for one in opened], [one.line() for one in opened])
        gate_memo.keep(path, told)
    return told


def _text(result: BuildResult, advice: Sequence[Advice], state: str) -> list[str]:
    """What was built, what a person must know of it, what to clear where it is installed."""
    document = result.json()
    lines = [
        *result.plan.lines(),
        "",
        "reused   nothing changed, so nothing was done" if result.reused else "built",
        f"wheel    {document['wheel']['path']}",
        f"         sha256 {document['wheel']['sha256']}",
        f"image    {document['image']['path']}  (OCI layout)",
        f"         {document['image']['digest']}",
        f"papers   {document['lock']}",
        f"         {document['sbom']}",
        f"         {document['provenance']}",
    ]
    lines += [f"note     {note}" for note in document["notes"]]
    for one in advice:
        if one.command is not None:
            lines.append(f"clear    {one.cache.name}, where this is installed: {one.command}")
            lines.append(f"         {one.why}")
    if state == "unverified":
        lines.append(f"state    {state}: nobody has run this on {result.plan.inputs.arch}")
    else:
        lines.append(f"state    {state} (see the recipe's notes)")
    return lines
