"""The series as each arch gets it: without the patches that are for others.

A patch that moves is written against a tree with every patch before it. Where one of those is not
for all arches, its lines may stand in the context, and then it does not apply for the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.series.apply import apply_patch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stackpatch.model.patch import Patch
    from stackpatch.sources.objects import Objects


class Variants:
    """The trees of the arches that do not get every patch of a series, as it is put on."""

    def __init__(self, objects: Objects, tree: str, archs: Iterable[str]) -> None:
        """archs: the recipe's. tree: upstream's."""
        self._objects = objects
        self._trees = dict.fromkeys(archs, tree)
        self._without: dict[str, str] = {}

    def __bool__(self) -> bool:
        """Whether there is any: none where every arch gets every patch."""
        return bool(self._trees)

    def add(self, patch: Patch) -> str | None:
        """Put the next patch on wherever it belongs; why it does not go on somewhere."""
        found = None
        done: dict[str, str] = {}
        for arch, tree in self._trees.items():
            if patch.trailers.archs is not None and arch not in patch.trailers.archs:
                self._without.setdefault(arch, patch.name)
                continue
            if tree not in done:
                result = apply_patch(self._objects, tree, patch)
                done[tree] = result.tree
                if result.failures and arch in self._without and found is None:
                    first = result.failures[0]
                    found = (
                        f"for {arch}, which is without {self._without[arch]}, it does not: "
                        f"{first.path}: {first.detail}"
                    )
            self._trees[arch] = done[tree]
        return found
