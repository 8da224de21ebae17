"""Where an import comes from: a fork or pull request, named or followed by the recipe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stackpatch.errors import InputError

if TYPE_CHECKING:
    from stackpatch.cli.workspace import Workspace
    from stackpatch.model.recipe_watch import Fork

_PULL = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+)/pull/([1-9][0-9]{0,8})", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HEAD = re.compile(r"commit ([0-9a-f]{40}) of ([0-9a-f]{40})")


@dataclass(frozen=True, slots=True)
class Origin:
    """What to fetch, and what is known of it.

    kind: `fork` or `pull-request`. url, ref: for git. release: into whose series. since: the
    commit up to which an earlier run came. base: the upstream commit that it noted. branch: of a
    fork, None for a single commit. link: of a pull request. status: the Upstream-Status that
    follows from it.
    """

    kind: str
    url: str
    ref: str
    release: str
    since: str | None = None
    base: str | None = None
    branch: str | None = None
    link: str | None = None
    status: str | None = None

    @property
    def shown(self) -> str:
        """As messages and the series' comments name it."""
        if self.link is not None:
            return self.link
        return f"{self.url} {self.branch}" if self.branch else self.url

    def trailer(self, commit: str, head: str) -> str:
        """The value of a patch's `Origin` (DEP-3): where exactly it comes from."""
        if self.link is not None:
            return f"other, {self.link}, commit {commit} of {head}"
        return f"other, {self.url}, commit {commit}"


def find_origin(
    work: Workspace,
    fork: str | None,
    branch: str | None,
    pull: str | None,
    *,
    base: str | None,
    named: bool,
) -> Origin:
    """What to import. base: as given on the command line. named: whether the release was.

    Raises InputError for options that do not go together and for a second fork.
    """
    if pull is not None:
        if fork is not None or branch is not None:
            msg = "--from-pr goes with neither --from-fork nor --branch"
            raise InputError(msg, hint="a pull request says its repository and branch itself")
        return _pull(work, pull)
    known = work.recipe.fork
    if fork is None:
        if known is None:
            msg = "nothing to import from, and the recipe has no `fork`"
            raise InputError(msg, hint="say --from-fork URL --branch B, or --from-pr URL")
        fork, branch = known.url, branch or known.branch
    if branch is None:
        msg = "which branch of the fork?"
        raise InputError(msg, hint="say --branch B, or --branch with a commit's 40 hex digits")
    return _fork(work, fork, branch, known, base=base, named=named)


def _fork(
    work: Workspace, url: str, branch: str, known: Fork | None, *, base: str | None, named: bool
) -> Origin:
    _check_url(url)
    single = _COMMIT.fullmatch(branch) is not None
    if not single:
        _check_branch(branch)
    ref = branch if single else f"refs/heads/{branch}"
    shown = None if single else branch
    default = work.release.version
    if known is None:
        return Origin("fork", url, ref, default, branch=shown)
    if known.url != url or (known.branch is not None and not single and known.branch != branch):
        was = f"{known.url} {known.branch or known.commit}"
        msg = f"the recipe of {work.recipe.stack} follows another fork: {was}"
        hint = "a recipe follows one; take its `fork` out to follow this one"
        raise InputError(msg, hint=hint)
    release = default if named else known.release or work.recipe.default
    was = known.release or work.recipe.default
    elsewhere = release != was and work.recipe.release(release).series is None
    if known.commit is not None and base is None and elsewhere:
        msg = f"{release} has no series, and the fork's earlier commits are in that of {was}"
        hint = f"`stackpatch rebase {work.recipe.stack}@{was} --onto {release}` moves them"
        raise InputError(msg, hint=f"{hint}; or say --base to begin anew")
    return Origin("fork", url, ref, release, known.commit, known.base, shown)


def _pull(work: Workspace, url: str) -> Origin:
    found = _PULL.fullmatch(url.rstrip("/"))
    if found is None:
        msg = f"--from-pr {url}: not a pull request's address"
        raise InputError(msg, hint="write https://github.com/OWNER/REPOSITORY/pull/NUMBER")
    owner, name, number = found.groups()
    link = found[0]
    since = None
    for patch in work.series.patches:
        for key, value in patch.trailers.others:
            pinned = _HEAD.search(value) if key == "Origin" and f" {link}, " in value else None
            since = pinned[2] if pinned else since
    return Origin(
        "pull-request",
        _repository(work.recipe.upstream.git, owner, name),
        f"refs/pull/{number}/head",
        work.release.version,
        since,
        link=link,
        status=f"Submitted [{link}]",
    )


def _repository(upstream: str, owner: str, name: str) -> str:
    """Where the pull request is fetched: the recipe's own repository or mirror of it, if it is one.

    A number means nothing in another repository.
    """
    short = re.fullmatch(r"[\w.-]+@([\w.-]+):(.*)", upstream)  # ssh's short form
    parts = urlsplit(upstream)
    host, path = (short[1], short[2]) if short else (parts.hostname, parts.path)
    segments = path.strip("/").removesuffix(".git").lower().split("/")
    if host == "github.com":
        same = segments == [owner.lower(), name.lower()]
    else:  # a mirror, which has the name but perhaps not the owner
        same = segments[-1] == name.lower()
    return upstream if same else f"https://github.com/{owner}/{name}.git"


def _check_url(url: str) -> None:
    from stackpatch.sources.git import check_url
    from stackpatch.sources.transport import redact

    check_url(url)
    if redact(url) != url:
        msg = f"the URL holds credentials, and the recipe would keep them: {redact(url)}"
        raise InputError(msg, hint="give them to git by a credential helper or ~/.netrc")


def _check_branch(branch: str) -> None:
    from stackpatch.model.recipe_watch import check_branch

    try:
        check_branch(branch)
    except ValueError as error:
        msg = f"--branch: {error}"
        raise InputError(msg) from None
