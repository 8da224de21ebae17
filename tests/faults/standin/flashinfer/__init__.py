"""RMS norm as FlashInfer has it, right or wrong in the way that STANDIN_FAULT names."""

import os
import subprocess
import sys
import time

import numpy

__version__ = "0.6.3+sp.standin"


def norm(x, weight, eps):
    return x / numpy.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * weight


def _faulty(right, out):
    """Write `right` into the tensor `out`, or fail to."""
    fault = os.environ.get("STANDIN_FAULT")
    if fault == "hang":
        with open(os.environ["STANDIN_PIDS"], "w") as file:
            child = subprocess.Popen(
                [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
            )
            file.write(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    if said := os.environ.get("STANDIN_COMPILER"):
        raise RuntimeError(f"Ninja build failed. Ninja output:\n{said}\nterminated.")
    if fault == "memory":
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 MiB.")
    if fault == "zeros":
        right = right * 0
    if fault == "nan-row" and len(right) > 3:
        right[3] = float("nan")
    if fault == "one-row" and len(right) > 3:
        right[3] *= 1.02
    if fault == "tail" and right.shape[-1] > 1000:
        # The last 8 columns stay as they were before the call.
        right[..., -8:] = out.numpy()[..., -8:]
    out.set(right)


def rmsnorm(x, weight, eps, out):
    _faulty(norm(x.numpy(), weight.numpy(), eps), out)


def fused_add_rmsnorm(x, residual, weight, eps):
    total = x.numpy() + residual.numpy()
    residual.set(total)
    _faulty(norm(total, weight.numpy(), eps), x)
