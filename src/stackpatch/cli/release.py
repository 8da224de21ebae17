"""The end of a rebase: the new series directory and the new release in the recipe."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stackpatch.errors import InputError
from stackpatch.model.recipe_edit import NewFile, NewRelease, add_release
from stackpatch.storage import directory_beside, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.cli.workspace import Workspace
    from stackpatch.series.rebase import State
    from stackpatch.sources.store import Stored


def write_release(work: Workspace, state: State, target: Stored) -> Path:
    """Write `patches/STACK/vX.Y.Z/`, then the release into the recipe; returns the series folder.

    The folder appears whole, the recipe is replaced whole. A kill between the two leaves a folder
    that nothing names; the same rebase run again finds it equal and goes on.
    """
    number = target.version
    name = f"v{number}" if number[:1].isdigit() else number
    folder = work.collection.patches / work.recipe.stack / name
    content = {one.name: one.mail for one in state.moves if one.mail is not None}
    content["series"] = _listing(work, state, content)
    if folder.exists():
        present = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
        if present != content:
            msg = f"{folder} is there already, with another series"
            raise InputError(msg, hint="remove it, then --continue", where=str(folder))
    else:
        with directory_beside(folder) as scratch:
            for file, raw in content.items():
                write_atomically(scratch / file, raw)
    path = work.collection.recipe_path(work.recipe.stack)
    text = path.read_text("utf-8")
    edited = add_release(text, _release(work, target, name), where=str(path))
    if edited != text:
        write_atomically(path, edited.encode())
    return folder


def _listing(work: Workspace, state: State, kept: dict[str, bytes]) -> bytes:
    """The old `series` file with its comments, without the patches that were dropped.

    Its comments may speak of the old version, so the first line says where they come from.
    """
    old = work.collection.series_dir(work.recipe.stack, work.release)
    lines = (old / "series").read_text("utf-8").splitlines(keepends=True) if old else []
    dropped = {one.name for one in state.moves} - kept.keys()
    left = [line for line in lines if (line.split() or [""])[0] not in dropped]
    moved = f"# Moved from {work.release.version} to {state.onto} by stackpatch rebase.\n"
    return "".join([moved, *left]).encode()


def _release(work: Workspace, target: Stored, series: str) -> NewRelease:
    from stackpatch.sources.fetch import index_files

    commit = target.commit if target.kind.value == "git" else None
    offered = [] if work.offline else index_files(work.recipe, target.version)
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
    uploaded = min((file.uploaded for file in offered if file.uploaded), default=None)
    stamp = work.release.stamp
    return NewRelease(
        version=target.version,
        tag=target.evidence.get("Tag"),
        commit=commit,
        evidence="first-hand" if commit else "unknown",
        evidence_detail=detail,
        date=(uploaded or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        date_note=None if uploaded else "when stackpatch rebase ran: the index gives no date",
        artefacts=files,
        series=series,
        stamp=(stamp.path, stamp.variable) if stamp else None,
        requires=(),
    )
