"""What became of a patch at an upstream version, and the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Word(StrEnum):
    """The verdicts of the contract."""

    NEEDED = "needed"
    CONFLICT = "conflict"
    UPSTREAMED = "upstreamed"
    OBSOLETE = "obsolete"
    PARTIAL = "partial"
    MISPLACED = "misplaced"
    UNSURE = "unsure"

    @property
    def may_drop(self) -> bool:
        """Whether a rebase may drop the patch on this verdict without asking."""
        return self in (Word.UPSTREAMED, Word.OBSOLETE)


class Layer(StrEnum):
    """Where a piece of evidence comes from, strongest first."""

    COMMIT = "commit"
    PATCH_ID = "patch-id"
    PICK = "pick"
    EFFECT = "effect"
    APPLY = "apply"
    SEARCH = "search"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One observation. line: 1-based, None for a whole file. says: what it shows, in words."""

    layer: Layer
    says: str
    path: str | None = None
    line: int | None = None
    symbol: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class HunkState:
    """What became of one hunk: `landed`, `applies`, `conflict`, `misplaced`."""

    path: str
    line: int
    symbol: str
    state: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict: word, detail as in the contract, all evidence that was looked at."""

    word: Word
    detail: str
    evidence: tuple[Evidence, ...]
    hunks: tuple[HunkState, ...] = ()
