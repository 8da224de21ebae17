"""What was said of a build's gates, kept by what it depends on: a second build asks nobody again.

Imports nothing that does work, because finding a build again must be quick.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackpatch.model import own_code
from stackpatch.storage import cache_root, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.cli.workspace import Workspace

_ROOMS = ("checks", "model", "series")  # whose code decides what is said of the same sources


@dataclass(frozen=True, slots=True)
class Told:
    """The gates that a series opens: for the document, and a line each for people."""

    document: list[Any]
    lines: list[str]


def place(work: Workspace, key: str) -> Path:
    """The file for a build's key. The recipe's gate rules are no input of a build, but of this."""
    rules = f"{own_code.digest(*_ROOMS)} {work.recipe.gates.model_dump_json()}"
    name = hashlib.sha256(f"{key} {rules}".encode()).hexdigest()
    return cache_root() / "gates" / f"{name}.json"


def recall(path: Path) -> Told | None:
    """What was kept; a damaged file is as good as none."""
    try:
        found = json.loads(path.read_bytes())
        return Told(list(found["document"]), [str(line) for line in found["lines"]])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(path: Path, told: Told) -> None:
    """Keep it for the next time."""
    text = json.dumps({"document": told.document, "lines": told.lines})
    write_atomically(path, text.encode())
