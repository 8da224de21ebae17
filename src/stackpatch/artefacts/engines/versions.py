"""Which engines are here, and whether their versions can do what we promise.

What a version must have, and where that is said:
- BuildKit 0.13: `rewrite-timestamp`, which gives files made in a build the time of the release
  (moby/buildkit#4057). An older one ignores the option in silence.
- buildx 0.10: `--provenance` and `--sbom`, to switch off what holds times and host names
  (its release notes).
- A builder of the driver `docker` is dockerd itself: it exports an OCI layout only with the
  containerd image store, and its BuildKit is the one it was built with: dockerd 26.0 has 0.13.
- buildah 1.28: the oldest that we have run; `--timestamp` came with 1.19, secrets with 1.21.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

from stackpatch import proc
from stackpatch.errors import EnvironmentProblem

if TYPE_CHECKING:
    from stackpatch.proc import Completed

BUILDKIT_NEEDED, DOCKERD_NEEDED = "0.13", "26.0"
BUILDX_NEEDED, BUILDAH_NEEDED = "0.10", "1.28"
_NO_STORE = "dockerd does not use the containerd image store, so it exports no OCI layout"
_SET_STORE = (
    'set {"features": {"containerd-snapshotter": true}} in its daemon.json, or name a builder that'
    " `docker buildx create` made with --builder"
)
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_LOOK = 30.0  # seconds that one look may take; a remote builder is asked over the network


@dataclass(frozen=True, slots=True)
class BuildxFound:
    """What `docker buildx` and its builder say. buildkit, dockerd: None where it is not told.

    driver: docker, docker-container, kubernetes or remote. containerd_store: of dockerd, where
    the driver is `docker`. platforms: that the builder's nodes name. idle: the state of a node
    that does not run. stated: the words of a node for its version, where they name none.
    """

    buildx: str
    builder: str
    driver: str
    buildkit: str | None
    dockerd: str | None
    containerd_store: bool | None
    platforms: tuple[str, ...]
    idle: str | None = None
    stated: str | None = None

    @property
    def identity(self) -> str:
        """What the bytes of an image may depend on, for the lock: `buildkit 0.13.2`."""
        if self.buildkit is not None:
            return f"buildkit {self.buildkit}"
        return f"dockerd {self.dockerd}"

    def problem(self) -> tuple[str, str] | None:
        """Why it cannot do what we promise, and what to do; None where it can."""
        if _older(self.buildx, BUILDX_NEEDED):
            return _told("buildx", self.buildx, BUILDX_NEEDED)
        if self.buildkit is not None:
            if _older(self.buildkit, BUILDKIT_NEEDED):
                return _told(f"BuildKit of builder {self.builder}", self.buildkit, BUILDKIT_NEEDED)
        elif self.driver == "docker" and self.dockerd is not None:
            if _older(self.dockerd, DOCKERD_NEEDED):
                return _told("dockerd", self.dockerd, DOCKERD_NEEDED)
        else:
            return self._unknown()
        if self.driver == "docker" and not self.containerd_store:
            return _NO_STORE, _SET_STORE
        return None

    def _unknown(self) -> tuple[str, str]:
        """A builder that does not run, or whose BuildKit was built without its version."""
        boot = f"docker buildx inspect --bootstrap {self.builder}"
        if self.idle is not None:
            why = f"builder {self.builder} is {self.idle}, so it cannot say which BuildKit it is"
            return why, f"`{boot}` starts it, or says why it cannot be reached"
        why = f"builder {self.builder} does not say which BuildKit it is"
        if self.stated:
            why += f" ({self.stated})"
        hint = f"`{boot}` shows what it says; moby's own releases and images of BuildKit say it"
        return f"{why}, {BUILDKIT_NEEDED} or newer is needed", hint


@dataclass(frozen=True, slots=True)
class BuildahFound:
    """What `buildah info` says. driver: its storage driver (overlay, vfs)."""

    buildah: str
    driver: str

    @property
    def identity(self) -> str:
        """What the bytes of an image may depend on: drivers record other parent folders."""
        return f"buildah {self.buildah} ({self.driver})"

    def problem(self) -> tuple[str, str] | None:
        """Why it cannot do what we promise, and what to do; None where it can."""
        if _older(self.buildah, BUILDAH_NEEDED):
            return _told("buildah", self.buildah, BUILDAH_NEEDED)
        return None


def find_buildx(builder: str | None = None, *, timeout: float = _LOOK) -> BuildxFound:
    """Ask buildx and its builder. Raises EnvironmentProblem where one is missing or silent."""
    _need_program("docker", "the buildx engine runs BuildKit through the docker CLI")
    said = proc.run(("docker", "buildx", "version"), timeout=timeout, check=False)
    if said.status != 0:
        msg = "docker has no buildx plugin"
        hint = (
            f"install docker-buildx {BUILDX_NEEDED} or newer, into ~/.docker/cli-plugins"
            " or from your distribution; or use --engine buildah"
        )
        raise EnvironmentProblem(msg, hint=hint)
    buildx = _number(said.text(), r"buildx v?")
    if buildx is None:
        raise _unread(said)
    words = ("docker", "buildx", "inspect", *((builder,) if builder else ()))
    told = proc.run(words, timeout=timeout, check=False)
    if told.status != 0:
        raise _no_builder(builder, told)
    fields = _fields(told.text())
    driver = fields.get("Driver", [""])[0]
    name = builder or fields.get("Name", ["default"])[0]
    errors = fields.get("Error")
    if errors:
        msg = f"builder {name} does not answer: {errors[0]}"
        raise EnvironmentProblem(msg, hint=_start_hint(builder))
    versions = [*fields.get("BuildKit version", []), *fields.get("Buildkit", [])]
    # Several nodes may build; the oldest decides.
    known = [v for v in (_number(text, "v?") for text in versions) if v and v != "0.0.0"]
    buildkit = min(known, key=Version) if known and len(known) == len(versions) else None
    dockerd, store = _dockerd(timeout) if driver == "docker" else (None, None)
    platforms = {p.strip(" *") for text in fields.get("Platforms", []) for p in text.split(",")}
    return BuildxFound(
        buildx,
        name,
        driver,
        buildkit,
        dockerd,
        store,
        tuple(sorted(platforms)),
        idle=next((state for state in fields.get("Status", []) if state != "running"), None),
        stated=next((text for text in versions if _number(text, "v?") in (None, "0.0.0")), None),
    )


def find_buildah(*, timeout: float = _LOOK) -> BuildahFound:
    """Ask buildah. Raises EnvironmentProblem where it is missing or cannot work."""
    _need_program("buildah", "the buildah engine")
    said = proc.run(("buildah", "--version"), timeout=timeout, check=False)
    version = _number(said.text(), "version ") if said.status == 0 else None
    if version is None:
        raise _unread(said)
    info = proc.run(("buildah", "info"), timeout=timeout, check=False)
    try:
        driver = str(json.loads(info.text())["store"]["GraphDriverName"])
    except (ValueError, KeyError, TypeError) as error:
        raise _unread(info) from error
    return BuildahFound(version, driver)


def require_buildx(builder: str | None = None, *, platform: str | None = None) -> BuildxFound:
    """buildx with a builder that can keep our promises, for the platform where one is said.

    Raises EnvironmentProblem that names the version found and the one needed.
    """
    found = find_buildx(builder)
    problem = found.problem()
    if problem is not None:
        raise EnvironmentProblem(problem[0], hint=problem[1])
    if platform is not None and not _serves(found.platforms, platform):
        msg = f"builder {found.builder} cannot build for {platform}"
        hint = (
            f"it builds for {', '.join(found.platforms)}; add a node of that platform"
            " (`docker buildx create --append`), install emulation (qemu-user, binfmt),"
            " or name another with --builder"
        )
        raise EnvironmentProblem(msg, hint=hint)
    return found


def require_buildah(*, platform: str | None = None) -> BuildahFound:
    """A buildah that can keep our promises, for the platform where one is said.

    Raises EnvironmentProblem that names the version found and the one needed.
    """
    found = find_buildah()
    problem = found.problem()
    if problem is not None:
        raise EnvironmentProblem(problem[0], hint=problem[1])
    if platform is not None and not _runs_here(platform):
        msg = f"this machine ({os.uname().machine}) cannot run the steps of a {platform} build"
        hint = (
            "build on such a machine, install emulation (qemu-user, binfmt), or use --engine"
            " buildx with a builder of that platform"
        )
        raise EnvironmentProblem(msg, hint=hint)
    return found


def _dockerd(timeout: float) -> tuple[str, bool]:
    said = proc.run(("docker", "version", "--format", "{{json .Server}}"), timeout=timeout)
    info = proc.run(("docker", "info", "--format", "{{json .DriverStatus}}"), timeout=timeout)
    try:
        version = _number(str(json.loads(said.text())["Version"]), "")
    except (ValueError, KeyError, TypeError) as error:
        raise _unread(said) from error
    if version is None:
        raise _unread(said)
    return version, "io.containerd.snapshotter" in info.text()


def _fields(text: str) -> dict[str, list[str]]:
    """`Name: value` lines, in order; a name may stand more than once."""
    fields: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and not line.startswith(" "):
            fields.setdefault(name.strip(), []).append(value.strip())
    return fields


def _serves(platforms: tuple[str, ...], wanted: str) -> bool:
    return wanted in platforms or any(one.startswith(f"{wanted}/") for one in platforms)


def _runs_here(platform: str) -> bool:
    """Whether the kernel runs programs of the platform: its own kind, or by emulation."""
    wanted = platform.split("/")[1]
    machine = os.uname().machine
    if wanted == {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine):
        return True
    emulated = {"amd64": "x86_64", "arm64": "aarch64"}.get(wanted, wanted)
    try:
        names = [path.name for path in _BINFMT.iterdir()]
    except OSError:
        return False
    return any(name in (f"qemu-{emulated}", emulated) for name in names)


def _need_program(program: str, what: str) -> None:
    if proc.find(program) is None:
        msg = f"{program} is not installed or not on PATH: {what}"
        raise EnvironmentProblem(msg, hint="`stackpatch doctor` says what is here; see docs")


def _no_builder(builder: str | None, told: Completed) -> EnvironmentProblem:
    lines = told.error_text().splitlines()
    said = lines[-1].removeprefix("ERROR: ") if lines else f"status {told.status}"
    return EnvironmentProblem(f"buildx has no builder to use: {said}", hint=_start_hint(builder))


def _start_hint(builder: str | None) -> str:
    if builder:
        return f"`docker buildx ls` lists the builders; is {builder} spelled and running?"
    return "start dockerd or set DOCKER_HOST, name a builder with --builder, or use buildah"


def _unread(done: Completed) -> EnvironmentProblem:
    command = " ".join(done.argv[:3])
    said = (done.text().strip() or done.error_text() or f"status {done.status}").splitlines()[-1]
    if done.status != 0:
        return EnvironmentProblem(f"`{command}` fails here: {said[:200]}")
    return EnvironmentProblem(f"`{command}` gives no answer that we can read: {said[:200]}")


def _told(what: str, found: str, needed: str) -> tuple[str, str]:
    return f"{what} {found} is too old, {needed} or newer is needed", f"install {needed} or newer"


def _number(text: str, before: str) -> str | None:
    found = re.search(before + r"(\d+(?:\.\d+)+)", text)
    return found[1] if found else None


def _older(found: str, needed: str) -> bool:
    try:
        return Version(found) < Version(needed)
    except InvalidVersion:
        return True


def describe(found: BuildxFound | BuildahFound) -> dict[str, Any]:
    """For a JSON document: identity and, where there is one, the problem."""
    problem = found.problem()
    return {"identity": found.identity, "problem": problem[0] if problem else None}
