"""`stackpatch audit` of large wheels beside a loop of `cuobjdump --list-elf` over their files.

cuobjdump reads no wheels, so its loop gets the files already unpacked; how long unpacking takes
is a row of its own. Before anything is timed, every file's targets are compared with cuobjdump's.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from typing import TYPE_CHECKING

from tests import cuobjdump
from tests.conftest import fetch_artefact

from bench.measure import Comparison, Contender, Goal, command, program
from stackpatch.checks.scan import scan
from stackpatch.checks.window import FileSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# file, sha256, audit's exit status for sm121, whether the goal of the issue is meant for it
_WHEELS = (
    (
        "flashinfer_cubin-0.6.13-py3-none-any.whl",
        "41e4848c2d09d220e8394489b2fb6cfec6b6ad09f897b5ab8b39fc23055f6c24",
        1,
        True,
    ),
    (
        "sglang_kernel-0.4.10-cp310-abi3-manylinux2014_x86_64.whl",
        "043cbe4a10e7887ea1b25599b729ff1ce115a0d5217b2c177aff9f9ae5327724",
        1,
        False,
    ),
    (
        "vllm-0.33.0-cp38-abi3-manylinux_2_28_x86_64.whl",
        "4b6bdec4ab269990bf70d45a3c1e94c3760a27064513760193b26d6f0da883aa",
        1,
        False,
    ),
)
_LOOP = 'while IFS= read -r file; do "$0" --list-elf "$file"; done <"$1" >/dev/null 2>&1; exit 0'
_UNPACK = "import shutil, sys, zipfile; shutil.rmtree(sys.argv[2], ignore_errors=True); "
_UNPACK += "zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])"


def comparisons(work: Path) -> Iterator[Comparison]:
    """One comparison for each wheel."""
    tool = cuobjdump.program()
    for name, sha256, status, meant in _WHEELS:
        wheel = fetch_artefact(name, sha256)
        unpacked = work / sha256[:12]
        shutil.rmtree(unpacked, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        listing = work / f"{sha256[:12]}.files"
        files = sorted(path for path in unpacked.rglob("*") if _is_elf(path))
        listing.write_text("".join(f"{path}\n" for path in files), "utf-8")
        ours = "stackpatch audit"
        loop = "cuobjdump --list-elf, file by file"
        yield Comparison(
            title=f"stackpatch audit {name.partition('-py3')[0].partition('-cp')[0]}",
            note=f"{wheel.stat().st_size / 1e6:.0f} MB. {_agreement(files)}",
            contenders=(
                Contender(
                    name=ours,
                    run=command(
                        [program("stackpatch"), "audit", wheel, "--arch", "sm121", "--json"],
                        status=status,
                    ),
                ),
                Contender(name=loop, run=command(["sh", "-c", _LOOP, tool, listing])),
                Contender(
                    name="unpacking it for cuobjdump",
                    run=command([sys.executable, "-c", _UNPACK, wheel, work / "again"]),
                ),
            ),
            goals=(
                *((Goal(against=loop, at_most=0.2),) if meant else ()),
                Goal(peak=200_000_000),
            ),
            rounds=1 if len(files) > 1000 else 3,
        )
        shutil.rmtree(unpacked, ignore_errors=True)
        shutil.rmtree(work / "again", ignore_errors=True)


def _is_elf(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _agreement(files: list[Path]) -> str:
    """Compares every file with cuobjdump; raises where the two differ."""
    same = refused = 0
    for path in files:
        with FileSource(path) as source:
            ours = scan(path.name, source)
        theirs = cuobjdump.listed(path)
        if theirs is None:
            refused += 1
        elif cuobjdump.as_cuobjdump(ours) != theirs:
            msg = f"{path}: {cuobjdump.as_cuobjdump(ours)} is not cuobjdump's {theirs}"
            raise AssertionError(msg)
        else:
            same += 1
    told = f"cuobjdump lists the same targets in {same:,} of {len(files):,} ELF files"
    return f"{told}; {refused} it cannot read." if refused else f"{told}."
