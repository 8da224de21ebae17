"""Packages that must fit each other: what a wheel's own metadata asks for, and what is there.

Pure. FlashInfer refuses to start, or reads kernels of another release, when flashinfer-python,
flashinfer-cubin and flashinfer-jit-cache are not of one version (flashinfer/jit/env.py of 0.6.3
compares them at import); the stacks on top of it pin it exactly in their metadata.
"""

from __future__ import annotations

from email.parser import BytesHeaderParser
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}


def asked_for(metadata: bytes, *, platform: str, python: str | None) -> dict[str, SpecifierSet]:
    """What METADATA requires without extras, by canonical name, on the platform.

    platform: `linux/arm64`. python: `3.12`; None: 3.12, of the images that we know. Raises
    InputError for a requirement that cannot be read.
    """
    release = python or "3.12"
    environment = {
        "extra": "",
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": _MACHINES[platform],
        "platform_system": "Linux",
        "python_full_version": f"{release}.0",
        "python_version": release,
        "sys_platform": "linux",
    }
    wanted: dict[str, SpecifierSet] = {}
    message = BytesHeaderParser().parsebytes(metadata)
    for text in message.get_all("Requires-Dist") or ():
        try:
            one = Requirement(text)
        except InvalidRequirement as error:
            msg = f"the wheel requires {text!r}, which cannot be read: {error}"
            raise InputError(msg) from error
        if one.marker is None or one.marker.evaluate(environment):
            name = canonicalize_name(one.name)
            wanted[name] = wanted.get(name, SpecifierSet()) & one.specifier
    return wanted


def unmet(wanted: Mapping[str, SpecifierSet], there: Mapping[str, str]) -> tuple[str, ...]:
    """One line for each package that is there in a version that was not asked for.

    there: versions by canonical name. What is not there is not judged: an image may get it later.
    """
    lines = []
    for name in sorted(wanted.keys() & there.keys()):
        try:
            fits = wanted[name].contains(Version(there[name]), prereleases=True)
        except InvalidVersion:
            fits = False
        if not fits:
            lines.append(f"{name} {there[name]} is there, {name}{wanted[name]} is asked for")
    return tuple(lines)


def not_of_one_version(
    package: str, companions: Collection[str], there: Mapping[str, str]
) -> tuple[str, ...]:
    """One line for each companion whose version is not the package's, local parts aside.

    `0.6.3+sp.f33b8143` and `0.6.3+cu130` are of one version. Names are canonical.
    """
    if package not in there:
        return ()
    return tuple(
        f"{name} {there[name]} beside {package} {there[package]}: not of one version"
        for name in sorted(set(companions) & there.keys())
        if _public(there[name]) != _public(there[package])
    )


def _public(text: str) -> str:
    try:
        return Version(text).public
    except InvalidVersion:
        return text
