"""Upstream commits fetched by git into the source store: pinned ones, shallow, and verified.

git runs with the person's own settings for reaching a server (proxies, credentials, `insteadOf`),
but without hooks, prompts or submodules, and its status never becomes ours.
"""

from __future__ import annotations

import contextlib
import re
import threading
from typing import TYPE_CHECKING

from stackpatch import proc
from stackpatch.errors import EnvironmentProblem, FindingError, InputError
from stackpatch.model import nearest
from stackpatch.sources.packing import PRIVATE
from stackpatch.sources.transport import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stackpatch.sources.store import SourceStore, Stored

    Progress = Callable[[int, int | None], None]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_URL = re.compile(r"(?:https?|ssh|git|file)://\S+|[\w.-]+@[\w.-]+:\S+|/\S*")
_TIMEOUT = 3600.0
INCOMING = "refs/incoming"
_WATCH_INTERVAL = 0.2  # seconds
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.askPass=true",
    "protocol.ext.allow=never",
    "transfer.bundleURI=false",
    "gc.auto=0",
    "maintenance.auto=false",
)
# A prompt in a nightly job hangs for ever; a password comes from a credential helper or ~/.netrc.
_ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0"}
# How servers say that they give out named refs only, or no shallow history (dumb http).
_NOT_BY_COMMIT = re.compile(
    r"not our ref|unadvertised object|couldn't find remote ref|does not support shallow|"
    r"no such remote ref|remote did not send all necessary objects",
    re.IGNORECASE,
)


def check_url(url: str, *, where: str | None = None) -> None:
    """Refuse what git would take for an option or a program to run. Raises InputError."""
    if not _URL.fullmatch(url) or "::" in url.partition("//")[0]:
        msg = f"not a git URL: {redact(url)!r}"
        hint = "write https://…, ssh://…, git@HOST:PATH, file://… or an absolute path"
        raise InputError(msg, hint=hint, where=where)


def remote_tags(url: str) -> dict[str, str]:
    """Every tag of the remote with the commit that it names (annotated ones are looked through).

    Raises EnvironmentProblem with git's own words when the remote cannot be asked.
    """
    check_url(url)
    refs = remote_refs(url, "refs/tags/*")
    names = [ref for ref in refs if ref.startswith("refs/tags/") and not ref.endswith("^{}")]
    return {ref.removeprefix("refs/tags/"): refs.get(f"{ref}^{{}}", refs[ref]) for ref in names}


def fetch_pinned(
    store: SourceStore,
    url: str,
    version: str,
    commit: str,
    tag: str | None,
    progress: Progress | None = None,
) -> Stored:
    """The pinned commit of a release in the store, shallow, under the release's version.

    progress: called with the bytes received; git tells nobody how many it will be.
    Raises FindingError (drift) when the tag names another commit upstream, InputError when the
    remote has no such tag or commit, EnvironmentProblem when it cannot be reached.
    """
    if tag is not None:
        _check_tag(url, tag, commit)
    evidence = {"Url": redact(url), "Commit": commit, "Tag": tag or "", "Pinned": "recipe"}
    with watched(store, progress):
        return _into_store(store, url, version, commit, tag, evidence)


def fetch_unpinned(
    store: SourceStore, url: str, name: str, progress: Progress | None = None
) -> Stored:
    """A commit, tag or branch that no recipe pins, as it is now, under its own name.

    Raises InputError when the remote has no such thing, EnvironmentProblem.
    """
    check_url(url)
    if _COMMIT.fullmatch(name):
        evidence = {"Url": redact(url), "Commit": name, "Pinned": "by its id", "Ref": "commit"}
        with watched(store, progress):
            return _into_store(store, url, name, name, None, evidence)
    refs = remote_refs(url)
    for kind, ref in (("tag", f"refs/tags/{name}"), ("branch", f"refs/heads/{name}")):
        commit = refs.get(f"{ref}^{{}}", refs.get(ref))
        if commit is not None:
            evidence = {"Url": redact(url), "Commit": commit, "Pinned": "no", "Ref": kind}
            tag = name if kind == "tag" else None
            if tag is not None:
                evidence["Tag"] = tag
            with watched(store, progress):
                return _into_store(store, url, name, commit, tag, evidence)
    known = [ref.split("/", 2)[2] for ref in refs if re.match(r"refs/(tags|heads)/[^^]*$", ref)]
    msg = f"{redact(url)} has no branch or tag {name!r}"
    hint = nearest.hint(name, known)
    if re.fullmatch(r"[0-9a-f]{7,39}", name):
        hint = "a commit is fetched by its full id, 40 hex digits"
    raise InputError(msg, hint=hint)


def fetch_history(store: SourceStore, url: str) -> None:
    """Every branch and tag with its whole history, for what asks who changed a line and when.

    Commits that lie in the store shallow get their parents. Raises EnvironmentProblem.
    """
    check_url(url)
    with store.exclusive() as lock:
        run_fetch(
            store, f"cannot fetch the history of {redact(url)}", _everything(store, url), lock
        )
        forget_incoming(store, lock)


@contextlib.contextmanager
def watched(store: SourceStore, progress: Progress | None) -> Iterator[None]:
    """Report how the pack grows that git receives, a few times a second."""
    if progress is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        most = 0
        while not over.wait(_WATCH_INTERVAL):
            for pack in (store.path / "objects" / "pack").glob("tmp_pack_*"):
                with contextlib.suppress(OSError):
                    most = max(most, pack.stat().st_size)
            if most:
                progress(most, None)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _check_tag(url: str, tag: str, commit: str) -> None:
    check_url(url)
    ref = f"refs/tags/{tag}"
    refs = remote_refs(url, ref, f"{ref}^{{}}")
    found = refs.get(f"{ref}^{{}}", refs.get(ref))
    if found is None:
        msg = f"{redact(url)} has no tag {tag}"
        raise InputError(msg, hint=nearest.hint(tag, remote_tags(url)))
    if found != commit:
        msg = f"the tag {tag} moved: {redact(url)} has {found}, the recipe pins {commit}"
        hint = "a released tag never moves: find out who moved it before you touch the pin"
        raise FindingError(msg, hint=hint)


def _into_store(
    store: SourceStore,
    url: str,
    version: str,
    commit: str,
    tag: str | None,
    evidence: dict[str, str],
) -> Stored:
    check_url(url)
    with store.exclusive() as lock:
        if not has_commit(store, commit):
            _fetch(store, url, commit, tag, lock)
        if not has_commit(store, commit):
            forget_incoming(store, lock)
            msg = f"{redact(url)} has no commit {commit}"
            raise InputError(msg, hint="look at the commit in the recipe, and at the URL")
        stored = store.record_commit(version, commit, evidence, lock=lock)
        forget_incoming(store, lock)
    return stored


def _fetch(store: SourceStore, url: str, commit: str, tag: str | None, lock: int) -> None:
    """Bring the commit by the cheapest way that the server allows.

    By its id alone; by its tag; at last everything. Leaves refs below refs/incoming.
    """
    what = f"cannot fetch {commit[:12]} from {redact(url)}"
    shallow = ("--depth=1", "--no-tags")
    ways: list[tuple[str, ...]] = [(*shallow, "--", url, f"+{commit}:{INCOMING}/commit")]
    if tag is not None:
        ways.append((*shallow, "--", url, f"+refs/tags/{tag}:{INCOMING}/tag"))
    ways.append(_everything(store, url))
    for way in ways:
        try:
            run_fetch(store, what, way, lock)
        except EnvironmentProblem as error:
            if not _NOT_BY_COMMIT.search(error.message):
                raise
        if has_commit(store, commit):
            return


def _everything(store: SourceStore, url: str) -> tuple[str, ...]:
    whole = ("--unshallow",) if (store.path / "shallow").exists() else ()
    refs = (f"+refs/heads/*:{INCOMING}/heads/*", f"+refs/tags/*:{INCOMING}/tags/*")
    return (*whole, "--no-tags", "--", url, *refs)


def run_fetch(store: SourceStore, what: str, way: tuple[str, ...], lock: int) -> None:
    """`git fetch` with these options, URL and refspecs; `what` begins the message of a failure.

    The refs go below `INCOMING`. Call it under the store's lock. Raises EnvironmentProblem.
    """
    options = ("--quiet", "--force", "--no-write-fetch-head", "--no-recurse-submodules")
    _git(f"--git-dir={store.path}", "fetch", *options, *way, what=what, lock=lock)


def forget_incoming(store: SourceStore, lock: int) -> None:
    """Remove the refs that a fetch needed; the store's own refs keep what was wanted."""
    listed = ("for-each-ref", "--format=delete %(refname)", INCOMING)
    refs = _git(f"--git-dir={store.path}", *listed)
    argv = ["git", f"--git-dir={store.path}", "update-ref", "--stdin"]
    proc.run(argv, stdin=refs.encode(), pass_fds=(lock,))


def has_commit(store: SourceStore, commit: str) -> bool:
    """Whether the commit and its tree are there; the kind counts, a tag object is no commit."""
    done = proc.run(
        ["git", f"--git-dir={store.path}", "cat-file", "-e", f"{commit}^{{tree}}"], check=False
    )
    if done.status != 0:
        return False
    kind = proc.run(["git", f"--git-dir={store.path}", "cat-file", "-t", commit]).text().strip()
    return kind == "commit"


def remote_refs(url: str, *patterns: str) -> dict[str, str]:
    """The remote's refs with their object ids; `REF^{}` is the commit behind a tag object."""
    what = f"cannot ask {redact(url)} for its refs"
    output = _git("ls-remote", "--", url, *patterns, what=what)
    pairs = (line.split("\t", 1) for line in output.splitlines() if "\t" in line)
    return {ref: commit for commit, ref in pairs}


def local(store: SourceStore, *words: str, check: bool = True) -> proc.Completed:
    """Run git on the store, without the network and without a person's settings."""
    argv = ("git", f"--git-dir={store.path}", *words)
    return proc.run(argv, env=PRIVATE, timeout=_TIMEOUT, check=check)


def _git(*words: str, what: str = "git failed", lock: int | None = None) -> str:
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    done = proc.run(
        ["git", *settings, *words],
        env=_ENVIRONMENT,
        timeout=_TIMEOUT,
        check=False,
        pass_fds=() if lock is None else (lock,),
    )
    if done.status != 0:
        msg = f"{what}: {_useful_line(done.stderr.decode('utf-8', 'replace'))}"
        raise EnvironmentProblem(msg, hint=_hint(msg))
    return done.text()


def _useful_line(text: str) -> str:
    """What git says about the cause: the first fatal or error line, with the remote's words."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if re.match(r"(?:fatal|error|ERROR|remote):? ", line)]
    chosen = " ".join(dict.fromkeys(said[:3] or lines[-1:])) or "git said nothing"
    return redact(chosen)[:500]


def _hint(message: str) -> str | None:
    lower = message.lower()
    if "could not read username" in lower or "authentication failed" in lower:
        return "give git the credentials: a credential helper, ~/.netrc, or an ssh URL"
    if "could not resolve host" in lower or "unable to access" in lower:
        return "look at the network; `stackpatch fetch` takes PyPI's archives as well"
    if "does not appear to be a git repository" in lower or "not found" in lower:
        return "look at `upstream.git` in the recipe"
    if "no space left" in lower:
        return "free some space and run again"
    return None
