"""A folder with recipes and patches, as it is found and as other people leave it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.folders import RECIPE, mail, make_folder

from stackpatch.errors import EnvironmentProblem, InputError, Problems
from stackpatch.model import yamlfile
from stackpatch.model.collection import Collection

if TYPE_CHECKING:
    from pathlib import Path


def test_stacks_recipe_and_series(tmp_path: Path) -> None:
    collection = Collection(make_folder(tmp_path))
    assert collection.stacks() == ("demo",)
    recipe = collection.recipe("demo")
    release = recipe.release()
    assert collection.series_dir("demo", release) == tmp_path / "patches/demo/v1.0"
    series = collection.series("demo", release)
    assert [patch.subject for patch in series.patches] == ["demo: add b"]
    assert series.where == str(tmp_path / "patches/demo/v1.0")


def test_a_release_without_a_series_has_no_patches(tmp_path: Path) -> None:
    text = RECIPE.replace("    series: v1.0\n", "")
    collection = Collection(make_folder(tmp_path, recipes={"demo.yaml": text}))
    release = collection.recipe("demo").release()
    assert collection.series_dir("demo", release) is None
    assert collection.series("demo", release).patches == ()


def test_only_recipes_are_stacks(tmp_path: Path) -> None:
    others = [".hidden.yaml", "demo.lock.json", "README.md", "demo.yml", "demo.yaml~", ".keep"]
    recipes = {"b.yaml": "x", "a.yaml": "x", **dict.fromkeys(others, "x")}
    collection = Collection(make_folder(tmp_path, recipes=recipes))
    assert collection.stacks() == ("a", "b")


def test_an_unknown_stack_is_refused_with_the_nearest(tmp_path: Path) -> None:
    collection = Collection(make_folder(tmp_path))
    for name in ("dmeo", "../demo", "", "/etc/passwd"):
        with pytest.raises(InputError) as caught:
            collection.recipe(name)
        assert repr(name) in caught.value.message
        assert str(tmp_path) in caught.value.message
    with pytest.raises(InputError) as caught:
        collection.recipe("dmeo")
    assert caught.value.hint == "did you mean demo?"


def test_a_folder_without_recipes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no recipes/ folder"):
        Collection(tmp_path).stacks()
    (tmp_path / "recipes").write_text("a file")
    with pytest.raises(InputError, match="has no recipes/ folder"):
        Collection(tmp_path).stacks()


def test_problems_name_the_file_as_one_types_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(tmp_path / "mine", recipes={"demo.yaml": RECIPE + "extra: 1\n"})
    for folder, name in (
        (root, "recipes/demo.yaml"),
        (tmp_path, "mine/recipes/demo.yaml"),
        (root / "patches", str(root / "recipes/demo.yaml")),
    ):
        monkeypatch.chdir(folder)
        with pytest.raises(Problems) as caught:
            Collection(root).recipe("demo")
        (line,) = caught.value.problems
        assert line.startswith(f"{name}:20: extra: unknown key; ")


def test_the_file_must_hold_the_stack_of_its_name(tmp_path: Path) -> None:
    collection = Collection(make_folder(tmp_path, recipes={"other.yaml": RECIPE}))
    with pytest.raises(Problems) as caught:
        collection.recipe("other")
    assert caught.value.problems[0].endswith(
        ":1: stack: 'demo' in a file named other.yaml; they must agree"
    )


def test_what_is_no_plain_file_is_not_read(tmp_path: Path) -> None:
    root = make_folder(tmp_path, recipes={})
    (root / "recipes/folder.yaml").mkdir()
    os.mkfifo(root / "recipes/pipe.yaml")  # reading it would wait for ever
    (root / "recipes/device.yaml").symlink_to("/dev/zero")  # and this one would never end
    (root / "recipes/gone.yaml").symlink_to("nowhere")
    (root / "recipes/loop.yaml").symlink_to("loop.yaml")
    collection = Collection(root)
    for name in ("folder", "pipe", "device"):
        with pytest.raises(InputError, match=rf"{name}\.yaml is not a plain file"):
            collection.recipe(name)
    for name in ("gone", "loop"):
        with pytest.raises(EnvironmentProblem, match=rf"cannot read .*{name}\.yaml: "):
            collection.recipe(name)


def test_a_huge_file_is_not_read_whole(tmp_path: Path) -> None:
    root = make_folder(tmp_path, recipes={})
    with (root / "recipes/huge.yaml").open("wb") as file:
        file.truncate(1 << 40)  # sparse: a terabyte of zeros
    assert len(Collection(root).read_recipe("huge")) == yamlfile.MAX_BYTES + 1
    with pytest.raises(Problems, match="1 problem") as caught:
        Collection(root).recipe("huge")
    assert "too large" in caught.value.problems[0]


def test_a_series_that_is_not_there(tmp_path: Path) -> None:
    collection = Collection(make_folder(tmp_path, series={}))
    release = collection.recipe("demo").release()
    with pytest.raises(InputError, match=r"no series in .*patches/demo/v1\.0"):
        collection.series("demo", release)


def test_a_current_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder(tmp_path / "mine")
    lost = tmp_path / "lost"
    lost.mkdir()
    monkeypatch.chdir(lost)
    lost.rmdir()
    assert Collection(root).shown(root / "x") == str(root / "x")
    assert Collection(root).recipe("demo").stack == "demo"


def test_the_helper_writes_a_real_mail() -> None:
    assert mail().startswith("From 0123456789abcdef")
