"""Attention of a prompt, causal and not, with grouped heads, against float64.

    python numbers_prefill.py --arch sm121

The kernel is FlashInfer's FA2, which every arch has. Probabilities are rounded to float16 before
they meet the values: 1e-3 of a head's norm, and 1e-2 leaves room. A mask that is off by one token
changes the first rows by far more.
"""

import _check
from numbers_decode import attention

TOLERANCE = 1e-2
# query heads, key heads, new tokens, length of the cache with them, dimension of a head, causal
CASES = (
    (8, 8, 33, 33, 64, True),
    (32, 8, 129, 257, 128, True),
    (8, 2, 100, 300, 128, False),
)


def check(options):
    torch = _check.gpu(options.arch)
    import flashinfer

    figures = {"seed": options.seed}
    for number, (heads, key_heads, new, length, size, causal) in enumerate(CASES):
        q, q64 = _given(torch, options, 3 * number, new, heads, size)
        k, k64 = _given(torch, options, 3 * number + 1, length, key_heads, size)
        v, v64 = _given(torch, options, 3 * number + 2, length, key_heads, size)
        with _check.poisoned_memory(torch):
            out = flashinfer.single_prefill_with_kv_cache(q, k, v, causal=causal, backend="fa2")
        name = f"{heads}/{key_heads} heads of {size}, {new} of {length} tokens"
        figures[name + (", causal" if causal else "")] = _check.judge(
            _check.from_gpu(out), attention(q64, k64, v64, causal), TOLERANCE
        )
    worst = max(f["worst_row_error"] for f in figures.values() if isinstance(f, dict))
    return f"worst relative error of a head {worst:.2g}", figures


def _given(torch, options, salt, *shape):
    return _check.to_gpu(torch, _check.normal(options, *shape, salt=salt), torch.float16)


if __name__ == "__main__":
    _check.main(check, __doc__)
