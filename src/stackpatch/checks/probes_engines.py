"""What `doctor` finds of container engines, and whether each builds reproducibly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from stackpatch import proc
from stackpatch.checks.answers import unread, version_in
from stackpatch.checks.doctor import Finding, Level
from stackpatch.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackpatch.artefacts.engines.versions import BuildahFound, BuildxFound

_DIFFERS = "no build of ours: two builds could differ, or none would come out"


def docker(timeout: float) -> Finding:
    """The docker CLI, and whether a daemon answers it."""
    name = "docker"
    if proc.find("docker") is None:
        return no_engine(name, "smoke --image, and the buildx engine")
    done = proc.run(("docker", "version", "--format", "{{json .}}"), timeout=timeout, check=False)
    try:
        said = json.loads(done.text())
        client = str(said["Client"]["Version"])
        server = said.get("Server")
        daemon = str(server["Version"]) if server else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return unread(name, "docker version", done)
    if daemon is None:
        why = done.error_text().splitlines()
        return Finding(
            name,
            Level.LIMITED,
            found=True,
            version=client,
            good_for="nothing yet: its daemon does not answer",
            detail=why[-1] if why else "",
            advice="start the daemon, or set DOCKER_HOST; the overlay engine needs neither",
        )
    return Finding(
        name,
        Level.OK,
        found=True,
        version=client,
        good_for="smoke --image, and with buildx the buildx engine",
        detail=f"daemon {daemon}",
    )


def buildx(timeout: float) -> Finding:
    """docker's buildx plugin, its builder, and whether its BuildKit builds reproducibly."""
    from stackpatch.artefacts.engines.versions import find_buildx

    name, good_for = "buildx", "the buildx engine"
    if proc.find("docker") is None:
        return no_engine(name, good_for)
    done = proc.run(("docker", "buildx", "version"), timeout=timeout, check=False)
    if done.status != 0:
        return no_engine(name, good_for)
    version = version_in(done, r"buildx v?")
    if version is None:
        return unread(name, "docker buildx version", done)
    return _builder(name, version, good_for, lambda: find_buildx(timeout=timeout))


def buildah(timeout: float) -> Finding:
    """buildah, its storage driver, and whether it builds reproducibly."""
    from stackpatch.artefacts.engines.versions import find_buildah

    name, good_for = "buildah", "the buildah engine, without a daemon"
    if proc.find(name) is None:
        return no_engine(name, good_for)
    done = proc.run((name, "--version"), timeout=timeout, check=False)
    version = version_in(done, r"version ")
    if version is None:
        return unread(name, "buildah --version", done)
    return _builder(name, version, good_for, lambda: find_buildah(timeout=timeout))


def _builder(
    name: str, version: str, good_for: str, find: Callable[[], BuildxFound | BuildahFound]
) -> Finding:
    """An engine that is there, judged by what it says of itself."""
    try:
        found = find()
    except EnvironmentProblem as error:
        why, advice, good_for = error.message, error.hint, "nothing yet"
    else:
        problem = found.problem()
        if problem is None:
            return Finding(
                name, Level.OK, found=True, version=version, good_for=good_for, detail=_said(found)
            )
        (why, advice), good_for = problem, _DIFFERS
    return Finding(
        name,
        Level.LIMITED,
        found=True,
        version=version,
        good_for=good_for,
        detail=why,
        advice=advice,
    )


def _said(found: BuildxFound | BuildahFound) -> str:
    """What distinguishes the engine, for people."""
    from stackpatch.artefacts.engines.versions import BuildxFound

    if not isinstance(found, BuildxFound):
        return f"storage driver {found.driver}"
    shown = ", ".join(platform for platform in found.platforms if platform.count("/") == 1)
    return f"builder {found.builder} ({found.driver}): {found.identity}, for {shown}"


def podman(timeout: float) -> Finding:
    """podman runs images without a daemon."""
    name, good_for = "podman", "smoke --image where DOCKER_HOST names its socket (not tried)"
    if proc.find(name) is None:
        return no_engine(name, good_for)
    done = proc.run((name, "--version"), timeout=timeout, check=False)
    version = version_in(done, r"version ")
    if version is None:
        return unread(name, f"{name} --version", done)
    return Finding(name, Level.OK, found=True, version=version, good_for=good_for)


def no_engine(name: str, without: str) -> Finding:
    return Finding(
        name,
        Level.ABSENT,
        good_for=f"needed only for {without}",
    )
