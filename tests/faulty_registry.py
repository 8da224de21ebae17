"""A proxy in front of a real registry that breaks what a test tells it to break, and only that.

Everything else goes through, byte for byte, so the registry's own state is what a test looks at
afterwards. A rule takes effect for the requests that it fits, a number of times.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@dataclass
class Rule:
    """What happens to a request.

    method, path: regular expressions for the whole of them, query included. after: how many fitting
    requests go through first. times: how many are broken then, None for all. The first rule that
    fits counts. What happens, one of: status with headers and body, as the answer; cut: pass on so
    many bytes of the request's body, then close both connections; drop: pass the whole request on
    and close the connection without an answer; change: pass on, and change status, headers and
    body of the answer; reach: another path for the registry; before: called, then passed on.
    """

    method: str
    path: str
    after: int = 0
    times: int | None = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    drop: bool = False
    change: Callable[[int, dict[str, str], bytes], tuple[int, dict[str, str], bytes]] | None = None
    reach: Callable[[str], str] | None = None
    before: Callable[[], object] | None = None
    fitted: int = 0

    def takes(self, method: str, path: str) -> bool:
        """Whether this request is to be broken; counts it."""
        if not re.fullmatch(self.method, method) or not re.fullmatch(self.path, path):
            return False
        self.fitted += 1
        number = self.fitted - self.after
        return number > 0 and (self.times is None or number <= self.times)


@dataclass(frozen=True)
class Asked:
    """A request that came in. sent: bytes of its body that were read."""

    method: str
    path: str
    headers: Mapping[str, str]
    sent: int
    body: bytes = b""


class FaultyRegistry:
    """`host` takes requests; `rules` break them; `asked` has them all."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.rules: list[Rule] = []
        self.asked: list[Asked] = []
        # docker-registry 2.8 signs an upload's offset into its Location, so an upload whose last
        # answer got lost cannot be gone on with. With this, Locations have no such state, as with
        # registries that keep it themselves.
        self.stable_uploads = False
        self._states: dict[str, str] = {}
        self._guard = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                outer._serve(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None:
                return

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                return

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def break_(self, method: str, path: str, **how: object) -> Rule:
        """Add a rule."""
        rule = Rule(method, path, **how)  # type: ignore[arg-type]
        self.rules.append(rule)
        return rule

    def count(self, method: str, path: str) -> int:
        """How many requests fitted."""
        return sum(
            bool(re.fullmatch(method, one.method) and re.fullmatch(path, one.path))
            for one in self.asked
        )

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, asked: BaseHTTPRequestHandler) -> None:
        with self._guard:
            rule = next((r for r in self.rules if r.takes(asked.command, asked.path)), None)
        length = int(asked.headers.get("Content-Length") or 0)
        limit = length if rule is None or rule.cut is None else min(rule.cut, length)
        body = asked.rfile.read(limit)
        with self._guard:
            self.asked.append(
                Asked(asked.command, asked.path, dict(asked.headers), len(body), body[:4096])
            )
        if rule is not None and rule.before is not None:
            rule.before()
        if rule is not None and rule.status is not None:
            self._answer(asked, rule.status, dict(rule.headers), rule.body)
            return
        path = rule.reach(asked.path) if rule is not None and rule.reach is not None else asked.path
        if rule is not None and rule.cut is not None:
            self._part(asked, path, body)
            self._hang_up(asked)
            return
        status, headers, content = self._pass_on(asked, path, body)
        if rule is not None and rule.drop:
            self._hang_up(asked)
            return
        if rule is not None and rule.change is not None:
            status, headers, content = rule.change(status, headers, content)
        self._answer(asked, status, headers, content)

    def _pass_on(
        self, asked: BaseHTTPRequestHandler, path: str, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        bare, _, query = path.partition("?")
        if bare in self._states:
            path = self._states[bare] + (f"&{query}" if query else "")
        with contextlib.closing(http.client.HTTPConnection(self.upstream, timeout=60)) as link:
            # With our Host the registry's Locations lead back here.
            sent = {k: v for k, v in asked.headers.items() if k.lower() != "connection"}
            link.request(
                asked.command, path, body if body or "Content-Length" in sent else None, sent
            )
            answer = link.getresponse()
            headers = dict(answer.getheaders())
            if self.stable_uploads and "_state=" in headers.get("Location", ""):
                place = headers["Location"].partition(self.host)[2]
                bare = place.partition("?")[0]
                self._states[bare] = place
                headers["Location"] = bare
            return answer.status, headers, answer.read()

    def _part(self, asked: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        """The beginning of a request, and then nothing: what a cut connection looks like."""
        name, port = self.upstream.split(":")
        lines = [
            f"{asked.command} {path} HTTP/1.1",
            *(f"{k}: {v}" for k, v in asked.headers.items()),
        ]
        with socket.create_connection((name, int(port)), 30) as link:
            link.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            link.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                link.settimeout(5)
                while link.recv(65536):
                    pass

    def _hang_up(self, asked: BaseHTTPRequestHandler) -> None:
        asked.close_connection = True
        with contextlib.suppress(OSError):
            asked.connection.shutdown(socket.SHUT_RDWR)

    def _answer(
        self, asked: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes
    ) -> None:
        asked.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                asked.send_header(name, value)
        length = headers.get("Content-Length", len(body)) if asked.command == "HEAD" else len(body)
        if status not in {204, 304}:
            asked.send_header("Content-Length", str(length))
        asked.end_headers()
        if asked.command != "HEAD":
            asked.wfile.write(body)


@contextlib.contextmanager
def faulty(upstream: str) -> Iterator[FaultyRegistry]:
    """A proxy for the block."""
    proxy = FaultyRegistry(upstream)
    try:
        yield proxy
    finally:
        proxy.close()
