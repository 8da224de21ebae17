"""`--from-lock` and `--save-lock` for a release that is its commit, whose lock has no wheel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.trees import AFTER, BEFORE, LOADER, Shop, build_fixture, shop_fixture

from stackpatch.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

shop, build = shop_fixture, build_fixture


def again(
    shop: Shop, capsys: pytest.CaptureFixture[str], lock: Path, *words: str
) -> tuple[int, dict[str, Any]]:
    place = str(shop.root.parent / "again")
    argv = ["build", "--from-lock", str(lock), "--root", str(shop.root), "--out", place, "--json"]
    status = main([*argv, *words])
    return status, json.loads(capsys.readouterr().out)


def test_a_git_build_comes_again_from_its_lock(
    shop: Shop, build: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    made = build("--base", str(shop.base), "--save-lock")
    lock = Path(made["lock"])
    kept = Path(made["saved_lock"])
    assert kept == shop.root / "recipes" / "llm.lock.json"
    assert again(shop, capsys, lock)[0] == 2  # the folder of its base has no name
    for place in (lock, kept):
        status, found = again(shop, capsys, place, "--base", str(shop.base))
        assert (status, found["differences"]) == (0, [])
        assert found["image"]["digest"] == made["image"]["digest"]


def test_what_differs_from_a_git_build_s_lock(
    shop: Shop, build: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    lock = Path(build("--base", str(shop.base))["lock"])
    shop.patch(LOADER, BEFORE, AFTER.replace(b"fp8", b"fp4"))
    status, found = again(shop, capsys, lock, "--base", str(shop.base))
    assert status == 1
    assert {line.partition(":")[0] for line in found["differences"]} == {
        "patched-version",
        "series.patches",
        "series.sha256",
    }
    assert not (shop.root.parent / "again").exists()


def test_a_git_build_that_was_changed_on_the_disk(
    shop: Shop, build: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    made = build("--base", str(shop.base))
    lock = Path(made["lock"])
    config = lock.parent / "image" / "oci-layout"
    config.write_bytes(config.read_bytes()[::-1])
    argv = ["build", "--from-lock", str(lock), "--root", str(shop.root), "--json"]
    argv += ["--out", str(lock.parents[3]), "--base", str(shop.base)]
    assert main(argv) == 1
    (line,) = json.loads(capsys.readouterr().out)["differences"]
    assert line.startswith("image/oci-layout: ")
