"""The text of a file that does something: without comments, docstrings, `#if 0`, `if False:`.

A gate that reads as we want it in a comment is no gate. What is blanked keeps its lines, so that
line numbers stay.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from stackpatch.series.symbols import Language, Symbol, language_of, remarks

if TYPE_CHECKING:
    from collections.abc import Iterator

# Files that no grammar of ours reads; only lines that are a comment as a whole are blanked.
_HASH = frozenset(
    (".cmake", ".txt", ".yaml", ".yml", ".toml", ".cfg", ".ini", ".sh", ".bash", ".mk")
)
_COMMENT_LINE = {
    **dict.fromkeys(_HASH, re.compile(rb"^[ \t]*#[^\r\n]*", re.MULTILINE)),
    **dict.fromkeys((".jinja", ".j2"), re.compile(rb"^[ \t]*(?://|\{#)[^\r\n]*", re.MULTILINE)),
}
_BLANK = bytes(byte if byte in b"\r\n" else 32 for byte in range(256))
_OPENS = re.compile(rb"[ \t]*#[ \t]*if")
_NEVER = re.compile(rb"[ \t]*#[ \t]*if[ \t]+(?:0|false)\b")
_NEVER_SOMEWHERE = re.compile(rb"#[ \t]*if[ \t]+(?:0|false)\b")
_ELSE = re.compile(rb"[ \t]*#[ \t]*el")
_CLOSES = re.compile(rb"[ \t]*#[ \t]*endif")


def plain_text(path: str, content: bytes) -> PlainText:
    """The file's text with everything blanked that does nothing."""
    text = bytearray(content)
    for start, end in _idle(path, content):
        text[start:end] = text[start:end].translate(_BLANK)
    return PlainText(bytes(text))


def _idle(path: str, content: bytes) -> Iterator[tuple[int, int]]:
    language = language_of(path)
    if language is None:
        pattern = _COMMENT_LINE.get(PurePosixPath(path).suffix.lower())
        if pattern is not None:
            yield from (found.span() for found in pattern.finditer(content))
        return
    yield from remarks(path, content)
    if language is Language.CPP and _NEVER_SOMEWHERE.search(content):
        yield from _never_compiled(content)


def _never_compiled(content: bytes) -> Iterator[tuple[int, int]]:
    """The stretches between `#if 0` and its `#else` or `#endif`."""
    position = depth = 0
    since: int | None = None
    for line in content.splitlines(keepends=True):
        if since is None:
            if _NEVER.match(line):
                since, depth = position + len(line), 0
        elif _OPENS.match(line):
            depth += 1
        elif depth and _CLOSES.match(line):
            depth -= 1
        elif not depth and (_ELSE.match(line) or _CLOSES.match(line)):
            yield since, position
            since = None
        position += len(line)
    if since is not None:
        yield since, position


class PlainText:
    """Text without comments, from which symbols' stretches are cut."""

    def __init__(self, content: bytes) -> None:
        self._lines = content.split(b"\n")

    @cached_property
    def lines(self) -> list[bytes]:
        """Every line, white space collapsed."""
        return [b" ".join(line.split()) for line in self._lines]

    def lines_like(self, text: bytes) -> list[int]:
        """The numbers (1-based) of the lines that read so, white space collapsed."""
        lines, found, at = self.lines, list[int](), -1
        for _ in range(lines.count(text)):
            at = lines.index(text, at + 1)
            found.append(at + 1)
        return found

    def line(self, number: int) -> bytes:
        """One line (1-based), white space collapsed; empty where there is none."""
        known = 0 < number <= len(self._lines)
        return b" ".join(self._lines[number - 1].split()) if known else b""

    def of(self, symbol: Symbol) -> str:
        """The symbol's text, runs of white space collapsed to one blank."""
        joined = b"\n".join(self._lines[symbol.first - 1 : symbol.last])
        return " ".join(joined.decode("utf-8", "replace").split())

    def line_of(self, symbol: Symbol, position: int) -> int:
        """The file's line (1-based) at a position of the collapsed text."""
        length = at = 0
        for number, line in enumerate(self._lines[symbol.first - 1 : symbol.last]):
            if length > position:
                break
            at = number
            words = " ".join(line.decode("utf-8", "replace").split())
            length += len(words) + (1 if words else 0)
        return symbol.first + at
