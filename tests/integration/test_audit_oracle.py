"""What nvcc compiles here is read as cuobjdump reads it, and `f` besides, which it cannot tell."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from tests import nvcc as compiler
from tests.cuobjdump import as_cuobjdump, listed, needed
from tests.sources import BytesSource

from stackpatch.checks.scan import Findings, scan
from stackpatch.checks.window import FileSource

SOURCE = """
__global__ void add(float *a, const float *b, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) a[i] += sinf(b[i]);
}
int run() { add<<<1, 32>>>(nullptr, nullptr, 0); return 0; }
"""
CALLER = "__device__ int f(int);\n__global__ void k(int *a) { *a = f(*a); }\nvoid run2() {}\n"
CALLEE = "__device__ int f(int x) { return x * 3; }\n"
ARCHES = ["75", "80", "90a", "100a", "100f", "103a", "110a", "120a", "120f", "121a"]
MODES = [
    "--no-compress",
    "--compress-mode=none",
    "--compress-mode=speed",
    "--compress-mode=balance",
    "--compress-mode=size",
    "-Xfatbin=-compress-all",
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvcc")
    for name, text in (("k.cu", SOURCE), ("a.cu", CALLER), ("b.cu", CALLEE)):
        (folder / name).write_text(text)
    return folder


def nvcc(work: Path, *words: str, out: str, sources: tuple[str, ...] = ("k.cu",)) -> Path:
    subprocess.run(
        [compiler.nvcc(), *words, "-o", out, *sources], cwd=work, check=True, timeout=500
    )
    return work / out


def target(arch: str, *, ptx: bool = False) -> str:
    code = f"[sm_{arch},compute_{arch}]" if ptx else f"sm_{arch}"
    return f"-gencode=arch=compute_{arch},code={code}"


def read(path: Path) -> Findings:
    with FileSource(path) as source:
        return scan(path.name, source)


def exact(path: Path) -> Counter[str]:
    """Our answer, which must be whole and agree with cuobjdump's."""
    found = read(path)
    assert found.damage == ()
    assert all(code.decided for code in found.codes)
    assert as_cuobjdump(found) == listed(path)
    return Counter({str(code): count for code, count in found.codes.items()})


@pytest.mark.parametrize("arch", ARCHES)
def test_one_target_with_and_without_ptx(work: Path, arch: str) -> None:
    alone = nvcc(work, "-c", target(arch), out=f"{arch}.o")
    assert exact(alone) == {f"sm_{arch}": 1}
    both = nvcc(work, "-c", target(arch, ptx=True), out=f"{arch}p.o")
    assert exact(both) == {f"sm_{arch}": 1, f"compute_{arch}": 1}


@pytest.mark.parametrize("mode", MODES)
def test_every_target_in_one_object_in_every_compression(work: Path, mode: str) -> None:
    wanted: dict[str, int] = {}
    words = [mode, "-c"]
    for arch in ARCHES:
        words.append(target(arch, ptx=arch in {"90a", "120f", "121a"}))
        wanted[f"sm_{arch}"] = 1
        if arch in {"90a", "120f", "121a"}:
            wanted[f"compute_{arch}"] = 1
    assert exact(nvcc(work, *words, out=f"many{mode.replace('=', '')}.o")) == wanted


def test_ptx_of_a_family_is_told_from_plain(work: Path) -> None:
    """For PTX cuobjdump tells `f` too."""
    words = (
        "-gencode=arch=compute_100f,code=compute_100f",
        "-gencode=arch=compute_100a,code=compute_100a",
    )
    path = nvcc(work, "-c", *words, out="ptx.o")
    assert listed(path) == exact(path) == {"compute_100f": 1, "compute_100a": 1}


def test_cubins_fatbins_and_ptx_as_files(work: Path) -> None:
    for arch in ARCHES:
        cubin = nvcc(work, "-cubin", f"-arch=sm_{arch}", out=f"{arch}.cubin")
        assert exact(cubin) == {f"sm_{arch}": 1}
        hidden = work / f"{arch}.py"
        shutil.copy(cubin, hidden)
        assert {str(code) for code in read(hidden).codes} == {f"sm_{arch}"}
        text = nvcc(work, "-ptx", f"-arch=compute_{arch}", out=f"{arch}.ptx")
        assert {str(code) for code in read(text).codes} == {f"compute_{arch}"}
    fatbin = nvcc(work, "-fatbin", target("90a"), target("120", ptx=True), out="k.fatbin")
    assert exact(fatbin) == {"sm_90a": 1, "sm_120": 1, "compute_120": 1}


@pytest.mark.parametrize("rdc", ["false", "true"])
def test_shared_libraries_and_static_ones(work: Path, rdc: str) -> None:
    words = (f"-rdc={rdc}", "-Xcompiler=-fPIC", target("90a"), target("120", ptx=True))
    shared = exact(nvcc(work, "-shared", *words, out=f"{rdc}.so"))
    assert set(shared) == {"sm_90a", "sm_120", "compute_120"}
    assert shared["sm_90a"] == shared["sm_120"] >= 1
    static = exact(nvcc(work, "-lib", *words, out=f"{rdc}.a"))
    assert static == {"sm_90a": 1, "sm_120": 1, "compute_120": 1}


def test_device_code_linked_from_two_objects(work: Path) -> None:
    """nvlink's notes repeat each object's options; all of them must be seen as one."""
    words = ("-rdc=true", "-Xcompiler=-fPIC", target("120f"), target("121a"))
    found = exact(nvcc(work, "-shared", *words, out="two.so", sources=("a.cu", "b.cu")))
    assert found == {"sm_120f": 3, "sm_121a": 3}


def test_lto_code_is_neither_machine_code_nor_ptx(work: Path) -> None:
    path = nvcc(work, "-c", "-rdc=true", "-gencode=arch=compute_120,code=lto_120", out="lto.o")
    assert exact(path) == {"lto_120": 1}
    assert listed(path) == {}


def test_debug_builds(work: Path) -> None:
    for flag in ("-G", "-lineinfo"):
        path = nvcc(work, "-c", flag, target("120a", ptx=True), out=f"d{flag}.o")
        assert exact(path) == {"sm_120a": 1, "compute_120a": 1}


def test_a_stripped_library_keeps_its_answer(work: Path) -> None:
    path = nvcc(work, "-shared", "-Xcompiler=-fPIC", target("121a"), out="strip.so")
    before = exact(path)
    subprocess.run([needed("strip", shutil.which("strip")), path], check=True)
    assert exact(path) == before


def test_a_cubin_inside_a_programs_data_is_found_where_cuobjdump_sees_nothing(work: Path) -> None:
    """TensorRT-LLM compiles its kernels in as arrays of bytes."""
    cubin = nvcc(work, "-cubin", "-arch=sm_100f", out="inner.cubin").read_bytes()
    array = ",".join(str(byte) for byte in cubin)
    (work / "host.c").write_text(f"const unsigned char kernel[] = {{{array}}};\n")
    subprocess.run(
        [needed("gcc", shutil.which("gcc")), "-shared", "-fPIC", "-o", "host.so", "host.c"],
        cwd=work,
        check=True,
    )
    assert listed(work / "host.so") == {}
    assert {str(code) for code in read(work / "host.so").codes} == {"sm_100f"}


def test_a_program_without_gpu_code_has_none() -> None:
    bash = Path(needed("bash", shutil.which("bash")))
    assert read(bash).codes == {}
    assert read(bash).damage == ()


def test_the_compiler_itself_quotes_ptx_and_holds_no_module() -> None:
    """ptxas and nvlink read fatbins and write PTX heads; nothing in them is code for a GPU.

    Not asked of fatbinary: a fatbin's whole header stands in its code as a number, and what follows
    it is taken for a damaged fatbin.
    """
    for name in ("nvlink", "cudafe++", "ptxas"):
        program = compiler.folder() / name
        assert program.read_bytes()[:4] == b"\x7fELF", "a script says nothing"
        found = read(program)
        assert found.codes == {}, name
        assert found.damage == (), name


def test_a_real_object_cut_anywhere_never_fails(work: Path) -> None:
    data = nvcc(work, "-c", target("121a", ptx=True), out="cut.o").read_bytes()
    whole = scan("x.o", BytesSource(data))
    for size in range(0, len(data), 13):
        found = scan("x.o", BytesSource(data[:size]))
        assert set(found.codes) <= set(whole.codes)


def test_a_file_of_four_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.so"
    with path.open("wb") as file:
        file.truncate((4 << 30) + 4096)
        file.seek(0, 2)
        file.write(
            Path(__file__).parent.parent.joinpath("data/gpu/13.0-sm_121a.cubin").read_bytes()
        )
    program = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from stackpatch.checks.scan import scan\n"
        "from stackpatch.checks.window import FileSource\n"
        "with FileSource(Path(sys.argv[1])) as source:\n"
        "    found = scan('large.so', source)\n"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]\n"
        "print(*found.codes, int(peak) // 1024)\n"
    )
    import sys

    done = subprocess.run(
        [sys.executable, "-c", program, path],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    name, megabytes = done.stdout.split()
    assert name == "sm_121a"
    # Not ru_maxrss: that begins with what the parent had resident when it started the child.
    assert int(megabytes) < 150
