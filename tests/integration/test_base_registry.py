"""Bases in a registry that asks for a login, lies, or holds something else than an image."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.images import INDEX, LayoutMaker, tar_layer
from tests.registries import RunningRegistry, running_registry
from tests.shop import Shop
from tests.unit.test_base_remote import BIG, index_of
from tests.unit.test_overlay import installed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ARTEFACT = "application/vnd.oci.image.manifest.v1+json"
CHART = "application/vnd.cncf.helm.config.v1+json"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", "replaced by the shop, restored by pytest")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return Shop(tmp_path)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path / "registry") as running:
        yield running


def layout(shop: Shop) -> Path:
    maker = LayoutMaker(shop.folder / "base")
    arm = maker.image([tar_layer(BIG), tar_layer(installed())], architecture="arm64")
    amd = maker.image([tar_layer(BIG)], architecture="amd64")
    return maker.write(index_of(maker, amd, arm))


def test_an_index_in_a_registry_and_its_documents_kept(
    shop: Shop, registry: RunningRegistry
) -> None:
    digest = registry.put_layout("a/base", layout(shop), "v1")
    ran = shop.build("--base", f"{registry.host}/a/base:v1")
    assert ran.status == 0, ran.err
    lock = json.loads((shop.folder / ran.document["lock"]).read_bytes())
    base = lock["inputs"]["base"]
    assert (base["name"], base["index"]) == (f"{registry.host}/a/base:v1", digest)
    assert base["digest"] != digest
    # The registry goes away: what was read is kept by its digest, the layers are not.
    assert registry.process is not None
    registry.process.terminate()
    registry.process.wait(timeout=10)
    again = shop.build("--base", f"{registry.host}/a/base@{digest}", "--dry-run", "--offline")
    assert again.status == 0, again.err
    assert again.document["plan"]["base"]["digest"] == base["digest"]
    cut = shop.build(
        "--base", f"{registry.host}/a/base@{digest}", "--offline", out=shop.folder / "x"
    )
    assert cut.status == 2
    assert "--offline forbids" in cut.document["error"]["message"]


def test_a_kept_document_that_was_damaged_is_read_again(
    shop: Shop, registry: RunningRegistry
) -> None:
    digest = registry.put_layout("a/base", layout(shop), "v1")
    words = ("--base", f"{registry.host}/a/base@{digest}", "--dry-run")
    assert shop.build(*words).status == 0
    kept = list((shop.folder / "cache" / "images" / "sha256").iterdir())
    assert len(kept) == 3
    for path in kept:
        path.write_bytes(b"{}")
    assert shop.build(*words, "--offline").status == 2
    assert shop.build(*words).status == 0


def test_a_registry_that_wants_a_login(shop: Shop, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("")
    auth = {"htpasswd": {"realm": "here", "path": str(users)}}
    with running_registry(tmp_path / "closed", auth=auth) as closed:
        ran = shop.build("--base", f"{closed.host}/a/base:v1")
    assert ran.status == 3
    said = f"{ran.document['error']['message']} {ran.document['error']['hint']}"
    assert closed.host in said
    assert "login" in said


def test_a_layer_whose_bytes_are_others(shop: Shop, registry: RunningRegistry) -> None:
    place = layout(shop)
    registry.put_layout("a/base", place, "v1")
    for data in registry.storage.glob("docker/registry/v2/blobs/sha256/*/*/data"):
        raw = bytearray(data.read_bytes())
        if raw[:2] == b"\x1f\x8b":
            raw[4] ^= 1  # still a gzip file of the same tar
            data.write_bytes(raw)
    ran = shop.build("--base", f"{registry.host}/a/base:v1")
    assert ran.status in (2, 3)
    assert not list(shop.out.rglob("lock.json"))


def test_what_is_no_image(shop: Shop, registry: RunningRegistry) -> None:
    empty = registry.put_blob("a/chart", b"{}")
    document = {
        "schemaVersion": 2,
        "mediaType": ARTEFACT,
        "config": {
            "mediaType": "application/vnd.cncf.helm.config.v1+json",
            "digest": empty,
            "size": 2,
        },
        "layers": [],
    }
    registry.put_manifest("a/chart", "v1", json.dumps(document).encode(), ARTEFACT)
    nothing = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
    registry.put_manifest("a/empty", "v1", nothing, INDEX)
    for name in ("a/chart", "a/empty"):
        ran = shop.build("--base", f"{registry.host}/{name}:v1")
        assert ran.status == 2
        assert "holds no image for linux/arm64" in ran.document["error"]["message"]
        assert ran.document["error"]["hint"] == "it holds no image at all"


def test_a_killed_build_leaves_nothing(shop: Shop, registry: RunningRegistry) -> None:
    """SIGKILL while the base is read; the next build is whole."""
    import os
    import sys
    import time

    registry.put_layout("a/base", layout(shop), "v1")
    code = (
        "import sys, time\n"
        "from stackpatch.artefacts import finding\n"
        "def slow(*_): print('reading', flush=True); time.sleep(60)\n"
        "finding._read = slow\n"
        "from stackpatch.cli.main import main\n"
        f"sys.exit(main(['build', 'demo', '--arch', 'sm121', '--root', {str(shop.root)!r},"
        f" '--out', {str(shop.out)!r}, '--base', '{registry.host}/a/base:v1']))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=dict(os.environ)
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"reading\n"
    child.kill()
    child.wait(timeout=10)
    child.stdout.close()
    time.sleep(0.1)
    assert not list(shop.out.rglob("lock.json"))
    ran = shop.build("--base", f"{registry.host}/a/base:v1")
    assert ran.status == 0, ran.err
    assert not list(shop.out.rglob("*.tmp"))
