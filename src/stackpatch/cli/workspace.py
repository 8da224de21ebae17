"""What most commands start from: a recipe, one of its releases, its series, the source store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from stackpatch.cli.roots import Origin, find_root
from stackpatch.errors import InputError
from stackpatch.series.failures import not_applied

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stackpatch.cli.progress import Report
    from stackpatch.cli.roots import Root
    from stackpatch.model.collection import Collection
    from stackpatch.model.recipe import Recipe, Release
    from stackpatch.model.reference import VersionRef
    from stackpatch.model.series import Series, SeriesFiles
    from stackpatch.series.apply import SeriesResult
    from stackpatch.series.memo import Memo
    from stackpatch.sources.store import SourceStore, Stored


@dataclass(frozen=True)
class Workspace:
    """A stack at one of its pinned releases."""

    root: Root
    collection: Collection
    recipe: Recipe
    release: Release
    offline: bool

    @cached_property
    def series_files(self) -> SeriesFiles:
        """The files of the release's series. Raises InputError where they are not there."""
        return self.collection.series_files(self.recipe.stack, self.release)

    @cached_property
    def series(self) -> Series:
        """The release's patches. Raises InputError or Problems for what is wrong with them."""
        return self.series_files.parse()

    @cached_property
    def store(self) -> SourceStore:
        """The stack's source store."""
        from stackpatch.sources.store import SourceStore

        return SourceStore(self.recipe.stack)

    def at(self, release: str | None) -> Workspace:
        """Another release of the stack, with all that was read of the recipe and the store."""
        beside = replace(self, release=self.recipe.release(release))
        vars(beside)["store"] = self.store
        return beside

    def base(self, report: Report, *, like: Stored | None = None) -> Stored:
        """The release in the source store, brought there if it is not.

        like: for a version from git, the release from git where it was fetched: only then is
        there a history between the two.
        """
        from stackpatch.model.reference import SourceKind, VersionRef

        if like is not None and like.kind is SourceKind.GIT:
            found = self.store.find(SourceKind.GIT, self.release.version)
            if found is not None:
                return found
        return self.resolve(VersionRef(self.release.source, self.release.version), report)

    def bring(self, version: str, report: Report) -> Stored:
        """A version in the source store, fetched if it is not there.

        Raises InputError for a version that nobody has, EnvironmentProblem for the network.
        """
        from stackpatch.model.reference import VersionRef

        return self.resolve(VersionRef.parse(version), report)

    def resolve(self, ref: VersionRef, report: Report) -> Stored:
        """The version that a person named, fetched if the store does not have it."""
        from stackpatch.sources.fetch import bring

        return bring(self.recipe, ref, store=self.store, offline=self.offline, report=report)

    def newest(self, report: Report) -> Stored:
        """The newest final version on the package index; without one, in the source store."""
        from stackpatch.sources.releases import index_versions

        known = [] if self.offline else index_versions(self.recipe)
        if known:
            return self.bring(known[-1], report)
        stored = self.newest_stored()
        if stored is None:
            msg = f"no version of {self.recipe.stack} is in the source store"
            raise InputError(msg, hint="`stackpatch fetch` brings versions into the store")
        return stored

    def newest_stored(self) -> Stored | None:
        """The newest version in the source store; None where it has none."""
        from stackpatch.model.reference import version_number

        stored = [one for one in one_each(self.store.versions()) if version_number(one.version)]
        return stored[-1] if stored else None

    def fetch_history(self) -> None:
        """Every upstream commit in the store. Raises InputError offline, EnvironmentProblem."""
        from stackpatch.sources.git import fetch_history

        if self.offline:
            msg = "--history needs the network, and --offline forbids it"
            raise InputError(msg, hint="say one of them")
        fetch_history(self.store, self.recipe.upstream.git)

    def covers(self, stored: Stored) -> Callable[[str], bool]:
        """Whether the stored kind of source can hold a path of the git tree at all."""
        from stackpatch.model.layout import Layout

        rules = self.recipe.layouts.rules(stored.kind)
        if not rules:
            return lambda _: True
        return Layout.of((rule.here, rule.git) for rule in rules).covers

    def on_base(self, base: Stored) -> SeriesResult:
        """The series on its own release, which also puts every file between two patches into the
        store. Raises FindingError, with every failure, when it does not apply there."""
        from stackpatch.series.apply import apply_series

        result = apply_series(
            self.store.objects, base.tree, self.series.patches, parent=base.commit
        )
        if not result.applied:
            raise not_applied(self.series.where, base.label, result)
        return result

    def memo(self) -> Memo:
        """The verdicts of earlier runs."""
        from stackpatch.series.memo import Memo
        from stackpatch.storage import cache_root

        return Memo(cache_root() / "verdicts" / f"{self.recipe.stack}.json")

    def writable(self) -> Path:
        """The folder to write a new series into. Raises InputError for the installed set."""
        if self.root.origin is Origin.INSTALLED:
            msg = "the recipes and patches that came with the package are not to be changed"
            raise InputError(msg, hint="copy them into a folder of yours and name it with --root")
        return self.root.path


def open_workspace(stack: str, root: Path | None, *, offline: bool = False) -> Workspace:
    """The stack that a person named, `flashinfer` or `flashinfer@0.6.3`."""
    from stackpatch.model.collection import Collection
    from stackpatch.model.reference import StackRef

    wanted = StackRef.parse(stack)
    found = find_root(root)
    collection = Collection(found.path)
    recipe = collection.recipe(wanted.stack)
    return Workspace(found, collection, recipe, recipe.release(wanted.release), offline)


def one_each(stored: Sequence[Stored]) -> list[Stored]:
    """One source for each version number, in the order given: git before sdist before wheel."""
    from stackpatch.sources.store import version_key

    best: dict[object, Stored] = {}
    for one in stored:
        best.setdefault(version_key(one.version), one)
    return list(best.values())


def shown_patches(names: Sequence[str]) -> str:
    """`1 patch` or `4 patches`."""
    return f"{len(names)} patch{'es' * (len(names) != 1)}"
