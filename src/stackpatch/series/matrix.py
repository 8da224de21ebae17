"""Every patch of a series at every upstream version: where it is needed, where it landed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from stackpatch.model.verdict import Verdict, Word
from stackpatch.series.sharing import spread
from stackpatch.sources.store import version_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackpatch.model.patch import Patch
    from stackpatch.series.memo import Memo
    from stackpatch.sources.objects import Entry, Objects


class Version(Protocol):
    """One upstream version in the source store."""

    @property
    def version(self) -> str: ...
    @property
    def tree(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One patch: a verdict per version, in the order of the versions.

    meant: per version, whether `Applies-To:` takes it in; None where nothing is said.
    """

    patch: Patch
    verdicts: tuple[Verdict, ...]
    meant: tuple[bool | None, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Patches by versions, the versions as they were asked for."""

    versions: tuple[str, ...]
    rows: tuple[Row, ...]

    def first_landed(self, row: Row) -> str | None:
        """The first version from which on every later one has it; None when the newest has not."""
        first = None
        for at in self._oldest_first:
            landed = row.verdicts[at].word is Word.UPSTREAMED
            first = (first or self.versions[at]) if landed else None
        return first

    def newest(self, *words: Word) -> str | None:
        """The newest version at which every patch that is meant for it has one of these verdicts.

        None too where no patch is meant for any of them.
        """
        for at in reversed(self._oldest_first):
            here = [row.verdicts[at].word for row in self.rows if row.meant[at] is not False]
            if here and all(word in words for word in here):
                return self.versions[at]
        return None

    @property
    def _oldest_first(self) -> list[int]:
        """The places of the versions by number; what has none comes last, as it was asked for."""
        keys = [version_key(version) for version in self.versions]
        return sorted(range(len(keys)), key=lambda at: keys[at] if keys[at][0] == 0 else (1, ""))

    @property
    def newest_clean(self) -> str | None:
        """The newest version to which the whole series applies as it is."""
        return self.newest(Word.NEEDED)

    @property
    def newest_ready(self) -> str | None:
        """The newest version where every patch applies or may be dropped."""
        return self.newest(Word.NEEDED, Word.UPSTREAMED, Word.OBSOLETE)


@dataclass(frozen=True, slots=True)
class Series:
    """What is to be judged: the patches of one series at these versions, oldest first.

    covers: per version, whether its kind of source can hold a path. memo: the stack's; series of
    one stack share it, and the objects. origin: the tree of the release that the series is for.
    """

    objects: Objects
    patches: Sequence[Patch]
    versions: Sequence[Version]
    memo: Memo
    covers: Callable[[Version], Callable[[str], bool]] = lambda _: lambda _: True
    origin: str | None = None


def compute(
    objects: Objects,
    patches: Sequence[Patch],
    versions: Sequence[Version],
    memo: Memo,
    *,
    covers: Callable[[Version], Callable[[str], bool]] = lambda _: lambda _: True,
) -> Matrix:
    """Judge every patch of one series at every version, in this process."""
    return compute_all([Series(objects, patches, versions, memo, covers)], processes=1)[0]


def compute_all(series: Sequence[Series], *, processes: int) -> list[Matrix]:
    """Judge every patch of every series at every version, in up to so many processes.

    Their number changes the time and nothing else. Raises what judging a cell raises; of several
    cells, the first.
    """
    task = _Cells(series)
    units = len(task.units)
    done = 0
    while done < units and (processes < 2 or (task.examined < _FEW and not task.all_new)):
        task.do(done)
        done += 1
    if done < units and all(one.objects.on_disk for one in series):
        spread(done, units, task, processes)
    for unit in range(done, units):
        if unit not in task.found:
            task.do(unit)
    return task.matrices()


# A matrix that is remembered is over before another process has begun.
_FEW = 4


class _Cells:
    """The cells of all series. A unit is one version with every series of the stack: at the same
    version they read the same files."""

    def __init__(self, series: Sequence[Series]) -> None:
        self._series = series
        self.units: list[list[tuple[int, int]]] = []
        self.found: dict[int, list[tuple[Verdict, ...]]] = {}
        self._own: set[int] = set()
        stacks: dict[int, list[int]] = {}
        for number, one in enumerate(series):
            stacks.setdefault(id(one.objects), []).append(number)
        for members in stacks.values():
            for at in range(max(len(series[number].versions) for number in members)):
                cells = [(n, at) for n in members if at < len(series[n].versions)]
                self.units.append(cells)

    @property
    def examined(self) -> int:
        """How many cells were not remembered."""
        return sum({id(one.memo): one.memo.misses for one in self._series}.values())

    @property
    def all_new(self) -> bool:
        """Whether nothing at all is remembered, so that every cell will have to be examined."""
        return all(one.memo.empty for one in self._series)

    def do(self, unit: int) -> None:
        self.found[unit] = [
            _judge(self._series[number], self._series[number].versions[at])
            for number, at in self.units[unit]
        ]
        self._own.add(unit)

    def reopen(self) -> None:
        for objects in {id(one.objects): one.objects for one in self._series}.values():
            objects.reopen()
        self._own = set()

    def packed(self) -> bytes:
        cells = {
            unit: [[verdict.to_json() for verdict in column] for column in self.found[unit]]
            for unit in self._own
        }
        return json.dumps({"cells": cells, "memos": [m.since() for m in self._memos()]}).encode()

    def take(self, packed: bytes) -> None:
        document = json.loads(packed)
        for unit, columns in document["cells"].items():
            self.found[int(unit)] = [tuple(map(Verdict.from_json, column)) for column in columns]
        for memo, known in zip(self._memos(), document["memos"], strict=True):
            memo.take(known)

    def matrices(self) -> list[Matrix]:
        columns: list[list[tuple[Verdict, ...]]] = [[] for _ in self._series]
        for unit, cells in enumerate(self.units):
            for (number, _), column in zip(cells, self.found[unit], strict=True):
                columns[number].append(column)
        found = []
        for one, judged in zip(self._series, columns, strict=True):
            names = tuple(version.version for version in one.versions)
            rows = tuple(
                Row(
                    patch,
                    tuple(column[number] for column in judged),
                    tuple(patch.trailers.meant_for(name) for name in names),
                )
                for number, patch in enumerate(one.patches)
            )
            found.append(Matrix(names, rows))
        return found

    def _memos(self) -> list[Memo]:
        return list({id(one.memo): one.memo for one in self._series}.values())


def _judge(series: Series, version: Version) -> tuple[Verdict, ...]:
    """Every patch at one version.

    Patches of a series build on each other: each is judged on the version with those before it
    that apply there.
    """
    tree = version.tree
    pending: dict[str, Entry | None] = {}
    held = series.covers(version)
    verdicts = []
    for patch in series.patches:
        if not pending.keys().isdisjoint(patch.paths):
            tree, pending = series.objects.with_changes(tree, pending), {}
        found = series.memo.examine(series.objects, tree, patch, origin=series.origin, covers=held)
        verdicts.append(found.verdict)
        if found.verdict.word is Word.NEEDED:
            pending |= found.changes
    return tuple(verdicts)
