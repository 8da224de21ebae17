"""The search for the first version that fails: right whatever cannot be tested, and short."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.installed.caches import CACHES
from stackpatch.installed.private import private_caches
from stackpatch.installed.surroundings import surroundings
from stackpatch.series.bisect import Found, Result, bisect

if TYPE_CHECKING:
    from pathlib import Path


class Line:
    """Versions that fail from `first` on; some cannot be tested."""

    def __init__(self, first: int, untested: frozenset[int] = frozenset()) -> None:
        self.first, self.untested = first, untested
        self.asked: list[int] = []

    def __call__(self, number: int) -> Result:
        assert number not in self.asked, "nothing is tested twice"
        self.asked.append(number)
        if number in self.untested:
            return Result.UNTESTED
        return Result.BAD if number >= self.first else Result.GOOD


@given(st.data())
def test_the_first_bad_is_found_in_few_steps(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 300))
    first = data.draw(st.integers(1, count - 1))
    line = Line(first)
    assert bisect(count, line) == Found(first - 1, first)
    assert len(line.asked) <= 2 + math.ceil(math.log2(count))


@given(st.data())
def test_what_cannot_be_tested_never_makes_it_wrong(data: st.DataObject) -> None:
    count = data.draw(st.integers(3, 40))
    first = data.draw(st.integers(1, count - 1))
    line = Line(first, data.draw(st.frozensets(st.integers(1, count - 2), max_size=12)))
    found = bisect(count, line)
    assert found.low is not None
    assert found.high is not None
    assert found.low < first <= found.high
    assert set(found.between) == set(range(found.low + 1, found.high)) <= line.untested
    if found.first_bad is not None:
        assert found.first_bad == first


@pytest.mark.parametrize(
    ("line", "found", "asked"),
    [
        (Line(0), Found(None, None), [0]),
        (Line(9), Found(0, None), [0, 4]),
        (Line(2, frozenset({0})), Found(None, None), [0]),
        (Line(2, frozenset({4})), Found(0, None), [0, 4]),
    ],
)
def test_ends_that_are_not_what_was_said_end_it(line: Line, found: Found, asked: list[int]) -> None:
    ended = bisect(5, line)
    assert (ended, line.asked) == (found, asked)
    assert ended.first_bad is None


def test_one_version_is_nothing_to_search() -> None:
    assert bisect(1, Line(1)) == Found(0, None)


def test_private_caches_are_all_below_the_folder(tmp_path: Path) -> None:
    """Held against the rules by which each cache is found, for an SGLang that moves others'."""
    shared = {"flashinfer-cubins"}  # downloads; the same whatever the sources are
    env = {"HOME": "/home/somebody", "USER": "somebody", **private_caches(tmp_path)}
    around = surroundings(env, {"sglang": "0.5.23"})
    seen = 0
    for name, cache in CACHES.items():
        if name in shared:
            continue
        for place in cache.locations(around):
            seen += 1
            assert place.path.is_relative_to(tmp_path), f"{name}: {place}"
    assert seen > 15
