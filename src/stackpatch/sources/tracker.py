"""The state of issues, pull requests and commits that patches link to, from GitHub's API.

Useful without a network: what was seen is kept with the time it was seen, and what was never seen
is unknown. A link's state is a note beside a verdict, never the verdict.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import os
import re
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stackpatch.sources.github import Answer, Client, Unreachable
from stackpatch.storage import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


API = "https://api.github.com"
_LINK = re.compile(
    r"https://github\.com/(?P<repo>[\w-][\w.-]*/(?!\.\.?/)[\w.-]+)/"
    r"(?P<kind>issues|pull|commit)/(?P<id>\w+)/?(?:[?#].*)?$",
    re.ASCII,
)
_MINUTE = timedelta(minutes=1)  # what GitHub asks for where it does not say how long to wait
_LONGEST = timedelta(days=1)  # that a server's word is believed for
_REFUSED = "refused"  # in the cache, beside the links: not to ask this server for a while


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
        self._host = _host_of(self._api)
        tokens = (os.environ.get(name, "").strip() for name in ("GITHUB_TOKEN", "GH_TOKEN"))
        self._token = next((token for token in tokens if token), None)
        self._known, self._refused = _load(cache)
        # Set once the service says no or does not answer: the other links are not tried then.
        self._closed = self._not_to_ask(offline=offline)
        self._asked: dict[str, LinkState] = {}
        self._client = Client()

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
        if (wrong := _cannot_ask(self._api, self._token)) is not None:
            return wrong
        refused = self._refused
        if refused is None or not self._now() < refused.until <= self._now() + _LONGEST:
            self._refused = None  # over; or written when the clock was wrong
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
        if answer.status == 304 and known.etag and known.state is not State.UNKNOWN:
            return replace(known, checked=self._now(), why=None)
        body = _json(answer.body)
        if body is None:
            return replace(known, why=f"{self._host} did not answer with JSON")
        if answer.status in (404, 410) and isinstance(body, dict) and "message" in body:
            return LinkState(url, State.MISSING, checked=self._now())
        state = _state_of(body, commit=kind == "commits") if answer.status == 200 else None
        if state is None:
            return replace(known, why="the answer was none of GitHub's")
        title = _plain(body.get("title"))
        return LinkState(url, state, title, self._now(), _plain(answer.headers.get("ETag")))

    def _get(self, address: str, etag: str | None) -> Answer | str:
        """A 200, 304, 404 or 410; or, in words, why there is none."""
        headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
        if self._token and urlsplit(address).scheme == "https":
            headers["Authorization"] = f"Bearer {self._token}"
        if etag:
            headers["If-None-Match"] = etag
        answer = self._client.ask(address, headers)
        if isinstance(answer, Unreachable):
            self._closed = f"{self._host} {answer.why}"
            return self._closed
        if isinstance(answer, str):
            return f"{self._host} {answer}"
        return self._judged(answer)

    def _judged(self, answer: Answer) -> Answer | str:
        status = answer.status
        refusal = _is_refusal(answer)
        if refusal or answer.headers.get("X-RateLimit-Remaining") == "0":
            until = _until(answer, self._now())
            self._refused = _Refusal(self._host, until, self._token is not None)
            self._closed = str(self._refused)
        if refusal:
            return str(self._closed)
        if status == 401 and self._token:
            self._closed = f"{self._host} does not accept the token in GITHUB_TOKEN or GH_TOKEN"
            return self._closed
        return answer if status in (200, 304, 404, 410) else f"{self._host} answered {status}"


def _cannot_ask(api: str, token: str | None) -> str | None:
    """What is wrong with the person's own settings, in words."""
    try:
        parts = urlsplit(api)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname
        _ = parts.port  # ValueError for what is no port
    except ValueError:
        wrong = True
    if wrong or not re.fullmatch(r"[!-~]+", api):
        return "not asked (STACKPATCH_GITHUB_API is no http or https address)"
    if token is not None and not re.fullmatch(r"[ -~]+", token):
        return "not asked (what GITHUB_TOKEN or GH_TOKEN holds is no token)"
    return None


def _host_of(api: str) -> str:
    try:
        return str(urlsplit(api).hostname)
    except ValueError:
        return api


def _json(body: bytes) -> Any:
    """None for what is none, and for null."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _plain(value: Any) -> str | None:
    """A text that can be kept, sent and printed; None for anything else."""
    if not isinstance(value, str) or not value.isprintable():
        return None
    return value


def _is_refusal(answer: Answer) -> bool:
    """Whether the server wants no more requests. A 403 is also said of one thing alone, by an
    organisation that wants another login: then requests are left, and nothing speaks of a limit."""
    if answer.status != 403:
        return answer.status == 429
    left = answer.headers.get("X-RateLimit-Remaining", "")
    spoken = re.search(rb"rate.limit|abuse", answer.body, re.IGNORECASE)
    waits = "Retry-After" in answer.headers
    return waits or spoken is not None or re.fullmatch(r"0*[1-9][0-9]*", left) is None


def _until(answer: Answer, now: datetime) -> datetime:
    """When the server may be asked again, by its own word as far as that can be believed."""
    reset = answer.headers.get("X-RateLimit-Reset", "")
    wait = answer.headers.get("Retry-After", "")
    until = now + _MINUTE
    if re.fullmatch(r"[0-9]{1,6}", wait):
        until = now + timedelta(seconds=int(wait))
    elif re.fullmatch(r"[0-9]{1,11}", reset):
        until = datetime.fromtimestamp(int(reset), UTC)
    elif wait:
        with contextlib.suppress(ValueError):
            until = email.utils.parsedate_to_datetime(wait).astimezone(UTC)
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
                _plain(entry["title"]),
                datetime.fromisoformat(entry["checked"]).astimezone(UTC),
                _plain(entry["etag"]),
            )
            for url, entry in document.items()
        }
        if refused is None:
            return known, None
        until = datetime.fromisoformat(refused["until"]).astimezone(UTC)
        return known, _Refusal(str(refused["host"]), until, bool(refused["with_token"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, None
