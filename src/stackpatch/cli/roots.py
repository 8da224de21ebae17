"""The folder with recipes and patches that a command works on: named, above, or the installed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from stackpatch.errors import InputError


class Origin(StrEnum):
    """How the folder was found."""

    NAMED = "named"
    ABOVE = "above"
    INSTALLED = "installed"


@dataclass(frozen=True, slots=True)
class Root:
    """The folder that holds `recipes/` and `patches/`. path is absolute."""

    path: Path
    origin: Origin

    @property
    def recipes(self) -> Path:
        """The folder of `STACK.yaml` files."""
        return self.path / "recipes"

    @property
    def patches(self) -> Path:
        """The folder of series: `STACK/vX.Y.Z/`."""
        return self.path / "patches"

    @property
    def dockerfiles(self) -> Path:
        """The folder of `STACK.Dockerfile` files."""
        return self.path / "dockerfiles"


def find_root(named: Path | None = None) -> Root:
    """The folder that `--root` names, else the nearest one above, else the installed set.

    Raises InputError when `named` has no recipes, or when there is none anywhere.
    """
    if named is not None:
        path = named if named.is_absolute() else _current_folder() / named
        wanted = "name the folder that holds recipes/ and patches/"
        if not path.is_dir():
            msg = f"--root {named}: there is no such folder"
            raise InputError(msg, hint=wanted)
        if not (path / "recipes").is_dir():
            msg = f"--root {named}: it has no recipes/ folder"
            raise InputError(msg, hint=wanted)
        return Root(path, Origin.NAMED)
    here = _current_folder()
    for folder in (here, *here.parents):
        if (folder / "recipes").is_dir() and (folder / "patches").is_dir():
            return Root(folder, Origin.ABOVE)
    return Root(_installed_set(), Origin.INSTALLED)


def _current_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        msg = "the current folder does not exist any more"
        raise InputError(msg, hint="change to another folder") from error


def _installed_set() -> Path:
    """The recipes and patches that came with the package: in the wheel, or in its checkout."""
    package = Path(__file__).absolute().parent.parent
    for candidate in (package / "data", package.parent.parent):
        if (candidate / "recipes").is_dir() and (candidate / "patches").is_dir():
            return candidate
    msg = "no folder with recipes/ and patches/ above the current one, and none in the package"
    raise InputError(msg, hint="name one with --root DIR")
