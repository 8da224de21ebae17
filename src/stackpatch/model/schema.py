"""What the recipe's types say of themselves: the JSON Schema and the reference page.

Both are committed (docs/schema/recipe.schema.json, docs/recipe-reference.md); `make docs` writes
them, CI and a test hold them against these functions.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

from stackpatch.model import recipe as recipe_types
from stackpatch.model import (
    recipe_bases,
    recipe_fields,
    recipe_gates,
    recipe_launch,
    recipe_smoke,
    recipe_watch,
)
from stackpatch.model.arch import ARCHES, Arch
from stackpatch.model.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

# In the order in which the page explains them.
_TYPES: tuple[type[BaseModel], ...] = (
    Recipe,
    recipe_types.Upstream,
    recipe_types.Layouts,
    recipe_types.LayoutRule,
    recipe_types.Release,
    recipe_types.CommitEvidence,
    recipe_types.Artefact,
    recipe_types.Stamp,
    recipe_bases.BaseImage,
    recipe_types.ArchSettings,
    recipe_launch.Launch,
    recipe_watch.Issue,
    recipe_watch.Revisit,
    recipe_watch.Condition,
    recipe_watch.Fork,
    recipe_gates.Gates,
    recipe_gates.GateRule,
    recipe_gates.Kernels,
    recipe_gates.Measured,
    recipe_gates.Compiled,
    recipe_gates.Shipped,
    recipe_smoke.SmokeCheck,
    recipe_smoke.Ignored,
)
_KINDS: dict[Any, str] = {
    recipe_fields.Sentence: "text",
    recipe_fields.VersionText: "version",
    recipe_fields.RangeText: "range of versions",
    recipe_fields.PathText: "path",
    recipe_fields.DateText: "UTC time",
    recipe_fields.CommitText: "40 hex digits",
    recipe_fields.Sha256Text: "64 hex digits",
    recipe_fields.StackName: "name",
    recipe_fields.DistributionName: "distribution",
    recipe_fields.PackageName: "import name",
    recipe_fields.VariableName: "name of a variable",
    recipe_fields.VariableValue: "text",
    recipe_fields.GitUrl: "git URL or path",
    recipe_fields.Url: "URL",
    recipe_watch.TrackedUrl: "GitHub issue or pull request",
    recipe_watch.PullUrl: "GitHub pull request",
    recipe_watch.BranchName: "branch",
    recipe_fields.FolderName: "folder name",
    recipe_fields.TagName: "tag",
    recipe_fields.PythonVersion: "Python version",
    recipe_fields.DayText: "day",
    recipe_fields.PatternText: "regular expression",
    recipe_fields.CodeText: "target",
    recipe_fields.GlobText: "pattern",
    recipe_fields.DigestText: "sha256: and 64 hex digits",
    recipe_fields.ImageName: "image without a tag",
    recipe_fields.ImageTag: "tag",
    recipe_fields.PlatformText: "platform",
    recipe_fields.FolderInImage: "folder from / on",
    recipe_launch.ArgumentText: "argument",
    str: "text",
    bool: "`true` or `false`",
    int: "whole number",
    NoneType: "null",
}


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe (draft 2020-12)."""
    schema = Recipe.model_json_schema(by_alias=True)
    _drop_titles(schema)
    _close_mappings(schema)
    schema["properties"]["archs"]["propertyNames"] = {"enum": list(ARCHES)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "stackpatch recipe",
        **schema,
    }


def schema_text() -> str:
    """The schema as a file: indented, keys sorted, so that it changes only with the types."""
    return json.dumps(recipe_schema(), indent=2, sort_keys=True) + "\n"


def reference_page() -> str:
    """docs/recipe-reference.md."""
    lines = [
        "# Recipe reference",
        "",
        "<!-- Written by `make docs` from src/stackpatch/model/recipe.py; edit that. -->",
        "",
        "A recipe is `recipes/STACK.yaml`. `stackpatch lint` checks it, `stackpatch show STACK`",
        "shows it resolved, and an editor that knows JSON Schema checks it while you type with",
        "`docs/schema/recipe.schema.json` (`stackpatch schema`).",
        "",
        "The reader is strict. A plain word is text, a decimal number, `true`, `false` or `null`.",
        "What YAML readers take for something else needs quotes: versions (`1.10` is a number),",
        "times, `yes`, `no`, `on`, `off`, `0123`. Aliases, anchors, tags, tabs and a second",
        "document are refused, and so are keys that stand twice or are not named here. Every",
        "fault is told in one run, as `file:line: field: what is wrong`.",
    ]
    for model in _TYPES:
        lines += ["", f"## {_heading(model)}", "", _doc(model), ""]
        lines += ["| key | value | meaning |", "|---|---|---|", *_rows(model)]
    lines += ["", "## Arches", "", "The names that `archs` takes, and what they stand for.", ""]
    lines += [
        (
            "| name | products | code for it alone, and for its family | oldest CUDA "
            "| oldest PTX | shared memory per block | platform |"
        ),
        "|---|---|---|---|---|---|---|",
        *(_arch_row(arch) for arch in ARCHES.values()),
    ]
    return "\n".join(lines) + "\n"


def _arch_row(arch: Arch) -> str:
    targets = f"`{arch.target}`" + (f", `{arch.family}`" if arch.family else "")
    memory = f"{arch.shared_memory // 1024} KiB"
    cells = (f"`{arch.name}`", ", ".join(arch.products), targets, arch.min_cuda, arch.ptx_isa)
    return f"| {' | '.join(cells)} | {memory} | {arch.platform} |"


def _rows(model: type[BaseModel]) -> Iterator[str]:
    hints = get_type_hints(model, include_extras=True)
    for name, info in model.model_fields.items():
        if not info.description:
            msg = f"{model.__name__}.{name} has no description"
            raise ValueError(msg)
        key = f"`{info.alias or name}`" + (" (required)" if info.is_required() else "")
        yield f"| {key} | {_kind(hints[name])} | {_cell(info.description)} |"


def _kind(hint: Any) -> str:
    """How the page names a type."""
    if hint in _KINDS:
        return _KINDS[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(_kind(argument) for argument in arguments)
    if origin is tuple:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return f"mapping of {_kind(arguments[0])} to {_kind(arguments[1])}"
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return ", ".join(f"`{member.value}`" for member in hint)
    if hint in _TYPES:
        return f"[{_heading(hint)}](#{_heading(hint).lower().replace(' ', '-')})"
    msg = f"the reference page has no name for {hint!r}"
    raise TypeError(msg)


def _heading(model: type[BaseModel]) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", model.__name__)
    return words[0] + words[1:].lower()


def _doc(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _close_mappings(node: object) -> None:
    """Refuse keys that no pattern describes, as the types do."""
    if isinstance(node, dict):
        if "patternProperties" in node:
            node.setdefault("additionalProperties", False)
        for inner in node.values():
            _close_mappings(inner)
    elif isinstance(node, list):
        for inner in node:
            _close_mappings(inner)


def _drop_titles(node: object, *, names: bool = False) -> None:
    """Remove the titles that pydantic makes of names; `names`: the keys here are fields' names."""
    if isinstance(node, dict):
        if not names and isinstance(node.get("title"), str):
            del node["title"]
        for key, inner in node.items():
            _drop_titles(inner, names=not names and key in ("properties", "$defs"))
    elif isinstance(node, list):
        for inner in node:
            _drop_titles(inner)
