"""The JIT, autotune and compile caches that a patched stack reads, as values.

One row a cache: where it lies, who reads it, what its entries look like, and whether it can hold
something that was made from other sources than the ones installed now. `docs/caches.md` is
generated from this table.

Sources: the packages named in each row, read from PyPI on 2026-11-21; `facts/upstream.md`
section 5 where a row says so. What was not read is `unknown`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from stackpatch.installed import locate
from stackpatch.installed.shape import VERSION, Entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackpatch.installed.locate import Location, Surroundings

STACKS = ("flashinfer", "sglang", "trtllm", "vllm")


class Risk(StrEnum):
    """Whether the cache can hand out something that was made before the patch."""

    STALE = "stale"
    SAFE = "safe"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Cache:
    """One row.

    variables: those that name the place, the first that is set wins. locations: the path rule.
    stacks: who reads it. risk and reason: one sentence, with its source in the named package.
    entries: what is recognised as the cache's own; without any, nothing is ever deleted there.
    file: the cache is one file, named by a variable. per_series: keyed by FlashInfer's version
    alone, so that a build with its own local version (`+sp.<series>`) never meets an older one's
    entries. instead: what to do where stackpatch does not clear it.
    """

    name: str
    what: str
    variables: tuple[str, ...]
    locations: Callable[[Surroundings], tuple[Location, ...]]
    stacks: tuple[str, ...]
    risk: Risk
    reason: str
    source: str
    entries: tuple[Entry, ...] = ()
    file: bool = False
    per_series: bool = False
    instead: str = ""

    @property
    def clearable(self) -> bool:
        """Whether stackpatch can clear it at all."""
        return self.file or bool(self.entries)


_ARCHES = r"\d{2,3}[af]?(?:_\d{2,3}[af]?)*"
_BUILT = (
    r".+\.(?:o|so|d|ninja|json|lock|cubin|ptx|fatbin|log|cu|cuh|c|cc|cpp|h|hpp|inc)"
    r"|\.ninja_(?:log|deps|lock)|lock|.+\.tmp(?:\.\d+)?"
)
_RENDERED = r".+\.(?:cu|cuh|c|cc|cpp|h|hpp|inc|json|generated)"
_NAME = r"\w[\w.+-]*"  # nothing hidden
_HEX = r"[0-9a-f]{8,64}"
_ANY = r"[^/]+"


def _flashinfer_entries() -> tuple[Entry, ...]:
    """Below `<version>/<arches>/`, or below `<version>/` where no GPU and no arch was known."""
    found: list[Entry] = []
    for above in ((VERSION, _ARCHES), (VERSION,)):
        lock = "/".join(f"{{{i}}}" for i in range(len(above))) + "/cached_ops/tmp/"
        tmp = "holds the locks of running compiles; it caches nothing"
        found += (
            Entry((*above, "cached_ops", "tmp"), keep=tmp),
            Entry(
                (*above, "cached_ops", _NAME),
                inside=_BUILT,
                marker=r"build\.ninja|meta\.json|{-1}\.so",
                locks=(lock + "{-1}.lock", lock + "flashinfer_jit.lock"),
            ),
            # build_jit_specs runs one ninja for all modules, in cached_ops itself
            Entry(
                (*above, "cached_ops", r"\.ninja_(?:log|deps|lock)"),
                file=True,
                locks=(lock + "flashinfer_jit.lock",),
            ),
            Entry((*above, "generated", _NAME), inside=_RENDERED),
            Entry((*above, "generated", r"\w[\w+-]*\.(?:cu|cuh|h|inc|cpp)"), file=True),
            Entry((*above, "autotune"), inside=r"sparse_mla_sm120_cpb\.json.*"),
            Entry((*above, r"flashinfer_jit\.log"), keep="a log; nothing is read from it"),
        )
    neighbours = {
        "cubins": "flashinfer-cubins",
        "autotune": "flashinfer-autotune",
        "cute_dsl": "cute-dsl",
        r"moe_ep_knob_cache\.json": "flashinfer-moe-knobs",
    }
    found += (Entry((p,), keep=f"is the cache {name}") for p, name in neighbours.items())
    found.append(Entry(("trace_apply",), keep="holds the user's own solutions"))
    return tuple(found)


_TABLE = (
    Cache(
        "flashinfer-jit",
        "FlashInfer's compiled modules and the sources rendered for them",
        ("FLASHINFER_WORKSPACE_BASE",),
        locate.flashinfer,
        STACKS,
        Risk.STALE,
        "ninja compares modification times only, so sources that were edited, reverted or "
        "reinstalled with older times keep the old kernel; the folder is named by version and "
        "arches, not by content; CuTe-DSL modules hash only the files that their caller lists",
        "flashinfer/jit/{env,core,cpp_ext,cute_dsl_core}.py of 0.6.3 and 0.7.2.post1; "
        "flashinfer#4489",
        _flashinfer_entries(),
        per_series=True,
    ),
    Cache(
        "flashinfer-autotune",
        "FlashInfer's measured tactics",
        ("FLASHINFER_AUTOTUNE_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE"),
        locate.flashinfer_autotune,
        STACKS,
        Risk.STALE,
        "the key holds FlashInfer's version and not its sources: a tactic that was measured, or "
        "ruled out, before the patch is used after it",
        "flashinfer/autotune_cache.py of 0.7.2.post1 (from 0.7.0 on)",
        (
            Entry(
                (r"v\d+", r"[0-9a-f]{16}"),
                inside=r"manifest\.json|[0-9a-f]{24}\.json|\.autotune_\w+\.tmp",
                marker=r"manifest\.json",
            ),
        ),
        per_series=True,
    ),
    Cache(
        "flashinfer-cubins",
        "precompiled kernels that FlashInfer downloads",
        ("FLASHINFER_CUBIN_DIR", "FLASHINFER_WORKSPACE_BASE"),
        locate.flashinfer_cubins,
        STACKS,
        Risk.SAFE,
        "every file is checked against a sha256 that the sources name, and none is made from the "
        "sources that a series changes",
        "flashinfer/jit/cubin_loader.py of 0.6.3",
        (Entry((_NAME,), inside=r".+\.(?:cubin|so|h|hpp|txt|json|lock)"),),
    ),
    Cache(
        "flashinfer-moe-knobs",
        "measured settings of FlashInfer's expert-parallel MoE kernels",
        ("FLASHINFER_MOE_EP_KNOB_CACHE",),
        locate.flashinfer_knobs,
        STACKS,
        Risk.UNKNOWN,
        "a file of measured settings; what its keys cover was not read",
        "flashinfer/moe_ep/kernel_src/sm100/cutedsl_megamoe/shim/knob_cache.py of 0.7.2.post1",
        file=True,
    ),
    Cache(
        "flashinfer-aot",
        "modules compiled beforehand: flashinfer-jit-cache, `flashinfer download-kernels`",
        (),
        locate.nowhere,
        STACKS,
        Risk.STALE,
        "a prebuilt module is loaded before any source is looked at, without a comparison of "
        "times, so a patch of csrc is silently ignored",
        "flashinfer/jit/{env,core}.py: get_aot_artifacts, try_load",
        instead="pip uninstall flashinfer-jit-cache, in the environment with the patched package",
    ),
    Cache(
        "flashinfer-b12x",
        "compiled CuTe-DSL kernels of FlashInfer's b12x backend",
        ("B12X_COMPILE_CACHE_DIR", "XDG_CACHE_HOME"),
        locate.flashinfer_b12x,
        STACKS,
        Risk.SAFE,
        "the key holds a sha256 over all files of the b12x package",
        "flashinfer/experimental/b12x/_lib/compiler.py of 0.7.2.post1",
    ),
    Cache(
        "cute-dsl",
        "traced CuTe-DSL modules",
        ("CUTE_DSL_CACHE_DIR", "TMPDIR"),
        locate.cute_dsl,
        STACKS,
        Risk.SAFE,
        "the key is a sha256 over the traced module and the compiler",
        "cutlass/base_dsl/{cache_helpers,dsl}.py of nvidia-cutlass-dsl-libs-core 4.8.1",
        (
            Entry((r"[a-z_]+_[\w.-]+\.mlir",), file=True),
            Entry((r"tmp\.pid_\d+_[0-9a-f-]{36}",), inside=r".+\.mlir"),
            Entry((r"pyir_class_facts",), inside=_ANY),
        ),
    ),
    Cache(
        "triton",
        "compiled Triton kernels",
        ("TRITON_CACHE_DIR", "TRITON_HOME"),
        locate.triton,
        STACKS,
        Risk.SAFE,
        "the key is a sha256 over the kernel's source, what it calls, Triton and the options",
        "triton/runtime/{cache,jit}.py, triton/compiler/compiler.py of 3.8.0",
        (Entry((r"[A-Z2-7]{52}|[0-9a-f]{64}",), inside=_ANY),),
    ),
    Cache(
        "torchinductor",
        "graphs that torch.compile has compiled",
        ("TORCHINDUCTOR_CACHE_DIR",),
        locate.torchinductor,
        ("sglang", "trtllm", "vllm"),
        Risk.UNKNOWN,
        "the place is known, what the key covers was not read",
        "facts/upstream.md section 5: torch/_inductor/runtime/cache_dir_utils.py",
        (
            Entry((r"[a-z0-9]{2}|fxgraph|aotautograd|triton",), inside=_ANY),
            Entry((r"locks",), keep="holds the locks of running compiles"),
        ),
    ),
    Cache(
        "torch-extensions",
        "C++ and CUDA extensions that torch compiles while it runs",
        ("TORCH_EXTENSIONS_DIR", "XDG_CACHE_HOME"),
        locate.torch_extensions,
        ("sglang", "trtllm", "vllm"),
        Risk.UNKNOWN,
        "ninja compares modification times; which sources of a stack are built this way was not "
        "read for every release",
        "facts/upstream.md section 5: torch/utils/cpp_extension.py",
        tuple(
            Entry((*above, r"\w+"), inside=_BUILT, marker=r"build\.ninja")
            for above in ((), (r"py\d+_\w+",))
        ),
    ),
    Cache(
        "cuda-driver",
        "machine code that the driver made from PTX",
        ("CUDA_CACHE_PATH",),
        locate.cuda_driver,
        STACKS,
        Risk.UNKNOWN,
        "CUDA's documentation says that the driver keys it by the code and its own version; not "
        "verified here",
        "facts/upstream.md section 5 (from memory); the variable: sglang/srt/environ.py of 0.5.23",
        (
            Entry((r"index",), file=True),
            Entry((r"[0-9a-f]",), inside=r"[0-9a-f]{8,64}"),
        ),
    ),
    Cache(
        "tvm-ffi",
        "modules that tvm-ffi compiles, SGLang's own kernels up to 0.5.17 among them",
        ("TVM_FFI_CACHE_DIR",),
        locate.tvm_ffi,
        ("sglang",),
        Risk.STALE,
        "SGLang hands over `#include` lines, so the hash covers the path of a kernel and not its "
        "content; ninja then compares modification times only",
        "tvm_ffi/cpp/extension.py of 0.1.15.post2; sglang/jit_kernel/utils.py of 0.5.6.post2 to "
        "0.5.17",
        (
            Entry(
                (r"sgl_kernel_jit_.+_[0-9a-f]{16}",),
                inside=_BUILT,
                marker=r"build\.ninja",
            ),
            Entry((r"libtorch_c_dlpack_addon.*",), keep="tvm-ffi's own bridge to torch"),
            Entry(
                (r"\w[\w.-]*_[0-9a-f]{16}",), inside=_BUILT, marker=r"build\.ninja", named_only=True
            ),
        ),
    ),
    Cache(
        "deep-gemm",
        "kernels that DeepGEMM compiles",
        ("DG_JIT_CACHE_DIR", "SGLANG_DG_CACHE_DIR", "SGLANG_CACHE_DIR", "VLLM_CACHE_ROOT"),
        locate.deep_gemm,
        ("sglang", "vllm"),
        Risk.UNKNOWN,
        "sgl-deep-gemm 0.2.5 hashes the source with everything that it includes, which is safe; "
        "other releases were not read",
        "deep_jit/{cache/disk,utils/parser}.hpp of sgl-deep-gemm 0.2.5",
        (
            Entry(
                ("cache", r"\w+(?:\.\w+)*\.[0-9a-f]{16,64}"),
                inside=_ANY,
                marker=r"\.committed|kernel\.cubin",
            ),
        ),
    ),
    Cache(
        "quack",
        "kernels that QuACK compiles",
        ("QUACK_CACHE_DIR",),
        locate.quack,
        ("sglang", "vllm"),
        Risk.SAFE,
        "the folder is a sha256 over QuACK's own sources",
        "quack/cache/jit.py of quack-kernels 0.6.5",
        (Entry((_HEX,), inside=r"[0-9a-f]{64}\.(?:o|lock)"),),
    ),
    Cache(
        "tilelang",
        "kernels that TileLang compiles",
        ("TILELANG_CACHE_DIR", "SGLANG_CACHE_DIR"),
        locate.tilelang,
        ("sglang",),
        Risk.UNKNOWN,
        "neither TileLang's key nor its default place was read",
        "sglang/srt/environ.py of 0.5.23",
        instead="remove the folder by hand if in doubt",
    ),
    Cache(
        "sglang-jit",
        "SGLang's own compiled kernels, from 0.5.18 on",
        ("SGLANG_JIT_CACHE_DIR",),
        locate.sglang_jit,
        ("sglang",),
        Risk.SAFE,
        "an entry is used only while hashing all files that it was made from gives its name again",
        "sglang/kernels/jit/utils/compile/cache.py of 0.5.23",
        (Entry((_NAME, _NAME, r"build-[0-9a-f]{16}"), inside=_ANY),),
    ),
    Cache(
        "sglang-autotune",
        "FlashInfer tactics that SGLang has measured",
        ("SGLANG_CACHE_DIR",),
        locate.sglang_autotune,
        ("sglang",),
        Risk.STALE,
        "the key holds FlashInfer's version, the arch and the model's settings, and the sources "
        "of neither FlashInfer nor SGLang",
        "sglang/srt/model_executor/runner/flashinfer_autotune.py of 0.5.23",
        (
            Entry(
                (VERSION, r"sm\d+", r"[0-9a-f]{16}"),
                inside=r"rank_[\w.:+-]+\.json(?:\.tmp\w*|\.lock)?",
            ),
        ),
    ),
    Cache(
        "sglang-cute-aot",
        "SGLang's compiled CuTe-DSL kernels, from 0.5.20 on",
        ("SGLANG_CUTE_AOT_CACHE_DIR", "SGLANG_CACHE_DIR"),
        locate.sglang_cute_aot,
        ("sglang",),
        Risk.SAFE,
        "the folder is a sha256 over the CuTe sources and the versions of Python, CuTe and CUDA",
        "sglang/kernels/jit/cute_aot_cache.py of 0.5.23",
        (Entry((_HEX,), inside=r"\.?[0-9a-f]{64}\.(?:o|lock|tmp)"),),
    ),
    Cache(
        "sglang-torch-compile",
        "graphs that SGLang's piecewise torch.compile has compiled",
        ("SGLANG_CACHE_DIR",),
        locate.sglang_torch_compile,
        ("sglang",),
        Risk.UNKNOWN,
        "the folder's hash covers the compiler and not SGLang's code; graphs are then looked up "
        "by TorchInductor, whose key was not read",
        "sglang/srt/compilation/{backend,compiler_interface}.py of 0.5.9",
        (Entry((_HEX,), inside=_ANY, marker=r"rank_\d+_\d+"),),
    ),
    Cache(
        "vllm-torch-compile",
        "graphs that vLLM's torch.compile has compiled",
        ("VLLM_CACHE_ROOT", "XDG_CACHE_HOME"),
        locate.vllm_torch_compile,
        ("vllm",),
        Risk.STALE,
        "the code hash covers only the Python files that were traced for the forward pass",
        "facts/upstream.md section 5: vllm/compilation/{backends,compiler_interface}.py",
        (Entry((_HEX,), inside=_ANY, marker=r"rank_\d+_\d+"),),
    ),
    Cache(
        "vllm-autotune",
        "FlashInfer tactics that vLLM has measured",
        ("VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR", "VLLM_CACHE_ROOT", "XDG_CACHE_HOME"),
        locate.vllm_autotune,
        ("vllm",),
        Risk.STALE,
        "the key holds FlashInfer's version and the arch, and neither vLLM's version nor any "
        "sources",
        "facts/upstream.md section 5: vllm/model_executor/warmup/flashinfer_autotune_cache.py",
        (Entry((VERSION, _NAME, _NAME), inside=r".+\.json(?:\.tmp\w*|\.lock)?"),),
    ),
    Cache(
        "trtllm-autotuner",
        "tactics that TensorRT-LLM has measured",
        ("TLLM_AUTOTUNER_CACHE_PATH",),
        locate.trtllm_autotuner,
        ("trtllm",),
        Risk.STALE,
        "tactics survive a patch of the kernels; off unless the variable names a file",
        "facts/upstream.md section 5: _torch/pyexecutor/model_engine.py, autotuner.py",
        file=True,
    ),
    Cache(
        "trtllm-deep-gemm",
        "kernels that TensorRT-LLM's DeepGEMM compiles",
        ("TRTLLM_DG_CACHE_DIR",),
        locate.trtllm_deep_gemm,
        ("trtllm",),
        Risk.UNKNOWN,
        "its key was not read; TensorRT-LLM's own build removes it",
        "facts/upstream.md section 5: scripts/build_wheel.py",
        (Entry(("cache", r"\w+(?:\.\w+)*\.[0-9a-f]{16,64}"), inside=_ANY, marker=r".+\.cubin"),),
    ),
    Cache(
        "trtllm-build",
        "TensorRT-LLM's build tree: cpp/build, fmha_v2_cu, ccache",
        ("TRTLLM_FETCHCONTENT_CACHE",),
        locate.nowhere,
        ("trtllm",),
        Risk.STALE,
        "FMHA sources are rendered again only with --clean or --generate_fmha",
        "facts/upstream.md section 5: scripts/build_wheel.py",
        instead="scripts/build_wheel.py --clean, in the source tree",
    ),
    Cache(
        "python-bytecode",
        "__pycache__ beside the installed modules",
        (),
        locate.nowhere,
        STACKS,
        Risk.UNKNOWN,
        "stale only where an edit keeps size and modification time, or with unchecked hash-based "
        "files",
        "Python's documentation, py_compile",
        instead="python -m compileall -f, on the package's folder",
    ),
)

CACHES: dict[str, Cache] = {cache.name: cache for cache in _TABLE}
