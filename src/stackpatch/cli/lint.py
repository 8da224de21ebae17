"""`stackpatch lint`: everything that is wrong with recipes, series and patch headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stackpatch.cli import output
from stackpatch.cli.context import JsonOption, RootOption
from stackpatch.cli.roots import find_root

if TYPE_CHECKING:
    from stackpatch.errors import FindingError
    from stackpatch.model.lint import Remark, Report


def command(
    stacks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STACK]...", help="Only these [default: all, and what is around]."),
    ] = None,
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Take warnings for errors.")] = False,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Check recipes and patch headers; report every error at once."""
    from stackpatch.cli.effects import try_effects
    from stackpatch.cli.gates import unexplained_gates
    from stackpatch.installed.caches import CACHES
    from stackpatch.model.collection import Collection
    from stackpatch.model.lint import lint

    collection = Collection(find_root(root).path)
    report = lint(collection, stacks or (), known_caches=frozenset(CACHES))
    tried = try_effects(collection, stacks or ())
    report.problems = sorted([*report.problems, *tried.wrong])
    report.warnings = sorted([*report.warnings, *unexplained_gates(collection, stacks or ())])
    problems, warnings = report.problems, report.warnings
    if strict:
        problems, warnings = sorted([*problems, *warnings]), []
    for remark in () if json else warnings:
        output.warn(str(remark))
    document = {
        "recipes": report.recipes,
        "series": report.series,
        "patches": report.patches,
        "problems": [_entry(remark) for remark in problems],
        "warnings": [_entry(remark) for remark in warnings],
        "effects_untried": list(tried.untried),
    }
    lines = [str(remark) for remark in problems]
    if not problems and not json:
        output.note(f"no problem in {_read(report)}")
    if tried.untried and not json:
        listed = ", ".join(tried.untried)
        output.note(f"Effect lines not tried: the source store does not have {listed}")
        output.note("  hint: `stackpatch fetch STACK VERSION` brings them")
    output.emit("lint", document, lines, json=json, failure=_failure(problems, report))


def _entry(remark: Remark) -> dict[str, object]:
    return {"path": remark.path, "line": remark.line, "text": remark.text}


def _failure(problems: list[Remark], report: Report) -> FindingError | None:
    if not problems:
        return None
    from stackpatch.errors import FindingError

    count, files = len(problems), len({remark.path for remark in problems})
    return FindingError(
        f"{count} problem{'s' * (count != 1)} in {files} file{'s' * (files != 1)}, "
        f"of {_read(report)}"
    )


def _read(report: Report) -> str:
    parts = (
        (report.recipes, "recipe", "recipes"),
        (report.series, "series", "series"),
        (report.patches, "patch", "patches"),
    )
    return ", ".join(f"{count} {one if count == 1 else many}" for count, one, many in parts)
