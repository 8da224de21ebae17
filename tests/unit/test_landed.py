"""How evidence is weighed: history, what a source carries, doubts, and what is shown for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from tests.gitlab import Lab, Thing

from stackpatch.model.patch import Patch, parse_patch
from stackpatch.model.verdict import Evidence, Layer, Word
from stackpatch.series.landed import decide, examine

if TYPE_CHECKING:
    from collections.abc import Mapping

GATE = "import x\n\n\ndef gate():\n    a = 1\n    assert major == 10\n    return a\n"
OPEN = GATE.replace("== 10", "in (10, 12)")
EFFECT = r"x.py :: gate :: \(10, 12\)"
RECORDED = (Evidence(Layer.COMMIT, "abc123 is an ancestor"),)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("landed") / "r.git")


def patch_of(lab: Lab, *effects: str, base: str = GATE, ours: str = OPEN) -> Patch:
    message = "x\n\n" + "".join(f"Effect: {effect}\n" for effect in effects)
    return parse_patch("p", lab.mail({"x.py": base}, {"x.py": ours}, message))


def tree_of(lab: Lab, files: Mapping[str, Thing]) -> str:
    return lab.tree(lab.commit(files))


@dataclass(frozen=True, slots=True)
class Weighed:
    """A row: what is there, whether history has the commit, and what follows."""

    files: dict[str, Thing]
    effects: tuple[str, ...]
    history: tuple[Evidence, ...]
    word: str
    detail: str


ROWS = {
    "there and recorded": Weighed({"x.py": OPEN}, (EFFECT,), RECORDED, "upstreamed", "identical"),
    "there, no effect, recorded": Weighed({"x.py": OPEN}, (), RECORDED, "upstreamed", "identical"),
    "recorded, then reverted": Weighed(
        {"x.py": GATE}, (), RECORDED, "unsure", "its commit is upstream, and it would still apply"
    ),
    "recorded, then undone in other words": Weighed(
        {"x.py": GATE.replace("== 10", "is 10")},
        (EFFECT,),
        RECORDED,
        "unsure",
        "its commit is upstream, but its effect is not there",
    ),
    "lines there, effect not": Weighed(
        {"x.py": OPEN},
        (r"x.py :: gate :: \(10, 12, 13\)",),
        (),
        "unsure",
        "its lines are there, but its effect is not",
    ),
    "effect too loose": Weighed(
        {"x.py": GATE},
        ("x.py :: gate :: major",),
        (),
        "unsure",
        "the effect is there, and the patch would still apply: Effect too loose?",
    ),
    "effect wrong": Weighed(
        {"x.py": GATE},
        (r"x.py :: gate :: \(10, 99\)",),
        (),
        "unsure",
        "it applies, but its effect is not there afterwards: "
        r"gate has no text like `\(10, 99\)`",
    ),
    "other words": Weighed(
        {"x.py": GATE.replace("major == 10", "supported(10, 12)")},
        (r"x.py :: gate :: 10, 12",),
        (),
        "upstreamed",
        "equivalent",
    ),
    "gate removed": Weighed(
        {"x.py": GATE.replace("    assert major == 10\n", "    b = 2\n")},
        ("x.py :: gate :: !major == 10",),
        (),
        "upstreamed",
        "gone",
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_evidence_is_weighed(lab: Lab, row: Weighed) -> None:
    verdict = decide(
        lab.objects,
        tree_of(lab, row.files),
        patch_of(lab, *row.effects),
        history=row.history,
    )
    assert (verdict.word, verdict.detail) == (row.word, row.detail)
    assert set(row.history) <= set(verdict.evidence)


def test_what_a_source_does_not_carry_is_not_gone(lab: Lab) -> None:
    tree = tree_of(lab, {"README": "x\n"})
    verdict = decide(lab.objects, tree, patch_of(lab, EFFECT), covers=lambda path: path != "x.py")
    assert (verdict.word, verdict.detail) == ("unsure", "this kind of source does not carry x.py")


def test_gone_is_told_with_what_was_searched(lab: Lab) -> None:
    examined = examine(lab.objects, tree_of(lab, {"README": "none of it\n"}), patch_of(lab, EFFECT))
    assert examined.verdict.word is Word.OBSOLETE
    assert examined.whole_tree


@pytest.mark.parametrize(
    "left", ["gate = 1\n", "see gate()\n", "class Gate:\n    def gate(self): ...\n"]
)
def test_a_name_that_is_left_makes_gone_unsure(lab: Lab, left: str) -> None:
    verdict = decide(lab.objects, tree_of(lab, {"other.txt": left}), patch_of(lab, EFFECT))
    assert verdict.word is Word.UNSURE


def test_a_file_of_the_name_makes_gone_unsure(lab: Lab) -> None:
    verdict = decide(lab.objects, tree_of(lab, {"moved/x.py": "y = 1\n"}), patch_of(lab, EFFECT))
    assert (verdict.word, verdict.detail) == (
        "unsure",
        "x.py may now be moved/x.py",
    )


def test_a_word_that_is_left_is_told_as_what_it_is(lab: Lab) -> None:
    tree = tree_of(lab, {"y.py": "def unlike(a):\n    assert a\n"})
    verdict = decide(lab.objects, tree, patch_of(lab, EFFECT))
    detail = "the code that it changes is not there, but assert still stands in y.py"
    assert (verdict.word, verdict.detail) == ("unsure", detail)


def test_a_symbol_that_is_there_twice_is_not_called_gone(lab: Lab) -> None:
    tree = tree_of(lab, {"x.py": OPEN + "\n\ndef gate():\n    return shut\n"})
    verdict = decide(lab.objects, tree, patch_of(lab, EFFECT))
    detail = "only 1 of 2 definitions of gate have '(10, 12)'"
    assert (verdict.word, verdict.detail) == ("unsure", detail)


@pytest.mark.parametrize(
    ("now", "word"),
    [({"README": "1\n"}, "unsure"), ({"README": "1\n", "ci/z": "1\n"}, "obsolete")],
    ids=["the whole folder is missing", "only the file is gone"],
)
def test_a_folder_that_an_archive_leaves_out_is_not_gone(
    lab: Lab, now: dict[str, Thing], word: str
) -> None:
    raw = lab.mail({"ci/x.py": GATE}, {"ci/x.py": OPEN}, f"x\n\nEffect: ci/{EFFECT}\n")
    origin = tree_of(lab, {"ci/x.py": GATE, "README": "1\n"})
    verdict = decide(lab.objects, tree_of(lab, now), parse_patch("p", raw), origin=origin)
    assert verdict.word == word
    if word == "unsure":
        assert "nothing of ci/ is in this version" in verdict.detail


def test_evidence_names_file_line_symbol_and_text(lab: Lab) -> None:
    verdict = decide(lab.objects, tree_of(lab, {"x.py": OPEN}), patch_of(lab, EFFECT))
    effect = next(e for e in verdict.evidence if e.layer is Layer.EFFECT)
    assert (effect.path, effect.line, effect.symbol, effect.text) == ("x.py", 6, "gate", "(10, 12)")
    whole, hunk = (e for e in verdict.evidence if e.layer is Layer.PICK)
    assert (whole.says, whole.path) == ("picking it leaves the tree as it is", None)
    assert (hunk.path, hunk.symbol) == ("x.py", "gate")
    assert [(h.path, h.symbol, h.state) for h in verdict.hunks] == [("x.py", "gate", "landed")]


def test_evidence_is_shown_strongest_first(lab: Lab) -> None:
    history = tuple(Evidence(layer, "seen") for layer in (Layer.SEARCH, Layer.COMMIT))
    tree = tree_of(lab, {"x.py": OPEN})
    layers = [
        e.layer for e in decide(lab.objects, tree, patch_of(lab, EFFECT), history=history).evidence
    ]
    assert layers == sorted(layers, key=list(Layer).index)
    assert set(layers) >= {Layer.COMMIT, Layer.PICK, Layer.EFFECT, Layer.APPLY, Layer.SEARCH}


STRANGERS: dict[str, dict[str, Thing]] = {
    "the file is gone": {"y.py": OPEN},
    "the function is gone": {"x.py": "a = 1\n", "y.py": OPEN},
    "the function has another name and file": {"y.py": OPEN, "z.py": GATE.replace("gate", "door")},
}


@pytest.mark.parametrize("files", STRANGERS.values(), ids=STRANGERS.keys())
def test_a_namesake_that_was_there_before_is_not_where_it_moved(
    lab: Lab, files: dict[str, Thing]
) -> None:
    """A sibling file had the same function, open, all along; the patch's own one is gone."""
    origin = tree_of(lab, {"x.py": GATE, "y.py": OPEN})
    verdict = decide(lab.objects, tree_of(lab, files), patch_of(lab, EFFECT), origin=origin)
    assert verdict.word is Word.UNSURE
    (effect,) = (e for e in verdict.evidence if e.layer is Layer.EFFECT)
    assert "moved nowhere: the one in y.py was there before" in effect.says


def test_a_function_that_came_to_another_file_is_the_one_that_moved(lab: Lab) -> None:
    origin = tree_of(lab, {"x.py": GATE, "y.py": "y = 1\n"})
    now = tree_of(lab, {"y.py": OPEN})
    verdict = decide(lab.objects, now, patch_of(lab, EFFECT), origin=origin)
    assert (verdict.word, verdict.detail) == ("upstreamed", "equivalent")


WENT: dict[str, tuple[dict[str, Thing], str, str]] = {
    "renamed": ({"pkg/z.py": GATE}, "x.py is now pkg/z.py", "pkg/z.py"),
    "to another folder, changed": (
        {"pkg/x.py": "b = 1\n" + GATE.replace("gate", "door")},
        "x.py may now be pkg/x.py",
        "pkg/x.py",
    ),
    "its function only": (
        {"x.py": "a = 1\n", "pkg/z.py": "z = 1\n\n\n" + GATE},
        "gate is now in pkg/z.py",
        "pkg/z.py",
    ),
}


@pytest.mark.parametrize("effects", [(), (EFFECT,)], ids=["by the text alone", "with an effect"])
@pytest.mark.parametrize(("files", "says", "path"), WENT.values(), ids=WENT.keys())
def test_where_it_went_is_told(
    lab: Lab, files: dict[str, Thing], says: str, path: str, effects: tuple[str, ...]
) -> None:
    origin = tree_of(lab, {"x.py": GATE, "sub/x.py": GATE})
    tree = tree_of(lab, {"sub/x.py": GATE, **files})
    verdict = decide(lab.objects, tree, patch_of(lab, *effects), origin=origin)
    found = {(e.says, e.path) for e in verdict.evidence if e.layer is Layer.SEARCH}
    assert (says, path) in found
    assert not any("sub/x.py" in said for said, _ in found), "it was there before"
    assert not verdict.word.may_drop


def test_a_name_that_is_everywhere_is_not_a_list_of_everything(lab: Lab) -> None:
    tree = tree_of(lab, {f"{number}/x.py": "a = 1\n" for number in range(9)})
    verdict = decide(lab.objects, tree, patch_of(lab))
    assert sum("may now be" in e.says for e in verdict.evidence) == 3


def test_needed_says_where_and_why_there(lab: Lab) -> None:
    above = tree_of(lab, {"x.py": "import y\n" * 5 + GATE.replace("x\n\n", "x\n\n", 1)})
    moved = patch_of(lab, EFFECT, base="import z\n" + GATE, ours="import z\n" + OPEN)
    verdict = decide(lab.objects, above, moved)
    assert verdict.word is Word.NEEDED
    assert verdict.detail == "offset 4"
    applied = next(e for e in verdict.evidence if e.layer is Layer.APPLY)
    assert (applied.path, applied.line, applied.symbol) == ("x.py", 8, "gate")
    assert "same symbol" in applied.says


def test_partial_names_what_is_missing(lab: Lab) -> None:
    fill = "# f\n" * 12
    base, ours = (
        GATE + fill + GATE.replace("gate", "two"),
        OPEN + fill + OPEN.replace("gate", "two"),
    )
    patch = patch_of(lab, EFFECT, r"x.py :: two :: \(10, 12\)", base=base, ours=ours)
    there = tree_of(lab, {"x.py": OPEN + fill + GATE.replace("gate", "two")})
    verdict = decide(lab.objects, there, patch)
    assert (verdict.word, verdict.detail) == ("partial", "not upstream: x.py (two)")
    assert [h.state for h in verdict.hunks] == ["landed", "applies"]
    picked = [e.says for e in verdict.evidence if e.layer is Layer.PICK]
    assert [says.startswith("the hunk at line") for says in picked] == [True]


def test_only_drop_words_drop() -> None:
    assert {word for word in Word if word.may_drop} == {Word.UPSTREAMED, Word.OBSOLETE}


def test_a_store_without_the_base_is_never_certain_of_landing(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Lab(tmp_path_factory.mktemp("elsewhere") / "r.git")
    raw = patch_of(lab).raw
    tree = other.tree(other.commit({"x.py": OPEN}))
    verdict = decide(other.objects, tree, parse_patch("p", raw.replace(OPEN.encode(), b"")))
    assert verdict.word is Word.UNSURE


METHOD = (
    "    def {}(self):\n        a = 1\n        b = 2\n        c = 3\n        assert {}\n"
    "        d = 4\n        e = 5\n        f = 6\n\n"
)


@pytest.mark.parametrize("names", [("two", "one"), ("three", "one")], ids=["swapped", "renamed"])
def test_the_class_in_a_heading_does_not_name_the_method(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory, names: tuple[str, str]
) -> None:
    """Without the base there is git's heading, and of a method that is the line of its class."""
    other = Lab(tmp_path_factory.mktemp("elsewhere") / "r.git")
    shut, opened = (METHOD.format("one", gate) for gate in ("x == 10", "x in (10, 12)"))
    two = METHOD.format("two", "x == 10")
    ours = patch_of(lab, base=f"class A:\n{shut}{two}", ours=f"class A:\n{opened}{two}")
    now = METHOD.format(names[0], "x == 10") + METHOD.format(names[1], "x > 9")
    tree = other.tree(other.commit({"x.py": f"class A:\n{now}"}))
    verdict = decide(other.objects, tree, ours)
    assert (verdict.word, [hunk.state for hunk in verdict.hunks]) == (Word.UNSURE, ["unproven"])
