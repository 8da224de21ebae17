"""The conversions on this machine's GPU, every way they can be compiled: one JSON document.

    scripts/nvfp4-gpu [--out FILE] [--quick]

Exit status: 0 all bits agree, 1 some do not, 3 no nvcc or no GPU. A difference of the CUDA
toolkit's intrinsic from the reference is a finding about the device (`intrinsic` in the document)
and fails the run only where the code that is the default on this device uses the instruction.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from . import checks, sources
from .library import Conversion, FailedCallError, Library
from .sources import Switch

ROWS, COLS = 1 << 18, 128  # of the timings: 32 Mi values
BUILDS = [
    ("default", Switch.CHOSEN, ()),
    ("software everywhere", Switch.SOFTWARE, ()),
    ("default, -use_fast_math", Switch.CHOSEN, ("-use_fast_math",)),
]
# Bytes that each kernel of the timings reads and writes for one value.
TRAFFIC = {
    "quantise float16": 2 + 0.5 + 1 / 16,
    "dequantise to float32": 0.5 + 1 / 16 + 4,
    "dequantise to E4M3": 0.5 + 1 / 16 + 1,
    "float32 to E4M3": 4 + 1,
}


def capability() -> str | None:
    """The first GPU's compute capability as `90`, from nvidia-smi."""
    argv = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.split()[0].replace(".", "") if done.stdout.strip() else None


def said(outcomes: list[checks.Outcome], started: float) -> dict[str, Any]:
    """The outcomes as they go into the document."""
    return {
        "compared": sum(outcome.compared for outcome in outcomes),
        "mismatches": sum(outcome.mismatches for outcome in outcomes),
        "seconds": round(time.monotonic() - started, 1),
        "checks": {
            outcome.name: {
                "compared": outcome.compared,
                "mismatches": outcome.mismatches,
                **({"examples": outcome.examples} if outcome.examples else {}),
                **outcome.figures,
            }
            for outcome in outcomes
        },
    }


def measured(library: Library) -> dict[str, Any]:
    """What each kernel takes on 32 Mi values, and the memory it moves in that time."""
    found = {}
    for (name, each), took in zip(TRAFFIC.items(), library.timings(ROWS, COLS, 50), strict=True):
        speed = ROWS * COLS * each / took / 1e6
        found[name] = {"milliseconds": round(took, 4), "gigabytes_per_second": round(speed)}
    return found


def compiled(nvcc: str, folder: Path, to: Path, arch: str) -> dict[str, Path]:
    """Every build, made at the same time."""
    targets = {name: to / f"{number}.so" for number, (name, _, _) in enumerate(BUILDS)}

    def make(build: tuple[str, Switch, tuple[str, ...]]) -> None:
        name, switch, more = build
        argv = sources.device_command(nvcc, folder, targets[name], arch, switch, *more)
        subprocess.run(argv, check=True)

    with ThreadPoolExecutor(len(BUILDS)) as pool:
        list(pool.map(make, BUILDS))
    return targets


def examine(nvcc: str, arch: str, work: Path, *, quick: bool) -> dict[str, Any]:
    """The whole document."""
    folder = sources.unpack(work)
    targets = compiled(nvcc, folder, work, arch)
    libraries = {name: Library(path) for name, path in targets.items()}
    default = libraries["default"]
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True)
    document: dict[str, Any] = {
        "schema": "stackpatch.nvfp4-gpu/1",
        "patch": str(sources.the_patch().relative_to(sources.ROOT)),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": default.describe(),
        "target": f"sm_{arch}",
        "nvcc": version.stdout.strip().splitlines()[-2].rpartition(" ")[2],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "builds": {},
    }
    for name, library in libraries.items():
        started = time.monotonic()
        if quick:
            outcomes = [checks.boundaries(library), checks.decodings(library)]
        else:
            outcomes = checks.every_check(library, gpu=True)
        document["builds"][name] = said(outcomes, started)
    started = time.monotonic()
    chunks = range(0, 2**32, 2**30) if quick else checks.EVERY_FLOAT
    intrinsic = checks.every_float(default, Conversion.TO_E4M3_INTRINSIC, chunks)
    document["intrinsic"] = said([intrinsic], started)
    host = Library(sources.compile_host(folder, work))
    started = time.monotonic()
    document["host"] = said(
        [checks.boundaries(host), checks.every_float(host, Conversion.TO_E4M3_SOFTWARE, chunks)],
        started,
    )
    document["timings"] = {
        "values": ROWS * COLS,
        **{name: measured(library) for name, library in list(libraries.items())[:2]},
    }
    ours = [*document["builds"].values(), document["host"]]
    document["compared"] = sum(each["compared"] for each in ours)
    document["mismatches"] = sum(each["mismatches"] for each in ours)
    return document


def main() -> int:
    """Run, print, and say by the exit status what came out."""
    parser = argparse.ArgumentParser(prog="nvfp4-gpu", description=__doc__)
    parser.add_argument("--out", type=Path, help="write the document there too")
    parser.add_argument("--quick", action="store_true", help="without the long checks")
    parser.add_argument("--arch", help="compile for this, such as 121a; default: the first GPU's")
    given = parser.parse_args()
    nvcc = sources.find_nvcc()
    found = capability()
    if nvcc is None or (found is None and given.arch is None):
        what = "no nvcc on PATH" if nvcc is None else "nvidia-smi names no GPU"
        print(f"nvfp4-gpu: {what}", file=sys.stderr)
        return 3
    arch = given.arch or f"{found}{'a' if int(found or 0) >= 90 else ''}"
    with tempfile.TemporaryDirectory() as work:
        try:
            document = examine(nvcc, arch, Path(work), quick=given.quick)
        except FailedCallError as error:
            print(f"nvfp4-gpu: the GPU's library failed: {error}", file=sys.stderr)
            return 3
    text = json.dumps(document, indent=2) + "\n"
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    print(text, end="")
    return 1 if document["mismatches"] else 0


if __name__ == "__main__":
    sys.exit(main())
