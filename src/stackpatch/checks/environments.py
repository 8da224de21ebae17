"""Where a Python environment has its packages: asked of its interpreter, or read from its folder.

An interpreter is run and answers for itself. A folder is only read, since whoever made it also
made what would be run: editable installs are followed as far as they are written down, and what
only running could tell is said to be left out.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackpatch import proc
from stackpatch.checks.members import Unread
from stackpatch.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Prints what the interpreter imports from, without what the caller's environment would add.
_ASK = "import json, sys; print(); print(json.dumps(sys.path))"
_ASK_TIMEOUT = 60.0
_TEXT = 1 << 20
_BASE = re.compile(r"^include-system-site-packages\s*=\s*true\s*$", re.MULTILINE | re.IGNORECASE)
# setuptools' finder: a dict from a package's name to its folder.
_FINDER = re.compile(r"""["'](?P<package>[\w.]+)["']\s*:\s*["'](?P<place>/[^"']+)["']""")


@dataclass(frozen=True, slots=True)
class Environment:
    """folders: with installed packages, sorted, each once. beyond: what may lie elsewhere."""

    folders: tuple[Path, ...]
    beyond: tuple[Unread, ...] = ()


def environment(path: Path) -> Environment:
    """The environment of a virtual environment's folder, or of an interpreter.

    Raises InputError for one without packages, EnvironmentProblem when the interpreter does not
    answer.
    """
    beyond: list[Unread] = []
    if path.is_dir():
        found = _site_folders(path)
        for site in tuple(found):
            for one in _led_to(site):
                if isinstance(one, Path):
                    found.append(one)
                else:
                    beyond.append(one)
        if _BASE.search(_text(path / "pyvenv.cfg")):
            why = (
                "the packages of the Python below it (include-system-site-packages) are not "
                "looked into; name the environment's bin/python to have it asked"
            )
            beyond.append(Unread("pyvenv.cfg", why))
    else:
        found = _import_path(path)
    unique = {os.path.realpath(folder): folder for folder in reversed(found)}
    if not unique:
        msg = f"{path} has no folder with installed packages"
        raise InputError(msg, hint="name the site-packages folder itself")
    return Environment(_outermost(unique.values()), tuple(beyond))


def _site_folders(path: Path) -> list[Path]:
    """A virtual environment's own folders."""
    found = [
        folder
        for pattern in ("lib/python*/site-packages", "lib64/python*/site-packages")
        for folder in sorted(path.glob(pattern))
    ]
    return found + [folder for folder in (path / "Lib" / "site-packages",) if folder.is_dir()]


def _import_path(program: Path) -> list[Path]:
    """What an interpreter imports from, without its standard library."""
    # -I: without PYTHONPATH, the current folder and the user's own site folder.
    lines = proc.run([program.absolute(), "-I", "-c", _ASK], timeout=_ASK_TIMEOUT).text()
    try:
        entries = [Path(entry) for entry in json.loads(lines.splitlines()[-1])]
    except (ValueError, TypeError, IndexError) as error:
        msg = f"{program} does not answer like a Python interpreter"
        raise EnvironmentProblem(msg) from error
    standard = {Path(os.path.realpath(e)) for e in entries if (e / "os.py").is_file()}
    return [
        entry
        for entry in entries
        if entry.is_dir()
        and not any(Path(os.path.realpath(entry)) in (s, s / "lib-dynload") for s in standard)
    ]


def _led_to(site: Path) -> Iterator[Path | Unread]:
    """Folders that `.pth` files and editable finders lead to, and lines only Python can follow."""
    for file in sorted(site.glob("*.pth")):
        for line in _text(file).splitlines():
            if line.startswith(("import ", "import\t")):
                # Two kinds of such lines concern us; the rest (coverage, setuptools' shim) do not.
                if "path" in line and "__editable__" not in line:
                    why = (
                        "Python runs a line of it that may lead the import path elsewhere; name "
                        "the environment's bin/python to have it asked"
                    )
                    yield Unread(file.name, why)
            elif line.strip() and not line.startswith("#") and (site / line.strip()).is_dir():
                yield site / line.strip()
    for finder in sorted(site.glob("__editable__*.py")):
        for place in _FINDER.finditer(_text(finder)):
            if Path(place["place"]).is_dir():
                yield Path(place["place"])


def _outermost(folders: Iterable[Path]) -> tuple[Path, ...]:
    """The folders, sorted, without those that lie in another one: that one has their files."""
    kept: list[Path] = []
    for folder in sorted(folders, key=lambda one: (len(one.parts), one)):
        real = Path(os.path.realpath(folder))
        if not any(real.is_relative_to(os.path.realpath(other)) for other in kept):
            kept.append(folder)
    return tuple(sorted(kept))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_TEXT).decode("utf-8", "replace")
    except OSError:
        return ""
