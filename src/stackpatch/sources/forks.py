"""What a fork's branch or a pull request has that upstream does not: its commits, with history.

Upstream is its default branch, its tags and the release that is asked about; its other branches
do not count, because a pull request's own branch may be one of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch.errors import EnvironmentProblem, FindingError, InputError
from stackpatch.model import nearest
from stackpatch.sources import git
from stackpatch.sources.transport import redact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackpatch.sources.git import Progress
    from stackpatch.sources.objects import Objects
    from stackpatch.sources.store import SourceStore

_THEIRS, _UPSTREAM = f"{git.INCOMING}/theirs", f"{git.INCOMING}/upstream"
_AUTHOR = re.compile(rb"author (.*?) ?<(.*?)> (-?\d+) ([+-])(\d\d)(\d\d)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit as it was made.

    seconds, offset: the author's date in Unix time and minutes east of UTC. message: subject and
    body; undecodable bytes are replaced. exact: whether none was.
    """

    id: str
    parents: tuple[str, ...]
    tree: str
    name: str
    email: str
    seconds: int
    offset: int
    message: str
    exact: bool

    @property
    def subject(self) -> str:
        """The first paragraph as one line."""
        return " ".join(self.message.strip().split("\n\n", 1)[0].split()) or "(no subject)"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A branch's own commits, parents before children. base: the upstream commit under them.

    merged: the newest upstream commit that the branch has, which is another one than the base
    where upstream was merged into it; None where there are several.
    upstream: why it is not known which commits are upstream's; None: it is known.
    """

    url: str
    ref: str
    head: str
    base: str
    commits: tuple[Commit, ...]
    merged: str | None
    upstream: str | None = None


def bring(
    store: SourceStore,
    url: str,
    ref: str,
    *,
    upstream: str,
    release: str | None,
    base: str | None = None,
    since: str | None = None,
    progress: Progress | None = None,
) -> Foreign:
    """The commits of `ref` (`refs/heads/…`, `refs/pull/…`) that are not upstream's.

    upstream: URL of the upstream repository. release: commit of the release, None: unknown. base:
    the commit or upstream tag to start from, by a person's word. since: the commit up to which an
    earlier run came.
    Raises InputError for a ref, base or history that is not there, FindingError where `since` is
    not in the branch any more, EnvironmentProblem for the network.
    """
    git.check_url(url)
    _check_ref(url, ref)
    unknown = None
    with store.exclusive() as lock, git.watched(store, progress):
        try:
            try:
                git.run_fetch(
                    store,
                    f"cannot fetch upstream's history from {redact(upstream)}",
                    (
                        *_whole(store), "--no-tags", "--", upstream,
                        f"+HEAD:{_UPSTREAM}/HEAD", f"+refs/tags/*:{_UPSTREAM}/tags/*",
                    ),
                    lock,
                )  # fmt: skip
            except EnvironmentProblem as error:
                if base is None:
                    hint = f"{error.hint or 'look at the network'}; or name the start by --base"
                    raise EnvironmentProblem(error.message, hint=hint) from error
                unknown = error.message
            what = f"cannot fetch {ref} from {redact(url)}"
            git.run_fetch(
                store, what, (*_whole(store), "--no-tags", "--", url, f"+{ref}:{_THEIRS}"), lock
            )
            return _look(store, url, ref, release, base, since, unknown)
        finally:
            git.forget_incoming(store, lock)


def relation(store: SourceStore, base: str, release: str | None) -> str:
    """How the commit that a fork starts from stands to a release's: `same`, `before`, `after`,
    `beside`, `unknown`."""
    if release is None or not git.has_commit(store, release):
        return "unknown"
    if base == release:
        return "same"
    if _is_ancestor(store, base, release):
        return "before"
    return "after" if _is_ancestor(store, release, base) else "beside"


def read_commit(objects: Objects, commit: str) -> Commit:
    """A commit of the store. Raises KeyError when it is not there."""
    _, content = objects.repository.read(commit)
    head, _, raw = content.partition(b"\n\n")
    lines = head.split(b"\n")
    parents = tuple(line[7:].decode() for line in lines if line.startswith(b"parent "))
    said = next((line[9:] for line in lines if line.startswith(b"encoding ")), b"utf-8")
    author = next((_AUTHOR.match(line) for line in lines if line.startswith(b"author ")), None)
    encoding = said.decode("ascii", "replace")
    message, exact = _decoded(raw, encoding)
    if author is None:
        return Commit(commit, parents, lines[0][5:].decode(), "", "", 0, 0, message, exact=False)
    name, exact_name = _decoded(author[1], encoding)
    minutes = int(author[5]) * 60 + int(author[6])
    return Commit(
        commit,
        parents,
        lines[0][5:].decode(),
        name,
        author[2].decode("utf-8", "replace"),
        int(author[3]),
        -minutes if author[4] == b"-" else minutes,
        message,
        exact and exact_name,
    )


def _decoded(raw: bytes, encoding: str) -> tuple[str, bool]:
    try:
        return raw.decode(encoding), True
    except (LookupError, UnicodeError):
        return raw.decode("utf-8", "replace"), False


def _whole(store: SourceStore) -> tuple[str, ...]:
    return ("--unshallow",) if (store.path / "shallow").exists() else ()


def _check_ref(url: str, ref: str) -> None:
    if re.fullmatch(r"[0-9a-f]{40}", ref):
        return  # a commit; the fetch says whether the server gives it out
    refs = git.remote_refs(url, ref)
    if ref in refs:
        return
    if ref.startswith("refs/heads/"):
        name = ref.removeprefix("refs/heads/")
        known = [r.removeprefix("refs/heads/") for r in git.remote_refs(url, "refs/heads/*")]
        msg = f"{redact(url)} has no branch {name!r}"
        raise InputError(msg, hint=nearest.hint(name, known))
    msg = f"{redact(url)} has no {ref}"
    raise InputError(msg, hint="look at the number, and whether this is the repository it is in")


def _look(
    store: SourceStore,
    url: str,
    ref: str,
    release: str | None,
    base: str | None,
    since: str | None,
    unknown: str | None,
) -> Foreign:
    head = _commit(store, _THEIRS)
    if head is None:
        msg = f"{redact(url)} did not give out {ref}"
        raise InputError(msg, hint="a shallow clone gives out nothing; name a whole repository")
    cut = _cut(store, head)
    if cut is not None:
        msg = f"the history of {ref} from {redact(url)} ends at {cut[:12]}: a shallow clone"
        raise InputError(msg, hint="name a repository with its whole history")
    excluded = [f"--glob={_UPSTREAM}/*"]
    if release is not None and git.has_commit(store, release):
        excluded.append(release)
    start = _start(store, base, head, ref) if base is not None else None
    if start is not None:
        excluded.append(start)
    elif since is not None:
        _check_since(store, url, ref, since, head)
        excluded.append(since)
    else:
        merged = _merged_by(store, head)
        if merged is not None:  # then all of it is upstream's, and so would be nothing its own
            excluded = [merged]
    listed = _git(store, "rev-list", "--topo-order", "--reverse", head, "--not", *excluded)
    ids = listed.split()
    commits = tuple(read_commit(store.objects, one) for one in ids)
    point = start or _fork_point(store, url, ref, head, ids)
    own = set(ids)
    under = {parent for one in commits for parent in one.parents if parent not in own}
    newest = _git(store, "merge-base", "--independent", *sorted(under)).split() if under else [head]
    merged = newest[0] if len(newest) == 1 else None
    return Foreign(redact(url), ref, head, point, commits, merged, unknown)


def _start(store: SourceStore, base: str, head: str, ref: str) -> str:
    """The commit that a person named as the base."""
    found = _commit(store, f"{_UPSTREAM}/tags/{base}")
    if found is None and re.fullmatch(r"[0-9a-f]{7,40}", base):
        found = _commit(store, base)
    if found is None:
        tags = _git(store, "for-each-ref", "--format=%(refname)", f"{_UPSTREAM}/tags").split()
        msg = f"--base {base}: upstream has no such tag, and the store no such commit"
        names = [tag.removeprefix(f"{_UPSTREAM}/tags/") for tag in tags]
        raise InputError(msg, hint=nearest.hint(base, names) if names else None)
    if not _is_ancestor(store, found, head):
        msg = f"--base {base}: {found[:12]} is not in the history of {ref}"
        common = _git(store, "merge-base", found, head, check=False).strip()
        hint = f"their last common commit is {common}" if common else "they have nothing in common"
        raise InputError(msg, hint=hint)
    return found


def _check_since(store: SourceStore, url: str, ref: str, since: str, head: str) -> None:
    if git.has_commit(store, since) and _is_ancestor(store, since, head):
        return
    msg = (
        f"{ref} of {redact(url)} was rewritten: {since[:12]}, up to which it was imported, is not "
        f"in it any more (it is at {head[:12]})"
    )
    common = ""
    if git.has_commit(store, since):
        common = _git(store, "merge-base", since, head, check=False).strip()
    hint = "nothing is guessed: import it anew into a release without a series"
    if common:
        hint += f", or take what follows their last common commit with --base {common}"
    raise FindingError(msg, hint=hint)


def _fork_point(store: SourceStore, url: str, ref: str, head: str, ids: Sequence[str]) -> str:
    """The upstream commit under the branch, down its first parents."""
    own = set(ids)
    at = head
    while at in own:
        parents = read_commit(store.objects, at).parents
        if not parents:
            msg = f"{ref} of {redact(url)} shares no commit with upstream"
            raise InputError(msg, hint="look at the URL; or name the start by --base")
        at = parents[0]
    return at


def _merged_by(store: SourceStore, head: str) -> str | None:
    """Upstream's own side of the merge that took the branch in; None: no merge did.

    Without this, a pull request that was merged with its commits would have none of its own.
    """
    main = f"{_UPSTREAM}/HEAD"
    if _commit(store, main) is None or not _is_ancestor(store, head, main):
        return None
    above = set(_git(store, "rev-list", "--ancestry-path", f"{head}..{main}").split())
    line = _git(store, "rev-list", "--first-parent", "--reverse", f"{head}..{main}").split()
    merge = next((commit for commit in line if commit in above), None)
    parents = read_commit(store.objects, merge).parents if merge is not None else ()
    return parents[0] if len(parents) == 2 and parents[0] != head else None


def _cut(store: SourceStore, head: str) -> str | None:
    """A commit of the history whose parents are missing; None: it is whole."""
    try:
        shallow = set((store.path / "shallow").read_text("ascii").split())
    except FileNotFoundError:
        return None
    return next((c for c in _git(store, "rev-list", head).split() if c in shallow), None)


def _commit(store: SourceStore, name: str) -> str | None:
    found = _git(
        store, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}",
        check=False,
    ).strip()  # fmt: skip
    return found or None


def _is_ancestor(store: SourceStore, one: str, other: str) -> bool:
    return git.local(store, "merge-base", "--is-ancestor", one, other, check=False).status == 0


def _git(store: SourceStore, *words: str, check: bool = True) -> str:
    return git.local(store, *words, check=check).text()
