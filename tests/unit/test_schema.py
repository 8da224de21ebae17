"""The generated schema and page: fresh, complete, and of one mind with the reader."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from pydantic import BaseModel

from stackpatch.model import recipe as recipe_types
from stackpatch.model.recipe_file import check_recipe
from stackpatch.model.schema import recipe_schema, reference_page, schema_text

CHECKOUT = Path(__file__).parents[2]
RECIPES = sorted((CHECKOUT / "recipes").glob("*.yaml"))
SCHEMA = recipe_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def tree(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_bytes())
    assert isinstance(found, dict)
    return found


def test_the_committed_files_are_fresh() -> None:
    schema = (CHECKOUT / "docs/schema/recipe.schema.json").read_text("utf-8")
    assert schema == schema_text(), "run `make docs`"
    page = (CHECKOUT / "docs/recipe-reference.md").read_text("utf-8")
    assert page == reference_page(), "run `make docs`"


def test_the_page_is_what_its_program_prints() -> None:
    argv = [sys.executable, "-m", "stackpatch.cli.recipe_reference"]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=60)
    assert done.stdout.decode() == reference_page()


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(schema_text()) == SCHEMA
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_our_recipes_fit_it(path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(tree(path))] == []
    first = path.read_text("utf-8").splitlines()[0]
    target = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / target).resolve() == CHECKOUT / "docs/schema/recipe.schema.json"


def models() -> list[type[BaseModel]]:
    return [
        found
        for found in vars(recipe_types).values()
        if isinstance(found, type)
        and issubclass(found, BaseModel)
        and found.__module__ == recipe_types.__name__
        and not found.__name__.startswith("_")
    ]


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_every_type_and_field_is_described_in_both(model: type[BaseModel]) -> None:
    page = reference_page()
    shape = SCHEMA if model is recipe_types.Recipe else SCHEMA["$defs"][model.__name__]
    assert shape["additionalProperties"] is False
    assert model.__doc__
    assert " ".join(model.__doc__.split()) in page
    assert set(shape["properties"]) == {
        info.alias or name for name, info in model.model_fields.items()
    }
    for name, info in model.model_fields.items():
        assert info.description, name
        assert f"`{info.alias or name}`" in page
        assert info.description.replace("|", "\\|") in page


def test_the_page_says_what_the_arches_are() -> None:
    assert (
        "| `sm121` | DGX Spark (GB10) | `sm_121a`, `sm_120f` | 12.9 | 8.8 | 99 KiB | linux/arm64 |"
    ) in reference_page().splitlines()
    assert "| `sm89` | RTX 4090, L40S | `sm_89` | 11.8 | 7.8 | 99 KiB |" in reference_page()


def mutated(path: tuple[Any, ...], value: object) -> dict[str, Any]:
    found = copy.deepcopy(tree(CHECKOUT / "recipes/flashinfer.yaml"))
    node: Any = found
    for key in path[:-1]:
        node = node[key]
    if value is ...:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return found


# What a field alone can say, an editor with the schema says too.
REFUSED_BY_BOTH: list[tuple[tuple[Any, ...], object]] = [
    (("extra",), 1),
    (("stack",), ...),
    (("stack",), "No Spaces"),
    (("stack",), 1),
    (("releases",), []),
    (("releases", 0, "version"), 1.1),
    (("releases", 0, "version"), ...),
    (("releases", 0, "commit"), "d0886ce"),
    (("releases", 0, "commit-evidence"), ...),
    (("releases", 0, "commit-evidence", "kind"), "hearsay"),
    (("releases", 0, "date"), "2026-02-06"),
    (("releases", 0, "artefacts", 0, "sha256"), "sha256:00"),
    (("releases", 0, "artefacts", 0, "bytes"), "12"),
    (("releases", 0, "artefacts", 0, "bytes"), 0),
    (("releases", 0, "artefacts", 0, "sha512"), "x"),
    (("releases", 0, "series"), "../x"),
    (("releases", 0, "tag"), "--exec"),
    (("upstream", "git"), "ext::sh -c id"),
    (("upstream", "pypi"), "Flash_Infer"),
    (("layouts", "zip"), []),
    (("layouts", "wheel"), []),
    (("archs",), {}),
    (("archs", "sm_121a"), {"cuda": ">=12.9"}),
    (("archs", "sm121", "verified"), "runs"),
    (("archs", "sm121", "env"), {"MAX-JOBS": "2"}),
    (("archs", "sm121", "env"), {"MAX_JOBS": 2}),
    (("issues", 0, "url"), "#2577"),
    (("issues", 0, "why"), ...),
    (("caches",), "triton"),
    (("python",), 3.12),
]


@pytest.mark.parametrize(("path", "value"), REFUSED_BY_BOTH, ids=str)
def test_the_schema_refuses_what_the_reader_refuses(path: tuple[Any, ...], value: object) -> None:
    found = mutated(path, value)
    assert list(VALIDATOR.iter_errors(found)), "the schema takes it"
    recipe, faults = check_recipe(json.dumps(found).encode())
    assert recipe is None, "the reader takes it"
    assert faults


TAKEN_BY_BOTH: list[tuple[tuple[Any, ...], object]] = [
    (("releases", 0, "tag"), None),
    (("releases", 0, "tag"), "release/v1.0-rc1"),
    (("releases", 0, "stamp"), None),
    (("releases", 0, "requires"), {"sglang": "0.5.9"}),
    (("archs", "sm121", "notes"), ...),
    (("archs", "sm103"), {"cuda": ">=12.9", "notes": "by CI"}),
    (("upstream", "git"), "/srv/git/flashinfer"),
    (("upstream", "git"), "git@example.org:a/b.git"),
    (("python",), "3.12"),
    (("caches",), []),
    (("layouts",), ...),
]


@pytest.mark.parametrize(("path", "value"), TAKEN_BY_BOTH, ids=str)
def test_the_schema_takes_what_the_reader_takes(path: tuple[Any, ...], value: object) -> None:
    found = mutated(path, value)
    assert [error.message for error in VALIDATOR.iter_errors(found)] == []
    recipe, faults = check_recipe(json.dumps(found).encode())
    assert [fault.text for fault in faults] == []
    assert recipe is not None
