"""The checks: a compiled library against the reference, every difference counted.

A check gives an Outcome and never raises for a difference, so that one run tells all of them.
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from . import reference
from .library import Conversion, Decoding, ValueType
from .reference import E2M1, E4M3, Format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from .library import Library

CHUNK = 2**26
EVERY_FLOAT = range(0, 2**32, CHUNK)
SHAPES = [
    *((1, 1), (1, 2), (1, 15), (1, 16), (1, 17), (2, 8), (3, 31), (7, 33), (5, 47), (4, 64)),
    *((300, 80), (37, 576), (1000, 128), (2048, 256)),
]
SHIFTS = (0, 1, 3, 8)
# As they come from calibration, at the ends of what is allowed, and outside of it.
TENSOR_SCALES = [
    np.float32(each)
    for each in (1.0, 4.2 / 2688, 0.3 / 2688, 2.0**-126, 3.4e38, 1e30, 1.5e-30, 0.0, -1.0, 1e-40)
] + [np.float32(np.inf), np.float32(np.nan)]


@dataclass
class Outcome:
    """What one check came to: how many values were compared, how many differed, a few of them."""

    name: str
    compared: int = 0
    mismatches: int = 0
    examples: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def compare(self, got: NDArray[Any], wanted: NDArray[Any], what: Callable[[int], str]) -> None:
        """Count the differences of two arrays of the same integer type, bit for bit."""
        assert got.dtype == wanted.dtype, (got.dtype, wanted.dtype)
        assert got.shape == wanted.shape, (got.shape, wanted.shape)
        self.compared += got.size
        if np.array_equal(got, wanted):
            return
        flat, right = got.reshape(-1), wanted.reshape(-1)
        different = np.flatnonzero(flat != right)
        self.mismatches += different.size
        for index in different[: max(0, 8 - len(self.examples))].tolist():
            self.examples.append(
                f"{what(index)}: got {int(flat[index]):#x}, wanted {int(right[index]):#x}"
            )


def every_float(library: Library, conversion: Conversion, chunks: range = EVERY_FLOAT) -> Outcome:
    """A conversion of all 2^32 floats. chunks: fewer, for a library that is slow."""
    form = E2M1 if conversion is Conversion.TO_E2M1 else E4M3
    outcome = Outcome(f"every float {conversion.name.lower().replace('_', ' ')}")

    def chunk(first: int) -> tuple[Outcome, Counter[int]]:
        # Compared here and dropped: what waits for the one that counts must be small.
        part, off = Outcome(outcome.name), Counter[int]()
        got = library.convert_range(conversion, first, CHUNK)
        wanted = form.encode_range(first, CHUNK)
        part.compare(got, wanted, lambda i: f"float {first + i:#010x}")
        if part.mismatches:
            bad = got != wanted
            fields = (got[bad] >> 3 & 15).astype(int) - (wanted[bad] >> 3 & 15).astype(int)
            off.update(fields.tolist())
        return part, off

    exponents: Counter[int] = Counter()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for part, off in pool.map(chunk, chunks):
            outcome.compared += part.compared
            outcome.mismatches += part.mismatches
            outcome.examples += part.examples[: max(0, 8 - len(outcome.examples))]
            exponents.update(off)
    if exponents and form is E4M3:
        outcome.figures["exponent_off_by"] = {str(k): v for k, v in sorted(exponents.items())}
    return outcome


def boundaries(library: Library) -> Outcome:
    """Every boundary between two codes, its neighbours, and the special values, both signs."""
    outcome = Outcome("boundaries and special values")
    for form, conversion in ((E4M3, Conversion.TO_E4M3), (E2M1, Conversion.TO_E2M1)):
        edges = form.boundaries().astype(np.int64)
        specials = [0, 1, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FFFFFFF]
        beyond = np.array([6.5, 7, 8, 449, 463, 464, 465, 479, 480, 512, 1e9], np.float32)
        values = np.concatenate(
            [edges - 1, edges, edges + 1, form.decode()[: form.largest + 1], beyond.view(np.uint32)]
        )
        for bits in {int(b) | sign for b in [*values, *specials] for sign in (0, 2**31)}:
            got = library.convert_range(conversion, bits, 1)
            wanted = form.encode(np.array([bits], dtype=np.uint32).view(np.float32))
            outcome.compare(got, wanted, lambda _, bits=bits: f"float {bits:#010x}")  # type: ignore[misc]
    return outcome


def decodings(library: Library) -> Outcome:
    """Every code of every format, to the bits of its float."""
    outcome = Outcome("every code to float")
    byte = np.arange(256, dtype=np.uint16)
    word = np.arange(65536, dtype=np.uint16)
    outcome.compare(library.decode(Decoding.FROM_E4M3, byte), E4M3.decode(), "E4M3 {:#x}".format)
    outcome.compare(
        library.decode(Decoding.FROM_E2M1, byte), np.tile(E2M1.decode(), 16), "E2M1 {:#x}".format
    )
    wide = word.astype(np.uint32) << 16
    outcome.compare(library.decode(Decoding.FROM_BFLOAT16, word), wide, "bfloat16 {:#x}".format)
    with np.errstate(invalid="ignore"):
        half = word.view(np.float16).astype(np.float32).view(np.uint32)
    got = library.decode(Decoding.FROM_FLOAT16, word)
    # A NaN's payload is nobody's business; that it is one, and its sign, are.
    for bits in (half, got):
        nan = (bits & 0x7FFFFFFF) > reference.INFINITY
        bits[nan] = bits[nan] & 0x80000000 | reference.NAN
    outcome.compare(got, half, "float16 {:#x}".format)
    return outcome


def tensors(most: int) -> Iterator[tuple[str, ValueType, NDArray[Any]]]:
    """Name, type and values to quantise: what a cache holds, and what it should never hold."""
    random = np.random.default_rng(20261121)
    for rows, cols in SHAPES:
        if rows * cols > most:
            continue
        normal = random.standard_normal((rows, cols)).astype(np.float32)
        outliers = normal * np.exp(4 * random.standard_normal((rows, 1))).astype(np.float32)
        outliers[random.random((rows, cols)) < 0.01] *= 300
        grid = (random.integers(-12, 13, (rows, cols)) * 0.25).astype(np.float32)
        tiny = normal * np.float32(1e-41)
        bits = random.integers(0, 2**32, (rows, cols), dtype=np.uint32).view(np.float32)
        infinite = np.where(np.abs(normal) > 2, np.copysign(np.float32(np.inf), normal), normal)
        few_nan = np.where(random.random((rows, cols)) < 0.005, np.float32(np.nan), normal)
        shape = f"{rows}x{cols}"
        for name, values in (
            ("normal", normal),
            ("outliers", outliers),
            ("halfway", grid),
            ("subnormal", tiny),
            ("zero", np.zeros_like(normal)),
            ("negative zero", -np.zeros_like(normal)),
            ("any bits", bits),
            ("infinite", infinite),
            ("few NaN", few_nan),
        ):
            yield f"{name} {shape}", ValueType.FLOAT32, values
        words = random.integers(0, 2**16, (rows, cols), dtype=np.uint16)
        yield f"any float16 {shape}", ValueType.FLOAT16, words
        yield f"any bfloat16 {shape}", ValueType.BFLOAT16, words
        yield f"float16 {shape}", ValueType.FLOAT16, normal.astype(np.float16).view(np.uint16)
        cut = (normal.view(np.uint32) >> 16).astype(np.uint16)
        yield f"bfloat16 {shape}", ValueType.BFLOAT16, cut


def as_float32(kind: ValueType, values: NDArray[Any]) -> NDArray[np.float32]:
    """The values as exact float32."""
    match kind:
        case ValueType.FLOAT32:
            return np.asarray(values, dtype=np.float32)
        case ValueType.FLOAT16:
            with np.errstate(invalid="ignore"):
                return np.asarray(values.view(np.float16), dtype=np.float32)
        case ValueType.BFLOAT16:
            return np.asarray((values.astype(np.uint32) << 16).view(np.float32))


def quantizing(library: Library, most: int = 2**31) -> Outcome:
    """Codes and scales of every tensor under every tensor scale and alignment.

    most: leave out tensors of more values, where a quick look is enough.
    """
    outcome = Outcome("quantise")
    for number, (name, kind, values) in enumerate(tensors(most)):
        wide = as_float32(kind, values)
        for scale in TENSOR_SCALES if values.size < 3000 else TENSOR_SCALES[:3]:
            packed, scales = reference.quantize(wide, scale)
            shift = SHIFTS[number % len(SHIFTS)]
            got, factors = library.quantize(values, kind, scale, shift)
            where = f"{name}, tensor scale {scale:g}, shift {shift}"
            outcome.compare(factors, scales, lambda i, w=where: f"scale {i} of {w}")  # type: ignore[misc]
            outcome.compare(got, packed, lambda i, w=where: f"byte {i} of {w}")  # type: ignore[misc]
    return outcome


def dequantizing(library: Library) -> Outcome:
    """Every code with every scale byte, and every shape and alignment, to float and to E4M3."""
    outcome = Outcome("dequantise")
    random = np.random.default_rng(7)
    every = np.arange(256, dtype=np.uint8)
    # 256 blocks, one a scale byte, each with all sixteen codes.
    codes = np.tile(np.arange(0x10, 0x100, 0x22, dtype=np.uint8)[:8], (256, 1))
    cases: list[tuple[str, NDArray[np.uint8], NDArray[np.uint8], int]] = [
        ("every code with every scale", codes, every[:, None], 16)
    ]
    for rows, cols in SHAPES:
        packed = random.integers(0, 256, (rows, (cols + 1) // 2), dtype=np.uint8)
        scales = random.integers(0, 128, (rows, (cols + 15) // 16), dtype=np.uint8)
        cases.append((f"{rows}x{cols}", packed, scales, cols))
    ratios = [np.float32(each) for each in (6.0, 1.0, 0.37, 1e4)]
    for number, (name, packed, scales, cols) in enumerate(cases):
        for scale, shift in product(TENSOR_SCALES, SHIFTS[: 2 if packed.size > 3000 else 4]):
            where = f"{name}, tensor scale {scale:g}, shift {shift}"
            values = library.dequantize(packed, scales, cols, scale, shift).view(np.uint32)
            wanted = reference.dequantize(packed, scales, cols, scale).view(np.uint32)
            outcome.compare(values, wanted, lambda i, w=where: f"float {i} of {w}")  # type: ignore[misc]
            with np.errstate(all="ignore"):
                fp8_scale = scale * ratios[number % len(ratios)]
            for fp8 in (fp8_scale, *TENSOR_SCALES[7:]) if number == 0 else (fp8_scale,):
                bytes_ = library.dequantize_to_e4m3(packed, scales, cols, scale, fp8, shift)
                right = reference.dequantize_to_e4m3(packed, scales, cols, scale, fp8)
                outcome.compare(bytes_, right, lambda i, w=where: f"E4M3 {i} of {w}")  # type: ignore[misc]
    return outcome


def nearest(library: Library) -> Outcome:
    """Whatever the order of the operations: each code is the nearest, each scale within rounding.

    In float64, by the definition of the format. A value within 2^-20 of a halfway point may go
    either way, because the quotient that is rounded is itself a rounded float32.
    """
    outcome = Outcome("nearest code, by definition")
    values = np.random.default_rng(3).standard_normal((4096, 128)).astype(np.float32)
    scale = np.float32(np.abs(values).max() / (6 * 448))
    packed, scales = library.quantize(values, ValueType.FLOAT32, scale)
    codes = np.stack([packed & 15, packed >> 4], axis=2).reshape(values.shape)
    known = np.array([float(v) for v in E2M1.values()])
    signed = np.concatenate([known, -known])
    factor = np.repeat(E4M3.decode().view(np.float32)[scales], 16, axis=1).astype(float) * scale
    exact = np.clip(values / factor, -6, 6)
    distance = np.abs(exact[..., None] - signed)
    chosen = np.take_along_axis(distance, codes[..., None].astype(int), axis=2)[..., 0]
    wrong = chosen > distance.min(axis=2) + 2.0**-20
    outcome.compare(wrong.astype(np.uint8), np.zeros(wrong.shape, np.uint8), "value {}".format)
    back = library.dequantize(packed, scales, 128, scale).astype(float)
    noise = float(np.sqrt(np.mean((back - values) ** 2) / np.mean(values.astype(float) ** 2)))
    outcome.figures["relative_rms_error_of_normal_values"] = round(noise, 5)
    return outcome


def beyond_the_grid(library: Library) -> Outcome:
    """More values than the largest grid has threads: each thread takes several."""
    outcome = Outcome("more values than threads")
    bits = np.random.default_rng(5).integers(0, 2**32, 40_000_001, dtype=np.uint32)
    values = bits.view(np.float32)
    outcome.compare(library.convert(values, 1), E4M3.encode(values), "value {}".format)
    return outcome


def every_check(library: Library, *, gpu: bool) -> list[Outcome]:
    """All of them, on one library."""
    outcomes = [boundaries(library), decodings(library), quantizing(library)]
    outcomes += [dequantizing(library), nearest(library)]
    outcomes += [every_float(library, Conversion.TO_E4M3), every_float(library, Conversion.TO_E2M1)]
    outcomes.append(every_float(library, Conversion.TO_E4M3_SOFTWARE))
    if gpu:
        library.refusals()
        outcomes.append(beyond_the_grid(library))
    return outcomes


def thresholds(form: Format) -> list[int]:
    """The boundaries as bit patterns; for tests of the reference itself."""
    return [int(bits) for bits in form.boundaries()]
