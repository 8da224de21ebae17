"""The compiled conversions, of the host or of a GPU, behind the one interface of library.h."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class Conversion(IntEnum):
    """Which conversion of a float, as in library.h."""

    TO_E4M3_SOFTWARE = 0
    TO_E4M3 = 1
    TO_E4M3_INTRINSIC = 2
    TO_E2M1 = 3


class Decoding(IntEnum):
    """Which code becomes a float, as in library.h."""

    FROM_E4M3 = 0
    FROM_E2M1 = 1
    FROM_FLOAT16 = 2
    FROM_BFLOAT16 = 3


class ValueType(IntEnum):
    """What is quantised, as in nvfp4KvKernels.h."""

    FLOAT32 = 0
    FLOAT16 = 1
    BFLOAT16 = 2


class FailedCallError(Exception):
    """A function of the library gave another number than 0: a cudaError_t or one of library.h."""


class Library:
    """One compiled library. Arrays in, arrays out."""

    def __init__(self, path: Path) -> None:
        self._loaded = ctypes.CDLL(str(path))

    def _call(self, name: str, *arguments: Any) -> None:
        converted = [
            argument.ctypes.data_as(ctypes.c_void_p)
            if isinstance(argument, np.ndarray)
            else argument
            for argument in arguments
        ]
        status = getattr(self._loaded, name)(*converted)
        if status != 0:
            msg = f"{name} gave {status}"
            raise FailedCallError(msg)

    def convert_range(self, conversion: Conversion, first: int, count: int) -> NDArray[np.uint8]:
        """The floats with bit patterns first, first + 1, … converted."""
        codes = np.empty(count, dtype=np.uint8)
        self._call(
            "convertRange", int(conversion), ctypes.c_uint32(first), ctypes.c_int64(count), codes
        )
        return codes

    def convert(self, values: NDArray[np.float32], shift: int = 0) -> NDArray[np.uint8]:
        """float -> E4M3 by the launcher."""
        codes = np.empty(values.size, dtype=np.uint8)
        self._call("convert", ctypes.c_int64(values.size), values, codes, ctypes.c_int64(shift))
        return codes

    def decode(self, decoding: Decoding, codes: NDArray[np.uint16]) -> NDArray[np.uint32]:
        """Codes to the bits of floats."""
        bits = np.empty(codes.size, dtype=np.uint32)
        self._call("decode", int(decoding), ctypes.c_int64(codes.size), codes, bits)
        return bits

    def quantize(
        self, values: NDArray[Any], kind: ValueType, tensor_scale: np.float32, shift: int = 0
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Packed codes and scales of rows x cols values."""
        rows, cols = values.shape
        packed = np.empty((rows, (cols + 1) // 2), dtype=np.uint8)
        scales = np.empty((rows, (cols + 15) // 16), dtype=np.uint8)
        self._call(
            "quantize",
            np.ascontiguousarray(values),
            int(kind),
            ctypes.c_int64(rows),
            ctypes.c_int64(cols),
            ctypes.c_float(float(tensor_scale)),
            packed,
            scales,
            ctypes.c_int64(shift),
        )
        return packed, scales

    def dequantize(
        self,
        packed: NDArray[np.uint8],
        scales: NDArray[np.uint8],
        cols: int,
        tensor_scale: np.float32,
        shift: int = 0,
    ) -> NDArray[np.float32]:
        """Packed codes and scales to floats."""
        values = np.empty((packed.shape[0], cols), dtype=np.float32)
        self._call(
            "dequantize",
            packed,
            scales,
            ctypes.c_int64(packed.shape[0]),
            ctypes.c_int64(cols),
            ctypes.c_float(float(tensor_scale)),
            values,
            ctypes.c_int64(shift),
        )
        return values

    def dequantize_to_e4m3(
        self,
        packed: NDArray[np.uint8],
        scales: NDArray[np.uint8],
        cols: int,
        tensor_scale: np.float32,
        fp8_scale: np.float32,
        shift: int = 0,
    ) -> NDArray[np.uint8]:
        """Packed codes and scales to E4M3 codes."""
        values = np.empty((packed.shape[0], cols), dtype=np.uint8)
        self._call(
            "dequantizeToE4m3",
            packed,
            scales,
            ctypes.c_int64(packed.shape[0]),
            ctypes.c_int64(cols),
            ctypes.c_float(float(tensor_scale)),
            ctypes.c_float(float(fp8_scale)),
            values,
            ctypes.c_int64(shift),
        )
        return values

    # What only the GPU's library has.

    def describe(self) -> dict[str, Any]:
        """The GPU's name, compute capability, and CUDA versions."""
        name = ctypes.create_string_buffer(256)
        numbers = (ctypes.c_int * 4)()
        self._call("describe", name, 256, numbers)
        return {
            "name": name.value.decode(),
            "capability": f"{numbers[0]}.{numbers[1]}",
            "driver_cuda": f"{numbers[2] // 1000}.{numbers[2] % 1000 // 10}",
            "runtime_cuda": f"{numbers[3] // 1000}.{numbers[3] % 1000 // 10}",
        }

    def refusals(self) -> None:
        """The launchers refuse what makes no sense, and do nothing for nothing."""
        self._call("refusals")

    def timings(self, rows: int, cols: int, repeats: int) -> list[float]:
        """Milliseconds: quantise from float16, to float, to E4M3, float -> E4M3."""
        milliseconds = (ctypes.c_float * 4)()
        self._call("timings", ctypes.c_int64(rows), ctypes.c_int64(cols), repeats, milliseconds)
        return list(milliseconds)
