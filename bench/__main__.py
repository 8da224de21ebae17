"""`python -m bench [NAME…]`: run benchmarks and renew their blocks of docs/benchmarks.md."""

from __future__ import annotations

import datetime as dt
import importlib
import os
import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import Comparison, Reached, Row, judge, measure, seconds, times

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent
REPORT = HERE.parent / "docs" / "benchmarks.md"

_HEAD = """# Benchmarks

Written by `make bench`; do not edit. Every table is one run on one machine, all contenders in
turns: the ratios say something about other machines, the times do not. Load is what the machine
was doing before.
"""
_BLOCK = re.compile(r"^<!-- bench (\w+) -->\n(.*?)(?=^<!-- bench |\Z)", re.MULTILINE | re.DOTALL)


def main(names: Sequence[str]) -> int:
    """Run the named benchmarks, all without a name. 1 when a goal was missed."""
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(known)}")
        return 2
    missed = 0
    for name in names or known:
        parts = [_machine()]
        for comparison in _comparisons(name):
            rows = measure(comparison)
            goals = judge(comparison, rows)
            missed += sum(not goal.met for goal in goals)
            parts.append(render(comparison, rows, goals))
            print(parts[-1], flush=True)
        before = REPORT.read_text("utf-8") if REPORT.exists() else ""
        REPORT.write_text(report(before, name, "\n".join(parts), known), "utf-8")
    print(f"{missed} goals missed" if missed else "every goal met")
    return 1 if missed else 0


def report(before: str, name: str, block: str, known: Sequence[str]) -> str:
    """The report with this benchmark's block renewed; blocks of benchmarks that are gone go."""
    blocks = {found[1]: found[2].strip("\n") for found in _BLOCK.finditer(before)}
    blocks[name] = block.strip("\n")
    kept = [f"<!-- bench {each} -->\n{blocks[each]}\n" for each in known if each in blocks]
    return "\n".join([_HEAD, *kept])


def render(comparison: Comparison, rows: Sequence[Row], goals: Sequence[Reached]) -> str:
    """One section: what was compared, the table, the goals."""
    ours = rows[0]
    lines = [f"## {comparison.title}", ""]
    if comparison.note:
        lines += [comparison.note, ""]
    lines += ["| | median | fastest to slowest | ours / this | memory |", "|---|--:|--:|--:|--:|"]
    for row in rows:
        ratio = "" if row is ours else times(ours.median / row.median)
        peak = f"{row.peak / 1e6:.0f} MB" if row.peak is not None else ""
        spread = f"{seconds(row.fastest)} to {seconds(row.slowest)}"
        lines.append(f"| {row.name} | {seconds(row.median)} | {spread} | {ratio} | {peak} |")
    lines.append("")
    for goal in goals:
        lines.append(f"- goal: {goal.text}: **{'met' if goal.met else 'missed'}**, {goal.measured}")
    return "\n".join([*lines, ""] if goals else lines)


def _comparisons(name: str) -> Iterator[Comparison]:
    work = HERE / "work" / name
    work.mkdir(parents=True, exist_ok=True)
    yield from importlib.import_module(f"bench.bench_{name}").comparisons(work)


def _machine() -> str:
    today = dt.datetime.now(dt.UTC).date().isoformat()
    model = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text("utf-8", "replace").splitlines():
            if line.startswith(("model name", "Model")):
                model = line.partition(":")[2].strip()
                break
    load = os.getloadavg()[0]
    return (
        f"{today}, {os.cpu_count()} x {model}, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}; load before: {load:.1f}.\n"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
