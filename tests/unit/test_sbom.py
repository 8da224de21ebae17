"""The bill of materials, judged by CycloneDX's own library."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import TYPE_CHECKING

import pytest
from packageurl import PackageURL
from tests.images import LayoutMaker
from tests.papers import valid_sbom
from tests.stack import GATE, Stack, make_stack

from stackpatch.artefacts.base import open_base
from stackpatch.artefacts.lock import Output
from stackpatch.artefacts.sbom import make_sbom
from stackpatch.artefacts.vcs import commit_page, repository_uri
from stackpatch.model.arch import parse_arch

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.artefacts.lock import Inputs

WHEEL = Output("demo-1.2.3+sp.x-py3-none-any.whl", 3, "a" * 64)
IMAGE = f"sha256:{'b' * 64}"


def sbom(stack: Stack, base: str = "scratch") -> bytes:
    plan = stack.plan(base=open_base(base, parse_arch("sm121")))
    return make_sbom(plan.inputs, plan.patches, WHEEL, IMAGE)


def test_it_is_cyclonedx(tmp_path: Path) -> None:
    document = valid_sbom(sbom(make_stack(tmp_path)))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert "timestamp" not in document["metadata"]


def test_the_validator_can_fail(tmp_path: Path) -> None:
    raw = sbom(make_stack(tmp_path)).replace(b'"unofficial"', b'"homemade"')
    with pytest.raises(AssertionError):
        valid_sbom(raw)


def test_the_wheel_has_its_patches_in_its_pedigree(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    component = valid_sbom(sbom(stack))["metadata"]["component"]
    version = stack.plan(base=open_base("scratch", parse_arch("sm121"))).inputs.patched
    assert component["version"] == version
    assert PackageURL.from_string(component["purl"]).version == version
    assert component["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    pedigree = component["pedigree"]
    assert [patch["type"] for patch in pedigree["patches"]] == ["unofficial", "unofficial"]
    assert pedigree["patches"][0]["diff"]["text"]["content"] == GATE
    assert [i["id"] for i in pedigree["patches"][0]["resolves"]] == ["demo/demo#77", "demo/demo#7"]
    assert pedigree["patches"][0]["resolves"][1]["source"] == {
        "name": "github.com",
        "url": "https://github.com/demo/demo/issues/7",
    }
    assert "resolves" not in pedigree["patches"][1]
    assert component["properties"][0] == {
        "name": "stackpatch:patch:0001-gate.patch",
        "value": f"sha256:{stack.series.patches[0].sha256}",
    }


def test_the_ancestor_is_the_released_wheel(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    pedigree = valid_sbom(sbom(stack))["metadata"]["component"]["pedigree"]
    ancestor = pedigree["ancestors"][0]
    assert (ancestor["name"], ancestor["version"]) == ("demo", "1.2.3")
    assert ancestor["hashes"][0]["content"] == stack.recipe.release().artefacts[0].sha256
    assert PackageURL.from_string(ancestor["purl"]).qualifiers == {
        "file_name": "demo-1.2.3-py3-none-any.whl"
    }
    commit = pedigree["commits"][0]
    assert commit["uid"] == "a123456789012345678901234567890123456789"
    assert commit["url"] == f"https://git.test/demo/demo/commit/{commit['uid']}"


def test_a_backport_is_called_one(tmp_path: Path) -> None:
    gate = GATE.replace("Submitted [", "Backport [")
    patches = valid_sbom(sbom(make_stack(tmp_path, gate=gate)))["metadata"]["component"]["pedigree"]
    assert patches["patches"][0]["type"] == "backport"


def test_a_patch_that_is_not_utf8_is_encoded(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    plan = stack.plan(base=open_base("scratch", parse_arch("sm121")))
    odd = dataclasses.replace(plan.patches[0], raw=GATE.encode() + b"\xff")
    document = valid_sbom(make_sbom(plan.inputs, (odd,), WHEEL, IMAGE))
    text = document["metadata"]["component"]["pedigree"]["patches"][0]["diff"]["text"]
    assert text["encoding"] == "base64"
    assert base64.b64decode(text["content"]) == odd.raw


def test_the_image_and_its_base_are_components(tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "base")
    descriptor = maker.image([], architecture="arm64")
    layout = maker.write(
        {**descriptor, "annotations": {"io.containerd.image.name": "registry.test/a/base:1"}}
    )
    document = valid_sbom(sbom(make_stack(tmp_path), str(layout)))
    image, base = document["components"]
    assert (image["type"], base["type"]) == ("container", "container")
    assert base["name"] == "registry.test/a/base:1"
    assert base["version"] == descriptor["digest"]
    wheel = document["metadata"]["component"]["bom-ref"]
    depends = {one["ref"]: one["dependsOn"] for one in document["dependencies"]}
    assert depends[image["bom-ref"]] == [wheel, base["bom-ref"]]


def test_the_same_inputs_give_the_same_document(tmp_path: Path) -> None:
    one, two = make_stack(tmp_path / "a"), make_stack(tmp_path / "b")
    assert sbom(one) == sbom(two)
    other = make_stack(tmp_path / "c", gate=GATE.replace("no reason", "a reason"))
    assert json.loads(sbom(other))["serialNumber"] != json.loads(sbom(one))["serialNumber"]


def from_git(stack: Stack) -> Inputs:
    plan = stack.plan(base=open_base("scratch", parse_arch("sm121")))
    return dataclasses.replace(plan.inputs, wheel=None, checkout={"submodules": True})


def test_the_ancestor_of_a_build_from_git_is_its_commit(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    plan = stack.plan(base=open_base("scratch", parse_arch("sm121")))
    component = valid_sbom(make_sbom(from_git(stack), plan.patches, None, IMAGE))["metadata"]
    library = component["component"]
    assert "hashes" not in library
    (ancestor,) = library["pedigree"]["ancestors"]
    assert "hashes" not in ancestor
    assert PackageURL.from_string(ancestor["purl"]).qualifiers == {
        "vcs_url": "git+https://git.test/demo/demo.git@a123456789012345678901234567890123456789"
    }
    assert ancestor["externalReferences"] == [
        {"type": "vcs", "url": "https://git.test/demo/demo.git"}
    ]
    (commit,) = library["pedigree"]["commits"]
    assert commit["uid"] == "a123456789012345678901234567890123456789"
    assert len(library["pedigree"]["patches"]) == 2


@pytest.mark.parametrize(
    ("git", "uri", "page"),
    [
        ("https://git.test/a/b.git", "https://git.test/a/b.git", "https://git.test/a/b/commit/c"),
        ("git@git.test:a/b.git", "ssh://git@git.test/a/b.git", None),
        ("/srv/a b", "file:///srv/a%20b", None),
        ("ssh://git@git.test/a", "ssh://git@git.test/a", None),
    ],
)
def test_a_repository_is_named_by_a_uri(git: str, uri: str, page: str | None) -> None:
    assert repository_uri(git) == uri
    assert commit_page(git, "c") == page


def test_a_repository_that_is_on_no_web_server_has_no_page(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    inputs = dataclasses.replace(from_git(stack), git="git@git.test:a/b.git")
    document = valid_sbom(make_sbom(inputs, (), None, IMAGE))
    library = document["metadata"]["component"]["pedigree"]
    assert "url" not in library["commits"][0]
    (reference,) = library["ancestors"][0]["externalReferences"]
    assert reference["url"] == "ssh://git@git.test/a/b.git"
