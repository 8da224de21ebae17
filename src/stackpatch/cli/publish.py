"""`stackpatch publish`: a finished build into a registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stackpatch.cli import output
from stackpatch.cli.context import ArchOption, JsonOption, RootOption

if TYPE_CHECKING:
    from stackpatch.artefacts.build import Planned
    from stackpatch.cli.workspace import Workspace
    from stackpatch.registry.finished import Finished
    from stackpatch.registry.publish import Published


def command(
    stack: Annotated[str, typer.Argument(metavar="STACK[@RELEASE]", help="flashinfer@0.6.3")],
    *,
    arch: ArchOption,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="REPOSITORY[:TAG]",
            help="Where to; without a tag, one made of the release and the series.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where `build` put its results.")
    ] = Path("dist"),
    replace: Annotated[
        bool, typer.Option("--replace", help="Let the tag lose what it names for this platform.")
    ] = False,
    even_if_failed: Annotated[
        bool,
        typer.Option("--even-if-failed", help="Publish what failed its smoke test, and say so."),
    ] = False,
    sign: Annotated[
        bool, typer.Option("--sign", help="Let cosign sign the index before the tag names it.")
    ] = False,
    cosign_option: Annotated[
        list[str] | None,
        typer.Option(
            "--cosign-option",
            metavar="WORD",
            help="For `cosign sign`, such as --key=cosign.key; says --sign as well.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Push a finished build to a registry, with its papers; the tag comes last."""
    from stackpatch.cli.progress import reporting
    from stackpatch.cli.workspace import open_workspace
    from stackpatch.errors import InputError
    from stackpatch.model.arch import parse_arch
    from stackpatch.registry.client import Registry
    from stackpatch.registry.publish import Publication, refuse_failed
    from stackpatch.registry.reference import Reference

    reference = Reference.parse(to, what="--to")
    if reference.digest is not None:
        msg = f"--to {to}: a digest says what is pushed, not where to"
        raise InputError(msg, hint=f"write --to {reference.name}:TAG")
    work = open_workspace(stack, root)
    wanted = parse_arch(arch)
    finished = _finished(work, wanted.name, out)
    refuse_failed(finished, even_if_failed=even_if_failed)
    tag = reference.tag or f"{work.release.version}_sp.{work.series.short}"
    with reporting() as report:
        done = Publication(
            finished,
            Registry.open(reference),
            tag,
            replace=replace,
            sign=sign or bool(cosign_option),
            cosign=tuple(cosign_option or ()),
            say=output.note,
            report=report,
        ).run()
    for line in people(done, tag):
        output.note(line)
    whole = {"stack": work.recipe.stack, "arch": wanted.name, **done.json(), "tag": tag}
    output.emit("publish", whole, str(reference.at(done.digest)), json=json)


def _finished(work: Workspace, arch: str, out: Path) -> Finished:
    """The build that `build` would find for the recipe as it is now."""
    from stackpatch.artefacts.tree_plan import has_no_wheel
    from stackpatch.model.arch import parse_arch
    from stackpatch.registry.finished import open_finished

    # Base and engine are what the build chose: the lock has them, the recipe does not.
    recipe, release, wanted = work.recipe, work.release, parse_arch(arch)
    plan: Planned
    if has_no_wheel(release):
        from stackpatch.artefacts.tree_build import plan_tree_release

        plan, _ = plan_tree_release(
            recipe, release, wanted, work.series, collection=work.collection, look=False
        )
    else:
        from stackpatch.artefacts.release import plan_release

        plan, _ = plan_release(
            recipe,
            release,
            wanted,
            work.series,
            engine="overlay",
            base="scratch",
            collection=work.collection,
        )
    return open_finished(out / plan.folder, plan.json())


def people(done: Published, tag: str) -> list[str]:
    """What was done, for stderr."""
    from stackpatch.cli.progress import size

    how = ", ".join(f"{count} {one.value}" for one, count in sorted(done.how.items()) if count)
    name = f"{done.reference.name}:{tag}"
    lines = [
        f"image    {done.image}",
        f"blobs    {how}; {size(done.bytes_sent)} sent in {done.requests} requests",
    ]
    if done.base_bytes_read:
        lines.append(f"base     {size(done.base_bytes_read)} copied from another registry")
    for paper in done.referrers:
        where = "" if paper.listed == "api" else " (listed by tag: no referrers API)"
        lines.append(f"paper    {paper.name}  {paper.digest}{where}")
    if done.signed:
        lines.append("signed   by cosign")
    lines += [f"gone     from {name}: {one}" for one in done.replaced]
    lines.append(f"tag      {name} {'now names' if done.moved else 'already named'} {done.digest}")
    return lines
