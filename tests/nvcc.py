"""A CUDA compiler for tests: the one on PATH, else NVIDIA's packages from the package index.

$STACKPATCH_TEST_NVCC=index takes the packages in any case.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

from tests.conftest import TEST_CACHE, fetch_artefact

# Compiler, its code generator, its headers, the CUDA headers, and <nv/target>.
_WHEELS = {
    "x86_64": {
        "nvidia_cuda_nvcc-13.0.88-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl": (
            "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03"
        ),
        "nvidia_nvvm-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl": (
            "c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0"
        ),
        "nvidia_cuda_crt-13.0.88-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl": (
            "2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4"
        ),
        "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl": (
            "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548"
        ),
        "nvidia_cuda_cccl-13.0.85-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl": (
            "e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649"
        ),
    },
    "aarch64": {
        "nvidia_cuda_nvcc-13.0.88-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl": (
            "c7ff28f86a24effdc6c034fa15230c549a273e4771b10a7fec14996f8cf3307f"
        ),
        "nvidia_nvvm-13.0.88-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl": (
            "c4376a291d72d22a315d9d2f69bdae8f8cd83a627f75bad395cee49a0fe65dc1"
        ),
        "nvidia_cuda_crt-13.0.88-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl": (
            "ee2ea2a97073e02ee62bb27841f437332be2c248e3eac013df07997ada39c003"
        ),
        "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl": (
            "ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55"
        ),
        "nvidia_cuda_cccl-13.0.85-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl": (
            "6f0203e29fed809ee2b7fe9b1344df66ecab990c37d6a2e0e189b26d6c97ed7c"
        ),
    },
}


def nvcc() -> str:
    """The path of an nvcc that compiles for SM121, 12.9 or newer."""
    found = shutil.which("nvcc")
    if found is not None and os.environ.get("STACKPATCH_TEST_NVCC") != "index":
        told = subprocess.run([found, "--list-gpu-code"], capture_output=True, text=True)
        if "sm_121" in told.stdout.split():
            return found
    return str(_from_index())


def folder() -> Path:
    """Where that compiler has its programs: nvcc on PATH may be a link, or a script."""
    argv = [nvcc(), "--dryrun", "-c", "-x", "cu", os.devnull]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stderr
    here = re.search(r"^#\$ _HERE_=(.+)$", told, re.MULTILINE)
    assert here is not None, told
    return Path(here[1])


def _from_index() -> Path:
    wheels = _WHEELS[platform.machine()]
    unpacked = TEST_CACHE / "nvcc-13.0.88"
    TEST_CACHE.mkdir(parents=True, exist_ok=True)
    with (TEST_CACHE / "nvcc-13.0.88.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (unpacked / "complete").exists():
            shutil.rmtree(unpacked, ignore_errors=True)
            for file, sha256 in wheels.items():
                with zipfile.ZipFile(fetch_artefact(file, sha256)) as archive:
                    archive.extractall(unpacked)
            home = unpacked / "nvidia/cu13"
            for program in [*(home / "bin").iterdir(), *(home / "nvvm/bin").iterdir()]:
                program.chmod(0o755)
            (unpacked / "complete").touch()
        # nvcc.profile looks for the run-time libraries there.
        if not (link := unpacked / "nvidia/cu13/lib64").exists():
            link.symlink_to("lib")
    return unpacked / "nvidia/cu13/bin/nvcc"
