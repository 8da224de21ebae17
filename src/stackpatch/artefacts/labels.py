"""What an image says of itself: labels, annotations and tag, the same whichever way it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackpatch.artefacts.base import Base
    from stackpatch.artefacts.lock import Inputs

PLACE = "stackpatch.place"


def image_labels(inputs: Inputs) -> dict[str, str]:
    """Which series of which stack for which arch: what `verify` holds an image against."""
    return {
        "stackpatch.arch": inputs.arch,
        "stackpatch.series": f"sha256:{inputs.series_sha256}",
        "stackpatch.stack": inputs.stack,
        "stackpatch.version": inputs.patched,
    }


def place_label(base: Base, folder: str) -> dict[str, str]:
    """Where `verify` looks, without reading a layer to find it. folder: from the image's root."""
    return {PLACE: f"{'editable' if base.pinned.editable else 'site'}:/{folder}"}


def image_annotations(inputs: Inputs) -> dict[str, str]:
    """The OCI annotations of the manifest."""
    annotations = {
        "org.opencontainers.image.title": inputs.stack,
        "org.opencontainers.image.version": inputs.patched,
        "org.opencontainers.image.source": inputs.git,
    }
    if inputs.commit is not None:
        annotations["org.opencontainers.image.revision"] = inputs.commit
    return annotations


def image_tag(inputs: Inputs) -> str:
    """What the image is called in its layout; a tag cannot hold a plus sign."""
    return f"{inputs.patched}-{inputs.arch}".replace("+", "_")
