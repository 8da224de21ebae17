"""Every patch of a series at every upstream version: where it is needed, where it landed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from stackpatch.model.verdict import Verdict, Word

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
    """One patch: a verdict per version, in the order of the versions."""

    patch: Patch
    verdicts: tuple[Verdict, ...]

    def first_landed(self, versions: Sequence[str]) -> str | None:
        """The first version from which on every later one has it; None when the newest has not."""
        first = None
        for version, verdict in zip(versions, self.verdicts, strict=True):
            landed = verdict.word is Word.UPSTREAMED
            first = (first or version) if landed else None
        return first


@dataclass(frozen=True, slots=True)
class Matrix:
    """Patches by versions, versions oldest first."""

    versions: tuple[str, ...]
    rows: tuple[Row, ...]

    def newest(self, *words: Word) -> str | None:
        """The newest version at which every patch has one of these verdicts."""
        for number in range(len(self.versions) - 1, -1, -1):
            if self.rows and all(row.verdicts[number].word in words for row in self.rows):
                return self.versions[number]
        return None

    @property
    def newest_clean(self) -> str | None:
        """The newest version to which the whole series applies as it is."""
        return self.newest(Word.NEEDED)

    @property
    def newest_ready(self) -> str | None:
        """The newest version where every patch applies or may be dropped."""
        return self.newest(Word.NEEDED, Word.UPSTREAMED, Word.OBSOLETE)


def compute(
    objects: Objects,
    patches: Sequence[Patch],
    versions: Sequence[Version],
    memo: Memo,
    *,
    covers: Callable[[Version], Callable[[str], bool]] = lambda _: lambda _: True,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Matrix:
    """Judge every patch at every version.

    Patches of a series build on each other: each is judged on the version with those before it
    that apply there. covers: per version, whether its kind of source can hold a path.
    """
    verdicts: list[list[Verdict]] = [[] for _ in patches]
    for number, version in enumerate(versions):
        tree = version.tree
        pending: dict[str, Entry | None] = {}
        held = covers(version)
        for row, patch in zip(verdicts, patches, strict=True):
            if not pending.keys().isdisjoint(patch.paths):
                tree, pending = objects.with_changes(tree, pending), {}
            found = memo.examine(objects, tree, patch, covers=held)
            row.append(found.verdict)
            if found.verdict.word is Word.NEEDED:
                pending |= found.changes
        progress(number + 1, len(versions))
    rows = tuple(Row(p, tuple(v)) for p, v in zip(patches, verdicts, strict=True))
    return Matrix(tuple(version.version for version in versions), rows)
