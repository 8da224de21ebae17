"""Caches of its own for a process, so that it can read no kernel that other sources gave.

Upstream's own variables do it; `locate.py` has the rules that read them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FOLDERS: Mapping[str, str] = {
    "CUDA_CACHE_PATH": "nv",
    "CUTE_DSL_CACHE_DIR": "cute_dsl",
    "B12X_COMPILE_CACHE_DIR": "b12x",
    "DG_JIT_CACHE_DIR": "dj",
    "FLASHINFER_AUTOTUNE_CACHE_DIR": "flashinfer-autotune",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "QUACK_CACHE_DIR": "quack",
    "SGLANG_CACHE_DIR": "sglang",
    "SGLANG_CUTE_AOT_CACHE_DIR": "sglang-cute-aot",
    "SGLANG_DG_CACHE_DIR": "sglang-dj",
    "SGLANG_JIT_CACHE_DIR": "sglang-jit",
    "TILELANG_CACHE_DIR": "tilelang",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "extensions",
    "TRITON_CACHE_DIR": "triton",
    "TRTLLM_DG_CACHE_DIR": "trtllm-dj",
    "TVM_FFI_CACHE_DIR": "tvm-ffi",
    "VLLM_CACHE_ROOT": "vllm",
    "VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR": "vllm-autotune",
}
_FILES: Mapping[str, str] = {
    "FLASHINFER_MOE_EP_KNOB_CACHE": "moe_ep_knobs.json",
    "TLLM_AUTOTUNER_CACHE_PATH": "trtllm-autotuner.json",
}


def private_caches(folder: Path) -> dict[str, str]:
    """Variables that put every JIT and autotune cache that we know below a folder.

    What was downloaded (cubins) stays shared: it is the same whatever the sources are.
    """
    return {name: str(folder / below) for name, below in {**_FOLDERS, **_FILES}.items()}
