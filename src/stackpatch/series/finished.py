"""Finished matrices: what the last run said of a series, word for word, until anything changes.

Remembered verdicts (memo.py) spare the judging; `Finished` spares asking for them one by one. A
file for each series holds one matrix and the key of all that it depends on; it may be lost or
damaged without harm, and another key means that it is as good as absent.

That key needs the recipe parsed and the store opened. `Answers` spares even that: it remembers
which matrices answered the words of a command while every byte that it read was as it is now.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stackpatch.series.rules import rules
from stackpatch.storage import write_if_possible

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
        write_if_possible(self._file(name), head.encode() + body)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.matrix"


# So many questions are remembered; a person asks few, and each is a handful of lines.
_QUESTIONS = 32


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered: matrices by name and key, as `Finished` keeps them.

    question: what was asked, as JSON values. state: the digest of all that the answer depended on.
    """

    question: Any
    state: str
    matrices: tuple[tuple[str, str], ...]


class Answers:
    """The last answers, by the words in which they were asked for.

    A state must be another one whenever anything is that the answer could depend on: too much in it
    costs time, too little is a wrong answer.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "answers.json"

    def find(self, words: str) -> Answer | None:
        """The last answer to these words; whether it still is one, its state says."""
        try:
            known = self._load()[words]
            matrices = tuple((str(name), str(key)) for name, key in known["matrices"])
            return Answer(known["question"], str(known["state"]), matrices)
        except (KeyError, TypeError, ValueError):
            return None

    def keep(self, words: str, answer: Answer) -> None:
        """Remember the answer, and forget the oldest ones where there are too many."""
        known = self._load()
        known.pop(words, None)
        known[words] = asdict(answer)
        document = dict(list(known.items())[-_QUESTIONS:])
        write_if_possible(self._file, json.dumps(document, indent=1).encode())

    def _load(self) -> dict[str, Any]:
        try:
            known = json.loads(self._file.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return known if isinstance(known, dict) else {}
