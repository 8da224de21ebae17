"""A folder with `recipes/` and `patches/`, read: which stacks it has, their recipes and series."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.model import nearest
from stackpatch.model.series import SeriesFiles, read_series
from stackpatch.model.yamlfile import MAX_BYTES

if TYPE_CHECKING:
    from stackpatch.model.recipe import Recipe, Release
    from stackpatch.model.series import Series

SUFFIX = ".yaml"


@dataclass(frozen=True, slots=True)
class Collection:
    """The recipes and series below one folder. root: absolute, or relative to the current one."""

    root: Path

    @property
    def recipes(self) -> Path:
        """The folder of `STACK.yaml` files."""
        return self.root / "recipes"

    @property
    def patches(self) -> Path:
        """The folder of series, `STACK/NAME/`."""
        return self.root / "patches"

    def shown(self, path: Path) -> str:
        """How messages name a path: relative where it lies below the current folder."""
        try:
            here = Path.cwd()
        except FileNotFoundError:  # it was removed under us
            return str(path)
        absolute = path.absolute()
        return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)

    def stacks(self) -> tuple[str, ...]:
        """The names of the recipes, sorted. Raises InputError when there is no recipes/ folder."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.recipes))
        except (FileNotFoundError, NotADirectoryError):
            msg = f"{self.shown(self.root)} has no recipes/ folder"
            raise InputError(msg, hint="name the folder with recipes/ by --root DIR") from None
        except OSError as error:
            msg = f"cannot read {self.shown(self.recipes)}: {error.strerror}"
            raise EnvironmentProblem(msg) from error
        return tuple(
            name.removesuffix(SUFFIX)
            for name in names
            if name.endswith(SUFFIX) and not name.startswith(".")
        )

    def recipe_path(self, stack: str) -> Path:
        """The file of a stack's recipe. Raises InputError that names the nearest stack."""
        known = self.stacks()
        if stack not in known:
            msg = f"no recipe for {stack!r} in {self.shown(self.recipes)}"
            raise InputError(msg, hint=nearest.hint(stack, known))
        return self.recipes / f"{stack}{SUFFIX}"

    def read_recipe(self, stack: str) -> bytes:
        """The bytes of a stack's recipe. Raises InputError, EnvironmentProblem."""
        path = self.recipe_path(stack)
        try:
            # Not a folder, and neither a pipe nor a device, which would never end.
            if not stat.S_ISREG(path.stat().st_mode):
                msg = f"{self.shown(path)} is not a plain file"
                raise InputError(msg)
            with path.open("rb") as file:
                return file.read(MAX_BYTES + 1)  # the reader says that it is too large
        except OSError as error:
            msg = f"cannot read {self.shown(path)}: {error.strerror}"
            raise EnvironmentProblem(msg) from error

    def recipe(self, stack: str) -> Recipe:
        """The parsed recipe. Raises InputError for an unknown stack, Problems for what is in it."""
        from stackpatch.model.recipe_file import parse_recipe

        raw = self.read_recipe(stack)
        return parse_recipe(self.shown(self.recipe_path(stack)), raw, name=stack)

    def series_dir(self, stack: str, release: Release) -> Path | None:
        """The folder of the release's series; None where the recipe names none."""
        return self.patches / stack / release.series if release.series is not None else None

    def series_files(self, stack: str, release: Release) -> SeriesFiles:
        """The files of the release's series; none where the recipe names no series.

        Raises InputError when the folder is not there.
        """
        folder = self.series_dir(stack, release)
        if folder is None:
            return SeriesFiles(self.shown(self.patches / stack), {})
        return read_series(folder, where=self.shown(folder))

    def series(self, stack: str, release: Release) -> Series:
        """The release's patches in order; none where the recipe names no series.

        Raises InputError when the folder is not there, Problems for what is wrong in it.
        """
        return self.series_files(stack, release).parse()
