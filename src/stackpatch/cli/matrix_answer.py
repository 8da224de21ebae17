"""What `stackpatch matrix` is asked, answered: by what is remembered, else by judging."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackpatch.cli import output
from stackpatch.errors import EnvironmentProblem, FindingError, InputError, StackpatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stackpatch.cli.matrix_inputs import Question
    from stackpatch.cli.progress import Report
    from stackpatch.cli.workspace import Workspace
    from stackpatch.series.finished import Finished
    from stackpatch.series.matrix import Matrix, Version
    from stackpatch.series.memo import Memo
    from stackpatch.sources.store import Stored


@dataclass(frozen=True, slots=True)
class Answer:
    """written: the document of each series that could be judged. failed: why the others could not.

    One series that was asked for alone fails by raising; among several, the others are still told.
    """

    written: list[output.Written]
    failed: Sequence[tuple[str, StackpatchError]] = ()


def answer(question: Question, words: Sequence[str] | None = None) -> Answer:
    """The document of each series: the last run's where nothing has changed, judged where it has.

    words: those in which the question was asked; what answers them is remembered under them.
    Raises InputError for what is not there, and what bringing and judging the versions raises.
    """
    from stackpatch.cli import matrix_inputs
    from stackpatch.series import finished
    from stackpatch.storage import cache_root

    folder = cache_root() / "verdicts"
    kept = finished.Finished(folder)
    if words is None or not question.decided_here:
        return _Run(question, kept).answer()
    state = matrix_inputs.state(question)
    # An answer is that of a state which is the same before and after. The first run of all brings
    # what it needs into the store; it is looked at again, with all that is remembered by then.
    for _ in range(2):
        run = _Run(question, kept)
        found = run.answer()
        before, state = state, matrix_inputs.state(question)
        if found.failed:
            break
        if state is not None and state == before:
            matrices = tuple((one.name, one.key()) for one in run.asked)
            told = finished.Answer(question.to_json(), state, matrices)
            finished.Answers(folder).keep(matrix_inputs.asked_here(words), told)
            break
    return found


@dataclass(frozen=True, slots=True)
class _Asked:
    """One series and the versions it is to be judged at. base: the release it was made for."""

    work: Workspace
    base: Stored
    versions: list[Stored]

    @property
    def name(self) -> str:
        return f"{self.work.recipe.stack}-{self.work.release.version}"

    def key(self) -> str:
        """Of all that the matrix of these depends on, and of what its document says besides.

        Another one once judging has put the sides of the patches into the store.
        """
        from stackpatch.cli.matrix_inputs import wording
        from stackpatch.series import finished

        stored = [self.base, *self.versions]
        kinds = sorted({one.kind for one in stored})
        rules = [self.work.recipe.layouts.rules(kind) for kind in kinds]
        return finished.key(
            self.work.store.objects,
            self.work.series_files.files,
            wording(),
            *(self.work.recipe.stack, self.work.release.version, self.work.series_files.where),
            [(one.label, one.commit, one.tree) for one in stored],
            [[(rule.here, rule.git) for rule in each] for each in rules],
        )


class _Run:
    """One run: what was asked becomes series and versions, and those a document each."""

    def __init__(self, question: Question, kept: Finished) -> None:
        self._question = question
        self._kept = kept
        self.asked: list[_Asked] = []
        self._failed: list[tuple[str, StackpatchError]] = []

    def answer(self) -> Answer:
        """Ask for every series, and judge those that nothing is kept of."""
        self._ask()
        found = {one.name: self._kept.find(one.name, one.key()) for one in self.asked}
        open_ones = []
        for one in [one for one in self.asked if found[one.name] is None]:
            with self._of_several(one.name):
                one.work.on_base(one.base)
                open_ones.append(one)
        judged = dict(zip([one.name for one in open_ones], _judged(open_ones), strict=True))
        written = []
        for one in self.asked:
            known = found[one.name]
            if known is not None:
                written.append(output.Written(known))
            elif one.name in judged:
                document = matrix_document(one.work, judged[one.name], one.versions)
                written.append(output.written(document))
                self._kept.keep(one.name, one.key(), written[-1])
        if self._failed and not written:
            raise self._failed[0][1]
        return Answer(written, self._failed)

    def _ask(self) -> None:
        from stackpatch.cli.workspace import open_workspace
        from stackpatch.model.reference import StackRef

        question = self._question
        root = None if question.root is None else Path(question.root)
        for name in _with_series(root) if question.stacks is None else question.stacks:
            wanted = StackRef.parse(name)
            same = (one for one in self.asked if one.work.recipe.stack == wanted.stack)
            beside = next(same, None)
            with self._of_several(name):
                if beside is None:
                    work = open_workspace(name, root, offline=question.offline)
                    self.asked.append(_ask(work, question.refs, None))
                else:
                    at = beside.work.at(wanted.release)
                    self.asked.append(_ask(at, question.refs, beside.versions))

    @contextlib.contextmanager
    def _of_several(self, name: str) -> Iterator[None]:
        """Among several, one that the network or its own release fails leaves the others."""
        try:
            yield
        except (EnvironmentProblem, FindingError) as error:
            if not self._question.several:
                raise
            self._failed.append((name, error))


def _with_series(root: Path | None) -> list[str]:
    from stackpatch.cli.roots import find_root
    from stackpatch.model.collection import Collection

    collection = Collection(find_root(root).path)
    found = []
    for name in collection.stacks():
        recipe = collection.recipe(name)
        if recipe.release().series is not None:
            found.append(name)
    return found


def _ask(work: Workspace, refs: str, versions: list[Stored] | None) -> _Asked:
    from stackpatch.cli.progress import reporting

    with reporting() as report:
        base = work.base(report)
        return _Asked(work, base, versions or select_versions(work, refs, report))


def _judged(asked: Sequence[_Asked]) -> list[Matrix]:
    """The matrices, outside of `reporting`: a process that draws has a thread and cannot fork."""
    if not asked:
        return []
    from stackpatch.series import matrix
    from stackpatch.series.sharing import processors

    memos: dict[str, Memo] = {}
    for one in asked:
        if one.work.recipe.stack not in memos:
            memos[one.work.recipe.stack] = one.work.memo()
    series = [
        matrix.Series(
            one.work.store.objects,
            one.work.series.patches,
            one.versions,
            memos[one.work.recipe.stack],
            _covering(one.work, one.versions),
            one.base.tree,
        )
        for one in asked
    ]
    found = matrix.compute_all(series, processes=processors())
    for memo in memos.values():
        memo.save()
    return found


def _covering(
    work: Workspace, versions: Sequence[Stored]
) -> Callable[[Version], Callable[[str], bool]]:
    kinds = {id(stored): work.covers(stored) for stored in versions}
    return lambda version: kinds[id(version)]


def select_versions(work: Workspace, refs: str, report: Report) -> list[Stored]:
    """The versions that `--refs` means, oldest first, one kind of source for each.

    Raises InputError for a SPEC that is none or that no version fits.
    """
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    from stackpatch.cli.workspace import one_each
    from stackpatch.model.reference import VersionRef, version_number
    from stackpatch.sources.store import version_key

    if refs == "stored":
        return [one for one in one_each(work.store.versions()) if version_number(one.version)]
    if refs != "all" and not any(sign in refs for sign in "<>=!~"):
        named = [VersionRef.parse(name.strip()) for name in refs.split(",") if name.strip()]
        if not named:
            msg = f"--refs {refs!r} names no version"
            raise InputError(msg, hint="write `all`, `>=0.6,<0.8` or `0.6.3,0.6.7`")
        # Two names may mean one version.
        found = [work.resolve(ref, report) for ref in named]
        return list({(one.kind, one.version): one for one in found}.values())
    try:
        fits = SpecifierSet("" if refs == "all" else refs)
    except InvalidSpecifier as error:
        msg = f"--refs {refs!r} is no range of versions: {error}"
        raise InputError(msg, hint="write `all`, `>=0.6,<0.8` or `0.6.3,0.6.7`") from error
    known = {stored.version for stored in work.store.versions()}
    if not work.offline:
        from stackpatch.sources.releases import index_versions

        known |= set(index_versions(work.recipe, pre=bool(fits.prereleases)))
    chosen = []
    for name in known:
        try:
            number = Version(name)
        except InvalidVersion:
            continue
        # A candidate only where the range names one, as pip has it.
        if number in fits and (fits.prereleases or not number.is_prerelease):
            chosen.append(name)
    if not chosen:
        msg = f"no version of {work.recipe.stack} fits {refs!r}"
        raise InputError(msg, hint="`stackpatch fetch` brings versions into the store")
    chosen.sort(key=version_key)
    return [work.bring(name, report) for name in chosen]


def matrix_document(work: Workspace, matrix: Matrix, versions: Sequence[Stored]) -> dict[str, Any]:
    """The `matrix` document of the contract."""
    return {
        "stack": work.recipe.stack,
        "release": work.release.version,
        "versions": list(matrix.versions),
        "sources": [stored.label for stored in versions],
        "newest_clean": matrix.newest_clean,
        "newest_ready": matrix.newest_ready,
        "patches": [
            {
                "name": row.patch.name,
                "path": f"{work.series.where}/{row.patch.name}",
                "subject": row.patch.subject,
                "landed": matrix.first_landed(row),
                "applies_to": row.patch.trailers.range,
                "cells": [
                    {"version": version, "meant": meant, **verdict.to_json()}
                    for version, meant, verdict in zip(
                        matrix.versions, row.meant, row.verdicts, strict=True
                    )
                ],
            }
            for row in matrix.rows
        ],
    }
