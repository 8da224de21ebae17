"""The CUDA files out of the patch that ships them, and what compiles them.

The patch is the only place where the files are kept: it adds them whole, so that they can be taken
out of it without git.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from enum import Enum
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = "cpp/tensorrt_llm/kernels/nvfp4Kv"
_NEW_FILE = re.compile(
    r"^diff --git a/\S+ b/(?P<path>\S+)\nnew file mode 100644\nindex [0-9.a-f]+\n"
    r"--- /dev/null\n\+\+\+ b/(?P=path)\n@@ -0,0 \+1(?:,(?P<lines>\d+))? @@\n",
    re.MULTILINE,
)


class Switch(Enum):
    """How device code converts float to E4M3: NVFP4_KV_FP8_CVT."""

    SOFTWARE = 0
    CHOSEN = 1
    INSTRUCTION = 2


def the_patch() -> Path:
    """The newest shipped patch that adds the files."""
    found = sorted((ROOT / "patches" / "trtllm").glob("*/*NVFP4-KV-caches*.patch"))
    if not found:
        msg = f"no patch below {ROOT / 'patches' / 'trtllm'} adds {FOLDER}"
        raise FileNotFoundError(msg)
    return found[-1]


def unpack(to: Path, patch: Path | None = None) -> Path:
    """Write the files that the patch adds below `to`; the folder with the CUDA sources."""
    text = (patch or the_patch()).read_text(encoding="utf-8")
    for match in _NEW_FILE.finditer(text):
        count = int(match["lines"] or 1)
        lines = text[match.end() :].split("\n")[:count]
        if len(lines) < count or any(not line.startswith("+") for line in lines):
            msg = f"{patch or the_patch()}: {match['path']} is cut short"
            raise ValueError(msg)
        target = to / match["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(f"{line[1:]}\n" for line in lines), encoding="utf-8")
    return to / FOLDER


def compile_host(folder: Path, to: Path, *, compiler: str | None = None) -> Path:
    """The library of the host's code."""
    target = to / "libnvfp4host.so"
    # Products and quotients must be rounded one by one, on machines with a fused product too.
    argv = [
        compiler or find_compiler(),
        "-std=c++17",
        "-O3",
        "-ffp-contract=off",
        "-shared",
        "-fPIC",
    ]
    argv += ["-Wall", "-Wextra", "-Werror", f"-I{folder}", f"-I{HERE}"]
    subprocess.run([*argv, str(HERE / "host.cpp"), "-o", str(target)], check=True)
    return target


def device_command(
    nvcc: str, folder: Path, target: Path, arch: str, switch: Switch, *more: str
) -> list[str]:
    """How the library of the GPU's code is compiled. arch: `90a`, `121a`."""
    argv = [nvcc, "-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC", "-cudart", "static"]
    argv += [f"-gencode=arch=compute_{arch},code=sm_{arch}", f"-DNVFP4_KV_FP8_CVT={switch.value}"]
    argv += ["-Werror", "all-warnings", f"-I{folder}", f"-I{HERE}", *more]
    return [*argv, str(HERE / "device.cu"), str(folder / "nvfp4KvKernels.cu"), "-o", str(target)]


def find_nvcc() -> str | None:
    """nvcc of PATH, else where NVIDIA's packages put it."""
    usual = Path("/usr/local/cuda/bin/nvcc")
    return shutil.which("nvcc") or (str(usual) if usual.is_file() else None)


def find_compiler() -> str:
    """The host's C++ compiler."""
    return next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), "c++")
