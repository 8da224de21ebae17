"""The shipped series over every release of FlashInfer and SGLang, beside git am in a work tree.

The sources are in the store before anything is timed (1 GB of archives, brought once).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.bench_apply import git
from bench.measure import Comparison, Contender, Goal, Sample, command, program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackpatch.model.series import Series
    from stackpatch.sources.store import SourceStore, Stored

_ROOT = Path(__file__).parents[1]
_SAMPLE = 8  # versions of each stack at which git am judges one patch; scaled to all cells
_SPAN = {"flashinfer": "0.5.0", "sglang": "0.5.3"}


def comparisons(work: Path) -> Iterator[Comparison]:
    """A new process each time: nothing remembered, and with the verdicts of the run before."""
    cache = work / "cache"
    os.environ["STACKPATCH_CACHE_DIR"] = str(cache)
    loops = []
    cells = 0
    for stack, first in _SPAN.items():
        store, stored, series = _fetched(stack, first)
        cells += len(stored) * len(series.patches)
        loops.append((_work_tree(work, stack, store), stored, series))
    judged = sum(len(_sample(stored)) for _, stored, _ in loops)
    verdicts = cache / "verdicts"
    ours = [program("stackpatch"), "matrix", "--all", "--refs", "all", "--offline", "--json"]
    ours += ["--root", str(_ROOT)]

    def loop() -> Sample:
        started = time.perf_counter()
        for tree, stored, series in loops:
            for one in _sample(stored):
                _am(tree, one.commit, _ROOT / series.where / series.patches[0].name)
        return Sample((time.perf_counter() - started) / judged * cells)

    yield Comparison(
        title=f"matrix of the default series: {cells} cells",
        note=f"git am judges {judged} cells; its time is scaled to all {cells}.",
        contenders=(
            Contender(
                name="stackpatch matrix, nothing remembered",
                before=lambda: shutil.rmtree(verdicts, ignore_errors=True),
                run=command(ours),
            ),
            Contender(name="checkout and git am -3, scaled", run=loop),
        ),
        goals=(Goal(against="checkout and git am -3, scaled", at_most=0.01),),
        rounds=3,
    )
    yield Comparison(
        title="the same matrix again",
        contenders=(
            Contender(name="remembered", run=command(ours)),
            Contender(
                name="nothing remembered",
                before=lambda: shutil.rmtree(verdicts, ignore_errors=True),
                run=command(ours),
            ),
        ),
        goals=(Goal(against="nothing remembered", at_most=0.2),),
        rounds=3,
    )


def _fetched(stack: str, first: str) -> tuple[SourceStore, list[Stored], Series]:
    from packaging.version import Version

    from stackpatch.model.collection import Collection
    from stackpatch.sources.fetch import fetch, index_versions
    from stackpatch.sources.store import SourceStore

    collection = Collection(_ROOT)
    recipe = collection.recipe(stack)
    names = [n for n in index_versions(recipe) if Version(n) >= Version(first)]
    store = SourceStore(stack)
    return (
        store,
        fetch(recipe, list(names), store=store),
        collection.series(stack, recipe.release()),
    )


def _sample(stored: list[Stored]) -> list[Stored]:
    return stored[:: max(len(stored) // _SAMPLE, 1)][:_SAMPLE]


def _work_tree(work: Path, stack: str, store: SourceStore) -> Path:
    tree = work / stack
    if not tree.exists():
        git(work, "init", "-q", str(tree))
        alternates = tree / ".git" / "objects" / "info" / "alternates"
        alternates.write_text(f"{store.path.absolute() / 'objects'}\n")
    return tree


def _am(tree: Path, commit: str, mail: Path) -> None:
    git(tree, "checkout", "-q", "-f", commit)
    words = ("git", "-c", "user.name=b", "-c", "user.email=b@b", "am", "-q", "-3", str(mail))
    if subprocess.run(words, cwd=tree, capture_output=True).returncode:
        git(tree, "am", "--abort")
