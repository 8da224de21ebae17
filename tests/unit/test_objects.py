"""Objects of a bare repository, against git itself as the oracle."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import git

from stackpatch.sources.objects import (
    DIRECTORY,
    EMPTY_TREE,
    EXECUTABLE,
    REGULAR,
    SUBMODULE,
    SYMLINK,
    Entry,
    Objects,
    Signature,
)

ODD = b'caf\xe9 "q"\n'.decode("utf-8", "surrogateescape")
WHO = Signature("Ada Example", "ada@example.invalid", 1770000000, 90)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    path = tmp_path_factory.mktemp("objects") / "r.git"
    git("init", "-q", "--bare", str(path), cwd=path.parent)
    return Objects(path)


def tree_of(objects: Objects, files: dict[str, bytes | None]) -> str:
    """A tree written by git: None stands for an executable."""
    lines = []
    for path, content in files.items():
        mode, data = ("100755", b"x") if content is None else ("100644", content)
        blob = git("hash-object", "-w", "--stdin", cwd=objects.path, stdin=data).strip()
        raw = path.encode("utf-8", "surrogateescape")
        lines.append(f"{mode} {blob}\t".encode() + raw + b"\0")
    index = objects.path / "oracle-index"
    index.unlink(missing_ok=True)
    os.environ["GIT_INDEX_FILE"] = str(index)
    try:
        git("update-index", "-z", "--index-info", cwd=objects.path, stdin=b"".join(lines))
        return git("write-tree", cwd=objects.path).strip()
    finally:
        del os.environ["GIT_INDEX_FILE"]


def changed(objects: Objects, tree: str, **files: bytes | None) -> str:
    entries = {
        path: None if content is None else Entry(REGULAR, objects.write_blob(content))
        for path, content in files.items()
    }
    return objects.with_changes(tree, entries)


def listing(objects: Objects, tree: str) -> dict[str, bytes]:
    return {path: objects.blob(entry.id) for path, entry in objects.walk(tree)}


def test_blobs_are_gits(objects: Objects) -> None:
    blob = objects.write_blob(b"hello\n")
    assert blob == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert objects.blob(blob) == b"hello\n"
    assert objects.has(blob)
    assert git("cat-file", "-p", blob, cwd=objects.path) == "hello\n"


def test_what_is_not_there_or_something_else_is_no_blob(objects: Objects) -> None:
    assert not objects.has("1" * 40)
    with pytest.raises(KeyError):
        objects.blob("1" * 40)
    tree = changed(objects, "", a=b"1")
    with pytest.raises(KeyError, match="is not a blob"):
        objects.blob(tree)
    with pytest.raises(KeyError, match="is not a tree"):
        objects.children(objects.write_blob(b"x"))


def test_a_blob_by_the_start_of_its_id(objects: Objects) -> None:
    blob = objects.write_blob(b"hello\n")
    tree = changed(objects, "", a=b"hello\n")
    assert objects.find_blob(blob[:7]) == blob
    assert objects.find_blob(blob) == blob
    assert objects.find_blob(blob[:6]) is None  # too short to mean anything
    assert objects.find_blob("0000000") is None
    assert objects.find_blob("f" * 12) is None
    assert objects.find_blob("not hex") is None
    assert objects.find_blob(tree[:12]) is None


def test_a_tree_by_git_is_read(objects: Objects) -> None:
    files = {"a/b/c.py": b"1\n", "a/b.py": b"2\n", "a-b": b"3\n", f"o/{ODD}": b"4\n", "run": None}
    tree = tree_of(objects, files)
    assert objects.entry(tree, "run") == Entry(EXECUTABLE, objects.write_blob(b"x"))
    assert objects.read(tree, "a/b/c.py") == b"1\n"
    assert objects.read(tree, f"o/{ODD}") == b"4\n"
    folder = objects.entry(tree, "a/b")
    assert folder is not None
    assert folder.mode == DIRECTORY
    for absent in ("a/b", "a", "a/x", "x", "run/x", "a/b.py/x", ""):
        assert objects.read(tree, absent) is None
    assert set(listing(objects, tree)) == set(files)


def test_the_walk_is_in_gits_order(objects: Objects) -> None:
    tree = tree_of(objects, {"a/x": b"1", "a.b": b"2", "a-b": b"3", "a0": b"4", "B": b"5"})
    walked = [path for path, _ in objects.walk(tree)]
    assert walked == git("ls-tree", "-r", "--name-only", tree, cwd=objects.path).split()


def test_links_and_submodules_are_entries_but_no_files(objects: Objects) -> None:
    link = Entry(SYMLINK, objects.write_blob(b"target"))
    module = Entry(SUBMODULE, "1" * 40)
    tree = objects.with_changes("", {"l": link, "m": module})
    assert objects.entry(tree, "l") == link
    assert objects.entry(tree, "m") == module
    assert objects.read(tree, "l") is None
    assert objects.read(tree, "m") is None
    assert objects.entry(tree, "m/x") is None
    shown = git("ls-tree", tree, cwd=objects.path)
    assert "120000 blob" in shown
    assert f"160000 commit {'1' * 40}\tm" in shown


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        ({}, {"a/b/c": b"1"}, {"a/b/c": b"1"}),
        ({"a/b/c": b"1"}, {"a/b/c": None}, {}),
        ({"a/b/c": b"1", "a/d": b"2"}, {"a/b/c": None}, {"a/d": b"2"}),
        ({"a": b"1"}, {"a/b": b"2"}, {"a/b": b"2"}),
        ({"a/b": b"1", "a/c": b"2"}, {"a": b"3"}, {"a": b"3"}),
        ({"a": b"1"}, {"b/c": None}, {"a": b"1"}),
        ({"a": b"1"}, {"a/b": None}, {"a": b"1"}),
        ({"a": b"1"}, {}, {"a": b"1"}),
        ({"a/b": b"1"}, {"a/b": None, "a/c": b"2"}, {"a/c": b"2"}),
    ],
)
def test_changes_give_the_tree_that_git_writes(
    objects: Objects,
    before: dict[str, bytes],
    changes: dict[str, bytes | None],
    after: dict[str, bytes],
) -> None:
    tree = changed(objects, tree_of(objects, dict(before)), **changes)
    assert tree == (tree_of(objects, dict(after)) if after else EMPTY_TREE)


def test_a_change_leaves_the_old_tree_alone(objects: Objects) -> None:
    before = tree_of(objects, {"a/b": b"1", "c": b"2"})
    changed(objects, before, **{"a/b": b"9"})
    assert listing(objects, before) == {"a/b": b"1", "c": b"2"}


def test_only_the_trees_above_a_change_are_written(objects: Objects) -> None:
    before = tree_of(objects, {f"d{n}/f{m}": b"x%d" % n for n in range(20) for m in range(5)})
    after = changed(objects, before, **{"d3/f1": b"new"})
    shared = sum(objects.entry(before, f"d{n}") == objects.entry(after, f"d{n}") for n in range(20))
    assert shared == 19


def test_commits_depend_on_their_arguments_alone(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tree_of(objects, {"a": b"1\n"})
    first = objects.commit(tree, (), WHO, WHO, b"subject\n\nbody\n")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    second = objects.commit(tree, (first,), WHO, Signature("B", "b@x", 1, -570), b"caf\xe9\n")
    assert objects.tree_of(second) == tree
    assert git("cat-file", "-p", second, cwd=objects.path).split("\n")[1:4] == [
        f"parent {first}",
        "author Ada Example <ada@example.invalid> 1770000000 +0130",
        "committer B <b@x> 1 -0930",
    ]
    assert first == "0ed7dd4ec4c2dfb6417b749a3a5364b6e162ae23"
    assert git("fsck", "--strict", "--no-dangling", second, cwd=objects.path) == ""


@pytest.mark.parametrize("bad", ["a<b", "a>b", "a\nb", "a\0b"])
def test_a_name_that_git_cannot_hold_is_refused(objects: Objects, bad: str) -> None:
    for who in (Signature(bad, "e", 0, 0), Signature("n", bad, 0, 0)):
        with pytest.raises(ValueError, match="not a name and address"):
            objects.commit(EMPTY_TREE, (), who, WHO, b"x")


def test_another_process_objects_are_seen(objects: Objects) -> None:
    assert not objects.has("6d5b2ad3a3f5a7d4ba3ed1d6a0d0b8a4f3a1e0cf")
    blob = git("hash-object", "-w", "--stdin", cwd=objects.path, stdin=b"late").strip()
    pack = objects.path / "objects" / "pack" / "pack"
    git("pack-objects", "-q", str(pack), cwd=objects.path, stdin=f"{blob}\n".encode())
    git("prune-packed", cwd=objects.path)
    assert not (objects.path / "objects" / blob[:2] / blob[2:]).exists()
    assert objects.blob(blob) == b"late"


_PARTS = st.sampled_from(["a", "b", "a-", "a.", "a0", "\u00e9", ODD])
_PATHS = st.lists(_PARTS, min_size=1, max_size=3).map("/".join)


def _without_collisions(files: dict[str, bytes]) -> bool:
    return not any(f"{one}/" == other[: len(one) + 1] for one in files for other in files)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(_PATHS, st.binary(max_size=3), max_size=6).filter(_without_collisions),
    st.dictionaries(_PATHS, st.binary(max_size=3), max_size=6).filter(_without_collisions),
)
def test_any_tree_becomes_any_other(
    objects: Objects, before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    start = changed(objects, "", **before) if before else EMPTY_TREE
    objects.repository.TreeBuilder().write()  # the empty tree, as an object
    removed: dict[str, bytes | None] = dict.fromkeys(before.keys() - after.keys())
    # Removals first: a folder may have to make way for a file of its name.
    emptied = changed(objects, start, **removed)
    end = changed(objects, emptied, **after)
    assert listing(objects, end) == after
    assert end == (tree_of(objects, dict(after)) if after else EMPTY_TREE)


_MODES = st.sampled_from([REGULAR, EXECUTABLE, SYMLINK, SUBMODULE])
# Few names, which sort otherwise as a folder than as a file.
_FEW = st.lists(st.sampled_from(["a", "a.", "a0"]), min_size=1, max_size=2).map("/".join)
_STEP = st.dictionaries(
    _FEW, st.none() | st.tuples(_MODES, st.integers(0, 3)), min_size=1, max_size=3
).filter(lambda step: not any(f"{a}/" == b[: len(a) + 1] for a in step for b in step))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_STEP, min_size=1, max_size=6))
def test_a_chain_of_changes_is_the_tree_written_at_once(
    objects: Objects, steps: list[dict[str, tuple[int, int] | None]]
) -> None:
    """What is kept of one tree for the next one must never show."""
    blobs = [objects.write_blob(b"%d" % number) for number in range(4)]
    objects.repository.TreeBuilder().write()
    tree = EMPTY_TREE
    for step in steps:
        changes = {
            path: None if made is None else Entry(made[0], blobs[made[1]])
            for path, made in step.items()
        }
        tree = objects.with_changes(tree, changes)
        anew = Objects(objects.path)
        whole = dict(anew.walk(tree))
        again = anew.with_changes("", whole) if whole else EMPTY_TREE
        assert again == tree
        assert all(whole.get(path) == entry for path, entry in changes.items())
