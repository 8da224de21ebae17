"""`stackpatch matrix`: every patch at every upstream version."""

from __future__ import annotations

import json as json_format
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackpatch.cli import output, terminal
from stackpatch.cli.context import JsonOption, RootOption
from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackpatch.cli.progress import Report
    from stackpatch.cli.terminal import Colour
    from stackpatch.cli.workspace import Workspace
    from stackpatch.series.matrix import Matrix, Version
    from stackpatch.series.memo import Memo
    from stackpatch.sources.store import Stored

MARKS: dict[str, tuple[str, Colour]] = {
    "needed": ("N", "blue"),
    "conflict": ("X", "red"),
    "upstreamed": ("U", "green"),
    "obsolete": ("o", "dim"),
    "partial": ("P", "yellow"),
    "misplaced": ("!", "yellow"),
    "unsure": ("?", "bold"),
}


def command(
    stacks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STACK[@RELEASE]]...", help="Whose series.", show_default=False),
    ] = None,
    *,
    all_: Annotated[bool, typer.Option("--all", help="Every stack that has a series.")] = False,
    refs: Annotated[
        str,
        typer.Option(
            "--refs",
            metavar="SPEC",
            help="`stored`, `all` on the index, a range `>=0.6,<0.8`, or a list `0.6.3,0.6.7`.",
        ),
    ] = "stored",
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write one HTML page.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use no network.")] = False,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Judge every patch of a series at every upstream version."""
    from stackpatch.cli.workspace import open_workspace
    from stackpatch.model.reference import StackRef

    if bool(stacks) == all_:
        msg = "name one stack or several, or --all"
        raise InputError(msg, hint="`stackpatch list` shows the stacks")
    names = _with_series(root) if all_ else list(dict.fromkeys(stacks or ()))
    if html is not None and (all_ or len(names) > 1):
        msg = "--html writes one page for one stack"
        raise InputError(msg, hint="name the stack")
    found: list[tuple[Workspace, list[Stored]]] = []
    opened: dict[str, tuple[Workspace, Memo]] = {}
    for name in names:
        wanted = StackRef.parse(name)
        if wanted.stack in opened:
            work = opened[wanted.stack][0].at(wanted.release)
        else:
            work = open_workspace(name, root, offline=offline)
            opened[wanted.stack] = work, work.memo()
        found.append((work, _versions(work, refs)))
    documents = []
    texts: list[str] = []
    for (work, versions), matrix in zip(found, _judged(found, opened), strict=True):
        documents.append(matrix_document(work, matrix, versions))
        if not json:
            texts += [*([""] if texts else []), *_text(work, matrix)]
    for _, memo in opened.values():
        memo.save()
    if all_ or len(names) > 1:
        output.emit("matrix", {"stacks": documents}, texts, json=json)
        return
    if html is not None:
        _write_html(html, work, documents[0])
    output.emit("matrix", documents[0], texts, json=json)


def _with_series(root: Path | None) -> list[str]:
    from stackpatch.cli.context import find_root
    from stackpatch.model.collection import Collection

    collection = Collection(find_root(root).path)
    found = []
    for name in collection.stacks():
        recipe = collection.recipe(name)
        if recipe.release().series is not None:
            found.append(name)
    return found


def _versions(work: Workspace, refs: str) -> list[Stored]:
    from stackpatch.cli.progress import reporting

    with reporting() as report:
        base = work.base(report)
        versions = select_versions(work, refs, report)
    work.on_base(base)
    return versions


def _judged(
    found: Sequence[tuple[Workspace, list[Stored]]], opened: dict[str, tuple[Workspace, Memo]]
) -> list[Matrix]:
    """The matrices, outside of `reporting`: a process that draws has a thread and cannot fork."""
    from stackpatch.series import matrix
    from stackpatch.series.sharing import processors

    series = [
        matrix.Series(
            work.store.objects,
            work.series.patches,
            versions,
            opened[work.recipe.stack][1],
            _covering(work, versions),
        )
        for work, versions in found
    ]
    return matrix.compute_all(series, processes=processors())


def _covering(
    work: Workspace, versions: Sequence[Stored]
) -> Callable[[Version], Callable[[str], bool]]:
    kinds = {id(stored): work.covers(stored) for stored in versions}
    return lambda version: kinds[id(version)]


def select_versions(work: Workspace, refs: str, report: Report) -> list[Stored]:
    """The versions that `--refs` means, oldest first, one kind of source for each.

    Raises InputError for a SPEC that is none or that no version fits.
    """
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    from stackpatch.cli.workspace import one_each
    from stackpatch.model.reference import VersionRef, version_number
    from stackpatch.sources.store import version_key

    if refs == "stored":
        return [one for one in one_each(work.store.versions()) if version_number(one.version)]
    if refs != "all" and not any(sign in refs for sign in "<>=!~"):
        named = [VersionRef.parse(name.strip()) for name in refs.split(",") if name.strip()]
        return [work.resolve(ref, report) for ref in named]
    try:
        fits = SpecifierSet("" if refs == "all" else refs)
    except InvalidSpecifier as error:
        msg = f"--refs {refs!r} is no range of versions: {error}"
        raise InputError(msg, hint="write `all`, `>=0.6,<0.8` or `0.6.3,0.6.7`") from error
    known = {stored.version for stored in work.store.versions()}
    if not work.offline:
        from stackpatch.sources.fetch import index_versions

        known |= set(index_versions(work.recipe))
    chosen = []
    for name in known:
        try:
            number = Version(name)
        except InvalidVersion:
            continue
        if number in fits and not number.is_prerelease:
            chosen.append(name)
    if not chosen:
        msg = f"no version of {work.recipe.stack} fits {refs!r}"
        raise InputError(msg, hint="`stackpatch fetch` brings versions into the store")
    chosen.sort(key=version_key)
    return [work.bring(name, report) for name in chosen]


def matrix_document(work: Workspace, matrix: Matrix, versions: Sequence[Stored]) -> dict[str, Any]:
    """The `matrix` document of the contract."""
    return {
        "stack": work.recipe.stack,
        "release": work.release.version,
        "versions": list(matrix.versions),
        "sources": [stored.label for stored in versions],
        "newest_clean": matrix.newest_clean,
        "newest_ready": matrix.newest_ready,
        "patches": [
            {
                "name": row.patch.name,
                "path": f"{work.series.where}/{row.patch.name}",
                "subject": row.patch.subject,
                "landed": row.first_landed(matrix.versions),
                "cells": [
                    {"version": version, **verdict.to_json()}
                    for version, verdict in zip(matrix.versions, row.verdicts, strict=True)
                ],
            }
            for row in matrix.rows
        ],
    }


def page(document: dict[str, Any]) -> str:
    """One self-contained HTML page of the document; no request leaves it."""
    template = files("stackpatch.cli").joinpath("pages", "matrix.html").read_text("utf-8")
    # `<` must not stand in the data: a patch's text could end the script element.
    data = json_format.dumps(document).replace("<", "\\u003c")
    title = f"{document['stack']} {document['release']}: patches at upstream versions"
    return template.replace("__TITLE__", title).replace("__DATA__", data)


def _write_html(path: Path, work: Workspace, document: dict[str, Any]) -> None:
    from stackpatch.storage import write_atomically

    write_atomically(path, page(document).encode())
    output.note(f"{work.recipe.stack}: {path}")


def _text(work: Workspace, matrix: Matrix) -> list[str]:
    """A grid: versions down, patches across, one letter a cell."""
    lines = [f"{work.recipe.stack} {work.release.version}: {work.series.where}"]
    for number, row in enumerate(matrix.rows, 1):
        landed = row.first_landed(matrix.versions)
        note = f"  (upstream from {landed})" if landed else ""
        lines.append(f"  {number}  {row.patch.subject}{note}")
    lines.append("")
    rows = []
    for number, version in enumerate(matrix.versions):
        cells = []
        said = []
        for row in matrix.rows:
            verdict = row.verdicts[number]
            letter, colour = MARKS[verdict.word.value]
            cells.append(terminal.style(letter, colour, sys.stdout))
            if verdict.word.value in ("partial", "misplaced", "unsure", "conflict"):
                said.append(f"{len(cells)}: {verdict.word.value}, {verdict.detail}")
        rows.append((version, *cells, "; ".join(said)))
    header = ("version", *(str(n) for n in range(1, len(matrix.rows) + 1)), "")
    lines += output.table(header, rows)
    used = {v.word.value for row in matrix.rows for v in row.verdicts}
    legend = ", ".join(f"{letter} {word}" for word, (letter, _) in MARKS.items() if word in used)
    lines += [
        "",
        legend,
        f"the whole series applies up to: {matrix.newest_clean or 'none of these'}",
        f"applies or may be dropped up to: {matrix.newest_ready or 'none of these'}",
    ]
    return lines
