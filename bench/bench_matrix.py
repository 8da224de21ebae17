"""Every shipped series over every release of FlashInfer and SGLang, beside git am in a work tree.

The sources are in the store, and indexed, before anything is timed (1 GB of archives, brought
once); an import does both.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import synthetic
from bench.bench_apply import git
from bench.measure import Comparison, Contender, Goal, Sample, command, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stackpatch.sources.store import SourceStore, Stored

_ROOT = Path(__file__).parents[1]
_SPAN = {"flashinfer": "0.5.0", "sglang": "0.5.3"}
_WINDOWS, _LENGTH = 2, 3  # git am judges so many stretches of so many releases in a row
_LOOP = "for each patch, each release: git checkout, git am -3"
_OUTER = "for each release, each patch: git checkout, git am -3"
_GROWTH = (10, 100, 1000)
_UNTOUCHED = 100


@dataclass(frozen=True, slots=True)
class _Stack:
    """One stack: its releases, oldest first, its series as a person names them, its patches."""

    name: str
    store: SourceStore
    stored: list[Stored]
    series: list[str]
    mails: list[Path]

    @property
    def cells(self) -> int:
        return len(self.stored) * len(self.mails)

    @property
    def windows(self) -> list[tuple[Stored, list[Stored]]]:
        """Stretches of releases, and the one before each."""
        step = len(self.stored) // _WINDOWS
        starts = [step * number + step // 2 for number in range(_WINDOWS)]
        return [(self.stored[at - 1], self.stored[at : at + _LENGTH]) for at in starts]


def comparisons(work: Path) -> Iterator[Comparison]:
    """A new process each time: nothing remembered, and with the verdicts of the run before."""
    cache = work / "cache"
    os.environ["STACKPATCH_CACHE_DIR"] = str(cache)
    stacks = [_stack(name, first) for name, first in _SPAN.items()]
    trees = {stack.name: _work_tree(work, stack) for stack in stacks}
    cells = sum(stack.cells for stack in stacks)

    def loop(*, outer: bool) -> Sample:
        return Sample(sum(_loop(stack, trees[stack.name], outer=outer) for stack in stacks))

    ours = command(_matrix(_ROOT, *(name for stack in stacks for name in stack.series)))
    releases = ", ".join(f"{len(s.stored)} of {s.name}" for s in stacks)
    yield Comparison(
        title=f"every shipped series at every release: {cells} cells",
        note=f"Releases: {releases}. git am judges one patch at {_WINDOWS} stretches of {_LENGTH} "
        "releases of each stack, or all patches at the first of each stretch, and its time is "
        "scaled to all cells; with the releases outermost most of its checkouts have nothing to "
        "do.",
        contenders=(
            Contender(
                name="stackpatch matrix, nothing remembered",
                before=lambda: _forget(cache),
                run=ours,
            ),
            Contender(name=_LOOP, run=lambda: loop(outer=False)),
            Contender(name=_OUTER, run=lambda: loop(outer=True)),
        ),
        goals=(Goal(against=_LOOP, at_most=0.01), Goal(peak=300_000_000)),
        rounds=3,
    )
    yield Comparison(
        title="the same matrix again",
        contenders=(
            Contender(name="remembered", run=ours),
            Contender(name="nothing remembered", before=lambda: _forget(cache), run=ours),
            Contender(name="stackpatch list", run=command(_words("list"))),
        ),
        goals=(Goal(against="nothing remembered", at_most=0.2),),
        rounds=5,
    )
    yield from _growth(work, stacks[0])


def _growth(work: Path, stack: _Stack) -> Iterator[Comparison]:
    """A copy of the store, so that what is made up stays out of the other measurements."""
    cache = work / "grown"
    store = _copy(stack, cache)
    base = store.versions()[0]
    for stored in store.versions():
        if stored.version == "0.6.3":
            base = stored
    roots = {count: _root(work / f"root-{count}", store, base, count) for count in _GROWTH}
    refs = ",".join(
        stored.version for stored in stack.stored if "0.6.0" <= stored.version < "0.6.7"
    )
    first, *rest = reversed(_GROWTH)
    names = {count: f"{count:,} patches" for count in _GROWTH}

    def contender(name: str, root: Path, *words: str) -> Contender:
        run = command(_matrix(root, "flashinfer@0.6.3", *words))
        return Contender(name=name, before=lambda: _forget(cache), run=_within(cache, run))

    many = refs.count(",") + 1
    yield Comparison(
        title=f"a longer series, {many} releases",
        note="Each patch changes a function in a file of its own. Nothing is remembered.",
        contenders=tuple(
            contender(names[count], roots[count], "--refs", refs) for count in (first, *rest)
        ),
        goals=(
            Goal(against=names[100], at_most=15),
            Goal(against=names[10], at_most=150),
        ),
        rounds=1,
    )
    synthetic.add_releases(store, base, _UNTOUCHED)
    synthetic.index(store)
    some = f"{len(stack.stored)} releases"
    more = f"{some}, and {_UNTOUCHED} that touch no patched file"
    known = ",".join(stored.version for stored in stack.stored)
    yield Comparison(
        title="releases that do not touch the patched files",
        note="The shipped series of 0.6.3; nothing is remembered.",
        contenders=(
            contender(more, _ROOT, "--refs", "stored"),
            contender(some, _ROOT, "--refs", known),
        ),
        goals=(Goal(against=some, at_most=1.25),),
        rounds=3,
    )


# --- ours ---------------------------------------------------------------------------------------


def _words(verb: str, *more: str) -> list[str]:
    return [program("stackpatch"), verb, *more, "--json"]


def _matrix(root: Path, *more: str) -> list[str]:
    refs = () if "--refs" in more else ("--refs", "stored")
    return [*_words("matrix", *more, *refs), "--offline", "--root", str(root)]


def _forget(cache: Path) -> None:
    shutil.rmtree(cache / "verdicts", ignore_errors=True)


def _within(cache: Path, run: Callable[[], Sample]) -> Callable[[], Sample]:
    def inside() -> Sample:
        before = os.environ["STACKPATCH_CACHE_DIR"]
        os.environ["STACKPATCH_CACHE_DIR"] = str(cache)
        try:
            return run()
        finally:
            os.environ["STACKPATCH_CACHE_DIR"] = before

    return inside


def _stack(name: str, first: str) -> _Stack:
    from packaging.version import Version

    from stackpatch.model.collection import Collection
    from stackpatch.sources.fetch import fetch
    from stackpatch.sources.releases import index_versions
    from stackpatch.sources.store import SourceStore

    collection = Collection(_ROOT)
    recipe = collection.recipe(name)
    wanted = [n for n in index_versions(recipe) if Version(n) >= Version(first)]
    store = SourceStore(name)
    wanted.sort(key=Version)
    stored = fetch(recipe, list(wanted), store=store)
    synthetic.index(store)
    series = [collection.series(name, r) for r in recipe.releases if r.series is not None]
    return _Stack(
        name,
        store,
        stored,
        [f"{name}@{release.version}" for release in recipe.releases if release.series is not None],
        [_ROOT / one.where / patch.name for one in series for patch in one.patches],
    )


def _copy(stack: _Stack, cache: Path) -> SourceStore:
    """The stack's store with links to the same packs; what is written to it stays in it."""
    from stackpatch.sources.store import SourceStore

    target = cache / "sources" / stack.store.path.name
    if cache.exists():
        shutil.rmtree(cache)
    shutil.copytree(stack.store.path, target, copy_function=os.link)
    return SourceStore(stack.name, cache / "sources")


def _root(root: Path, store: SourceStore, base: Stored, count: int) -> Path:
    """Recipes and patches as they are, but FlashInfer 0.6.3 has a series of so many patches."""
    if root.exists():
        shutil.rmtree(root)
    shutil.copytree(_ROOT / "recipes", root / "recipes")
    shutil.copytree(_ROOT / "patches", root / "patches")
    series = root / "patches" / "flashinfer" / "v0.6.3"
    shutil.rmtree(series)
    synthetic.write_series(series, store.objects, base.tree, count)
    return root


# --- git ----------------------------------------------------------------------------------------


def _loop(stack: _Stack, tree: Path, *, outer: bool) -> float:
    """Seconds for all cells of the stack, from those of its windows."""
    spent = 0.0
    judged = 0
    for before, window in stack.windows:
        if outer:
            cells = [(one, mail) for one in window[:1] for mail in stack.mails]
        else:  # what one patch costs, another does
            cells = [(one, mail) for mail in stack.mails[:1] for one in window]
        git(tree, "checkout", "-q", "-f", before.commit)
        started = time.perf_counter()
        for one, mail in cells:
            _am(tree, one.commit, mail)
        spent += time.perf_counter() - started
        judged += len(cells)
    return spent / judged * stack.cells


def _work_tree(work: Path, stack: _Stack) -> Path:
    tree = work / stack.name
    if not tree.exists():
        git(work, "init", "-q", str(tree))
        alternates = tree / ".git" / "objects" / "info" / "alternates"
        alternates.write_text(f"{stack.store.path.absolute() / 'objects'}\n")
    return tree


def _am(tree: Path, commit: str, mail: Path) -> None:
    git(tree, "checkout", "-q", "-f", commit)
    words: Sequence[str] = (
        *("git", "-c", "user.name=b", "-c", "user.email=b@b"),
        *("am", "-q", "-3", str(mail)),
    )
    if subprocess.run(words, cwd=tree, capture_output=True).returncode:
        git(tree, "am", "--abort")
