"""The benchmark frame: who is ours, when a goal is met, what the report says."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from bench import __main__ as bench_main
from bench.measure import Comparison, Contender, Goal, Row, Sample, command, judge, measure, times

if TYPE_CHECKING:
    from pathlib import Path


def contender(name: str, seconds: float, log: list[str], *, peak: int | None = None) -> Contender:
    def run() -> Sample:
        log.append(name)
        return Sample(seconds, peak)

    return Contender(name=name, run=run, before=lambda: log.append(f"before {name}"))


def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    log = list[str]()
    times = iter([9.0, 1.0, 3.0, 2.0])
    ours = Contender(name="ours", run=lambda: Sample(next(times)))
    both = Comparison(title="t", contenders=(ours, contender("theirs", 4.0, log)), rounds=3)
    rows = measure(both)
    assert rows == (Row("ours", 2.0, 1.0, 3.0, None), Row("theirs", 4.0, 4.0, 4.0, None))
    assert log == ["before theirs", "theirs"] * 4


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal(against="theirs", at_most=0.5), True),
        (Goal(against="theirs", at_most=0.49), False),
        (Goal(seconds=2.0), True),
        (Goal(seconds=1.9), False),
        (Goal(peak=300_000_000), True),
        (Goal(peak=299_999_999), False),
    ],
)
def test_goals(goal: Goal, met: bool) -> None:
    log = list[str]()
    both = Comparison(
        title="t",
        contenders=(contender("ours", 2.0, log, peak=300_000_000), contender("theirs", 4.0, log)),
        goals=(goal,),
        rounds=1,
    )
    (reached,) = judge(both, measure(both))
    assert reached.met is met


@pytest.mark.parametrize(
    ("ratio", "said"),
    [(12.345, "12.35"), (1.0, "1.00"), (0.1, "0.10"), (0.0994, "0.099"), (0.00794, "0.0079")],
)
def test_a_ratio_far_below_one_keeps_its_digits(ratio: float, said: str) -> None:
    assert times(ratio) == said


def test_a_goal_says_one_thing() -> None:
    for wrong in ({}, {"against": "x"}, {"at_most": 2.0}, {"seconds": 1.0, "peak": 3}):
        with pytest.raises(ValueError, match="a goal is"):
            Goal(**wrong)


def test_a_goal_for_memory_that_nobody_measures_is_a_mistake() -> None:
    alone = Comparison(
        title="t", contenders=(contender("ours", 1.0, []),), goals=(Goal(peak=1),), rounds=1
    )
    with pytest.raises(ValueError, match="measures none"):
        judge(alone, measure(alone))


def test_a_program_is_timed_and_weighed_by_itself(tmp_path: Path) -> None:
    ballast = b"x" * 200_000_000  # must not be counted as the child's
    small = command([sys.executable, "-S", "-c", "import time; time.sleep(0.2)"])()
    assert 0.2 <= small.seconds < 5
    assert small.peak is not None
    assert small.peak < 60_000_000
    large = command([sys.executable, "-S", "-c", "x = b'x' * 150_000_000"], cwd=tmp_path)()
    assert large.peak is not None
    assert large.peak > 150_000_000
    assert len(ballast) == 200_000_000


def test_a_program_that_fails_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="ended with status 3"):
        command([sys.executable, "-c", "raise SystemExit(3)"])()
    assert command([sys.executable, "-c", "raise SystemExit(3)"], status=3)().seconds > 0


def test_the_report_marks_a_missed_goal() -> None:
    log = list[str]()
    both = Comparison(
        title="job",
        contenders=(contender("ours", 0.006, log), contender("theirs", 1.5, log)),
        goals=(Goal(against="theirs", at_most=0.001),),
        rounds=1,
        note="Why.",
    )
    rows = measure(both)
    text = bench_main.render(both, rows, judge(both, rows))
    assert "| ours | 6.0 ms | 6.0 ms to 6.0 ms |  |  |" in text
    assert "| theirs | 1.50 s | 1.50 s to 1.50 s | 0.004 |  |" in text
    assert "- goal: at most 0.001 x theirs: **missed**, 0.004 x" in text
    assert text.startswith("## job\n\nWhy.\n")


def test_one_benchmark_renews_its_block_and_leaves_the_others() -> None:
    known = ["apply", "build", "help"]
    first = bench_main.report("", "help", "## h\n\n1\n", known)
    both = bench_main.report(first, "apply", "## a\n\n1", known)
    again = bench_main.report(both, "help", "## h\n\n2\n", known)
    head, _, blocks = again.partition("<!-- bench apply -->")
    assert head.startswith("# Benchmarks\n")
    assert blocks == "\n## a\n\n1\n\n<!-- bench help -->\n## h\n\n2\n"
    assert bench_main.report(again, "help", "## h\n\n2\n", known) == again
    gone = bench_main.report(again, "build", "## b", ["build", "help"])
    assert "## a" not in gone
    assert gone.index("## b") < gone.index("## h")


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_main.main(["nonsense"]) == 2
    assert "no such benchmark: nonsense" in capsys.readouterr().out
