"""`stackpatch build`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stackpatch.cli import output
from stackpatch.cli.context import JsonOption, OfflineOption, RootOption
from stackpatch.cli.engines import (
    BuildArgOption,
    BuilderOption,
    CacheFromOption,
    CacheToOption,
    CaFileOption,
    CudaOption,
    NetworkOption,
    PipConfigOption,
)
from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackpatch.artefacts.build import BuildResult, Planned
    from stackpatch.cli.gate_memo import Told
    from stackpatch.cli.progress import Report
    from stackpatch.cli.workspace import Workspace
    from stackpatch.installed.advice import Advice
    from stackpatch.model.arch import Arch


def command(
    stack: Annotated[
        str | None,
        typer.Argument(metavar="STACK[@RELEASE]", help="flashinfer@0.6.3", show_default=False),
    ] = None,
    *,
    arch: Annotated[
        str | None,
        typer.Option("--arch", metavar="ARCH", help="sm120, sm121, …", show_default=False),
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", metavar="ENGINE", help="auto, overlay, buildx or buildah.")
    ] = "auto",
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="REF",
            help="Base image: `scratch`, an image in a registry by digest or tag, or the folder "
            "of an OCI layout, FOLDER@sha256:… for one of many [default: scratch]",
            show_default=False,
        ),
    ] = None,
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
    offline: OfflineOption = False,
    from_lock: Annotated[
        Path | None,
        typer.Option(
            "--from-lock",
            metavar="FILE",
            help="Build what this lock describes, or say which input differs.",
            show_default=False,
        ),
    ] = None,
    save_lock: Annotated[
        bool,
        typer.Option("--save-lock", help="Keep the lock in recipes/STACK.lock.json as well."),
    ] = False,
    builder: BuilderOption = None,
    cache_from: CacheFromOption = None,
    cache_to: CacheToOption = None,
    ca_file: CaFileOption = None,
    pip_config: PipConfigOption = None,
    build_arg: BuildArgOption = None,
    cuda: CudaOption = None,
    network: NetworkOption = "none",
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Build the patched wheel, the image layout and their lock."""
    from stackpatch.checks.proof import how_far, known
    from stackpatch.cli.build_job import Asked, plan_job
    from stackpatch.cli.engines import EngineOptions
    from stackpatch.cli.locks import (
        check_result,
        differing,
        keep_lock,
        locked_build,
        same_or_differs,
    )
    from stackpatch.cli.progress import reporting
    from stackpatch.cli.workspace import open_workspace
    from stackpatch.installed.advice import for_build
    from stackpatch.model.arch import parse_arch

    locked = None
    if base is not None and not base.strip():
        msg = "--base is empty"
        raise InputError(msg, hint="`scratch` means nothing; is a variable not set?")
    if from_lock is not None:
        if engine != "auto" or site is not None:
            msg = "--from-lock says the engine and the site; leave --engine and --site out"
            raise InputError(msg)
        locked = locked_build(from_lock, stack=stack, arch=arch, base=base)
        stack, arch, engine = locked.stack, locked.arch, locked.engine
        base, site = base or locked.base, locked.site
    if stack is None or arch is None:
        missing = "STACK" if stack is None else "--arch"
        msg = f"{missing} is missing"
        raise InputError(msg, hint="say what to build: STACK --arch ARCH, or --from-lock FILE")
    work = open_workspace(stack, root, offline=offline)
    wanted = parse_arch(arch)
    options = EngineOptions(
        build_args=build_arg or (),
        cuda=cuda,
        builder=builder,
        cache_from=cache_from or (),
        cache_to=cache_to or (),
        ca_file=ca_file,
        pip_config=pip_config,
        network=network,
    )
    engine_lock = None if locked is None else locked.inputs["engine"]
    asked = Asked(engine, base, site, options, engine_lock, offline, dry_run)
    job = plan_job(work, wanted, asked)
    plan, one = job.plan, job.plan.inputs
    if locked is not None:
        differing(locked, plan.json(), json=json)
    if dry_run:
        document = {
            "plan": plan.json(),
            "key": plan.key,
            "folder": str(out / plan.folder),
            "open": list(job.open),
        }
        output.emit("build-plan", document, [*plan.lines(), *job.base_lines], json=json)
        return
    seen = known(work.collection.recipes, one.stack, one.version, one.arch, one.series_sha256)
    advice = for_build(work.recipe.stack, work.release.version, wanted.name)
    with reporting() as report:
        result = job.run(out, report, [one.document() for one in advice])
        told = _gates(work, wanted, plan, report)
    kept = keep_lock(work, result.folder) if save_lock else None
    state = how_far(seen)
    whole: dict[str, object] = {
        **result.json(),
        "verified": state,
        "proven": {step.value: one.json() for step, one in seen.items()},
        "gates": None if told is None else told.document,
    }
    if told is None:
        gates = ["gates    not looked at: the release's sources are not in the source store"]
    else:
        gates = [f"gate     {line}" for line in told.lines]
    lines = [*_text(result, advice, state), *gates]
    if kept is not None:
        whole["saved_lock"] = str(kept)
        lines.append(f"lock     {kept}")
    failure = None
    if locked is not None:
        changed, failure = check_result(locked, result.folder, reused=result.reused)
        whole |= {"from_lock": locked.where, "differences": changed}
        lines += same_or_differs(locked, changed)
    output.emit("build", whole, lines, json=json, failure=failure)


def _gates(work: Workspace, arch: Arch, plan: Planned, report: Report) -> Told | None:
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
    wheel = document["wheel"]
    lines = [
        *result.plan.lines(),
        "",
        "reused   nothing changed, so nothing was done" if result.reused else "built",
        *(
            ()
            if wheel is None
            else (f"wheel    {wheel['path']}", f"         sha256 {wheel['sha256']}")
        ),
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
    lines.append(f"state    on {result.plan.inputs.arch}: {state} (docs/proven.md)")
    return lines
