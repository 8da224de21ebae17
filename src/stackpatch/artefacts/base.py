"""The base image that a person names with `--base`: nothing, a layout folder, or a remote image.

A tag is resolved once, here; from then on the build knows the image by its digest. What the
recipe records of that digest says where the package lies, and then no layer is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackpatch.artefacts.images import choose_image
from stackpatch.artefacts.layout import Layout
from stackpatch.artefacts.lock import PinnedBase
from stackpatch.artefacts.oci import Image, Platform
from stackpatch.errors import InputError
from stackpatch.model.digest import Digest
from stackpatch.model.recipe_bases import BaseKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackpatch.artefacts.images import Chosen, ImageSource, RemoteImage
    from stackpatch.model.arch import Arch
    from stackpatch.model.recipe_bases import BaseImage

    # Opens what a reference names in a registry or an engine; reads no layer.
    OpenRemote = Callable[[str], RemoteImage]

# Where Ubuntu's own Python 3.12 has what pip installs for everybody; the images of the stacks
# that we patch are made on it. Used where nothing says otherwise (`scratch`).
USUAL_SITE = "usr/local/lib/python3.12/dist-packages"
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True, slots=True)
class Base:
    """A base that was found.

    source: where its layers can be read, None for `scratch`. layout: the folder that they can be
    copied from; without one, an image on this base is written without them. evidence: why the
    recipe says that the image holds the release, None where it does not.
    """

    image: Image
    source: ImageSource | None
    layout: Layout | None
    pinned: PinnedBase
    evidence: str | None = None

    def lines(self) -> tuple[str, ...]:
        """For a person: where the package is taken to lie, and what that costs."""
        if self.source is None:
            return ()
        pinned = self.pinned
        if pinned.recorded:
            what = "the git tree" if pinned.editable else "the package"
            return (
                f"place    {what} is in /{pinned.site}, as the recipe records: {self.evidence}",
                "         no layer of the base is read",
            )
        size = sum(layer.size for layer in self.image.layers)
        where = f"looked for in /{pinned.site}" if pinned.site else "looked for"
        return (
            f"place    {where}, in the base's layers from the top until it is found",
            f"         at most {size:,} bytes in {len(self.image.layers)} layers are read",
        )


def open_base(
    text: str,
    arch: Arch,
    *,
    site: str | None = None,
    recorded: Sequence[BaseImage] = (),
    remote: OpenRemote | None = None,
) -> Base:
    """From `scratch`, a layout folder, `FOLDER@sha256:…` (both also after `oci:`), or what
    `remote` takes.

    site: the folder for the package's files, relative to the image's root, where it is not to be
    looked for everywhere. recorded: the release's bases in the recipe. Raises InputError, and
    what `remote` raises.
    """
    platform = Platform.parse(arch.platform)
    folder = site.strip("/") if site else None
    if text == "scratch":
        pinned = PinnedBase(None, None, folder or USUAL_SITE)
        return Base(Image.scratch(platform), None, None, pinned)
    found = open_image(text, platform, remote=remote, what="--base")
    return _based(found.source, found.chosen, found.name, folder, recorded)


@dataclass(frozen=True, slots=True)
class Opened:
    """An image that a person named, where it is, and what it is called there."""

    source: ImageSource
    chosen: Chosen
    name: str | None


def open_image(
    text: str, platform: Platform, *, remote: OpenRemote | None = None, what: str = "IMAGE"
) -> Opened:
    """From a layout folder, `FOLDER@sha256:…`, both also after `oci:`, or what `remote` takes.

    what: the option, for messages. Raises InputError, and what `remote` raises.
    """
    path, digest = _folder(text, what)
    if path is not None and path.is_dir():
        layout = Layout.open(path)
        return Opened(layout, layout.choose(platform, digest), _name(layout))
    if text.startswith(("oci:", ".", "/")) or not text or remote is None:
        msg = f"{what} {text}: no such folder"
        hint = "want the folder of an OCI layout, with @sha256:… for one of several images"
        if what == "--base":
            hint = f"{hint}, or `scratch`"
        raise InputError(msg, hint=hint)
    found = remote(text)
    chosen = choose_image(found.source, (found.descriptor,), platform)
    return Opened(found.source, chosen, found.name)


def _based(
    source: ImageSource,
    chosen: Chosen,
    name: str | None,
    site: str | None,
    recorded: Sequence[BaseImage],
) -> Base:
    layout = source if isinstance(source, Layout) else None
    digest, index = str(chosen.image.digest), str(chosen.index) if chosen.index else None
    known = next((one for one in recorded if one.digest in (digest, index)), None)
    if known is None or (site is not None and site != known.path.strip("/")):
        pinned = PinnedBase(digest, name, site, index)
        return Base(chosen.image, source, layout, pinned)
    pinned = PinnedBase(
        digest,
        name,
        known.path.strip("/"),
        index,
        editable=known.kind is BaseKind.EDITABLE,
        python=known.python,
        recorded=True,
    )
    return Base(chosen.image, source, layout, pinned, known.evidence)


def _folder(text: str, what: str) -> tuple[Path | None, Digest | None]:
    """A folder and the digest behind it, as far as the text can be that. Raises InputError."""
    plain = text.removeprefix("oci:")
    path, at, stated = plain.rpartition("@sha256:")
    if not at:
        return (Path(plain) if plain else None), None
    try:
        return (Path(path) if path else None), Digest.parse(f"sha256:{stated}")
    except ValueError as error:
        msg = f"{what} {text}: {error}"
        raise InputError(msg) from error


def _name(layout: Layout) -> str | None:
    """What the layout's one image is called.

    The folder's own name would differ from machine to machine; a layout may know a better one.
    """
    names = (d.annotations.get(key) for d in layout.entries for key in _NAMES)
    single = len(layout.entries) == 1
    return next((known for known in names if known and "/" in known), None) if single else None
