"""Bases whose layers are not at hand: what is read of them, and what the image then says."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import IO, TYPE_CHECKING, Any

import pytest
import zstandard
from tests.images import INDEX, LayoutMaker, tar_layer
from tests.stack import PATCHED_GATE, make_stack
from tests.unit.test_overlay import SITE, installed

from stackpatch.artefacts.base import open_base
from stackpatch.artefacts.images import RemoteImage
from stackpatch.artefacts.layout import Layout
from stackpatch.artefacts.oci import Platform
from stackpatch.errors import InputError
from stackpatch.model.arch import parse_arch
from stackpatch.model.recipe_bases import BaseImage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stackpatch.artefacts.build import BuildResult
    from stackpatch.artefacts.oci import Descriptor

SM121 = parse_arch("sm121")
NAME = "registry.test/demo/server:v1"
BIG = {"usr/share/big": b"\x00" * 300_000}


class Distant:
    """A layout that only tells what is asked of it, and remembers that."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.documents: list[str] = []
        self.blobs: list[str] = []

    @property
    def label(self) -> str:
        return "registry.test/demo/server"

    def document(self, descriptor: Descriptor) -> bytes:
        self.documents.append(str(descriptor.digest))
        return self.layout.document(descriptor)

    def open_blob(self, descriptor: Descriptor) -> IO[bytes]:
        self.blobs.append(str(descriptor.digest))
        return self.layout.open_blob(descriptor)

    def open(self, text: str) -> RemoteImage:
        """What `--base NAME` opens: the layout's one entry."""
        assert text.startswith("registry.test/"), text
        (entry,) = self.layout.entries
        return RemoteImage(NAME, entry, self)


def distant(folder: Path, *layers: Mapping[str, bytes | None], **options: Any) -> Distant:
    maker = LayoutMaker(folder / "there")
    options = {"architecture": "arm64", **options}
    return Distant(
        Layout.open(maker.write(maker.image([tar_layer(one) for one in layers], **options)))
    )


def index_of(maker: LayoutMaker, *entries: dict[str, Any]) -> dict[str, Any]:
    value = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)}
    return maker.document(value, INDEX)


def record(digest: str, **changes: Any) -> BaseImage:
    """What a recipe says of an image."""
    return BaseImage.model_validate(
        {
            "image": "registry.test/demo/server",
            "digest": digest,
            "platforms": ["linux/arm64"],
            "kind": "site-packages",
            "path": f"/{SITE}",
            "python": "3.12",
            "evidence": "somebody looked",
            **changes,
        }
    )


def build(there: Distant, folder: Path, **options: Any) -> BuildResult:
    return make_stack(folder).build(folder / "out", base=NAME, remote=there.open, **options)


def layer_names(result: BuildResult) -> set[str]:
    """The entries of the layer that the build made."""
    import tarfile

    layout = Layout.open(result.folder / "image")
    last = layout.image(Platform.parse("linux/arm64")).layers[-1]
    with tarfile.open(layout.blob_path(last.digest)) as tar:
        return {member.name for member in tar if not member.isdir()}


# -- what is read -----------------------------------------------------------------------------


def test_a_recorded_base_is_not_read_at_all(tmp_path: Path) -> None:
    there = distant(tmp_path, installed(), BIG)
    (entry,) = there.layout.entries
    result = build(there, tmp_path, recorded=[record(str(entry.digest))])
    assert there.blobs == []
    assert len(there.documents) == 2  # the manifest and its config
    assert result.plan.inputs.base.recorded
    assert any("its layers were not read" in note for note in result.outputs.notes)


def test_the_topmost_layers_are_read_until_the_package_was_met(tmp_path: Path) -> None:
    there = distant(tmp_path, BIG, installed(), {"etc/motd": b"hello"})
    (_entry,) = there.layout.entries
    layers = there.layout.image(Platform.parse("linux/arm64")).layers
    result = build(there, tmp_path)
    assert there.blobs == [str(layers[2].digest), str(layers[1].digest)]
    size = layers[1].size + layers[2].size
    said = f"2 of the base's 3 layers were read, from the top, {size:,} bytes"
    assert any(said in note for note in result.outputs.notes)


def test_a_file_of_the_package_in_a_lower_layer_is_still_read(tmp_path: Path) -> None:
    """A later `pip install --upgrade` leaves files that did not change where they are."""
    whole = installed()
    gate = f"{SITE}/demo/gate.py"
    there = distant(tmp_path, BIG, {gate: whole.pop(gate)}, whole)
    build(there, tmp_path)
    assert len(there.blobs) == 2


def test_the_same_bytes_whether_the_layers_are_near_or_far(tmp_path: Path) -> None:
    there = distant(tmp_path, BIG, installed())
    far = build(there, tmp_path / "far")
    near = make_stack(tmp_path / "near").build(tmp_path / "near/out", base=str(there.layout.path))
    assert layer_names(far) == layer_names(near)
    layouts = [Layout.open(one.folder / "image") for one in (far, near)]
    images = [one.image(Platform.parse("linux/arm64")) for one in layouts]
    assert images[0].layers == images[1].layers


# -- the sparse layout --------------------------------------------------------------------------


def test_the_base_s_layers_are_left_where_they_are(tmp_path: Path) -> None:
    there = distant(tmp_path, BIG, installed())
    result = build(there, tmp_path)
    layout = Layout.open(result.folder / "image")
    image = layout.image(Platform.parse("linux/arm64"))
    assert [layout.has(layer) for layer in image.layers] == [False, False, True]
    assert list(result.outputs.elsewhere) == list(image.layers[:2])
    lock = json.loads((result.folder / "lock.json").read_bytes())
    assert [one["digest"] for one in lock["outputs"]["image"]["layers-elsewhere"]] == [
        str(layer.digest) for layer in image.layers[:2]
    ]
    assert lock["inputs"]["base"]["name"] == NAME
    assert any("image/ is without 2 layers of the base" in n for n in result.outputs.notes)
    again = build(there, tmp_path)
    assert again.reused
    assert again.outputs == result.outputs


def test_annotations_lead_to_the_base(tmp_path: Path) -> None:
    there = distant(tmp_path, installed())
    (entry,) = there.layout.entries
    image = Layout.open(build(there, tmp_path).folder / "image").image(
        Platform.parse("linux/arm64")
    )
    notes = image.manifest_json()["annotations"]
    assert notes["org.opencontainers.image.base.name"] == NAME
    assert notes["org.opencontainers.image.base.digest"] == str(entry.digest)


# -- platforms and indexes ----------------------------------------------------------------------


def two_platforms(folder: Path) -> tuple[Distant, dict[str, Any]]:
    maker = LayoutMaker(folder / "there")
    arm = maker.image([tar_layer(installed())], architecture="arm64")
    amd = maker.image([tar_layer(BIG)], architecture="amd64")
    attestation = maker.image([tar_layer({"x": b""})], architecture="unknown")
    attestation["platform"] = {"architecture": "unknown", "os": "unknown"}
    layout = maker.write(index_of(maker, amd, arm, attestation))
    return Distant(Layout.open(layout)), arm


def test_an_index_gives_the_arch_s_platform_and_is_recorded(tmp_path: Path) -> None:
    there, arm = two_platforms(tmp_path)
    (entry,) = there.layout.entries
    base = open_base(NAME, SM121, remote=there.open)
    assert (base.pinned.digest, base.pinned.index) == (arm["digest"], str(entry.digest))
    assert len(there.documents) == 3  # index, manifest, config: nothing of the other platform
    assert there.blobs == []


def test_the_recipe_may_record_the_index_or_the_manifest(tmp_path: Path) -> None:
    there, arm = two_platforms(tmp_path)
    (entry,) = there.layout.entries
    for digest in (str(entry.digest), arm["digest"]):
        base = open_base(NAME, SM121, remote=there.open, recorded=[record(digest)])
        assert base.pinned.recorded
        assert base.pinned.site == SITE
        assert base.evidence == "somebody looked"
        assert "somebody looked" in "\n".join(base.lines())
    other = open_base(NAME, SM121, remote=there.open, recorded=[record(f"sha256:{'0' * 64}")])
    assert not other.pinned.recorded
    assert "at most" in "\n".join(other.lines())


def test_another_platform_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    there, _ = two_platforms(tmp_path)
    maker = LayoutMaker(tmp_path / "amd")
    only = Distant(Layout.open(maker.write(maker.image([tar_layer(BIG)], architecture="amd64"))))
    with pytest.raises(InputError, match="holds no image for linux/arm64") as caught:
        open_base(NAME, SM121, remote=only.open)
    assert caught.value.hint == "it has linux/amd64"
    assert open_base(NAME, parse_arch("sm120"), remote=there.open).image.platform == Platform(
        "linux", "amd64"
    )


def test_a_person_s_site_is_checked_even_where_the_recipe_records_another(tmp_path: Path) -> None:
    other = "srv/python3.12/site-packages"
    there = distant(tmp_path, installed(site=other))
    (entry,) = there.layout.entries
    known = [record(str(entry.digest))]
    base = open_base(NAME, SM121, remote=there.open, site=f"/{other}", recorded=known)
    assert (base.pinned.site, base.pinned.recorded) == (other, False)
    result = build(there, tmp_path, site=other, recorded=known)
    assert there.blobs
    assert f"{other}/demo/gate.py" in layer_names(result)
    with pytest.raises(InputError, match=rf"the base image has no demo in /{SITE}x"):
        build(there, tmp_path / "b", site=f"{SITE}x")


# -- what is refused ----------------------------------------------------------------------------


def test_another_version_is_refused_unless_the_recipe_vouches(tmp_path: Path) -> None:
    there = distant(tmp_path, installed(version="1.2.4"))
    with pytest.raises(InputError, match=r"has demo 1\.2\.4, the patched release is 1\.2\.3"):
        build(there, tmp_path)
    assert not list((tmp_path / "out").rglob("lock.json"))


def test_a_file_that_was_edited_in_the_image_is_refused(tmp_path: Path) -> None:
    there = distant(tmp_path, installed(), {f"{SITE}/demo/gate.py": b"MAJORS = [9]\n"})
    with pytest.raises(InputError, match=r"demo/gate\.py of the base image .* was changed there"):
        build(there, tmp_path)


def test_an_image_without_the_package_is_refused_after_all_layers(tmp_path: Path) -> None:
    there = distant(tmp_path, BIG, {"etc/motd": b"x"})
    with pytest.raises(InputError, match="the base image has no demo"):
        build(there, tmp_path)
    assert len(there.blobs) == 2


@pytest.mark.parametrize("how", ["flipped", "short", "not a tar"])
def test_a_damaged_layer_is_refused(tmp_path: Path, how: str) -> None:
    there = distant(tmp_path, installed())
    (layer,) = there.layout.image(Platform.parse("linux/arm64")).layers
    path = there.layout.blob_path(layer.digest)
    raw = bytearray(path.read_bytes())
    match how:
        case "flipped":
            raw[4] ^= 1  # the gzip header's time: it still unpacks to the same tar
        case "short":
            raw = raw[: len(raw) // 2]
        case _:
            raw = bytearray(gzip.compress(b"nothing of the kind" * 100))
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"layer sha256:.* (cannot be read|is not what)"):
        build(there, tmp_path)
    assert not list((tmp_path / "out").rglob("lock.json"))


@pytest.mark.parametrize("media", ["tar", "tar+zstd"])
def test_layers_in_other_packings_are_read(tmp_path: Path, media: str) -> None:
    maker = LayoutMaker(tmp_path / "there")
    raw = tar_layer(installed())
    if media == "tar+zstd":
        raw = zstandard.compress(raw[:5000]) + zstandard.compress(raw[5000:])
    entry = maker.image(
        [raw],
        architecture="arm64",
        layer_media=f"application/vnd.oci.image.layer.v1.{media}",
        config={
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(tar_layer(installed())).hexdigest()}"],
            }
        },
    )
    there = Distant(Layout.open(maker.write(entry)))
    assert f"{SITE}/demo/gate.py" in layer_names(build(there, tmp_path))


# -- editable installations ---------------------------------------------------------------------


def test_an_editable_installation_gets_the_tree_s_files(tmp_path: Path) -> None:
    there = distant(tmp_path, {"workspace/demo/demo/gate.py": b"not read"})
    (entry,) = there.layout.entries
    known = record(str(entry.digest), kind="editable", path="/workspace/demo")
    result = build(there, tmp_path, recorded=[known])
    assert there.blobs == []
    names = {f"{name}.cpython-312{level}.pyc" for name in ("gate",) for level in LEVELS}
    assert layer_names(result) == {
        "workspace/demo/demo/gate.py",
        *(f"workspace/demo/demo/__pycache__/.wh.{name}" for name in names),
    }
    notes = "\n".join(result.outputs.notes)
    assert "demo/_meta.py is not in the git tree" in notes
    assert "taken out" not in notes
    image = Layout.open(result.folder / "image")
    last = image.image(Platform.parse("linux/arm64")).layers[-1]
    assert PATCHED_GATE in image.blob_path(last.digest).read_bytes()


LEVELS = ("", ".opt-1", ".opt-2")


def test_an_editable_installation_that_nobody_recorded_is_refused_with_the_way_out(
    tmp_path: Path,
) -> None:
    url = json.dumps({"url": "file:///workspace", "dir_info": {"editable": True}}).encode()
    files = installed()
    there = distant(tmp_path, {**files, f"{SITE}/demo-1.2.3.dist-info/direct_url.json": url})
    with pytest.raises(InputError, match="editable installation") as caught:
        build(there, tmp_path)
    assert "kind: editable" in str(caught.value.hint)


# -- prebuilt code ------------------------------------------------------------------------------


def test_prebuilt_code_is_taken_out_unseen_by_its_name(tmp_path: Path) -> None:
    files = {path: c for path, c in installed().items() if "/torch" not in path}
    there = distant(tmp_path, {f"{SITE}/torch/x.so": b"\x7fELF"}, files)
    result = build(there, tmp_path)
    assert len(there.blobs) == 1
    assert f"{SITE}/.wh.torch" in layer_names(result)
    said = "if it is there; its layer was not read"
    assert any(said in note and "torch" in note for note in result.outputs.notes)


def test_prebuilt_code_that_was_seen_goes_as_its_record_lists_it(tmp_path: Path) -> None:
    rows = "torch/x.so,,\ntorch_other/y.so,,\nshared/own.py,,\ntorch-2.dist-info/RECORD,,\n"
    files = {path: c for path, c in installed().items() if "/torch" not in path}
    files |= {
        f"{SITE}/torch-2.dist-info/RECORD": rows.encode(),
        f"{SITE}/torch/x.so": b"x",
        f"{SITE}/torch_other/y.so": b"y",
        f"{SITE}/shared/own.py": b"",
        f"{SITE}/shared/foreign.py": b"",
    }
    there = distant(tmp_path, files)
    names = {n.removeprefix(f"{SITE}/") for n in layer_names(build(there, tmp_path))}
    assert {".wh.torch", ".wh.torch_other", ".wh.torch-2.dist-info", "shared/.wh.own.py"} <= names
    assert "shared/.wh.foreign.py" not in names
    assert ".wh.shared" not in names


def test_nothing_is_taken_out_of_an_image_that_was_read_to_its_end(tmp_path: Path) -> None:
    files = {path: c for path, c in installed().items() if "/torch" not in path}
    result = build(distant(tmp_path, files), tmp_path)
    assert f"{SITE}/.wh.torch" not in layer_names(result)
    assert not [note for note in result.outputs.notes if "taken out" in note]
