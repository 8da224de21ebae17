"""The text of a file that does something: without comments, docstrings, `#if 0`, `if False:`.

Of preprocessor conditions only those that are a constant are known: `#if 0`, `#elif (false)`, what
follows on `#if 1`. `#if 0 || NEW` may be compiled.

A gate that reads as we want it in a comment is no gate. What is blanked keeps its lines, so that
line numbers stay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from stackpatch.series.symbols import Language, Symbol, language_of, remarks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Files that no grammar of ours reads; only lines that are a comment as a whole are blanked.
_HASH = frozenset(
    (".cmake", ".txt", ".yaml", ".yml", ".toml", ".cfg", ".ini", ".sh", ".bash", ".mk")
)
_COMMENT_LINE = {
    **dict.fromkeys(_HASH, re.compile(rb"^[ \t]*#[^\r\n]*", re.MULTILINE)),
    **dict.fromkeys((".jinja", ".j2"), re.compile(rb"^[ \t]*(?://|\{#)[^\r\n]*", re.MULTILINE)),
}
_BLANK = bytes(byte if byte in b"\r\n" else 32 for byte in range(256))
_DIRECTIVE = re.compile(rb"[ \t]*#[ \t]*(if|ifdef|ifndef|elif|elifdef|elifndef|else|endif)\b(.*)")
_CONSTANT = re.compile(rb"[ \t(]*(0|1|false|true)[ \t)]*(?:/[/*].*)?[\r\n]*$")
_ZERO_AND = re.compile(rb"[ \t]*(?:0|false)[ \t]*&&[^|?]*$")
_OPENS = (b"if", b"ifdef", b"ifndef")
_CONSTANT_SOMEWHERE = re.compile(rb"#[ \t]*(?:el)?if[ \t(]+(?:0|1|false|true)\b")


def plain_text(path: str, content: bytes) -> PlainText:
    """The file's text with everything blanked that does nothing."""
    text = _blanked(content, _remarks(path, content))
    if language_of(path) is Language.CPP and _CONSTANT_SOMEWHERE.search(text):
        # Behind the comments: a `#if 0` in one of them opens nothing.
        text = _blanked(text, _never_compiled(text))
    return PlainText(text)


def _blanked(content: bytes, spans: Iterable[tuple[int, int]]) -> bytes:
    text = bytearray(content)
    for start, end in spans:
        text[start:end] = text[start:end].translate(_BLANK)
    return bytes(text)


def _remarks(path: str, content: bytes) -> Iterable[tuple[int, int]]:
    if language_of(path) is not None:
        return remarks(path, content)
    pattern = _COMMENT_LINE.get(PurePosixPath(path).suffix.lower())
    return (found.span() for found in pattern.finditer(content)) if pattern is not None else ()


@dataclass(slots=True)
class _Choice:
    """An open `#if`. never: the branch that we are in; taken: an earlier one surely is."""

    never: bool
    taken: bool


def _never_compiled(content: bytes) -> Iterator[tuple[int, int]]:
    """The lines in branches that no compiler sees, whatever is defined."""
    position = 0
    choices: list[_Choice] = []
    for line in content.splitlines(keepends=True):
        found = _DIRECTIVE.match(line)
        word = found[1] if found else b""
        value = _constant(found[2]) if found and word in (b"if", b"elif") else None
        # A directive is as idle as what its whole choice stands in.
        around = choices if word in _OPENS or not word else choices[:-1]
        if any(choice.never for choice in around):
            yield position, position + len(line)
        if word in _OPENS:
            choices.append(_Choice(value is False, value is True))
        elif word == b"endif":
            choices = choices[:-1]
        elif word and choices:
            taken = choices[-1].taken
            choices[-1] = _Choice(taken or value is False, taken or value is True)
        position += len(line)


def _constant(condition: bytes) -> bool | None:
    if found := _CONSTANT.match(condition):
        return found[1] in (b"1", b"true")
    return False if _ZERO_AND.match(condition) else None


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
