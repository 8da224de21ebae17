"""Which files hold which words: one segment of the name index, from files to bytes and back.

A word is a run of ASCII letters, digits and underscores. Every identifier that a parser can find in
a file is made of such runs, so a file without one of a name's words does not define that name;
a file with all of them may. The answer errs in that one direction: words that are in too many
files to be worth a list count as being in every file, and two words may share a number.

This module runs as a program of its own, too, and so imports nothing of ours.
"""

from __future__ import annotations

import json
import re
import struct
import sys
import zlib
from array import array
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Raised whenever the words of a file, or their place in a segment, change: older segments are then
# as good as absent.
VERSION = 1
_MAGIC = b"stackpatch names\n"
_DIGEST = 16

_SHORTEST = 3
_COMMON_FROM = 64  # files; a segment of fewer has a list for every word
_COMMON_SHARE = 8  # a word in more than an eighth of the files has none

_WORD_BYTES = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_SEPARATED = bytes(byte if byte in _WORD_BYTES + b"\n" else 32 for byte in range(256))
_RUN = re.compile(rb"[0-9A-Za-z_]+")
_DIGITS = frozenset(b"0123456789")
# Numbers that leave no identifier behind that is long enough: `128`, `0xFF`, `0xFFull`, `1u`.
_NUMBER = re.compile(rb"0[xX][0-9A-Fa-f]+[uUlL]*|[0-9]+(?:[A-Za-z_][0-9A-Za-z_]?)?")
_NUMBER_SUFFIX = re.compile(rb"[uUlL]+")


def words_of(content: bytes) -> set[bytes]:
    """The words of a file, numbers and short ones with them."""
    # Lines first: generated code says the same over and over, and a line is cheap to compare.
    lines = set(content.translate(_SEPARATED).split(b"\n"))
    return set(b"\n".join(lines).split())


def words_of_name(name: str) -> frozenset[bytes]:
    """The words that a file must hold to define this qualified name; none: any file may.

    `(anonymous)` is our word for a struct without a name and stands in no file.
    """
    runs = _RUN.findall(name.replace("(anonymous)", " ").encode("utf-8", "surrogateescape"))
    return frozenset(run for run in runs if _listed(run))


def _listed(word: bytes) -> bool:
    return (
        len(word) >= _SHORTEST and word[0] not in _DIGITS and _NUMBER_SUFFIX.fullmatch(word) is None
    )


def _names_in(word: bytes) -> Iterable[bytes]:
    """What of a word can be an identifier: behind a number (`1or x`) each of its tails."""
    if len(word) < _SHORTEST:
        return ()
    if word[0] not in _DIGITS:
        return (word,)
    if _NUMBER.fullmatch(word):
        return ()
    return (word[at:] for at in range(1, len(word) - _SHORTEST + 1) if word[at] not in _DIGITS)


def _number(word: bytes) -> int:
    return zlib.crc32(word)


@dataclass(frozen=True)
class Segment:
    """The files of a root tree that no segment had before it, and the words of each.

    tree: the root tree that this segment and those it relies on know completely. relies: digests of
    segments. digest: of these bytes. files: path and blob id of each file.
    """

    tree: str
    relies: tuple[str, ...]
    digest: str
    count: int
    _paths: bytes
    _blobs: bytes
    _common: Sequence[int]
    _words: Sequence[int]
    _starts: Sequence[int]
    _lists: Sequence[int]

    @cached_property
    def files(self) -> list[tuple[str, str]]:
        """Path and blob id, in the order of their numbers."""
        if not self.count:
            return []
        paths = self._paths.decode("utf-8", "surrogateescape").split("\0")
        ids = self._blobs.hex()
        return [(path, ids[at * 40 : at * 40 + 40]) for at, path in enumerate(paths)]

    def holding(self, words: Iterable[bytes]) -> Iterable[int]:
        """The numbers of the files that may hold all these words."""
        found: set[int] | None = None
        for word in words:
            number = _number(word)
            at = bisect_left(self._common, number)
            if at < len(self._common) and self._common[at] == number:
                continue
            at = bisect_left(self._words, number)
            if at == len(self._words) or self._words[at] != number:
                return ()
            files = self._lists[self._starts[at] : self._starts[at + 1]]
            found = set(files) if found is None else found.intersection(files)
            if not found:
                return ()
        return range(self.count) if found is None else sorted(found)


class Builder:
    """A segment in the making."""

    def __init__(self) -> None:
        self._files: list[tuple[str, str]] = []
        self._lists: defaultdict[bytes, list[int]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._files)

    def add(self, path: str, blob: str, content: bytes) -> None:
        """Take one file. blob: the id of the content."""
        number = len(self._files)
        self._files.append((path, blob))
        lists = self._lists
        for word in words_of(content):
            lists[word].append(number)

    def finish(self, tree: str, relies: Iterable[str]) -> bytes:
        """The segment's bytes; the same files in the same order give the same."""
        count = len(self._files)
        limit = count // _COMMON_SHARE if count >= _COMMON_FROM else count
        lists: dict[int, Sequence[int]] = {}
        for word, files in self._lists.items():
            for name in _names_in(word):
                number = _number(name)
                other = lists.get(number)
                lists[number] = files if other is None else sorted({*other, *files})
        common = sorted(number for number, files in lists.items() if len(files) > limit)
        for number in common:
            del lists[number]
        numbers = sorted(lists)
        starts = array("I", [0])
        joined = array("H" if count < 1 << 16 else "I")
        for number in numbers:
            joined.extend(lists[number])
            starts.append(len(joined))
        parts = [
            "\0".join(path for path, _ in self._files).encode("utf-8", "surrogateescape"),
            bytes.fromhex("".join(blob for _, blob in self._files)),
            array("I", common).tobytes(),
            array("I", numbers).tobytes(),
            starts.tobytes(),
            joined.tobytes(),
        ]
        head = {
            "version": VERSION,
            "order": sys.byteorder,
            "tree": tree,
            "relies": sorted(relies),
            "files": count,
            "lists": joined.typecode,
            "parts": [len(part) for part in parts],
        }
        whole = b"".join([_MAGIC, json.dumps(head).encode(), b"\n", *parts])
        return whole + blake2b(whole, digest_size=_DIGEST).digest()


_FRAME = struct.Struct("<QQ")


def framed(name: bytes, content: bytes) -> tuple[bytes, ...]:
    """A file for `serve`; without a name, the words that `finish` takes, as JSON."""
    return _FRAME.pack(len(name), len(content)), name, content


def serve(stream: IO[bytes]) -> bytes:
    """A segment of the files that come in frames, blob id and path in each name.

    Raises EOFError for a stream that ends before it says so.
    """
    builder = Builder()
    while True:
        sizes = _FRAME.unpack(_exactly(stream, _FRAME.size))
        name, content = (_exactly(stream, size) for size in sizes)
        if not name:
            return builder.finish(*json.loads(content))
        blob, _, path = name.decode("utf-8", "surrogateescape").partition(" ")
        builder.add(path, blob, content)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    found = stream.read(size)
    if len(found) < size:
        raise EOFError
    return found


def read(content: bytes) -> Segment | None:
    """The segment; None for bytes that are none, are damaged, or are of another version."""
    if not content.startswith(_MAGIC) or len(content) < len(_MAGIC) + _DIGEST:
        return None
    whole = memoryview(content)[:-_DIGEST]
    digest = blake2b(whole, digest_size=_DIGEST).digest()
    if digest != content[-_DIGEST:]:
        return None
    at = content.index(b"\n", len(_MAGIC)) + 1
    head = json.loads(content[len(_MAGIC) : at])
    if (head["version"], head["order"]) != (VERSION, sys.byteorder):
        return None
    parts: list[memoryview] = []
    for length in head["parts"]:
        parts.append(whole[at : at + length])
        at += length
    return Segment(
        head["tree"],
        tuple(head["relies"]),
        digest.hex(),
        head["files"],
        bytes(parts[0]),
        bytes(parts[1]),
        parts[2].cast("I"),
        parts[3].cast("I"),
        parts[4].cast("I"),
        parts[5].cast(head["lists"]),
    )


if __name__ == "__main__":  # beside an import, see names.py
    sys.stdout.buffer.write(serve(sys.stdin.buffer))
