"""An image in a docker daemon as a source of documents and layers, without storing it.

The daemon gives an image only as one stream, `docker image save`. It is read once for the
manifests and the config, and once more for each layer that is asked for, up to that layer; what
is passed over is thrown away.
"""

from __future__ import annotations

import contextlib
import io
import re
import tarfile
import urllib.parse
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

from stackpatch.artefacts.engines.bring import Pieces
from stackpatch.artefacts.engines.inspect import LocalImage, _client, find_image
from stackpatch.artefacts.images import RemoteImage, listed
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stackpatch.artefacts.oci import Descriptor

_SECONDS = 600.0  # without a byte from the daemon
_BLOCK = 1 << 20
_BLOBS = "blobs/sha256/"
_MAX_DOCUMENT = 8 << 20
_OK = 200
_HOST = re.compile(r"(localhost|[^/]*[.:][^/]*)/")


def open_saved(reference: str) -> RemoteImage:
    """The daemon's image of this name, id or digest.

    Raises InputError for one that it does not have, EnvironmentProblem for the daemon.
    """
    local = find_image(reference)
    if local is None:
        msg = f"the docker daemon has no image {reference}"
        raise InputError(msg, hint="`docker image ls` lists what it has; `docker pull` brings more")
    index, documents = _documents(reference)
    entries = listed(index, f"docker-daemon:{reference}")
    if len(entries) != 1:
        msg = f"the docker daemon saves {len(entries)} images under the name {reference}"
        raise InputError(msg, hint="name it by its id")
    return RemoteImage(
        _repository(local, entries[0].digest), entries[0], _Saved(reference, documents)
    )


def _repository(local: LocalImage, digest: Digest) -> str | None:
    """The repository that has the image under this very digest; None: maybe it is only here.

    A daemon with the containerd store knows its own builds by name and digest as well, so a name
    counts only with a registry's host in it.
    """
    names = sorted(one.partition("@")[0] for one in local.digests if one.endswith(str(digest)))
    return next((name for name in names if _HOST.match(name)), None)


@dataclass(frozen=True, slots=True)
class _Saved:
    """The image as an `ImageSource`."""

    reference: str
    documents: Mapping[Digest, bytes]

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"docker-daemon:{self.reference}"

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest, an index or a config; it was checked when it was met."""
        found = self.documents.get(descriptor.digest)
        if found is None or len(found) != descriptor.size:
            msg = f"the docker daemon's {self.reference} is without {descriptor.digest}"
            raise InputError(msg, hint="pull the image again, for the platform that you want")
        return found

    def open_blob(self, descriptor: Descriptor) -> IO[bytes]:
        """A layer, found by reading the daemon's stream up to it."""
        stack = contextlib.ExitStack()
        try:
            tar = stack.enter_context(_saved(self.reference))
            for member in tar:
                if member.name.lstrip("./") == f"{_BLOBS}{descriptor.digest.hex}":
                    file = tar.extractfile(member)
                    if file is not None:
                        return cast("IO[bytes]", _Held(file, stack))
        except BaseException:
            stack.close()
            raise
        stack.close()
        msg = f"the docker daemon's {self.reference} is without layer {descriptor.digest}"
        raise InputError(msg, hint="pull the image again")


class _Held(io.RawIOBase):
    """A member of the stream; closing it ends the stream."""

    def __init__(self, file: IO[bytes], stack: contextlib.ExitStack) -> None:
        self._file = file
        self._stack = stack

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes."""
        return self._file.read(size)

    def close(self) -> None:
        """End the daemon's stream."""
        if not self.closed:
            self._stack.close()
        super().close()


def _documents(reference: str) -> tuple[bytes, dict[Digest, bytes]]:
    """index.json, and every blob that can be a document: small, and a JSON object by its start."""
    index: bytes | None = None
    documents: dict[Digest, bytes] = {}
    with _saved(reference) as tar:
        for member in tar:
            name = member.name.lstrip("./")
            if not member.isreg() or member.size > _MAX_DOCUMENT:
                continue
            file = tar.extractfile(member)
            if file is None:
                continue
            if name == "index.json":
                index = file.read()
            elif name.startswith(_BLOBS) and (start := file.read(1)) == b"{":
                content = start + file.read()
                documents[Digest.of(content)] = content
    if index is None:
        msg = f"the docker daemon does not save {reference} as an OCI layout"
        raise EnvironmentProblem(msg, hint="Docker Engine 25 and newer do")
    return index, documents


@contextlib.contextmanager
def _saved(reference: str) -> Iterator[tarfile.TarFile]:
    """`docker image save` as a tar that is read from front to back, and left when enough is read.

    Asked through the SDK's own session: its `save` hands out no way to hang up early.
    """
    with _client(_SECONDS) as client:
        api = client.api
        name = urllib.parse.quote(reference, safe="/:@")
        url = f"{api.base_url}/v{api.api_version}/images/{name}/get"
        with api.get(url, stream=True, timeout=_SECONDS) as answer:
            if answer.status_code != _OK:
                msg = f"the docker daemon does not save {reference}: {answer.text[:300]}"
                raise EnvironmentProblem(msg)
            pieces = Pieces(answer.iter_content(_BLOCK))
            try:
                with tarfile.open(
                    fileobj=cast("IO[bytes]", pieces), mode="r|", bufsize=_BLOCK
                ) as tar:
                    yield tar
            except tarfile.TarError as error:
                msg = f"what the docker daemon saves of {reference} cannot be read: {error}"
                raise EnvironmentProblem(msg) from error
