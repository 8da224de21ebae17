"""RMS norm, and the one that adds the residual first, against float64.

    python numbers_norm.py --arch sm121

The first rows are ordinary, the last column count is no multiple of the vector width of two
threads, so that a kernel's tail is part of it. bfloat16 has 8 bits of mantissa: rounding the
result once costs a row at most 2^-9 = 2.0e-3 of its norm. 5e-3 leaves room for the order of the
sums, and is far below what a wrong weight, scale or row gives.
"""

import _check

numpy = _check.needed("numpy")

TOLERANCE = 5e-3
EPS = 1e-6
SHAPES = ((1, 64), (7, 1032), (99, 4096))


def check(options):
    torch = _check.gpu(options.arch)
    import flashinfer

    figures = {"seed": options.seed}
    for number, (rows, columns) in enumerate(SHAPES):
        x, x64 = _given(torch, options, number, rows, columns)
        weight, weight64 = _check.to_gpu(
            torch, _check.normal(options, columns, salt=100 + number), torch.bfloat16
        )
        out = _check.poisoned(torch, x.shape, x.dtype)
        flashinfer.rmsnorm(x, weight, EPS, out=out)
        figures[f"rmsnorm {rows}x{columns}"] = _check.judge(
            _check.from_gpu(out), norm(x64, weight64), TOLERANCE
        )

        residual, residual64 = _given(torch, options, 200 + number, rows, columns)
        flashinfer.fused_add_rmsnorm(x, residual, weight, EPS)  # both are overwritten
        total = x64 + residual64
        figures[f"fused_add_rmsnorm {rows}x{columns}"] = _check.judge(
            _check.from_gpu(x), norm(total, weight64), TOLERANCE
        )
        _check.judge(_check.from_gpu(residual), total, TOLERANCE)
    worst = max(f["worst_row_error"] for f in figures.values() if isinstance(f, dict))
    return f"worst relative error of a row {worst:.2g}", figures


def _given(torch, options, salt, rows, columns):
    return _check.to_gpu(torch, _check.normal(options, rows, columns, salt=salt), torch.bfloat16)


def norm(x, weight):
    """RMS norm in float64."""
    return x / numpy.sqrt((x**2).mean(axis=-1, keepdims=True) + EPS) * weight


if __name__ == "__main__":
    _check.main(check, __doc__)
