"""OCI image layouts on disk: read with every byte checked, written whole.

A layout is a folder with `oci-layout`, `index.json` and `blobs/sha256/` (image-spec 1.1,
image-layout.md). Nothing is believed before its size and digest were compared.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from stackpatch.artefacts.oci import (
    INDEX,
    INDEXES,
    MANIFESTS,
    Descriptor,
    Image,
    Platform,
    dump_json,
    parse_json,
)
from stackpatch.errors import InputError
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# What registries take for a manifest (distribution-spec recommends at least 4 MiB).
_MAX_DOCUMENT = 8 << 20
_MAX_DEPTH = 8


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
        return cls(path, _manifests(index, f"{path}/index.json"))

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

    def image(self, platform: Platform, digest: Digest | None = None) -> Image:
        """The image for the platform: by the digest of it or of an index, or the only one there.

        Nested indexes are followed. Raises InputError that lists what there is when none or
        more than one fits.
        """
        entries: tuple[Descriptor, ...] = self.entries
        if digest is not None:
            entries = tuple(d for d in self._all(entries) if d.digest == digest)[:1]
            if not entries:
                msg = f"{self.path} holds no image {digest}"
                raise InputError(msg, hint=self._held(), where=str(self.path))
        found: dict[Digest, Image] = {}
        others: set[str] = set()
        for descriptor in self._all(entries):
            if descriptor.media_type not in MANIFESTS:
                continue
            if descriptor.platform is not None and not descriptor.platform.serves(platform):
                others.add(str(descriptor.platform))
                continue
            image = self._image(descriptor)
            if image is None:
                continue
            if image.platform.serves(platform):
                found[image.digest] = image
            else:
                others.add(str(image.platform))
        if len(found) == 1:
            return next(iter(found.values()))
        if not found:
            msg = f"{self.path} holds no image for {platform}"
            hint = f"it has {', '.join(sorted(others))}" if others else "it holds no image at all"
        else:
            msg = f"{self.path} holds {len(found)} images for {platform}"
            hint = f"name one: {', '.join(f'{self.path}@{one}' for one in sorted(found))}"
        raise InputError(msg, hint=hint, where=str(self.path))

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

    def _image(self, descriptor: Descriptor) -> Image | None:
        """The image, None for an artefact (a manifest whose config is none of an image)."""
        where = f"{self.path}@{descriptor.digest}"
        manifest = self.document(descriptor)
        parsed = parse_json(manifest, where=where)
        config = Descriptor.parse(parsed.get("config"), where=where)
        if not config.media_type.endswith(("image.config.v1+json", "container.image.v1+json")):
            return None
        return Image.read(manifest, self.document(config), where=where)

    def _all(self, entries: tuple[Descriptor, ...], depth: int = 0) -> Iterator[Descriptor]:
        """The entries, and those of the indexes among them."""
        for descriptor in entries:
            yield descriptor
            if descriptor.media_type in INDEXES:
                if depth >= _MAX_DEPTH:
                    msg = f"{self.path}: indexes lie more than {_MAX_DEPTH} deep in each other"
                    raise InputError(msg, where=str(self.path))
                where = f"{self.path}@{descriptor.digest}"
                yield from self._all(_manifests(self.document(descriptor), where), depth + 1)

    def _held(self) -> str:
        shown = [f"{d.digest} ({d.platform or d.media_type})" for d in self._all(self.entries)]
        return f"it holds {', '.join(shown[:8]) or 'nothing'}"


def write_layout(
    target: Path,
    image: Image,
    blobs: Mapping[Digest, bytes],
    *,
    base: Layout | None,
    annotations: Mapping[str, str] | None = None,
) -> Digest:
    """Write a layout with this one image into the new folder `target`; return its index's digest.

    blobs: layers made here; the other layers are taken from the layout `base`. annotations: of
    the image's entry in the index. Raises InputError for a layer that is nowhere.
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
        elif base is not None:
            if not (store / layer.digest.hex).exists():
                base.copy_blob(layer, store / layer.digest.hex)
        else:
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


def _manifests(content: bytes, where: str) -> tuple[Descriptor, ...]:
    parsed: dict[str, Any] = parse_json(content, where=where)
    listed = parsed.get("manifests")
    if parsed.get("schemaVersion") != 2 or not isinstance(listed, list):
        msg = f"{where} is not an image index"
        raise InputError(msg, where=where)
    return tuple(Descriptor.parse(one, where=where) for one in listed)


def _damaged(descriptor: Descriptor, path: Path) -> InputError:
    msg = f"{path} is not the {descriptor.size} bytes that {descriptor.digest} stands for"
    return InputError(msg, hint="the layout is damaged; copy the image again", where=str(path))
