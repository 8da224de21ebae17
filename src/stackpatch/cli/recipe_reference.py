"""Prints docs/recipe-reference.md from the recipe's types: `make docs` writes it, CI compares.

python -m stackpatch.cli.recipe_reference
"""

from __future__ import annotations

from stackpatch.cli import output


def main() -> None:
    """Print the page."""
    from stackpatch.model.schema import reference_page

    output.write_result(reference_page())


if __name__ == "__main__":
    main()
