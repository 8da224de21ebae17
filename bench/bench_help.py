"""How long `stackpatch --help` takes beside an empty typer application."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from bench.measure import Comparison, Contender, Goal, command, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_EMPTY = """import typer

app = typer.Typer({options})


@app.command()
def main() -> None:
    "Nothing."


app()
"""


def comparisons(work: Path) -> Iterator[Comparison]:
    """One comparison; the plain application is the harder one: it draws no boxes."""
    for name, options in (("empty", ""), ("plain", "rich_markup_mode=None")):
        (work / f"{name}.py").write_text(_EMPTY.format(options=options), "utf-8")
    yield Comparison(
        title="stackpatch --help",
        contenders=(
            Contender(name="stackpatch --help", run=command([program("stackpatch"), "--help"])),
            Contender(
                name="empty typer application",
                run=command([sys.executable, work / "empty.py", "--help"]),
            ),
            Contender(
                name="empty typer application without rich",
                run=command([sys.executable, work / "plain.py", "--help"]),
            ),
            Contender(name="python -c pass", run=command([sys.executable, "-c", "pass"])),
        ),
        goals=(
            Goal(against="empty typer application", at_most=1.3),
            Goal(against="empty typer application without rich", at_most=1.3),
        ),
        rounds=21,
    )
