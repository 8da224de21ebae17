"""`build --from-lock`: the same bytes again, or the input that is not the same."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from tests.images import LayoutMaker, tar_layer
from tests.shop import OTHER_GATE, Shop
from tests.unit.test_overlay import SITE, installed

import stackpatch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.projects import Ran


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", "replaced by the shop, restored by pytest")
    return Shop(tmp_path)


def lock_of(ran: Ran) -> Path:
    from pathlib import Path

    assert ran.status == 0, ran.err
    return Path(ran.document["lock"])


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def again(shop: Shop, lock: Path, *words: str, out: str = "again") -> Ran:
    place = str(shop.folder / out)
    return shop.run("build", "--from-lock", str(lock), "--out", place, "--json", *words)


def test_a_lock_gives_the_same_bytes_in_another_folder(shop: Shop) -> None:
    lock = lock_of(shop.build())
    kept = shop.folder / "kept.json"
    shutil.copyfile(lock, kept)
    ran = again(shop, kept)
    assert ran.status == 0, ran.err
    assert ran.document["differences"] == []
    assert ran.document["from_lock"] == str(kept)
    assert tree(lock_of(ran).parent) == tree(lock.parent)
    text = shop.run("build", "--from-lock", str(kept), "--out", str(shop.out)).out
    assert f"same     every file is the one of {kept}" in text


CHANGES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "another patch": (
        {"gate": OTHER_GATE},
        ["patched-version: ", "series.patches: ", "series.sha256: "],
    ),
    "another date": (
        {"changes": ("2026-02-05T00:00:24Z", "2026-02-05T00:00:25Z")},
        ["epoch: 1770249624 → 1770249625"],
    ),
    "another environment": (
        {"changes": ("12.1a", "12.1f")},
        ['arch.env.DEMO_ARCH: "12.1a" → "12.1f"'],
    ),
    "another commit": (
        {"changes": ("a1234567890", "b1234567890")},
        ["upstream.commit: "],
    ),
    "no stamp": (
        {"changes": ("    stamp: {path: demo/_meta.py, variable: __version__}\n", "")},
        ['stamp: ["demo/_meta.py", "__version__"] → null'],
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_differs_is_said_and_nothing_is_built(shop: Shop, case: str) -> None:
    lock = lock_of(shop.build())
    change, expected = CHANGES[case]
    shop.write(**change)
    ran = again(shop, lock)
    assert ran.status == 1
    found = ran.document["differences"]
    assert [line[: len(want)] for line, want in zip(found, expected, strict=True)] == expected
    assert ran.document["error"]["kind"] == "finding"
    assert "nothing was built" in ran.document["error"]["hint"]
    assert not (shop.folder / "again").exists()


def test_another_stackpatch_is_an_input(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = lock_of(shop.build())
    monkeypatch.setattr(stackpatch, "__version__", "99")
    ran = again(shop, lock)
    assert ran.status == 1
    assert ran.document["differences"] == ['stackpatch: "0.1.0" → "99"']


def test_another_engine_alone_is_told_with_what_helps(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a builder elsewhere made it: no recipe is to be checked out then."""
    lock = lock_of(shop.build())
    monkeypatch.setattr("stackpatch.cli.locks.input_differences", lambda *_: [ENGINE])
    ran = again(shop, lock)
    assert ran.status == 1
    assert ran.document["differences"] == [ENGINE]
    assert "name a --builder that has it" in ran.document["error"]["hint"]


ENGINE = 'engine.version: "buildkit 0.13.1" → "dockerd 26.1.5"'


@pytest.mark.parametrize("base", ["", "  "])
def test_an_empty_base_is_not_taken_for_none(shop: Shop, base: str) -> None:
    """`--base "$BASE"` with BASE not set would build on nothing, without a word."""
    ran = shop.build("--base", base)
    assert ran.status == 2
    assert ran.document["error"]["message"] == "--base is empty"
    assert "variable" in ran.document["error"]["hint"]
    assert not shop.out.exists()


def test_a_base_without_the_package_is_told_with_what_helps(shop: Shop) -> None:
    maker = LayoutMaker(shop.folder / "base")
    other = {f"{SITE}/torch-2.9.0.dist-info/RECORD": b""}
    layout = maker.write(maker.image([tar_layer(other)], architecture="arm64"))
    ran = shop.build("--base", str(layout))
    assert ran.status == 2
    assert ran.document["error"]["message"] == "the base image has no demo"
    hint = ran.document["error"]["hint"]
    assert hint.startswith("its package folders hold 1 other distribution; take one that has")


def test_a_release_that_is_gone_is_told(shop: Shop) -> None:
    lock = lock_of(shop.build())
    shop.recipe.write_text(
        shop.recipe.read_text().replace('"1.2.3"', '"1.2.4"').replace("demo-1.2.3", "demo-1.2.4")
    )
    ran = again(shop, lock)
    assert ran.status == 2
    assert "no pinned release '1.2.3'" in ran.document["error"]["message"]


def test_a_result_that_was_changed_on_the_disk_is_found(shop: Shop) -> None:
    """A build that is found again is believed by its sizes; a lock is held against the bytes."""
    lock = lock_of(shop.build())
    wheel = next(lock.parent.glob("*.whl"))
    raw = bytearray(wheel.read_bytes())
    raw[100] ^= 1
    wheel.write_bytes(raw)
    assert shop.build().document["reused"]
    ran = shop.run("build", "--from-lock", str(lock), "--out", str(shop.out), "--json")
    assert ran.status == 1
    (line,) = ran.document["differences"]
    assert line.startswith(f"{wheel.name}: ")
    assert "remove" in ran.document["error"]["hint"]


def test_a_layout_base_without_a_name_must_be_said_where(shop: Shop) -> None:
    maker = LayoutMaker(shop.folder / "base")
    layout = maker.write(maker.image([tar_layer(installed())], architecture="arm64"))
    lock = lock_of(shop.build("--base", str(layout)))
    ran = again(shop, lock)
    assert ran.status == 2
    assert "was in a folder or an engine and has no name" in ran.document["error"]["message"]
    ran = again(shop, lock, "--base", str(layout))
    assert (ran.status, ran.document["differences"]) == (0, [])
    other = LayoutMaker(shop.folder / "other")
    motd = tar_layer({"etc/motd": b""})
    place = other.write(other.image([tar_layer(installed()), motd], architecture="arm64"))
    ran = again(shop, lock, "--base", str(place), out="third")
    assert ran.status == 1
    assert [line.split(":")[0] for line in ran.document["differences"]] == ["base.digest"]


def test_the_site_of_a_lock_is_kept(shop: Shop) -> None:
    lock = lock_of(shop.build("--site", "/srv/python3.12/site-packages"))
    assert json.loads(lock.read_bytes())["inputs"]["base"]["site"] == (
        "srv/python3.12/site-packages"
    )
    assert again(shop, lock).document["differences"] == []


BAD = {
    "empty": b"",
    "not JSON": b"\xff\xfe{",
    "a list": b"[]",
    "another schema": b'{"schema": "stackpatch.build/1"}',
    "nothing in it": b'{"schema": "stackpatch.lock/1"}',
    "an empty collection": b'{"schema": "stackpatch.locks/1", "locks": []}',
    "a collection of nothing": b'{"schema": "stackpatch.locks/1", "locks": [1]}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_lock_is_wrong_input(shop: Shop, case: str) -> None:
    path = shop.folder / "bad.json"
    path.write_bytes(BAD[case])
    ran = again(shop, path)
    assert ran.status == 2
    assert str(path) in ran.document["error"]["message"]


def test_a_lock_that_is_missing_or_was_edited(shop: Shop) -> None:
    assert "cannot read" in again(shop, shop.folder / "none.json").document["error"]["message"]
    lock = lock_of(shop.build())
    text = lock.read_text().replace('"12.1a"', '"12.1f"')
    edited = shop.folder / "edited.json"
    edited.write_text(text)
    ran = again(shop, edited)
    assert (ran.status, "was edited" in ran.document["error"]["message"]) == (2, True)


def test_options_that_the_lock_answers_are_refused(shop: Shop) -> None:
    lock = lock_of(shop.build())
    for words in (("--engine", "overlay"), ("--site", f"/{SITE}")):
        ran = again(shop, lock, *words)
        assert ran.status == 2
        assert "leave --engine and --site out" in ran.document["error"]["message"]
    ran = again(shop, lock, "--arch", "sm120")
    assert (ran.status, "no locks of sm120" in ran.document["error"]["message"]) == (2, True)


def test_without_a_lock_stack_and_arch_are_needed(shop: Shop) -> None:
    for words, missing in ((("build", "--json"), "STACK"), (("build", "demo", "--json"), "--arch")):
        ran = shop.run(*words)
        assert ran.status == 2
        assert ran.document["error"]["message"] == f"{missing} is missing"


# -- recipes/STACK.lock.json --------------------------------------------------------------------


def test_locks_are_collected_beside_the_recipe(shop: Shop) -> None:
    one = shop.build("--save-lock")
    path = shop.root / "recipes" / "demo.lock.json"
    assert one.document["saved_lock"] == str(path)
    first = path.read_bytes()
    assert shop.build("--save-lock").document["reused"]
    assert path.read_bytes() == first
    other = ("build", "demo", "--arch", "sm120", "--out", str(shop.out), "--save-lock", "--json")
    assert shop.run(*other).status == 0
    held = json.loads(path.read_bytes())["locks"]
    assert [lock["inputs"]["arch"]["name"] for lock in held] == ["sm120", "sm121"]
    assert held[1] == json.loads(lock_of(one).read_bytes())

    ran = again(shop, path)
    assert ran.status == 2
    assert "holds 2 locks" in ran.document["error"]["message"]
    assert "demo@1.2.3 sm120 overlay on scratch" in ran.document["error"]["hint"]
    ran = again(shop, path, "--arch", "sm121")
    assert (ran.status, ran.document["arch"]) == (0, "sm121")

    shop.write(gate=OTHER_GATE)
    assert shop.build("--save-lock").status == 0
    held = json.loads(path.read_bytes())["locks"]
    assert [lock["inputs"]["arch"]["name"] for lock in held] == ["sm120", "sm121"]
    assert held[1]["inputs"]["series"]["sha256"] != held[0]["inputs"]["series"]["sha256"]


def test_a_file_that_is_none_of_ours_is_not_overwritten(shop: Shop) -> None:
    path = shop.root / "recipes" / "demo.lock.json"
    path.write_text("{}")
    assert shop.build("--save-lock").status == 2
    assert path.read_text() == "{}"
