"""Merging against `git merge-file`, and deaf to the person's settings."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.series.merge import merge

if TYPE_CHECKING:
    from pathlib import Path

LINES = st.lists(
    st.sampled_from([b"a", b"b", b"c", b"", b"}", b"\xff\xe9", b"cr\r", "é".encode()]), max_size=8
)
SIDES = st.builds(lambda lines, end: b"\n".join(lines) + b"\n" * end, LINES, st.booleans())


def git_merges(folder: Path, base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    folder.mkdir(exist_ok=True)
    for name, content in (("base", base), ("ours", ours), ("theirs", theirs)):
        (folder / name).write_bytes(content)
    done = subprocess.run(
        ["git", "merge-file", "-p", "-q", "ours", "base", "theirs"], cwd=folder, capture_output=True
    )
    return done.stdout if done.returncode == 0 else None


@given(SIDES, SIDES, SIDES)
def test_the_same_bytes_as_git(
    tmp_path_factory: pytest.TempPathFactory, base: bytes, ours: bytes, theirs: bytes
) -> None:
    found = merge(base, ours, theirs)
    expected = git_merges(tmp_path_factory.getbasetemp() / "merge-file", base, ours, theirs)
    # `git merge-file` leaves conflicts out that both sides resolved alike; so do we.
    assert found == expected


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "expected"),
    [
        (b"a\nb\nc\n", b"a\nb\nc\n", b"a\nX\nc\n", b"a\nX\nc\n"),
        (b"a\nb\nc\n", b"a\nX\nc\n", b"a\nb\nc\n", b"a\nX\nc\n"),
        (b"a\nb\nc\n", b"a\nX\nc\n", b"a\nX\nc\n", b"a\nX\nc\n"),
        (b"a\nb\nc\n", b"a\nX\nc\n", b"a\nY\nc\n", None),
        (b"1\n2\n3\n4\n5\n", b"0\n2\n3\n4\n5\n", b"1\n2\n3\n4\n6\n", b"0\n2\n3\n4\n6\n"),
        (b"1\n2\n3\n4\n\xff\n", b"0\n2\n3\n4\n\xff\n", b"1\n2\n3\n4\n\xfe", b"0\n2\n3\n4\n\xfe"),
        (b"1\n2\n3\n4\0\n", b"0\n2\n3\n4\0\n", b"1\n2\n3\n5\0\n", None),
        (b"a\n", b"", b"a\nb\n", None),
        (b"a\n", b"", b"", b""),
    ],
)
def test_cases(base: bytes, ours: bytes, theirs: bytes, expected: bytes | None) -> None:
    assert merge(base, ours, theirs) == expected


def test_the_persons_git_settings_do_not_merge_for_us(tmp_path: Path) -> None:
    """`* merge=union` in ~/.config/git/attributes would turn every conflict into a clean merge."""
    config = tmp_path / ".config" / "git"
    config.mkdir(parents=True)
    (config / "attributes").write_text("* merge=union\n")
    (tmp_path / "template" / "info").mkdir(parents=True)
    (tmp_path / "template" / "info" / "attributes").write_text("* merge=union\n")
    (tmp_path / ".gitconfig").write_text(
        f"[merge]\n\tdefault = union\n\tconflictStyle = diff3\n[core]\n\tautocrlf = true\n"
        f"\tattributesFile = {config}/attributes\n[init]\n\ttemplateDir = {tmp_path}/template\n"
    )
    code = (
        "from stackpatch.series.merge import merge\n"
        "print(merge(b'a\\nb\\nc\\n', b'a\\nX\\nc\\n', b'a\\nY\\nc\\n'))\n"
        "print(merge(b'1\\n2\\n3\\n4\\n5\\n', b'0\\n2\\n3\\n4\\n5\\n', b'1\\n2\\n3\\n4\\n6\\n'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"HOME": str(tmp_path)}, capture_output=True, check=True
    )
    assert done.stdout.decode().split("\n") == ["None", "b'0\\n2\\n3\\n4\\n6\\n'", ""]
