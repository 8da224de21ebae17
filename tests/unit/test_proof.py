"""What counts as seen of a build, and what does not: a proof is for one series and one wheel."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from stackpatch.checks.proof import (
    Proof,
    State,
    Step,
    folder_of,
    how_far,
    is_about,
    judge,
    read_proof,
)
from stackpatch.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

SERIES, WHEEL = "a" * 64, "b" * 64
VERSION = "1.0+sp.aaaaaaaa"
LOCK: dict[str, Any] = {
    "schema": "stackpatch.lock/1",
    "key": "k",
    "inputs": {
        "patched-version": VERSION,
        "series": {"sha256": SERIES, "patches": [{"name": "0001-a.patch"}]},
        "arch": {"name": "sm121"},
        "engine": {"name": "overlay"},
    },
    "outputs": {
        "wheel": "x.whl",
        "image": {"digest": "sha256:" + "c" * 64},
        "files": [{"path": "x.whl", "bytes": 1, "sha256": WHEEL}],
    },
}
BUILT = {"schema": "stackpatch.built/1", "made": "2026-11-21T01:02:03Z", "where": "Linux x86_64"}


def check(name: str, status: str = "passed", **figures: object) -> dict[str, Any]:
    return {"name": name, "status": status, "why": f"{name} {status}", "figures": figures}


def run(*checks: dict[str, Any], **more: object) -> dict[str, Any]:
    return {
        "schema": "stackpatch.smoke/1",
        "stack": "demo",
        "arch": "sm121",
        "version": VERSION,
        "subject": {"kind": "python", "sha256": WHEEL},
        "made": "2026-11-21T02:00:00Z",
        "device": None,
        "host": {"machine": "x86_64"},
        "checks": list(checks),
        **more,
    }


def proof(*smokes: dict[str, Any]) -> Proof:
    return Proof(VERSION, SERIES, WHEEL, LOCK, BUILT, smokes)


def states(*smokes: dict[str, Any]) -> dict[Step, State]:
    return {step: one.state for step, one in judge(proof(*smokes), SERIES).items()}


def test_without_a_proof_nothing_is_known() -> None:
    found = judge(None, SERIES)
    assert list(found) == list(Step)
    assert {one.state for one in found.values()} == {State.UNVERIFIED}
    assert how_far(found) == "unverified"


def test_a_lock_shows_that_it_applies_and_builds_and_no_more() -> None:
    found = judge(proof(), SERIES)
    yes = {step for step, one in found.items() if one.state is State.YES}
    assert yes == {Step.APPLIES, Step.BUILDS, Step.IMAGE}
    assert found[Step.APPLIES].when == BUILT["made"]
    assert found[Step.BUILDS].where == "Linux x86_64"
    assert "nobody has run it" in how_far(found)


def test_a_changed_series_takes_its_proof_along() -> None:
    found = judge(proof(run(check("files"))), "d" * 64)
    assert {one.state for one in found.values()} == {State.UNVERIFIED}
    assert all(VERSION in one.detail for one in found.values())
    assert how_far(found) == "unverified"


def test_installed_means_that_the_files_of_this_very_wheel_were_compared() -> None:
    assert states(run(check("files")))[Step.INSTALLS] is State.YES
    by_version = run(check("files"), subject=None)
    assert states(by_version)[Step.INSTALLS] is State.UNVERIFIED
    assert states(run(check("files", "failed")))[Step.INSTALLS] is State.NO
    assert states(run(check("files", "not-run")))[Step.INSTALLS] is State.UNVERIFIED
    elsewhere: dict[str, Any] = {"for": ["linux_aarch64"]}
    assert states(run(check("files", **elsewhere)))[Step.INSTALLS] is State.PARTLY
    assert states(run(check("files", "failed", **elsewhere)))[Step.INSTALLS] is State.NO


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": {"sha256": "e" * 64}},
        {"subject": None, "version": "1.0+sp.bbbbbbbb"},
        {"subject": None, "version": "1.0"},
        {"subject": None, "version": None},
        {"arch": "sm120"},
    ],
)
def test_a_run_of_something_else_counts_for_nothing(changes: dict[str, Any]) -> None:
    other = run(check("files"), check("device"), check("numbers-norm"), **changes)
    assert not is_about(other, proof())
    found = states(other)
    assert found[Step.RUNS] is State.UNVERIFIED
    assert found[Step.NUMBERS] is State.UNVERIFIED
    assert found[Step.INSTALLS] is State.UNVERIFIED


def test_a_run_by_hand_is_known_by_what_it_imported() -> None:
    by_hand = run(
        check("import", distribution=VERSION),
        check("device"),
        check("numbers-norm"),
        subject=None,
        version=None,
    )
    assert is_about(by_hand, proof())
    assert states(by_hand)[Step.RUNS] is State.YES


def test_the_device_alone_is_no_run() -> None:
    assert states(run(check("device")))[Step.RUNS] is State.UNVERIFIED
    wrong_gpu = run(check("device", "failed"), check("numbers-norm"))
    assert states(wrong_gpu)[Step.RUNS] is State.UNVERIFIED
    assert states(wrong_gpu)[Step.NUMBERS] is State.UNVERIFIED


def test_numbers_are_right_only_when_every_check_ran_and_passed() -> None:
    device = check("device")
    whole = judge(proof(run(device, check("numbers-a"), check("numbers-b"))), SERIES)
    assert whole[Step.NUMBERS].state is State.YES
    assert how_far(whole) == "runs, numbers right"
    part = judge(proof(run(device, check("numbers-a"), check("numbers-b", "not-run"))), SERIES)
    assert part[Step.NUMBERS].state is State.PARTLY
    assert "numbers-b" in part[Step.NUMBERS].detail
    assert how_far(part) == "runs, some numbers checked and right"
    bad = judge(proof(run(device, check("numbers-a"), check("numbers-b", "failed"))), SERIES)
    assert bad[Step.NUMBERS].state is State.NO
    assert "numbers-b" in bad[Step.NUMBERS].detail


def test_what_one_run_left_out_another_may_bring_and_the_newest_counts() -> None:
    old = run(check("device"), check("numbers-a"), check("numbers-b", "not-run"))
    new = run(check("device"), check("numbers-b"), made="2026-11-22T00:00:00Z")
    assert states(old, new)[Step.NUMBERS] is State.YES
    worse = run(check("device"), check("numbers-a", "failed"), made="2026-11-23T00:00:00Z")
    assert states(old, new, worse)[Step.NUMBERS] is State.NO
    better = run(check("device"), check("numbers-a"), made="2026-11-24T00:00:00Z")
    assert states(old, new, worse, better)[Step.NUMBERS] is State.YES
    # a later run that did not get to it takes nothing back
    cut = run(check("device"), check("numbers-a", "not-run"), made="2026-11-25T00:00:00Z")
    assert states(old, new, cut)[Step.NUMBERS] is State.YES


def test_code_for_the_arch_fails_when_either_look_at_it_fails() -> None:
    assert states(run(check("build")))[Step.CODE] is State.YES
    assert states(run(check("build"), check("audit", "failed")))[Step.CODE] is State.NO
    assert states(run(check("build", "failed"), check("audit")))[Step.CODE] is State.NO
    assert states(run(check("build", "not-run")))[Step.CODE] is State.UNVERIFIED


def test_code_in_some_files_only_is_said_to_be_that() -> None:
    some = check("audit", "failed", native=5, ptx=1, missing=["a.so"])
    found = judge(proof(run(some)), SERIES)[Step.CODE]
    assert found.state is State.PARTLY
    assert found.detail.endswith("; 6 others run on it")
    assert states(run(check("audit", "failed", native=0, missing=["a.so"])))[Step.CODE] is State.NO
    # one that could not be read at all is no part
    assert states(run(check("audit", "failed", native=5, missing=[])))[Step.CODE] is State.NO


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True)
    for name, document in files.items():
        (folder / f"{name.replace('_', '-')}.json").write_text(json.dumps(document))
    return folder


def test_a_folder_is_read_whole(tmp_path: Path) -> None:
    place = folder_of(tmp_path, "demo", "1.0", "sm121")
    assert place == tmp_path / "demo/proofs/1.0-sm121"
    assert read_proof(place) is None
    write(place, lock=LOCK, built=BUILT, smoke_b=run(check("files")), smoke_a=run(check("device")))
    found = read_proof(place)
    assert found is not None
    assert (found.version, found.series_sha256, found.wheel_sha256) == (VERSION, SERIES, WHEEL)
    assert [one["checks"][0]["name"] for one in found.smokes] == ["device", "files"]


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("lock", {**LOCK, "schema": "stackpatch.lock/9"}),
        ("lock", {"schema": "stackpatch.lock/1"}),
        ("lock", {**LOCK, "outputs": {**LOCK["outputs"], "wheel": "other.whl"}}),
        ("built", {"made": "x"}),
        ("built", []),
        ("smoke_a", {"schema": "stackpatch.audit/1"}),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, document: object) -> None:
    files: dict[str, object] = {"lock": LOCK, "built": BUILT, name: document}
    place = write(tmp_path / "p", **files)
    with pytest.raises(InputError) as caught:
        read_proof(place)
    assert caught.value.where == str(place / f"{name.replace('_', '-')}.json")
