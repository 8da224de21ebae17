"""NVIDIA's cuobjdump as the oracle: which targets it lists in a file."""

from __future__ import annotations

import platform
import re
import subprocess
import zipfile
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from tests.conftest import TEST_CACHE, fetch_artefact

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.checks.scan import Findings

_WHEELS = {
    "x86_64": (
        "nvidia_cuda_cuobjdump-13.5.37-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "38780fee50863252a0b8926357faa91615ca1c8346490563f33a06100cd73f58",
    ),
    "aarch64": (
        "nvidia_cuda_cuobjdump-13.5.37-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
        "f48e3148535365161a268547b285fd01d92c80e4b457275375933825b5fc26b2",
    ),
}
_LISTED = re.compile(r"^(?:ELF|PTX) file +\d+: \S*?\.?(sm_\d+[af]?)\.(cubin|ptx)$", re.MULTILINE)


def program() -> Path:
    """cuobjdump 13.5 from the package index, unpacked once."""
    file, sha256 = _WHEELS[platform.machine()]
    target = TEST_CACHE / sha256 / "unpacked" / "cuobjdump"
    if not target.is_file():
        wheel = fetch_artefact(file, sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            scratch = target.with_suffix(".new")
            scratch.write_bytes(archive.read("nvidia/cu13/bin/cuobjdump"))
        scratch.chmod(0o755)
        scratch.replace(target)
    return target


def listed(path: Path) -> Counter[str] | None:
    """Every image that cuobjdump lists, as `sm_120a` and `compute_90`, with its count.

    None for the few libraries that the host's tools load and cuobjdump 13.5 calls an invalid ELF.
    """
    found: Counter[str] = Counter()
    for option in ("--list-elf", "--list-ptx"):
        done = subprocess.run(
            [program(), "-all", option, path], capture_output=True, text=True, check=False
        )
        for target, kind in _LISTED.findall(done.stdout):
            found[target if kind == "cubin" else target.replace("sm_", "compute_")] += 1
        told = done.stdout + done.stderr
        if "Invalid ELF in" in told:
            return None
        if not _LISTED.search(done.stdout) and "does not contain device code" not in told:
            assert re.search(r"No (ELF|PTX) file found", told), (path, told)
    return found


def as_cuobjdump(found: Findings) -> Counter[str]:
    """Our answer in its words: it calls machine code of a family target plain."""
    counts: Counter[str] = Counter()
    for code, count in found.codes.items():
        name = str(code)
        if name.startswith(("sm_", "compute_")):
            counts[name.removesuffix("f") if name.startswith("sm_") else name] += count
    return counts


def needed(what: str, path: str | None) -> str:
    """A program that the tests cannot do without."""
    if path is None:
        pytest.fail(f"{what} is not on PATH; these tests compare with it and never skip")
    return path
