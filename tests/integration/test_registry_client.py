"""Reading images from a registry: everything is compared, nothing that is wrong is believed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.images import INDEX, MANIFEST, LayoutMaker, tar_layer

from stackpatch.artefacts.oci import Platform
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.model.digest import Digest
from stackpatch.registry.client import Registry
from stackpatch.registry.patience import Limits
from stackpatch.registry.reference import Reference

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faulty_registry import FaultyRegistry
    from tests.registries import RunningRegistry

ARM64, AMD64 = Platform.parse("linux/arm64"), Platform.parse("linux/amd64")
NAME = "read/image"


@pytest.fixture(scope="module")
def pushed(registry: RunningRegistry, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An index in an index, with an image for each of two platforms; `t` names it."""
    maker = LayoutMaker(tmp_path_factory.mktemp("layout") / "l")
    amd64 = maker.image([tar_layer({"a": b"1" * 5000})])
    arm64 = maker.image([tar_layer({"a": b"2" * 5000})], architecture="arm64", variant="v8")
    inner = maker.document(
        {"schemaVersion": 2, "mediaType": INDEX, "manifests": [amd64, arm64]}, INDEX
    )
    outer = maker.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner]}, INDEX)
    registry.put_layout(NAME, maker.write(outer), "t")
    return {"amd64": amd64, "arm64": arm64, "inner": inner, "outer": outer, "blobs": maker.blobs}


def opened(host: str, name: str = NAME, **limits: Any) -> Registry:
    made = Registry.open(Reference.parse(f"{host}/{name}"), limits=Limits(**limits))
    made.session.pause = lambda _: None
    return made


def test_a_tag_a_digest_and_what_is_not_there(
    registry: RunningRegistry, pushed: dict[str, Any]
) -> None:
    made = opened(registry.host)
    digest = Digest.parse(pushed["outer"]["digest"])
    for ref in ("t", digest):
        found = made.head(ref)
        assert found is not None
        assert (found.digest, found.size, found.media_type) == (
            digest,
            pushed["outer"]["size"],
            INDEX,
        )
        content, again = made.manifest(ref)
        assert Digest.of(content) == digest
        assert again == found
    for ref in ("absent", Digest.of(b"absent")):
        assert made.head(ref) is None
        assert made.find_manifest(ref) is None
        with pytest.raises(InputError, match="there is no"):
            made.manifest(ref)
        with pytest.raises(InputError, match="there is no"):
            made.image(ARM64, ref)


@pytest.mark.parametrize("text", [f"{NAME}:t", f"{NAME}:latest@DIGEST", f"{NAME}@DIGEST"])
def test_the_reference_says_which(
    registry: RunningRegistry, pushed: dict[str, Any], text: str
) -> None:
    text = text.replace("DIGEST", pushed["outer"]["digest"])
    made = Registry.open(Reference.parse(f"{registry.host}/{text}"))
    assert str(made.manifest()[1].digest) == pushed["outer"]["digest"]


@pytest.mark.parametrize("platform", [ARM64, AMD64])
def test_the_image_for_a_platform_costs_documents_only(
    registry: RunningRegistry, proxy: FaultyRegistry, pushed: dict[str, Any], platform: Platform
) -> None:
    image = opened(proxy.host).image(platform, "t")
    assert str(image.digest) == pushed[platform.architecture]["digest"]
    layers = {str(layer.digest) for layer in image.layers}
    assert not any(digest in one.path for one in proxy.asked for digest in layers)


def test_a_platform_that_is_not_there_is_told_with_what_is(
    registry: RunningRegistry, pushed: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="no image for linux/riscv64") as caught:
        opened(registry.host).image(Platform.parse("linux/riscv64"), "t")
    assert "linux/amd64, linux/arm64/v8" in str(caught.value.hint)


def test_a_blob_whole_and_from_any_byte_to_any(
    registry: RunningRegistry, pushed: dict[str, Any]
) -> None:
    made = opened(registry.host)
    layer = made.image(AMD64, "t").layers[0]
    content = pushed["blobs"][layer.digest.hex]
    assert made.blob(layer.digest, layer.size) == content
    assert b"".join(made.blob_stream(layer.digest, layer.size)) == content
    for start, end in ((0, 10), (5, layer.size), (3, 4), (layer.size - 1, layer.size)):
        assert b"".join(made.blob_from(layer.digest, layer.size, start, end)) == content[start:end]
    assert made.has_blob(layer.digest) == layer.size
    assert made.has_blob(Digest.of(b"no")) is None
    with pytest.raises(InputError, match="does not hold blob"):
        made.blob(Digest.of(b"no"), 2)


def test_a_blob_larger_than_the_limit_is_not_asked_for(proxy: FaultyRegistry) -> None:
    with pytest.raises(InputError, match="too many"):
        opened(proxy.host).blob(Digest.of(b""), 9 << 20)
    assert proxy.asked == []


@pytest.mark.parametrize("ranges", [True, False])
def test_a_stream_that_is_cut_goes_on(
    registry: RunningRegistry, proxy: FaultyRegistry, ranges: bool
) -> None:
    """Where the registry has no ranges, what came already is skipped."""
    content = hashlib.sha256(b"seed").digest() * 30_000
    digest = Digest.parse(registry.put_blob(NAME, content))

    def cut(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        return status, headers, body[: len(body) // 2]

    def whole(
        status: int, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        del status, body
        headers.pop("Content-Range", None)
        return 200, headers, content

    proxy.break_("GET", ".*/blobs/.*", change=cut)
    if not ranges:
        proxy.break_("GET", ".*/blobs/.*", times=None, change=whole)
    made = opened(proxy.host)
    assert b"".join(made.blob_stream(digest, len(content))) == content
    asked = [one.headers.get("Range") for one in proxy.asked if one.method == "GET"]
    assert asked[-1] == f"bytes={len(content) // 2}-{len(content) - 1}"


def changed(**how: Any) -> Any:
    """A change of an answer: `body` from old to new, `status`, headers by name with `_` for `-`."""

    def change(
        status: int, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        found = {**headers}
        for name, value in how.items():
            if name not in {"body", "status"}:
                found = {k: v for k, v in found.items() if k.lower() != name.replace("_", "-")}
                if value is not None:
                    found[name.replace("_", "-")] = value
        make = how.get("body", lambda content: content)
        return how.get("status", status), found, make(body)

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"body": lambda body: body.replace(b"manifests", b"manifestz")}, "its bytes are sha256:"),
        ({"docker_content_digest": f"sha256:{'0' * 64}"}, "its bytes are sha256:"),
        ({"docker_content_digest": "md5:abc"}, "states the digest"),
        ({"body": lambda _: b"x" * (9 << 20), "docker_content_digest": None}, "more than 8388608"),
        ({"content_type": MANIFEST}, "is announced as"),
    ],
)
def test_a_manifest_that_is_wrong_is_not_believed(
    registry: RunningRegistry,
    proxy: FaultyRegistry,
    pushed: dict[str, Any],
    change: dict[str, Any],
    told: str,
) -> None:
    proxy.break_("GET", ".*/manifests/.*", times=None, change=changed(**change))
    with pytest.raises(EnvironmentProblem, match=told):
        opened(proxy.host).manifest("t")


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        (b"<html>login</html>", "text/html", "not readable JSON"),
        (b"[]", INDEX, "not a JSON object"),
        (b"{}", "application/json", "no image and no image index"),
        (b'{"mediaType": "x/y"}', "x/y", "no image and no image index, but 'x/y'"),
        (b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        (b'{"a": 1, "a": 2}', INDEX, "twice"),
    ],
)
def test_what_is_no_manifest_is_told_as_what_it_is(
    registry: RunningRegistry, proxy: FaultyRegistry, body: bytes, kind: str, told: str
) -> None:
    headers = {"Content-Type": kind}
    proxy.break_("GET", ".*/manifests/.*", status=200, headers=headers, body=body)
    with pytest.raises(InputError, match=told):
        opened(proxy.host).manifest("t")


def test_a_head_that_names_another_digest_than_asked_is_refused(
    registry: RunningRegistry, proxy: FaultyRegistry, pushed: dict[str, Any]
) -> None:
    wrong = changed(docker_content_digest=f"sha256:{'0' * 64}")
    proxy.break_("HEAD", ".*/manifests/.*", change=wrong)
    with pytest.raises(EnvironmentProblem, match="it answers with sha256:000"):
        opened(proxy.host).head(Digest.parse(pushed["outer"]["digest"]))


def test_a_head_without_a_digest_is_made_up_for_by_reading(
    registry: RunningRegistry, proxy: FaultyRegistry, pushed: dict[str, Any]
) -> None:
    proxy.break_("HEAD", ".*/manifests/.*", change=changed(docker_content_digest=None))
    found = opened(proxy.host).head("t")
    assert found is not None
    assert str(found.digest) == pushed["outer"]["digest"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"body": lambda body: body[:-1] + bytes([body[-1] ^ 1])}, "its bytes are"),
        ({"body": lambda body: body + b"x"}, "more than"),
        ({"status": 206, "content_range": "bytes 7-9/10"}, "another range"),
    ],
)
def test_a_blob_that_is_wrong_is_not_believed(
    registry: RunningRegistry,
    proxy: FaultyRegistry,
    pushed: dict[str, Any],
    change: dict[str, Any],
    told: str,
) -> None:
    made = opened(proxy.host)
    layer = opened(registry.host).image(AMD64, "t").layers[0]
    proxy.break_("GET", ".*/blobs/.*", times=None, change=changed(**change))
    with pytest.raises(EnvironmentProblem, match=told):
        made.blob(layer.digest, layer.size)
    with pytest.raises(EnvironmentProblem):
        list(made.blob_stream(layer.digest, layer.size))


def test_a_blob_that_always_ends_early_is_told(
    registry: RunningRegistry, proxy: FaultyRegistry, pushed: dict[str, Any]
) -> None:
    layer = opened(registry.host).image(AMD64, "t").layers[0]
    proxy.break_("GET", ".*/blobs/.*", times=None, change=changed(body=lambda _: b""))
    with pytest.raises(EnvironmentProblem, match=r"ended blob .* at 0 of .*tried 5 times"):
        list(opened(proxy.host).blob_stream(layer.digest, layer.size))


def test_redirects_have_an_end(registry: RunningRegistry, proxy: FaultyRegistry) -> None:
    there = {"Location": f"http://{proxy.host}/v2/{NAME}/manifests/t"}
    proxy.break_("GET", ".*/manifests/.*", times=None, status=307, headers=there)
    with pytest.raises(EnvironmentProblem, match="redirects more than 5 times"):
        opened(proxy.host).manifest("t")


@pytest.mark.parametrize("there", ["ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_a_redirect_to_no_web_address_is_refused(
    registry: RunningRegistry, proxy: FaultyRegistry, there: str
) -> None:
    proxy.break_("GET", ".*/manifests/.*", status=307, headers={"Location": there})
    with pytest.raises(EnvironmentProblem, match="no web address"):
        opened(proxy.host).manifest("t")


def test_a_registry_that_does_not_answer_has_a_limit(tmp_path: Path) -> None:
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(EnvironmentProblem, match=host):
            opened(host, connect=0.2, read=0.2, retries=1).head("t")


def test_indexes_that_lie_too_deep_are_refused(registry: RunningRegistry, tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "l")
    entry = maker.image([tar_layer({"a": b"1"})])
    for _ in range(12):
        value = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
        entry = maker.document(value, INDEX)
    registry.put_layout("read/deep", maker.write(entry), "t")
    with pytest.raises(InputError, match="deep in each other"):
        opened(registry.host, "read/deep").image(AMD64, "t")


def test_a_config_that_lies_about_its_size_is_refused(
    registry: RunningRegistry, tmp_path: Path
) -> None:
    maker = LayoutMaker(tmp_path / "l")
    image = maker.image([tar_layer({"a": b"1"})])
    manifest = json.loads(maker.blobs[image["digest"][7:]])
    manifest["config"]["size"] += 1
    changed_image = maker.document(manifest, MANIFEST)
    layout = maker.write(changed_image)
    registry.put_layout("read/lies", layout, "t")
    with pytest.raises(EnvironmentProblem, match="ended blob"):
        opened(registry.host, "read/lies", retries=0).image(AMD64, "t")
