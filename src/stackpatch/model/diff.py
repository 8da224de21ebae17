"""The diff half of a mail: git's extended diff format, parsed strictly from bytes.

Written here and not taken from unidiff, which is the oracle in the tests: it decodes what it
reads, and knows neither quoted names, modes, renames nor the paths that must never be written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # Records a problem: line number in the mail, text.
    _Bad = Callable[[int, str], None]

_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(?: ?(.*))?$")
_INDEX = re.compile(rb"index ([0-9a-f]+)\.\.([0-9a-f]+)(?: (\d{6}))?$")
_MODES = {0o100644: "regular", 0o100755: "executable", 0o120000: "symbolic link"}
_SUBMODULE = 0o160000
_SIGNATURE = re.compile(rb"^-- ?$")
_ESCAPES = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, '"': 34, "\\": 92}


class Change(StrEnum):
    """What happens to a file."""

    MODIFY = "modify"
    ADD = "add"
    DELETE = "delete"
    RENAME = "rename"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class Hunk:
    """One hunk. Starts are 1-based line numbers as printed.

    lines: (tag, text) with tag b" ", b"-" or b"+"; text keeps its line end, so that a last line
    without one is told apart. line: where the hunk's header stands in the mail.
    """

    old_start: int
    old_count: int
    new_start: int
    new_count: int
    heading: bytes
    lines: tuple[tuple[bytes, bytes], ...]
    line: int

    @property
    def old(self) -> tuple[bytes, ...]:
        """The lines that must be there: context and deletions."""
        return tuple(text for tag, text in self.lines if tag != b"+")

    @property
    def new(self) -> tuple[bytes, ...]:
        """The lines that are there afterwards: context and additions."""
        return tuple(text for tag, text in self.lines if tag != b"-")

    @property
    def added(self) -> tuple[bytes, ...]:
        """The added lines."""
        return tuple(text for tag, text in self.lines if tag == b"+")

    @property
    def removed(self) -> tuple[bytes, ...]:
        """The removed lines."""
        return tuple(text for tag, text in self.lines if tag == b"-")

    @property
    def leading_context(self) -> int:
        """How many context lines come before the first change."""
        return next((i for i, (tag, _) in enumerate(self.lines) if tag != b" "), len(self.lines))

    @property
    def trailing_context(self) -> int:
        """How many context lines come after the last change."""
        backwards = enumerate(reversed(self.lines))
        return next((i for i, (tag, _) in backwards if tag != b" "), len(self.lines))


@dataclass(frozen=True, slots=True)
class FilePatch:
    """What a patch does to one file.

    old_path is None for an added file, new_path for a deleted one. Modes are git file modes, None
    where the diff does not say. old_id, new_id: blob ids as printed, possibly abbreviated.
    """

    change: Change
    old_path: str | None
    new_path: str | None
    old_mode: int | None
    new_mode: int | None
    old_id: str | None
    new_id: str | None
    hunks: tuple[Hunk, ...]
    binary: bool
    line: int

    @property
    def path(self) -> str:
        """The path to show: the new one, or the old one of a deleted file."""
        return self.new_path if self.new_path is not None else (self.old_path or "")


Problem = tuple[int, str]


def parse_diff(raw: bytes, *, first_line: int = 1) -> tuple[tuple[FilePatch, ...], list[Problem]]:
    """Parse a git diff; problems are (line number in the mail, text), all of them."""
    problems: list[Problem] = []
    reader = _Lines(raw, first_line)
    files: list[FilePatch] = []
    while (line := reader.peek()) is not None:
        if line.startswith(b"diff --git "):
            parsed = _parse_file(reader, problems)
            if parsed is not None:
                files.append(parsed)
        elif line.startswith((b"diff --cc ", b"diff --combined ")):
            problems.append(
                (
                    reader.number,
                    "a merge's combined diff cannot be applied; use a diff against one parent",
                )
            )
            return (), problems
        elif line.startswith((b"Index: ", b"--- ")):
            problems.append(
                (
                    reader.number,
                    "not a git diff (no `diff --git` line); export it with git format-patch",
                )
            )
            return (), problems
        elif _SIGNATURE.match(line):
            break
        elif line.strip() == b"":
            reader.next()
        else:
            shown = line[:60].decode("utf-8", "replace")
            problems.append((reader.number, f"unexpected line between files: {shown!r}"))
            reader.next()
    seen: dict[str, int] = {}
    for file in files:
        for path in {file.new_path, None if file.change is Change.COPY else file.old_path} - {None}:
            if path in seen and not problems:
                problems.append(
                    (file.line, f"{path}: changed twice in one patch (first at line {seen[path]})")
                )
            if path is not None:
                seen.setdefault(path, file.line)
    return tuple(files), problems


class _Lines:
    """A cursor over the mail's lines; `number` is the line about to be read."""

    def __init__(self, raw: bytes, first_line: int) -> None:
        self._lines = raw.split(b"\n")
        self._ended = raw.endswith(b"\n")
        if self._ended:
            self._lines.pop()
        self._at = 0
        self._first = first_line

    @property
    def number(self) -> int:
        return self._first + self._at

    def peek(self) -> bytes | None:
        return self._lines[self._at] if self._at < len(self._lines) else None

    def next(self) -> bytes:
        line = self._lines[self._at]
        self._at += 1
        return line


def _parse_file(reader: _Lines, problems: list[Problem]) -> FilePatch | None:
    start = reader.number
    count_before = len(problems)
    header = reader.next()
    both = _header_path(header[len(b"diff --git ") :])
    facts: dict[str, str | int] = {}
    old_named: str | None = None
    new_named: str | None = None
    hunks: tuple[Hunk, ...] = ()
    binary = False

    def bad(line: int, text: str) -> None:
        problems.append((line, text))

    while (line := reader.peek()) is not None:
        number = reader.number
        if line.startswith(b"@@ "):
            hunks = tuple(_parse_hunks(reader, problems))
            break
        if line.startswith(b"diff ") or _SIGNATURE.match(line) or line == b"":
            break
        reader.next()
        if line.startswith((b"GIT binary patch", b"Binary files ")):
            binary = True
            while (rest := reader.peek()) is not None and not rest.startswith(b"diff --git "):
                if _SIGNATURE.match(rest):
                    break
                reader.next()
            break
        if line.startswith(b"--- "):
            old_named = _named(line[4:], b"a/", number, bad)
        elif line.startswith(b"+++ "):
            new_named = _named(line[4:], b"b/", number, bad)
        elif found := _INDEX.match(line):
            facts["old_id"], facts["new_id"] = found[1].decode(), found[2].decode()
            if found[3]:
                facts["same_mode"] = int(found[3], 8)
        else:
            _extended(line, number, facts, bad)
    for key in ("old_mode", "new_mode", "same_mode", "new_file", "deleted_file"):
        mode = facts.get(key)
        if mode == _SUBMODULE:
            bad(start, "changes a submodule pointer; patch the submodule's files instead")
        elif isinstance(mode, int) and mode not in _MODES:
            bad(start, f"file mode {mode:o} is none that git writes")
    change, old_path, new_path = _change(facts, old_named, new_named, both)
    if old_path is None and new_path is None:
        bad(start, "cannot tell which file this changes; export it with git format-patch")
        return None
    for path in dict.fromkeys(p for p in (old_path, new_path) if p is not None):
        if reason := unsafe(path):
            bad(start, f"{path}: {reason}")
    if not hunks and not binary and change is Change.MODIFY and "new_mode" not in facts:
        bad(start, f"{new_path or old_path}: changes nothing")
    if len(problems) > count_before:
        return None
    same = facts.get("same_mode")
    old_mode = facts.get("deleted_file", facts.get("old_mode", same))
    new_mode = facts.get("new_file", facts.get("new_mode", same))
    old_id, new_id = facts.get("old_id"), facts.get("new_id")
    return FilePatch(
        change,
        old_path,
        new_path,
        old_mode if isinstance(old_mode, int) else None,
        new_mode if isinstance(new_mode, int) else None,
        old_id if isinstance(old_id, str) else None,
        new_id if isinstance(new_id, str) else None,
        hunks,
        binary,
        start,
    )


def _change(
    facts: dict[str, str | int], old: str | None, new: str | None, both: str | None
) -> tuple[Change, str | None, str | None]:
    for word, change in (("rename", Change.RENAME), ("copy", Change.COPY)):
        source, target = facts.get(f"{word}_from"), facts.get(f"{word}_to")
        if isinstance(source, str) and isinstance(target, str):
            return change, source, target
    if "new_file" in facts:
        return Change.ADD, None, new or both
    if "deleted_file" in facts:
        return Change.DELETE, old or both, None
    return Change.MODIFY, old or both, new or both


def _extended(line: bytes, number: int, facts: dict[str, str | int], bad: _Bad) -> None:
    for prefix, key in (
        (b"old mode ", "old_mode"),
        (b"new mode ", "new_mode"),
        (b"new file mode ", "new_file"),
        (b"deleted file mode ", "deleted_file"),
    ):
        if line.startswith(prefix):
            digits = line[len(prefix) :].strip()
            if not re.fullmatch(rb"[0-7]{6}", digits):
                bad(number, f"not a file mode: {digits.decode('latin-1')!r}")
            else:
                facts[key] = int(digits, 8)
            return
    for word in (b"rename", b"copy"):
        for side in (b"from", b"to"):
            prefix = word + b" " + side + b" "
            if line.startswith(prefix):
                facts[f"{word.decode()}_{side.decode()}"] = _unquote(line[len(prefix) :])
                return
    if not line.startswith((b"similarity index ", b"dissimilarity index ")):
        bad(number, f"unknown line in a file's header: {line[:60].decode('utf-8', 'replace')!r}")


def _parse_hunks(reader: _Lines, problems: list[Problem]) -> Iterator[Hunk]:
    end = 0
    while (line := reader.peek()) is not None and line.startswith(b"@@ "):
        number = reader.number
        found = _HUNK.match(line)
        reader.next()
        if not found:
            problems.append((number, "malformed hunk header"))
            return
        old_count = int(found[2]) if found[2] is not None else 1
        new_count = int(found[4]) if found[4] is not None else 1
        hunk = Hunk(int(found[1]), old_count, int(found[3]), new_count, found[5] or b"", (), number)
        lines: list[tuple[bytes, bytes]] = []
        old_left, new_left = old_count, new_count
        while old_left > 0 or new_left > 0:
            text = reader.peek()
            tag = text[:1] if text else b" "
            if text is None or tag not in (b" ", b"+", b"-"):
                problems.append(
                    (
                        reader.number,
                        f"the hunk at line {number} ends {max(old_left, new_left)} lines too early",
                    )
                )
                return
            reader.next()
            old_left -= tag != b"+"
            new_left -= tag != b"-"
            lines.append((tag, text[1:] + b"\n"))
            if (after := reader.peek()) is not None and after.startswith(b"\\ "):
                reader.next()
                lines[-1] = (tag, lines[-1][1][:-1])
        if old_left or new_left:
            problems.append((number, "the hunk's counts do not match its lines"))
            return
        if all(tag == b" " for tag, _ in lines):
            problems.append((number, "the hunk changes nothing"))
        if hunk.old_start + (old_count == 0) <= end:
            problems.append((number, "hunks overlap or are out of order"))
        end = hunk.old_start + old_count - 1
        yield replace(hunk, lines=tuple(lines))


def _header_path(rest: bytes) -> str | None:
    """The one path of `a/X b/X`; None when the two differ or cannot be told apart."""
    if rest.startswith(b'"'):
        found = re.match(rb'("(?:[^"\\]|\\.)*") (.+)$', rest)
        if not found:
            return None
        old, new = _unquote(found[1]), _unquote(found[2])
        return old[2:] if old[:2] == "a/" and new[:2] == "b/" and old[2:] == new[2:] else None
    half = (len(rest) - 1) // 2
    old_raw, new_raw = rest[:half], rest[half + 1 :]
    same = old_raw[:2] == b"a/" and new_raw[:2] == b"b/" and old_raw[2:] == new_raw[2:]
    return _text(old_raw[2:]) if same and rest[half : half + 1] == b" " else None


def _named(rest: bytes, prefix: bytes, number: int, bad: _Bad) -> str | None:
    """The path of a `---` or `+++` line; None for /dev/null."""
    name = _unquote(rest.rstrip(b"\t"))
    if name == "/dev/null":
        return None
    if not name.startswith(prefix.decode()):
        bad(
            number,
            f"{name}: the path does not start with {prefix.decode()} (an absolute path, or a diff without prefixes)",
        )
        return None
    return name[2:]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _unquote(raw: bytes) -> str:
    """Undo git's C-style quoting of names."""
    if not (len(raw) >= 2 and raw.startswith(b'"') and raw.endswith(b'"')):
        return _text(raw)
    out = bytearray()
    body = raw[1:-1].decode("latin-1")
    position = 0
    while position < len(body):
        character = body[position]
        position += 1
        if character != "\\":
            out += character.encode("latin-1")
        elif octal := re.match(r"[0-3][0-7]{2}", body[position:]):
            out.append(int(octal[0], 8))
            position += 3
        else:
            escaped = body[position : position + 1]
            out.append(_ESCAPES.get(escaped, ord(escaped or "\\")))
            position += 1
    return _text(bytes(out))


def unsafe(path: str) -> str | None:
    """Why this path must never be written, None when it may.

    No path leaves the tree, none is absolute, none touches git's own folder, also not by the
    spellings that other file systems fold into `.git` (git's own list: NTFS short names, trailing
    dots and blanks, HFS+ ignorable code points).
    """
    if path == "" or "\0" in path:
        return "empty or with a NUL byte"
    if path.startswith("/"):
        return "an absolute path leaves the tree"
    for part in path.split("/"):
        if part == "..":
            return "`..` leaves the tree"
        if part in ("", "."):
            return "not a normal path (`//` or `.`)"
        folded = re.sub("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]", "", part)
        folded = folded.partition(":")[0].rstrip(". ").lower()
        if folded in (".git", "git~1"):
            return "writes into git's own folder"
        if "\\" in part and any(p in ("..", ".git") for p in part.lower().split("\\")):
            return "`..` or `.git` behind a backslash"
    return None
