"""Putting blobs and manifests into a repository, each looked at again after it was sent.

A blob is asked for first, then mounted from a repository of the same registry, then sent: in one
PUT when it is small, in chunks when it is large, going on where a cut left it. What the registry
echoes must be what we sent.
"""

from __future__ import annotations

import contextlib
import re
import urllib.parse
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from stackpatch.errors import EnvironmentProblem
from stackpatch.model.digest import Digest
from stackpatch.registry.auth import Access
from stackpatch.registry.blobs import Blob, Window
from stackpatch.registry.session import Ask
from stackpatch.sources.transport import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import requests

    from stackpatch.registry.client import Ref, Registry

CHUNK = 32 << 20
_SMALLEST_CHUNK = 1 << 20
_LARGEST_CHUNK = 1 << 30
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")

# What an upload answers that we know how to go on from.
_GONE, _TOO_LARGE, _OTHER_OFFSET = 404, 413, 416


class How(StrEnum):
    """How a blob came to be in the repository."""

    PRESENT = "present"
    MOUNTED = "mounted"
    SENT = "sent"
    COPIED = "copied"  # sent, with bytes that came from another registry


@dataclass(slots=True)
class Pusher:
    """Writes into one repository. chunk: bytes of a request, where a blob is larger.

    Everything raises EnvironmentProblem; a registry that says something wrong is one.
    """

    registry: Registry
    chunk: int = CHUNK
    report: Callable[[str, int, int | None], None] = lambda *_: None
    _seen: dict[Digest, int] = field(default_factory=dict)

    def blob(self, blob: Blob, *, mount_from: Sequence[str] = (), look: bool = True) -> How:
        """See to it that the blob is there.

        mount_from: repositories of the same registry that may hold it. look: whether to ask for it
        before anything else; a mount finds that out too.
        """
        if look and self._is_there(blob):
            return How.PRESENT
        upload = None
        for repository in mount_from:
            upload = self._mount(blob, repository)
            if upload is None:
                return How.MOUNTED
        if not look and mount_from and self._is_there(blob):
            return How.PRESENT
        self._upload(blob, upload or None)
        self._must_be_there(blob)
        return How.COPIED if blob.copied else How.SENT

    def manifest(self, content: bytes, media_type: str, ref: Ref) -> Mapping[str, str]:
        """Put a manifest byte for byte, read it back, compare; returns the answer's headers.

        ref: its digest, or a tag. May be done twice: the second time changes nothing.
        """
        registry, digest = self.registry, Digest.of(content)
        shown = f"{registry.reference.name}{'@' if isinstance(ref, Digest) else ':'}{ref}"

        def put() -> Mapping[str, str]:
            asked = registry.ask("PUT", f"manifests/{ref}", {"Content-Type": media_type}, push=True)
            asked = Ask(asked.method, asked.url, asked.headers, lambda: content, asked.access)
            with registry.session.send(asked, expected=frozenset({201})) as answer:
                self._echoed(answer, digest, shown)
                return answer.headers

        return registry.session.patiently(put, f"cannot put {shown}")

    def read_back(self, content: bytes, ref: Ref) -> bool:
        """Whether the registry now gives these bytes for the tag or digest."""
        found = self.registry.find_manifest(ref)
        return found is not None and found[0] == content

    def document(self, content: bytes, media_type: str) -> None:
        """Put a manifest by its digest, unless it is there; what is read back must be the same."""
        digest = Digest.of(content)
        if self.read_back(content, digest):
            return
        self.manifest(content, media_type, digest)
        if not self.read_back(content, digest):
            msg = f"{self.registry.session.host} took {digest} and does not give it back"
            raise EnvironmentProblem(msg, hint="nothing was tagged; tell who runs the registry")

    def _is_there(self, blob: Blob) -> bool:
        if blob.digest in self._seen:
            return True
        size = self.registry.has_blob(blob.digest)
        if size is None:
            return False
        if size not in {blob.size, -1}:
            raise self._other_size(blob, size)
        self._seen[blob.digest] = blob.size
        return True

    def _must_be_there(self, blob: Blob) -> None:
        if not self._is_there(blob):
            msg = f"{self.registry.session.host} took blob {blob.digest} and does not have it"
            raise EnvironmentProblem(msg, hint="nothing was tagged; tell who runs the registry")

    def _other_size(self, blob: Blob, size: int) -> EnvironmentProblem:
        host = self.registry.session.host
        msg = f"{host} has blob {blob.digest} with {size} bytes, it has {blob.size}"
        return EnvironmentProblem(msg, hint="nothing was tagged; tell who runs the registry")

    def _mount(self, blob: Blob, repository: str) -> _Upload | None:
        """None when the blob is mounted; else the upload that the registry began instead."""
        registry = self.registry
        query = urllib.parse.urlencode({"mount": str(blob.digest), "from": repository})
        plain = registry.ask("POST", f"blobs/uploads/?{query}", push=True)
        asked = Ask("POST", plain.url, access=(*plain.access, Access(repository, ("pull",))))

        def ask() -> _Upload | None:
            # An answer that knows no mount may be 405 or 400; one without the right is 403 or 404.
            accepted = frozenset({201, 202, 400, 403, 404, 405})
            with registry.session.send(asked, expected=accepted) as answer:
                if answer.status_code == 201:
                    self._echoed(answer, blob.digest, f"blob {blob.digest}")
                    self._seen[blob.digest] = blob.size
                    return None
                return self._begun(answer) if answer.status_code == 202 else _Upload("")

        try:
            return registry.session.patiently(ask, f"cannot mount {blob.digest}")
        except _WrongEcho:
            raise
        except EnvironmentProblem:
            # A token server may refuse because of the other repository alone; what is wrong with
            # ours comes out when we send.
            return _Upload("")

    def _upload(self, blob: Blob, begun: _Upload | None) -> None:
        """Send the blob, over as many attempts as it takes."""
        session = self.registry.session
        what = f"cannot send blob {blob.digest} to {self.registry.reference.name}"
        patience = session.patience(what, session.limits.for_blob(blob.size))
        upload = begun if begun is not None and begun.url else None
        label = f"blob {blob.digest.hex[:12]}"
        while True:
            before = upload.done if upload is not None else 0
            try:
                if upload is None:
                    upload = self._start()
                self._send(upload, blob, label)
            except Interrupted as error:
                reached, upload = self._whereabouts(upload, blob)
                if reached:
                    return
                progressed = upload is not None and upload.done > before
                patience.after(error, progressed=progressed)
            else:
                return

    def _start(self) -> _Upload:
        asked = self.registry.ask("POST", "blobs/uploads/", push=True)
        with self.registry.session.send(asked, expected=frozenset({202})) as answer:
            return self._begun(answer)

    def _begun(self, answer: requests.Response) -> _Upload:
        """The upload that a 202 opens. Chunks are as long as the registry wants them at least."""
        upload = _Upload(self._place(answer, answer.url), chunk=self.chunk)
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        if least.isdigit():
            upload.chunk = min(max(upload.chunk, int(least)), _LARGEST_CHUNK)
        return upload

    def _send(self, upload: _Upload, blob: Blob, label: str) -> None:
        """From where the upload is to its end: chunks by PATCH, the last piece by PUT."""
        while blob.size - upload.done > upload.chunk:
            end = upload.done + upload.chunk
            with self._part("PATCH", upload.url, upload, blob, end, 202) as answer:
                upload.url = self._place(answer, upload.url)
                upload.done = _stored(answer, end)
            self.report(label, upload.done, blob.size)
        mark = "&" if "?" in upload.url else "?"
        final = f"{upload.url}{mark}digest={urllib.parse.quote(str(blob.digest), safe='')}"
        with self._part("PUT", final, upload, blob, blob.size, 201) as answer:
            self._echoed(answer, blob.digest, f"blob {blob.digest}")
        self.report(label, blob.size, blob.size)

    @contextlib.contextmanager
    def _part(
        self, method: str, url: str, upload: _Upload, blob: Blob, end: int, good: int
    ) -> Iterator[requests.Response]:
        """Send the bytes from the upload's place to `end`. Raises Interrupted to look again."""
        session, start = self.registry.session, upload.done
        headers = {"Content-Type": "application/octet-stream"}
        if end > start and not (method == "PUT" and start == 0):
            headers["Content-Range"] = f"{start}-{end - 1}"
        access = self.registry.ask("PUT", "", push=True).access
        statuses = frozenset({good, _GONE, _TOO_LARGE, _OTHER_OFFSET})
        with contextlib.ExitStack() as opened:

            def body() -> Any:
                if end == start:
                    return b""
                return Window(opened.enter_context(blob.open(start, end)), end - start)

            ask = Ask(method, url, headers, body, access)
            with session.send(ask, expected=statuses) as answer:
                status = answer.status_code
                if status == good:
                    yield answer
                    return
        if status == _TOO_LARGE:
            if end - start <= _SMALLEST_CHUNK:
                msg = f"{session.host} takes no request of {end - start} bytes (413)"
                raise EnvironmentProblem(msg, hint="a proxy before it has too low a limit")
            upload.chunk = max((end - start) // 2, _SMALLEST_CHUNK)
        reason = f"{session.host} answered {status} to bytes {start} to {end} of {blob.digest}"
        raise Interrupted(reason, 0.0 if status == _TOO_LARGE else None)

    def _whereabouts(self, upload: _Upload | None, blob: Blob) -> tuple[bool, _Upload | None]:
        """After a cut: whether the blob got there all the same; else the upload, as far as it is.

        An upload that the registry does not know any more, or cannot tell of, is begun again.
        """
        registry = self.registry
        try:
            if self._is_there(blob):
                return True, None
            if upload is None:
                return False, None
            asked = Ask("GET", upload.url, access=registry.ask("PUT", "", push=True).access)
            answers = frozenset({202, 204, 200, 400, 404, 405, 416, 501})
            with registry.session.send(asked, expected=answers) as answer:
                if answer.status_code not in {202, 204, 200}:
                    return False, None
                upload.url = self._place(answer, upload.url)
                upload.done = min(_stored(answer, 0), blob.size)
        except Interrupted:
            return False, None
        return False, upload

    def _place(self, answer: requests.Response, before: str) -> str:
        """Where the upload goes on: a Location, absolute or relative, as it stands."""
        location = answer.headers.get("Location")
        if not location:
            if answer.request.method == "GET":
                return before
            msg = f"{self.registry.session.host} began an upload and does not say where"
            raise EnvironmentProblem(msg)
        target = urllib.parse.urljoin(before, location)
        self.registry.session.check_target(before, target)
        return target

    def _echoed(self, answer: requests.Response, digest: Digest, shown: str) -> None:
        stated = answer.headers.get("Docker-Content-Digest")
        if stated is not None and stated != str(digest):
            host = self.registry.session.host
            msg = f"{host} took {shown} as {stated[:100]!r}, which it is not"
            raise _WrongEcho(msg, hint="nothing was tagged; tell who runs the registry")


class _WrongEcho(EnvironmentProblem):
    """The registry names another digest than that of what it was given."""


@dataclass(slots=True)
class _Upload:
    """An upload in the registry: where it goes on, how many bytes it has, bytes of a chunk."""

    url: str
    done: int = 0
    chunk: int = CHUNK


def _stored(answer: requests.Response, otherwise: int) -> int:
    """How many bytes the registry says it has: `Range: 0-LAST`. Docker says 0-0 for none too."""
    said = answer.headers.get("Range")
    found = _RANGE.fullmatch(said) if said else None
    if found is None:
        return otherwise
    last = int(found[1])
    return last + 1 if last else 0
