"""FlashInfer's FP4 quantisation compiles for the arch with the nvcc at hand; without a GPU.

    python build_fp4_quantization.py --arch sm121

Compiles the package's own `quantization.cu` with FlashInfer's flags, reads the architecture out of
the code that came out, and then compiles it once more for the plain target (sm_121 instead of
sm_121a): that must be refused, for the plain target has no FP4 instructions. A check in which both
pass has not compiled the FP4 code at all.
"""

import glob
import importlib.util
import os
import subprocess
import tempfile

import _check

SOURCE = "nv_internal/cpp/kernels/quantization.cu"
DEFINES = (
    *(f"-DFLASHINFER_ENABLE_{name}" for name in ("F16", "BF16", "FP8_E4M3", "FP8_E5M2")),
    *(f"-DFLASHINFER_ENABLE_{name}" for name in ("FP8_E8M0", "FP4_E2M1")),
    *("-DENABLE_BF16", "-DENABLE_FP8", "-DENABLE_FP4", "-DNDEBUG"),
)
FLAGS = (
    *("-std=c++17", "--threads=1", "-use_fast_math", "-O3"),
    *("--expt-relaxed-constexpr", "-static-global-template-stub=false"),
)
# What the source includes and some toolkits come without, with what it uses of each.
STATUSES = (
    *("SUCCESS", "NOT_INITIALIZED", "ALLOC_FAILED", "INVALID_VALUE", "ARCH_MISMATCH"),
    *("MAPPING_ERROR", "EXECUTION_FAILED", "INTERNAL_ERROR", "NOT_SUPPORTED", "LICENSE_ERROR"),
)
STAND_INS = {
    "cublas_v2.h": "typedef enum { %s } cublasStatus_t;\n"
    % ", ".join(f"CUBLAS_STATUS_{name}" for name in STATUSES),
    "cublasLt.h": "",
    "nvrtc.h": "",
    "curand_kernel.h": "",
}
# One that a plain target refuses: ptxas names the FP4 conversion, or a wider FP4 one.
REFUSED = ("e2m1", "not supported on .target")


def check(options):
    nvcc = _check.find_nvcc()
    if nvcc is None:
        raise _check.NotRun("no nvcc on this machine")
    data = os.path.join(_package("flashinfer"), "data")
    csrc = os.path.join(data, "csrc")
    source = os.path.join(csrc, SOURCE)
    if not os.path.isfile(source):
        raise _check.Failed(f"the package has no {source}")
    figures = {"nvcc": _release(nvcc), "source": source}
    target = _check.target(options.arch)
    if f"compute_{target}" not in _known(nvcc) and f"compute_{target[:-1]}" not in _known(nvcc):
        raise _check.NotRun(f"nvcc {figures['nvcc']} knows no sm_{target}", **figures)
    include = [
        *_tvm_ffi(),
        os.path.join(data, "include"),
        csrc,
        os.path.join(data, "cutlass", "include"),
        os.path.join(data, "cutlass", "tools", "util", "include"),
        os.path.join(data, "spdlog", "include"),
    ]
    with tempfile.TemporaryDirectory(prefix="smoke-build-") as folder:
        common = [nvcc, "-cubin", *FLAGS, *DEFINES]
        for name in ("cub", "libcudacxx/include", "thrust"):
            inner = os.path.join(data, "cccl", name)
            if os.path.isdir(inner):
                common += ["-I", inner]
        for name in ("nv_internal", "nv_internal/include"):
            common += ["-I", os.path.join(csrc, name)]
        for path in include:
            common += ["-isystem", path]
        common += _headers([nvcc], folder, figures)
        out = os.path.join(folder, "out.cubin")
        done = _compile(common, target, source, out, folder)
        if done.returncode != 0:
            raise _check.Failed(f"does not compile for sm_{target}: {_errors(done)}", **figures)
        figures["cubin_bytes"] = os.path.getsize(out)
        figures["cubin"] = _architecture(out)
        wanted = target.rstrip("af")
        if figures["cubin"] != f"sm_{wanted}":
            raise _check.Failed(
                f"the compiled code is {figures['cubin']}, not sm_{wanted}", **figures
            )
        if not _check.ARCHS[options.arch][2]:
            return f"compiles for sm_{target}, without the FP4 code that {options.arch} lacks", (
                figures
            )
        plain = _compile(common, wanted, source, os.path.join(folder, "plain.cubin"), folder)
    said = plain.stdout + plain.stderr
    if plain.returncode == 0:
        raise _check.Failed(
            f"compiles for plain sm_{wanted} too, which has no FP4 instructions: the FP4 code was "
            "not compiled",
            **figures,
        )
    if not all(word in said for word in REFUSED):
        raise _check.Failed(
            f"plain sm_{wanted} fails for another reason than FP4: {_errors(plain)}", **figures
        )
    figures["plain"] = _errors(plain)
    return f"compiles for sm_{target}, and plain sm_{wanted} is refused as it must be", figures


def _package(name):
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise _check.Failed(f"{name} is not installed")
    return list(spec.submodule_search_locations)[0]


def _tvm_ffi():
    """The headers of apache-tvm-ffi, which FlashInfer's sources include."""
    spec = importlib.util.find_spec("tvm_ffi")
    if spec is None or not spec.submodule_search_locations:
        raise _check.NotRun("apache-tvm-ffi is not installed; FlashInfer's sources include it")
    folder = list(spec.submodule_search_locations)[0]
    found = [os.path.join(folder, "include"), os.path.join(folder, "3rdparty/dlpack/include")]
    return [path for path in found if os.path.isdir(path)]


def _headers(common, folder, figures):
    """Include flags for headers that this toolkit lacks: from Python packages, else our stand-ins.

    quantization.cu includes them and needs no more than the stand-ins have; FlashInfer's own
    build of other modules needs the real ones.
    """
    question = os.path.join(folder, "question.cu")
    with open(question, "w", encoding="utf-8") as file:
        for name in STAND_INS:
            file.write(f'#if !__has_include(<{name}>)\n"lacks {name}"\n#endif\n')
    asked = subprocess.run([*common, "-E", question], capture_output=True, text=True, timeout=120)
    lacking = [name for name in STAND_INS if f'"lacks {name}"' in asked.stdout]
    places = []
    spec = importlib.util.find_spec("nvidia")
    for base in spec.submodule_search_locations if spec else ():
        places += sorted(glob.glob(os.path.join(base, "*", "include")))
    flags = []
    for name in lacking:
        found = [place for place in places if os.path.isfile(os.path.join(place, name))]
        if found:
            flags += ["-isystem", found[0]]
            continue
        figures.setdefault("headers_missing", []).append(name)
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write("#pragma once\n" + STAND_INS[name])
    return [*flags, "-isystem", folder]


def _compile(common, target, source, out, folder):
    argv = [*common, f"-gencode=arch=compute_{target},code=sm_{target}", source, "-o", out]
    return subprocess.run(
        argv, capture_output=True, text=True, errors="replace", cwd=folder, check=False
    )


def _errors(done):
    """The first line that names an error, else the last one."""
    lines = [" ".join(line.split()) for line in (done.stderr + done.stdout).splitlines()]
    lines = [line for line in lines if line]
    named = [line for line in lines if "error" in line.lower()]
    return (named or lines[-1:] or [f"status {done.returncode}"])[0][-400:]


def _known(nvcc):
    done = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, timeout=60)
    return done.stdout.split()


def _release(nvcc):
    done = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=60)
    words = done.stdout.replace(",", " ").split()
    return words[words.index("release") + 1] if "release" in words else None


def _architecture(cubin):
    """The target in a cubin's ELF header, e_flags: bits 8 to 15 from ABI version 8 on."""
    with open(cubin, "rb") as file:
        header = file.read(64)
    if header[:4] != b"\x7fELF" or header[18:20] != b"\xbe\x00":  # EM_CUDA
        return "not a cubin"
    flags = int.from_bytes(header[48:52], "little")
    return f"sm_{flags >> 8 & 255 if header[8] >= 8 else flags & 255}"


if __name__ == "__main__":
    _check.main(check, __doc__)
