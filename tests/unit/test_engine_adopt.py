"""What an engine hands over, put back onto the base: bytes that we vouch for, or a refusal."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.images import LAYER, LayoutMaker, tar_layer

from stackpatch.artefacts.engines import EngineBase, EngineRequest
from stackpatch.artefacts.engines.adopt import adopt
from stackpatch.artefacts.layout import Layout
from stackpatch.artefacts.oci import Platform
from stackpatch.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from pathlib import Path

EPOCH = 1_770_000_000
BASE_TAR = tar_layer({"etc/os-release": b"ID=debian"})
REWRITTEN = tar_layer({"etc/os-release": b"ID=debian "})  # other bytes for the same layer
AMD64 = Platform("linux", "amd64")


def layer(*, mtime: float = EPOCH, name: str = "opt/x") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.mtime = mtime
        tar.addfile(info)
    return out.getvalue()


def base(tmp_path: Path) -> EngineBase:
    maker = LayoutMaker(tmp_path / "base")
    layout = Layout.open(maker.write(maker.image([BASE_TAR])))
    return EngineBase(layout.image(AMD64), "registry.test/base", None)


def request(tmp_path: Path, **changes: Any) -> EngineRequest:
    made = EngineRequest(
        engine="buildx",
        stack="demo",
        dockerfile=tmp_path / "Dockerfile",
        files={},
        base=base(tmp_path),
        platform="linux/amd64",
        epoch=EPOCH,
        log=tmp_path / "log",
        labels={"stackpatch.stack": "demo"},
        env={"A": "2", "NEW": "x y"},
        annotations={"org.opencontainers.image.title": "demo"},
    )
    return replace(made, **changes)


def built(
    folder: Path, below: bytes, *own: bytes, notes: str | None = None, **config: Any
) -> Layout:
    maker = LayoutMaker(folder)
    history = [
        {"created_by": "by hand"},
        *({"created_by": "RUN x", "created": "2031-01-01T00:00:00Z"} for _ in own),
    ]
    described = maker.image([below, *own], config={"history": history, **config})
    if notes is not None:
        digest = described["digest"].removeprefix("sha256:")
        manifest = json.loads(maker.blobs.pop(digest))
        for one in manifest["layers"]:
            one["annotations"] = {notes: str(EPOCH)}
        described = {
            **maker.document(manifest, manifest["mediaType"]),
            "platform": described["platform"],
        }
    return Layout.open(maker.write(described))


def test_the_result_stands_on_the_base_and_says_so(tmp_path: Path) -> None:
    one = request(tmp_path)
    image, own = adopt(one, built(tmp_path / "made", BASE_TAR, layer()))
    manifest, config = image.manifest_json(), image.config_json()
    assert manifest["layers"][0]["digest"] == str(one.base.image.layers[0].digest)
    assert [str(each.digest) for each in own] == [manifest["layers"][1]["digest"]]
    assert manifest["annotations"]["org.opencontainers.image.base.digest"] == str(
        one.base.image.digest
    )
    assert manifest["annotations"]["stackpatch.stack"] == "demo"
    assert config["created"] == "2026-02-02T02:40:00Z"
    assert [entry.get("created") for entry in config["history"]] == [None, "2026-02-02T02:40:00Z"]
    assert config["config"]["Env"] == ["PATH=/usr/bin", "A=2", "NEW=x y"]
    assert config["config"]["Labels"]["stackpatch.stack"] == "demo"
    assert config["rootfs"]["diff_ids"] == [
        f"sha256:{hashlib.sha256(one).hexdigest()}" for one in (BASE_TAR, layer())
    ]


def test_what_an_engine_made_of_the_base_changes_nothing(tmp_path: Path) -> None:
    """BuildKit rewrites times in a base that it did not pull (moby/buildkit#4805)."""
    one = request(tmp_path)
    plain, _ = adopt(one, built(tmp_path / "a", BASE_TAR, layer()))
    note = "buildkit/rewritten-timestamp"
    other, _ = adopt(one, built(tmp_path / "b", REWRITTEN, layer(), notes=note))
    assert plain.digest == other.digest
    assert (plain.manifest, plain.config) == (other.manifest, other.config)


def test_another_base_is_refused(tmp_path: Path) -> None:
    one = request(tmp_path)
    for number, made in enumerate(
        (
            built(tmp_path / "a", REWRITTEN, layer()),  # other bytes, and nothing says why
            built(tmp_path / "b", BASE_TAR, layer(), history=[{"created_by": "ADD x"}] * 2),
        )
    ):
        with pytest.raises(EnvironmentProblem, match="does not stand on") as caught:
            adopt(one, made)
        assert "FROM ${BASE}" in str(caught.value.hint), number


def test_a_file_younger_than_the_release_is_found(tmp_path: Path) -> None:
    for number, mtime in enumerate((EPOCH + 1, EPOCH + 0.25)):
        made = built(tmp_path / str(number), BASE_TAR, layer(), layer(mtime=mtime, name="opt/y"))
        with pytest.raises(EnvironmentProblem, match="opt/y"):
            adopt(request(tmp_path), made)
    adopt(request(tmp_path), built(tmp_path / "old", BASE_TAR, layer(mtime=12)))


def test_a_damaged_layer_is_found(tmp_path: Path) -> None:
    made = built(tmp_path / "made", BASE_TAR, layer())
    image = made.image(AMD64)
    made.blob_path(image.layers[1].digest).write_bytes(b"something else")
    with pytest.raises(EnvironmentProblem, match="wrote a layer that is not"):
        adopt(request(tmp_path), made)


def test_a_layer_that_is_no_tar_is_found(tmp_path: Path) -> None:
    assert LAYER.endswith("gzip")
    made = built(tmp_path / "made", BASE_TAR, b"x" * 600)
    with pytest.raises(InputError, match="cannot be read"):
        adopt(request(tmp_path), made)


def test_a_bare_tar_gets_a_frame_that_every_tool_reads(tmp_path: Path) -> None:
    """buildah does not compress; crane, for one, reads gzip only."""
    one = request(tmp_path, base=base(tmp_path))
    content = layer() + bytes(200_000)
    maker = LayoutMaker(tmp_path / "made")
    history = [{"created_by": "by hand"}, {"created_by": "RUN x"}]
    tars = [BASE_TAR, content]
    bare = maker.image(tars, layer_media=BARE, config={"history": history})
    made = Layout.open(maker.write(bare))
    image, (own,) = adopt(one, made)
    assert own.media_type == LAYER
    blob = made.blob_path(own.digest).read_bytes()
    assert hashlib.sha256(blob).hexdigest() == own.digest.hex
    assert gzip.decompress(blob) == content
    assert len(blob) == own.size > len(content), "nothing is compressed"
    # What the layer is to a runtime stays what it was.
    assert image.config_json()["rootfs"]["diff_ids"][1] == (
        f"sha256:{hashlib.sha256(content).hexdigest()}"
    )
    made.blob_path(made.image(AMD64).layers[1].digest).write_bytes(content[:-1] + b"x")
    with pytest.raises(EnvironmentProblem, match="wrote a layer that is not"):
        adopt(one, made)


BARE = "application/vnd.oci.image.layer.v1.tar"


def test_another_platform_is_refused(tmp_path: Path) -> None:
    made = built(tmp_path / "made", BASE_TAR, layer(), architecture="arm64")
    with pytest.raises(InputError, match="linux/amd64"):
        adopt(request(tmp_path), made)


def test_where_buildah_took_the_base_from_is_left_out(tmp_path: Path) -> None:
    digests = set()
    for number, place in enumerate(("registry.test/base@sha256:1", "oci:base")):
        history = [
            {"created_by": "by hand"},
            {"created_by": "RUN x", "comment": f"FROM {place}", "created": f"203{number}-01-01"},
        ]
        made = built(tmp_path / str(number), BASE_TAR, layer(), history=history)
        digests.add(adopt(request(tmp_path), made)[0].digest)
    assert len(digests) == 1
