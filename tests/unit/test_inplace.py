"""A series on an installed distribution: whole or not at all, and back again to the byte."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wheels import FILES, make_wheel

from stackpatch.errors import EnvironmentProblem, FindingError, InputError
from stackpatch.installed import hand_edits, inplace, journal
from stackpatch.installed.distribution import Distribution
from stackpatch.installed.inplace import Change, Identity
from stackpatch.installed.record import parse_record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

IDENTITY = Identity("demo", "1.2.3", "sm121", "a" * 64, "1.2.3+sp.aaaaaaaa")
GATE = FILES["demo/gate.py"].replace(b"[10]", b"[10, 12]")


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def installed(site: Path) -> Distribution:
    """The demonstration's wheel, unpacked as an installer does it."""
    wheel = make_wheel(site.parent / "wheels")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        for member in archive.infolist():
            (site / member.filename).chmod(member.external_attr >> 16 & 0o777)
    record = site / "demo-1.2.3.dist-info" / "RECORD"
    more = "demo/__pycache__/gate.cpython-311.pyc,,\ndemo-1.2.3.dist-info/INSTALLER,,\n"
    record.write_text(record.read_text() + more)
    (record.parent / "INSTALLER").write_text("pip\n")
    return Distribution("demo", "1.2.3", site, record.parent, None)


@pytest.fixture
def one(tmp_path: Path) -> Distribution:
    return installed(tmp_path / "site")


def changes() -> dict[str, Change]:
    """A change of each kind."""
    return {
        "demo/gate.py": Change(GATE, sha(FILES["demo/gate.py"])),
        "demo/data/csrc/kernel.cu": Change(b"// new\n", sha(FILES["demo/data/csrc/kernel.cu"])),
        "demo/old.py": Change(None, sha(FILES["demo/old.py"])),
        "demo/fresh/deep/new.py": Change(b"NEW = 1\n", None),
        "demo/tool.sh": Change(
            b"#!/bin/sh\nexit 1\n", sha(FILES["demo/tool.sh"]), executable=False
        ),
    }


def state(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder, with its permission bits; and every folder."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        content = b"" if path.is_dir() else path.read_bytes()
        found[name] = (stat.S_IMODE(path.lstat().st_mode), content)
    return found


def test_applied_reads_as_the_series_and_reverted_as_the_release(one: Distribution) -> None:
    before = state(one.site)
    done = inplace.apply(one, changes(), IDENTITY)
    assert done is not None
    assert (one.site / "demo/gate.py").read_bytes() == GATE
    assert not (one.site / "demo/old.py").exists()
    assert (one.site / "demo/fresh/deep/new.py").read_bytes() == b"NEW = 1\n"
    assert not (one.site / "demo/tool.sh").stat().st_mode & 0o111
    assert (one.site / "demo/gate.py").stat().st_mode & 0o777 == before["demo/gate.py"][0]
    assert inplace.edited(one, done) == []
    assert inplace.unlike_record(one) == [], "RECORD speaks of the patched files"
    again = journal.read(one.dist_info)
    assert again == done
    assert inplace.revert(one) is not None
    assert state(one.site) == before
    assert inplace.revert(one) is None


def test_the_same_again_writes_nothing(one: Distribution) -> None:
    inplace.apply(one, changes(), IDENTITY)
    times = {path: path.stat().st_mtime_ns for path in one.site.rglob("*")}
    assert inplace.apply(one, changes(), IDENTITY) is None
    assert {path: path.stat().st_mtime_ns for path in one.site.rglob("*")} == times


def test_another_series_takes_the_place_of_the_first(one: Distribution) -> None:
    before = state(one.site)
    inplace.apply(one, changes(), IDENTITY)
    other = Identity("demo", "1.2.3", "sm121", "b" * 64, "1.2.3+sp.bbbbbbbb")
    second = {"demo/__init__.py": Change(b"VALUE = 2\n", sha(FILES["demo/__init__.py"]))}
    inplace.apply(one, second, other)
    assert (one.site / "demo/gate.py").read_bytes() == FILES["demo/gate.py"]
    assert (one.site / "demo/__init__.py").read_bytes() == b"VALUE = 2\n"
    assert not (one.site / "demo/fresh").exists()
    inplace.revert(one)
    assert state(one.site) == before


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda site: (site / "demo/gate.py").write_bytes(b"edited"), "demo/gate.py: was edited"),
        (lambda site: (site / "demo/gate.py").unlink(), "demo/gate.py: is missing"),
        (lambda site: (site / "demo/gate.py").write_bytes(GATE), "demo/gate.py: is patched"),
        (
            lambda site: (
                (site / "demo/fresh/deep").mkdir(parents=True)
                or (site / "demo/fresh/deep/new.py").write_bytes(b"")
            ),
            "demo/fresh/deep/new.py: is there",
        ),
    ],
)
def test_a_file_that_is_not_the_releases_stops_everything(
    one: Distribution,
    spoil: Callable[[Path], object],
    said: str,
) -> None:
    spoil(one.site)
    (one.site / "demo/old.py").write_bytes(b"edited too")
    before = state(one.site)
    with pytest.raises(FindingError) as caught:
        inplace.apply(one, changes(), IDENTITY)
    assert said in caught.value.message
    assert "demo/old.py" in caught.value.message, "all of them, not the first"
    assert state(one.site) == before


def test_an_edit_after_applying_is_never_lost(one: Distribution) -> None:
    inplace.apply(one, changes(), IDENTITY)
    (one.site / "demo/gate.py").write_bytes(GATE + b"# mine\n")
    (one.site / "demo/data/csrc/kernel.cu").write_bytes(b"mine")
    before = state(one.site)
    attempts: tuple[Callable[[], object], ...] = (
        lambda: inplace.revert(one),
        lambda: inplace.apply(one, changes(), IDENTITY),
        lambda: inplace.apply(one, {}, Identity("demo", "1.2.3", "sm120", "b" * 64, "x")),
    )
    for attempt in attempts:
        with pytest.raises(FindingError, match="edited since") as caught:
            attempt()
        assert "demo/gate.py" in caught.value.message
        assert "demo/data/csrc/kernel.cu" in caught.value.message
        assert state(one.site) == before
    assert set(inplace.unlike_record(one)) == {"demo/gate.py", "demo/data/csrc/kernel.cu"}


def test_files_that_are_shared_by_links_are_replaced_and_not_written(
    one: Distribution, tmp_path: Path
) -> None:
    """uv installs hard links or symbolic links into its cache."""
    cache = tmp_path / "cache"
    cache.mkdir()
    hard, soft = one.site / "demo/gate.py", one.site / "demo/data/csrc/kernel.cu"
    os.link(hard, cache / "gate.py")
    soft.rename(cache / "kernel.cu")
    soft.symlink_to(cache / "kernel.cu")
    inplace.apply(one, changes(), IDENTITY)
    assert hard.read_bytes() == GATE
    assert soft.read_bytes() == b"// new\n"
    assert (cache / "gate.py").read_bytes() == FILES["demo/gate.py"]
    assert (cache / "kernel.cu").read_bytes() == FILES["demo/data/csrc/kernel.cu"]
    inplace.revert(one)
    assert soft.read_bytes() == FILES["demo/data/csrc/kernel.cu"]


def test_nothing_is_written_through_a_folder_that_is_a_link(
    one: Distribution, tmp_path: Path
) -> None:
    (one.site / "demo/data").rename(tmp_path / "elsewhere")
    (one.site / "demo/data").symlink_to(tmp_path / "elsewhere")
    before = state(one.site)
    with pytest.raises(FindingError, match="symbolic link"):
        inplace.apply(one, changes(), IDENTITY)
    assert state(one.site) == before
    assert (tmp_path / "elsewhere/csrc/kernel.cu").read_bytes() == FILES["demo/data/csrc/kernel.cu"]


@pytest.mark.parametrize("path", ["../x.py", "/x.py", "demo/../../x.py", ""])
def test_no_path_leaves_the_folder(one: Distribution, path: str) -> None:
    with pytest.raises(InputError, match="leaves the folder"):
        inplace.apply(one, {path: Change(b"", None)}, IDENTITY)
    assert journal.read(one.dist_info) is None


def test_bytecode_of_changed_sources_goes(one: Distribution) -> None:
    folder = one.site / "demo/__pycache__"
    folder.mkdir()
    for name in ("gate.cpython-311.pyc", "gate.cpython-312.opt-1.pyc", "gates.cpython-311.pyc"):
        (folder / name).write_bytes(b"stale")
    inplace.apply(one, changes(), IDENTITY)
    assert [path.name for path in folder.iterdir()] == ["gates.cpython-311.pyc"]


def test_what_others_put_into_record_stays(one: Distribution) -> None:
    inplace.apply(one, changes(), IDENTITY)
    with one.record.open("a") as file:
        file.write("demo-1.2.3.dist-info/REQUESTED,,\n")
    inplace.revert(one)
    rows = parse_record(one.record.read_bytes())
    assert "demo-1.2.3.dist-info/REQUESTED" in rows
    assert "demo-1.2.3.dist-info/stackpatch.json" not in rows
    assert "demo/fresh/deep/new.py" not in rows
    assert rows["demo/gate.py"].says(
        hashlib.sha256(FILES["demo/gate.py"]).digest(), len(FILES["demo/gate.py"])
    )
    assert inplace.unlike_record(one) == []


def test_a_folder_that_others_use_stays(one: Distribution) -> None:
    inplace.apply(one, changes(), IDENTITY)
    (one.site / "demo/fresh/mine.txt").write_text("mine")
    inplace.revert(one)
    assert (one.site / "demo/fresh/mine.txt").read_text() == "mine"
    assert not (one.site / "demo/fresh/deep").exists()


def test_two_at_once(one: Distribution) -> None:
    handle = os.open(one.dist_info, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        attempts: tuple[Callable[[], object], ...] = (
            lambda: inplace.apply(one, changes(), IDENTITY),
            lambda: inplace.revert(one),
        )
        for attempt in attempts:
            with pytest.raises(EnvironmentProblem, match="another stackpatch is at work"):
                attempt()
    finally:
        os.close(handle)
    assert (one.site / "demo/gate.py").read_bytes() == FILES["demo/gate.py"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:0],
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"applied"', '"reverting"'),
        lambda text: text.replace('"after"', '"later"', 1),
        lambda text: text + "x",
    ],
)
def test_a_damaged_journal_is_not_trusted(one: Distribution, damage: Callable[[str], str]) -> None:
    inplace.apply(one, changes(), IDENTITY)
    file = one.dist_info / journal.NAME
    file.write_text(damage(file.read_text()))
    before = state(one.site)
    attempts: tuple[Callable[[], object], ...] = (
        lambda: inplace.revert(one),
        lambda: inplace.apply(one, changes(), IDENTITY),
    )
    for attempt in attempts:
        with pytest.raises(EnvironmentProblem, match="is damaged"):
            attempt()
    assert state(one.site) == before


def test_a_journal_of_another_form_is_not_read(one: Distribution) -> None:
    whole = json.dumps({"schema": "stackpatch.venv-journal/2"})
    (one.dist_info / journal.NAME).write_text(f"{whole}\n{sha(whole.encode())}\n")
    with pytest.raises(EnvironmentProblem, match="is damaged"):
        journal.read(one.dist_info)


# --- faults -------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", range(1, 8))
def test_a_full_disk_at_any_write_leaves_the_release(
    one: Distribution, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    before = state(one.site)
    real, count = os.replace, 0

    def replace(*words: str) -> None:
        nonlocal count
        count += 1
        if count == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*words)

    monkeypatch.setattr("stackpatch.storage.os.replace", replace)
    with pytest.raises(EnvironmentProblem, match="no space left"):
        inplace.apply(one, changes(), IDENTITY)
    assert state(one.site) == before


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from tests.unit.test_inplace import IDENTITY, changes
from stackpatch.installed import inplace
from stackpatch.installed.distribution import Distribution
site, verb, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
count = 0
def counted(real):
    def call(*words, **named):
        global count
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*words, **named)
    return call
os.replace = counted(os.replace)
os.unlink = counted(os.unlink)  # Path.unlink calls it
one = Distribution("demo", "1.2.3", site, site / "demo-1.2.3.dist-info", None)
inplace.apply(one, changes(), IDENTITY) if verb == "apply" else inplace.revert(one)
"""


@pytest.mark.parametrize("verb", ["apply", "revert"])
def test_a_kill_at_any_step_is_mended_by_either(tmp_path: Path, verb: str) -> None:
    program = KILLED.format(path=[str(Path(__file__).parents[2])])
    for last in range(1, 30):
        one = installed(tmp_path / f"{last}" / "site")
        before = state(one.site)
        if verb == "revert":
            inplace.apply(one, changes(), IDENTITY)
        done = subprocess.run(
            [sys.executable, "-c", program, one.site, verb, str(last)], check=False
        )
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        left = journal.read(one.dist_info)
        if left is not None and left.phase is not journal.Phase.APPLIED:
            assert inplace.edited(one, left) == [], "every file is of one side or the other"
        if last % 2:
            inplace.apply(one, changes(), IDENTITY)
            assert (one.site / "demo/gate.py").read_bytes() == GATE
            assert inplace.unlike_record(one) == []
        inplace.revert(one)
        assert state(one.site) == before, f"killed at {last}"
    else:
        pytest.fail("it never came to its end")
    assert last > 6, "every write was a place to die"


NAMES = st.sampled_from(
    ["demo/__init__.py", "demo/gate.py", "demo/old.py", "demo/n/a.py", "demo/n/b/c.cu", "top.py"]
)


@settings(max_examples=40)
@given(
    wanted=st.dictionaries(NAMES, st.none() | st.binary(max_size=40), min_size=1),
    modes=st.dictionaries(NAMES, st.booleans()),
)
def test_applying_and_reverting_is_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    wanted: Mapping[str, bytes | None],
    modes: Mapping[str, bool],
) -> None:
    one = installed(tmp_path_factory.mktemp("any") / "site")
    before = state(one.site)
    asked = {}
    for path, content in wanted.items():
        there = FILES.get(path)
        if content is None and there is None:
            continue
        asked[path] = Change(content, sha(there) if there is not None else None, modes.get(path))
    inplace.apply(one, asked, IDENTITY)
    for path, change in asked.items():
        place = one.site / path
        assert (place.read_bytes() if place.exists() else None) == change.content
        if change.content is not None and change.executable is not None:
            assert bool(place.stat().st_mode & 0o100) is change.executable
    assert inplace.unlike_record(one) == []
    inplace.revert(one)
    assert state(one.site) == before


# --- edits by hand ------------------------------------------------------------------------------


def test_edits_are_held_against_the_wheel_and_what_a_series_left(one: Distribution) -> None:
    rows = parse_record(one.record.read_bytes())
    assert not hand_edits.find(one, rows, {})
    done = inplace.apply(one, changes(), IDENTITY)
    assert done is not None
    ours = {path: touched.after for path, touched in done.files.items()}
    assert not hand_edits.find(one, rows, ours), "what the series did is nobody's edit"
    (one.site / "demo/gate.py").write_bytes(GATE + b"# mine\n")
    (one.site / "demo/__init__.py").write_bytes(b"")
    (one.site / "demo/_meta.py").unlink()
    (one.site / "demo/fresh/deep/new.py").unlink()
    (one.site / "demo/old.py").write_bytes(b"BACK = 1\n")
    (one.site / "demo/mine.py").write_bytes(b"")
    (one.site / "demo/__pycache__").mkdir()
    (one.site / "demo/__pycache__/mine.cpython-311.pyc").write_bytes(b"")
    (one.site / "other").mkdir()
    (one.site / "other/file.py").write_bytes(b"")
    found = hand_edits.find(one, rows, ours)
    assert dict(found.changed) == {
        "demo/gate.py": GATE + b"# mine\n",
        "demo/__init__.py": b"",
        "demo/old.py": b"BACK = 1\n",
    }
    assert found.removed == ("demo/_meta.py", "demo/fresh/deep/new.py")
    assert found.added == ("demo/mine.py",)
