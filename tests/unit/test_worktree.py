"""The work tree of a conflict, by itself: what stands in it, and what is read back from it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.gitlab import Lab, Link, Script, Submodule, Thing

from stackpatch.errors import FindingError, InputError, WaitingError
from stackpatch.model.diff import Change
from stackpatch.model.patch import parse_patch
from stackpatch.series import worktree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stackpatch.model.patch import Patch

BASE = "".join(f"line {number}\n" for number in range(40))
OURS = BASE.replace("line 5\n", "line five\n").replace("line 30\n", "line thirty\n")
THEIRS = BASE.replace("line 5\n", "upstream's five\n")
MARKERS = "<<<<<<< HEAD\nours\n=======\ntheirs\n>>>>>>> branch\n"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "lab.git")


def tree(lab: Lab, files: Mapping[str, Thing]) -> str:
    return lab.tree(lab.commit(files))


def patch(lab: Lab, base: Mapping[str, Thing], ours: Mapping[str, Thing]) -> Patch:
    return parse_patch("0001-x.patch", lab.mail(base, ours, "A change"))


def status(folder: Path) -> list[str]:
    done = subprocess.run(
        ("git", "-C", folder, "status", "--porcelain", "-uall"), capture_output=True, check=True
    )
    return done.stdout.decode().splitlines()


def commit(folder: Path) -> None:
    """A commit of the person's own."""
    who = ("-c", "user.name=A", "-c", "user.email=a@example.invalid")
    words = (*who, "commit", "-q", "-a", "--allow-empty", "-m", "mine")
    subprocess.run(("git", "-C", folder, *words), check=True)


# --- making it --------------------------------------------------------------------------------


def test_what_has_a_place_is_in_and_the_rest_between_markers(lab: Lab, tmp_path: Path) -> None:
    ours, new = patch(lab, {"f": BASE}, {"f": OURS}), tree(lab, {"f": THEIRS, "other": "x\n"})
    unmerged = worktree.create(tmp_path / "w", lab.objects, new, ours, "v2.0")
    assert unmerged == ("f",)
    text = (tmp_path / "w" / "f").read_text()
    assert "line thirty\n" in text, "the hunk without a conflict is in"
    assert text.count("<<<<<<< upstream v2.0\n") == 1
    assert text.count(">>>>>>> stackpatch 0001-x.patch\n") == 1
    inside = text.split("<<<<<<< upstream v2.0\n")[1].split(">>>>>>> ")[0]
    assert [part for part in ("upstream's five", "line 5", "line five") if part in inside]
    assert (tmp_path / "w" / "other").read_text() == "x\n"
    assert status(tmp_path / "w") == [" M f"], "git shows the person what is half in"


def test_a_patch_that_merges_leaves_nothing_to_do(lab: Lab, tmp_path: Path) -> None:
    ours = patch(lab, {"f": BASE}, {"f": OURS})
    new = tree(lab, {"f": "new\n" * 3 + BASE})
    assert worktree.create(tmp_path / "w", lab.objects, new, ours, "v2.0") == ()
    assert (tmp_path / "w" / "f").read_text() == "new\n" * 3 + OURS


def test_without_the_base_only_proven_places_are_filled(lab: Lab, tmp_path: Path) -> None:
    """The store does not know the file that the patch was made on: no merge, no markers."""
    ours, new = patch(lab, {"f": BASE}, {"f": OURS}), tree(lab, {"f": THEIRS})
    other = Lab(tmp_path / "other.git")
    there = tree(other, {"f": THEIRS})
    assert there == new
    assert worktree.create(tmp_path / "w", other.objects, there, ours, "v2.0") == ("f",)
    text = (tmp_path / "w" / "f").read_text()
    assert "<<<<<<<" not in text
    assert "upstream's five" in text


GONE: dict[str, Mapping[str, Thing]] = {
    "deleted": {"other": "x\n"},
    "renamed": {"g": BASE},
    "a link": {"f": Link(b"other"), "other": BASE},
    "a submodule": {"f": Submodule()},
    "a folder": {"f/inside": BASE},
}


@pytest.mark.parametrize("kind", GONE)
def test_upstream_put_something_else_there(lab: Lab, tmp_path: Path, kind: str) -> None:
    ours, new = patch(lab, {"f": BASE}, {"f": OURS}), tree(lab, GONE[kind])
    outside = tmp_path / "other"
    outside.write_text("outside\n")
    assert worktree.create(tmp_path / "w", lab.objects, new, ours, "v2.0") == ("f",)
    if kind == "a link":
        assert (tmp_path / "w" / "f").is_symlink()
        assert (tmp_path / "w" / "other").read_text() == BASE, "never written through a link"
    if kind == "a folder":
        assert (tmp_path / "w" / "f" / "inside").read_text() == BASE
    if kind != "a submodule":  # whose folder git misses
        assert status(tmp_path / "w") == []


def test_files_that_come_and_go(lab: Lab, tmp_path: Path) -> None:
    base: dict[str, Thing] = {"old": "old\n", "keep": "k\n"}
    ours = patch(lab, base, {"keep": "k\n", "new": Script(b"#!/bin/sh\n")})
    made = tree(lab, base)
    assert worktree.create(tmp_path / "w", lab.objects, made, ours, "v2.0") == ()
    assert not (tmp_path / "w" / "old").exists()
    assert (tmp_path / "w" / "new").read_bytes() == b"#!/bin/sh\n"
    taken = tree(lab, base | {"new": "upstream has one\n"})
    assert worktree.create(tmp_path / "x", lab.objects, taken, ours, "v2.0") == ("new",)
    assert (tmp_path / "x" / "new").read_text() == "upstream has one\n"


IN_THE_WAY: dict[str, Thing] = {
    "a link out": Link(b"../../outside"),
    "a link to a folder": Link(b"other"),
    "a file": "x\n",
}


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_no_new_file_is_written_through_what_lies_in_its_way(
    lab: Lab, tmp_path: Path, kind: str
) -> None:
    base: dict[str, Thing] = {"f": "1\n", "other/x": "x\n"}
    ours = patch(lab, base, {**base, "f": "2\n", "d/new": "ours\n"})
    new = tree(lab, {**base, "d": IN_THE_WAY[kind]})
    (tmp_path / "outside").mkdir()
    folder = tmp_path / "home" / "w"
    assert worktree.create(folder, lab.objects, new, ours, "v2.0") == ("d/new",)
    assert list((tmp_path / "outside").iterdir()) == []
    assert sorted(path.name for path in (folder / "other").iterdir()) == ["x"]
    assert (folder / "f").read_text() == "2\n", "what has a place is in"
    assert status(folder) == [" M f"]
    (folder / "f").write_text("3\n")
    commit(folder)
    left = worktree.read(folder, lab.objects, new, ours)
    assert left == tree(lab, {**base, "d": IN_THE_WAY[kind], "f": "3\n"})


def test_a_renamed_file_does_not_take_the_place_of_upstreams_own(lab: Lab, tmp_path: Path) -> None:
    ours = parse_patch("0001-x.patch", lab.mail({"f": BASE}, {"g": OURS}, "Move it", "-M"))
    assert [file.change for file in ours.files] == [Change.RENAME]
    new = tree(lab, {"f": BASE, "g": "upstream's\n"})
    assert worktree.create(tmp_path / "w", lab.objects, new, ours, "v2.0") == ("g",)
    assert status(tmp_path / "w") == []


def test_a_file_in_which_upstream_wrote_more_is_not_removed(lab: Lab, tmp_path: Path) -> None:
    base: dict[str, Thing] = {"f": BASE, "keep": "k\n"}
    ours, new = patch(lab, base, {"keep": "k\n"}), tree(lab, {**base, "f": THEIRS})
    assert worktree.create(tmp_path / "w", lab.objects, new, ours, "v2.0") == ("f",)
    assert (tmp_path / "w" / "f").read_text() == THEIRS


def test_links_and_modes_are_what_the_patch_makes_them(lab: Lab, tmp_path: Path) -> None:
    base: dict[str, Thing] = {"f": BASE, "run": "x\n", "g": BASE}
    made: dict[str, Thing] = {"run": Script(b"x\n"), "link": Link(b"g"), "new": Script(b"n\n")}
    ours = patch(lab, base, {**base, **made, "f": OURS, "g": Script(OURS.encode())})
    new = tree(lab, {**base, "f": THEIRS, "g": THEIRS})
    assert worktree.create(tmp_path / "w", lab.objects, new, ours, "v2.0") == ("f", "g")
    for name in ("f", "g"):
        (tmp_path / "w" / name).write_text(OURS)
    whole = {**made, "f": OURS, "g": Script(OURS.encode())}
    assert worktree.read(tmp_path / "w", lab.objects, new, ours) == tree(lab, whole)


def test_a_merge_that_the_guards_refuse_is_not_put_in(lab: Lab, tmp_path: Path) -> None:
    """Upstream has a definition like ours elsewhere: the merge is clean, and makes two of them."""
    base = "x = 1\na = 1\nb = 1\n" + "".join(f"y{n} = 1\n" for n in range(20))
    helper = "\n\ndef helper():\n    return 2\n\n\n"
    ours = patch(lab, {"a.py": base}, {"a.py": base.replace("x = 1\n", "x = 2\n" + helper)})
    theirs = base.replace("b = 1", "b = 2").replace("y9 = 1\n", helper + "y9 = 1\n")
    new = tree(lab, {"a.py": theirs})
    assert worktree.create(tmp_path / "w", lab.objects, new, ours, "v2.0") == ("a.py",)
    assert (tmp_path / "w" / "a.py").read_text().count("def helper") == 1


def test_made_anew_it_is_new(lab: Lab, tmp_path: Path) -> None:
    ours, new = patch(lab, {"f": BASE}, {"f": OURS}), tree(lab, {"f": THEIRS})
    worktree.create(tmp_path / "w", lab.objects, new, ours, "v2.0")
    first = (tmp_path / "w" / "f").read_bytes()
    (tmp_path / "w" / "f").write_text("mine\n")
    (tmp_path / "w" / "mine").write_text("mine\n")
    worktree.create(tmp_path / "w", lab.objects, new, ours, "v2.0")
    assert (tmp_path / "w" / "f").read_bytes() == first
    assert not (tmp_path / "w" / "mine").exists()
    worktree.remove(tmp_path / "w")
    worktree.remove(tmp_path / "w")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lab.git"]


# --- reading it -------------------------------------------------------------------------------


def ready(lab: Lab, folder: Path, **more: Thing) -> tuple[str, Patch]:
    """A work tree in which `f` conflicts, and the tree that it was made of."""
    files: dict[str, Thing] = {"f": THEIRS, **more}
    ours, new = patch(lab, {"f": BASE}, {"f": OURS}), tree(lab, files)
    worktree.create(folder, lab.objects, new, ours, "v2.0")
    return new, ours


def test_what_the_person_left_is_the_tree(lab: Lab, tmp_path: Path) -> None:
    new, ours = ready(lab, tmp_path / "w", gone="x\n", run="x\n")
    (tmp_path / "w" / "f").write_text("resolved\n")
    (tmp_path / "w" / "gone").unlink()
    (tmp_path / "w" / "run").chmod(0o755)
    (tmp_path / "w" / "d").mkdir()
    (tmp_path / "w" / "d" / "ü").write_bytes(b"\xff\r\n")
    (tmp_path / "w" / "d" / "link").symlink_to("ü")
    expected: dict[str, Thing] = {
        "f": "resolved\n", "run": Script(b"x\n"), "d/ü": b"\xff\r\n",
        "d/link": Link("ü".encode()),
    }  # fmt: skip
    assert worktree.read(tmp_path / "w", lab.objects, new, ours) == tree(lab, expected)


def test_markers_that_are_left_wait(lab: Lab, tmp_path: Path) -> None:
    new, ours = ready(lab, tmp_path / "w")
    with pytest.raises(WaitingError, match="conflicts are left in f") as caught:
        worktree.read(tmp_path / "w", lab.objects, new, ours)
    assert "--continue" in (caught.value.hint or "")
    merged = (tmp_path / "w" / "f").read_text().splitlines(keepends=True)
    markers = [line for line in merged if line.startswith(("<<<", "|||", ">>>"))]
    assert len(markers) == 3
    for left in markers:
        kept = [line for line in merged if line == left or line not in markers]
        (tmp_path / "w" / "f").write_text("".join(kept))
        with pytest.raises(WaitingError, match="conflicts are left in f"):
            worktree.read(tmp_path / "w", lab.objects, new, ours)


def test_markers_of_upstreams_own_are_text(lab: Lab, tmp_path: Path) -> None:
    """A test of a merge tool holds some; nobody has to resolve those."""
    new, ours = ready(lab, tmp_path / "w", sample=MARKERS)
    (tmp_path / "w" / "f").write_text("resolved\n" + MARKERS)
    result = worktree.read(tmp_path / "w", lab.objects, new, ours)
    assert result == tree(lab, {"f": "resolved\n" + MARKERS, "sample": MARKERS})


def test_a_merge_over_upstreams_own_markers(lab: Lab, tmp_path: Path) -> None:
    base, theirs = MARKERS + BASE, MARKERS + THEIRS
    ours = patch(lab, {"f": base}, {"f": MARKERS + OURS})
    new = tree(lab, {"f": theirs})
    assert worktree.create(tmp_path / "w", lab.objects, new, ours, "v2.0") == ("f",)
    text = (tmp_path / "w" / "f").read_text()
    assert text.startswith(MARKERS)
    with pytest.raises(WaitingError):
        worktree.read(tmp_path / "w", lab.objects, new, ours)
    (tmp_path / "w" / "f").write_text(MARKERS + OURS)
    assert worktree.read(tmp_path / "w", lab.objects, new, ours) == tree(lab, {"f": MARKERS + OURS})


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside"])
def test_a_link_that_leaves_the_tree_is_a_finding(lab: Lab, tmp_path: Path, target: str) -> None:
    new, ours = ready(lab, tmp_path / "w")
    (tmp_path / "w" / "f").write_text("resolved\n")
    (tmp_path / "w" / "out").symlink_to(target)
    with pytest.raises(FindingError, match="out is a symbolic link that may leave the tree"):
        worktree.read(tmp_path / "w", lab.objects, new, ours)


PARTLY = {"f": BASE, "g": "1\n", "h": BASE}


def partly(lab: Lab, folder: Path, **upstream: Thing) -> tuple[str, Patch]:
    """A patch of `f`, which conflicts, and of `g` and `h`, where upstream has something else."""
    ours = patch(lab, PARTLY, {"f": OURS, "g": "2\n", "h": OURS})
    new = tree(lab, {"f": THEIRS, **upstream})
    worktree.create(folder, lab.objects, new, ours, "v2.0")
    (folder / "f").write_text("resolved\n")
    return new, ours


def test_a_file_without_markers_waits_until_something_is_done_about_it(
    lab: Lab, tmp_path: Path
) -> None:
    """Else its change would be gone without a word: nothing in the file says that it is open."""
    new, ours = partly(lab, tmp_path / "w", g="1\n", h=Link(b"g"))
    with pytest.raises(WaitingError, match="nothing was done about h") as caught:
        worktree.read(tmp_path / "w", lab.objects, new, ours)
    assert "git commit --allow-empty" in (caught.value.hint or "")
    (tmp_path / "w" / "h").unlink()
    (tmp_path / "w" / "h").write_text(OURS)
    expected = {"f": "resolved\n", "g": "2\n", "h": OURS}
    assert worktree.read(tmp_path / "w", lab.objects, new, ours) == tree(lab, expected)


def test_a_commit_says_that_nothing_is_to_be_done(lab: Lab, tmp_path: Path) -> None:
    new, ours = partly(lab, tmp_path / "w", g="1\n", h=Submodule())
    with pytest.raises(WaitingError, match="nothing was done about h"):
        worktree.read(tmp_path / "w", lab.objects, new, ours)
    commit(tmp_path / "w")
    expected: dict[str, Thing] = {"f": "resolved\n", "g": "2\n", "h": Submodule()}
    assert worktree.read(tmp_path / "w", lab.objects, new, ours) == tree(lab, expected)


def test_a_file_that_is_gone_may_have_its_change_elsewhere(lab: Lab, tmp_path: Path) -> None:
    new, ours = partly(lab, tmp_path / "w", g="1\n", moved=BASE)
    with pytest.raises(WaitingError, match="nothing was done about h"):
        worktree.read(tmp_path / "w", lab.objects, new, ours)
    (tmp_path / "w" / "moved").write_text(OURS)
    expected = {"f": "resolved\n", "g": "2\n", "moved": OURS}
    assert worktree.read(tmp_path / "w", lab.objects, new, ours) == tree(lab, expected)


def test_a_damaged_work_tree_does_not_stand_for_the_repository_around_it(
    lab: Lab, tmp_path: Path
) -> None:
    """Without its HEAD, git would take the one that the recipes are in, and stage there."""
    around = tmp_path / "around"
    subprocess.run(("git", "init", "-q", around), check=True)
    new, ours = ready(lab, around / "w")
    (around / "w" / ".git" / "HEAD").unlink()
    before = status(around)
    with pytest.raises(InputError, match=r"repository of the work tree .* is gone") as caught:
        worktree.read(around / "w", lab.objects, new, ours)
    assert "take your files out" in (caught.value.hint or "")
    assert status(around) == before


@pytest.mark.parametrize("missing", ["everything", ".git"])
def test_a_work_tree_that_is_gone(lab: Lab, tmp_path: Path, missing: str) -> None:
    new, ours = ready(lab, tmp_path / "w")
    subprocess.run(("rm", "-rf", tmp_path / "w" / ("" if missing == "everything" else ".git")))
    with pytest.raises(InputError, match="is gone") as caught:
        worktree.read(tmp_path / "w", lab.objects, new, ours)
    assert "--restart" in (caught.value.hint or "")


def test_an_ignored_file_of_the_patch_counts(lab: Lab, tmp_path: Path) -> None:
    files: dict[str, Thing] = {".gitignore": "*.gen\n", "f": "1\n"}
    ours = patch(lab, files, files | {"x.gen": "made\n", "f": "2\n"})
    new = tree(lab, files | {"f": "3\n"})
    worktree.create(tmp_path / "w", lab.objects, new, ours, "v2.0")
    (tmp_path / "w" / "f").write_text("2\n")
    (tmp_path / "w" / "y.gen").write_text("what an editor left\n")
    result = worktree.read(tmp_path / "w", lab.objects, new, ours)
    assert result == tree(lab, files | {"f": "2\n", "x.gen": "made\n"})


def test_a_missing_folder_of_a_submodule_is_no_change(lab: Lab, tmp_path: Path) -> None:
    """It is empty, and who cleans up may take it for nothing."""
    more: dict[str, Thing] = {"third/party": Submodule()}
    new, ours = ready(lab, tmp_path / "w", **more)
    (tmp_path / "w" / "f").write_text("resolved\n")
    (tmp_path / "w" / "third" / "party").rmdir()
    assert worktree.read(tmp_path / "w", lab.objects, new, ours) == tree(
        lab, {**more, "f": "resolved\n"}
    )


def test_what_upstream_ignores_is_listed(lab: Lab, tmp_path: Path) -> None:
    more: dict[str, Thing] = {".gitignore": "*.gen\nbuild/\n__pycache__/\n", "here.gen": "1\n"}
    new, ours = ready(lab, tmp_path / "w", **more)
    (tmp_path / "w" / "f").write_text("resolved\n")
    for name in ("new.gen", "forced.gen", "build/deep/x", "__pycache__/x.pyc", "d/__pycache__/y"):
        (tmp_path / "w" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "w" / name).write_text("x\n")
    subprocess.run(("git", "-C", tmp_path / "w", "add", "-f", "forced.gen"), check=True)
    result = worktree.read(tmp_path / "w", lab.objects, new, ours)
    assert result == tree(lab, {**more, "f": "resolved\n", "forced.gen": "x\n"})
    assert worktree.ignored(tmp_path / "w") == ("build/deep/x", "new.gen")


@pytest.mark.parametrize(("place", "commits"), [("inner", False), ("inner", True), ("old", True)])
def test_a_repository_inside_is_told(lab: Lab, tmp_path: Path, place: str, commits: bool) -> None:
    new, ours = ready(lab, tmp_path / "w", old="a file\n")
    (tmp_path / "w" / "f").write_text("resolved\n")
    (tmp_path / "w" / "old").unlink()
    subprocess.run(("git", "init", "-q", tmp_path / "w" / place), check=True)
    if commits:
        commit(tmp_path / "w" / place)
    with pytest.raises(WaitingError, match=f"{place}/? is a git repository of its own"):
        worktree.read(tmp_path / "w", lab.objects, new, ours)


def test_a_commit_of_the_persons_own_counts_too(lab: Lab, tmp_path: Path) -> None:
    new, ours = ready(lab, tmp_path / "w")
    (tmp_path / "w" / "f").write_text("resolved\n")
    who = ("-c", "user.name=A", "-c", "user.email=a@example.invalid")
    git = ("git", "-C", tmp_path / "w", *who)
    subprocess.run((*git, "commit", "-qam", "resolved"), check=True)
    assert worktree.read(tmp_path / "w", lab.objects, new, ours) == tree(lab, {"f": "resolved\n"})


def test_line_ends_and_filters_are_left_alone(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text('[core]\nautocrlf = true\n[filter "x"]\nclean = false\nrequired = true\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    new, ours = ready(lab, tmp_path / "w", dos="one\r\ntwo\r\n")
    assert (tmp_path / "w" / "dos").read_bytes() == b"one\r\ntwo\r\n"
    (tmp_path / "w" / "f").write_bytes(b"resolved\r\n")
    expected: dict[str, Thing] = {"f": b"resolved\r\n", "dos": "one\r\ntwo\r\n"}
    assert worktree.read(tmp_path / "w", lab.objects, new, ours) == tree(lab, expected)


ATTRIBUTES = "*.txt text\n*.win text eol=crlf\n*.lfs filter=lfs -text\n*.id ident\n"


def test_attributes_of_upstream_change_no_file_that_nobody_touched(
    lab: Lab, tmp_path: Path
) -> None:
    """Stored with line ends that its own attributes would convert: it must stay as it is."""
    more: dict[str, Thing] = {
        ".gitattributes": ATTRIBUTES,
        "stored.txt": "one\r\ntwo\r\n",
        "x.win": "one\ntwo\n",
        "x.lfs": "version https://git-lfs.github.com/spec/v1\n",
        "x.id": "$Id$\n",
    }
    new, ours = ready(lab, tmp_path / "w", **more)
    (tmp_path / "w" / "f").write_text("resolved\n")
    assert worktree.read(tmp_path / "w", lab.objects, new, ours) == tree(
        lab, {**more, "f": "resolved\n"}
    )
    assert (tmp_path / "w" / "stored.txt").read_bytes() == b"one\r\ntwo\r\n"
