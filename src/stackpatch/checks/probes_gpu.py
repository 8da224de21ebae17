"""What `doctor` finds of CUDA: the compiler, and GPUs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from packaging.version import Version

from stackpatch import proc
from stackpatch.checks.answers import unread, version_in
from stackpatch.checks.doctor import Finding, Level
from stackpatch.model.arch import ARCHES


def nvcc(timeout: float) -> Finding:
    """The CUDA compiler, and which of our arches it can target."""
    name = "nvcc"
    program = proc.find("nvcc") or _toolkit_nvcc()
    if program is None:
        return Finding(
            name,
            Level.ABSENT,
            good_for="not needed to build: FlashInfer compiles where it runs",
            advice="install the CUDA toolkit, 12.9 or newer for sm121, to try a compile here",
        )
    done = proc.run((program, "--version"), timeout=timeout, check=False)
    version = version_in(done, r"release ")
    if version is None:
        return unread(name, "nvcc --version", done)
    listed = proc.run((program, "--list-gpu-code"), timeout=timeout, check=False)
    targets = set(re.findall(r"sm_(\d+)", listed.text()))
    can = [
        arch.name
        for arch in ARCHES.values()
        if Version(version) >= Version(arch.min_cuda)
        and (not targets or str(arch.capability) in targets)
    ]
    cannot = [
        f"{arch.name} (needs {arch.min_cuda})" for arch in ARCHES.values() if arch.name not in can
    ]
    return Finding(
        name,
        Level.LIMITED if cannot else Level.OK,
        found=True,
        version=version,
        good_for=f"compiling for {', '.join(can) or 'none of our arches'}",
        detail=f"{program}" + (f"; not {', '.join(cannot)}" if cannot else ""),
        advice="install CUDA 13 for all of them" if cannot else None,
    )


def gpu(timeout: float) -> Finding:
    """GPUs of this machine; none is fine, builds and audits need none."""
    name = "gpu"
    absent = Finding(
        name,
        Level.ABSENT,
        good_for="everything but the smoke checks that compute on a GPU",
    )
    if proc.find("nvidia-smi") is None:
        return absent
    query = ("--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")
    done = proc.run(("nvidia-smi", *query), timeout=timeout, check=False)
    if done.status != 0:
        why = (done.error_text() or done.text().strip()).splitlines()
        return Finding(
            name,
            Level.UNUSABLE,
            good_for=absent.good_for,
            detail=f"nvidia-smi: {why[-1] if why else f'status {done.status}'}",
            advice="check the driver",
        )
    devices, driver = [], None
    for line in done.text().splitlines():
        fields = [field.strip() for field in line.rsplit(",", 2)]
        if len(fields) != 3 or not re.fullmatch(r"\d+\.\d+", fields[1]):
            continue
        capability = int(fields[1].replace(".", ""))
        arch = next((a.name for a in ARCHES.values() if a.capability == capability), None)
        devices.append((fields[0], fields[1], arch))
        driver = fields[2]
    if not devices:
        return absent if not done.text().strip() else unread(name, "nvidia-smi", done)
    known = sorted({arch for _, _, arch in devices if arch})
    return Finding(
        name,
        Level.OK if known else Level.LIMITED,
        found=True,
        version=f"driver {driver}",
        good_for=f"smoke checks on {', '.join(known)}" if known else "no smoke check of our arches",
        detail="; ".join(f"{device}, compute capability {cap}" for device, cap, _ in devices),
    )


def _toolkit_nvcc() -> Path | None:
    """nvcc where a toolkit puts it without being on PATH."""
    for base in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"):
        if base and os.access(Path(base) / "bin" / "nvcc", os.X_OK):
            return Path(base) / "bin" / "nvcc"
    return None
