"""A repository in a registry, read: manifests, configs and blobs, every byte checked.

Nothing is believed before its size and digest were compared, and nothing larger than announced is
taken. An image is found by reading manifests and one config; no layer is touched.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch.artefacts.images import choose_image
from stackpatch.artefacts.oci import INDEXES, MANIFESTS, Descriptor, Image, Platform, parse_json
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.model.digest import Digest
from stackpatch.registry.auth import Access, Login
from stackpatch.registry.credentials import find_credentials
from stackpatch.registry.patience import Limits, Traffic
from stackpatch.registry.session import Ask, Session
from stackpatch.registry.trust import plain_hosts
from stackpatch.sources.transport import Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

    from stackpatch.registry.reference import Reference

# What registries take for a manifest (distribution-spec recommends at least 4 MiB).
MAX_DOCUMENT = 8 << 20
_ACCEPT = ", ".join((*sorted(MANIFESTS), *sorted(INDEXES)))
_OLD = "application/vnd.docker.distribution.manifest.v1"
_HEAD_STATUSES = frozenset({200, 404})

Ref = str | Digest


@dataclass(slots=True)
class Registry:
    """One repository. Open it with `Registry.open(Reference.parse("host/name:tag"))`.

    `ref` below is a tag or a Digest; None stands for what the reference says: its digest, else
    its tag, else `latest`. Every method raises EnvironmentProblem for the network, a login that is
    missing and a registry that answers nonsense; retries are done inside.
    """

    reference: Reference
    session: Session

    @classmethod
    def open(
        cls, reference: Reference, *, limits: Limits | None = None, beside: Registry | None = None
    ) -> Registry:
        """Nothing is asked yet. beside: another repository, whose login is shared if it is of the
        same host. Traffic is counted together then.
        """
        if beside is not None and beside.reference.host == reference.host:
            return cls(reference, beside.session)
        return cls(
            reference,
            Session(
                reference.api_host,
                Login(lambda: find_credentials(reference)),
                limits or Limits(),
                plain=reference.host in plain_hosts(),
                traffic=beside.session.traffic if beside is not None else Traffic(),
            ),
        )

    @property
    def traffic(self) -> Traffic:
        """Bytes and requests so far."""
        return self.session.traffic

    def head(self, ref: Ref | None = None) -> Descriptor | None:
        """What a manifest is, without reading it; None where there is none.

        A registry that does not state the digest is asked for the manifest itself.
        """
        at = self._at(ref)
        what = f"cannot ask for {self._shown(at)}"

        def ask() -> Descriptor | None:
            with self.session.send(
                self.ask("HEAD", f"manifests/{at}", {"Accept": _ACCEPT}), expected=_HEAD_STATUSES
            ) as answer:
                if answer.status_code == 404:
                    return None
                stated = answer.headers.get("Docker-Content-Digest", "")
                length = answer.headers.get("Content-Length", "")
                media = _media_type(answer)
            if not stated or not length.isdigit() or not media:
                content, descriptor = self.manifest(at)
                del content
                return descriptor
            return Descriptor(media, self._digest(stated, at), int(length))

        found = self.session.patiently(ask, what)
        if found is not None and isinstance(at, Digest) and found.digest != at:
            raise self._nonsense(at, f"it answers with {found.digest}")
        return found

    def manifest(self, ref: Ref | None = None) -> tuple[bytes, Descriptor]:
        """A manifest's or an index's bytes, and what it is. The bytes have the digest that was
        asked for or, for a tag, the one that the registry states.

        Raises InputError where there is none, or none of a kind that we know.
        """
        at = self._at(ref)
        found = self.find_manifest(at)
        if found is None:
            raise self._absent(at)
        return found

    def find_manifest(self, ref: Ref | None = None) -> tuple[bytes, Descriptor] | None:
        """Like `manifest`, None where there is none."""
        at = self._at(ref)

        def ask() -> tuple[bytes, Descriptor] | None:
            with self.session.send(
                self.ask("GET", f"manifests/{at}", {"Accept": _ACCEPT}), expected=_HEAD_STATUSES
            ) as answer:
                if answer.status_code == 404:
                    return None
                content = self._document(answer, MAX_DOCUMENT, at)
                stated = answer.headers.get("Docker-Content-Digest", "")
                media = _media_type(answer)
            digest = Digest.of(content)
            expected = at if isinstance(at, Digest) else stated and self._digest(stated, at)
            if expected and digest != expected:
                raise self._nonsense(at, f"its bytes are {digest}, not {expected}")
            return content, Descriptor(self._kind(content, media, at), digest, len(content))

        return self.session.patiently(ask, f"cannot read {self._shown(at)}")

    def blob(self, digest: Digest, size: int, limit: int = MAX_DOCUMENT) -> bytes:
        """A small blob, such as a config. size: as announced. limit: bytes that are too many.

        Raises InputError where it is not there or is announced larger than the limit.
        """
        if size > limit:
            msg = f"{self.reference.name}@{digest} has {size} bytes, too many (limit {limit})"
            raise InputError(msg)

        def ask() -> bytes:
            return b"".join(self._blocks(digest, size, 0, size))

        content = self.session.patiently(ask, f"cannot read blob {digest} of {self.reference.name}")
        if Digest.of(content) != digest:
            raise self._nonsense(digest, f"its bytes are {Digest.of(content)}")
        return content

    def blob_stream(self, digest: Digest, size: int) -> Iterator[bytes]:
        """A blob's blocks; goes on where it was interrupted, where the registry can.

        The digest is compared when the last block has come: what was taken is worth nothing until
        the iterator has ended without an error.
        """
        content = hashlib.sha256()
        done = 0
        for block in self.blob_from(digest, size, 0, size):
            content.update(block)
            done += len(block)
            yield block
        if done != size or content.hexdigest() != digest.hex:
            raise self._nonsense(digest, "its bytes are others")

    def blob_from(self, digest: Digest, size: int, start: int, end: int) -> Iterator[bytes]:
        """The blocks of a part of a blob, which a digest says nothing about. size: of the whole."""
        session = self.session
        what = f"cannot read blob {digest} of {self.reference.name}"
        patience = session.patience(what, session.limits.for_blob(end - start))
        done = start
        while True:
            before = done
            try:
                for block in self._blocks(digest, size, done, end):
                    done += len(block)
                    yield block
            except Interrupted as error:
                patience.after(error, progressed=done > before)
            else:
                return
            if done >= end:
                return

    def has_blob(self, digest: Digest) -> int | None:
        """The size of a blob that is there, None for one that is not; -1 where it is not said."""

        def ask() -> int | None:
            asked = self.ask("HEAD", f"blobs/{digest}")
            with self.session.send(asked, expected=_HEAD_STATUSES) as answer:
                if answer.status_code == 404:
                    return None
                length = answer.headers.get("Content-Length", "")
                return int(length) if length.isdigit() else -1

        return self.session.patiently(ask, f"cannot ask for blob {digest} of {self.reference.name}")

    def image(self, platform: Platform, ref: Ref | None = None) -> Image:
        """The image for the platform, by reading manifests and its config. Indexes are followed.

        Raises InputError that lists what there is when none or more than one fits.
        """
        at = self._at(ref)
        top = self.head(at)
        if top is None:
            raise self._absent(at)
        return choose_image(self, (top,), platform).image

    @property
    def label(self) -> str:
        """How messages call it."""
        return self.reference.name

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest, an index or a config, with its size and digest checked."""
        if descriptor.media_type not in INDEXES | MANIFESTS:
            return self.blob(descriptor.digest, descriptor.size)
        content, found = self.manifest(descriptor.digest)
        if found.size != descriptor.size:
            why = f"it has {found.size} bytes, not {descriptor.size} as listed"
            raise self._nonsense(descriptor.digest, why)
        return content

    def ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        *,
        push: bool = False,
    ) -> Ask:
        """A request below this repository, with the access that it needs."""
        actions = ("pull", "push") if push else ("pull",)
        access = (Access(self.reference.repository, actions),)
        url = self.session.url(f"{self.reference.repository}/{path}")
        return Ask(method, url, headers or {}, access=access)

    def _blocks(self, digest: Digest, size: int, start: int, end: int) -> Iterator[bytes]:
        """One request for bytes of a blob. Raises Interrupted when they end early."""
        session = self.session
        part = start > 0 or end < size
        headers = {"Range": f"bytes={start}-{end - 1}"} if part else {}
        statuses = frozenset({200, 206, 404})
        with session.send(self.ask("GET", f"blobs/{digest}", headers), expected=statuses) as answer:
            if answer.status_code == 404:
                msg = f"{self.reference.name} does not hold blob {digest}"
                raise InputError(msg, hint="the image there is not whole; push it again")
            at, last = start, end
            if answer.status_code == 200:
                at, last = 0, size  # a registry without ranges sends the whole
            elif not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise self._nonsense(digest, "it sends another range than was asked for")
            for block in session.body(answer, session.limits.for_blob(size)):
                session.traffic.blob_bytes_received += len(block)
                if at + len(block) > last:
                    raise self._nonsense(digest, f"it has more than {last} bytes")
                wanted = block[max(start - at, 0) : max(end - at, 0)]
                at += len(block)
                if wanted:
                    yield wanted
                if at >= end > 0:
                    return
            if at < end:
                reason = f"{session.host} ended blob {digest} at {at} of {end} bytes"
                raise Interrupted(reason)

    def _document(self, answer: requests.Response, limit: int, at: Ref) -> bytes:
        pieces, done = [], 0
        for block in self.session.body(answer, self.session.limits.document):
            done += len(block)
            if done > limit:
                raise self._nonsense(at, f"it has more than {limit} bytes")
            pieces.append(block)
        length = answer.headers.get("Content-Length", "")
        if length.isdigit() and done != int(length):
            reason = f"{self.session.host} ended {at} at {done} of {length} bytes"
            raise Interrupted(reason)
        return b"".join(pieces)

    def _kind(self, content: bytes, media: str, at: Ref) -> str:
        """The media type, said by the answer and by the document, which must agree."""
        where = self._shown(at)
        if media.startswith(_OLD):
            msg = f"{where} is an image of Docker's schema 1, which nobody should use any more"
            raise InputError(msg, hint="push it again with a newer engine")
        stated = parse_json(content, where=where).get("mediaType")
        if stated is not None and media in INDEXES | MANIFESTS and stated != media:
            raise self._nonsense(at, f"it is announced as {media} and says {stated!r} of itself")
        kind = media if media in INDEXES | MANIFESTS else stated
        if kind not in INDEXES | MANIFESTS:
            msg = f"{where} is no image and no image index, but {kind or media!r}"
            raise InputError(
                msg, hint="look at the name; it may be a login page or another artefact"
            )
        return str(kind)

    def _at(self, ref: Ref | None) -> Ref:
        if ref is not None:
            return ref
        return self.reference.digest or self.reference.tag or "latest"

    def _shown(self, at: Ref) -> str:
        return f"{self.reference.name}{'@' if isinstance(at, Digest) else ':'}{at}"

    def _digest(self, stated: str, at: Ref) -> Digest:
        try:
            return Digest(stated.removeprefix("sha256:"))
        except ValueError:
            raise self._nonsense(at, f"it states the digest {stated[:100]!r}") from None

    def _absent(self, at: Ref) -> InputError:
        msg = f"there is no {self._shown(at)}"
        return InputError(msg, hint="look at the name and the tag; a private one needs a login")

    def _nonsense(self, at: Ref, why: str) -> EnvironmentProblem:
        msg = f"{self.session.host} gives something wrong for {self._shown(at)}: {why}"
        return EnvironmentProblem(msg, hint="nothing of it was used; tell who runs the registry")


def _media_type(answer: requests.Response) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
