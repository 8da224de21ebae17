"""Random upstreams and random series: a whole rebase beside `git rebase`, and nothing is lost.

Where both are clean the trees are one. Where ours is clean every added line of every patch is in
its new mail, or upstream has it and the report says so.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests.upstreams import _ENV, Upstream, Version

from stackpatch.model.patch import Patch, parse_patch
from stackpatch.series.apply import apply_series
from stackpatch.series.landed import decide
from stackpatch.series.pick import Move, Outcome
from stackpatch.series.rebase import advance, gives_again
from stackpatch.series.rebase_state import State

NAMES = ("gate.py", "launch.cu", "notes.txt")
Edit = tuple[int, str]
Change = tuple[int, tuple[Edit, ...]]  # which file, what is done to it
EDITS = st.lists(
    st.tuples(st.integers(0, 27), st.sampled_from(["drop", "add", "change"])),
    min_size=1,
    max_size=3,
).map(tuple)
CHANGES = st.tuples(st.integers(0, len(NAMES) - 1), EDITS)


def text(name: str) -> str:
    """A file of its language with three functions that read alike."""
    if name.endswith(".py"):
        body = "".join(
            f"def build_{n}(props):\n    major = props.major\n    assert major == {n + 10}\n"
            f"    check_shape(props)\n    launch(props, {n})\n    return major\n\n\n"
            for n in range(3)
        )
    elif name.endswith(".cu"):
        body = "".join(
            f"int launch_{n}(int major) {{\n  if (major != {n + 10}) {{\n    return -1;\n  }}\n"
            f"  prepare(major, {n});\n  return run(major);\n}}\n\n"
            for n in range(3)
        )
    else:
        body = "".join(f"line {n}\n" for n in range(28))
    return body


def edited(content: str, edits: tuple[Edit, ...], word: str) -> str:
    """Lines dropped, added and changed; what is added is still a statement of its language."""
    lines = content.splitlines(keepends=True)
    for number, (at, kind) in enumerate(edits):
        place = min(at, len(lines))
        indent = (
            lines[place][: len(lines[place]) - len(lines[place].lstrip())]
            if (place < len(lines))
            else ""
        )
        mine = f"{indent.rstrip(chr(10))}{word}_{number}(major)\n"
        match kind:
            case "add":
                lines.insert(place, mine)
            case "drop":
                del lines[place : place + 1]
            case _:
                lines[place : place + 1] = [mine]
    return "".join(lines)


def by_git(up: Upstream, folder: Path, new: Version) -> str | None:
    """The tree that `git rebase` ends with; None where it stops."""
    up.git("worktree", "add", "-q", "--detach", str(folder), "work")
    done = subprocess.run(
        ("git", "-C", folder, "rebase", "-q", "--empty=drop", "--onto", new.commit, "v1.0"),
        env=os.environ | _ENV, capture_output=True,
    )  # fmt: skip
    if done.returncode:
        return None
    found = subprocess.run(
        ("git", "-C", folder, "rev-parse", "HEAD^{tree}"), capture_output=True, check=True
    )
    return found.stdout.decode().strip()


def added(patch: Patch) -> Counter[bytes]:
    return Counter(
        line.strip() for file in patch.files for hunk in file.hunks for line in hunk.added
    )


def nothing_lost(up: Upstream, patch: Patch, moved: Move, before: str) -> None:
    """Every line that the patch adds is in its mail, or in the tree that it was put onto."""
    kept = added(parse_patch(patch.name, moved.mail)) if moved.mail is not None else Counter()
    missing = added(patch) - kept
    if moved.outcome in (Outcome.UNTOUCHED, Outcome.MOVED):
        assert not missing
    if missing:
        there = b"\n".join(up.objects.blob(entry.id) for _, entry in up.objects.walk(before))
        assert all(line in there for line in missing), (moved.outcome, missing)
        assert moved.outcome in (Outcome.LANDED, Outcome.SHRUNK), "and it is said"


@settings(max_examples=30)
@given(
    series=st.lists(CHANGES, min_size=1, max_size=4),
    upstream=st.lists(CHANGES, max_size=2),
    taken=st.integers(-1, 3),
)
def test_a_whole_series_comes_out_as_git_rebases_it(
    series: list[Change], upstream: list[Change], taken: int
) -> None:
    """taken: which of our patches upstream has taken meanwhile; -1 and beyond: none."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {name: text(name) for name in NAMES}
        up = Upstream(folder / "up", dict(files))
        patches, now = [], dict(files)
        for number, (which, edits) in enumerate(series):
            path = NAMES[which]
            content = edited(now[path], edits, f"ours{number}")
            if content == now[path]:
                continue
            now[path] = content
            patches.append((f"Patch {number}", {path: content}, ""))
        if not patches:
            return
        made = up.series(folder / "series", *patches)
        theirs = dict(files)
        if 0 <= taken < len(series):
            path, edits = NAMES[series[taken][0]], series[taken][1]
            theirs[path] = edited(theirs[path], edits, f"ours{taken}")
        for number, (which, edits) in enumerate(upstream):
            path = NAMES[which]
            theirs[path] = edited(theirs[path], edits, f"theirs{number}")
        new = up.release("2.0", dict(theirs))
        objects = up.objects
        assert apply_series(objects, up.versions[0].tree, made.patches).applied
        start = State("demo", "1.0", "2.0", new.tree, made.digest, new.tree, ())
        state = advance(objects, start, made.patches, covers=lambda _: True)
        before = new.tree
        for patch, moved in zip(made.patches, state.moves, strict=False):
            if not moved.outcome.stops:
                nothing_lost(up, patch, moved, before)
            if moved.outcome is Outcome.LANDED:
                assert decide(objects, before, patch).word.may_drop
                assert moved.tree == before
            before = moved.tree
        if state.waiting is not None:
            event("ours stops")
            return
        mails = {one.name: one.mail for one in state.moves if one.mail is not None}
        assert gives_again(objects, new.tree, mails, state.tree) is None
        expected = by_git(up, folder / "rebased", new)
        event(f"ours is clean, git {'stops' if expected is None else 'too'}")
        if expected is not None:
            assert state.tree == expected
