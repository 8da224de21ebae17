"""What a matrix can depend on: every change of it is another state, and what is unclear is none."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.cli import matrix_inputs
from stackpatch.cli.matrix_inputs import Question, asked_here, state
from stackpatch.series import rules
from stackpatch.sources.store import SourceStore

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Question:
    """A question about `demo`, beside a stack `other`."""
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", str(tmp_path / "cache"))
    root = tmp_path / "root"
    for stack in ("demo", "other"):
        series = root / "patches" / stack / "v1"
        series.mkdir(parents=True)
        (series / "series").write_text("a.patch\n")
        (series / "a.patch").write_text(f"{stack}\n")
        (root / "recipes").mkdir(exist_ok=True)
        (root / "recipes" / f"{stack}.yaml").write_text(f"stack: {stack}\n")
        assert SourceStore(stack).objects.write_blob(b"x\n")
    return Question(("demo@1.0",), "stored", str(root), offline=True, json=True)


def _root(asked: Question) -> Path:
    assert asked.root is not None
    return Path(asked.root)


CHANGES: dict[str, Callable[[Path], object]] = {
    "the recipe": lambda root: (root / "recipes/demo.yaml").write_text("stack: Demo\n"),
    "another recipe": lambda root: (root / "recipes/new.yaml").touch(),
    "a recipe less": lambda root: (root / "recipes/other.yaml").unlink(),
    "a patch": lambda root: (root / "patches/demo/v1/a.patch").write_text("Demo\n"),
    "the list": lambda root: (root / "patches/demo/v1/series").write_text("# none\n"),
    "a file more": lambda root: (root / "patches/demo/v1/notes").touch(),
    "a patch renamed": lambda root: (root / "patches/demo/v1/a.patch").rename(
        root / "patches/demo/v1/b.patch"
    ),
    "a series more": lambda root: shutil.copytree(
        root / "patches/demo/v1", root / "patches/demo/v2"
    ),
    "no series": lambda root: shutil.rmtree(root / "patches/demo"),
    "the store": lambda _: SourceStore("demo").objects.write_blob(b"y\n"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_another_state(asked: Question, what: str) -> None:
    before = state(asked)
    assert before is not None
    CHANGES[what](_root(asked))
    after = state(asked)
    assert after is not None
    assert after != before


def test_what_it_does_not_name_is_nothing_to_it(asked: Question) -> None:
    before = state(asked)
    (_root(asked) / "patches/other/v1/a.patch").write_text("changed\n")
    (_root(asked) / "recipes/other.yaml").write_text("stack: changed\n")
    (_root(asked) / "recipes/demo.lock.json").write_text("{}")
    SourceStore("other").objects.write_blob(b"y\n")
    assert state(asked) == before
    every = state(replace(asked, stacks=None))
    (_root(asked) / "patches/other/v1/a.patch").write_text("changed again\n")
    assert state(asked) == before
    assert state(replace(asked, stacks=None)) != every


@pytest.mark.parametrize("kind", ["wording", "rules", "libraries", "asking"])
def test_other_code_is_another_state(
    asked: Question, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    before = state(asked)
    match kind:
        case "wording":
            monkeypatch.setattr(matrix_inputs, "wording", lambda: "other")
        case "rules":
            monkeypatch.setattr(matrix_inputs, "rules", lambda: "other")
        case "libraries":
            monkeypatch.setattr(matrix_inputs, "versions", lambda *_: ["0.0"])
        case _:
            monkeypatch.setattr("stackpatch.model.own_code.digest", lambda *_: "other")
    assert state(asked) != before


def test_the_code_that_words_an_answer_is_among_it() -> None:
    """Names of modules that were moved would make a digest of nothing."""
    for part in (*matrix_inputs._WORDING, *matrix_inputs._ASKING):
        assert (Path(matrix_inputs.__file__).parents[1] / part).is_file()
    assert rules.versions(*matrix_inputs._LIBRARIES)


def _pipe(root: Path) -> None:
    (root / "recipes/demo.yaml").unlink()
    os.mkfifo(root / "recipes/demo.yaml")


UNCLEAR: dict[str, Callable[[Path], object]] = {
    "a link to a folder": lambda root: (root / "patches/demo/v2").symlink_to(root),
    "a pipe in the series": lambda root: os.mkfifo(root / "patches/demo/v1/pipe"),
    "a pipe for a recipe": _pipe,
    "a link to nothing": lambda root: (root / "patches/demo/v1/b.patch").symlink_to("nowhere"),
    "no recipe": lambda root: (root / "recipes/demo.yaml").unlink(),
    "no recipes": lambda root: shutil.rmtree(root / "recipes"),
    "a huge file": lambda root: os.truncate(root / "patches/demo/v1/a.patch", 1 << 25),
}


@pytest.mark.parametrize("what", UNCLEAR)
def test_what_is_unclear_has_no_state(asked: Question, what: str) -> None:
    assert state(asked) is not None
    UNCLEAR[what](_root(asked))
    assert state(asked) is None


def test_a_linked_patch_counts_by_its_content(asked: Question, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.patch"
    elsewhere.write_text("one\n")
    (_root(asked) / "patches/demo/v1/b.patch").symlink_to(elsewhere)
    before = state(asked)
    elsewhere.write_text("two\n")
    assert before is not None
    assert state(asked) != before


def test_words_mean_something_else_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = {asked_here(["a", "b"]), asked_here(["a b"]), asked_here(["b", "a"])}
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", str(tmp_path / "another"))
    found.add(asked_here(["a", "b"]))
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    found.add(asked_here(["a", "b"]))
    (tmp_path / "below").rmdir()
    found.add(asked_here(["a", "b"]))  # the current folder is gone
    assert len(found) == 6


_QUESTIONS = st.builds(
    Question,
    st.none() | st.lists(st.text()).map(tuple),
    st.text(),
    st.none() | st.text(),
    offline=st.booleans(),
    json=st.booleans(),
)


@given(_QUESTIONS)
def test_a_question_comes_back_from_its_json(question: Question) -> None:
    import json

    assert Question.from_json(json.loads(json.dumps(question.to_json()))) == question


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {},
        {"stacks": None},
        {"stacks": 3, "refs": "", "root": None, "offline": True, "json": True},
        {"stacks": None, "refs": 1, "root": None, "offline": True, "json": True},
        {"stacks": None, "refs": "", "root": 1, "offline": True, "json": True},
        {"stacks": None, "refs": "", "root": None, "offline": "no", "json": True},
        {"stacks": [1], "refs": "", "root": None, "offline": True, "json": True},
        {"stacks": None, "refs": "", "root": None, "offline": True, "json": True, "more": 1},
    ],
)
def test_what_is_no_question_is_refused(said: Any) -> None:
    with pytest.raises((KeyError, TypeError)):
        Question.from_json(said)


def test_the_network_decides_what_files_do_not() -> None:
    asked = Question(None, "all", None, offline=False, json=False)
    assert not asked.decided_here
    assert replace(asked, offline=True).decided_here
    assert replace(asked, refs="stored").decided_here
    assert not replace(asked, refs="git:main").decided_here
