"""Bringing an image into a docker daemon, and reading what a container of it would see.

A layout's layers are streamed to the daemon from where they are, a container's files out of it;
nothing is stored on the way. What was brought from a layout is taken away again.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, cast

from stackpatch.artefacts.engines.inspect import LocalImage, _client, find_image
from stackpatch.artefacts.layout import Layout
from stackpatch.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stackpatch.artefacts.oci import Descriptor, Image, Platform
    from stackpatch.model.digest import Digest

_SECONDS = 600.0  # without a byte from the daemon
_BLOCK = 1 << 20


@contextlib.contextmanager
def loaded(folder: Path, platform: Platform, digest: Digest | None) -> Iterator[tuple[str, Image]]:
    """The name under which the daemon has a layout's image while the block runs, and the image.

    Raises InputError for a layout that is damaged or does not hold all of its layers.
    """
    layout = Layout.open(folder)
    image = layout.image(platform, digest)
    for layer in image.layers:
        if not layout.has(layer):
            msg = f"{folder} does not hold layer {layer.digest}, which is in its base's registry"
            raise InputError(msg, hint="publish it and name the image in the registry")
    name = f"stackpatch-smoke:{image.digest.hex[:12]}"
    known = find_image(name) is not None
    with _client(_SECONDS) as client:
        if not known:
            client.images.load(Pieces(_archive(layout, image, name)))
        if find_image(name) is None:
            msg = f"the docker daemon did not keep the image that {folder} holds"
            raise EnvironmentProblem(msg, hint="its log says why")
        try:
            yield name, image
        finally:
            if not known:
                with contextlib.suppress(Exception):
                    client.images.remove(name, force=True)


def pulled(reference: str) -> LocalImage:
    """The daemon's image of this name; pulled by the daemon when it has none.

    Raises InputError where there is no such image, EnvironmentProblem for the daemon.
    """
    from docker.errors import APIError, NotFound

    found = find_image(reference)
    if found is not None:
        return found
    if reference.startswith("sha256:"):
        msg = f"the docker daemon has no image {reference}"
        raise InputError(msg, hint="name it by its repository, or bring it there: docker load")
    named = reference if "@" in reference or ":" in reference.rpartition("/")[2] else None
    with _client(_SECONDS) as client:
        try:
            client.images.pull(named or f"{reference}:latest")
        except (NotFound, APIError) as error:
            said = str(error.explanation or error)
            msg = f"the docker daemon has no image {reference} and cannot pull it: {said[:300]}"
            raise InputError(
                msg, hint="`docker pull` it by hand, or name a layout folder"
            ) from error
    found = find_image(named or f"{reference}:latest")
    if found is None:
        msg = f"the docker daemon pulled {reference} and does not find it"
        raise EnvironmentProblem(msg)
    return found


@contextlib.contextmanager
def container_tar(reference: str, folder: str | None = None) -> Iterator[Iterator[bytes]]:
    """The files that a container of the image has, as a tar in pieces; none of it is started.

    folder: only what is below it, by paths that begin with its last part. Raises InputError for
    an image that the daemon does not have, and a folder that is not in it.
    """
    from docker.errors import APIError, ImageNotFound, NotFound

    with _client(_SECONDS) as client:
        try:
            container = client.containers.create(
                reference, ["none"], entrypoint=[], network_mode="none", labels=_LABELS
            )
        except ImageNotFound as error:
            msg = f"the docker daemon has no image {reference}"
            raise InputError(msg, hint="`docker image ls` lists what it has") from error
        try:
            if folder is None:
                yield cast("Iterator[bytes]", container.export(chunk_size=_BLOCK))
            else:
                try:
                    pieces, _ = container.get_archive(folder, chunk_size=_BLOCK)
                except NotFound as error:
                    msg = f"{reference} has no folder {folder}"
                    raise InputError(msg) from error
                yield pieces
        finally:
            with contextlib.suppress(APIError):
                container.remove(force=True, v=True)


_LABELS = {"org.stackpatch": "read"}


def _archive(layout: Layout, image: Image, name: str) -> Iterator[bytes]:
    """The image as `docker load` takes it from every release on: manifest.json and the blobs."""
    config = f"{image.digest.hex}.json"
    listed = [
        {
            "Config": config,
            "RepoTags": [name],
            "Layers": [f"{number}/layer.tar" for number in range(len(image.layers))],
        }
    ]
    yield from _member("manifest.json", json.dumps(listed).encode())
    yield from _member(config, image.config)
    for number, layer in enumerate(image.layers):
        yield from _layer(layout, layer, f"{number}/layer.tar")
    yield bytes(1024)


def _member(path: str, content: bytes) -> Iterator[bytes]:
    yield _header(path, len(content))
    yield content + bytes(-len(content) % 512)


def _layer(layout: Layout, layer: Descriptor, path: str) -> Iterator[bytes]:
    yield _header(path, layer.size)
    with layout.open_blob(layer) as file:
        left = layer.size
        while left:
            piece = file.read(min(left, _BLOCK))
            if not piece:
                msg = f"{layout.path}: {layer.digest} is shorter than {layer.size} bytes"
                raise InputError(msg, hint="the layout is damaged; copy the image again")
            left -= len(piece)
            yield piece
    yield bytes(-layer.size % 512)


def _header(path: str, size: int) -> bytes:
    info = tarfile.TarInfo(path)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


class Pieces(io.RawIOBase):
    """Pieces of bytes as a file that is read from front to back, and passed over by reading."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, b"" only at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        part = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(part) :]
        return part
