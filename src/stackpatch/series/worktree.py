"""The work tree that a person gets for a conflict: upstream's files, the patch half in."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from stackpatch import proc
from stackpatch.errors import FindingError, InputError, WaitingError
from stackpatch.model.diff import Change, FilePatch
from stackpatch.series.edits import patched, replace_at
from stackpatch.series.placement import place_hunks
from stackpatch.series.side import Side
from stackpatch.sources.objects import SYMLINK, Entry
from stackpatch.storage import directory_beside, write_atomically

if TYPE_CHECKING:
    from stackpatch.model.patch import Patch
    from stackpatch.sources.objects import Objects

# Upstream files may hold conflict markers of their own (tests of merge tools do); ours are told
# apart by their labels.
LABELS = ("upstream ", "the patch's base", "stackpatch ")
_OPEN = tuple(f"{sign * 7} {label}".encode() for sign, label in zip("<|>", LABELS, strict=True))
# Above the attributes of upstream's own: those would convert files that nobody touched, on their
# way out or back in, and every such file would end up in the patch.
_AS_STORED = b"* -text -filter -ident !working-tree-encoding\n"
_GIT_ENV = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_NAME": "stackpatch",
    "GIT_AUTHOR_EMAIL": "stackpatch@localhost",
    "GIT_COMMITTER_NAME": "stackpatch",
    "GIT_COMMITTER_EMAIL": "stackpatch@localhost",
}


def create(folder: Path, objects: Objects, tree: str, patch: Patch, onto: str) -> tuple[str, ...]:
    """Make a git work tree of `tree` with the patch merged in as far as it goes.

    Hunks with a proven place are in; where the file that the patch was made on is known, the rest
    stands between conflict markers. Returns the paths that hold markers or could not be merged.
    """
    with directory_beside(folder) as scratch:
        _git(scratch, "init", "-q", "--template=")
        alternates = scratch / ".git" / "objects" / "info" / "alternates"
        write_atomically(alternates, f"{(objects.path / 'objects').absolute()}\n".encode())
        write_atomically(scratch / ".git" / "info" / "attributes", _AS_STORED)
        commit = _git(scratch, "commit-tree", tree, "-m", f"upstream {onto}").strip()
        _git(scratch, "update-ref", "HEAD", commit)
        _git(scratch, "read-tree", tree)
        _git(scratch, "checkout-index", "-a", "-f", "-q")
        unmerged = [
            file.path
            for file in patch.files
            if not _merge_in(scratch, objects, tree, file, onto, patch)
        ]
    return tuple(unmerged)


def read(folder: Path, objects: Objects, tree: str, patch: Patch) -> str:
    """The tree that the person left in the work tree, as objects of the store.

    Raises InputError when the work tree is gone, WaitingError while conflicts are unresolved.
    """
    if not (folder / ".git").is_dir():
        msg = f"the work tree {folder} is gone"
        hint = "`--restart` makes it anew, `--abort` ends the rebase"
        raise InputError(msg, hint=hint, where=str(folder))
    _git(folder, "add", "-A")
    for file in patch.files:
        if file.new_path is not None and (folder / file.new_path).exists():
            _git(folder, "add", "-f", "--", file.new_path)
    result = _git(folder, "write-tree").strip()
    raw = _git(
        folder, "diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", tree, result
    )
    changes: dict[str, Entry | None] = {}
    unresolved: list[str] = []
    fields = raw.split("\0")
    for facts, path in zip(fields[::2], fields[1::2], strict=False):
        _, mode, _, blob, status = facts.lstrip(":").split(" ")
        if status.startswith("D"):
            changes[path] = None
            continue
        content = proc.run(("git", "-C", folder, "cat-file", "blob", blob), env=_GIT_ENV).stdout
        if any(line.startswith(_OPEN) for line in content.split(b"\n")):
            unresolved.append(path)
        if int(mode, 8) == SYMLINK and (content.startswith(b"/") or b".." in content.split(b"/")):
            msg = f"{path} is a symbolic link that may leave the tree"
            raise FindingError(msg, where=str(folder / path))
        changes[path] = Entry(int(mode, 8), objects.write_blob(content))
    if unresolved:
        msg = f"conflicts are left in {', '.join(sorted(unresolved))}"
        hint = "resolve what stands between <<<<<<< and >>>>>>>, then --continue"
        raise WaitingError(msg, hint=hint, where=str(folder))
    return objects.with_changes(tree, changes)


def remove(folder: Path) -> None:
    """Remove the work tree; one that somebody removed already is fine."""
    shutil.rmtree(folder, ignore_errors=True)


def _git(folder: Path, *words: str) -> str:
    done = proc.run(("git", "-C", folder, *words), env=_GIT_ENV)
    return done.stdout.decode("utf-8", "surrogateescape")


def _merge_in(
    folder: Path, objects: Objects, tree: str, file: FilePatch, onto: str, patch: Patch
) -> bool:
    """Put one file's change in; False where something is left for the person."""
    content = objects.read(tree, file.old_path) if file.old_path is not None else b""
    target = folder / (file.new_path or file.path)
    if content is None or file.binary:
        return False
    if file.change is Change.DELETE:
        (folder / (file.old_path or "")).unlink(missing_ok=True)
        return True
    if file.change is Change.ADD and objects.entry(tree, file.path) is not None:
        return False
    blob = objects.find_blob(file.old_id) if file.old_id else None
    before = Side(file.path, content)
    known = blob is not None or file.change is Change.ADD
    base = Side(file.path, objects.blob(blob) if blob is not None else b"") if known else None
    placed, refused = place_hunks(file.hunks, before, base)
    if not refused or base is None:
        result = replace_at(before.lines, [(p.hunk, p.start) for p in placed])
        _write(target, result)
        if file.change is Change.RENAME and file.old_path != file.new_path:
            (folder / (file.old_path or "")).unlink(missing_ok=True)
        return not refused
    theirs = patched(file, base).content
    merged, clean = _merge_file(content, base.content, theirs, onto, patch.name)
    _write(target, merged)
    return clean


def _merge_file(
    ours: bytes, base: bytes, theirs: bytes, onto: str, name: str
) -> tuple[bytes, bool]:
    """`git merge-file` with the base shown between the sides."""
    labels = (f"{LABELS[0]}{onto}", LABELS[1], f"{LABELS[2]}{name}")
    with tempfile.TemporaryDirectory() as scratch:
        files = []
        for label, content in zip(("ours", "base", "theirs"), (ours, base, theirs), strict=True):
            path = Path(scratch) / label
            path.write_bytes(content)
            files.append(path)
        named = [word for label in labels for word in ("-L", label)]
        done = proc.run(
            ("git", "merge-file", "-p", "--diff3", *named, *files), env=_GIT_ENV, check=False
        )
    return done.stdout, done.status == 0


def _write(path: Path, content: bytes) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    write_atomically(path, content, mode=mode)
