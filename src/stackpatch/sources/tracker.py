"""The state of issues, pull requests and commits that patches link to, from GitHub's API.

Useful without a network: what was seen is kept with the time it was seen, and what was never seen
is unknown. A link's state is a note beside a verdict, never the verdict.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from stackpatch.storage import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import requests

API = "https://api.github.com"
TIMEOUT = (5.0, 15.0)  # seconds to connect, to read
_LINK = re.compile(
    r"https://github\.com/(?P<repo>[\w-][\w.-]*/(?!\.\.?/)[\w.-]+)/"
    r"(?P<kind>issues|pull|commit)/(?P<id>\w+)/?$",
    re.ASCII,
)
_MOST = 1 << 20  # bytes of an answer that are read at most
_MINUTE = timedelta(minutes=1)  # what GitHub asks for where it does not say how long to wait
_LONGEST = timedelta(days=1)  # that a server's word is believed for
_REFUSED = "refused"  # in the cache, beside the links: not to ask this server for a while
_REDIRECTS = 3  # a renamed repository's answer points to its number


class State(StrEnum):
    """What a link is. EXISTS: a commit."""

    OPEN = "open"
    CLOSED = "closed"
    MERGED = "merged"
    EXISTS = "exists"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class LinkState:
    """What is known of a link. checked: when it was last seen so, None: never; why: if unknown
    or not seen in this run, the reason."""

    url: str
    state: State
    title: str | None = None
    checked: datetime | None = None
    etag: str | None = None
    why: str | None = None

    def age(self, now: datetime) -> str:
        """`seen 3 days ago`, or `never seen`."""
        if self.checked is None:
            return "never seen"
        seconds = max((now - self.checked).total_seconds(), 0)
        for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
            if seconds >= size:
                count = int(seconds // size)
                return f"seen {count} {unit}{'s' * (count != 1)} ago"
        return "seen now"


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A server that wants no more requests of us for a while. with_token: whether we had one."""

    host: str
    until: datetime
    with_token: bool

    def __str__(self) -> str:
        return f"{self.host} refuses more requests until {self.until:%Y-%m-%d %H:%M} UTC"


class Tracker:
    """Looks links up, asks each at most once a run, and keeps what it saw in one file."""

    def __init__(
        self,
        cache: Path,
        *,
        offline: bool = False,
        api: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cache = cache
        self._api = (api or os.environ.get("STACKPATCH_GITHUB_API") or API).rstrip("/")
        self._now = now
        self._host = str(urlsplit(self._api).hostname)
        self._token = os.environ.get("GITHUB_TOKEN") or os.environ.get("GH_TOKEN") or None
        self._known, self._refused = _load(cache)
        # Set once the service says no or does not answer: the other links are not tried then.
        self._closed = self._not_to_ask(offline=offline)
        self._asked: dict[str, LinkState] = {}
        self._session: requests.Session | None = None

    def state(self, url: str) -> LinkState:
        """What is known of the link; never raises for the network."""
        if url not in self._asked:
            self._asked[url] = self._ask(url)
        return self._asked[url]

    def save(self) -> None:
        """Keep what was seen, and until when not to ask again."""
        seen = {u: s for u, s in self._asked.items() if s.checked is not None}
        if seen.items() - self._known.items() or self._refused != _load(self._cache)[1]:
            self._known |= seen
            document = {u: _to_json(s) for u, s in sorted(self._known.items())}
            if self._refused is not None:
                until = self._refused.until.isoformat()
                document[_REFUSED] = asdict(self._refused) | {"until": until}
            write_atomically(self._cache, (json.dumps(document, indent=1) + "\n").encode())

    def _not_to_ask(self, *, offline: bool) -> str | None:
        if offline:
            return "not asked (offline)"
        refused = self._refused
        if refused is None or refused.until <= self._now():
            self._refused = None
            return None
        # With a token, or without one any more, it is another allowance.
        same = (refused.host, refused.with_token) == (self._host, self._token is not None)
        return str(refused) if same else None

    def _ask(self, url: str) -> LinkState:
        known = self._known.get(url, LinkState(url, State.UNKNOWN))
        found = _LINK.match(url)
        if found is None:
            return replace(known, why="not a GitHub issue, pull request or commit")
        if self._closed is not None:
            return replace(known, why=self._closed)
        kind = "commits" if found["kind"] == "commit" else "issues"
        answer = self._get(f"{self._api}/repos/{found['repo']}/{kind}/{found['id']}", known.etag)
        if isinstance(answer, str):
            return replace(known, why=answer)
        status, etag, body = answer
        if status == 304:
            return replace(known, checked=self._now(), why=None)
        if status in (404, 410):
            return LinkState(url, State.MISSING, checked=self._now())
        state = _state_of(body, commit=kind == "commits")
        if state is None:
            return replace(known, why="the answer was none of GitHub's")
        title = body.get("title") if isinstance(body, dict) else None
        return LinkState(url, state, title, self._now(), etag)

    def _get(self, address: str, etag: str | None) -> tuple[int, str | None, Any] | str:
        """Status, etag and parsed body; or, in words, why there is none."""
        import requests
        from urllib3.exceptions import HTTPError

        session = self._session = self._session or requests.Session()
        headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
        if self._token and urlsplit(address).scheme == "https":
            headers["Authorization"] = f"Bearer {self._token}"
        if etag:
            headers["If-None-Match"] = etag
        host = self._host
        try:
            for _ in range(_REDIRECTS):
                with session.get(
                    address,
                    headers=headers,
                    timeout=TIMEOUT,
                    stream=True,
                    allow_redirects=False,
                    auth=_as_it_is,
                ) as response:
                    if response.is_redirect:
                        there = urljoin(address, response.headers["Location"])
                        if urlsplit(there)[:2] != urlsplit(address)[:2]:
                            return f"{host} points to another server"
                        address = there
                        continue
                    return self._read(response)
        except (ValueError, RecursionError):
            return f"{host} did not answer with JSON"
        except (requests.RequestException, HTTPError, OSError) as error:
            self._closed = f"{host} cannot be reached ({type(error).__name__})"
            return self._closed
        return f"{host} redirects without end"

    def _read(self, response: requests.Response) -> tuple[int, str | None, Any] | str:
        status = response.status_code
        if status in (403, 429) or response.headers.get("X-RateLimit-Remaining") == "0":
            until = _until(response, self._now())
            self._refused = _Refusal(self._host, until, self._token is not None)
            self._closed = str(self._refused)
        if status in (403, 429):
            return str(self._closed)
        if status == 401 and self._token:
            self._closed = f"{self._host} does not accept the token in GITHUB_TOKEN or GH_TOKEN"
            return self._closed
        if status in (304, 404, 410):
            return status, None, None
        if status != 200:
            return f"{self._host} answered {status}"
        raw = response.raw.read(_MOST, decode_content=True)
        return 200, response.headers.get("ETag"), json.loads(raw)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Our own header or none: requests would add what a .netrc says, over plain http too."""
    return request


def _until(response: requests.Response, now: datetime) -> datetime:
    """When the server may be asked again, by its own word as far as that can be believed."""
    reset = response.headers.get("X-RateLimit-Reset", "")
    wait = response.headers.get("Retry-After", "")
    until = now + _MINUTE
    if re.fullmatch(r"[0-9]{1,6}", wait):
        until = now + timedelta(seconds=int(wait))
    elif re.fullmatch(r"[0-9]{1,11}", reset):
        until = datetime.fromtimestamp(int(reset), UTC)
    return min(max(until, now + _MINUTE), now + _LONGEST)


def _state_of(body: Any, *, commit: bool) -> State | None:
    if not isinstance(body, dict):
        return None
    if commit:
        return State.EXISTS if isinstance(body.get("sha"), str) else None
    if isinstance(body.get("pull_request"), dict) and body["pull_request"].get("merged_at"):
        return State.MERGED
    return {"open": State.OPEN, "closed": State.CLOSED}.get(str(body.get("state")))


def _to_json(state: LinkState) -> dict[str, str | None]:
    checked = state.checked.isoformat() if state.checked else None
    return {"state": state.state, "title": state.title, "checked": checked, "etag": state.etag}


def _load(cache: Path) -> tuple[dict[str, LinkState], _Refusal | None]:
    """What an earlier run kept; a damaged file is as good as none."""
    try:
        document = json.loads(cache.read_bytes())
        refused = document.pop(_REFUSED, None)
        known = {
            url: LinkState(
                url,
                State(entry["state"]),
                entry["title"],
                datetime.fromisoformat(entry["checked"]),
                entry["etag"],
            )
            for url, entry in document.items()
        }
        if refused is None:
            return known, None
        until = datetime.fromisoformat(refused["until"]).astimezone(UTC)
        return known, _Refusal(str(refused["host"]), until, bool(refused["with_token"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, None
