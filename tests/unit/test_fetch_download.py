"""Downloads: cut, resumed, restarted, lied to, killed, in company; never half-trusted."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.serving import Reply, Server, serving

from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.sources.download import DownloadCache, Pinned
from stackpatch.sources.pipconfig import IndexSettings
from stackpatch.sources.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "pkg-1.0.tar.gz"
CONTENT = random.Random(1).randbytes(700_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = f"/{NAME}"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running.replies[PATH] = Reply(CONTENT)
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> DownloadCache:
    return DownloadCache(tmp_path / "downloads")


def pinned(size: int | None = len(CONTENT), sha256: str = SHA256) -> Pinned:
    return Pinned(NAME, sha256, size)


def get(
    cache: DownloadCache,
    server: Server,
    wanted: Pinned | None = None,
    progress: list[tuple[int, int | None]] | None = None,
) -> bytes:
    transport = Transport(IndexSettings(timeout=10, retries=2), pause=lambda _: None)
    seen: list[tuple[int, int | None]] = [] if progress is None else progress
    path = cache.fetch(
        wanted or pinned(),
        lambda: f"{server.url}{PATH}",
        transport,
        lambda done, total: seen.append((done, total)),
    )
    assert path == cache.path(wanted or pinned())
    return path.read_bytes()


def part_of(cache: DownloadCache) -> Path:
    return cache.path(pinned()).with_name(f".{NAME}.part")


def leave_part(cache: DownloadCache, content: bytes) -> None:
    part_of(cache).parent.mkdir(parents=True)
    part_of(cache).write_bytes(content)


def nothing_is_left(cache: DownloadCache) -> None:
    assert not cache.path(pinned()).exists()
    assert not part_of(cache).exists()


@pytest.mark.parametrize("size", [len(CONTENT), None])
@pytest.mark.parametrize("length", [True, False])
def test_a_file_arrives(
    cache: DownloadCache, server: Server, size: int | None, length: bool
) -> None:
    server.replies[PATH] = Reply(CONTENT, length=length)
    seen: list[tuple[int, int | None]] = []
    assert get(cache, server, pinned(size), seen) == CONTENT
    total = len(CONTENT) if size or length else None
    assert seen[-1] == (len(CONTENT), total)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert not part_of(cache).exists()
    assert cache.find(pinned()) == cache.path(pinned())


def test_a_second_time_nobody_is_asked(cache: DownloadCache, server: Server) -> None:
    get(cache, server)
    server.asked.clear()
    path = cache.fetch(pinned(), lambda: pytest.fail("asked an index"), Transport(IndexSettings()))
    assert path.read_bytes() == CONTENT
    assert server.asked == []


def test_the_file_is_readable_whatever_the_umask(cache: DownloadCache, server: Server) -> None:
    before = os.umask(0o077)
    try:
        get(cache, server)
    finally:
        os.umask(before)
    assert cache.path(pinned()).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("damage", [b"", CONTENT[:-1], CONTENT + b"x", b"y" + CONTENT[1:]])
def test_a_file_that_was_damaged_on_disk_is_fetched_again(
    cache: DownloadCache, server: Server, damage: bytes
) -> None:
    get(cache, server)
    cache.path(pinned()).write_bytes(damage)
    assert cache.find(pinned()) is None
    assert get(cache, server) == CONTENT


def test_a_wrong_sha256_is_refused_with_both_and_nothing_is_kept(
    cache: DownloadCache, server: Server
) -> None:
    other = bytes(len(CONTENT))
    server.replies[PATH] = Reply(other)
    with pytest.raises(EnvironmentProblem) as caught:
        get(cache, server)
    assert SHA256 in caught.value.message
    assert hashlib.sha256(other).hexdigest() in caught.value.message
    nothing_is_left(cache)
    assert len(server.asked) == 1  # it came whole: asking again would give the same


def test_another_size_is_refused_before_it_is_downloaded(
    cache: DownloadCache, server: Server
) -> None:
    server.replies[PATH] = Reply(CONTENT + b"more")
    seen: list[tuple[int, int | None]] = []
    with pytest.raises(EnvironmentProblem, match="700,004 bytes, not 700,000"):
        get(cache, server, progress=seen)
    assert seen == []
    nothing_is_left(cache)


def test_a_body_without_end_is_stopped(cache: DownloadCache, server: Server) -> None:
    server.replies[PATH] = Reply(CONTENT + bytes(3_000_000), length=False)
    with pytest.raises(EnvironmentProblem, match="more than 700,000 bytes"):
        get(cache, server)
    nothing_is_left(cache)


def test_a_page_in_place_of_the_file_is_said(cache: DownloadCache, server: Server) -> None:
    for body in (b"<!DOCTYPE html><p>Sign in", b"\n <HTML>" + bytes(len(CONTENT) - 8)):
        server.asked.clear()
        server.replies[PATH] = Reply(body, kind="text/html; charset=utf-8")
        with pytest.raises(EnvironmentProblem, match="gave an HTML page for") as caught:
            get(cache, server)
        assert "login page" in str(caught.value.hint)
        assert len(server.asked) == 1
        nothing_is_left(cache)


def test_a_server_that_calls_everything_a_page_is_believed_by_digest(
    cache: DownloadCache, server: Server
) -> None:
    server.replies[PATH] = Reply(CONTENT, kind="text/html")
    assert get(cache, server) == CONTENT


@pytest.mark.parametrize("status", [404, 410])
def test_a_dead_link_is_said(cache: DownloadCache, server: Server, status: int) -> None:
    server.replies[PATH] = Reply(b"gone", status)
    with pytest.raises(EnvironmentProblem, match=rf"is not at .*\({status}\)"):
        get(cache, server)
    assert len(server.asked) == 1


def test_a_cut_transfer_goes_on_where_it_stopped(cache: DownloadCache, server: Server) -> None:
    server.script[PATH] = [Reply(CONTENT, cut=300_000), Reply(CONTENT, cut=200_000)]
    seen: list[tuple[int, int | None]] = []
    assert get(cache, server, progress=seen) == CONTENT
    starts = [asked.range for asked in server.asked]
    assert starts == [None, "bytes=300000-", "bytes=500000-"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_transfer_that_moves_on_is_not_given_up(cache: DownloadCache, server: Server) -> None:
    server.script[PATH] = [Reply(CONTENT, cut=50_000)] * 12  # retries: 2
    assert get(cache, server) == CONTENT
    assert len(server.asked) == 13


def test_a_server_without_ranges_starts_again(cache: DownloadCache, server: Server) -> None:
    server.replies[PATH] = Reply(CONTENT, ranges=False)
    server.script[PATH] = [Reply(CONTENT, ranges=False, cut=300_000)]
    assert get(cache, server) == CONTENT
    assert [asked.range for asked in server.asked] == [None, "bytes=300000-"]


def test_a_206_that_starts_elsewhere_is_not_believed(cache: DownloadCache, server: Server) -> None:
    server.script[PATH] = [Reply(CONTENT, cut=300_000), Reply(CONTENT, wrong_range=True)]
    assert get(cache, server) == CONTENT
    assert [asked.range for asked in server.asked] == [None, "bytes=300000-", None]


def test_a_206_of_another_file_is_refused(cache: DownloadCache, server: Server) -> None:
    leave_part(cache, CONTENT[:1000])
    server.replies[PATH] = Reply(CONTENT + b"more")
    with pytest.raises(EnvironmentProblem, match="700,004 bytes, not 700,000"):
        get(cache, server)
    nothing_is_left(cache)


def test_a_server_that_always_cuts_is_given_up(cache: DownloadCache, server: Server) -> None:
    server.replies[PATH] = Reply(CONTENT, cut=0)
    with pytest.raises(EnvironmentProblem, match=r"could not be downloaded: .*broke off"):
        get(cache, server)
    assert len(server.asked) == 3


def test_what_came_before_the_end_is_kept_for_the_next_run(
    cache: DownloadCache, server: Server
) -> None:
    server.script[PATH] = [Reply(CONTENT, cut=300_000), *[Reply(status=500)] * 2]
    with pytest.raises(EnvironmentProblem, match="answered 500"):
        get(cache, server)
    assert part_of(cache).read_bytes() == CONTENT[:300_000]
    assert cache.find(pinned()) is None
    server.asked.clear()
    assert get(cache, server) == CONTENT
    assert [asked.range for asked in server.asked] == ["bytes=300000-"]


@pytest.mark.parametrize(
    ("part", "ranges"),
    [
        (b"", [None]),
        (CONTENT[:1000], ["bytes=1000-"]),
        (b"?" * 1000, ["bytes=1000-", None]),  # poisoned: found by the digest, once more
        (CONTENT, []),  # killed before the rename
        (b"?" * len(CONTENT), [None]),
        (CONTENT + b"x", [None]),
    ],
    ids=["empty", "good", "poisoned", "complete", "poisoned and complete", "too long"],
)
def test_a_part_from_before_helps_or_is_dropped(
    cache: DownloadCache, server: Server, part: bytes, ranges: list[str | None]
) -> None:
    leave_part(cache, part)
    assert get(cache, server) == CONTENT
    assert [asked.range for asked in server.asked] == ranges


def test_a_part_that_is_too_long_where_nobody_knows_the_size(
    cache: DownloadCache, server: Server
) -> None:
    leave_part(cache, CONTENT + b"x")
    assert get(cache, server, pinned(None)) == CONTENT
    assert [asked.range for asked in server.asked] == [f"bytes={len(CONTENT) + 1}-", None]


def test_a_cut_that_nobody_can_see_is_found_by_the_digest(
    cache: DownloadCache, server: Server
) -> None:
    server.script[PATH] = [Reply(CONTENT[:1000], length=False)]
    assert get(cache, server, pinned(None)) == CONTENT
    server.script[PATH] = [Reply(CONTENT[:1000], length=False)]
    cache.path(pinned()).unlink()
    assert get(cache, server) == CONTENT  # with a known size it goes on
    assert server.asked[-1].range == "bytes=1000-"


def test_an_encoded_body_is_taken_as_it_is(cache: DownloadCache, server: Server) -> None:
    """Some servers say `Content-Encoding: gzip` for a .tar.gz: decoding would change the file."""
    server.replies[PATH] = Reply(CONTENT, headers={"Content-Encoding": "gzip"})
    assert get(cache, server) == CONTENT
    assert server.asked[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", ".hidden", "a\\b", "a\nb", "a\0b"])
def test_a_name_that_is_no_file_name_is_refused(cache: DownloadCache, name: str) -> None:
    with pytest.raises(InputError, match="not a file name"):
        cache.path(Pinned(name, SHA256))


def test_a_full_disk_is_said(
    cache: DownloadCache, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentProblem, match="no space left while writing"):
        get(cache, server)
    monkeypatch.setattr(os, "fsync", real)
    assert not cache.path(pinned()).exists()
    assert get(cache, server) == CONTENT


# --- kills and company --------------------------------------------------------------------------

_CHILD = textwrap.dedent(
    """\
    import sys
    from pathlib import Path
    from stackpatch.sources.download import DownloadCache, Pinned
    from stackpatch.sources.pipconfig import IndexSettings
    from stackpatch.sources.transport import Transport

    root, url, name, sha256, size = sys.argv[1:]
    pinned = Pinned(name, sha256, int(size))
    print("started", flush=True)
    DownloadCache(Path(root)).fetch(pinned, lambda: url, Transport(IndexSettings()))
    """
)


def _child(cache: DownloadCache, server: Server) -> subprocess.Popen[bytes]:
    arguments = [str(cache.root), f"{server.url}{PATH}", NAME, SHA256, str(len(CONTENT))]
    argv = [sys.executable, "-c", _CHILD, *arguments]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_kill_in_the_middle_and_the_same_again(
    cache: DownloadCache, server: Server, how: signal.Signals
) -> None:
    server.replies[PATH] = Reply(CONTENT, pause=0.05)
    with _child(cache, server) as child:
        deadline = time.monotonic() + 60
        while not part_of(cache).exists() or part_of(cache).stat().st_size < 200_000:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.send_signal(how)
        assert child.wait() != 0
    assert cache.find(pinned()) is None
    size = part_of(cache).stat().st_size
    assert CONTENT.startswith(part_of(cache).read_bytes())
    server.asked.clear()
    server.replies[PATH] = Reply(CONTENT)
    assert get(cache, server) == CONTENT
    assert [asked.range for asked in server.asked] == [f"bytes={size}-"]


def test_kills_at_any_time(cache: DownloadCache, server: Server) -> None:
    server.replies[PATH] = Reply(CONTENT, pause=0.01)
    for step in range(6):
        with _child(cache, server) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(step * 0.03)
            child.kill()
        found = cache.find(pinned())
        assert found is None or found.read_bytes() == CONTENT
        assert found is not None or not cache.path(pinned()).exists()
    assert get(cache, server) == CONTENT


def test_two_processes_download_once(cache: DownloadCache, server: Server) -> None:
    server.replies[PATH] = Reply(CONTENT, pause=0.03)
    with _child(cache, server) as first, _child(cache, server) as second:
        assert (first.wait(60), second.wait(60)) == (0, 0)
    assert server.paths() == [PATH]
    assert cache.path(pinned()).read_bytes() == CONTENT


def test_many_threads_download_once(cache: DownloadCache, server: Server) -> None:
    server.replies[PATH] = Reply(CONTENT, pause=0.01)
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(get(cache, server))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [CONTENT] * 8
    assert len(server.asked) == 1
