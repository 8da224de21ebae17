"""The judge of the smoke programs: each planted fault is seen, and by its name."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

FOLDER = Path(__file__).parents[2] / "recipes" / "flashinfer" / "smoke"


def load(name: str) -> Any:
    """A program of the recipe as a module."""
    sys.path.insert(0, str(FOLDER))
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        spec = importlib.util.spec_from_file_location(f"smoke_{name}", FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
        sys.dont_write_bytecode = before
    return module


@pytest.fixture
def check() -> Any:
    return load("_check")


@pytest.fixture
def want() -> Any:
    return numpy.random.default_rng(7).standard_normal((64, 128))


def test_a_right_result_passes_with_its_figures(check: Any, want: Any) -> None:
    figures = check.judge(want.astype(numpy.float32), want, 1e-5)
    assert figures["not_finite"] == 0
    assert 0 < figures["relative_error"] < 1e-6


def test_zeros_are_seen(check: Any, want: Any) -> None:
    with pytest.raises(check.Failed, match="all zeros"):
        check.judge(numpy.zeros_like(want), want, 1e9)


def test_nan_in_one_row_is_seen_and_named(check: Any, want: Any) -> None:
    got = want.copy()
    got[41, 3] = numpy.nan
    with pytest.raises(check.Failed, match=r"1 of 8192 values are not finite.*row 41 of 64"):
        check.judge(got, want, 1e9)


def test_an_unwritten_tail_is_seen_by_its_poison(check: Any, want: Any) -> None:
    got = want.copy()
    got[-2:, -8:] = numpy.nan  # what `poisoned` leaves where nothing is written
    with pytest.raises(check.Failed, match=r"never written: 2 of 64 rows, the first is row 62"):
        check.judge(got, want, 1e9)


def test_one_zero_row_is_seen(check: Any, want: Any) -> None:
    got = want.copy()
    got[5] = 0
    with pytest.raises(check.Failed, match="whole rows are zero: row 5 of 64"):
        check.judge(got, want, 1e9)


def test_one_wrong_row_is_not_averaged_away(check: Any, want: Any) -> None:
    want = numpy.repeat(want, 200, axis=0)
    got = want.copy()
    got[17] *= 1.1
    assert numpy.linalg.norm(got - want) / numpy.linalg.norm(want) < 5e-3
    with pytest.raises(check.Failed, match="row 17 of 12800"):
        check.judge(got, want, 5e-3)


def test_an_infinite_value_and_a_wrong_shape_are_seen(check: Any, want: Any) -> None:
    got = want.copy()
    got[0, 0] = numpy.inf
    with pytest.raises(check.Failed, match="not finite"):
        check.judge(got, want, 1e9)
    with pytest.raises(check.Failed, match="shape"):
        check.judge(got[:-1], want, 1e9)


def test_a_reference_that_shows_nothing_is_refused(check: Any) -> None:
    for broken in (numpy.zeros((2, 2)), numpy.full((2, 2), numpy.nan), numpy.zeros((0, 2))):
        with pytest.raises(check.Failed, match="reference itself"):
            check.judge(broken, broken, 1)


def test_e2m1_and_e4m3_decode_as_the_formats_say(check: Any) -> None:
    assert check.e2m1(numpy.array([[0x21, 0xF7]]))[0].tolist() == [0.5, 1.0, 6.0, -6.0]
    codes = numpy.array([0x00, 0x01, 0x08, 0x38, 0x7E, 0xB8], dtype=numpy.uint8)
    assert check.e4m3(codes).tolist() == [0.0, 2.0**-9, 2.0**-6, 1.0, 448.0, -1.0]
    assert numpy.isnan(check.e4m3(numpy.array([0x7F, 0xFF]))).all()


def test_the_tolerance_of_fp4_is_the_formats_own_error() -> None:
    program = load("numbers_fp4_quantize")
    x = numpy.random.default_rng(3).standard_normal((128, 2048))
    values = program.quantised(x, 448 * 6 / numpy.abs(x).max())
    rows = numpy.linalg.norm(values - x, axis=1) / numpy.linalg.norm(x, axis=1)
    assert 0.08 < rows.max() < program.TOLERANCE


def test_the_attention_reference_is_softmax_over_what_may_be_seen() -> None:
    attention = load("numbers_decode").attention
    v = numpy.arange(3.0).reshape(3, 1, 1)
    same = numpy.zeros((3, 1, 1))
    assert attention(same, same, v, causal=True)[:, 0, 0].tolist() == [0.0, 0.5, 1.0]
    assert attention(same, same, v, causal=False)[:, 0, 0].tolist() == pytest.approx([1.0] * 3)
    # two query heads on one key head; the cache is longer than the prompt
    two = numpy.zeros((1, 2, 1))
    assert attention(two, same, v, causal=True)[0, :, 0].tolist() == pytest.approx([1.0, 1.0])


def test_the_moe_reference_takes_only_the_chosen_experts() -> None:
    experts = load("numbers_moe").experts
    rng = numpy.random.default_rng(1)
    x, first, second = (rng.standard_normal(s) for s in ((2, 4), (3, 10, 4), (3, 4, 5)))
    chosen, weights = numpy.array([[0], [2]]), numpy.array([[1.0], [0.5]])
    got = experts(x, first, second, chosen, weights)
    up, gate = first[2, :5] @ x[1], first[2, 5:] @ x[1]
    assert got[1] == pytest.approx(0.5 * second[2] @ (gate / (1 + numpy.exp(-gate)) * up))


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("moe_gemm_kernels_bf16_bf16.cu", "", True),
        ("moe_gemm_kernels_bf16_fp8.cu", "", False),
        ("moe_gemm_kernels_fp16_fp16.cu", "", False),
        ("fp8_blockscale_gemm.cu", "", True),  # addresses of its functions are taken
        ("envUtils.cpp", "", True),
        (
            "a.generated.cu",
            "X_MOE_GEMM(Sm90, __nv_bfloat16, __nv_bfloat16, __nv_bfloat16,\n",
            True,
        ),
        ("b.generated.cu", "X_MOE_GEMM(Sm90, half, half, half,\n", False),
        ("c.generated.cu", "f<__nv_bfloat16, uint8_t, __nv_bfloat16>\n", False),
    ],
)
def test_the_sources_that_bfloat16_weights_need(
    tmp_path: Path, name: str, text: str, wanted: bool
) -> None:
    (tmp_path / name).write_text(text)
    assert load("numbers_moe").needed(str(tmp_path / name)) is wanted
