"""The shipped recipes' gates on real releases, beside what the real packages hold."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import fetch_artefact

from stackpatch.checks import targets
from stackpatch.checks.audit import Policy, audit
from stackpatch.checks.gates import Gate, gates_in_file
from stackpatch.checks.zips import zip_members
from stackpatch.cli.main import main
from stackpatch.model.arch import ARCHES, parse_arch
from stackpatch.model.collection import Collection
from stackpatch.model.reference import SourceKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackpatch.checks.members import Found
    from stackpatch.model.recipe import Recipe

pytestmark = pytest.mark.pypi

ROOT = Path(__file__).parents[2]
SM121 = parse_arch("sm121")


def recipe(stack: str) -> Recipe:
    return Collection(ROOT).recipe(stack)


def sources(stack: str, version: str) -> Iterator[tuple[str, bytes]]:
    """Files of a release under the git tree's paths, as far as a rule may look at them."""
    one = recipe(stack)
    release = one.release(version)
    if stack == "flashinfer":
        pinned = one.artefact(release, SourceKind.SDIST)
        with tarfile.open(fetch_artefact(pinned.file, pinned.sha256)) as archive:
            for member in archive:
                path = member.name.partition("/")[2]
                if member.isfile() and path.startswith(("flashinfer/", "csrc/")):
                    yield path, archive.extractfile(member).read()  # type: ignore[union-attr]
        return
    pinned = one.artefact(release, SourceKind.WHEEL)
    with zipfile.ZipFile(fetch_artefact(pinned.file, pinned.sha256)) as wheel:
        for name in wheel.namelist():
            if name.endswith(".py"):
                yield f"python/{name}", wheel.read(name)


def gates(stack: str, version: str) -> list[Gate]:
    rules = recipe(stack).gates.rules
    return [
        gate
        for path, content in sources(stack, version)
        for gate in gates_in_file(path, content, rules)
    ]


# shared/facts: gates that still exclude SM12x, read by people; what the rules claim to cover.
FLASHINFER_072 = {
    ("csrc/trtllm_batched_gemm_runner.cu", 48),
    ("flashinfer/jit/trtllm_gen_metainfo.py", 48),
    ("csrc/trtllm_fused_moe_kernel_launcher.cu", 765),
    ("flashinfer/fused_moe/cute_dsl/fused_moe.py", 1863),
    ("flashinfer/gemm/gemm_base.py", 7913),
    ("flashinfer/gemm/gemm_base.py", 8027),
    ("flashinfer/jit/fused_moe.py", 139),
    ("flashinfer/jit/fused_moe.py", 157),
    ("flashinfer/jit/gemm/core.py", 118),
    ("flashinfer/jit/gemm/core.py", 725),
    ("flashinfer/jit/attention/modules.py", 2299),
    ("flashinfer/jit/mla.py", 23),
    ("flashinfer/mamba/ssd_combined.py", 306),
}
SGLANG_0523 = {
    ("python/sglang/srt/arg_groups/overrides.py", 1457),
    ("python/sglang/srt/arg_groups/kv_cache_hook.py", 59),
    ("python/sglang/srt/layers/flashinfer_comm_fusion.py", 48),
    ("python/sglang/srt/arg_groups/moe_hook.py", 335),
    ("python/sglang/srt/layers/moe/cutlass_moe.py", 149),
    ("python/sglang/srt/layers/attention/qwen_sparse_attn_backend.py", 72),
}


def test_the_gates_of_the_newest_flashinfer_are_found() -> None:
    found = gates("flashinfer", "0.7.2.post1")
    refusing = {(gate.path, gate.line) for gate in found if not gate.admitted.admits(SM121)}
    assert refusing >= FLASHINFER_072, sorted(FLASHINFER_072 - refusing)
    passing = {(gate.path, gate.symbol) for gate in found if gate.admitted.admits(SM121)}
    common = (
        "csrc/trtllm_fused_moe_kernel_launcher.cu",
        "flashinfer::FusedMoeLauncher::init_common",
    )
    assert common in passing
    assert ("flashinfer/jit/fused_moe.py", "gen_trtllm_gen_fused_moe_sm100_module") in passing


def test_the_gates_of_the_newest_sglang_are_found() -> None:
    found = gates("sglang", "0.5.23")
    refusing = {(gate.path, gate.line) for gate in found if not gate.admitted.admits(SM121)}
    assert refusing >= SGLANG_0523, sorted(SGLANG_0523 - refusing)
    by_symbol = {gate.symbol: gate.admitted for gate in found if gate.rule.name == "device-test"}
    assert by_symbol["is_sm120_supported"].admits(SM121)
    assert not by_symbol["is_sm100_supported"].admits(SM121)
    decode = next(g for g in found if g.symbol == "_resolve_trtllm_sparse_decode")
    # "silently corrupts on SM121": refused there, and there alone.
    assert decode.admitted.admits(ARCHES["sm120"])


def test_the_cmake_lists_of_the_newest_vllm_are_found() -> None:
    """Which of its own kernels vLLM compiles for what: in the sdist, which has the build files."""
    one = recipe("vllm")
    pinned = one.artefact(one.release("0.33.0"), SourceKind.SDIST)
    with tarfile.open(fetch_artefact(pinned.file, pinned.sha256)) as archive:
        content = archive.extractfile("vllm-0.33.0/CMakeLists.txt").read()  # type: ignore[union-attr]
    found = {
        gate.line: gate.admitted
        for gate in gates_in_file("CMakeLists.txt", content, one.gates.rules)
    }
    # One for each call but the one that holds vLLM's own list against the person's.
    assert len(found) == content.count(b" cuda_archs_loose_intersection(") - 1
    passing = {line for line, admitted in found.items() if admitted.admits(SM121)}
    fp4_sm120, fp4_sm100, marlin_sm75, hadacore = 1035, 1061, 663, 1225
    assert {fp4_sm120, hadacore} <= passing  # 12.0f; 9.0+PTX, by the driver
    assert not {fp4_sm100, marlin_sm75} & passing
    assert found[fp4_sm100].admits(ARCHES["sm100"])
    assert not found[fp4_sm120].admits(ARCHES["sm100"])


@pytest.mark.parametrize("version", ["0.5.3", "0.6.3"])
def test_the_three_gates_of_the_series_refuse_before_it(version: str) -> None:
    found = {
        (gate.path, gate.symbol.rpartition("flashinfer::")[2]): gate.admitted.admits(SM121)
        for gate in gates("flashinfer", version)
    }
    launcher = "csrc/trtllm_fused_moe_kernel_launcher.cu"
    assert found[launcher, "FusedMoeLauncher::init_common"] is False
    assert found[launcher, "FP4BlockScaleLauncher::init"] is False
    assert found["flashinfer/jit/fused_moe.py", "gen_trtllm_gen_fused_moe_sm100_module"] is False


@pytest.mark.parametrize("version", ["0.5.3", "0.6.3"])
def test_the_recorded_counts_are_what_the_audit_says(version: str) -> None:
    kernels = recipe("flashinfer").gates.kernels["trtllm-gen-cubins"]
    (recorded,) = (one for one in kernels.measured if one.release == version)
    found = audit(str(fetch_artefact(recorded.file, recorded.sha256)), SM121, Policy())
    counts = Counter(str(code) for file in found.files for code in file.findings.codes)
    assert dict(counts) == dict(recorded.codes)
    assert all(code.decided for file in found.files for code in file.findings.codes)
    assert found.unread == ()
    assert f"({found.looked_at:,}; {len(found.files):,} cubins)" in recorded.how


def run(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> dict[str, Any]:
    assert main([*argv, "--json", "--root", str(ROOT)]) == status
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_a_build_says_which_gates_it_opens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("build", "flashinfer@0.6.3", "--out", str(tmp_path))
    for arch in ("sm120", "sm121"):
        opened = run(capsys, *argv, "--arch", arch)["gates"]
        assert [one["patch"][:4] for one in opened] == ["0001", "0002", "0003"]
        assert {one["behind"] for one in opened} == {"nothing"}
        assert all("cannot help: sm_100a, sm_100f and sm_103a only" in o["says"] for o in opened)
        assert all(one["shipped_because"] for one in opened)
        assert all(sum(one["evidence"]["codes"].values()) == 5363 for one in opened)
    assert run(capsys, *argv, "--arch", "sm90")["gates"] == []


def test_an_audit_holds_the_package_against_the_gates_and_reads_it_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    def counted(path: Path) -> Iterator[Found]:
        opened.append(path)
        return zip_members(path)

    monkeypatch.setattr(targets, "zip_members", counted)
    kernels = recipe("flashinfer").gates.kernels["trtllm-gen-cubins"]
    one = kernels.measured[-1]
    wheel = fetch_artefact(one.file, one.sha256)
    argv = ("audit", str(wheel), "--stack", "flashinfer@0.6.3")
    found = run(capsys, *argv, "--arch", "sm121", status=1)
    assert found["stack"] == "flashinfer 0.6.3 with its series"
    assert [one["evidence"]["target"] for one in found["opened"]] == [str(wheel)] * 3
    assert opened == [wheel]
    closed = [g for g in found["gates"] if not g["open"] and g["behind"] == "nothing"]
    assert {g["symbol"] for g in closed} >= {"_trtllm_gemm_fp4_requirement"}
    (beside,) = found["shadowing"]  # the target itself, which takes nothing from a patch
    assert (beside["what"], beside["effect"]) == (f"flashinfer-cubin {one.version}", "none")
    found = run(capsys, *argv, "--arch", "sm100", status=1)
    behind = {g["behind"] for g in found["gates"] if g["rule"].startswith("trtllm-gen")}
    assert behind == {"kernel"}


def test_the_shipped_series_explain_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "lint", "--strict")["warnings"] == []
