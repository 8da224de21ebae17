"""Which architecture each stack's build must be told, and values that look right and are not.

Every rule has its reason and where it was read. Sources: FlashInfer 0.7.2.post1's
`compilation_context.py`, vLLM 0.33.0's `cmake/utils.cmake` (run with `cmake -P`), torch 2.15's
`cpp_extension.py`: from PyPI. TensorRT-LLM's `cuda_configuration.cmake` at 1b846046 and 585c7565:
read, not run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackpatch.artefacts.oci import Image
    from stackpatch.model.arch import Arch

FLASHINFER, TORCH, TRTLLM = "FLASHINFER_CUDA_ARCH_LIST", "TORCH_CUDA_ARCH_LIST", "CUDA_ARCHS"
_READ_BY: dict[str, tuple[str, ...]] = {
    "flashinfer": (FLASHINFER,),
    "sglang": (FLASHINFER,),
    "trtllm": (TRTLLM,),
    "vllm": (TORCH, FLASHINFER),
}
_CUDA13 = Version("13")
_F_TOOLKIT = Version("12.9")


@dataclass(frozen=True, slots=True)
class ArchFlags:
    """Build arguments that name the architecture, by name, and why they are as they are."""

    args: Mapping[str, str]
    why: tuple[str, ...]


def arch_flags(stack: str, arch: Arch, cuda: str) -> ArchFlags:
    """What to build a stack with. cuda: the toolkit's version, `13.0`. Raises InputError."""
    toolkit = check_toolkit(arch, cuda)
    names = _READ_BY.get(stack)
    if names is None:
        msg = f"no rules for the architecture flags of {stack!r}"
        raise InputError(msg, hint=f"known: {', '.join(sorted(_READ_BY))}")
    told = {name: _served(name, arch, toolkit) for name in names}
    return ArchFlags(
        {name: value for name, (value, _) in told.items()},
        tuple(f"{name}={value}: {why}" for name, (value, why) in told.items()),
    )


def toolkit_of(image: Image) -> str | None:
    """The toolkit in an image, as NVIDIA's images state it (`CUDA_VERSION`); None where none is."""
    for item in (image.config_json().get("config") or {}).get("Env") or ():
        name, _, value = str(item).partition("=")
        if name == "CUDA_VERSION" and re.fullmatch(r"\d+\.\d+(\.\d+)*", value):
            return str(value)
    return None


def check_toolkit(arch: Arch, cuda: str) -> Version:
    """The toolkit's version, new enough for the arch. Raises InputError."""
    try:
        toolkit = Version(cuda)
    except InvalidVersion:
        msg = f"CUDA version {cuda!r}: want one such as 13.0"
        raise InputError(msg) from None
    if toolkit < Version(arch.min_cuda):
        msg = f"CUDA {cuda} knows no {arch.target}; {arch.name} needs {arch.min_cuda} or newer"
        raise InputError(msg, hint="take a base with a newer toolkit; --cuda says another one")
    return toolkit


def check_flags(values: Mapping[str, str], arch: Arch, cuda: str | None) -> None:
    """`check_flag` for each. cuda: None where nobody said; what some toolkit makes right passes."""
    for name, value in values.items():
        if cuda is None:
            try:
                check_flag(name, value, arch, arch.min_cuda)
            except InputError:
                check_flag(name, value, arch, str(max(Version(arch.min_cuda), _CUDA13)))
        else:
            check_flag(name, value, arch, cuda)


def check_flag(name: str, value: str, arch: Arch, cuda: str) -> None:
    """Refuse a value that would build for something else than `arch`.

    name: FLASHINFER_CUDA_ARCH_LIST, TORCH_CUDA_ARCH_LIST (as vLLM reads it) or CUDA_ARCHS (of
    TensorRT-LLM). Others are not judged. Raises InputError with the reason and what serves.
    """
    match name:
        case "FLASHINFER_CUDA_ARCH_LIST":
            toolkit = check_toolkit(arch, cuda)
            why = _wrong_flashinfer(value, arch, toolkit)
        case "TORCH_CUDA_ARCH_LIST":
            toolkit = check_toolkit(arch, cuda)
            why = _wrong_torch(value, arch, toolkit)
        case "CUDA_ARCHS":
            toolkit = check_toolkit(arch, cuda)
            why = _wrong_trtllm(value, arch)
        case _:
            return
    if why is not None:
        msg = f"{name}={value!r} for {arch.name} with CUDA {cuda}: {why}"
        serves, reason = _served(name, arch, toolkit)
        hint = f"{serves} serves ({reason}); --cuda says another toolkit"
        raise InputError(msg, hint=hint)


def _served(name: str, arch: Arch, toolkit: Version) -> tuple[str, str]:
    """The value that serves the arch, and why."""
    match name:
        case "FLASHINFER_CUDA_ARCH_LIST":
            suffix = "a" if arch.capability >= 90 else ""
            return f"{arch.dotted}{suffix}", f"every release compiles it for {arch.target}"
        case "TORCH_CUDA_ARCH_LIST":
            return _vllm(arch, toolkit)
        case _:
            return _trtllm(arch)


def _trtllm(arch: Arch) -> tuple[str, str]:
    if arch.major != 12:
        return f"{arch.capability}-real", "machine code for this arch and no PTX"
    return "120-real", (
        "120 becomes the family target 120f from CUDA 12.9 on, which sm120 and sm121 run; 121 alone"
        " would define EXCLUDE_SM_120 and leave the kernels out"
    )


def _vllm(arch: Arch, toolkit: Version) -> tuple[str, str]:
    if arch.major == 12 and toolkit >= _CUDA13:
        return "12.0", "from CUDA 13 on vLLM makes 12.0 the family target 12.0f, which sm121 runs"
    if arch.capability == 121:
        return "12.1a", "before CUDA 13 vLLM knows no family target; 12.0 would not run on sm121"
    return arch.dotted, "as in vLLM's own list; it adds the suffix where a kernel needs it"


def _wrong_flashinfer(value: str, arch: Arch, toolkit: Version) -> str | None:
    if not re.fullmatch(r"\S+( \S+)*", value) or ";" in value or "," in value:
        return "FlashInfer parts entries at one space and at nothing else"
    entries = value.split(" ")
    for entry in entries:
        if not re.fullmatch(r"\d+\.\d[af]?", entry):
            return f"{entry!r} is not `major.minor` with `a`, `f` or nothing behind it"
        if entry.endswith("f") and toolkit < _F_TOOLKIT:
            return "family targets came with CUDA 12.9"
        if entry == "12.1" and toolkit < _F_TOOLKIT:
            return "12.1 needs CUDA 12.9"
    family = None if arch.family is None else f"{arch.family[3:5]}.{arch.family[5:]}"
    if not {arch.dotted, f"{arch.dotted}a", f"{arch.dotted}f", family} & set(entries):
        return f"nothing in it is built for {arch.target}"
    return None


def _wrong_torch(value: str, arch: Arch, toolkit: Version) -> str | None:
    entries = [one for one in re.split(r"[ ;]+", value.strip()) if one]
    for entry in entries:
        if re.fullmatch(r"\d+\.\df(\+PTX)?", entry):
            return f"torch raises ValueError for the family target {entry!r}"
        if not re.fullmatch(r"\d+\.\da?(\+PTX)?", entry):
            return f"{entry!r} is not `major.minor` with `a` or nothing behind it"
    plain = {entry.removesuffix("+PTX") for entry in entries}
    if arch.major == 12 and toolkit >= _CUDA13:
        if arch.capability == 121 and "12.0a" in plain:
            return (
                "vLLM takes 12.1a for 12.0 and then finds 12.0a, which runs on sm120 only: sm121"
                " is lost without a word; say 12.0"
            )
        served = {"12.0", "12.0a", "12.1", "12.1a"}
    else:
        served = {arch.dotted, f"{arch.dotted}a"}
    return None if plain & served else f"nothing in it is built for {arch.target}"


def _wrong_trtllm(value: str, arch: Arch) -> str | None:
    entries = value.split(";")
    for entry in entries:
        if re.fullmatch(r"\d{2,3}f(-real)?", entry):
            return f"TensorRT-LLM stops at {entry!r}: it takes no `f`, and makes 120 the family"
        if entry.endswith("-virtual"):
            return f"TensorRT-LLM stops at {entry!r}: no PTX"
        if not re.fullmatch(r"\d{2,3}a?(-real)?", entry):
            return f"{entry!r} is not a capability, such as 120-real; entries are parted by `;`"
    numbers = {re.match(r"\d+", entry)[0] for entry in entries}  # type: ignore[index]
    if "121" in numbers and "120" not in numbers:
        return "121 alone defines EXCLUDE_SM_120, and SM12x has no other kernels; say 120-real"
    if arch.major == 12:
        if arch.capability == 121 and any(entry.startswith("120a") for entry in entries):
            return "120a runs on sm120 only; 120-real becomes the family target 120f"
        return None if "120" in numbers else f"nothing in it is built for {arch.target}"
    return None if str(arch.capability) in numbers else f"nothing in it is built for {arch.target}"
