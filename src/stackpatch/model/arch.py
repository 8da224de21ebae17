"""GPU architectures as values, and the rule which code runs on which device.

Sources, read 2026-11-21: `ptxas --help` of the PyPI nvcc wheels 12.8 to 13.5 for targets and the
minimum toolkit; `ptxas` 13.0 itself, given every PTX version and pair of targets, for the oldest
PTX ISA and for the `f` families; CCCL's `cuda/__device/arch_traits.h` (in FlashInfer 0.7.2.post1's
sdist) and CUTLASS's `sm1xx_smem_capacity_bytes` for shared memory per block: what a multiprocessor
has less 1 KiB that the system keeps.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Self

from stackpatch.errors import InputError

_TARGET = re.compile(r"(sm|compute|lto)_(\d{2,3})([af]?)")

# Family targets: code built for `sm_<first>f` runs on the listed capabilities at or after its
# own. 10.x splits in two families (CUDA 12.9 notes): 100/103 and 110 (which was 101 before 13.0).
_FAMILIES: tuple[tuple[int, ...], ...] = ((100, 103), (110,), (120, 121))

# Tegra parts: the CUDA C++ Programming Guide takes them out of binary compatibility, among each
# other and with the desktop. That 8.8 is one is not documented; nothing says that its code runs
# elsewhere either, and a wrong "runs" costs more than a wrong "does not".
_ALONE = frozenset({53, 62, 72, 87, 88})


@dataclass(frozen=True, slots=True, order=True)
class CodeArch:
    """One target that GPU code was compiled for: `sm_121a` (machine code) or `compute_90` (PTX).

    number: compute capability without the dot, 121 for 12.1. suffix: "", "a" or "f".
    """

    number: int
    suffix: str = ""
    ptx: bool = False

    def __str__(self) -> str:
        return f"{'compute' if self.ptx else 'sm'}_{self.number}{self.suffix}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """From nvcc's spelling: `sm_121a`, `compute_120f`. Raises ValueError."""
        found = _TARGET.fullmatch(text)
        if not found:
            msg = f"not a GPU target: {text!r} (want sm_NNN or compute_NNN with an optional a or f)"
            raise ValueError(msg)
        return cls(int(found[2]), found[3], found[1] == "compute")

    def runs_on(self, capability: int) -> bool:
        """Whether a device of this compute capability (121 for 12.1) can run the code.

        Plain machine code: same major, minor not above the device's, and Tegra's only on itself.
        `a`: exactly this device. `f`: this device and later ones of its family. Plain PTX: every
        later device, by the driver's JIT; PTX with a suffix is bound like machine code with it.
        """
        if self.suffix == "a":
            return self.number == capability
        if self.suffix == "f":
            family = next((f for f in _FAMILIES if self.number in f), (self.number,))
            return capability in family and capability >= self.number
        if self.ptx:
            return capability >= self.number
        if self.number != capability and {self.number, capability} & _ALONE:
            return False
        return self.number // 10 == capability // 10 and capability >= self.number


@dataclass(frozen=True, slots=True)
class Arch:
    """One GPU architecture that a recipe can target.

    shared_memory: bytes a block may use at most (opt-in). min_cuda: oldest toolkit that knows the
    arch-specific target. platform: the OCI platform of its machines as we build for them.
    ptx_isa: oldest PTX ISA version with the arch-specific target.
    """

    name: str
    major: int
    minor: int
    platform: str
    min_cuda: str
    shared_memory: int
    ptx_isa: str
    products: tuple[str, ...]

    @property
    def capability(self) -> int:
        """121 for compute capability 12.1."""
        return self.major * 10 + self.minor

    @property
    def target(self) -> str:
        """The arch-specific target, `sm_121a`; plain for sm89, which has none."""
        return f"sm_{self.capability}{'a' if self.capability >= 90 else ''}"

    @property
    def family(self) -> str | None:
        """The family target that covers it, `sm_120f` for sm120 and sm121; None before sm100."""
        return next((f"sm_{f[0]}f" for f in _FAMILIES if self.capability in f), None)

    @property
    def dotted(self) -> str:
        """`12.1`."""
        return f"{self.major}.{self.minor}"

    def runs(self, code: CodeArch) -> bool:
        """Whether this arch can run code built for `code` (PTX: through the driver's JIT)."""
        return code.runs_on(self.capability)


_KIB = 1024
ARCHES: dict[str, Arch] = {
    arch.name: arch
    for arch in (
        Arch("sm89", 8, 9, "linux/amd64", "11.8", 99 * _KIB, "7.8", ("RTX 4090", "L40S")),
        Arch("sm90", 9, 0, "linux/amd64", "12.0", 227 * _KIB, "8.0", ("H100", "H200", "GH200")),
        Arch("sm100", 10, 0, "linux/amd64", "12.8", 227 * _KIB, "8.6", ("B200", "GB200")),
        Arch("sm103", 10, 3, "linux/amd64", "12.9", 227 * _KIB, "8.8", ("B300", "GB300")),
        Arch("sm110", 11, 0, "linux/arm64", "13.0", 227 * _KIB, "9.0", ("Jetson Thor",)),
        Arch("sm120", 12, 0, "linux/amd64", "12.8", 99 * _KIB, "8.7", ("RTX 5090", "RTX PRO 6000")),
        Arch("sm121", 12, 1, "linux/arm64", "12.9", 99 * _KIB, "8.8", ("DGX Spark (GB10)",)),
    )
}


def parse_arch(name: str, *, where: str | None = None) -> Arch:
    """The arch of that name. Raises InputError that names the nearest right one."""
    known = ARCHES.get(name)
    if known:
        return known
    plain = re.sub(r"[^0-9a-z]", "", name.lower())
    plain = re.sub(r"^(compute|sm)?(\d{2,3})[af]?$", r"sm\2", plain)
    near = [plain] if plain in ARCHES else difflib.get_close_matches(plain, ARCHES, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(ARCHES)}"
    msg = f"unknown arch {name!r}"
    raise InputError(msg, hint=hint, where=where)
