"""NVFP4 matrix product, each backend that the release offers, against float64.

    python numbers_fp4_gemm.py --arch sm121

The reference multiplies what the quantised operands stand for, decoded here in float64: only the
product is judged, not the quantisation. The result is bfloat16, whose rounding costs 2^-9 of a
row's norm; 1e-2 leaves room. On sm120 release 0.6.3 returned all zeros or refused
(https://github.com/flashinfer-ai/flashinfer/issues/2577), for some row counts only in 0.6.12
(issue 3398): hence the odd row counts.
"""

import _check

numpy = _check.needed("numpy")

TOLERANCE = 1e-2
# rows, columns, inner dimension
SHAPES = ((1, 256, 256), (48, 256, 512), (100, 384, 1024), (256, 1024, 512))
BACKENDS = ("cutlass", "auto")


def check(options):
    torch = _check.fp4_gpu(options.arch)
    import flashinfer

    figures = {"seed": options.seed}
    for backend in BACKENDS:
        for number, (rows, columns, inner) in enumerate(SHAPES):
            a, a_scales, a64, a_scale = _operand(torch, options, 2 * number, rows, inner)
            b, b_scales, b64, b_scale = _operand(torch, options, 2 * number + 1, columns, inner)
            alpha = torch.tensor([1 / (a_scale * b_scale)], dtype=torch.float32, device="cuda")
            out = _check.poisoned(torch, (rows, columns), torch.bfloat16)
            flashinfer.mm_fp4(
                a, b.T, a_scales, b_scales.T, alpha, torch.bfloat16, out, backend=backend
            )
            figures[f"{backend} {rows}x{columns}x{inner}"] = _check.judge(
                _check.from_gpu(out), a64 @ b64.T, TOLERANCE
            )
    worst = max(f["worst_row_error"] for f in figures.values() if isinstance(f, dict))
    return f"worst relative error of a row {worst:.2g}", figures


def _operand(torch, options, salt, rows, inner):
    """(packed, swizzled scales, what they stand for in float64, global scale)."""
    import flashinfer

    x, x64 = _check.to_gpu(torch, _check.normal(options, rows, inner, salt=salt), torch.bfloat16)
    scale = torch.tensor([448 * 6 / numpy.abs(x64).max()], dtype=torch.float32, device="cuda")
    packed, swizzled = flashinfer.nvfp4_quantize(
        x, scale, sfLayout=flashinfer.SfLayout.layout_128x4, do_shuffle=False
    )
    again, linear = flashinfer.fp4_quantize(x, scale, sf_vec_size=16, is_sf_swizzled_layout=False)
    if not torch.equal(packed.view(torch.uint8), again.view(torch.uint8)):
        raise _check.Failed("quantising with linear and with swizzled scales gives other numbers")
    values = _check.nvfp4_values(
        packed.view(torch.uint8).cpu().numpy(),
        linear.view(torch.uint8).cpu().numpy().reshape(rows, inner // 16),
        float(scale),
    )
    # What is decoded must be the input, or the product of garbage would be judged.
    _check.judge(values, x64, 0.12)
    return packed, swizzled, values, float(scale)


if __name__ == "__main__":
    _check.main(check, __doc__)
