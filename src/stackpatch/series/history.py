"""What the commits between two upstream versions say of a patch, where there is a history.

Archives from PyPI have none, and a shallow fetch has next to none: then that is the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stackpatch import proc
from stackpatch.model.verdict import Evidence, Layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackpatch.model.diff import FilePatch
    from stackpatch.model.patch import Patch
    from stackpatch.sources.objects import Objects

_COMMIT_LINK = re.compile(r"/commit/([0-9a-f]{40})\b")
_PULL_LINK = re.compile(r"/([^/\s]+)/pull/(\d+)\b")
_ENV = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
_SECONDS = 120.0
_BRIEF = "--format=%H%x09%cs%x09%s"
_NAMES = 9  # of one file that are followed
_SHORT = 12  # of an added line: shorter ones (`}`, `else:`) stand everywhere


@dataclass(frozen=True, slots=True)
class _Departure:
    """A commit that renamed a file, or removed it (renamed: None)."""

    commit: str
    evidence: Evidence
    renamed: str | None


def search(
    objects: Objects, base: str, target: str, patch: Patch, *, home: str | None = None
) -> tuple[Evidence, ...]:
    """Evidence from the commits that are in `target` and not in `base`.

    A named commit or pull request, an equal patch-id, where files went that are gone, and the first
    commit that brought a line that the patch adds, under any name of its file. Commits are ids in
    the store. home: the upstream's address, where it is known; another project's pull request of
    the same number is another one.
    """
    if not _related(objects, base, target):
        says = "no history connects the two versions in the source store (--history fetches it)"
        return (Evidence(Layer.SEARCH, says),)
    departed: list[Evidence] = []
    brought: list[Evidence] = []
    for file in patch.files:
        names = [file.path]
        for one in _departed(objects, base, target, file.path):
            departed.append(one.evidence)
            names += [one.renamed] if one.renamed is not None else []
        brought += _pickaxe(objects, base, target, file, names)
    return (
        *_named(objects, base, target, patch, home),
        *_equal(objects, base, target, patch),
        *departed,
        *brought,
    )


def changed_by(
    objects: Objects, base: str, target: str, path: str, lines: Sequence[bytes]
) -> tuple[Evidence, ...]:
    """The upstream commits between two versions that changed these lines of a file.

    The one that renamed or removed a file which is gone; for every line the first commit that
    removed or multiplied it, under any name of the file; where none did, the last commit that
    touched it. Nothing where no history connects the versions.
    """
    if not _related(objects, base, target):
        return ()
    departed = list(_departed(objects, base, target, path))
    names = [path, *(one.renamed for one in departed if one.renamed is not None)]
    found = {one.commit: one.evidence for one in departed}
    for line in dict.fromkeys(text.strip().decode("utf-8", "replace") for text in lines):
        if len(line) < _SHORT:
            continue
        log = _git(
            objects, "log", "--reverse", _BRIEF, f"-S{line}", f"{base}..{target}", "--", *names
        )
        for commit, date, subject in _briefs(log)[:1]:
            says = f"commit {commit[:12]} of {date} changed {line[:80]!r}"
            found.setdefault(commit, Evidence(Layer.SEARCH, says, path, text=subject))
    if not found:
        log = _git(objects, "log", "-1", _BRIEF, f"{base}..{target}", "--", path)
        for commit, date, subject in _briefs(log):
            says = f"commit {commit[:12]} of {date} is the last that touched {path}"
            found[commit] = Evidence(Layer.SEARCH, says, path, text=subject)
    return tuple(found.values())


def committed(objects: Objects, commit: str) -> datetime:
    """When a commit was made, in UTC."""
    return datetime.fromtimestamp(int(_git(objects, "log", "-1", "--format=%ct", commit)), UTC)


def _briefs(log: str) -> list[tuple[str, str, str]]:
    """Commit, date and subject of each line that `_BRIEF` printed."""
    fields = (line.split("\t", 2) for line in _lines(log))
    return [(commit, date, subject) for commit, date, subject in fields]


def _lines(log: str) -> list[str]:
    """What git printed, by line feeds only: a subject may hold what Unicode calls a line's end."""
    return log.removesuffix("\n").split("\n") if log else []


def _related(objects: Objects, base: str, target: str) -> bool:
    return _git(objects, "merge-base", base, target, check=False).strip() != ""


def _named(
    objects: Objects, base: str, target: str, patch: Patch, home: str | None
) -> list[Evidence]:
    found = []
    claims = " ".join((patch.trailers.status_note or "", patch.message))
    for commit in dict.fromkeys(_COMMIT_LINK.findall(claims)):
        # One that the base has too is what the patch mends or builds on, not its landing.
        if objects.has(commit) and _is_in(objects, commit, target, but_not=base):
            says = f"commit {commit[:12]}, which the patch names, is in this version"
            found.append(_landing(objects, target, Layer.COMMIT, commit, says))
    for project, pull in dict.fromkeys(_PULL_LINK.findall(patch.trailers.status_note or "")):
        if _project(home or "") not in (None, project.lower()):
            continue
        merged = re.compile(rf"Merge pull request #{pull}\b|.*\(#{pull}\)$")
        log = _git(objects, "log", "--format=%H %s", "-E", f"--grep=#{pull}", f"{base}..{target}")
        for line in _lines(log):
            commit, _, subject = line.partition(" ")
            if merged.match(subject):
                says = f"commit {commit[:12]} merged #{pull}, which the patch names"
                found.append(_landing(objects, target, Layer.COMMIT, commit, says))
    return found


def _project(address: str) -> str | None:
    """The project's name in a repository's URL, whoever's copy it is; a folder may be named so."""
    if not address or address.startswith(("/", "file:")):
        return None
    return re.split(r"[/:]", address.rstrip("/").removesuffix(".git"))[-1].lower()


def _is_in(objects: Objects, commit: str, target: str, *, but_not: str) -> bool:
    def ancestor(of: str) -> bool:
        words = ("git", "--git-dir", objects.path, "merge-base", "--is-ancestor", commit, of)
        return proc.run(words, env=_ENV, check=False).status == 0

    return ancestor(target) and not ancestor(but_not)


def _landing(objects: Objects, target: str, layer: Layer, commit: str, says: str) -> Evidence:
    """Evidence that a commit is upstream; of the search's layer where it was taken back."""
    undone = _reverted(objects, commit, target)
    if undone is None:
        return Evidence(layer, says, text=_subject(objects, commit))
    says = f"{says}, and commit {undone[:12]} reverts it"
    return Evidence(Layer.SEARCH, says, text=_subject(objects, undone))


def _reverted(objects: Objects, commit: str, target: str, depth: int = _NAMES) -> str | None:
    """The commit that says it reverts this one, and is not reverted itself; None: there is none."""
    said = f"This reverts commit {commit}"
    log = _git(objects, "log", "--format=%H", "-F", f"--grep={said}", f"{commit}..{target}")
    for other in _lines(log) if depth else ():
        if _reverted(objects, other, target, depth - 1) is None:
            return other
    return None


def _equal(objects: Objects, base: str, target: str, patch: Patch) -> list[Evidence]:
    own = {patch_id for patch_id, _ in _patch_ids(objects, patch.raw)}
    paths = [file.path for file in patch.files]
    log = proc.run(
        ("git", "--git-dir", objects.path, "log", "-p", "--full-index", "--no-ext-diff",
         "--format=commit %H", f"{base}..{target}", "--", *paths),
        env=_ENV,
        timeout=_SECONDS,
    ).stdout  # fmt: skip
    found = [
        _landing(
            objects, target, Layer.PATCH_ID, commit, f"commit {commit[:12]} has the same patch-id"
        )
        for patch_id, commit in _patch_ids(objects, log)
        if patch_id in own and commit.strip("0")
    ]
    # The newest that stands; of those that were all taken back, the newest.
    return sorted(found, key=lambda one: one.layer is Layer.SEARCH)[:1]


def _departed(objects: Objects, base: str, target: str, path: str) -> Iterator[_Departure]:
    """The commits that renamed or removed a file which is gone, one name after the other."""
    for _ in range(_NAMES):
        if objects.entry(objects.tree_of(target), path) is not None:
            return
        removals = ("log", "-1", _BRIEF, "--no-renames", "--diff-filter=D")
        briefs = _briefs(_git(objects, *removals, f"{base}..{target}", "--", path))
        if not briefs:
            return
        ((commit, date, subject),) = briefs
        renames = ("diff-tree", "-r", "-z", "--no-commit-id", "--name-status", "--diff-filter=R")
        fields = _git(objects, *renames, "-M", commit).split("\0")
        renamed = next((new for old, new in zip(fields[1::3], fields[2::3], strict=False)
                        if old == path), None)  # fmt: skip
        did = f"removed {path}" if renamed is None else f"renamed {path} to {renamed}"
        says = f"commit {commit[:12]} of {date} {did}"
        evidence = Evidence(Layer.SEARCH, says, renamed or path, text=subject)
        yield _Departure(commit, evidence, renamed)
        if renamed is None:
            return
        path = renamed


def _pickaxe(
    objects: Objects, base: str, target: str, file: FilePatch, names: Sequence[str]
) -> list[Evidence]:
    added = [t for h in file.hunks for t in h.added if len(t.strip()) >= _SHORT]
    if not added:
        return []
    line = max(added, key=len).rstrip(b"\r\n").decode("utf-8", "replace")
    log = _git(
        objects,
        "log",
        "--reverse",
        "--format=%H %s",
        f"-S{line}",
        f"{base}..{target}",
        "--",
        *names,
    )
    found = []
    for brief in _lines(log)[:1]:
        commit, _, subject = brief.partition(" ")
        says = f"commit {commit[:12]} is the first that touches the line {line.strip()[:80]!r}"
        found.append(Evidence(Layer.SEARCH, says, file.path, text=subject))
    return found


def _patch_ids(objects: Objects, diff: bytes) -> list[tuple[str, str]]:
    """Patch-id and commit of each diff; equal ones are all there."""
    done = proc.run(
        ("git", "--git-dir", objects.path, "patch-id", "--stable"), stdin=diff, env=_ENV
    )
    pairs = (line.split(" ", 1) for line in done.text().splitlines() if " " in line)
    return [(patch_id, commit.strip()) for patch_id, commit in pairs]


def _subject(objects: Objects, commit: str) -> str:
    return _git(objects, "log", "-1", "--format=%s", commit).strip()


def _git(objects: Objects, *words: str, check: bool = True) -> str:
    done = proc.run(
        ("git", "--git-dir", objects.path, *words), env=_ENV, timeout=_SECONDS, check=check
    )
    return done.text()
