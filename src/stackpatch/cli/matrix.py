"""`stackpatch matrix`: every patch at every upstream version."""

from __future__ import annotations

import json as json_format
import sys
from dataclasses import dataclass
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
    asked: list[_Asked] = []
    for name in names:
        wanted = StackRef.parse(name)
        beside = next((one for one in asked if one.work.recipe.stack == wanted.stack), None)
        if beside is None:
            asked.append(_ask(open_workspace(name, root, offline=offline), refs, None))
        else:
            asked.append(_ask(beside.work.at(wanted.release), refs, beside.versions))
    written = _written(asked)
    if not json or html is not None:
        documents = [json_format.loads(text) for text in written]
    if html is not None:
        _write_html(html, documents[0])
    texts: list[str] = []
    if not json:
        for document in documents:
            texts += [*([""] if texts else []), *_text(document)]
    if all_ or len(names) > 1:
        output.emit("matrix", {"stacks": written}, texts, json=json)
    else:
        output.emit("matrix", written[0], texts, json=json)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One series and the versions it is to be judged at. base: the release it was made for."""

    work: Workspace
    base: Stored
    versions: list[Stored]

    @property
    def name(self) -> str:
        return f"{self.work.recipe.stack}-{self.work.release.version}"

    def key(self) -> str:
        """Of all that the matrix of these depends on, and of what its document says besides."""
        from stackpatch.series import finished

        stored = [self.base, *self.versions]
        kinds = sorted({one.kind for one in stored})
        rules = [self.work.recipe.layouts.rules(kind) for kind in kinds]
        return finished.key(
            self.work.store.objects,
            self.work.series_files.files,
            *(self.work.recipe.stack, self.work.release.version, self.work.series_files.where),
            [(one.label, one.commit, one.tree) for one in stored],
            [[(rule.here, rule.git) for rule in each] for each in rules],
        )


def _with_series(root: Path | None) -> list[str]:
    from stackpatch.cli.roots import find_root
    from stackpatch.model.collection import Collection

    collection = Collection(find_root(root).path)
    found = []
    for name in collection.stacks():
        recipe = collection.recipe(name)
        if recipe.release().series is not None:
            found.append(name)
    return found


def _ask(work: Workspace, refs: str, versions: list[Stored] | None) -> _Asked:
    from stackpatch.cli.progress import reporting

    with reporting() as report:
        base = work.base(report)
        return _Asked(work, base, versions or select_versions(work, refs, report))


def _written(asked: Sequence[_Asked]) -> list[output.Written]:
    """The document of each: of the last run's where nothing has changed, judged where it has."""
    from stackpatch.series.finished import Finished
    from stackpatch.storage import cache_root

    kept = Finished(cache_root() / "verdicts")
    found = [kept.find(one.name, one.key()) for one in asked]
    open_ones = [one for one, text in zip(asked, found, strict=True) if text is None]
    for one in open_ones:
        one.work.on_base(one.base)
    judged = iter(_judged(open_ones))
    written = []
    for one, known in zip(asked, found, strict=True):
        if known is not None:
            written.append(output.Written(known))
            continue
        written.append(output.written(matrix_document(one.work, next(judged), one.versions)))
        kept.keep(one.name, one.key(), written[-1])
    return written


def _judged(asked: Sequence[_Asked]) -> list[Matrix]:
    """The matrices, outside of `reporting`: a process that draws has a thread and cannot fork."""
    if not asked:
        return []
    from stackpatch.series import matrix
    from stackpatch.series.sharing import processors

    memos: dict[str, Memo] = {}
    for one in asked:
        if one.work.recipe.stack not in memos:
            memos[one.work.recipe.stack] = one.work.memo()
    series = [
        matrix.Series(
            one.work.store.objects,
            one.work.series.patches,
            one.versions,
            memos[one.work.recipe.stack],
            _covering(one.work, one.versions),
            one.base.tree,
        )
        for one in asked
    ]
    found = matrix.compute_all(series, processes=processors())
    for memo in memos.values():
        memo.save()
    return found


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
        from stackpatch.sources.releases import index_versions

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


def _write_html(path: Path, document: dict[str, Any]) -> None:
    from stackpatch.storage import write_atomically

    write_atomically(path, page(document).encode())
    output.note(f"{document['stack']}: {path}")


def _text(document: dict[str, Any]) -> list[str]:
    """A grid: versions down, patches across, one letter a cell."""
    patches = document["patches"]
    series = patches[0]["path"].rpartition("/")[0] if patches else "no patches"
    lines = [f"{document['stack']} {document['release']}: {series}"]
    for number, patch in enumerate(patches, 1):
        note = f"  (upstream from {patch['landed']})" if patch["landed"] else ""
        lines.append(f"  {number}  {patch['subject']}{note}")
    lines.append("")
    rows = []
    for number, version in enumerate(document["versions"]):
        cells = []
        said = []
        for patch in patches:
            verdict = patch["cells"][number]
            letter, colour = MARKS[verdict["verdict"]]
            cells.append(terminal.style(letter, colour, sys.stdout))
            if verdict["verdict"] in ("partial", "misplaced", "unsure", "conflict"):
                said.append(f"{len(cells)}: {verdict['verdict']}, {verdict['detail']}")
        rows.append((version, *cells, "; ".join(said)))
    header = ("version", *(str(n) for n in range(1, len(patches) + 1)), "")
    lines += output.table(header, rows)
    used = {cell["verdict"] for patch in patches for cell in patch["cells"]}
    legend = ", ".join(f"{letter} {word}" for word, (letter, _) in MARKS.items() if word in used)
    lines += [
        "",
        legend,
        f"the whole series applies up to: {document['newest_clean'] or 'none of these'}",
        f"applies or may be dropped up to: {document['newest_ready'] or 'none of these'}",
    ]
    return lines
