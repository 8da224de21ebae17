"""`stackpatch schema`: the recipe's JSON Schema."""

from __future__ import annotations

from stackpatch.cli import output
from stackpatch.cli.context import JsonOption, RootOption


def command(*, json: JsonOption = False, root: RootOption = None) -> None:  # noqa: ARG001
    """Print the JSON Schema of recipes."""
    from stackpatch.model.schema import recipe_schema, schema_text

    output.emit("schema", {"recipe": recipe_schema()}, schema_text(), json=json)
