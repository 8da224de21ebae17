"""scripts/fuzz: its readers take its seeds; what it does with atheris is tried by hand."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

    from stackpatch.checks.window import Source

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz"


def load() -> ModuleType:
    loader = SourceFileLoader("stackpatch_fuzz", str(SCRIPT))
    spec = spec_from_loader("stackpatch_fuzz", loader)
    assert spec is not None
    module = module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


FUZZ = load()


@pytest.mark.parametrize("name", sorted(FUZZ.READERS))
def test_a_reader_takes_its_seeds_and_what_is_cut_off_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seeds = FUZZ._seeds(name)
    assert seeds
    for seed in seeds:
        FUZZ.READERS[name](seed)
        FUZZ.READERS[name](seed[: len(seed) // 2])
    FUZZ.READERS[name](b"")


@pytest.mark.parametrize("name", ["image", "tar", "zip"])
def test_seeds_of_archives_lead_to_gpu_code(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else the fuzzer would mutate what no reader looks into.
    from stackpatch.checks import scan as scanning

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found, whole = [], scanning.scan

    def noted(member: str, source: Source) -> scanning.Findings:
        found.append(whole(member, source))
        return found[-1]

    monkeypatch.setattr(scanning, "scan", noted)
    FUZZ.READERS[name](FUZZ._seeds(name)[0])
    assert any(findings.codes for findings in found)
    if name != "image":  # its upper layer is the lower one's first half
        assert not any(findings.damage for findings in found)


def test_a_fault_of_a_reader_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: memoryview) -> None:
        raise IndexError(data)

    monkeypatch.setattr("stackpatch.checks.cubin.read_cubin", broken)
    with pytest.raises(IndexError):
        FUZZ.READERS["cubin"](b"x")


@pytest.mark.parametrize("words", [["--only", "nothing"], ["--unknown"], ["--seconds", "x"]])
def test_wrong_usage(words: list[str]) -> None:
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage:" in done.stderr
