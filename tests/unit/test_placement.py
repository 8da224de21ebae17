"""Where a hunk may go: exact text first, then every proof that it is the right place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.model.hunk import Hunk
from stackpatch.series.edits import find_matches, replace_at
from stackpatch.series.placement import Placed, Reason, Refused, place_hunks
from stackpatch.series.side import Side, split_lines
from stackpatch.series.twins import headings, told_apart, twins


def hunk(start: int, *lines: str, heading: str = "") -> Hunk:
    """A hunk from lines with their tags; a last `\\` line takes the line end away."""
    parsed: list[tuple[bytes, bytes]] = []
    for line in lines:
        if line == "\\":
            parsed[-1] = (parsed[-1][0], parsed[-1][1].removesuffix(b"\n"))
        else:
            parsed.append((line[:1].encode(), line[1:].encode() + b"\n"))
    old = sum(tag != b"+" for tag, _ in parsed)
    new = sum(tag != b"-" for tag, _ in parsed)
    return Hunk(start, old, start, new, heading.encode(), tuple(parsed), 7)


@pytest.mark.parametrize(
    ("content", "one", "found"),
    [
        (b"a\nb\nc\n", hunk(1, " a", "-b", "+x", " c"), [0]),
        (b"z\na\nb\nc\n", hunk(1, " a", "-b", "+x", " c"), []),  # tied to the first line
        (b"z\na\nb\nc\n", hunk(2, " a", "-b", "+x", " c"), [1]),
        (b"a\nb\nc\na\nb\nc\n", hunk(2, " a", "-b", "+x", " c"), [0, 3]),
        (b"a\nb\nc\n", hunk(2, " a", "-b", "+x"), []),  # tied to the end
        (b"z\na\nb\n", hunk(2, " a", "-b", "+x"), [1]),
        (b"xa\nb\nc\n", hunk(2, " a", "-b", " c"), []),  # not within a line
        (b"a\nb", hunk(1, " a", "-b", "\\", "+x"), [0]),
        (b"a\nb\n", hunk(1, " a", "-b", "\\", "+x"), []),  # the line end must be missing too
        (b"a\nb", hunk(1, " a", "-b", "+x"), []),
        (b"a\nb\r\n", hunk(1, " a", "-b", "+x"), []),  # and no white space is forgiven
        (b"aa\naa\naa\naa\n", hunk(2, " aa", "-aa", " aa"), [0, 1]),
        (b"", hunk(0, "+x"), [0]),
        (b"a\n", hunk(0, "+x"), []),
    ],
)
def test_matches_are_exact_and_tied_as_git_ties_them(
    content: bytes, one: Hunk, found: list[int]
) -> None:
    assert find_matches(content, one) == found


@given(st.binary(max_size=40))
def test_lines_are_split_at_line_feeds_only(content: bytes) -> None:
    lines = split_lines(content)
    assert b"".join(lines) == content
    assert all(line.endswith(b"\n") for line in lines[:-1])
    assert all(line.count(b"\n") <= 1 for line in lines)
    assert all(lines)


def test_hunks_are_replaced_in_any_order() -> None:
    lines = split_lines(b"a\nb\nc\nd\ne\n")
    one, two = hunk(1, "-a", "+x", "+y"), hunk(4, "-d")
    for placed in ([(one, 0), (two, 3)], [(two, 3), (one, 0)]):
        assert replace_at(lines, placed) == b"x\ny\nb\nc\ne\n"


F = "def {0}():\n    a = 1\n    b = 2\n    gate(10)\n    c = 3\n    d = 4\n\n\n"
GATE = ("     a = 1", "     b = 2", "-    gate(10)", "+    gate(12)", "     c = 3", "     d = 4")


def side(*names: str, path: str = "x.py", pattern: str = F) -> Side:
    return Side(path, ("import x\n\n\n" + "".join(map(pattern.format, names))).encode())


def one(hunks: list[Hunk], target: Side, base: Side | None) -> Placed | Refused:
    placed, refused = place_hunks(hunks, target, base)
    assert len(placed) + len(refused) >= len(hunks)
    return (placed or refused)[0]


def test_the_very_file_needs_no_parser() -> None:
    found = one([hunk(5, *GATE)], side("f"), side("f"))
    assert isinstance(found, Placed)
    assert (found.start, found.offset, found.symbol) == (4, 0, None)


def test_a_function_may_move() -> None:
    found = one([hunk(5, *GATE)], side("g", "f"), side("f", "g"))
    assert isinstance(found, Placed)
    assert (found.start, found.offset, found.symbol) == (12, 8, "f")


def test_functions_may_change_places_with_their_hunks() -> None:
    hunks = [hunk(5, *GATE), hunk(13, *GATE)]
    placed, refused = place_hunks(hunks, side("g", "f"), side("f", "g"))
    assert not refused
    assert [(p.start, p.symbol) for p in placed] == [(12, "f"), (4, "g")]


def test_the_siblings_are_named() -> None:
    found = one([hunk(5, *GATE)], side("g", "h"), side("f", "g"))
    assert isinstance(found, Refused)
    assert found.reason is Reason.MISPLACED
    assert found.detail == "its text stands only in g, h, but it was written for f"
    assert (found.expected, found.candidates) == ("f", ((5, "g"), (13, "h")))


def test_nothing_is_named_where_nothing_matches() -> None:
    found = one([hunk(5, *GATE)], Side("x.py", b"y = 1\n"), side("f"))
    assert isinstance(found, Refused)
    assert (found.reason, found.expected, found.candidates) == (Reason.NO_MATCH, "f", ())


def test_two_hunks_do_not_take_the_same_lines() -> None:
    """Both gates of the base are one in the target."""
    base = side("f", "f")
    placed, refused = place_hunks([hunk(5, *GATE), hunk(13, *GATE)], side("f"), base)
    assert [found.start for found in placed if found.hunk not in {r.hunk for r in refused}] == []
    assert {found.reason for found in refused} <= {Reason.MISPLACED, Reason.AMBIGUOUS}


def test_without_the_base_only_an_unmoved_named_place_counts() -> None:
    named = hunk(5, *GATE, heading="def f():")
    found = one([named], side("f", "g2"), None)
    assert isinstance(found, Refused)  # the same text stands twice
    alone = Side("x.py", side("f").content + b"end = 1\n")
    found = one([named], alone, None)
    assert isinstance(found, Placed)
    assert (found.start, found.symbol) == (4, "f")
    for refused in (
        one([hunk(5, *GATE, heading="def g():")], alone, None),
        one([hunk(5, *GATE)], alone, None),
        one([named], Side("x.py", b"import y\n" + alone.content), None),
    ):
        assert isinstance(refused, Refused)
        assert refused.reason is Reason.UNPROVEN
        assert "not in the source store" in refused.detail


def test_a_base_that_the_patch_does_not_fit_is_no_base() -> None:
    found = one([hunk(6, *GATE, heading="def f():")], side("g", "f"), side("f"))
    assert isinstance(found, Refused)


TREE = (
    b"top\nfunction(a)\n  set(x)\n  if(y)\n\n    gate\n  endif()\nendfunction()\n"
    b"[one]\nk = 1\n\n[two]\nk = 1\n"
)


@pytest.mark.parametrize(
    ("at", "above"),
    [
        (0, ()),
        (1, ()),
        (2, (b"function(a)",)),
        (3, (b"function(a)",)),
        (5, (b"function(a)", b"if(y)")),
        (6, (b"function(a)",)),
        (7, ()),
        (9, (b"[one]",)),
        (12, (b"[two]",)),
    ],
)
def test_headings(at: int, above: tuple[bytes, ...]) -> None:
    assert headings(split_lines(TREE), at) == above


@given(
    st.lists(
        st.sampled_from([b"\n", b"a\n", b"  b\n", b"[s]\n", b"    c\n", b"\td\n"]), max_size=12
    )
)
def test_headings_of_anything(lines: list[bytes]) -> None:
    for at in range(len(lines)):
        for head in headings(lines, at):
            assert head in {line.strip() for line in lines[:at]}


def test_twins() -> None:
    lines = [b"a", b"b", b"a", b"b", b"a"]
    assert twins(lines, [b"a", b"b"], 0) == [2]
    assert twins(lines, [b"a"], 2) == [0, 4]
    assert twins(lines, [], 0) == []
    assert twins(lines, lines, 0) == []


@pytest.mark.parametrize(
    ("target", "start", "apart"),
    [
        ("A x g y B x g y E", 2, True),  # as it was
        ("A x g y B x g y E", 6, False),  # the twin itself
        ("N x g y B x g y E", 2, True),  # renamed: what is below tells
        ("N x g y M x g y E", 2, False),  # nothing tells
        ("A x g y E", 2, False),  # above as at home, below as at the twin
        ("A n g y B x g y E", 2, True),  # a line between changed: below tells
        ("B x g y A x g y E", 6, False),
        ("A x g y", 2, True),
    ],
)
def test_told_apart(target: str, start: int, apart: bool) -> None:
    base = b"A x g y B x g y E".split()
    assert told_apart(base, 2, [6], target.encode().split(), start, 1) is apart
