"""TensorRT-LLM's own recipe, series and Dockerfile to the end, where a mirror has the sources.

Neither upstream's repository nor NVIDIA's registry can be reached here. So the mirror has a small
repository with the lines that the shipped patches change, at commits of its own, and a registry of
ours the image; the recipe differs in nothing else.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import git
from tests.engine import engine
from tests.engine_builds import own_files
from tests.papers import valid_sbom, valid_statement
from tests.registries import running_registry
from tests.trees import (
    CHECKOUT,
    LOADER,
    SITE,
    Shop,
    devel_image,
    image,
    mirrored,
    push,
    served_files,
    shop_fixture,
)
from tests.unit.test_series_trtllm import before

from stackpatch.cli.main import main
from stackpatch.model.series import load_series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

shop = shop_fixture
UPSTREAM = "https://github.com/NVIDIA"


@pytest.fixture(name="run")
def _run(shop: Shop, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def run(*words: str, status: int = 0) -> Any:
        found = main([*words, "--root", str(shop.root), "--json"])
        out, err = capsys.readouterr()
        assert found == status, err
        return json.loads(out)

    return run


@pytest.fixture(name="shipped")
def _shipped(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """What is shipped for trtllm, with the commit of the mirror's repository in the recipe."""
    for name in ("dockerfiles", "patches/trtllm", "recipes"):
        shutil.rmtree(shop.root / name, ignore_errors=True)
    shutil.copytree(CHECKOUT / "dockerfiles", shop.root / "dockerfiles")
    shutil.copytree(CHECKOUT / "patches" / "trtllm", shop.root / "patches" / "trtllm")
    shutil.rmtree(shop.root / "patches" / "llm")
    (shop.root / "recipes").mkdir()
    with mirrored(tmp_path, monkeypatch, UPSTREAM) as store:
        served_files(shop, tmp_path, UPSTREAM, store)
        (shop.repository / LOADER).write_text(loader())
        git("add", "-A", cwd=shop.repository)
        git("commit", "-q", "-m", "as upstream has it", cwd=shop.repository)
        for tag in ("v1.3.0rc20", "v1.3.0rc24"):
            git("tag", "-f", tag, cwd=shop.repository)
        shop.commit = git("rev-parse", "HEAD", cwd=shop.repository).strip()
        # The recipe says `.git`.
        shop.repository.rename(tmp_path / "TensorRT-LLM.git")
        text = (CHECKOUT / "recipes" / "trtllm.yaml").read_text()
        text = re.sub(r"(?m)^    commit: [0-9a-f]{40}$", f"    commit: {shop.commit}", text)
        (shop.root / "recipes" / "trtllm.yaml").write_text(text)
        yield shop


def loader() -> str:
    """The file with the lines that the patch changes, where the patch says that they stand.

    Its mail has no index line (the release's own file could not be read), so elsewhere in the file
    nothing would show that it is the place.
    """
    text = before("pass")
    (mail,) = (CHECKOUT / "patches" / "trtllm" / "v1.3.0rc20").glob("0001-*.patch")
    start = re.search(r"(?m)^@@ -(\d+),", mail.read_text())
    assert start is not None
    head = text.index("    valid_pyt_quant")
    return "#\n" * (int(start[1]) - 1 - text[:head].count("\n")) + text


def series(name: str) -> list[str]:
    return [patch.name for patch in load_series(CHECKOUT / "patches" / "trtllm" / name).patches]


def test_what_a_person_types_first(capsys: pytest.CaptureFixture[str]) -> None:
    """`stackpatch build trtllm --arch sm121 --dry-run`, on what is shipped."""
    argv = ["build", "trtllm", "--arch", "sm121", "--dry-run", "--root", str(CHECKOUT)]
    assert main(argv) == 0
    assert "pinned   every input above" in capsys.readouterr().out
    assert main([*argv, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["open"] == []
    plan = document["plan"]
    assert re.fullmatch("[0-9a-f]{40}", plan["upstream"]["commit"])
    assert re.fullmatch("sha256:[0-9a-f]{64}", plan["base"]["digest"])
    assert re.fullmatch("[0-9a-f]{64}", plan["series"]["sha256"])
    for patch in plan["series"]["patches"]:
        assert re.fullmatch("[0-9a-f]{64}", patch["sha256"])
    assert plan["engine"]["version"]


def test_the_overlay_of_the_default_release_to_the_end(
    shipped: Shop, run: Callable[..., Any], tmp_path: Path
) -> None:
    files = {LOADER: loader().encode(), "tensorrt_llm/__init__.py": b""}
    layout, digest = image(tmp_path / "release", files)
    with running_registry(tmp_path / "registry") as registry:
        name = f"{registry.host}/nvidia/tensorrt-llm/release"
        push(layout, f"{name}:1.3.0rc20")
        recipe = shipped.root / "recipes" / "trtllm.yaml"
        text = recipe.read_text().replace("nvcr.io/nvidia/tensorrt-llm/release", name)
        recipe.write_text(re.sub(r"digest: sha256:[0-9a-f]{64}", f"digest: {digest}", text))
        out = ["--out", str(tmp_path / "dist")]
        build = ["build", "trtllm", "--arch", "sm121", *out]
        planned = run(*build, "--dry-run")
        made = run(*build)
        assert (made["key"], made["reused"], made["engine"]) == (planned["key"], False, "overlay")
        (changed,) = (
            content
            for path, content in own_files(Path(made["image"]["path"])).items()
            if path == f"{SITE}/{LOADER}"
        )
        assert b"taking FP8 instead" in changed
        papers(made, shipped.commit, series("v1.3.0rc20"))
        assert run(*build)["reused"] is True
        done = run("publish", "trtllm", "--arch", "sm121", "--to", f"{registry.host}/ours", *out)
        assert [one["name"] for one in done["referrers"]] == [
            *("sbom.cdx.json", "provenance.json", "lock.json")
        ]
        found = run("verify", done["reference"], "--stack", "trtllm", "--arch", "sm121")
        assert found["right"] is True


def test_the_build_from_source_to_the_end(
    shipped: Shop, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = engine()
    real.use(monkeypatch)
    build = ["build", "trtllm@1.3.0rc24", "--arch", "sm120", "--base", real.base]
    build += ["--build-arg", f"DEVEL={devel_image()}", "--network", "host"]
    build += ["--out", str(tmp_path / "dist")]
    assert run(*build, "--dry-run")["open"] == []
    made = run(*build)
    assert made["engine"] == "buildx"
    held = own_files(Path(made["image"]["path"]))
    loader = next(content for path, content in held.items() if path.endswith(LOADER))
    assert b"taking FP8 instead" in loader
    papers(made, shipped.commit, series("v1.3.0rc24"))
    found = run("verify", made["image"]["path"], "--stack", "trtllm@1.3.0rc24", "--arch", "sm120")
    assert found["right"] is True


def papers(made: dict[str, Any], commit: str, names: list[str]) -> None:
    """The SBOM and the provenance are valid, and have the commit and each patch."""
    sbom = valid_sbom(Path(made["sbom"]).read_bytes())
    pedigree = sbom["metadata"]["component"]["pedigree"]
    assert pedigree["commits"][0]["url"].endswith(f"/NVIDIA/TensorRT-LLM/commit/{commit}")
    assert len(pedigree["patches"]) == len(names)
    statement = valid_statement(Path(made["provenance"]).read_bytes())
    listed = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    found = [one["name"].rpartition("/")[2] for one in listed]
    assert set(names) <= set(found)
    assert {"gitCommit": commit} in [one["digest"] for one in listed]
