"""A series of 100 patches over a tree of 20,000 files, beside git rebase --merge in a work tree."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.bench_apply import git
from bench.measure import Comparison, Contender, Goal, Sample, command

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).parents[1]
_FILES, _PATCHES = 20_000, 100


def comparisons(work: Path) -> Iterator[Comparison]:
    """Upstream added a line above every tenth patch's place; then above every patch's."""
    repository, mails = work / "repository", work / "series"
    if not (mails / "all-moved").exists():
        shutil.rmtree(work)
        _make(repository, mails)
    for up, note in (
        ("some", "Every tenth patch has moved by a line"),
        ("all", "Every patch has moved by a line"),
    ):
        yield _comparison(repository, mails, up, note)


def _comparison(repository: Path, mails: Path, up: str, note: str) -> Comparison:
    rebase = ["git", "-C", str(repository), "-c", "user.name=b", "-c", "user.email=b@b"]
    rebase += ["rebase", "-q", "--merge", "--onto", up, "base", "again"]
    git(repository, "checkout", "-q", "-f", "-B", "again", "work")
    command(rebase)()
    onto, wanted = (_read(repository, "rev-parse", f"{name}^{{tree}}") for name in (up, "again"))

    once = [sys.executable, "-m", "bench.rebase_once", *map(str, (repository / ".git", mails))]
    once += [onto, wanted]

    def job() -> Sample:
        done = subprocess.run(once, cwd=_ROOT, check=True, capture_output=True)
        return Sample(float(done.stdout))

    return Comparison(
        title=f"rebase of {_PATCHES} patches over {_FILES} files, {up} of them moved",
        note=f"{note}. Ours reads the mails, moves them and writes the moved ones, in a "
        "new process each time; both give the same tree.",
        contenders=(
            Contender(name="stackpatch, from the mails to the moved series", run=job),
            Contender(
                name="git rebase --merge",
                before=lambda: git(repository, "checkout", "-q", "-f", "-B", "again", "work"),
                run=command(rebase),
            ),
            Contender(name="stackpatch, with the start of Python", run=command(once, cwd=_ROOT)),
        ),
        goals=(Goal(against="git rebase --merge", at_most=0.1),),
        rounds=5,
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
    for up, touched in (("some", range(0, _FILES, 10)), ("all", range(_PATCHES))):
        git(repository, "checkout", "-q", "-b", up, "base")
        for number in touched:
            path = repository / f"package_{number // 100}" / f"module_{number}.py"
            path.write_text(path.read_text().replace("import sys\n", "import sys\nimport os\n"))
        git(repository, "commit", "-q", "-a", "-m", up)
    git(repository, "checkout", "-q", "-b", "work", "base")
    for number in range(_PATCHES):
        path = repository / f"package_{number // 100}" / f"module_{number}.py"
        path.write_text(_function(number, "assert props.major in (10, 12)"))
        git(repository, "commit", "-q", "-a", "-m", f"Open gate {number}")
    mails.mkdir(exist_ok=True)
    plain = ("--full-index", "--no-signature", "--no-stat", "--zero-commit", "-N")
    git(repository, "format-patch", "-q", *plain, "-o", str(mails.absolute()), "base..work")
    (mails / "all-moved").touch()
    names = sorted(path.name for path in mails.glob("*.patch"))
    (mails / "series").write_text("".join(f"{name}\n" for name in names))
