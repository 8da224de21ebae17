"""`stackpatch matrix`: every patch at every upstream version."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated, Any

import typer

from stackpatch.cli import matrix_text, output
from stackpatch.cli.context import JsonOption, RootOption
from stackpatch.cli.matrix_answer import answer
from stackpatch.cli.matrix_inputs import Question
from stackpatch.errors import InputError


def command(
    context: typer.Context,
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
    if bool(stacks) == all_:
        msg = "name one stack or several, or --all"
        raise InputError(msg, hint="`stackpatch list` shows the stacks")
    names = None if all_ else tuple(dict.fromkeys(stacks or ()))
    folder = None if root is None else str(root)
    question = Question(stacks=names, refs=refs, root=folder, offline=offline, json=json)
    if html is not None and question.several:
        msg = "--html writes one page for one stack"
        raise InputError(msg, hint="name the stack")
    found = answer(question, context.obj if html is None else None)
    if html is not None:
        _write_html(html, json_format.loads(found.written[0]))
    matrix_text.tell(question, found)


def page(document: dict[str, Any]) -> str:
    """One self-contained HTML page of the document; no request leaves it."""
    from importlib.resources import files

    template = files("stackpatch.cli").joinpath("pages", "matrix.html").read_text("utf-8")
    # `<` must not stand in the data: a patch's text could end the script element.
    data = json_format.dumps(document).replace("<", "\\u003c")
    title = f"{document['stack']} {document['release']}: patches at upstream versions"
    return template.replace("__TITLE__", title).replace("__DATA__", data)


def _write_html(path: Path, document: dict[str, Any]) -> None:
    from stackpatch.storage import write_atomically

    write_atomically(path, page(document).encode())
    output.note(f"{document['stack']}: {path}")
