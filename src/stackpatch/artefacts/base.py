"""The base image that a person names with `--base`: an OCI layout folder, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackpatch.artefacts.layout import Layout
from stackpatch.artefacts.lock import PinnedBase
from stackpatch.artefacts.oci import Image, Platform
from stackpatch.errors import InputError
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from stackpatch.model.arch import Arch

# Where Ubuntu's own Python 3.12 has what pip installs for everybody; the images of the stacks
# that we patch are made on it. Used where nothing says otherwise (`scratch`).
USUAL_SITE = "usr/local/lib/python3.12/dist-packages"
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True, slots=True)
class Base:
    """A base that was found. layout: where its layers are, None for `scratch`."""

    image: Image
    layout: Layout | None
    pinned: PinnedBase


def open_base(text: str, arch: Arch, *, site: str | None = None) -> Base:
    """From `scratch`, a layout folder, `FOLDER@sha256:…`, both also with `oci:` in front.

    site: the folder for the package's files, relative to the image's root, where it is not to be
    looked for. Raises InputError.
    """
    platform = Platform.parse(arch.platform)
    folder = site.strip("/") if site else None
    if text == "scratch":
        pinned = PinnedBase(None, None, folder or USUAL_SITE)
        return Base(Image.scratch(platform), None, pinned)
    plain = text.removeprefix("oci:")
    path, at, stated = plain.rpartition("@sha256:")
    digest = None
    if at:
        try:
            digest = Digest.parse(f"sha256:{stated}")
        except ValueError as error:
            msg = f"--base {text}: {error}"
            raise InputError(msg) from error
    else:
        path = plain
    if not path or not Path(path).is_dir():
        looks = "/" in path and not path.startswith((".", "/")) and not text.startswith("oci:")
        msg = f"--base {text}: no such folder"
        hint = "want `scratch`, or the folder of an OCI layout, with @sha256:… for one of several"
        if looks:
            hint = f"bases in a registry are not built in yet; {hint}"
        raise InputError(msg, hint=hint)
    layout = Layout.open(Path(path))
    image = layout.image(platform, digest)
    names = (d.annotations.get(key) for d in layout.entries for key in _NAMES)
    # The folder's own name would differ from machine to machine; a layout may know a better one.
    single = len(layout.entries) == 1
    name = next((known for known in names if known and "/" in known), None) if single else None
    return Base(image, layout, PinnedBase(str(image.digest), name, folder))
