"""Real releases of FlashInfer and SGLang from the package index, through the whole of sources."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.conftest import TEST_CACHE, git

from stackpatch.model.collection import Collection
from stackpatch.model.layout import Layout
from stackpatch.model.reference import SourceKind
from stackpatch.sources import fetch as fetching
from stackpatch.sources.archive import members
from stackpatch.sources.download import DownloadCache
from stackpatch.sources.fetch import artefact, fetch
from stackpatch.sources.releases import list_index_versions
from stackpatch.sources.store import SourceStore, Stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackpatch.model.recipe import Recipe

pytestmark = pytest.mark.pypi

SDIST, WHEEL = SourceKind.SDIST, SourceKind.WHEEL


@pytest.fixture(scope="module", autouse=True)
def _shared_downloads() -> object:
    """Downloads outlive the test run; their sha256 is checked on every use all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetching, "_downloads", lambda: DownloadCache(TEST_CACHE / "downloads"))
        yield


@pytest.fixture
def collection() -> Collection:
    return Collection(Path(__file__).parents[2])


def files_of(stored: Stored, stack: str) -> dict[str, str]:
    objects = SourceStore(stack).objects
    return {path: entry.id for path, entry in objects.walk(stored.tree)}


@pytest.mark.parametrize(
    ("stack", "version"), [("flashinfer", "0.6.3"), ("flashinfer", "0.5.3"), ("sglang", "0.5.9")]
)
def test_sdist_and_wheel_of_a_release_agree_under_git_paths(
    collection: Collection, stack: str, version: str
) -> None:
    recipe = collection.recipe(stack)
    sdist, wheel = (
        files_of(stored, stack) for stored in fetch(recipe, version, kinds=[SDIST, WHEEL])
    )
    assert len(sdist) > 1000
    assert len(wheel) > 1000
    both = sdist.keys() & wheel.keys()
    assert len(both) > 0.95 * len(wheel)
    assert [path for path in both if sdist[path] != wheel[path]] == []


def test_the_tree_is_what_tar_and_git_make_of_it(collection: Collection, tmp_path: Path) -> None:
    recipe = collection.recipe("flashinfer")
    release = recipe.release("0.6.3")
    archive = artefact(recipe, release, SDIST)
    (stored,) = fetch(recipe, "0.6.3", kinds=[SDIST])
    subprocess.run(["tar", "xf", archive, "--strip-components=1"], cwd=tmp_path, check=True)
    git("init", "-q", cwd=tmp_path)
    # FlashInfer's own .gitignore would leave files out.
    git("add", "-A", "-f", cwd=tmp_path)
    listed = git("ls-files", "-s", "-z", cwd=tmp_path).split("\0")[:-1]
    rules = recipe.layouts.rules(SDIST)
    layout = Layout.of((rule.here, rule.git) for rule in rules)
    expected = {}
    for line in listed:
        head, _, path = line.partition("\t")
        mapped = layout.to_git(path)
        if mapped is not None:
            mode, blob, _ = head.split()
            expected[mapped] = (int(mode, 8), blob)
    objects = SourceStore("flashinfer").objects
    found = {path: (entry.mode, entry.id) for path, entry in objects.walk(stored.tree)}
    assert found == expected


def test_the_commit_of_a_real_release_is_the_same_everywhere(collection: Collection) -> None:
    (stored,) = fetch(collection.recipe("flashinfer"), "0.6.3", kinds=[SDIST])
    commit = git("--git-dir", str(SourceStore("flashinfer").path), "fsck", cwd=Path("/"))
    assert "error" not in commit
    assert stored.evidence["Digest-From"] == "recipe"
    again = SourceStore("flashinfer")
    shutil.rmtree(again.path)
    (second,) = fetch(collection.recipe("flashinfer"), "0.6.3", kinds=[SDIST], offline=True)
    assert second == stored


def test_the_index_lists_every_release(collection: Collection) -> None:
    found = {
        stack: [each.version for each in list_index_versions(collection.recipe(stack))]
        for stack in ("flashinfer", "sglang")
    }
    first, last = found["flashinfer"].index("0.5.0"), found["flashinfer"].index("0.7.2.post1")
    assert last - first + 1 >= 42
    assert {"0.6.3", "0.6.7.post3", "0.7.0.post1"} <= set(found["flashinfer"])
    assert {"0.5.3", "0.5.6.post2", "0.5.9", "0.5.23"} <= set(found["sglang"])


def test_platform_wheels_stand_for_releases_without_an_sdist(collection: Collection) -> None:
    versions = {each.version: each for each in list_index_versions(collection.recipe("sglang"))}
    assert versions["0.5.9"].kind is SDIST
    newest = versions["0.5.23"]
    assert newest.kind is WHEEL
    assert newest.sources[WHEEL].name.endswith("x86_64.whl")


def _took(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _imported(recipe: Recipe, version: str, root: Path) -> Stored:
    archive = artefact(recipe, recipe.release(version), SDIST)
    return SourceStore("x", root).import_files(
        SDIST, version, members(archive), seconds=0, evidence={"Artefact": archive.name}
    )


def test_an_import_is_no_slower_than_twice_tar_and_git(
    collection: Collection, tmp_path: Path
) -> None:
    recipe = collection.recipe("flashinfer")
    archive = artefact(recipe, recipe.release("0.6.3"), SDIST)
    ours, theirs = [], []
    for number in range(3):
        tree = tmp_path / f"tree{number}"
        tree.mkdir()
        git("init", "-q", cwd=tree)

        def by_hand(tree: Path = tree) -> None:
            subprocess.run(["tar", "xf", archive], cwd=tree, check=True)
            git("add", "-A", cwd=tree)
            git("commit", "-q", "-m", "x", cwd=tree)

        theirs.append(_took(by_hand))
        root = tmp_path / f"store{number}"
        ours.append(_took(lambda root=root: _imported(recipe, "0.6.3", root)))  # type: ignore[misc]
    assert min(ours) <= 2 * min(theirs)


def test_after_ten_releases_the_store_is_smaller_than_the_archives(collection: Collection) -> None:
    recipe = collection.recipe("flashinfer")
    versions = [each for each in list_index_versions(recipe) if each.kind is SDIST]
    names = [each.version for each in versions]
    start = names.index("0.6.3")
    stored = fetch(recipe, names[start : start + 10], kinds=[SDIST])
    assert [each.version for each in stored] == names[start : start + 10]
    archives = sum(
        (TEST_CACHE / "downloads" / "sha256" / each.evidence["Sha256"] / each.evidence["Artefact"])
        .stat()
        .st_size
        for each in stored
    )
    store = SourceStore("flashinfer").path
    size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    assert size < archives / 2
