"""Diffs: git and unidiff as oracles, and every contradiction refused with its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gitlab import Lab, Submodule, Thing
from unidiff.patch import PatchSet

from stackpatch.model.diff import Change, FilePatch, parse_diff
from stackpatch.model.git_path import header_path, unquote, unsafe

HUNK = "@@ -1 +1 @@\n-a\n+b\n"
MODIFY = f"diff --git a/x b/x\nindex 1111111..2222222 100644\n--- a/x\n+++ b/x\n{HUNK}"
ADD = "diff --git a/n b/n\nnew file mode 100644\nindex 0000000..2222222\n--- /dev/null\n+++ b/n\n"
DELETE = (
    "diff --git a/n b/n\ndeleted file mode 100644\nindex 2222222..0000000\n--- a/n\n+++ /dev/null\n"
)
RENAME = "diff --git a/o b/n\nsimilarity index 90%\nrename from o\nrename to n\n"


def read(text: str | bytes) -> tuple[tuple[FilePatch, ...], list[tuple[int, str]]]:
    return parse_diff(text.encode() if isinstance(text, str) else text)


def said(text: str) -> list[str]:
    files, problems = read(text)
    assert problems, files
    return [f"{line}: {what}" for line, what in problems]


def test_the_pieces_that_the_table_is_made_of_are_good() -> None:
    for text in (
        MODIFY,
        ADD + "@@ -0,0 +1 @@\n+b\n",
        DELETE + "@@ -1 +0,0 @@\n-b\n",
        RENAME,
        RENAME + f"index 1111111..2222222 100644\n--- a/o\n+++ b/n\n{HUNK}",
    ):
        files, problems = read(text)
        assert not problems
        assert len(files) == 1


CONTRADICTIONS = {
    "two names": (MODIFY.replace("+++ b/x", "+++ b/y"), "1: `+++ y` does not fit x"),
    "two other names": (
        MODIFY.replace("+++ b/x", "+++ b/y").replace("--- a/x", "--- a/y"),
        "1: `--- y` does not fit x\n1: `+++ y` does not fit x",
    ),
    "no old file, but not new": (
        MODIFY.replace("--- a/x", "--- /dev/null"),
        "1: `--- /dev/null` does not fit x",
    ),
    "no new file, but not deleted": (
        MODIFY.replace("+++ b/x", "+++ /dev/null"),
        "1: `+++ /dev/null` does not fit x",
    ),
    "new, but there before": (
        (ADD + "@@ -0,0 +1 @@\n+b\n").replace("/dev/null", "a/n"),
        "1: `--- n` does not fit /dev/null",
    ),
    "new and deleted": (
        ADD.replace("new file", "deleted file mode 100644\nnew file"),
        "1: the header contradicts itself: new file mode and deleted file mode",
    ),
    "new and renamed": (
        RENAME + "new file mode 100644\n",
        "1: the header contradicts itself: rename and new file mode",
    ),
    "renamed and copied": (
        RENAME + "copy from o\ncopy to n\n",
        "1: the header contradicts itself: rename and copy",
    ),
    "half a rename": (
        RENAME.replace("rename to n\n", ""),
        "1: `rename from` and `rename to` belong together",
    ),
    "a rename whose lines name others": (
        RENAME + f"--- a/o\n+++ b/other\n{HUNK}",
        "1: `+++ other` does not fit n",
    ),
    "half a mode change": (
        "diff --git a/x b/x\nold mode 100644\n",
        "1: an old mode needs a new mode, and a new one an old one",
    ),
    "a mode that is no number": (
        "diff --git a/x b/x\nold mode rw-r--\nnew mode 100755\n",
        "2: not a file mode: 'rw-r--'\n1: an old mode needs a new mode, and a new one an old one",
    ),
    "a set-uid mode": (
        "diff --git a/x b/x\nold mode 100644\nnew mode 104755\n",
        "1: file mode 104755 is none that git writes",
    ),
    "a folder's mode": (
        ADD.replace("100644", "040000"),
        "1: file mode 40000 is none that git writes",
    ),
    "a submodule": (
        (
            "diff --git a/s b/s\nindex 1111111..2222222 160000\n--- a/s\n+++ b/s\n"
            "@@ -1 +1 @@\n-Subproject commit 1\n+Subproject commit 2\n"
        ),
        "1: changes a submodule pointer; patch the submodule's files instead",
    ),
    "nothing": (
        "diff --git a/x b/x\nindex 1111111..2222222 100644\n",
        "1: x: changes nothing",
    ),
    "a new file without its content": (ADD, "1: n: the content of the new file is missing"),
    "a deleted file without its content": (
        DELETE,
        "1: n: the content of the deleted file is missing",
    ),
    "a new file with old lines": (
        ADD + HUNK,
        "6: n: a new file has one hunk with one side only",
    ),
    "a deleted file with lines left": (
        DELETE + HUNK,
        "6: n: a deleted file has one hunk with one side only",
    ),
    "a new file in two hunks": (
        ADD + "@@ -0,0 +1 @@\n+b\n@@ -0,0 +2 @@\n+c\n",
        "8: hunks overlap or are out of order",
    ),
    "too few lines": (
        MODIFY.replace("-1 +1", "-1,2 +1,2"),
        "8: the hunk at line 5 ends 1 line too early",
    ),
    "far too few lines": (
        MODIFY.replace("-1 +1", "-1,9 +1,7") + MODIFY.replace("/x", "/y"),
        "8: the hunk at line 5 ends 8 lines too early",
    ),
    "too many lines": (
        MODIFY + " c\n d\n",
        "8: more lines than the hunk above announces in its header",
    ),
    "counts that do not meet": (
        MODIFY.replace("-1 +1", "-1,0 +1"),
        "5: the hunk's counts do not match its lines",
    ),
    "a hunk of context": (
        MODIFY.replace("-a\n+b", " a"),
        "5: the hunk changes nothing",
    ),
    "a malformed hunk": (MODIFY.replace("+1 @@", "+one @@"), "5: malformed hunk header"),
    "a hunk beyond all files": (
        MODIFY.replace("-1 ", "-9999999999 "),
        "5: malformed hunk header",
    ),
    "overlapping hunks": (
        MODIFY.replace(HUNK, "@@ -1,2 +1,2 @@\n-a\n+b\n c\n@@ -2 +2 @@\n-c\n+d\n"),
        "9: hunks overlap or are out of order",
    ),
    "hunks out of order": (
        MODIFY.replace(HUNK, "@@ -9 +9 @@\n-a\n+b\n@@ -2 +2 @@\n-c\n+d\n"),
        "8: hunks overlap or are out of order",
    ),
    "two insertions at one place": (
        MODIFY.replace(HUNK, "@@ -3,0 +4 @@\n+b\n@@ -3,0 +5 @@\n+d\n"),
        "7: hunks overlap or are out of order",
    ),
    "a line end missing in the middle": (
        MODIFY.replace(HUNK, "@@ -1,2 +1 @@\n-a\n\\ No newline at end of file\n-b\n+c\n"),
        "5: a line without a line end before the last line",
    ),
    "one file twice": (MODIFY + MODIFY, "8: x: changed twice in one patch (first at line 1)"),
    "changed and deleted": (
        MODIFY + (DELETE + "@@ -1 +0,0 @@\n-b\n").replace("a/n", "a/x").replace("b/n", "b/x"),
        "8: x: changed twice in one patch (first at line 1)",
    ),
    "renamed twice": (
        RENAME + RENAME.replace("/n", "/m").replace("to n", "to m"),
        "5: o: changed twice in one patch (first at line 1)",
    ),
    "renamed onto a new file": (
        ADD + "@@ -0,0 +1 @@\n+b\n" + RENAME,
        "8: n: changed twice in one patch (first at line 1)",
    ),
    "combined": (
        "diff --cc x\nindex 1,2..3\n--- a/x\n+++ b/x\n@@@ -1,1 -1,1 +1,1 @@@\n--a\n++b\n",
        "1: a merge's combined diff cannot be applied; use a diff against one parent",
    ),
    "plain diff -u": (
        f"--- x.orig\n+++ x\n{HUNK}",
        "1: not a git diff (no `diff --git` line); export it with git format-patch",
    ),
    "svn": (
        f"Index: x\n=====\n--- x (revision 1)\n+++ x (revision 2)\n{HUNK}",
        "1: not a git diff (no `diff --git` line); export it with git format-patch",
    ),
    "prose between files": (
        MODIFY + "Only in b: y\n" + MODIFY.replace("/x", "/y"),
        "8: unexpected line between files: 'Only in b: y'",
    ),
    "an unknown header line": (
        MODIFY.replace("index", "indexx"),
        "2: unknown line in a file's header: 'indexx 1111111..2222222 100644'",
    ),
    "no names": (
        "diff --git x y\nold mode 100644\nnew mode 100755\n",
        "1: cannot tell which file this changes; export it with git format-patch",
    ),
    "a diff without prefixes": (
        MODIFY.replace("a/", "").replace("b/", ""),
        (
            "3: x: the path does not start with a/ (no prefix)\n"
            "4: x: the path does not start with b/ (no prefix)\n"
            "1: cannot tell which file this changes; export it with git format-patch"
        ),
    ),
}


@pytest.mark.parametrize(("text", "expected"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_contradiction_is_named_with_its_line(text: str, expected: str) -> None:
    assert "\n".join(said(text)) == expected


def test_after_a_bad_file_the_others_are_still_read() -> None:
    bad = MODIFY.replace("-a\n", "*a\n").replace("/x", "/bad")
    files, problems = read(MODIFY + bad + MODIFY.replace("/x", "/y") + bad)
    assert [file.path for file in files] == ["x", "y"]
    assert [line for line, _ in problems] == [13, 27]


UNSAFE = {
    "../x": "`..` leaves the tree",
    "a/../../x": "`..` leaves the tree",
    "a/..": "`..` leaves the tree",
    "/etc/passwd": "an absolute path leaves the tree",
    "a//x": "not a normal path (`//` or `.`)",
    "./x": "not a normal path (`//` or `.`)",
    "a/./x": "not a normal path (`//` or `.`)",
    "x/": "not a normal path (`//` or `.`)",
    "": "empty or with a NUL byte",
    "a\0b": "empty or with a NUL byte",
    ".git/config": "writes into git's own folder",
    ".GIT/config": "writes into git's own folder",
    ".Git": "writes into git's own folder",
    "sub/.git/hooks/pre-commit": "writes into git's own folder",
    "git~1/config": "writes into git's own folder",
    "GIT~1/config": "writes into git's own folder",
    ".git. /config": "writes into git's own folder",
    ".git ./config": "writes into git's own folder",
    ".git::$INDEX_ALLOCATION/config": "writes into git's own folder",
    ".git\\config": "writes into git's own folder",
    "a\\.GIT\\config": "writes into git's own folder",
    ".g\u200cit/config": "writes into git's own folder",
    "\ufeff.git/config": "writes into git's own folder",
    ".gi\u206at/config": "writes into git's own folder",
    "a\\..\\..\\x": "`..` behind a backslash leaves the tree",
}


@pytest.mark.parametrize(("path", "reason"), UNSAFE.items())
def test_a_path_that_must_not_be_written(path: str, reason: str) -> None:
    assert unsafe(path) == reason


@pytest.mark.parametrize(
    ("path", "reason"), [(p, r) for p, r in UNSAFE.items() if p and "\0" not in p]
)
def test_such_a_path_in_a_patch_is_refused(path: str, reason: str) -> None:
    body = "@@ -0,0 +1 @@\n+b\n"
    text = (ADD + body).replace("a/n b/n", f"a/{path} b/{path}").replace("b/n", f"b/{path}")
    assert said(text) == [f"1: {path}: {reason}"]


@pytest.mark.parametrize("side", ["from", "to"])
def test_a_rename_may_not_leave_the_tree_on_either_side(side: str) -> None:
    text = RENAME.replace(f"rename {side} {'o' if side == 'from' else 'n'}", f"rename {side} ../x")
    assert said(text) == ["1: ../x: `..` leaves the tree"]


def test_an_absolute_path_of_a_plain_diff_is_refused() -> None:
    text = (
        MODIFY.replace(" a/x b/x", " /etc/x /etc/x")
        .replace("a/x", "/etc/x")
        .replace("b/x", "/etc/x")
    )
    assert said(text)[0] == "3: /etc/x: the path does not start with a/ (an absolute path)"


@pytest.mark.parametrize(
    "path",
    [
        "a",
        ".gitignore",
        ".github/x",
        ".gitmodules",
        "git/x",
        "a..b",
        "...",
        "..a",
        "x.git",
        "é",
        "a\\b",
        "git~10",
        "a b",
        " ",
        "~",
        "\udcff",
        "a\nb",
        "a\tb",
        'a"b',
        "-x",
    ],
)
def test_a_path_that_may_be_written(path: str) -> None:
    assert unsafe(path) is None


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab") / "r.git")


def test_git_protects_its_folder_from_the_same_names(lab: Lab) -> None:
    """git's own check (core.protectHFS, core.protectNTFS) as the oracle."""
    blob = lab.git("hash-object", "-w", "--stdin", stdin=b"x").decode().strip()
    for path in UNSAFE:
        if "\0" in path or path == "":
            continue
        done = lab.run(
            "-c",
            "core.protectHFS=true",
            "-c",
            "core.protectNTFS=true",
            "update-index",
            "--add",
            "--cacheinfo",
            f"100644,{blob},{path}",
            index="protect",
        )
        # A `..` between backslashes is a folder above on Windows only, and git leaves it to it.
        assert done.returncode != 0 or path == "a\\..\\..\\x", path


NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda name: unsafe(name) is None)
RAW_NAMES = (
    st.binary(min_size=1, max_size=8)
    .map(
        lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_").decode("utf-8", "surrogateescape")
    )
    .filter(lambda name: unsafe(name) is None)
)
TRICKY = st.sampled_from(
    [
        "a b",
        "a b/a b",
        "x b/x",
        "a\tb",
        "a\nb",
        'a"b',
        "a\\b",
        "\udcff\udcfe",
        "é",
        "a/",
        "b/ ",
        " a",
        "a -> b",
        "dev/null",
        "\\303",
        "@@ -1 +1 @@",
        "-- ",
        "a\r",
    ]
).filter(lambda name: unsafe(name) is None)


@given(st.lists(NAMES | RAW_NAMES | TRICKY, min_size=1, max_size=3, unique=True), st.booleans())
def test_any_name_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], quote: bool
) -> None:
    lab = _LAB or _make_lab(tmp_path_factory)
    base = {f"d{number}/{name}": "a\n" for number, name in enumerate(names)}
    ours = dict.fromkeys(base, "b\n") | {f"new/{names[0]}": ""}
    setting = f"core.quotePath={'true' if quote else 'false'}"
    first = lab.commit(base)
    diff = lab.git("-c", setting, "diff", "--full-index", first, lab.commit(ours, first))
    files, problems = parse_diff(diff)
    assert not problems
    assert {file.path for file in files} == set(ours)
    assert {file.path for file in files if file.change is Change.ADD} == {f"new/{names[0]}"}


_LAB: Lab | None = None


def _make_lab(factory: pytest.TempPathFactory) -> Lab:
    global _LAB
    _LAB = Lab(factory.mktemp("names") / "r.git")
    return _LAB


LINES = st.lists(
    st.sampled_from(["a", "b", "c", "", " x", "-y", "+z", "\\ q", "-- ", "@@ -1 +1 @@"])
)


@given(LINES, LINES, st.integers(0, 4), st.booleans(), st.booleans())
def test_hunks_are_what_unidiff_reads(
    tmp_path_factory: pytest.TempPathFactory,
    old: list[str],
    new: list[str],
    context: int,
    old_end: bool,
    new_end: bool,
) -> None:
    lab = _LAB or _make_lab(tmp_path_factory)
    one = "\n".join(["start", *old]) + "\n" * old_end
    two = "\n".join(["start", *new]) + "\n" * new_end
    first = lab.commit({"f": one})
    diff = lab.git("diff", "--full-index", f"-U{context}", first, lab.commit({"f": two}, first))
    files, problems = parse_diff(diff)
    assert not problems
    oracle = PatchSet(diff.decode())
    assert len(files) == len(oracle)
    for file, other in zip(files, oracle, strict=True):
        assert file.path == other.path
        assert len(file.hunks) == len(other)
        for ours, theirs in zip(file.hunks, other, strict=True):
            assert (ours.old_start, ours.old_count) == (theirs.source_start, theirs.source_length)
            assert (ours.new_start, ours.new_count) == (theirs.target_start, theirs.target_length)
            texts = [(line.line_type, line.value) for line in theirs if line.line_type != "\\"]
            assert [(tag.decode(), text.decode().rstrip("\n")) for tag, text in ours.lines] == [
                (tag, text.rstrip("\n")) for tag, text in texts
            ]


@given(LINES, LINES, st.booleans(), st.booleans())
def test_hunks_turn_one_side_into_the_other(
    tmp_path_factory: pytest.TempPathFactory, old: list[str], new: list[str], one: bool, two: bool
) -> None:
    """With all lines as context, the one hunk holds both files."""
    lab = _LAB or _make_lab(tmp_path_factory)
    before = ("\n".join(["start", *old]) + "\n" * one).encode()
    after = ("\n".join(["start", *new]) + "\n" * two).encode()
    first = lab.commit({"f": before})
    files, problems = parse_diff(
        lab.git("diff", "--full-index", "-U999", first, lab.commit({"f": after}, first))
    )
    assert not problems
    if before == after:
        assert files == ()
        return
    (hunk,) = files[0].hunks
    assert b"".join(hunk.old) == before
    assert b"".join(hunk.new) == after


@given(st.binary(max_size=300))
def test_any_bytes_are_answered(raw: bytes) -> None:
    files, problems = parse_diff(b"diff --git a/x b/x\n" + raw)
    assert files or problems


@given(st.binary(max_size=60))
def test_any_name_is_answered(raw: bytes) -> None:
    unquote(raw)
    unquote(b'"' + raw + b'"')
    header_path(raw)
    unsafe(raw.decode("utf-8", "surrogateescape"))


def test_a_submodule_from_git_itself_is_refused(lab: Lab) -> None:
    raw = lab.mail({"s": Submodule("1" * 40)}, {"s": Submodule("2" * 40)})
    _, problems = parse_diff(raw[raw.index(b"diff --git") :])
    assert [text for _, text in problems] == [
        "changes a submodule pointer; patch the submodule's files instead"
    ]


@pytest.mark.parametrize("options", [(), ("--binary",)])
def test_a_binary_file_is_marked_and_what_follows_is_read(
    lab: Lab, options: tuple[str, ...]
) -> None:
    base: dict[str, Thing] = {"a.bin": b"\0" + bytes(range(256)) * 3, "z": "z\n"}
    ours: dict[str, Thing] = {"a.bin": b"\1\0" + bytes(range(256)) * 4, "z": "y\n"}
    raw = lab.mail(base, ours, "s", *options)
    files, problems = parse_diff(raw[raw.index(b"diff --git") :])
    assert not problems
    assert [(file.path, file.binary, len(file.hunks)) for file in files] == [
        ("a.bin", True, 0),
        ("z", False, 1),
    ]
