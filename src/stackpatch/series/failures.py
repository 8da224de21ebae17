"""What a series that does not apply is reported as: every failure, each in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.errors import FindingError

if TYPE_CHECKING:
    from stackpatch.series.apply import SeriesResult


def not_applied(where: str, label: str, result: SeriesResult) -> FindingError:
    """Every failure of a series, as one error."""
    lines = failure_lines(result)
    failed = sum(not one.applied for one in result.results)
    msg = f"{failed} of {len(result.results)} patches in {where} do not apply to {label}"
    return FindingError("\n".join([msg, *lines]), hint="nothing was written")


def failure_lines(result: SeriesResult) -> list[str]:
    """One line per failure: `patch:line: path: reason: detail`."""
    lines: list[str] = []
    for one in result.results:
        for failure in one.failures:
            places = ", ".join(f"line {line} ({name})" for line, name in failure.candidates)
            found = f"; its text stands at {places}" if places else ""
            lines.append(
                f"  {one.patch.name}:{failure.line}: {failure.path}: {failure.reason}: "
                f"{failure.detail}{found}"
            )
    return lines
