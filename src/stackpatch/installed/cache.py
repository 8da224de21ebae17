"""One cache that a patched stack reads, as a value: where it lies, and whether it can be stale."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackpatch.installed.locate import Location
    from stackpatch.installed.shape import Entry
    from stackpatch.installed.surroundings import Surroundings

STACKS = ("flashinfer", "sglang", "trtllm", "vllm")


class Risk(StrEnum):
    """Whether the cache can hand out something that was made before the patch."""

    STALE = "stale"
    SAFE = "safe"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Cache:
    """One row.

    variables: those that name the place, the first that is set wins. locations: the path rule.
    stacks: who reads it. risk and reason: one sentence, with its source in the named package.
    entries: what is recognised as the cache's own; without any, nothing is ever deleted there.
    file: the cache is one file, named by a variable. per_series: keyed by FlashInfer's version
    alone, so that a build with its own local version (`+sp.<series>`) never meets an older one's
    entries. instead: what to do where stackpatch does not clear it.
    """

    name: str
    what: str
    variables: tuple[str, ...]
    locations: Callable[[Surroundings], tuple[Location, ...]]
    stacks: tuple[str, ...]
    risk: Risk
    reason: str
    source: str
    entries: tuple[Entry, ...] = ()
    file: bool = False
    per_series: bool = False
    instead: str = ""

    @property
    def clearable(self) -> bool:
        """Whether stackpatch can clear it at all."""
        return self.file or bool(self.entries)


# What several caches hold: results of a build, a name that is not hidden, a digest, anything.
BUILT = (
    r".+\.(?:o|so|d|ninja|json|lock|cubin|ptx|fatbin|log|cu|cuh|c|cc|cpp|h|hpp|inc)"
    r"|\.ninja_(?:log|deps|lock)|lock|.+\.tmp(?:\.\d+)?"
)
NAME = r"\w[\w.+-]*"  # nothing hidden
HEX = r"[0-9a-f]{8,64}"
ANY = r"[^/]+"
