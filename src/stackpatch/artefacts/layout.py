"""OCI image layouts on disk: read with every byte checked, written whole.

A layout is a folder with `oci-layout`, `index.json` and `blobs/sha256/` (image-spec 1.1,
image-layout.md). Nothing is believed before its size and digest were compared.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from stackpatch.artefacts.images import Chosen, choose_image, listed, walk
from stackpatch.artefacts.oci import INDEX, Descriptor, Image, Platform, dump_json, parse_json
from stackpatch.errors import InputError
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# What registries take for a manifest (distribution-spec recommends at least 4 MiB).
_MAX_DOCUMENT = 8 << 20


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout folder that looks like one. `entries`: what its index.json lists."""

    path: Path
    entries: tuple[Descriptor, ...]

    @classmethod
    def open(cls, path: Path) -> Layout:
        """Raises InputError when the folder is no OCI layout."""
        hint = "make one with `skopeo copy docker://IMAGE@DIGEST oci:DIR` or `docker buildx build`"
        try:
            marker = (path / "oci-layout").read_bytes()
            index = (path / "index.json").read_bytes()
        except OSError as error:
            msg = f"{path} is not an OCI layout: {error.strerror}: {error.filename}"
            raise InputError(msg, hint=hint, where=str(path)) from error
        version = parse_json(marker, where=f"{path}/oci-layout").get("imageLayoutVersion")
        if version != "1.0.0":
            msg = f"{path} is an OCI layout of version {version!r}, only 1.0.0 is known"
            raise InputError(msg, where=str(path))
        return cls(path, listed(index, f"{path}/index.json"))

    def blob_path(self, digest: Digest) -> Path:
        """Where the blob lies."""
        return self.path / "blobs" / "sha256" / digest.hex

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest, index or config, with its size and digest checked. Raises InputError."""
        where = self.blob_path(descriptor.digest)
        if descriptor.size > _MAX_DOCUMENT:
            msg = f"{descriptor.digest} claims {descriptor.size} bytes, too many for a document"
            raise InputError(msg, where=str(where))
        with self.open_blob(descriptor) as file:
            content = file.read(descriptor.size + 1)
        if len(content) != descriptor.size or Digest.of(content) != descriptor.digest:
            raise _damaged(descriptor, where)
        return content

    @property
    def label(self) -> str:
        """How messages call it."""
        return str(self.path)

    def image(self, platform: Platform, digest: Digest | None = None) -> Image:
        """The image for the platform; as `choose`."""
        return self.choose(platform, digest).image

    def choose(self, platform: Platform, digest: Digest | None = None) -> Chosen:
        """The image for the platform: by the digest of it or of an index, or the only one there.

        Raises InputError that lists what there is when none or more than one fits.
        """
        entries: tuple[Descriptor, ...] = self.entries
        if digest is not None:
            entries = tuple(d for _, d in walk(self, entries) if d.digest == digest)[:1]
            if not entries:
                msg = f"{self.path} holds no image {digest}"
                raise InputError(msg, hint=self._held(), where=str(self.path))
        return choose_image(self, entries, platform)

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there, by its size; a sparse layout leaves out its base's layers."""
        try:
            return self.blob_path(descriptor.digest).stat().st_size == descriptor.size
        except OSError:
            return False

    def copy_blob(self, descriptor: Descriptor, target: Path) -> None:
        """Put a blob at target, checked while it is read; a hard link where the disk allows it.

        Raises InputError when it is missing or not what its descriptor says.
        """
        source = self.blob_path(descriptor.digest)
        content = hashlib.sha256()
        size = 0
        with self.open_blob(descriptor) as file:
            while piece := file.read(1 << 20):
                content.update(piece)
                size += len(piece)
        if size != descriptor.size or content.hexdigest() != descriptor.digest.hex:
            raise _damaged(descriptor, source)
        try:
            os.link(source.resolve(), target)
        except OSError:
            shutil.copyfile(source, target)
            target.chmod(0o644)

    def open_blob(self, descriptor: Descriptor) -> IO[bytes]:
        """The blob's bytes, not checked. Raises InputError when it is not there."""
        path = self.blob_path(descriptor.digest)
        try:
            return path.open("rb")
        except OSError as error:
            msg = f"{self.path} does not hold {descriptor.digest}: {error.strerror}"
            raise InputError(msg, hint="copy the whole image again", where=str(path)) from error

    def _held(self) -> str:
        shown = [f"{d.digest} ({d.platform or d.media_type})" for _, d in walk(self, self.entries)]
        return f"it holds {', '.join(shown[:8]) or 'nothing'}"


def write_layout(
    target: Path,
    image: Image,
    blobs: Mapping[Digest, bytes],
    *,
    base: Layout | None,
    annotations: Mapping[str, str] | None = None,
    sparse: bool = False,
) -> Digest:
    """Write a layout with this one image into the new folder `target`; return its index's digest.

    blobs: layers made here; the other layers are taken from the layout `base`. sparse: those that
    `base` does not have are left out, to be taken from where they are when the image is published.
    annotations: of the image's entry in the index. Raises InputError for a layer that is nowhere.
    """
    target.mkdir()
    for folder in (target / "blobs", target / "blobs" / "sha256"):
        folder.mkdir()
        folder.chmod(0o755)
    target.chmod(0o755)
    store = target / "blobs" / "sha256"
    config = Descriptor.parse(image.manifest_json()["config"], where="the new image").digest
    documents = {config: image.config, image.digest: image.manifest}
    for layer in image.layers:
        if layer.digest in blobs:
            documents[layer.digest] = blobs[layer.digest]
        elif base is not None and not (sparse and not base.has(layer)):
            if not (store / layer.digest.hex).exists():
                base.copy_blob(layer, store / layer.digest.hex)
        elif not sparse:
            msg = f"layer {layer.digest} is not at hand"
            raise InputError(msg)
    for digest, content in documents.items():
        _put(store / digest.hex, content)
    entry = image.descriptor.json()
    if annotations:
        entry["annotations"] = dict(sorted(annotations.items()))
    index = dump_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
    _put(target / "index.json", index)
    _put(target / "oci-layout", dump_json({"imageLayoutVersion": "1.0.0"}))
    return Digest.of(index)


def _put(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o644)


def _damaged(descriptor: Descriptor, path: Path) -> InputError:
    msg = f"{path} is not the {descriptor.size} bytes that {descriptor.digest} stands for"
    return InputError(msg, hint="the layout is damaged; copy the image again", where=str(path))
