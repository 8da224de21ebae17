"""What the patched code does: real releases, patched by real git, run beside a real torch.

The torch environment is made once, below the tests' cache folder. No GPU is needed: FlashInfer
is imported, SGLang's changed statements are run on real tensors.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
import venv
import zipfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import TEST_CACHE, fetch_artefact

from stackpatch.model.series import load_series

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytestmark = [pytest.mark.pypi, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
LOCAL = "+sp.1a2b3c4d"
REQUIREMENTS = (
    "torch==2.13.0",
    "apache-tvm-ffi==0.1.15.post2",
    "click==8.5.1",
    "einops==0.8.2",
    "ninja==1.13.2",
    "numpy==2.4.6",
    "nvidia-ml-py==13.615.71",
    "packaging==26.3",
    "requests==2.34.2",
    "tabulate==0.10.0",
    "tqdm==4.70.1",
)
WHEELS = {
    "0.6.3": (
        "flashinfer_python-0.6.3-py3-none-any.whl",
        "0fe2de934a4b3690c543dafb03f38d7bb4a762431abe8ae4f7292d6fef10c65d",
    ),
    "0.5.3": (
        "flashinfer_python-0.5.3-py3-none-any.whl",
        "b601293b72f9138bad173edc28df84b9f239a013be974e2e79d4ba98aeb38cf5",
    ),
    "0.7.2.post1": (
        "flashinfer_python-0.7.2.post1-py3-none-any.whl",
        "bfdc18b9e1e4d8d0730fe4343dc0e284cd0c160086de80f99888bc4867922d49",
    ),
}
CUBIN = (
    "flashinfer_cubin-0.6.3-py3-none-any.whl",
    "64ecd1e3084c78bfc958e90132d5dffcaf9d2cb4d52bfecde4c1b040e5b024d6",
)
SGLANG = {
    "0.5.9": (
        "sglang-0.5.9-py3-none-any.whl",
        "8a936c4d25fea605f44254e533cff2144c73ceffbc1f8738aba393461bbb64d1",
    ),
    "0.5.6.post2": (
        "sglang-0.5.6.post2-py3-none-any.whl",
        "cb542f7adeec56bbb5598443c52d0f347fab74dbb5df09d37cad69eaec780c54",
    ),
}


class Copy(StrEnum):
    """What was done to an unpacked release: nothing, stamped as a build, patched, or both."""

    RELEASE = "release"
    STAMPED = "stamped"
    PATCHED = "patched"
    BUILD = "build"


@pytest.fixture(scope="session")
def python() -> Path:
    """A Python with torch and what FlashInfer imports; made once, whoever else makes it too."""
    key = hashlib.sha256("\n".join((sys.version, *REQUIREMENTS)).encode()).hexdigest()[:16]
    folder = TEST_CACHE / f"torch-{key}"
    TEST_CACHE.mkdir(parents=True, exist_ok=True)
    with (TEST_CACHE / f"torch-{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            venv.create(folder, clear=True, with_pip=True)
            argv = [str(folder / "bin/python"), "-m", "pip", "install", "-q", *REQUIREMENTS]
            subprocess.run(argv, check=True)
            (folder / "complete").touch()
    return folder / "bin/python"


def patch_wheel(wheel: Path, stack: str, version: str, to: Path, copy: Copy) -> None:
    """Unpack a released wheel and apply the shipped series to it, under the wheel's paths."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(to)
    if copy in (Copy.RELEASE, Copy.STAMPED):
        return
    folder = ROOT / "patches" / stack / f"v{version}"
    for patch in load_series(folder).patches:
        mail = re.sub(
            rb"(?m)( [ab]/|^(?:---|\+\+\+) [ab]/)csrc/", rb"\1flashinfer/data/csrc/", patch.raw
        )
        mail = re.sub(rb"(?m)( [ab]/|^(?:---|\+\+\+) [ab]/)python/sglang/", rb"\1sglang/", mail)
        env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(to.parent)}
        subprocess.run(["git", "apply", "-C3"], input=mail, cwd=to, check=True, env=env)


@dataclass(frozen=True, slots=True)
class FlashInfer:
    """One unpacked FlashInfer and how it is imported."""

    python: Path
    folder: Path
    home: Path

    def targets(self, *lists: str) -> dict[str, Any]:
        """What each arch list comes to: compiler targets, or the error."""
        code = """
            import json, os, sys
            from flashinfer.compilation_context import CompilationContext
            out = {}
            for archs in sys.argv[1:]:
                os.environ["FLASHINFER_CUDA_ARCH_LIST"] = archs
                try:
                    out[archs] = sorted(CompilationContext().TARGET_CUDA_ARCHS)
                except ValueError as error:
                    out[archs] = f"ValueError: {error}"
            print(json.dumps(out))
        """
        return self._run(code, *lists)

    def imported(self, *beside: Path, **env: str) -> dict[str, Any]:
        """Import it beside other packages. Says what its environment module decided, or `error`."""
        code = """
            import json, logging
            said = []
            keep = logging.Handler()
            keep.emit = lambda record: said.append(record.getMessage())
            logging.getLogger("flashinfer.jit").addHandler(keep)
            try:
                import flashinfer
                from flashinfer.jit import core, env
                aot = core.gen_jit_spec("silu_and_mul", [], extra_cuda_cflags=[])
                out = {
                    "version": flashinfer.__version__,
                    "jit": str(env.FLASHINFER_JIT_DIR),
                    "cubin": str(env.FLASHINFER_CUBIN_DIR),
                    "prebuilt": bool(aot.is_aot),
                }
            except (RuntimeError, ValueError) as error:
                out = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps({**out, "said": said}))
        """
        return self._run(code, beside=beside, env=env)

    def _run(
        self,
        code: str,
        *argv: str,
        beside: tuple[Path, ...] = (),
        env: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        done = subprocess.run(
            [self.python, "-c", textwrap.dedent(code), *argv],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "PYTHONPATH": os.pathsep.join(map(str, (self.folder, *beside))),
                "PYTHONDONTWRITEBYTECODE": "1",
                "FLASHINFER_CUDA_ARCH_LIST": "12.1a",
                **(env or {}),
            },
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


@pytest.fixture(scope="session")
def unpacked(
    python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Copy], FlashInfer]:
    """`unpacked(version, copy)`: the released wheel as that kind of copy."""
    made: dict[tuple[str, Copy], FlashInfer] = {}

    def make(version: str, copy: Copy) -> FlashInfer:
        key = (version, copy)
        if key not in made:
            folder = tmp_path_factory.mktemp("site")
            wheel = fetch_artefact(*WHEELS[version])
            patch_wheel(wheel, "flashinfer", version, folder, copy)
            if copy in (Copy.STAMPED, Copy.BUILD):
                meta = folder / "flashinfer/_build_meta.py"
                text = meta.read_text()
                assert f'__version__ = "{version}"\n' in text
                meta.write_text(text.replace(f'"{version}"', f'"{version}{LOCAL}"'))
            made[key] = FlashInfer(python, folder, tmp_path_factory.mktemp("home"))
        return made[key]

    return make


def cubin_package(to: Path, version: str) -> Path:
    """A package of flashinfer-cubin's shape: a version and a folder."""
    package = to / "flashinfer_cubin"
    (package / "cubins").mkdir(parents=True)
    (package / "_build_meta.py").write_text(f'__version__ = "{version}"\n')
    (package / "__init__.py").write_text(
        "from pathlib import Path\n"
        "from ._build_meta import __version__\n"
        'def get_cubin_dir(): return str(Path(__file__).parent / "cubins")\n'
    )
    return to


def jit_cache_package(to: Path, version: str) -> Path:
    """A package of flashinfer-jit-cache's shape, old and new, with one prebuilt module."""
    package = to / "flashinfer_jit_cache"
    (package / "jit_cache/silu_and_mul").mkdir(parents=True)
    (package / "jit_cache/silu_and_mul/silu_and_mul.so").touch()
    (package / "__init__.py").write_text(
        textwrap.dedent(f"""
            from pathlib import Path
            from types import SimpleNamespace
            __version__ = "{version}+cu130"
            _dir = Path(__file__).parent / "jit_cache"
            def get_jit_cache_dir(): return str(_dir)
            def get_jit_cache_providers():
                return (SimpleNamespace(
                    provider_id="cu130", distribution="flashinfer-jit-cache-sm121a",
                    version=__version__, jit_cache_dir=_dir,
                    cuda_architectures=frozenset(("sm121a",)),
                    modules=frozenset(("silu_and_mul",))),)
        """)
    )
    return to


@pytest.fixture(scope="session")
def real_cubins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real flashinfer-cubin 0.6.3, unpacked."""
    folder = tmp_path_factory.mktemp("cubin")
    with zipfile.ZipFile(fetch_artefact(*CUBIN)) as archive:
        archive.extractall(folder)
    return folder


# --- flashinfer: prebuilt packages and the cache folder ------------------------------------------

every_flashinfer = pytest.mark.parametrize("version", WHEELS)
raising = pytest.mark.parametrize("version", ["0.6.3", "0.5.3"])


def test_stamped_release_cannot_be_imported_beside_the_real_cubins(
    unpacked: Callable[[str, Copy], FlashInfer], real_cubins: Path
) -> None:
    """Why the patch exists: without it a patched build breaks every SGLang installation."""
    found = unpacked("0.6.3", Copy.STAMPED).imported(real_cubins)
    assert (
        f"flashinfer-cubin version (0.6.3) does not match flashinfer version (0.6.3{LOCAL})"
        in (found["error"])
    )


def test_patched_build_is_imported_beside_the_real_cubins_and_uses_them(
    unpacked: Callable[[str, Copy], FlashInfer], real_cubins: Path
) -> None:
    build = unpacked("0.6.3", Copy.BUILD)
    found = build.imported(real_cubins)
    assert found["version"] == f"0.6.3{LOCAL}"
    assert found["cubin"] == str(real_cubins / "flashinfer_cubin/cubins")
    assert found["jit"] == f"{build.home}/.cache/flashinfer/0.6.3{LOCAL}/121a/cached_ops"
    assert found["said"] == []


@every_flashinfer
def test_patched_build_uses_the_cubins_of_its_release(
    unpacked: Callable[[str, Copy], FlashInfer], tmp_path: Path, version: str
) -> None:
    cubins = cubin_package(tmp_path, version)
    found = unpacked(version, Copy.BUILD).imported(cubins)
    assert found["cubin"] == str(cubins / "flashinfer_cubin/cubins")
    stamped = unpacked(version, Copy.STAMPED).imported(cubins)
    assert "error" in stamped or stamped["cubin"] != str(cubins / "flashinfer_cubin/cubins")


@every_flashinfer
def test_cubins_of_another_release_are_still_refused(
    unpacked: Callable[[str, Copy], FlashInfer], tmp_path: Path, version: str
) -> None:
    """The patch must not wave anything through: 0.6.2's cubins, or a prefix of the version."""
    for other in ("0.6.2", version[:-1], f"{version}{LOCAL}x"):
        cubins = cubin_package(tmp_path / other, other)
        found = unpacked(version, Copy.BUILD).imported(cubins)
        if version == "0.7.2.post1":
            assert found["cubin"] != str(cubins / "flashinfer_cubin/cubins")
            assert "Ignoring incompatible flashinfer-cubin" in found["said"][0]
        else:
            assert f"flashinfer-cubin version ({other}) does not match" in found["error"]


@every_flashinfer
@pytest.mark.parametrize(
    "check", [{}, {"FLASHINFER_DISABLE_VERSION_CHECK": "1"}], ids=["on", "off"]
)
def test_prebuilt_modules_never_win_over_patched_sources(
    unpacked: Callable[[str, Copy], FlashInfer], tmp_path: Path, version: str, check: dict[str, str]
) -> None:
    prebuilt = jit_cache_package(tmp_path, version)
    found = unpacked(version, Copy.BUILD).imported(prebuilt, **check)
    assert found["prebuilt"] is False
    assert len(found["said"]) == 1
    assert "has local patches: ignoring the prebuilt modules" in found["said"][0]
    assert f"{version}{LOCAL}" in found["said"][0]


@every_flashinfer
def test_without_the_patch_prebuilt_modules_win_when_the_check_is_off(
    unpacked: Callable[[str, Copy], FlashInfer], tmp_path: Path, version: str
) -> None:
    """The hazard, shown: a stamped build that runs unpatched code without a word."""
    prebuilt = jit_cache_package(tmp_path, version)
    stamped = unpacked(version, Copy.STAMPED)
    found = stamped.imported(prebuilt, FLASHINFER_DISABLE_VERSION_CHECK="1")
    assert found["prebuilt"] is True
    assert found["said"] == []


@raising
def test_without_the_patch_prebuilt_modules_break_the_import(
    unpacked: Callable[[str, Copy], FlashInfer], tmp_path: Path, version: str
) -> None:
    prebuilt = jit_cache_package(tmp_path, version)
    found = unpacked(version, Copy.STAMPED).imported(prebuilt)
    assert f"flashinfer-jit-cache version ({version}+cu130) does not match" in found["error"]


@every_flashinfer
def test_unstamped_copy_behaves_as_the_release(
    unpacked: Callable[[str, Copy], FlashInfer], tmp_path: Path, version: str
) -> None:
    """Only the mark changes what is shared: same folders, same prebuilt modules."""
    prebuilt = jit_cache_package(tmp_path / "jit", version)
    cubins = cubin_package(tmp_path / "cubin", version)
    release, patched = (unpacked(version, copy) for copy in (Copy.RELEASE, Copy.PATCHED))
    one = release.imported(prebuilt, cubins)
    other = patched.imported(prebuilt, cubins)
    assert one["prebuilt"] is True
    home = (str(release.home), str(patched.home))
    assert {**one, "jit": one["jit"].replace(*home)} == other


@every_flashinfer
def test_every_series_has_a_cache_folder_of_its_own(
    unpacked: Callable[[str, Copy], FlashInfer], version: str
) -> None:
    build, release = unpacked(version, Copy.BUILD), unpacked(version, Copy.RELEASE)
    assert f"/{version}{LOCAL}/121a/cached_ops" in build.imported()["jit"]
    assert f"/{version}/121a/cached_ops" in release.imported()["jit"]


# --- flashinfer: the arch list -------------------------------------------------------------------


LISTS = {
    # list: what the release takes from it, what the patched copy does
    "12.1": ([[12, "1"]], [[12, "1a"]]),
    "12.0": ([[12, "0"]], [[12, "0a"]]),
    "12.0 12.1": ([[12, "0"], [12, "1"]], [[12, "0a"], [12, "1a"]]),
    "12.1a": ([[12, "1a"]], [[12, "1a"]]),
    "12.0f": ([[12, "0f"]], [[12, "0f"]]),
    "9.0a 10.0 12.1": (
        [[9, "0a"], [10, "0"], [12, "1"]],
        [[9, "0a"], [10, "0"], [12, "1a"]],
    ),
    "8.9": ([[8, "9"]], [[8, "9"]]),
}
REFUSED = ("12.1;12.0", "12.1,12.0", "12.1 ", "12")


def test_plain_sm12x_in_the_list_becomes_the_arch_specific_target(
    unpacked: Callable[[str, Copy], FlashInfer],
) -> None:
    """And what upstream refuses is refused as before: that is not ours to change."""
    for version in ("0.6.3", "0.5.3"):
        release = unpacked(version, Copy.RELEASE).targets(*LISTS, *REFUSED)
        patched = unpacked(version, Copy.PATCHED).targets(*LISTS, *REFUSED)
        assert {archs: release[archs] for archs in LISTS} == {k: v[0] for k, v in LISTS.items()}
        assert {archs: patched[archs] for archs in LISTS} == {k: v[1] for k, v in LISTS.items()}
        for archs in REFUSED:
            assert release[archs] == patched[archs]
            assert str(patched[archs]).startswith("ValueError")


# --- sglang --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def sglang(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Copy], Path]:
    """`sglang(version, copy)`: the released wheel as that kind of copy."""
    made: dict[tuple[str, Copy], Path] = {}

    def make(version: str, copy: Copy) -> Path:
        if (version, copy) not in made:
            folder = tmp_path_factory.mktemp("sglang")
            wheel = fetch_artefact(*SGLANG[version])
            patch_wheel(wheel, "sglang", version, folder, copy)
            made[version, copy] = folder
        return made[version, copy]

    return make


def run(python: Path, code: str, *argv: str) -> Any:
    """Run code beside torch; what it printed as JSON."""
    done = subprocess.run(
        [python, "-c", textwrap.dedent(code), *argv], capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


LAYER = "sglang/srt/layers/moe/fused_moe_triton/layer.py"
RUNNER = "sglang/srt/layers/moe/moe_runner/flashinfer_trtllm.py"
QUANT = "sglang/srt/layers/quantization/modelopt_quant.py"

# Runs the one cast of `correction_bias` in a function, on real tensors.
BIAS = """
    import ast, json, sys, types, torch
    path, name = sys.argv[1:]
    def casts(node):
        return (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "correction_bias"
            and any(isinstance(n, ast.Attribute) and n.attr == "to" for n in ast.walk(node.value)))
    [assign] = [a for f in ast.walk(ast.parse(open(path).read()))
        if isinstance(f, ast.FunctionDef) and f.name == name for a in ast.walk(f) if casts(a)]
    code = compile(ast.Expression(assign.value), path, "eval")
    out = {}
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for bias in (torch.ones(4, dtype=torch.float32), None):
            got = eval(code, {"torch": torch, "hidden_states": torch.zeros(2, dtype=dtype),
                "topk_config": types.SimpleNamespace(correction_bias=bias)})
            out[f"{dtype} {bias is None}"] = None if got is None else str(got.dtype)
    print(json.dumps(out))
"""
SITES = [
    ("0.5.9", LAYER, "forward_impl"),
    ("0.5.9", RUNNER, "fused_experts_none_to_flashinfer_trtllm_fp4"),
    ("0.5.6.post2", LAYER, "forward"),
]


@pytest.mark.parametrize(("version", "path", "function"), SITES)
def test_correction_bias_is_never_float16(
    python: Path, sglang: Callable[[str, Copy], Path], version: str, path: str, function: str
) -> None:
    before = run(python, BIAS, str(sglang(version, Copy.RELEASE) / path), function)
    after = run(python, BIAS, str(sglang(version, Copy.PATCHED) / path), function)
    assert before["torch.float16 False"] == "torch.float16"
    assert after["torch.float16 False"] == "torch.bfloat16"
    names = ("torch.float16", "torch.bfloat16", "torch.float32")
    kept: dict[str, str | None] = {f"{name} True": None for name in names}
    kept |= {f"{name} False": name for name in names[1:]}
    assert {key: value for key, value in before.items() if key in kept} == kept
    assert {key: value for key, value in after.items() if key in kept} == kept


# Runs the loop that validates the weight scales, and the release's own swizzle on the same shape.
SCALES = """
    import ast, json, logging, sys, types, torch
    path, dtype, *shape = sys.argv[1:]
    tree = ast.parse(open(path).read())
    [owner] = [n for n in tree.body
        if isinstance(n, ast.ClassDef) and n.name == "ModelOptNvFp4FusedMoEMethod"]
    method = {n.name: n for n in owner.body if isinstance(n, ast.FunctionDef)}
    body = method["process_weights_after_loading"].body
    [at] = [i for i, n in enumerate(body) if isinstance(n, ast.For)
        and getattr(n.target, "elts", [None])[0].id == "name"]
    part = ast.Module(body[at - 1 : at + 1], [])
    said = []
    logger = logging.getLogger("x")
    keep = logging.Handler()
    keep.emit = lambda record: said.append(record.getMessage())
    logger.addHandler(keep)
    good = torch.zeros(2, 128, 16, dtype=torch.float8_e4m3fn)
    odd = torch.zeros(*map(int, shape), dtype=getattr(torch, dtype))
    layer = types.SimpleNamespace(w13_weight_scale=good, w2_weight_scale=odd, layer_id=7,
        moe_runner_config=types.SimpleNamespace(is_gated=True))
    error = None
    try:
        exec(compile(part, path, "exec"), {"torch": torch, "logger": logger, "layer": layer})
    except AssertionError as e:
        error = str(e)
    torch.Tensor.cuda = lambda self: self
    space = {"torch": torch}
    exec(compile(ast.Module([method["swizzle_blockscale"]], []), path, "exec"), space)
    swizzled = None if error else list(space["swizzle_blockscale"](None, odd).shape)
    print(json.dumps({"error": error, "said": said, "swizzled": swizzled}))
"""


def scales(python: Path, folder: Path, *shape: int, dtype: str = "float8_e4m3fn") -> dict[str, Any]:
    """What a layer with a w2 scale of this shape comes to."""
    found: dict[str, Any] = run(python, SCALES, str(folder / QUANT), dtype, *map(str, shape))
    return found


def test_odd_weight_scale_is_loaded_with_a_warning_that_names_it(
    python: Path, sglang: Callable[[str, Copy], Path]
) -> None:
    """GLM-4.7 over 8 GPUs: 1536 / 8 / 16 = 12 blocks a rank."""
    before = scales(python, sglang("0.5.6.post2", Copy.RELEASE), 2, 128, 12)
    assert before["error"] == "Expected w2_weight_scale.dim(2) to be divisible by 16"
    after = scales(python, sglang("0.5.6.post2", Copy.PATCHED), 2, 128, 12)
    assert after["error"] is None
    [said] = after["said"]
    assert said == (
        "NVFP4 MoE layer 7: w2_weight_scale.dim(2) is not divisible by 16, its shape is "
        "(2, 128, 12). Check the answers of this model."
    )
    assert after["swizzled"] == [2, 128, 12]


def test_swizzle_pads_what_is_no_multiple_of_4(
    python: Path, sglang: Callable[[str, Copy], Path]
) -> None:
    """What the message says of the code behind the check: it asks for 128 rows and 4 blocks."""
    assert scales(python, sglang("0.5.6.post2", Copy.PATCHED), 2, 100, 10)["swizzled"] == [
        2,
        128,
        12,
    ]


def test_even_weight_scale_says_nothing(python: Path, sglang: Callable[[str, Copy], Path]) -> None:
    found = scales(python, sglang("0.5.6.post2", Copy.PATCHED), 2, 128, 32)
    assert found == {"error": None, "said": [], "swizzled": [2, 128, 32]}


def test_dtype_of_weight_scales_is_still_asserted(
    python: Path, sglang: Callable[[str, Copy], Path]
) -> None:
    found = scales(python, sglang("0.5.6.post2", Copy.PATCHED), 2, 128, 32, dtype="float16")
    assert found["error"] == "w2 Weight Blockscale must be represented as FP8-E4M3"


def test_the_model_cards_own_way_is_an_indentation_error(
    sglang: Callable[[str, Copy], Path],
) -> None:
    """Why the patch is not the snippet: its two asserts are the whole body of the loop."""
    text = (sglang("0.5.6.post2", Copy.RELEASE) / QUANT).read_text()
    start = text.index("            assert (\n                weight_scale.shape[assert_dim]")
    end = text.index("        # Weight processing based on strategy", start)
    snippet = text[:start] + re.sub(r"(?m)^ +", "            #", text[start:end]) + text[end:]
    with pytest.raises(IndentationError):
        compile(snippet, QUANT, "exec")
