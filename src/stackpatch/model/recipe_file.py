"""Reading a recipe's file: every fault at once, each with its line and the name of its field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from stackpatch.model import nearest
from stackpatch.model.recipe import (
    ArchSettings,
    Artefact,
    CommitEvidence,
    LayoutRule,
    Layouts,
    Recipe,
    Release,
    Stamp,
    Upstream,
)
from stackpatch.model.recipe_bases import BaseImage
from stackpatch.model.recipe_gates import (
    Compiled,
    GateRule,
    Gates,
    Kernels,
    Measured,
    Shipped,
)
from stackpatch.model.recipe_launch import Launch
from stackpatch.model.recipe_rules import cross_check
from stackpatch.model.recipe_smoke import SmokeCheck
from stackpatch.model.recipe_watch import Condition, Fork, Issue, Revisit
from stackpatch.model.yamlfile import Document, Fault, parse, raise_faults

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stackpatch.model.yamlfile import Path

_WANT = {
    "string_type": "text",
    "int_type": "a whole number",
    "dict_type": "a mapping",
    "tuple_type": "a list",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_NESTED: dict[tuple[type[BaseModel], str], type[BaseModel]] = {
    (Recipe, "upstream"): Upstream,
    (Recipe, "layouts"): Layouts,
    (Recipe, "releases"): Release,
    (Recipe, "archs"): ArchSettings,
    (ArchSettings, "launch"): Launch,
    (Recipe, "issues"): Issue,
    (Recipe, "gates"): Gates,
    (Recipe, "smoke"): SmokeCheck,
    (Recipe, "revisit"): Revisit,
    (Recipe, "fork"): Fork,
    (Issue, "revisit"): Condition,
    (Revisit, "when"): Condition,
    (Condition, "all"): Condition,
    (Condition, "any"): Condition,
    (Gates, "rules"): GateRule,
    (Gates, "kernels"): Kernels,
    (Gates, "shipped"): Shipped,
    (Kernels, "measured"): Measured,
    (Kernels, "compiled"): Compiled,
    (Layouts, "sdist"): LayoutRule,
    (Layouts, "wheel"): LayoutRule,
    (Release, "artefacts"): Artefact,
    (Release, "bases"): BaseImage,
    (Release, "commit-evidence"): CommitEvidence,
    (Release, "stamp"): Stamp,
}


def parse_recipe(where: str, raw: bytes, *, name: str | None = None) -> Recipe:
    """Parse a recipe's bytes. where: how messages name the file. name: the stack it must be.

    Raises Problems with every fault: of the YAML, of each field, and between fields.
    """
    recipe, faults = check_recipe(raw, name=name)
    raise_faults(where, faults)
    if recipe is None:
        msg = f"{where}: neither a recipe nor a fault"
        raise AssertionError(msg)
    return recipe


def check_recipe(raw: bytes, *, name: str | None = None) -> tuple[Recipe | None, tuple[Fault, ...]]:
    """The recipe and no fault, or None and every fault in the order of lines. Never raises."""
    document = parse(raw)
    faults = list(document.faults)
    if document.broken:
        return None, document.faults
    if not isinstance(document.value, dict):
        text = f"want a mapping that starts with `stack:`, found {_described(document.value)}"
        return None, (*faults, Fault(1, (), text))
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate(document.value)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            fault = _fault(dict(details), document)
            if fault is not None:
                faults.append(fault)
    faulty = {fault.path for fault in faults}
    sound = _without(document.value, faulty)
    faults += [
        Fault(document.line(path), path, text)
        for path, text in cross_check(sound, name=name)
        if path not in faulty
    ]
    return (None if faults else recipe), tuple(sorted(faults, key=lambda fault: fault.line))


def _without(value: Any, faulty: set[Path], at: Path = ()) -> Any:
    """The values with an opaque object for each faulty one, which no rule takes for anything.

    One mistake is told once: a version that is a number does not also contradict its files.
    """
    if at in faulty and not isinstance(value, dict | list):
        return object()
    if isinstance(value, dict):
        return {key: _without(inner, faulty, (*at, key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without(inner, faulty, (*at, index)) for index, inner in enumerate(value)]
    return value


def _fault(details: dict[str, Any], document: Document) -> Fault | None:
    """Pydantic's error in our words; None where the reader has said what is wrong there."""
    path: Path = tuple(part for part in details["loc"] if part != "[key]")
    kind: str = details["type"]
    # An unknown key is a fault of the key, whatever is wrong with its value.
    if document.is_faulty(path[:-1] if kind == "extra_forbidden" else path):
        return None
    value = details.get("input")
    match kind:
        case "missing":
            text = "missing"
        case "extra_forbidden":
            text = f"unknown key; {nearest.hint(str(path[-1]), _known_keys(path[:-1]))}"
        case "value_error":
            text = str(details["ctx"]["error"])
        case "enum":
            expected = str(details["ctx"]["expected"]).replace("'", "")
            text = f"want {expected}, found {_described(value)}"
        case "too_short":
            if value:  # pydantic counts only the good ones, and the bad ones have their own fault
                return None
            text = "empty; at least one is needed"
        case "greater_than":
            text = f"{value} is not above {details['ctx']['gt']}"
        case _ if kind in _WANT:
            text = f"want {_WANT[kind]}, found {_described(value)}"
            if kind == "string_type" and isinstance(value, int) and not isinstance(value, bool):
                text += f'; quote it: "{value}"'
        case _:
            text = str(details["msg"])
    return Fault(document.line(path), path, text)


def _described(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return f"the text {value[:40]!r}"
        case _:
            return f"the number {value}"


def _known_keys(path: Path) -> list[str]:
    """The keys that the types allow in the mapping at path."""
    model: type[BaseModel] = Recipe
    for part in path:
        if isinstance(part, str):
            model = _NESTED.get((model, part), model)
    return [info.alias or name for name, info in model.model_fields.items()]
