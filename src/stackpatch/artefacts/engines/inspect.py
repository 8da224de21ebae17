"""A docker daemon, asked through its own SDK: is it there, what it has, and running a container.

`DOCKER_HOST` names it as for the docker CLI: a socket, `tcp://`, or `ssh://user@host`, which goes
through the machine's own ssh. Building is not done here: the SDK knows no BuildKit.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stackpatch.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from docker import DockerClient
    from docker.models.containers import Container

_OUTPUT = 1 << 20  # bytes of a container's output that are kept
_POLL = 0.2  # seconds
# How the refusal begins that a caller may answer by running without.
NO_GPU = "the daemon cannot hand a GPU to a container"


@dataclass(frozen=True, slots=True)
class Daemon:
    """What a daemon says of itself. gpus: whether it can hand GPUs to a container."""

    version: str
    platform: str
    containerd_store: bool
    gpus: bool
    where: str


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image that a daemon has. digests: as repositories know it (`name@sha256:…`)."""

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    platform: str
    size: int


@dataclass(frozen=True, slots=True)
class Ran:
    """A container that ran. status: None where it was stopped at the timeout. output: its end."""

    status: int | None
    output: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of the daemon's machine, seen in the container at `target`."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class ContainerRun:
    """What to run. gpus: hand over all of them. network: none unless a check needs one."""

    image: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mount] = ()
    gpus: bool = True
    network: str = "none"
    user: str | None = None
    workdir: str | None = None


def find_daemon(*, timeout: float = 10.0) -> Daemon:
    """The daemon that DOCKER_HOST names. Raises EnvironmentProblem when none answers."""
    with _client(timeout) as client:
        version, info = client.version(), client.info()
        status = str(info.get("DriverStatus"))
        runtimes = info.get("Runtimes") or {}
        devices = info.get("DiscoveredDevices") or []
        return Daemon(
            version=str(version.get("Version", "")),
            platform=f"{version.get('Os')}/{version.get('Arch')}",
            containerd_store="io.containerd.snapshotter" in status,
            gpus="nvidia" in runtimes or any("nvidia" in str(one) for one in devices),
            where=os.environ.get("DOCKER_HOST") or "the default socket",
        )


def find_image(reference: str, *, timeout: float = 30.0) -> LocalImage | None:
    """The image of that name, digest or id in the daemon; None where it has none."""
    from docker.errors import ImageNotFound

    with _client(timeout) as client:
        try:
            found = client.images.get(reference)
        except ImageNotFound:
            return None
        attributes = found.attrs or {}
        return LocalImage(
            id=str(found.id),
            tags=tuple(found.tags),
            digests=tuple(attributes.get("RepoDigests") or ()),
            platform=f"{attributes.get('Os')}/{attributes.get('Architecture')}",
            size=int(attributes.get("Size") or 0),
        )


def run_with_gpu(run: ContainerRun, *, timeout: float) -> Ran:
    """Run a container to its end, or stop it after `timeout` seconds; it is always removed.

    The image must be in the daemon: nothing is pulled. Raises InputError for an image that is not
    there, EnvironmentProblem for a daemon that cannot start the container (no GPU, no runtime).
    """
    from docker.errors import APIError, ImageNotFound
    from docker.types import DeviceRequest

    requests = [DeviceRequest(count=-1, capabilities=[["gpu"]])] if run.gpus else None
    volumes = {
        str(mount.source): {"bind": mount.target, "mode": "rw" if mount.writable else "ro"}
        for mount in run.mounts
    }
    with _client(60.0) as client:
        try:
            container = client.containers.create(
                run.image,
                list(run.command),
                environment=dict(run.env),
                volumes=volumes,
                device_requests=requests,
                network_mode=run.network,
                user=run.user,
                working_dir=run.workdir,
                entrypoint=[],
                labels={"org.stackpatch": "run"},
            )
        except ImageNotFound as error:
            msg = f"the daemon at {client.api.base_url} has no image {run.image}"
            raise InputError(
                msg, hint="bring it there first: docker pull, or docker load"
            ) from error
        try:
            return _watch(container, timeout)
        except APIError as error:
            said = str(error.explanation or error)
            if "could not select device driver" in said:
                msg = NO_GPU
                hint = "install the NVIDIA container toolkit there and restart the daemon"
                raise EnvironmentProblem(msg, hint=hint) from error
            if run.gpus and "nvidia" in said:  # the toolkit is there, and finds no GPU it can give
                msg = f"{NO_GPU}: {said[said.index('nvidia') :][:300]}"
                raise EnvironmentProblem(
                    msg, hint="look at the driver there: nvidia-smi"
                ) from error
            msg = f"the daemon cannot run {run.image}: {said}"
            raise EnvironmentProblem(msg) from error
        finally:
            with contextlib.suppress(APIError):
                container.remove(force=True, v=True)


def _watch(container: Container, timeout: float) -> Ran:
    started = time.monotonic()
    container.start()
    while True:
        container.reload()
        if container.status in {"exited", "dead"}:
            break
        if time.monotonic() - started > timeout:
            container.kill()
            return Ran(None, _tail(container), time.monotonic() - started)
        time.sleep(_POLL)
    state: dict[str, Any] = (container.attrs or {}).get("State", {})
    return Ran(int(state.get("ExitCode", -1)), _tail(container), time.monotonic() - started)


def _tail(container: Container) -> str:
    raw = container.logs(stdout=True, stderr=True, tail=2000)
    return bytes(raw)[-_OUTPUT:].decode("utf-8", "replace")


@contextlib.contextmanager
def _client(timeout: float) -> Iterator[DockerClient]:
    """A client, closed afterwards; what the network does to it becomes an EnvironmentProblem."""
    import docker
    from docker.errors import DockerException

    try:
        # ssh://: the machine's own ssh knows the person's keys and settings.
        client = docker.from_env(timeout=int(timeout) or 1, use_ssh_client=True)
    except (DockerException, OSError, ValueError) as error:
        raise _unreachable(error) from error
    try:
        yield client
    except (OSError, DockerException) as error:
        if isinstance(error, docker.errors.APIError):
            msg = f"the docker daemon refuses: {error.explanation or error}"
            raise EnvironmentProblem(msg) from error
        raise _unreachable(error) from error
    finally:
        client.close()


def _unreachable(error: Exception) -> EnvironmentProblem:
    said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    hint = "start it, or set DOCKER_HOST (unix://…, tcp://…, ssh://user@host)"
    return EnvironmentProblem(f"no docker daemon answers: {said}", hint=hint)
