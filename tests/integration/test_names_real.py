"""The name index over real releases: everything that the parsers define is found by its words."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.conftest import TEST_CACHE

from stackpatch.model.collection import Collection
from stackpatch.model.reference import VersionRef
from stackpatch.series.symbols import parse_symbols
from stackpatch.sources.fetch import fetch
from stackpatch.sources.names import is_code
from stackpatch.sources.objects import Objects
from stackpatch.sources.store import SourceStore
from stackpatch.sources.words import words_of_name

ROOT = Path(__file__).parents[2]
FILES = 120  # of each release, another choice for each


@pytest.mark.pypi
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("stack", "version"),
    [
        ("flashinfer", "0.5.3"),
        ("flashinfer", "0.6.3"),
        ("sglang", "0.5.6.post2"),
        ("sglang", "0.5.9"),
    ],
)
def test_no_definition_of_a_release_is_missed(
    stack: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", str(TEST_CACHE / "true-table"))
    store = SourceStore(stack)
    recipe = Collection(ROOT).recipe(stack)
    (stored,) = fetch(recipe, VersionRef.parse(version), store=store)
    objects = Objects(store.path)
    code = [(p, e) for p, e in objects.files(stored.tree) if is_code(p, e.mode)]
    assert len(code) > 1000
    listed: dict[frozenset[bytes], set[tuple[str, str]]] = {}
    checked = 0
    for path, entry in random.Random(f"{stack} {version}").sample(code, FILES):
        for symbol in parse_symbols(path, objects.blob(entry.id)).all:
            for name in (symbol.name, symbol.name.rpartition("::")[2].rpartition(".")[2]):
                wanted = words_of_name(name)
                if wanted not in listed:
                    listed[wanted] = set(objects.names.files(stored.tree, wanted))
                assert (path, entry.id) in listed[wanted], (path, name)
                checked += 1
    assert checked > 1000


@pytest.mark.pypi
@pytest.mark.timeout(900)
def test_a_rare_name_is_in_few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", str(TEST_CACHE / "true-table"))
    store = SourceStore("flashinfer")
    (stored,) = fetch(Collection(ROOT).recipe("flashinfer"), VersionRef.parse("0.6.3"), store=store)
    found = store.objects.names.files(
        stored.tree, words_of_name("gen_trtllm_gen_fused_moe_sm100_module")
    )
    assert 1 <= len(found) <= 6
    assert "flashinfer/jit/fused_moe.py" in {path for path, _ in found}
