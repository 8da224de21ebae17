"""The provenance statement, held to in-toto's and SLSA's published fields."""

from __future__ import annotations

import dataclasses
import json
import re
import urllib.parse
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
from tests.images import LayoutMaker
from tests.papers import STATEMENT, valid_statement
from tests.stack import make_stack

from stackpatch.artefacts.base import open_base
from stackpatch.artefacts.lock import Inputs, Output
from stackpatch.artefacts.provenance import make_provenance
from stackpatch.model.arch import parse_arch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WHEEL = Output("demo-1.2.3+sp.x-py3-none-any.whl", 3, "a" * 64)
IMAGE = f"sha256:{'b' * 64}"


def inputs(tmp_path: Path, base: str = "scratch") -> Inputs:
    return make_stack(tmp_path).plan(base=open_base(base, parse_arch("sm121"))).inputs


def statement(one: Inputs) -> dict[str, Any]:
    return valid_statement(make_provenance(one, WHEEL, IMAGE))


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


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda d: d.update(times="today"), ParseError),
        (lambda d: d["subject"][0].update(sha256="x"), ParseError),
        (lambda d: d["predicate"]["runDetails"].update(when="today"), ParseError),
        (lambda d: d["subject"][0].pop("digest"), ValueError),
        (lambda d: d.update(_type="https://in-toto.io/Statement/v0.1"), ValueError),
    ],
)
def test_in_totos_own_library_can_say_no(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], error: type[Exception]
) -> None:
    document = statement(inputs(tmp_path))
    change(document)
    with pytest.raises(error):
        valid_statement(json.dumps(document).encode())


def test_a_build_from_git_has_no_wheel_and_names_what_compiled_it(tmp_path: Path) -> None:
    devel = f"nvcr.test/devel@sha256:{'e' * 64}"
    settings = {
        "dockerfile": "c" * 64,
        "tools": {"tools/source.py": "d" * 64},
        "args": {"DEVEL": devel, "JOBS": "2"},
    }
    one = dataclasses.replace(inputs(tmp_path), wheel=None, engine_settings=settings)
    document = valid_statement(make_provenance(one, None, IMAGE))
    assert document["subject"] == [{"name": "image", "digest": {"sha256": "b" * 64}}]
    build = document["predicate"]["buildDefinition"]
    assert build["externalParameters"]["buildArgs"] == settings["args"]
    found = {item["name"]: item["digest"] for item in build["resolvedDependencies"]}
    assert "demo-1.2.3-py3-none-any.whl" not in found
    assert found["upstream source"] == {"gitCommit": one.commit}
    assert found["Dockerfile"] == {"sha256": "c" * 64}
    assert found["tools/source.py"] == {"sha256": "d" * 64}
    assert found["nvcr.test/devel"] == {"sha256": "e" * 64}


def test_the_dockerfile_of_a_build_from_a_wheel_is_named_too(tmp_path: Path) -> None:
    settings = {"dockerfile": "c" * 64, "tool": "d" * 64, "args": {}, "network": "none"}
    one = dataclasses.replace(inputs(tmp_path), engine_settings=settings)
    build = statement(one)["predicate"]["buildDefinition"]
    assert "buildArgs" not in build["externalParameters"]
    names = [item["name"] for item in build["resolvedDependencies"]]
    assert names[-2:] == ["Dockerfile", "tools/install.py"]
