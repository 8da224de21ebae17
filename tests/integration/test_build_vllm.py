"""A wheel of 400 MB, patched by the real program: what changes in it, how long, how much memory.

It downloads 475 MB once; the tests' cache keeps it.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path

import pytest
from tests.conftest import fetch_artefact
from tests.weighing import weigh

from stackpatch.model.recipe_file import parse_recipe

ROOT = Path(__file__).parents[2]
FILE = "vllm-0.13.0-cp38-abi3-manylinux_2_31_x86_64.whl"

pytestmark = [pytest.mark.pypi, pytest.mark.timeout(1800)]


def test_only_interpreted_files_change_in_a_wheel_of_400_megabytes(tmp_path: Path) -> None:
    recipe = parse_recipe("vllm.yaml", (ROOT / "recipes" / "vllm.yaml").read_bytes())
    pinned = next(a for a in recipe.release("0.13.0").artefacts if a.file == FILE)
    source = fetch_artefact(pinned.file, pinned.sha256)
    cache = tmp_path / "cache"
    there = cache / "downloads" / "sha256" / pinned.sha256 / pinned.file
    there.parent.mkdir(parents=True)
    there.symlink_to(source)
    argv = [sys.executable, "-m", "stackpatch", "build", "vllm", "--arch", "sm120", "--json"]
    done = weigh(
        [*argv, "--root", ROOT, "--out", tmp_path / "dist"],
        env={**os.environ, "STACKPATCH_CACHE_DIR": str(cache)},
    )
    assert done.status == 0, done.stderr.decode()[-2000:]
    assert done.megabytes < 500
    print(f"{done.seconds:.1f} s, {done.megabytes:.0f} MB at most")
    made = json.loads(done.stdout)
    version = made["wheel"]["version"]
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(made["wheel"]["path"]) as after:
        was = {i.filename: i.CRC for i in before.infolist()}
        now = {
            i.filename.replace(f"vllm-{version}.", "vllm-0.13.0."): i.CRC for i in after.infolist()
        }
        assert after.testzip() is None
    assert set(was) == set(now)
    assert sorted(name for name in was if was[name] != now[name]) == [
        "vllm-0.13.0.dist-info/METADATA",
        "vllm-0.13.0.dist-info/RECORD",
        "vllm/_version.py",
        "vllm/model_executor/layers/quantization/mxfp4.py",
    ]
