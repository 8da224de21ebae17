"""A file as one side of a comparison: its bytes, and what is read from them on demand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from stackpatch.series.plain import PlainText, plain_text
from stackpatch.series.symbols import Symbols, parse_symbols

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Side:
    """A file's content with its lines and, on demand, its symbols."""

    path: str
    content: bytes

    @property
    def lines(self) -> Sequence[bytes]:
        """The lines with their ends."""
        return _lines_of(self.content)

    @property
    def symbols(self) -> Symbols:
        """The symbols, parsed once for the same content."""
        return parse_symbols(self.path, self.content)

    @property
    def plain(self) -> PlainText:
        """The text without comments and `#if 0`, read once for the same content."""
        return _plain_of(self.path, self.content)


@lru_cache(maxsize=32)
def _lines_of(content: bytes) -> tuple[bytes, ...]:
    return tuple(split_lines(content))


@lru_cache(maxsize=64)
def _plain_of(path: str, content: bytes) -> PlainText:
    return plain_text(path, content)


def split_lines(content: bytes) -> list[bytes]:
    """Split at line feeds only, keeping them; a last line without one stays as it is."""
    lines = content.split(b"\n")
    return [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
