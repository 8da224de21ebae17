"""Small builds with real engines: a Dockerfile, a request, and what came out."""

from __future__ import annotations

import contextlib
import json
import socket
import tarfile
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stackpatch.artefacts.engines import EngineBase, EngineRequest
from stackpatch.artefacts.layout import Layout
from stackpatch.artefacts.oci import Platform

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.engine import Engine

EPOCH = 1_770_000_000
AMD64 = Platform("linux", "amd64")
DOCKERFILE = """\
ARG BASE
FROM ${BASE} AS first
ARG NOTE=none
COPY f /srv/f
RUN mkdir /srv/d && printf '%s' "$NOTE" > /srv/d/note && touch /srv/now
FROM ${BASE}
COPY --from=first /srv /srv
RUN echo two > /srv/two && chmod 0640 /srv/two
USER 10001
"""


def base_in_registry(engine: Engine) -> EngineBase:
    """The base as an engine pulls it."""
    layout = Layout.open(engine.small_layout)
    return EngineBase(layout.image(AMD64), engine.small.partition("@")[0])


def base_in_folder(engine: Engine) -> EngineBase:
    """The same base, as a layout."""
    layout = Layout.open(engine.small_layout)
    return EngineBase(layout.image(AMD64), None, layout)


def request(real: Engine, /, folder: Path, text: str = DOCKERFILE, **changes: Any) -> EngineRequest:
    """A build of this Dockerfile; folder: where it and the log go."""
    folder.mkdir(parents=True, exist_ok=True)
    dockerfile = folder / "demo.Dockerfile"
    dockerfile.write_text(text)
    made = EngineRequest(
        engine="buildx",
        stack="demo",
        dockerfile=dockerfile,
        files={"f": b"hi\n"},
        base=base_in_registry(real),
        platform="linux/amd64",
        epoch=EPOCH,
        log=folder / "logs" / "build.txt",
        cold=True,
    )
    return replace(made, **changes)


def own_files(layout: Path) -> dict[str, bytes]:
    """Every file of the layers that are in the layout, by path."""
    index = json.loads((layout / "index.json").read_bytes())
    store = layout / "blobs" / "sha256"
    manifest = json.loads((store / index["manifests"][0]["digest"][7:]).read_bytes())
    found = {}
    for layer in manifest["layers"]:
        path = store / layer["digest"][7:]
        if not path.exists():
            continue
        with tarfile.open(path) as tar:
            for entry in tar:
                file = tar.extractfile(entry) if entry.isreg() else None
                if file is not None:
                    found[entry.name] = file.read()
    return found


def every_byte(folder: Path) -> Iterator[bytes]:
    """The content of each file below the folder; layers also unpacked."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.read_bytes()
    for layout in folder.rglob("oci-layout"):
        yield from own_files(layout.parent).values()


class Wire:
    """A socket before the engine's, that can be cut: the engine is then gone in mid-build."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path = path
        self._target = engine.env["DOCKER_HOST"].removeprefix("unix://")
        self._pairs: list[socket.socket] = []
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._target)
            self._pairs += [near, far]
            for one, other in ((near, far), (far, near)):
                thread = threading.Thread(target=self._pump, args=(one, other), daemon=True)
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _pump(one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(1 << 16):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self) -> None:
        """No byte passes any more, and nobody answers."""
        self.path.unlink(missing_ok=True)
        # A thread in accept() keeps a closed socket listening; shutting it down wakes it.
        for one in (self._server, *self._pairs):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(10)
