"""Signing what is published, by cosign: it has ways of its own to a key or an identity."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

from stackpatch import proc
from stackpatch.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackpatch.registry.auth import Secrets
    from stackpatch.registry.reference import Reference

_OPTION = re.compile(r"--[a-z][a-z-]*(=.*)?", re.DOTALL)
_SECRET = ("--identity-token", "--registry-password", "--registry-token")
_KEPT = 20  # lines of what it says


def check_cosign(options: Sequence[str]) -> None:
    """Raises InputError for a word that is no option, EnvironmentProblem without cosign."""
    for word in options:
        # A word of another kind would be one more image to sign.
        if not _OPTION.fullmatch(word):
            msg = f"--cosign-option {word!r}: want an option of `cosign sign` in one word"
            raise InputError(msg, hint="--cosign-option=--key=cosign.key")
    if proc.find("cosign") is None:
        msg = "--sign needs cosign, which is not on PATH"
        raise EnvironmentProblem(msg, hint="install cosign, or publish without --sign")


def sign(
    at: Reference,
    options: Sequence[str],
    *,
    plain: bool,
    secrets: Secrets,
    say: Callable[[str], object],
) -> None:
    """Let `cosign sign` sign what the reference names by digest.

    plain: whether the registry is spoken to without TLS. say: gets what cosign prints as it comes;
    a login in a browser starts with a line of it. Raises EnvironmentProblem with its last words.
    """
    for word in options:
        name, _, value = word.partition("=")
        if name in _SECRET:
            secrets.keep(value)
    said: deque[str] = deque(maxlen=_KEPT)

    def on_line(raw: str) -> None:
        line = secrets.hide(raw)
        said.append(line)
        if line.strip():
            say(f"cosign: {line}")

    http = ("--allow-http-registry=true",) if plain and not at.loopback else ()
    status = proc.follow(["cosign", "sign", "--yes", str(at), *http, *options], on_line)
    if status != 0:
        lines = [line for line in said if line.strip()]
        # Its last line repeats the error behind words of its own.
        told = [line for line in lines if line.startswith("Error: ")] or lines
        why = told[-1].removeprefix("Error: ") if told else f"it ended with status {status}"
        msg = f"cosign could not sign {at}: {why}"
        raise EnvironmentProblem(msg, hint="the tag was not moved; mend that and run again")
