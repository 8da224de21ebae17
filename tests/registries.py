"""Real registries on loopback for tests: Debian's docker-registry, one process a registry.

The binary is the one that `scripts/engine` unpacked, else `docker-registry` on PATH, else it is
fetched from Debian trixie by apt (checked by apt's own signatures) into the tests' cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def registry_program() -> str:
    """The docker-registry binary; fetched once when there is none."""
    cache = Path(os.environ["STACKPATCH_TEST_CACHE"])
    engine = Path(os.environ.get("STACKPATCH_ENGINE_DIR") or cache.parent / "stackpatch-engine")
    kept = cache / "docker-registry-trixie"
    for path in (engine / "root/usr/bin/docker-registry", kept / "root/usr/bin/docker-registry"):
        if path.is_file():
            return str(path)
    if found := shutil.which("docker-registry"):
        return found
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (kept / "root").is_dir():
            _fetch(kept)
    return str(kept / "root/usr/bin/docker-registry")


def _fetch(kept: Path) -> None:
    """Debian trixie's package, without touching apt's own lists."""
    assert _KEYRING.is_file(), "no docker-registry, and not on Debian: install one on PATH"
    mirror = os.environ.get("STACKPATCH_ENGINE_MIRROR", "http://deb.debian.org/debian")
    (kept / "lists/partial").mkdir(parents=True, exist_ok=True)
    (kept / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
    (kept / "sources").write_text(f"deb [signed-by={_KEYRING}] {mirror} trixie main\n")
    settings = {
        "Dir::Etc::sourcelist": kept / "sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::Lists": kept / "lists",
        "Dir::Cache": kept / "cache",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
    }
    options = [f"-o{key}={value}" for key, value in settings.items()]
    for words in (["update"], ["download", "docker-registry"]):
        subprocess.run(
            ["apt-get", "-qq", *options, *words], cwd=kept, check=True, capture_output=True
        )
    (package,) = kept.glob("docker-registry_*.deb")
    subprocess.run(["dpkg", "-x", package, kept / "new"], check=True)
    (kept / "new").rename(kept / "root")


@dataclass
class RunningRegistry:
    """A registry that takes requests. host: `127.0.0.1:PORT`. storage: its folder."""

    host: str
    storage: Path
    log: Path
    scheme: str = "http"
    process: subprocess.Popen[bytes] | None = None
    context: Any = None

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """A GET by the standard library: what the registry says, without our client."""
        return self.ask("GET", path, None, **headers)

    def ask(
        self, method: str, path: str, body: bytes | None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """A request by the standard library."""
        if self.scheme == "https":
            link: http.client.HTTPConnection = http.client.HTTPSConnection(
                self.host, timeout=30, context=self.context
            )
        else:
            link = http.client.HTTPConnection(self.host, timeout=30)
        with contextlib.closing(link):
            link.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = link.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def tags(self, repository: str) -> list[str]:
        """The tags of a repository, sorted."""
        status, _, body = self.get(f"/v2/{repository}/tags/list")
        return sorted(json.loads(body)["tags"] or []) if status == 200 else []

    def manifest(self, repository: str, ref: str) -> bytes | None:
        """A manifest's bytes, None where there is none."""
        status, _, body = self.get(f"/v2/{repository}/manifests/{ref}", Accept=ACCEPT)
        return body if status == 200 else None

    def blobs(self) -> set[str]:
        """The digests of all blobs in the storage."""
        folder = self.storage / "docker/registry/v2/blobs/sha256"
        return {path.parent.name for path in folder.glob("*/*/data")}

    def put_blob(self, repository: str, content: bytes) -> str:
        """Upload a blob, return its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        _, headers, _ = self.ask("POST", f"/v2/{repository}/blobs/uploads/", b"")
        place = urllib.parse.urlsplit(headers["Location"])
        query = f"{place.query}&digest={urllib.parse.quote(digest)}"
        status, _, body = self.ask("PUT", f"{place.path}?{query}", content)
        assert status == 201, body
        return digest

    def put_manifest(self, repository: str, ref: str, content: bytes, media: str) -> str:
        """Upload a manifest, return its digest."""
        path = f"/v2/{repository}/manifests/{ref}"
        status, headers, body = self.ask("PUT", path, content, Content_Type=media)
        assert status == 201, body
        return headers["Docker-Content-Digest"]

    def put_layout(self, repository: str, layout: Path, tag: str | None = None) -> str:
        """Push the one image (or index) of a layout by hand; its digest."""
        store = layout / "blobs" / "sha256"
        (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
        return self._put(repository, store, entry, tag)

    def _put(self, repository: str, store: Path, entry: dict[str, Any], tag: str | None) -> str:
        content = (store / entry["digest"][7:]).read_bytes()
        parsed = json.loads(content)
        for below in parsed.get("manifests", []):
            self._put(repository, store, below, None)
        blobs = [parsed["config"], *parsed["layers"]] if "config" in parsed else []
        for blob in blobs:
            path = store / blob["digest"][7:]
            self.put_blob(repository, path.read_bytes())
        return self.put_manifest(repository, tag or entry["digest"], content, entry["mediaType"])


ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


@contextlib.contextmanager
def running_registry(
    folder: Path,
    *,
    auth: dict[str, Any] | None = None,
    certificate: tuple[Path, Path] | None = None,
    delete: bool = True,
) -> Iterator[RunningRegistry]:
    """Serve from a new folder until the block ends.

    auth: the `auth` part of its configuration. certificate: files with certificate and key: TLS.
    """
    folder.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    storage = folder / "storage"
    served: dict[str, Any] = {"addr": host, "secret": "a test"}
    if certificate is not None:
        served["tls"] = {"certificate": str(certificate[0]), "key": str(certificate[1])}
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(storage)},
            "delete": {"enabled": delete},
            "cache": {"blobdescriptor": "inmemory"},
        },
        "http": served,
    }
    if auth:
        config["auth"] = auth
    (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [registry_program(), "serve", folder / "config.yml"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        _wait(host, process, log)
        scheme = "https" if certificate else "http"
        yield RunningRegistry(host, storage, log, scheme, process)
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(host: str, process: subprocess.Popen[bytes], log: Path) -> None:
    name, port = host.split(":")
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection((name, int(port)), 1):
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    msg = f"{host} does not answer: {log.read_text()}"
    raise AssertionError(msg)
