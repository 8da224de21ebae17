"""Building flashinfer 0.6.3 for sm121 beside unpacking and packing the same wheel with zipfile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import Comparison, Contender, Goal, command

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).parents[1]
_WHEEL = "flashinfer_python-0.6.3-py3-none-any.whl"
_SHA256 = "0fe2de934a4b3690c543dafb03f38d7bb4a762431abe8ae4f7292d6fef10c65d"

# The whole job in a process of its own, as the command does it.
_BUILD = f"""
import sys
from pathlib import Path
from stackpatch.artefacts.release import build_release, plan_release
from stackpatch.model.arch import parse_arch
from stackpatch.model.collection import Collection

collection = Collection(Path({str(_ROOT)!r}))
recipe = collection.recipe("flashinfer")
release, arch = recipe.release("0.6.3"), parse_arch("sm121")
plan, base = plan_release(recipe, release, arch, collection.series("flashinfer", release))
result = build_release(
    recipe, release, arch, plan, base, out=Path(sys.argv[1]), offline=len(sys.argv) > 2
)
sys.exit(10 + result.reused)
"""


def comparisons(work: Path) -> Iterator[Comparison]:
    """The first build with the source in the store, and the second, which finds it."""
    cache = work / "cache"
    os.environ["STACKPATCH_CACHE_DIR"] = str(cache)
    fresh, there = work / "fresh", work / "there"
    shutil.rmtree(there, ignore_errors=True)
    # Also fills the source store and the download cache.
    subprocess.run([sys.executable, "-c", _BUILD, there], check=False)
    wheel = cache / "downloads" / "sha256" / _SHA256 / _WHEEL
    unpacked, packed = work / "unpacked", work / "packed.whl"
    script = (
        f'"{sys.executable}" -m zipfile -e "{wheel}" "{unpacked}"'
        f' && cd "{unpacked}" && "{sys.executable}" -m zipfile -c "{packed}" *'
    )

    def clean() -> None:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(unpacked, ignore_errors=True)
        packed.unlink(missing_ok=True)

    build = [sys.executable, "-c", _BUILD]
    zipfile = "python -m zipfile, extract and create"
    yield Comparison(
        title="build flashinfer 0.6.3 for sm121",
        note="Wheel, image layout, lock, SBOM and provenance; the source is in the store.",
        contenders=(
            Contender(
                name="stackpatch build",
                before=clean,
                run=command([*build, fresh, "offline"], status=10),
            ),
            Contender(name=zipfile, before=clean, run=command(["sh", "-c", script])),
        ),
        goals=(Goal(against=zipfile, at_most=2.0), Goal(peak=300_000_000)),
    )
    yield Comparison(
        title="build flashinfer 0.6.3 for sm121, a second time",
        contenders=(
            Contender(
                name="stackpatch build, nothing changed",
                run=command([*build, there, "offline"], status=11),
            ),
        ),
        goals=(Goal(seconds=0.3), Goal(peak=300_000_000)),
        rounds=15,
    )
