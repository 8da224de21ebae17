"""Edits by hand as one more patch of a series: a mail that gives exactly these files again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch.errors import FindingError
from stackpatch.model.patch import parse_patch
from stackpatch.series.apply import apply_series
from stackpatch.series.export import diff
from stackpatch.series.mail import compose, file_name
from stackpatch.sources.forks import Commit
from stackpatch.sources.objects import REGULAR, Entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackpatch.sources.objects import Objects


@dataclass(frozen=True, slots=True)
class Author:
    """Who made the edits, and when, as Unix time."""

    name: str
    email: str
    seconds: int


def capture(
    objects: Objects,
    before: str,
    content: Mapping[str, bytes | None],
    *,
    subject: str,
    author: Author,
    number: int,
) -> tuple[str, bytes] | None:
    """File name and mail of the patch that turns the tree `before` into one with this content.

    content: by path in the git tree, None where the file is gone. None when nothing differs.
    Raises FindingError where the patch would not give the same files again.
    """
    wanted: dict[str, Entry | None] = {}
    for path, raw in content.items():
        old = objects.entry(before, path)
        if raw is None:
            wanted[path] = None
        else:
            wanted[path] = Entry(old.mode if old else REGULAR, objects.write_blob(raw))
    after = objects.with_changes(before, wanted)
    if after == before:
        return None
    raw_diff = diff(objects, before, after)
    message = f"{subject}\n\nCaptured by stackpatch from files that were edited where they lie.\n"
    commit = Commit(
        # As git's own, from what the mail is made of; no repository has such a commit.
        hashlib.sha1(raw_diff, usedforsecurity=False).hexdigest(),
        (),
        after,
        author.name,
        author.email,
        author.seconds,
        0,
        message,
        exact=True,
    )
    name = file_name(number, commit.subject)
    mail = compose(commit, [("Upstream-Status", "Pending")], raw_diff)
    again = apply_series(objects, before, (parse_patch(name, mail),))
    if not again.applied or again.tree != after:
        msg = "the edits cannot be written as a patch that gives the same files again"
        raise FindingError(msg, hint="nothing was written; please report it with the edited files")
    return name, mail
