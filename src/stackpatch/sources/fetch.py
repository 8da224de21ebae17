"""Upstream versions brought into the source store, from git or from the package index.

What is in the store already costs no network and reads no archive, nor the modules for them (half
of a command's start). A release that the recipe pins must have the recipe's digests; another one
is taken at the index's word, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from stackpatch import storage
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.model.layout import Layout
from stackpatch.model.recipe import Release
from stackpatch.model.reference import SourceKind, VersionRef
from stackpatch.sources.download import DownloadCache, Pinned
from stackpatch.sources.store import SourceStore, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from stackpatch.model.recipe import Recipe
    from stackpatch.sources.archive import Member, Progress
    from stackpatch.sources.pypi import PackageIndex
    from stackpatch.sources.releases import IndexVersion

    Report = Callable[[str, int, int | None], None]
    Wanted = str | VersionRef | Release

_PINNED = "recipe"
_UNPINNED = "index, not pinned"
UNDATED = 0  # the commit time of a release whose date nobody pinned: an index page gives none


def fetch(
    recipe: Recipe,
    versions: Wanted | Sequence[Wanted],
    kinds: Sequence[SourceKind] | None = None,
    *,
    offline: bool = False,
    report: Report | None = None,
    platform: str | None = None,
    store: SourceStore | None = None,
    index: PackageIndex | None = None,
) -> list[Stored]:
    """These versions in the store, in the order asked for; each in every one of the kinds.

    versions: numbers, tags, references, releases of the recipe. kinds: without any, a reference's
    own; else what the store has, git before sdist before wheel; else what the recipe or the index
    has, sdist before wheel before git. report: called
    with a label, bytes done, bytes in all. platform: whose wheel, where they differ.

    Raises InputError for what nobody has, FindingError for an index or a tag that contradicts the
    recipe, EnvironmentProblem for the network, the disk, and everything missing when offline.
    """
    work = _Fetch(recipe, store or SourceStore(recipe.stack), offline, report, platform, index)
    listed: Sequence[Wanted] = (
        [versions] if isinstance(versions, (str, VersionRef, Release)) else versions
    )
    refs = [_reference(each) for each in listed]
    asked = [(ref, kind) for ref in refs for kind in work.kinds(ref, kinds)]
    found = [work.stored(ref, kind) for ref, kind in asked]
    if offline:
        work.refuse_missing([pair for pair, stored in zip(asked, found, strict=True) if not stored])
    return [
        stored or work.bring(ref, kind) for (ref, kind), stored in zip(asked, found, strict=True)
    ]


def bring(
    recipe: Recipe,
    ref: VersionRef,
    *,
    store: SourceStore | None = None,
    offline: bool = False,
    report: Report | None = None,
) -> Stored:
    """One version that a person named, from the store or else fetched into it. Raises as fetch."""
    return fetch(recipe, ref, store=store, offline=offline, report=report)[0]


def artefact(
    recipe: Recipe,
    release: Release,
    kind: SourceKind,
    platform: str | None = None,
    *,
    python: str | None = None,
    offline: bool = False,
    report: Report | None = None,
    index: PackageIndex | None = None,
) -> Path:
    """A pinned file of the release in the download cache, hashed again just now.

    Raises as fetch.
    """
    pin = recipe.artefact(release, kind, platform, python)
    wanted = Pinned(pin.file, pin.sha256, pin.size)
    cache = _downloads()
    if offline:
        path = cache.find(wanted)
        if path is None:
            msg = f"{pin.file} is not in the download cache, and --offline forbids to fetch it"
            raise EnvironmentProblem(msg, hint=f"without it: `stackpatch fetch {recipe.stack}`")
        return path
    return _download(cache, wanted, recipe.upstream.pypi, index or _open_index(), report)


@dataclass(frozen=True, slots=True)
class _Source:
    """One archive that becomes a version in the store."""

    kind: SourceKind
    version: str
    file: Pinned
    seconds: int
    digest_from: str

    def evidence(self, layout: Layout) -> dict[str, str]:
        return {
            "Artefact": self.file.file,
            "Sha256": self.file.sha256,
            "Layout": layout.digest,
            "Digest-From": self.digest_from,
        }


@dataclass(slots=True)
class _Fetch:
    """One call of fetch: what the recipe, the store and the index say about a version."""

    recipe: Recipe
    store: SourceStore
    offline: bool
    report: Report | None
    platform: str | None
    index: PackageIndex | None
    _unpinned: dict[tuple[str, SourceKind], _Source] = field(default_factory=dict)

    def kinds(self, ref: VersionRef, asked: Sequence[SourceKind] | None) -> list[SourceKind]:
        """The kinds of source to bring for a version."""
        if ref.kind is not None:
            return [ref.kind]
        if asked is not None:
            return list(dict.fromkeys(asked))
        release = self._release(ref)
        pinned = [pin.kind for pin in release.artefacts] if release else list(_ARCHIVES)
        for kind in (SourceKind.GIT, *_ARCHIVES):
            if kind in (SourceKind.GIT, *pinned) and self.stored(ref, kind):
                return [kind]
        if release is not None:
            return [next((kind for kind in _ARCHIVES if kind in pinned), SourceKind.GIT)]
        return [SourceKind.SDIST if self.offline else self._on_index(ref.name).kind]

    def stored(self, ref: VersionRef, kind: SourceKind) -> Stored | None:
        """The version, if the store has it as the recipe and the layout want it today."""
        if kind is SourceKind.GIT:
            release = self._release(ref)
            if release is None:
                # A commit never changes its meaning; a branch does, so it is asked for again.
                found = self.store.find(kind, ref.name)
                fixed = found is not None and found.evidence.get("Ref") != "branch"
                return found if fixed or self.offline else None
            found = self.store.find(kind, release.version)
            return found if found is not None and found.commit == release.commit else None
        layout = self._layout(kind)
        for source in self._known_sources(ref, kind):
            found = self.store.imported(
                kind, source.version, seconds=source.seconds, evidence=source.evidence(layout)
            )
            if found is not None:
                return found
        return None

    def bring(self, ref: VersionRef, kind: SourceKind) -> Stored:
        """The version, fetched and imported."""
        if kind is SourceKind.GIT:
            from stackpatch.sources import git

            release = self._release(ref)
            url = self.recipe.upstream.git
            progress = self._progress(f"git fetch {ref.name}")
            if release is None:
                return git.fetch_unpinned(self.store, url, ref.name, progress)
            if release.commit is None:
                msg = f"nobody knows the commit of {self.recipe.stack} {release.version}"
                raise InputError(msg, hint="pin it in the recipe, or take the sdist or the wheel")
            return git.fetch_pinned(
                self.store, url, release.version, release.commit, release.tag, progress
            )
        from stackpatch.sources import archive

        source = next(iter(self._known_sources(ref, kind)), None) or self._from_index(ref, kind)
        path = _downloads().find(source.file) or self._download(source.file)
        layout = self._layout(kind)
        return self.store.import_files(
            kind,
            source.version,
            _mapped(archive.members(path, progress=self._progress(f"import {path.name}")), layout),
            seconds=source.seconds,
            evidence=source.evidence(layout),
        )

    def refuse_missing(self, pairs: list[tuple[VersionRef, SourceKind]]) -> None:
        """Raise one error with everything that offline work cannot do without."""
        missing = []
        for ref, kind in pairs:
            sources = self._known_sources(ref, kind) if kind is not SourceKind.GIT else []
            if not any(_downloads().find(source.file) for source in sources):
                file = f" ({sources[0].file.file})" if sources else ""
                known = ref.kind is not None or self._release(ref) is not None
                missing.append(f"{kind}:{ref.name}{file}" if known else ref.name)
        if missing:
            msg = f"not here, and --offline forbids to fetch it: {', '.join(missing)}"
            names = " ".join(dict.fromkeys(text.partition(" ")[0] for text in missing))
            hint = f"once, with a network: `stackpatch fetch {self.recipe.stack} {names}`"
            raise EnvironmentProblem(msg, hint=hint)

    # --- inside ---------------------------------------------------------------------------------

    def _release(self, ref: VersionRef) -> Release | None:
        """The recipe's release of that number, tag or commit."""
        for release in self.recipe.releases:
            if ref.name in (release.version, release.tag) or (
                ref.version is not None and VersionRef(None, release.version).version == ref.version
            ):
                return release
            if ref.kind is SourceKind.GIT and ref.name == release.commit:
                return release
        return None

    def _known_sources(self, ref: VersionRef, kind: SourceKind) -> list[_Source]:
        """What we know without asking anybody: the recipe's pins, else what the store was made of.

        Several wheels of one release differ by machine; without a platform any of them serves,
        the usual one first.
        """
        release = self._release(ref)
        if release is not None:
            pins = [pin for pin in release.artefacts if pin.kind is kind]
            if not pins:
                self.recipe.artefact(release, kind)  # says what the recipe does pin
            if self.platform is not None or len(pins) == 1:
                pins = [self.recipe.artefact(release, kind, self.platform)]
            elif (usual := self.recipe.artefact(release, kind)) in pins:
                pins = [usual, *(pin for pin in pins if pin is not usual)]
            return [
                _Source(
                    kind,
                    release.version,
                    Pinned(pin.file, pin.sha256, pin.size),
                    release.epoch,
                    _PINNED,
                )
                for pin in pins
            ]
        known = self._unpinned.get((ref.name, kind))
        stored = self.store.find(kind, ref.name)
        if known is None and stored is not None and stored.evidence.get("Digest-From") == _UNPINNED:
            pinned = Pinned(stored.evidence["Artefact"], stored.evidence["Sha256"])
            known = _Source(kind, stored.version, pinned, UNDATED, _UNPINNED)
        return [known] if known else []

    def _from_index(self, ref: VersionRef, kind: SourceKind) -> _Source:
        version = self._on_index(ref.name)
        file = version.sources.get(kind)
        if file is None or file.sha256 is None:
            have = ", ".join(each.name for each in version.files)
            msg = f"the index has no {kind} of {self.recipe.stack} {version.version} for us"
            raise InputError(msg, hint=f"it has {have}")
        pinned = Pinned(file.name, file.sha256, file.size)
        source = _Source(kind, ref.name, pinned, UNDATED, _UNPINNED)
        self._unpinned[ref.name, kind] = source
        return source

    def _on_index(self, version: str) -> IndexVersion:
        from stackpatch.sources.releases import index_version

        return index_version(self.recipe, version, self._index(), self.platform)

    def _index(self) -> PackageIndex:
        if self.index is None:
            self.index = _open_index()
        return self.index

    def _download(self, file: Pinned) -> Path:
        return _download(_downloads(), file, self.recipe.upstream.pypi, self._index(), self.report)

    def _layout(self, kind: SourceKind) -> Layout:
        rules = self.recipe.layouts.rules(kind)
        return Layout.of((rule.here, rule.git) for rule in rules) if rules else Layout.identity()

    def _progress(self, label: str) -> Progress | None:
        report = self.report
        return None if report is None else lambda done, total: report(label, done, total)


_ARCHIVES = (SourceKind.SDIST, SourceKind.WHEEL)


def _reference(wanted: Wanted) -> VersionRef:
    if isinstance(wanted, VersionRef):
        return wanted
    return VersionRef.parse(wanted if isinstance(wanted, str) else wanted.version)


def _mapped(members: Iterator[Member], layout: Layout) -> Iterator[Member]:
    for member in members:
        path = layout.to_git(member.path)
        if path is not None:
            yield member if path == member.path else replace(member, path=path)


def _open_index() -> PackageIndex:
    from stackpatch.sources.releases import open_index

    return open_index()


def _downloads() -> DownloadCache:
    return DownloadCache(storage.cache_root() / "downloads")


def _download(
    cache: DownloadCache, file: Pinned, project: str, index: PackageIndex, report: Report | None
) -> Path:
    return cache.fetch(
        file,
        lambda: index.locate(project, file.file, file.sha256).url,
        index.transport,
        None if report is None else lambda done, total: report(file.file, done, total),
    )
