"""CUTLASS mixture of experts: bfloat16 everywhere, NVFP4 weights where the arch has them.

    python numbers_moe.py --arch sm121

Compiles for minutes the first time. The reference gives each token to its experts in float64. The
kernel rounds between its two products and at the end, each 2^-9 of the norm; 2e-2 leaves room for
those. An expert that is skipped, or whose halves (gate and up) are swapped, changes a row by more
than 0.3.
"""

import numpy

import _check

TOLERANCE = 2e-2
TOKENS, HIDDEN, INNER, EXPERTS, CHOSEN = 37, 512, 1024, 8, 2


def check(options):
    torch = _check.gpu(options.arch)
    import flashinfer

    x, x64 = _given(torch, options, 0, 1.0, TOKENS, HIDDEN)
    # In this layout the up projection comes first, the gate second.
    first, first64 = _given(torch, options, 1, HIDDEN**-0.5, EXPERTS, 2 * INNER, HIDDEN)
    second, second64 = _given(torch, options, 2, INNER**-0.5, EXPERTS, HIDDEN, INNER)
    scores = _check.normal(options, TOKENS, EXPERTS, salt=3)
    chosen = numpy.argsort(-scores, axis=1)[:, :CHOSEN]
    weights = numpy.exp(numpy.take_along_axis(scores, chosen, axis=1))
    weights /= weights.sum(axis=1, keepdims=True)

    out = _check.poisoned(torch, (TOKENS, HIDDEN), torch.bfloat16)
    flashinfer.fused_moe.cutlass_fused_moe(
        x,
        torch.from_numpy(chosen.astype(numpy.int32)).to("cuda"),
        torch.from_numpy(weights.astype(numpy.float32)).to("cuda"),
        first,
        second,
        torch.bfloat16,
        quant_scales=None,
        output=out,
    )
    want = experts(x64, first64, second64, chosen, weights)
    found = _check.judge(_check.from_gpu(out), want, TOLERANCE)
    figures = {"seed": options.seed, "bfloat16": found}
    return f"bfloat16: worst relative error of a row {found['worst_row_error']:.2g}", figures


def _given(torch, options, salt, scale, *shape):
    return _check.to_gpu(torch, scale * _check.normal(options, *shape, salt=salt), torch.bfloat16)


def experts(x, first, second, chosen, weights):
    """Each token through its experts in float64: second · (silu(gate) × up), weighted."""
    out = numpy.zeros((x.shape[0], second.shape[1]))
    for token in range(x.shape[0]):
        for expert, weight in zip(chosen[token], weights[token]):
            up, gate = numpy.split(first[expert] @ x[token], 2)
            out[token] += weight * (second[expert] @ (gate / (1 + numpy.exp(-gate)) * up))
    return out


if __name__ == "__main__":
    _check.main(check, __doc__)
