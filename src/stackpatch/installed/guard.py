"""Whether anything below a folder may be deleted at all, decided before it is looked into.

A variable that points at the wrong place must cost nothing: `TRITON_CACHE_DIR=$HOME` is a refusal
and not a lost home folder.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackpatch.installed.locate import Location

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing is deleted there, and what the person can do."""

    why: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Root:
    """A cache folder in which deleting is allowed.

    path: as the rule names it. real: with all links resolved. linked: path itself is a symbolic
    link, so that its target has to be recognised as a whole. identity: device and inode.
    """

    path: Path
    real: Path
    linked: bool
    identity: tuple[int, int]

    def open(self) -> int:
        """A descriptor of the folder. Raises OSError, ESTALE when it is another folder by now."""
        handle = os.open(self.real, FOLDER)
        found = os.fstat(handle)
        if (found.st_dev, found.st_ino) != self.identity:
            os.close(handle)
            raise OSError(errno.ESTALE, "the folder was replaced", str(self.real))
        return handle


def check(location: Location, home: Path, *, asked_by_name: bool) -> Root | Refusal | None:
    """The folder of a location, or why nothing is deleted there; None where there is nothing.

    asked_by_name: the person named this cache; a mount point is accepted only then, because other
    containers may use it.
    """
    path = location.path
    if not path.is_absolute():
        named = f"{location.variable} is" if location.variable else "the rule gives"
        return Refusal(
            f"{named} a relative path, which depends on the folder that the server starts in",
            "set it to an absolute path",
        )
    try:
        linked = stat.S_ISLNK(path.lstat().st_mode)
        real = path.resolve(strict=True)
        found = real.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, up to Python 3.12
        said = error.strerror if isinstance(error, OSError) else "a loop of symbolic links"
        return Refusal(f"cannot be reached: {said}")
    if not stat.S_ISDIR(found.st_mode):
        return Refusal("is not a folder")
    return _folder(real, found, home, asked_by_name=asked_by_name) or Root(
        path, real, linked, (found.st_dev, found.st_ino)
    )


def _folder(
    real: Path, found: os.stat_result, home: Path, *, asked_by_name: bool
) -> Refusal | None:
    if len(real.parts) <= 2:  # `/` and `/name`
        return Refusal(
            "is a top-level folder of the system", "point the variable at its own folder"
        )
    resolved = Path(os.path.realpath(home))
    if resolved == real:
        return Refusal("is your home folder", "point the variable at its own folder")
    if resolved.is_relative_to(real):
        return Refusal("holds your home folder", "point the variable at its own folder")
    if found.st_uid != os.geteuid():
        return Refusal(
            f"belongs to user {found.st_uid}, not to you ({os.geteuid()})", "clear it as that user"
        )
    if any((real / name).exists() for name in (".git", ".hg", ".jj")):
        return Refusal("holds a repository", "point the variable at its own folder")
    if all((real / name).exists() for name in ("HEAD", "objects", "refs")):
        return Refusal("is a git repository", "point the variable at its own folder")
    if not asked_by_name and str(real) in mount_points():
        return Refusal(
            "is a mount point, so other containers may use it",
            "name it with --cache NAME to clear it all the same",
        )
    return None


def mount_points() -> frozenset[str]:
    """Every mount point that this process sees."""
    try:
        text = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return frozenset()
    return _parsed(text)


@lru_cache(maxsize=4)
def _parsed(text: str) -> frozenset[str]:
    """The fifth field of each line; blanks and backslashes are octal there."""
    fields = [line.split(" ")[4] for line in text.splitlines() if line.count(" ") > 4]
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        fields = [field.replace(code, character) for field in fields]
    return frozenset(fields)
