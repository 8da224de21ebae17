"""Paths as a git diff writes them: quoted, doubled in the header, and never to be trusted."""

from __future__ import annotations

import re

_ESCAPES = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, '"': 34, "\\": 92}


def header_path(rest: bytes) -> str | None:
    """The one path of `a/X b/X`; None when the two differ or cannot be told apart."""
    if rest.startswith(b'"'):
        found = re.match(rb'("(?:[^"\\]|\\.)*") (.+)$', rest)
        if not found:
            return None
        old, new = unquote(found[1]), unquote(found[2])
        return old[2:] if old[:2] == "a/" and new[:2] == "b/" and old[2:] == new[2:] else None
    half = (len(rest) - 1) // 2
    old_raw, new_raw = rest[:half], rest[half + 1 :]
    same = old_raw[:2] == b"a/" and new_raw[:2] == b"b/" and old_raw[2:] == new_raw[2:]
    return text(old_raw[2:]) if same and rest[half : half + 1] == b" " else None


def text(raw: bytes) -> str:
    """Bytes of a name as `str`, undecodable ones as surrogate escapes."""
    return raw.decode("utf-8", "surrogateescape")


def unquote(raw: bytes) -> str:
    """Undo git's C-style quoting of names."""
    if not (len(raw) >= 2 and raw.startswith(b'"') and raw.endswith(b'"')):
        return text(raw)
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
    return text(bytes(out))


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
        if any(_is_dotgit(piece) for piece in part.split("\\")):
            return "writes into git's own folder"
        if "\\" in part and ".." in part.split("\\"):
            return "`..` behind a backslash leaves the tree"
    return None


def _is_dotgit(name: str) -> bool:
    name = re.sub("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]", "", name)
    return name.partition(":")[0].rstrip(". ").lower() in (".git", "git~1")
