"""Commits by git: shallow, verified, drift said, and nothing that git could be talked into."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest
from tests.conftest import git

from stackpatch.errors import EnvironmentProblem, FindingError, InputError
from stackpatch.model.reference import SourceKind, VersionRef
from stackpatch.sources.git import (
    check_url,
    fetch_history,
    fetch_pinned,
    fetch_unpinned,
    remote_tags,
)
from stackpatch.sources.store import SourceStore

if TYPE_CHECKING:
    from pathlib import Path

GIT = SourceKind.GIT


class Upstream:
    """A remote with four commits: v1.0 (annotated), v1.1 (plain), main, and one without a name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        git("init", "-q", "-b", "main", cwd=folder)
        self.first = self.commit("one")
        git("tag", "-a", "-m", "release", "v1.0", cwd=folder)
        self.second = self.commit("two")
        git("tag", "v1.1", cwd=folder)
        git("checkout", "-q", "--detach", cwd=folder)
        self.nameless = self.commit("nameless")
        git("checkout", "-q", "main", cwd=folder)
        self.main = self.commit("three")

    @property
    def url(self) -> str:
        return self.folder.as_uri()

    def commit(self, text: str) -> str:
        (self.folder / "file.py").write_text(f"{text}\n")
        git("add", "-A", cwd=self.folder)
        git("commit", "-q", "-m", text, cwd=self.folder)
        return git("rev-parse", "HEAD", cwd=self.folder).strip()

    def set(self, key: str, value: str) -> None:
        git("config", key, value, cwd=self.folder)


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    return Upstream(tmp_path / "upstream")


@pytest.fixture
def store(tmp_path: Path) -> SourceStore:
    return SourceStore("pkg", tmp_path / "sources")


def refs(store: SourceStore) -> set[str]:
    listed = git(
        "--git-dir", str(store.path), "for-each-ref", "--format=%(refname)", cwd=store.path
    )
    return set(listed.split())


def commits(store: SourceStore) -> int:
    objects = git(
        "--git-dir",
        str(store.path),
        "cat-file",
        "--batch-all-objects",
        "--batch-check=%(objecttype)",
        cwd=store.path,
    )
    return objects.split().count("commit")


def old_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Speak protocol version 0, in which servers give out only what a ref names."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[protocol]\nversion = 0\n")
    monkeypatch.setenv("HOME", str(home))


def test_a_pinned_commit_comes_shallow_and_under_its_own_id(
    store: SourceStore, upstream: Upstream
) -> None:
    stored = fetch_pinned(store, upstream.url, "1.1", upstream.second, "v1.1")
    assert (stored.kind, stored.version, stored.commit) == (GIT, "1.1", upstream.second)
    assert store.objects.read(stored.tree, "file.py") == b"two\n"
    assert dict(stored.evidence) == {
        "Url": upstream.url,
        "Commit": upstream.second,
        "Tag": "v1.1",
        "Pinned": "recipe",
    }
    assert commits(store) == 1
    assert refs(store) == {"refs/sources/git/1.1", "refs/evidence/git/1.1"}
    assert store.resolve(VersionRef.parse("git:v1.1")) == stored


def test_an_annotated_tag_stands_for_its_commit(store: SourceStore, upstream: Upstream) -> None:
    stored = fetch_pinned(store, upstream.url, "1.0", upstream.first, "v1.0")
    assert stored.commit == upstream.first
    assert remote_tags(upstream.url) == {"v1.0": upstream.first, "v1.1": upstream.second}


def test_a_commit_that_no_ref_names(store: SourceStore, upstream: Upstream) -> None:
    assert fetch_pinned(store, upstream.url, "x", upstream.nameless, None).tree


def test_a_plain_path_is_a_url(store: SourceStore, upstream: Upstream) -> None:
    assert fetch_pinned(store, str(upstream.folder), "1.1", upstream.second, "v1.1").tree


def test_several_releases_share_a_store(store: SourceStore, upstream: Upstream) -> None:
    fetch_pinned(store, upstream.url, "1.0", upstream.first, "v1.0")
    fetch_pinned(store, upstream.url, "1.1", upstream.second, "v1.1")
    assert [stored.version for stored in store.versions()] == ["1.0", "1.1"]
    out = git("--git-dir", str(store.path), "fsck", "--full", cwd=store.path)
    assert "error" not in out


@pytest.mark.parametrize("kind", ["plain", "annotated"])
def test_a_moved_tag_is_drift_with_both_ids(
    store: SourceStore, upstream: Upstream, kind: str
) -> None:
    options = ["-a", "-m", "x"] if kind == "annotated" else []
    git("tag", "-f", *options, "v1.1", upstream.main, cwd=upstream.folder)
    with pytest.raises(FindingError) as caught:
        fetch_pinned(store, upstream.url, "1.1", upstream.second, "v1.1")
    assert caught.value.exit_status == 1
    assert f"has {upstream.main}, the recipe pins {upstream.second}" in caught.value.message
    assert store.versions() == []


def test_a_tag_that_is_gone_is_said_with_the_nearest(
    store: SourceStore, upstream: Upstream
) -> None:
    with pytest.raises(InputError, match=r"has no tag v1\.11") as caught:
        fetch_pinned(store, upstream.url, "1.11", upstream.second, "v1.11")
    assert "v1.1" in str(caught.value.hint)


def test_a_branch_does_not_stand_for_a_tag(store: SourceStore, upstream: Upstream) -> None:
    git("branch", "v9", upstream.second, cwd=upstream.folder)
    with pytest.raises(InputError, match="has no tag v9"):
        fetch_pinned(store, upstream.url, "9", upstream.second, "v9")


@pytest.mark.parametrize("commit", ["1" * 40, "tag object", "tree"])
def test_a_commit_that_is_none_there(store: SourceStore, upstream: Upstream, commit: str) -> None:
    names = {"tag object": "v1.0", "tree": "v1.1^{tree}"}
    if commit in names:
        commit = git("rev-parse", names[commit], cwd=upstream.folder).strip()
    with pytest.raises(InputError, match=f"has no commit {commit}"):
        fetch_pinned(store, upstream.url, "x", commit, None)
    assert store.versions() == []
    assert not refs(store)


# --- servers that give out less -----------------------------------------------------------------


def test_a_server_that_refuses_ids_gives_the_tag(
    store: SourceStore, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old_server(monkeypatch, tmp_path)
    git("checkout", "-q", "--detach", upstream.first, cwd=upstream.folder)
    git("tag", "side", upstream.nameless, cwd=upstream.folder)
    git("tag", "-a", "-m", "x", "side2", upstream.nameless, cwd=upstream.folder)
    git("tag", "-d", "side", cwd=upstream.folder)
    stored = fetch_pinned(store, upstream.url, "s", upstream.nameless, "side2")
    assert stored.commit == upstream.nameless
    assert commits(store) == 1
    assert refs(store) == {"refs/sources/git/s", "refs/evidence/git/s"}


def test_a_server_that_refuses_ids_gives_everything(
    store: SourceStore, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old_server(monkeypatch, tmp_path)
    git("tag", "-d", "v1.0", "v1.1", cwd=upstream.folder)
    stored = fetch_pinned(store, upstream.url, "1.1", upstream.second, None)
    assert stored.commit == upstream.second
    assert refs(store) == {"refs/sources/git/1.1", "refs/evidence/git/1.1"}
    with pytest.raises(InputError, match="has no commit"):
        fetch_pinned(store, upstream.url, "x", upstream.nameless, None)


def test_a_dumb_server_without_shallow_history(
    store: SourceStore, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files behind plain HTTP: no upload-pack, so no shallow fetch either."""
    from tests.serving import Reply, serving

    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file:http")
    bare = tmp_path / "bare.git"
    git("clone", "-q", "--bare", str(upstream.folder), str(bare), cwd=tmp_path)
    git("update-server-info", cwd=bare)
    with serving() as server:
        for path in bare.rglob("*"):
            if path.is_file():
                relative = path.relative_to(bare)
                server.replies[f"/x.git/{relative}"] = Reply(path.read_bytes(), ranges=False)
        stored = fetch_pinned(store, f"{server.url}/x.git", "1.1", upstream.second, "v1.1")
    assert stored.commit == upstream.second


# --- unpinned -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "attribute", "kind"),
    [("main", "main", "branch"), ("v1.0", "first", "tag"), ("v1.1", "second", "tag")],
)
def test_a_name_is_taken_as_it_is_now(
    store: SourceStore, upstream: Upstream, name: str, attribute: str, kind: str
) -> None:
    stored = fetch_unpinned(store, upstream.url, name)
    assert stored.commit == getattr(upstream, attribute)
    assert (stored.version, stored.evidence["Ref"]) == (name, kind)
    assert stored.evidence["Pinned"] == "no"


def test_a_branch_that_went_on_is_fetched_again(store: SourceStore, upstream: Upstream) -> None:
    fetch_unpinned(store, upstream.url, "main")
    newer = upstream.commit("four")
    assert fetch_unpinned(store, upstream.url, "main").commit == newer
    stored = store.find(GIT, "main")
    assert stored is not None
    assert stored.commit == newer


def test_a_branch_with_a_slash_beside_its_prefix(store: SourceStore, upstream: Upstream) -> None:
    git("branch", "rel/1.x", upstream.first, cwd=upstream.folder)
    git("branch", "rel2", upstream.second, cwd=upstream.folder)
    assert fetch_unpinned(store, upstream.url, "rel/1.x").commit == upstream.first
    assert fetch_unpinned(store, upstream.url, "rel2").commit == upstream.second


def test_a_full_id_is_taken(store: SourceStore, upstream: Upstream) -> None:
    assert fetch_unpinned(store, upstream.url, upstream.nameless).commit == upstream.nameless


def test_a_short_id_or_a_wrong_name_is_said(store: SourceStore, upstream: Upstream) -> None:
    with pytest.raises(InputError, match="no branch or tag 'mian'") as caught:
        fetch_unpinned(store, upstream.url, "mian")
    assert caught.value.hint == "did you mean main?"
    with pytest.raises(InputError) as caught:
        fetch_unpinned(store, upstream.url, upstream.main[:9])
    assert "full id" in str(caught.value.hint)


def test_history_on_request(store: SourceStore, upstream: Upstream) -> None:
    fetch_pinned(store, upstream.url, "1.1", upstream.second, "v1.1")
    assert commits(store) == 1
    fetch_history(store, upstream.url)
    assert commits(store) == 3
    log = git("--git-dir", str(store.path), "log", "--format=%H", upstream.second, cwd=store.path)
    assert log.split() == [upstream.second, upstream.first]
    assert refs(store) == {"refs/sources/git/1.1", "refs/evidence/git/1.1"}
    # And libgit2 sees the parents that were grafted away before.
    walked = SourceStore("pkg", store.path.parent).objects.repository.walk(upstream.second)
    assert [str(commit.id) for commit in walked] == [upstream.second, upstream.first]


def test_progress_counts_the_bytes_that_arrive(
    store: SourceStore, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = store.path / "objects" / "pack" / "tmp_pack_seen"
    grow = f"head -c 1000 /dev/zero > {pack}; sleep 0.6; head -c 5000 /dev/zero > {pack}; sleep 0.6"
    _git_that(monkeypatch, tmp_path / "bin", f'case "$*" in *" fetch "*) {grow};; esac')
    seen: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None) -> None:
        seen.append((done, total))

    fetch_pinned(store, upstream.url, "1.1", upstream.second, "v1.1", progress)
    assert (1000, None) in seen
    assert seen[-1] == (5000, None)


# --- what git must not do -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "--upload-pack=touch /tmp/x",
        "-x",
        "ext::sh -c id",
        "ext::sh% -c% touch% /tmp/x",
        "fd::17",
        "foo::https://x/y",
        "",
        " https://x/y",
        "https://x/y z",
        "relative/path",
        "https://",
        "ssh://\nx",
    ],
)
def test_a_url_that_is_an_option_or_a_program_is_refused(store: SourceStore, url: str) -> None:
    for action in (
        lambda: check_url(url),
        lambda: remote_tags(url),
        lambda: fetch_pinned(store, url, "1", "1" * 40, None),
        lambda: fetch_pinned(store, url, "1", "1" * 40, "v1"),
        lambda: fetch_unpinned(store, url, "main"),
        lambda: fetch_history(store, url),
    ):
        with pytest.raises(InputError, match="not a git URL"):
            action()
    assert not store.path.exists()


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/flashinfer-ai/flashinfer.git",
        "https://user:pw@h/x",
        "ssh://git@h:22/x",
        "git@github.com:a/b.git",
        "file:///srv/x.git",
        "/srv/x.git",
    ],
)
def test_real_urls_are_taken(url: str) -> None:
    check_url(url)


def test_hooks_and_templates_of_the_person_do_not_run(
    store: SourceStore, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    hooks = home / "hooks"
    hooks.mkdir(parents=True)
    for name in ("reference-transaction", "post-checkout", "post-merge", "pre-auto-gc"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (hooks / name).chmod(0o755)
    (home / ".gitconfig").write_text(
        f"[core]\nhooksPath={hooks}\n[init]\ntemplateDir={home}\n[gc]\nauto=1\n"
        "[fetch]\nprune=true\nrecurseSubmodules=true\nwriteCommitGraph=true\n[transfer]\n"
    )
    monkeypatch.setenv("HOME", str(home))
    fetch_pinned(store, upstream.url, "1.0", upstream.first, "v1.0")
    fetch_pinned(store, upstream.url, "1.1", upstream.second, "v1.1")
    assert not (tmp_path / "ran").exists()
    assert len(store.versions()) == 2


def test_a_users_insteadof_is_honoured(
    store: SourceStore, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[url "{upstream.folder.parent.as_uri()}/"]\ninsteadOf = https://mirror.invalid/\n'
    )
    monkeypatch.setenv("HOME", str(home))
    stored = fetch_pinned(store, "https://mirror.invalid/upstream", "1.1", upstream.second, "v1.1")
    assert stored.evidence["Url"] == "https://mirror.invalid/upstream"


# --- faults -------------------------------------------------------------------------------------


def test_a_remote_that_is_not_there_is_said_in_gits_words(
    store: SourceStore, tmp_path: Path
) -> None:
    with pytest.raises(
        EnvironmentProblem, match="does not appear to be a git repository"
    ) as caught:
        fetch_pinned(store, (tmp_path / "absent").as_uri(), "1", "1" * 40, "v1")
    assert caught.value.exit_status == 3
    assert "128" not in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint == "look at `upstream.git` in the recipe"


@pytest.mark.parametrize("status", [401, 404, 500])
def test_an_http_remote_that_refuses_does_not_prompt(
    store: SourceStore, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.serving import Reply, serving

    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "http")
    with serving() as server:
        headers = {"WWW-Authenticate": 'Basic realm="x"'} if status == 401 else {}
        server.replies["/x.git/info/refs"] = Reply(b"", status, headers)
        url = f"http://me:s3cret@{server.host}/x.git"
        with pytest.raises(EnvironmentProblem) as caught:
            fetch_pinned(store, url, "1", "1" * 40, "v1")
        assert "s3cret" not in str(caught.value) + str(caught.value.hint)
        plain = f"{server.url}/x.git"
        with pytest.raises(EnvironmentProblem, match="fatal:"):
            fetch_pinned(store, plain, "1", "1" * 40, "v1")


def _git_that(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    real = shutil.which("git")
    folder.mkdir(exist_ok=True)
    (folder / "git").write_text(f'#!/bin/sh\n{script}\nexec {real} "$@"\n')
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_server_that_gives_another_commit_is_not_believed(
    store: SourceStore, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git itself checks ids; this is a git that fetches something else and says it went well."""
    real = shutil.which("git")
    wrong = f"{real} --git-dir={store.path} fetch -q --depth=1 {upstream.url} {upstream.main}"
    _git_that(monkeypatch, tmp_path / "bin", f'case "$*" in *" fetch "*) {wrong}; exit $?;; esac')
    with pytest.raises(InputError, match=f"has no commit {upstream.second}"):
        fetch_pinned(store, upstream.url, "1.1", upstream.second, "v1.1")
    assert store.versions() == []


def test_gits_lines_of_trouble_become_one(
    store: SourceStore, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (
        "warning: noise\\nremote: Repository not found.\\n"
        "fatal: unable to access 'https://u:pw@h/x?token=abc': The requested URL returned: 403\\n"
    )
    script = f'case "$*" in *ls-remote*) printf "{words}" >&2; exit 128;; esac'
    _git_that(monkeypatch, tmp_path / "bin", script)
    with pytest.raises(EnvironmentProblem) as caught:
        remote_tags(upstream.url)
    assert "remote: Repository not found. fatal: unable to access" in caught.value.message
    assert "https://****@h/x?…" in caught.value.message
    assert not re.search(r"pw|abc|noise|128", caught.value.message)


_CHILD = textwrap.dedent(
    """\
    import sys
    from pathlib import Path
    from stackpatch.sources.git import fetch_pinned
    from stackpatch.sources.store import SourceStore

    root, url, commit = sys.argv[1:]
    fetch_pinned(SourceStore("pkg", Path(root)), url, "1.1", commit, "v1.1")
    """
)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("stage", [" fetch ", "ls-remote", "update-ref", "for-each-ref"])
def test_a_kill_at_every_stage_and_the_same_again(
    store: SourceStore,
    upstream: Upstream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    how: signal.Signals,
) -> None:
    with monkeypatch.context() as patch:
        wait = f'case "$*" in *"{stage}"*) touch {tmp_path}/here; sleep 1;; esac'
        _git_that(patch, tmp_path / "bin", wait)
        argv = [sys.executable, "-c", _CHILD, str(store.path.parent), upstream.url, upstream.second]
        with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as child:
            deadline = time.monotonic() + 60
            while not (tmp_path / "here").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            child.send_signal(how)
            assert child.wait() != 0
    stored = fetch_pinned(store, upstream.url, "1.1", upstream.second, "v1.1")
    assert stored.commit == upstream.second
    assert refs(store) == {"refs/sources/git/1.1", "refs/evidence/git/1.1"}
    assert "error" not in git("--git-dir", str(store.path), "fsck", "--full", cwd=store.path)


def test_a_lock_that_a_killed_git_left_is_removed(store: SourceStore, upstream: Upstream) -> None:
    fetch_pinned(store, upstream.url, "1.0", upstream.first, "v1.0")
    leftovers = [
        store.path / "shallow.lock",
        store.path / "packed-refs.lock",
        store.path / "refs/sources/git/1.1.lock",
        store.path / "objects/pack/tmp_pack_abc",
    ]
    for leftover in leftovers:
        leftover.write_bytes(b"")
    fetch_pinned(store, upstream.url, "1.1", upstream.second, "v1.1")
    assert not any(leftover.exists() for leftover in leftovers)
