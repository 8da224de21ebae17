"""What the `bases` of a recipe must say together, checked on the file's plain values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackpatch.model.yamlfile import Path

_SITE = re.compile(r".*/(?:site|dist)-packages")
_PYTHON = re.compile(r".*/python(3\.\d+)/[^/]*")


def check_bases(recipe: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Every contradiction between the bases of all releases."""
    seen: dict[str, Path] = {}
    for release_path, release in _mappings(recipe.get("releases"), ("releases",)):
        for path, base in _mappings(release.get("bases"), (*release_path, "bases")):
            digest = base.get("digest")
            if isinstance(digest, str) and digest in seen:
                first = seen[digest]
                text = f"is releases[{first[1]}].bases[{first[3]}]'s already; an image has one"
                yield (*path, "digest"), f"{text} version of the package"
            elif isinstance(digest, str):
                seen[digest] = path
            platforms = base.get("platforms")
            if isinstance(platforms, list) and len(set(map(str, platforms))) < len(platforms):
                yield (*path, "platforms"), "a platform is named twice"
            yield from _folder(path, base)


def _folder(path: Path, base: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    folder, python = base.get("path"), base.get("python")
    if not isinstance(folder, str) or base.get("kind") != "site-packages":
        return
    if not _SITE.fullmatch(folder):
        text = "want the folder that pip installs into, which ends in site- or dist-packages"
        yield (*path, "path"), text
    stated = _PYTHON.fullmatch(folder)
    if stated and isinstance(python, str) and stated[1] != python:
        yield (*path, "python"), f"{python}, but the path is Python {stated[1]}'s"


def _mappings(value: object, path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict):
                yield (*path, index), item
