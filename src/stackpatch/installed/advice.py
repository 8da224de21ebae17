"""What to clear where a build's result is installed, known before it is installed anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from stackpatch.installed.cache import Cache, Risk
from stackpatch.installed.caches import CACHES
from stackpatch.installed.surroundings import surroundings

if TYPE_CHECKING:
    from stackpatch.installed.surroundings import Surroundings


class Clear(StrEnum):
    """Whether the person has to act."""

    YES = "yes"
    NO = "no"
    MAYBE = "maybe"


@dataclass(frozen=True, slots=True)
class Advice:
    """One cache of the machine on which the result will run.

    rules: where it lies there, with variables unexpanded. why: one sentence. command: what does
    it there.
    """

    cache: Cache
    clear: Clear
    rules: tuple[str, ...]
    why: str
    command: str | None

    def document(self) -> dict[str, object]:
        """For the `caches` of `build`'s document."""
        return {
            "name": self.cache.name,
            "clear": str(self.clear),
            "paths": list(self.rules),
            "variables": list(self.cache.variables),
            "stale_risk": str(self.cache.risk),
            "why": self.why,
            "command": self.command,
        }


def for_build(stack: str, release: str, arch: str) -> list[Advice]:
    """The caches that matter to a patched `stack` at `release` (`0.6.3`) on `arch` (`sm121`).

    In the table's order; safe ones are left out. Depends on nothing of this machine.
    """
    around = _anywhere()
    found = []
    for cache in CACHES.values():
        if stack in cache.stacks and cache.risk is not Risk.SAFE:
            clear, why = _judge(cache, stack, release, arch)
            command = None if clear is Clear.NO else cache.instead or None
            if command is None and clear is not Clear.NO and cache.clearable:
                named = f" --cache {cache.name}" if clear is Clear.MAYBE else ""
                command = f"stackpatch cache clear {stack}{named}"
            rules = tuple(dict.fromkeys(place.rule for place in cache.locations(around)))
            found.append(Advice(cache, clear, rules, why, command))
    return found


def _judge(cache: Cache, stack: str, release: str, arch: str) -> tuple[Clear, str]:
    if cache.per_series and stack == "flashinfer":
        why = (
            f"the patched version names its own folder ({release}+sp.<series>, for {arch}), so "
            f"kernels of an unpatched {release} are not read"
        )
        return Clear.NO, why
    if cache.risk is Risk.UNKNOWN:
        return Clear.MAYBE, cache.reason
    if cache.per_series:
        return Clear.MAYBE, f"only where FlashInfer itself is patched in place: {cache.reason}"
    return Clear.YES, cache.reason


def _anywhere() -> Surroundings:
    """Surroundings without any variable, so that the answer is the same on every machine."""
    return surroundings({"HOME": "/nonexistent"})
