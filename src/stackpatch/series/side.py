"""A file as one side of a comparison: its bytes, and what is read from them on demand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from stackpatch.series.plain import PlainText, plain_text
from stackpatch.series.symbols import Symbols, parse_symbols


@dataclass(frozen=True, slots=True)
class Side:
    """A file's content with its lines and, on demand, its symbols."""

    path: str
    content: bytes

    @property
    def lines(self) -> list[bytes]:
        """The lines with their ends."""
        return split_lines(self.content)

    @property
    def symbols(self) -> Symbols:
        """The symbols, parsed once for the same content."""
        return _symbols_of(self.path, self.content)

    @property
    def plain(self) -> PlainText:
        """The text without comments and `#if 0`, read once for the same content."""
        return _plain_of(self.path, self.content)


@lru_cache(maxsize=64)
def _plain_of(path: str, content: bytes) -> PlainText:
    return plain_text(path, content)


_parsed: dict[tuple[str, bytes], Symbols] = {}


def _symbols_of(path: str, content: bytes) -> Symbols:
    key = (path.rsplit(".", 1)[-1], content)
    known = _parsed.get(key)
    if known is None:
        if len(_parsed) >= 256:
            _parsed.clear()
        known = _parsed[key] = parse_symbols(path, content)
    return known


def split_lines(content: bytes) -> list[bytes]:
    """Split at line feeds only, keeping them; a last line without one stays as it is."""
    lines = content.split(b"\n")
    return [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
