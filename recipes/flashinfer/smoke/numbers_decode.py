"""Attention of one new token over a KV cache, with grouped heads, against float64.

    python numbers_decode.py --arch sm121

Keys and values are float16, the sums float32. Rounding the probabilities and the result costs some
1e-3 of a head's norm; with a long cache the result is a small mean of large numbers, and 1e-2
leaves room for that. A head that reads a wrong key head is off by 1.
"""

import _check

numpy = _check.needed("numpy")

TOLERANCE = 1e-2
# query heads, key heads, length of the cache, dimension of a head
CASES = ((8, 8, 17, 64), (32, 8, 1000, 128), (32, 4, 4097, 128))


def check(options):
    torch = _check.gpu(options.arch)
    import flashinfer

    figures = {"seed": options.seed}
    for number, (heads, key_heads, length, size) in enumerate(CASES):
        q, q64 = _given(torch, options, 3 * number, heads, size)
        k, k64 = _given(torch, options, 3 * number + 1, length, key_heads, size)
        v, v64 = _given(torch, options, 3 * number + 2, length, key_heads, size)
        want = attention(q64[None], k64, v64, causal=False)[0]
        for cores in (False, True):
            with _check.poisoned_memory(torch):
                out = flashinfer.single_decode_with_kv_cache(q, k, v, use_tensor_cores=cores)
            name = f"{heads}/{key_heads} heads of {size}, cache {length}"
            figures[name + (", tensor cores" if cores else "")] = _check.judge(
                _check.from_gpu(out), want, TOLERANCE
            )
    worst = max(f["worst_row_error"] for f in figures.values() if isinstance(f, dict))
    return f"worst relative error of a head {worst:.2g}", figures


def _given(torch, options, salt, *shape):
    return _check.to_gpu(torch, _check.normal(options, *shape, salt=salt), torch.float16)


def attention(q, k, v, causal):
    """softmax(q·kᵀ/√d)·v in float64: q (new, heads, d), k and v (length, key heads, d)."""
    group = q.shape[1] // k.shape[1]
    k, v = numpy.repeat(k, group, axis=1), numpy.repeat(v, group, axis=1)
    scores = numpy.einsum("qhd,khd->hqk", q, k) / numpy.sqrt(q.shape[-1])
    if causal:  # the last query sees the whole cache
        new, length = q.shape[0], k.shape[0]
        hidden = numpy.arange(length)[None, :] > numpy.arange(new)[:, None] + length - new
        scores = numpy.where(hidden[None], -numpy.inf, scores)
    weights = numpy.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return numpy.einsum("hqk,khd->qhd", weights, v)


if __name__ == "__main__":
    _check.main(check, __doc__)
