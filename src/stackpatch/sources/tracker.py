"""The state of issues, pull requests and commits that patches link to, from GitHub's API.

Useful without a network: what was seen is kept with the time it was seen, and what was never seen
is unknown. A link's state is a note beside a verdict, never the verdict.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
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
        # Set once the service says no or does not answer: the other links are not tried then.
        self._closed: str | None = "not asked (offline)" if offline else None
        self._known = _load(cache)
        self._asked: dict[str, LinkState] = {}
        self._session: requests.Session | None = None

    def state(self, url: str) -> LinkState:
        """What is known of the link; never raises for the network."""
        if url not in self._asked:
            self._asked[url] = self._ask(url)
        return self._asked[url]

    def save(self) -> None:
        """Keep what was seen."""
        seen = {u: s for u, s in self._asked.items() if s.checked is not None}
        if seen.items() - self._known.items():
            self._known |= seen
            document = {u: _to_json(s) for u, s in sorted(self._known.items())}
            write_atomically(self._cache, (json.dumps(document, indent=1) + "\n").encode())

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
        if status == 404:
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
        token = os.environ.get("GITHUB_TOKEN") or os.environ.get("GH_TOKEN")
        if token and urlsplit(address).scheme == "https":
            headers["Authorization"] = f"Bearer {token}"
        if etag:
            headers["If-None-Match"] = etag
        host = urlsplit(self._api).hostname
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
                    return self._read(response, str(host))
        except (ValueError, RecursionError):
            return f"{host} did not answer with JSON"
        except (requests.RequestException, HTTPError, OSError) as error:
            self._closed = f"{host} cannot be reached ({type(error).__name__})"
            return self._closed
        return f"{host} redirects without end"

    def _read(self, response: requests.Response, host: str) -> tuple[int, str | None, Any] | str:
        if response.status_code in (403, 429):
            self._closed = f"{host} refuses more requests{_until(response)}"
            return self._closed
        if response.status_code in (304, 404):
            return response.status_code, None, None
        if response.status_code != 200:
            return f"{host} answered {response.status_code}"
        raw = response.raw.read(_MOST, decode_content=True)
        return 200, response.headers.get("ETag"), json.loads(raw)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Our own header or none: requests would add what a .netrc says, over plain http too."""
    return request


def _until(response: requests.Response) -> str:
    reset = response.headers.get("X-RateLimit-Reset", "")
    wait = response.headers.get("Retry-After", "")
    if re.fullmatch(r"[0-9]{1,11}", reset):
        return f" until {datetime.fromtimestamp(int(reset), UTC):%Y-%m-%d %H:%M} UTC"
    return f" for {wait} s" if re.fullmatch(r"[0-9]{1,6}", wait) else ""


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


def _load(cache: Path) -> dict[str, LinkState]:
    """What an earlier run kept; a damaged file is as good as none."""
    try:
        return {
            url: LinkState(
                url,
                State(entry["state"]),
                entry["title"],
                datetime.fromisoformat(entry["checked"]),
                entry["etag"],
            )
            for url, entry in json.loads(cache.read_bytes()).items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
