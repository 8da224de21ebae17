"""Remembered verdicts, keyed by what they depend on: the patch and the files that it names.

Releases that did not touch those files share a key, whatever else changed in them; that makes a
matrix over fifty releases cheap. A verdict that asked where a symbol is now is remembered with the
question and the answer, and holds wherever the same is answered. One that walked the whole tree
is keyed by the tree.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from stackpatch import __version__
from stackpatch.model.verdict import Verdict
from stackpatch.series.landed import examine
from stackpatch.series.symbols import language_of
from stackpatch.series.whereabouts import search
from stackpatch.sources.objects import Entry
from stackpatch.storage import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from stackpatch.model.patch import Patch
    from stackpatch.sources.objects import Objects

# Raised whenever the rules of series/ change what a verdict may be.
RULES = 3


@dataclass(frozen=True, slots=True)
class Remembered:
    """A verdict, and what the patch changes where it applies (path → entry, None: removed)."""

    verdict: Verdict
    changes: Mapping[str, Entry | None]


class Memo:
    """Verdicts by key, in memory and in one file that may be lost or damaged without harm."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        self._new = False
        self.hits = 0
        self.misses = 0
        self._rules = f"{RULES}/{__version__}/{version('tree-sitter')}/{version('pygit2')}"
        if path is not None:
            self._known = _load(path, self._rules)

    def examine(
        self,
        objects: Objects,
        tree: str,
        patch: Patch,
        *,
        covers: Callable[[str], bool] = lambda _: True,
    ) -> Remembered:
        """`landed.examine`, or what it said the last time for the same inputs."""
        near = _key(objects, tree, patch, covers)
        for key in self._keys(objects, tree, near):
            remembered = self._recall(key)
            if remembered is not None:
                self.hits += 1
                return remembered
        self.misses += 1
        found = examine(objects, tree, patch, covers=covers)
        remembered = Remembered(found.verdict, dict(found.applied.changes))
        if found.whole_tree:
            key = f"{near}:{tree}"
        elif found.asked:
            questions = [list(question) for question in found.asked]
            self._note(near, questions)
            key = _answered(objects, tree, near, questions)
        else:
            key = near
        self._known[key] = _to_json(remembered)
        self._new = True
        return remembered

    def _keys(self, objects: Objects, tree: str, near: str) -> Iterator[str]:
        """Under what this verdict may be known, what costs least first."""
        yield near
        yield f"{near}:{tree}"
        traces = self._known.get(f"{near}?")
        for questions in traces if isinstance(traces, list) else ():
            yield _answered(objects, tree, near, questions)

    def _recall(self, key: str) -> Remembered | None:
        known = self._known.get(key)
        if known is None:
            return None
        try:
            return _from_json(known)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def _note(self, near: str, questions: list[list[str]]) -> None:
        traces = self._known.setdefault(f"{near}?", [])
        if questions not in traces:
            traces.append(questions)

    def save(self) -> None:
        """Write what is new to the file."""
        if self._path is not None and self._new:
            document = {"rules": self._rules, "verdicts": self._known}
            write_atomically(self._path, json.dumps(document).encode())
            self._new = False


def _key(objects: Objects, tree: str, patch: Patch, covers: Callable[[str], bool]) -> str:
    paths = dict.fromkeys((*patch.paths, *(e.path for e in patch.trailers.effects)))
    whole = hashlib.sha256(patch.sha256.encode())
    for path in paths:
        whole.update(f"\n{path}\0{covers(path)}".encode("utf-8", "surrogateescape"))
        entry = objects.entry(tree, path)
        if entry is not None:
            whole.update(f"\0{entry.mode:o} {entry.id}".encode())
            continue
        # What stands in the way of a path that is not there decides how it is refused.
        parts = path.split("/")
        for depth in range(1, len(parts)):
            above = objects.entry(tree, "/".join(parts[:depth]))
            whole.update(f"\0{above.mode if above else 0:o}".encode())
    for file in patch.files:
        whole.update(
            b"\n%d" % (file.old_id is not None and objects.find_blob(file.old_id) is not None)
        )
    return whole.hexdigest()


def _answered(objects: Objects, tree: str, near: str, questions: list[list[str]]) -> str:
    """The key of a verdict that these questions led to, with what this tree answers."""
    whole = hashlib.sha256()
    for question in questions:
        symbol, path = question
        language = language_of(path)
        places = search(objects, tree, symbol, path, language) if language else []
        said = json.dumps([symbol, path, places], ensure_ascii=True)
        whole.update(said.encode())
    return f"{near}:{whole.hexdigest()}"


def _to_json(remembered: Remembered) -> dict[str, Any]:
    changes = {p: [e.mode, e.id] if e else None for p, e in remembered.changes.items()}
    return {"verdict": remembered.verdict.to_json(), "changes": changes}


def _from_json(document: Any) -> Remembered:
    changes = {p: Entry(*e) if e else None for p, e in document["changes"].items()}
    return Remembered(Verdict.from_json(document["verdict"]), changes)


def _load(path: Path, rules: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
        if document["rules"] == rules and isinstance(document["verdicts"], dict):
            return dict(document["verdicts"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}
