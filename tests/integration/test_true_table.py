"""Every verdict over every release of FlashInfer 0.5.0 to 0.7.2.post1 and SGLang 0.5.3 to 0.5.23.

tests/data/truth.csv was judged by reading the code of each release. Not one verdict may be wrong;
at most five in a hundred may be `unsure`. The archives (1 GB) come from the package index by the
project's own code, checked against the index's digests, into the tests' cache.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import pytest
from tests.conftest import TEST_CACHE

from stackpatch.model.collection import Collection
from stackpatch.model.reference import VersionRef
from stackpatch.model.verdict import Word
from stackpatch.series.apply import apply_series
from stackpatch.series.matrix import Series, compute_all
from stackpatch.series.memo import Memo
from stackpatch.sources.fetch import fetch
from stackpatch.sources.store import SourceStore, Stored

ROOT = Path(__file__).parents[2]
RIGHT = {
    "NEEDED": {Word.NEEDED, Word.CONFLICT, Word.MISPLACED, Word.PARTIAL},
    "MOVED": {Word.CONFLICT, Word.MISPLACED},
    "UPSTREAMED": {Word.UPSTREAMED},
    "GONE": {Word.OBSOLETE, Word.UPSTREAMED},
}


def _table() -> dict[str, list[dict[str, str]]]:
    rows = csv.DictReader((ROOT / "tests/data/truth.csv").read_text("utf-8").splitlines())
    by_file: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        by_file[row["file"]].append(row)
    return by_file


TABLE = _table()


def test_the_table_is_whole() -> None:
    cells = [(row["patch"], row["release"]) for rows in TABLE.values() for row in rows]
    assert len(cells) == len(set(cells)) == 200


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all cells of this module, kept from run to run with the downloads."""
    del tmp_path_factory
    return TEST_CACHE / "true-table"


@pytest.mark.pypi
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stack", ["flashinfer", "sglang"])
def test_no_cell_is_wrong(stack: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", str(cache))
    collection = Collection(ROOT)
    recipe = collection.recipe(stack)
    store = SourceStore(stack)
    stored: dict[str, Stored] = {}
    wrong: list[str] = []
    unsure: list[str] = []
    judged = 0
    for file, rows in TABLE.items():
        _, named, series_name, patch_name = file.split("/")
        if named != stack:
            continue
        release = next(r for r in recipe.releases if r.series == series_name)
        for version in {row["release"] for row in rows} | {release.version}:
            if version not in stored:
                stored[version] = fetch(recipe, VersionRef.parse(version), store=store)[0]
        series = collection.series(stack, release)
        origin = stored[release.version].tree
        base = apply_series(store.objects, origin, series.patches)
        assert base.applied
        versions = [stored[row["release"]] for row in rows]
        asked = Series(store.objects, series.patches, versions, Memo(), origin=origin)
        (matrix,) = compute_all([asked], processes=1)
        judgement = next(row for row in matrix.rows if row.patch.name == patch_name)
        for row, verdict in zip(rows, judgement.verdicts, strict=True):
            judged += 1
            said = f"{row['patch']} at {row['release']}: {verdict.word}, {verdict.detail}"
            if verdict.word is Word.UNSURE:
                unsure.append(said)
            elif verdict.word not in RIGHT[row["truth"]]:
                wrong.append(f"{said}; the truth is {row['truth']} ({row['where']})")
            assert verdict.evidence, said
    assert wrong == []
    assert judged >= 74
    assert len(unsure) <= judged * 0.05, unsure
