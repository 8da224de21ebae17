"""Which folder a command works on: named, the nearest above, or the installed set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stackpatch.cli import roots
from stackpatch.cli.roots import Origin, find_root
from stackpatch.errors import InputError


def make_root(folder: Path) -> Path:
    for name in ("recipes", "patches"):
        (folder / name).mkdir(parents=True)
    return folder


def test_named_folder_wins_over_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, named = make_root(tmp_path / "here"), make_root(tmp_path / "named")
    monkeypatch.chdir(here)
    found = find_root(named)
    assert (found.path, found.origin) == (named, Origin.NAMED)
    assert found.recipes == named / "recipes"
    assert found.patches == named / "patches"
    assert found.dockerfiles == named / "dockerfiles"


def test_a_relative_name_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_root(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    assert find_root(Path("set")).path == tmp_path / "set"


def test_a_named_folder_may_have_no_patches_yet(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    assert find_root(tmp_path).path == tmp_path


@pytest.mark.parametrize(
    ("name", "said"), [("absent", "no such folder"), ("empty", "no recipes/"), ("file", "no such")]
)
def test_a_wrong_name_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=said) as caught:
        find_root(tmp_path / name)
    assert name in caught.value.message
    assert caught.value.hint


def test_the_nearest_folder_above_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = make_root(tmp_path / "outer")
    inner = make_root(outer / "a" / "inner")
    deep = inner / "x" / "y"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert find_root().path == inner
    monkeypatch.chdir(outer / "a")
    found = find_root()
    assert (found.path, found.origin) == (outer, Origin.ABOVE)


def test_a_folder_with_only_recipes_above_is_somebody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()  # a cook book
    monkeypatch.chdir(tmp_path)
    assert find_root().origin is Origin.INSTALLED


def test_outside_every_set_the_installed_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = find_root()
    assert found.origin is Origin.INSTALLED
    assert found.recipes.is_dir()
    assert found.patches.is_dir()


def test_a_package_without_its_set_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(roots, "__file__", str(tmp_path / "a/b/stackpatch/cli/roots.py"))
    with pytest.raises(InputError, match="none in the package") as caught:
        find_root()
    assert "--root" in str(caught.value.hint)


def test_a_current_folder_that_was_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for named in (None, Path("set")):
        with pytest.raises(InputError, match="current folder"):
            find_root(named)
    os.chdir(tmp_path)
