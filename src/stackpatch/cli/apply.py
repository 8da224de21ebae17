"""`stackpatch apply`: the patched source tree of a release, in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackpatch.cli import output
from stackpatch.cli.context import ArchOption, JsonOption, OfflineOption, RootOption

if TYPE_CHECKING:
    from stackpatch.series.apply import SeriesResult


def command(
    stack: Annotated[str, typer.Argument(metavar="STACK[@RELEASE]", help="flashinfer@0.6.3")],
    *,
    arch: ArchOption,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Folder to write; must be empty or absent."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="REF", help="Another upstream version than the pinned one."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Apply in the source store only; write nothing.")
    ] = False,
    offline: OfflineOption = False,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Write the patched source tree of a stack."""
    from stackpatch.cli.progress import reporting
    from stackpatch.cli.workspace import open_workspace
    from stackpatch.errors import InputError
    from stackpatch.model.arch import parse_arch
    from stackpatch.model.reference import VersionRef
    from stackpatch.series.apply import apply_series
    from stackpatch.series.failures import not_applied
    from stackpatch.sources.checkout import check_target, write_tree

    if to is None and not dry_run:
        msg = "nowhere to write: name a folder with --to DIR"
        raise InputError(msg, hint="--dry-run only says whether the series applies")
    work = open_workspace(stack, root, offline=offline)
    wanted = parse_arch(arch).name
    work.recipe.arch(wanted)
    if to is not None and not dry_run:
        check_target(to)
    with reporting() as report:
        base = work.base(report)
        target = base if at is None else work.resolve(VersionRef.parse(at), report)
    if target.tree != base.tree:
        work.on_base(base)
    patches, among = work.series.for_arch(wanted).patches, work.series.patches
    result = apply_series(
        work.store.objects, target.tree, patches, parent=target.commit, among=among
    )
    document = _document(result) | {
        "stack": work.recipe.stack,
        "version": target.version,
        "source": target.label,
        "arch": wanted,
        "path": None if to is None or dry_run or not result.applied else str(to),
    }
    if not result.applied:
        failure = not_applied(work.series.where, target.label, result)
        output.emit("apply", document, json=json, failure=failure)
        return
    if to is not None and not dry_run:
        write_tree(work.store.objects, result.tree, to)
    output.emit("apply", document, _text(result, target.label, to, dry_run=dry_run), json=json)


def _document(result: SeriesResult) -> dict[str, Any]:
    return {
        "applied": result.applied,
        "tree": result.tree if result.applied else None,
        "commits": list(result.commits),
        "changed": sorted(result.changes) if result.applied else [],
        "patches": [
            {
                "name": one.patch.name,
                "applied": one.applied,
                "offset": one.offset,
                "failures": [
                    {
                        "path": failure.path,
                        "line": failure.line,
                        "reason": failure.reason,
                        "detail": failure.detail,
                        "expected": failure.expected,
                        "candidates": [
                            {"line": line, "symbol": symbol} for line, symbol in failure.candidates
                        ],
                    }
                    for failure in one.failures
                ],
            }
            for one in result.results
        ],
    }


def _text(result: SeriesResult, label: str, to: Path | None, *, dry_run: bool) -> list[str]:
    lines = []
    for one in result.results:
        shifted = f"  (offset {one.offset})" if one.offset else ""
        lines.append(f"applied  {one.patch.name}{shifted}")
    lines += [f"changed  {path}" for path in sorted(result.changes)]
    lines.append(f"tree     {result.tree}, from {label}")
    if result.commits:
        lines.append(f"commit   {result.commits[-1]}")
    lines.append("written  nothing (dry run)" if dry_run or to is None else f"written  {to}")
    return lines
