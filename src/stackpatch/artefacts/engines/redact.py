"""Secrets, taken out of what an engine prints before anybody sees it or keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHORTEST = 6  # characters; shorter pieces would hide too much of a log
_FEW = 200  # lines; a CA bundle has thousands, and a log many more


@dataclass(frozen=True, slots=True)
class Redactor:
    """Replaces secrets, line by line, as a step that prints its secret puts it into the output.

    few: looked for everywhere in a line. many: of large secrets, looked for between blanks.
    """

    few: tuple[str, ...]
    many: frozenset[str]

    @classmethod
    def of(cls, contents: Iterable[bytes]) -> Redactor:
        """From the secrets' files."""
        few: set[str] = set()
        many: set[str] = set()
        for content in contents:
            text = content.decode("utf-8", "replace")
            lines = {line.strip() for line in text.splitlines()}
            lines = {line for line in lines if len(line) >= _SHORTEST}
            if len(lines) <= _FEW:
                few |= lines
            else:
                many |= {word for line in lines for word in line.split() if len(word) >= 32}
        return cls(tuple(sorted(few, key=lambda one: (-len(one), one))), frozenset(many))

    def clean(self, line: str) -> str:
        """The line without them."""
        for secret in self.few:
            if secret in line:
                line = line.replace(secret, "***")
        if self.many:
            for word in line.split():
                if word in self.many:
                    line = line.replace(word, "***")
        return line
