"""CUTLASS mixture of experts with bfloat16 tokens and weights. FP4 weights are not checked here.

    python numbers_moe.py --arch sm121
    SMOKE_MOE=bfloat16 python numbers_moe.py --arch sm90

Compiles for every type that FlashInfer's module knows the first time: 181 files in 0.6.3, not done
after four minutes on 16 cores. With SMOKE_MOE=bfloat16 only the 23 that these weights need are
compiled, in a minute and a half, into a module of another name beside it; the result says so.

The reference gives each token to its experts in float64. The kernel rounds between its two
products and at the end, each 2^-9 of the norm; 2e-2 leaves room for those. An expert that is
skipped, or whose halves (gate and up) are swapped, changes a row by more than 0.3.
"""

import os
import re

import _check

numpy = _check.needed("numpy")

# What the module is compiled without when only bfloat16 is asked for.
# (Not ENABLE_FP8: without it the sources of 0.6.3 do not compile.)
OTHER_TYPES = ("-DENABLE_FP8_BLOCK_SCALE", "-DENABLE_FP4")
OTHER_SOURCES = re.compile(r"moe_gemm_kernels_(?!bf16_bf16\.cu)")
GENERATED = ".generated.cu"
# A generated file holds kernels of one combination of types: tokens, weights, result.
BFLOAT16 = re.compile(r"_MOE_GEMM\(\w+, __nv_bfloat16, __nv_bfloat16, __nv_bfloat16,")

TOLERANCE = 2e-2
TOKENS, HIDDEN, INNER, EXPERTS, CHOSEN = 37, 512, 1024, 8, 2


def check(options):
    torch = _check.gpu(options.arch)
    import flashinfer

    compiled = _only_bfloat16() if os.environ.get("SMOKE_MOE") == "bfloat16" else {}
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
    figures = {"seed": options.seed, "bfloat16": found, **compiled}
    why = f"bfloat16: worst relative error of a row {found['worst_row_error']:.2g}"
    if compiled:
        why += f"; compiled {compiled['compiled']} of the module's {compiled['sources']} sources"
    return why, figures


def _only_bfloat16():
    """Have FlashInfer's MoE module compiled from the sources that bfloat16 needs alone.

    Calls into what is left out stay unresolved, so the library is bound lazily; what addresses are
    taken of is kept. Returns a dict that is filled when FlashInfer asks for the module: {sources,
    compiled}.
    """
    from flashinfer.jit import fused_moe

    whole, counts = fused_moe.gen_jit_spec, {}

    def lean(name, sources, extra_cuda_cflags=(), extra_ldflags=(), **rest):
        kept = [path for path in sources if needed(str(path))]
        counts.update(sources=len(sources), compiled=len(kept))
        return whole(
            name + "_bfloat16",
            kept,
            extra_cuda_cflags=[flag for flag in extra_cuda_cflags if flag not in OTHER_TYPES],
            extra_ldflags=[*extra_ldflags, "-Wl,-z,lazy"],
            **rest,
        )

    fused_moe.gen_jit_spec = lean
    return counts


def needed(path):
    """Whether a source of the module is needed for bfloat16 tokens and weights."""
    name = os.path.basename(path)
    if name.endswith(GENERATED):
        with open(path, encoding="utf-8") as file:
            return BFLOAT16.search(file.read()) is not None
    return OTHER_SOURCES.match(name) is None


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
