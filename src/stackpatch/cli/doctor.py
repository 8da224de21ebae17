"""`stackpatch doctor`: what this machine has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stackpatch.cli import output
from stackpatch.cli.context import JsonOption, RootOption
from stackpatch.cli.roots import find_root
from stackpatch.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackpatch.checks.doctor import Finding


def command(
    *,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", help="How long one look may take."),
    ] = 8.0,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Say what this machine has, and what that is good enough for."""
    from stackpatch.checks import doctor, probes

    if not 0 < timeout <= 3600:
        msg = f"--timeout {timeout:g}: not a sensible number of seconds"
        raise InputError(msg, hint="8 is the default")
    findings = doctor.examine(probes.probes(_dist(root)), timeout=timeout)
    blocking = [finding for finding in findings if finding.blocks]
    failure = None
    if blocking:
        named = ", ".join(finding.name for finding in blocking)
        failure = EnvironmentProblem(
            f"stackpatch cannot work here: {named}", hint=blocking[0].advice
        )
    document = {
        "usable": not blocking,
        "checks": [finding.document() for finding in findings],
    }
    output.emit("doctor", document, list(_text(findings)), json=json, failure=failure)


def _dist(root: Path | None) -> Path:
    """Where `build` would write: below the folder with the recipes when it is ours to write."""
    return (find_root(root).path if root is not None else Path.cwd()) / "dist"


def _text(findings: Sequence[Finding]) -> Iterator[str]:
    rows = [
        (finding.name, str(finding.level), finding.version or "", finding.good_for)
        for finding in findings
    ]
    yield from output.table(("LOOKED FOR", "STATE", "VERSION", "GOOD FOR"), rows)
    told = [finding for finding in findings if finding.detail or finding.advice]
    if told:
        yield ""
    for finding in told:
        if finding.detail:
            yield f"{finding.name}: {finding.detail}"
        if finding.advice:
            yield f"{finding.name}: to do: {finding.advice}"
