"""The GPU really is the arch, torch can use it, and it computes.

    python device.py --arch sm121

Not run where there is no GPU. Fails for a GPU of another arch, and for a GPU that is there (the
driver or nvidia-smi says so) and that torch cannot use: an old driver, a torch without CUDA.
"""

import os
import subprocess

import _check

QUESTION = "name,driver_version,memory.total,compute_cap"


def check(options):
    seen, figures = _nvidia_smi()
    try:
        import torch
    except ImportError as error:
        if seen:
            raise _check.Failed(f"torch cannot be imported: {error}", **figures) from error
        raise _check.NotRun(f"no GPU, and torch cannot be imported: {error}") from error
    figures["torch"] = torch.__version__
    figures["torch_cuda"] = torch.version.cuda
    if torch.version.cuda is None:
        why = f"torch {torch.__version__} is built without CUDA"
        raise _check.Failed(why, **figures) if seen else _check.NotRun(f"no GPU, and {why}")
    if not torch.cuda.is_available():
        why = _check.cuda_trouble(torch)
        if seen or "too old" in why:
            raise _check.Failed(f"torch cannot use the GPU that is there: {why}", **figures)
        raise _check.NotRun(f"no GPU: {why}", **figures)
    index = torch.cuda.current_device()
    capability = tuple(torch.cuda.get_device_capability(index))
    properties = torch.cuda.get_device_properties(index)
    figures["gpu"] = torch.cuda.get_device_name(index)
    figures["capability"] = f"{capability[0]}.{capability[1]}"
    figures["memory_bytes"] = int(properties.total_memory)
    figures["multiprocessors"] = int(properties.multi_processor_count)
    figures["nvcc"] = nvcc_version()
    if capability != _check.ARCHS[options.arch][0]:
        raise _check.Failed(
            f"the GPU is sm{capability[0]}{capability[1]} ({figures['gpu']}), not {options.arch}",
            **figures,
        )
    # torch's own kernels need code for the GPU too; a sum says whether they have it.
    left = torch.arange(1000, device="cuda", dtype=torch.float64)
    total = float((left * 2).sum().cpu())
    if total != 999000.0:
        raise _check.Failed(f"the GPU's sum of 0, 2, … 1998 is {total:g}, not 999000", **figures)
    return f"{figures['gpu']}, compute capability {figures['capability']}", figures


def _nvidia_smi():
    """(whether the driver knows of a GPU, what it says of the first)."""
    argv = ["nvidia-smi", f"--query-gpu={QUESTION}", "--format=csv,noheader"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return os.path.exists("/proc/driver/nvidia/version"), {}
    rows = [line for line in done.stdout.splitlines() if "," in line]
    if done.returncode != 0 or not rows:
        return False, {"nvidia_smi": " ".join((done.stdout + done.stderr).split())[:200]}
    name, driver, memory, capability = (word.strip() for word in rows[0].split(","))
    return True, {
        "gpus": len(rows),
        "driver": driver,
        "gpu": name,
        "memory": memory,
        "capability": capability,
    }


def nvcc_version():
    """`13.0` of the nvcc that FlashInfer would take; None without one."""
    nvcc = _check.find_nvcc()
    if nvcc is None:
        return None
    try:
        done = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.replace(",", " ").split()
    return words[words.index("release") + 1] if "release" in words else None


if __name__ == "__main__":
    _check.main(check, __doc__)
