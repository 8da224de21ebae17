"""Blobs and manifests into a real registry, with a proxy before it that breaks things."""

from __future__ import annotations

import json
import random
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from tests.faulty_registry import FaultyRegistry, faulty
from tests.registries import RunningRegistry, running_registry

from stackpatch.errors import EnvironmentProblem
from stackpatch.model.digest import Digest
from stackpatch.registry.blobs import Blob
from stackpatch.registry.client import Registry
from stackpatch.registry.patience import Limits
from stackpatch.registry.push import How, Pusher
from stackpatch.registry.reference import Reference

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_UPLOADS = r"/v2/[^?]*/blobs/uploads/[^?]+(\?.*)?"
_START = r"/v2/[^?]*/blobs/uploads/(\?.*)?"


class Pauses(list[float]):
    """Waits that are noted and not waited."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def opened(host: str, name: str, **limits: Any) -> tuple[Registry, Pauses]:
    made = Registry.open(Reference.parse(f"{host}/{name}"), limits=Limits(**limits))
    pauses = Pauses()
    made.session.pause = pauses
    return made, pauses


def content_of(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def held(registry: RunningRegistry, name: str, digest: Digest) -> bytes | None:
    status, _, body = registry.get(f"/v2/{name}/blobs/{digest}")
    return body if status == 200 else None


@pytest.mark.parametrize("size", [0, 1, 1000, 300_000])
def test_a_small_blob_goes_in_one_put_and_is_looked_at(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str, size: int
) -> None:
    content = content_of(size)
    made, _ = opened(proxy.host, name)
    assert Pusher(made).blob(Blob.of_bytes(content)) is How.SENT
    assert held(registry, name, Digest.of(content)) == content
    assert [one.method for one in proxy.asked] == ["GET", "HEAD", "POST", "PUT", "HEAD"]
    assert made.traffic.bytes_sent == size
    assert Pusher(made).blob(Blob.of_bytes(content)) is How.PRESENT
    assert made.traffic.bytes_sent == size


@pytest.mark.parametrize(("size", "patches"), [(1000, 9), (1001, 10), (999, 9), (100, 0), (101, 1)])
def test_a_large_blob_goes_in_chunks(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str, size: int, patches: int
) -> None:
    content = content_of(size)
    made, _ = opened(proxy.host, name)
    Pusher(made, chunk=100).blob(Blob.of_bytes(content))
    assert held(registry, name, Digest.of(content)) == content
    sent = [one for one in proxy.asked if one.method == "PATCH"]
    assert len(sent) == patches
    for number, one in enumerate(sent):
        assert one.headers["Content-Range"] == f"{number * 100}-{number * 100 + 99}"
        assert one.sent == 100
    assert made.traffic.bytes_sent == size


def test_a_file_is_sent_from_the_disk(registry: RunningRegistry, name: str, tmp_path: Path) -> None:
    content = content_of(700_000)
    (tmp_path / "layer").write_bytes(content)
    made, _ = opened(registry.host, name)
    blob = Blob.of_file(tmp_path / "layer", Digest.of(content), len(content))
    assert Pusher(made, chunk=200_000).blob(blob) is How.SENT
    assert held(registry, name, blob.digest) == content


def test_chunks_are_as_long_as_the_registry_wants_them(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str
) -> None:
    def wish(
        status: int, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        return status, {**headers, "OCI-Chunk-Min-Length": "400"}, body

    proxy.break_("POST", _START, change=wish)
    content = content_of(1000)
    made, _ = opened(proxy.host, name)
    Pusher(made, chunk=100).blob(Blob.of_bytes(content))
    assert [one.sent for one in proxy.asked if one.method == "PATCH"] == [400, 400]
    assert held(registry, name, Digest.of(content)) == content


def test_a_location_may_be_relative(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str
) -> None:
    def relative(
        status: int, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        place = urllib.parse.urlsplit(headers["Location"])
        return status, {**headers, "Location": f"{place.path}?{place.query}"}, body

    proxy.break_("POST|PATCH", ".*", times=None, change=relative)
    content = content_of(500)
    made, _ = opened(proxy.host, name)
    Pusher(made, chunk=100).blob(Blob.of_bytes(content))
    assert held(registry, name, Digest.of(content)) == content


def test_a_location_on_another_host_gets_no_login_and_works(
    registry: RunningRegistry,
    proxy: FaultyRegistry,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from tests.registries import docker_login

    docker_login(tmp_path, proxy.host, "me", "secret-of-mine")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with faulty(registry.host) as other:

        def elsewhere(
            status: int, headers: dict[str, str], body: bytes
        ) -> tuple[int, dict[str, str], bytes]:
            return (
                status,
                {**headers, "Location": headers["Location"].replace(proxy.host, other.host)},
                body,
            )

        proxy.break_(
            "GET|HEAD", "/v2/.*/blobs/.*", status=401, headers={"WWW-Authenticate": "Basic realm=x"}
        )
        proxy.break_("POST", _START, change=elsewhere)
        content = content_of(500)
        made, _ = opened(proxy.host, name)
        Pusher(made).blob(Blob.of_bytes(content))
        assert any("Authorization" in one.headers for one in proxy.asked)
        assert [one.method for one in other.asked] == ["PUT"]
        assert not any("Authorization" in one.headers for one in other.asked)
    assert held(registry, name, Digest.of(content)) == content


def test_a_blob_is_mounted_from_a_repository_of_the_same_registry(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str
) -> None:
    content = content_of(5000)
    registry.put_blob("base/image", content)
    made, _ = opened(proxy.host, name)
    blob = Blob.of_bytes(content)
    assert Pusher(made).blob(blob, mount_from=("base/image",)) is How.MOUNTED
    assert held(registry, name, Digest.of(content)) == content
    assert made.traffic.bytes_sent == 0
    assert Pusher(made).blob(blob, mount_from=("base/image",), look=False) is How.MOUNTED


@pytest.mark.parametrize("status", [None, 202, 400, 403, 405])
def test_a_refused_mount_is_sent_instead(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str, status: int | None
) -> None:
    content = content_of(5000, seed=status or 7)
    if status is None:  # the registry says 202 where it does not have the blob
        source = "base/without"
    elif status == 202:  # a registry that has it and does not mount

        def plain(path: str) -> str:
            return path.partition("?")[0]

        source = "base/image"
        registry.put_blob(source, content)
        proxy.break_("POST", _START + ".*mount.*", reach=plain)
    else:
        source = "base/image"
        registry.put_blob(source, content)
        proxy.break_("POST", r".*\?mount=.*", status=status)
    made, _ = opened(proxy.host, name)
    assert Pusher(made).blob(Blob.of_bytes(content), mount_from=(source,)) is How.SENT
    assert held(registry, name, Digest.of(content)) == content
    assert made.traffic.bytes_sent == 5000
    if status in (None, 202):  # the upload that the registry began is the one that is used
        assert proxy.count("POST", ".*") == 1


def test_a_blob_of_another_registry_is_copied_through(
    registry: RunningRegistry, name: str, tmp_path: Path
) -> None:
    content = content_of(900_000)
    with running_registry(tmp_path / "other") as other:
        other.put_blob("base/image", content)
        source, _ = opened(other.host, "base/image")
        made, _ = opened(registry.host, name)
        blob = Blob.of_registry(source, Digest.of(content), len(content))
        assert Pusher(made, chunk=300_000).blob(blob) is How.COPIED
    assert held(registry, name, Digest.of(content)) == content
    assert source.traffic.blob_bytes_received == 900_000
    assert made.traffic.bytes_sent == 900_000


def test_a_source_that_gives_other_bytes_is_not_taken(
    registry: RunningRegistry, name: str, tmp_path: Path
) -> None:
    content = content_of(1000)
    (tmp_path / "layer").write_bytes(content_of(1000, seed=2))
    made, _ = opened(registry.host, name)
    blob = Blob.of_file(tmp_path / "layer", Digest.of(content), 1000)
    with pytest.raises(EnvironmentProblem, match="DIGEST_INVALID"):
        Pusher(made).blob(blob)
    assert held(registry, name, Digest.of(content)) is None


@pytest.mark.parametrize("cut", [0, 1, 50_000, 99_999])
def test_a_cut_in_mid_chunk_is_gone_on_from(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str, cut: int
) -> None:
    """The registry lost the cut chunk or kept its beginning; either way the blob gets there."""
    content = content_of(500_000)
    proxy.break_("PATCH", _UPLOADS, after=2, cut=cut)
    made, pauses = opened(proxy.host, name)
    assert Pusher(made, chunk=100_000).blob(Blob.of_bytes(content)) is How.SENT
    assert held(registry, name, Digest.of(content)) == content
    assert len(pauses) >= 1
    assert made.traffic.bytes_sent <= 2 * 500_000


@pytest.mark.parametrize("times", [1, 3])
def test_what_the_registry_says_it_has_is_not_sent_again(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str, times: int
) -> None:
    """The chunks got there and their answers did not."""
    proxy.stable_uploads = True
    proxy.break_("PATCH", _UPLOADS, after=1, times=times, drop=True)
    content = content_of(500_000)
    made, pauses = opened(proxy.host, name)
    Pusher(made, chunk=100_000).blob(Blob.of_bytes(content))
    assert held(registry, name, Digest.of(content)) == content
    assert made.traffic.bytes_sent == 500_000
    assert len(pauses) == times


def test_a_request_that_never_got_there_is_sent_again_and_nothing_else(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str
) -> None:
    """docker-registry 2.8 as it is: it knows an upload as long as no answer of it was lost."""
    proxy.break_("PATCH", _UPLOADS, after=2, status=503)
    content = content_of(500_000)
    made, _ = opened(proxy.host, name)
    Pusher(made, chunk=100_000).blob(Blob.of_bytes(content))
    assert held(registry, name, Digest.of(content)) == content
    assert made.traffic.bytes_sent == 600_000
    assert proxy.count("POST", _START) == 1


def test_an_answer_to_the_last_put_that_is_lost_is_no_loss(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str
) -> None:
    content = content_of(5000)
    proxy.break_("PUT", _UPLOADS, drop=True)
    made, _ = opened(proxy.host, name)
    Pusher(made).blob(Blob.of_bytes(content))
    assert held(registry, name, Digest.of(content)) == content
    assert proxy.count("PUT", ".*") == 1  # it was seen to be there


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "HEAD"])
@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_a_registry_says_to_come_back_for_is_done_again(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str, method: str, status: int
) -> None:
    content = content_of(3000, seed=status)
    proxy.break_(method, "/v2/.*blobs.*", times=2, status=status, headers={"Retry-After": "7"})
    made, pauses = opened(proxy.host, name)
    Pusher(made, chunk=1000).blob(Blob.of_bytes(content))
    assert held(registry, name, Digest.of(content)) == content
    assert len(pauses) == 2
    assert min(pauses) >= 7


def test_a_session_that_the_registry_forgot_is_begun_again(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str
) -> None:
    content = content_of(3000)
    proxy.break_("PATCH", _UPLOADS, after=1, status=404)
    proxy.break_("GET", _UPLOADS, status=404)
    made, _ = opened(proxy.host, name)
    Pusher(made, chunk=1000).blob(Blob.of_bytes(content))
    assert held(registry, name, Digest.of(content)) == content
    assert proxy.count("POST", _START) == 2


def test_a_proxy_that_takes_no_long_request_gets_shorter_ones(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str
) -> None:
    content = content_of(5 << 20)
    proxy.break_("PUT|PATCH", _UPLOADS, times=2, status=413)
    made, _ = opened(proxy.host, name)
    Pusher(made).blob(Blob.of_bytes(content))
    assert held(registry, name, Digest.of(content)) == content
    sizes = [one.sent for one in proxy.asked if one.method == "PATCH"]
    assert sizes[-1] < 2 << 20


def test_a_registry_that_never_gets_well_ends_in_one_message(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str
) -> None:
    proxy.break_("PUT", _UPLOADS, times=None, status=500)
    made, pauses = opened(proxy.host, name)
    with pytest.raises(EnvironmentProblem, match=r"cannot send blob .*500.*tried 5 times"):
        Pusher(made).blob(Blob.of_bytes(content_of(300)))
    assert len(pauses) == 4
    assert pauses == sorted(pauses) or max(pauses) < 10
    assert held(registry, name, Digest.of(content_of(300))) is None


def test_a_wait_that_is_too_long_is_told_and_not_waited(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str
) -> None:
    proxy.break_("POST", _START, times=None, status=429, headers={"Retry-After": "3600"})
    made, pauses = opened(proxy.host, name)
    with pytest.raises(EnvironmentProblem, match="asks us to wait 3600 s"):
        Pusher(made).blob(Blob.of_bytes(b"x"))
    assert pauses == []


def test_all_attempts_together_have_a_time_limit(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str
) -> None:
    proxy.break_("POST", _START, times=None, status=503)
    made, _ = opened(proxy.host, name, document=1.0, retries=1000)
    with pytest.raises(EnvironmentProblem, match="gave up after 1 s"):
        Pusher(made).blob(Blob.of_bytes(b"x"))


@pytest.mark.parametrize("what", ["PUT", "POST"])
def test_a_wrong_digest_echoed_is_an_error(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str, what: str
) -> None:
    content = content_of(2000)
    registry.put_blob("base/echo", content)

    def lie(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        return status, {**headers, "Docker-Content-Digest": f"sha256:{'0' * 64}"}, body

    proxy.break_(what, ".*", change=lie)
    made, _ = opened(proxy.host, name)
    mount = ("base/echo",) if what == "POST" else ()
    with pytest.raises(EnvironmentProblem, match=r"0000', which"):
        Pusher(made).blob(Blob.of_bytes(content), mount_from=mount)


def test_a_blob_that_was_taken_and_is_not_there_is_an_error(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str
) -> None:
    proxy.break_("HEAD", ".*", times=None, status=404)
    made, _ = opened(proxy.host, name)
    with pytest.raises(EnvironmentProblem, match=r"took blob .* and does not have it"):
        Pusher(made).blob(Blob.of_bytes(b"x"))


def test_a_blob_of_another_size_under_the_digest_is_an_error(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str
) -> None:
    proxy.break_("HEAD", ".*", status=200, headers={"Content-Length": "5"})
    made, _ = opened(proxy.host, name)
    with pytest.raises(EnvironmentProblem, match="with 5 bytes, it has 1"):
        Pusher(made).blob(Blob.of_bytes(b"x"))


def manifest_for(registry: RunningRegistry, name: str) -> bytes:
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": []}})
    digest = registry.put_blob(name, config.encode())
    described = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest}
    value = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": [], "x-own": [3, 1]}
    return json.dumps({**value, "config": {**described, "size": len(config)}}, indent=3).encode()


def test_a_manifest_goes_byte_for_byte_and_twice_is_once(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str
) -> None:
    content = manifest_for(registry, name)
    made, _ = opened(proxy.host, name)
    pusher = Pusher(made)
    pusher.document(content, MANIFEST)
    assert registry.manifest(name, str(Digest.of(content))) == content
    pusher.document(content, MANIFEST)
    assert proxy.count("PUT", ".*") == 1
    assert registry.tags(name) == []
    pusher.manifest(content, MANIFEST, "tag")
    assert pusher.read_back(content, "tag")
    assert registry.tags(name) == ["tag"]


def test_a_manifest_that_comes_back_otherwise_is_an_error(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str
) -> None:
    content = manifest_for(registry, name)

    def other(
        status: int, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        headers.pop("Docker-Content-Digest", None)
        return status, headers, body.replace(b"x-own", b"y-own")

    proxy.break_("GET", ".*/manifests/.*", after=1, times=None, change=other)
    made, _ = opened(proxy.host, name)
    with pytest.raises(EnvironmentProblem, match="its bytes are"):
        Pusher(made).document(content, MANIFEST)


def test_a_place_without_tls_is_not_gone_to(
    registry: RunningRegistry, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.registries import make_certificates

    made_by = make_certificates(tmp_path / "tls")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(made_by["ca.crt"]))
    pair = (made_by["certificate"], made_by["key"])
    with running_registry(tmp_path / "r", certificate=pair) as secure:
        made, _ = opened(secure.host, name)
        url = made.session.url(f"{name}/blobs/uploads/")
        assert url.startswith("https://")
        with pytest.raises(EnvironmentProblem, match="sends us from https to http"):
            made.session.check_target(url, f"http://{registry.host}/v2/x")


def test_no_proxy_leads_to_loopback(
    registry: RunningRegistry, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    made, _ = opened(registry.host, name)
    assert Pusher(made).blob(Blob.of_bytes(b"through")) is How.SENT


def test_the_test_registry_is_a_real_one(registry: RunningRegistry) -> None:
    status, headers, _ = registry.get("/v2/")
    assert status == 200
    assert headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert registry.process is not None
    assert "docker-registry" in str(Path(f"/proc/{registry.process.pid}/exe").readlink())
