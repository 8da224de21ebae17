"""Which rules a verdict was made by: what is remembered under other rules is as good as absent."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

from stackpatch import __version__

# Raised whenever the rules of series/ change what a verdict may be.
RULES = 5


@cache
def rules() -> str:
    """Ours, and the versions of what parses and merges for us."""
    return f"{RULES}/{__version__}/{version('tree-sitter')}/{version('pygit2')}"
