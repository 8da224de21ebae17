"""What an outside engine is asked to build, checked before any engine sees it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stackpatch.artefacts.layout import Layout
    from stackpatch.artefacts.oci import Image

EngineName = Literal["buildx", "buildah"]
NETWORKS = ("none", "host", "default")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]*")
# A build argument stands in the image's history for everybody to read.
_SECRET_NAME = re.compile(r"(?i)token|password|passwd|secret|api_?key|credential")
_REFERENCE = re.compile(r"[a-z0-9][A-Za-z0-9._:/-]*")


@dataclass(frozen=True, slots=True)
class EngineBase:
    """The image that the Dockerfile starts from.

    image: its manifest and config. reference: where an engine can pull it, without a digest
    (`nvcr.io/nvidia/pytorch`); None where `layout`, a folder on this machine, has it.
    """

    image: Image
    reference: str | None = None
    layout: Layout | None = None


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One image to build. Everything but builder, caches, network and log decides its bytes.

    files: what the Dockerfile copies, by path in the build context: bytes, a file or a folder.
    epoch: Unix time that nothing in the new layers is younger than. args: for the Dockerfile's
    ARGs. env, labels, annotations: of the finished image. secrets: file by id, mounted while a
    step runs and in no layer. builder, cache_from, cache_to: as `docker buildx build` takes them.
    network: of the build's steps; `none` where they need none. log: where all that the engine
    says is kept.
    """

    engine: EngineName
    stack: str
    dockerfile: Path
    files: Mapping[str, Path | bytes]
    base: EngineBase
    platform: str
    epoch: int
    log: Path
    args: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict)
    builder: str | None = None
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    network: str = "none"
    cold: bool = False

    def __post_init__(self) -> None:
        _check(self)


def _check(request: EngineRequest) -> None:
    for name, value in request.args.items():
        if not _NAME.fullmatch(name):
            msg = f"build argument {name!r}: not a name of a Dockerfile's ARG"
            raise InputError(msg, hint="letters, digits and underscores, not a digit first")
        if _SECRET_NAME.search(name):
            msg = f"build argument {name}: its value would stand in the image's history"
            raise InputError(msg, hint="hand it over as a secret; see docs/containers.md")
        _check_text(f"build argument {name}", value)
        if name == "DEVEL" and "@sha256:" not in value:
            msg = f"build argument DEVEL={value}: a tag may name another image tomorrow"
            raise InputError(msg, hint="name the development image by digest: NAME@sha256:…")
    for name, value in request.env.items():
        if not _NAME.fullmatch(name):
            msg = f"variable {name!r} cannot be in an image's environment"
            raise InputError(msg)
        _check_text(f"variable {name}", value)
    for name, value in request.labels.items():
        if not _LABEL.fullmatch(name):
            msg = f"label {name!r}: letters, digits and ._/- only"
            raise InputError(msg)
        _check_text(f"label {name}", value)
    for name, path in request.secrets.items():
        if not _SECRET_ID.fullmatch(name):
            msg = f"secret {name!r}: letters, digits and ._- only"
            raise InputError(msg)
        if not path.is_file():
            msg = f"secret {name}: there is no file {path}"
            raise InputError(msg, hint="name a file that you can read")
    for name in ("builder", "cache_from", "cache_to"):
        value = getattr(request, name)
        for text in (value,) if isinstance(value, str) else value or ():
            _check_text(name.replace("_", "-"), text, lines=False)
            if text.startswith("-") or not text:
                msg = f"{name.replace('_', '-')} {text!r} would be read as an option"
                raise InputError(msg)
    if request.network not in NETWORKS:
        msg = f"network {request.network!r}: none, host or default"
        raise InputError(msg)
    if request.engine == "buildah" and (request.builder or request.cache_from or request.cache_to):
        msg = "buildah has no builders and no cache import or export"
        raise InputError(msg, hint="use --engine buildx for them")
    _check_base(request.base)


def _check_text(what: str, value: str, *, lines: bool = True) -> None:
    """Spaces, quotes and line ends go through as they are; what no argv can hold is refused."""
    if "\0" in value:
        msg = f"{what} has a NUL byte in it"
        raise InputError(msg)
    if not lines and ("\n" in value or "\r" in value):
        msg = f"{what} {value!r} has a line end in it"
        raise InputError(msg)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        msg = f"{what} {value!r} is not UTF-8"
        raise InputError(msg) from error


def _check_base(base: EngineBase) -> None:
    if not base.image.layers:
        msg = "buildx and buildah need a base image, this one has no layers"
        raise InputError(msg, hint="name one with --base; `scratch` serves the overlay engine only")
    if base.reference is None and base.layout is None:
        msg = "the base image is neither in a registry nor in a folder"
        raise InputError(msg)
    if base.reference is not None and not _REFERENCE.fullmatch(base.reference):
        msg = f"base image {base.reference!r}: not a reference to an image in a registry"
        raise InputError(msg, hint="such as nvcr.io/nvidia/pytorch, in lower case")
