"""What a person probably meant: the known names that are nearest to a mistyped one."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def hint(wanted: str, known: Iterable[str], *, shown: int = 12) -> str:
    """`did you mean X?`, or which names there are (at most `shown` of them)."""
    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(wanted, names, n=2, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    if not names:
        return "there is none"
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"known: {', '.join(names[:shown])}{rest}"
