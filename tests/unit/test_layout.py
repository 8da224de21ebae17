"""Paths of sdists and wheels against the upstream git tree's paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.errors import InputError
from stackpatch.model.layout import Layout

FLASHINFER_WHEEL = Layout.of(
    [
        ("flashinfer/", "flashinfer/"),
        ("flashinfer/data/csrc/", "csrc/"),
        ("flashinfer/data/cutlass/", "3rdparty/cutlass/"),
        ("flashinfer/data/", None),
        ("flashinfer/_build_meta.py", None),
        ("flashinfer/LICENSE.txt", "LICENSE"),
    ]
)


@pytest.mark.parametrize(
    ("path", "git"),
    [
        ("flashinfer/jit/core.py", "flashinfer/jit/core.py"),
        ("flashinfer/data/csrc/x.cu", "csrc/x.cu"),
        ("flashinfer/data/csrc/a/b.cu", "csrc/a/b.cu"),
        ("flashinfer/data/cutlass/include/x.h", "3rdparty/cutlass/include/x.h"),
        ("flashinfer/data/other.txt", None),
        ("flashinfer/_build_meta.py", None),
        ("flashinfer/_build_meta.pyi", "flashinfer/_build_meta.pyi"),
        ("flashinfer/LICENSE.txt", "LICENSE"),
        ("flashinfer_python-0.6.3.dist-info/METADATA", None),
    ],
)
def test_the_longest_rule_decides(path: str, git: str | None) -> None:
    assert FLASHINFER_WHEEL.to_git(path) == git
    if git is not None:
        assert path in FLASHINFER_WHEEL.from_git(git)


def test_a_path_of_the_git_tree_that_the_wheel_cannot_hold() -> None:
    # The catch-all rule would put it at flashinfer/data/csrc/x.cu, which stands for csrc/x.cu.
    assert FLASHINFER_WHEEL.from_git("flashinfer/data/csrc/x.cu") == ()
    assert not FLASHINFER_WHEEL.covers("tests/test_x.py")
    assert not FLASHINFER_WHEEL.covers("flashinfer/_build_meta.py")
    assert FLASHINFER_WHEEL.covers("csrc/new.cu")


def test_two_places_in_the_source_for_one_path() -> None:
    layout = Layout.of([("a/", "x/"), ("b/", "x/")])
    assert layout.from_git("x/f.py") == ("a/f.py", "b/f.py")


def test_a_folder_itself_is_no_file() -> None:
    assert Layout.of([("a/", "x/")]).from_git("x/") == ()


def test_the_identity_maps_everything_to_itself() -> None:
    assert Layout.identity().to_git("a/b") == "a/b"
    assert Layout.identity().from_git("a/b") == ("a/b",)


def test_no_rule_covers_nothing() -> None:
    assert Layout(()).to_git("a") is None
    assert not Layout(()).covers("a")


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([("a/", "b/"), ("a/", None)], "two rules for 'a/'"),
        ([("a/", "b")], "one is a folder, one a file"),
        ([("a", "b/")], "one is a folder, one a file"),
        ([("a", "")], "one is a folder, one a file"),
        ([("/a/", "b/")], "not a relative path"),
        ([("a/", "../b/")], "not a relative path"),
        ([("a//b/", "c/")], "not a relative path"),
        ([("./", "")], "not a relative path"),
    ],
)
def test_rules_that_contradict_themselves_are_refused(
    pairs: list[tuple[str, str | None]], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        Layout.of(pairs)


def test_the_digest_names_the_meaning() -> None:
    one, other = ("a/", "b/"), ("c/", None)
    assert Layout.of([one, other]).digest == Layout.of([other, one]).digest
    assert Layout.of([one]).digest != Layout.of([other]).digest
    assert Layout.of([("a/", None)]).digest != Layout.of([("a/", "None/")]).digest
    assert Layout.of([one]).digest == (
        "a9b946eaded6223f6dba077d947da7c9364907727a12d33a6ff06957247fb396"
    )


_NAMES = st.sampled_from(["a", "b", "ab", "data"])
_FOLDERS = st.lists(_NAMES, max_size=3).map(lambda parts: "".join(f"{part}/" for part in parts))
_FILES = st.tuples(_FOLDERS, _NAMES).map("".join)
_RULES = st.one_of(st.tuples(_FOLDERS, st.none() | _FOLDERS), st.tuples(_FILES, st.none() | _FILES))
_LAYOUTS = st.lists(_RULES, max_size=5, unique_by=lambda rule: rule[0]).map(Layout.of)


@given(_LAYOUTS, _FILES)
def test_what_goes_to_git_comes_back(layout: Layout, path: str) -> None:
    git = layout.to_git(path)
    if git is not None:
        assert path in layout.from_git(git)
        assert layout.covers(git)


@given(_LAYOUTS, _FILES)
def test_what_comes_from_git_goes_back(layout: Layout, git_path: str) -> None:
    found = layout.from_git(git_path)
    assert all(layout.to_git(path) == git_path for path in found)
    assert len(set(found)) == len(found)


@given(_LAYOUTS, _FILES)
def test_nothing_that_maps_is_forgotten(layout: Layout, git_path: str) -> None:
    # Brute force over every short path.
    names = ["a", "b", "ab", "data"]
    folders = [""] + [f"{x}/" for x in names] + [f"{x}/{y}/" for x in names for y in names]
    everything = {f"{folder}{name}" for folder in folders for name in names}
    expected = {path for path in everything if layout.to_git(path) == git_path}
    assert expected <= set(layout.from_git(git_path))
