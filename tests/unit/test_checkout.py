"""A tree as files in a folder, beside what git's own checkout makes of it."""

from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.gitlab import Lab, Link, Script, Submodule, Thing

from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.sources.checkout import check_target, write_tree
from stackpatch.sources.objects import Objects

if TYPE_CHECKING:
    from pathlib import Path

FILES: dict[str, Thing] = {
    "a.txt": "text\n",
    "run.sh": Script(b"#!/bin/sh\n"),
    "d/e/f.bin": bytes(range(256)),
    "d/link": Link(b"../a.txt"),
    "d/out": Link(b"/etc/passwd"),
    "empty": b"",
    "caf\udce9": "latin name\n",
    "dos.txt": b"one\r\ntwo\r\n",
    "3rdparty/sub": Submodule(),
}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "lab.git")


def listed(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Path → mode and content; a link's content is its target."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = (0o120000, os.fsencode(path.readlink()))
        elif path.is_file():
            found[name] = (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
    return found


def test_every_kind_of_file(lab: Lab, tmp_path: Path) -> None:
    count = write_tree(lab.objects, lab.tree(lab.commit(FILES)), tmp_path / "t")
    found = listed(tmp_path / "t")
    assert count == len(FILES) - 1 == len(found), "a submodule is another repository's"
    assert found["run.sh"] == (0o755, b"#!/bin/sh\n")
    assert found["d/e/f.bin"] == (0o644, bytes(range(256)))
    assert found["d/link"] == (0o120000, b"../a.txt")
    assert found["d/out"] == (0o120000, b"/etc/passwd"), "written as a link, never through it"
    assert found["empty"] == (0o644, b"")
    assert found["caf\udce9"] == (0o644, b"latin name\n")
    assert found["dos.txt"] == (0o644, b"one\r\ntwo\r\n"), "no conversion of line ends"
    assert not (tmp_path / "t" / "3rdparty").exists()


def test_git_checks_out_the_same(lab: Lab, tmp_path: Path) -> None:
    commit = lab.commit(FILES)
    write_tree(lab.objects, lab.tree(commit), tmp_path / "ours")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    env = lab.environment | {"GIT_INDEX_FILE": str(tmp_path / "index")}
    for words in (("read-tree", commit), ("checkout-index", "-a", "-f")):
        subprocess.run(
            ("git", f"--git-dir={lab.path}", f"--work-tree={theirs}", "-c", "core.bare=false",
             *words),
            env=env, check=True, cwd=theirs, umask=0o022,
        )  # fmt: skip
    assert listed(tmp_path / "ours") == listed(theirs)


def test_modes_do_not_depend_on_the_umask(lab: Lab, tmp_path: Path) -> None:
    tree = lab.tree(lab.commit(FILES))
    before = os.umask(0o077)
    try:
        write_tree(lab.objects, tree, tmp_path / "tight")
        os.umask(0)
        write_tree(lab.objects, tree, tmp_path / "loose")
    finally:
        os.umask(before)
    assert listed(tmp_path / "tight") == listed(tmp_path / "loose")
    for folder in ("tight", "tight/d", "tight/d/e"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o755


def test_a_link_is_never_written_through(lab: Lab, tmp_path: Path) -> None:
    """git's order would make the link `a` before the file `a-b`; here links come last anyway."""
    outside = tmp_path / "outside"
    outside.mkdir()
    files: dict[str, Thing] = {"a": Link(os.fsencode(outside)), "a-b/x": "x\n", "b/c": "y\n"}
    write_tree(lab.objects, lab.tree(lab.commit(files)), tmp_path / "t")
    assert list(outside.iterdir()) == []
    assert (tmp_path / "t" / "a-b" / "x").read_text() == "x\n"


def test_an_empty_folder_is_taken_and_a_full_one_refused(lab: Lab, tmp_path: Path) -> None:
    tree = lab.tree(lab.commit({"x": "x\n"}))
    (tmp_path / "empty").mkdir()
    assert write_tree(lab.objects, tree, tmp_path / "empty") == 1
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".hidden").write_text("mine\n")
    with pytest.raises(InputError, match="is not empty") as caught:
        write_tree(lab.objects, tree, tmp_path / "full")
    assert caught.value.hint == "name a new or an empty folder"
    assert [path.name for path in (tmp_path / "full").iterdir()] == [".hidden"]


@pytest.mark.parametrize("kind", ["file", "link to a folder", "link to nothing"])
def test_what_is_no_folder_is_refused(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "t"
    match kind:
        case "file":
            target.write_text("mine\n")
        case "link to a folder":
            (tmp_path / "there").mkdir()
            target.symlink_to(tmp_path / "there")
        case _:
            target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is not a folder"):
        check_target(target)


def test_a_failure_leaves_nothing(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = lab.tree(lab.commit({"a": "a\n", "b": "b\n", "c": "c\n"}))
    blob, asked = type(lab.objects).blob, []

    def full(self: object, name: str) -> bytes:
        asked.append(name)
        if len(asked) == 3:
            raise OSError(28, "No space left on device")
        return blob(self, name)  # type: ignore[arg-type]

    monkeypatch.setattr(type(lab.objects), "blob", full)
    with pytest.raises(EnvironmentProblem, match="no space left"):
        write_tree(lab.objects, tree, tmp_path / "t")
    assert [path.name for path in tmp_path.iterdir()] == ["lab.git"]


def test_a_blob_that_is_missing_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    tree = lab.tree(lab.commit({"a": "a\n", "b": "not everywhere\n"}))
    blob = lab.git("hash-object", "--stdin", stdin=b"not everywhere\n").decode().strip()
    loose = lab.path / "objects" / blob[:2] / blob[2:]
    if not loose.exists():
        packs = [p.read_bytes() for p in lab.path.glob("objects/pack/*.pack")]
        for path in list(lab.path.glob("objects/pack/*")):
            path.chmod(0o644)
            path.unlink()
        for pack in packs:
            lab.git("unpack-objects", "-q", stdin=pack)
    loose.chmod(0o644)
    loose.unlink()
    with pytest.raises(KeyError):
        write_tree(Objects(lab.path), tree, tmp_path / "t")
    assert not (tmp_path / "t").exists()


NAMES = st.lists(
    st.text(st.sampled_from("ab.é-"), min_size=1, max_size=3).filter(
        lambda name: name not in (".", "..") and name.lower() != ".git"
    ),
    min_size=1,
    max_size=3,
).map("/".join)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(files=st.dictionaries(NAMES, st.binary(max_size=9), max_size=6), number=st.integers(0))
def test_random_trees_come_back_as_they_are(
    lab: Lab, tmp_path: Path, files: dict[str, bytes], number: int
) -> None:
    """A name that is a file and a folder at once cannot be in a tree."""
    plain = {
        name: content
        for name, content in files.items()
        if not any(other != name and other.startswith(f"{name}/") for other in files)
    }
    target = tmp_path / f"t{number}-{len(list(tmp_path.iterdir()))}"
    write_tree(lab.objects, lab.tree(lab.commit(dict(plain))), target)
    assert listed(target) == {name: (0o644, content) for name, content in plain.items()}
