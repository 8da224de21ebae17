"""The diff half of a mail: git's extended diff format, parsed strictly from bytes.

Written here and not taken from unidiff, which is the oracle in the tests: it decodes what it
reads, and knows neither quoted names, modes, renames nor the paths that must never be written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from stackpatch.model.git_path import header_path, unquote, unsafe
from stackpatch.model.hunk import SIGNATURE, Hunk, Lines, Problem, parse_hunks

if TYPE_CHECKING:
    from collections.abc import Callable

    # Records a problem: line number in the mail, text.
    _Bad = Callable[[int, str], None]

_INDEX = re.compile(rb"index ([0-9a-f]+)\.\.([0-9a-f]+)(?: ([0-7]{6}))?$")
_MODES = {0o100644: "regular", 0o100755: "executable", 0o120000: "symbolic link"}
_LINK, _SUBMODULE = 0o120000, 0o160000
_SECOND_MAIL = re.compile(rb"From [0-9a-f]{40} ")
_EMPTY_BLOB = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


class Change(StrEnum):
    """What happens to a file."""

    MODIFY = "modify"
    ADD = "add"
    DELETE = "delete"
    RENAME = "rename"
    COPY = "copy"


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

    @property
    def size(self) -> int:
        """How many lines it adds and removes."""
        return sum(len(hunk.added) + len(hunk.removed) for hunk in self.hunks)


def parse_diff(raw: bytes, *, first_line: int = 1) -> tuple[tuple[FilePatch, ...], list[Problem]]:
    """Parse a git diff; problems are (line number in the mail, text), all of them.

    A file whose section cannot be read is reported once, and reading goes on at the next file.
    """
    problems: list[Problem] = []
    reader = Lines(raw, first_line)
    files: list[FilePatch] = []
    while (line := reader.peek()) is not None:
        if line.startswith(b"diff --git "):
            parsed = _parse_file(reader, problems)
            if parsed is not None:
                files.append(parsed)
            else:
                reader.skip_to_file()
        elif SIGNATURE.match(line):
            problems += _after_signature(reader)
            break
        elif line.strip() == b"":
            reader.next()
        else:
            problems.append((reader.number, _stray(line, bool(files))))
            reader.skip_to_file()
    if not problems:
        problems += _twice(files)
    return tuple(files), problems


def _stray(line: bytes, in_files: bool) -> str:
    """What is wrong with a line that belongs to no file."""
    if line.startswith((b"diff --cc ", b"diff --combined ")):
        return "a merge's combined diff cannot be applied; use a diff against one parent"
    if line.startswith((b"Index: ", b"--- ")) and not in_files:
        return "not a git diff (no `diff --git` line); export it with git format-patch"
    if line[:1] in (b" ", b"+", b"-", b"\\") and in_files:
        return "more lines than the hunk above announces in its header"
    return f"unexpected line between files: {line[:60].decode('utf-8', 'replace')!r}"


def _after_signature(reader: Lines) -> list[Problem]:
    """A second mail, or what a wrong hunk count cut off, must not be dropped in silence."""
    while (line := reader.peek()) is not None:
        if line.startswith((b"diff --git ", b"@@ ")) or _SECOND_MAIL.match(line):
            return [(reader.number, "the mail goes on after its signature; one file, one patch")]
        reader.next()
    return []


def _twice(files: list[FilePatch]) -> list[Problem]:
    """Files that two sections change; git itself writes a changed type as deletion and addition."""
    problems: list[Problem] = []
    removes: dict[str, FilePatch] = {}
    writes: dict[str, FilePatch] = {}
    for file in files:
        old = None if file.change is Change.COPY else file.old_path
        for path, here, there in ((old, removes, writes), (file.new_path, writes, removes)):
            if path is None:
                continue
            first = here.get(path)
            other = there.get(path)
            if first is None and other is not None and other is not file:
                retyped = (other.change, file.change) == (Change.DELETE, Change.ADD)
                first = None if retyped and other.old_mode != file.new_mode else other
            if first is not None:
                text = f"{path}: changed twice in one patch (first at line {first.line})"
                problems.append((file.line, text))
                break
            here[path] = file
    return problems


@dataclass(slots=True)
class _Header:
    """What the lines between `diff --git` and the first hunk say. marks: `---` and `+++`."""

    line: int
    both: str | None
    modes: dict[str, int]
    names: dict[str, str]
    marks: dict[str, str | None]
    ids: tuple[str, str] | None = None
    binary: bool = False


def _parse_file(reader: Lines, problems: list[Problem]) -> FilePatch | None:
    count_before = len(problems)
    start = reader.number
    both = header_path(reader.next()[len(b"diff --git ") :])
    header = _Header(start, both, {}, {}, {})

    def bad(line: int, text: str) -> None:
        problems.append((line, text))

    hunks: tuple[Hunk, ...] = ()
    while (line := reader.peek()) is not None:
        if line.startswith(b"@@ "):
            hunks = tuple(parse_hunks(reader, problems))
            break
        if line.startswith(b"diff ") or SIGNATURE.match(line) or line == b"":
            break
        number = reader.number
        reader.next()
        if line.startswith((b"GIT binary patch", b"Binary files ")):
            header.binary = True
            reader.skip_to_file()
            break
        _read_header_line(line, number, header, bad)
    for mode in header.modes.values():
        if mode == _SUBMODULE:
            bad(start, "changes a submodule pointer; patch the submodule's files instead")
        elif mode not in _MODES:
            bad(start, f"file mode {mode:o} is none that git writes")
    change, old_path, new_path = _change(header, bad)
    if old_path is None and new_path is None:
        bad(start, "cannot tell which file this changes; export it with git format-patch")
        return None
    for path in dict.fromkeys(p for p in (old_path, new_path) if p is not None):
        if reason := unsafe(path):
            bad(start, f"{path}: {reason}")
    if len(problems) == count_before:
        _check_content(header, change, new_path or old_path or "", hunks, bad)
    if len(problems) > count_before:
        return None
    modes = header.modes
    same = modes.get("index")
    old_id, new_id = header.ids or (None, None)
    return FilePatch(
        change,
        old_path,
        new_path,
        modes.get("deleted file mode", modes.get("old mode", same)),
        modes.get("new file mode", modes.get("new mode", same)),
        old_id,
        new_id,
        hunks,
        header.binary,
        start,
    )


def _read_header_line(line: bytes, number: int, header: _Header, bad: _Bad) -> None:
    for mark, prefix in (("---", b"a/"), ("+++", b"b/")):
        if line.startswith(mark.encode() + b" "):
            if mark in header.marks:
                bad(number, f"a second `{mark}` line for one file")
            header.marks[mark] = _named(line[4:], prefix, number, bad)
            return
    if found := _INDEX.match(line):
        header.ids = found[1].decode(), found[2].decode()
        if found[3]:
            header.modes["index"] = int(found[3], 8)
        return
    for key in ("old mode", "new mode", "new file mode", "deleted file mode"):
        if line.startswith(key.encode() + b" "):
            digits = line[len(key) + 1 :].strip()
            if not re.fullmatch(rb"[0-7]{6}", digits):
                bad(number, f"not a file mode: {digits[:40].decode('latin-1')!r}")
            else:
                header.modes[key] = int(digits, 8)
            return
    for key in ("rename from", "rename to", "copy from", "copy to"):
        if line.startswith(key.encode() + b" "):
            header.names[key] = unquote(line[len(key) + 1 :])
            return
    if not line.startswith((b"similarity index ", b"dissimilarity index ")):
        bad(number, f"unknown line in a file's header: {line[:60].decode('utf-8', 'replace')!r}")


def _change(header: _Header, bad: _Bad) -> tuple[Change, str | None, str | None]:
    """What happens, with old and new path; every line of the header must say the same."""
    kinds = [
        word for word in ("rename", "copy") if {f"{word} from", f"{word} to"} & {*header.names}
    ]
    kinds += [key for key in ("new file mode", "deleted file mode") if key in header.modes]
    if len(kinds) > 1:
        bad(header.line, f"the header contradicts itself: {' and '.join(kinds)}")
    if ("old mode" in header.modes) != ("new mode" in header.modes):
        bad(header.line, "an old mode needs a new mode, and a new one an old one")
    old = new = header.both
    change = Change.MODIFY
    if "rename" in kinds or "copy" in kinds:
        word = "rename" if "rename" in kinds else "copy"
        change = Change(word)
        old, new = header.names.get(f"{word} from"), header.names.get(f"{word} to")
        if old is None or new is None:
            bad(header.line, f"`{word} from` and `{word} to` belong together")
    elif "new file mode" in kinds:
        change, old, new = Change.ADD, None, header.both or header.marks.get("+++")
    elif "deleted file mode" in kinds:
        change, old, new = Change.DELETE, header.both or header.marks.get("---"), None
    else:
        old = header.both or header.marks.get("---")
        new = header.both or header.marks.get("+++")
        if old != new:
            bad(header.line, f"two names for one file: {old} and {new}, and no rename")
    for mark, expected in (("---", old), ("+++", new)):
        if header.marks.get(mark, expected) != expected:
            said = header.marks[mark] or "/dev/null"
            bad(header.line, f"`{mark} {said}` does not fit {expected or '/dev/null'}")
    return change, old, new


def _check_content(
    header: _Header, change: Change, path: str, hunks: tuple[Hunk, ...], bad: _Bad
) -> None:
    if (
        change is Change.MODIFY
        and not hunks
        and not header.binary
        and not header.modes.keys() - {"index"}
    ):
        bad(header.line, f"{path}: changes nothing")
    was, becomes = header.modes.get("old mode"), header.modes.get("new mode")
    if (was == _LINK) != (becomes == _LINK):
        bad(header.line, f"{path}: a file becomes a link by its deletion and addition only")
    if change not in (Change.ADD, Change.DELETE) or header.binary:
        return
    kind, ids = ("new", header.ids and header.ids[1]), header.ids
    if change is Change.DELETE:
        kind = ("deleted", ids and ids[0])
    if not hunks and kind[1] is not None and not _EMPTY_BLOB.startswith(kind[1]):
        bad(header.line, f"{path}: the content of the {kind[0]} file is missing")
    for hunk in hunks:
        if len(hunks) > 1 or (hunk.old if change is Change.ADD else hunk.new):
            bad(hunk.line, f"{path}: a {kind[0]} file has one hunk with one side only")
            break


def _named(rest: bytes, prefix: bytes, number: int, bad: _Bad) -> str | None:
    """The path of a `---` or `+++` line; None for /dev/null."""
    name = unquote(rest.rstrip(b"\t"))
    if name == "/dev/null":
        return None
    if not name.startswith(prefix.decode()):
        kind = "an absolute path" if name.startswith("/") else "no prefix"
        bad(number, f"{name}: the path does not start with {prefix.decode()} ({kind})")
        return None
    return name[2:]
