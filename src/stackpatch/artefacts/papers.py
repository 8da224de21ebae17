"""The papers of a result: its bill of materials, its provenance, and the lock that names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch.artefacts.build import IMAGE, LOCK, PROVENANCE, SBOM
from stackpatch.artefacts.lock import Output, Outputs, dump_lock
from stackpatch.artefacts.provenance import make_provenance
from stackpatch.artefacts.sbom import make_sbom
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stackpatch.artefacts.base import Base
    from stackpatch.artefacts.lock import Inputs
    from stackpatch.artefacts.oci import Descriptor, Image
    from stackpatch.model.patch import Patch


@dataclass(frozen=True, slots=True)
class MadeImage:
    """An image that was written below a result's folder.

    index: the digest of its layout's index.json. elsewhere: its layers that are not in the layout.
    """

    image: Image
    index: Digest
    elsewhere: tuple[Descriptor, ...]

    @classmethod
    def of(cls, image: Image, folder: Path) -> MadeImage:
        """The image whose layout is in `folder`/image."""
        layout = folder / IMAGE
        written = {path.name for path in (layout / "blobs" / "sha256").iterdir()}
        elsewhere = tuple(one for one in image.layers if one.digest.hex not in written)
        return cls(image, Digest.of_file(layout / "index.json"), elsewhere)


def write_papers(
    folder: Path,
    inputs: Inputs,
    patches: Sequence[Patch],
    base: Base,
    *,
    wheel: Output | None,
    made: MadeImage,
    below: Sequence[tuple[Inputs, Sequence[Patch], Output]] = (),
    notes: Sequence[str] = (),
) -> Outputs:
    """Write the documents beside what was made, and say what the result holds.

    wheel: None where none is made. below: the patched stacks that this one stands on, as
    `make_sbom` takes them. notes: what a person should know of the result.
    """
    digest = str(made.image.digest)
    _write(folder / SBOM, make_sbom(inputs, patches, wheel, digest, below))
    lower = [(its, output) for its, _, output in below]
    _write(folder / PROVENANCE, make_provenance(inputs, wheel, digest, lower))
    files = _listed(folder, made.image, wheel)
    told = (*notes, *_left_out(base, made.elsewhere))
    outputs = Outputs(wheel, digest, str(made.index), files, told, made.elsewhere)
    _write(folder / LOCK, dump_lock(inputs, outputs))
    return outputs


def _left_out(base: Base, elsewhere: Sequence[Descriptor]) -> tuple[str, ...]:
    if not elsewhere:
        return ()
    size, place = sum(one.size for one in elsewhere), base.pinned.name or base.pinned.digest
    left = f"image/ is without {len(elsewhere)} layers of the base, {size:,} bytes: they stay"
    return (f"{left} in {place}, and `stackpatch publish` takes them from there",)


def _listed(folder: Path, image: Image, wheel: Output | None) -> tuple[Output, ...]:
    """Every file of the result but the lock; a layer's digest is in its name."""
    known = {layer.digest.hex for layer in image.layers}
    files = [wheel] if wheel is not None else []
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or (wheel is not None and path.name == wheel.path):
            continue
        digest = path.name if path.name in known else Digest.of_file(path).hex
        files.append(Output(path.relative_to(folder).as_posix(), path.stat().st_size, digest))
    return tuple(files)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o644)
