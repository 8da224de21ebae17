"""Our own code as a key: another one whenever code that decides is another one."""

from __future__ import annotations

import shutil
import sys
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


def test_a_room_may_be_one_module(copy: Path) -> None:
    one = own_code.digest("cli/output.py", package=copy)
    (copy / "cli" / "matrix.py").write_text("")
    assert own_code.digest("cli/output.py", package=copy) == one
    (copy / "cli" / "output.py").write_text("")
    assert own_code.digest("cli/output.py", package=copy) != one
    with pytest.raises(FileNotFoundError):
        own_code.digest("cli/nobody.py", package=copy)


LIBRARIES = (*rules._LIBRARIES, "packaging", "pydantic", "pyyaml", "typer")


def test_versions_are_those_that_python_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    assert rules.versions(*LIBRARIES) == [metadata.version(name) for name in LIBRARIES]
    # A folder on the path that is an archive, or gone, or describes nothing.
    monkeypatch.setattr(sys, "path", ["/nowhere.zip", *sys.path])
    assert rules.versions(*LIBRARIES) == [metadata.version(name) for name in LIBRARIES]


def test_the_first_on_the_path_is_the_one_that_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("Tree_Sitter-9.9.dist-info", "typer-8.8.egg-info", "pygit2", "regex-.dist-info"):
        (tmp_path / name).mkdir()
    before = rules.versions("tree-sitter", "typer", "regex")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert rules.versions("tree-sitter", "typer", "regex") == ["9.9", *before[1:]]
    (tmp_path / "tree_sitter-10.0.dist-info").mkdir()  # pip was killed before it removed the old
    assert rules.versions("tree-sitter") not in (["9.9"], ["10.0"])


def test_a_library_that_describes_itself_otherwise_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "typer-7.7.egg-info"
    folder.mkdir()
    (folder / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: typer\nVersion: 7.7\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert rules.versions("typer") == ["7.7"]


def test_the_rules_of_verdicts_name_the_libraries_too() -> None:
    rules.rules.cache_clear()
    own, *versions = rules.rules().split("/")
    assert own == own_code.digest(*ROOMS)
    assert len(versions) == 5
