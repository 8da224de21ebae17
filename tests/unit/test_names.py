"""The name index of a store: complete whatever happens to its files, no work for old contents.

`brute` is the oracle: every code file of a tree that holds all the words, read one by one.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.model.reference import SourceKind
from stackpatch.series import symbols
from stackpatch.series.side import Side
from stackpatch.series.whereabouts import places_of
from stackpatch.sources import names, words
from stackpatch.sources.archive import Member
from stackpatch.sources.objects import EXECUTABLE, REGULAR, SYMLINK, Entry, Objects
from stackpatch.sources.store import SourceStore, Stored
from stackpatch.sources.words import words_of, words_of_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Files = dict[str, bytes]
FIRST: Files = {
    "pkg/a.py": b"def alpha():\n    return bravo\n",
    "pkg/b.py": b"class Bravo:\n    def alpha(self): ...\n",
    "src/k.cu": b"namespace deep { void launch() {} }\n",
    "src/k.cuh": b"void launch();\n",
    "notes.txt": b"alpha launch\n",
}


def put(store: SourceStore, version: str, files: Mapping[str, bytes]) -> Stored:
    members = (Member.of(path, REGULAR, content) for path, content in files.items())
    return store.import_files(
        SourceKind.SDIST, version, members, seconds=0, evidence={"Artefact": version}
    )


def fresh(store: SourceStore) -> Objects:
    """The store as another process sees it."""
    return Objects(store.path)


def brute(objects: Objects, tree: str, name: str) -> list[tuple[str, str]]:
    wanted = words_of_name(name)
    return sorted(
        (path, entry.id)
        for path, entry in objects.files(tree)
        if names.is_code(path, entry.mode) and wanted <= words_of(objects.blob(entry.id))
    )


def check(objects: Objects, tree: str, *wanted: str) -> None:
    for name in wanted or ("alpha", "launch", "Bravo.alpha", "bravo", "absent"):
        assert objects.names.files(tree, words_of_name(name)) == brute(objects, tree, name), name


def reads(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The blobs that are read from now on."""
    seen: list[str] = []
    real = objects.blob

    def blob(blob_id: str) -> bytes:
        seen.append(blob_id)
        return real(blob_id)

    monkeypatch.setattr(objects, "blob", blob)
    return seen


@pytest.fixture
def store(tmp_path: Path) -> SourceStore:
    return SourceStore("pkg", tmp_path / "sources")


def test_it_knows_the_suffixes_that_the_parsers_know() -> None:
    known = {f".{suffix}" for suffix in names.CODE}
    assert known == set(symbols._SUFFIXES)


def test_an_import_leaves_an_index_and_a_question_reads_nothing(
    store: SourceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = put(store, "1", FIRST)
    assert [file.name for file in (store.path / "names").iterdir()] == [f"{stored.tree}.names"]
    objects = fresh(store)
    check(objects, stored.tree)
    seen = reads(objects, monkeypatch)
    found = objects.names.files(stored.tree, words_of_name("launch"))
    assert [path for path, _ in found] == ["src/k.cu", "src/k.cuh"]
    assert seen == []


def test_a_release_adds_only_its_new_files(
    store: SourceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "1", FIRST)
    many = {f"gen/{n}.py": b"def gen_%d(): ...\n" % n for n in range(50)}
    second = put(store, "2", {**FIRST, **many})
    third = put(store, "3", {**FIRST, **many, "pkg/b.py": b"def alpha(): ...\n"})
    fourth = put(store, "4", {**FIRST, **many, "pkg/c.py": FIRST["pkg/a.py"]})
    objects = fresh(store)
    sizes = {s.tree: s.count for s in objects.names._loaded().values()}
    assert [sizes[s.tree] for s in (second, third, fourth)] == [50, 1, 1]
    seen = reads(objects, monkeypatch)
    for stored in (second, third, fourth):
        objects.names.files(stored.tree, words_of_name("gen_7"))
    assert seen == []
    for stored in (second, third, fourth):
        check(objects, stored.tree, "alpha", "gen_7", "Bravo")


def test_a_content_that_changes_places_is_found_where_it_is(store: SourceStore) -> None:
    first = put(store, "1", FIRST)
    moved = {path.replace("pkg/", "lib/"): content for path, content in FIRST.items()}
    second = put(store, "2", moved)
    swapped = {**FIRST, "pkg/a.py": FIRST["pkg/b.py"], "pkg/b.py": FIRST["pkg/a.py"]}
    third = put(store, "3", swapped)
    objects = fresh(store)
    for stored in (first, second, third):
        check(objects, stored.tree)


def test_links_submodules_and_other_files_are_no_code(store: SourceStore) -> None:
    members = [
        Member.of("a.py", REGULAR, b"alpha = 1\n"),
        Member.of("run.py", EXECUTABLE, b"alpha = 1\n"),
        Member.of("link.py", SYMLINK, b"a.py"),
        Member.of("alpha.md", REGULAR, b"alpha = 1\n"),
        Member.of("UPPER.PY", REGULAR, b"alpha = 1\n"),
    ]
    stored = store.import_files(SourceKind.SDIST, "1", members, seconds=0, evidence={})
    found = fresh(store).names.files(stored.tree, words_of_name("alpha"))
    assert [path for path, _ in found] == ["UPPER.PY", "a.py", "run.py"]


def test_a_store_without_an_index_gets_one_when_it_is_asked(
    store: SourceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = put(store, "1", FIRST)
    (store.path / "names" / f"{stored.tree}.names").unlink()
    check(fresh(store), stored.tree)
    later = fresh(store)
    seen = reads(later, monkeypatch)
    later.names.files(stored.tree, words_of_name("alpha"))
    assert seen == []


# --- trees of ours ------------------------------------------------------------------------------


def entry(objects: Objects, content: bytes) -> Entry:
    return Entry(REGULAR, objects.write_blob(content))


def test_a_patched_tree_is_its_origin_and_what_changed(
    store: SourceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = put(store, "1", FIRST)
    objects = fresh(store)
    new = entry(objects, b"def alpha(): ...\nlaunch = alpha\n")
    once = objects.with_changes(stored.tree, {"pkg/b.py": new, "pkg/a.py": None})
    twice = objects.with_changes(once, {"new/folder/x.py": new})
    seen = reads(objects, monkeypatch)
    for tree in (once, twice):
        found = dict(objects.names.files(tree, words_of_name("launch")))
        assert found["pkg/b.py"] == new.id
        assert "pkg/a.py" not in found
    assert seen == [], "a file that we changed is always listed, unread"
    assert len(list((store.path / "names").iterdir())) == 1, "a patched tree needs no file"
    for tree in (once, twice):
        for name in ("alpha", "launch", "absent"):
            listed = set(objects.names.files(tree, words_of_name(name)))
            assert listed >= set(brute(objects, tree, name))


def test_a_file_in_place_of_a_folder_hides_what_was_below(store: SourceStore) -> None:
    stored = put(store, "1", FIRST)
    objects = fresh(store)
    tree = objects.with_changes(stored.tree, {"pkg": entry(objects, b"alpha")})
    assert objects.names.files(tree, words_of_name("alpha")) == []


def test_a_whole_folder_put_into_a_tree_is_searched(store: SourceStore) -> None:
    stored = put(store, "1", FIRST)
    objects = fresh(store)
    folder = objects.entry(stored.tree, "src")
    assert folder is not None
    hidden = objects.with_changes("", {"z.py": entry(objects, b"def launch(): ...\n")})
    tree = objects.with_changes(stored.tree, {"src": Entry(folder.mode, hidden)})
    check(objects, tree)
    assert [p for p, _ in objects.names.files(tree, words_of_name("launch"))] == ["src/z.py"]


def test_a_tree_that_differs_in_many_files_is_indexed_itself(store: SourceStore) -> None:
    stored = put(store, "1", FIRST)
    objects = fresh(store)
    changes = {f"gen/{n}.py": entry(objects, b"def gen_%d(): ...\n" % n) for n in range(100)}
    tree = objects.with_changes(stored.tree, changes)
    found = objects.names.files(tree, words_of_name("gen_7"))
    assert [path for path, _ in found] == ["gen/7.py"]
    check(objects, tree)


def test_the_tree_of_a_change_taken_back_is_the_release(store: SourceStore) -> None:
    stored = put(store, "1", FIRST)
    objects = fresh(store)
    before = objects.entry(stored.tree, "pkg/a.py")
    away = objects.with_changes(stored.tree, {"pkg/a.py": None})
    assert objects.with_changes(away, {"pkg/a.py": before}) == stored.tree
    assert objects.with_changes(stored.tree, {"pkg/a.py": before}) == stored.tree
    check(objects, away)
    check(objects, stored.tree)


# --- damage -------------------------------------------------------------------------------------


def releases(store: SourceStore) -> list[Stored]:
    made = [put(store, "1", FIRST)]
    for number in range(2, 5):
        changed = {"pkg/b.py": b"def bravo():\n    return %d\n" % number}
        made.append(put(store, str(number), {**FIRST, **changed, f"n{number}.py": b"alpha = 1\n"}))
    return made


def file_of(store: SourceStore, stored: Stored) -> Path:
    return store.path / "names" / f"{stored.tree}.names"


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "flipped", "other", "folder", "text"])
def test_a_damaged_file_never_hides_a_definition(
    store: SourceStore, which: int, damage: str
) -> None:
    made = releases(store)
    file = file_of(store, made[which])
    content = file.read_bytes()
    match damage:
        case "gone":
            file.unlink()
        case "empty":
            file.write_bytes(b"")
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "flipped":
            file.write_bytes(content[:-40] + bytes([content[-40] ^ 1]) + content[-39:])
        case "other":
            file.write_bytes(file_of(store, made[which - 1]).read_bytes())
        case "folder":
            file.unlink()
            file.mkdir()
        case _:
            file.write_bytes(b"stackpatch names\n{}\n" + b"x" * 16)
    objects = fresh(store)
    for stored in made:
        check(objects, stored.tree)
    again = fresh(store)
    for stored in made:
        check(again, stored.tree)


def test_what_a_lost_file_held_is_indexed_again(
    store: SourceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = releases(store)
    file_of(store, made[0]).unlink()
    objects = fresh(store)
    for stored in made:
        check(objects, stored.tree)
    later = fresh(store)
    seen = reads(later, monkeypatch)
    for stored in made:
        later.names.files(stored.tree, words_of_name("alpha"))
    assert seen == []


def test_an_index_of_another_version_is_made_again(
    store: SourceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = releases(store)
    before = file_of(store, made[0]).read_bytes()
    monkeypatch.setattr(words, "VERSION", words.VERSION + 1)
    objects = fresh(store)
    assert not objects.names.covers(made[0].tree)
    for stored in made:
        check(objects, stored.tree)
    assert file_of(store, made[0]).read_bytes() != before


def test_an_index_that_cannot_be_written_is_no_failure(store: SourceStore) -> None:
    with store.exclusive():
        pass
    (store.path / "names").write_bytes(b"a file where the folder should be")
    made = releases(store)
    objects = fresh(store)
    for stored in made:
        check(objects, stored.tree)


CHILD = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from stackpatch.sources.objects import Objects
    from stackpatch.sources.words import words_of_name
    store, at, *trees = sys.argv[1:]
    calls = 0
    real = os.replace
    def replace(*words):
        global calls
        calls += 1
        if calls == int(at):
            os.kill(os.getpid(), signal.SIGKILL)
        real(*words)
    os.replace = replace
    objects = Objects(Path(store))
    for tree in trees:
        print(objects.names.files(tree, words_of_name("alpha")))
    """
)


def child(store: SourceStore, kill_at: int, trees: list[str]) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", CHILD, str(store.path), str(kill_at), *trees]
    return subprocess.Popen(argv, stdout=subprocess.PIPE)


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_kill_in_mid_write_leaves_nothing_wrong(store: SourceStore, at: int) -> None:
    made = releases(store)
    for stored in made:
        file_of(store, stored).unlink()
    killed = child(store, at, [stored.tree for stored in made])
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    leftovers = list((store.path / "names").glob(".*.tmp"))
    assert len(leftovers) == 1
    assert len(list((store.path / "names").glob("*.names"))) == at - 1
    objects = fresh(store)
    for stored in made:
        check(objects, stored.tree)
    put(store, "9", {"z.py": b"zulu = 1\n"})
    assert not leftovers[0].exists(), "the next import sweeps"


def test_two_processes_that_index_the_same_store_agree(store: SourceStore) -> None:
    made = releases(store)
    trees = [stored.tree for stored in made]
    for round_ in range(3):
        for stored in made:
            file_of(store, stored).unlink()
        # Each begins elsewhere, so that what is new to a tree differs between them.
        both = [child(store, 0, trees), child(store, 0, trees[::-1])]
        said = [one.communicate(timeout=60)[0].decode().splitlines() for one in both]
        assert [one.returncode for one in both] == [0, 0], round_
        assert said[0] == said[1][::-1]
        objects = fresh(store)
        for stored in made:
            check(objects, stored.tree)


def test_a_second_process_adds_to_what_the_first_has_read(store: SourceStore) -> None:
    first = put(store, "1", FIRST)
    objects = store.objects
    check(objects, first.tree)
    other = SourceStore("pkg", store.path.parent)
    second = put(other, "2", {**FIRST, "new.py": b"def alpha(): ...\n"})
    check(objects, second.tree)
    check(fresh(store), first.tree)
    check(fresh(store), second.tree)


def test_an_import_that_is_refused_adds_nothing(store: SourceStore) -> None:
    first = put(store, "1", FIRST)

    def broken() -> Iterator[Member]:
        yield Member.of("a.py", REGULAR, b"alpha = 1\n")
        msg = "the archive ends here"
        raise OSError(msg)

    with pytest.raises(OSError, match="ends here"):
        store.import_files(SourceKind.SDIST, "2", broken(), seconds=0, evidence={})
    assert list((store.path / "names").iterdir()) == [file_of(store, first)]
    check(store.objects, first.tree)


# --- whereabouts --------------------------------------------------------------------------------


def test_places_are_those_that_define_it_nearest_first(store: SourceStore) -> None:
    stored = put(
        store,
        "1",
        {
            "pkg/jit/a.py": b"def build(): ...\n",
            "pkg/jit/b.py": b"def build(): ...\n",
            "pkg/c.py": b"class C:\n    def build(self): ...\n",
            "z.py": b"def build(): ...\n",
            "caller.py": b"import build\nbuild()\n",
            "k.cu": b"void build() {}\n",
        },
    )
    objects = fresh(store)
    found = [path for path, _ in places_of(objects, stored.tree, "build", "pkg/jit/a.py")]
    assert found == ["pkg/jit/b.py", "pkg/c.py", "z.py"]
    assert [p for p, _ in places_of(objects, stored.tree, "build", "x.h")] == ["k.cu"]
    assert places_of(objects, stored.tree, "build", "x.cu.jinja") == []
    assert places_of(objects, stored.tree, "*", "x.py") == []
    assert objects.asked == [("build", "pkg/jit/a.py"), ("build", "x.h")]


_LINES = st.sampled_from(
    [
        "def alpha():\n    pass\n",
        "class Bravo:\n    def alpha(self):\n        pass\n",
        "alpha = bravo\n",
        "# def alpha():\n",
        "void alpha() {}\n",
        "namespace bravo { int alpha = 1; }\n",
        "#define ALPHA 1\n",
        "struct { int alpha() { return 1; } } bravo;\n",
    ]
)
_TREES = st.dictionaries(
    st.sampled_from(["a.py", "b.py", "d/c.py", "d/k.cu", "k.h", "e/f/g.py", "t.txt"]),
    st.lists(_LINES, max_size=4).map("".join),
    min_size=1,
)


@given(trees=st.lists(_TREES, min_size=1, max_size=4))
def test_no_definition_is_missed_in_any_release(
    tmp_path_factory: pytest.TempPathFactory, trees: list[dict[str, str]]
) -> None:
    store = SourceStore("pkg", tmp_path_factory.mktemp("s"))
    made = [
        put(store, str(number), {path: text.encode() for path, text in files.items()})
        for number, files in enumerate(trees)
    ]
    objects = fresh(store)
    for stored in made:
        for name in ("alpha", "Bravo.alpha", "bravo::alpha", "ALPHA", "(anonymous)::alpha"):
            for home in ("a.py", "k.h"):
                wanted = {
                    path
                    for path, e in objects.files(stored.tree)
                    if path != home
                    and symbols.language_of(path) is symbols.language_of(home)
                    and Side(path, objects.blob(e.id)).symbols.named(name)
                }
                found = {path for path, _ in places_of(objects, stored.tree, name, home)}
                assert found == wanted, (name, home)
