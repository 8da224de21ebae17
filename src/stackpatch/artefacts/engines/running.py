"""Running an engine: a working folder, the program, its log, and the image that it leaves."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, assert_never

from stackpatch import proc, storage
from stackpatch.artefacts.engines import buildah, buildx
from stackpatch.artefacts.engines.adopt import adopt
from stackpatch.artefacts.engines.context import write_context
from stackpatch.artefacts.engines.redact import Redactor
from stackpatch.artefacts.engines.transcript import Transcript, explain, interesting
from stackpatch.artefacts.engines.versions import require_buildah, require_buildx
from stackpatch.artefacts.layout import Layout, write_layout
from stackpatch.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stackpatch.artefacts.engines.request import EngineName, EngineRequest
    from stackpatch.artefacts.oci import Descriptor, Image


def identify(engine: EngineName, *, builder: str | None = None, platform: str | None = None) -> str:
    """The engine and its version for the lock: `buildkit 0.13.2`, `buildah 1.28.2 (overlay)`.

    Raises EnvironmentProblem when it is missing or cannot do what we promise.
    """
    match engine:
        case "buildx":
            return require_buildx(builder, platform=platform).identity
        case "buildah":
            return require_buildah(platform=platform).identity
        case _:
            assert_never(engine)


def build_image(
    request: EngineRequest,
    target: Path,
    *,
    progress: Callable[[str], object] | None = None,
    ref_name: str | None = None,
) -> Image:
    """Build the image and write it as an OCI layout into the new folder `target`.

    The layers of a base in a registry are left out: they are where they are. progress: called
    with each line for people. ref_name: the tag that the layout's index states. Raises
    FindingError with the output of a step that failed, EnvironmentProblem for the engine, the
    network and the disk, InputError for a request that cannot work. Then `target` is not there.
    """
    identify(request.engine, builder=request.builder, platform=request.platform)
    with _working_folder(target) as folder:
        with storage.disk_errors(folder):
            write_context(folder / buildx.CONTEXT, request.dockerfile, request.files)
        secrets = _link_secrets(request, folder)
        base = request.base
        if base.reference is None and base.layout is not None:
            (folder / buildx.BASE).symlink_to(base.layout.path.resolve())
        with _open_log(request.log) as log:
            _run(request, folder, log, Redactor.of(secrets), progress)
        made = Layout.open(folder / buildx.RESULT)
        with storage.disk_errors(target):
            image, own = adopt(request, made)
            store = _store(request, made, own, folder)
            notes = {"org.opencontainers.image.ref.name": ref_name} if ref_name else None
            try:
                write_layout(target, image, {}, base=store, annotations=notes, sparse=True)
            except BaseException:
                shutil.rmtree(target, ignore_errors=True)
                raise
    return image


def _store(request: EngineRequest, made: Layout, own: Sequence[Descriptor], folder: Path) -> Layout:
    """A layout with the engine's own layers, and the base's where a folder of ours has them.

    What the engine left of a base in a registry is whatever it happened to have: left out.
    """
    path = folder / "layers"
    (path / "blobs" / "sha256").mkdir(parents=True)
    store = Layout(path, ())
    for layer in own:
        made.copy_blob(layer, store.blob_path(layer.digest))
        store.blob_path(layer.digest).chmod(0o644)
    local = request.base.layout
    for layer in request.base.image.layers if local is not None else ():
        if local is not None and local.has(layer):
            local.copy_blob(layer, store.blob_path(layer.digest))
    return store


def _run(
    request: EngineRequest,
    folder: Path,
    log: IO[str],
    redactor: Redactor,
    progress: Callable[[str], object] | None,
) -> None:
    match request.engine:
        case "buildx":
            words = buildx.argv(request, Path.cwd())
            _follow(request, words, buildx.transcript(), folder, log, redactor, progress)
        case "buildah":
            alone = request.network == "none" and buildah.can_be_alone()
            for pull in buildah.pull_argvs(request):
                _follow(request, pull, buildah.transcript(), folder, log, redactor, progress)
            words = buildah.argv(request, alone=alone)
            _follow(request, words, buildah.transcript(), folder, log, redactor, progress)
        case _:
            assert_never(request.engine)


def _follow(
    request: EngineRequest,
    words: Sequence[str],
    transcript: Transcript,
    folder: Path,
    log: IO[str],
    redactor: Redactor,
    progress: Callable[[str], object] | None,
) -> None:
    def on_line(raw: str) -> None:
        line = redactor.clean(raw)
        log.write(f"{line}\n")
        log.flush()
        transcript.feed(line)
        if progress is not None and interesting(line):
            progress(line)

    # buildx remembers its last builds in its own folder; nothing else is shared between runs.
    status = proc.follow(words, on_line, cwd=folder)
    if status != 0:
        raise explain(transcript, status, request.engine, request.log)


def _link_secrets(request: EngineRequest, folder: Path) -> list[bytes]:
    (folder / buildx.SECRETS).mkdir(mode=0o700)
    contents = []
    for name, path in request.secrets.items():
        try:
            contents.append(path.read_bytes())
        except OSError as error:
            msg = f"secret {name}: cannot read {path}: {error.strerror}"
            raise InputError(msg) from error
        (folder / buildx.SECRETS / name).symlink_to(path.resolve())
    return contents


@contextmanager
def _working_folder(target: Path) -> Iterator[Path]:
    """Beside the target, so that layers need no copy; what a kill leaves goes with its sweep."""
    with storage.disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        name = tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)


@contextmanager
def _open_log(path: Path) -> Iterator[IO[str]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = path.open("w", encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        msg = f"cannot write the log {path}: {error.strerror}"
        raise EnvironmentProblem(msg) from error
    path.chmod(0o600)
    with file:
        yield file
