"""What the check programs beside this file share: one result line, and how numbers are judged.

A check program prints one line of JSON and nothing else on standard output,

    {"status": "passed", "why": "...", "figures": {...}}

and exits 0 (passed), 1 (failed) or 77 (not run, because ...). Everything else that it or a library
prints goes to standard error. Only Python's own library is imported here; numpy where numbers are
judged, torch where a program brings it.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import sys
import traceback

PASSED, FAILED, NOT_RUN = 0, 1, 77

# arch -> compute capability, the target that its kernels are compiled for, whether its tensor
# cores know FP4 (from sm100 on)
ARCHS = {
    "sm89": ((8, 9), "89", False),
    "sm90": ((9, 0), "90a", False),
    "sm100": ((10, 0), "100a", True),
    "sm103": ((10, 3), "103a", True),
    "sm110": ((11, 0), "110a", True),
    "sm120": ((12, 0), "120a", True),
    "sm121": ((12, 1), "121a", True),
}

# Below this much free GPU memory an allocation that fails says nothing about the stack.
ENOUGH_MEMORY = 2 << 30

# How gcc and ld say that a part of the toolkit is not there.
TOOLKIT_HEADER = re.compile(r"fatal error: ((?:cublas|curand|cusolver|nvrtc)\w*\.h): No such")
TOOLKIT_LIBRARY = re.compile(r"cannot find -l((?:cublas|cuda|curand|nvrtc)\w*)")


class Failed(Exception):
    """The check found what it looks for."""

    def __init__(self, why, **figures):
        super().__init__(why)
        self.figures = figures


class NotRun(Exception):
    """The check cannot be made here, and says nothing about the stack."""

    def __init__(self, why, **figures):
        super().__init__(why)
        self.figures = figures


def main(check, description):
    """Run `check(options)`, which returns (why, figures), and leave by its exit status.

    options.arch is one of ARCHS, options.seed an integer: a fresh one unless it is given.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--arch", required=True, choices=sorted(ARCHS))
    parser.add_argument("--seed", type=int, help="of the random inputs; fresh without it")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = int.from_bytes(os.urandom(4), "little")
    result = os.dup(1)
    os.dup2(2, 1)  # a library that prints does not get between the caller and the result
    _leave(result, *_outcome(check, options))


def needed(name):
    """A library that judges results and is not judged itself: without it nothing was run."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        _leave(1, NOT_RUN, f"{name}, which judges the numbers, cannot be imported: {error}", {})


def _leave(result, status, why, figures):
    """Write the line to the descriptor and end with the status."""
    names = {PASSED: "passed", FAILED: "failed", NOT_RUN: "not-run"}
    line = json.dumps({"status": names[status], "why": why, "figures": figures}, default=str)
    sys.stdout.flush()
    with open(result, "w", encoding="utf-8") as out:
        out.write(line + "\n")
    sys.stderr.flush()
    os._exit(status)  # a driver's exit handlers cannot change what was said


def _outcome(check, options):
    try:
        why, figures = check(options)
    except NotRun as reason:
        return NOT_RUN, str(reason), reason.figures
    except Failed as reason:
        return FAILED, str(reason), reason.figures
    except BaseException as error:  # a check that breaks off has failed, and says where
        traceback.print_exc()
        short = no_memory(error) or incomplete_toolkit(str(error))
        if short:
            return NOT_RUN, short, {}
        return FAILED, _told(error), {}
    return PASSED, why, figures


def _told(error):
    """An unexpected error in one line: its kind, its words, the place in the check program."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 600 else text[:300] + " … " + text[-300:]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "_check.py" not in f.filename]
    place = f" ({os.path.basename(frames[0].filename)}:{frames[0].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"


def no_memory(error):
    """Why an allocation failed, when the GPU was as good as full before; None otherwise.

    With memory to spare a small check that runs out of it is a failure of the stack.
    """
    if "out of memory" not in str(error).lower():
        return None
    torch = sys.modules.get("torch")
    try:
        free, total = torch.cuda.mem_get_info()
    except Exception:  # the context itself could not be made
        return (
            "the GPU has no memory left for a CUDA context: " + " ".join(str(error).split())[:200]
        )
    # What this process holds itself is not somebody else's.
    free += torch.cuda.memory_reserved()
    if free >= ENOUGH_MEMORY:
        return None
    return f"the GPU's memory is taken: {free >> 20} MiB of {total >> 20} MiB free"


def incomplete_toolkit(text):
    """What of the CUDA toolkit is missing by a compiler's words; None where they say no such thing.

    nvcc alone (as a package, say) comes without cuBLAS's headers: nothing compiles then, whatever
    the stack is.
    """
    for missing in (TOOLKIT_HEADER, TOOLKIT_LIBRARY):
        found = missing.search(text)
        if found:
            return f"the CUDA toolkit here is not whole: {found[1]} is missing"
    return None


# --- where it runs ------------------------------------------------------------------------------


def target(arch):
    """The target that kernels for the arch are compiled for: `121a`."""
    return ARCHS[arch][1]


def find_nvcc():
    """The nvcc that FlashInfer would take (flashinfer/jit/cpp_ext.py), or None."""
    named = os.environ.get("FLASHINFER_NVCC")
    if named:
        return shutil.which(named)
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if home:
        return shutil.which(os.path.join(home, "bin", "nvcc"))
    return shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def gpu(arch):
    """torch, on a GPU that is the arch. Raises NotRun: no torch, no GPU, or one of another arch."""
    try:
        import torch
    except ImportError as error:
        raise NotRun(f"torch cannot be imported: {error}") from error
    if torch.version.cuda is None:
        raise NotRun(f"torch {torch.__version__} is built without CUDA")
    if not torch.cuda.is_available():
        raise NotRun(f"no GPU that torch can use: {cuda_trouble(torch)}")
    capability = torch.cuda.get_device_capability()
    if tuple(capability) != ARCHS[arch][0]:
        there = f"sm{capability[0]}{capability[1]}"
        raise NotRun(f"the GPU here is {there} ({torch.cuda.get_device_name()}), not {arch}")
    if find_nvcc() is None:
        raise NotRun("no nvcc: FlashInfer compiles its kernels when they are first used")
    if importlib.util.find_spec("numpy") is None:
        raise NotRun("numpy, which judges the numbers, is not installed")
    return torch


def fp4_gpu(arch):
    """As `gpu`, for a check that needs FP4 tensor cores."""
    if not ARCHS[arch][2]:
        raise NotRun(f"{arch} has no FP4 instructions; they begin with sm100")
    return gpu(arch)


def cuda_trouble(torch):
    """Why torch sees no GPU, in the driver's words: no driver, an old one, none visible."""
    try:
        torch.cuda.init()
    except Exception as error:
        return " ".join(str(error).split())[:400]
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "no device" + (f" (CUDA_VISIBLE_DEVICES={hidden})" if hidden is not None else "")


# --- what is installed ---------------------------------------------------------------------------


def imported(module, distribution):
    """Figures of an imported package. Raises Failed where no distribution brought it, where it
    calls itself another version than that one, and where another was asked for (SMOKE_VERSION)."""
    try:
        installed = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise Failed(f"no distribution installed {module.__file__}") from error
    figures = {"version": installed, "folder": os.path.dirname(module.__file__)}
    told = getattr(module, "__version__", installed)
    if told != installed:
        raise Failed(f"the distribution is {installed}, the package says {told}", **figures)
    wanted = os.environ.get("SMOKE_VERSION")
    if wanted and wanted != installed:
        raise Failed(f"{distribution} {installed} is imported, not {wanted}", **figures)
    return figures


def flashinfer_as_asked_for(distribution, figures):
    """Add to the figures which FlashInfer the distribution requires and which one is there.

    Raises Failed where it is missing or of another release; a patched one is of its release.
    """
    for text in importlib.metadata.requires(distribution) or ():
        pin = re.match(r"flashinfer[-_]python(?:\[[^]]*\])?\s*==\s*([^\s;]+)", text)
        if not pin or "extra ==" in text:
            continue
        figures["asks_for"] = pin[1]
        try:
            figures["flashinfer"] = importlib.metadata.version("flashinfer-python")
        except importlib.metadata.PackageNotFoundError as error:
            raise Failed("flashinfer-python is not installed", **figures) from error
        if figures["flashinfer"].partition("+")[0] != pin[1]:
            raise Failed(
                f"flashinfer {figures['flashinfer']} is installed, {distribution} "
                f"{figures['version']} asks for {pin[1]}",
                **figures,
            )


# --- inputs and outputs ------------------------------------------------------------------------


def normal(options, *shape, salt=0):
    """Fresh standard normal float64 numbers that belong to the seed (numpy)."""
    import numpy

    return numpy.random.default_rng([options.seed, salt]).standard_normal(shape)


def to_gpu(torch, array, dtype):
    """(tensor on the GPU, the same values after rounding to dtype, as float64 in numpy)."""
    rounded = torch.from_numpy(array).to(dtype)
    return rounded.to("cuda"), rounded.double().numpy()


def from_gpu(tensor):
    """A tensor as float64 in numpy."""
    return tensor.detach().double().cpu().numpy()


def poisoned(torch, shape, dtype):
    """An output to be written: every element is NaN."""
    return torch.full(shape, float("nan"), dtype=dtype, device="cuda")


@contextlib.contextmanager
def poisoned_memory(torch):
    """Inside, every `torch.empty` is filled with NaN, so that a kernel's own output is too.

    Raises Failed when that does not take: a check that cannot see an unwritten output is none.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        if not torch.empty(64, device="cuda").isnan().all():
            raise Failed("torch does not poison fresh memory: an unwritten output would be missed")
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


# --- judging -----------------------------------------------------------------------------------


def judge(got, want, tolerance):
    """Figures of a result that agrees with its reference; raises Failed for one that does not.

    got, want: arrays of one shape; want in float64. Rows are along the last axis. tolerance: the
    largest relative error (norm of the difference over norm of the reference) that a row may have:
    for each row, so that one bad row is not averaged away by the good ones.
    """
    import numpy

    got = numpy.asarray(got, dtype=numpy.float64)
    want = numpy.asarray(want, dtype=numpy.float64)
    if got.shape != want.shape:
        raise Failed(f"the result has the shape {got.shape}, not {want.shape}")
    if want.size == 0 or not numpy.isfinite(want).all() or not want.any():
        raise Failed("the reference itself is empty, all zeros or not finite: the check is broken")
    rows = got.reshape(-1, got.shape[-1])
    right = want.reshape(rows.shape)
    figures = {"values": int(got.size), "tolerance": tolerance}

    bad = ~numpy.isfinite(rows)
    figures["not_finite"] = int(bad.sum())
    if bad.any():
        where = _which(bad.any(axis=1))
        raise Failed(
            f"{int(bad.sum())} of {got.size} values are not finite, or were never written: {where}",
            **figures,
        )
    if not rows.any():
        raise Failed("the result is all zeros", **figures)
    empty = ~rows.any(axis=1) & right.any(axis=1)
    figures["zero_rows"] = int(empty.sum())
    if empty.any():
        raise Failed(f"whole rows are zero: {_which(empty)}", **figures)

    difference = rows - right
    norms = numpy.sqrt((right**2).sum(axis=1))
    norms[norms == 0] = 1.0
    by_row = numpy.sqrt((difference**2).sum(axis=1)) / norms
    figures["relative_error"] = float(
        numpy.sqrt((difference**2).sum()) / numpy.sqrt((right**2).sum())
    )
    figures["worst_row_error"] = float(by_row.max())
    figures["worst_difference"] = float(numpy.abs(difference).max())
    wrong = by_row > tolerance
    if wrong.any():
        raise Failed(
            f"relative error {by_row.max():.3g} is above {tolerance:g}: {_which(wrong)}", **figures
        )
    return figures


def _which(rows):
    """`row 3`, or `5 of 64 rows, the first is 3`."""
    numbers = [int(n) for n in rows.nonzero()[0]]
    if len(numbers) == 1:
        return f"row {numbers[0]} of {rows.size}"
    return f"{len(numbers)} of {rows.size} rows, the first is row {numbers[0]}"


# The values of the 4-bit format e2m1, by code; bit 3 is the sign.
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def e2m1(packed):
    """The values of packed 4-bit numbers (numpy uint8, low half first): twice as many columns."""
    import numpy

    table = numpy.array([*E2M1, *(-value for value in E2M1)])
    packed = numpy.asarray(packed, dtype=numpy.uint8)
    return table[numpy.stack([packed & 15, packed >> 4], axis=-1)].reshape(*packed.shape[:-1], -1)


def e4m3(codes):
    """The values of 8-bit floats e4m3 (numpy uint8): no infinity, 0x7f and 0xff are NaN."""
    import numpy

    codes = numpy.asarray(codes, dtype=numpy.uint8).astype(numpy.int64)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    size = numpy.where(
        exponent == 0,
        mantissa * 2.0**-9,
        (1 + mantissa / 8.0) * 2.0 ** (exponent.astype(numpy.float64) - 7),
    )
    size = numpy.where((codes & 0x7F) == 0x7F, numpy.nan, size)
    return numpy.where(codes >> 7 == 1, -size, size)


def nvfp4_values(packed, scales, global_scale):
    """What NVFP4 numbers stand for: e2m1 × the e4m3 scale of its 16 neighbours ÷ the global scale.

    packed: (rows, columns/2). scales: (rows, columns/16), linear, not swizzled.
    """
    import numpy

    values = e2m1(packed)
    return values * numpy.repeat(e4m3(scales), 16, axis=-1) / global_scale
