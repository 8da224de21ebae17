"""What became of a patch at an upstream version, and the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


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

    def to_json(self) -> dict[str, Any]:
        """The verdict in the shapes of the contract; `from_json` reads it back."""
        return {
            "verdict": self.word.value,
            "detail": self.detail,
            "evidence": [
                {
                    "layer": item.layer.value,
                    "says": item.says,
                    "path": item.path,
                    "line": item.line,
                    "symbol": item.symbol,
                    "text": item.text,
                }
                for item in self.evidence
            ],
            "hunks": [
                {"path": hunk.path, "line": hunk.line, "symbol": hunk.symbol, "state": hunk.state}
                for hunk in self.hunks
            ],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """From `to_json`. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            Word(document["verdict"]),
            document["detail"],
            tuple(Evidence(**{**e, "layer": Layer(e["layer"])}) for e in document["evidence"]),
            tuple(HunkState(**hunk) for hunk in document["hunks"]),
        )
