"""What `stackpatch matrix` is asked, answered: by what is remembered, else by judging."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackpatch.cli import output
from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackpatch.cli.matrix_inputs import Question
    from stackpatch.cli.progress import Report
    from stackpatch.cli.workspace import Workspace
    from stackpatch.series.finished import Finished
    from stackpatch.series.matrix import Matrix, Version
    from stackpatch.series.memo import Memo
    from stackpatch.sources.store import Stored


def answer(question: Question, words: Sequence[str] | None = None) -> list[output.Written]:
    """The document of each series: the last run's where nothing has changed, judged where it has.

    words: those in which the question was asked; what answers them is remembered under them.
    Raises InputError for what is not there, and what bringing and judging the versions raises.
    """
    from stackpatch.cli import matrix_inputs
    from stackpatch.series.finished import Answer, Answers, Finished
    from stackpatch.storage import cache_root

    folder = cache_root() / "verdicts"
    kept = Finished(folder)
    if words is None or not question.decided_here:
        return _written(_asked(question), kept)
    state = matrix_inputs.state(question)
    # An answer is that of a state which is the same before and after. The first run of all brings
    # what it needs into the store; it is looked at again, with all that is remembered by then.
    for _ in range(2):
        asked = _asked(question)
        written = _written(asked, kept)
        before, state = state, matrix_inputs.state(question)
        if state is not None and state == before:
            matrices = tuple((one.name, one.key()) for one in asked)
            told = Answer(question.to_json(), state, matrices)
            Answers(folder).keep(matrix_inputs.asked_here(words), told)
            break
    return written


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


def _asked(question: Question) -> list[_Asked]:
    from stackpatch.cli.workspace import open_workspace
    from stackpatch.model.reference import StackRef

    root = None if question.root is None else Path(question.root)
    asked: list[_Asked] = []
    for name in _with_series(root) if question.stacks is None else question.stacks:
        wanted = StackRef.parse(name)
        beside = next((one for one in asked if one.work.recipe.stack == wanted.stack), None)
        if beside is None:
            work = open_workspace(name, root, offline=question.offline)
            asked.append(_ask(work, question.refs, None))
        else:
            asked.append(_ask(beside.work.at(wanted.release), question.refs, beside.versions))
    return asked


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


def _written(asked: Sequence[_Asked], kept: Finished) -> list[output.Written]:
    found = [kept.find(one.name, one.key()) for one in asked]
    open_ones = [one for one, text in zip(asked, found, strict=True) if text is None]
    for one in open_ones:
        one.work.on_base(one.base)
    judged = iter(_judged(open_ones))
    written = []
    for one, known in zip(asked, found, strict=True):
        if known is not None:
            written.append(output.Written(known))
            continue
        written.append(output.written(matrix_document(one.work, next(judged), one.versions)))
        kept.keep(one.name, one.key(), written[-1])
    return written


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
        return [work.resolve(ref, report) for ref in named]
    try:
        fits = SpecifierSet("" if refs == "all" else refs)
    except InvalidSpecifier as error:
        msg = f"--refs {refs!r} is no range of versions: {error}"
        raise InputError(msg, hint="write `all`, `>=0.6,<0.8` or `0.6.3,0.6.7`") from error
    known = {stored.version for stored in work.store.versions()}
    if not work.offline:
        from stackpatch.sources.releases import index_versions

        known |= set(index_versions(work.recipe))
    chosen = []
    for name in known:
        try:
            number = Version(name)
        except InvalidVersion:
            continue
        if number in fits and not number.is_prerelease:
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
                "landed": row.first_landed(matrix.versions),
                "cells": [
                    {"version": version, **verdict.to_json()}
                    for version, verdict in zip(matrix.versions, row.verdicts, strict=True)
                ],
            }
            for row in matrix.rows
        ],
    }
