"""What the program says: results on stdout, everything for people on stderr, errors once.

With `--json` a command puts exactly one document on stdout, `{"schema": "stackpatch.NAME/1", …}`,
also when it fails (`error: {kind, message, hint, where}`). Commands call `emit` once at the end,
`note` and `warn` on the way, and raise the classes of `stackpatch.errors` for everything else.
"""

from __future__ import annotations

import json as json_format
import sys
from contextvars import ContextVar
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NoReturn

from stackpatch.cli import terminal
from stackpatch.errors import EnvironmentProblem, Problems, StackpatchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_string = json_format.encoder.encode_basestring_ascii
# Whether this run has put its document on stdout: a failure after that must not add a second one.
_document_written: ContextVar[bool] = ContextVar("document_written", default=False)


class Written(str):
    """A JSON object that `written` has made; it stands in a document like the object itself."""

    __slots__ = ()


def emit(
    name: str,
    document: Mapping[str, object] | Written,
    text: str | Iterable[str] = "",
    *,
    json: bool,
    failure: StackpatchError | None = None,
) -> None:
    """Put the command's result on stdout: the document with `--json`, else the text.

    name: the command, `list` or `cache-list`; the schema is `stackpatch.NAME/1`.
    text: a string or lines, for people; may hold `terminal.style` colours.
    failure: the command has a result *and* a finding (lint errors, a conflict). The result is
    printed, the error is told, and the program ends with the error's exit status.
    """
    if json:
        _write_document(name, document, failure)
    else:
        lines = text if isinstance(text, str) else "\n".join(text)
        if lines:
            write_result(lines if lines.endswith("\n") else lines + "\n")
    if failure is not None:
        _tell(failure)
        _end(failure.exit_status)


def fail(name: str, error: StackpatchError, *, json: bool) -> None:
    """Tell the error on stderr and, with `--json`, as the run's one document."""
    if json and not _document_written.get():
        _write_document(name, {}, error)
    _tell(error)


def note(text: str) -> None:
    """One line for people on stderr."""
    _write_people(text + "\n")


def warn(text: str) -> None:
    """A warning on stderr. What a script must know belongs into the document as well."""
    _write_people(terminal.style("warning:", "yellow", sys.stderr) + f" {text}\n")


def start() -> None:
    """Begin a run: no document is written yet. `cli.main` calls it."""
    _document_written.set(False)


def write_result(text: str) -> None:
    """Write text to stdout as it is, and flush.

    A reader that went away (`| head`) is no failure: the rest is dropped. A full disk is one.
    """
    if sys.stdout is None:
        msg = "cannot write the result: standard output is closed"
        raise EnvironmentProblem(msg)
    try:
        terminal.write(sys.stdout, text)
    except BrokenPipeError:
        terminal.silence(sys.stdout)
    except OSError as error:
        terminal.silence(sys.stdout)
        msg = f"cannot write the result to standard output: {error.strerror}"
        raise EnvironmentProblem(msg) from error


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of left-aligned columns, two spaces apart; colours do not count as width.

    On a terminal that is too narrow, the last column is cut with an ellipsis; in a file or a
    pipe nothing is ever cut.
    """
    cells = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(terminal.width(row[i]) for row in cells) for i in range(len(header))]
    room = terminal.columns(sys.stdout)
    lines = []
    for row in cells:
        head = "".join(
            cell + " " * (widths[i] - terminal.width(cell) + 2) for i, cell in enumerate(row[:-1])
        )
        last = row[-1]
        if room is not None:
            last = terminal.shorten(last, max(room - terminal.width(head), 8))
        lines.append((head + last).rstrip())
    return lines


def error_document(error: StackpatchError) -> dict[str, object]:
    """The `error` member: kind, message, hint, where; and problems where there are several."""
    found: dict[str, object] = {
        "kind": error.kind,
        "message": error.message,
        "hint": error.hint,
        "where": error.where,
    }
    if isinstance(error, Problems):
        found["problems"] = list(error.problems)
    return found


def written(document: Mapping[str, object]) -> Written:
    """The object's JSON, to be kept and put into a document, or to be one, at another time."""
    return Written(_json(dict(document), "\n"))


def render_document(
    name: str, document: Mapping[str, object] | Written, failure: StackpatchError | None = None
) -> str:
    """The JSON text: ASCII only, so that no encoding of stdout can break it."""
    schema = f"stackpatch.{name}/1"
    if isinstance(document, Written) and document != "{}" and failure is None:
        return f'{{\n  "schema": {_string(schema)},{document[1:]}\n'
    members = json_format.loads(document) if isinstance(document, Written) else document
    whole: dict[str, object] = {"schema": schema, **members}
    if failure is not None:
        whole["error"] = error_document(failure)
    return _json(whole, "\n") + "\n"


def _write_document(
    name: str, document: Mapping[str, object] | Written, failure: StackpatchError | None
) -> None:
    text = render_document(name, document, failure)
    if _document_written.get():
        msg = f"{name} wrote two documents"
        raise AssertionError(msg)
    _document_written.set(True)
    write_result(text)


def _json(value: Any, line: str) -> str:
    """As json.dumps with two spaces of indent, which is several times slower; line: how one starts.

    Paths are strings, tuples lists, bytes that are not UTF-8 `\\xNN`.
    """
    match value:
        case Written():
            return value.replace("\n", line)  # in JSON no string holds a line's end
        case str():
            return _string(_plain(value))
        case None | bool() | int() | float():
            return json_format.dumps(value, allow_nan=False)
        case PurePath():
            return _string(_plain(str(value)))
        case dict():
            inner = f"{line}  "
            pairs = {_plain(str(key)): _json(item, inner) for key, item in value.items()}
            listed = f",{inner}".join(f"{_string(key)}: {text}" for key, text in pairs.items())
            return f"{{{inner}{listed}{line}}}" if listed else "{}"
        case list() | tuple():
            inner = f"{line}  "
            listed = f",{inner}".join([_json(item, inner) for item in value])
            return f"[{inner}{listed}{line}]" if listed else "[]"
        case _:
            msg = f"not a JSON value: {type(value).__name__}"
            raise TypeError(msg)


def _plain(text: str) -> str:
    """Without lone surrogates (a file name that is not UTF-8): strict readers refuse those."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _tell(error: StackpatchError) -> None:
    """The error for people: what, every problem on its own line, where, what to do."""
    lines = [terminal.style("error:", "red", sys.stderr) + f" {error.message}"]
    if isinstance(error, Problems):
        lines += error.problems
    if error.where:
        lines.append(f"  where: {error.where}")
    if error.hint:
        lines.append(f"  hint: {error.hint}")
    _write_people("\n".join(lines) + "\n")


def _write_people(text: str) -> None:
    """To stderr; a stderr that is closed or full never changes what the program does."""
    try:
        terminal.write(sys.stderr, text)
    except OSError:
        terminal.silence(sys.stderr)


def _end(status: int) -> NoReturn:
    import typer

    raise typer.Exit(status)
