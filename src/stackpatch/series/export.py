"""A patch as a mail again, after it moved: its own words, a new diff.

Everything above the diff stays byte for byte; only a stale diffstat goes. The diff is git's own,
with settings that make it the same on every machine.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stackpatch import proc
from stackpatch.model.diff import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackpatch.model.patch import Patch
    from stackpatch.sources.objects import Objects

_DIFF = re.compile(rb"^diff --git ", re.MULTILINE)
_SEPARATOR = re.compile(rb"^---[ \t]*\n", re.MULTILINE)


def remail(objects: Objects, patch: Patch, before: str, after: str) -> bytes:
    """The patch's mail with the difference of two trees as its diff."""
    start = _DIFF.search(patch.raw)
    head = patch.raw[: start.start()] if start else patch.raw
    separators = list(_SEPARATOR.finditer(head))
    if separators:
        head = head[: separators[-1].end()] + b"\n"
    return head + diff(objects, before, after, renames=_renames(patch))


def diff(
    objects: Objects,
    before: str,
    after: str,
    *,
    renames: bool = False,
    skipped: Sequence[str] = (),
) -> bytes:
    """git's diff of two trees: full ids, three lines of context, no user's settings.

    skipped: files and folders that it leaves out.
    """
    left_out = [f":(exclude,top,literal){path}" for path in skipped]
    return proc.run(
        (
            "git",
            "--git-dir",
            objects.path,
            "-c",
            "core.attributesFile=/dev/null",
            "-c",
            "core.quotePath=true",
            "-c",
            "diff.algorithm=myers",
            "-c",
            "diff.indentHeuristic=true",
            "-c",
            "diff.noprefix=false",
            "-c",
            "diff.mnemonicPrefix=false",
            "-c",
            "diff.suppressBlankEmpty=false",
            "-c",
            "diff.orderFile=/dev/null",
            "diff-tree",
            "-p",
            "-r",
            "--full-index",
            "--unified=3",
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
            "--src-prefix=a/",
            "--dst-prefix=b/",
            "-M" if renames else "--no-renames",
            before,
            after,
            *(("--", ".", *left_out) if left_out else ()),
        ),
        env={"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"},
    ).stdout


def _renames(patch: Patch) -> bool:
    return any(file.change in (Change.RENAME, Change.COPY) for file in patch.files)
