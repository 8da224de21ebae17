"""Publishing the small stack into a real registry; skopeo and the registry itself judge."""

from __future__ import annotations

import hashlib
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from tests.publishing import base_layout, finished_build, publish, smoke_of
from tests.registries import RunningRegistry, running_registry
from tests.stack import GATE

from stackpatch.artefacts.base import open_base
from stackpatch.artefacts.build import build
from stackpatch.cli.images import opener
from stackpatch.errors import FindingError, InputError
from stackpatch.model.arch import parse_arch
from stackpatch.registry.finished import Finished, open_finished
from stackpatch.registry.publish import refuse_failed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faulty_registry import FaultyRegistry

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def index_of(registry: RunningRegistry, name: str, tag: str = "t") -> dict[str, Any]:
    found = registry.manifest(name, tag)
    assert found is not None
    parsed: dict[str, Any] = json.loads(found)
    return parsed


def skopeo(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["skopeo", *words], capture_output=True, text=True, check=True)


def test_a_build_becomes_an_index_with_one_image_and_its_papers(
    registry: RunningRegistry, name: str, small: Finished
) -> None:
    done = publish(small, registry.host, name)
    index = registry.manifest(name, "t")
    assert index is not None
    assert f"sha256:{hashlib.sha256(index).hexdigest()}" == str(done.digest)
    (entry,) = json.loads(index)["manifests"]
    assert entry["digest"] == small.outputs.image
    assert entry["platform"] == {"architecture": "arm64", "os": "linux"}
    assert entry["annotations"] == {
        "stackpatch.arch": "sm121",
        "stackpatch.release": "1.2.3",
        "stackpatch.smoke": "not run",
        "stackpatch.stack": "demo",
        "stackpatch.version": small.inputs["patched-version"],
    }
    # The manifest is the layout's, byte for byte.
    assert registry.manifest(name, entry["digest"]) == small.image.manifest
    assert [paper.name for paper in done.referrers] == [
        "sbom.cdx.json",
        "provenance.json",
        "lock.json",
    ]
    assert set(registry.tags(name)) == {"t", entry["digest"].replace(":", "-")}
    assert done.json()["reference"] == f"{registry.host}/{name}@{done.digest}"
    assert done.json()["blobs_sent"] == 2
    sent = done.bytes_sent
    layers = sum(layer.size for layer in small.image.layers)
    assert done.layer_bytes == layers
    papers = sum((small.folder / one.name).stat().st_size for one in done.referrers)
    assert sent - layers - papers < 9000, "manifests, config and index are all that is left"


def test_the_papers_name_the_image_and_hold_the_files(
    registry: RunningRegistry, name: str, small: Finished
) -> None:
    done = publish(small, registry.host, name)
    kinds = {}
    listing = index_of(registry, name, small.outputs.image.replace(":", "-"))
    assert listing["mediaType"] == INDEX
    for entry in listing["manifests"]:
        raw = registry.manifest(name, entry["digest"])
        assert raw is not None
        manifest = json.loads(raw)
        assert manifest["subject"] == {
            "mediaType": MANIFEST,
            "digest": small.outputs.image,
            "size": len(small.image.manifest),
        }
        assert manifest["artifactType"] == entry["artifactType"]
        assert entry["annotations"] == manifest["annotations"]
        assert entry["annotations"]["org.opencontainers.image.created"] == "2026-02-05T00:00:24Z"
        (layer,) = manifest["layers"]
        title = layer["annotations"]["org.opencontainers.image.title"]
        status, _, content = registry.get(f"/v2/{name}/blobs/{layer['digest']}")
        assert status == 200
        assert content == (small.folder / title).read_bytes()
        kinds[title] = entry["artifactType"]
        config = registry.get(f"/v2/{name}/blobs/{manifest['config']['digest']}")[2]
        assert config == b"{}"
    assert kinds == {
        "sbom.cdx.json": "application/vnd.cyclonedx+json",
        "provenance.json": "application/vnd.in-toto+json",
        "lock.json": "application/vnd.stackpatch.lock.v1+json",
    }
    assert {str(paper.digest) for paper in done.referrers} == {
        entry["digest"] for entry in listing["manifests"]
    }


def test_skopeo_reads_what_was_pushed(
    registry: RunningRegistry, name: str, small: Finished, tmp_path: Path
) -> None:
    done = publish(small, registry.host, name)
    at = f"docker://{registry.host}/{name}@{done.digest}"
    shown = json.loads(
        skopeo("--override-arch", "arm64", "inspect", "--tls-verify=false", at).stdout
    )
    assert shown["Architecture"] == "arm64"
    assert shown["Labels"]["stackpatch.arch"] == "sm121"
    skopeo("copy", "--all", "--src-tls-verify=false", at, f"oci:{tmp_path / 'copy'}:x")
    held = {path.name for path in (tmp_path / "copy/blobs/sha256").iterdir()}
    assert small.outputs.image.removeprefix("sha256:") in held
    for layer in small.image.layers:
        assert layer.digest.hex in held


def test_a_second_time_sends_nothing_and_says_so(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str, small: Finished
) -> None:
    first = publish(small, proxy.host, name)
    before = len(proxy.asked)
    again = publish(small, proxy.host, name)
    assert again.digest == first.digest
    assert not again.moved
    assert again.bytes_sent == 0
    assert {one.method for one in proxy.asked[before:]} == {"GET", "HEAD"}


def test_the_tag_moves_after_everything_else(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str, small: Finished
) -> None:
    publish(small, proxy.host, name)
    sent = [one.path for one in proxy.asked if one.method in {"PUT", "POST", "PATCH"}]
    assert sent[-1].endswith("/manifests/t")
    assert [path.endswith("/manifests/t") for path in sent].count(True) == 1


@pytest.mark.parametrize("first", ["sm120", "sm121"])
def test_a_second_arch_joins_the_tag_and_the_order_does_not_show(
    registry: RunningRegistry, name: str, small: Finished, other_arch: Finished, first: str
) -> None:
    builds = [other_arch, small] if first == "sm120" else [small, other_arch]
    digests = [publish(one, registry.host, name).digest for one in builds]
    entries = index_of(registry, name)["manifests"]
    assert [one["annotations"]["stackpatch.arch"] for one in entries] == ["sm120", "sm121"]
    assert len(set(digests)) == 2
    assert {one["digest"] for one in entries} == {small.outputs.image, other_arch.outputs.image}
    reverse = f"{name}x"
    turned = [publish(one, registry.host, reverse).digest for one in reversed(builds)]
    assert turned[-1] == digests[-1]


def test_another_build_for_the_platform_does_not_move_the_tag_unasked(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str, small: Finished, tmp_path: Path
) -> None:
    first = publish(small, proxy.host, name)
    changed = finished_build(tmp_path, gate=GATE.replace("Closed for no", "Closed without a"))
    before = len(proxy.asked)
    with pytest.raises(FindingError, match="has another image for linux/arm64") as caught:
        publish(changed, proxy.host, name)
    assert "--replace" in str(caught.value.hint)
    assert {one.method for one in proxy.asked[before:]} <= {"GET", "HEAD"}, "nothing was sent"
    assert registry.manifest(name, "t") == registry.manifest(name, str(first.digest))
    done = publish(changed, proxy.host, name, replace=True)
    assert [entry["digest"] for entry in index_of(registry, name)["manifests"]] == [
        changed.outputs.image
    ]
    assert done.replaced == (f"linux/arm64 {small.outputs.image}",)
    # The old one is still there by its digest.
    assert registry.manifest(name, small.outputs.image) == small.image.manifest


def test_two_arches_that_a_pull_could_not_tell_apart_do_not_share_a_tag(
    registry: RunningRegistry, name: str, other_arch: Finished, tmp_path: Path
) -> None:
    publish(other_arch, registry.host, name)
    different = finished_build(
        tmp_path / "d", arch="sm120", gate=GATE.replace("Closed for no", "Closed without a")
    )
    relabelled = Finished(
        different.folder,
        {**different.inputs, "arch": {**different.inputs["arch"], "name": "sm90"}},
        different.outputs,
        different.layout,
        different.image,
        None,
        None,
    )
    with pytest.raises(FindingError, match="sm120, which is linux/amd64 too"):
        publish(relabelled, registry.host, name)


def test_a_tag_that_names_a_single_image_is_not_turned_into_an_index_unasked(
    registry: RunningRegistry, name: str, small: Finished, tmp_path: Path
) -> None:
    digest = registry.put_layout(name, base_layout(tmp_path / "base"), "t")
    with pytest.raises(FindingError, match="names a single image"):
        publish(small, registry.host, name)
    assert registry.manifest(name, "t") == registry.manifest(name, digest)
    publish(small, registry.host, name, replace=True)
    assert len(index_of(registry, name)["manifests"]) == 1


def test_what_others_put_into_the_index_stays_as_it_is(
    registry: RunningRegistry, name: str, small: Finished, tmp_path: Path
) -> None:
    digest = registry.put_layout(name, base_layout(tmp_path / "base", architecture="amd64"))
    content = registry.manifest(name, digest)
    assert content is not None
    foreign = {
        "mediaType": MANIFEST,
        "size": len(content),
        "digest": digest,
        "platform": {"os": "linux", "architecture": "amd64"},
        "x-own": {"b": 1, "a": 2},
    }
    theirs = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [foreign], "x": "kept"}
    registry.put_manifest(name, "t", json.dumps(theirs).encode(), INDEX)
    publish(small, registry.host, name)
    found = index_of(registry, name)
    assert found["manifests"][0] == foreign
    assert found["manifests"][1]["digest"] == small.outputs.image
    assert found["x"] == "kept"


def smoked(small: Finished, **checks: str) -> Finished:
    """The small build with this smoke.json beside it, read again."""
    (small.folder / "smoke.json").write_text(json.dumps(smoke_of(small, **checks)))
    return open_finished(small.folder, small.inputs)


def test_a_failed_smoke_test_is_refused_unless_asked_and_then_shown(
    registry: RunningRegistry, name: str, tmp_path: Path
) -> None:
    failed = smoked(finished_build(tmp_path), device="passed", numbers="failed", bench="not-run")
    with pytest.raises(FindingError, match="failed: numbers") as caught:
        refuse_failed(failed, even_if_failed=False)
    assert "--even-if-failed" in str(caught.value.hint)
    refuse_failed(failed, even_if_failed=True)
    done = publish(failed, registry.host, name)
    (entry,) = index_of(registry, name)["manifests"]
    said = "failed (1 passed, 1 failed, 1 not run): numbers"
    assert entry["annotations"]["stackpatch.smoke"] == said
    assert "smoke.json" in [paper.name for paper in done.referrers]
    # Mended later: the platform's image is the same, so the entry may change.
    mended = smoked(failed, device="passed", numbers="passed")
    publish(mended, registry.host, name)
    (entry,) = index_of(registry, name)["manifests"]
    assert entry["annotations"]["stackpatch.smoke"] == "passed (2 passed, 0 failed, 0 not run)"


def test_the_base_is_mounted_where_it_is_in_the_same_registry(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str, tmp_path: Path
) -> None:
    registry.put_layout(f"{name}-base", base_layout(tmp_path / "base"), "v1")
    finished = on_base(tmp_path, f"{proxy.host}/{name}-base:v1")
    asked = len(proxy.asked)
    done = publish(finished, proxy.host, name)
    assert done.json()["blobs_mounted"] == 2
    assert done.json()["blobs_sent"] == 2
    assert done.base_bytes_read == 0
    own = finished.image.layers[-1].size
    assert done.layer_bytes == own
    read = [a for a in proxy.asked[asked:] if a.method == "GET" and "/blobs/" in a.path]
    assert read == [], "no blob of the base was read"
    at = f"docker://{registry.host}/{name}:t"
    words = ("--override-arch", "arm64", "copy", "--src-tls-verify=false", at)
    skopeo(*words, f"oci:{tmp_path / 'copy'}:x")


def test_a_base_of_another_registry_is_copied_and_said_so(
    registry: RunningRegistry, name: str, tmp_path: Path
) -> None:
    with running_registry(tmp_path / "other") as other:
        other.put_layout("base/image", base_layout(tmp_path / "base"), "v1")
        finished = on_base(tmp_path, f"{other.host}/base/image:v1")
        done = publish(finished, registry.host, name)
    base = sum(layer.size for layer in finished.image.layers[:-1])
    assert done.base_bytes_read == base
    assert done.json()["blobs_copied"] == 2
    assert done.layer_bytes == base + finished.image.layers[-1].size
    words = ("--override-arch", "arm64", "copy", "--src-tls-verify=false")
    skopeo(*words, f"docker://{registry.host}/{name}:t", f"oci:{tmp_path / 'copy'}:x")


def test_a_refused_mount_of_the_base_is_copied_instead(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str, tmp_path: Path
) -> None:
    registry.put_layout(f"{name}-base", base_layout(tmp_path / "base"), "v1")
    finished = on_base(tmp_path, f"{proxy.host}/{name}-base:v1")
    proxy.break_("POST", r".*\?mount=.*", times=None, reach=lambda path: path.partition("?")[0])
    done = publish(finished, proxy.host, name)
    assert done.json()["blobs_mounted"] == 0
    assert done.json()["blobs_copied"] == 2
    assert done.base_bytes_read == sum(layer.size for layer in finished.image.layers[:-1])
    again = publish(finished, proxy.host, name)
    assert again.bytes_sent == 0


def on_base(folder: Path, base: str) -> Finished:
    """The small stack on a base in a registry, whose layers stay there."""
    from tests.stack import make_stack

    stack = make_stack(folder / "wheel")
    opened = open_base(base, parse_arch("sm121"), site=None, remote=opener())
    plan = stack.plan(base=opened)
    result = build(plan, opened, stack.prepared, out=folder / "dist")
    finished = open_finished(result.folder, plan.inputs.json())
    here = {path.name for path in (finished.layout.path / "blobs/sha256").iterdir()}
    assert finished.image.layers[0].digest.hex not in here
    return finished


def test_a_changed_file_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    finished = finished_build(tmp_path)
    (finished.folder / "sbom.cdx.json").write_text("{}")
    with pytest.raises(FindingError, match=r"does not match its lock: sbom\.cdx\.json is not as"):
        open_finished(finished.folder, finished.inputs)
    (finished.folder / "sbom.cdx.json").unlink()
    with pytest.raises(FindingError, match=r"sbom\.cdx\.json is missing"):
        open_finished(finished.folder, finished.inputs)


def test_a_layer_that_was_changed_in_place_is_refused(tmp_path: Path) -> None:
    finished = finished_build(tmp_path)
    path = finished.layout.blob_path(finished.image.layers[-1].digest)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(FindingError, match="is not as it was built"):
        open_finished(finished.folder, finished.inputs)


def test_a_build_of_another_recipe_is_refused_with_what_differs(tmp_path: Path) -> None:
    finished = finished_build(tmp_path)
    now = {**finished.inputs, "epoch": 1}
    with pytest.raises(FindingError, match=r"other inputs than there are now: epoch: \d+ → 1"):
        open_finished(finished.folder, now)


def test_no_build_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished build") as caught:
        open_finished(tmp_path, {})
    assert "stackpatch build" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"checks": [{"name": "x"}]}', "cannot be read"),
        ('{"checks": [], "subject": {"sha256": "00"}}', "about another build"),
        ('{"checks": [], "subject": {"digest": "sha256:00"}}', "about another build"),
    ],
)
def test_a_smoke_result_that_cannot_be_believed_stops_it(
    tmp_path: Path, content: str, why: str
) -> None:
    finished = finished_build(tmp_path)
    (finished.folder / "smoke.json").write_text(content)
    with pytest.raises(InputError, match=why):
        open_finished(finished.folder, finished.inputs)


def test_a_smoke_result_about_the_image_is_one_about_the_build(tmp_path: Path) -> None:
    """As `smoke --image` writes it, with the wheel of another build beside it or not."""
    finished = finished_build(tmp_path)
    wheel = finished.outputs.wheel
    assert wheel is not None
    for subject in (
        {"kind": "image", "digest": finished.outputs.image},
        {"kind": "image", "digest": finished.outputs.index},
        {"digest": "sha256:of-the-index-in-a-registry", "sha256": wheel.sha256},
        {},
    ):
        said = {**smoke_of(numbers="passed"), "subject": subject}
        (finished.folder / "smoke.json").write_text(json.dumps(said))
        again = open_finished(finished.folder, finished.inputs)
        assert again.smoke is not None
        assert again.smoke.failed == ()


def as_from_git(finished: Finished) -> dict[str, Any]:
    """Rewrite the build's lock as one of a build from git, which has no wheel; its inputs."""
    path = finished.folder / "lock.json"
    lock = json.loads(path.read_bytes())
    inputs: dict[str, Any] = {**lock["inputs"], "wheel": None}
    text = json.dumps(inputs, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    outputs = lock["outputs"]
    files = [one for one in outputs["files"] if one["path"] != outputs["wheel"]]
    lock |= {
        "inputs": inputs,
        "key": hashlib.sha256(text.encode()).hexdigest(),
        "outputs": {**outputs, "wheel": None, "files": files},
    }
    path.write_text(json.dumps(lock))
    return inputs


def test_a_build_from_git_is_published_with_the_same_papers(
    registry: RunningRegistry, name: str, tmp_path: Path
) -> None:
    finished = finished_build(tmp_path)
    inputs = as_from_git(finished)
    again = open_finished(finished.folder, inputs)
    assert again.outputs.wheel is None
    done = publish(again, registry.host, name)
    papers = ["sbom.cdx.json", "provenance.json", "lock.json"]
    assert [paper.name for paper in done.referrers] == papers
    assert index_of(registry, name)["manifests"][0]["digest"] == finished.outputs.image
    with pytest.raises(FindingError, match="other inputs than there are now: epoch"):
        open_finished(finished.folder, {**inputs, "epoch": 1})
    lock = json.loads((finished.folder / "lock.json").read_bytes())
    lock["inputs"]["epoch"] += 1
    (finished.folder / "lock.json").write_text(json.dumps(lock))
    with pytest.raises(InputError, match="was edited"):
        open_finished(finished.folder, inputs)


@pytest.mark.parametrize("content", ["", "[]", '{"schema": "x"}', '{"schema": 3, "inputs": 4}'])
def test_a_lock_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    finished = finished_build(tmp_path)
    (finished.folder / "lock.json").write_text(content)
    with pytest.raises(InputError, match=r"lock\.json"):
        open_finished(finished.folder, finished.inputs)
