"""A strict reader for our YAML files: plain values, the line of every value, every fault at once.

PyYAML's safe loader turns `no` into False, `1.10` into 1.1, `0123` into 83, `2026-02-06` into a
date and the first of two equal keys into nothing. Here a plain word is text, a decimal integer,
`true`, `false` or `null`; whatever some YAML reader would take for anything else must be quoted.
Aliases, tags and several documents are refused, so a file never means more than it shows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import yaml

from stackpatch.errors import Problems

if TYPE_CHECKING:
    from collections.abc import Iterator

    Path = tuple[str | int, ...]

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 16
_MAX_DIGITS: Final = 18  # fits 64 bits; more is a commit or a digest that lacks its quotes

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml: 8 times faster where present

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_BOOLEAN_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n"})
_NULL_WORDS = frozenset({"null", "~"})
# YAML 1.2 readers know numbers that PyYAML's YAML 1.1 resolvers do not: `1e3`, `0o17`, `12e03`.
_NUMBER_12 = re.compile(
    r"[-+]?(0o[0-7]+|0x[0-9a-f]+|(\.[0-9]+|[0-9]+(\.[0-9]*)?)(e[-+]?[0-9]+)?)", re.IGNORECASE
)
_RESOLVERS = yaml.SafeLoader.yaml_implicit_resolvers

# What a reader of the file cannot see, or sees otherwise than a program: control characters,
# line ends that only YAML knows, and the marks that reorder text (CVE-2021-42574).
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069"
    "\ufeff\ufffe\uffff]"
)
_LONE_CR = re.compile("\r(?!\n)")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: 1-based line, path of the value in the file, and what."""

    line: int
    path: Path
    text: str

    def at(self, where: str) -> str:
        """The line for people: `file:line: field: what is wrong`."""
        place = f"{where}:{self.line}: "
        return place + (f"{field_name(self.path)}: {self.text}" if self.path else self.text)


@dataclass(frozen=True, slots=True)
class Document:
    """What a file holds.

    value: dict, list, str, int, bool or None, nested; None when `broken`. lines: 1-based line of
    each path. faults: what is wrong, in the file's order. broken: no value could be made at all.
    """

    value: object
    lines: dict[Path, int] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    broken: bool = False

    def line(self, path: Path) -> int:
        """The line of the value at path, or of the nearest thing around it that is there."""
        for length in range(len(path), 0, -1):
            found = self.lines.get(path[:length])
            if found is not None:
                return found
        return 1

    def is_faulty(self, path: Path) -> bool:
        """Whether the value there, or one around it, has a fault already."""
        bad = {fault.path for fault in self.faults if fault.path}
        return any(path[:length] in bad for length in range(1, len(path) + 1))


def field_name(path: Path) -> str:
    """`releases[0].commit` for ("releases", 0, "commit")."""
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name


def load(where: str, raw: bytes) -> Document:
    """As `parse`, for callers with no checks of their own: raises Problems with every fault."""
    document = parse(raw)
    raise_faults(where, document.faults)
    return document


def raise_faults(where: str, faults: tuple[Fault, ...]) -> None:
    """Raise Problems when there are any, in the order of lines."""
    if faults:
        lines = tuple(fault.at(where) for fault in sorted(faults, key=lambda fault: fault.line))
        msg = f"{where}: {len(lines)} problem{'s' * (len(lines) != 1)}"
        raise Problems(msg, lines)


def parse(raw: bytes) -> Document:
    """Read a file's bytes. Never raises: what is wrong is in `faults`."""
    if len(raw) > MAX_BYTES:
        text = f"too large: a recipe has at most {MAX_BYTES:,} bytes"
        return Document(None, faults=(Fault(1, (), text),), broken=True)
    faults: list[Fault] = []
    if raw.startswith(b"\xef\xbb\xbf"):
        faults.append(Fault(1, (), "starts with a byte order mark; save it without one"))
        raw = raw[3:]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        faults.append(Fault(line, (), f"not UTF-8 text (byte 0x{raw[error.start]:02x})"))
        return Document(None, faults=tuple(faults), broken=True)
    if not text.strip():
        faults.append(Fault(1, (), "the file is empty"))
        return Document(None, faults=tuple(faults), broken=True)
    unreadable = [
        (number, f"a character that does not show: U+{ord(found[0]):04X}")
        for number, line in enumerate(text.split("\n"), 1)
        if (found := _HIDDEN.search(line))
    ]
    unreadable += [
        (text.count("\n", 0, found.start()) + 1, "a carriage return without a line feed")
        for found in _LONE_CR.finditer(text)
    ]
    faults += [Fault(line, (), what) for line, what in unreadable[:20]]
    if unreadable:
        return Document(None, faults=tuple(faults), broken=True)
    tabs = [number for number, line in enumerate(text.split("\n"), 1) if "\t" in line]
    faults += [Fault(line, (), "a tab character; use spaces") for line in tabs[:20]]
    # Read on with spaces in their place: the other faults are found in the same run.
    return _Reader(text.replace("\t", " "), faults, tolerant=bool(tabs)).document()


class _Reader:
    """Turns libyaml's events into values; keeps the faults and the lines it meets."""

    def __init__(self, text: str, faults: list[Fault], *, tolerant: bool) -> None:
        self.events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self.faults = faults
        self.lines: dict[Path, int] = {}
        self.tolerant = tolerant

    def document(self) -> Document:
        value: object = None
        broken = False
        try:
            next(self.events)  # the start of the stream
            start = next(self.events)
            if isinstance(start, yaml.StreamEndEvent):
                self.faults.append(Fault(1, (), "the file holds only comments"))
                return Document(None, faults=tuple(self.faults), broken=True)
            if getattr(start, "version", None) or getattr(start, "tags", None):
                self._fault(start, (), "% directives are not taken")
            value = self._value(next(self.events), (), 0)
            next(self.events)  # the end of the document
            following = next(self.events)
            if not isinstance(following, yaml.StreamEndEvent):
                self._fault(following, (), "a second document starts here; one file holds one")
        except yaml.MarkedYAMLError as error:
            value, broken = None, True
            if not self.tolerant:
                self.faults.append(_syntax_fault(error))
        except yaml.YAMLError as error:
            value, broken = None, True
            self.faults.append(Fault(1, (), f"not YAML: {error}"))
        except _TooDeepError as error:
            value, broken = None, True
            self.faults.append(Fault(error.line, (), f"nested deeper than {MAX_DEPTH} levels"))
        return Document(value, self.lines, tuple(self.faults), broken)

    def _fault(self, event: yaml.Event, path: Path, text: str) -> None:
        self.faults.append(Fault(_line(event), path, text))

    def _value(self, event: yaml.Event, path: Path, depth: int) -> object:
        """The value that starts with this event; reads the stream to its end."""
        if depth > MAX_DEPTH:
            raise _TooDeepError(_line(event))
        self.lines.setdefault(path, _line(event))
        if isinstance(event, yaml.AliasEvent):
            self._fault(event, path, f"aliases (*{event.anchor}) are not taken; write it out")
            return None
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if anchor is not None:
            self._fault(event, path, f"anchors (&{anchor}) are not taken; write it out")
        if tag is not None:
            self._fault(event, path, f"tags ({tag}) are not taken")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[object] = []
            while not isinstance(inner := next(self.events), yaml.SequenceEndEvent):
                items.append(self._value(inner, (*path, len(items)), depth + 1))
            return items
        if not isinstance(event, yaml.ScalarEvent):
            msg = f"unexpected {type(event).__name__}"
            raise TypeError(msg)
        if event.style or tag is not None:  # libyaml says "" for plain, PyYAML None
            return str(event.value)
        return self._plain(event, path)

    def _mapping(self, path: Path, depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._key(event, path, depth)
            if key is None:
                self._skip(next(self.events), path, depth)
            elif key in found:
                first = self.lines[(*path, key)]
                self._fault(event, (*path, key), f"the key stands twice (first on line {first})")
                self._skip(next(self.events), (*path, key), depth)
            else:
                self.lines[(*path, key)] = _line(event)
                found[key] = self._value(next(self.events), (*path, key), depth + 1)
        return found

    def _key(self, event: yaml.Event, path: Path, depth: int) -> str | None:
        """The key as text; None for what cannot be one, with a fault."""
        if not isinstance(event, yaml.ScalarEvent):
            self._fault(event, path, "a key must be a word, not a list, a mapping or an alias")
            self._skip(event, path, depth)
            return None
        if event.anchor is not None or event.tag is not None:
            self._fault(event, (*path, event.value), "a key takes no anchor and no tag")
        if not event.style and event.tag is None:
            before = len(self.faults)
            value = self._plain(event, (*path, event.value), key=True)
            if len(self.faults) == before and not isinstance(value, str):
                self._fault(event, (*path, event.value), "a key must be text; put it in quotes")
        return str(event.value)

    def _skip(self, event: yaml.Event, path: Path, depth: int) -> None:
        """Read a value that has no place in the result, for the faults inside it."""
        lines, self.lines = self.lines, {}
        self._value(event, path, depth + 1)
        self.lines = lines

    def _plain(self, event: yaml.ScalarEvent, path: Path, *, key: bool = False) -> object:
        """An unquoted word as the value that it shows; a fault where readers would differ."""
        text: str = event.value
        lower = text.lower()
        problem: str | None = None
        if not text:
            problem = "no value; write null where none is meant"
        elif lower in _NULL_WORDS:
            if text == "null" and not key:
                return None
            problem = f"{text} is YAML for no value; write null, or quote it"
        elif lower in _BOOLEAN_WORDS:
            if text in ("true", "false") and not key:
                return text == "true"
            problem = f'{text} is YAML for true or false; write one of them, or "{text}"'
        elif _INTEGER.fullmatch(text):
            if len(text) <= _MAX_DIGITS:
                return int(text)
            problem = f'{text[:40]} is YAML for a number; quote it: "{text[:40]}"'
        else:
            kind = _other_kind(text)
            if kind is not None:
                problem = f'{text[:40]} is YAML for {kind}; quote it: "{text[:40]}"'
        if problem is not None:
            self._fault(event, path, problem)
        return text


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


class _TooDeepError(Exception):
    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


def _other_kind(text: str) -> str | None:
    """What some YAML reader would take a plain word for, when not for text."""
    if _NUMBER_12.fullmatch(text):
        return "a number"
    for tag, pattern in _RESOLVERS.get(text[0], ()):
        if pattern.match(text):
            return {
                "tag:yaml.org,2002:timestamp": "a date",
                "tag:yaml.org,2002:merge": "a merge of mappings",
                "tag:yaml.org,2002:value": "a default value",
            }.get(tag, "a number")
    return None


def _syntax_fault(error: yaml.MarkedYAMLError) -> Fault:
    mark = error.problem_mark or error.context_mark
    context = f" {error.context}" if error.context else ""
    if error.context and error.context_mark and mark and error.context_mark.line != mark.line:
        context += f" that starts on line {error.context_mark.line + 1}"
    return Fault((mark.line if mark else 0) + 1, (), f"not YAML: {error.problem}{context}")
