"""The import checks of the stacks that stand on FlashInfer, each fault planted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"
STACKS = {"sglang": "sglang", "vllm": "vllm", "trtllm": "tensorrt_llm"}


class Site:
    """A folder with one stack and a FlashInfer, as installed."""

    def __init__(self, folder: Path, stack: str) -> None:
        self.folder, self.stack, self.module = folder, stack, STACKS[stack]
        self.put(self.module, "1.2.3", "Requires-Dist: flashinfer-python[cu13]==0.6.3\n")
        self.put("flashinfer_python", "0.6.3+sp.01234567")
        (folder / self.module).mkdir()
        self.source("__version__ = '1.2.3'\n")

    def put(self, name: str, version: str, more: str = "") -> None:
        for old in self.folder.glob(f"{name}-*.dist-info"):
            (old / "METADATA").unlink()
            old.rmdir()
        info = self.folder / f"{name}-{version}.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}"
        (info / "METADATA").write_text(text)

    def source(self, text: str) -> None:
        (self.folder / self.module / "__init__.py").write_text(text)

    def run(self, **env: str) -> tuple[str, str]:
        program = RECIPES / self.stack / "smoke" / "import.py"
        done = subprocess.run(
            [sys.executable, "-B", program, "--arch", "sm121"],
            env={**os.environ, "PYTHONPATH": str(self.folder), **env},
            capture_output=True,
            text=True,
        )
        told = json.loads(done.stdout)
        assert done.returncode == {"passed": 0, "failed": 1, "not-run": 77}[told["status"]]
        return told["status"], told["why"]


@pytest.fixture(params=STACKS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return Site(tmp_path, request.param)


def test_a_stack_with_the_flashinfer_that_it_asks_for_passes(site: Site) -> None:
    assert site.run() == ("passed", f"{site.module} 1.2.3")
    assert site.run(SMOKE_VERSION="1.2.3")[0] == "passed"


def test_the_wrong_flashinfer_beside_it_fails(site: Site) -> None:
    site.put("flashinfer_python", "0.6.2+sp.01234567")
    status, why = site.run()
    assert status == "failed"
    assert why == (f"flashinfer 0.6.2+sp.01234567 is installed, {site.module} 1.2.3 asks for 0.6.3")
    (site.folder / "flashinfer_python-0.6.2+sp.01234567.dist-info" / "METADATA").unlink()
    assert site.run()[0] == "failed"


def test_a_pin_of_an_extra_asks_for_nothing(site: Site) -> None:
    more = "Requires-Dist: flashinfer-python==9.9 ; extra == 'other'\n"
    site.put(site.module, "1.2.3", more)
    assert site.run()[0] == "passed"


def test_two_releases_mixed_and_another_one_than_was_asked_for_fail(site: Site) -> None:
    assert site.run(SMOKE_VERSION="1.2.4") == (
        "failed",
        f"{site.module} 1.2.3 is imported, not 1.2.4",
    )
    site.source("__version__ = '1.2.2'\n")
    assert site.run() == ("failed", "the distribution is 1.2.3, the package says 1.2.2")


def test_an_import_that_fails_is_told_in_its_words(site: Site) -> None:
    site.source("raise ImportError('no such thing')\n")
    status, why = site.run()
    assert status == "failed"
    assert why.startswith(f"import {site.module}: no such thing")
    site.source("1 / 0\n")
    status, why = site.run()
    assert (status, why.split(":")[0]) == ("failed", "ZeroDivisionError")


def test_cudas_libraries_are_no_fault_of_tensorrt_llm(tmp_path: Path) -> None:
    site = Site(tmp_path, "trtllm")
    site.source("raise ImportError('libcuda.so.1: cannot open shared object file')\n")
    assert site.run() == (
        "not-run",
        "import tensorrt_llm: libcuda.so.1: cannot open shared object file",
    )
