"""What programs answer when they are asked for their version, and what of it can be read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from stackpatch.checks.doctor import Finding, Level

if TYPE_CHECKING:
    from stackpatch.proc import Completed


def version_in(done: Completed, before: str) -> str | None:
    """The version number after `before` in what a program printed; None where there is none."""
    if done.status != 0:
        return None
    found = re.search(before + r"\s*(\d+(?:\.\d+)+)", done.text())
    if not found:
        return None
    try:
        Version(found[1])
    except InvalidVersion:
        return None
    return found[1]


def unread(
    name: str, command: str, done: Completed | None = None, *, required: bool = False
) -> Finding:
    """A program that answers in a way that we cannot read."""
    said = (done.text().strip() or done.error_text() or f"status {done.status}") if done else ""
    first = said.splitlines()[0][:200] if said else ""
    return Finding(
        name,
        Level.UNKNOWN,
        found=True,
        good_for="unknown: its answer cannot be read",
        detail=f"`{command}` said: {first}" if first else f"`{command}` said nothing that we read",
        advice=f"run `{command}` by hand",
        required=required,
    )
