"""What a rebase makes of one patch: the outcomes of the issue, on real repositories."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.upstreams import Upstream, filler, function

from stackpatch.model.patch import parse_patch
from stackpatch.series.apply import apply_patch, apply_series
from stackpatch.series.pick import Outcome, move

if TYPE_CHECKING:
    from pathlib import Path

STRICT = "assert major == 10"
RELAXED = "assert major in (10, 12)"
EFFECT = r"Effect: gate.py :: build :: major in \(10, 12\)"


def gates(build: str, other: str = STRICT, before: str = "", between: str = "filler") -> str:
    head = '"""Gates."""\n\nimport sys\n\n\n'
    return head + before + function("build", build) + filler(12, between) + function("other", other)


def moved(
    tmp_path: Path, new: str | None, *, ours: str | None = None, trailers: str = EFFECT
) -> tuple:  # type: ignore[type-arg]
    up = Upstream(tmp_path / "up", {"gate.py": gates(STRICT), "readme": "x\n"})
    series = up.series(
        tmp_path / "series", ("Open the gate", {"gate.py": ours or gates(RELAXED)}, trailers)
    )
    if new is None:
        up.release("2.0", {"readme": "y\n"})
    else:
        up.release("2.0", {"gate.py": new})
    apply_series(up.objects, up.versions[0].tree, series.patches)
    objects = up.objects
    return (
        objects,
        up.versions[1].tree,
        series.patches[0],
        move(objects, up.versions[1].tree, series.patches[0]),
    )


def test_untouched_when_upstream_did_not_touch_the_file(tmp_path: Path) -> None:
    _, _, patch, result = moved(tmp_path, None)
    assert result.outcome is Outcome.UNTOUCHED
    assert result.mail == patch.raw


def test_moved_when_the_function_is_further_down(tmp_path: Path) -> None:
    objects, tree, patch, result = moved(tmp_path, gates(STRICT, before=filler(7, "new")))
    assert (result.outcome, result.detail) == (Outcome.MOVED, "offset 9")
    again = parse_patch(patch.name, result.mail)
    assert again.message == patch.message
    assert [h.lines for h in again.files[0].hunks] == [h.lines for h in patch.files[0].hunks]
    onto = apply_patch(objects, tree, again)
    assert (onto.tree, onto.offset) == (result.tree, 0), (
        "the new mail is at home on the new version"
    )


def test_changed_when_upstream_edited_beside_it(tmp_path: Path) -> None:
    beside = gates(STRICT).replace("launch(device)", "launch(device, 1)", 1)
    objects, tree, patch, result = moved(tmp_path, beside)
    assert result.outcome is Outcome.CHANGED
    again = apply_patch(objects, tree, parse_patch(patch.name, result.mail))
    assert again.applied
    assert again.tree == result.tree


def test_landed_is_dropped_with_its_verdict(tmp_path: Path) -> None:
    _, _, _, result = moved(tmp_path, gates(RELAXED, before="import os\n"))
    assert (result.outcome, result.mail) == (Outcome.LANDED, None)
    assert result.detail == "upstreamed: identical"


def test_landed_in_other_words(tmp_path: Path) -> None:
    _, _, _, result = moved(tmp_path, gates("assert major in (10, 12), 'Blackwell'"))
    assert (result.outcome, result.detail) == (Outcome.LANDED, "upstreamed: equivalent")


def test_shrunk_when_half_landed(tmp_path: Path) -> None:
    trailers = EFFECT + "\n" + r"Effect: gate.py :: other :: major in \(10, 12\)"
    objects, tree, patch, result = moved(
        tmp_path, gates(RELAXED, STRICT), ours=gates(RELAXED, RELAXED), trailers=trailers
    )
    assert result.outcome is Outcome.SHRUNK
    assert "gate.py (build)" in result.detail
    assert [hunk.state for hunk in result.hunks] == ["landed", "applies"]
    left = parse_patch(patch.name, result.mail)
    assert len(left.files[0].hunks) == 1
    assert apply_patch(objects, tree, left).tree == result.tree


def test_conflict_when_upstream_rewrote_the_line(tmp_path: Path) -> None:
    _, _, _, result = moved(tmp_path, gates("assert supports(major)", "pass"))
    assert (result.outcome, result.mail) == (Outcome.CONFLICT, None)
    assert "upstream changed the same lines" in result.detail


def test_misplaced_when_only_the_sibling_has_the_text(tmp_path: Path) -> None:
    _, tree, _, result = moved(tmp_path, gates("assert supports(major)"))
    assert (result.outcome, result.mail, result.tree) == (Outcome.MISPLACED, None, tree)
    assert "other" in result.detail
    assert "build" in result.detail


def test_a_merge_without_the_effect_stops(tmp_path: Path) -> None:
    wrong = r"Effect: gate.py :: build :: this is never there"
    _, _, _, result = moved(tmp_path, gates(STRICT, before="import os\n"), trailers=wrong)
    assert result.outcome is Outcome.CONFLICT
    assert "effect is not there" in result.detail


def test_a_file_that_is_gone_stops(tmp_path: Path) -> None:
    up = Upstream(tmp_path / "up", {"gate.py": gates(STRICT), "keep": "x\n"})
    series = up.series(tmp_path / "series", ("Open", {"gate.py": gates(RELAXED)}, EFFECT))
    up.release("2.0", {"gate.py": None, "gates/gate.py": gates(STRICT)})
    result = move(up.objects, up.versions[1].tree, series.patches[0])
    assert result.outcome is Outcome.CONFLICT
    assert any(e.path == "gates/gate.py" for e in result.verdict.evidence)


@pytest.mark.parametrize("trailers", [EFFECT, ""])
def test_a_sibling_in_the_same_function_is_never_taken(tmp_path: Path, trailers: str) -> None:
    two = function(
        "build", "if a:", "    pass", STRICT, "x = 1", "if a:", "    pass", STRICT, "x = 1"
    )
    one = function(
        "build", "if a:", "    pass", RELAXED, "x = 1", "if a:", "    pass", STRICT, "x = 1"
    )
    reworked = function("build", "pass", "if a:", "    pass", STRICT, "x = 1")
    up = Upstream(tmp_path / "up", {"gate.py": two})
    series = up.series(tmp_path / "series", ("Open", {"gate.py": one}, trailers))
    up.release("2.0", {"gate.py": reworked})
    result = move(up.objects, up.versions[1].tree, series.patches[0])
    assert result.outcome.stops
