"""Applying patches: functions from tree to tree, exact, guarded, all failures listed.

Works on objects in the source store; no work tree and no child process. The commits depend on the
tree, the patches and nothing else, so their ids are the same on every machine.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stackpatch.model.diff import Change, FilePatch
from stackpatch.series.edits import patched, replace_at
from stackpatch.series.placement import Placed, Refused, place_hunks
from stackpatch.series.side import Side
from stackpatch.sources.objects import (
    DIRECTORY,
    EXECUTABLE,
    REGULAR,
    SUBMODULE,
    SYMLINK,
    Entry,
    Objects,
    Signature,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stackpatch.model.patch import Patch
    from stackpatch.series.symbols import Symbols

# Who commits: never the author's name (b4's rule: the tool is the committer, not a forger).
COMMITTER_NAME = "stackpatch"
COMMITTER_EMAIL = "stackpatch@localhost"


@dataclass(frozen=True, slots=True)
class FileApplied:
    """One file of an applied patch and where its hunks went."""

    path: str
    change: Change
    placed: tuple[Placed, ...]

    @property
    def offsets(self) -> tuple[int, ...]:
        """The hunks' offsets in lines, zeros left out."""
        return tuple(p.offset for p in self.placed if p.offset)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one file, or one hunk of it, did not apply.

    reason: a word of `placement.Reason`, or `missing`, `exists`, `binary`, `mode`, `unsafe`,
    `duplicate`, `broken`. line: the hunk's or file's line in the mail.
    """

    path: str
    reason: str
    detail: str
    line: int
    expected: str | None = None
    candidates: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PatchResult:
    """What became of one patch: applied when there are no failures.

    changes: path → entry, None for removed. tree: the tree afterwards, as before when it failed.
    """

    patch: Patch
    tree: str
    files: tuple[FileApplied, ...] = ()
    failures: tuple[Failure, ...] = ()
    changes: Mapping[str, Entry | None] = field(default_factory=dict)

    @property
    def applied(self) -> bool:
        """Whether it went on completely."""
        return not self.failures

    @property
    def offset(self) -> int:
        """The largest offset of its hunks in lines, signed; 0 when all are where they were."""
        return max((o for f in self.files for o in f.offsets), key=abs, default=0)


@dataclass(frozen=True, slots=True)
class SeriesResult:
    """What became of a series. commits: one a patch, in order; empty when anything failed."""

    base: str
    tree: str
    results: tuple[PatchResult, ...]
    commits: tuple[str, ...]

    @property
    def applied(self) -> bool:
        """Whether every patch went on."""
        return all(result.applied for result in self.results)

    @property
    def changes(self) -> dict[str, Entry | None]:
        """Every path that differs from the base, with what lies there now."""
        merged: dict[str, Entry | None] = {}
        for result in self.results:
            merged.update(result.changes)
        return merged


def apply_series(
    objects: Objects,
    base: str,
    patches: Sequence[Patch],
    *,
    parent: str | None = None,
    among: Sequence[Patch] = (),
) -> SeriesResult:
    """Apply patches in order to the tree `base`; commits get `parent` as first parent.

    Later patches are tried on what the earlier ones left even when one of those failed, so that
    every failure is listed; then no commit is made.
    among: the series that these are some of. It goes on first, for nothing but the files between
    its patches: a patch may have been made on one that only another arch has, and whether that is
    known must not depend on what was done here before.
    """
    if len(among) > len(patches):
        apply_series(objects, base, among)
    tree = base
    results: list[PatchResult] = []
    commits: list[str] = []
    whole = True
    for patch in patches:
        result = apply_patch(objects, tree, patch)
        results.append(result)
        whole = whole and result.applied
        tree = result.tree
        if whole:
            above = commits[-1] if commits else parent
            commits.append(commit_patch(objects, tree, patch, (above,) if above else ()))
    return SeriesResult(base, tree, tuple(results), tuple(commits) if whole else ())


def commit_patch(objects: Objects, tree: str, patch: Patch, parents: tuple[str, ...]) -> str:
    """Commit the tree with the patch's author, date and message."""
    zone = patch.date.utcoffset()
    seconds, offset = int(patch.date.timestamp()), int(zone.total_seconds() // 60) if zone else 0
    author = Signature(patch.author_name, patch.author_email, seconds, offset)
    committer = Signature(COMMITTER_NAME, COMMITTER_EMAIL, seconds, offset)
    return objects.commit(tree, parents, author, committer, patch.message.encode())


def apply_patch(objects: Objects, tree: str, patch: Patch) -> PatchResult:
    """Apply one patch to a tree under every guard of the contract."""
    applied: list[FileApplied] = []
    failures: list[Failure] = []
    changes: dict[str, Entry | None] = {}
    room = room_for(objects, tree, patch)
    for file in patch.files:
        outcome = apply_file(objects, tree, room, file)
        if isinstance(outcome, list):
            failures += outcome
        else:
            done, entries = outcome
            applied.append(done)
            changes.update(entries)
    failures += collisions(patch, changes)
    if failures:
        return PatchResult(patch, tree, failures=tuple(failures))
    return PatchResult(patch, objects.with_changes(tree, changes), tuple(applied), (), changes)


Outcome = tuple[FileApplied, dict[str, Entry | None]] | list[Failure]


def room_for(objects: Objects, tree: str, patch: Patch) -> str:
    """The tree without the files that the patch takes away: where its new files must find room.

    A file that becomes a folder, or a link, is a deletion and an addition in one patch.
    """
    if all(file.new_path in (None, file.old_path) for file in patch.files):
        return tree
    taken = {
        file.old_path: None
        for file in patch.files
        if file.old_path is not None
        and file.change in (Change.DELETE, Change.RENAME)
        and (entry := objects.entry(tree, file.old_path)) is not None
        and entry.mode != DIRECTORY
    }
    return objects.with_changes(tree, taken) if taken else tree


def collisions(patch: Patch, changes: Mapping[str, Entry | None]) -> list[Failure]:
    """Files of one patch that need a folder where another file of it is."""
    written = {path for path, entry in changes.items() if entry is not None}
    failures = []
    for file in patch.files:
        if file.new_path in written:
            parts = (file.new_path or "").split("/")
            above = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
            if blocking := next((path for path in above if path in written), None):
                detail = f"{file.path} would be written through {blocking}, which this patch writes"
                failures.append(Failure(file.path, "unsafe", detail, file.line))
    return failures


def apply_file(objects: Objects, tree: str, room: str, file: FilePatch) -> Outcome:
    """One file of a patch: what was applied and what lies where then, or why it does not apply.

    room: the tree in which a new file must find its place; see `room_for`.
    """

    def refuse(reason: str, detail: str) -> list[Failure]:
        return [Failure(file.path, reason, detail, file.line)]

    if file.binary:
        return refuse("binary", "binary patches are not applied; ship the file's source instead")
    for path, inside in ((file.old_path, tree), (file.new_path, room)):
        moves = path != file.old_path or inside is tree
        if path is not None and moves and (blocked := blocked_at(objects, inside, path)):
            return refuse("unsafe", blocked)
    old = objects.entry(tree, file.old_path) if file.old_path is not None else None
    if file.old_path is not None:
        if old is None:
            return refuse("missing", f"{file.old_path} is not in the tree")
        if old.mode in (DIRECTORY, SUBMODULE):
            kind = "folder" if old.mode == DIRECTORY else "submodule"
            return refuse("mode", f"{file.old_path} is a {kind} in the tree")
        expected = file.old_mode
        if expected is not None and (old.mode == SYMLINK) != (expected == SYMLINK):
            kind = "a symbolic link" if old.mode == SYMLINK else "a regular file"
            return refuse("mode", f"{file.old_path} is {kind} in the tree")
        if file.new_mode != file.old_mode and expected is not None and expected != old.mode:
            return refuse("mode", f"{file.old_path} has mode {old.mode:o}, not {expected:o}")
    if file.new_path not in (None, file.old_path):
        there = objects.entry(room, file.new_path or "")
        if there is not None:
            kind = "a folder" if there.mode == DIRECTORY else "already"
            return refuse("exists", f"{file.new_path} is {kind} in the tree")

    before = Side(file.old_path or file.path, objects.blob(old.id) if old else b"")
    base = _base(objects, file, before, old)
    placed, refused = place_hunks(file.hunks, before, base)
    if refused:
        return [_failure(file, hunk) for hunk in refused]
    content = replace_at(before.lines, [(p.hunk, p.start) for p in placed])
    if file.change is Change.DELETE and content:
        return refuse("no-match", "the file holds more than the patch removes")
    mode = file.new_mode if file.new_mode is not None else (old.mode if old else REGULAR)
    if mode != SYMLINK and (base is None or base.content != before.content):
        broken = guard_result(file, before, base, content)
        if broken:
            return refuse(*broken)
    makes_link = mode == SYMLINK and file.new_path is not None
    if makes_link and (reason := _bad_link(file.path, content)):
        return refuse("unsafe", reason)
    if old is not None and file.new_mode == file.old_mode and old.mode in (REGULAR, EXECUTABLE):
        mode = old.mode
    changes: dict[str, Entry | None] = {}
    if file.old_path is not None and file.change in (Change.DELETE, Change.RENAME):
        changes[file.old_path] = None
    if file.new_path is not None:
        changes[file.new_path] = Entry(mode, objects.write_blob(content))
    return FileApplied(file.path, file.change, tuple(placed)), changes


def _base(objects: Objects, file: FilePatch, before: Side, old: Entry | None) -> Side | None:
    """The file that the patch was made on, by the blob id on its index line."""
    if file.change is Change.ADD:
        return before
    if old is not None and file.old_id and len(file.old_id) >= 7 and old.id.startswith(file.old_id):
        return before  # the usual case: this very file; no search in the store
    blob = objects.find_blob(file.old_id) if file.old_id else None
    if blob is None:
        # A pure rename has no index line: it names no lines, so there is nothing to misplace.
        return before if not file.hunks else None
    return Side(before.path, objects.blob(blob))


def _failure(file: FilePatch, refused: Refused) -> Failure:
    return Failure(
        file.path,
        refused.reason.value,
        refused.detail,
        refused.hunk.line,
        refused.expected,
        refused.candidates,
    )


def blocked_at(objects: Objects, tree: str, path: str) -> str | None:
    """Guard 5: a file or a link in the tree where the path needs a folder."""
    parts = path.split("/")
    for depth in range(1, len(parts)):
        above = "/".join(parts[:depth])
        entry = objects.entry(tree, above)
        if entry is None:
            return None
        if entry.mode == SYMLINK:
            return f"{path} would be written through the symbolic link {above}"
        if entry.mode != DIRECTORY:
            return f"{path} needs a folder where the tree has {above}"
    return None


def _bad_link(path: str, content: bytes) -> str | None:
    """Why this link must not be made.

    `..` may only lead: after a name it may climb out of what another link leads to.
    """
    target = content.decode("utf-8", "surrogateescape")
    if not target or "\0" in target:
        return f"{path} would be a link to nothing"
    if target.startswith("/"):
        return f"{path} would be a link to the absolute path {target}"
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climbs = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    if climbs > path.count("/"):
        return f"{path} would be a link that leaves the tree: {target}"
    if ".." in parts[climbs:]:
        return f"{path} would be a link with `..` after a name: {target}"
    return None


def guard_result(
    file: FilePatch, before: Side, base: Side | None, content: bytes
) -> tuple[str, str] | None:
    """What is wrong with a result that a place-by-place check cannot see.

    A definition that the patch adds and the tree already has elsewhere in the file applies
    cleanly and yields two of them; text that merges can still be no program.
    """
    after = Side(before.path, content)
    known = before.symbols
    if known.language is None:
        return None
    meant = None
    if base is not None:
        meant = patched(file, base).symbols
    # Where the patch itself makes its own base unreadable, it is the grammar that falls short.
    if after.symbols.unread and not known.unread and not (meant and meant.unread):
        first = after.symbols.unread[0][0]
        return "broken", f"the result does not parse at line {first}, the file did before"
    had, allowed = _definitions(known), _definitions(meant)
    for symbol in after.symbols.all:
        key = (symbol.name, symbol.signature)
        count = symbol.ordinal + 1
        if count > 1 and count > had[key] and count > allowed[key]:
            return "duplicate", f"the file would define {symbol.name} {count} times"
    return None


def _definitions(symbols: Symbols | None) -> Counter[tuple[str, str]]:
    return Counter((s.name, s.signature) for s in symbols.all) if symbols else Counter()
