"""A conflict is doubted where the patched function hands on to another one that has the effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.gitlab import Lab

from stackpatch.model.patch import parse_patch
from stackpatch.model.verdict import Word
from stackpatch.series.landed import decide

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.model.verdict import Verdict

HEAD = "import sys\n\n\n"
BASE = (
    HEAD + "def build(name):\n    a = prepare(name)\n    flags = get([10])\n    return a, flags\n"
)
OURS = BASE.replace("[10]", "[10, 12]")
PREPARE = "\n\ndef prepare(name):\n    return get([9, 12])\n"
FRONT = HEAD + "def build(name):\n    sources = inputs(name)\n    return spec(sources)\n"
INPUTS = "\n\ndef inputs(name):\n    return get([10, 12])\n"
EFFECT = r"build :: get\(\[[0-9, ]*\b12\b"

CUDA_BASE = "void init(int major) {\n  a();\n  CHECK(major == 10);\n  b();\n}\n"
CUDA_OURS = CUDA_BASE.replace("major == 10", "major == 10 || major == 12")
CUDA_FRONT = "void init(int major) {\n  a();\n  checkArch(major);\n  c();\n}\n"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "r.git")


def verdict(
    lab: Lab, target: str, *, base: str = BASE, ours: str = OURS, path: str = "x.py",
    effect: str = EFFECT, origin: bool = True,
) -> Verdict:  # fmt: skip
    patch = parse_patch(
        "p", lab.mail({path: base}, {path: ours}, f"x\n\nEffect: {path} :: {effect}\n")
    )
    made_for = lab.tree(lab.commit({path: base})) if origin else None
    tree = lab.tree(lab.commit({path: target}))
    return decide(lab.objects, tree, patch, origin=made_for)


def test_a_front_whose_new_function_has_the_effect_is_unsure(lab: Lab) -> None:
    found = verdict(lab, FRONT + INPUTS)
    assert found.word is Word.UNSURE
    assert found.detail.startswith("build calls inputs now, and inputs has 'get([10, 12")
    assert any(piece.says == found.detail for piece in found.evidence), "and is shown"


def test_cuda(lab: Lab) -> None:
    def word(target: str) -> Word:
        effect = "init :: major == 12"
        found = verdict(lab, target, base=CUDA_BASE, ours=CUDA_OURS, path="x.cu", effect=effect)
        return found.word

    checks = "void checkArch(int major) {\n  CHECK(major == 10 || major == 12);\n}\n"
    assert word(checks + CUDA_FRONT) is Word.UNSURE
    assert word(checks.replace(" || major == 12", "") + CUDA_FRONT) is Word.CONFLICT


@pytest.mark.parametrize(
    ("why", "target"),
    [
        ("the new function has the strict gate", FRONT + INPUTS.replace("[10, 12]", "[10]")),
        ("nobody calls it", FRONT.replace("inputs(name)", "other(name)") + INPUTS),
        ("it is a remark", FRONT.replace("inputs(name)", "[]  # inputs(name)") + INPUTS),
        ("it is in a comment there", FRONT + INPUTS.replace("return", "pass  # ")),
        ("it is defined elsewhere", FRONT),
        ("it calls itself", FRONT.replace("inputs", "build")),
    ],
)
def test_it_stays_a_conflict(lab: Lab, why: str, target: str) -> None:
    assert verdict(lab, target).word is Word.CONFLICT, why


def test_what_was_called_all_along_took_nothing_over(lab: Lab) -> None:
    """`prepare` had its own list with a 12 in it, and was called before."""
    base, ours = BASE + PREPARE, OURS + PREPARE
    target = base.replace("flags = get([10])", "flags = other([10])")
    assert verdict(lab, target, base=base, ours=ours).word is Word.CONFLICT
    # Where the release is not known, nothing tells the two apart.
    assert verdict(lab, target, base=base, ours=ours, origin=False).word is Word.UNSURE


def test_an_absence_is_not_asked_of_others(lab: Lab) -> None:
    found = verdict(lab, FRONT + INPUTS + "\n\nx = get([10])\n", effect=r"* :: !get\(\[10\]")
    assert "calls" not in found.detail
