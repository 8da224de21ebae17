"""Where each cache lies: the path rules of upstream as functions of the surroundings.

Read from FlashInfer 0.6.3 and 0.7.2.post1, SGLang 0.5.9 to 0.5.23, triton 3.8.0, apache-tvm-ffi
0.1.15.post2, sgl-deep-gemm 0.2.5, quack-kernels 0.6.5 and nvidia-cutlass-dsl-libs-core 4.8.1, all
from PyPI; the rest from `facts/upstream.md`, section 5. Every rule keeps upstream's own treatment
of an empty variable and of `~`, because a rule that is nearly right names another folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackpatch.installed.surroundings import login_name

if TYPE_CHECKING:
    from stackpatch.installed.surroundings import Surroundings


@dataclass(frozen=True, slots=True)
class Location:
    """One folder or file of a cache.

    variable: the environment variable that named it; None when the default rule did.
    rule: the same for people, with variables unexpanded. path may be relative: then it depends
    on the folder that the server was started in, and nothing is ever deleted there.
    """

    path: Path
    variable: str | None
    rule: str


Locations = tuple[Location, ...]


def flashinfer(around: Surroundings) -> Locations:
    """FlashInfer's cache folder (jit/env.py): base from the variable, `~` not expanded.

    Without the variable it is below the home folder and, for SGLang >= 0.5.18, below SGLang's.
    """
    named = around.get("FLASHINFER_WORKSPACE_BASE")
    if named is not None:
        path = Path(named) / ".cache" / "flashinfer"
        rule = "$FLASHINFER_WORKSPACE_BASE/.cache/flashinfer"
        return (Location(path, "FLASHINFER_WORKSPACE_BASE", rule),)
    found = [Location(around.home / ".cache" / "flashinfer", None, "~/.cache/flashinfer")]
    if around.sglang_moves_caches() is not False:
        found.append(_below_sglang(around, ".cache/flashinfer"))
    return tuple(found)


def flashinfer_autotune(around: Surroundings) -> Locations:
    """autotune_cache.py, from 0.7.0 on."""
    return _own_or_below(around, "FLASHINFER_AUTOTUNE_CACHE_DIR", flashinfer(around), "autotune")


def flashinfer_cubins(around: Surroundings) -> Locations:
    """jit/env.py; where the flashinfer-cubin package is installed its files are read instead."""
    return _own_or_below(around, "FLASHINFER_CUBIN_DIR", flashinfer(around), "cubins")


def flashinfer_knobs(around: Surroundings) -> Locations:
    """moe_ep knob_cache.py, one file; words like `off` disable it."""
    named = (around.get("FLASHINFER_MOE_EP_KNOB_CACHE") or "").strip()
    if named.lower() in {"0", "off", "none", "disable", "disabled"}:
        return ()
    if named:
        path = around.expand(named)
        variable = "FLASHINFER_MOE_EP_KNOB_CACHE"
        return (Location(path, variable, f"${variable}"),)
    path = around.home / ".cache/flashinfer/moe_ep_knob_cache.json"
    return (Location(path, None, "~/.cache/flashinfer/moe_ep_knob_cache.json"),)


def flashinfer_b12x(around: Surroundings) -> Locations:
    """experimental/b12x/_lib/compiler.py."""
    named = around.filled("B12X_COMPILE_CACHE_DIR")
    if named:
        return (Location(Path(named), "B12X_COMPILE_CACHE_DIR", "$B12X_COMPILE_CACHE_DIR"),)
    return (_below_xdg(around, "b12x/compile", empty_counts=False),)


def cute_dsl(around: Surroundings) -> Locations:
    """base_dsl/cache_helpers.py; flashinfer.prims_ts sets a default below FlashInfer's folder."""
    named = around.filled("CUTE_DSL_CACHE_DIR")
    if named:
        return (Location(Path(named), "CUTE_DSL_CACHE_DIR", "$CUTE_DSL_CACHE_DIR"),)
    tmpdir = around.get("TMPDIR")
    base = around.temporary if tmpdir is None else Path(tmpdir)
    user = around.filled("USER") or around.filled("USERNAME") or around.user
    rule = "$TMPDIR/<user>/cutlass_python_cache"
    path = base / user / "cutlass_python_cache" if user else base / "cutlass_python_cache"
    below = tuple(
        Location(place.path / "cute_dsl", place.variable, f"{place.rule}/cute_dsl")
        for place in flashinfer(around)
    )
    return (Location(path, "TMPDIR" if tmpdir is not None else None, rule), *below)


def triton(around: Surroundings) -> Locations:
    """knobs.py, cache_knobs."""
    named = around.get("TRITON_CACHE_DIR")
    if named is not None:
        return (Location(Path(named), "TRITON_CACHE_DIR", "$TRITON_CACHE_DIR"),)
    base = around.get("TRITON_HOME")
    found = (
        Location(around.home / ".triton" / "cache", None, "~/.triton/cache")
        if base is None
        else Location(Path(base) / ".triton" / "cache", "TRITON_HOME", "$TRITON_HOME/.triton/cache")
    )
    return (found, *_moved_by_sglang(around, "triton"))


def torchinductor(around: Surroundings) -> Locations:
    """torch/_inductor/runtime/cache_dir_utils.py."""
    named = around.get("TORCHINDUCTOR_CACHE_DIR")
    if named is not None:
        return (Location(Path(named), "TORCHINDUCTOR_CACHE_DIR", "$TORCHINDUCTOR_CACHE_DIR"),)
    user = re.sub(r'[\\/:*?"<>|]', "_", login_name(around))
    path = around.temporary / f"torchinductor_{user}"
    own = Location(path, None, "$TMPDIR/torchinductor_<user>")
    return (own, *_moved_by_sglang(around, "inductor"))


def torch_extensions(around: Surroundings) -> Locations:
    """torch/utils/cpp_extension.py; the default follows XDG_CACHE_HOME."""
    named = around.get("TORCH_EXTENSIONS_DIR")
    if named is not None:
        return (Location(Path(named), "TORCH_EXTENSIONS_DIR", "$TORCH_EXTENSIONS_DIR"),)
    return (_below_xdg(around, "torch_extensions", empty_counts=True),)


def cuda_driver(around: Surroundings) -> Locations:
    """The driver's PTX JIT, by CUDA's documentation; SGLang >= 0.5.18 moves it."""
    named = around.filled("CUDA_CACHE_PATH")
    if named:
        return (Location(Path(named), "CUDA_CACHE_PATH", "$CUDA_CACHE_PATH"),)
    own = Location(around.home / ".nv" / "ComputeCache", None, "~/.nv/ComputeCache")
    return (own, *_moved_by_sglang(around, "nv"))


def tvm_ffi(around: Surroundings) -> Locations:
    """tvm_ffi/cpp/extension.py; `~` is expanded."""
    named = around.get("TVM_FFI_CACHE_DIR")
    if named is not None:
        return (Location(around.expand(named), "TVM_FFI_CACHE_DIR", "$TVM_FFI_CACHE_DIR"),)
    return (Location(around.home / ".cache" / "tvm-ffi", None, "~/.cache/tvm-ffi"),)


def deep_gemm(around: Surroundings) -> Locations:
    """DeepGEMM's own default, and what SGLang and vLLM set instead before they load it.

    Each of a colon-separated DG_JIT_CACHE_DIR is a place (deep_jit/cache/disk.hpp).
    """
    found = [
        Location(Path(part), "DG_JIT_CACHE_DIR", "$DG_JIT_CACHE_DIR")
        for part in (around.filled("DG_JIT_CACHE_DIR") or "").split(":")
        if part
    ] or [Location(around.home / ".dj", None, "~/.dj")]
    named = around.filled("SGLANG_DG_CACHE_DIR")
    moved = around.sglang_moves_caches()
    if named:
        found.append(Location(Path(named), "SGLANG_DG_CACHE_DIR", "$SGLANG_DG_CACHE_DIR"))
    else:
        if moved is not True:
            path = around.home / ".cache" / "deep_gemm"
            found.append(Location(path, None, "~/.cache/deep_gemm"))
        if moved is not False:
            found.append(_below_sglang(around, "deep_gemm"))
    found.append(_below_vllm(around, "deep_gemm"))
    return tuple(found)


def quack(around: Surroundings) -> Locations:
    """quack/cache/jit.py."""
    named = around.get("QUACK_CACHE_DIR")
    if named is not None:
        return (Location(Path(named), "QUACK_CACHE_DIR", "$QUACK_CACHE_DIR"),)
    path = around.temporary / login_name(around) / "quack_cache"
    return (Location(path, None, "$TMPDIR/<user>/quack_cache"),)


def tilelang(around: Surroundings) -> Locations:
    """Only what SGLang >= 0.5.18 sets is known; tilelang's own default was not read."""
    named = around.filled("TILELANG_CACHE_DIR")
    if named:
        return (Location(Path(named), "TILELANG_CACHE_DIR", "$TILELANG_CACHE_DIR"),)
    return _moved_by_sglang(around, "tilelang")


def sglang_jit(around: Surroundings) -> Locations:
    """kernels/jit/utils/compile/cache.py: not below SGLANG_CACHE_DIR."""
    named = around.filled("SGLANG_JIT_CACHE_DIR")
    if named:
        path = around.expand(named)
        return (Location(path, "SGLANG_JIT_CACHE_DIR", "$SGLANG_JIT_CACHE_DIR"),)
    return (Location(around.home / ".cache/sglang/jit", None, "~/.cache/sglang/jit"),)


def sglang_autotune(around: Surroundings) -> Locations:
    """srt/model_executor/runner/flashinfer_autotune.py."""
    return (_below_sglang(around, "flashinfer/autotune"),)


def sglang_cute_aot(around: Surroundings) -> Locations:
    """kernels/jit/cute_aot_cache.py; an empty variable keeps it in the process."""
    named = around.get("SGLANG_CUTE_AOT_CACHE_DIR")
    if named is None:
        return (_below_sglang(around, "cute_aot"),)
    if not named:
        return ()
    path = around.expand(named)
    return (Location(path, "SGLANG_CUTE_AOT_CACHE_DIR", "$SGLANG_CUTE_AOT_CACHE_DIR"),)


def sglang_torch_compile(around: Surroundings) -> Locations:
    """srt/compilation/backend.py."""
    return (_below_sglang(around, "torch_compile_cache"),)


def vllm_torch_compile(around: Surroundings) -> Locations:
    """vllm/compilation/backends.py."""
    return (_below_vllm(around, "torch_compile_cache"),)


def vllm_autotune(around: Surroundings) -> Locations:
    """vllm/model_executor/warmup/flashinfer_autotune_cache.py."""
    named = around.filled("VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR")
    if named:
        variable = "VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR"
        return (Location(around.expand(named), variable, f"${variable}"),)
    return (_below_vllm(around, "flashinfer_autotune_cache"),)


def trtllm_autotuner(around: Surroundings) -> Locations:
    """A file; nothing is kept while the variable is not set."""
    named = around.filled("TLLM_AUTOTUNER_CACHE_PATH")
    if not named:
        return ()
    variable = "TLLM_AUTOTUNER_CACHE_PATH"
    return (Location(Path(named), variable, f"${variable}"),)


def trtllm_deep_gemm(around: Surroundings) -> Locations:
    """scripts/build_wheel.py."""
    named = around.filled("TRTLLM_DG_CACHE_DIR")
    if named:
        return (Location(Path(named), "TRTLLM_DG_CACHE_DIR", "$TRTLLM_DG_CACHE_DIR"),)
    return (Location(around.home / ".tensorrt_llm", None, "~/.tensorrt_llm"),)


def nowhere(around: Surroundings) -> Locations:  # noqa: ARG001 - the table's signature
    """For what lies inside a package or a build tree and is not ours to clear."""
    return ()


def _own_or_below(around: Surroundings, variable: str, parents: Locations, name: str) -> Locations:
    named = around.filled(variable)
    if named:
        return (Location(Path(named), variable, f"${variable}"),)
    return tuple(Location(p.path / name, p.variable, f"{p.rule}/{name}") for p in parents)


def _below_sglang(around: Surroundings, name: str) -> Location:
    named = around.filled("SGLANG_CACHE_DIR")
    if named:
        path = around.expand(named) / name
        return Location(path, "SGLANG_CACHE_DIR", f"$SGLANG_CACHE_DIR/{name}")
    return Location(around.home / ".cache/sglang" / name, None, f"~/.cache/sglang/{name}")


def _moved_by_sglang(around: Surroundings, name: str) -> Locations:
    return () if around.sglang_moves_caches() is False else (_below_sglang(around, name),)


def _below_vllm(around: Surroundings, name: str) -> Location:
    named = around.filled("VLLM_CACHE_ROOT")
    if named:
        path = around.expand(named) / name
        return Location(path, "VLLM_CACHE_ROOT", f"$VLLM_CACHE_ROOT/{name}")
    return _below_xdg(around, f"vllm/{name}", empty_counts=False)


def _below_xdg(around: Surroundings, name: str, *, empty_counts: bool) -> Location:
    named = around.get("XDG_CACHE_HOME") if empty_counts else around.filled("XDG_CACHE_HOME")
    if named is not None:
        return Location(Path(named) / name, "XDG_CACHE_HOME", f"$XDG_CACHE_HOME/{name}")
    return Location(around.home / ".cache" / name, None, f"~/.cache/{name}")
