"""FlashInfer's own caches; what their entries look like was read in the packages named there."""

from __future__ import annotations

from stackpatch.installed import locate
from stackpatch.installed.cache import BUILT, NAME, STACKS, Cache, Risk
from stackpatch.installed.shape import VERSION, Entry

_ARCHES = r"\d{2,3}[af]?(?:_\d{2,3}[af]?)*"
_RENDERED = r".+\.(?:cu|cuh|c|cc|cpp|h|hpp|inc|json|generated)"


def _flashinfer_entries() -> tuple[Entry, ...]:
    """Below `<version>/<arches>/`, or below `<version>/` where no GPU and no arch was known."""
    found: list[Entry] = []
    for above in ((VERSION, _ARCHES), (VERSION,)):
        lock = "/".join(f"{{{i}}}" for i in range(len(above))) + "/cached_ops/tmp/"
        tmp = "holds the locks of running compiles; it caches nothing"
        found += (
            Entry((*above, "cached_ops", "tmp"), keep=tmp),
            Entry(
                (*above, "cached_ops", NAME),
                inside=BUILT,
                marker=r"build\.ninja|meta\.json|{-1}\.so",
                locks=(lock + "{-1}.lock", lock + "flashinfer_jit.lock"),
            ),
            # build_jit_specs runs one ninja for all modules, in cached_ops itself
            Entry(
                (*above, "cached_ops", r"\.ninja_(?:log|deps|lock)"),
                file=True,
                locks=(lock + "flashinfer_jit.lock",),
            ),
            Entry((*above, "generated", NAME), inside=_RENDERED),
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


FLASHINFER = (
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
        (Entry((NAME,), inside=r".+\.(?:cubin|so|h|hpp|txt|json|lock)"),),
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
)
