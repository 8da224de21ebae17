"""A patch as a mail again: its own words byte for byte, git's diff, the same on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.gitlab import Lab, Link, Script, Thing

from stackpatch import proc
from stackpatch.errors import EnvironmentProblem
from stackpatch.model.diff import Change, parse_diff
from stackpatch.model.patch import parse_patch
from stackpatch.series.apply import apply_patch
from stackpatch.series.export import Mails, diff, remail

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MESSAGE = """Open the gate  with   blanks

Why, in words: ünlike others.

Upstream-Status: Pending
Signed-off-by: Ada Example <ada@example.invalid>
"""
BODY = "".join(f"line {number}\n" for number in range(30))
CHANGED = BODY.replace("line 15\n", "line fifteen\n")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "lab.git")


def tree(lab: Lab, files: Mapping[str, Thing]) -> str:
    return lab.tree(lab.commit(files))


def test_everything_above_the_diff_stays(lab: Lab) -> None:
    raw = lab.mail({"f": BODY}, {"f": CHANGED}, MESSAGE)
    patch = parse_patch("0001.patch", raw)
    moved = "new\n" * 7 + BODY
    after = "new\n" * 7 + CHANGED
    mail = remail(lab.objects, patch, tree(lab, {"f": moved}), tree(lab, {"f": after}))
    head = raw[: raw.index(b"\n---\n") + 5]
    assert mail.startswith(head + b"\ndiff --git "), "the stale diffstat is gone, nothing else"
    again = parse_patch("0001.patch", mail)
    assert (again.message, again.author_name, again.date) == (
        patch.message,
        patch.author_name,
        patch.date,
    )
    assert again.files[0].hunks[0].old_start == patch.files[0].hunks[0].old_start + 7


def test_many_at_once_are_each_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among them two that are the same, one that changes nothing, one that renames a file."""
    text = parse_patch("p", lab.mail({"f": BODY}, {"f": CHANGED}, MESSAGE))
    renaming = parse_patch("r", lab.mail({"f": BODY}, {"g": CHANGED}, MESSAGE, "-M"))
    assert renaming.files[0].change is Change.RENAME
    trees = {
        name: tree(lab, files)
        for name, files in {
            "body": {"f": BODY},
            "changed": {"f": CHANGED},
            "moved": {"g": CHANGED},
            "tricky": {"f": BODY + "0" * 40 + " " + "1" * 40 + "\n"},
        }.items()
    }
    moved = [
        (text, trees["body"], trees["changed"]),
        (renaming, trees["body"], trees["moved"]),
        (text, trees["body"], trees["body"]),
        (text, trees["body"], trees["changed"]),
        (text, trees["body"], trees["tricky"]),
        (text, trees["tricky"], trees["changed"]),
        (renaming, trees["changed"], trees["moved"]),
    ]
    alone = [remail(lab.objects, *one) for one in moved]
    started = []
    feeding = proc.feeding

    def counted(*words: Any, **more: Any) -> Any:
        started.append(words)
        return feeding(*words, **more)

    monkeypatch.setattr(proc, "feeding", counted)
    with Mails(lab.objects) as mails:
        for one in moved:
            mails.ask(*one)
        assert mails.written() == alone
    assert len(started) == 2, "one git for those that rename, one for the others"
    with Mails(lab.objects) as mails:
        assert mails.written() == []
    assert len(started) == 2
    assert b"\nrename to g\n" in alone[1]
    assert alone[2].endswith(b"\n---\n\n"), "no difference, no diff"


def test_the_diff_is_what_git_says_of_two_trees(lab: Lab) -> None:
    before, after = tree(lab, {"f": BODY, "g": "x\n"}), tree(lab, {"f": CHANGED, "h": "x\n"})
    for renames, option in ((False, "--no-renames"), (True, "-M")):
        told = lab.git("diff-tree", "-p", "-r", "--full-index", option, before, after)
        assert diff(lab.objects, before, after, renames=renames) == told
    told = lab.git("diff-tree", "-p", "--full-index", "--no-renames", before, after, "--", "g", "h")
    assert diff(lab.objects, before, after, skipped=["f"]) == told


def test_an_answer_that_is_not_to_the_question_is_refused(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tree(lab, {"f": BODY}), tree(lab, {"f": CHANGED})
    feeding = proc.feeding
    for lie in ("", f"{other} {one}\\n", f"{one} {other}\\n" * 2):
        liar = ("sh", "-c", f"cat > /dev/null; printf '{lie}'")
        monkeypatch.setattr(proc, "feeding", lambda _, liar=liar, **more: feeding(liar, **more))
        with pytest.raises(EnvironmentProblem, match="one by one"):
            diff(lab.objects, one, other)


def test_a_tree_that_is_not_there_is_an_error_and_leaves_no_git(lab: Lab) -> None:
    one = tree(lab, {"f": BODY})
    with pytest.raises(EnvironmentProblem, match="git"):
        diff(lab.objects, one, "1" * 40)
    patch = parse_patch("p", lab.mail({"f": BODY}, {"f": CHANGED}, MESSAGE))
    mails = Mails(lab.objects)

    def interrupted() -> None:
        with mails:
            mails.ask(patch, one, one)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (git,) = mails._differing.values()
    assert git._said.closed


def test_more_is_asked_than_a_pipe_holds(lab: Lab) -> None:
    """git's answers go to a file: it never waits for us while we wait for it."""
    patch = parse_patch("p", lab.mail({"f": BODY}, {"f": CHANGED}, MESSAGE))
    one = tree(lab, {"f": "long\n" * 3000})
    other = tree(lab, {"f": "another\n" * 3000})
    with Mails(lab.objects) as mails:
        for _ in range(1500):
            mails.ask(patch, one, other)
        written = mails.written()
    assert len(written) == 1500
    assert set(written) == {remail(lab.objects, patch, one, other)}


def test_it_gives_the_tree_that_it_was_made_of(lab: Lab) -> None:
    patch = parse_patch("p", lab.mail({"f": BODY}, {"f": CHANGED}, MESSAGE))
    before: dict[str, Thing] = {"f": BODY + "more\n", "g": Link(b"f"), "run": "x\n"}
    after: dict[str, Thing] = {"f": CHANGED + "more\n", "run": Script(b"x\n"), "new": "n\n"}
    start, end = tree(lab, before), tree(lab, after)
    mail = remail(lab.objects, patch, start, end)
    result = apply_patch(lab.objects, start, parse_patch("p", mail))
    assert (result.failures, result.tree) == ((), end)
    assert lab.apply(start, mail) == end, "git's own apply agrees"


def test_a_mail_made_again_is_the_same_mail(lab: Lab) -> None:
    before, after = {"f": BODY}, {"f": CHANGED}
    patch = parse_patch("p", lab.mail(before, after, MESSAGE))
    once = remail(lab.objects, patch, tree(lab, before), tree(lab, after))
    again = parse_patch("p", once)
    assert remail(lab.objects, again, tree(lab, before), tree(lab, after)) == once


def test_a_separator_in_the_message_is_not_taken_for_the_last(lab: Lab) -> None:
    raw = lab.mail({"f": BODY}, {"f": CHANGED}, MESSAGE)
    noted = raw.replace(b"\n---\n", b"\n---\nA note below the line.\n---\n", 1)
    patch = parse_patch("p", noted)
    mail = remail(lab.objects, patch, tree(lab, {"f": BODY}), tree(lab, {"f": CHANGED}))
    assert b"A note below the line." in mail
    assert parse_patch("p", mail).message == patch.message


def test_what_people_note_below_the_line_stays(lab: Lab) -> None:
    """git's place for words that are not to be in the commit; only its own summary goes."""
    before: dict[str, Thing] = {"f": BODY, "gone": "1\n", "run": "x\n", "old": BODY}
    after: dict[str, Thing] = {
        "f": CHANGED, "come": "2\n", "run": Script(b"x\n"), "new": BODY, "name|with": "\n",
    }  # fmt: skip
    raw = lab.mail(before, after, MESSAGE, "-M")
    notes = b"Measured on GB10:\n\n  | before | after |\n  | 2 ms | 1 ms |\n- 3 files, see #7\n"
    noted = raw.replace(b"\n---\n", b"\n---\n" + notes + b"\n", 1)
    patch = parse_patch("p", noted)
    assert b"rename old => new" in noted
    mail = remail(lab.objects, patch, tree(lab, before), tree(lab, after))
    head = noted[: noted.index(b"\n---\n") + 5]
    assert mail.startswith(head + notes + b"\ndiff --git ")
    assert remail(lab.objects, parse_patch("p", mail), tree(lab, before), tree(lab, after)) == mail


@pytest.mark.parametrize("renames", [True, False])
def test_a_rename_stays_one_where_the_patch_had_one(lab: Lab, renames: bool) -> None:
    before: dict[str, Thing] = {"old": BODY}
    after: dict[str, Thing] = {"new": CHANGED}
    parent = lab.commit(before)
    child = lab.commit(after, parent, message=MESSAGE)
    option = "-M" if renames else "--no-renames"
    raw = lab.git("format-patch", "--stdout", "--full-index", option, f"{parent}..{child}")
    patch = parse_patch("p", raw)
    mail = remail(lab.objects, patch, lab.tree(parent), lab.tree(child))
    kinds = {file.change for file in parse_patch("p", mail).files}
    assert kinds == ({Change.RENAME} if renames else {Change.ADD, Change.DELETE})


SETTINGS = (
    ("diff.algorithm", "patience"),
    ("diff.context", "9"),
    ("diff.interHunkContext", "50"),
    ("diff.noprefix", "true"),
    ("diff.mnemonicPrefix", "true"),
    ("diff.renames", "copies"),
    ("diff.suppressBlankEmpty", "true"),
    ("diff.indentHeuristic", "false"),
    ("diff.wsErrorHighlight", "all"),
    ("diff.srcPrefix", "x/"),
    ("core.abbrev", "7"),
    ("core.quotePath", "false"),
    ("color.ui", "always"),
    ("color.diff", "always"),
    ("diff.external", "/bin/false"),
)


@pytest.mark.parametrize("place", ["user", "environment"])
@pytest.mark.parametrize(("key", "value"), SETTINGS)
def test_no_setting_changes_a_byte(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str, place: str
) -> None:
    before, after = tree(lab, {"ü": BODY, "f": BODY + "\n"}), tree(lab, {"ü": CHANGED, "g": "\n"})
    plain = diff(lab.objects, before, after)
    if place == "user":
        config = tmp_path / "config"
        lab.git("config", "--file", str(config), key, value)
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / ".gitconfig").write_bytes(config.read_bytes())
    else:
        monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
        monkeypatch.setenv("GIT_CONFIG_KEY_0", key)
        monkeypatch.setenv("GIT_CONFIG_VALUE_0", value)
    monkeypatch.setenv("GIT_DIFF_OPTS", "--unified=1")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "/bin/false")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert diff(lab.objects, before, after) == plain
    assert b"\x1b" not in plain
    assert b'"a/\\303\\274"' in plain


def test_attributes_of_upstream_and_person_do_not_count(lab: Lab, tmp_path: Path) -> None:
    """`*.py -diff` in a tree would turn a diff into `Binary files differ`."""
    attributes = "*.py -diff\n*.py diff=python\n"
    before = tree(lab, {".gitattributes": attributes, "f.py": BODY})
    after = tree(lab, {".gitattributes": attributes, "f.py": CHANGED})
    assert b"+line fifteen\n" in diff(lab.objects, before, after)


def test_full_ids_and_three_lines_of_context(lab: Lab) -> None:
    before, after = tree(lab, {"f": BODY}), tree(lab, {"f": CHANGED})
    files, problems = parse_diff(diff(lab.objects, before, after))
    assert problems == []
    (file,) = files
    (hunk,) = file.hunks
    assert (len(file.old_id or ""), len(file.new_id or "")) == (40, 40)
    assert (hunk.old_count, hunk.new_count) == (7, 7)


def test_files_that_are_skipped(lab: Lab) -> None:
    before = tree(lab, {"src/a": "1\n", "tests/a": "1\n", "tests2/a": "1\n", "t*/x": "1\n"})
    after = tree(lab, {"src/a": "2\n", "tests/a": "2\n", "tests2/a": "2\n", "t*/x": "2\n"})

    def left(*skipped: str) -> list[str]:
        return [f.path for f in parse_diff(diff(lab.objects, before, after, skipped=skipped))[0]]

    assert left() == ["src/a", "t*/x", "tests/a", "tests2/a"]
    assert left("tests") == ["src/a", "t*/x", "tests2/a"]
    assert left("tests", "src/a") == ["t*/x", "tests2/a"]
    assert left("t*") == ["src/a", "tests/a", "tests2/a"], "a name, not a pattern"
    assert left("nothing") == left()


TEXT = st.lists(st.sampled_from(["a\n", "b\n", "\n", "c\r\n", "ü\n"]), max_size=12).map("".join)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    old=st.dictionaries(st.sampled_from("pqr"), TEXT, max_size=3),
    new=st.dictionaries(st.sampled_from("pqr"), TEXT, max_size=3),
    end=st.booleans(),
)
def test_any_difference_can_be_written_and_applied(
    lab: Lab, old: dict[str, str], new: dict[str, str], end: bool
) -> None:
    if end:
        new = {name: text.removesuffix("\n") for name, text in new.items()}
    before, after = tree(lab, dict(old)), tree(lab, dict(new))
    if before == after:
        return
    head = lab.mail({"x": "1\n"}, {"x": "2\n"}, MESSAGE)
    mail = remail(lab.objects, parse_patch("p", head), before, after)
    result = apply_patch(lab.objects, before, parse_patch("p", mail))
    assert (result.failures, result.tree) == ((), after)
