"""One rebase in a process of its own, in which nothing was read or parsed before.

`python -m bench.rebase_once REPOSITORY SERIES ONTO WANTED` prints the seconds that it took. ONTO,
WANTED: trees, the new base and what must come out.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from stackpatch.model.series import load_series
from stackpatch.series.rebase import advance
from stackpatch.series.rebase_state import State
from stackpatch.sources.objects import Objects


def main(repository: str, mails: str, onto: str, wanted: str) -> None:
    """Read the mails, move them, write the moved ones."""
    started = time.perf_counter()
    series = load_series(Path(mails))
    state = State("s", "1", "up", onto, series.digest, onto, ())
    done = advance(Objects(Path(repository)), state, series.patches, covers=lambda _: True)
    took = time.perf_counter() - started
    if done.waiting is not None or done.tree != wanted:
        msg = f"a wrong rebase: {done.waiting}"
        raise SystemExit(msg)
    print(took)


if __name__ == "__main__":
    main(*sys.argv[1:])
