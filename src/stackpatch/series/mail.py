"""A commit as a mail in our own formatting: the same bytes from every git, on every machine.

Everything that a reader of mails could take for something else is taken care of here: names with
commas, messages that look like a diff, like a header or like a second mail.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from typing import TYPE_CHECKING

from stackpatch.model.trailers import parse_trailers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackpatch.sources.forks import Commit

_SPECIAL = re.compile(r'[()<>\[\]:;@\\,."]')
# What ends the message or begins a diff or an in-body header for `git am` and for us.
_MISREAD = re.compile(r"(?:diff --(?:git|cc|combined) |Index: |--- |---\s*$|From [0-9a-f]{40} )")
_HEADER = re.compile(r"(?:(?:>?From|Subject|Date|Author|Sender)\b[: ]|\[PATCH\]\s)")
_SLUG = 52  # characters, as git's own names
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._]+")


def compose(commit: Commit, trailers: Sequence[tuple[str, str]], diff: bytes) -> bytes:
    """The mail: who, when and why from the commit, these trailers added, this diff."""
    subject, body = _split(commit.message)
    text = _guarded(_with_trailers(_guarded(body), trailers))
    lines = [
        f"From {commit.id} Mon Sep 17 00:00:00 2001",
        f"From: {_address(commit.name, commit.email)}",
        f"Date: {format_datetime(_when(commit))}",
        f"Subject: [PATCH] {subject}",
    ]
    if not (commit.name + subject + text).isascii():
        lines += [
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=UTF-8",
            "Content-Transfer-Encoding: 8bit",
        ]
    head = "\n".join([*lines, "", text.rstrip("\n")]).rstrip("\n")
    return f"{head}\n---\n\n".encode() + diff


def file_name(number: int, subject: str) -> str:
    """The patch's file name: its number, and its subject as far as a name can hold it."""
    slug = _NOT_IN_A_NAME.sub("-", subject).strip("-.")
    slug = re.sub(r"\.\.+", ".", slug)[:_SLUG].rstrip("-.")
    return f"{number:04}-{slug or 'patch'}.patch"


def status_of(commit: Commit) -> str | None:
    """The Upstream-Status that its message says already."""
    found, _ = parse_trailers(_guarded(_split(commit.message)[1]))
    return found.status


def disarmed(commit: Commit) -> tuple[str, ...]:
    """The lines of its message that the mail indents: what would be read as something else."""
    before = [line.rstrip() for line in _split(commit.message)[1].split("\n")]
    after = _guarded("\n".join(before)).split("\n")
    return tuple(old for old, new in zip(before, after, strict=True) if old != new)


def _split(message: str) -> tuple[str, str]:
    """Subject in one line, and body, as git tells them apart."""
    text = message.replace("\0", "\ufffd").replace("\r\n", "\n").strip("\n")
    paragraph, _, body = re.sub(r"\n[ \t]+\n", "\n\n", text).partition("\n\n")
    return " ".join(paragraph.split()) or "(no subject)", body.strip("\n")


def _guarded(body: str) -> str:
    """The body with a blank before each line that would be read as something else."""
    lines = [line.rstrip() for line in body.split("\n")]
    lines = [f" {line}" if _MISREAD.match(line) else line for line in lines]
    for number, line in enumerate(lines):  # in-body headers stand at the very start
        if not _HEADER.match(line):
            break
        lines[number] = f" {line}"
    # What has the name of one of our trailers and is none: the words of somebody else.
    for _ in lines:
        _, problems = parse_trailers("\n".join(lines), first_line=0)
        wrong = {number for number, _ in problems if not lines[number].startswith(" ")}
        if not wrong:
            break
        lines = [f" {line}" if number in wrong else line for number, line in enumerate(lines)]
    return "\n".join(lines)


def _with_trailers(body: str, trailers: Sequence[tuple[str, str]]) -> str:
    added = "\n".join(f"{key}: {value}" for key, value in trailers)
    if not added or not body:
        return body or added
    found, _ = parse_trailers(body)
    # `note: see below` alone is the body itself; git's own trailers have a dash, or are ours.
    ours = found.status or found.bugs or found.archs or found.applies_to or found.effects
    block = ours or any("-" in key for key, _ in found.others)
    return f"{body}\n{added}" if block else f"{body}\n\n{added}"


def _address(name: str, email: str) -> str:
    shown = " ".join(name.split()) or email
    if _SPECIAL.search(shown):
        escaped = shown.replace("\\", "\\\\").replace('"', '\\"')
        shown = f'"{escaped}"'
    return f"{shown} <{email}>"


def _when(commit: Commit) -> datetime:
    try:
        zone = timezone(timedelta(minutes=commit.offset))
        return datetime.fromtimestamp(commit.seconds, zone)
    except (ValueError, OverflowError):  # a zone or a year that no calendar has
        return datetime.fromtimestamp(0, UTC)
