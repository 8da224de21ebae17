"""Which rules a verdict was made by: what is remembered under other rules is as good as absent."""

from __future__ import annotations

import os
import sys
from functools import cache

from stackpatch.model import own_code

# What parses, searches and merges for us.
_LIBRARIES = ("pygit2", "regex", "tree-sitter", "tree-sitter-cuda", "tree-sitter-python")


@cache
def rules() -> str:
    """The digest of the code that decides, and the versions of the libraries it stands on."""
    return "/".join([own_code.digest("model", "series", "sources"), *versions(*_LIBRARIES)])


def versions(*libraries: str) -> list[str]:
    """The libraries' versions, by the names of the folders that describe them.

    importlib.metadata tells the same, and bringing it up takes longer than everything else that a
    remembered matrix needs; it is asked where a folder has another name than pip's.
    """
    described: dict[str, str] = {}
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - names alone, and quickly
        except OSError:  # an archive, or nothing at all
            continue
        here: dict[str, list[str]] = {}  # two of one library, where an installation broke off
        for name in sorted(names):
            library, _, version = name.removesuffix(".dist-info").partition("-")
            if version and name.endswith(".dist-info"):
                here.setdefault(library.lower().replace("_", "-"), []).append(version)
        described = {library: "+".join(found) for library, found in here.items()} | described
    return [described.get(library) or _asked(library) for library in libraries]


def _asked(library: str) -> str:
    from importlib.metadata import version

    return version(library)
