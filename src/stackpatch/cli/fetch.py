"""`stackpatch fetch`: upstream versions into the source store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackpatch.cli import output
from stackpatch.cli.context import JsonOption, RootOption

if TYPE_CHECKING:
    from stackpatch.cli.workspace import Workspace
    from stackpatch.model.recipe import Release
    from stackpatch.sources.store import Stored


def command(
    stack: Annotated[str, typer.Argument(metavar="STACK[@RELEASE]", help="flashinfer@0.6.3")],
    refs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[REF]…",
            help="0.6.12, git:COMMIT, git:BRANCH, sdist:0.6.12, wheel:0.6.12. Without one: the "
            "recipe's release, sources and wheel.",
            show_default=False,
        ),
    ] = None,
    *,
    arch: Annotated[
        str | None,
        typer.Option("--arch", metavar="ARCH", help="Whose wheel, where they differ by machine."),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use no network; say what is missing.")
    ] = False,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Bring upstream versions into the source store, hash-checked."""
    from stackpatch.cli.progress import reporting
    from stackpatch.cli.workspace import open_workspace
    from stackpatch.model.arch import parse_arch
    from stackpatch.model.reference import SourceKind, VersionRef
    from stackpatch.sources.fetch import artefact, fetch

    work = open_workspace(stack, root, offline=offline)
    platform = parse_arch(arch).platform if arch is not None else None
    files: list[Path] = []
    with reporting() as report:
        wanted: list[str | VersionRef | Release] = [VersionRef.parse(ref) for ref in refs or []]
        stored = fetch(
            work.recipe,
            wanted or [work.release],
            offline=offline,
            report=report,
            platform=platform,
            store=work.store,
        )
        if not wanted and any(one.kind is SourceKind.WHEEL for one in work.release.artefacts):
            # A build wants the wheel as well, and its sha256 is the recipe's.
            files.append(
                artefact(
                    work.recipe,
                    work.release,
                    SourceKind.WHEEL,
                    platform,
                    offline=offline,
                    report=report,
                )
            )
    document = {
        "stack": work.recipe.stack,
        "store": str(work.store.path),
        "stored": [_row(one) for one in stored],
        "files": [str(file) for file in files],
    }
    output.emit("fetch", document, _text(work, stored, files), json=json)


def _row(stored: Stored) -> dict[str, Any]:
    return {
        "kind": stored.kind.value,
        "version": stored.version,
        "commit": stored.commit,
        "tree": stored.tree,
        "evidence": dict(stored.evidence),
    }


def _text(work: Workspace, stored: list[Stored], files: list[Path]) -> list[str]:
    lines = []
    for one in stored:
        made_of = one.evidence.get("Artefact") or one.evidence.get("Url", "")
        digest = one.evidence.get("Sha256") or one.evidence.get("Commit", "")
        source = one.evidence.get("Digest-From")
        pinned = f", digest from the {source}" if source else ""
        lines.append(f"{one.label}  tree {one.tree}")
        lines.append(f"  from {made_of} {digest}{pinned}")
    lines += [f"file  {file}" for file in files]
    lines.append(f"store {work.store.path}")
    return lines
