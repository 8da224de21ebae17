"""Finished matrices: what the last run said of a series, word for word, until anything changes.

Remembered verdicts (memo.py) spare the judging; this spares asking for them one by one. A file for
each series holds one matrix and the key of all that it depends on; it may be lost or damaged
without harm, and another key means that it is as good as absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from typing import TYPE_CHECKING

from stackpatch.errors import EnvironmentProblem
from stackpatch.series.rules import rules
from stackpatch.storage import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stackpatch.sources.objects import Objects


# A patch names the two sides of each file; what else looks so in a mail only adds to the key.
_SIDES = re.compile(rb"^index ([0-9a-f]{7,64})\.\.", re.MULTILINE)


def key(objects: Objects, files: Mapping[str, bytes], *more: object) -> str:
    """The digest of all that a matrix depends on.

    files: of the series, with its list. more: JSON values that name the versions with their trees,
    and whatever the text says besides.
    """
    # Which sides of a patch are in the store decides how closely it can be placed.
    sides = {side.decode() for content in files.values() for side in _SIDES.findall(content)}
    held = sorted(side for side in sides if objects.find_blob(side) is not None)
    digests = [(name, hashlib.sha256(files[name]).hexdigest()) for name in sorted(files)]
    whole = json.dumps([rules(), digests, held, more], ensure_ascii=True)
    return hashlib.sha256(whole.encode()).hexdigest()


class Finished:
    """The finished matrices below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, name: str, key: str) -> str | None:
        """The text that was kept of this series under this very key; else None."""
        try:
            head, _, body = self._file(name).read_bytes().partition(b"\n")
        except OSError:
            return None
        if head.decode("ascii", "replace") != f"{key} {hashlib.sha256(body).hexdigest()}":
            return None
        return body.decode()

    def keep(self, name: str, key: str, text: str) -> None:
        """Keep the text in place of the one before. A disk that refuses is no failure."""
        body = text.encode()
        head = f"{key} {hashlib.sha256(body).hexdigest()}\n"
        with contextlib.suppress(OSError, EnvironmentProblem):
            write_atomically(self._file(name), head.encode() + body)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.matrix"
