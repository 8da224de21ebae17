"""A series of 100 patches over a tree of 20,000 files, beside git rebase --merge in a work tree."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from bench.bench_apply import git
from bench.measure import Comparison, Contender, Goal, call, command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FILES, _PATCHES = 20_000, 100


def comparisons(work: Path) -> Iterator[Comparison]:
    """Upstream added a line above every tenth patch's place; the others are as they were."""
    from stackpatch.model.series import load_series
    from stackpatch.series.rebase import State, advance
    from stackpatch.sources.objects import Objects

    repository, mails = work / "repository", work / "series"
    if not (mails / "series").exists():
        _make(repository, mails)
    onto = _read(repository, "rev-parse", "up^{tree}")

    def ours() -> None:
        series = load_series(mails)
        state = State("s", "1", "up", onto, series.digest, onto, ())
        done = advance(Objects(repository / ".git"), state, series.patches, covers=lambda _: True)
        if done.waiting is not None or done.tree != _read(repository, "rev-parse", "moved^{tree}"):
            msg = f"a wrong rebase: {done.waiting}"
            raise AssertionError(msg)

    rebase = ["git", "-C", str(repository), "-c", "user.name=b", "-c", "user.email=b@b"]
    rebase += ["rebase", "-q", "--merge", "--onto", "up", "base", "again"]
    git(repository, "checkout", "-q", "-f", "-B", "again", "work")
    command(rebase)()
    git(repository, "branch", "-f", "moved", "again")
    yield Comparison(
        title=f"rebase of {_PATCHES} patches over {_FILES} files",
        note="Ours reads the mails, moves them and writes the moved ones; both give the same tree.",
        contenders=(
            Contender(name="stackpatch, in the process", run=call(ours)),
            Contender(
                name="git rebase --merge",
                before=lambda: git(repository, "checkout", "-q", "-f", "-B", "again", "work"),
                run=command(rebase),
            ),
        ),
        goals=(Goal(against="git rebase --merge", at_most=0.1),),
        rounds=3,
    )


def _function(number: int, line: str) -> str:
    head = f'"""Module {number}."""\n\nimport sys\n\n\ndef gate_{number}(props):\n'
    body = (
        "device = props.device",
        "stream = props.stream",
        line,
        "launch(device)",
        "return device",
    )
    return head + "".join(f"    {text}\n" for text in body)


def _read(repository: Path, *words: str) -> str:
    done = subprocess.run(("git", *words), cwd=repository, check=True, capture_output=True)
    return done.stdout.decode().strip()


def _make(repository: Path, mails: Path) -> None:
    repository.mkdir(parents=True, exist_ok=True)
    git(repository, "init", "-q", "-b", "base")
    for name, value in (("user.name", "b"), ("user.email", "b@b"), ("gc.auto", "0")):
        git(repository, "config", name, value)
    for number in range(_FILES):
        path = repository / f"package_{number // 100}" / f"module_{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(_function(number, "assert props.major == 10"))
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "base")
    git(repository, "checkout", "-q", "-b", "up")
    for number in range(0, _FILES, 10):
        path = repository / f"package_{number // 100}" / f"module_{number}.py"
        path.write_text(path.read_text().replace("import sys\n", "import sys\nimport os\n"))
    git(repository, "commit", "-q", "-a", "-m", "up")
    git(repository, "checkout", "-q", "-b", "work", "base")
    for number in range(_PATCHES):
        path = repository / f"package_{number // 100}" / f"module_{number}.py"
        path.write_text(_function(number, "assert props.major in (10, 12)"))
        git(repository, "commit", "-q", "-a", "-m", f"Open gate {number}")
    mails.mkdir(exist_ok=True)
    plain = ("--full-index", "--no-signature", "--no-stat", "--zero-commit", "-N")
    git(repository, "format-patch", "-q", *plain, "-o", str(mails.absolute()), "base..work")
    names = sorted(path.name for path in mails.glob("*.patch"))
    (mails / "series").write_text("".join(f"{name}\n" for name in names))
