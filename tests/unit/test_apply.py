"""The guards of applying: nothing leaves the tree, nothing is half done, every failure is told."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.gitlab import Lab, Link, Script, Submodule, Thing

from stackpatch.errors import Problems
from stackpatch.model.patch import parse_patch
from stackpatch.series.apply import SeriesResult, apply_patch, apply_series, guard_result
from stackpatch.series.side import Side

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stackpatch.model.patch import Patch

Files = dict[str, Thing]
GATE = "def gate():\n    major = 10\n    assert major == 10\n    return major\n"
OPEN = GATE.replace("== 10", "in (10, 12)")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("apply") / "r.git")


def patch_of(
    lab: Lab, base: Mapping[str, Thing], ours: Mapping[str, Thing], *options: str
) -> Patch:
    return parse_patch("0001.patch", lab.mail(base, ours, "a change", *options))


def tree_of(lab: Lab, files: Mapping[str, Thing]) -> str:
    return lab.tree(lab.commit(files))


# --- what stands in the way -------------------------------------------------------------------

NEW: tuple[Files, Files] = ({"x": "x\n"}, {"x": "x\n", "d/new.py": GATE})
CHANGE: tuple[Files, Files] = ({"d/a.py": GATE}, {"d/a.py": OPEN})
DELETE: tuple[Files, Files] = ({"d/a.py": GATE, "x": "x\n"}, {"x": "x\n"})
MODE: tuple[Files, Files] = ({"d/a.py": GATE}, {"d/a.py": Script(GATE.encode())})
RENAME: tuple[Files, Files] = ({"d/a.py": GATE}, {"d/b.py": GATE})

REFUSED: dict[str, tuple[tuple[Files, Files], Files, str, str]] = {
    "a new file through a link": (
        NEW,
        {"x": "x\n", "d": Link(b"elsewhere"), "elsewhere/y": "y\n"},
        "unsafe",
        "d/new.py would be written through the symbolic link d",
    ),
    "a new file through a link out of the tree": (
        NEW,
        {"x": "x\n", "d": Link(b"/etc")},
        "unsafe",
        "d/new.py would be written through the symbolic link d",
    ),
    "a change through a link": (
        CHANGE,
        {"d": Link(b"e"), "e/a.py": GATE},
        "unsafe",
        "d/a.py would be written through the symbolic link d",
    ),
    "a deletion through a link": (
        DELETE,
        {"d": Link(b"e"), "e/a.py": GATE, "x": "x\n"},
        "unsafe",
        "d/a.py would be written through the symbolic link d",
    ),
    "a new file below a file": (
        NEW,
        {"x": "x\n", "d": "a file\n"},
        "unsafe",
        "d/new.py needs a folder where the tree has d",
    ),
    "a new file in a submodule": (
        NEW,
        {"x": "x\n", "d": Submodule()},
        "unsafe",
        "d/new.py needs a folder where the tree has d",
    ),
    "a change of a link": (
        CHANGE,
        {"d/a.py": Link(b"../x"), "x": GATE},
        "mode",
        "d/a.py is a symbolic link in the tree",
    ),
    "a change of a folder": (CHANGE, {"d/a.py/x": GATE}, "mode", "d/a.py is a folder in the tree"),
    "a change of a submodule": (
        CHANGE,
        {"d/a.py": Submodule()},
        "mode",
        "d/a.py is a submodule in the tree",
    ),
    "a change of what is gone": (CHANGE, {"x": "x\n"}, "missing", "d/a.py is not in the tree"),
    "a new file that is there": (
        NEW,
        {"x": "x\n", "d/new.py": "other\n"},
        "exists",
        "d/new.py is already in the tree",
    ),
    "a new file that is there the same": (
        NEW,
        {"x": "x\n", "d/new.py": GATE},
        "exists",
        "d/new.py is already in the tree",
    ),
    "a new file where a folder is": (
        NEW,
        {"x": "x\n", "d/new.py/y": "y\n"},
        "exists",
        "d/new.py is a folder in the tree",
    ),
    "a deletion of a longer file": (
        DELETE,
        {"d/a.py": GATE + "more = 1\n", "x": "x\n"},
        "no-match",
        "its old lines stand nowhere",
    ),
    "a deletion of a changed file": (
        DELETE,
        {"d/a.py": OPEN, "x": "x\n"},
        "no-match",
        "its old lines stand nowhere",
    ),
    "a deletion of nothing": (DELETE, {"x": "x\n"}, "missing", "d/a.py is not in the tree"),
    "a mode that is set": (
        MODE,
        {"d/a.py": Script(GATE.encode())},
        "mode",
        "d/a.py has mode 100755, not 100644",
    ),
    "a rename onto a file": (
        RENAME,
        {"d/a.py": GATE, "d/b.py": "b\n"},
        "exists",
        "d/b.py is already in the tree",
    ),
    "a rename of nothing": (RENAME, {"d/b.py": GATE}, "missing", "d/a.py is not in the tree"),
    "already applied": (CHANGE, {"d/a.py": OPEN}, "no-match", "its old lines stand nowhere"),
    "a rename through a link": (
        ({"a.py": GATE}, {"d/b.py": GATE}),
        {"a.py": GATE, "d": Link(b".")},
        "unsafe",
        "d/b.py would be written through the symbolic link d",
    ),
}


@pytest.mark.parametrize(
    ("change", "there", "reason", "detail"), REFUSED.values(), ids=REFUSED.keys()
)
def test_what_stands_in_the_way_is_named_and_nothing_is_written(
    lab: Lab, change: tuple[Files, Files], there: Files, reason: str, detail: str
) -> None:
    patch = patch_of(lab, *change, "-M")
    tree = tree_of(lab, there)
    result = apply_series(lab.objects, tree, [patch])
    (failure,) = result.results[0].failures
    assert (failure.reason, failure.detail) == (reason, detail)
    assert patch.raw.split(b"\n")[failure.line - 1].startswith((b"diff --git", b"@@ "))
    assert (result.tree, result.commits, result.changes) == (tree, (), {})
    assert not result.applied


def added(path: str, content: bytes, mode: str = "100644") -> str:
    """One section of a mail: a new file, whatever git would say of it."""
    lines = content.split(b"\n")
    end = "" if content.endswith(b"\n") else "\\ No newline at end of file\n"
    lines = lines[:-1] if content.endswith(b"\n") else lines
    body = "".join(f"+{line.decode('utf-8', 'surrogateescape')}\n" for line in lines)
    return (
        f"diff --git a/{path} b/{path}\nnew file mode {mode}\n--- /dev/null\n+++ b/{path}\n"
        f"@@ -0,0 +1,{len(lines)} @@\n{body}{end}"
    )


def mail(*sections: str, name: str = "p") -> Patch:
    head = (
        f"From {'0' * 40} Mon Sep 17 00:00:00 2001\nFrom: Ada <ada@example.invalid>\n"
        "Date: Thu, 1 Jan 2026 00:00:00 +0000\nSubject: [PATCH] x\n\n---\n\n"
    )
    raw = (head + "".join(sections) + "-- \n2.39.5\n").encode("utf-8", "surrogateescape")
    return parse_patch(name, raw)


LINKS = {
    "/etc/passwd": "l/k would be a link to the absolute path /etc/passwd",
    "../../x": "l/k would be a link that leaves the tree: ../../x",
    "./../../x": "l/k would be a link that leaves the tree: ./../../x",
    "../a/../../x": "l/k would be a link with `..` after a name: ../a/../../x",
    "a/..": "l/k would be a link with `..` after a name: a/..",
}


@pytest.mark.parametrize(("target", "detail"), LINKS.items())
def test_a_link_that_leaves_the_tree_is_not_made(lab: Lab, target: str, detail: str) -> None:
    tree = tree_of(lab, {"x": "x\n"})
    result = apply_patch(lab.objects, tree, mail(added("l/k", target.encode(), "120000")))
    (failure,) = result.failures
    assert (failure.reason, failure.detail) == ("unsafe", detail)
    assert result.tree == tree


@pytest.mark.parametrize("target", ["x", "../x", "./y/z", "..", "a..b", "..a/b", "\udcff"])
def test_a_link_within_the_tree_is_made(lab: Lab, target: str) -> None:
    raw = target.encode("utf-8", "surrogateescape")
    tree = tree_of(lab, {"x": "x\n"})
    result = apply_patch(lab.objects, tree, mail(added("l/k", raw, "120000")))
    assert result.tree == tree_of(lab, {"x": "x\n", "l/k": Link(raw)})


def test_no_write_through_a_link_that_an_earlier_patch_made(lab: Lab) -> None:
    tree = tree_of(lab, {"x": "x\n", "real/y": "y\n"})
    series = [
        mail(added("l", b"real", "120000"), name="1"),
        mail(added("l/new", b"n\n"), name="2"),
        mail(added("free", b"f\n"), name="3"),
    ]
    result = apply_series(lab.objects, tree, series)
    (failure,) = result.results[1].failures
    assert failure.detail == "l/new would be written through the symbolic link l"
    assert [r.applied for r in result.results] == [True, False, True]
    assert result.commits == ()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("mode", ["120000", "100644"])
def test_no_write_through_a_file_of_the_same_patch(
    lab: Lab, order: tuple[int, int], mode: str
) -> None:
    tree = tree_of(lab, {"x": "x\n", "real/y": "y\n"})
    sections = (added("l", b"real", mode), added("l/new", b"n\n"))
    result = apply_patch(lab.objects, tree, mail(*(sections[number] for number in order)))
    (failure,) = result.failures
    assert (failure.path, failure.reason) == ("l/new", "unsafe")
    assert failure.detail == "l/new would be written through l, which this patch writes"
    assert result.tree == tree


@pytest.mark.parametrize("path", ["../x", "/etc/x", ".git/config", ".GIT/hooks/x", "a/../../x"])
def test_a_path_out_of_the_tree_does_not_even_parse(path: str) -> None:
    with pytest.raises(Problems) as caught:
        mail(added(path, b"x\n"))
    (problem,) = caught.value.problems
    assert problem.startswith(f"p:8: {path}: ")


@pytest.mark.parametrize("options", [(), ("--binary",)])
def test_a_binary_patch_is_refused_by_name(lab: Lab, options: tuple[str, ...]) -> None:
    base: Files = {"k.cubin": b"\0\1\2" * 50, "a.py": GATE}
    ours: Files = {"k.cubin": b"\0\1\3" * 60, "a.py": OPEN}
    patch = patch_of(lab, base, ours, *options)
    tree = tree_of(lab, base)
    result = apply_patch(lab.objects, tree, patch)
    (failure,) = result.failures
    assert (failure.path, failure.reason) == ("k.cubin", "binary")
    assert "ship the file's source" in failure.detail
    assert result.tree == tree


def test_all_failures_are_told_not_the_first(lab: Lab) -> None:
    base: Files = {name: GATE.replace("gate", name) + "\n" * 9 + OPEN for name in ("a.py", "b.py")}
    ours = {
        name: str(text).replace("== 10", "== 11").replace("(10, 12)", "(10, 13)")
        for name, text in base.items()
    }
    one = patch_of(lab, base, {**ours})
    two = mail(added("n", b"n\n"), name="2")
    tree = tree_of(lab, {"a.py": "x = 1\n", "b.py": "y = 1\n", "n": "n\n"})
    result = apply_series(lab.objects, tree, [one, two])
    told = [(f.path, f.reason) for r in result.results for f in r.failures]
    assert told == [("a.py", "no-match")] * 2 + [("b.py", "no-match")] * 2 + [("n", "exists")]
    assert len({f.line for f in result.results[0].failures}) == 4
    assert result.tree == tree


def test_a_patch_that_goes_on_in_one_file_only_goes_on_in_none(lab: Lab) -> None:
    base: Files = {"a.py": GATE, "b.py": GATE}
    patch = patch_of(lab, base, {"a.py": OPEN, "b.py": OPEN})
    tree = tree_of(lab, {"a.py": GATE, "b.py": "gone = 1\n"})
    result = apply_patch(lab.objects, tree, patch)
    assert [f.path for f in result.failures] == ["b.py"]
    assert result.tree == tree
    assert result.changes == {}


def test_a_deletion_only_patch_goes_on_once(lab: Lab) -> None:
    """It reverse-applies on a tree that never had it, so only forward tells."""
    base: Files = {"a.py": GATE}
    patch = patch_of(lab, base, {"a.py": GATE.replace("    assert major == 10\n", "")})
    result = apply_series(lab.objects, tree_of(lab, base), [patch, patch])
    assert [r.applied for r in result.results] == [True, False]
    assert result.results[1].failures[0].reason == "no-match"
    assert result.commits == ()


def test_a_second_definition_is_refused(lab: Lab) -> None:
    helper = "def helper():\n    return 12\n\n\n"
    base: Files = {"a.py": GATE}
    patch = patch_of(lab, base, {"a.py": helper + GATE})
    result = apply_patch(lab.objects, tree_of(lab, {"a.py": GATE + "\n\n" + helper}), patch)
    (failure,) = result.failures
    assert failure.reason == "duplicate"
    assert failure.detail == "the file would define helper 2 times"


def test_a_result_that_is_no_program_is_refused(lab: Lab) -> None:
    body = "void f() {\n  a();\n  b();\n}\n"
    (file,) = patch_of(lab, {"a.cu": body}, {"a.cu": body.replace("a();", "c();")}).files
    before = base = Side("a.cu", body.encode())
    for broken in (body.replace("}\n", ""), body.replace("f() {", "f( {"), body + "}}}\n"):
        found = guard_result(file, before, base, broken.encode())
        assert found is not None
        assert found[0] == "broken"
        assert "does not parse" in found[1]
    assert guard_result(file, before, base, body.replace("a();", "c();").encode()) is None
    # What was not readable before cannot be told to have become so.
    assert guard_result(file, Side("a.cu", b"void f( {"), base, b"void g( {") is None


def test_a_patch_that_the_grammar_cannot_read_goes_on(lab: Lab) -> None:
    body = "int y;\n\nvoid f() {\n  x();\n  z();\n  a();\n  b();\n  c();\n  d();\n}\n"
    odd = body.replace("  c();\n", "  c() ODD((;\n")
    patch = patch_of(lab, {"a.cu": body}, {"a.cu": odd})
    moved = apply_patch(lab.objects, tree_of(lab, {"a.cu": "int x;\n\n" + body}), patch)
    assert moved.applied, moved.failures


def test_an_edited_patch_is_told_on_its_own_base(lab: Lab) -> None:
    raw = lab.mail({"a.py": GATE}, {"a.py": OPEN}).replace(b"     major = 10", b"     minor = 10")
    result = apply_patch(lab.objects, tree_of(lab, {"a.py": GATE}), parse_patch("p", raw))
    (failure,) = result.failures
    assert failure.reason == "no-match"
    assert "the patch was edited" in failure.detail


def test_offsets_are_shown(lab: Lab) -> None:
    patch = patch_of(lab, {"a.py": "import x\n\n\n" + GATE}, {"a.py": "import x\n\n\n" + OPEN})
    there = "import y\n" * 5 + "import x\n\n\n" + GATE
    result = apply_patch(lab.objects, tree_of(lab, {"a.py": there}), patch)
    assert result.applied
    assert result.offset == 5
    (placed,) = result.files[0].placed
    assert (placed.start, placed.symbol) == (7, "gate")
    assert "same symbol" in placed.proof


def test_a_mode_that_differs_stays(lab: Lab) -> None:
    """A text change made on a plain file goes on where the file is executable, and leaves it so."""
    patch = patch_of(lab, {"a.py": GATE}, {"a.py": OPEN})
    result = apply_patch(lab.objects, tree_of(lab, {"a.py": Script(GATE.encode())}), patch)
    assert result.tree == tree_of(lab, {"a.py": Script(OPEN.encode())})


def test_files_become_folders_and_links_and_back(lab: Lab) -> None:
    before: Files = {"a": GATE, "d/x": "x\n", "d/y": "y\n", "l": Link(b"a"), "k": "k\n"}
    after: Files = {"a/b": GATE, "d": "now a file\n", "l": "now a file\n", "k": Link(b"l")}
    for base, ours in ((before, after), (after, before)):
        patch = patch_of(lab, base, ours)
        assert apply_patch(lab.objects, tree_of(lab, base), patch).tree == tree_of(lab, ours)


def test_a_folder_that_keeps_a_file_does_not_become_one(lab: Lab) -> None:
    patch = patch_of(lab, {"d/x": "x\n"}, {"d": "now a file\n"})
    tree = tree_of(lab, {"d/x": "x\n", "d/precious": "p\n"})
    (failure,) = apply_patch(lab.objects, tree, patch).failures
    assert (failure.path, failure.detail) == ("d", "d is a folder in the tree")


def test_objects_that_are_missing_are_not_invented(lab: Lab, tmp_path: Path) -> None:
    """In a store without the patch's base, moved text is not enough."""
    other = Lab(tmp_path / "other.git")
    raw = lab.mail({"a.py": "import x\n\n\n" + GATE}, {"a.py": "import x\n\n\n" + OPEN})
    there = other.tree(other.commit({"a.py": "import y\n" + "import x\n\n\n" + GATE}))
    (failure,) = apply_patch(other.objects, there, parse_patch("p", raw)).failures
    assert failure.reason == "unproven"
    assert "is not in the source store" in failure.detail


# --- guard 6: the same bytes everywhere -------------------------------------------------------


def golden_series(lab: Lab) -> tuple[str, list[Patch]]:
    """A tree and patches that use what could differ: names, zones, modes, links, bytes."""
    base: Files = {
        "pkg/gate.py": GATE, "crlf.txt": b"a\r\nb\r\n", "no-end": b"x", "latin-\udce9": b"\xe9\n",
        "q u\to\"te\nd": "q\n", "run.sh": "#!/bin/sh\n", "old.cu": "int a;\n" * 9,
    }  # fmt: skip
    ours: Files = {
        "pkg/gate.py": OPEN, "crlf.txt": b"a\r\nc\r\n", "no-end": b"y", "latin-\udce9": b"\xe8\n",
        "q u\to\"te\nd": "r\n", "run.sh": Script(b"#!/bin/sh\n"),
        "new.cu": "int a;\n" * 9 + "int b;\n", "l": Link(b"pkg/gate.py"),
    }  # fmt: skip
    first = lab.commit(base)
    second = lab.commit(ours, first, message="Größe: open the gate\n\nWhy — so.\n\nArch: sm121\n")
    third = lab.commit({**ours, "pkg/gate.py": OPEN + "# end\n"}, second, message="More")
    mails = lab.mails("-M", f"{first}..{third}")
    mails[1] = mails[1].replace(b"+0130", b"-0730").replace(b"Ada", "Jörg".encode())
    return lab.tree(first), [parse_patch(str(number), raw) for number, raw in enumerate(mails)]


GOLDEN_TREE = "bbc01dbb29e6257188d3bb0ac0a06d19da9b3966"
GOLDEN_COMMITS: tuple[str, ...] = (
    "bfd5dbce06d731c896099d5b0b9c04178aa2d109",
    "06b8fdb37176fb0be27a797b05807004a2594eca",
)


def test_the_ids_are_written_down(lab: Lab) -> None:
    """They must not drift: a lock file names them, another machine makes them again."""
    result = apply_series(lab.objects, *golden_series(lab))
    assert result.applied
    assert (result.tree, result.commits) == (GOLDEN_TREE, GOLDEN_COMMITS)


def test_git_reads_the_commits(lab: Lab) -> None:
    result = apply_series(lab.objects, *golden_series(lab))
    us = "stackpatch <stackpatch@localhost>"
    shown = lab.git("log", "--format=%an <%ae>%n%aI%n%cn <%ce>%n%cI%n%s", result.commits[-1])
    when = ("2026-01-01T01:30:00-07:30", "2026-01-01T01:30:00+01:30")
    assert shown.decode().splitlines() == [
        *("Jörg Example <ada@example.invalid>", when[0], us, when[0], "More"),
        *("Ada Example <ada@example.invalid>", when[1], us, when[1], "Größe: open the gate"),
    ]
    assert lab.run("fsck", "--strict", result.commits[-1]).returncode == 0


def test_a_parent_is_only_a_parent(lab: Lab) -> None:
    tree, patches = golden_series(lab)
    parent = lab.commit({"x": "x\n"})
    result = apply_series(lab.objects, tree, patches, parent=parent)
    assert result.tree == GOLDEN_TREE
    assert result.commits != GOLDEN_COMMITS
    above = lab.git("rev-parse", f"{result.commits[0]}^").decode().strip()
    assert above == parent


ELSEWHERE = {
    "zone": {"TZ": "Pacific/Kiritimati"},
    "another zone": {"TZ": "America/St_Johns"},
    "locale": {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"},
    "C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "git's own variables": {
        "GIT_AUTHOR_NAME": "Mallory", "GIT_COMMITTER_NAME": "Mallory", "GIT_AUTHOR_DATE": "1 1",
        "GIT_COMMITTER_EMAIL": "m@example.invalid", "GIT_COMMITTER_DATE": "2 +0000",
        "GIT_DEFAULT_HASH": "sha256",
    },
    "hash seed": {"PYTHONHASHSEED": "4711"},
}  # fmt: skip
SETTINGS = """\
[user]
\tname = Mallory
\temail = mallory@example.invalid
[core]
\tautocrlf = true
\teol = crlf
\tfileMode = false
\tsymlinks = false
\tquotePath = false
\tprecomposeUnicode = true
\tignoreCase = true
[i18n]
\tcommitEncoding = ISO-8859-1
[merge]
\tconflictStyle = diff3
[diff]
\talgorithm = patience
[apply]
\twhitespace = fix
[commit]
\tgpgSign = true
"""


@pytest.mark.parametrize("change", [*ELSEWHERE, "umask", "home", "folder"])
def test_the_ids_are_the_same_elsewhere(
    lab: Lab, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, patches = golden_series(lab)
    store = lab.path
    files = []
    for patch in patches:
        (tmp_path / patch.name).write_bytes(patch.raw)
        files.append(str(tmp_path / patch.name))
    environment = {**os.environ, **ELSEWHERE.get(change, {})}
    cwd = tmp_path
    if change == "folder":
        cwd = tmp_path / "größe" / "x y"
        cwd.mkdir(parents=True)
    if change == "home":
        for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "XDG_CONFIG_HOME"):
            environment.pop(name, None)
        environment["HOME"] = str(tmp_path)
        (tmp_path / ".gitconfig").write_text(SETTINGS)
        (tmp_path / ".config" / "git").mkdir(parents=True)
        (tmp_path / ".config" / "git" / "attributes").write_text("* text eol=crlf merge=union\n")
    done = subprocess.run(
        [sys.executable, "-c", _APPLIES, str(store), tree, *files],
        env=environment,
        cwd=cwd,
        capture_output=True,
        check=True,
        umask=0o077 if change == "umask" else -1,
    )
    assert done.stdout.decode().split() == [GOLDEN_TREE, *GOLDEN_COMMITS]


_APPLIES = """
import sys
from pathlib import Path
from stackpatch.model.patch import parse_patch
from stackpatch.series.apply import apply_series
from stackpatch.sources.objects import Objects
patches = [parse_patch("p", Path(name).read_bytes()) for name in sys.argv[3:]]
result = apply_series(Objects(Path(sys.argv[1])), sys.argv[2], patches)
print(result.tree, *result.commits)
"""


def test_the_order_of_work_does_not_matter(lab: Lab) -> None:
    """What is kept in memory from another series changes nothing."""
    tree, patches = golden_series(lab)
    results: list[SeriesResult] = []
    for _ in range(2):
        results.append(apply_series(lab.objects, tree, patches))
        apply_series(lab.objects, tree, patches[::-1])
    assert results[0].commits == results[1].commits == GOLDEN_COMMITS
