"""`stackpatch cache list` and `cache clear` as a person and a script meet them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stackpatch.cli.main import main

NORM = ".cache/flashinfer/0.6.3/121a/cached_ops/norm"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a FlashInfer cache; no variable of the person's own."""
    from stackpatch.installed.caches import CACHES

    for name in {variable for cache in CACHES.values() for variable in cache.variables}:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    made = tmp_path / "home"
    monkeypatch.setenv("HOME", str(made))
    for name in ("build.ninja", "norm.so", "norm.cuda.o"):
        (made / NORM).mkdir(parents=True, exist_ok=True)
        (made / NORM / name).write_bytes(b"x" * 1000)
    (made / ".cache/flashinfer/notes.txt").write_text("mine")
    return made


def run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    """Status, the document, stderr."""
    status = main([*words, "--json"])
    said = capfd.readouterr()
    return status, json.loads(said.out), said.err


def test_list(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, document, err = run(capfd, "cache", "list")
    assert (status, err) == (0, "")
    assert document["schema"] == "stackpatch.cache-list/1"
    row = next(row for row in document["caches"] if row["exists"])
    assert row["name"] == "flashinfer-jit"
    assert row["path"] == str(home / ".cache/flashinfer")
    assert row["variable"] == "FLASHINFER_WORKSPACE_BASE"
    assert row["variable_set"] is False
    assert row["bytes"] == 3004
    assert row["stale_risk"] == "stale"


def test_list_for_people_shows_what_is_there(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "list", "flashinfer@0.6.3"]) == 0
    out = capfd.readouterr().out
    assert "3.0 kB" in out
    assert str(home / ".cache/flashinfer") in out
    assert "Not there: " in out
    assert "sglang-autotune" not in out  # not of that stack


def test_clear_says_the_same_in_the_dry_run(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, planned, _ = run(capfd, "cache", "clear", "flashinfer", "--dry-run")
    assert (status, planned["dry_run"]) == (0, True)
    assert (home / NORM).exists()
    status, done, _ = run(capfd, "cache", "clear", "flashinfer")
    assert (status, done["dry_run"]) == (0, False)
    assert not (home / NORM).exists()
    assert {**planned, "dry_run": False} == done
    assert done["bytes"] == 3000
    assert done["taken"] == [
        {
            "cache": "flashinfer-jit",
            "path": str(home / NORM),
            "bytes": 3000,
            "why": done["taken"][0]["why"],
        }
    ]
    assert "modification times" in done["taken"][0]["why"]
    assert (home / ".cache/flashinfer/notes.txt").read_text() == "mine"


def test_clear_tells_people_why(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "clear"]) == 0
    out = capfd.readouterr().out
    assert "flashinfer-jit: ninja compares modification times only" in out
    assert f"{home / NORM}" in out
    assert f"{home / '.cache/flashinfer/notes.txt'}: not a name that this cache uses" in out
    assert "Freed 3.0 kB in 1 entry." in out
    assert main(["cache", "clear"]) == 0
    assert "Nothing that could be stale was found." in capfd.readouterr().out


def test_a_refused_place_is_a_finding(
    home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(home))
    before = sorted(home.rglob("*"))
    status, document, err = run(capfd, "cache", "clear", "--cache", "triton")
    assert status == 1
    assert document["refused"][0]["why"] == "is your home folder"
    assert document["error"]["kind"] == "finding"
    assert "1 place could not be cleared" in err
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("clear", "flashinfr"), "there is no stack 'flashinfr'"),
        (("list", "flashinfr"), "there is no stack 'flashinfr'"),
        (("clear", "--cache", "trito"), "there is no cache 'trito'"),
        (("clear", "--cache", "python-bytecode"), "does not clear python-bytecode"),
        (("list", "--python", "/nowhere/python"), "there is no such file"),
    ],
)
def test_wrong_words(
    home: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    status, document, err = run(capfd, "cache", *words)
    assert status == 2
    assert message in document["error"]["message"]
    assert document["error"]["hint"]
    assert message in err
    assert (home / NORM / "norm.so").exists()


def test_an_interpreter_decides_which_version_is_read(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    site = next(venv.glob("lib/python*/site-packages"))
    (site / "flashinfer").mkdir()
    (site / "flashinfer/__init__.py").touch()
    meta = site / "flashinfer/_build_meta.py"
    meta.write_text('__version__ = "0.6.3+sp.0123abcd"\n')
    status, document, _ = run(capfd, "cache", "clear", "flashinfer", "--python", str(venv))
    assert (status, document["taken"]) == (0, [])
    assert document["installed"]["flashinfer"] == "0.6.3+sp.0123abcd"
    left = {row["why"]: row["detail"] for row in document["left"]}
    assert left["not-read"] == "that interpreter has FlashInfer 0.6.3+sp.0123abcd"
    meta.write_text('__version__ = "0.6.3"\n')
    (site / "flashinfer/data/aot/norm").mkdir(parents=True)
    (site / "flashinfer/data/aot/norm/norm.so").touch()
    status, document, _ = run(capfd, "cache", "clear", "flashinfer", "--python", str(venv))
    assert [row["path"] for row in document["taken"]] == [str(home / NORM)]
    assert document["prebuilt"] == [str(site / "flashinfer/data/aot")]
    assert (site / "flashinfer/data/aot/norm/norm.so").exists()
    main(["cache", "list", "--python", str(venv)])
    assert "Prebuilt modules win over patched sources" in capfd.readouterr().out


def test_a_name_that_is_not_utf8_is_shown(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    odd = os.fsencode(home / ".cache/flashinfer") + b"/caf\xe9"
    Path(os.fsdecode(odd)).mkdir()
    status, document, _ = run(capfd, "cache", "clear", "--dry-run")
    assert status == 0
    assert any(row["path"].endswith("caf\\xe9") for row in document["left"])


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from stackpatch.cli.main import main; main(['cache', 'list', '--json']);"
        # not pydantic: typer itself imports it once a command runs
        "bad = {'requests', 'rich', 'pygit2', 'tree_sitter', 'yaml'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
