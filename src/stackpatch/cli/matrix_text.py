"""A matrix as a person or a script reads it: a grid with a letter a cell, or one JSON document."""

from __future__ import annotations

import json as json_format
import sys
from typing import TYPE_CHECKING, Any

from stackpatch.cli import output, terminal
from stackpatch.errors import EnvironmentProblem, FindingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackpatch.cli.matrix_answer import Answer
    from stackpatch.cli.matrix_inputs import Question
    from stackpatch.cli.terminal import Colour
    from stackpatch.errors import StackpatchError

MARKS: dict[str, tuple[str, Colour]] = {
    "needed": ("N", "blue"),
    "conflict": ("X", "red"),
    "upstreamed": ("U", "green"),
    "obsolete": ("o", "dim"),
    "partial": ("P", "yellow"),
    "misplaced": ("!", "yellow"),
    "unsure": ("?", "bold"),
}


OUTSIDE = "*"


def tell(question: Question, answer: Answer) -> None:
    """Put the answer on stdout, as it was asked for; what kept a series from it ends the run."""
    texts: list[str] = []
    if not question.json:
        for one in answer.written:
            texts += [*([""] if texts else []), *_text(json_format.loads(one))]
    document: dict[str, object] | output.Written = answer.written[0]
    if question.several:
        document = {"stacks": answer.written}
        if answer.failed:
            document["failed"] = [
                {"stack": name, "error": output.error_document(error)}
                for name, error in answer.failed
            ]
    failure = _failure(answer.failed)
    output.emit("matrix", document, texts, json=question.json, failure=failure)


def _failure(failed: Sequence[tuple[str, StackpatchError]]) -> StackpatchError | None:
    """One error of the several, of the first one's kind."""
    if not failed:
        return None
    for name, error in failed[1:]:
        output.warn(f"{name}: {error.message}")
    name, error = failed[0]
    kind = EnvironmentProblem if isinstance(error, EnvironmentProblem) else FindingError
    return kind(f"{name}: {error.message}", hint=error.hint, where=error.where)


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
            beside = OUTSIDE if _outside(verdict) else ""
            cells.append(terminal.style(letter, colour, sys.stdout) + beside)
            if verdict["verdict"] in ("partial", "misplaced", "unsure", "conflict"):
                said.append(f"{len(cells)}: {verdict['verdict']}, {verdict['detail']}")
        rows.append((version, *cells, "; ".join(said)))
    header = ("version", *(str(n) for n in range(1, len(patches) + 1)), "")
    lines += output.table(header, rows)
    used = {cell["verdict"] for patch in patches for cell in patch["cells"]}
    legend = ", ".join(f"{letter} {word}" for word, (letter, _) in MARKS.items() if word in used)
    if any(_outside(cell) for patch in patches for cell in patch["cells"]):
        legend += f", {OUTSIDE} not meant for that version (Applies-To)"
    lines += [
        "",
        legend,
        f"the whole series applies up to: {document['newest_clean'] or 'none of these'}",
        f"applies or may be dropped up to: {document['newest_ready'] or 'none of these'}",
    ]
    return lines


def _outside(cell: dict[str, Any]) -> bool:
    """Whether a patch has a verdict where it is not meant; one that landed need not be any more."""
    return cell["meant"] is False and cell["verdict"] not in ("upstreamed", "obsolete")
