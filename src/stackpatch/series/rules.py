"""Which rules a verdict was made by: what is remembered under other rules is as good as absent."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

from stackpatch.model import own_code

# What parses, searches and merges for us.
_LIBRARIES = ("pygit2", "regex", "tree-sitter", "tree-sitter-cuda", "tree-sitter-python")


@cache
def rules() -> str:
    """The digest of the code that decides, and the versions of the libraries it stands on."""
    return "/".join([own_code.digest("model", "series", "sources"), *map(version, _LIBRARIES)])
