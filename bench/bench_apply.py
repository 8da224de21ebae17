"""Applying FlashInfer 0.6.3's series: in the source store, beside git in a work tree."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import Comparison, Contender, Goal, call, command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_ROOT = Path(__file__).parents[1]
_IDENTITY = {
    "GIT_AUTHOR_NAME": "b",
    "GIT_AUTHOR_EMAIL": "b@localhost",
    "GIT_COMMITTER_NAME": "b",
    "GIT_COMMITTER_EMAIL": "b@localhost",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}


def comparisons(work: Path) -> Iterator[Comparison]:
    """Beside git on the same tree, and on trees of two sizes."""
    os.environ["STACKPATCH_CACHE_DIR"] = str(work / "cache")
    from stackpatch.model.collection import Collection
    from stackpatch.sources.fetch import fetch
    from stackpatch.sources.store import SourceStore

    collection = Collection(_ROOT)
    recipe = collection.recipe("flashinfer")
    release = recipe.release("0.6.3")
    series = collection.series("flashinfer", release).for_arch("sm121")
    stored = fetch(recipe, release)[0]
    store = SourceStore("flashinfer").path
    folder = _ROOT / "patches" / "flashinfer" / "v0.6.3"
    mails = [folder / patch.name for patch in series.patches]

    tree = work / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    git(work, "init", "-q", str(tree))
    git(tree, "fetch", "-q", str(store), stored.commit)
    git(tree, "checkout", "-q", "-f", "FETCH_HEAD")
    clean = ["git", "reset", "-q", "--hard", stored.commit]

    def reset() -> None:
        subprocess.run(clean, cwd=tree, check=True, env={**os.environ, **_IDENTITY})
        git(tree, "status", "--porcelain")  # a fresh index: no run pays for the other's reset

    yield Comparison(
        title="apply the series of FlashInfer 0.6.3 (sm121)",
        note=(
            f"{len(mails)} patches on {count(store, stored.tree):,} files. Ours reads the patch "
            "files, opens a copy of the store that has nothing of the result yet, applies with "
            "every guard and commits. git is called as a Python program calls it."
        ),
        contenders=(
            in_store(work, store, stored.tree, "stackpatch, in the process", folder),
            called("git apply", tree, reset, ["git", "apply", *mails]),
            called("git apply --index", tree, reset, ["git", "apply", "--index", *mails]),
            called("git am -3", tree, reset, ["git", "am", "-q", "-3", *mails]),
            Contender(
                name="git apply, only from spawn to exit",
                before=reset,
                run=command(["git", "apply", *mails], cwd=tree, env=_IDENTITY),
            ),
        ),
        goals=(
            Goal(against="git apply", at_most=3.0),
            Goal(against="git am -3", at_most=0.2),
        ),
        rounds=15,
    )

    sizes = {size: padded(store, stored.tree, size) for size in (2_000, 10_000)}
    small, large = (in_store(work, store, sizes[size], f"{size:,} files", folder) for size in sizes)
    yield Comparison(
        title="the same series on a tree of another size",
        note="The tree of the release, with files added beside the ones that the patches touch.",
        contenders=(large, small),
        goals=(Goal(against="2,000 files", at_most=1.25),),
        rounds=15,
    )


def called(
    name: str, tree: Path, reset: Callable[[], None], argv: Sequence[str | Path]
) -> Contender:
    """A program as a Python program calls it: what the alternative to doing it ourselves costs."""
    environment = {**os.environ, **_IDENTITY}

    def run() -> None:
        subprocess.run(argv, cwd=tree, check=True, capture_output=True, env=environment)

    return Contender(name=name, before=reset, run=call(run))


def in_store(work: Path, store: Path, tree: str, name: str, folder: Path) -> Contender:
    """Load the series and apply it to the tree, in a copy of the store made for every run."""
    copy = work / "copy.git"

    def before() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(store, copy, copy_function=os.link)

    return Contender(name=name, before=before, run=call(lambda: apply(copy, tree, folder)))


def apply(store: Path, tree: str, folder: Path) -> None:
    """What `stackpatch build` does between reading the recipe and making the wheel."""
    from stackpatch.model.series import load_series
    from stackpatch.series.apply import apply_series
    from stackpatch.sources.objects import Objects

    patches = load_series(folder).for_arch("sm121").patches
    result = apply_series(Objects(store).scratch(), tree, patches)
    if not result.applied or len(result.commits) != len(patches):
        msg = "the series does not apply: nothing was measured"
        raise RuntimeError(msg)


def padded(store: Path, tree: str, size: int) -> str:
    """The tree with so many files more that it has `size`, or as it is where it has them."""
    from stackpatch.sources.objects import REGULAR, Entry, Objects

    objects = Objects(store)
    paths = [path for path, _ in objects.walk(tree)]
    folders = sorted({path.rpartition("/")[0] for path in paths})
    filler = objects.write_blob(b"// nothing\n")
    return objects.with_changes(
        tree,
        {
            f"{folders[number % len(folders)]}/zz-{number}.h".lstrip("/"): Entry(REGULAR, filler)
            for number in range(size - len(paths))
        },
    )


def count(store: Path, tree: str) -> int:
    """How many files the tree has."""
    from stackpatch.sources.objects import Objects

    return sum(1 for _ in Objects(store).walk(tree))


def git(folder: Path, *words: str) -> None:
    """Run git, untimed."""
    environment = {**os.environ, **_IDENTITY}
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, env=environment)
