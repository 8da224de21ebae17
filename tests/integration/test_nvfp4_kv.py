"""The NVFP4 KV cache conversions of patches/trtllm, compiled and held to exact arithmetic.

The code of the patch runs on the host here; on a GPU where there is one (`scripts/nvfp4-gpu` is the
same by hand). The reference is held to ml_dtypes, and the checks to faults put into the code.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import git
from tests.nvcc import nvcc
from tests.nvfp4 import checks, reference, run, sources
from tests.nvfp4.library import Conversion, Library, ValueType
from tests.nvfp4.reference import E2M1, E4M3, Format
from tests.nvfp4.sources import Switch

from stackpatch.model.patch import parse_patch
from stackpatch.model.series import load_series
from stackpatch.model.verdict import Word
from stackpatch.series.landed import decide
from stackpatch.sources.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.timeout(900)
ARCHES = ("90a", "100a", "120a", "121a")


# --- the reference --------------------------------------------------------------------------------


def test_values_of_the_formats_are_those_of_their_definition() -> None:
    assert [float(v) for v in E2M1.values()] == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    e4m3 = E4M3.values()
    assert len(e4m3) == 127
    assert e4m3[1] == Fraction(1, 512)
    assert e4m3[8] == Fraction(1, 64)
    assert e4m3[0x38] == 1
    assert e4m3[-1] == 448
    assert e4m3 == sorted(e4m3)


@pytest.mark.parametrize(
    ("form", "oracle"),
    [(E4M3, ml_dtypes.float8_e4m3fn), (E2M1, ml_dtypes.float4_e2m1fn)],
    ids=["e4m3", "e2m1"],
)
def test_reference_agrees_with_ml_dtypes(form: Format, oracle: type) -> None:
    """Every code, every boundary with its neighbours, and random floats.

    ml_dtypes gives NaN for what E4M3 cannot hold, where we saturate: above 464, halfway to the value
    that would be next.
    """  # noqa: E501
    codes = np.arange(form.sign * 2, dtype=np.uint8)
    decoded = codes.view(oracle).astype(np.float32)
    ours = form.decode().view(np.float32)
    assert np.array_equal(np.isnan(decoded), np.isnan(ours))
    assert np.array_equal(decoded[~np.isnan(ours)], ours[~np.isnan(ours)])
    assert np.array_equal(np.signbit(decoded), np.signbit(ours))

    edges = form.boundaries().astype(np.int64)
    random = np.random.default_rng(1).integers(0, 2**32, 4_000_000)
    near = np.random.default_rng(2).integers(int(edges[0]) - 9, int(edges[-1]) + 2**23, 4_000_000)
    bits = np.concatenate([edges - 1, edges, edges + 1, random, near])
    bits = np.concatenate([bits, bits | 2**31]).astype(np.uint32)
    values = bits.view(np.float32)
    with np.errstate(all="ignore"):
        theirs = values.astype(oracle).view(np.uint8)
    mine = form.encode(values)
    known = ~np.isnan(values)
    if form is E4M3:
        beyond = np.abs(values) > 464
        assert np.isin(mine[beyond], [0x7E, 0xFE]).all()
        known &= ~beyond
    assert np.array_equal(mine[known], theirs[known])
    assert known.sum() > 4_000_000


@pytest.mark.parametrize("form", [E4M3, E2M1], ids=["e4m3", "e2m1"])
@given(first=st.integers(0, 2**32 - 1), count=st.integers(1, 4096))
def test_runs_of_codes_are_the_codes_one_by_one(form: Format, first: int, count: int) -> None:
    count = min(count, 2**32 - first)
    bits = np.arange(first, first + count, dtype=np.int64).astype(np.uint32)
    assert np.array_equal(form.encode_range(first, count), form.encode(bits.view(np.float32)))


@pytest.mark.parametrize("form", [E4M3, E2M1], ids=["e4m3", "e2m1"])
def test_runs_of_codes_around_every_edge(form: Format) -> None:
    for edge in [*checks.thresholds(form), 0x7F800000, 0x7F800001, 0x80000000]:
        for first in (edge - 3, edge - 3 + 2**31):
            if first >= 2**32:
                continue
            bits = np.arange(first, min(first + 6, 2**32), dtype=np.int64).astype(np.uint32)
            wanted = form.encode(bits.view(np.float32))
            assert np.array_equal(form.encode_range(first, len(bits)), wanted)


def test_nan_infinity_and_zero_by_hand() -> None:
    """The rules that the header states, in numbers that a person can read."""
    inf, nan = np.float32(np.inf), np.float32(np.nan)
    numbers = [nan, -nan, inf, -inf, 1e30, -1e30, 0.0, -0.0, 448, 449, 464, 465]
    values = np.array(numbers, np.float32)
    assert [hex(code) for code in E4M3.encode(values)] == [
        *("0x7f", "0x7f", "0x7e", "0xfe", "0x7e", "0xfe"),
        *("0x0", "0x80", "0x7e", "0x7e", "0x7e", "0x7e"),
    ]
    assert E2M1.encode(values[:8]).tolist() == [7, 7, 7, 15, 7, 15, 0, 8]
    ties = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.0], np.float32)
    assert E2M1.encode(ties).tolist() == [0, 2, 2, 4, 4, 6, 6, 7]
    small = np.array([2**-10, 2**-10 * 1.01, 3 * 2**-10, 5 * 2**-10, 2**-6 - 2**-10], np.float32)
    assert E4M3.encode(small).tolist() == [0, 1, 2, 2, 8]


def test_layout_by_hand() -> None:
    """Low nibble first, one scale per 16, a short last block, a row begins at a byte."""
    row = np.array([6.0, -6.0, 0.5, 1.0, *([0.0] * 12), 12.0, -4.0, 2.0], np.float32)
    packed, scales = reference.quantize(np.stack([row, -row]), np.float32(1))
    assert packed.shape == (2, 10)
    assert packed[0].tolist() == [0xF7, 0x21, 0, 0, 0, 0, 0, 0, 0xC7, 0x02]
    assert packed[1, :2].tolist() == [0x7F, 0xA9]
    assert scales.tolist() == [[0x38, 0x40], [0x38, 0x40]]
    back = reference.dequantize(packed, scales, 19, np.float32(1))
    assert np.array_equal(back, np.stack([row, -row]))
    eighth = reference.dequantize_to_e4m3(packed, scales, 19, np.float32(1), np.float32(8))
    assert E4M3.decode().view(np.float32)[eighth[0, :2]].tolist() == [0.75, -0.75]


# --- the code of the patch ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the patch adds."""
    return sources.unpack(tmp_path_factory.mktemp("nvfp4"))


@pytest.fixture(scope="module")
def host(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(sources.compile_host(folder, tmp_path_factory.mktemp("host")))


def agrees(outcome: checks.Outcome) -> None:
    assert outcome.mismatches == 0, outcome.examples
    assert outcome.compared > 0


def test_files_are_taken_out_of_the_patch_as_git_would(folder: Path, tmp_path: Path) -> None:
    env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    subprocess.run(["git", "apply", str(sources.the_patch())], cwd=tmp_path, check=True, env=env)
    theirs = {p.name: p.read_bytes() for p in (tmp_path / sources.FOLDER).iterdir()}
    assert theirs == {p.name: p.read_bytes() for p in folder.iterdir()}
    assert sorted(theirs) == ["nvfp4KvConvert.h", "nvfp4KvKernels.cu", "nvfp4KvKernels.h"]


def test_cut_patch_is_refused(tmp_path: Path) -> None:
    cut = tmp_path / "cut.patch"
    cut.write_text("\n".join(sources.the_patch().read_text().split("\n")[:120]))
    with pytest.raises(ValueError, match=r"nvfp4KvConvert\.h is cut short"):
        sources.unpack(tmp_path / "out", cut)


def test_every_float_becomes_the_right_e4m3(host: Library) -> None:
    """All 2^32 of them."""
    outcome = checks.every_float(host, Conversion.TO_E4M3_SOFTWARE)
    agrees(outcome)
    assert outcome.compared == 2**32


def test_one_float_in_eight_becomes_the_right_e2m1(host: Library) -> None:
    """And all near a boundary: the check of the boundaries below."""
    agrees(checks.every_float(host, Conversion.TO_E2M1, range(0, 2**32, 8 * checks.CHUNK)))


@pytest.mark.parametrize(
    "check",
    [
        checks.boundaries,
        checks.decodings,
        checks.quantizing,
        checks.dequantizing,
        checks.nearest,
        checks.beyond_the_grid,
    ],
    ids=lambda check: str(check.__name__),
)
def test_host_code_agrees(host: Library, check: Callable[[Library], checks.Outcome]) -> None:
    agrees(check(host))


def test_quantised_nan_shows_and_a_wrong_tensor_scale_too(host: Library) -> None:
    """What must never be a silent zero."""
    values = np.ones((1, 32), np.float32)
    values[0, 3] = np.nan
    packed, scales = host.quantize(values, ValueType.FLOAT32, np.float32(1))
    back = host.dequantize(packed, scales, 32, np.float32(1))
    assert np.isnan(back[0, :16]).all()
    assert (np.abs(back[0, 16:] - 1) < 0.1).all()
    for wrong in (0.0, -1.0, np.inf, np.nan, 1e-40):
        scale = np.float32(wrong)
        packed, scales = host.quantize(np.ones((1, 16), np.float32), ValueType.FLOAT32, scale)
        assert np.isnan(host.dequantize(packed, scales, 16, np.float32(1))).all()
        assert np.isnan(host.dequantize(packed, np.full_like(scales, 56), 16, scale)).all()
    negative = np.full((1, 1), 0xB8, np.uint8)  # -1 as E4M3: no scale
    assert np.isnan(host.dequantize(packed, negative, 16, np.float32(1))).all()


# A fault for every part of the header, and the check that must see it.
SMALL = partial(checks.quantizing, most=3000)
FAULTS: dict[str, tuple[str, str, Callable[[Library], checks.Outcome]]] = {
    "rounds half up": ("0x7FFFFu + odd", "0x80000u + 0u * odd", checks.boundaries),
    "exponent off by 6": ("127 - 7) << 23", "127 - 1) << 23", checks.boundaries),
    "448 is not the end": ("0x43E00000u) // 448", "0x43F00000u) // 480", checks.boundaries),
    "subnormals cut off": ("(1u << (shift - 1u)) - 1u + odd", "0u * odd", checks.boundaries),
    "smallest lost": ("0x3A800000u) // 2^-10", "0x3B000000u) // 2^-9", checks.boundaries),
    "NaN is 448": ("        return kE4m3Nan;\n    }\n    if (magnitude >= 0x43E", "        return kE4m3Max;\n    }\n    if (magnitude >= 0x43E", checks.boundaries),  # noqa: E501
    "sign of zero lost": ("return static_cast<uint8_t>(sign);", "return 0;", checks.boundaries),
    "tie at 2.5 up": ("magnitude > 0x40200000u", "magnitude >= 0x40200000u", checks.boundaries),
    "tie at 0.75 down": ("magnitude >= 0x3F400000u", "magnitude > 0x3F400000u", checks.boundaries),
    "4-bit NaN negative": ("        return 7u;", "        return 15u;", checks.boundaries),
    "a subnormal code": ("(118u + top) << 23", "(117u + top) << 23", checks.decodings),
    "a 4-bit code": ("(exponent + 126u) << 23", "(exponent + 127u) << 23", checks.decodings),
    "a half subnormal": ("field = 113u", "field = 112u", checks.decodings),
    "high nibble first": ("code << (4 * i)", "code << (4 * (i ^ 1))", SMALL),
    "scale by 4": ("floatOf(largest), 6.0f", "floatOf(largest), 4.0f", SMALL),
    "one product": ("divide(divide(floatOf(largest), 6.0f), tensorScale)", "divide(floatOf(largest), multiply(6.0f, tensorScale))", SMALL),  # noqa: E501
    "NaN in a block lost": ("magnitude > largest ?", "magnitude > largest && magnitude <= 0x7F800000u ?", SMALL),  # noqa: E501
    "any tensor scale": ("bits >= 0x00800000u && ", "", SMALL),
    "infinity divided": ("bool const infinite = ", "bool const infinite = false && ", SMALL),
    "reciprocal": ("divide(values[i], divisor)", "multiply(values[i], divide(1.0f, divisor))", checks.quantizing),  # noqa: E501
    "negative scale": ("(scale & 0x80u) != 0 ? floatOf(kNanBits) : ", "", checks.dequantizing),
    "another order": ("multiply(multiply(e2m1ToFloat(code), scale), factor)", "multiply(e2m1ToFloat(code), multiply(scale, factor))", checks.dequantizing),  # noqa: E501
    "FP8 scale unchecked": (" && usableScale(fp8Scale)", "", checks.dequantizing),
    "not the nearest": ("code += magnitude > 0x3FA00000u;", "code += magnitude > 0x3FA80000u;", checks.nearest),  # noqa: E501
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_checks_see_faults(folder: Path, tmp_path: Path, fault: str) -> None:
    old, new, check = FAULTS[fault]
    text = (folder / "nvfp4KvConvert.h").read_text()
    assert text.count(old) == 1, old
    (tmp_path / "nvfp4KvConvert.h").write_text(text.replace(old, new))
    outcome = check(Library(sources.compile_host(tmp_path, tmp_path)))
    assert outcome.mismatches > 0
    assert outcome.examples


def test_host_refuses_to_be_compiled_with_fast_math(folder: Path, tmp_path: Path) -> None:
    argv = [sources.find_compiler(), "-std=c++17", "-Ofast", "-fsyntax-only", f"-I{folder}"]
    argv += [f"-I{sources.HERE}", str(sources.HERE / "host.cpp")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "compile for the host without -ffast-math" in done.stderr


# --- compiled for the GPUs ------------------------------------------------------------------------


def test_kernels_compile_without_a_warning_for_every_arch(folder: Path, tmp_path: Path) -> None:
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ARCHES]
    flags = ["-std=c++17", "-O3", "-c", "-Werror", "all-warnings", f"-I{folder}"]
    for source in (folder / "nvfp4KvKernels.cu", sources.HERE / "device.cu"):
        target = tmp_path / f"{source.stem}.o"
        argv = [nvcc(), *flags, f"-I{sources.HERE}", *targets, str(source), "-o", str(target)]
        subprocess.run(argv, check=True)
        assert target.stat().st_size > 10_000


INSTRUCTION = "cvt.rn.satfinite.e4m3x2.f32"


@pytest.mark.parametrize(
    ("arch", "switch", "wanted"),
    [
        ("90a", Switch.CHOSEN, True),
        ("100a", Switch.CHOSEN, True),
        ("120a", Switch.CHOSEN, False),
        ("121a", Switch.CHOSEN, False),
        ("90a", Switch.SOFTWARE, False),
        ("121a", Switch.INSTRUCTION, True),
        ("80", Switch.CHOSEN, False),
        ("80", Switch.INSTRUCTION, False),
    ],
)
def test_switch_decides_whether_the_instruction_is_used(
    folder: Path, tmp_path: Path, arch: str, switch: Switch, wanted: bool
) -> None:
    """SM12x converts in software unless told otherwise; SM80 has no such instruction."""
    target = tmp_path / "kernels.ptx"
    argv = [nvcc(), "-std=c++17", "-ptx", f"-arch=compute_{arch}", "-O3"]
    argv += [f"-DNVFP4_KV_FP8_CVT={switch.value}", str(folder / "nvfp4KvKernels.cu")]
    subprocess.run([*argv, "-o", str(target)], check=True)
    text = target.read_text()
    assert (INSTRUCTION in text) is wanted
    # Whatever the switch: the only float arithmetic says how it rounds.
    assert set(re.findall(r"\b(?:mul|div|fma|add|sub)\.\S*f32", text)) == {
        "mul.rn.f32",
        "div.rn.f32",
    }


def test_fast_math_does_not_reach_the_arithmetic(folder: Path, tmp_path: Path) -> None:
    argv = [nvcc(), "-std=c++17", "-ptx", "-arch=compute_121a", "-use_fast_math"]
    target = tmp_path / "fast.ptx"
    subprocess.run([*argv, str(folder / "nvfp4KvKernels.cu"), "-o", str(target)], check=True)
    text = target.read_text()
    assert ".approx" not in text
    assert ".ftz" not in text
    assert "div.rn.f32" in text


def test_wrong_switch_is_refused(folder: Path) -> None:
    argv = [sources.find_compiler(), "-std=c++17", "-fsyntax-only", "-DNVFP4_KV_FP8_CVT=3"]
    argv += [f"-I{folder}", f"-I{sources.HERE}", str(sources.HERE / "host.cpp")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "NVFP4_KV_FP8_CVT must be 0, 1 or 2" in done.stderr


# --- the patch as a patch -------------------------------------------------------------------------


def test_patch_is_needed_where_the_files_are_not_and_lands_with_them(
    folder: Path, tmp_path: Path
) -> None:
    patch = parse_patch(sources.the_patch().name, sources.the_patch().read_bytes())
    for name, upstream in (("without", {}), ("with", {p.name: p for p in folder.iterdir()})):
        tree = tmp_path / name
        tree.mkdir()
        git("init", "-q", "-b", "main", cwd=tree)
        (tree / "README.md").write_text("upstream\n")
        for file, path in upstream.items():
            (tree / sources.FOLDER).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tree / sources.FOLDER / file)
        git("add", "-A", cwd=tree)
        git("commit", "-q", "-m", "upstream", cwd=tree)
        verdict = decide(
            Objects(tree / ".git"), git("rev-parse", "HEAD^{tree}", cwd=tree).strip(), patch
        )
        wanted = (Word.UPSTREAMED, "identical") if upstream else (Word.NEEDED, "clean")
        assert (verdict.word, verdict.detail) == wanted, verdict


# --- on a GPU -------------------------------------------------------------------------------------


def script(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [str(sources.ROOT / "scripts/nvfp4-gpu"), *words]
    full = {**os.environ, "PYTHON": sys.executable, **env}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=full)


@pytest.mark.gpu
def test_gpu_agrees_bit_for_bit(tmp_path: Path) -> None:
    if run.capability() is None or shutil.which("nvcc") is None:
        pytest.skip("no NVIDIA GPU with nvcc here: docs/nvfp4-kv.md says where this ran")
    out = tmp_path / "out.json"
    done = script("--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(out.read_text())
    assert document["mismatches"] == 0
    assert document["compared"] > 3 * 2**32


class HostAsGpu(Library):
    """The host's code where the GPU's library is expected, with an intrinsic that is off by 6."""

    def convert_range(self, conversion: Conversion, first: int, count: int) -> NDArray[np.uint8]:
        if conversion is not Conversion.TO_E4M3_INTRINSIC:
            return super().convert_range(conversion, first, count)
        codes = super().convert_range(Conversion.TO_E4M3, first, count)
        return np.where((codes & 0x7F) < 0x40, codes + 6 * 8, codes).astype(np.uint8)

    def describe(self) -> dict[str, Any]:
        return {"name": "none"}

    def refusals(self) -> None:
        pass

    def timings(self, rows: int, cols: int, repeats: int) -> list[float]:  # noqa: ARG002
        return [1.0, 2.0, 3.0, 4.0]


def test_document_counts_what_an_intrinsic_does_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finding about the device, apart from what our own code did."""

    def compiled(nvcc: str, folder: Path, to: Path, arch: str) -> dict[str, Path]:
        assert arch == "121a"
        return dict.fromkeys((name for name, _, _ in run.BUILDS), sources.compile_host(folder, to))

    monkeypatch.setattr(run, "compiled", compiled)
    monkeypatch.setattr(run, "Library", HostAsGpu)
    document = run.examine(nvcc(), "121a", tmp_path, quick=True)
    assert document["mismatches"] == 0
    assert document["compared"] > 4 * checks.CHUNK
    assert set(document["builds"]) == {name for name, _, _ in run.BUILDS}
    intrinsic = document["intrinsic"]["checks"]["every float to e4m3 intrinsic"]
    assert intrinsic["mismatches"] > 2**25
    assert set(intrinsic["exponent_off_by"]) == {"6"}
    assert len(intrinsic["examples"]) == 8
    assert document["nvcc"].startswith("V1")
    speed = document["timings"]["default"]["float32 to E4M3"]
    assert speed == {"milliseconds": 4.0, "gigabytes_per_second": 42}
    json.dumps(document)


@pytest.mark.skipif(run.capability() is not None, reason="a GPU is here")
def test_without_a_gpu_the_script_says_so() -> None:
    done = script(PATH=f"{os.path.dirname(nvcc())}:{os.environ['PATH']}")  # noqa: PTH120
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "nvfp4-gpu: nvidia-smi names no GPU\n"


def test_series_of_the_patch_can_be_read() -> None:
    folder = sources.the_patch().parent
    if not (folder / "series").exists():
        pytest.fail(f"{folder} has no series file")
    assert sources.the_patch().name in [patch.name for patch in load_series(folder).patches]
