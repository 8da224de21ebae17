"""Caches that SGLang, vLLM and TensorRT-LLM keep for themselves. What was not read is `unknown`."""

from __future__ import annotations

from stackpatch.installed import locate
from stackpatch.installed.cache import ANY, HEX, NAME, Cache, Risk
from stackpatch.installed.shape import VERSION, Entry

SERVERS = (
    Cache(
        "sglang-jit",
        "SGLang's own compiled kernels, from 0.5.18 on",
        ("SGLANG_JIT_CACHE_DIR",),
        locate.sglang_jit,
        ("sglang",),
        Risk.SAFE,
        "an entry is used only while hashing all files that it was made from gives its name again",
        "sglang/kernels/jit/utils/compile/cache.py of 0.5.23",
        (Entry((NAME, NAME, r"build-[0-9a-f]{16}"), inside=ANY),),
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
        (Entry((HEX,), inside=r"\.?[0-9a-f]{64}\.(?:o|lock|tmp)"),),
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
        (Entry((HEX,), inside=ANY, marker=r"rank_\d+_\d+"),),
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
        (Entry((HEX,), inside=ANY, marker=r"rank_\d+_\d+"),),
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
        (Entry((VERSION, NAME, NAME), inside=r".+\.json(?:\.tmp\w*|\.lock)?"),),
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
        (Entry(("cache", r"\w+(?:\.\w+)*\.[0-9a-f]{16,64}"), inside=ANY, marker=r".+\.cubin"),),
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
)
