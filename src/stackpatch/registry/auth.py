"""Logging in at a registry: Basic, and the Bearer token dance of the distribution project.

Credentials are looked up when a registry wants them, not before. Everything secret that passes
through here is known to `Secrets`, which takes it out of every text that leaves this room.
"""

from __future__ import annotations

import base64
import re
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stackpatch.errors import EnvironmentProblem
from stackpatch.registry.reference import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackpatch.registry.credentials import Credentials, Found
    from stackpatch.registry.session import Session

_CLIENT = "stackpatch"
# Seconds that a token lives where the server does not say (the token specification's number), and
# how many before its end it is not used any more.
_USUAL_LIFE = 60.0
_MARGIN = 10.0
_TOKEN68 = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_SCHEME = re.compile(rf"\s*,*\s*({_TOKEN68})(?:\s+|$|(?=,))")
_PARAMETER = re.compile(rf'\s*,?\s*({_TOKEN68})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN68}))')


@dataclass(frozen=True, slots=True, order=True)
class Access:
    """What is to be done in a repository: `pull`, `push`."""

    repository: str
    actions: tuple[str, ...]

    @property
    def scope(self) -> str:
        """As a token server reads it."""
        return f"repository:{self.repository}:{','.join(self.actions)}"


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that a registry offers. scheme: in small letters."""

    scheme: str
    parameters: dict[str, str]


@dataclass(slots=True)
class Secrets:
    """Texts that must not be seen."""

    known: set[str] = field(default_factory=set, repr=False)

    def keep(self, *texts: str | None) -> None:
        """Learn them; what is shorter than four characters would hide ordinary words."""
        self.known |= {text for text in texts if text and len(text) >= 4}

    def hide(self, text: str) -> str:
        """The text with every secret in it replaced, longest first."""
        for secret in sorted(self.known, key=len, reverse=True):
            for form in (secret, urllib.parse.quote(secret, safe="")):
                text = text.replace(form, "****")
        return text


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """What a WWW-Authenticate header offers; what cannot be read is left out (RFC 9110, 11.6)."""
    found: list[Challenge] = []
    at = 0
    while at < len(header):
        parameter = _PARAMETER.match(header, at)
        if parameter and found:
            name, quoted, plain = parameter.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            found[-1].parameters.setdefault(name.lower(), value)
            at = parameter.end()
            continue
        scheme = _SCHEME.match(header, at)
        if scheme is None:
            at += 1
            continue
        found.append(Challenge(scheme[1].lower(), {}))
        at = scheme.end()
    return tuple(found)


@dataclass(slots=True)
class Login:
    """What we know about getting into one registry in one run.

    find: looks for the person's credentials; called once, when the registry wants them.
    """

    find: Callable[[], Found]
    secrets: Secrets = field(default_factory=Secrets)
    _found: Found | None = None
    _challenge: Challenge | None = None
    _tokens: dict[frozenset[Access], tuple[str, float]] = field(default_factory=dict)

    def header(self, access: tuple[Access, ...]) -> str | None:
        """The Authorization to send unasked: what the registry took before, for this access."""
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            return self._basic()
        token, until = self._tokens.get(frozenset(access), ("", 0.0))
        return f"Bearer {token}" if token and time.monotonic() < until else None

    def answer(
        self, header: str, access: tuple[Access, ...], offered: str | None, session: Session
    ) -> str | None:
        """The Authorization for a challenge; None where there is nothing better than `offered`.

        Raises EnvironmentProblem where the token server refuses or cannot be reached.
        """
        challenges = parse_challenges(header)
        bearer = next((c for c in challenges if c.scheme == "bearer"), None)
        basic = next((c for c in challenges if c.scheme == "basic"), None)
        self._challenge = bearer or basic
        if bearer is not None:
            token, lives = self._token(bearer, access, session)
            until = time.monotonic() + lives - min(_MARGIN, lives / 4)
            self._tokens[frozenset(access)] = (token, until)
            made = f"Bearer {token}"
            # A token that is new and the same was refused a moment ago.
            return made if made != offered else None
        if basic is not None:
            made_basic = self._basic()
            return made_basic if made_basic != offered else None
        return None

    def refused(self, what: str, said: str) -> EnvironmentProblem:
        """A login that is missing or not enough. said: the registry's own reason, or nothing."""
        found = self._found
        if found is not None and found.credentials is not None:
            what += f" to the login from {found.credentials.origin}"
            hint = "that login has no right to it, or is too old: `docker login` again"
        elif found is not None and found.trouble:
            hint = f"{found.trouble}; `docker login` makes a new login"
        else:
            hint = "log in first: `docker login` or `podman login`, or a credential helper"
        return EnvironmentProblem(f"{what}{said}", hint=hint)

    def credentials(self) -> Credentials | None:
        """The person's, looked up now."""
        if self._found is None:
            self._found = self.find()
            one = self._found.credentials
            if one is not None:
                self.secrets.keep(one.password, one.identity, one.registry_token)
        return self._found.credentials

    def _basic(self) -> str | None:
        one = self.credentials()
        if one is None or one.password is None:
            return None
        encoded = base64.b64encode(f"{one.username}:{one.password}".encode()).decode("ascii")
        self.secrets.keep(encoded)
        return f"Basic {encoded}"

    def _token(
        self, challenge: Challenge, access: tuple[Access, ...], session: Session
    ) -> tuple[str, float]:
        """A token for the access, and the seconds that it lives."""
        one = self.credentials()
        if one is not None and one.registry_token:
            return one.registry_token, _USUAL_LIFE
        realm = challenge.parameters.get("realm", "")
        self._check_realm(realm, session)
        asked = [scope.scope for scope in sorted(access)]
        if not asked and "scope" in challenge.parameters:
            asked = [challenge.parameters["scope"]]
        said = session.patiently(
            lambda: self._ask(realm, challenge, asked, session),
            f"no token from {urllib.parse.urlsplit(realm).netloc}",
        )
        token = said.get("token") or said.get("access_token")
        if not isinstance(token, str) or not token or re.search(r"[\x00-\x20\x7f]", token):
            msg = f"{urllib.parse.urlsplit(realm).netloc} answered without a token"
            raise EnvironmentProblem(msg)
        self.secrets.keep(token)
        lives = said.get("expires_in")
        if isinstance(lives, bool) or not isinstance(lives, int | float) or lives <= 0:
            lives = _USUAL_LIFE
        return token, float(lives)

    def _ask(
        self, realm: str, challenge: Challenge, scopes: list[str], session: Session
    ) -> dict[str, Any]:
        one = self.credentials()
        service = challenge.parameters.get("service")
        fields = [("service", service)] if service else []
        if one is not None and one.identity:
            form = [("grant_type", "refresh_token"), ("client_id", _CLIENT), *fields]
            form += [("scope", " ".join(scopes)), ("refresh_token", one.identity)]
            return session.token(realm, None, urllib.parse.urlencode(form).encode())
        query = urllib.parse.urlencode([*fields, *(("scope", scope) for scope in scopes)])
        joined = f"{realm}{'&' if '?' in realm else '?'}{query}" if query else realm
        return session.token(joined, self._basic(), None)

    def _check_realm(self, realm: str, session: Session) -> None:
        """No credentials go to a place that is less safe than the registry."""
        parts = urllib.parse.urlsplit(realm)
        safe = parts.scheme == "https" or (
            parts.scheme == "http" and (is_loopback(parts.netloc) or session.plain)
        )
        if not safe or not parts.hostname or "@" in parts.netloc:
            msg = f"{session.host} names {session.shown(realm)!r} as its token server"
            raise EnvironmentProblem(msg, hint="no login is sent there: it is not https")
