"""The fingerprint of a source store: another one for whatever could change an answer."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from stackpatch.sources.fingerprint import fingerprint
from stackpatch.sources.store import SourceStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> SourceStore:
    """A store with two versions: one commit each, loose."""
    store = SourceStore("demo", tmp_path / "sources")
    for version, content in (("1.0", b"one\n"), ("1.1", b"two\n")):
        _add(store, version, content)
    return store


def _git(store: SourceStore, *words: str, stdin: bytes = b"") -> str:
    environment = {**os.environ, "GIT_AUTHOR_DATE": "@0 +0000", "GIT_COMMITTER_DATE": "@0 +0000"}
    for who in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{who}_NAME": "t", f"GIT_{who}_EMAIL": "t@e.x"}
    done = subprocess.run(
        ["git", f"--git-dir={store.path}", *words],
        input=stdin,
        capture_output=True,
        check=True,
        env=environment,
    )
    return done.stdout.decode().strip()


def _add(store: SourceStore, version: str, content: bytes) -> str:
    blob = store.objects.write_blob(content)
    tree = _git(store, "mktree", stdin=f"100644 blob {blob}\ta\n".encode())
    commit = _git(store, "commit-tree", tree, "-m", version)
    _git(store, "update-ref", f"refs/sources/git/{version}", commit)
    return commit


def _move(store: SourceStore) -> None:
    commit = _git(store, "rev-parse", "refs/sources/git/1.1")
    _git(store, "update-ref", "refs/sources/git/1.0", commit)


def _alternates(store: SourceStore) -> None:
    (store.path / "objects" / "info" / "alternates").write_text("/somewhere\n")


CHANGES: dict[str, Callable[[SourceStore], object]] = {
    "a version comes": lambda store: _add(store, "1.2", b"three\n"),
    "a version goes": lambda store: _git(store, "update-ref", "-d", "refs/sources/git/1.0"),
    "a version is another commit": _move,
    "evidence is another": lambda store: _git(
        store, "update-ref", "refs/evidence/git/1.0", store.objects.write_blob(b"Url: x\n")
    ),
    "an object comes": lambda store: store.objects.write_blob(b"side of a patch\n"),
    "objects lie elsewhere too": _alternates,
}


@pytest.mark.parametrize("what", CHANGES)
def test_it_is_another(store: SourceStore, what: str) -> None:
    before = fingerprint(store.path)
    CHANGES[what](store)
    assert fingerprint(store.path) != before


def test_a_pack_and_packed_references_are_another(store: SourceStore) -> None:
    seen = {fingerprint(store.path)}
    _git(store, "pack-refs", "--all")
    seen.add(fingerprint(store.path))
    _git(store, "repack", "-adq")
    seen.add(fingerprint(store.path))
    assert len(seen) == 3
    _git(store, "update-ref", "-d", "refs/sources/git/1.0")  # out of packed-refs
    assert fingerprint(store.path) not in seen


def test_it_is_the_same_while_nothing_changes(store: SourceStore) -> None:
    before = fingerprint(store.path)
    store.versions()
    for path in store.path.rglob("*"):
        os.utime(path, (1, 1))
    assert fingerprint(store.path) == before
    assert len(before) == 64


def test_no_store_is_a_state_too(store: SourceStore, tmp_path: Path) -> None:
    none = fingerprint(tmp_path / "nobody.git")
    assert none == fingerprint(tmp_path / "nobody.git")
    assert none != fingerprint(store.path)


def test_a_file_and_its_name_are_kept_apart(tmp_path: Path) -> None:
    """What a reference is called and what it holds cannot run into one another."""
    found = set()
    for number, (name, content) in enumerate((("ab", "c"), ("a", "bc"), ("abc", ""))):
        store = tmp_path / str(number)
        (store / "refs").mkdir(parents=True)
        (store / "refs" / name).write_text(content)
        (tmp_path / "here").symlink_to(store)
        found.add(fingerprint(tmp_path / "here"))
        (tmp_path / "here").unlink()
    assert len(found) == 3


def test_what_cannot_be_read_is_said(store: SourceStore) -> None:
    (store.path / "refs" / "sources" / "git" / "1.0").unlink()
    (store.path / "refs" / "sources" / "git" / "1.0").symlink_to("nowhere")
    with pytest.raises(OSError, match="No such file"):
        fingerprint(store.path)
