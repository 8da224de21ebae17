"""Layers, images as values, and layouts on disk."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.images import INDEX, MANIFEST, LayoutMaker, merged, tar_layer

from stackpatch.artefacts.layer import Entry, Kind, gzip_stored, make_layer
from stackpatch.artefacts.layout import Layout, write_layout
from stackpatch.artefacts.oci import (
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    LAYER,
    Descriptor,
    Image,
    Platform,
    parse_json,
)
from stackpatch.errors import InputError
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from pathlib import Path

ARM = Platform("linux", "arm64")
AMD = Platform("linux", "amd64")
EPOCH = 1770249624
ENTRIES = (
    Entry("usr/lib/x/a.py", content=b"a = 1\n", mtime=EPOCH),
    Entry("usr/lib/x/run.sh", content=b"#!/bin/sh\n", mode=0o755, mtime=EPOCH),
    Entry("usr/lib/x/old.dist-info", Kind.WHITEOUT, mtime=EPOCH),
)
GOLDEN_LAYER = "02309b81861eb63e9aadf4e46fbe1c765451f84f120e06c11aefe2df6b8e697d"
GOLDEN_INDEX = "7ad513bf37293f3e2e529e2028351c5a11eb6d98ff30c59472fc2c1b4a42c0d8"


def members(blob: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob))) as tar:
        return tar.getmembers()


# -- layers -----------------------------------------------------------------------------------


def test_the_layers_bytes_are_known() -> None:
    layer = make_layer(ENTRIES, epoch=EPOCH)
    assert layer.digest.hex == GOLDEN_LAYER
    assert layer.digest == Digest.of(layer.blob)
    assert layer.diff_id == Digest.of(gzip.decompress(layer.blob))


def test_the_order_of_the_entries_does_not_matter() -> None:
    assert make_layer(reversed(ENTRIES), epoch=EPOCH) == make_layer(ENTRIES, epoch=EPOCH)


def test_entries_are_sorted_owned_by_root_and_preceded_by_their_folders() -> None:
    found = members(make_layer(ENTRIES, epoch=EPOCH).blob)
    assert [(m.name, m.isdir(), m.mode, m.mtime) for m in found] == [
        ("usr", True, 0o755, EPOCH),
        ("usr/lib", True, 0o755, EPOCH),
        ("usr/lib/x", True, 0o755, EPOCH),
        ("usr/lib/x/.wh.old.dist-info", False, 0o644, EPOCH),
        ("usr/lib/x/a.py", False, 0o644, EPOCH),
        ("usr/lib/x/run.sh", False, 0o755, EPOCH),
    ]
    assert {(m.uid, m.gid, m.uname, m.gname) for m in found} == {(0, 0, "", "")}


def test_known_folders_keep_what_the_base_says() -> None:
    known = {"usr/lib": Entry("usr/lib", Kind.FOLDER, mode=0o2775, uid=3, gid=50, mtime=7)}
    found = {m.name: m for m in members(make_layer(ENTRIES, epoch=EPOCH, folders=known).blob)}
    there = found["usr/lib"]
    assert (there.mode, there.uid, there.gid, there.mtime) == (0o2775, 3, 50, 7)
    assert found["usr"].mode == 0o755


@pytest.mark.parametrize("path", ["a/" * 120 + "f.py", "é/ü.py", "a" * 101, "x/" + "b" * 255])
def test_paths_that_ustar_cannot_hold_come_back(path: str) -> None:
    layer = make_layer([Entry(path, content=b"x")], epoch=EPOCH)
    assert members(layer.blob)[-1].name == path


def test_real_tar_unpacks_it(tmp_path: Path) -> None:
    layer = make_layer(ENTRIES, epoch=EPOCH)
    (tmp_path / "layer.tar.gz").write_bytes(layer.blob)
    subprocess.run(["tar", "-xzpf", "layer.tar.gz"], cwd=tmp_path, check=True)
    assert (tmp_path / "usr/lib/x/a.py").read_bytes() == b"a = 1\n"
    assert int((tmp_path / "usr/lib/x/a.py").stat().st_mtime) == EPOCH
    assert stat.S_IMODE((tmp_path / "usr/lib/x/run.sh").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ([Entry("../x")], "leaves the folder"),
        ([Entry("/x")], "absolute path"),
        ([Entry("x/")], "ends in a slash"),
        ([Entry("raw-\udcff.py")], "is not UTF-8"),
        ([Entry("a//b")], "not a plain relative path"),
        ([Entry("a/.wh.b")], "would be read as a whiteout"),
        ([Entry("a/.wh..wh..opq")], "would be read as a whiteout"),
        ([Entry("a"), Entry("a")], "it is there twice"),
        ([Entry("a"), Entry("a", Kind.WHITEOUT)], "it is there twice"),
        ([Entry("a"), Entry("a/b")], "a is a file"),
        ([Entry("a", Kind.WHITEOUT), Entry("a/b")], "a is a whiteout"),
    ],
)
def test_entries_that_no_layer_may_hold(entries: list[Entry], text: str) -> None:
    with pytest.raises(InputError, match=text):
        make_layer(entries, epoch=EPOCH)


@given(st.binary(max_size=200_000))
def test_stored_gzip_is_gzip(content: bytes) -> None:
    packed = gzip_stored(content)
    assert gzip.decompress(packed) == content
    inflate = zlib.decompressobj(31)
    assert inflate.decompress(packed) == content
    assert inflate.eof
    assert not inflate.unused_data


@pytest.mark.parametrize("size", [0, 1, 65534, 65535, 65536, 131070, 131071])
def test_stored_gzip_at_the_edges_of_its_blocks(size: int) -> None:
    content = os.urandom(size)
    packed = gzip_stored(content)
    assert gzip.decompress(packed) == content
    assert len(packed) == 18 + 5 * max(1, -(-size // 65535)) + size


# -- platforms and descriptors ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("have", "want", "serves"),
    [
        ("linux/arm64", "linux/arm64", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64/v9", "linux/arm64", False),
        ("linux/arm/v6", "linux/arm", False),
        ("linux/arm/v7", "linux/arm", True),
        ("linux/amd64", "linux/arm64", False),
        ("windows/amd64", "linux/amd64", False),
        ("linux/amd64/v3", "linux/amd64", False),
    ],
)
def test_which_platform_serves_which(have: str, want: str, serves: bool) -> None:
    assert Platform.parse(have).serves(Platform.parse(want)) is serves
    assert str(Platform.parse(have)) == have


@pytest.mark.parametrize("text", ["linux", "", "linux/", "a/b/c/d", "/arm64"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(ValueError, match="not a platform"):
        Platform.parse(text)


GOOD = {"mediaType": LAYER, "digest": f"sha256:{'0' * 64}", "size": 3}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not a JSON object"),
        ({**GOOD, "digest": "sha256:00"}, "not a sha256 digest"),
        ({**GOOD, "digest": f"sha512:{'0' * 128}"}, "only sha256 is read"),
        ({**GOOD, "digest": f"sha256:{'A' * 64}"}, "not a sha256 digest"),
        ({**GOOD, "digest": "sha256:../../../etc/passwd"}, "not a sha256 digest"),
        ({**GOOD, "size": -1}, "has no size"),
        ({**GOOD, "size": True}, "has no size"),
        ({**GOOD, "size": "3"}, "has no size"),
        ({**GOOD, "mediaType": None}, "no mediaType"),
        ({**GOOD, "platform": "linux"}, "a platform is not a JSON object"),
        ({**GOOD, "platform": {"os": "linux"}}, "no architecture"),
        ({**GOOD, "platform": {"os": "linux", "architecture": "a", "variant": 3}}, "states no"),
    ],
)
def test_descriptors_that_are_none(value: object, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        Descriptor.parse(value, where="there")
    assert caught.value.where == "there"


def test_a_descriptor_keeps_what_it_does_not_know() -> None:
    value = {**GOOD, "annotations": {"a": "b", "n": 3}, "urls": ["https://x"], "future": {"x": 1}}
    found = Descriptor.parse(value, where="there")
    assert found.json() == value
    assert found.annotations == {"a": "b"}


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b'{"a":1,"a":2}', b'{"a":{"b":1,"b":1}}', b"\xff", b"[" * 200_000]
)
def test_json_that_is_not_taken(raw: bytes) -> None:
    with pytest.raises(InputError):
        parse_json(raw, where="x")


# -- images -----------------------------------------------------------------------------------


def base_image(tmp_path: Path, **options: Any) -> tuple[Layout, Image]:
    maker = LayoutMaker(tmp_path / "base")
    layers = [tar_layer({"usr": None, "usr/x": b"1"}), tar_layer({"usr/y": b"2"})]
    layout = Layout.open(maker.write(maker.image(layers, architecture="arm64", **options)))
    return layout, layout.image(ARM)


def with_layer(image: Image, **changes: Any) -> Image:
    settings: dict[str, Any] = {
        "created": "2026-02-05T00:00:24Z",
        "comment": "test",
        "annotations": {"b": "2", "a": "1"},
        "labels": {"new": "1"},
        "env": {"B": "2", "A": "3"},
    }
    return image.with_layer(make_layer(ENTRIES, epoch=EPOCH), **(settings | changes))


def test_a_layer_makes_a_new_image_and_leaves_the_old_one(tmp_path: Path) -> None:
    _, base = base_image(tmp_path)
    before = (base.manifest, base.config)
    image = with_layer(base)
    assert (base.manifest, base.config) == before
    layer = make_layer(ENTRIES, epoch=EPOCH)
    assert [d.digest for d in image.layers] == [*(d.digest for d in base.layers), layer.digest]
    config = image.config_json()
    assert config["rootfs"]["diff_ids"][-1] == str(layer.diff_id)
    assert config["rootfs"]["diff_ids"][:-1] == base.config_json()["rootfs"]["diff_ids"]
    assert config["history"][-1] == {"created": "2026-02-05T00:00:24Z", "created_by": "test"}
    assert len(config["history"]) == 3
    assert config["created"] == "2026-02-05T00:00:24Z"


def test_unknown_keys_survive(tmp_path: Path) -> None:
    _, base = base_image(tmp_path)
    image = with_layer(base)
    assert image.config_json()["x-unknown"] == {"kept": [1, 2]}
    assert image.manifest_json()["x-own"] == "kept"
    assert list(image.config_json())[:4] == list(base.config_json())[:4]


def test_settings_are_added_to_those_of_the_base(tmp_path: Path) -> None:
    image = with_layer(base_image(tmp_path)[1])
    assert image.config_json()["config"] == {
        "Env": ["PATH=/usr/bin", "A=3", "B=2"],
        "Labels": {"old": "yes", "new": "1"},
    }
    assert image.manifest_json()["annotations"] == {"a": "1", "b": "2"}


def test_the_bases_own_annotations_do_not_describe_the_result(tmp_path: Path) -> None:
    _, base = base_image(tmp_path, manifest={"annotations": {"version": "base"}})
    assert with_layer(base).manifest_json()["annotations"] == {"a": "1", "b": "2"}
    assert "annotations" not in with_layer(base, annotations={}).manifest_json()


def test_a_docker_manifest_gets_a_docker_layer(tmp_path: Path) -> None:
    _, base = base_image(tmp_path, media=DOCKER_MANIFEST, layer_media=DOCKER_LAYER)
    image = with_layer(base)
    assert image.media_type == DOCKER_MANIFEST
    assert image.layers[-1].media_type == DOCKER_LAYER
    assert with_layer(Image.scratch(ARM)).layers[-1].media_type == LAYER


def test_an_embedded_config_is_not_left_behind(tmp_path: Path) -> None:
    _, base = base_image(tmp_path)
    manifest = base.manifest_json()
    manifest["config"]["data"] = "b2xk"
    changed = Image.read(json.dumps(manifest).encode(), base.config, where="x")
    assert "data" not in with_layer(changed).manifest_json()["config"]


def test_missing_parts_of_a_config_are_made() -> None:
    config = b'{"architecture":"arm64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    described = {"mediaType": "x", "digest": str(Digest.of(config)), "size": len(config)}
    manifest = {"schemaVersion": 2, "config": described, "layers": []}
    image = with_layer(Image.read(json.dumps(manifest).encode(), config, where="x"))
    assert len(image.config_json()["history"]) == 1
    assert image.config_json()["config"]["Env"] == ["A=3", "B=2"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"schemaVersion": 1}, "not an image manifest"),
        ({"mediaType": INDEX}, "not an image manifest"),
        ({"config": GOOD}, "config is not the one"),
        ({"layers": None}, "lists no layers"),
        ({"layers": []}, "does not describe the manifest's 0 layers"),
        ({"layers": [1, 2]}, "not a JSON object"),
        ({"annotations": []}, None),
        ({"annotations": ["a"]}, "annotations are not"),
    ],
)
def test_manifests_that_are_none(tmp_path: Path, change: dict[str, Any], text: str | None) -> None:
    _, base = base_image(tmp_path)
    raw = json.dumps({**base.manifest_json(), **change}).encode()
    if text is None:
        assert Image.read(raw, base.config, where="x").layers
        return
    with pytest.raises(InputError, match=text):
        Image.read(raw, base.config, where="x")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rootfs": None}, "does not describe"),
        ({"rootfs": {"diff_ids": ["sha256:1"]}}, "does not describe the manifest's 2 layers"),
        ({"os": ""}, "states no os"),
        ({"architecture": 3}, "states no os"),
        ({"config": "x"}, "config is not a JSON dict"),
        ({"history": {"a": 1}}, "history is not a JSON list"),
    ],
)
def test_configs_that_are_none(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        base_image(tmp_path, config=change)


# -- layouts ----------------------------------------------------------------------------------


def write(tmp_path: Path, name: str, image: Image, base: Layout | None) -> Path:
    layer = make_layer(ENTRIES, epoch=EPOCH)
    target = tmp_path / name
    write_layout(target, image, {layer.digest: layer.blob}, base=base, annotations={"z": "1"})
    return target


def test_a_written_layout_is_complete_and_reads_back(tmp_path: Path) -> None:
    layout, base = base_image(tmp_path)
    image = with_layer(base)
    again = Layout.open(write(tmp_path, "out", image, layout))
    assert again.image(ARM) == image
    assert again.entries[0].annotations == {"z": "1"}
    for path in (again.path / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    assert len(list((again.path / "blobs" / "sha256").iterdir())) == 5
    files = merged(again.path, str(image.digest))
    assert files["usr/x"][1] == b"1"
    assert files["usr/lib/x/a.py"][1] == b"a = 1\n"


def test_layers_of_the_base_are_linked_not_copied(tmp_path: Path) -> None:
    layout, base = base_image(tmp_path)
    target = write(tmp_path, "out", with_layer(base), layout)
    for layer in base.layers:
        ours = target / "blobs" / "sha256" / layer.digest.hex
        assert ours.samefile(layout.blob_path(layer.digest))


def test_layers_are_copied_where_no_link_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    layout, base = base_image(tmp_path)
    target = write(tmp_path, "out", with_layer(base), layout)
    for layer in base.layers:
        ours = target / "blobs" / "sha256" / layer.digest.hex
        assert ours.read_bytes() == layout.blob_path(layer.digest).read_bytes()
        assert stat.S_IMODE(ours.stat().st_mode) == 0o644


def test_scratch_with_a_layer_has_known_bytes(tmp_path: Path) -> None:
    image = with_layer(Image.scratch(ARM))
    before = os.umask(0o077)
    try:
        target = write(tmp_path, "out", image, None)
    finally:
        os.umask(before)
    assert hashlib.sha256((target / "index.json").read_bytes()).hexdigest() == GOLDEN_INDEX
    modes = {p.is_dir(): stat.S_IMODE(p.stat().st_mode) for p in [target, *target.rglob("*")]}
    assert modes == {True: 0o755, False: 0o644}


def test_a_layer_that_is_nowhere_is_said(tmp_path: Path) -> None:
    _, base = base_image(tmp_path)
    with pytest.raises(InputError, match=f"layer {base.layers[0].digest} is not at hand"):
        write(tmp_path, "out", with_layer(base), None)


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "gone"])
@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
def test_damaged_blobs_are_refused(tmp_path: Path, damage: str, which: str) -> None:
    layout, base = base_image(tmp_path)
    config = Descriptor.parse(base.manifest_json()["config"], where="x").digest
    digest = {"layer": base.layers[1].digest, "config": config, "manifest": base.digest}[which]
    path = layout.blob_path(digest)
    raw = path.read_bytes()
    match damage:
        case "flip":
            path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        case "cut":
            path.write_bytes(raw[:-1])
        case "grow":
            path.write_bytes(raw + b"\n")
        case _:
            path.unlink()
    text = "does not hold" if damage == "gone" else "is not the .* bytes that"
    with pytest.raises(InputError, match=text):
        write(tmp_path, "out", with_layer(layout.image(ARM)), layout)


def test_a_huge_document_is_not_read(tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "base")
    descriptor = maker.image([], architecture="arm64")
    layout = Layout.open(maker.write({**descriptor, "size": 1 << 40}))
    with pytest.raises(InputError, match="too many for a document"):
        layout.image(ARM)


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("oci-layout", None, "is not an OCI layout"),
        ("index.json", None, "is not an OCI layout"),
        ("oci-layout", "{}", "version None"),
        ("oci-layout", '{"imageLayoutVersion": "2.0.0"}', "version '2.0.0'"),
        ("index.json", "{}", "is not an image index"),
        ("index.json", '{"schemaVersion": 2, "manifests": [3]}', "not a JSON object"),
        ("index.json", "nonsense", "not readable JSON"),
    ],
)
def test_folders_that_are_no_layout(
    tmp_path: Path, file: str, content: str | None, text: str
) -> None:
    maker = LayoutMaker(tmp_path / "base")
    path = maker.write(maker.image([]))
    if content is None:
        (path / file).unlink()
    else:
        (path / file).write_text(content)
    with pytest.raises(InputError, match=text):
        Layout.open(path)


# -- which image of a layout ------------------------------------------------------------------


def several(tmp_path: Path, **options: Any) -> tuple[LayoutMaker, dict[str, dict[str, Any]]]:
    maker = LayoutMaker(tmp_path / "many")
    return maker, {
        arch: maker.image([tar_layer({"arch": arch.encode()})], architecture=arch, **options)
        for arch in ("amd64", "arm64")
    }


def test_the_platform_selects_from_an_index(tmp_path: Path) -> None:
    maker, made = several(tmp_path)
    layout = Layout.open(maker.write(*made.values()))
    for arch, descriptor in made.items():
        assert str(layout.image(Platform("linux", arch)).digest) == descriptor["digest"]


def test_the_config_tells_the_platform_where_the_index_does_not(tmp_path: Path) -> None:
    maker, made = several(tmp_path, describe_platform=False)
    layout = Layout.open(maker.write(*made.values()))
    assert str(layout.image(ARM).digest) == made["arm64"]["digest"]


def test_nested_indexes_are_followed(tmp_path: Path) -> None:
    maker, made = several(tmp_path)
    inner = maker.document({"schemaVersion": 2, "manifests": list(made.values())}, INDEX)
    outer = maker.document({"schemaVersion": 2, "manifests": [inner]}, INDEX)
    layout = Layout.open(maker.write(outer))
    assert str(layout.image(ARM).digest) == made["arm64"]["digest"]
    by_index = layout.image(AMD, Digest.parse(inner["digest"]))
    assert str(by_index.digest) == made["amd64"]["digest"]


def test_indexes_without_end_are_refused(tmp_path: Path) -> None:
    maker, made = several(tmp_path)
    one = maker.document({"schemaVersion": 2, "manifests": list(made.values())}, INDEX)
    for _ in range(12):
        one = maker.document({"schemaVersion": 2, "manifests": [one]}, INDEX)
    with pytest.raises(InputError, match="more than 8 deep"):
        Layout.open(maker.write(one)).image(ARM)


def test_an_image_is_found_by_its_digest(tmp_path: Path) -> None:
    maker, made = several(tmp_path)
    other = maker.image([tar_layer({"other": b""})], architecture="arm64")
    layout = Layout.open(maker.write(*made.values(), other))
    with pytest.raises(InputError, match="holds 2 images for linux/arm64") as caught:
        layout.image(ARM)
    assert caught.value.hint
    assert other["digest"] in caught.value.hint
    assert str(layout.image(ARM, Digest.parse(other["digest"])).digest) == other["digest"]


def test_the_same_image_under_two_tags_is_one(tmp_path: Path) -> None:
    maker, made = several(tmp_path)
    tagged = {**made["arm64"], "annotations": {"org.opencontainers.image.ref.name": "b"}}
    layout = Layout.open(maker.write(made["arm64"], tagged))
    assert str(layout.image(ARM).digest) == made["arm64"]["digest"]


def test_another_platform_is_refused_with_what_there_is(tmp_path: Path) -> None:
    maker, made = several(tmp_path)
    layout = Layout.open(maker.write(made["amd64"]))
    with pytest.raises(InputError, match="holds no image for linux/arm64") as caught:
        layout.image(ARM)
    assert caught.value.hint == "it has linux/amd64"
    # By its digest too: the platform is not overridden by naming the image.
    with pytest.raises(InputError, match="holds no image for linux/arm64"):
        layout.image(ARM, Digest.parse(made["amd64"]["digest"]))


def test_an_index_that_lies_about_the_platform_is_found_out(tmp_path: Path) -> None:
    maker, made = several(tmp_path)
    made["amd64"]["platform"] = {"os": "linux", "architecture": "arm64"}
    with pytest.raises(InputError, match="holds no image for linux/arm64"):
        Layout.open(maker.write(made["amd64"])).image(ARM)


def test_an_unknown_digest_is_refused_with_what_there_is(tmp_path: Path) -> None:
    maker, made = several(tmp_path)
    layout = Layout.open(maker.write(made["arm64"]))
    with pytest.raises(InputError, match="holds no image sha256:00") as caught:
        layout.image(ARM, Digest("0" * 64))
    assert made["arm64"]["digest"] in str(caught.value.hint)


def test_attestations_and_artefacts_are_no_images(tmp_path: Path) -> None:
    maker, made = several(tmp_path)
    empty = maker.blob(b"{}", "application/vnd.oci.empty.v1+json")
    artefact = maker.document(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [empty]}, MANIFEST
    )
    attestation = maker.image([], architecture="unknown")
    attestation["platform"] = {"os": "unknown", "architecture": "unknown"}
    layout = Layout.open(maker.write(artefact, attestation, made["arm64"]))
    assert str(layout.image(ARM).digest) == made["arm64"]["digest"]
