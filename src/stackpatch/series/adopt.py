"""A foreign branch's commits as patches on a release: each moved there, none lost in silence.

Merges are linearised: what a merge only brought together is in the commits themselves. What a
merge changed on its own (a conflict resolved, something slipped in) is in no commit, so such a
merge is a finding with its name and its paths.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stackpatch import proc
from stackpatch.errors import EnvironmentProblem, InputError, Problems
from stackpatch.model.patch import parse_patch
from stackpatch.series.export import diff
from stackpatch.series.landed import decide
from stackpatch.series.mail import compose, disarmed, file_name
from stackpatch.series.pick import Move, Outcome, move
from stackpatch.sources.packing import PRIVATE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stackpatch.model.patch import Patch
    from stackpatch.model.verdict import Evidence
    from stackpatch.sources.forks import Commit
    from stackpatch.sources.objects import Objects

_FOLLOWS_UP = re.compile(r"(fixup|squash|amend)! (.*)", re.DOTALL)
_REVERTS = re.compile(r"This reverts commit ([0-9a-f]{7,40})\b")
_POINTER = b"version https://git-lfs.github.com/spec/"

EMPTY, MERGE, LEFT_OUT, CONTAINED = "empty", "merge", "left-out", "contained"
OWN_CHANGES, UNREADABLE = "own-changes", "unreadable"
_STOPS = {OWN_CHANGES, UNREADABLE, Outcome.CONFLICT.value, Outcome.MISPLACED.value}


@dataclass(frozen=True, slots=True)
class Adopted:
    """What became of one commit.

    outcome: a word of `pick.Outcome`, or `empty`, `merge` (nothing of its own), `left-out` (by
    the person's word), `contained` (the series has it already), `own-changes` (of a merge),
    `unreadable` (no mail can say it). notes: what a person should know besides. name: of the
    patch file, None where there is none. mail: without the trailers that are still asked for.
    """

    commit: Commit
    outcome: str
    detail: str
    notes: tuple[str, ...] = ()
    name: str | None = None
    mail: bytes | None = None
    moved: Move | None = None
    history: tuple[Evidence, ...] = ()

    @property
    def stops(self) -> bool:
        """Whether a person must decide before anything is written."""
        return self.outcome in _STOPS


@dataclass(frozen=True, slots=True)
class Target:
    """Where the patches go. tree: the release with the series that it has. release: without.

    covers: whether the release's kind of source can hold a path. history: what upstream's commits
    say of a patch.
    """

    tree: str
    release: str
    covers: Callable[[str], bool]
    history: Callable[[Patch], tuple[Evidence, ...]] = lambda _: ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person asked for. left_out: commit ids. skipped: paths or folders not to import.

    trailers: added to every mail, from its commit.
    """

    trailers: Callable[[Commit], Sequence[tuple[str, str]]]
    left_out: frozenset[str] = frozenset()
    skipped: tuple[str, ...] = ()
    number: int = 1


def adopt(
    objects: Objects, commits: Sequence[Commit], target: Target, wish: Wish
) -> tuple[tuple[Adopted, ...], str]:
    """Every commit, in order, as a patch on the target; and the tree with all of them.

    One that stops does not stop the others: all findings in one run.
    """
    tree, number = target.tree, wish.number
    rows: list[Adopted] = []
    stopped: str | None = None
    for commit in commits:
        row = _adopt(objects, tree, commit, target, wish, number)
        if row.stops:
            if stopped is not None and len(commit.parents) < 2:
                detail = f"{row.detail}; perhaps only because {stopped} is missing before it"
                row = replace(row, detail=detail)
            stopped = stopped or commit.id[:12]
        rows.append(replace(row, notes=(*row.notes, *_notes(objects, commit, commits))))
        if row.mail is not None and row.moved is not None:
            tree = row.moved.tree
            number += 1
    return tuple(rows), tree


def squashed(head: Commit, base: str, commits: Sequence[Commit]) -> Commit:
    """One commit that holds the whole branch: written by the first author, the others named.

    Its id is the head's, its parent the base: what merges changed on their own is in it.
    """
    own = [one for one in commits if len(one.parents) < 2] or [head]
    first = own[0]
    if len(own) == 1:
        return replace(first, id=head.id, parents=(base,), tree=head.tree)
    listed = "\n".join(f"- {one.id[:12]} {one.subject}" for one in own)
    paragraph, _, body = first.message.strip().partition("\n\n")
    others = dict.fromkeys(
        f"Co-authored-by: {one.name} <{one.email}>" for one in own if one.email != first.email
    )
    parts = [paragraph, _without_trailers(body), f"{len(own)} commits in one:\n\n{listed}"]
    parts += ["\n".join(others)] if others else []
    message = "\n\n".join(part for part in parts if part) + "\n"
    newest = max(own, key=lambda one: one.seconds)
    return replace(
        first,
        id=head.id,
        parents=(base,),
        tree=head.tree,
        message=message,
        seconds=newest.seconds,
        offset=newest.offset,
        exact=all(one.exact for one in own),
    )


def _without_trailers(body: str) -> str:
    from stackpatch.model.trailers import parse_trailers

    paragraphs = body.strip("\n").split("\n\n")
    found, problems = parse_trailers(body)
    return "\n\n".join(paragraphs[:-1]) if found.others and not problems else body.strip("\n")


def _adopt(
    objects: Objects, tree: str, commit: Commit, target: Target, wish: Wish, number: int
) -> Adopted:
    if commit.id in wish.left_out:
        return Adopted(commit, LEFT_OUT, "left out as asked")
    if len(commit.parents) > 1:
        return _merge(objects, commit)
    before = objects.tree_of(commit.parents[0]) if commit.parents else _empty_tree(objects)
    if before == commit.tree:
        return Adopted(commit, EMPTY, "changes nothing")
    raw = diff(objects, before, commit.tree, renames=True, skipped=wish.skipped)
    if not raw:
        return Adopted(commit, LEFT_OUT, f"changes only {', '.join(wish.skipped)}")
    name = file_name(number, commit.subject)
    try:
        mail = compose(commit, wish.trailers(commit), raw)
        patch = parse_patch(name, mail)
    except Problems as error:
        told = "; ".join(line.split(": ", 1)[-1] for line in error.problems)
        return Adopted(commit, UNREADABLE, f"cannot be written as a patch: {told}")
    moved = move(objects, tree, patch, origin=before, covers=target.covers)
    history = target.history(patch) if moved.outcome is not Outcome.UNTOUCHED else ()
    if moved.outcome is Outcome.LANDED and tree != target.release:
        upstream = decide(objects, target.release, patch, origin=before, covers=target.covers)
        if not upstream.word.may_drop:
            return Adopted(
                commit, CONTAINED, "the series has it already", moved=moved, history=history
            )
    taken = moved.mail is not None
    return Adopted(
        commit,
        moved.outcome.value,
        moved.detail,
        name=name if taken else None,
        mail=moved.mail,
        moved=moved,
        history=history,
    )


def _merge(objects: Objects, commit: Commit) -> Adopted:
    """A merge that git makes again the same is in its parents' commits; else it has its own."""
    if len(commit.parents) > 2:
        detail = f"a merge of {len(commit.parents)} branches cannot be made again to compare"
        return Adopted(commit, OWN_CHANGES, detail)
    done = proc.run(
        ("git", "--git-dir", objects.path, "merge-tree", "--write-tree", *commit.parents),
        env=PRIVATE,
        check=False,
    )
    made = done.text().split("\n", 1)[0]
    if done.status not in (0, 1) or not re.fullmatch(r"[0-9a-f]{40}", made):
        if "usage: git merge-tree" in done.error_text() or "unknown option" in done.error_text():
            msg = "git is too old to look into merges"
            raise EnvironmentProblem(msg, hint="git 2.38 or newer is needed")
        return Adopted(commit, OWN_CHANGES, "a merge that cannot be made again to compare")
    if made == commit.tree:
        return Adopted(commit, MERGE, "linearised; it changed nothing on its own")
    listed = proc.run(
        ("git", "--git-dir", objects.path, "diff-tree", "-r", "-z", "--name-only", made,
         commit.tree),
        env=PRIVATE,
    ).stdout.decode("utf-8", "surrogateescape")  # fmt: skip
    paths = [path for path in listed.split("\0") if path]
    how = "resolves conflicts in" if done.status else "changes on its own"
    return Adopted(commit, OWN_CHANGES, f"the merge {how} {', '.join(paths)}")


def _notes(objects: Objects, commit: Commit, commits: Sequence[Commit]) -> tuple[str, ...]:
    """What a person who wants a tidy series should know of the commit."""
    found = []
    if follows := _FOLLOWS_UP.match(commit.subject):
        meant = next((c for c in commits if c.subject == follows[2] and c is not commit), None)
        to = f"{meant.id[:12]} {meant.subject!r}" if meant else "a commit that is not in the branch"
        found.append(f"a {follows[1]} for {to}; `git rebase -i --autosquash` joins them")
    for reverted in _REVERTS.findall(commit.message):
        meant = next((c for c in commits if c.id.startswith(reverted)), None)
        if meant is not None:
            found.append(
                f"reverts {meant.id[:12]} {meant.subject!r}, which is in the branch too; "
                "with --leave-out for both neither becomes a patch"
            )
    if lines := disarmed(commit):
        told = ", ".join(repr(line[:60]) for line in lines)
        found.append(f"indented in its message, where they read like what they are not: {told}")
    if not commit.exact:
        found.append("its message or author is not in the encoding that it says")
    if len(commit.parents) == 1:
        found += _pointers(objects, objects.tree_of(commit.parents[0]), commit.tree)
    return tuple(found)


def _pointers(objects: Objects, before: str, after: str) -> list[str]:
    """Files of git LFS that the commit changes: the tree holds pointers, not their bytes."""
    listed = proc.run(
        ("git", "--git-dir", objects.path, "diff-tree", "-r", "-z", "--no-renames", "--no-abbrev",
         before, after),
        env=PRIVATE,
    ).stdout.decode("utf-8", "surrogateescape")  # fmt: skip
    fields = listed.split("\0")
    found = []
    for facts, path in zip(fields[::2], fields[1::2], strict=False):
        _, mode, _, blob, _ = facts.lstrip(":").split(" ")
        if mode in ("100644", "100755") and objects.blob(blob).startswith(_POINTER):
            found.append(f"{path} is a git LFS pointer: the patch changes it, not the file's bytes")
    return found


def _empty_tree(objects: Objects) -> str:
    return objects.with_changes("", {})


def choose(commits: Sequence[Commit], wanted: Sequence[str]) -> frozenset[str]:
    """The commits that a person named by their first digits. Raises InputError for none or two."""
    found = set()
    for prefix in wanted:
        meant = [one.id for one in commits if one.id.startswith(prefix.lower())]
        if len(prefix) < 7 or len(meant) != 1:
            what = "no commit" if not meant else "more than one commit"
            msg = f"--leave-out {prefix}: {what} of the branch begins with it"
            raise InputError(msg, hint="give at least 7 digits of a commit that the branch has")
        found.add(meant[0])
    return frozenset(found)


def mails(rows: Sequence[Adopted]) -> Mapping[str, bytes]:
    """The new patches by file name, in order."""
    return {row.name: row.mail for row in rows if row.name is not None and row.mail is not None}
