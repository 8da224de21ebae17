"""Our own code as a key: another one whenever code that decides is another one."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from stackpatch.model import own_code
from stackpatch.series import rules

if TYPE_CHECKING:
    from pathlib import Path

ROOMS = ("model", "series", "sources")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("*.pyc")
    return shutil.copytree(own_code.PACKAGE, tmp_path / "stackpatch", ignore=ignored)


def test_the_same_code_in_another_place_is_the_same(copy: Path) -> None:
    assert own_code.digest(*ROOMS, package=copy) == own_code.digest(*ROOMS)


@pytest.mark.parametrize("file", ["series/doubts.py", "model/hunk.py", "sources/words.py"])
def test_any_change_is_another(copy: Path, file: str) -> None:
    with (copy / file).open("a") as text:
        text.write("\n")
    assert own_code.digest(*ROOMS, package=copy) != own_code.digest(*ROOMS)


def test_a_module_that_comes_or_moves_is_another(copy: Path) -> None:
    found = {own_code.digest(*ROOMS, package=copy)}
    (copy / "series" / "doubts.py").rename(copy / "series" / "doubt.py")
    found.add(own_code.digest(*ROOMS, package=copy))
    (copy / "series" / "new.py").touch()
    found.add(own_code.digest(*ROOMS, package=copy))
    assert len(found) == 3


def test_another_room_is_nothing_to_it(copy: Path) -> None:
    (copy / "cli" / "matrix.py").write_text("")
    assert own_code.digest(*ROOMS, package=copy) == own_code.digest(*ROOMS)
    assert own_code.digest("cli", package=copy) != own_code.digest("cli")


def test_the_rules_of_verdicts_name_the_libraries_too() -> None:
    rules.rules.cache_clear()
    own, *versions = rules.rules().split("/")
    assert own == own_code.digest(*ROOMS)
    assert len(versions) == 5
