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
from typing import TYPE_CHECKING, Any

from stackpatch.model.verdict import Verdict
from stackpatch.series.landed import examine
from stackpatch.series.rules import rules
from stackpatch.series.symbols import language_of
from stackpatch.series.whereabouts import search, stood_before
from stackpatch.sources.objects import Entry
from stackpatch.storage import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stackpatch.model.patch import Patch
    from stackpatch.sources.objects import Objects

# Symbols that were searched in the tree: symbol and path, as `whereabouts.places_of` takes them.
_Asked = tuple[tuple[str, str], ...]


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
        self._new: set[str] = set()  # keys that are not in the file
        self.hits = 0
        self.misses = 0
        self._rules = rules()
        if path is not None:
            self._known = _load(path, self._rules)

    @property
    def empty(self) -> bool:
        """Whether nothing is remembered."""
        return not self._known

    def examine(
        self,
        objects: Objects,
        tree: str,
        patch: Patch,
        *,
        origin: str | None = None,
        covers: Callable[[str], bool] = lambda _: True,
    ) -> Remembered:
        """`landed.examine`, or what it said the last time for the same inputs."""
        near = _key(objects, tree, patch, covers)
        here = f"{near}:{tree}:{origin or ''}"
        remembered = self._recall(near) or self._recall(here)
        if remembered is None:
            remembered = self._recall_by_answers(objects, tree, near, here, origin)
        if remembered is not None:
            self.hits += 1
            return remembered
        self.misses += 1
        found = examine(objects, tree, patch, origin=origin, covers=covers)
        remembered = Remembered(found.verdict, dict(found.applied.changes))
        if found.whole_tree:
            self._keep(here, _to_json(remembered))
        elif found.asked:
            self._ask(near, [found.asked])
            key = _answered(objects, tree, near, found.asked, origin)
            self._keep(here, key)
            self._keep(key, _to_json(remembered))
        else:
            self._keep(near, _to_json(remembered))
        return remembered

    def since(self) -> dict[str, Any]:
        """What the file does not have yet, as JSON can carry it to another process."""
        return {key: self._known[key] for key in self._new}

    def take(self, known: Mapping[str, Any]) -> None:
        """Learn what a memo in another process has found out `since`."""
        for key, value in known.items():
            if key.endswith("?"):
                self._ask(key[:-1], _as_questions(value))
            else:
                self._keep(key, value)

    def _keep(self, key: str, value: Any) -> None:
        self._known[key] = value
        self._new.add(key)

    def _ask(self, near: str, asked: Sequence[_Asked]) -> None:
        # In order: what is remembered depends on what was found out, not on who found it first.
        self._keep(f"{near}?", sorted({*self._questions(near), *asked}))

    def _recall(self, key: str) -> Remembered | None:
        known = self._known.get(key)
        if isinstance(known, str):  # the key under which the answers are known
            known = self._known.get(known)
        try:
            return _from_json(known) if known is not None else None
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def _recall_by_answers(
        self, objects: Objects, tree: str, near: str, here: str, origin: str | None
    ) -> Remembered | None:
        """A verdict whose questions this tree answers as the one did for which it was made."""
        for asked in self._questions(near):
            key = _answered(objects, tree, near, asked, origin)
            remembered = self._recall(key)
            if remembered is not None:
                self._keep(here, key)  # this very tree need not be asked again
                return remembered
        return None

    def _questions(self, near: str) -> list[_Asked]:
        return _as_questions(self._known.get(f"{near}?", ()))

    def save(self) -> None:
        """Write what is new to the file."""
        if self._path is not None and self._new:
            document = {"rules": self._rules, "verdicts": self._known}
            write_atomically(self._path, json.dumps(document, sort_keys=True).encode())
            self._new = set()


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


def _answered(objects: Objects, tree: str, near: str, asked: _Asked, origin: str | None) -> str:
    """The key of a verdict that these questions led to, with what this tree answers."""
    whole = hashlib.sha256()
    for symbol, path in asked:
        language = language_of(path)
        places = search(objects, tree, symbol, path, language) if language else []
        before = [place for place, _ in places if stood_before(objects, origin, symbol, place)]
        said = json.dumps([symbol, path, places, before], ensure_ascii=True)
        whole.update(said.encode())
    return f"{near}:{whole.hexdigest()}"


def _as_questions(known: Any) -> list[_Asked]:
    try:
        return [tuple((str(symbol), str(path)) for symbol, path in asked) for asked in known]
    except (TypeError, ValueError):
        return []


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
