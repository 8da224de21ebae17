"""What a word-wise or syntax-wise merge tool makes of a conflict: shown to a person, never used.

wiggle and mergiraf merge where lines overlap. Their result may be wrong in ways that look right,
so it is a suggestion beside the conflict and nothing more.
"""

from __future__ import annotations

import difflib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackpatch import proc
from stackpatch.errors import EnvironmentProblem
from stackpatch.model.diff import Change
from stackpatch.series.edits import patched
from stackpatch.series.side import Side

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from stackpatch.model.patch import Patch
    from stackpatch.sources.objects import Objects

_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a tool would do to a file. diff: unified, against upstream's file."""

    tool: str
    path: str
    diff: str


def suggest(
    objects: Objects, tree: str, patch: Patch, paths: Container[str]
) -> tuple[Suggestion, ...]:
    """What each installed tool makes of these files of the patch; only clean results.

    A tool that is missing, fails, hangs or leaves conflicts suggests nothing.
    """
    installed = [name for name in _TOOLS if proc.find(name) is not None]
    found = []
    for file in patch.files if installed else ():
        ours = objects.read(tree, file.path)
        blob = objects.find_blob(file.old_id) if file.old_id else None
        if (
            file.path not in paths
            or file.change is not Change.MODIFY
            or file.binary
            or ours is None
            or blob is None
        ):
            continue
        base = objects.blob(blob)
        theirs = patched(file, Side(file.path, base)).content
        for name in installed:
            merged = _run(name, Path(file.path).name, base, ours, theirs)
            if merged is not None and merged != ours:
                found.append(Suggestion(name, file.path, _diff(file.path, ours, merged)))
    return tuple(found)


# base, ours, theirs as files → the words that print the merge; status 0 only when it is clean.
_TOOLS: dict[str, Callable[[Path, Path, Path], tuple[str | Path, ...]]] = {
    "mergiraf": lambda base, ours, theirs: ("mergiraf", "merge", base, ours, theirs),
    "wiggle": lambda base, ours, theirs: ("wiggle", "--merge", ours, base, theirs),
}


def _run(tool: str, name: str, base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    with tempfile.TemporaryDirectory(prefix="stackpatch-suggest-") as scratch:
        places = []
        for side, content in (("base", base), ("ours", ours), ("theirs", theirs)):
            place = Path(scratch) / side / name  # the suffix tells mergiraf the language
            place.parent.mkdir()
            place.write_bytes(content)
            places.append(place)
        try:
            done = proc.run(_TOOLS[tool](*places), timeout=_SECONDS, check=False)
        except (EnvironmentProblem, OSError):
            return None
    if done.status != 0 or not done.stdout or b"<<<<<<<" in done.stdout:
        return None
    return done.stdout


def _diff(path: str, before: bytes, after: bytes) -> str:
    old, new = (text.decode("utf-8", "replace").splitlines() for text in (before, after))
    lines = difflib.unified_diff(old, new, f"upstream/{path}", f"suggested/{path}", lineterm="")
    return "\n".join(lines)
