"""A builder on another machine, as near as one machine gives it: BuildKit behind TCP.

It is a second dockerd's own BuildKit, with a store of its own and a network namespace with nothing
in it: it sees neither our loopback nor our folders. `docker buildx create --driver remote` takes
its address, as it takes that of a buildkitd; docker and Debian ship no buildkitd by itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine import Engine

# Debian builds BuildKit without its version. This one is what dockerd 26.1 has; as long as the
# other, so it can take its place in what the builder sends.
NAMELESS, NAMED = b"v0.0.0+unknown", b"v0.13.1+debian"
_UPGRADE = b"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


@dataclass
class Line:
    """A TCP address that leads to a dockerd's BuildKit. named: whether it may say its version."""

    target: Path
    named: bool = True
    _open: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = socket.socket()
        self._server.bind(("127.0.0.1", 0))
        self._server.listen()
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        far = socket.socket(socket.AF_UNIX)
        self._open += [near, far]
        with contextlib.suppress(OSError):
            far.connect(str(self.target))
            far.sendall(_UPGRADE)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += far.recv(1)
            threading.Thread(target=self._pump, args=(near, far), daemon=True).start()
            self._pump(far, near)

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data.replace(NAMELESS, NAMED) if self.named else data)
            other.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """No byte passes any more, and nobody answers at the address."""
        # A thread in accept() keeps a closed socket listening; shutting it down wakes it.
        for one in (self._server, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextlib.contextmanager
def far_daemon(real: Engine) -> Iterator[Path]:
    """A second dockerd of the engine's binaries, without any network; its socket."""
    docker = shutil.which("docker", path=real.env["PATH"])
    assert docker is not None
    root = Path(docker).resolve().parents[2]
    folder = Path(tempfile.mkdtemp(prefix="sp-far-", dir="/tmp"))  # a socket's path must be short
    (folder / "daemon.json").write_text('{"features": {"containerd-snapshotter": true}}')
    path = f"{root}/usr/sbin:{root}/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    words = ["unshare", "--net", "--", f"{root}/usr/sbin/dockerd"]
    words += ["--config-file", f"{folder}/daemon.json", "--data-root", f"{folder}/data"]
    words += ["--exec-root", f"{folder}/x", "-H", f"unix://{folder}/s", "--pidfile", f"{folder}/p"]
    words += ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            words, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL, stderr=log
        )
    try:
        _answers(docker, folder, child)
        yield folder / "s"
    finally:
        child.terminate()
        try:
            child.wait(60)
        finally:
            child.kill()
            child.wait()
            shutil.rmtree(folder, ignore_errors=True)


def _answers(docker: str, folder: Path, child: subprocess.Popen[bytes]) -> None:
    ask = [docker, "-H", f"unix://{folder}/s", "version"]
    for _ in range(600):
        if subprocess.run(ask, capture_output=True).returncode == 0:
            return
        assert child.poll() is None, (folder / "log").read_text()
        time.sleep(0.2)
    raise AssertionError((folder / "log").read_text())
