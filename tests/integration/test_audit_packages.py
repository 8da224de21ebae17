"""Real wheels, built with CUDA 11.8 to 13.2 by five projects, held against cuobjdump."""

from __future__ import annotations

import json
import random
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.cuobjdump import as_cuobjdump, listed
from tests.weighing import weigh

from stackpatch.checks.audit import Audit, Policy, Standing, audit
from stackpatch.checks.scan import scan
from stackpatch.checks.window import FileSource
from stackpatch.model.arch import ARCHES

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.pypi

XFORMERS = (
    "xformers-0.0.35-py39-none-manylinux_2_28_x86_64.whl",
    "ccc73c7db9890224ab05f5fb60e2034f9e6c8672a10be0cf00e95cbbae3eda7c",
)
SGLANG_KERNEL = (
    "sglang_kernel-0.4.10-cp310-abi3-manylinux2014_aarch64.whl",
    "2c48d45eb3d6399000fb1d71e792128911f0d906f0dc61724348e96c2aac0429",
)
BITSANDBYTES = (
    "bitsandbytes-0.50.2-py3-none-manylinux_2_24_x86_64.whl",
    "55348a9a4a21bfd99cf8c7b32fe67b4030ae5c2a05738e03c1747f65fa6ec283",
)
FLASHINFER_CUBIN = (
    "flashinfer_cubin-0.6.3-py3-none-any.whl",
    "64ecd1e3084c78bfc958e90132d5dffcaf9d2cb4d52bfecde4c1b040e5b024d6",
)


def look(path: Path, arch: str, **policy: Any) -> Audit:
    return audit(str(path), ARCHES[arch], Policy(**policy))


def targets(found: Audit) -> Counter[str]:
    """In how many files each target is; `?` where the bytes leave it open."""
    return Counter(
        str(code) + ("" if code.decided else "?")
        for file in found.files
        for code in file.findings.codes
    )


@pytest.mark.parametrize(
    ("wheel", "cannot_tell"),
    [(XFORMERS, []), (SGLANG_KERNEL, []), (BITSANDBYTES, ["libbitsandbytes_cuda121.so"])],
)
def test_every_library_of_a_wheel_as_cuobjdump_lists_it(
    artefact: Callable[[str, str], Path],
    wheel: tuple[str, str],
    cannot_tell: list[str],
    tmp_path: Path,
) -> None:
    path = artefact(*wheel)
    in_zip = {file.path: file for file in look(path, "sm121").files}
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    compared, refused = 0, []
    for file in sorted(tmp_path.rglob("*")):
        if not file.is_file() or file.read_bytes()[:4] != b"\x7fELF":
            continue
        with FileSource(file) as source:
            ours = scan(file.name, source)
        assert ours.damage == ()
        oracle = listed(file)
        if oracle is None:
            refused.append(file.name)
        else:
            assert as_cuobjdump(ours) == oracle, file
        name = file.relative_to(tmp_path).as_posix()
        if ours.codes:
            assert in_zip.pop(name).findings.codes == ours.codes
            compared += oracle is not None
    assert in_zip == {}
    assert compared
    assert refused == cannot_tell


def test_sglang_kernel_for_spark(artefact: Callable[[str, str], Path]) -> None:
    """Facts: the aarch64 wheel has sm_121a in most libraries; two have none for it."""
    found = look(artefact(*SGLANG_KERNEL), "sm121")
    assert found.missing == (
        "sgl_kernel/flashmla_ops.abi3.so",
        "sgl_kernel/infllm_ops.cpython-310-aarch64-linux-gnu.so",
    )
    assert len(found.standing(Standing.NATIVE)) == 3
    assert targets(found)["sm_121a"] == 3
    assert targets(found)["sm_100f"] == 4
    # infllm_ops has sm_120a, which is no code for sm121.
    assert look(artefact(*SGLANG_KERNEL), "sm120").missing == ("sgl_kernel/flashmla_ops.abi3.so",)


def test_a_wheel_that_runs_by_ptx_alone(artefact: Callable[[str, str], Path]) -> None:
    found = look(artefact(*XFORMERS), "sm121")
    assert [(f.path, f.standing) for f in found.files] == [("xformers/_C.so", Standing.PTX)]
    assert look(artefact(*XFORMERS), "sm121", accept_ptx=False).missing == ("xformers/_C.so",)
    assert look(artefact(*XFORMERS), "sm90").missing == ()


def test_plain_targets_of_cuda_12_8_are_confirmed_from_lz4_images(
    artefact: Callable[[str, str], Path],
) -> None:
    """Their fatbin entries carry no sign of `f` either way: the images are opened."""
    found = look(artefact(*BITSANDBYTES), "sm121")
    file = next(f for f in found.files if f.path.endswith("cuda128.so"))
    assert all(code.decided for code in file.findings.codes)
    assert "sm_120" in {str(code) for code in file.findings.codes}
    assert file.standing is Standing.NATIVE
    older = next(f for f in found.files if f.path.endswith("cuda121.so"))
    assert older.standing is Standing.PTX


def test_flashinfer_cubin_has_nothing_for_12x(artefact: Callable[[str, str], Path]) -> None:
    """The seed's lesson in numbers: 5,363 cubins, all of them sm_100 or sm_103."""
    path = artefact(*FLASHINFER_CUBIN)
    found = look(path, "sm121")
    assert targets(found) == {"sm_100f": 4495, "sm_100a": 198, "sm_103a": 670}
    assert len(found.missing) == len(found.files) == 5363
    assert found.unread == ()
    assert look(path, "sm100", ignore=("*Sm103a*",)).missing == ()
    assert len(look(path, "sm103").missing) == 198


def test_flashinfer_cubins_as_cuobjdump_lists_them(
    artefact: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """A sample; `make bench` compares every one."""
    with zipfile.ZipFile(artefact(*FLASHINFER_CUBIN)) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".cubin"))
        for name in random.Random(7).sample(names, 150):
            path = tmp_path / "k.cubin"
            path.write_bytes(archive.read(name))
            with FileSource(path) as source:
                assert as_cuobjdump(scan("k.cubin", source)) == listed(path), name


def test_the_command_stays_small_and_leaves_nothing(
    artefact: Callable[[str, str], Path], tmp_path: Path
) -> None:
    path = artefact(*FLASHINFER_CUBIN)
    program = Path(sys.executable).parent / "stackpatch"
    done = weigh(
        [program, "audit", path, "--arch", "sm121", "--json"],
        cwd=tmp_path,
        env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert done.status == 1
    assert len(json.loads(done.stdout)["missing"]) == 5363
    assert list(tmp_path.iterdir()) == []
    assert done.megabytes < 200
