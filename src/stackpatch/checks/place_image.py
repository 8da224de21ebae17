"""A stack in a container image, run through a docker daemon, with the GPUs that it can give.

The programs are mounted read-only, the container has no network, and is removed afterwards. Where
the daemon cannot give a GPU, what needs none runs without, and the rest says why it did not run.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stackpatch.artefacts.engines.bring import Pieces, container_tar, loaded, pulled
from stackpatch.artefacts.engines.inspect import (
    NO_GPU,
    ContainerRun,
    Mount,
    Ran,
    run_with_gpu,
)
from stackpatch.artefacts.oci import Platform
from stackpatch.checks.inflate import Pushed
from stackpatch.checks.places import Job, written
from stackpatch.checks.tars import tar_members
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.model.digest import Digest
from stackpatch.proc import Completed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackpatch.checks.members import Found

_FOLDER = "/stackpatch"
_GRACE = 60.0


class Runner(Protocol):
    """Runs a container to its end, as `engines.inspect.run_with_gpu` does."""

    def __call__(self, run: ContainerRun, *, timeout: float) -> Ran:
        """Raises EnvironmentProblem when the daemon cannot."""


@dataclass(slots=True)
class InImage:
    """An interpreter in an image that a daemon has.

    image: as the daemon calls it. shown: as the person does. digest: of the manifest, or the
    daemon's id. no_gpu: why the daemon gives no GPU, None as long as it does.
    """

    image: str
    shown: str
    digest: str
    interpreter: str = "python3"
    runner: Runner = run_with_gpu
    no_gpu: str | None = field(default=None)

    @property
    def python(self) -> str:
        """As it is called in the image."""
        return self.interpreter

    def run(self, job: Job) -> Completed:
        """Run it in a container of its own."""
        with written(job.files) as folder:
            name, *rest = job.argv
            words = (self.interpreter, "-I", f"{_FOLDER}/{name}", *rest)
            mounts = (Mount(folder, _FOLDER),)
            done = self._run(words, dict(job.env), mounts, job.limit + _GRACE)
        if done.status is None:
            msg = f"{self.shown}: did not end within {job.limit + _GRACE:g} s and was killed"
            raise EnvironmentProblem(msg)
        # The daemon hands over both streams as one.
        said = done.output.encode("utf-8", "surrogateescape")
        return Completed(words, done.status, said, said)

    def members(self, folder: str) -> Iterator[Found]:
        """The files of a folder, as a container of the image has it."""
        with container_tar(self.image, folder) as pieces:
            yield from tar_members(Pushed(b"", Pieces(pieces)))

    def document(self) -> dict[str, object]:
        """Name, digest, whether there was a GPU for it."""
        found: dict[str, object] = {"kind": "image", "image": self.shown, "digest": self.digest}
        if self.no_gpu is not None:
            found["no_gpu"] = self.no_gpu
        return found

    def _run(
        self, words: tuple[str, ...], env: dict[str, str], mounts: tuple[Mount, ...], limit: float
    ) -> Ran:
        if self.no_gpu is None:
            try:
                return self.runner(ContainerRun(self.image, words, env, mounts), timeout=limit)
            except EnvironmentProblem as error:
                if not error.message.startswith(NO_GPU):
                    raise
                self.no_gpu = error.message
        run = ContainerRun(self.image, words, env, mounts, gpus=False)
        return self.runner(run, timeout=limit)


@contextlib.contextmanager
def in_image(reference: str, platform: str, interpreter: str) -> Iterator[InImage]:
    """The image of an OCI layout folder, `DIR[@sha256:…]`, or one that the daemon has or pulls.

    platform: which image of a layout is meant (`linux/arm64`). Raises InputError where there is
    no such image, EnvironmentProblem without a daemon.
    """
    folder, mark, digest = reference.rpartition("@sha256:")
    path = Path(folder if mark else reference)
    if (path / "oci-layout").is_file():
        wanted = Digest.parse(digest) if mark else None
        with loaded(path, Platform.parse(platform), wanted) as (name, image):
            yield InImage(name, reference, str(image.digest), interpreter)
        return
    if path.exists():
        msg = f"--image {reference}: is not an OCI layout"
        raise InputError(msg, hint="name the image/ folder of a build, or an image by its name")
    found = pulled(reference)
    known = next((one.partition("@")[2] for one in found.digests), found.id)
    yield InImage(found.id, reference, known, interpreter)
