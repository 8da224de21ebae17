"""Publishing a finished build: blobs, manifest, papers, index, and the tag as the very last.

Whatever goes wrong before the last step leaves the tag as it was: people who pull it see the old
image or the new one. Registries have no compare-and-swap, so the tag is looked at just before it
moves and twice afterwards; who finds another publisher's work there joins it instead of undoing it.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stackpatch.artefacts.oci import INDEX, Descriptor
from stackpatch.errors import EnvironmentProblem, FindingError
from stackpatch.model.digest import Digest
from stackpatch.registry.blobs import Blob
from stackpatch.registry.client import Registry
from stackpatch.registry.joining import entry_for, holds, join
from stackpatch.registry.push import CHUNK, How, Pusher
from stackpatch.registry.referrers import Attached, attach
from stackpatch.registry.signing import check_cosign, sign

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackpatch.registry.finished import Finished
    from stackpatch.registry.patience import Limits
    from stackpatch.registry.reference import Reference

    Report = Callable[[str, int, int | None], None]

_ROUNDS = 6
# How long the tag is watched after it moved: a multiple of the time between our last look and our
# move, in which another publisher may have looked too; within these bounds, in seconds.
_WATCH = 4.0
_WATCH_LEAST, _WATCH_MOST = 0.01, 2.0


@dataclass(frozen=True, slots=True)
class Published:
    """What was published. digest: of the index that the tag names. image: of the arch's manifest.

    moved: whether the tag had to move. replaced: what it named before and does not any more.
    bytes_sent: of all request bodies; layer_bytes: of those, layers; base_bytes_read: what was
    taken from another registry. how: blobs of the image by how they came there.
    """

    reference: Reference
    digest: Digest
    image: Digest
    moved: bool
    replaced: tuple[str, ...]
    bytes_sent: int
    layer_bytes: int
    base_bytes_read: int
    requests: int
    how: Counter[How]
    referrers: tuple[Attached, ...]
    signed: bool

    def json(self) -> dict[str, object]:
        """The keys that `publish --json` promises, and more."""
        return {
            "reference": str(self.reference.at(self.digest)),
            "tag": self.reference.tag,
            "digest": str(self.digest),
            "image": str(self.image),
            "moved": self.moved,
            "replaced": list(self.replaced),
            "bytes_sent": self.bytes_sent,
            "layer_bytes_sent": self.layer_bytes,
            "base_bytes_read": self.base_bytes_read,
            "blobs_mounted": self.how[How.MOUNTED],
            "blobs_sent": self.how[How.SENT] + self.how[How.COPIED],
            "blobs_copied": self.how[How.COPIED],
            "blobs_present": self.how[How.PRESENT],
            "requests": self.requests,
            "referrers": [
                {
                    "name": one.name,
                    "artifactType": one.kind,
                    "digest": str(one.digest),
                    "listed": one.listed,
                }
                for one in self.referrers
            ],
            "signed": self.signed,
        }


@dataclass(slots=True)
class Publication:
    """One build on its way to one tag. chunk: bytes of a request, where a layer is larger.

    cosign: options for `cosign sign`, where the index is to be signed. say: gets what it prints.
    """

    finished: Finished
    registry: Registry
    tag: str
    replace: bool = False
    sign: bool = False
    cosign: tuple[str, ...] = ()
    say: Callable[[str], object] = lambda _: None
    report: Report = lambda *_: None
    limits: Limits | None = None
    chunk: int = CHUNK
    how: Counter[How] = field(default_factory=Counter)
    layer_bytes: int = 0
    _signed: set[Digest] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The tag as people write it."""
        return f"{self.registry.reference.name}:{self.tag}"

    def run(self) -> Published:
        """Publish. Raises FindingError where the tag must not move, EnvironmentProblem else."""
        finished, registry = self.finished, self.registry
        if self.sign:
            check_cosign(self.cosign)
        image = finished.image
        entry = entry_for(image.descriptor, image.platform, finished.annotations)
        # Before a byte is sent: whether the tag may move at all.
        join(registry.find_manifest(self.tag), entry, replace=self.replace, name=self.name)
        pusher = Pusher(registry, chunk=self.chunk, report=self.report)
        self._send_blobs(pusher)
        pusher.document(image.manifest, image.media_type)
        papers = attach(pusher, image.descriptor, finished.papers())
        digest, moved, gone = self._move(pusher, entry)
        return Published(
            reference=registry.reference,
            digest=digest,
            image=image.digest,
            moved=moved,
            replaced=gone,
            bytes_sent=registry.traffic.bytes_sent,
            layer_bytes=self.layer_bytes,
            base_bytes_read=registry.traffic.blob_bytes_received,
            requests=registry.traffic.requests,
            how=self.how,
            referrers=papers,
            signed=bool(self._signed),
        )

    def _send_blobs(self, pusher: Pusher) -> None:
        """Layers, each from where it is, and the config."""
        finished = self.finished
        ours = self.registry.reference
        base = finished.base
        mount: tuple[str, ...] = ()
        if base is not None and base.host == ours.host and base.repository != ours.repository:
            mount = (base.repository,)
        source: Registry | None = None
        sent = self.registry.traffic.bytes_sent
        for layer in finished.image.layers:
            if _is_foreign(layer):
                continue  # not to be distributed: who pulls gets it from where its URLs say
            path = finished.layout.blob_path(layer.digest)
            if path.is_file():
                blob = Blob.of_file(path, layer.digest, layer.size)
                self.how[pusher.blob(blob, mount_from=mount)] += 1
                continue
            if base is None:
                msg = f"layer {layer.digest} of the base is not in {finished.layout.path}"
                hint = "build on a base in a registry or in a folder: --base"
                raise FindingError(msg, hint=hint)
            if source is None:
                source = Registry.open(base, limits=self.limits, beside=self.registry)
            blob = Blob.of_registry(source, layer.digest, layer.size)
            self.how[pusher.blob(blob, mount_from=mount, look=not mount)] += 1
        self.layer_bytes = self.registry.traffic.bytes_sent - sent
        config = Blob.of_bytes(finished.image.config)
        self.how[pusher.blob(config)] += 1

    def _move(self, pusher: Pusher, entry: Descriptor) -> tuple[Digest, bool, tuple[str, ...]]:
        """Let the tag name an index with the entry: its digest, whether it moved, what is gone."""
        registry, tag = self.registry, self.tag
        gone: tuple[str, ...] = ()
        for _ in range(_ROUNDS):
            current = registry.find_manifest(tag)
            joined = join(current, entry, replace=self.replace, name=self.name)
            digest = Digest.of(joined.content)
            gone = gone or joined.gone
            if current is not None and current[0] == joined.content:
                self._sign(digest)
                return digest, False, gone
            pusher.document(joined.content, INDEX)
            self._sign(digest)
            looked = time.monotonic()
            now = registry.head(tag)
            if (now and now.digest) != (current[1].digest if current else None):
                continue  # another publisher was here: join what is there now
            pusher.manifest(joined.content, INDEX, tag)
            if self._stays(joined.content, entry, looked):
                return digest, True, gone
        msg = f"others keep moving {self.name} away from what was just published"
        at = registry.reference.at(entry.digest)
        raise FindingError(msg, hint=f"the image is at {at}; run again to join the tag")

    def _stays(self, content: bytes, entry: Descriptor, looked: float) -> bool:
        """Whether the tag, read back now and once more, still gives people the entry."""
        window = time.monotonic() - looked
        pauses = (0.0, min(max(_WATCH * window, _WATCH_LEAST), _WATCH_MOST))
        for pause in pauses:
            if pause:
                self.registry.session.pause(pause)
            found = self.registry.find_manifest(self.tag)
            if found is None:
                msg = f"{self.registry.session.host} took {self.name} and does not give it back"
                raise EnvironmentProblem(msg, hint="tell who runs the registry")
            if found[0] == content:
                continue
            # Somebody moved it after us. That is fine as long as our image is in there.
            if found[1].media_type != INDEX or not holds(found[0], entry, self.name):
                return False
        return True

    def _sign(self, digest: Digest) -> None:
        """Let cosign sign the index by its digest, once, before the tag names it."""
        if not self.sign or digest in self._signed:
            return
        session = self.registry.session
        sign(
            self.registry.reference.at(digest),
            self.cosign,
            plain=session.url("").startswith("http:"),
            secrets=session.secrets,
            say=self.say,
        )
        self._signed.add(digest)


def refuse_failed(finished: Finished, *, even_if_failed: bool) -> None:
    """Raises FindingError for an image whose smoke test failed, unless that was asked for."""
    if finished.smoke is not None and finished.smoke.failed and not even_if_failed:
        names = ", ".join(finished.smoke.failed)
        msg = f"the smoke test of this image failed: {names}"
        hint = "mend it, or say --even-if-failed, which the image's annotations will show"
        raise FindingError(msg, hint=hint, where=str(finished.folder / "smoke.json"))


def _is_foreign(layer: Descriptor) -> bool:
    return "foreign" in layer.media_type or "nondistributable" in layer.media_type
