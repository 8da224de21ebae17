"""Real registries on loopback for tests: Debian's docker-registry, one process a registry.

The binary is the one that `scripts/engine` unpacked, else the one of `tests/debian.py`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import socket
import subprocess
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.debian import program_of_debian

if TYPE_CHECKING:
    from collections.abc import Iterator


def registry_program() -> str:
    """The docker-registry binary; fetched once when there is none."""
    cache = Path(os.environ["STACKPATCH_TEST_CACHE"])
    engine = Path(os.environ.get("STACKPATCH_ENGINE_DIR") or cache.parent / "stackpatch-engine")
    started = engine / "root/usr/bin/docker-registry"
    return str(started) if started.is_file() else program_of_debian("docker-registry")


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


def make_certificates(folder: Path) -> dict[str, Path]:
    """A CA, and a certificate for 127.0.0.1 and localhost signed by it, by openssl."""
    folder.mkdir(parents=True)
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        *("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.crt", "-days", "30"),
        *("-subj", "/CN=test CA", "-addext", "keyUsage=critical,keyCertSign,digitalSignature"),
    )
    openssl("req", *new, "-keyout", "key", "-out", "request", "-subj", "/CN=127.0.0.1")
    openssl(
        *("x509", "-req", "-in", "request", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "30"),
        *("-CAcreateserial", "-extfile", "ext", "-out", "certificate"),
    )
    return {name: folder / name for name in ("ca.crt", "certificate", "key")}


# bcrypt, as `htpasswd -Bbn -C 4` prints it: the program is on few machines.
_HASHES = {
    "pass-word-of-mine": "$2y$04$3OxWRvyJU.a3XH9WVXn8JuIMgK2S3ttajPSVHG2eDaZnrfDTF4t3e",
    "other-password": "$2y$04$vfY3ovFbpiyyfDa7CvtKZObigiqP1dlYFz4027rOierVV63q2o8F2",
    "right-one": "$2y$04$W.M4vxjUO66Z1iswyF/b8.ALePhX4iCV/VxbnoL4Xmts.RCcMgxLi",
}


def htpasswd(folder: Path, user: str, password: str) -> dict[str, Any]:
    """The `auth` part of a registry's configuration for one user with Basic."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "htpasswd"
    file.write_text(f"{user}:{_HASHES[password]}\n")
    return {"htpasswd": {"realm": "a test", "path": str(file)}}


def docker_login(folder: Path, host: str, user: str, password: str) -> None:
    """What `docker login` would write for the host into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": encoded}}}))


def _b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@dataclass
class TokenServer:
    """A token server as the distribution project describes it, which this registry believes.

    users: name → password. grants: who may do what; (user, repository) → actions. A refresh token
    is `refresh-USER`. asked: the queries (or forms) and Authorization headers that came.
    """

    folder: Path
    users: dict[str, str] = field(default_factory=dict)
    grants: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    lives: int | None = 300
    asked: list[tuple[str, dict[str, list[str]], str | None]] = field(default_factory=list)
    issued: list[str] = field(default_factory=list)
    strict: bool = False  # refuse as a whole what cannot be granted as a whole
    url: str = ""
    _server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Serve, with a signing key of its own."""
        self.folder.mkdir(parents=True)
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"]
        words += ["-keyout", "sign.key", "-out", "sign.crt", "-subj", "/CN=tokens"]
        subprocess.run(words, cwd=self.folder, check=True, capture_output=True)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                outer._serve(self, query)

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                outer._serve(self, urllib.parse.parse_qs(self.rfile.read(length).decode()))

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def auth(self) -> dict[str, Any]:
        """The `auth` part of a registry's configuration."""
        return {
            "token": {
                "realm": self.url,
                "service": "test registry",
                "issuer": "tests",
                "rootcertbundle": str(self.folder / "sign.crt"),
            }
        }

    def _serve(self, asked: BaseHTTPRequestHandler, fields: dict[str, list[str]]) -> None:
        authorization = asked.headers.get("Authorization")
        self.asked.append((asked.command, fields, authorization))
        user = self._user(fields, authorization)
        access = []
        for scope in " ".join(fields.get("scope", [])).split():
            kind, name, actions = scope.split(":")
            allowed = self.grants.get((user or "", name), set())
            given = [action for action in actions.split(",") if action in allowed]
            if self.strict and given != actions.split(","):
                user = None
            access.append({"type": kind, "name": name, "actions": given})
        if user is None:
            self._answer(asked, 401, {"errors": [{"code": "UNAUTHORIZED", "message": "who?"}]})
            return
        token = self._token(user, access)
        self.issued.append(token)
        said: dict[str, Any] = {"token": token}
        if self.lives is not None:
            said["expires_in"] = self.lives
        self._answer(asked, 200, said)

    def _user(self, fields: dict[str, list[str]], authorization: str | None) -> str | None:
        if refresh := fields.get("refresh_token"):
            name = refresh[0].removeprefix("refresh-")
            return name if name in self.users else None
        if authorization is None:
            return ""  # anonymous
        name, _, password = (
            base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        )
        return name if self.users.get(name) == password else None

    def _token(self, user: str, access: list[dict[str, Any]]) -> str:
        """A JWT, signed with openssl; the certificate travels in its header."""
        lines = (self.folder / "sign.crt").read_text().splitlines()
        chain = ["".join(line for line in lines if not line.startswith("-----"))]
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": chain}
        claims = {
            "iss": "tests",
            "sub": user,
            "aud": "test registry",
            "exp": now + (self.lives or 60),
            "nbf": now - 60,
            "iat": now,
            "jti": f"{len(self.issued)}",
            "access": access,
        }
        signed = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(claims).encode())}"
        words = ["openssl", "dgst", "-sha256", "-sign", str(self.folder / "sign.key")]
        done = subprocess.run(words, input=signed.encode(), check=True, capture_output=True)
        return f"{signed}.{_b64(done.stdout)}"

    def _answer(self, asked: BaseHTTPRequestHandler, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        asked.send_response_only(status)
        asked.send_header("Content-Type", "application/json")
        asked.send_header("Content-Length", str(len(body)))
        asked.end_headers()
        asked.wfile.write(body)


@contextlib.contextmanager
def token_server(folder: Path) -> Iterator[TokenServer]:
    """A token server for the block."""
    server = TokenServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
