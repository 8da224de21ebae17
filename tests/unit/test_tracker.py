"""The state of links, beside a GitHub that answers in every way it may, or not at all."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import requests
from tests.serving import Reply, Server, serving

from stackpatch.sources.tracker import LinkState, State, Tracker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PULL = "https://github.com/o/r/pull/1"
ISSUE = "https://github.com/o/r/issues/2"
COMMIT = "https://github.com/o/r/commit/" + "a" * 40
PATHS = {
    PULL: "/repos/o/r/issues/1",
    ISSUE: "/repos/o/r/issues/2",
    COMMIT: "/repos/o/r/commits/" + "a" * 40,
}


@pytest.fixture
def github() -> Iterator[Server]:
    with serving() as server:
        yield server


def answer(body: object, **headers: str) -> Reply:
    return Reply(json.dumps(body).encode(), headers=headers, kind="application/json")


def no_such(status: int) -> Reply:
    return Reply(b'{"message": "Not Found", "status": "404"}', status, kind="application/json")


def issue(state: str, *, merged: str | None = None, pull: bool = False) -> dict[str, Any]:
    body: dict[str, Any] = {"state": state, "title": "A title"}
    return body | ({"pull_request": {"merged_at": merged}} if pull else {})


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def make(tmp_path: Path, server: Server | None, clock: Clock | None = None, **more: Any) -> Tracker:
    api = "http://127.0.0.1:9" if server is None else server.url
    return Tracker(tmp_path / "links.json", api=api, now=clock or Clock(), **more)


@pytest.mark.parametrize(
    ("url", "body", "state"),
    [
        (PULL, issue("open", pull=True), State.OPEN),
        (PULL, issue("closed", pull=True), State.CLOSED),
        (PULL, issue("closed", merged="2026-01-01T00:00:00Z", pull=True), State.MERGED),
        (ISSUE, issue("open"), State.OPEN),
        (ISSUE, issue("closed"), State.CLOSED),
        (COMMIT, {"sha": "a" * 40, "commit": {}}, State.EXISTS),
    ],
)
def test_every_state(tmp_path: Path, github: Server, url: str, body: object, state: State) -> None:
    github.replies[PATHS[url]] = answer(body, ETag='"x"')
    seen = make(tmp_path, github).state(url)
    assert (seen.state, seen.checked, seen.etag, seen.why) == (state, NOW, '"x"', None)


@pytest.mark.parametrize("tail", ["#issuecomment-7", "?x=1", "/#discussion_r1"])
def test_a_place_within_a_thread_is_the_thread(tmp_path: Path, github: Server, tail: str) -> None:
    github.replies[PATHS[PULL]] = answer(issue("open", pull=True))
    assert make(tmp_path, github).state(f"{PULL}{tail}").state is State.OPEN


def test_what_is_not_there_is_missing(tmp_path: Path, github: Server) -> None:
    github.replies[PATHS[PULL]] = no_such(404)
    seen = make(tmp_path, github).state(PULL)
    assert (seen.state, seen.checked) == (State.MISSING, NOW)


def test_a_second_run_asks_whether_it_changed(tmp_path: Path, github: Server) -> None:
    clock = Clock()
    github.replies[PATHS[PULL]] = answer(issue("open", pull=True), ETag='"one"')
    tracker = make(tmp_path, github, clock)
    first = tracker.state(PULL)
    assert tracker.state(PULL) is first, "asked once a run"
    tracker.save()
    clock.now += timedelta(days=2)
    github.replies[PATHS[PULL]] = Reply(status=304)
    again = make(tmp_path, github, clock)
    seen = again.state(PULL)
    assert github.asked[1].headers["If-None-Match"] == '"one"'
    assert len(github.asked) == 2
    assert (seen.state, seen.title, seen.checked) == (State.OPEN, "A title", clock.now)
    again.save()
    offline = make(tmp_path, None, clock, offline=True).state(PULL)
    assert (offline.state, offline.etag, offline.checked) == (State.OPEN, '"one"', clock.now)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(status=500), "127.0.0.1 answered 500"),
        (Reply(b"<!doctype html><p>Whoa there!", kind="text/html"), "did not answer with JSON"),
        (Reply(b""), "did not answer with JSON"),
        (Reply(b"[1, 2]"), "the answer was none of GitHub's"),
        (Reply(b'{"state": "odd"}'), "the answer was none of GitHub's"),
        (Reply(b'{"state": "open", "title": "', cut=10), "broke off its answer"),
        (Reply(b"no gzip", headers={"Content-Encoding": "gzip"}), "did not answer with JSON"),
        (Reply(b'"' + b"x" * (3 << 20) + b'"'), "did not answer with JSON"),
        (Reply(b"[" * 100_000), "did not answer with JSON"),
    ],
)
def test_no_usable_answer_is_unknown_with_a_reason(
    tmp_path: Path, github: Server, reply: Reply, why: str
) -> None:
    github.replies[PATHS[PULL]] = reply
    seen = make(tmp_path, github).state(PULL)
    assert (seen.state, seen.checked) == (State.UNKNOWN, None)
    assert seen.why
    assert why in seen.why


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (
            Reply(status=403, headers={"X-RateLimit-Reset": "1772370000"}),
            "refuses more requests until 2026-03-01 13:00 UTC",
        ),
        (Reply(status=429, headers={"Retry-After": "600"}), "until 2026-03-01 12:10 UTC"),
        (Reply(status=403), "until 2026-03-01 12:01 UTC"),
        (Reply(status=403, headers={"X-RateLimit-Reset": "9" * 30}), "until 2026-03-01 12:01 UTC"),
        (Reply(status=403, headers={"X-RateLimit-Reset": "9" * 11}), "until 2026-03-02 12:00 UTC"),
        (Reply(status=429, headers={"Retry-After": "0"}), "until 2026-03-01 12:01 UTC"),
        (
            Reply(status=429, headers={"Retry-After": "Sun, 01 Mar 2026 12:20:00 GMT"}),
            "until 2026-03-01 12:20 UTC",
        ),
        (Reply(status=429, headers={"Retry-After": "soon"}), "until 2026-03-01 12:01 UTC"),
        (Reply(status=401), "does not accept the token in GITHUB_TOKEN or GH_TOKEN"),
    ],
)
def test_a_refusal_ends_the_asking(
    tmp_path: Path, github: Server, monkeypatch: pytest.MonkeyPatch, reply: Reply, why: str
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "no longer good")
    github.replies[PATHS[PULL]] = reply
    tracker = make(tmp_path, github)
    assert why in (tracker.state(PULL).why or "")
    other = tracker.state(ISSUE)
    assert (other.state, why in (other.why or "")) == (State.UNKNOWN, True)
    assert github.paths() == [PATHS[PULL]], "nobody is asked again after a no"


def test_the_last_answer_of_an_allowance_counts_and_ends_the_asking(
    tmp_path: Path, github: Server
) -> None:
    spent = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1772370000"}
    github.replies[PATHS[PULL]] = answer(issue("open", pull=True), **spent)
    tracker = make(tmp_path, github)
    assert tracker.state(PULL).state is State.OPEN
    assert tracker.state(ISSUE).why == "127.0.0.1 refuses more requests until 2026-03-01 13:00 UTC"
    assert github.paths() == [PATHS[PULL]]


def test_a_refusal_holds_for_the_next_run_until_it_is_over(
    tmp_path: Path, github: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GITHUB_TOKEN", "GH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    github.replies[PATHS[PULL]] = Reply(status=429, headers={"Retry-After": "600"})
    clock = Clock()
    first = make(tmp_path, github, clock)
    said = first.state(PULL).why
    first.save()
    clock.now += timedelta(minutes=9)
    again = make(tmp_path, github, clock)
    assert (again.state(PULL).why, again.state(ISSUE).why) == (said, said)
    again.save()
    assert github.paths() == [PATHS[PULL]], "it was not asked a second time"
    elsewhere = Tracker(tmp_path / "links.json", api="http://127.0.0.1:9", now=clock)
    assert "cannot be reached" not in (elsewhere.state(PULL).why or ""), "the same host"
    monkeypatch.setenv("GH_TOKEN", "secret")
    github.replies[PATHS[PULL]] = answer(issue("open", pull=True))
    assert make(tmp_path, github, clock).state(PULL).state is State.OPEN, "another allowance"
    monkeypatch.delenv("GH_TOKEN")
    clock.now += timedelta(minutes=2)
    over = make(tmp_path, github, clock)
    assert over.state(PULL).state is State.OPEN
    over.save()
    assert "refuse" not in (tmp_path / "links.json").read_text()


def test_a_403_about_one_link_ends_no_asking(tmp_path: Path, github: Server) -> None:
    left = {"X-RateLimit-Remaining": "4990", "X-RateLimit-Reset": "1772370000"}
    body = b'{"message": "Resource protected by organization SAML enforcement."}'
    github.replies[PATHS[PULL]] = Reply(body, 403, left)
    github.replies[PATHS[ISSUE]] = answer(issue("open"))
    tracker = make(tmp_path, github)
    assert tracker.state(PULL).why == "127.0.0.1 answered 403"
    assert tracker.state(ISSUE).state is State.OPEN
    tracker.save()
    assert "refused" not in json.loads((tmp_path / "links.json").read_text())


@pytest.mark.parametrize(
    ("body", "more"),
    [
        (b'{"message": "You have exceeded a secondary rate limit"}', {}),
        (b"{}", {"Retry-After": "60"}),
    ],
)
def test_a_secondary_limit_is_one_with_requests_left(
    tmp_path: Path, github: Server, body: bytes, more: dict[str, str]
) -> None:
    github.replies[PATHS[PULL]] = Reply(body, 403, {"X-RateLimit-Remaining": "4990", **more})
    tracker = make(tmp_path, github)
    assert tracker.state(PULL).why == "127.0.0.1 refuses more requests until 2026-03-01 12:01 UTC"
    assert tracker.state(ISSUE).why == tracker.state(PULL).why
    assert github.paths() == [PATHS[PULL]]


def test_a_refusal_of_a_wrong_clock_is_forgotten(tmp_path: Path, github: Server) -> None:
    far = {"host": "127.0.0.1", "until": "2099-01-01T00:00:00+00:00", "with_token": False}
    (tmp_path / "links.json").write_text(json.dumps({"refused": far}))
    github.replies[PATHS[PULL]] = answer(issue("open"))
    assert make(tmp_path, github).state(PULL).state is State.OPEN


@pytest.mark.parametrize("status", [404, 410])
def test_what_was_deleted_is_missing(tmp_path: Path, github: Server, status: int) -> None:
    github.replies[PATHS[ISSUE]] = no_such(status)
    assert make(tmp_path, github).state(ISSUE).state is State.MISSING


@pytest.mark.parametrize("body", [b"", b"not here", b"<html>Not Found</html>", b"[]", b"{}"])
def test_a_404_of_something_else_than_github_says_nothing(
    tmp_path: Path, github: Server, body: bytes
) -> None:
    github.replies[PATHS[ISSUE]] = Reply(body, 404)
    seen = make(tmp_path, github).state(ISSUE)
    assert (seen.state, seen.checked) == (State.UNKNOWN, None)
    assert seen.why


def test_not_modified_since_nothing_is_no_sight(tmp_path: Path, github: Server) -> None:
    github.replies[PATHS[ISSUE]] = Reply(status=304)
    seen = make(tmp_path, github).state(ISSUE)
    assert (seen.state, seen.checked) == (State.UNKNOWN, None)
    assert seen.why


def test_nothing_listens(tmp_path: Path) -> None:
    tracker = make(tmp_path, None)
    assert "cannot be reached" in (tracker.state(PULL).why or "")
    assert "cannot be reached" in (tracker.state(ISSUE).why or "")


def test_a_server_that_hangs_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()
        listener.settimeout(0.05)

        def hang_up() -> None:
            # However often it is tried: a thread that outlives the test would fail another one.
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    listener.accept()[0].close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        api = f"http://127.0.0.1:{listener.getsockname()[1]}"
        seen = Tracker(tmp_path / "l.json", api=api).state(PULL)
        over.set()
        thread.join()
    assert seen.state is State.UNKNOWN
    assert "cannot be reached" in (seen.why or "")


def test_what_was_seen_stays_when_the_network_goes(tmp_path: Path, github: Server) -> None:
    clock = Clock()
    github.replies[PATHS[PULL]] = answer(issue("closed", merged="x", pull=True))
    tracker = make(tmp_path, github, clock)
    tracker.state(PULL)
    tracker.save()
    clock.now += timedelta(days=3, hours=5)
    seen = make(tmp_path, None, clock).state(PULL)
    assert (seen.state, seen.checked) == (State.MERGED, NOW)
    assert seen.age(clock.now) == "seen 3 days ago"
    assert "cannot be reached" in (seen.why or "")


@pytest.mark.parametrize(
    ("ago", "words"),
    [
        (timedelta(seconds=5), "seen now"),
        (timedelta(seconds=-500), "seen now"),
        (timedelta(minutes=1), "seen 1 minute ago"),
        (timedelta(hours=23), "seen 23 hours ago"),
        (timedelta(days=1, hours=3), "seen 1 day ago"),
    ],
)
def test_ages(ago: timedelta, words: str) -> None:
    assert LinkState(PULL, State.OPEN, checked=NOW - ago).age(NOW) == words
    assert LinkState(PULL, State.OPEN).age(NOW) == "never seen"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/o/r/pull/1",
        "https://github.com/o/r",
        "https://github.com/o/r/pull/1/files",
        "http://github.com/o/r/pull/1",
        "https://github.com.evil.example/o/r/pull/1",
        "https://github.com/o/../pull/1",
    ],
)
def test_other_links_are_not_asked(tmp_path: Path, github: Server, url: str) -> None:
    seen = make(tmp_path, github).state(url)
    assert (seen.state, github.asked) == (State.UNKNOWN, [])
    assert "not a GitHub issue" in (seen.why or "")


def test_the_token_does_not_travel_in_the_clear(
    tmp_path: Path, github: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    github.replies[PATHS[PULL]] = answer(issue("open"))
    make(tmp_path, github).state(PULL)
    assert "Authorization" not in github.asked[0].headers
    assert "secret" not in str(github.asked)


def test_the_token_goes_to_the_api_over_https_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    seen: list[tuple[str, str | None]] = []

    def get(self: requests.Session, url: str, **named: Any) -> Any:
        seen.append((url, named["headers"].get("Authorization")))
        raise requests.ConnectionError

    monkeypatch.setattr(requests.Session, "get", get)
    Tracker(tmp_path / "l.json").state(PULL)
    assert seen == [("https://api.github.com/repos/o/r/issues/1", "Bearer secret")]
    Tracker(tmp_path / "l.json", api="https://git.example.org/api/v3").state(PULL)
    own = "https://git.example.org/api/v3/repos/o/r/issues/1"
    assert seen[1] == (own, "Bearer secret"), "a server of one's own, named on purpose"
    Tracker(tmp_path / "l.json", api="http://git.example.org").state(PULL)
    assert seen[2][1] is None


def test_a_netrc_or_a_redirect_gets_no_token(
    tmp_path: Path, github: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    github.replies[PATHS[PULL]] = Reply(status=301, headers={"Location": "/moved"})
    github.replies["/moved"] = answer(issue("closed"))
    assert make(tmp_path, github).state(PULL).state is State.CLOSED
    assert github.paths() == [PATHS[PULL], "/moved"]
    assert all("Authorization" not in asked.headers for asked in github.asked)


@pytest.mark.parametrize(
    ("location", "why"),
    [("http://127.0.0.1:9/x", "points to another server"), (PATHS[PULL], "redirects without end")],
)
def test_redirects_lead_nowhere_else(
    tmp_path: Path, github: Server, location: str, why: str
) -> None:
    github.replies[PATHS[PULL]] = Reply(status=302, headers={"Location": location})
    seen = make(tmp_path, github).state(PULL)
    assert (seen.state, why in (seen.why or "")) == (State.UNKNOWN, True)
    assert len(github.asked) <= 3


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"\xff", b'{"x": 1}', b'{"x": {"state": "no", "checked": "y"}}'),
        json.dumps(
            {PULL: {"state": "open", "title": [], "checked": "2026-01-01", "etag": 5}}
        ).encode(),
        json.dumps(
            {PULL: {"state": "open", "title": "", "checked": "2026-01-01", "etag": "a\r\n\u2192"}}
        ).encode(),
    ],
)
def test_a_damaged_memory_is_no_memory(tmp_path: Path, github: Server, content: bytes) -> None:
    (tmp_path / "links.json").write_bytes(content)
    github.replies[PATHS[PULL]] = answer(issue("open"))
    tracker = make(tmp_path, github)
    assert tracker.state(PULL).state is State.OPEN
    tracker.save()
    assert PULL in json.loads((tmp_path / "links.json").read_text())


def test_a_time_without_a_zone_has_an_age(tmp_path: Path) -> None:
    kept = {"state": "open", "title": None, "checked": "2026-02-26T12:00:00", "etag": None}
    (tmp_path / "links.json").write_text(json.dumps({PULL: kept}))
    seen = make(tmp_path, None, offline=True).state(PULL)
    assert seen.age(NOW).startswith("seen ")


@pytest.mark.parametrize(
    "title", [b"{}", b"[1]", b"NaN", b"7", b'"a \\ud800 b"', b'"\\u001b[2J"', b"null"]
)
def test_a_title_that_is_no_text_is_none(tmp_path: Path, github: Server, title: bytes) -> None:
    github.replies[PATHS[PULL]] = Reply(b'{"state": "open", "title": ' + title + b"}")
    tracker = make(tmp_path, github)
    seen = tracker.state(PULL)
    assert (seen.state, seen.title) == (State.OPEN, None)
    tracker.save()
    assert make(tmp_path, None, offline=True).state(PULL).state is State.OPEN


@pytest.mark.parametrize(
    "api",
    ["not a url", "localhost:80", "http://[::1", "http://h:99999", "file:///etc/passwd", "http:"],
)
def test_an_address_that_is_none_is_named(tmp_path: Path, api: str) -> None:
    seen = Tracker(tmp_path / "l.json", api=api).state(PULL)
    assert seen.state is State.UNKNOWN
    assert seen.why == "not asked (STACKPATCH_GITHUB_API is no http or https address)"


def test_a_token_from_a_file_has_a_line_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str | None] = []

    def get(self: requests.Session, url: str, **named: Any) -> Any:
        sent.append(named["headers"].get("Authorization"))
        raise requests.ConnectionError

    monkeypatch.setattr(requests.Session, "get", get)
    monkeypatch.setenv("GITHUB_TOKEN", " \n")
    monkeypatch.setenv("GH_TOKEN", "secret\n")
    Tracker(tmp_path / "l.json").state(PULL)
    assert sent == ["Bearer secret"]
    monkeypatch.setenv("GH_TOKEN", "se\u2192cret")
    seen = Tracker(tmp_path / "l.json").state(PULL)
    assert seen.why == "not asked (what GITHUB_TOKEN or GH_TOKEN holds is no token)"
    assert len(sent) == 1


@pytest.mark.parametrize("sent", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n{"])
def test_an_answer_that_comes_byte_by_byte_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr("stackpatch.sources.github.DEADLINE", 0.5)
    over = threading.Event()
    before = threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            with listener.accept()[0] as connection, contextlib.suppress(OSError):
                connection.sendall(sent)
                while not over.wait(0.05):
                    connection.sendall(b" ")

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        api = f"http://127.0.0.1:{listener.getsockname()[1]}"
        tracker = Tracker(tmp_path / "l.json", api=api)
        begun = time.monotonic()
        first, second = tracker.state(PULL), tracker.state(ISSUE)
        taken = time.monotonic() - begun
        over.set()
        thread.join()
    assert first.why == second.why == "127.0.0.1 did not finish an answer in 0.5 seconds"
    assert taken < 5
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # the one that asked ends with the connection


def test_nothing_seen_writes_nothing(tmp_path: Path) -> None:
    tracker = make(tmp_path, None, offline=True)
    assert tracker.state(PULL).why == "not asked (offline)"
    tracker.save()
    assert not (tmp_path / "links.json").exists()
