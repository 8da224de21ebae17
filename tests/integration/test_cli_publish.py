"""`stackpatch publish` through the real entry point, after `stackpatch build`."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.publishing import base_layout
from tests.registries import (
    RunningRegistry,
    docker_login,
    htpasswd,
    running_registry,
)
from tests.shop import OTHER_GATE, Shop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.projects import Ran


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", "replaced by the shop, restored by pytest")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return Shop(tmp_path)


def publish(shop: Shop, to: str, *words: str, arch: str = "sm121") -> Ran:
    place = ("--out", str(shop.out))
    return shop.run("publish", "demo", "--arch", arch, "--to", to, *place, *words)


def test_stdout_is_the_digest_and_nothing_else(
    shop: Shop, registry: RunningRegistry, name: str
) -> None:
    assert shop.build().status == 0
    ran = publish(shop, f"{registry.host}/{name}:v1")
    assert ran.status == 0, ran.err
    index = registry.manifest(name, "v1")
    assert index is not None
    digest = f"sha256:{hashlib.sha256(index).hexdigest()}"
    assert ran.out == f"{registry.host}/{name}@{digest}\n"
    assert f"{name}:v1 now names {digest}" in ran.err
    assert "sbom.cdx.json" in ran.err
    again = publish(shop, f"{registry.host}/{name}:v1")
    assert again.out == ran.out
    assert "already named" in again.err


def test_the_document_has_what_was_promised(
    shop: Shop, registry: RunningRegistry, name: str
) -> None:
    assert shop.build().status == 0
    ran = publish(shop, f"{registry.host}/{name}:v1", "--json")
    document = ran.document
    assert document["schema"] == "stackpatch.publish/1"
    assert document["reference"] == f"{registry.host}/{name}@{document['digest']}"
    assert (document["stack"], document["arch"], document["tag"]) == ("demo", "sm121", "v1")
    assert document["bytes_sent"] > document["layer_bytes_sent"] > 0
    assert (document["blobs_mounted"], document["blobs_sent"]) == (0, 2)
    assert [one["name"] for one in document["referrers"]] == [
        "sbom.cdx.json",
        "provenance.json",
        "lock.json",
    ]


def test_without_a_tag_the_release_and_the_series_name_it(
    shop: Shop, registry: RunningRegistry, name: str
) -> None:
    assert shop.build().status == 0
    ran = publish(shop, f"{registry.host}/{name}", "--json")
    tag = ran.document["tag"]
    assert tag.startswith("1.2.3_sp.")
    assert tag in registry.tags(name)


def test_two_arches_share_the_tag(shop: Shop, registry: RunningRegistry, name: str) -> None:
    for arch in ("sm121", "sm120"):
        ran = shop.run("build", "demo", "--arch", arch, "--out", str(shop.out), "--json")
        assert ran.status == 0, ran.err
        assert publish(shop, f"{registry.host}/{name}", arch=arch).status == 0
    (tag,) = [one for one in registry.tags(name) if not one.startswith("sha256-")]
    raw = registry.manifest(name, tag)
    assert raw is not None
    shown = {
        entry["annotations"]["stackpatch.arch"]: entry["platform"]["architecture"]
        for entry in json.loads(raw)["manifests"]
    }
    assert shown == {"sm120": "amd64", "sm121": "arm64"}


def test_an_existing_tag_stays_unless_replace_is_said(
    shop: Shop, registry: RunningRegistry, name: str
) -> None:
    assert shop.build().status == 0
    to = f"{registry.host}/{name}:v1"
    assert publish(shop, to).status == 0
    before = registry.manifest(name, "v1")
    shop.write(gate=OTHER_GATE)
    assert shop.build().status == 0
    ran = publish(shop, to)
    assert ran.status == 1
    assert ran.out == ""
    assert "--replace" in ran.err
    assert registry.manifest(name, "v1") == before
    ran = publish(shop, to, "--replace")
    assert ran.status == 0, ran.err
    assert "gone" in ran.err
    assert registry.manifest(name, "v1") != before


def test_a_recipe_that_changed_since_the_build_is_told(
    shop: Shop, registry: RunningRegistry, name: str
) -> None:
    assert shop.build().status == 0
    shop.write(changes=("12.1a", "12.1f"))
    ran = publish(shop, f"{registry.host}/{name}:v1")
    assert ran.status == 1
    assert 'DEMO_ARCH: "12.1a" → "12.1f"' in ran.err
    assert registry.tags(name) == []


def test_nothing_built_yet_is_told(shop: Shop, registry: RunningRegistry, name: str) -> None:
    ran = publish(shop, f"{registry.host}/{name}:v1")
    assert ran.status == 2
    assert "stackpatch build" in ran.err


def test_a_failed_smoke_test_stops_it(shop: Shop, registry: RunningRegistry, name: str) -> None:
    built = shop.build()
    wheel = built.document["wheel"]
    from pathlib import Path

    folder = Path(wheel["path"]).parent
    smoke = {
        "schema": "stackpatch.smoke/1",
        "subject": {"sha256": wheel["sha256"]},
        "checks": [{"name": "numbers", "status": "failed"}],
    }
    (folder / "smoke.json").write_text(json.dumps(smoke))
    to = f"{registry.host}/{name}:v1"
    ran = publish(shop, to)
    assert ran.status == 1
    assert "--even-if-failed" in ran.err
    assert registry.tags(name) == []
    ran = publish(shop, to, "--even-if-failed", "--json")
    assert ran.status == 0, ran.err
    raw = registry.manifest(name, "v1")
    assert raw is not None
    (entry,) = json.loads(raw)["manifests"]
    assert entry["annotations"]["stackpatch.smoke"].startswith("failed (0 passed, 1 failed")
    assert "smoke.json" in [one["name"] for one in ran.document["referrers"]]


@pytest.mark.parametrize(
    ("to", "told"),
    [
        ("127.0.0.1:1/Me/X:v1", "has no capitals"),
        ("127.0.0.1:1/x:0.6.3+sp", "write 0.6.3_sp"),
        (f"127.0.0.1:1/x@sha256:{'0' * 64}", "a digest says what is pushed"),
        ("https://127.0.0.1:1/x", "write it without https://"),
        ("me:s3cret@127.0.0.1:1/x", "docker login"),
    ],
)
def test_a_wrong_target_is_one_message_before_anything_else(shop: Shop, to: str, told: str) -> None:
    ran = publish(shop, to)
    assert ran.status == 2
    assert told in ran.err
    assert "s3cret" not in ran.err
    assert ran.out == ""


def test_a_registry_that_is_not_there_is_the_environment(shop: Shop) -> None:
    assert shop.build().status == 0
    ran = publish(shop, "127.0.0.1:9/x:v1", "--json")
    assert ran.status == 3
    assert ran.document["error"]["kind"] == "environment"
    assert "127.0.0.1:9" in ran.document["error"]["message"]


def test_a_login_that_is_missing_and_one_that_is_wrong(
    shop: Shop, tmp_path: Path, name: str
) -> None:
    assert shop.build().status == 0
    with running_registry(tmp_path / "r", auth=htpasswd(tmp_path, "me", "right-one")) as closed:
        to = f"{closed.host}/{name}:v1"
        ran = publish(shop, to, "--json")
        assert ran.status == 3
        assert "docker login" in ran.document["error"]["hint"]
        docker_login(tmp_path / "docker", closed.host, "me", "wrong-one")
        ran = publish(shop, to, "--json")
        assert ran.status == 3
        assert "wrong-one" not in ran.out + ran.err
        docker_login(tmp_path / "docker", closed.host, "me", "right-one")
        ran = publish(shop, to)
        assert ran.status == 0, ran.err
        assert "right-one" not in ran.out + ran.err


def test_a_base_in_the_same_registry_is_mounted(
    shop: Shop, registry: RunningRegistry, name: str, tmp_path: Path
) -> None:
    registry.put_layout(f"{name}/base", base_layout(tmp_path / "base"), "v1")
    ran = shop.build("--base", f"{registry.host}/{name}/base:v1")
    assert ran.status == 0, ran.err
    ran = publish(shop, f"{registry.host}/{name}:v1", "--json")
    assert ran.status == 0, ran.err
    assert ran.document["blobs_mounted"] == 2
    assert ran.document["base_bytes_read"] == 0


def test_a_process_that_is_killed_leaves_no_tag(
    shop: Shop, registry: RunningRegistry, name: str
) -> None:
    """Killed at several moments; what is in the registry then is either nothing or whole."""
    assert shop.build().status == 0
    argv = [sys.executable, "-m", "stackpatch", "publish", "demo", "--arch", "sm121"]
    argv += ["--root", str(shop.root), "--out", str(shop.out)]
    for number, seconds in enumerate((0.3, 0.5, 0.7, 0.9, 1.2)):
        repository = f"{name}-{number}"
        to = [*argv, "--to", f"{registry.host}/{repository}:v1"]
        child = subprocess.Popen(to, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if "v1" in registry.tags(repository):
            raw = registry.manifest(repository, "v1")
            assert raw is not None
            (entry,) = json.loads(raw)["manifests"]
            assert registry.manifest(repository, entry["digest"]) is not None
        assert publish(shop, f"{registry.host}/{repository}:v1").status == 0


def test_help_reaches_no_network_and_imports_no_client() -> None:
    code = (
        "import sys; from stackpatch.cli.main import main; main(['publish', '--help']);"
        "sys.exit(bool({'requests', 'pygit2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert b"--even-if-failed" in done.stdout
