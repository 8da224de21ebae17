"""Whether an `Effect:` holds: in its symbol, in what does something, wherever it moved."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.gitlab import Lab, Link, Thing

from stackpatch.errors import InputError
from stackpatch.model.patch import parse_patch
from stackpatch.model.trailers import Effect, parse_trailers
from stackpatch.series.effects import judge, judge_all, judge_file

if TYPE_CHECKING:
    from collections.abc import Mapping

GATE = "def gate():\n    major = get()\n    return major in [10, 12]\n"
SHUT = "def gate():\n    major = get()\n    return major in [10]\n"


def effect(text: str) -> Effect:
    trailers, problems = parse_trailers(f"x\n\nEffect: {text}")
    assert not problems
    return trailers.effects[0]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("effects") / "r.git")


HOLDS = effect(r"a/x.py :: gate :: \[10, 12\]")
ABSENT = effect(r"a/x.py :: gate :: !\[10, 12\]")
CASES: dict[str, tuple[Effect, dict[str, Thing], bool | None, str]] = {
    "there": (HOLDS, {"a/x.py": GATE}, True, "gate has '[10, 12]'"),
    "not there": (HOLDS, {"a/x.py": SHUT}, False, r"gate has no text like `\[10, 12\]`"),
    "absent": (ABSENT, {"a/x.py": SHUT}, True, r"gate has no text like `\[10, 12\]`"),
    "not absent": (ABSENT, {"a/x.py": GATE}, False, "gate still has '[10, 12]'"),
    "in another symbol": (
        HOLDS,
        {"a/x.py": GATE.replace("gate", "other") + SHUT},
        False,
        r"gate has no text like `\[10, 12\]`",
    ),
    "over several lines": (
        HOLDS,
        {"a/x.py": GATE.replace("[10, 12]", "[10,\n        12]")},
        True,
        "gate has '[10, 12]'",
    ),
    "in a comment": (
        HOLDS,
        {"a/x.py": SHUT + "    # [10, 12]\n"},
        False,
        r"gate has no text like `\[10, 12\]`",
    ),
    "in a docstring": (
        HOLDS,
        {"a/x.py": SHUT.replace("():\n", '():\n    """[10, 12]"""\n')},
        False,
        r"gate has no text like `\[10, 12\]`",
    ),
    "symbol nowhere": (
        HOLDS,
        {"a/x.py": "x = 1\n"},
        None,
        "gate is neither in a/x.py nor anywhere else in the tree",
    ),
    "symbol nowhere, absent": (
        ABSENT,
        {"a/x.py": "x = 1\n"},
        None,
        "gate is neither in a/x.py nor anywhere else in the tree",
    ),
    "file gone": (
        HOLDS,
        {"README": "x\n"},
        None,
        "gate is neither in a/x.py, which is gone, nor anywhere else in the tree",
    ),
    "file a link": (
        HOLDS,
        {"a/x.py": Link(b"y")},
        None,
        "gate is neither in a/x.py, which is gone, nor anywhere else in the tree",
    ),
    "moved": (HOLDS, {"b/y.py": GATE}, True, "moved to b/y.py: gate has '[10, 12]'"),
    "moved and shut": (
        HOLDS,
        {"b/y.py": SHUT},
        False,
        r"moved to b/y.py: gate has no text like `\[10, 12\]`",
    ),
    "moved, absence proves nothing": (ABSENT, {"b/y.py": SHUT}, None, "gate is now in b/y.py"),
    "moved, still there": (
        ABSENT,
        {"b/y.py": GATE},
        False,
        "moved to b/y.py: gate still has '[10, 12]'",
    ),
    "two copies that differ": (
        HOLDS,
        {"b/y.py": GATE, "c/z.py": SHUT},
        None,
        "gate moved, and its copies differ: b/y.py, c/z.py",
    ),
    "moved to another language": (
        HOLDS,
        {"b/y.cu": "void gate() {\n  f([10, 12]);\n}\n"},
        None,
        "gate is neither in a/x.py, which is gone, nor anywhere else in the tree",
    ),
    "only some of several definitions": (
        HOLDS,
        {"a/x.py": f"if x:\n    {GATE.replace(chr(10), chr(10) + '    ')}\n" + SHUT},
        None,
        "only 1 of 2 definitions of gate have '[10, 12]'",
    ),
    "the whole file": (
        effect("a/x.py :: * :: major"),
        {"a/x.py": SHUT},
        True,
        "a/x.py has 'major'",
    ),
    "the whole file, gone": (
        effect("a/x.py :: * :: major"),
        {"b/y.py": SHUT},
        None,
        "* is neither in a/x.py, which is gone, nor anywhere else in the tree",
    ),
    "no grammar": (
        effect("CMakeLists.txt :: * :: 120a"),
        {"CMakeLists.txt": "set(120a)\n"},
        True,
        "CMakeLists.txt has '120a'",
    ),
    "no grammar, a comment": (
        effect("CMakeLists.txt :: * :: 120a"),
        {"CMakeLists.txt": "# 120a\n"},
        False,
        r"CMakeLists.txt has no text like `120a`",
    ),
}


@pytest.mark.parametrize(("claim", "files", "holds", "says"), CASES.values(), ids=CASES.keys())
def test_an_effect_is_judged_in_its_symbol(
    lab: Lab, claim: Effect, files: Mapping[str, Thing], holds: bool | None, says: str
) -> None:
    found = judge(lab.objects, lab.tree(lab.commit(files)), claim)
    assert (found.holds, found.says) == (holds, says)


def test_the_place_is_told(lab: Lab) -> None:
    text = "import x\n\n\n" + GATE
    found = judge(lab.objects, lab.tree(lab.commit({"a/x.py": text})), HOLDS)
    assert (found.path, found.line, found.symbol, found.text) == ("a/x.py", 6, "gate", "[10, 12]")
    assert found.blob is None
    moved = judge(lab.objects, lab.tree(lab.commit({"a/y.py": text})), HOLDS)
    assert (moved.path, moved.line) == ("a/y.py", 6)
    assert moved.blob is not None
    assert lab.objects.blob(moved.blob) == text.encode()


def test_the_nearest_file_is_taken(lab: Lab) -> None:
    files: dict[str, Thing] = {"z/x.py": GATE, "a/deep/x.py": GATE, "b.py": GATE}
    found = judge(lab.objects, lab.tree(lab.commit(files)), HOLDS)
    assert found.path == "a/deep/x.py"


def test_what_was_not_read_refutes_nothing() -> None:
    text = "def gate():\n    x = (\n" + "    ) = = y ((\n" * 8 + "    return 1\n"
    found = judge_file(HOLDS, "a/x.py", text.encode())
    assert found.holds is None


def test_a_pattern_that_runs_away_is_stopped_and_named(lab: Lab) -> None:
    claim = effect(r"a/x.py :: * :: (a|aa)+c$")
    tree = lab.tree(lab.commit({"a/x.py": "x = '" + "a" * 500 + "!c'\n"}))
    started = time.monotonic()
    with pytest.raises(InputError, match=r"runs for more than 2 s on a/x\.py") as caught:
        judge(lab.objects, tree, claim)
    assert time.monotonic() - started < 30
    assert "without nested repetitions" in (caught.value.hint or "")


def test_the_error_of_a_pattern_names_the_patch_and_the_line(lab: Lab) -> None:
    held = "x = '" + "a" * 500 + "!c'\n"
    claims = "Effect: a/x.py :: * :: !y\nEffect: a/x.py :: * :: (a|aa)+c$\n"
    raw = lab.mail({"a/x.py": held}, {"a/x.py": held + "y = 1\n"}, f"one\n\nWhy.\n\n{claims}")
    patch = parse_patch("0001-one.patch", raw)
    line = next(n for n, text in enumerate(raw.split(b"\n"), 1) if b"aa" in text[:40])
    with pytest.raises(InputError) as caught:
        judge_all(lab.objects, lab.tree(lab.commit({"a/x.py": held})), patch)
    assert caught.value.where == f"0001-one.patch:{line}"
