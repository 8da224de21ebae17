"""Requests to one registry: retries, redirects, time limits, and no secret in any message.

A redirect is followed by us and carries the login only to the same scheme, host and port. What
may be tried again is decided by the caller.
"""

from __future__ import annotations

import contextlib
import time
import urllib.parse
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from stackpatch.errors import EnvironmentProblem
from stackpatch.registry.failures import stated
from stackpatch.registry.patience import Limits, Patience, Traffic
from stackpatch.registry.reference import is_loopback
from stackpatch.registry.wire import Wire
from stackpatch.sources.transport import Interrupted, innermost, redact, retry_after

if TYPE_CHECKING:  # requests is imported when something is really asked for: it takes 0.1 s
    from collections.abc import Callable, Iterator, Mapping

    import requests

    from stackpatch.registry.auth import Access, Login, Secrets

_T = TypeVar("_T")
_BLOCK = 1 << 18
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_ERROR_BODY = 16 << 10
_TOKEN_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. url: absolute.

    body: gives the bytes, or something with `read` and `__len__`; called for each time it is sent.
    access: what a login must allow.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], Any] | None = None
    access: tuple[Access, ...] = ()


@dataclass(slots=True)
class Session:
    """A client for one host in one run.

    host: `host[:port]` as the API has it. login: credentials and tokens for it. pause: how to wait
    (tests do not). plain: whether HTTP without TLS may be spoken where TLS is not.
    """

    host: str
    login: Login
    limits: Limits = field(default_factory=Limits)
    pause: Callable[[float], None] = time.sleep
    plain: bool = False
    traffic: Traffic = field(default_factory=Traffic)
    _lines: Wire | None = None
    _base: str | None = None

    @property
    def secrets(self) -> Secrets:
        """What no message may hold."""
        return self.login.secrets

    def url(self, path: str) -> str:
        """The absolute URL of a path below `/v2/`; the first call finds out whether TLS is spoken.

        Only a loopback host, or one that the person named as plain, is ever asked without TLS.
        """
        if self._base is None:
            scheme = "http" if self._without_tls() else "https"
            self._base = f"{scheme}://{self.host}"
        return f"{self._base}/v2/{path}"

    @contextlib.contextmanager
    def send(self, ask: Ask, *, expected: frozenset[int]) -> Iterator[requests.Response]:
        """One request with its redirects and, where the registry wants one, a login.

        expected: the statuses that are answers. Raises Interrupted for what may work the next
        time, EnvironmentProblem for the rest.
        """
        response = self._authorised(ask)
        with contextlib.closing(response):
            if response.status_code not in expected:
                raise self._refused(response, ask)
            yield response

    def patiently(self, action: Callable[[], _T], what: str, *, seconds: float | None = None) -> _T:
        """Do it again as long as it is Interrupted, within the limits.

        seconds: for all attempts together. Raises EnvironmentProblem with the last reason.
        """
        patience = self.patience(what, self.limits.document if seconds is None else seconds)
        while True:
            try:
                return action()
            except Interrupted as error:
                patience.after(error)

    def patience(self, what: str, seconds: float) -> Patience:
        """What there is of it for one piece of work. seconds: for all attempts together."""
        return Patience(self.limits, self.pause, what, seconds)

    def token(self, url: str, authorization: str | None, form: bytes | None) -> dict[str, Any]:
        """What a token server answers. form: what to post there; None asks with GET.

        Raises Interrupted and EnvironmentProblem like `send`.
        """
        import json

        kind = {"Content-Type": "application/x-www-form-urlencoded"} if form is not None else {}
        body = None if form is None else lambda: form
        ask = Ask("GET" if form is None else "POST", url, kind, body)
        sent = self.traffic.bytes_sent
        with contextlib.closing(self._follow(ask, authorization)) as response:
            self.traffic.bytes_sent = sent  # a form with a secret is no content
            if response.status_code != 200:
                raise self._refused(response, ask)
            content = b""
            for block in self.body(response, self.limits.read):
                content += block
                if len(content) > _TOKEN_BYTES:
                    break
        try:
            said = json.loads(content)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            msg = f"{self.shown(url)} answered something else than a token"
            raise EnvironmentProblem(msg)
        return said

    def body(self, response: requests.Response, limit: float) -> Iterator[bytes]:
        """The blocks of an answer as they were sent. limit: seconds until the last one.

        Raises Interrupted where the connection breaks off or is too slow.
        """
        import urllib3

        deadline = time.monotonic() + limit
        try:
            for block in response.raw.stream(_BLOCK, decode_content=False):
                yield block
                if time.monotonic() > deadline:
                    reason = f"{self.shown(response.url)} sent too slowly (limit {limit:.0f} s)"
                    raise Interrupted(reason)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            reason = f"the connection to {self.host} broke off ({innermost(error)})"
            raise Interrupted(self.secrets.hide(reason)) from error

    def _authorised(self, ask: Ask) -> requests.Response:
        """The answer; a 401 is answered once with a login, or with a new token.

        A place that the registry sent us to, on another host, gets no login of ours.
        """
        if not self._is_ours(ask.url):
            return self._follow(ask, None)
        offered = self.login.header(ask.access)
        response = self._follow(ask, offered)
        if response.status_code != 401:
            return response
        with contextlib.closing(response):
            challenge = ", ".join(response.raw.headers.getlist("WWW-Authenticate"))
            said = self._said(response)
            again = self.login.answer(challenge, ask.access, offered, self)
        if again is None:
            what = f"{self.host} wants a login for {_subject(ask)}"
            raise self.login.refused(what, said)
        return self._follow(ask, again)

    def _follow(self, ask: Ask, authorization: str | None) -> requests.Response:
        url, origin = ask.url, _origin(ask.url)
        for _ in range(_MOST_REDIRECTS + 1):
            header = authorization if _origin(url) == origin else None
            response = self._once(ask, url, header)
            target = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or not target:
                return response
            with contextlib.closing(response):
                target = urllib.parse.urljoin(url, target)
                self.check_target(url, target)
                if ask.method not in {"GET", "HEAD"} and response.status_code not in {307, 308}:
                    msg = f"{self.shown(url)} redirects a {ask.method}, which would lose its body"
                    raise EnvironmentProblem(msg, hint="name the registry by its real host")
            url = target
        msg = f"{self.shown(ask.url)} redirects more than {_MOST_REDIRECTS} times"
        raise EnvironmentProblem(msg)

    def check_target(self, url: str, target: str) -> None:
        """Refuse a place that the registry names and that is less safe than where we are."""
        here, there = urllib.parse.urlsplit(url), urllib.parse.urlsplit(target)
        if there.scheme not in {"http", "https"} or not there.hostname:
            msg = f"{self.shown(url)} sends us to {self.shown(target)}, which is no web address"
            raise EnvironmentProblem(msg)
        if here.scheme == "https" and there.scheme == "http":
            msg = f"{self.shown(url)} sends us from https to {self.shown(target)}"
            hint = (
                "the registry does not know its own address; its proxy must say X-Forwarded-Proto"
            )
            raise EnvironmentProblem(msg, hint=hint)

    def _is_ours(self, url: str) -> bool:
        return self._base is not None and _origin(url) == _origin(self._base)

    def _once(self, ask: Ask, url: str, authorization: str | None) -> requests.Response:
        body = ask.body() if ask.body is not None else None
        headers = {"Accept-Encoding": "identity", **ask.headers}
        return self._wire().request(ask.method, url, headers, body, authorization)

    def _wire(self) -> Wire:
        if self._lines is None:
            self._lines = Wire(self.limits, self.secrets, self.traffic)
        return self._lines

    def _without_tls(self) -> bool:
        """Whether the host is to be spoken to in plain words; asked without any credentials."""
        if not (self.plain or is_loopback(self.host)):
            return False
        asked = partial(self._wire().speaks_plain, self.host)
        return self.patiently(asked, f"cannot reach the registry {self.host}")

    def _refused(self, response: requests.Response, ask: Ask) -> Exception:
        status, shown = response.status_code, self.shown(ask.url)
        said = self._said(response)
        what = f"{ask.method} {shown} answered {status}{said}"
        if status in _AGAIN:
            return Interrupted(what, retry_after(response.headers.get("Retry-After")))
        if status in {401, 403}:
            return self.login.refused(f"{self.host} refuses {_subject(ask)} ({status})", said)
        return EnvironmentProblem(what)

    def _said(self, response: requests.Response) -> str:
        """What the registry gives as its reason: `: CODE message`, or nothing."""
        content = b""
        with contextlib.suppress(Interrupted):
            for block in self.body(response, 10.0):
                content += block
                if len(content) > _ERROR_BODY:
                    break
        words = stated(content)
        return f": {self.secrets.hide(redact(words))[:300]}" if words else ""

    def shown(self, url: str) -> str:
        """A URL for a message: without queries, which may be signatures, and without secrets."""
        return self.secrets.hide(redact(url))


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _subject(ask: Ask) -> str:
    if not ask.access:
        return "this request"
    return " and ".join(f"{'+'.join(one.actions)} of {one.repository}" for one in ask.access)
