"""Secrets, taken out of what an engine prints before anybody sees it or keeps it."""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SHORTEST = 6  # characters; shorter pieces would hide too much of a log
_LOGIN = re.compile(r"://([^/@\s]+)@")  # of a URL: USER:PASSWORD, or a token alone
_NETRC = re.compile(r"\bpassword\s+(\S+)")
_FEW = 200  # lines; a CA bundle has thousands, and a log many more


@dataclass(frozen=True, slots=True)
class Redactor:
    """Replaces secrets, line by line, as a step that prints its secret puts it into the output.

    Of a settings file, such as a pip.conf, also what stands behind `=` and the logins in URLs: a
    program that uses them prints a URL, not the line that it was in.

    few: looked for everywhere in a line. many: of large secrets, looked for between blanks.
    """

    few: tuple[str, ...]
    many: frozenset[str]

    @classmethod
    def of(cls, contents: Iterable[bytes]) -> Redactor:
        """From the secrets' files."""
        few: set[str] = set()
        many: set[str] = set()
        for content in contents:
            text = content.decode("utf-8", "replace")
            lines = {line.strip() for line in text.splitlines()}
            lines = {line for line in lines if len(line) >= _SHORTEST}
            if len(lines) <= _FEW:
                few |= {piece for line in lines for piece in _pieces(line)}
            else:
                many |= {word for line in lines for word in line.split() if len(word) >= 32}
        return cls(tuple(sorted(few, key=lambda one: (-len(one), one))), frozenset(many))

    def clean(self, line: str) -> str:
        """The line without them."""
        for secret in self.few:
            if secret in line:
                line = line.replace(secret, "***")
        if self.many:
            for word in line.split():
                if word in self.many:
                    line = line.replace(word, "***")
        return line


def _pieces(line: str) -> Iterator[str]:
    """The parts of a secret's line that may be printed by themselves."""
    yield line
    value = line.partition("=")[2].strip().strip("\"'")
    # An address without a login is worth reading in a log, and no secret.
    kept = [value] if "://" not in value or _LOGIN.search(value) else []
    kept += _NETRC.findall(line)
    for login in _LOGIN.findall(line):
        user, colon, password = login.partition(":")
        secret = password if colon else user
        kept += [login, secret, urllib.parse.unquote(secret)]
    yield from (one for one in kept if len(one) >= _SHORTEST)
