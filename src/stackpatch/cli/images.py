"""The images that a person names by a reference, as the rooms below `registry` ask for them.

Manifests, indexes and configs are kept in the cache under their digest: what was read once is not
asked for again, and an image that is named by digest is then found without network.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from stackpatch.artefacts.images import RemoteImage
from stackpatch.artefacts.oci import INDEX, INDEXES, MANIFEST, MANIFESTS, Descriptor, parse_json
from stackpatch.errors import InputError
from stackpatch.model.digest import Digest
from stackpatch.registry.client import Registry
from stackpatch.registry.reference import Reference, looks_like_reference
from stackpatch.storage import cache_root, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


DAEMON = "docker-daemon:"


def opener(*, offline: bool = False, what: str = "--base") -> Callable[[str], RemoteImage]:
    """Opens `docker.io/a/b:tag`, `…@sha256:…` or both in a registry, `docker-daemon:NAME` in the
    local daemon. what: the option, for messages.

    It raises InputError for what is no reference, is not there or cannot be known without
    network, EnvironmentProblem for the network, the daemon and a login.
    """

    def remote(text: str) -> RemoteImage:
        if text.startswith(DAEMON):
            from stackpatch.artefacts.engines.saved import open_saved

            return open_saved(text.removeprefix(DAEMON))
        reference = _reference(text, what)
        source = _Registry(Registry.open(reference), offline)
        tag = reference.tag or (None if reference.digest else "latest")
        name = f"{reference.name}:{tag}" if tag else reference.name
        return RemoteImage(name, source.resolve(text, what), source)

    return remote


def _reference(text: str, what: str) -> Reference:
    """The reference, told from a folder that does not exist."""
    named = ":" in text or "@" in text
    if not named and not looks_like_reference(text):
        msg = f"{what} {text}: no such folder"
        hint = (
            "want `scratch`, the folder of an OCI layout, or an image with its tag or digest, "
            "such as docker.io/lmsysorg/sglang@sha256:…"
        )
        raise InputError(msg, hint=hint)
    return Reference.parse(text, what=what)


@dataclass(slots=True)
class _Registry:
    """A repository in a registry as an `ImageSource`."""

    registry: Registry
    offline: bool

    @property
    def label(self) -> str:
        """How messages call it."""
        return self.registry.reference.name

    def resolve(self, text: str, what: str) -> Descriptor:
        """What the reference names now. Raises InputError for a tag without network."""
        digest = self.registry.reference.digest
        kept = _kept(digest) if digest is not None else None
        if kept is not None and digest is not None:
            return Descriptor(_kind(kept), digest, len(kept))
        if self.offline:
            if digest is None:
                msg = f"{what} {text}: a tag may name another image today, and --offline is said"
                raise InputError(msg, hint="name it by digest: …@sha256:…")
            raise self._forbidden(digest)
        content, descriptor = self.registry.manifest()
        _keep(descriptor.digest, content)
        return descriptor

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest, an index or a config, from the cache or the registry."""
        kept = _kept(descriptor.digest)
        if kept is not None and len(kept) == descriptor.size:
            return kept
        if self.offline:
            raise self._forbidden(descriptor.digest)
        if descriptor.media_type in INDEXES | MANIFESTS:
            content, found = self.registry.manifest(descriptor.digest)
            if found.size != descriptor.size:
                shown = f"{self.label}@{descriptor.digest}"
                msg = f"{shown} has {found.size} bytes, not {descriptor.size} as announced"
                raise InputError(msg)
        else:
            content = self.registry.blob(descriptor.digest, descriptor.size)
        _keep(descriptor.digest, content)
        return content

    def open_blob(self, descriptor: Descriptor) -> IO[bytes]:
        """A layer as it comes; its digest is compared when its last byte was read."""
        if self.offline:
            raise self._forbidden(descriptor.digest)
        blocks = self.registry.blob_stream(descriptor.digest, descriptor.size)
        return io.BufferedReader(_Stream(blocks), 1 << 20)

    def _forbidden(self, digest: Digest) -> InputError:
        msg = f"{self.label}@{digest} is not in the cache, and --offline forbids to read it"
        return InputError(msg, hint="run once with the network, or name a layout folder")


class _Stream(io.RawIOBase):
    """Blocks as a file that is read from front to back."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill the buffer as far as the current block goes."""
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        """Let go of the connection."""
        end = getattr(self._blocks, "close", None)
        if end is not None:
            end()
        super().close()


def _place(digest: Digest) -> Path:
    return cache_root() / "images" / "sha256" / digest.hex


def _kept(digest: Digest) -> bytes | None:
    """A document of the cache; one that was damaged there counts as missing."""
    try:
        content = _place(digest).read_bytes()
    except OSError:
        return None
    return content if Digest.of(content) == digest else None


def _keep(digest: Digest, content: bytes) -> None:
    write_atomically(_place(digest), content)


def _kind(content: bytes) -> str:
    """A document's media type, which manifests may leave out."""
    parsed = parse_json(content, where="a kept document")
    stated = parsed.get("mediaType")
    if isinstance(stated, str):
        return stated
    return INDEX if "manifests" in parsed else MANIFEST
