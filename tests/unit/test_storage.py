"""Files and folders that appear whole or not at all, also beside a second process and a kill."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from stackpatch import storage
from stackpatch.errors import EnvironmentProblem, InputError


def test_a_file_has_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        storage.write_atomically(tmp_path / "deep" / "file", b"x", mode=0o755)
    finally:
        os.umask(before)
    assert (tmp_path / "deep" / "file").stat().st_mode & 0o777 == 0o755


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentProblem, match="no space left"):
        storage.write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208 - also what is hidden


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    pipe, link, folder = tmp_path / "pipe", tmp_path / "link", tmp_path / "folder"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    folder.mkdir()
    for path in (pipe, link, folder):
        with pytest.raises(InputError, match=f"{path.name} is a "):
            storage.write_atomically(path, b"x")
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "link", "pipe"]
    (tmp_path / "to").symlink_to(folder)
    storage.write_atomically(tmp_path / "to", b"x")
    assert (tmp_path / "to").read_bytes() == b"x", "a link is replaced, as ever"


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "result"
    with storage.directory_beside(target) as scratch:
        (scratch / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    with storage.directory_beside(target) as scratch:
        (scratch / "b").write_text("2")
    assert [p.name for p in target.iterdir()] == ["b"], "replaced as a whole"
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "result"
    target.mkdir()
    (target / "a").write_text("1")
    with pytest.raises(ZeroDivisionError), storage.directory_beside(target) as scratch:
        (scratch / "b").write_text(str(1 // 0))
    assert [p.name for p in target.iterdir()] == ["a"]
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_a_kill_leaves_only_what_is_swept(tmp_path: Path) -> None:
    script = f"""
        import time
        from pathlib import Path
        from stackpatch import storage
        with storage.directory_beside(Path({str(tmp_path / "result")!r})) as scratch:
            (scratch / "a").write_text("1")
            print("ready", flush=True)
            time.sleep(60)
    """
    words = (sys.executable, "-c", textwrap.dedent(script))
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGKILL)
    assert not (tmp_path / "result").exists()
    assert len(list(tmp_path.iterdir())) == 1
    storage.sweep(tmp_path, "result")
    assert list(tmp_path.iterdir()) == []


def test_sweeping_follows_no_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    (tmp_path / ".result.x.tmp").symlink_to(precious)
    storage.sweep(tmp_path, "result")
    assert (precious / "file").exists()
    assert not (tmp_path / ".result.x.tmp").is_symlink()


def test_a_lock_is_waited_for_and_dies_with_its_holder(tmp_path: Path) -> None:
    script = f"""
        import time
        from pathlib import Path
        from stackpatch import storage
        with storage.lock(Path({str(tmp_path / "lock")!r})):
            print("held", flush=True)
            time.sleep(60)
    """
    words = (sys.executable, "-c", textwrap.dedent(script))
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        waited = storage.lock(tmp_path / "lock", wait=0.1, what="somebody")
        with pytest.raises(EnvironmentProblem, match="somebody is still at work"), waited:
            pytest.fail("two at once")
        child.send_signal(signal.SIGKILL)
    started = time.monotonic()
    with storage.lock(tmp_path / "lock", wait=5):
        assert time.monotonic() - started < 4


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "no space left"),
        (errno.EROFS, "not allowed"),
        (errno.EACCES, "not allowed"),
    ],
)
def test_what_a_disk_says_is_told(tmp_path: Path, code: int, words: str) -> None:
    with pytest.raises(EnvironmentProblem, match=words), storage.disk_errors(tmp_path):
        raise OSError(code, "the disk says no")


def test_other_errors_are_not_the_disks(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="odd"), storage.disk_errors(tmp_path):
        raise OSError(errno.EXDEV, "odd")


def test_the_cache_is_where_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", "/a")
    assert storage.cache_root() == Path("/a")
    monkeypatch.delenv("STACKPATCH_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert storage.cache_root() == Path("/b/stackpatch")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/c")
    assert storage.cache_root() == Path("/c/.cache/stackpatch")
