"""What is kept of a finished matrix: word for word, under a key that holds all it depends on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.series import finished, rules
from stackpatch.series.finished import Answer, Answers, Finished
from stackpatch.sources.store import SourceStore

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.sources.objects import Objects

KEY, OTHER = "a" * 64, "b" * 64
TEXT = '{\n  "stack": "demo", "says": "\\u00e4"\n}'


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return SourceStore("demo", tmp_path / "store").objects


FILES = {"series": b"1.patch\n", "1.patch": b"index 0123456789..89abcdef 100644\n"}


def test_the_key_is_the_same_for_the_same(objects: Objects) -> None:
    again = dict(reversed(FILES.items()))
    assert finished.key(objects, FILES, "x", [1]) == finished.key(objects, again, "x", [1])


@pytest.mark.parametrize(
    "files",
    [
        {},
        {**FILES, "series": b"1.patch\n\n"},
        {**FILES, "1.patch": FILES["1.patch"] + b"x"},
        {**FILES, "README": b""},
        {"series": FILES["series"], "2.patch": FILES["1.patch"]},
    ],
)
def test_every_file_of_the_series_is_in_the_key(objects: Objects, files: dict[str, bytes]) -> None:
    assert finished.key(objects, files) != finished.key(objects, FILES)


def test_more_is_in_the_key(objects: Objects) -> None:
    keys = [finished.key(objects, FILES, *more) for more in ((), ("a",), ("a", "b"), (["a", "b"],))]
    assert len(set(keys)) == 4


def test_a_side_of_a_patch_that_comes_into_the_store_is_in_the_key(objects: Objects) -> None:
    # git hash-object of b"old\n"
    files = {"series": b"a\n", "a": b"index 3367afd..0000000 100644\n"}
    before = finished.key(objects, files)
    objects.write_blob(b"another\n")
    assert finished.key(objects, files) == before
    assert objects.write_blob(b"old\n").startswith("3367afd")
    assert finished.key(objects, files) != before


def test_other_rules_are_in_the_key(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    before = finished.key(objects, FILES)
    rules.rules.cache_clear()
    monkeypatch.setattr("stackpatch.model.own_code.digest", lambda *_: "other")
    assert finished.key(objects, FILES) != before
    rules.rules.cache_clear()


def test_the_text_comes_back_under_its_key_and_name_alone(tmp_path: Path) -> None:
    kept = Finished(tmp_path / "verdicts")
    assert kept.find("demo-1.0", KEY) is None
    kept.keep("demo-1.0", KEY, TEXT)
    assert kept.find("demo-1.0", KEY) == TEXT
    assert kept.find("demo-1.0", OTHER) is None
    assert kept.find("demo-1.1", KEY) is None
    kept.keep("demo-1.0", OTHER, "{}")
    assert kept.find("demo-1.0", KEY) is None
    assert kept.find("demo-1.0", OTHER) == "{}"
    assert len(list((tmp_path / "verdicts").iterdir())) == 1, "one a series, whatever was asked"


@given(st.data())
def test_no_damage_comes_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("kept")
    kept = Finished(folder)
    kept.keep("demo", KEY, TEXT)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(
        st.sampled_from(
            [whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole + b"x"]
        )
    )
    file.write_bytes(damaged)
    assert kept.find("demo", KEY) is None


def test_a_disk_that_refuses_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "verdicts").write_text("a file where the folder should be")
    kept = Finished(tmp_path / "verdicts")
    kept.keep("demo", KEY, TEXT)
    assert kept.find("demo", KEY) is None


KILLED = """
import os, signal, sys
from pathlib import Path
from stackpatch.series.finished import Finished
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Finished(Path(sys.argv[1])).keep("demo", "c" * 64, "{}")
"""


def test_a_kill_leaves_what_was_there(tmp_path: Path) -> None:
    kept = Finished(tmp_path)
    kept.keep("demo", KEY, TEXT)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path], env=dict(os.environ), check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert kept.find("demo", KEY) == TEXT


# --- answers ----------------------------------------------------------------------------------

ANSWER = Answer({"stacks": ["demo"]}, "s" * 64, (("demo-1.0", KEY), ("demo-1.1", OTHER)))


def test_an_answer_comes_back_to_its_words_alone(tmp_path: Path) -> None:
    kept = Answers(tmp_path / "verdicts")
    assert kept.find("words") is None
    kept.keep("words", ANSWER)
    assert kept.find("words") == ANSWER
    assert Answers(tmp_path / "verdicts").find("words") == ANSWER
    assert kept.find("other words") is None
    newer = Answer(ANSWER.question, "t" * 64, ())
    kept.keep("words", newer)
    assert kept.find("words") == newer


def test_the_oldest_answers_are_forgotten(tmp_path: Path) -> None:
    kept = Answers(tmp_path)
    for number in range(40):
        kept.keep(f"words {number}", ANSWER)
        kept.keep("asked every day", ANSWER)
    found = [number for number in range(40) if kept.find(f"words {number}") is not None]
    assert found == list(range(40 - len(found), 40))
    assert 8 <= len(found) < 40
    assert kept.find("asked every day") == ANSWER


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"words": null}',
        b'{"words": {"question": 1, "state": "s"}}',
        b'{"words": {"question": 1, "state": "s", "matrices": [1]}}',
        b'{"words": {"question": 1, "state": "s", "matrices": [["a", "b", "c"]]}}',
        b'{"words": {"question": 1, "state": "s", "matrices": 7}}',
    ],
)
def test_damaged_answers_are_none_and_are_mended(tmp_path: Path, damage: bytes) -> None:
    kept = Answers(tmp_path)
    kept.keep("words", ANSWER)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage)
    assert kept.find("words") is None
    kept.keep("words", ANSWER)
    assert kept.find("words") == ANSWER


def test_a_disk_that_refuses_an_answer_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "verdicts").write_text("a file where the folder should be")
    kept = Answers(tmp_path / "verdicts")
    kept.keep("words", ANSWER)
    assert kept.find("words") is None
