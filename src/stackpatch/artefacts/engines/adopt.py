"""What an engine made, put back onto the base that was asked for, as bytes that we vouch for.

An engine may hand the base's layers back as other bytes: BuildKit rewrites times in the layers of
a base that it did not pull (moby/buildkit#4805, seen with 26.1 and a base in a folder), buildah
unpacks them. The base's manifest says which bytes they are, so they stand in the result as the
base has them, and only the layers above it are the engine's. So the digest does not depend on
where the base lies, and a registry that has the base need not be sent its layers again.
"""

from __future__ import annotations

import tarfile
import zlib
from typing import IO, TYPE_CHECKING, Any

from stackpatch.artefacts.layer import write_stored
from stackpatch.artefacts.lock import rfc3339
from stackpatch.artefacts.oci import CONFIG, LAYER, MANIFEST, Descriptor, Image, Platform, dump_json
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackpatch.artefacts.engines.request import EngineRequest
    from stackpatch.artefacts.layout import Layout

BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"
_REWRITTEN = "buildkit/rewritten-timestamp"  # BuildKit marks what it changed
_GZIP = ("+gzip", ".tar.gzip")
_BARE = "application/vnd.oci.image.layer.v1.tar"


def adopt(request: EngineRequest, made: Layout) -> tuple[Image, tuple[Descriptor, ...]]:
    """The image as it is published, and its own layers, whose blobs are in `made`.

    Raises EnvironmentProblem when the engine's image does not stand on the base, or when a file
    in its own layers is younger than the release: then the digest would change from day to day.
    """
    built = made.image(Platform.parse(request.platform))
    base = request.base.image
    config, below = built.config_json(), base.config_json()
    old, new = list(below.get("history") or []), list(config.get("history") or [])
    count = len(base.layers)
    if not _stands_on(built, base, old, new):
        msg = f"{request.engine} made an image that does not stand on {base.digest}"
        hint = "its Dockerfile must start its last stage with `FROM ${BASE}`, as ours do"
        raise EnvironmentProblem(msg, hint=hint)
    for layer in built.layers[count:]:
        _check_times(made, layer, request)
    own = tuple(_framed(made, _plain(layer)) for layer in built.layers[count:])
    config["rootfs"] = {
        "type": "layers",
        "diff_ids": [*below["rootfs"]["diff_ids"], *config["rootfs"]["diff_ids"][count:]],
    }
    config["history"] = [*old, *(_history(entry, request.epoch) for entry in new[len(old) :])]
    config["created"] = rfc3339(request.epoch)
    config["config"] = _settings(config.get("config") or {}, request)
    if base.platform.variant:
        config["variant"] = base.platform.variant
    raw = dump_json(_ordered(config))
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": Descriptor(CONFIG, Digest.of(raw), len(raw)).json(),
        "layers": [*(_oci(layer) for layer in base.layers), *(layer.json() for layer in own)],
        "annotations": _annotations(request),
    }
    return Image.read(dump_json(manifest), raw, where="the engine's image"), own


def _stands_on(
    built: Image, base: Image, old: list[dict[str, Any]], new: list[dict[str, Any]]
) -> bool:
    """Whether the image begins with the base: its commands, and its layers but for their times."""
    if [one.get("created_by") for one in new[: len(old)]] != [one.get("created_by") for one in old]:
        return False
    wanted = base.config_json()["rootfs"]["diff_ids"]
    found = built.config_json()["rootfs"]["diff_ids"][: len(wanted)]
    return len(found) == len(wanted) and all(
        one == other or _REWRITTEN in layer.annotations
        for one, other, layer in zip(found, wanted, built.layers, strict=False)
    )


def _plain(layer: Descriptor) -> Descriptor:
    """Without the engine's notes: BuildKit writes down that it rewrote times."""
    return Descriptor(layer.media_type, layer.digest, layer.size)


def _framed(made: Layout, layer: Descriptor) -> Descriptor:
    """A bare tar, as buildah writes it, in a gzip frame of stored blocks: there are tools that
    read no other layers. Nothing is compressed, so no compressor's version shows in the digest.
    """
    if layer.media_type != _BARE:
        return layer
    scratch = made.path / "framed.tmp"
    with made.open_blob(layer) as source, scratch.open("wb") as out:
        write_stored(source, out)
    digest = Digest.of_file(scratch)
    size = scratch.stat().st_size
    scratch.rename(made.blob_path(digest))
    return Descriptor(LAYER, digest, size)


def _oci(layer: Descriptor) -> dict[str, Any]:
    """A base's layer as it stands in an OCI manifest, whichever kind of manifest it came from."""
    media = layer.media_type
    if media == "application/vnd.docker.image.rootfs.diff.tar.gzip":
        media = LAYER
    elif media == "application/vnd.docker.image.rootfs.diff.tar":
        media = _BARE
    return Descriptor(media, layer.digest, layer.size).json()


def _history(entry: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    """buildah notes in a comment where it took the base from; that is not what the image is."""
    kept = {**entry, "created": rfc3339(epoch)}
    if str(kept.get("comment", "")).startswith("FROM "):
        del kept["comment"]
    return kept


def _settings(config: Mapping[str, Any], request: EngineRequest) -> dict[str, Any]:
    kept = dict(config)
    if request.env:
        left = dict(sorted(request.env.items()))
        env = []
        for item in kept.get("Env") or []:
            name = str(item).partition("=")[0]
            env.append(f"{name}={left.pop(name)}" if name in left else str(item))
        kept["Env"] = env + [f"{name}={value}" for name, value in left.items()]
    labels = {**(kept.get("Labels") or {}), **request.labels}
    if labels:
        kept["Labels"] = dict(sorted(labels.items()))
    return kept


def _annotations(request: EngineRequest) -> dict[str, str]:
    notes = {**request.annotations, **request.labels}
    notes[BASE_DIGEST] = str(request.base.image.digest)
    return dict(sorted(notes.items()))


def _ordered(config: Mapping[str, Any]) -> dict[str, Any]:
    """One order of keys: engines write theirs in orders of their own."""
    return {key: config[key] for key in sorted(config)}


def _check_times(made: Layout, layer: Descriptor, request: EngineRequest) -> None:
    """Every entry's time is at most the release's, and the blob is what it is said to be."""
    with made.open_blob(layer) as file:
        if Digest.of_file(made.blob_path(layer.digest)) != layer.digest:
            msg = f"{request.engine} wrote a layer that is not {layer.digest}"
            raise EnvironmentProblem(msg, hint="check the disk and run again")
        young = _first_young(file, request.epoch, layer)
    if young is not None:
        msg = (
            f"{request.engine} left {young} with a time after the release's; another day's"
            " build would have another digest"
        )
        hint = (
            "its version does not do `rewrite-timestamp` as promised; `stackpatch doctor` says"
            " which one is here"
            if request.engine == "buildx"
            else "its version does not do `--timestamp` as promised"
        )
        raise EnvironmentProblem(msg, hint=hint)


def _first_young(file: IO[bytes], epoch: int, layer: Descriptor) -> str | None:
    mode = "r|gz" if layer.media_type.endswith(_GZIP) else "r|"
    try:
        with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
            for entry in tar:
                # A pax record may say a part of a second.
                if entry.mtime > epoch:
                    return str(entry.name)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        msg = f"layer {layer.digest} cannot be read: {error}"
        raise InputError(msg) from error
    return None
