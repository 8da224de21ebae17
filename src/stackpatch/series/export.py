"""A patch as a mail again, after it moved: its own words, a new diff.

Everything above the diff stays byte for byte, what people noted below the `---` line too; only a
stale diffstat goes. The diff is git's own,
with settings that make it the same on every machine.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from typing import TYPE_CHECKING, Any, Self

from stackpatch import proc
from stackpatch.errors import EnvironmentProblem
from stackpatch.model.diff import Change

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stackpatch.model.patch import Patch
    from stackpatch.sources.objects import Objects

_DIFF = re.compile(rb"^diff --git ", re.MULTILINE)
_SEPARATOR = re.compile(rb"^---[ \t]*\n", re.MULTILINE)
_PAIR = re.compile(rb"^([0-9a-f]{40}) ([0-9a-f]{40})\n", re.MULTILINE)
_SETTINGS = (
    "core.attributesFile=/dev/null",
    "core.quotePath=true",
    "diff.algorithm=myers",
    "diff.indentHeuristic=true",
    "diff.noprefix=false",
    "diff.mnemonicPrefix=false",
    "diff.suppressBlankEmpty=false",
    "diff.orderFile=/dev/null",
)
_NOBODYS_SETTINGS = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
# A line of git's own diffstat or summary.
_STAT = re.compile(
    rb" .*\| +(?:\d+(?: [+-]+)?|Bin(?: .*)?)|"
    rb" \d+ files? changed(?:, \d+ [a-z]+\([+-]\))*|"
    rb" (?:create|delete) mode \d{6} .*|"
    rb" mode change \d{6} => \d{6} .*|"
    rb" (?:rename|copy|rewrite) .*\(\d+%\)"
)


def remail(objects: Objects, patch: Patch, before: str, after: str) -> bytes:
    """The patch's mail with the difference of two trees as its diff."""
    with Mails(objects) as mails:
        mails.ask(patch, before, after)
        return mails.written()[0]


class Mails:
    """The mails of patches that moved, written by git while others are still being moved.

    However many there are, git is started once, or twice where some of them rename files.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._stack = contextlib.ExitStack()
        self._differing: dict[bool, _Differing] = {}
        self._asked: list[tuple[Patch, bool]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stack.__exit__(*raised)

    def ask(self, patch: Patch, before: str, after: str) -> None:
        """Have a patch written with the difference of two trees as its diff."""
        renames = _renames(patch)
        if renames not in self._differing:
            made = _Differing(self._objects, renames=renames)
            self._differing[renames] = self._stack.enter_context(made)
        self._differing[renames].ask(before, after)
        self._asked.append((patch, renames))

    def written(self) -> list[bytes]:
        """The mail of each patch that was asked for, in order. Once; nothing is asked after it."""
        told = {renames: iter(one.told()) for renames, one in self._differing.items()}
        return [_head(patch) + next(told[renames]) for patch, renames in self._asked]


def _head(patch: Patch) -> bytes:
    """What stands above the diff, notes below the `---` too; a diffstat would be the old one's."""
    start = _DIFF.search(patch.raw)
    head = patch.raw[: start.start()] if start else patch.raw
    if separator := _SEPARATOR.search(head):
        below = head[separator.end() :].split(b"\n")
        noted = b"\n".join(line for line in below if not _STAT.fullmatch(line)).strip(b"\n")
        head = head[: separator.end()] + (noted + b"\n\n" if noted else b"\n")
    return head


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
    with _Differing(objects, renames=renames, skipped=skipped) as differing:
        differing.ask(before, after)
        return differing.told()[0]


class _Differing:
    """One git that tells the differences of pairs of trees, as `diff` does."""

    def __init__(
        self, objects: Objects, *, renames: bool = False, skipped: Sequence[str] = ()
    ) -> None:
        left_out = [f":(exclude,top,literal){path}" for path in skipped]
        self._argv: tuple[str | Path, ...] = (
            *("git", "--git-dir", objects.path),
            *(word for setting in _SETTINGS for word in ("-c", setting)),
            *("diff-tree", "--stdin", "-p", "-r", "--full-index", "--unified=3", "--no-color"),
            *("--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/"),
            "-M" if renames else "--no-renames",
            *(("--", ".", *left_out) if left_out else ()),
        )
        self._asked: list[tuple[bytes, bytes]] = []
        self._running = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._said = tempfile.TemporaryFile()
        feeding = proc.feeding(self._argv, env=_NOBODYS_SETTINGS, output=self._said)
        self._write = self._running.enter_context(feeding)
        return self

    def __exit__(self, *raised: Any) -> None:
        with self._said:
            self._running.__exit__(*raised)

    def ask(self, before: str, after: str) -> None:
        """Have git tell the difference of two trees."""
        self._asked.append((before.encode(), after.encode()))
        self._write(b"%s %s\n" % self._asked[-1])

    def told(self) -> list[bytes]:
        """The diffs, in the order in which they were asked for; empty where trees are the same."""
        self._running.close()
        self._said.seek(0)
        # git says the two trees before each diff, on a line that no line of a diff looks like.
        _, *told = _PAIR.split(self._said.read())
        if list(zip(told[0::3], told[1::3], strict=True)) != self._asked:
            msg = f"git did not tell {len(self._asked)} differences of trees one by one"
            raise EnvironmentProblem(msg, hint="`stackpatch doctor` looks at git")
        return told[2::3]


def _renames(patch: Patch) -> bool:
    return any(file.change in (Change.RENAME, Change.COPY) for file in patch.files)
