"""Where a rebase stands, as one file that is replaced as a whole after every step."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Self

from stackpatch.errors import InputError
from stackpatch.model.verdict import Verdict
from stackpatch.series.pick import Move, Outcome

_SCHEMA = "stackpatch.rebase-state/1"


@dataclass(frozen=True, slots=True)
class State:
    """Where a rebase stands. tree: with every patch moved so far. waiting: the patch that stops.

    origin: the tree of the release that the series is for.
    """

    stack: str
    release: str
    onto: str
    onto_tree: str
    series: str
    tree: str
    moves: tuple[Move, ...]
    waiting: str | None = None
    origin: str | None = None

    def to_json(self) -> bytes:
        """The state file's content."""
        document = {
            "schema": _SCHEMA,
            "stack": self.stack,
            "release": self.release,
            "onto": self.onto,
            "onto_tree": self.onto_tree,
            "series": self.series,
            "tree": self.tree,
            "waiting": self.waiting,
            "origin": self.origin,
            "moves": [_move_to_json(one) for one in self.moves],
        }
        return (json.dumps(document, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, raw: bytes, where: str) -> Self:
        """Read a state file. Raises InputError when it is not one of ours."""
        try:
            document = {"schema": None, **json.loads(raw)}
            if document["schema"] == _SCHEMA:
                return cls(
                    document["stack"],
                    document["release"],
                    document["onto"],
                    document["onto_tree"],
                    document["series"],
                    document["tree"],
                    tuple(_move_from_json(one) for one in document["moves"]),
                    document["waiting"],
                    document.get("origin"),
                )
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
        else:
            reason = f"its schema is {document['schema']!r}, not {_SCHEMA}"
        msg = f"the rebase's state file cannot be read ({reason})"
        raise InputError(msg, hint="end the rebase with --abort", where=where)


def _move_to_json(one: Move) -> dict[str, Any]:
    mail = base64.b64encode(one.mail).decode() if one.mail is not None else None
    return {
        "name": one.name,
        "outcome": one.outcome.value,
        "detail": one.detail,
        "verdict": one.verdict.to_json(),
        "tree": one.tree,
        "mail": mail,
    }


def _move_from_json(document: Any) -> Move:
    verdict = Verdict.from_json(document["verdict"])
    mail = base64.b64decode(document["mail"]) if document["mail"] is not None else None
    return Move(
        document["name"],
        Outcome(document["outcome"]),
        document["detail"],
        verdict,
        document["tree"],
        mail,
        verdict.hunks,
    )
