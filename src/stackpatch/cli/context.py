"""The options that many commands take, and what commands with subcommands are made of.

A command is written like this, and imports what does the work inside the function:

    def command(stack: Annotated[str, typer.Argument()], *, json: JsonOption = False,
                root: RootOption = None) -> None:
        \"""Summary, the same as in commands.TABLE.\"""
        found = find_root(root)
        ...
        output.emit("show", {...}, "text for people", json=json)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else there.")
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Use no network.")]
ArchOption = Annotated[str, typer.Option("--arch", metavar="ARCH", help="sm120, sm121, …")]
RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root",
        metavar="DIR",
        help="Folder with recipes/ and patches/ [default: the nearest one above the current "
        "folder, else the installed set]",
    ),
]


class _Group(typer.core.TyperGroup):
    """Subcommands, each with its whole first sentence: click cuts it after some words."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - click's signature
        """Name and first paragraph of each."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, " ".join((command.help or "").partition("\n\n")[0].split()))
                    for name, command in self.commands.items()
                ]
            )


def subcommands() -> typer.Typer:
    """A Typer application for a command with subcommands (`cache list`, `cache clear`).

    The module names it `app`; its own docstring becomes the help.
    """
    return typer.Typer(
        cls=_Group,
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        no_args_is_help=False,
    )
