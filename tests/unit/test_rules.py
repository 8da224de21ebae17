"""The name of the rules: another one whenever code that decides a verdict is another one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import stackpatch
from stackpatch.series import rules

PACKAGE = Path(stackpatch.__file__).parent


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(PACKAGE, tmp_path / "stackpatch", ignore=shutil.ignore_patterns("*.pyc"))
    return tmp_path / "stackpatch"


def test_the_same_code_in_another_place_has_the_same_rules(copy: Path) -> None:
    assert rules._digest(copy) == rules._digest(PACKAGE)


@pytest.mark.parametrize("file", ["series/doubts.py", "model/hunk.py", "sources/words.py"])
def test_any_change_is_another_set_of_rules(copy: Path, file: str) -> None:
    with (copy / file).open("a") as text:
        text.write("\n")
    assert rules._digest(copy) != rules._digest(PACKAGE)


def test_a_module_that_comes_or_moves_is_another_set_of_rules(copy: Path) -> None:
    before = rules._digest(copy)
    (copy / "series" / "doubts.py").rename(copy / "series" / "doubt.py")
    moved = rules._digest(copy)
    (copy / "series" / "new.py").touch()
    assert len({before, moved, rules._digest(copy)}) == 3


def test_code_that_judges_nothing_is_no_rule(copy: Path) -> None:
    (copy / "cli" / "matrix.py").write_text("")
    assert rules._digest(copy) == rules._digest(PACKAGE)


def test_the_libraries_are_named_with_their_versions() -> None:
    rules.rules.cache_clear()
    own, *versions = rules.rules().split("/")
    assert len(own) == 64
    assert len(versions) == 5
