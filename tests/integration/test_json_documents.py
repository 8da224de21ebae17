"""docs/json.md: every key that it promises is in the documents of real runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.projects import REWORKED, STRICT, Project, gate, open_gate
from tests.shop import Shop

from stackpatch import errors

if TYPE_CHECKING:
    from tests.projects import Ran
    from tests.registries import RunningRegistry
    from tests.serving import Server

CHECKOUT = Path(__file__).parents[2]
PAGE = (CHECKOUT / "docs/json.md").read_text("utf-8")
ROWS = re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", PAGE, re.MULTILINE)
KEYS = {name: re.findall(r"`([a-z0-9_]+(?:(?:\[\])?\.[a-z0-9_]+)*)`", cell) for name, cell in ROWS}

# What stands in backticks without being a key.
WORDS = {
    "matrix": ("stacks", "failed"),
    "rebase": ("clean", "conflict"),
    "build": ("null", "wheel"),
    "smoke": ("passed", "failed"),
}


def holds(document: dict[str, Any], name: str) -> None:
    """Every promised key is there; a list on the way has something in it."""
    assert document["schema"] == f"stackpatch.{name}/1"
    for path in KEYS[name]:
        if path in WORDS.get(name, ()):
            continue
        reached: list[Any] = [document]
        for step in path.split("."):
            key = step.removesuffix("[]")
            assert all(key in one for one in reached), f"{name}: {path}"
            reached = [one[key] for one in reached]
            if step.endswith("[]"):
                reached = [one for several in reached for one in several]
                assert reached, f"{name}: nothing in {path}"


def program(*words: str | Path) -> dict[str, Any]:
    argv = [sys.executable, "-m", "stackpatch", *words, "--json", "--root", CHECKOUT]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return document


@pytest.fixture
def project(tmp_path: Path, index: Server) -> Project:
    """Two releases: the patch applies to one, and conflicts with the other."""
    made = Project(tmp_path, index, {"a.py": gate(STRICT)}, open_gate("a", "Bug: https://x.test/1"))
    made.write_recipe(made.offer(made.up.versions[0]))
    made.offer(made.up.release("1.1", {"a.py": gate(REWORKED)}))
    return made


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", "replaced by the shop, restored by pytest")
    return Shop(tmp_path)


def test_the_page_promises_keys_of_nine_documents() -> None:
    assert {name: len(set(keys) - set(WORDS.get(name, ()))) for name, keys in KEYS.items()} == {
        "list": 7,
        "matrix": 12,
        "upstream": 10,
        "rebase": 10,
        "build": 15,
        "audit": 8,
        "smoke": 9,
        "publish": 6,
        "cache-list": 6,
    }


def test_a_key_that_is_missing_is_noticed() -> None:
    one = {"name": "a", "path": "/a", "variable": None, "bytes": 0, "exists": True}
    with pytest.raises(AssertionError, match="stale_risk"):
        holds({"schema": "stackpatch.cache-list/1", "caches": [one]}, "cache-list")


def test_list_and_caches() -> None:
    holds(program("list"), "list")
    holds(program("cache", "list"), "cache-list")


def test_matrix_upstream_and_rebase(project: Project) -> None:
    holds(project.run("matrix", "demo", "--refs", "all", "--json").document, "matrix")
    holds(project.run("upstream", "demo", "--json").document, "upstream")
    holds(project.run("rebase", "demo", "--onto", "1.1", "--json").document, "rebase")


def test_build_and_publish(shop: Shop, registry: RunningRegistry, name: str) -> None:
    holds(shop.build().document, "build")
    to = ("--to", f"{registry.host}/{name}:v1", "--out", str(shop.out), "--json")
    holds(shop.run("publish", "demo", "--arch", "sm121", *to).document, "publish")


def test_audit_and_smoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where smoke leaves its file
    holds(program("audit", CHECKOUT / "tests/data/gpu", "--arch", "sm121"), "audit")
    found = program(
        "smoke", "flashinfer", "--arch", "sm121", "--python", sys.executable, "--only", "files"
    )
    holds(found, "smoke")


def failed(ran: Ran, status: int, kind: str) -> None:
    assert (ran.status, ran.document["error"]["kind"]) == (status, kind)
    assert set(ran.document["error"]) >= {"kind", "message", "hint", "where"}
    assert f"| {status} | `{kind}` |" in PAGE


def test_every_kind_of_error_goes_with_the_status_that_the_page_says(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed(project.run("rebase", "demo", "--onto", "1.1", "--dry-run", "--json"), 1, "finding")
    failed(project.run("show", "nothing", "--json"), 2, "input")
    failed(project.run("rebase", "demo", "--onto", "1.1", "--json"), 4, "waiting")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    failed(project.run("fetch", "demo", "sdist:9.9", "--json"), 3, "environment")


def test_the_page_names_every_kind() -> None:
    kinds = {cls.kind for cls in vars(errors).values() if hasattr(cls, "kind")}
    assert kinds <= set(re.findall(r"^\| \d+ \| `([a-z]+)` ", PAGE, re.MULTILINE))
