"""Caches of compilers and of libraries that several stacks use. What was not read is `unknown`."""

from __future__ import annotations

from stackpatch.installed import locate
from stackpatch.installed.cache import ANY, BUILT, HEX, STACKS, Cache, Risk
from stackpatch.installed.shape import Entry

COMPILERS = (
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
            Entry((r"pyir_class_facts",), inside=ANY),
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
        (Entry((r"[A-Z2-7]{52}|[0-9a-f]{64}",), inside=ANY),),
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
            Entry((r"[a-z0-9]{2}|fxgraph|aotautograd|triton",), inside=ANY),
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
            Entry((*above, r"\w+"), inside=BUILT, marker=r"build\.ninja")
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
                inside=BUILT,
                marker=r"build\.ninja",
            ),
            Entry((r"libtorch_c_dlpack_addon.*",), keep="tvm-ffi's own bridge to torch"),
            Entry(
                (r"\w[\w.-]*_[0-9a-f]{16}",), inside=BUILT, marker=r"build\.ninja", named_only=True
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
                inside=ANY,
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
        (Entry((HEX,), inside=r"[0-9a-f]{64}\.(?:o|lock)"),),
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
)
