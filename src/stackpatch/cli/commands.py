"""The table of commands, and the group that imports a command's module only when it is called.

`stackpatch --help` is read from this table alone, so that it imports none of the modules that do
the work. A new command is one line here and one file `cli/<name>.py` with a function
`command(...)` (or, where it has subcommands, an `app` made by `subcommands()`); a test holds that
the summary here and the first line of the docstring there are the same.
"""

from __future__ import annotations

import difflib
import importlib
import keyword
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core
import typer.main

if TYPE_CHECKING:
    from collections.abc import Mapping

# name -> summary: the first line of the docstring of `command` (or of the module that has `app`).
TABLE: Mapping[str, str] = {
    "list": "List the stacks, their pinned releases, arches and patches.",
    "show": "Show one recipe, resolved for a release.",
    "lint": "Check recipes and patch headers; report every error at once.",
    "fetch": "Bring upstream versions into the source store, hash-checked.",
    "apply": "Write the patched source tree of a stack.",
    "build": "Build the patched wheel, the image layout and their lock.",
    "upstream": "Say whether each patch has been upstreamed, with the evidence.",
    "matrix": "Judge every patch of a series at every upstream version.",
    "rebase": "Move a series onto another upstream version.",
    "bisect": (
        "Find the first upstream version at which a command fails, the series moved to each."
    ),
    "import": "Turn a fork's commits or a pull request into a series.",
    "venv": "Put a series on an installed package, take it back, or keep edits made there.",
    "verify": (
        "Say whether an image has the files that the series yields, reading only what decides."
    ),
    "audit": "Say which GPU code a wheel, folder, venv or image holds, and what runs on the arch.",
    "smoke": "Run the recipe's checks on an installed stack: each passed, failed or not run.",
    "publish": "Push a finished build to a registry, with its papers; the tag comes last.",
    "cache": "List or clear the JIT caches that a patched stack may read stale.",
    "doctor": "Say what this machine has, and what that is good enough for.",
    "schema": "Print the JSON Schema of recipes.",
}

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def load(name: str) -> Any:
    """The click command behind a name of TABLE; imports its module.

    Any: typer's click classes are private and differ between its releases.
    """
    # `import` is a word of Python, so its module has another name.
    module = importlib.import_module(f"stackpatch.cli.{name}{'_' * keyword.iskeyword(name)}")
    found = getattr(module, "app", None)
    if isinstance(found, typer.Typer):
        made: Any = typer.main.get_group(found)
        made.name, made.help = name, module.__doc__
    else:
        single = typer.Typer(rich_markup_mode=None, add_completion=False)
        single.command(name, context_settings=getattr(module, "SETTINGS", None))(module.command)
        made = typer.main.get_command(single)
    _show_arguments_as_named(made)
    return made


def _show_arguments_as_named(command: Any) -> None:
    """Help shows an argument as its metavar says, `[REF]...`, not as `[[REF]...]...` and a type."""
    for param in command.params:
        if param.param_type_name == "argument" and param.metavar:
            param._usage_display_name = lambda shown=param.metavar: shown  # noqa: SLF001
            param.display_type_rich = lambda ctx: None  # noqa: ARG005 - typer's signature
    for child in getattr(command, "commands", {}).values():
        _show_arguments_as_named(child)


class LazyGroup(typer.core.TyperGroup):
    """A group whose help is the table and whose commands are imported on first use."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        """Every name, in the table's order."""
        return list(TABLE)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """The command, imported now; None for a name that is not in the table."""
        if cmd_name not in TABLE:
            return None
        if cmd_name not in self.commands:
            self.commands[cmd_name] = load(cmd_name)
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As click's, but a mistyped name is answered from the table, with the nearest ones."""
        name = args[0]
        if name not in TABLE and not name.startswith("-"):
            near = difflib.get_close_matches(name, TABLE, n=2)
            asked = f"; did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"no such command: {name}{asked}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """The table, without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(TABLE.items()))


def _print_version(asked: bool) -> None:
    if asked:
        from stackpatch import __version__

        typer.echo(f"stackpatch {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup,
    rich_markup_mode=None,  # rich would double the time of --help
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
    epilog="Every command takes --json (one document on stdout) and --root DIR.",
)


@app.callback()
def stackpatch(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Keep patch series for LLM inference stacks, build them, and follow them upstream."""


def root_command() -> Any:
    """The click group of the whole program."""
    group = typer.main.get_command(app)
    group.name = "stackpatch"
    return group
