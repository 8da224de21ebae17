"""What the conversions must give, from the formats' definitions, in exact arithmetic.

Nothing here follows the CUDA code. A code's value is a fraction; the boundary between two codes is
the fraction halfway, which belongs to the even code; a conversion is a search among boundaries.
Products and quotients are numpy's float32, which rounds to nearest even.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 16
INFINITY = 0x7F800000
NAN = np.uint32(0x7FC00000)


def value_of(code: int, exponent_bits: int, mantissa_bits: int) -> Fraction:
    """The value of a code without its sign, were every code a number."""
    bias: int = 2 ** (exponent_bits - 1) - 1
    exponent, mantissa = divmod(code, 2**mantissa_bits)
    if exponent == 0:
        return Fraction(mantissa, 2**mantissa_bits) * _power(1 - bias)
    return (1 + Fraction(mantissa, 2**mantissa_bits)) * _power(exponent - bias)


def _power(exponent: int) -> Fraction:
    return Fraction(2**exponent) if exponent >= 0 else Fraction(1, 2**-exponent)


def exact_bits(value: Fraction) -> int:
    """The bit pattern of a non-negative float32 that must have exactly this value."""
    as_float = np.float32(float(value))
    assert Fraction(float(as_float)) == value, value
    return int(as_float.view(np.uint32))


@dataclass(frozen=True)
class Format:
    """A small float format. largest: its greatest finite code, unsigned; nan: what NaN becomes."""

    exponent_bits: int
    mantissa_bits: int
    largest: int
    nan: int

    @property
    def sign(self) -> int:
        """The sign bit of a code."""
        return 1 << (self.exponent_bits + self.mantissa_bits)

    def values(self) -> list[Fraction]:
        """The finite values without sign, by code."""
        codes = range(self.largest + 1)
        return [value_of(code, self.exponent_bits, self.mantissa_bits) for code in codes]

    def boundaries(self) -> NDArray[np.uint32]:
        """Entry i: the smallest magnitude's bits that convert to code i + 1 or a greater one."""
        values = self.values()
        halfway = [(low + high) / 2 for low, high in pairwise(values)]
        even = [code % 2 == 0 for code in range(1, self.largest + 1)]
        bits = [
            exact_bits(half) + (not to_even) for half, to_even in zip(halfway, even, strict=True)
        ]
        return np.array(bits, dtype=np.uint32)

    def encode(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Round to nearest even, saturate; NaN of either sign becomes `nan`."""
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
        magnitude = bits & np.uint32(0x7FFFFFFF)
        codes = np.searchsorted(self.boundaries(), magnitude, side="right").astype(np.uint8)
        codes |= (bits >> 31).astype(np.uint8) * np.uint8(self.sign)
        codes[magnitude > INFINITY] = self.nan
        return codes

    def encode_range(self, first: int, count: int) -> NDArray[np.uint8]:
        """`encode` of the bit patterns first, first + 1, …, as runs of one code: fast."""
        edges, codes = [0], [0]
        for edge in self.boundaries().tolist():
            edges.append(edge)
            codes.append(codes[-1] + 1)
        edges.append(INFINITY + 1)
        codes.append(self.nan)
        negative = [edge + 2**31 for edge in edges]
        signed = [code | self.sign for code in codes[:-1]] + [self.nan]
        starts = np.array(edges + negative, dtype=np.int64)
        ends = np.append(starts[1:], 2**32)
        runs = np.clip(ends, first, first + count) - np.clip(starts, first, first + count)
        return np.repeat(np.array(codes + signed, dtype=np.uint8), runs)

    def decode(self) -> NDArray[np.uint32]:
        """The float32 bits of every code, sign included; NaN keeps its sign."""
        bits = [exact_bits(value) for value in self.values()]
        bits += [int(NAN)] * (self.sign - len(bits))
        return np.array(bits + [each | 0x80000000 for each in bits], dtype=np.uint32)


E4M3 = Format(4, 3, largest=0x7E, nan=0x7F)
E2M1 = Format(2, 1, largest=7, nan=7)


def usable(scale: np.float32) -> bool:
    """A tensor scale is positive, normal and finite."""
    return bool(np.finfo(np.float32).tiny <= scale <= np.finfo(np.float32).max)


def in_blocks(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """rows x blocks x 16, short blocks filled with zeros."""
    rows, cols = values.shape
    blocks = -(-cols // BLOCK)
    padded = np.zeros((rows, blocks * BLOCK), dtype=np.float32)
    padded[:, :cols] = values
    return padded.reshape(rows, blocks, BLOCK)


def quantize(
    values: NDArray[np.float32], tensor_scale: np.float32
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Packed codes (rows x ceil(cols / 2)) and scales (rows x ceil(cols / 16))."""
    rows, cols = values.shape
    blocks = in_blocks(values)
    with np.errstate(all="ignore"):
        largest = np.abs(blocks).max(axis=2)
        wanted = largest / np.float32(6) / tensor_scale
        scales = E4M3.encode(wanted)
        if not usable(tensor_scale):
            scales[:] = E4M3.nan
        scale = E4M3.decode().view(np.float32)[scales]
        divided = blocks / (scale * tensor_scale)[:, :, None]
    codes = E2M1.encode(np.where(np.isinf(blocks), blocks, divided))
    codes[(scales == 0) | (scales == E4M3.nan)] = 0
    flat = codes.reshape(rows, -1)[:, :cols]
    if cols % 2:
        flat = np.pad(flat, ((0, 0), (0, 1)))
    return flat[:, 0::2] | flat[:, 1::2] << np.uint8(4), scales


def _scaled(
    packed: NDArray[np.uint8], scales: NDArray[np.uint8], cols: int, factor: np.float32
) -> NDArray[np.float32]:
    """code * scale * factor, every NaN the same."""
    codes = np.stack([packed & 15, packed >> 4], axis=2).reshape(packed.shape[0], -1)[:, :cols]
    as_float = E4M3.decode().view(np.float32)[scales]
    as_float[scales >= E4M3.sign] = np.nan
    with np.errstate(all="ignore"):
        each = np.repeat(as_float, BLOCK, axis=1)[:, :cols]
        values = E2M1.decode().view(np.float32)[codes] * each * factor
    values[np.isnan(values)] = NAN.view(np.float32)
    return values


def dequantize(
    packed: NDArray[np.uint8], scales: NDArray[np.uint8], cols: int, tensor_scale: np.float32
) -> NDArray[np.float32]:
    """NVFP4 -> float32."""
    factor = tensor_scale if usable(tensor_scale) else np.float32(np.nan)
    return _scaled(packed, scales, cols, factor)


def dequantize_to_e4m3(
    packed: NDArray[np.uint8],
    scales: NDArray[np.uint8],
    cols: int,
    tensor_scale: np.float32,
    fp8_scale: np.float32,
) -> NDArray[np.uint8]:
    """NVFP4 -> E4M3 codes whose values are to be multiplied by fp8_scale."""
    with np.errstate(all="ignore"):
        factor = tensor_scale / fp8_scale
    if not (usable(tensor_scale) and usable(fp8_scale)):
        factor = np.float32(np.nan)
    return E4M3.encode(_scaled(packed, scales, cols, factor))
