"""The path rules held against the real packages: their own code computes the folders.

FlashInfer's env.py and SGLang's environ.py run in an interpreter of their own, with the variables
that a person may have set; what they compute must be where we look. Nothing here needs a GPU or
torch: env.py asks only compilation_context for the arches, which is replaced.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stackpatch.installed import clear
from stackpatch.installed.caches import CACHES
from stackpatch.installed.surroundings import surroundings

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.pypi

FLASHINFER = (
    "flashinfer_python-0.6.3-py3-none-any.whl",
    "0fe2de934a4b3690c543dafb03f38d7bb4a762431abe8ae4f7292d6fef10c65d",
)
SGLANG = (
    "sglang-0.5.23-cp312-cp312-manylinux_2_34_x86_64.whl",
    "8d257a319395b322bb1be327d05e5528859358153c8563b04c0a4a3c8af164b6",
)

ASK_FLASHINFER = """
import json, sys, types
package = types.ModuleType("flashinfer"); package.__path__ = [sys.argv[1] + "/flashinfer"]
sys.modules["flashinfer"] = package
jit = types.ModuleType("flashinfer.jit"); jit.__path__ = [sys.argv[1] + "/flashinfer/jit"]
sys.modules["flashinfer.jit"] = jit
context = types.ModuleType("flashinfer.compilation_context")
class CompilationContext:
    TARGET_CUDA_ARCHS = {tuple(a) for a in json.loads(sys.argv[2])}
context.CompilationContext = CompilationContext
sys.modules["flashinfer.compilation_context"] = context
import flashinfer.jit.env as env
print(json.dumps({k: str(getattr(env, k)) for k in (
    "FLASHINFER_CACHE_DIR", "FLASHINFER_CUBIN_DIR", "FLASHINFER_JIT_DIR", "FLASHINFER_GEN_SRC_DIR"
)}))
"""


def unpack(wheel: Path, target: Path, *names: str) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        for name in names:
            archive.extract(name, target)
    return target


@pytest.fixture(scope="module")
def flashinfer(
    artefact: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    names = ("jit/env.py", "version.py", "_build_meta.py")
    folder = tmp_path_factory.mktemp("flashinfer")
    return unpack(artefact(*FLASHINFER), folder, *(f"flashinfer/{name}" for name in names))


@pytest.fixture(scope="module")
def sglang(artefact: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sglang")
    return unpack(artefact(*SGLANG), folder, "sglang/srt/environ.py")


def ask(
    package: Path, environ: dict[str, str], arches: list[tuple[int, str]], cwd: Path
) -> dict[str, str]:
    argv = [sys.executable, "-I", "-c", ASK_FLASHINFER, str(package), json.dumps(arches)]
    done = subprocess.run(argv, env=environ, cwd=cwd, capture_output=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"FLASHINFER_WORKSPACE_BASE": "/big/disk"},
        {"FLASHINFER_WORKSPACE_BASE": "~/x"},
        {"FLASHINFER_WORKSPACE_BASE": ""},
        {"FLASHINFER_WORKSPACE_BASE": "rel"},
        {"FLASHINFER_CUBIN_DIR": "/cubins"},
        {"FLASHINFER_CUBIN_DIR": ""},
        {"XDG_CACHE_HOME": "/xdg"},
    ],
    ids=str,
)
def test_flashinfer_computes_the_folders_where_we_look(
    flashinfer: Path, tmp_path: Path, extra: dict[str, str]
) -> None:
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], **extra}
    real = ask(flashinfer, environ, [(12, "1a")], tmp_path)
    around = surroundings(environ, versions={"flashinfer": "0.6.3"})
    (jit,) = CACHES["flashinfer-jit"].locations(around)
    (cubins,) = CACHES["flashinfer-cubins"].locations(around)
    assert str(jit.path) == real["FLASHINFER_CACHE_DIR"]
    assert str(cubins.path) == real["FLASHINFER_CUBIN_DIR"]


@pytest.mark.parametrize(
    "arches",
    [[], [(12, "1a")], [(8, "9"), (12, "0f"), (12, "1a")], [(7, "5")], [(10, "3a")]],
    ids=str,
)
def test_what_flashinfer_would_write_is_recognised(
    flashinfer: Path, tmp_path: Path, arches: list[tuple[int, str]]
) -> None:
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    real = ask(flashinfer, environ, arches, tmp_path)
    built = Path(real["FLASHINFER_JIT_DIR"]) / "norm"
    rendered = Path(real["FLASHINFER_GEN_SRC_DIR"]) / "norm"
    for path in (built / "build.ninja", built / "norm.so", rendered / "norm_config.inc"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    around = surroundings(environ)
    done = clear.carry_out(clear.plan(clear.request("flashinfer", ()), around))
    assert {item.path for item in done.taken} == {built, rendered}
    assert not built.exists()
    assert not rendered.exists()


def test_a_patched_version_names_a_folder_of_its_own(flashinfer: Path, tmp_path: Path) -> None:
    package = tmp_path / "patched"
    shutil.copytree(flashinfer, package)
    meta = package / "flashinfer" / "_build_meta.py"
    meta.write_text(meta.read_text().replace('"0.6.3"', '"0.6.3+sp.0123abcd"'))
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    module = Path(ask(package, environ, [(12, "1a")], tmp_path)["FLASHINFER_JIT_DIR"]) / "norm"
    assert "0.6.3+sp.0123abcd" in str(module)
    module.mkdir(parents=True)
    (module / "build.ninja").touch()
    made = clear.plan(clear.request("flashinfer", ()), surroundings(environ))
    assert made.taken == []
    assert [str(kept.why) for kept in made.kept] == ["current"]


@pytest.mark.parametrize(
    "extra", [{}, {"SGLANG_CACHE_DIR": "/s"}, {"SGLANG_CACHE_DIR": "~/s"}], ids=str
)
def test_sglang_moves_the_caches_of_others_to_where_we_look(
    sglang: Path, tmp_path: Path, extra: dict[str, str]
) -> None:
    environ = {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(sglang),
        **extra,
    }
    code = (
        "import json, sglang.srt.environ as e;"
        "print(json.dumps([e.third_party_cache_defaults(), e.envs.SGLANG_DG_CACHE_DIR.get(),"
        " e.envs.SGLANG_CUTE_AOT_CACHE_DIR.get()]))"
    )
    argv = [sys.executable, "-s", "-c", code]
    done = subprocess.run(argv, env=environ, cwd=tmp_path, capture_output=True, check=True)
    moved, deep_gemm, cute_aot = json.loads(done.stdout)
    around = surroundings(environ, versions={"sglang": "0.5.23", "flashinfer": "0.7.2"})

    def ours(name: str) -> set[str]:
        return {str(place.path) for place in CACHES[name].locations(around)}

    assert moved["TRITON_CACHE_DIR"] in ours("triton")
    assert moved["TORCHINDUCTOR_CACHE_DIR"] in ours("torchinductor")
    assert moved["CUDA_CACHE_PATH"] in ours("cuda-driver")
    assert moved["TILELANG_CACHE_DIR"] in ours("tilelang")
    assert moved["FLASHINFER_WORKSPACE_BASE"] + "/.cache/flashinfer" in ours("flashinfer-jit")
    assert deep_gemm in ours("deep-gemm")
    assert ours("sglang-cute-aot") == {cute_aot}
    assert len(moved) == 5, "SGLang moves a cache that we do not know"
