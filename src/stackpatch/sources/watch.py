"""Whether what a recipe waits for has happened upstream: three answers, each with its evidence.

A condition over issues, pull requests and releases is true, false, or unknown; what could not be
asked is unknown and never guessed. `all` is false as soon as one part is, `any` true as soon as
one is, and otherwise what is unknown stays so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from stackpatch.errors import StackpatchError
from stackpatch.sources.tracker import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackpatch.model.recipe import Recipe
    from stackpatch.model.recipe_watch import Condition
    from stackpatch.sources.tracker import Tracker

    # The versions of a distribution on the index that were not withdrawn, pre-releases included;
    # or, in words, why they are not known.
    Versions = Callable[[str], Sequence[str] | str]

_CLOSED = {State.CLOSED: True, State.MERGED: True, State.OPEN: False}
_MERGED = {State.CLOSED: False, State.MERGED: True, State.OPEN: False}


class Due(StrEnum):
    """Whether it is time to look again."""

    DUE = "due"
    NOT_YET = "not yet"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Seen:
    """One part of a condition. what: `closed`, `merged` or `released`. holds: None for unknown.

    subject: the URL, or the distribution with its range. says: what was seen. checked: when;
    None: never, or just now from the index.
    """

    what: str
    subject: str
    holds: bool | None
    says: str
    checked: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """For the `revisit` of `upstream --json`."""
        checked = self.checked.isoformat() if self.checked else None
        return {
            "what": self.what,
            "subject": self.subject,
            "holds": self.holds,
            "says": self.says,
            "checked": checked,
        }


@dataclass(frozen=True, slots=True)
class Trigger:
    """A condition of the recipe with its answer. subject: the issue that it stands at, if any."""

    why: str
    subject: str | None
    due: Due
    evidence: tuple[Seen, ...]


def triggers(
    recipe: Recipe,
    tracker: Tracker,
    versions: Versions,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Trigger]:
    """Every condition in the recipe: at its issues first, then those of its own."""
    found = [
        (issue.why, issue.url, issue.revisit)
        for issue in recipe.issues
        if issue.revisit is not None
    ]
    listed = [*found, *((one.why, None, one.when) for one in recipe.revisit)]
    made = []
    for why, subject, condition in listed:
        evidence: list[Seen] = []
        holds = _holds(condition, recipe, tracker, versions, evidence, now())
        due = {True: Due.DUE, False: Due.NOT_YET, None: Due.UNKNOWN}[holds]
        made.append(Trigger(why, subject, due, tuple(dict.fromkeys(evidence))))
    return made


def index_versions(*, offline: bool) -> Versions:
    """The versions of the person's package index, each distribution asked once."""
    from stackpatch.sources.releases import all_versions, open_index

    known: dict[str, Sequence[str] | str] = {}

    def ask(distribution: str) -> Sequence[str] | str:
        if offline:
            return "not asked (offline)"
        if distribution not in known:
            try:
                known[distribution] = all_versions(distribution, open_index())
            except StackpatchError as error:
                known[distribution] = error.message
        return known[distribution]

    return ask


def _holds(
    condition: Condition,
    recipe: Recipe,
    tracker: Tracker,
    versions: Versions,
    evidence: list[Seen],
    now: datetime,
) -> bool | None:
    parts = condition.all or condition.any
    if parts is not None:
        # Every part is asked, also where one decides: a person wants to see them all.
        found = [_holds(part, recipe, tracker, versions, evidence, now) for part in parts]
        decisive = condition.any is not None
        if decisive in found:
            return decisive
        return None if None in found else not decisive
    if condition.released is not None:
        seen = _released(condition, condition.released, recipe, versions)
    elif condition.merged is not None:
        seen = _linked("merged", condition.merged, _MERGED, tracker, now)
    else:
        seen = _linked("closed", condition.closed or "", _CLOSED, tracker, now)
    evidence.append(seen)
    return seen.holds


def _linked(
    what: str, url: str, answers: dict[State, bool], tracker: Tracker, now: datetime
) -> Seen:
    link = tracker.state(url)
    why = f"; {link.why}" if link.why else ""
    says = f"{link.state.value} ({link.age(now)}{why})"
    if link.state is State.MISSING:
        says = f"GitHub has no such thing, or does not show it ({link.age(now)})"
    holds = answers.get(link.state)
    if holds is False and link.why is not None:
        # What was open when it was last seen may have been closed since then.
        holds = None
    return Seen(what, url, holds, says, link.checked)


def _released(condition: Condition, wanted: str, recipe: Recipe, versions: Versions) -> Seen:
    distribution = condition.distribution or recipe.upstream.pypi
    subject = f"{distribution} {wanted}"
    known = versions(distribution)
    if isinstance(known, str):
        return Seen("released", subject, holds=None, says=known)
    early = condition.prereleases is True
    # By our own rule: a range that names a pre-release would let every one of them in.
    numbers = sorted({Version(text) for text in known})
    counted = [number for number in numbers if early or not number.is_prerelease]
    fits = [n for n in counted if SpecifierSet(wanted).contains(n, prereleases=True)]
    if fits:
        says = f"{fits[0]} is the first that fits"
        return Seen("released", subject, holds=True, says=says)
    newest = f"the newest is {counted[-1]}" if counted else "there is none that counts"
    if numbers and (not counted or numbers[-1] > counted[-1]):
        newest += f" ({numbers[-1]} is a pre-release)"
    return Seen("released", subject, holds=False, says=newest)
