"""Where images come from, and choosing the one for a platform: only documents are read for it.

The sources are a layout folder, a registry and a local engine. This room knows the folder; for
the others it says here what it asks of them, and `cli` brings them in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

from stackpatch.artefacts.oci import INDEXES, MANIFESTS, Descriptor, Image, Platform, parse_json
from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackpatch.model.digest import Digest

_MAX_DEPTH = 8
_CONFIGS = ("image.config.v1+json", "container.image.v1+json")


class Documents(Protocol):
    """Something that holds manifests, indexes and configs."""

    @property
    def label(self) -> str:
        """How messages call it."""
        ...

    def document(self, descriptor: Descriptor) -> bytes:
        """A small blob, with its size and digest checked. Raises InputError, EnvironmentProblem."""
        ...


class ImageSource(Documents, Protocol):
    """Something that also holds layers."""

    def open_blob(self, descriptor: Descriptor) -> IO[bytes]:
        """A layer from its first byte on, to be closed; who reads it compares the digest.

        Raises InputError for one that is not there, EnvironmentProblem for the network.
        """
        ...


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """What a reference names in a registry or an engine.

    name: the reference without a digest, as an annotation may carry it (`docker.io/a/b:tag`);
    None where it is in no registry.
    descriptor: of the manifest or of the index that it names now.
    """

    name: str | None
    descriptor: Descriptor
    source: ImageSource


@dataclass(frozen=True, slots=True)
class Chosen:
    """An image, and the outermost index that it was taken from, None where it was named itself."""

    image: Image
    index: Digest | None


def choose_image(source: Documents, entries: Sequence[Descriptor], platform: Platform) -> Chosen:
    """The one image for the platform among the entries; indexes are followed.

    Raises InputError that lists what there is when none or more than one fits.
    """
    found: dict[Digest, Chosen] = {}
    others: set[str] = set()
    for outermost, descriptor in walk(source, entries):
        if descriptor.media_type not in MANIFESTS:
            continue
        if descriptor.platform is not None and not descriptor.platform.serves(platform):
            others.add(str(descriptor.platform))
            continue
        image = _image(source, descriptor)
        if image is None:
            continue
        if image.platform.serves(platform):
            index = outermost.digest if outermost.digest != descriptor.digest else None
            found.setdefault(image.digest, Chosen(image, index))
        else:
            others.add(str(image.platform))
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        msg = f"{source.label} holds no image for {platform}"
        others.discard("unknown/unknown")  # attestations, which buildx puts into an index
        hint = f"it has {', '.join(sorted(others))}" if others else "it holds no image at all"
    else:
        msg = f"{source.label} holds {len(found)} images for {platform}"
        hint = f"name one: {', '.join(f'{source.label}@{one}' for one in sorted(found))}"
    raise InputError(msg, hint=hint, where=source.label)


def walk(
    source: Documents, entries: Sequence[Descriptor]
) -> Iterator[tuple[Descriptor, Descriptor]]:
    """Every entry, and those of the indexes among them, each with the entry that led to it."""
    for entry in entries:
        for inner in _below(source, entry, 0):
            yield entry, inner


def listed(content: bytes, where: str) -> tuple[Descriptor, ...]:
    """What an index lists. Raises InputError."""
    parsed = parse_json(content, where=where)
    manifests = parsed.get("manifests")
    if parsed.get("schemaVersion") != 2 or not isinstance(manifests, list):
        msg = f"{where} is not an image index"
        raise InputError(msg, where=where)
    return tuple(Descriptor.parse(one, where=where) for one in manifests)


def _below(source: Documents, descriptor: Descriptor, depth: int) -> Iterator[Descriptor]:
    yield descriptor
    if descriptor.media_type in INDEXES:
        if depth >= _MAX_DEPTH:
            msg = f"{source.label}: indexes lie more than {_MAX_DEPTH} deep in each other"
            raise InputError(msg, where=source.label)
        where = f"{source.label}@{descriptor.digest}"
        for inner in listed(source.document(descriptor), where):
            yield from _below(source, inner, depth + 1)


def _image(source: Documents, descriptor: Descriptor) -> Image | None:
    """The image, None for an artefact (a manifest whose config is none of an image)."""
    where = f"{source.label}@{descriptor.digest}"
    manifest = source.document(descriptor)
    config = Descriptor.parse(parse_json(manifest, where=where).get("config"), where=where)
    if not config.media_type.endswith(_CONFIGS):
        return None
    return Image.read(manifest, source.document(config), where=where)
