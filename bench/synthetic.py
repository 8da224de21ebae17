"""Series and releases of any number, made of a real release's files."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from stackpatch.series.side import Side
from stackpatch.sources.names import is_code
from stackpatch.sources.objects import REGULAR, Entry, Signature

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stackpatch.sources.objects import Objects
    from stackpatch.sources.store import SourceStore, Stored

# Lines before which another statement may stand.
_PYTHON = re.compile(rb"^([ \t]*)(?:return\b.*|[\w.]+ = .*|from .*|import .*|def .*)$")
_CPP = re.compile(rb"^([ \t]*)[A-Za-z#].*$")
_PLAIN = re.compile(r"\*|[A-Za-z_]\w*(?:(?:\.|::)[A-Za-z_]\w*)*")
_HEAD = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: Bench <bench@example.invalid>
Date: Thu, 1 Jan 2026 00:00:00 +0000
Subject: [PATCH] bench: note {number} in {symbol}

One of many.

Effect: {path} :: {symbol} :: bench_note_{number}
---
"""


def write_series(folder: Path, objects: Objects, tree: str, count: int) -> None:
    """A series of so many patches, each to a file of its own; the first are those of a shorter one.

    Raises ValueError for a tree with too few files that take one.
    """
    folder.mkdir(parents=True)
    names = []
    for number, mail in enumerate(_mails(objects, tree)):
        if number == count:
            break
        names.append(f"{number + 1:04}-bench.patch")
        (folder / names[-1]).write_bytes(mail)
    if len(names) < count:
        msg = f"only {len(names)} files for {count} patches"
        raise ValueError(msg)
    (folder / "series").write_text("".join(f"{name}\n" for name in names))


def _mails(objects: Objects, tree: str) -> Iterator[bytes]:
    number = 0
    for path, entry in sorted(objects.files(tree), key=lambda item: item[1].id):
        if is_code(path, entry.mode) and " " not in path:
            mail = _mail(number, path, entry, objects.blob(entry.id))
            if mail is not None:
                yield mail
                number += 1


def _mail(number: int, path: str, entry: Entry, content: bytes) -> bytes | None:
    """A patch that puts one statement into a function or class; None where it cannot be told."""
    before = Side(path, content)
    if before.symbols.unread or b"\r" in content:
        return None
    lines = content.split(b"\n")
    python = path.endswith(".py")
    for at in range(3, len(lines) - 4):
        found = (_PYTHON if python else _CPP).match(lines[at])
        if found is None:
            continue
        symbol = before.symbols.at(at + 1)
        name = symbol.name or "*"
        if not _PLAIN.fullmatch(name) or before.symbols.count(symbol) > 1:
            continue
        note = b"bench_note_%d = 1" % number if python else b"int bench_note_%d = 1;" % number
        added = found[1] + note
        after = Side(path, b"\n".join([*lines[:at], added, *lines[at:]]))
        (there,) = after.symbols.named(name)[:1] or (None,)
        if there and not after.symbols.unread and note.decode() in after.plain.of(there):
            break
    else:
        return None
    hunk = [b" " + line for line in lines[at - 3 : at]]
    hunk += [b"+" + added, *(b" " + line for line in lines[at : at + 3])]
    head = _HEAD.format(number=number, symbol=name, path=path).encode()
    return b"\n".join(
        [
            head + f"diff --git a/{path} b/{path}".encode(),
            f"index {entry.id}..{'0' * 39}1 {entry.mode:o}".encode(),
            f"--- a/{path}\n+++ b/{path}".encode(),
            b"@@ -%d,6 +%d,7 @@" % (at - 2, at - 2),
            *hunk,
            b"",
        ]
    )


def add_releases(store: SourceStore, like: Stored, count: int) -> None:
    """Releases `VERSION.1`, `VERSION.2` … that differ from one in a file that nobody patches."""
    objects = store.objects
    who = Signature("bench", "bench@example.invalid", 0, 0)
    for number in range(1, count + 1):
        blob = objects.write_blob(b"%d\n" % number)
        tree = objects.with_changes(like.tree, {"bench-note.py": Entry(REGULAR, blob)})
        message = f"{store.stack} {like.version}.{number}, {like.kind}\n\nArtefact: none\n"
        commit = objects.commit(tree, (), who, who, message.encode())
        name = f"refs/sources/{like.kind}/{like.version}.{number}"
        objects.repository.references.create(name, commit, force=True)


def index(store: SourceStore) -> None:
    """Index every release, as an import does."""
    for stored in store.versions():
        if not store.objects.names.covers(stored.tree):
            addition = store.objects.names.addition()
            for path, entry in store.objects.files(stored.tree):
                content = partial(store.objects.blob, entry.id)
                addition.offer(path, entry.mode, entry.id, content)
            store.objects.names.add(stored.tree, addition)
