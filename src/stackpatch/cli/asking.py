"""Asking the person at the terminal for the trailers that a foreign commit does not have."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from stackpatch.cli import terminal
from stackpatch.model.trailers import parse_trailers

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackpatch.series.adopt import Adopted
    from stackpatch.sources.objects import Objects

_QUESTIONS = (
    ("Upstream-Status", "Pending, Submitted [URL], Backport [URL], Denied, Inappropriate [why]"),
    ("Bug", "URL of the issue that it resolves"),
    (
        "Effect",
        "path :: symbol :: regular expression that is true with the patch and false without",
    ),
)


def ask(objects: Objects, rows: tuple[Adopted, ...], before: str) -> tuple[Adopted, ...]:
    """The rows with the trailers that the person gave; an empty answer leaves one out.

    before: the tree that the first patch goes onto.
    """
    _say("Trailers for the new patches. Enter leaves one out; lint names what is missing.\n")
    asked = []
    for row in rows:
        if row.mail is not None:
            _say(f"\n{row.name}\n")
            row = replace(row, mail=_one(row.mail, _checks(objects, row, before)))  # noqa: PLW2901
        before = row.moved.tree if row.mail is not None and row.moved is not None else before
        asked.append(row)
    return tuple(asked)


def _one(mail: bytes, check: Callable[[str, str], str | None]) -> bytes:
    head, mark, diff = mail.partition(b"\n---\n\n")
    for key, help_ in _QUESTIONS:
        if f"\n{key}: ".encode() in head:
            continue
        while answer := _answer(f"  {key} ({help_}): "):
            if (wrong := check(key, answer)) is None:
                head = _added(head, f"{key}: {answer}")
                break
            _say(f"    {wrong}\n")
    return head + mark + diff


def _added(head: bytes, trailer: str) -> bytes:
    """The trailer at the end of the message, in its last paragraph, which holds our `Origin`."""
    return head + b"\n" + trailer.encode()


def _checks(objects: Objects, row: Adopted, before: str) -> Callable[[str, str], str | None]:
    def check(key: str, answer: str) -> str | None:
        trailers, problems = parse_trailers(f"{key}: {answer}")
        if problems:
            return problems[0][1]
        if row.moved is None:
            return None
        from stackpatch.series.effects import judge

        for effect in trailers.effects:
            if judge(objects, row.moved.tree, effect).holds is not True:
                return "Effect: it is not true with the patch"
            if judge(objects, before, effect).holds is True:
                return "Effect: it is true without the patch too"
        return None

    return check


def _answer(question: str) -> str:
    _say(question)
    return sys.stdin.readline().strip()


def _say(text: str) -> None:
    terminal.write(sys.stderr, text)
