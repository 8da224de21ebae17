"""Importing a release into the source store beside unpacking it and adding it to a repository."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from bench.measure import Comparison, Contender, Goal, call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_RELEASES = {
    "flashinfer_python-0.6.3.tar.gz": (
        "84a762538247a86bc52ff31d9505d161ce1ec059174c1821c87c3ed1e44670fc"
    ),
    "flashinfer_python-0.7.2.post1.tar.gz": "",
}
_PROJECT = "flashinfer-python"


def comparisons(work: Path) -> Iterator[Comparison]:
    """A small release and the largest one, each into an empty store; then the same again."""
    from stackpatch.model.reference import SourceKind
    from stackpatch.sources.archive import members
    from stackpatch.sources.download import DownloadCache, Pinned
    from stackpatch.sources.releases import open_index
    from stackpatch.sources.store import SourceStore

    index = open_index()
    downloads = DownloadCache(work / "downloads")
    stores, tree = work / "stores", work / "tree"

    def imported(archive: Path) -> None:
        SourceStore("bench", stores).import_files(
            SourceKind.SDIST, "1", members(archive), seconds=0, evidence={"Artefact": archive.name}
        )

    for file, pin in _RELEASES.items():
        found = index.locate(_PROJECT, file, pin or None)
        wanted = Pinned(file, pin or str(found.sha256))
        archive = downloads.fetch(wanted, lambda found=found: found.url, index.transport)  # type: ignore[misc]
        version = file.removesuffix(".tar.gz").rpartition("-")[2]
        yield Comparison(
            title=f"Import of flashinfer {version}",
            contenders=(
                Contender(
                    name="into an empty store",
                    run=call(lambda archive=archive: imported(archive)),  # type: ignore[misc]
                    before=lambda: shutil.rmtree(stores, ignore_errors=True),
                ),
                Contender(
                    name="tar x, git add, git commit",
                    run=call(_unpacked(archive, tree)),
                    before=lambda: _fresh(tree),
                ),
            ),
            goals=(Goal(against="tar x, git add, git commit", at_most=2.0),),
            rounds=3,
            note=f"{archive.stat().st_size:,} bytes packed.",
        )
        imported(archive)
        yield Comparison(
            title=f"Import of flashinfer {version}, which is there",
            contenders=(
                Contender(
                    name="the same again",
                    run=call(lambda archive=archive: imported(archive)),  # type: ignore[misc]
                ),
            ),
            goals=(Goal(seconds=0.05),),
        )


def _fresh(tree: Path) -> None:
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)


def _unpacked(archive: Path, tree: Path) -> Callable[[], None]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env = {**kept, "GIT_CONFIG_GLOBAL": os.devnull}
    # A commit of so many loose objects starts a gc in the background, whose work would fall into
    # the time of whoever is measured next.
    who = ("-c", "user.name=a", "-c", "user.email=b", "-c", "gc.auto=0", "-c", "maintenance.auto=0")

    def run() -> None:
        for argv in (
            ("git", "init", "-q"),
            ("tar", "xf", str(archive)),
            ("git", "add", "-A"),
            ("git", *who, "commit", "-q", "-m", "x"),
        ):
            subprocess.run(argv, cwd=tree, env=env, check=True)

    return run
