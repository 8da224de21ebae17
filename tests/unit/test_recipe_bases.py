"""The bases of a release: what is read from good ones, and every way to write a bad one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from tests.folders import RECIPE

from stackpatch.errors import Problems
from stackpatch.model.recipe_bases import BaseKind
from stackpatch.model.recipe_file import parse_recipe
from stackpatch.model.schema import recipe_schema, reference_page

if TYPE_CHECKING:
    from stackpatch.model.recipe import Recipe

A, B = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
BASES = f"""\
    bases:
      - image: docker.io/example/server
        tag: v1.0-cu130
        digest: {A}
        platforms: [linux/amd64, linux/arm64]
        kind: site-packages
        path: /usr/local/lib/python3.12/dist-packages
        python: "3.12"
        evidence: its own dist-info, read on 2026-11-21
      - image: registry.test:5000/a/b.c/d__e
        digest: {B}
        platforms: [linux/arm64]
        kind: editable
        path: /workspace/server
        python: "3.12"
        evidence: the inventory of another project
"""
GOOD = RECIPE.replace("    series: v1.0\n", f"    series: v1.0\n{BASES}")


def read(text: str) -> Recipe:
    return parse_recipe("r.yaml", text.encode())


def test_what_is_read() -> None:
    first, second = read(GOOD).releases[0].bases
    assert first.reference == f"docker.io/example/server@{A}"
    assert (first.tag, first.platforms) == ("v1.0-cu130", ("linux/amd64", "linux/arm64"))
    assert (first.kind, first.path) == (
        BaseKind.SITE_PACKAGES,
        "/usr/local/lib/python3.12/dist-packages",
    )
    assert (second.tag, second.kind, second.python) == (None, BaseKind.EDITABLE, "3.12")


def test_a_release_needs_none() -> None:
    assert read(RECIPE).releases[0].bases == ()


def test_the_schema_takes_them_too() -> None:
    validator = jsonschema.Draft202012Validator(recipe_schema())
    assert list(validator.iter_errors(yaml.safe_load(GOOD))) == []
    broken = yaml.safe_load(GOOD.replace(f"digest: {A}", "digest: latest"))
    assert [list(error.path) for error in validator.iter_errors(broken)] == [
        ["releases", 0, "bases", 0, "digest"]
    ]


def test_the_page_explains_them() -> None:
    page = reference_page()
    assert "## Base image\n" in page
    assert "| `digest` (required) | sha256: and 64 hex digits |" in page


SITE = "path: /usr/local/lib/python3.12/dist-packages"
BAD = {
    "a tag in the name": (
        "image: docker.io/example/server",
        "image: docker.io/example/server:v1",
        "image",
        (
            "'docker.io/example/server:v1' is not a registry and a repository such as "
            "docker.io/lmsysorg/sglang, no tag"
        ),
    ),
    "no registry": (
        "image: docker.io/example/server",
        "image: example/server",
        "image",
        (
            "'example/server' is not a registry and a repository such as "
            "docker.io/lmsysorg/sglang, no tag"
        ),
    ),
    "capitals": (
        "image: docker.io/example/server",
        "image: docker.io/Example/server",
        "image",
        (
            "'docker.io/Example/server' is not a registry and a repository such as "
            "docker.io/lmsysorg/sglang, no tag"
        ),
    ),
    "a tag for a digest": (
        f"digest: {A}",
        "digest: v1.0",
        "digest",
        "'v1.0' is not a digest (sha256: and 64 lower-case hex digits)",
    ),
    "a digest of another kind": (
        f"digest: {A}",
        f"digest: sha512:{'a' * 128}",
        "digest",
        f"{'sha512:' + 'a' * 73!r} is not a digest (sha256: and 64 lower-case hex digits)",
    ),
    "the same digest twice": (
        f"digest: {B}",
        f"digest: {A}",
        "digest",
        "is releases[0].bases[0]'s already; an image has one version of the package",
    ),
    "no platform": (
        "platforms: [linux/arm64]",
        "platforms: []",
        "platforms",
        "empty; at least one is needed",
    ),
    "a platform that no arch has": (
        "platforms: [linux/arm64]",
        "platforms: [linux/arm64/v8]",
        "platforms[0]",
        "'linux/arm64/v8' is not linux/amd64 or linux/arm64",
    ),
    "a platform twice": (
        "platforms: [linux/amd64, linux/arm64]",
        "platforms: [linux/amd64, linux/amd64]",
        "platforms",
        "a platform is named twice",
    ),
    "another kind": (
        "kind: editable",
        "kind: zipped",
        "kind",
        "want site-packages or editable, found the text 'zipped'",
    ),
    "a relative folder": (
        "path: /workspace/server",
        "path: workspace/server",
        "path",
        "'workspace/server' is not a folder from / on, without a slash at its end",
    ),
    "the root": (
        "path: /workspace/server",
        "path: /",
        "path",
        "'/' is not a folder from / on, without a slash at its end",
    ),
    "a folder that leaves": (
        "path: /workspace/server",
        "path: /workspace/../server",
        "path",
        "'/workspace/../server' is not a plain path inside the image",
    ),
    "a package's own folder": (
        SITE,
        f"{SITE}/demo",
        "path",
        "want the folder that pip installs into, which ends in site- or dist-packages",
    ),
    "another Python than the folder's": (
        SITE,
        SITE.replace("3.12", "3.11"),
        "python",
        "3.12, but the path is Python 3.11's",
    ),
    "nobody who saw it": (
        "evidence: the inventory of another project",
        'evidence: " "',
        "evidence",
        "empty",
    ),
    "a key that is none": (
        "tag: v1.0-cu130",
        "label: v1.0-cu130",
        "label",
        "unknown key; known: image, tag, digest, platforms, kind, path, python, evidence",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_ones_are_told_by_line_and_field(case: str) -> None:
    old, new, field, text = BAD[case]
    assert GOOD.count(old) == 1, old
    bad = GOOD.replace(old, new)
    with pytest.raises(Problems) as caught:
        read(bad)
    at = GOOD.index(old)
    line = 1 + GOOD[:at].count("\n")
    index = int(at > GOOD.index("image: registry.test"))
    if field == "python":
        line += 1
    place = f"releases[0].bases[{index}].{field}"
    assert list(caught.value.problems) == [f"r.yaml:{line}: {place}: {text}"]
