"""The end of a rebase: the new series directory and the new release in the recipe."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stackpatch.errors import EnvironmentProblem, FindingError, InputError
from stackpatch.model.recipe_edit import NewFile, NewRelease, add_release
from stackpatch.model.reference import SourceKind, version_number
from stackpatch.series.history import committed
from stackpatch.series.rebase import gives_again
from stackpatch.storage import directory_beside, sweep, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.cli.workspace import Workspace
    from stackpatch.series.rebase_state import State
    from stackpatch.sources.pypi import IndexFile
    from stackpatch.sources.store import Stored


def write_release(work: Workspace, state: State, target: Stored) -> Path:
    """Write `patches/STACK/vX.Y.Z/`, then the release into the recipe; returns the series folder.

    The folder appears whole, the recipe is replaced whole. A kill between the two leaves a folder
    that nothing names; the same rebase run again finds it equal and goes on. Call it under the
    rebase's lock. Raises FindingError where the mails do not give the tree again, InputError where
    another series has that name.
    """
    number = release_number(target)
    name = f"v{number}"
    folder = work.collection.patches / work.recipe.stack / name
    content = {one.name: one.mail for one in state.moves if one.mail is not None}
    if problem := gives_again(work.store.objects, state.onto_tree, content, state.tree):
        msg = f"the moved series would not apply as it was moved: {problem}"
        raise FindingError(msg, hint="nothing was written; please report it with the state file")
    content["series"] = _listing(work, state, content)
    # Before the folder is made: a recipe that cannot take the release leaves nothing behind.
    path = work.collection.recipe_path(work.recipe.stack)
    text = path.read_bytes().decode("utf-8")  # its own line ends stay
    edited = add_release(text, _release(work, target, name), where=str(path))
    sweep(folder.parent, folder.name)
    sweep(work.collection.recipes, f"{work.recipe.stack}.yaml")
    if not folder.is_dir() and (folder.exists() or folder.is_symlink()):
        msg = f"{folder} is there already, and is no folder"
        raise InputError(msg, hint="remove it, then --continue", where=str(folder))
    if folder.exists():
        present = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
        if present != content:
            msg = f"{folder} is there already, with another series"
            raise InputError(msg, hint="remove it, then --continue", where=str(folder))
        made = False
    else:
        with directory_beside(folder) as scratch:
            for file, raw in content.items():
                write_atomically(scratch / file, raw)
        made = True
    if edited != text:
        try:
            write_atomically(path, edited.encode())
        except BaseException:
            if made:
                shutil.rmtree(folder, ignore_errors=True)
            raise
    return folder


def left_behind(work: Workspace, onto: str) -> Path | None:
    """The series folder that a kill just before the end left: no release names it."""
    number = version_number(onto.partition(":")[2])
    if number is None or any(one.series == f"v{number}" for one in work.recipe.releases):
        return None
    folder = work.collection.patches / work.recipe.stack / f"v{number}"
    return folder if folder.exists() else None


def release_number(target: Stored) -> str:
    """The version number that the release gets. Raises InputError for a branch or a commit."""
    number = version_number(target.version)
    if number is None:
        msg = f"{target.label} is no version: a recipe pins releases by their number"
        raise InputError(msg, hint="name a tag such as git:v1.2.0; --dry-run takes any ref")
    return number


def _listing(work: Workspace, state: State, kept: dict[str, bytes]) -> bytes:
    """The old `series` file with its comments, without the patches that were dropped.

    Its comments may speak of the old version, so the first line says where they come from.
    """
    old = work.collection.series_dir(work.recipe.stack, work.release)
    lines = (old / "series").read_bytes().decode("utf-8").splitlines(keepends=True) if old else []
    dropped = {one.name for one in state.moves} - kept.keys()
    left = [line for line in lines if (line.split() or [""])[0] not in dropped]
    end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    moved = f"# Moved from {work.release.version} to {state.onto} by stackpatch rebase.{end}"
    return "".join([moved, *left]).encode()


def _release(work: Workspace, target: Stored, series: str) -> NewRelease:
    number = release_number(target)
    commit = target.commit if target.kind is SourceKind.GIT else None
    offered = _offered(work, number, optional=commit is not None)
    files = [
        NewFile(file.name, file.sha256, file.size)
        for file in offered
        if file.sha256 is not None and file.size is not None
    ]
    detail = (
        f"fetched from {target.evidence.get('Url', 'git')}"
        if commit
        else "moved by stackpatch rebase onto the index's archive, which has no history"
    )
    dates = [file.uploaded for file in offered if file.uploaded]
    date, note = min(dates, default=None), None
    if date is None and commit is not None:
        date, note = committed(work.store.objects, commit), "the commit's: the index gives no date"
    elif date is None:
        date, note = datetime.now(UTC), "when stackpatch rebase ran: the index gives no date"
    stamp = work.release.stamp
    return NewRelease(
        version=number,
        tag=target.evidence.get("Tag"),
        commit=commit,
        evidence="first-hand" if commit else "unknown",
        evidence_detail=detail,
        date=date.strftime("%Y-%m-%dT%H:%M:%SZ"),
        date_note=note,
        artefacts=files,
        series=series,
        stamp=(stamp.path, stamp.variable) if stamp else None,
        requires=(),
    )


def _offered(work: Workspace, number: str, *, optional: bool) -> list[IndexFile]:
    """The index's files of the version; none where a commit is enough and the index has none."""
    from stackpatch.sources.releases import index_files

    if work.offline:
        return []
    try:
        return index_files(work.recipe, number)
    except (InputError, EnvironmentProblem):
        if optional:
            return []
        raise
