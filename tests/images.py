"""Image layouts for tests, written with the standard library alone."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def tar_layer(files: Mapping[str, bytes | None], *, folder_mode: int = 0o755) -> bytes:
    """A tar: bytes are files, None a folder; `a -> b` is a symbolic link. uid 7, gid 8."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, content in files.items():
            name, _, link = path.partition(" -> ")
            info = tarfile.TarInfo(name)
            info.uid, info.gid, info.mtime = 7, 8, 1_600_000_000
            if link:
                info.type, info.linkname = tarfile.SYMTYPE, link
            elif content is None:
                info.type, info.mode = tarfile.DIRTYPE, folder_mode
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


class LayoutMaker:
    """Collects blobs; `write` makes the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs: dict[str, bytes] = {}

    def blob(self, content: bytes, media: str) -> dict[str, Any]:
        """Store bytes, return their descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)}

    def document(self, value: object, media: str) -> dict[str, Any]:
        """Store JSON, return its descriptor."""
        return self.blob(json.dumps(value).encode(), media)

    def image(
        self,
        layers: Iterable[bytes],
        *,
        architecture: str = "amd64",
        variant: str | None = None,
        config: Mapping[str, Any] | None = None,
        manifest: Mapping[str, Any] | None = None,
        media: str = MANIFEST,
        layer_media: str = LAYER,
        describe_platform: bool = True,
    ) -> dict[str, Any]:
        """An image of these tars; returns its descriptor."""
        tars = list(layers)
        settings: dict[str, Any] = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/usr/bin", "A=1"], "Labels": {"old": "yes"}},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(t).hexdigest()}" for t in tars],
            },
            "history": [{"created_by": "by hand"} for _ in tars],
            "x-unknown": {"kept": [1, 2]},
        }
        if variant:
            settings["variant"] = variant
        settings |= dict(config or {})
        packed = (gzip.compress(t, mtime=0) if "gzip" in layer_media else t for t in tars)
        value = {
            "schemaVersion": 2,
            "mediaType": media,
            "config": self.document(settings, CONFIG),
            "layers": [self.blob(layer, layer_media) for layer in packed],
            "x-own": "kept",
            **(manifest or {}),
        }
        descriptor = self.document(value, media)
        if describe_platform:
            descriptor["platform"] = {"architecture": architecture, "os": "linux"}
            if variant:
                descriptor["platform"]["variant"] = variant
        return descriptor

    def write(self, *manifests: Mapping[str, Any]) -> Path:
        """The layout whose index lists these descriptors."""
        store = self.path / "blobs" / "sha256"
        store.mkdir(parents=True, exist_ok=True)
        for digest, content in self.blobs.items():
            (store / digest).write_bytes(content)
        (self.path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}
        (self.path / "index.json").write_text(json.dumps(index))
        return self.path


def merged(layout: Path, digest: str) -> dict[str, tuple[str, bytes, int]]:
    """What unpacking an image gives: path → (kind, content or target, mode), by OCI's rules."""
    store = layout / "blobs" / "sha256"
    manifest = json.loads((store / digest.removeprefix("sha256:")).read_bytes())
    found: dict[str, tuple[str, bytes, int]] = {}
    for layer in manifest["layers"]:
        raw = (store / layer["digest"].removeprefix("sha256:")).read_bytes()
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:*") as tar:
            infos = [(i, tar.extractfile(i) if i.isreg() else None) for i in tar]
            for info, _ in infos:
                folder, _, name = info.name.rpartition("/")
                if name.startswith(".wh."):
                    gone = f"{folder}/{name[4:]}"
                    for path in [p for p in found if p == gone or p.startswith(f"{gone}/")]:
                        del found[path]
            for info, file in infos:
                if info.name.rpartition("/")[2].startswith(".wh."):
                    continue
                kind = "folder" if info.isdir() else "link" if info.issym() else "file"
                content = file.read() if file else info.linkname.encode()
                found[info.name] = (kind, content, info.mode)
    return found
