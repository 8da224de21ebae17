"""The trailers at the end of a patch's message: what the patch claims about itself.

Yocto's `Upstream-Status` words and DEP-3's `Bug`, plus our `Arch`, `Applies-To` and `Effect`
(the contract, "Patch headers").
"""

from __future__ import annotations

import difflib
import re
import warnings
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from stackpatch.errors import InputError
from stackpatch.model.arch import parse_arch
from stackpatch.model.reference import version_number

if TYPE_CHECKING:
    import regex


class UpstreamWord(StrEnum):
    """Yocto's closed vocabulary for what upstream knows of a patch."""

    PENDING = "Pending"
    SUBMITTED = "Submitted"
    BACKPORT = "Backport"
    DENIED = "Denied"
    INAPPROPRIATE = "Inappropriate"
    INACTIVE_UPSTREAM = "Inactive-Upstream"


@dataclass(frozen=True, slots=True)
class Effect:
    """What is true when the patch's effect is there, however upstream wrote it.

    path: in the git tree. symbol: enclosing symbol, `*` for the whole file. pattern: regular
    expression over the symbol's text. absent: the pattern must not match.
    """

    path: str
    symbol: str
    pattern: str
    absent: bool
    line: int

    def __str__(self) -> str:
        return f"{self.path} :: {self.symbol} :: {'!' * self.absent}{self.pattern}"


@dataclass(frozen=True, slots=True)
class Trailers:
    """The parsed trailers. archs and applies_to are None where the patch does not restrict them."""

    status: UpstreamWord | None = None
    status_note: str | None = None
    bugs: tuple[str, ...] = ()
    archs: tuple[str, ...] | None = None
    applies_to: SpecifierSet | None = None
    effects: tuple[Effect, ...] = ()
    others: tuple[tuple[str, str], ...] = field(default=())

    @property
    def links(self) -> tuple[str, ...]:
        """Every URL that the trailers name, in order, once each."""
        texts = (self.status_note or "", *self.bugs)
        return tuple(dict.fromkeys(u for text in texts for u in _URL.findall(text)))

    @property
    def range(self) -> str | None:
        """What `Applies-To:` says, in PEP 440's normal form."""
        return None if self.applies_to is None else str(self.applies_to)

    def meant_for(self, version: str) -> bool | None:
        """Whether `Applies-To:` takes the version in; None where it names none, or it is no number.

        version: as a person writes it, `0.6.3` or `v0.6.3`; a branch or a commit is no number.
        """
        number = version_number(version)
        if self.applies_to is None or number is None:
            return None
        return self.applies_to.contains(number, prereleases=True)


Problem = tuple[int, str]

_URL = re.compile(r"https?://[^\s\]>)]+")
_ATOM = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]])*\]|\{(\d{1,12}(?:,\d{0,12})?|,\d{1,12})\}|.", re.DOTALL
)
_CALL = re.compile(r"\(\?(?:R|&|P>|[+-]?[0-9])")
_MOST_EXPANDED = 20_000
_TRAILER = re.compile(r"([A-Za-z][A-Za-z0-9-]*): ?(.*)$")
_OURS = ("Upstream-Status", "Bug", "Arch", "Applies-To", "Effect")
# What git, DEP-3 and people put beside ours; anything else that looks like a misspelt one of
# ours is refused, because a trailer nobody reads is a claim nobody checks.
_NAMESPACES = ("upstream-", "arch-", "applies-", "effect-")


def parse_trailers(body: str, *, first_line: int = 1) -> tuple[Trailers, list[Problem]]:
    """Parse the message body; first_line is the mail's line number of the body's first line."""
    problems: list[Problem] = []
    lines = body.split("\n")
    block_start = _block(lines)
    for number, line in enumerate(lines[:block_start]):
        found = _TRAILER.match(line)
        if found and (ours := _claims(found[1], found[2].strip())):
            problems.append(
                (first_line + number, f"{ours}: not in the last paragraph, where trailers go")
            )
    pairs: list[tuple[str, str, int]] = []
    for number, line in enumerate(lines[block_start:], first_line + block_start):
        found = _TRAILER.match(line)
        if found:
            pairs.append((found[1], found[2].strip(), number))
        elif pairs and line[:1] in (" ", "\t"):
            key, value, at = pairs[-1]
            pairs[-1] = (key, f"{value} {line.strip()}".strip(), at)
        elif line.strip() and not line.startswith(("[", "(")):
            problems.append(
                (number, f"not a trailer, between trailers: {line[:60]!r}; indent what goes on")
            )
    return _typed(pairs, problems), problems


def _claims(key: str, value: str) -> str | None:
    """Which of ours a line of the text above would be. `Bug:` and `Arch:` also begin sentences."""
    ours = next((name for name in _OURS if name.lower() == key.lower()), None)
    if ours == "Bug":
        return ours if _URL.fullmatch(value) else None
    if ours == "Arch":
        return ours if re.fullmatch(r"(sm_?\d+[af]?[ ,]*)+", value) else None
    return ours


def _block(lines: list[str]) -> int:
    """Index of the first line of the trailer paragraph; len(lines) when there is none."""
    end = len(lines)
    while end and not lines[end - 1].strip():
        end -= 1
    start = end
    while start and lines[start - 1].strip():
        start -= 1
    paragraph = lines[start:end]
    if not paragraph or not _TRAILER.match(paragraph[0]):
        return len(lines)
    good = all(_TRAILER.match(line) or line[:1] in (" ", "\t") for line in paragraph)
    ours = any((found := _TRAILER.match(line)) and found[1] in _OURS for line in paragraph)
    return start if good or ours else len(lines)


def _typed(pairs: list[tuple[str, str, int]], problems: list[Problem]) -> Trailers:
    status: UpstreamWord | None = None
    note: str | None = None
    bugs: list[str] = []
    archs: tuple[str, ...] | None = None
    applies: SpecifierSet | None = None
    effects: list[Effect] = []
    others: list[tuple[str, str]] = []
    seen: dict[str, int] = {}
    for key, value, line in pairs:
        if key in ("Upstream-Status", "Arch", "Applies-To") and key in seen:
            problems.append((line, f"{key}: given twice (first at line {seen[key]})"))
            continue
        seen.setdefault(key, line)
        match key:
            case "Upstream-Status":
                status, note = _status(value, line, problems)
            case "Bug":
                if not _URL.fullmatch(value):
                    problems.append((line, f"Bug: not a URL: {value!r}"))
                bugs.append(value)
            case "Arch":
                archs = _archs(value, line, problems)
            case "Applies-To":
                try:
                    applies = SpecifierSet(value)
                except InvalidSpecifier:
                    problems.append((line, f"Applies-To: not a PEP 440 range: {value!r}"))
            case "Effect":
                effect = _effect(value, line, problems)
                if effect is not None:
                    effects.append(effect)
            case _:
                if near := _misspelt(key):
                    problems.append((line, f"{key}: no such trailer; did you mean {near}?"))
                others.append((key, value))
    return Trailers(status, note, tuple(bugs), archs, applies, tuple(effects), tuple(others))


def _status(
    value: str, line: int, problems: list[Problem]
) -> tuple[UpstreamWord | None, str | None]:
    found = re.fullmatch(r"([A-Za-z-]+)(?:\s*\[(.*)\])?", value)
    words = [word.value for word in UpstreamWord]
    if not found or found[1] not in words:
        problems.append((line, f"Upstream-Status: {value!r} is none of {', '.join(words)}"))
        return None, None
    word, note = UpstreamWord(found[1]), found[2]
    if word in (UpstreamWord.SUBMITTED, UpstreamWord.BACKPORT) and not _URL.search(note or ""):
        problems.append((line, f"Upstream-Status: {word} needs a link, `{word} [https://…]`"))
    return word, note


def _archs(value: str, line: int, problems: list[Problem]) -> tuple[str, ...]:
    names = []
    for name in value.replace(",", " ").split():
        try:
            names.append(parse_arch(name).name)
        except InputError as error:
            problems.append((line, f"Arch: {error.message}; {error.hint}"))
    if not value.split():
        problems.append((line, "Arch: names no arch; leave the trailer out for all"))
    return tuple(names)


def _effect(value: str, line: int, problems: list[Problem]) -> Effect | None:
    parts = [part.strip() for part in value.split(" :: ", 2)]
    if len(parts) != 3 or not all(parts):
        problems.append((line, "Effect: want `path :: symbol :: regular expression`"))
        return None
    path, symbol, pattern = parts
    absent = pattern.startswith("!")
    pattern = pattern.removeprefix("!")
    try:
        pattern_matches_nothing = compile_pattern(pattern).search("", timeout=1.0) is not None
    except ValueError as error:
        problems.append((line, f"Effect: not a regular expression: {error}"))
        return None
    except TimeoutError:
        problems.append((line, "Effect: the regular expression runs away, even on the empty text"))
        return None
    if pattern_matches_nothing:
        problems.append((line, "Effect: the regular expression matches the empty text"))
        return None
    return Effect(path, symbol, pattern, absent, line)


def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """An `Effect:` pattern as it is searched. Raises ValueError for what cannot be compiled.

    By the `regex` package, because it can stop after a time: patterns come with patches.
    """
    import regex

    if _expanded(pattern) > _MOST_EXPANDED:
        # `regex` writes counted repetitions out: ((a{1000}){1000}){1000} takes all memory there is.
        msg = "its counted repetitions are too many"
        raise ValueError(msg)
    if any(_CALL.match(pattern, at.start()) for at in _ATOM.finditer(pattern)):
        # Where it calls itself before it has read anything, it takes all memory, on any text.
        msg = "it calls itself or one of its groups"
        raise ValueError(msg)
    with warnings.catch_warnings():
        # "Possible nested set": a warning about what a later version may mean by it.
        warnings.simplefilter("ignore")
        try:
            return regex.compile(pattern, regex.MULTILINE | regex.VERSION0)
        except (regex.error, RecursionError, OverflowError, MemoryError) as error:
            raise ValueError(str(error)) from None


def _expanded(pattern: str) -> int:
    """How many atoms the pattern has with its counted repetitions written out."""
    sizes, last = [0], 0
    for token in _ATOM.finditer(pattern):
        text = token[0]
        if text == "(":
            sizes.append(0)
            last = 0
        elif text == ")" and len(sizes) > 1:
            last = max(sizes.pop(), 1)
            sizes[-1] += last
        elif token[1]:
            times = max(int(number) for number in re.findall(r"\d+", token[1]))
            sizes[-1] += last * max(times - 1, 0)
            last *= max(times, 1)
        else:
            last = 1
            sizes[-1] += 1
    return sum(sizes)


def _misspelt(key: str) -> str | None:
    for ours in _OURS:
        if key.lower() == ours.lower():
            return ours
    if key.lower().startswith(_NAMESPACES):
        return difflib.get_close_matches(key, _OURS, 1, 0.0)[0]
    near = difflib.get_close_matches(key, [o for o in _OURS if len(o) > 4], 1, 0.82)
    return near[0] if near else None
