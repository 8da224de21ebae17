"""The provenance statement, held to in-toto's and SLSA's published fields."""

from __future__ import annotations

import dataclasses
import json
import re
import urllib.parse
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from tests.images import LayoutMaker
from tests.stack import make_stack

from stackpatch.artefacts.base import open_base
from stackpatch.artefacts.lock import Inputs, Output
from stackpatch.artefacts.provenance import make_provenance
from stackpatch.model.arch import parse_arch

if TYPE_CHECKING:
    from pathlib import Path

WHEEL = Output("demo-1.2.3+sp.x-py3-none-any.whl", 3, "a" * 64)
IMAGE = f"sha256:{'b' * 64}"

# The fields of in-toto's ResourceDescriptor v1 and Statement v1 and of SLSA's provenance v1, as
# their specifications list them; there is no schema of theirs on the package index.

RESOURCE = {
    "type": "object",
    "additionalProperties": False,
    "minProperties": 1,
    "properties": {
        "name": {"type": "string"},
        "uri": {"type": "string", "pattern": "^[a-z][a-z0-9+.-]*:"},
        "digest": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": False,
            "properties": {
                "sha256": {"pattern": "^[0-9a-f]{64}$"},
                "gitCommit": {"pattern": "^[0-9a-f]{40}$"},
            },
        },
        "annotations": {"type": "object"},
        "mediaType": {"type": "string"},
        "downloadLocation": {"type": "string"},
        "content": {"type": "string"},
    },
    "anyOf": [{"required": ["uri"]}, {"required": ["digest"]}, {"required": ["content"]}],
}
STATEMENT: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["_type", "subject", "predicateType", "predicate"],
    "properties": {
        "_type": {"const": "https://in-toto.io/Statement/v1"},
        "subject": {
            "type": "array",
            "minItems": 1,
            "items": {**RESOURCE, "required": ["name", "digest"]},
        },
        "predicateType": {"const": "https://slsa.dev/provenance/v1"},
        "predicate": {
            "type": "object",
            "additionalProperties": False,
            "required": ["buildDefinition", "runDetails"],
            "properties": {
                "buildDefinition": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["buildType", "externalParameters"],
                    "properties": {
                        "buildType": {"type": "string", "pattern": "^[a-z]+:"},
                        "externalParameters": {"type": "object"},
                        "internalParameters": {"type": "object"},
                        "resolvedDependencies": {"type": "array", "items": RESOURCE},
                    },
                },
                "runDetails": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["builder"],
                    "properties": {
                        "builder": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["id"],
                            "properties": {
                                "id": {"type": "string", "pattern": "^[a-z]+:"},
                                "version": {"additionalProperties": {"type": "string"}},
                                "builderDependencies": {"type": "array", "items": RESOURCE},
                            },
                        },
                        "metadata": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {"invocationId": {"type": "string"}},
                        },
                        "byproducts": {"type": "array", "items": RESOURCE},
                    },
                },
            },
        },
    },
}


def inputs(tmp_path: Path, base: str = "scratch") -> Inputs:
    return make_stack(tmp_path).plan(base=open_base(base, parse_arch("sm121"))).inputs


def statement(one: Inputs) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(make_provenance(one, WHEEL, IMAGE))
    jsonschema.Draft202012Validator(STATEMENT).validate(document)
    return document


def test_the_subjects_are_the_wheel_and_the_image(tmp_path: Path) -> None:
    document = statement(inputs(tmp_path))
    assert document["subject"] == [
        {"name": WHEEL.path, "digest": {"sha256": "a" * 64}},
        {"name": "image", "digest": {"sha256": "b" * 64}},
    ]


def test_every_input_is_a_dependency_with_its_digest(tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "base")
    descriptor = maker.image([], architecture="arm64")
    one = inputs(tmp_path, str(maker.write(descriptor)))
    found = statement(one)["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert one.wheel is not None
    digests = [next(iter(item["digest"].values())) for item in found]
    assert digests == [
        one.wheel.sha256,
        one.commit,
        *(patch.sha256 for patch in one.patches),
        descriptor["digest"].removeprefix("sha256:"),
    ]
    assert [item["name"] for item in found][2:4] == [
        "v1.2.3/0001-gate.patch",
        "v1.2.3/0002-tests.patch",
    ]
    for item in found:
        if "uri" in item:
            assert urllib.parse.urlsplit(item["uri"]).scheme
            assert " " not in item["uri"]


def test_how_the_commit_is_known_is_said(tmp_path: Path) -> None:
    one = dataclasses.replace(inputs(tmp_path), commit_evidence="second-hand", tag="v1/2 3")
    found = statement(one)["predicate"]["buildDefinition"]["resolvedDependencies"][1]
    assert found["annotations"] == {"commitEvidence": "second-hand"}
    assert found["uri"] == "git+https://git.test/demo/demo.git@refs/tags/v1%2F2%203"


def test_an_unknown_commit_is_not_claimed(tmp_path: Path) -> None:
    one = dataclasses.replace(inputs(tmp_path), commit=None, commit_evidence="unknown")
    found = statement(one)["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert not [item for item in found if "gitCommit" in item["digest"]]


def test_no_time_of_the_run_is_in_it(tmp_path: Path) -> None:
    text = make_provenance(inputs(tmp_path), WHEEL, IMAGE).decode()
    assert not re.search(r"startedOn|finishedOn|20\d\d-\d\d-\d\d", text)
    assert text.endswith("}\n")


def test_the_same_inputs_give_the_same_document(tmp_path: Path) -> None:
    one, two = inputs(tmp_path / "a"), inputs(tmp_path / "b")
    assert make_provenance(one, WHEEL, IMAGE) == make_provenance(two, WHEEL, IMAGE)


def test_the_structural_check_can_fail(tmp_path: Path) -> None:
    document = statement(inputs(tmp_path))
    document["subject"][0]["digest"] = {"sha256": "nonsense"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(STATEMENT).validate(document)
