"""Git objects of a bare repository, read and written in this process: blobs, trees, commits.

Everything that asks "does it apply, has it landed" works on these objects; no work tree, no index
and no child process is involved, so the cost depends on the paths touched and not on the tree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pygit2
from pygit2.enums import FileMode, ObjectType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from stackpatch.sources.names import Names

REGULAR = int(FileMode.BLOB)
EXECUTABLE = int(FileMode.BLOB_EXECUTABLE)
SYMLINK = int(FileMode.LINK)
SUBMODULE = int(FileMode.COMMIT)
DIRECTORY = int(FileMode.TREE)
_TREE_ENTRY = re.compile(rb"([0-7]+) ([^\0]+)\0(.{20})", re.DOTALL)
_LINES = 64  # of so many trees: a path has fewer folders, and the next change starts from the last
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


@dataclass(frozen=True, slots=True)
class Entry:
    """What lies at a path: git file mode (0o100644 …) and object id (40 hex)."""

    mode: int
    id: str


@dataclass(frozen=True, slots=True)
class Signature:
    """Who and when, as git records it. seconds: Unix time; offset: minutes east of UTC."""

    name: str
    email: str
    seconds: int
    offset: int

    def raw(self) -> bytes:
        """As it stands in a commit object. Raises ValueError for what git cannot hold."""
        if any(c in self.name + self.email for c in "<>\n\0"):
            msg = f"not a name and address that git can hold: {self.name!r} {self.email!r}"
            raise ValueError(msg)
        sign, minutes = "-" if self.offset < 0 else "+", abs(self.offset)
        zone = f"{sign}{minutes // 60:02}{minutes % 60:02}"
        return f"{self.name} <{self.email}> {self.seconds} {zone}".encode()


class _Recent:
    """The contents that were read last, up to so many bytes."""

    def __init__(self, limit: int = 48 << 20) -> None:
        self._limit, self._size = limit, 0
        self._known: dict[str, bytes] = {}

    def get(self, name: str) -> bytes | None:
        content = self._known.pop(name, None)
        if content is not None:
            self._known[name] = content  # the newest is the last
        return content

    def put(self, name: str, content: bytes) -> None:
        if len(content) > self._limit // 8:
            return
        self._known[name] = content
        self._size += len(content)
        while self._size > self._limit:
            oldest = next(iter(self._known))
            self._size -= len(self._known.pop(oldest))


class Objects:
    """The object database of one bare repository.

    Paths are git paths as `str`, with undecodable bytes as surrogate escapes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.repository = pygit2.Repository(str(path))
        # How often a whole tree was walked, and for which symbols it was searched (symbol, path):
        # callers learn what else of a tree an answer depended on.
        self.walks = 0
        self.asked: list[tuple[str, str]] = []
        self._trees: dict[str, dict[str, Entry]] = {}
        self._lines: dict[str, dict[str, bytes]] = {}  # of trees written here, by name, in order
        self._origins: dict[str, tuple[str, frozenset[str]]] = {}
        self._blobs = _Recent()
        self._prefixes: dict[str, str] = {}
        self.on_disk = True

    @cached_property
    def names(self) -> Names:
        """The index of the names that files define."""
        from stackpatch.sources.names import Names

        return Names(self)

    def scratch(self) -> Objects:
        """The same objects; what is written through the new ones stays in memory.

        For results that no other process and no reference needs: applying a series costs half,
        and the store does not grow. A child `git` does not see what was written.
        """
        from stackpatch.sources.memory import BEFORE_THE_DISK, MemoryBackend

        above = Objects(self.path)
        above.repository.odb.add_backend(MemoryBackend(), BEFORE_THE_DISK)
        above.on_disk = False
        return above

    def reopen(self) -> None:
        """Open the repository anew, in a process that was forked from one that has it open.

        Not for a `scratch`, whose objects are nowhere else.
        """
        self.repository = pygit2.Repository(str(self.path))

    def blob(self, blob_id: str) -> bytes:
        """The content of a blob. Raises KeyError when it is not in the store."""
        known = self._blobs.get(blob_id)
        if known is not None:
            return known
        kind, content = self.repository.read(blob_id)
        if kind != ObjectType.BLOB:
            msg = f"{blob_id} is not a blob"
            raise KeyError(msg)
        self._blobs.put(blob_id, content)
        return content

    def has(self, object_id: str) -> bool:
        """Whether the object is in the store."""
        return object_id in self.repository

    def find_blob(self, prefix: str) -> str | None:
        """The full id of the one blob whose id starts so; None when there is none or several."""
        if len(prefix) < 7 or not prefix.strip("0"):
            return None
        known = self._prefixes.get(prefix)
        if known is not None:
            return known
        try:
            found = self.repository.get(prefix)
        except (ValueError, KeyError):
            return None
        if not isinstance(found, pygit2.Blob):
            return None
        self._prefixes[prefix] = str(found.id)
        return self._prefixes[prefix]

    def write_blob(self, content: bytes) -> str:
        """Store bytes, return the blob id."""
        written = str(self.repository.create_blob(content))
        for prefix in [p for p, i in self._prefixes.items() if i != written]:
            if written.startswith(prefix):
                del self._prefixes[prefix]
        return written

    def entry(self, tree: str, path: str) -> Entry | None:
        """What lies at `path` in the tree, None when nothing does."""
        current = tree
        parts = path.split("/")
        for depth, part in enumerate(parts):
            found = self.children(current).get(part)
            if found is None:
                return None
            if depth == len(parts) - 1:
                return found
            if found.mode != DIRECTORY:
                return None
            current = found.id
        return None

    def read(self, tree: str, path: str) -> bytes | None:
        """The content of the regular file at `path`, None when there is none."""
        entry = self.entry(tree, path)
        if entry is None or entry.mode not in (REGULAR, EXECUTABLE):
            return None
        return self.blob(entry.id)

    def walk(self, tree: str, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """Every non-directory below the tree with its path, in git's order."""
        self.walks += 1
        yield from self._walk(tree, prefix)

    def files(self, tree: str) -> Iterator[tuple[str, Entry]]:
        """The same as `walk` for who only keeps books: no answer depends on it."""
        yield from self._walk(tree, "")

    def _walk(self, tree: str, prefix: str) -> Iterator[tuple[str, Entry]]:
        for name, entry in self.children(tree).items():
            path = f"{prefix}{name}"
            if entry.mode == DIRECTORY:
                yield from self._walk(entry.id, f"{path}/")
            else:
                yield path, entry

    def with_changes(self, tree: str, changes: Mapping[str, Entry | None]) -> str:
        """A new tree with these paths set or, where None, removed; empty folders disappear.

        `tree` may be "" for the empty tree. Only the trees above changed paths are read and
        written. A file in the way of a folder, or a folder in the way of a file, is replaced.
        """
        made = self._with_changes(tree, changes)
        if (
            tree
            and made != tree
            and not any(e is not None and e.mode == DIRECTORY for e in changes.values())
        ):
            origin, before = self.made_from(tree)
            self._origins.setdefault(made, (origin, before.union(changes)))
        return made

    def made_from(self, tree: str) -> tuple[str, frozenset[str]]:
        """A tree that was not made here, and the paths in which this one may differ from it.

        For a tree that was not made by `with_changes`: itself, and no path.
        """
        return self._origins.get(tree, (tree, frozenset()))

    def _with_changes(self, tree: str, changes: Mapping[str, Entry | None]) -> str:
        children = dict(self.children(tree)) if tree else {}
        below: dict[str, dict[str, Entry | None]] = {}
        for path, entry in changes.items():
            head, slash, rest = path.partition("/")
            if slash:
                below.setdefault(head, {})[rest] = entry
            elif entry is not None:
                children[head] = entry
            else:
                children.pop(head, None)
        for name, inner in below.items():
            old = children.get(name)
            new = self._with_changes(
                old.id if old is not None and old.mode == DIRECTORY else "", inner
            )
            if new != EMPTY_TREE:
                children[name] = Entry(DIRECTORY, new)
            elif old is not None and old.mode == DIRECTORY:
                del children[name]
        heads = {path.partition("/")[0] for path in changes}
        return self._write_tree(children, tree, heads)

    def commit(
        self,
        tree: str,
        parents: tuple[str, ...],
        author: Signature,
        committer: Signature,
        message: bytes,
    ) -> str:
        """Store a commit object, return its id.

        Written as raw bytes: the id depends on these arguments alone, not on git's settings.
        """
        lines = [f"tree {tree}".encode()]
        lines += [f"parent {parent}".encode() for parent in parents]
        lines += [b"author " + author.raw(), b"committer " + committer.raw(), b"", message]
        return str(self.repository.write(ObjectType.COMMIT, b"\n".join(lines)))

    def tree_of(self, commit: str) -> str:
        """The tree of a commit."""
        _, content = self.repository.read(commit)
        return content[5:45].decode("ascii")

    def children(self, tree: str) -> dict[str, Entry]:
        """The entries of one tree object, by name. Raises KeyError when it is not a tree."""
        known = self._trees.get(tree)
        if known is not None:
            return known
        kind, content = self.repository.read(tree)
        if kind != ObjectType.TREE:
            msg = f"{tree} is not a tree"
            raise KeyError(msg)
        entries = {
            name.decode("utf-8", "surrogateescape"): Entry(int(mode, 8), digest.hex())
            for mode, name, digest in _TREE_ENTRY.findall(content)
        }
        self._trees[tree] = entries
        return entries

    def _write_tree(self, children: dict[str, Entry], before: str, changed: Iterable[str]) -> str:
        """A tree of these children; before: the tree that it was, but for the changed names.

        A series changes one entry of a large folder at a time, a hundred times: the others' lines
        are kept from one time to the next.
        """
        lines = self._lines.get(before)
        if lines is not None and _in_place(lines, children, changed):
            lines = lines | {name: _line(name, children[name]) for name in changed}
        else:
            # git sorts folders as if their names ended in a slash.
            def place(name: str) -> bytes:
                slash = b"/" * (children[name].mode == DIRECTORY)
                return name.encode("utf-8", "surrogateescape") + slash

            children = {name: children[name] for name in sorted(children, key=place)}
            lines = {name: _line(name, entry) for name, entry in children.items()}
        written = str(self.repository.write(ObjectType.TREE, b"".join(lines.values())))
        self._trees[written] = children  # the next patch of a series starts from here
        self._lines[written] = lines
        while len(self._lines) > _LINES:
            del self._lines[next(iter(self._lines))]
        return written


def _line(name: str, entry: Entry) -> bytes:
    """An entry as it stands in a tree object."""
    return b"%o %s\0%s" % (
        entry.mode,
        name.encode("utf-8", "surrogateescape"),
        bytes.fromhex(entry.id),
    )


def _in_place(
    lines: Mapping[str, bytes], children: Mapping[str, Entry], changed: Iterable[str]
) -> bool:
    """Whether the changed children stand where they stood: none came, went or became a folder."""
    folder = b"%o " % DIRECTORY
    return all(
        name in lines
        and name in children
        and lines[name].startswith(folder) == (children[name].mode == DIRECTORY)
        for name in changed
    )
