"""Where an image has a package's files, and what lies beside them.

`finding` reads it from layers. Where no layer is read, because the recipe or nobody says more, a
`Site` holds only the folder and what follows from it.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stackpatch.artefacts.layer import Entry
    from stackpatch.installed.record import Row

_TAG = re.compile(r"python(\d+)\.(\d+)/")


@dataclass(frozen=True, slots=True)
class Installed:
    """An installation that was read from an image.

    version as its dist-info states it. record: RECORD's rows by path in the site folder. kept:
    content by name of the dist-info files that an installer wrote and that stay true. paths:
    every file in the site folder, as far as layers were read. hashes: as RECORD writes them, of
    the content of the watched ones. distributions: by canonical name, the dist-info folders of
    all that were seen there. shadowing: the files, as RECORD lists them, of those among them
    that were asked about.
    """

    version: str
    dist_info: str
    record: Mapping[str, Row]
    kept: Mapping[str, bytes]
    paths: frozenset[str]
    hashes: Mapping[str, str]
    distributions: Mapping[str, str]
    shadowing: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def versions(self) -> dict[str, str]:
        """The versions of all distributions that were seen there, by canonical name."""
        return {
            name: folder.removesuffix(".dist-info").partition("-")[2]
            for name, folder in self.distributions.items()
        }


@dataclass(frozen=True, slots=True)
class Reading:
    """Which layers were read, from the top: how many of how many, and their stored bytes."""

    layers: int
    of: int
    bytes: int

    @property
    def whole(self) -> bool:
        """Whether every layer was read."""
        return self.layers == self.of


@dataclass(frozen=True, slots=True)
class Site:
    """The folder that takes the package's files, relative to the image's root.

    folders: how the image has it and the folders above and in it, by path. installed, reading:
    None where the image was not read. python: `3.12` where something else than the path says it.
    """

    path: str
    installed: Installed | None = None
    folders: Mapping[str, Entry] = field(default_factory=dict, repr=False)
    reading: Reading | None = None
    python: str | None = None

    @property
    def bytecode_tag(self) -> str | None:
        """`cpython-312`, as the names of bytecode files have it; None where nobody says."""
        if self.python is not None:
            return f"cpython-{self.python.replace('.', '')}"
        found = _TAG.search(f"{self.path}/")
        return f"cpython-{found[1]}{found[2]}" if found else None


# FlashInfer loads what was compiled into this folder of its own package before anything else
# (FLASHINFER_AOT_DIR in flashinfer/jit/env.py): what flashinfer-jit-cache brings, without a name.
_UNNAMED = {"flashinfer-jit-cache": "flashinfer/data/aot"}


def taken_out(site: Site, shadowing: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What to hide so that these distributions' prebuilt code is not met, by distribution.

    One that was seen goes as its RECORD lists it; without one, its dist-info and the import
    package that its name suggests. Where not every layer was read, one that was not seen goes by
    that name too: to hide what is not there does no harm, to leave what is there may keep a patch
    from having any effect. So does a folder with such code that belongs to no distribution.
    """
    found: dict[str, tuple[str, ...]] = {}
    installed = site.installed
    whole = site.reading is not None and site.reading.whole
    for name in shadowing:
        package = name.replace("-", "_")
        if installed is not None and name in installed.distributions:
            files = installed.shadowing.get(name)
            guessed = (package, installed.distributions[name])
            found[name] = _whole_folders(files, installed.paths) if files else guessed
        elif not whole:
            found[name] = (package,)
        unnamed = _UNNAMED.get(name)
        if unnamed is not None and (not whole or _is_there(unnamed, site)):
            found[name] = (*found.get(name, ()), unnamed)
    return found


def _is_there(folder: str, site: Site) -> bool:
    paths = site.installed.paths if site.installed is not None else ()
    return any(path.startswith(f"{folder}/") for path in paths)


def _whole_folders(files: frozenset[str], there: frozenset[str]) -> tuple[str, ...]:
    """The files, and instead of them each top folder in which there is nothing else."""
    own = {path for path in files if not path.startswith(("../", "/"))}
    tops = {path.split("/")[0] for path in own if "/" in path}
    foreign = {
        path.split("/")[0] for path in there if path not in own and not path.endswith(".pyc")
    }
    whole = tops - foreign
    return tuple(sorted(whole | {path for path in own if path.split("/")[0] not in whole}))


def compiled_leftovers(site: Site, sources: Iterable[str]) -> tuple[str, ...]:
    """Bytecode files of these sources in the site folder, which Python may prefer to them.

    A .pyc is taken where its source has the size and the time that it states, or unchecked: a
    patch that keeps the size, in an image with clamped times, would not be seen. Those that were
    seen in the image and, where not every layer was read, the names that the folder's Python
    version would give them.
    """
    found: set[str] = set()
    by_stem: dict[str, list[str]] = {}
    for path in site.installed.paths if site.installed is not None else ():
        if path.endswith(".pyc") and "/__pycache__/" in f"/{path}":
            folder, name = posixpath.split(path)
            stem = posixpath.join(posixpath.dirname(folder), name.split(".")[0])
            by_stem.setdefault(stem, []).append(path)
    whole = site.reading is not None and site.reading.whole
    tag = None if whole else site.bytecode_tag
    for source in sources:
        if not source.endswith(".py"):
            continue
        stem = source.removesuffix(".py")
        found.update(by_stem.get(stem, ()))
        if tag is not None:
            folder, name = posixpath.split(stem)
            found.update(
                posixpath.join(folder, "__pycache__", f"{name}.{tag}{level}.pyc")
                for level in ("", ".opt-1", ".opt-2")
            )
    return tuple(sorted(found))
