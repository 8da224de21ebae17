"""The buildah engine: no daemon. Needs root, or user namespaces, and a storage driver.

With chroot isolation a step sees the machine's network; where no step needs one, the base is
pulled first and the build then runs in a network namespace of its own with nothing in it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stackpatch import proc
from stackpatch.artefacts.engines.buildx import BASE, CONTEXT, RESULT, SECRETS
from stackpatch.artefacts.engines.context import DOCKERFILE
from stackpatch.artefacts.engines.transcript import BuildahTranscript

if TYPE_CHECKING:
    from stackpatch.artefacts.engines.request import EngineRequest

_LOOPBACK = ("127.", "localhost", "[::1]")
ALONE = ("unshare", "--net", "--")


def pull_argvs(request: EngineRequest) -> tuple[tuple[str, ...], ...]:
    """The commands that bring the images that its stages start from: the base, but for one in a
    folder, and the development image, which a build argument names. Pure.
    """
    names = (_named(request), request.args.get("DEVEL"))
    return tuple(
        ("buildah", "pull", "--quiet", *_tls(name), "--platform", request.platform, name)
        for name in names
        if name
    )


def argv(request: EngineRequest, *, alone: bool) -> tuple[str, ...]:
    """The command, for a working folder as the one of buildx. Pure.

    alone: in a network namespace without a network; the base must have been pulled before.
    """
    named = _named(request)
    words = list(ALONE) if alone else []
    words += ["buildah", "build", "--isolation", "chroot", "--format", "oci"]
    words += ["--timestamp", str(request.epoch), "--identity-label=false", "--layers=false"]
    words += ["--no-cache", "--pull-never"] if named is not None else ["--no-cache"]
    if named is not None:
        words += _tls(named)
    words += ["--platform", request.platform]
    args = {**request.args, "BASE": named or f"oci:{BASE}"}
    args["SOURCE_DATE_EPOCH"] = str(request.epoch)
    for name, value in sorted(args.items()):
        words += ["--build-arg", f"{name}={value}"]
    for name in sorted(request.secrets):
        words += ["--secret", f"id={name},src={SECRETS}/{name}"]
    words += ["--tag", f"oci:{RESULT}", "--file", f"{CONTEXT}/{DOCKERFILE}", CONTEXT]
    return tuple(words)


def can_be_alone() -> bool:
    """Whether we may make a network namespace here."""
    if os.geteuid() != 0 or proc.find("unshare") is None:
        return False
    return proc.run((*ALONE, "true"), timeout=30, check=False).status == 0


def transcript() -> BuildahTranscript:
    """What follows its output."""
    return BuildahTranscript()


def _named(request: EngineRequest) -> str | None:
    base = request.base
    return None if base.reference is None else f"{base.reference}@{base.image.digest}"


def _tls(reference: str) -> tuple[str, ...]:
    """A registry on loopback speaks plain HTTP, as docker takes it to do."""
    return ("--tls-verify=false",) if reference.startswith(_LOOPBACK) else ()
