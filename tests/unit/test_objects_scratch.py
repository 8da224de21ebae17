"""Objects in memory above a store: the same ids, readable as any, and nothing on disk."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pygit2
import pytest

from stackpatch.sources.objects import EXECUTABLE, REGULAR, Entry, Objects, Signature

if TYPE_CHECKING:
    from pathlib import Path

WHO = Signature("Test", "test@example.invalid", 1_700_000_000, 60)


@pytest.fixture
def store(tmp_path: Path) -> Objects:
    pygit2.init_repository(str(tmp_path / "s.git"), bare=True)
    return Objects(tmp_path / "s.git")


def build(objects: Objects, base: str = "") -> tuple[str, str]:
    """A tree with a few folders, and a commit of it."""
    changes = {
        f"a/b{number}/c.py": Entry(EXECUTABLE, objects.write_blob(f"{number}\n".encode()))
        for number in range(3)
    }
    tree = objects.with_changes(base, {**changes, "top": Entry(REGULAR, objects.write_blob(b"t"))})
    return tree, objects.commit(tree, (), WHO, WHO, b"message\n")


def on_disk(objects: Objects) -> set[str]:
    """Every object that real git finds in the store."""
    argv = ["git", "cat-file", "--batch-all-objects", "--batch-check=%(objectname)"]
    done = subprocess.run(argv, cwd=objects.path, capture_output=True, check=True, text=True)
    return set(done.stdout.split())


def test_the_ids_are_those_of_the_store_and_nothing_is_written(store: Objects) -> None:
    tree, commit = build(store.scratch())
    assert on_disk(store) == set()
    assert build(store) == (tree, commit)
    assert {tree, commit} <= on_disk(store)


def test_what_was_written_is_read_back_also_by_libgit2(store: Objects) -> None:
    scratch = store.scratch()
    tree, commit = build(scratch)
    assert scratch.read(tree, "a/b1/c.py") == b"1\n"
    assert scratch.tree_of(commit) == tree
    assert {path for path, _ in scratch.walk(tree)} == {
        "a/b0/c.py",
        "a/b1/c.py",
        "a/b2/c.py",
        "top",
    }
    found = scratch.repository[commit]
    assert isinstance(found, pygit2.Commit)
    assert found.tree["a/b2/c.py"].data == b"2\n"


def test_the_stores_objects_are_seen_through_it_and_not_the_other_way(store: Objects) -> None:
    below = store.write_blob(b"below")
    tree, _ = build(store)
    scratch = store.scratch()
    assert scratch.blob(below) == b"below"
    above = scratch.write_blob(b"above")
    changed = scratch.with_changes(tree, {"a/new": Entry(REGULAR, above)})
    assert scratch.read(changed, "a/b0/c.py") == b"0\n"
    assert scratch.has(above)
    assert not store.has(above)
    assert not store.scratch().has(above)
    with pytest.raises(KeyError):
        store.blob(above)


def test_a_missing_object_is_missing_as_ever(store: Objects) -> None:
    scratch = store.scratch()
    with pytest.raises(KeyError):
        scratch.blob("1" * 40)
    assert not scratch.has("1" * 40)
    assert scratch.find_blob("1234567") is None


def test_a_short_id_is_found_in_memory_and_on_disk_and_refused_where_it_is_two(
    store: Objects,
) -> None:
    seen: dict[str, bytes] = {}
    number = 0
    while True:  # two contents whose ids begin with the same seven digits
        content = f"x{number}".encode()
        start = str(pygit2.hash(content))[:7]
        if start in seen:
            break
        seen[start] = content
        number += 1
    scratch = store.scratch()
    first = scratch.write_blob(seen[start])
    assert scratch.find_blob(start) == first
    below = store.write_blob(b"below")
    assert scratch.find_blob(below[:9]) == below
    scratch.write_blob(content)
    assert scratch.find_blob(start) is None
    assert scratch.find_blob(first) == first


def test_three_way_merges_work_on_what_is_in_memory(store: Objects) -> None:
    scratch = store.scratch()
    base, ours, theirs = (
        scratch.with_changes("", {"f": Entry(REGULAR, scratch.write_blob(content))})
        for content in (b"1\n2\n3\n4\n5\n", b"one\n2\n3\n4\n5\n", b"1\n2\n3\n4\nfive\n")
    )
    index = scratch.repository.merge_trees(base, ours, theirs)
    assert not index.conflicts
    merged = index.write_tree(scratch.repository)
    assert scratch.read(str(merged), "f") == b"one\n2\n3\n4\nfive\n"
    assert on_disk(store) == set()
