"""Which rules a verdict was made by: what is remembered under other rules is as good as absent."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

# Whose code decides what a verdict is: nobody has to remember to raise a number.
_ROOMS = ("model", "series", "sources")
# What parses, searches and merges for us.
_LIBRARIES = ("pygit2", "regex", "tree-sitter", "tree-sitter-cuda", "tree-sitter-python")


@cache
def rules() -> str:
    """The digest of our own rules, and the versions of the libraries that they stand on."""
    return "/".join([_digest(Path(__file__).parents[1]), *map(version, _LIBRARIES)])


def _digest(package: Path) -> str:
    whole = hashlib.sha256()
    for room in _ROOMS:
        for file in sorted((package / room).rglob("*.py")):
            content = file.read_bytes()
            whole.update(f"{file.relative_to(package)} {len(content)}\n".encode())
            whole.update(content)
    return whole.hexdigest()
