"""NVFP4 quantisation: what the numbers stand for is what went in, as closely as the format can.

    python numbers_fp4_quantize.py --arch sm121

Each 16 numbers share a scale (e4m3), each number is one of 8 sizes (e2m1). The result is decoded
here, in float64, from the format's definition. The tolerance comes from the format: normal numbers
lose about 0.095 of a row's norm to it (measured with the quantiser below, which rounds in float64);
0.12 leaves room for other roundings of the scale, and a wrong scale or nibble order gives over 0.5.
"""

import _check

numpy = _check.needed("numpy")

TOLERANCE = 0.12
# How much more error than the float64 quantiser's a kernel may have.
EXCESS = 1.05
SHAPES = ((1, 64), (33, 256), (128, 2048))


def check(options):
    torch = _check.fp4_gpu(options.arch)
    import flashinfer

    figures = {"seed": options.seed}
    for number, (rows, columns) in enumerate(SHAPES):
        x, x64 = _check.to_gpu(
            torch, _check.normal(options, rows, columns, salt=number), torch.bfloat16
        )
        scale = 448 * 6 / numpy.abs(x64).max()
        scale32 = torch.tensor([scale], dtype=torch.float32, device="cuda")
        with _check.poisoned_memory(torch):
            packed, scales = flashinfer.fp4_quantize(
                x, scale32, sf_vec_size=16, is_sf_swizzled_layout=False
            )
        values = _check.nvfp4_values(
            packed.view(torch.uint8).cpu().numpy(),
            scales.view(torch.uint8).cpu().numpy().reshape(rows, columns // 16),
            float(scale32),
        )
        found = _check.judge(values, x64, TOLERANCE)
        best = numpy.linalg.norm(quantised(x64, float(scale32)) - x64) / numpy.linalg.norm(x64)
        found["error_of_float64_quantiser"] = float(best)
        if found["relative_error"] > best * EXCESS:
            raise _check.Failed(
                f"relative error {found['relative_error']:.3g}; the format allows {best:.3g}",
                **figures,
                **found,
            )
        figures[f"{rows}x{columns}"] = found
    return "decodes to its input as closely as NVFP4 can", figures


def quantised(x, global_scale):
    """x after NVFP4, rounded in float64: the scale of 16 to the nearest e4m3, then to e2m1."""
    blocks = x.reshape(x.shape[0], -1, 16)
    codes = numpy.arange(127, dtype=numpy.uint8)  # every e4m3 that is not negative
    scales = _nearest(
        numpy.abs(blocks).max(axis=-1, keepdims=True) / 6 * global_scale, _check.e4m3(codes)
    )
    unit = numpy.where(scales == 0, 1.0, scales / global_scale)
    sizes = _nearest(numpy.abs(blocks) / unit, numpy.array(_check.E2M1))
    return (numpy.sign(blocks) * sizes * scales / global_scale).reshape(x.shape)


def _nearest(values, table):
    """Each value's nearest in a table that goes up."""
    middle = (table[1:] + table[:-1]) / 2
    return table[numpy.searchsorted(middle, values)]


if __name__ == "__main__":
    _check.main(check, __doc__)
