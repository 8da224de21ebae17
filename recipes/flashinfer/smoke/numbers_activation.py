"""SiLU and both GELUs with the gate multiplied, against float64.

    python numbers_activation.py --arch sm121

float16 has 11 bits of mantissa: rounding the result costs at most 2^-12 = 2.4e-4 of a row's norm.
The kernels use fast exponentials and compute in float32. 2e-3 leaves room for both.
"""

import math

import _check

numpy = _check.needed("numpy")

TOLERANCE = 2e-3
SHAPES = ((1, 128), (33, 1000), (64, 8192))


def check(options):
    torch = _check.gpu(options.arch)
    import flashinfer

    figures = {"seed": options.seed}
    kernels = (
        ("silu_and_mul", flashinfer.silu_and_mul, silu),
        ("gelu_and_mul", flashinfer.gelu_and_mul, gelu),
        ("gelu_tanh_and_mul", flashinfer.gelu_tanh_and_mul, gelu_tanh),
    )
    for name, kernel, reference in kernels:
        for number, (rows, columns) in enumerate(SHAPES):
            x, x64 = _check.to_gpu(
                torch, _check.normal(options, rows, 2 * columns, salt=number), torch.float16
            )
            out = _check.poisoned(torch, (rows, columns), x.dtype)
            kernel(x, out=out)
            want = reference(x64[:, :columns]) * x64[:, columns:]
            figures[f"{name} {rows}x{columns}"] = _check.judge(
                _check.from_gpu(out), want, TOLERANCE
            )
    worst = max(f["worst_row_error"] for f in figures.values() if isinstance(f, dict))
    return f"worst relative error of a row {worst:.2g}", figures


def silu(x):
    """x × sigmoid(x)."""
    return x / (1 + numpy.exp(-x))


def gelu(x):
    """x × the normal distribution at x."""
    return 0.5 * x * (1 + numpy.vectorize(math.erf)(x / math.sqrt(2)))


def gelu_tanh(x):
    """The usual approximation of gelu."""
    return 0.5 * x * (1 + numpy.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


if __name__ == "__main__":
    _check.main(check, __doc__)
