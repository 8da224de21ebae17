"""Each fault that a smoke run must see, planted; the check that should catches it, by its words.

The programs are the recipe's own and run through `stackpatch smoke` in a real virtual environment.
What stands in there are torch and FlashInfer (tests/faults/standin), which compute right or wrong
on purpose. A run without a fault passes the same checks, so that each failure is the fault's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pytest
from tests.faults import stale_module

from stackpatch.installed.record import Row, dump_record

ROOT = Path(__file__).parents[2]
STANDIN = ROOT / "tests" / "faults" / "standin"
GPU = ROOT / "tests" / "data" / "gpu"
VERSION = "0.6.3+sp.standin"
NORM = "flashinfer/data/include/flashinfer/norm.cuh"
SOURCE = (
    b"// A header long enough to hold a fault.\n" * 300
    + b"rms = rsqrt(sum / d + eps) ;\n"
    + b"// Its other half.\n" * 600
)


def wheel_of(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    """A wheel with a true RECORD."""
    info = f"{name}-{version}.dist-info"
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\n"
        f"Version: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [Row.of(path, data) for path, data in content.items()]
    content[f"{info}/RECORD"] = dump_record([*rows, Row(f"{info}/RECORD", "", "")])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in content.items():
            archive.writestr(member, data)
    return path


def flashinfer_files() -> dict[str, bytes]:
    """The stand-in package, with sources, and no machine code."""
    base = STANDIN / "flashinfer"
    files = {f"flashinfer/{p.relative_to(base)}": p.read_bytes() for p in base.rglob("*.py")}
    return {**files, NORM: SOURCE, "flashinfer/data/csrc/norm.cu": b'#include "norm.cuh"\n'}


@dataclass(frozen=True)
class Env:
    """A virtual environment with the stand-ins, and the wheel that FlashInfer came from."""

    python: Path
    site: Path
    wheel: Path
    home: Path
    root: Path

    def install(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(self.site)

    def smoke(self, *only: str, env: dict[str, str] | None = None, **options: str) -> Run:
        """Run these checks; env: STANDIN_* settings."""
        argv = [sys.executable, "-m", "stackpatch", "smoke", options.get("stack", "flashinfer")]
        argv += ["--arch", options.get("arch", "sm121"), "--python", str(self.python), "--json"]
        argv += ["--root", str(self.root)]
        if "stack" not in options:
            argv += ["--wheel", str(self.wheel)]
        for name in only:
            argv += ["--only", name]
        settings = {**os.environ, "HOME": str(self.home), "FLASHINFER_NVCC": sys.executable}
        settings.pop("FLASHINFER_WORKSPACE_BASE", None)
        settings |= {"STANDIN_GPU": "12.1", **(env or {})}
        done = subprocess.run(
            argv, capture_output=True, text=True, env=settings, timeout=120, cwd=self.home
        )
        assert "Traceback" not in done.stderr.split("error:")[0], done.stderr
        return Run(done.returncode, json.loads(done.stdout))


@dataclass(frozen=True)
class Run:
    """What a run said."""

    status: int
    told: dict[str, Any]

    def __getitem__(self, name: str) -> tuple[str, str]:
        """(status, why) of a check."""
        found = next(check for check in self.told["checks"] if check["name"] == name)
        return found["status"], found["why"]

    def failed(self) -> list[str]:
        return [c["name"] for c in self.told["checks"] if c["status"] == "failed"]


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment once; each test gets a copy of what it may change."""
    base = tmp_path_factory.mktemp("planted")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", base / "venv"], check=True)
    site = next((base / "venv" / "lib").glob("python3*/site-packages"))
    (site / "numpy.pth").write_text(f"{Path(numpy.__file__).parents[1]}\n")
    shutil.copytree(STANDIN / "torch", site / "torch")
    shutil.copytree(ROOT / "recipes", base / "recipes")
    shutil.copytree(ROOT / "patches", base / "patches")
    return base


@pytest.fixture
def env(_made: Path, tmp_path: Path) -> Env:
    venv = tmp_path / "venv"
    shutil.copytree(_made / "venv", venv, symlinks=True)
    site = next((venv / "lib").glob("python3*/site-packages"))
    wheel = wheel_of(tmp_path, "flashinfer_python", VERSION, flashinfer_files())
    (tmp_path / "home").mkdir()
    made = Env(venv / "bin" / "python", site, wheel, tmp_path / "home", _made)
    made.install(wheel)
    return made


def test_without_a_fault_the_same_checks_pass(env: Env) -> None:
    names = ("files", "import", "device", "numbers-norm", "cache")
    done = env.smoke(*names)
    assert {name: done[name][0] for name in names} == dict.fromkeys(names, "passed")
    assert done.status == 0
    assert done.told["ran_on_device"] is True
    assert "changed to eps + 3" in done["cache"][1]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("zeros", "all zeros"),
        ("nan-row", "not finite"),
        ("tail", "never written"),
        ("one-row", "relative error"),
    ],
)
def test_a_kernel_that_computes_wrong_fails_the_numbers(env: Env, fault: str, words: str) -> None:
    done = env.smoke("device", "numbers-norm", env={"STANDIN_FAULT": fault})
    assert done.failed() == ["numbers-norm"]
    assert words in done["numbers-norm"][1]
    assert done.status == 1
    assert done.told["ran_on_device"] is False
    if fault in ("nan-row", "one-row"):
        assert "row 3 of" in done["numbers-norm"][1]


def test_a_cubin_for_another_arch_only_fails_the_audit(env: Env) -> None:
    for name, wanted in (("13.0-sm_120a", "failed"), ("13.0-sm_121a", "passed")):
        target = env.site / "flashinfer" / "data" / "kernel.cubin"
        target.write_bytes((GPU / f"{name}.cubin").read_bytes())
        done = env.smoke("audit")
        assert done["audit"][0] == wanted, name
    # One that runs does not hide one that does not.
    other = env.site / "flashinfer" / "data" / "other.cubin"
    other.write_bytes((GPU / "13.0-sm_100f.cubin").read_bytes())
    done = env.smoke("audit")
    assert done.failed() == ["audit"]
    assert "data/other.cubin" in done["audit"][1]


def test_only_what_the_recipe_names_with_a_reason_is_passed_over_by_the_audit(env: Env) -> None:
    known = env.site / "flashinfer/data/csrc/kda/ptx/fixed_h64.ptx"
    known.parent.mkdir(parents=True)
    known.write_text(".version 9.2\n.target sm_103a\n.address_size 64\n")
    done = env.smoke("audit")
    assert done["audit"][0] == "not-run"
    assert "1 files are for other arches only, as the recipe says" in done["audit"][1]
    elsewhere = env.site / "flashinfer/data/csrc/fixed_h64.ptx"
    elsewhere.write_bytes(known.read_bytes())
    done = env.smoke("audit")
    assert done.failed() == ["audit"]
    assert "data/csrc/fixed_h64.ptx" in done["audit"][1]


def module_of(env: Env) -> Path:
    return next(env.home.glob(".cache/flashinfer/*/*/cached_ops/norm/norm.so"))


def test_turned_bytes_in_a_cached_module_fail_the_cache_check(env: Env) -> None:
    assert env.smoke("cache").failed() == []
    library = module_of(env)
    time_before = library.stat().st_mtime_ns
    assert stale_module.plant(str(library)) == stale_module.BYTES
    assert library.stat().st_mtime_ns == time_before
    done = env.smoke("cache", "numbers-norm")
    assert done.failed() == ["cache"]
    assert "not what the installed sources give" in done["cache"][1]
    shutil.move(f"{library}.before", library)
    assert env.smoke("cache").failed() == []


def test_a_module_of_other_sources_fails_the_cache_check_whatever_the_times_say(env: Env) -> None:
    source = env.site / NORM
    before = source.stat()
    source.write_bytes(SOURCE.replace(b" + eps)", b" + eps + 3.0f)"))
    build = "from flashinfer.jit.norm import gen_norm_module as g; g().build(False)"
    settings = {**os.environ, "HOME": str(env.home)}
    settings.pop("FLASHINFER_WORKSPACE_BASE", None)
    subprocess.run([env.python, "-c", build], check=True, env=settings)
    source.write_bytes(SOURCE)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    done = env.smoke("files", "cache")
    assert done["files"][0] == "passed"  # the sources are right: only the module is not
    assert done.failed() == ["cache"]
    assert str(module_of(env)) in done["cache"][1]


def test_a_prebuilt_module_fails_the_cache_check(env: Env) -> None:
    prebuilt = env.site / "flashinfer" / "data" / "aot" / "norm" / "norm.so"
    prebuilt.parent.mkdir(parents=True)
    prebuilt.write_bytes(b"anything")
    done = env.smoke("cache")
    assert done.failed() == ["cache"]
    assert f"a prebuilt module is loaded instead of the sources: {prebuilt}" in done["cache"][1]


def test_a_prebuilt_module_fails_the_shadowing_check(env: Env, tmp_path: Path) -> None:
    assert env.smoke("shadowing").failed() == []
    prebuilt = env.site / "flashinfer" / "data" / "aot" / "norm" / "norm.so"
    prebuilt.parent.mkdir(parents=True)
    prebuilt.write_bytes(b"anything")
    done = env.smoke("shadowing")
    assert done.failed() == ["shadowing"]
    assert "1 compiled module" in done["shadowing"][1]
    assert f"{env.site}/flashinfer/data/aot" in done["shadowing"][1]


def test_a_copy_that_python_imports_first_fails_the_shadowing_check(
    env: Env, tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere"
    (other / "flashinfer").mkdir(parents=True)
    (other / "flashinfer" / "__init__.py").write_text("__version__ = 'another'\n")
    (env.site / "first.pth").write_text(f"import sys; sys.path.insert(0, {str(other)!r})\n")
    done = env.smoke("files", "shadowing")
    assert done["files"][0] == "passed"  # the patched one is whole, and not what is imported
    assert done.failed() == ["shadowing"]
    assert f"Python imports {other}/flashinfer" in done["shadowing"][1]


def test_a_package_of_prebuilt_modules_that_may_win_is_never_called_passed(
    env: Env, tmp_path: Path
) -> None:
    files = {"flashinfer_jit_cache/__init__.py": b""}
    env.install(wheel_of(tmp_path, "flashinfer_jit_cache", "0.6.3", files))
    meta = env.site / "flashinfer" / "_build_meta.py"
    for version, status in (("0.6.3", "failed"), (VERSION, "not-run")):
        meta.write_text(f'__version__ = "{version}"\n')
        done = env.smoke("shadowing")
        assert done["shadowing"][0] == status, version
        assert "flashinfer-jit-cache 0.6.3" in done["shadowing"][1]


def test_an_unpatched_file_fails_the_files_check(env: Env) -> None:
    (env.site / NORM).write_bytes(SOURCE + b"// as upstream has it\n")
    done = env.smoke("files")
    assert done.failed() == ["files"]
    assert NORM in done["files"][1]


def test_another_release_beside_it_fails_the_import(env: Env, tmp_path: Path) -> None:
    companion = wheel_of(tmp_path, "flashinfer_cubin", "0.6.2", {"flashinfer_cubin/a.py": b""})
    env.install(companion)
    done = env.smoke("import")
    assert done.failed() == ["import"]
    assert "flashinfer-cubin 0.6.2 is installed beside flashinfer 0.6.3" in done["import"][1]


def test_a_mixture_of_two_releases_fails_the_import(env: Env) -> None:
    main = env.site / "flashinfer" / "__init__.py"
    main.write_text(main.read_text().replace(VERSION, "0.6.2"))
    done = env.smoke("files", "import")
    assert done.failed() == ["files", "import"]
    assert (
        f"the distribution is {VERSION}, but the imported package calls itself 0.6.2"
        in (done["import"][1])
    )


def test_another_release_than_was_asked_for_fails_the_import(env: Env) -> None:
    done = env.smoke("import", stack="flashinfer@0.7.2.post1")
    assert done.failed() == ["import"]
    assert "is imported, not 0.7.2.post1" in done["import"][1]


def test_a_target_without_fp4_fails_the_import(env: Env) -> None:
    done = env.smoke("import", env={"STANDIN_FAULT": "plain-target"})
    assert done.failed() == ["import"]
    assert "would compile for sm_121, not for sm_121a" in done["import"][1]


def test_memory_that_others_hold_is_not_run_and_memory_to_spare_is_a_failure(env: Env) -> None:
    full = env.smoke("numbers-norm", env={"STANDIN_FAULT": "memory", "STANDIN_FREE": "1000000"})
    assert full["numbers-norm"][0] == "not-run"
    assert "the GPU's memory is taken" in full["numbers-norm"][1]
    spare = env.smoke("numbers-norm", env={"STANDIN_FAULT": "memory"})
    assert spare.failed() == ["numbers-norm"]
    assert "out of memory" in spare["numbers-norm"][1]


@pytest.mark.parametrize(
    ("said", "missing"),
    [
        ("x.h:25:10: fatal error: cublasLt.h: No such file or directory", "cublasLt.h"),
        ("/usr/bin/ld: cannot find -lcuda: No such file or directory", "cuda"),
        ("x.cu:1:10: fatal error: flashinfer/norm.cuh: No such file or directory", None),
        ("ptxas fatal: Unresolved extern function 'cublas_x'", None),
    ],
)
def test_a_toolkit_that_is_not_whole_says_nothing_about_the_stack(
    env: Env, said: str, missing: str | None
) -> None:
    done = env.smoke("numbers-norm", "cache", env={"STANDIN_COMPILER": said})
    if missing is None:  # a file of the package's own: the stack is broken
        assert done.failed() == ["numbers-norm", "cache"]
        return
    for name in ("numbers-norm", "cache"):
        why = f"the CUDA toolkit here is not whole: {missing} is missing"
        assert done[name] == ("not-run", why)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_check_that_hangs_is_killed_with_its_children(env: Env, tmp_path: Path) -> None:
    other = tmp_path / "root"
    shutil.copytree(env.root / "recipes", other / "recipes")
    shutil.copytree(env.root / "patches", other / "patches")
    recipe = other / "recipes" / "flashinfer.yaml"
    text = recipe.read_text()
    quick = text.replace("numbers_norm.py, timeout: 600", "numbers_norm.py, timeout: 6")
    assert quick != text
    recipe.write_text(quick)
    pids = tmp_path / "pids"
    started = time.monotonic()
    done = Env(env.python, env.site, env.wheel, env.home, other).smoke(
        "numbers-norm", env={"STANDIN_FAULT": "hang", "STANDIN_PIDS": str(pids)}
    )
    assert time.monotonic() - started < 60
    assert done.failed() == ["numbers-norm"]
    assert "did not end within 6 s" in done["numbers-norm"][1]
    for pid in map(int, pids.read_text().split()):
        assert not alive(pid)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_running(
    env: Env, tmp_path: Path, how: signal.Signals
) -> None:
    pids = tmp_path / "pids"
    argv = [sys.executable, "-m", "stackpatch", "smoke", "flashinfer", "--arch", "sm121"]
    argv += ["--python", str(env.python), "--root", str(env.root)]
    argv += ["--only", "numbers-norm", "--only", "device"]
    settings = {**os.environ, "HOME": str(env.home), "FLASHINFER_NVCC": sys.executable}
    settings |= {"STANDIN_GPU": "12.1", "STANDIN_FAULT": "hang", "STANDIN_PIDS": str(pids)}
    child = subprocess.Popen(
        argv,
        env=settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    for _ in range(600):
        if pids.exists() and pids.read_text().count(" "):
            break
        time.sleep(0.05)
    started = [int(pid) for pid in pids.read_text().split()]
    assert all(alive(pid) for pid in started)
    child.send_signal(how)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in said
    left = json.loads((tmp_path / "smoke.json").read_text())  # what ran before it is kept
    found = {check["name"]: (check["status"], check["why"]) for check in left["checks"]}
    assert found["device"][0] == "passed"
    assert found["numbers-norm"] == found["numbers-moe"] == ("not-run", "the run ended before it")
    assert left["device"]["capability"] == "12.1"
    for pid in started:
        assert not alive(pid)


@pytest.mark.parametrize(
    ("gpu", "device", "words"),
    [
        ("none", "not-run", "Found no NVIDIA driver"),
        ("old", "failed", "driver on your system is too old"),
        ("9.0", "failed", "the GPU is sm90 (a stand-in), not sm121"),
    ],
)
def test_no_gpu_an_old_driver_and_another_gpu(env: Env, gpu: str, device: str, words: str) -> None:
    done = env.smoke("device", "numbers-norm", env={"STANDIN_GPU": gpu})
    assert done["device"][0] == device
    assert words in done["device"][1]
    assert done["numbers-norm"][0] == "not-run"
    assert done.told["ran_on_device"] is False
    assert done.status == (1 if device == "failed" else 0)
