"""Random files, random upstream edits: what a move calls clean is the same tree again, whole."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.upstreams import Upstream

from stackpatch.model.patch import Patch, parse_patch
from stackpatch.series.apply import apply_series
from stackpatch.series.pick import Outcome, move
from stackpatch.series.rebase import gives_again

LINES = st.lists(st.sampled_from([f"line {n}" for n in range(9)]), min_size=6, max_size=24)
EDITS = st.lists(
    st.tuples(st.integers(0, 23), st.sampled_from(["drop", "add", "change"])), max_size=4
)


def edited(lines: list[str], edits: list[tuple[int, str]], word: str) -> list[str]:
    result = list(lines)
    for number, (at, kind) in enumerate(edits):
        place = min(at, len(result))
        match kind:
            case "add":
                result.insert(place, f"{word} {number}")
            case "drop":
                del result[place : place + 1]
            case _:
                result[place : place + 1] = [f"{word} {number}"]
    return result


def added(patch: Patch) -> list[bytes]:
    return [line for file in patch.files for hunk in file.hunks for line in hunk.added]


@settings(max_examples=20)
@given(LINES, EDITS.filter(bool), EDITS)
def test_a_clean_move_reads_back_to_the_same_tree(
    lines: list[str], ours: list[tuple[int, str]], theirs: list[tuple[int, str]]
) -> None:
    def text(found: list[str]) -> str:
        return "".join(f"{line}\n" for line in found) + "end\n"

    mine = text(edited(lines, ours, "ours"))
    if mine == text(lines):
        return
    with tempfile.TemporaryDirectory() as folder:
        up = Upstream(Path(folder) / "up", {"f.txt": text(lines)})
        series = up.series(Path(folder) / "series", ("Ours", {"f.txt": mine}, ""))
        new = up.release("2.0", {"f.txt": text(edited(lines, theirs, "theirs"))})
        objects, patch = up.objects, series.patches[0]
        assert apply_series(objects, up.versions[0].tree, series.patches).applied
        moved = move(objects, new.tree, patch)
        if moved.mail is None:
            return
        assert gives_again(objects, new.tree, {patch.name: moved.mail}, moved.tree) is None
        if moved.outcome in (Outcome.UNTOUCHED, Outcome.MOVED):
            again = parse_patch(patch.name, moved.mail)
            assert added(again) == added(patch), "no added line is lost without a word"
