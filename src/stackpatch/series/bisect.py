"""The first of ordered versions at which a test fails, with as few tests as that takes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Result(StrEnum):
    """What a test said of a version."""

    GOOD = "good"
    BAD = "bad"
    UNTESTED = "untested"  # it could not be tested, or asked to be passed over


@dataclass(frozen=True, slots=True)
class Found:
    """Where it ended. low: the newest version seen good, None when the oldest is not. high: the
    oldest one seen bad, None when the newest is not. between: what lies between and could not be
    tested: the failure began in one of these or at high."""

    low: int | None
    high: int | None
    between: tuple[int, ...] = ()

    @property
    def first_bad(self) -> int | None:
        """The version at which the failure began, where that is certain."""
        return self.high if self.low is not None and not self.between else None


def bisect(count: int, test: Callable[[int], Result]) -> Found:
    """Search versions 0 (the oldest, said to be good) to count-1 (said to be bad).

    Both ends are tested first: a search between ends that are not what they were said to be finds
    a version, and the wrong one. That the failure began once and stayed is taken for granted.
    """
    last = count - 1
    if test(0) is not Result.GOOD:
        return Found(None, None)
    if count < 2 or test(last) is not Result.BAD:
        return Found(0, None)
    low, high = 0, last
    untested: set[int] = set()
    while left := [one for one in range(low + 1, high) if one not in untested]:
        middle = (low + high) / 2
        one = min(left, key=lambda index: (abs(index - middle), index))
        match test(one):
            case Result.GOOD:
                low = one
            case Result.BAD:
                high = one
            case Result.UNTESTED:
                untested.add(one)
    return Found(low, high, tuple(sorted(one for one in untested if low < one < high)))
