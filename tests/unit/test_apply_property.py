"""Applying against real git: the same trees, and never a result that git would not give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from tests.gitlab import Lab, Link, Script, Thing

from stackpatch.model.patch import parse_patch
from stackpatch.series.apply import apply_patch, apply_series

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = st.sampled_from(
    [
        "a",
        "b.py",
        "k.cu",
        "d/a",
        "d/e/f.txt",
        "d",
        "a/x",
        "x y",
        'q"q',
        "t\tt",
        "n\nn",
        "é",
        "\udcff\udcfe",
        "b\\s",
        "-dash",
        "dev/null",
        "z.cpp",
    ]
)
LINES = st.lists(
    st.sampled_from(
        [
            "int a;",
            "def f():",
            "    return [10]",
            "}",
            "",
            "  gate(10);",
            "x",
            "y",
            "\xa0\xff",
            "cr\r",
            "-- ",
            "--- a/x",
            "+++ b/x",
            "@@ -1 +1 @@",
            "diff --git a/x b/x",
            "\\ No newline",
            "From me",
        ]
    ),
    max_size=12,
)


def _text(lines: list[str], end: bool) -> bytes:
    return "\n".join(lines).encode("latin-1") + (b"\n" if end and lines else b"")


CONTENTS = st.builds(_text, LINES, st.booleans())
TARGETS = st.sampled_from([b"a", b"d/a", b"\xff", b"b.py"])
THINGS: st.SearchStrategy[Thing] = st.one_of(
    CONTENTS, CONTENTS, CONTENTS, st.builds(Script, CONTENTS), st.builds(Link, TARGETS)
)
CONTEXTS = st.sampled_from(["-U3", "-U0", "-U1", "-U2", "-U8"])
FINDERS = st.sampled_from(["--no-renames", "-M", "-M30%", "-C", "-C30%"])


def _possible(files: Mapping[str, Thing]) -> bool:
    """No name is both a file and a folder."""
    return not any(other.startswith(f"{name}/") for name in files for other in files)


TREES = st.dictionaries(NAMES, THINGS, min_size=1, max_size=4).filter(_possible)


@st.composite
def edits(draw: st.DrawFn) -> tuple[dict[str, Thing], dict[str, Thing]]:
    """Two trees, the second made from the first by what people do to files."""
    base = draw(TREES)
    ours = dict(base)
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(base)))
        thing = ours.get(name, base[name])
        match draw(st.sampled_from(["change", "move", "copy", "drop", "add", "mode", "retype"])):
            case "change":
                if not isinstance(thing, Link):
                    content = _changed(draw, thing.content if isinstance(thing, Script) else thing)
                    ours[name] = Script(content) if isinstance(thing, Script) else content
            case "move":
                ours.pop(name, None)
                ours[draw(NAMES)] = thing
            case "copy":
                ours[draw(NAMES)] = thing
            case "drop":
                ours.pop(name, None)
            case "add":
                ours[draw(NAMES)] = draw(THINGS)
            case "mode":
                if isinstance(thing, Script):
                    ours[name] = thing.content
                elif isinstance(thing, bytes):
                    ours[name] = Script(thing)
            case _:
                ours[name] = draw(THINGS)
    assume(_possible(ours) and ours != base)
    return base, ours


def _changed(draw: st.DrawFn, thing: Thing) -> bytes:
    assert isinstance(thing, bytes)
    lines = thing.split(b"\n")
    at = draw(st.integers(0, len(lines) - 1))
    new = draw(st.sampled_from([b"new", b"  gate(12);", b"cr\r", b"\xff"]))
    match draw(st.sampled_from(["insert", "replace", "delete", "end"])):
        case "insert":
            lines.insert(at, new)
        case "replace":
            lines[at] = new
        case "delete":
            del lines[at]
        case _:
            return thing.removesuffix(b"\n") if thing.endswith(b"\n") else thing + b"\n"
    return b"\n".join(lines)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("apply") / "r.git")


@settings(max_examples=150)
@given(edits(), CONTEXTS, FINDERS, st.booleans())
def test_what_git_writes_we_apply_to_the_same_tree(
    lab: Lab,
    change: tuple[dict[str, Thing], dict[str, Thing]],
    context: str,
    finder: str,
    full: bool,
) -> None:
    base, ours = change
    first = lab.commit(base)
    second = lab.commit(ours, first)
    options = [context, finder, *(["--find-copies-harder"] if finder.startswith("-C") else [])]
    (mail,) = lab.mails(*options, f"{first}..{second}")
    if not full:
        mail = mail.replace(b"e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", b"e69de29")
    patch = parse_patch("p", mail)
    for file in patch.files:
        event(f"{file.change}")
    result = apply_series(lab.objects, lab.tree(first), [patch])
    assert result.applied, result.results[0].failures
    assert result.tree == lab.tree(second)
    assert lab.tree(result.commits[0]) == result.tree
    assert result.results[0].offset == 0
    lab.git("fsck", "--strict", "--no-dangling", result.commits[0])


@settings(max_examples=60)
@given(edits(), st.data())
def test_a_series_of_commits_is_applied_to_the_same_tree(
    lab: Lab, change: tuple[dict[str, Thing], dict[str, Thing]], data: st.DataObject
) -> None:
    base, ours = change
    commits = [lab.commit(base)]
    for _ in range(3):
        commits.append(lab.commit(ours, commits[-1]))
        if lab.tree(commits[-1]) == lab.tree(commits[-2]):
            commits.pop()
            break
        at = {name: thing for name, thing in ours.items() if isinstance(thing, bytes)}
        if at:
            name = data.draw(st.sampled_from(sorted(at)))
            ours = {**ours, name: at[name] + b"\nmore"}
    mails = lab.mails("-M", f"{commits[0]}..{commits[-1]}")
    patches = [parse_patch(str(number), mail) for number, mail in enumerate(mails)]
    result = apply_series(lab.objects, lab.tree(commits[0]), patches)
    assert result.applied
    assert result.tree == lab.tree(commits[-1])
    assert [lab.tree(c) for c in result.commits] == [lab.tree(c) for c in commits[1:]]
    changed = result.changes
    there = dict(lab.objects.walk(result.tree))
    assert {path: there.get(path) for path in changed} == changed


SOURCE = st.sampled_from(["k.cu", "b.py", "plain.txt"])


@st.composite
def sources(draw: st.DrawFn) -> tuple[str, bytes, bytes, bytes]:
    """A file with sibling blocks, our change, and what upstream made of it meanwhile."""
    path = draw(SOURCE)
    names = draw(st.lists(st.sampled_from("ABCD"), min_size=2, max_size=4, unique=True))
    gates = dict.fromkeys(names, 10)
    base = _blocks(path, names, gates, {})
    target = draw(st.sampled_from(names))
    ours = _blocks(path, names, {**gates, target: 12}, {})
    up_names = list(names)
    match draw(st.sampled_from(["same", "swap", "drop", "add", "rename"])):
        case "swap":
            up_names = draw(st.permutations(names))
        case "drop":
            up_names.remove(draw(st.sampled_from(names)))
        case "add":
            up_names.insert(draw(st.integers(0, len(names))), "N")
        case "rename":
            up_names[draw(st.integers(0, len(names) - 1))] = "R"
        case _:
            pass
    changed = draw(
        st.dictionaries(st.sampled_from(names), st.sampled_from([11, 12, 10]), max_size=2)
    )
    extra = draw(st.dictionaries(st.sampled_from(names), st.integers(0, 4), max_size=2))
    up = _blocks(path, up_names, {name: gates.get(name, 10) for name in up_names} | changed, extra)
    return path, base, ours, up


def _blocks(
    path: str, names: list[str], gates: Mapping[str, int], extra: Mapping[str, int]
) -> bytes:
    out = []
    for name in names:
        body = [
            "int dev = 0;",
            "props(dev);",
            "major(dev);",
            f"check({gates[name]});",
            "shape();",
            "run();",
        ]
        if name in extra:
            body.insert(extra[name], "extra();")
        match path:
            case "b.py":
                out += [f"def {name}():", *(f"    {line.rstrip(';')}" for line in body), "", ""]
            case "k.cu":
                out += [f"void {name}() {{", *(f"  {line}" for line in body), "}", ""]
            case _:
                out += [f"[{name}]", *body, ""]
    return "\n".join(out).encode()


@settings(max_examples=250)
@given(sources(), CONTEXTS)
def test_on_a_changed_file_we_never_do_what_git_would_not(
    lab: Lab, case: tuple[str, bytes, bytes, bytes], context: str
) -> None:
    """Where we apply, `git apply` accepts too (perhaps elsewhere); a right merge agrees."""
    path, base, ours, up = case
    first = lab.commit({path: base})
    second = lab.commit({path: ours}, first)
    target = lab.commit({path: up}, first)
    (mail,) = lab.mails(context, f"{first}..{second}")
    result = apply_patch(lab.objects, lab.tree(target), parse_patch("p", mail))
    event("applied" if result.applied else result.failures[0].reason)
    if not result.applied:
        assert result.tree == lab.tree(target)
        return
    unified = ["--unidiff-zero"] if context == "-U0" else []
    assert lab.apply(lab.tree(target), mail, *unified) is not None
    # Whatever the siblings did: the block that our patch is about is the one that changed.
    (name,) = [n for n in "ABCD" if _block(base, n) != _block(ours, n)]
    after = lab.objects.read(result.tree, path)
    assert after is not None
    assert b"check(12)" in _block(after, name)
    for other in "ABCDNR":
        if other != name:
            assert _block(after, other) == _block(up, other), (name, other)
    merged = lab.merge(first, target, second)
    if merged not in (None, result.tree):
        # Where blocks were swapped, git merges a change into the wrong one, and says it is clean.
        theirs = lab.objects.read(merged or "", path)
        assert theirs is not None
        assert _block(theirs, name) == _block(up, name)
        event("git merges into a sibling")


def _block(content: bytes, name: str) -> bytes:
    for head in (f"def {name}():\n", f"void {name}() {{\n", f"[{name}]\n"):
        if (at := content.find(head.encode())) >= 0:
            return content[at:].partition(b"run()")[0]
    return b""
