"""As much of torch as the smoke programs use, over numpy. STANDIN_GPU says which GPU there is.

`12.1`: that compute capability. `none`: no driver. `old`: a driver that is too old.
STANDIN_FREE: bytes of GPU memory that are free.
"""

import os

import numpy

__version__ = "2.99.0+standin"


class dtype:  # noqa: N801 - torch's own name
    """A number format."""

    def __init__(self, name, kept):
        self.name, self.kept = name, kept


# Bits of the mantissa that are kept of a double's 52.
bfloat16 = dtype("bfloat16", 7)
float16 = dtype("float16", 10)
float32 = dtype("float32", 23)
float64 = dtype("float64", 52)
_OF_NUMPY = {"float64": float64, "float32": float32}


def _rounded(array, kind):
    """The nearest values that the format has; ties to even, as in hardware."""
    array = numpy.asarray(array, dtype=numpy.float64)
    if kind.kept == 52:
        return array.copy()
    mantissa, exponent = numpy.frexp(array)
    scale = 2.0 ** (kind.kept + 1)
    return numpy.ldexp(numpy.round(mantissa * scale) / scale, exponent)


class Tensor:
    """Values, kept as doubles that the format has."""

    def __init__(self, array, kind=float64):
        self.values, self.dtype = _rounded(array, kind), kind

    @property
    def shape(self):
        return self.values.shape

    def to(self, *wanted):
        kinds = [one for one in wanted if isinstance(one, dtype)]
        return Tensor(self.values, kinds[0] if kinds else self.dtype)

    def double(self):
        return Tensor(self.values)

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self.values.copy()

    def set(self, values):
        """What a kernel that writes its output does."""
        self.values[...] = _rounded(values, self.dtype)

    def sum(self):
        return Tensor(self.values.sum())

    def __mul__(self, other):
        return Tensor(self.values * other, self.dtype)

    def __float__(self):
        return float(self.values)


def from_numpy(array):
    return Tensor(array, _OF_NUMPY.get(array.dtype.name, float64))


def full(shape, value, dtype=float32, device=None):
    return Tensor(numpy.full(shape, value), dtype)


def ones(*shape, dtype=float32, device=None):
    return Tensor(numpy.ones(shape), dtype)


def arange(stop, dtype=float64, device=None):
    return Tensor(numpy.arange(stop), dtype)


class version:  # noqa: N801
    """What torch was built with."""

    cuda = "13.0"


class _Properties:
    total_memory, multi_processor_count = 8 << 30, 4


class cuda:  # noqa: N801
    """The GPU."""

    @staticmethod
    def is_available():
        return os.environ.get("STANDIN_GPU", "none") not in ("none", "old")

    @staticmethod
    def init():
        if os.environ.get("STANDIN_GPU") == "old":
            raise RuntimeError("The NVIDIA driver on your system is too old (found version 12020).")
        raise RuntimeError("Found no NVIDIA driver on your system.")

    @staticmethod
    def get_device_capability(index=0):
        major, _, minor = os.environ["STANDIN_GPU"].partition(".")
        return int(major), int(minor)

    @staticmethod
    def get_device_name(index=0):
        return "a stand-in"

    @staticmethod
    def current_device():
        return 0

    @staticmethod
    def get_device_properties(index):
        return _Properties

    @staticmethod
    def mem_get_info():
        return int(os.environ.get("STANDIN_FREE", "8589934592")), 8 << 30

    @staticmethod
    def memory_reserved():
        return 0
