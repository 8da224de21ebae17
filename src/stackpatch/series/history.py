"""What the commits between two upstream versions say of a patch, where there is a history.

Archives from PyPI have none, and a shallow fetch has next to none: then that is the answer.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stackpatch import proc
from stackpatch.model.verdict import Evidence, Layer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackpatch.model.patch import Patch
    from stackpatch.sources.objects import Objects

_COMMIT_LINK = re.compile(r"/commit/([0-9a-f]{40})\b")
_PULL_LINK = re.compile(r"/pull/(\d+)\b")
_ENV = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
_SECONDS = 120.0
_BRIEF = "--format=%H%x09%cs%x09%s"
_SHORT = 12  # of an added line: shorter ones (`}`, `else:`) stand everywhere


def search(objects: Objects, base: str, target: str, patch: Patch) -> tuple[Evidence, ...]:
    """Evidence from the commits that are in `target` and not in `base`.

    A named commit or pull request, an equal patch-id, and the first commit that brought a line
    that the patch adds. Commits are ids in the store.
    """
    if not _related(objects, base, target):
        says = "no history connects the two versions in the source store (--history fetches it)"
        return (Evidence(Layer.SEARCH, says),)
    return (
        *_named(objects, base, target, patch),
        *_equal(objects, base, target, patch),
        *_pickaxe(objects, base, target, patch),
    )


def changed_by(
    objects: Objects, base: str, target: str, path: str, lines: Sequence[bytes]
) -> tuple[Evidence, ...]:
    """The upstream commits between two versions that changed these lines of a file.

    For every line the first commit that removed or multiplied it; where none did, the last commit
    that touched the file. Nothing where no history connects the versions.
    """
    if not _related(objects, base, target):
        return ()
    found: dict[str, Evidence] = {}
    for line in dict.fromkeys(text.strip().decode("utf-8", "replace") for text in lines):
        if len(line) < _SHORT:
            continue
        log = _git(
            objects, "log", "--reverse", _BRIEF, f"-S{line}", f"{base}..{target}", "--", path
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
    fields = (line.split("\t", 2) for line in log.splitlines())
    return [(commit, date, subject) for commit, date, subject in fields]


def _related(objects: Objects, base: str, target: str) -> bool:
    return _git(objects, "merge-base", base, target, check=False).strip() != ""


def _named(objects: Objects, base: str, target: str, patch: Patch) -> list[Evidence]:
    found = []
    claims = " ".join((patch.trailers.status_note or "", patch.message))
    for commit in dict.fromkeys(_COMMIT_LINK.findall(claims)):
        if not objects.has(commit):
            continue
        inside = proc.run(
            ("git", "--git-dir", objects.path, "merge-base", "--is-ancestor", commit, target),
            env=_ENV,
            check=False,
        )
        if inside.status == 0:
            says = f"commit {commit[:12]}, which the patch names, is in this version"
            found.append(Evidence(Layer.COMMIT, says, text=_subject(objects, commit)))
    for pull in dict.fromkeys(_PULL_LINK.findall(patch.trailers.status_note or "")):
        log = _git(
            objects, "log", "--format=%H %s", "-E", f"--grep=\\(#{pull}\\)$", f"{base}..{target}"
        )
        for line in log.splitlines():
            commit, _, subject = line.partition(" ")
            if subject.endswith(f"(#{pull})"):
                says = f"commit {commit[:12]} merged #{pull}, which the patch names"
                found.append(Evidence(Layer.COMMIT, says, text=subject))
    return found


def _equal(objects: Objects, base: str, target: str, patch: Patch) -> list[Evidence]:
    own = _patch_ids(objects, patch.raw)
    paths = [file.path for file in patch.files]
    log = proc.run(
        ("git", "--git-dir", objects.path, "log", "-p", "--full-index", "--no-ext-diff",
         "--format=commit %H", f"{base}..{target}", "--", *paths),
        env=_ENV,
        timeout=_SECONDS,
    ).stdout  # fmt: skip
    ids = _patch_ids(objects, log)
    for patch_id, commit in ids.items():
        if patch_id in own and commit.strip("0"):
            says = f"commit {commit[:12]} has the same patch-id"
            return [Evidence(Layer.PATCH_ID, says, text=_subject(objects, commit))]
    return []


def _pickaxe(objects: Objects, base: str, target: str, patch: Patch) -> list[Evidence]:
    found = []
    for file in patch.files:
        added = [t for h in file.hunks for t in h.added if len(t.strip()) >= _SHORT]
        if not added:
            continue
        line = max(added, key=len).rstrip(b"\r\n").decode("utf-8", "replace")
        log = _git(
            objects, "log", "--reverse", "--format=%H %s", f"-S{line}",
            f"{base}..{target}", "--", file.path,
        )  # fmt: skip
        first = log.splitlines()[:1]
        for commit_line in first:
            commit, _, subject = commit_line.partition(" ")
            says = f"commit {commit[:12]} is the first that touches the line {line.strip()[:80]!r}"
            found.append(Evidence(Layer.SEARCH, says, file.path, text=subject))
    return found


def _patch_ids(objects: Objects, diff: bytes) -> dict[str, str]:
    done = proc.run(
        ("git", "--git-dir", objects.path, "patch-id", "--stable"), stdin=diff, env=_ENV
    )
    pairs = (line.split(" ", 1) for line in done.text().splitlines() if " " in line)
    return {patch_id: commit.strip() for patch_id, commit in pairs}


def _subject(objects: Objects, commit: str) -> str:
    return _git(objects, "log", "-1", "--format=%s", commit).strip()


def _git(objects: Objects, *words: str, check: bool = True) -> str:
    done = proc.run(
        ("git", "--git-dir", objects.path, *words), env=_ENV, timeout=_SECONDS, check=check
    )
    return done.text()
