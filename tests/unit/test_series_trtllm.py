"""The KV cache fallback of the TensorRT-LLM series, run as its own lines say.

The release's file could not be read, so the module here is made of the patch's context and of
stand-ins: it shows that the patch applies to code with those lines, and what its lines do.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import git

from stackpatch.model.series import Series, load_series
from stackpatch.model.trailers import UpstreamWord
from stackpatch.series.effects import judge_file

if TYPE_CHECKING:
    from stackpatch.model.patch import Patch

ROOT = Path(__file__).parents[2]
FALLBACK = "0001-kv-cache-take-FP8-where-NVFP4-is-asked-for-and-no-ke.patch"
MAIL = ROOT / "patches" / "trtllm" / "v1.3.0rc20" / FALLBACK
PATH = "tensorrt_llm/_torch/pyexecutor/model_loader.py"
SERIES = ("v1.3.0rc20", "v1.3.0rc24")
DEVICES = (80, 89, 90, 100, 103, 107, 110, 120, 121)
# What stands around the changed lines, in our own words; the lines themselves are the patch's.
HEAD = """\
def validate_and_set_kv_cache_quant(model_config: ModelConfig,
                                    pyt_kv_cache_dtype: str) -> None:
    kv_cache_quant = model_config.quant_config.kv_cache_quant_algo
"""
TAIL = """\
        return
    if not valid_pyt_quant:
        raise ValueError(pyt_kv_cache_dtype)
    {mismatch}
    model_config.quant_config.kv_cache_quant_algo = mapped_pyt_quant
"""
# Older copies refuse a setting that differs from the checkpoint's, later ones warn.
REFUSES = """\
if kv_cache_quant is not None and mapped_pyt_quant != kv_cache_quant:
        raise RuntimeError(kv_cache_quant)"""


class QuantAlgo(StrEnum):
    FP8 = "FP8"
    NVFP4 = "NVFP4"


def series(name: str) -> Series:
    return load_series(ROOT / "patches" / "trtllm" / name)


def patch(name: str = SERIES[0]) -> Patch:
    return next(one for one in series(name).patches if one.name == FALLBACK)


def before(mismatch: str) -> str:
    """A module with the lines that the patch expects."""
    diff = patch().raw.decode().split("\n@@ ", 1)[1].split("\n")[1:]
    context = "".join(f"{line[1:]}\n" for line in diff if line[:1] == " ")
    return HEAD + context + TAIL.format(mismatch=mismatch)


@pytest.fixture(name="patched", params=[REFUSES, "pass"], ids=["refuses", "warns"])
def _patched(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    target = tmp_path / PATH
    target.parent.mkdir(parents=True)
    target.write_text(before(request.param))
    git("init", "-q", cwd=tmp_path)
    git("add", "-A", cwd=tmp_path)
    git("commit", "-q", "-m", "base", cwd=tmp_path)
    git(
        "am",
        "-q",
        "--no-3way",
        str(ROOT / "patches" / "trtllm" / SERIES[0] / FALLBACK),
        cwd=tmp_path,
    )
    assert git("log", "-1", "--format=%s", cwd=tmp_path).strip() == patch().subject
    return target.read_text()


def load(
    text: str, device: int, asked: str, checkpoint: str | None, monkeypatch: pytest.MonkeyPatch
) -> tuple[str | None, list[str]]:
    """The setting after the check, and what was warned of."""
    utils = ModuleType("tensorrt_llm._utils")
    utils.get_sm_version = lambda: device  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt_llm", ModuleType("tensorrt_llm"))
    monkeypatch.setitem(sys.modules, "tensorrt_llm._utils", utils)
    warned: list[str] = []
    scope: dict[str, Any] = {
        "ModelConfig": object,
        "QuantAlgo": QuantAlgo,
        "_KV_CACHE_MAP": {"fp8": "FP8", "nvfp4": "NVFP4", "auto": "auto"},
        "_VALID_KV_CACHE_DTYPES": ("fp8", "nvfp4", "auto"),
        "logger": SimpleNamespace(info=lambda _text: None, warning=warned.append),
    }
    exec(compile(text, PATH, "exec", dont_inherit=True), scope)  # noqa: S102 - made here
    quant = SimpleNamespace(kv_cache_quant_algo=checkpoint)
    scope["validate_and_set_kv_cache_quant"](SimpleNamespace(quant_config=quant), asked)
    return quant.kv_cache_quant_algo, warned


@pytest.mark.parametrize("device", [120, 121])
@pytest.mark.parametrize(
    ("asked", "checkpoint", "by"),
    [
        ("nvfp4", None, "kv_cache_config.dtype"),
        ("nvfp4", "NVFP4", "kv_cache_config.dtype"),
        ("auto", "NVFP4", "the checkpoint"),
    ],
)
def test_nvfp4_becomes_fp8_with_one_warning(
    patched: str,
    device: int,
    asked: str,
    checkpoint: str | None,
    by: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken, warned = load(patched, device, asked, checkpoint, monkeypatch)
    assert taken == "FP8"
    (text,) = warned
    assert text.startswith(f"NVFP4 KV cache, asked for by {by}, has no kernels on SM{device}: ")
    assert "taking FP8 instead" in text
    assert "check the answers" in text


def test_everything_else_is_as_it_was(patched: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All devices and settings, beside the same module without the patch."""
    plain = before(REFUSES if "RuntimeError" in patched else "pass")
    differ = set()
    for device, asked, checkpoint in itertools.product(
        DEVICES, ("auto", "fp8", "nvfp4", "int8"), (None, "FP8", "NVFP4")
    ):
        results = []
        for text in (plain, patched):
            try:
                results.append(load(text, device, asked, checkpoint, monkeypatch))
            except (RuntimeError, ValueError) as error:
                results.append((f"{type(error).__name__}: {error}", []))
        if results[0] != results[1]:
            differ.add((device, asked, checkpoint))
    # of an FP8 checkpoint as well, which older copies took for a contradiction
    wanted = {("nvfp4", None), ("nvfp4", "FP8"), ("nvfp4", "NVFP4"), ("auto", "NVFP4")}
    assert differ == {(device, *one) for device in (120, 121) for one in wanted}
    assert load(patched, 120, "nvfp4", "FP8", monkeypatch)[0] == "FP8"


def test_the_effect_holds_after_the_patch_and_not_before(patched: str) -> None:
    (effect,) = patch().trailers.effects
    assert judge_file(effect, PATH, before("pass").encode()).holds is False
    assert judge_file(effect, PATH, patched.encode()).holds is True
    # upstream's own guard, for SM107 alone, is not taken for ours; one that names ours is
    sm107 = patched.replace("in (120, 121)", "== 107")
    assert judge_file(effect, PATH, sm107.encode()).holds is False
    wider = patched.replace("in (120, 121)", "in (107, 120, 121)")
    assert judge_file(effect, PATH, wider.encode()).holds is True


@pytest.mark.parametrize("name", SERIES)
def test_headers_say_what_the_patches_were_written_against(name: str) -> None:
    known = series(name)
    assert known.patches[0].raw == patch().raw
    for one in known.patches:
        trailers = one.trailers
        assert trailers.status is UpstreamWord.PENDING
        assert trailers.archs == ("sm120", "sm121")
        assert trailers.applies_to is not None
        assert trailers.applies_to.contains(name.removeprefix("v"), prereleases=True)
        assert trailers.effects
        assert one.name in (ROOT / "docs" / "patches.md").read_text(encoding="utf-8")
    said = " ".join(patch().message.split())
    assert "b51992a331532b80cb943098d3b1891762feb5f5" in said
    assert "could not be read, so there is no index line" in said


@pytest.mark.parametrize("name", SERIES)
def test_what_a_series_changes_decides_how_it_is_built(name: str) -> None:
    """rc20's changes Python alone and can lie over the release image; rc24's must be compiled."""
    suffixes = {Path(path).suffix for one in series(name).patches for path in one.paths}
    assert (suffixes == {".py"}) is (name == "v1.3.0rc20")


def test_the_smoke_program_knows_patched_from_unpatched(tmp_path: Path) -> None:
    """recipes/trtllm/smoke/kv_cache.py, with a package made of the same lines."""
    package = tmp_path / "tensorrt_llm"
    loader = package / "_torch" / "pyexecutor" / "model_loader.py"
    loader.parent.mkdir(parents=True)
    for folder in (package, package / "_torch", package / "_torch" / "pyexecutor"):
        (folder / "__init__.py").write_text("")
    (package / "_utils.py").write_text("def get_sm_version():\n    return 90\n")
    head = (
        "from enum import Enum\nimport logging\n"
        "logger = logging.getLogger()\nModelConfig = object\n"
        "class QuantAlgo(str, Enum):\n    FP8 = 'FP8'\n    NVFP4 = 'NVFP4'\n"
        "_KV_CACHE_MAP = {'fp8': 'FP8', 'nvfp4': 'NVFP4', 'auto': 'auto'}\n"
        "_VALID_KV_CACHE_DTYPES = ('fp8', 'nvfp4', 'auto')\n"
    )
    program = ROOT / "recipes" / "trtllm" / "smoke" / "kv_cache.py"

    def run(arch: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, str(program), "--arch", arch],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout.decode()

    loader.write_text(head + before("pass"))
    assert run("sm121")[0] == 1
    assert run("sm100")[0] == 0
    git("init", "-q", cwd=tmp_path)
    git("apply", str(MAIL), cwd=tmp_path)
    for arch, said in (("sm120", "FP8"), ("sm121", "FP8"), ("sm100", "NVFP4")):
        status, out = run(arch)
        assert status == 0, out
        assert f"becomes {said} on {arch}" in out
    loader.unlink()
    assert run("sm121")[0] == 77


def test_the_recorded_run_of_the_conversions_is_of_the_shipped_patch() -> None:
    # A patch that is renamed or renumbered takes the record along, or it says nothing any more.
    told = json.loads((ROOT / "docs" / "results" / "nvfp4-kv-sm90.json").read_bytes())
    assert (ROOT / told["patch"]).is_file()
    assert told["mismatches"] == 0
    page = (ROOT / "docs" / "nvfp4-kv.md").read_text()
    assert f"{told['compared']:,} comparisons, 0 bits different" in page
    assert Path(told["patch"]).name.partition("-")[0] in page
