"""Recording what was seen of a build, and the page and the table that are made from it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.stack import GATE, RECIPE, TESTS, make_stack
from tests.wheels import wheel_of

from stackpatch.cli import proven
from stackpatch.errors import InputError, StackpatchError
from stackpatch.model.collection import Collection

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.artefacts.build import BuildResult


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the small stack's recipe and series, which is the current one."""
    stack = make_stack(tmp_path / "wheel")
    place = tmp_path / "root"
    (place / "recipes").mkdir(parents=True)
    content = stack.wheel.read_bytes()
    text = RECIPE.format(
        file=stack.wheel.name, sha256=hashlib.sha256(content).hexdigest(), size=len(content)
    )
    (place / "recipes/demo.yaml").write_text(text)
    series = place / "patches/demo/v1.2.3"
    series.mkdir(parents=True)
    (series / "series").write_text("0001-gate.patch\n0002-tests.patch\n")
    (series / "0001-gate.patch").write_text(GATE)
    (series / "0002-tests.patch").write_text(TESTS)
    monkeypatch.chdir(place)
    return place


def built(tmp_path: Path) -> BuildResult:
    return make_stack(tmp_path / "again").build(tmp_path / "dist")


def smoke_of(result: BuildResult, **more: Any) -> dict[str, Any]:
    return {
        "schema": "stackpatch.smoke/1",
        "arch": "sm121",
        "version": result.plan.inputs.patched,
        "subject": {"sha256": wheel_of(result.outputs).sha256},
        "made": "2026-11-21T07:00:00Z",
        "device": {"gpu": "NVIDIA GB10"},
        "checks": [
            {"name": name, "status": "passed", "why": "w", "figures": {}}
            for name in ("files", "device", "numbers-norm")
        ],
        **more,
    }


def cells(root: Path) -> dict[str, str]:
    rows = [line.strip("| ").split(" | ") for line in proven.table(Collection(root)).splitlines()]
    row = next(row for row in rows if row[0] == "demo 1.2.3" and row[1] == "sm121")
    return dict(zip(rows[0][2:], row[2:], strict=True))


def test_nothing_is_proven_before_something_was_recorded(root: Path) -> None:
    assert set(cells(root).values()) == {"-"}
    assert "not verified" in proven.page(Collection(root))


def test_a_build_and_its_run_are_recorded_and_shown(root: Path, tmp_path: Path) -> None:
    result = built(tmp_path)
    (result.folder / "smoke.json").write_text(json.dumps(smoke_of(result)))
    place = proven.record_proof(result.folder, [])
    assert place == root / "recipes/demo/proofs/1.2.3-sm121"
    names = sorted(path.name for path in place.iterdir())
    assert names == ["built.json", "lock.json", "smoke-nvidia-gb10-2026-11-21T070000Z.json"]
    found = cells(root)
    assert found.pop("code for the arch") == "-"
    assert set(found.values()) == {"yes"}
    page = proven.page(Collection(root))
    assert "| 1.2.3 | sm121 | numbers right | yes | all 1, NVIDIA GB10, 2026-11-21 |" in page
    assert "code for the arch | not verified" in page


def test_a_changed_patch_ends_the_proof(root: Path, tmp_path: Path) -> None:
    result = built(tmp_path)
    proven.record_proof(result.folder, [])
    assert cells(root)["builds"] == "yes"
    series = root / "patches/demo/v1.2.3"
    (series / "series").write_text("0001-gate.patch\n")
    (series / "0002-tests.patch").unlink()
    assert set(cells(root).values()) == {"-"}
    assert "seen for another series only" in proven.page(Collection(root))


def test_a_run_of_another_build_is_refused(root: Path, tmp_path: Path) -> None:
    result = built(tmp_path)
    other = tmp_path / "other.json"
    other.write_text(json.dumps(smoke_of(result, subject={"sha256": "0" * 64})))
    with pytest.raises(InputError, match="another build"):
        proven.record_proof(result.folder, [other])


def test_a_result_that_was_changed_is_refused(root: Path, tmp_path: Path) -> None:
    result = built(tmp_path)
    wheel = result.folder / wheel_of(result.outputs).path
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(InputError, match="does not hold what its lock"):
        proven.record_proof(result.folder, [])
    assert not (root / "recipes/demo/proofs").exists()


def test_another_build_takes_the_runs_of_the_old_one_along(root: Path, tmp_path: Path) -> None:
    result = built(tmp_path)
    (result.folder / "smoke.json").write_text(json.dumps(smoke_of(result)))
    place = proven.record_proof(result.folder, [])
    # As an earlier build left it: another wheel, in its lock and in what was seen of it.
    wheel = wheel_of(result.outputs).sha256
    (seen,) = place.glob("smoke-*")
    for path in (place / "lock.json", seen):
        path.write_text(path.read_text().replace(wheel, "0" * 64))
    (result.folder / "smoke.json").unlink()
    proven.record_proof(result.folder, [])
    assert not list(place.glob("smoke-*"))
    assert cells(root)["runs on the arch"] == "-"


def test_the_same_wheel_made_by_another_engine_keeps_its_runs(root: Path, tmp_path: Path) -> None:
    # An engine of a new version writes another key into the lock; a GPU is not at hand again.
    result = built(tmp_path)
    (result.folder / "smoke.json").write_text(json.dumps(smoke_of(result)))
    place = proven.record_proof(result.folder, [])
    (result.folder / "smoke.json").unlink()
    lock = result.folder / "lock.json"
    changed = json.loads(lock.read_bytes())
    changed["inputs"]["engine"]["version"] += "1"
    lock.write_text(json.dumps(changed))
    assert proven.record_proof(result.folder, []) == place
    assert (place / "lock.json").read_bytes() == lock.read_bytes()
    assert cells(root)["numbers right"] == "yes"


def test_the_table_is_put_between_its_marks_and_nowhere_else(root: Path) -> None:
    text = f"before\n{proven.BEGIN}\nold\n{proven.END}\nafter\n"
    once = proven.with_table(text, Collection(root))
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert "old" not in once
    assert proven.with_table(once, Collection(root)) == once
    with pytest.raises(StackpatchError, match="to write the table between"):
        proven.with_table("no marks", Collection(root))
