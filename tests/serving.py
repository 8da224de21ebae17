"""A package index and file server in this process that can go wrong in every way we know.

A path has one Reply; `script` lists other replies for its next requests, taken one by one.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import http.server
import json
import re
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class Reply:
    """What the server sends for a path.

    ranges: whether it honours Range. wrong_range: claims another start than asked for. cut: close
    the connection after so many bytes of the body, although more was announced. length: announce
    the length; without it the end of the connection is the end of the body. pause: seconds before
    each 64 KiB.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "application/octet-stream"
    ranges: bool = True
    wrong_range: bool = False
    cut: int | None = None
    length: bool = True
    pause: float = 0.0


@dataclass(frozen=True)
class Asked:
    """A request that came in."""

    path: str
    headers: Mapping[str, str]

    @property
    def range(self) -> str | None:
        return self.headers.get("Range")


class Server:
    """`replies[path]`, `script[path]` and what was `asked`; `url` has no slash at its end."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.script: dict[str, list[Reply]] = {}
        self.asked: list[Asked] = []
        self._projects: dict[str, dict[str, dict[str, object]]] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._serve(self)

            def log_message(self, *_: object) -> None:
                return

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                return

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def index(self) -> str:
        return f"{self.url}/simple"

    def paths(self) -> list[str]:
        """The paths that were asked for, in order."""
        return [asked.path for asked in self.asked]

    def put(
        self,
        project: str,
        file: str,
        content: bytes,
        *,
        json_: bool = False,
        sha256: str | None = "",
        yanked: str | None = None,
    ) -> str:
        """Offer a file on the project's page; its path.

        sha256: what the page says; "" for the right one, None for none.
        """
        path = f"/files/{urllib.parse.quote(file)}"
        self.replies[path] = Reply(content)
        digest = hashlib.sha256(content).hexdigest() if sha256 == "" else sha256
        files = self._projects.setdefault(project, {})
        files[file] = {"path": path, "sha256": digest, "size": len(content), "yanked": yanked}
        self.replies[f"/simple/{project}/"] = (
            _json_page(project, files) if json_ else _html_page(project, files)
        )
        return path

    def _serve(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append(Asked(handler.path, dict(handler.headers.items())))
        path = handler.path.partition("?")[0]
        queue = self.script.get(path)
        reply = queue.pop(0) if queue else self.replies.get(path, Reply(b"not here", 404))
        body, status, extra = reply.body, reply.status, dict(reply.headers)
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if wanted and reply.ranges and status == 200:
            start = int(wanted[1])
            if start >= len(body):
                body, status, extra["Content-Range"] = b"", 416, f"bytes */{len(body)}"
            else:
                shown = start + 1 if reply.wrong_range else start
                extra["Content-Range"] = f"bytes {shown}-{len(body) - 1}/{len(body)}"
                body, status = body[start:], 206
        handler.send_response(status)
        handler.send_header("Content-Type", reply.kind)
        if reply.length:
            handler.send_header("Content-Length", str(len(body)))
        else:
            handler.close_connection = True
        for name, value in extra.items():
            handler.send_header(name, value)
        handler.end_headers()
        shown_body = body if reply.cut is None else body[: reply.cut]
        for at in range(0, len(shown_body), 65536):
            if reply.pause:
                time.sleep(reply.pause)
            handler.wfile.write(shown_body[at : at + 65536])
        handler.wfile.flush()
        if reply.cut is not None:
            handler.close_connection = True


def _html_page(project: str, files: Mapping[str, Mapping[str, object]]) -> Reply:
    lines = ["<!DOCTYPE html><html><head>"]
    lines.append('<meta name="pypi:repository-version" content="1.0"></head><body>')
    for file, said in files.items():
        fragment = f"#sha256={said['sha256']}" if said["sha256"] else ""
        yanked = said["yanked"]
        mark = "" if yanked is None else f' data-yanked="{html.escape(str(yanked))}"'
        # As pypi.org does: requires-python is there, and relative links work.
        lines.append(
            f'<a href="../..{said["path"]}{fragment}" data-requires-python="&gt;=3.8"{mark}>'
            f"{html.escape(file)}</a><br/>"
        )
    return Reply("\n".join([*lines, "</body></html>"]).encode(), kind="text/html; charset=utf-8")


def _json_page(project: str, files: Mapping[str, Mapping[str, object]]) -> Reply:
    listed = [
        {
            "filename": file,
            "url": f"../..{said['path']}",
            "hashes": {"sha256": said["sha256"]} if said["sha256"] else {},
            "size": said["size"],
            "yanked": False if said["yanked"] is None else said["yanked"] or True,
            "upload-time": "2026-02-06T00:28:23.000000Z",
        }
        for file, said in files.items()
    ]
    page = {"meta": {"api-version": "1.1"}, "name": project, "files": listed, "versions": []}
    return Reply(json.dumps(page).encode(), kind="application/vnd.pypi.simple.v1+json")


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server for the length of the block."""
    server = Server()
    try:
        yield server
    finally:
        server.close()
