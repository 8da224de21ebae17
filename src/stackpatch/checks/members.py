"""The files of an audit's target, one after the other, whatever holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackpatch.checks.window import Source

_ARCHIVES = (
    *(".whl", ".zip", ".egg", ".conda", ".tar", ".tgz", ".tbz2", ".txz", ".7z", ".deb", ".rpm"),
    *(".tar.gz", ".tar.zst", ".tar.bz2", ".tar.xz"),
)


@dataclass(frozen=True, slots=True)
class Member:
    """A file. path: inside the target, with `/`. source: good until the next is asked for."""

    path: str
    source: Source


@dataclass(frozen=True, slots=True)
class Alias:
    """A second name of a member that came before: a hard link in a layer."""

    path: str
    of: str


@dataclass(frozen=True, slots=True)
class Unread:
    """Something that may hold GPU code and was not looked into, and why."""

    path: str
    why: str


Found = Member | Alias | Unread


def is_archive(path: str) -> bool:
    """Whether a file's name says that it holds other files, which an audit does not open."""
    return path.lower().endswith(_ARCHIVES)
