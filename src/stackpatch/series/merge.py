"""Three-way merge of one file's bytes, by libgit2, without touching the source store."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from stackpatch.sources.objects import REGULAR

if TYPE_CHECKING:
    import pygit2


@cache
def _scratch() -> pygit2.Repository:
    import pygit2

    folder = Path(tempfile.mkdtemp(prefix="stackpatch-merge-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return pygit2.init_repository(str(folder), bare=True)


def merge(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    """The merge of both sides' changes to base; None when they conflict.

    The same bytes as `git merge-file`: libgit2's xdiff, no heuristics of ours.
    """
    from pygit2.enums import MergeFlag

    if base in (ours, theirs):
        return theirs if base == ours else ours
    if ours == theirs:
        return ours
    repository = _scratch()
    trees = []
    for content in (base, ours, theirs):
        builder = repository.TreeBuilder()
        builder.insert("f", repository.create_blob(content), REGULAR)
        trees.append(builder.write())
    # No rename detection and no favour: one file, conflicts reported as such.
    index = repository.merge_trees(trees[0], trees[1], trees[2], flags=MergeFlag(0))
    if index.conflicts is not None:
        return None
    return repository.read(index["f"].id)[1]
