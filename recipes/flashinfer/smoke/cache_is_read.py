"""What runs is compiled from the installed sources: not prebuilt, not stale. Changes one to see.

    FLASHINFER_CUDA_ARCH_LIST=12.1a python cache_is_read.py --arch sm121

Three questions to FlashInfer's JIT, about its module `norm`:

1. Does a prebuilt module win over the sources (flashinfer-jit-cache, data/aot)?
2. Is the GPU code in the user's cache what the installed sources give? They are compiled once more
   into an empty cache; equal sources and an equal nvcc give equal GPU code. Ninja looks at time
   stamps only, so that a package whose files are older than the cache is not compiled again
   (https://github.com/flashinfer-ai/flashinfer/issues/4489).
3. Does a changed source change what runs? A copy of the sources gets `eps + 3` where `norm.cuh`
   has `eps`: its GPU code must differ, and on a GPU it must compute that other number.

Nothing in the installed package is changed. Without a GPU the three answers are the code's; with
one, the numbers' too.
"""

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile

import _check

MODULE = "norm"
HEADER = os.path.join("flashinfer", "norm.cuh")
BEFORE, AFTER = " + eps)", " + eps + 3.0f)"
TOLERANCE = 5e-3


def check(options):
    if _check.find_nvcc() is None:
        raise _check.NotRun("no nvcc: FlashInfer compiles its kernels when they are first used")
    figures = {"seed": options.seed}
    with tempfile.TemporaryDirectory(prefix="smoke-cache-") as folder:
        used = _ask("used", options, folder)
        figures["module"] = used["path"]
        figures["version"] = used["version"]
        if used["prebuilt"]:
            raise _check.Failed(
                f"a prebuilt module is loaded instead of the sources: {used['path']}", **figures
            )
        fresh = _ask("fresh", options, folder)
        figures["gpu_code_sha256"] = used["code"]
        figures["gpu_code_of_sources_sha256"] = fresh["code"]
        if used["code"] != fresh["code"]:
            raise _check.Failed(
                f"the GPU code in the cache is not what the installed sources give: {used['path']} "
                "is stale, or another nvcc made it (`stackpatch cache clear flashinfer`)",
                **figures,
            )
        # Only now is it loaded: a damaged module may take its process with it.
        ran = _ask("used", options, folder, run=True)
        if ran["loaded"] and os.path.realpath(ran["loaded"]) != os.path.realpath(ran["path"]):
            raise _check.Failed(f"the process loaded {ran['loaded']}, not {ran['path']}", **figures)
        sources = os.path.join(folder, "sources")
        copied = _ask("copied", options, folder, sources)
        _change(os.path.join(sources, "include", HEADER))
        changed = _ask("changed", options, folder, sources, run=ran["eps"] is not None)
    figures["gpu_code_of_changed_sources_sha256"] = changed["code"]
    if changed["code"] == copied["code"]:
        raise _check.Failed("the source was changed and the GPU code stayed the same", **figures)
    if ran["eps"] is None:
        return f"by the GPU code; no number: {ran['no_gpu']}", figures
    figures["eps"] = {"used": ran["eps"], "changed": changed["eps"]}
    if not abs(ran["eps"]) < 0.05:
        raise _check.Failed(f"the kernel computes with eps {ran['eps']:.3g}, not 1e-6", **figures)
    if not abs(changed["eps"] - 3) < 0.05:
        raise _check.Failed(
            f"the source says eps + 3, what ran computes with eps + {changed['eps']:.3g}", **figures
        )
    return "the sources are what runs: changed to eps + 3, the kernel computes with it", figures


def _change(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if BEFORE not in text:
        raise _check.NotRun(f"{path} has no `{BEFORE.strip()}` to change in this release")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace(BEFORE, AFTER))


def _ask(what, options, folder, sources="", run=False):
    """What a process of its own finds, since FlashInfer reads its folders when it is imported.

    used: the user's cache. fresh, and copied with changed: two empty caches. sources: a folder
    whose csrc and include stand in for the package's; made if it is not there. run: whether the
    module is also loaded and computes, where a GPU is.
    """
    env = dict(os.environ)
    if what != "used":
        cache = os.path.join(folder, "cache-fresh" if what == "fresh" else "cache-copy")
        os.makedirs(cache, exist_ok=True)
        env["FLASHINFER_WORKSPACE_BASE"] = cache
    argv = [sys.executable, os.path.abspath(__file__), "--answer", options.arch, str(options.seed)]
    done = subprocess.run(
        [*argv, sources, "run" if run else "build"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=False,
    )
    said = done.stdout.decode("utf-8", "replace").splitlines()
    if done.returncode != 0 or not said:
        errors = done.stderr.decode("utf-8", "replace").strip()
        sys.stderr.write(errors + "\n")
        missing = _check.incomplete_toolkit(errors)
        if missing:
            raise _check.NotRun(missing)
        lines = [line for line in errors.splitlines() if line.strip()]
        named = [line for line in lines if "error" in line.lower()]
        short = (named or lines or [f"status {done.returncode}"])[-1][:400]
        raise _check.Failed(f"{'running' if run else 'compiling'} {MODULE} ({what}): {short}")
    return json.loads(said[-1])


def answer(arch, seed, sources, run):
    """In the process of `_ask`: build (with `run` on a GPU: and run) the module; what it is."""
    result = os.dup(1)
    os.dup2(2, 1)
    import flashinfer
    from flashinfer.jit import env as places
    from flashinfer.jit.norm import gen_norm_module

    if sources:
        for name, variable in (
            ("csrc", "FLASHINFER_CSRC_DIR"),
            ("include", "FLASHINFER_INCLUDE_DIR"),
        ):
            copy = os.path.join(sources, name)
            if not os.path.isdir(copy):
                shutil.copytree(getattr(places, variable), copy)
            setattr(places, variable, type(places.FLASHINFER_CSRC_DIR)(copy))
    spec = gen_norm_module()
    found = {
        "version": flashinfer.__version__,
        "prebuilt": bool(spec.is_aot),
        "path": str(spec.get_library_path()),
        "loaded": None,
        "code": None,
        "eps": None,
        "no_gpu": None,
    }
    torch = None
    if run:
        try:
            torch = _check.gpu(arch)
        except _check.NotRun as reason:
            found["no_gpu"] = str(reason)
    if not found["prebuilt"]:
        if torch is None:
            spec.build(verbose=False)
        else:
            module = spec.build_and_load()
            found["loaded"] = _mapped(f"{MODULE}.so")
            found["eps"] = _eps(torch, module, seed)
        found["code"] = gpu_code(found["path"])
    with open(result, "w", encoding="utf-8") as out:
        out.write(json.dumps(found) + "\n")
    sys.stderr.flush()
    os._exit(0)


def _mapped(name):
    """The file of that name that this process has mapped (Linux): what was really loaded."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            paths = {line.split(None, 5)[5].strip() for line in file if line.count("/")}
    except OSError:
        return None
    found = sorted(path for path in paths if os.path.basename(path) == name)
    return found[0] if found else None


def _eps(torch, module, seed):
    """The eps that the kernel computes with, from its result: mean square of (x·w/y) less x's."""
    import numpy

    x64 = numpy.random.default_rng(seed).standard_normal((16, 1024))
    x = torch.from_numpy(x64).to("cuda", torch.bfloat16)
    weight = torch.ones(1024, device="cuda", dtype=torch.bfloat16)
    out = _check.poisoned(torch, x.shape, x.dtype)
    module.rmsnorm(out, x, weight, 1e-6, False)
    x64, y64 = _check.from_gpu(x), _check.from_gpu(out)
    if not numpy.isfinite(y64).all():
        return float("nan")
    # y = x / sqrt(mean(x²) + eps), so (|x|/|y|)² = mean(x²) + eps for each row
    ratio = (numpy.linalg.norm(x64, axis=1) / numpy.linalg.norm(y64, axis=1)) ** 2
    return float((ratio - (x64**2).mean(axis=1)).mean())


def gpu_code(path):
    """sha256 of the GPU code in a shared library: its ELF section .nv_fatbin."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:6] != b"\x7fELF\x02\x01":
        raise _check.Failed(f"{path} is no 64-bit ELF file")
    table, size, count, names = struct.unpack_from("<Q10xHHH", data, 40)
    sections = [struct.unpack_from("<II8x8xQQ", data, table + n * size) for n in range(count)]
    strings = sections[names][2]
    for name, _, start, length in sections:
        if data[strings + name : data.index(b"\0", strings + name)] == b".nv_fatbin":
            return hashlib.sha256(data[start : start + length]).hexdigest()
    raise _check.Failed(f"{path} has no GPU code")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--answer"]:
        answer(sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5] == "run")
    else:
        _check.main(check, __doc__)
