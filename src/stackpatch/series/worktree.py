"""The work tree that a person gets for a conflict: upstream's files, the patch half in."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackpatch import proc
from stackpatch.errors import FindingError, InputError, WaitingError
from stackpatch.model.diff import Change, FilePatch
from stackpatch.series.apply import apply_file, blocked_at, collisions, room_for
from stackpatch.series.edits import patched, replace_at
from stackpatch.series.pick import merge_file
from stackpatch.series.placement import place_hunks
from stackpatch.series.side import Side
from stackpatch.sources.objects import EXECUTABLE, REGULAR, SUBMODULE, SYMLINK, Entry
from stackpatch.storage import directory_beside, sweep, write_atomically

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
_BYPRODUCTS = re.compile(r"(^|/)(__pycache__|\.(pytest|mypy|ruff)_cache)/|\.py[co]$")
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
    Call it under the rebase's lock.
    """
    sweep(folder.parent, folder.name)  # what a kill left: as large as upstream
    with directory_beside(folder) as scratch:
        # By its path: `-C` and a damaged `.git` would be somebody else's repository above.
        proc.run(("git", "init", "-q", "--template=", scratch), env=_GIT_ENV)
        _borrow(scratch, objects)
        write_atomically(scratch / ".git" / "info" / "attributes", _AS_STORED)
        half = _half_in(objects, tree, patch, onto)
        commit = _git(scratch, "commit-tree", tree, "-m", f"upstream {onto}").strip()
        _git(scratch, "update-ref", "HEAD", commit)
        # git writes the files: links, modes and folders as in every other checkout.
        _git(scratch, "read-tree", half.tree)
        _git(scratch, "checkout-index", "-a", "-f", "-q")
        _git(scratch, "read-tree", tree)
    return tuple(file.path for file in half.left)


def read(folder: Path, objects: Objects, tree: str, patch: Patch) -> str:
    """The tree that the person left in the work tree, as objects of the store.

    Raises InputError when the work tree is gone, WaitingError while conflicts are unresolved.
    """
    _there(folder)
    _borrow(folder, objects)
    inner = [path for path in _listed(folder, "--exclude-standard") if path.endswith("/")]
    if inner:
        msg = f"{', '.join(inner)} is a git repository of its own, which no patch can hold"
        raise WaitingError(msg, hint="move it out of the work tree, then --continue")
    _git(folder, "add", "-A")
    for file in patch.files:
        if file.new_path is not None and _is_file_of(folder, file.new_path):
            _git(folder, "add", "-f", "--", f":(top,literal){file.new_path}")
    result = _git(folder, "write-tree").strip()
    raw = _git(
        folder, "diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", tree, result
    )
    changes: dict[str, Entry | None] = {}
    unresolved: list[str] = []
    fields = raw.split("\0")
    for facts, path in zip(fields[::2], fields[1::2], strict=False):
        was, mode, _, blob, status = facts.lstrip(":").split(" ")
        if status.startswith("D"):
            if int(was, 8) != SUBMODULE:  # of which nobody missed the empty folder
                changes[path] = None
            continue
        if int(mode, 8) == SUBMODULE:
            msg = f"{path} is a git repository of its own, which no patch can hold"
            raise WaitingError(msg, hint="move it out of the work tree, then --continue")
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
    left = objects.with_changes(tree, changes)
    if undone := _undone(folder, objects, tree, patch, left):
        msg = f"nothing was done about {', '.join(undone)}"
        hint = (
            "edit what the patch should change there; if nothing is to be changed, say so with "
            "`git commit --allow-empty -a` in the work tree, or drop the patch with --skip"
        )
        raise WaitingError(msg, hint=hint, where=str(folder))
    return left


def ignored(folder: Path) -> tuple[str, ...]:
    """New files that upstream's own .gitignore keeps out of what `read` gives.

    Without what tools leave of themselves when somebody tries the code.
    """
    # A new file of the patch is in the index since `read`. The person's own ignore file is their
    # own word, and is not looked at.
    left = _listed(folder, "-i", "--exclude-per-directory=.gitignore")
    return tuple(path for path in left if not _BYPRODUCTS.search(path))


def _listed(folder: Path, *words: str) -> list[str]:
    """The paths that are not in the index, as `git ls-files` lists them."""
    return _git(folder, "ls-files", "-o", "-z", *words).split("\0")[:-1]


def _borrow(folder: Path, objects: Objects) -> None:
    """Let the work tree's repository read the store's objects, wherever the store is now."""
    alternates = folder / ".git" / "objects" / "info" / "alternates"
    content = f"{(objects.path / 'objects').absolute()}\n".encode()
    present = alternates.read_bytes() if alternates.exists() else b""
    if content not in present:
        write_atomically(alternates, content + present)


def _undone(
    folder: Path, objects: Objects, tree: str, patch: Patch, result: str
) -> tuple[str, ...]:
    """What was left for the person without a marker in it, and is as it was left.

    A commit of the person's own says that it is meant so. A file that upstream has no more may
    have got its change in another place: then something beside the patch's own files is changed.
    """
    half = _half_in(objects, tree, patch, "")
    same = [file for file in half.left if _same(objects, half.tree, result, file)]
    if not same or _has_commit(folder):
        return ()
    changed = {path for path in _changed(folder, half.tree, result) if path not in patch.paths}
    return tuple(
        file.path
        for file in same
        if not changed or objects.read(tree, file.old_path or file.path) is not None
    )


def _same(objects: Objects, one: str, other: str, file: FilePatch) -> bool:
    paths = {path for path in (file.old_path, file.new_path) if path is not None}
    return all(objects.entry(one, path) == objects.entry(other, path) for path in paths)


def _has_commit(folder: Path) -> bool:
    """Whether HEAD is not the commit that we made, which has no parent."""
    words = (*_git_words(folder), "rev-parse", "--verify", "-q", "HEAD^")
    return proc.run(words, env=_GIT_ENV, check=False).status == 0


def _changed(folder: Path, one: str, other: str) -> list[str]:
    """The paths in which two trees differ, as git lists them."""
    words = ("diff-tree", "-r", "-z", "--name-only", "--no-renames", one, other)
    return _git(folder, *words).split("\0")[:-1]


def _there(folder: Path) -> None:
    """Refuse to look where the repository that we made is not: git would take one further up."""
    if (folder / ".git" / "HEAD").is_file():
        return
    again = "the same --onto again makes it anew, --restart begins from the start, --abort ends it"
    if folder.exists():
        msg = f"the git repository of the work tree {folder} is gone"
        again = f"take your files out of it and remove it; then {again}"
    else:
        msg = f"the work tree {folder} is gone"
    raise InputError(msg, hint=again, where=str(folder))


def _is_file_of(folder: Path, path: str) -> bool:
    """Whether a file or a link lies there, and not beyond a link."""
    target = folder / path
    above = (folder / part for part in Path(path).parents if part.name)
    return (target.is_symlink() or target.is_file()) and not any(p.is_symlink() for p in above)


def remove(folder: Path) -> None:
    """Remove the work tree; one that somebody removed already is fine."""
    shutil.rmtree(folder, ignore_errors=True)


def _git_words(folder: Path) -> tuple[str | Path, ...]:
    return ("git", "-C", folder, "--git-dir=.git", "--work-tree=.")


def _git(folder: Path, *words: str) -> str:
    done = proc.run((*_git_words(folder), *words), env=_GIT_ENV)
    return done.stdout.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class _Half:
    """A tree with a patch in as far as it goes, and the files that are left for the person."""

    tree: str
    left: tuple[FilePatch, ...]


def _half_in(objects: Objects, tree: str, patch: Patch, onto: str) -> _Half:
    """What applies or merges under every guard, whole files; of the others what is proven."""
    half = _put_in(objects, tree, patch, onto, room_for(objects, tree, patch))
    # Room that the patch makes is only there when all of it goes in.
    return _put_in(objects, tree, patch, onto, tree) if half.left else half


def _put_in(objects: Objects, tree: str, patch: Patch, onto: str, room: str) -> _Half:
    changes: dict[str, Entry | None] = {}
    left: list[FilePatch] = []
    for file in patch.files:
        applied = apply_file(objects, tree, room, file)
        if not isinstance(applied, list):
            changes |= applied[1]
            continue
        merges = file.change is Change.MODIFY and not file.binary
        merged = merge_file(objects, tree, file) if merges else None
        if isinstance(merged, Entry):
            changes[file.path] = merged
            continue
        left.append(file)
        changes |= _part_in(objects, tree, file, onto, patch.name)
    in_the_way = {failure.path for failure in collisions(patch, changes)}
    left += [file for file in patch.files if file.path in in_the_way and file not in left]
    kept = {path: entry for path, entry in changes.items() if path not in in_the_way}
    return _Half(objects.with_changes(tree, kept), tuple(left))


def _part_in(
    objects: Objects, tree: str, file: FilePatch, onto: str, name: str
) -> dict[str, Entry | None]:
    """What can be shown of a change that does not go in: nothing where something else lies."""
    old, new = file.old_path, file.new_path
    entry = objects.entry(tree, old) if old is not None else None
    if (
        file.binary
        or old is None
        or new is None
        or entry is None
        or entry.mode not in (REGULAR, EXECUTABLE)
        or file.old_mode not in (None, REGULAR, EXECUTABLE)
        or file.new_mode not in (None, REGULAR, EXECUTABLE)
        or (new != old and (objects.entry(tree, new) or blocked_at(objects, tree, new)))
    ):
        return {}
    before = Side(file.path, objects.blob(entry.id))
    blob = objects.find_blob(file.old_id) if file.old_id else None
    base = Side(file.path, objects.blob(blob)) if blob is not None else None
    placed, refused = place_hunks(file.hunks, before, base)
    content = replace_at(before.lines, [(p.hunk, p.start) for p in placed])
    if refused and base is not None:
        theirs = patched(file, base).content
        merged, clean = _merge_file(before.content, base.content, theirs, onto, name)
        # A clean merge that the guards refuse would put the change where it was not meant to go.
        content = content if clean or not merged else merged
    mode = file.new_mode if file.new_mode and entry.mode == file.old_mode else entry.mode
    changes: dict[str, Entry | None] = {old: None} if file.change is Change.RENAME else {}
    return changes | {new: Entry(mode, objects.write_blob(content))}


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
