"""The small stack of `tests.stack` in a folder, built through the real entry point.

Its wheel lies in the download cache, so nothing is fetched; the series is applied to the wheel.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

from tests.projects import Ran
from tests.stack import GATE, PATCHED_GATE, RECIPE
from tests.wheels import FILES, make_wheel

from stackpatch import storage
from stackpatch.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def with_index(gate: str, after: bytes) -> str:
    """The patch with the ids of the file before and after, as `format-patch --full-index`."""
    ids = f"{_blob(FILES['demo/gate.py'])}..{_blob(after)}"
    return gate.replace("--- a/", f"index {ids} 100644\n--- a/", 1)


OPEN = with_index(GATE, PATCHED_GATE)
OTHER_GATE = with_index(
    GATE.replace("[10, 12]", "[10, 11, 12]"), FILES["demo/gate.py"].replace(b"10", b"10, 11, 12")
)


class Shop:
    """`root` with recipe and series, `out` for results. Sets the cache of this process's runs."""

    def __init__(self, folder: Path, **wheel: Any) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.out = folder / "dist"
        self.wheel = make_wheel(folder / "released", method=zipfile.ZIP_STORED, **wheel)
        self.sha256 = hashlib.sha256(self.wheel.read_bytes()).hexdigest()
        os.environ["STACKPATCH_CACHE_DIR"] = str(folder / "cache")
        kept = storage.cache_root() / "downloads" / "sha256" / self.sha256
        kept.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.wheel, kept / self.wheel.name)
        self.write()

    @property
    def recipe(self) -> Path:
        return self.root / "recipes" / "demo.yaml"

    def write(
        self, *, gate: str = OPEN, bases: str = "", changes: tuple[str, str] = ("", "")
    ) -> None:
        """The recipe and the series. bases: the release's, as YAML; changes: text in the recipe."""
        size = self.wheel.stat().st_size
        text = RECIPE.format(file=self.wheel.name, sha256=self.sha256, size=size)
        text = text.replace("    stamp:", f"{bases}    stamp:", 1)
        self.recipe.parent.mkdir(parents=True, exist_ok=True)
        self.recipe.write_text(text.replace(*changes) if changes[0] else text)
        series = self.root / "patches" / "demo" / "v1.2.3"
        series.mkdir(parents=True, exist_ok=True)
        (series / "series").write_text("0001-gate.patch\n")
        (series / "0001-gate.patch").write_text(gate)

    def run(self, *words: str) -> Ran:
        """Run the program in this process, with its root."""
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main.main([*words, "--root", str(self.root)])
        out.seek(0)
        err.seek(0)
        return Ran(status, out.read(), err.read())

    def build(self, *words: str, out: Path | None = None) -> Ran:
        """`build demo --arch sm121 --json`, with more words."""
        place = str(out or self.out)
        return self.run("build", "demo", "--arch", "sm121", "--out", place, "--json", *words)
