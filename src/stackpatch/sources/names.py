"""The name index of a source store: which files of a release may define a name, without reading it.

Beside the store's objects lies one file for each release's tree, written with the import or when a
name is first looked for. It holds what no release before it had, so it grows like the store does.
The index is a hint that errs to one side only: what it leaves out does not define the name; what
it lists must still be read. Files that it does not know, whatever the reason, it lists.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING

from stackpatch import proc
from stackpatch.sources import words
from stackpatch.sources.objects import EXECUTABLE, REGULAR
from stackpatch.storage import write_if_possible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from stackpatch.sources.objects import Objects

# The suffixes of files in which definitions are looked for (series/symbols.py reads these).
CODE = frozenset(
    ("py", "pyi", "c", "cc", "cpp", "cxx", "cu", "cuh", "h", "hh", "hpp", "hxx", "inl", "inc")
)
_SUFFIX = ".names"
# Bytes of new files from which a second process is worth its start.
_MUCH = 4 << 20
# A tree made in this process is its origin and the changed paths, up to so many.
_FEW = 64


def is_code(path: str, mode: int) -> bool:
    """Whether the index covers a file."""
    return mode in (REGULAR, EXECUTABLE) and path.rpartition(".")[2].lower() in CODE


class Addition:
    """What a tree adds to the index: files are offered, and read only where they are new.

    With many bytes of them and a second processor, a program beside this one counts the words.
    """

    def __init__(self, known: dict[tuple[str, str], str]) -> None:
        self._known = known
        self._relies: set[str] = set()
        self._builder = words.Builder()
        self._bytes = 0
        self._waiting: list[tuple[str, str, bytes]] = []
        self._beside: proc.Beside | None = None

    def offer(self, path: str, mode: int, blob: str, content: bytes | Callable[[], bytes]) -> None:
        """Take a file of the tree."""
        if not is_code(path, mode):
            return
        segment = self._known.get((path, blob))
        if segment is not None:
            self._relies.add(segment)
            return
        self._waiting.append((path, blob, content if isinstance(content, bytes) else content()))
        self._bytes += len(self._waiting[-1][2])
        if self._bytes > _MUCH:
            if self._beside is None and not len(self._builder) and proc.processors() > 1:
                self._beside = proc.Beside.start([sys.executable, "-I", "-S", words.__file__])
            self._count()

    def finish(self, tree: str) -> bytes:
        """The segment; nothing where the program beside us has failed."""
        self._count()
        if self._beside is None:
            return self._builder.finish(tree, self._relies)
        end = json.dumps([tree, sorted(self._relies)]).encode()
        self._beside.tell(*words.framed(b"", end))
        return self._beside.answer()

    def close(self) -> None:
        """End what works beside us."""
        if self._beside is not None:
            self._beside.end()

    def _count(self) -> None:
        for path, blob, content in self._waiting:
            if self._beside is None:
                self._builder.add(path, blob, content)
            else:
                name = f"{blob} {path}".encode("utf-8", "surrogateescape")
                self._beside.tell(*words.framed(name, content))
        self._waiting.clear()


class Names:
    """The name index beside one repository's objects."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.folder = objects.path / "names"
        self._segments: dict[str, words.Segment] | None = None
        self._covered: set[str] = set()
        self._found: dict[frozenset[bytes], dict[str, set[str]]] = {}

    def files(self, tree: str, wanted: frozenset[bytes]) -> list[tuple[str, str]]:
        """Every code file of the tree that may hold all these words: path and blob id."""
        changed = self._unknown(tree)
        listed = self._candidates(wanted)
        found = []
        for path in {*listed, *changed}:
            entry = self._objects.entry(tree, path)
            if entry is None or not is_code(path, entry.mode):
                continue
            if path in changed or entry.id in listed[path]:
                found.append((path, entry.id))
        return sorted(found)

    def addition(self) -> Addition:
        """Begin the index of one more tree."""
        # A segment that lost what it relies on is going to be written anew: nothing may rely on it.
        whole = (s for s in self._loaded().values() if s.tree in self._covered)
        return Addition({file: segment.digest for segment in whole for file in segment.files})

    def add(self, tree: str, addition: Addition) -> None:
        """Take a tree all of whose files were offered.

        A disk that refuses the file is no failure: the index is made again when it is needed.
        """
        if self.covers(tree) or self._adopted(tree):
            return  # written anew it could lose what others rely on
        content = addition.finish(tree)
        segment = words.read(content)
        if segment is None:
            return  # it was counted beside us, and that failed: it is made when it is needed
        write_if_possible(self._file(tree), content)
        self._take(segment)

    def covers(self, tree: str) -> bool:
        """Whether the index knows every file of this root tree."""
        self._loaded()
        return tree in self._covered

    # --- inside ---------------------------------------------------------------------------------

    def _unknown(self, tree: str) -> frozenset[str]:
        """The paths of the tree that the index need not know: all others, it does."""
        if self.covers(tree):
            return frozenset()
        origin, changed = self._objects.made_from(tree)
        if len(changed) > _FEW:
            origin, changed = tree, frozenset()
        if not self.covers(origin):
            self._cover(origin)
        return changed

    def _cover(self, tree: str) -> None:
        if self._adopted(tree):
            return
        addition = self.addition()
        for path, entry in self._objects.files(tree):
            addition.offer(path, entry.mode, entry.id, partial(self._objects.blob, entry.id))
        self.add(tree, addition)

    def _adopted(self, tree: str) -> bool:
        """Whether another process has indexed the tree since we read the folder."""
        segment = _segment(self._file(tree))
        if segment is None or segment.tree != tree:
            return False
        if not all(digest in self._loaded() for digest in segment.relies):
            return False
        self._take(segment)
        return True

    def _take(self, segment: words.Segment) -> None:
        self._loaded()[segment.digest] = segment
        self._covered.add(segment.tree)
        self._found.clear()

    def _candidates(self, wanted: frozenset[bytes]) -> dict[str, set[str]]:
        """By path: the contents (blob ids) with all these words that any release has there."""
        found = self._found.get(wanted)
        if found is None:
            found = self._found[wanted] = {}
            for segment in self._loaded().values():
                for number in segment.holding(wanted):
                    path, blob = segment.files[number]
                    found.setdefault(path, set()).add(blob)
        return found

    def _loaded(self) -> dict[str, words.Segment]:
        if self._segments is None:
            self._segments = {}
            for file in sorted(self.folder.glob(f"*{_SUFFIX}")):
                segment = _segment(file)
                if segment is not None:
                    self._segments[segment.digest] = segment
            self._covered = set(_whole(self._segments.values()))
        return self._segments

    def _file(self, tree: str) -> Path:
        return self.folder / f"{tree}{_SUFFIX}"


def _segment(file: Path) -> words.Segment | None:
    try:
        return words.read(file.read_bytes())
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _whole(segments: Iterable[words.Segment]) -> Iterable[str]:
    """The trees of which nothing is missing: what their segments rely on is there."""
    by_digest = {segment.digest: segment for segment in segments}
    return (s.tree for s in by_digest.values() if all(d in by_digest for d in s.relies))
