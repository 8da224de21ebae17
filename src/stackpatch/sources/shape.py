"""What may be in a tree that we take from an archive: one rule for paths, links and collisions.

Nothing is unpacked to disk here, but the trees are written out later, by `apply --to`, by a work
tree for a rebase, into a wheel. So a path that could leave the tree, land in `.git` on any file
system, or be a file and a folder at once never enters the store.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from stackpatch.errors import InputError
from stackpatch.sources.objects import SYMLINK

# HFS+ ignores these in names (git's utf8.c, next_hfs_char): `.g<ZWNJ>it` opens `.git` there.
_IGNORED_BY_HFS = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
# NTFS drops trailing dots and spaces and what follows a colon, and `git~1` is the short name.
_GIT_ON_NTFS = re.compile(r"(?:\.git|git~1)[ .]*(?::.*)?")
_DRIVE = re.compile(r"[A-Za-z]:")
_MAX_LINKS = 40  # as Linux does
WHOLE = ""  # the member of a Refusal that is about the archive as a whole


class Refusal(Exception):  # noqa: N818 - turned into an InputError that names the archive
    """Why a member may not be in a tree. member: as the archive spells it, or WHOLE."""

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(member, reason)
        self.member = member
        self.reason = reason


def clean(name: str) -> str:
    """The git path for a member's name: no `.` and no empty parts. Raises Refusal.

    Returns "" for the top folder itself.
    """
    if "\0" in name:
        raise Refusal(name, "its name has a NUL byte")
    if name.startswith("/") or _DRIVE.match(name):
        raise Refusal(name, "its path is absolute")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    for part in parts:
        if ".." in part.split("\\"):  # a folder separator on Windows
            raise Refusal(name, "its path leads out of the tree with `..`")
        if _opens_git(part):
            raise Refusal(name, "its path goes into .git")
    return "/".join(parts)


def _opens_git(part: str) -> bool:
    """Whether the name is `.git`, or opens it on some file system."""
    plain = _IGNORED_BY_HFS.sub("", part).lower()
    return any(_GIT_ON_NTFS.fullmatch(piece) for piece in plain.split("\\"))


@dataclass(slots=True)
class Shape:
    """The paths of one tree as they come in. `finish()` judges what only the whole tree tells."""

    _files: dict[str, tuple[int, str]] = field(default_factory=dict)
    _folders: set[str] = field(default_factory=set)
    _links: dict[str, str] = field(default_factory=dict)

    def add(self, path: str, mode: int, content_id: str, link: str | None = None) -> bool:
        """Take a file or link. False for a second one that is the same; Refusal if it differs.

        content_id: any digest of the content. link: where it points, for a symbolic link.
        """
        before = self._files.get(path)
        if before is not None:
            if before == (mode, content_id):
                return False
            raise Refusal(path, "it is there twice, with different content")
        if path in self._folders:
            raise Refusal(path, "it is a file and a folder at once")
        self.add_folder(path.rpartition("/")[0], member=path)
        self._files[path] = (mode, content_id)
        if mode == SYMLINK and link is not None:
            self._add_link(path, link)
        return True

    def add_folder(self, folder: str, *, member: str | None = None) -> None:
        """Take a folder and those above it. Raises Refusal where one of them is a file."""
        while folder and folder not in self._folders:
            if folder in self._files:
                raise Refusal(member or folder, f"{folder} is a file and a folder at once")
            self._folders.add(folder)
            folder = folder.rpartition("/")[0]

    def finish(self) -> None:
        """Follow every link through the others. Raises Refusal for one that leaves the tree."""
        for path, target in self._links.items():
            self._follow(path, target)

    def _add_link(self, path: str, target: str) -> None:
        if not target or "\0" in target:
            raise Refusal(path, "it is a link to nothing")
        if target.startswith("/") or _DRIVE.match(target):
            raise Refusal(path, f"it is a link out of the tree, to {target}")
        if path.rpartition("/")[2].lower() == ".gitmodules":
            raise Refusal(path, "git refuses a link of this name")
        for part in target.split("/"):
            if _opens_git(part):
                raise Refusal(path, f"it is a link into .git, to {target}")
        self._links[path] = target

    def _follow(self, path: str, target: str) -> None:
        # As the kernel does: `d/x/..` is the parent of what d/x points to, not d.
        here = path.split("/")[:-1]
        ahead = target.split("/")[::-1]
        followed = 0
        while ahead:
            part = ahead.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                if not here:
                    raise Refusal(path, f"it is a link out of the tree, to {target}")
                here.pop()
                continue
            here.append(part)
            link = self._links.get("/".join(here))
            if link is not None:
                followed += 1
                if followed > _MAX_LINKS:
                    raise Refusal(path, "it is a link that leads round in a circle")
                here.pop()
                ahead.extend(link.split("/")[::-1])


def as_input_error(refusal: Refusal, archive: str) -> InputError:
    """The message for a person, with the archive's name."""
    shown = refusal.member.encode("utf-8", "backslashreplace").decode()
    culprit = f" because of its member {shown!r}" if shown else ""
    msg = f"{archive} is refused{culprit}: {refusal.reason}"
    hint = "no release needs this; look where the file comes from before you trust it"
    return InputError(msg, hint=hint)
