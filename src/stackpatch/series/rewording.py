"""Whether a line of code is another one in other words, or the same with more behind it.

Nothing certain: who asks wants to know whether a person should look. Lines have their white space
collapsed.
"""

from __future__ import annotations

import difflib
import re
from functools import lru_cache

# How alike two lines are before one may be the other in other words (difflib's ratio).
_REWORDED = 0.75
_WORD = re.compile(rb"[A-Za-z_]\w*|\d+")
_GOES_ON = (b",", b"<<", b";")  # behind a whole statement: a message, in Python or in C++


@lru_cache(maxsize=4096)
def words(line: bytes) -> tuple[bytes, ...]:
    """The names and numbers of a line; kept, as each line of a symbol is held against several."""
    return tuple(_WORD.findall(line))


def reads_like(line: bytes, found: bytes) -> bool:
    """Whether the found line may be the line in other words: alike, or about the same numbers."""
    one, other = (text.decode("utf-8", "replace") for text in (line, found))
    ratio = difflib.SequenceMatcher(None, one, other).ratio()
    return ratio >= _REWORDED or _asks_the_same(line, found)


def _asks_the_same(line: bytes, found: bytes) -> bool:
    """Whether a line holds every number of another, and a name of it: `major != 10`, `== 10`."""
    numbers = {word for word in words(line) if word.isdigit()}
    names = [word for word in words(line) if len(word) >= 4 and not word.isdigit()]
    return (
        bool(numbers)
        and numbers <= set(words(found))
        and any(name.lower() in found.lower() for name in names)
    )


def says_again(line: bytes, found: bytes) -> bool:
    """Whether the found line is the line with a name or two put in: every word of it, in order,
    and no other number."""
    wanted, said = words(line), words(found)
    left = iter(said)
    if not all(word in left for word in wanted):
        return False
    if not {word for word in said if word.isdigit()} <= set(wanted):
        return False
    one, other = (text.decode("utf-8", "replace") for text in (line, found))
    return difflib.SequenceMatcher(None, one, other).ratio() >= _REWORDED


def says_more(line: bytes, found: bytes) -> bool:
    """Whether the found line is the line's statement and a message behind it."""
    statement = line.rstrip(b"; ")
    behind = found.removeprefix(statement)
    return behind != found and behind.lstrip().startswith(_GOES_ON) and found != line
