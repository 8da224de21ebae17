"""The source store: what goes in comes out, the same everywhere, whoever is killed when."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.conftest import git

from stackpatch import storage
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.model.reference import SourceKind, VersionRef
from stackpatch.sources.archive import Member
from stackpatch.sources.objects import EXECUTABLE, REGULAR, SYMLINK
from stackpatch.sources.store import SourceStore, Stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SDIST, WHEEL, GIT = SourceKind.SDIST, SourceKind.WHEEL, SourceKind.GIT
EVIDENCE = {"Artefact": "pkg-1.0.tar.gz", "Sha256": "ab" * 32}
ODD = b'caf\xe9 "q" \\ \t\n end'.decode("utf-8", "surrogateescape")
FILES = {
    "setup.py": (REGULAR, b"print()\n"),
    "bin/run": (EXECUTABLE, b"#!/bin/sh\n"),
    "link": (SYMLINK, b"bin/run"),
    "bin-x": (REGULAR, b""),
    f"odd/{ODD}": (REGULAR, b"\x00\xff"),
}
GOLDEN = "f159eb0c9d54f79ddc1a9413a1184ef8590fee1f"


def as_members(files: Mapping[str, tuple[int, bytes]]) -> Iterator[Member]:
    for path, (mode, content) in files.items():
        yield Member.of(path, mode, content)


def put(
    store: SourceStore,
    version: str = "1.0",
    files: Mapping[str, tuple[int, bytes]] = FILES,
    kind: SourceKind = SDIST,
    **evidence: str,
) -> Stored:
    said = {**EVIDENCE, **evidence}
    return store.import_files(kind, version, as_members(files), seconds=1770000000, evidence=said)


def content(store: SourceStore, stored: Stored) -> dict[str, tuple[int, bytes]]:
    objects = store.objects
    return {path: (e.mode, objects.blob(e.id)) for path, e in objects.walk(stored.tree)}


def sound(store: SourceStore) -> None:
    """Git itself finds nothing wrong, and nothing of a dead process lies around."""
    out = git("--git-dir", str(store.path), "fsck", "--full", "--strict", cwd=store.path)
    assert "error" not in out
    assert "missing" not in out


@pytest.fixture
def store(tmp_path: Path) -> SourceStore:
    return SourceStore("pkg", tmp_path / "sources")


def unread() -> Iterator[Member]:
    pytest.fail("the files were read again")
    yield Member.of("x", REGULAR, b"")


def test_what_goes_in_comes_out(store: SourceStore) -> None:
    stored = put(store)
    assert (stored.kind, stored.version, stored.label) == (SDIST, "1.0", "sdist:1.0")
    assert dict(stored.evidence) == EVIDENCE
    assert content(store, stored) == FILES
    assert store.find(SDIST, "1.0") == stored
    assert store.find(WHEEL, "1.0") is None
    assert store.find(SDIST, "1.0.0") is None
    assert store.objects.tree_of(stored.commit) == stored.tree
    sound(store)


def test_another_process_reads_the_same(store: SourceStore) -> None:
    stored = put(store)
    other = SourceStore("pkg", store.path.parent)
    assert other.find(SDIST, "1.0") == stored
    assert content(other, stored) == FILES


def test_the_tree_is_the_one_git_makes(store: SourceStore, tmp_path: Path) -> None:
    work = tmp_path / "work"
    for path, (mode, data) in FILES.items():
        target = work / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if mode == SYMLINK:
            target.symlink_to(data.decode())
        else:
            target.write_bytes(data)
            target.chmod(0o755 if mode == EXECUTABLE else 0o644)
    git("init", "-q", cwd=work)
    git("add", "-A", cwd=work)
    assert put(store).tree == git("write-tree", cwd=work).strip()


def test_the_commit_id_is_the_same_everywhere(
    store: SourceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put(store)
    shown = git("--git-dir", str(store.path), "cat-file", "-p", first.commit, cwd=tmp_path)
    assert shown.partition("\n")[2] == textwrap.dedent(
        f"""\
        author stackpatch <stackpatch@localhost> 1770000000 +0000
        committer stackpatch <stackpatch@localhost> 1770000000 +0000

        pkg 1.0, sdist

        Artefact: pkg-1.0.tar.gz
        Sha256: {"ab" * 32}
        """
    )
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[user]\nname=N\nemail=e\n[core]\ncompression=9\nautocrlf=true\nquotepath=true\n"
        "[i18n]\ncommitEncoding=latin1\n[init]\ndefaultObjectFormat=sha256\n"
        "[commit]\ngpgSign=true\n[fastimport]\nunpackLimit=100000\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2001-01-01T00:00:00Z")
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    time.tzset()
    before = os.umask(0o077)
    try:
        second = put(
            SourceStore("pkg", tmp_path / "elsewhere"), files=dict(reversed(FILES.items()))
        )
    finally:
        os.umask(before)
        monkeypatch.undo()
        time.tzset()
    assert second == first
    assert first.commit == GOLDEN


def test_the_same_again_reads_nothing(store: SourceStore) -> None:
    stored = put(store)
    before = sorted((store.path / "objects" / "pack").iterdir())
    again = store.import_files(SDIST, "1.0", unread(), seconds=1770000000, evidence=EVIDENCE)
    assert again == stored
    assert sorted((store.path / "objects" / "pack").iterdir()) == before


@pytest.mark.parametrize("change", ["evidence", "seconds"])
def test_another_layout_or_date_imports_again(store: SourceStore, change: str) -> None:
    first = put(store)
    files = {"moved/setup.py": FILES["setup.py"]}
    if change == "evidence":
        second = put(store, files=files, Layout="other")
    else:
        second = store.import_files(SDIST, "1.0", as_members(files), seconds=1, evidence=EVIDENCE)
    assert second.commit != first.commit
    assert store.find(SDIST, "1.0") == second
    assert list(content(store, second)) == ["moved/setup.py"]
    sound(store)


def test_what_releases_share_is_stored_once(store: SourceStore) -> None:
    big = {f"f{n}": (REGULAR, os.urandom(20_000)) for n in range(20)}
    put(store, "1.0", big)
    size = sum(path.stat().st_size for path in store.path.rglob("*") if path.is_file())
    put(store, "1.1", {**big, "new": (REGULAR, b"new\n")})
    after = sum(path.stat().st_size for path in store.path.rglob("*") if path.is_file())
    assert size > 400_000
    assert after - size < 10_000
    sound(store)


def test_the_same_content_at_two_paths(store: SourceStore) -> None:
    files = {"a": (REGULAR, b"same\n"), "b/c": (EXECUTABLE, b"same\n")}
    assert content(store, put(store, files=files)) == files


def test_an_empty_release_is_an_empty_tree(store: SourceStore) -> None:
    assert content(store, put(store, files={})) == {}


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ([("a", REGULAR, b"1"), ("a", REGULAR, b"2")], "twice"),
        ([("a", REGULAR, b"1"), ("a/b", REGULAR, b"2")], "file and a folder"),
        ([("a/l", SYMLINK, b"../../x")], "out of the tree"),
    ],
)
def test_files_that_make_no_tree_leave_the_store_as_it_was(
    store: SourceStore, files: list[tuple[str, int, bytes]], word: str
) -> None:
    first = put(store)
    with pytest.raises(InputError, match=word) as caught:
        store.import_files(
            SDIST, "1.0", (Member.of(*file) for file in files), seconds=1, evidence={"A": "b"}
        )
    assert "pkg 1.0 (sdist)" in caught.value.message
    assert store.find(SDIST, "1.0") == first
    put(store, "1.1")
    sound(store)


def test_an_error_while_reading_leaves_the_store_as_it_was(store: SourceStore) -> None:
    def broken() -> Iterator[Member]:
        yield from as_members(FILES)
        msg = "cut off"
        raise InputError(msg)

    with pytest.raises(InputError, match="cut off"):
        store.import_files(SDIST, "1.0", broken(), seconds=1, evidence={"A": "b"})
    assert store.find(SDIST, "1.0") is None
    assert store.versions() == []
    assert content(store, put(store)) == FILES
    sound(store)


def test_evidence_is_single_lines(store: SourceStore) -> None:
    with pytest.raises(ValueError, match="single line"):
        put(store, Artefact="a\n\ntree x")


def test_no_templates_no_hooks_no_gc(store: SourceStore, tmp_path: Path) -> None:
    home = tmp_path / "home"
    hooks = home / "hooks"
    hooks.mkdir(parents=True)
    for name in ("reference-transaction", "post-update", "pre-auto-gc"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {home}/ran\n")
        (hooks / name).chmod(0o755)
    (home / ".gitconfig").write_text(
        f"[core]\nhooksPath={hooks}\n[init]\ntemplateDir={home}\n[gc]\nauto=1\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        put(store)
        put(store, "1.1")
    assert not (home / "ran").exists()
    assert not (store.path / "hooks").exists()
    gc = git("--git-dir", str(store.path), "config", "gc.auto", cwd=tmp_path)
    assert gc.strip() == "0"


# --- finding ------------------------------------------------------------------------------------


def test_versions_come_in_pep_440_order(store: SourceStore) -> None:
    for version in ("0.10.0", "0.9.0.post1", "0.9.0", "1.0rc1", "1.0"):
        put(store, version, {})
    put(store, "0.9.0", {}, WHEEL)
    assert [stored.label for stored in store.versions()] == [
        "sdist:0.9.0",
        "wheel:0.9.0",
        "sdist:0.9.0.post1",
        "sdist:0.10.0",
        "sdist:1.0rc1",
        "sdist:1.0",
    ]


def record(store: SourceStore, version: str, commit: str, **evidence: str) -> Stored:
    with store.exclusive() as lock:
        return store.record_commit(version, commit, evidence, lock=lock)


def test_a_git_commit_keeps_its_own_id(store: SourceStore) -> None:
    commit = put(store).commit
    stored = record(store, "1.0", commit, Url="https://example.invalid/x.git", Tag="v1.0")
    assert stored.commit == commit
    assert store.find(GIT, "1.0") == stored
    assert stored.evidence["Tag"] == "v1.0"
    assert stored.kind is GIT


@pytest.mark.parametrize(
    "name", ["feature", "feature/x", "a%2Fb", "1!2.0+x", "A~B", "..", "v1.0 x"]
)
def test_any_name_can_be_kept_beside_any_other(store: SourceStore, name: str) -> None:
    commit = put(store).commit
    record(store, "feature", commit)
    record(store, name, commit)
    found = store.find(GIT, name)
    assert found is not None
    assert found.version == name


def test_without_a_kind_git_wins_then_sdist_then_wheel(store: SourceStore) -> None:
    wheel = put(store, "1.0", {}, WHEEL)
    assert store.resolve(VersionRef.parse("1.0")) == wheel
    sdist = put(store, "1.0")
    assert store.resolve(VersionRef.parse("v1.0")) == sdist
    record(store, "1.0", sdist.commit, Tag="v1.0")
    assert store.resolve(VersionRef.parse("1.0")).kind is GIT
    assert store.resolve(VersionRef.parse("wheel:1.0")) == wheel
    assert store.resolve(VersionRef.parse("sdist:1.0.0")) == sdist
    assert store.resolve(VersionRef.parse("git:v1.0")).version == "1.0"


def test_a_commit_is_found_by_its_id_and_a_branch_by_its_name(store: SourceStore) -> None:
    commit = put(store).commit
    record(store, "main", commit)
    assert store.resolve(VersionRef(GIT, commit)).version == "main"
    assert store.resolve(VersionRef(GIT, commit[:10])).version == "main"
    assert store.resolve(VersionRef(GIT, "main")).commit == commit
    with pytest.raises(InputError):
        store.resolve(VersionRef(GIT, commit[:6]))


@pytest.mark.parametrize(
    ("ref", "hint"),
    [
        ("0.6.5", "nearest: 0.6.4, 0.6.10"),
        ("0.6.1", "nearest: 0.6.3"),
        ("0.7", "nearest: 0.6.10"),
        ("wheel:0.6.3", "nearest: sdist:0.6.3"),
        ("git:v0.6.4", "nearest: sdist:0.6.4"),
        ("git:main", "`stackpatch fetch pkg git:main` brings it"),
    ],
)
def test_what_is_not_there_is_said_with_the_nearest(
    store: SourceStore, ref: str, hint: str
) -> None:
    for version in ("0.6.3", "0.6.4", "0.6.10"):
        put(store, version, {})
    with pytest.raises(InputError, match="the source store of pkg has no") as caught:
        store.resolve(VersionRef.parse(ref))
    assert hint in str(caught.value.hint)
    assert f"`stackpatch fetch pkg {VersionRef.parse(ref)}`" in str(caught.value.hint)


def test_an_empty_store_says_how_to_fill_it(store: SourceStore) -> None:
    assert store.versions() == []
    with pytest.raises(InputError) as caught:
        store.resolve(VersionRef.parse("1.0"))
    assert caught.value.hint == "`stackpatch fetch pkg 1.0` brings it"


# --- faults -------------------------------------------------------------------------------------


def test_a_folder_that_is_no_repository_is_said(store: SourceStore) -> None:
    store.path.mkdir(parents=True)
    (store.path / "HEAD").write_text("nonsense")
    with pytest.raises(EnvironmentProblem, match="is damaged") as caught:
        store.versions()
    assert str(store.path) in str(caught.value.hint)


def test_a_store_that_lost_its_objects_is_said(store: SourceStore) -> None:
    put(store)
    shutil.rmtree(store.path / "objects" / "pack")
    (store.path / "objects" / "pack").mkdir()
    with pytest.raises(EnvironmentProblem, match="lost its objects"):
        SourceStore("pkg", store.path.parent).find(SDIST, "1.0")


def _git_that(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Put a git before the real one that runs `script` for fast-import."""
    real = shutil.which("git")
    folder.mkdir(exist_ok=True)
    fake = folder / "git"
    fake.write_text(f'#!/bin/sh\ncase "$*" in *fast-import*) {script};; esac\nexec {real} "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_full_disk_is_said_and_leaves_the_store_as_it_was(
    store: SourceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store)
    with monkeypatch.context() as patch:
        script = 'head -c 1000 >/dev/null; echo "fatal: write error: No space left on device" >&2'
        _git_that(patch, tmp_path / "bin", f"{script}; exit 128")
        big = {f"f{n}": (REGULAR, os.urandom(100_000)) for n in range(30)}
        with pytest.raises(
            EnvironmentProblem, match=r"no space left while storing pkg 1\.1"
        ) as caught:
            put(store, "1.1", big)
    assert caught.value.hint == "free some space and run again"
    assert [stored.version for stored in store.versions()] == ["1.0"]
    put(store, "1.1", big)
    sound(store)


def test_gits_words_come_through_its_status_does_not(
    store: SourceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _git_that(monkeypatch, tmp_path / "bin", 'echo "fatal: odd" >&2; exit 128')
    with pytest.raises(EnvironmentProblem, match="fatal: odd") as caught:
        put(store)
    assert caught.value.exit_status == 3


def test_a_missing_git_is_said(store: SourceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(EnvironmentProblem, match="git is not installed"):
        put(store)


def test_a_file_size_limit_of_the_system_stops_git_and_nothing_else(store: SourceStore) -> None:
    """A real git that the kernel stops in the middle of its pack."""
    program = (
        _CHILD + "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (300_000,) * 2)\n"
    )
    program += "run(lambda n: None)\n"
    done = subprocess.run(
        [sys.executable, "-c", program, str(store.path.parent)], capture_output=True
    )
    assert b"EnvironmentProblem" in done.stderr
    assert store.versions() == []
    assert _finish(store) == 40
    sound(store)


# --- kills and company --------------------------------------------------------------------------

_CHILD = textwrap.dedent(
    """\
    import os, random, sys, time
    from pathlib import Path
    from stackpatch import storage
    from stackpatch.model.reference import SourceKind
    from stackpatch.sources.archive import Member
    from stackpatch.sources.store import SourceStore

    root = Path(sys.argv[1])

    def files(at):
        for n in range(40):
            at(n)
            yield Member.of(f"f{n}", 0o100644, random.Random(n).randbytes(20_000))
        at(40)

    def stop():
        (root.parent / "here").touch()
        time.sleep(600)

    def run(at):
        SourceStore("pkg", root).import_files(
            SourceKind.SDIST, "1.0", files(at), seconds=1, evidence={"A": "b"}
        )
    """
)


_STARTED: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    yield
    for child in _STARTED:
        child.kill()
        child.wait()
    _STARTED.clear()


def _start(store: SourceStore, program: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-c", _CHILD + program, str(store.path.parent)])
    _STARTED.append(child)
    return child


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    path.unlink()


def _finish(store: SourceStore) -> int:
    """The same command again, in a fresh process; how many files the release then has."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD + "run(lambda n: None)", str(store.path.parent)], timeout=60
    )
    assert done.returncode == 0
    stored = SourceStore("pkg", store.path.parent).resolve(VersionRef(SDIST, "1.0"))
    return len(content(store, stored))


_STOP_IN_LOCK = """\
SourceStore.imported = lambda store, *a, **k: stop() if store.path.exists() else None
run(lambda n: None)
"""


@pytest.mark.parametrize(
    "program",
    [
        "run(lambda n: stop() if n == 0 else None)",
        "run(lambda n: stop() if n == 7 else None)",
        "run(lambda n: stop() if n == 40 else None)",
        "storage.replace_directory = lambda *a: stop()\nrun(lambda n: None)",
        "import stackpatch.sources.store as s\ns._create = lambda f: stop()\nrun(lambda n: None)",
        _STOP_IN_LOCK,
    ],
    ids=["first file", "some files", "before the commit", "repository", "folder", "in the lock"],
)
def test_a_kill_leaves_a_store_that_works(store: SourceStore, program: str) -> None:
    child = _start(store, program)
    _wait_for(store.path.parent.parent / "here")
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert SourceStore("pkg", store.path.parent).versions() == []
    assert _finish(store) == 40
    sound(store)
    assert sorted(path.name for path in store.path.parent.iterdir()) == ["pkg.git", "pkg.lock"]
    assert not list((store.path / "objects" / "pack").glob("tmp_*"))
    assert not list(store.path.glob("fast_import_crash_*"))


def test_ctrl_c_leaves_a_store_that_works(store: SourceStore) -> None:
    child = _start(store, "run(lambda n: stop() if n == 20 else None)")
    _wait_for(store.path.parent.parent / "here")
    child.send_signal(signal.SIGINT)
    assert child.wait() != 0
    assert store.versions() == []
    assert _finish(store) == 40
    sound(store)


def test_a_kill_at_any_time_leaves_nothing_or_everything(store: SourceStore) -> None:
    for step in range(12):
        child = _start(store, "run(lambda n: time.sleep(0.002))")
        time.sleep(0.15 + step * 0.05)
        child.send_signal(signal.SIGKILL)
        child.wait()
        here = SourceStore("pkg", store.path.parent)
        with here.exclusive():  # a git that was left alive is waited for
            found = here.find(SDIST, "1.0")
        if found is not None:
            assert len(content(here, found)) == 40
            shutil.rmtree(store.path)
    assert _finish(SourceStore("pkg", store.path.parent)) == 40


def test_a_git_that_outlives_a_killed_process_keeps_the_lock(
    store: SourceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("git")
    with monkeypatch.context() as patch:
        _git_that(
            patch,
            tmp_path / "bin",
            f'{real} "$@"; touch {tmp_path}/here; sleep 1.5; touch {tmp_path}/late; exit 0',
        )
        child = _start(store, "run(lambda n: None)")
        _wait_for(tmp_path / "here")
        child.send_signal(signal.SIGKILL)
        child.wait()
    with store.exclusive():
        assert (tmp_path / "late").exists()
    stored = store.find(SDIST, "1.0")
    assert stored is not None
    assert len(content(store, stored)) == 40


def test_two_processes_do_the_work_once(store: SourceStore) -> None:
    first = _start(store, "run(lambda n: stop() if n == 5 else None)".replace("600", "1"))
    _wait_for(store.path.parent.parent / "here")
    second = _start(store, "run(lambda n: None)")
    time.sleep(0.5)
    assert second.poll() is None  # it waits
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert second.wait(60) == 0
    assert len(content(store, store.resolve(VersionRef(SDIST, "1.0")))) == 40


def test_many_imports_at_once(store: SourceStore) -> None:
    errors: list[BaseException] = []

    def work(version: str) -> None:
        try:
            put(SourceStore("pkg", store.path.parent), version)
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [
        threading.Thread(target=work, args=(f"1.{number % 4}",), daemon=True)
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert [stored.version for stored in store.versions()] == ["1.0", "1.1", "1.2", "1.3"]
    sound(store)


def test_a_lock_that_is_not_given_up_is_said(
    store: SourceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store)
    real = storage.lock
    monkeypatch.setattr(storage, "lock", lambda path, what: real(path, wait=0.1, what=what))
    with (
        store.exclusive(),
        pytest.raises(EnvironmentProblem, match="writes to the store of pkg is still at work"),
    ):
        put(SourceStore("pkg", store.path.parent), "1.1")
