"""What a Python interpreter has installed, asked without importing any of it.

The interpreter runs isolated (`-I`: no PYTHON* variables, no user site, not the current folder)
and answers with versions and places; what a `sitecustomize` prints besides is ignored.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackpatch import proc
from stackpatch.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MARK = "stackpatch-answer:"
# import package -> distribution
_DISTRIBUTIONS = {
    "flashinfer": "flashinfer-python",
    "flashinfer_cubin": "flashinfer-cubin",
    "flashinfer_jit_cache": "flashinfer-jit-cache",
    "sglang": "sglang",
    "tensorrt_llm": "tensorrt-llm",
    "torch": "torch",
    "triton": "triton",
    "tvm_ffi": "apache-tvm-ffi",
    "vllm": "vllm",
}
_QUESTION = """
import importlib.metadata as m, importlib.util as u, json, sys
asked = json.loads(sys.argv[1])
found = {}
for package, distribution in asked.items():
    try:
        version = m.version(distribution)
    except Exception:
        version = None
    try:
        spec = u.find_spec(package)
        place = list(spec.submodule_search_locations or [])[:1] if spec else []
    except Exception:
        place = []
    if version is not None or place:
        found[package] = [version, place[0] if place else None]
print()
print(sys.argv[2] + json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """Versions and folders by import package. flashinfer's is the one that names its cache.

    prebuilt: distributions whose compiled modules FlashInfer loads before any source.
    """

    python: Path
    versions: Mapping[str, str]
    folders: Mapping[str, Path]
    prebuilt: tuple[str, ...]


def ask(python: Path, *, timeout: float = 30.0) -> Installed:
    """Ask an interpreter, or the one of a virtual environment's folder.

    timeout: seconds. Raises InputError when it is no Python interpreter, EnvironmentProblem when
    it does not answer in time.
    """
    found: dict[str, list[str | None]] = question(
        python, _QUESTION, json.dumps(_DISTRIBUTIONS), timeout=timeout
    )
    return _read(_program(python), found)


def question(python: Path, program: str, *words: str, timeout: float = 30.0) -> Any:
    """What a program says when the interpreter runs it: JSON behind the mark, its last argument.

    python, timeout, errors: as `ask`.
    """
    argv: tuple[str | Path, ...] = (_program(python), "-I", "-c", program, *words, _MARK)
    try:
        answered = proc.run(argv, timeout=timeout, check=False)
    except OSError as error:  # not a program for this machine
        msg = f"--python {python}: cannot be run: {(error.strerror or str(error)).lower()}"
        raise InputError(msg, hint="name a Python interpreter") from error
    except EnvironmentProblem as error:
        if "did not finish" in error.message:
            msg = f"--python {python}: gave no answer within {timeout:g} s"
            raise EnvironmentProblem(msg) from error
        raise
    lines = [line for line in answered.text().splitlines() if line.startswith(_MARK)]
    try:
        return json.loads(lines[-1].removeprefix(_MARK))
    except (IndexError, ValueError) as error:
        said = answered.error_text().splitlines()
        msg = f"--python {python}: is not a Python interpreter that works"
        if said:
            msg += f": {said[-1][:200]}"
        raise InputError(
            msg, hint="name a Python 3 interpreter, such as .venv/bin/python"
        ) from error


def _program(python: Path) -> Path:
    """The interpreter; for a folder, its bin/python."""
    if not python.exists():
        msg = f"--python {python}: there is no such file"
        raise InputError(msg, hint="name a Python interpreter, such as .venv/bin/python")
    if not python.is_dir():
        if not os.access(python, os.X_OK):
            msg = f"--python {python}: is not executable"
            raise InputError(msg, hint="name a Python interpreter, such as .venv/bin/python")
        return python.absolute()  # not resolved: a virtual environment is its link
    for name in ("python", "python3"):
        inner = python / "bin" / name
        if inner.exists():
            return inner.absolute()
    msg = f"--python {python}: is a folder without bin/python"
    raise InputError(msg, hint="name a Python interpreter, such as .venv/bin/python")


def _read(program: Path, found: Mapping[str, list[str | None]]) -> Installed:
    versions: dict[str, str] = {}
    folders: dict[str, Path] = {}
    for package, (version, place) in found.items():
        if place is not None:
            folders[package] = Path(place)
        if version is not None:
            versions[package] = version
    stamped = _stamped(folders.get("flashinfer"))
    if stamped is not None:
        versions["flashinfer"] = stamped
    prebuilt = []
    if "flashinfer_jit_cache" in found:
        prebuilt.append(f"flashinfer-jit-cache {versions.get('flashinfer_jit_cache', '')}".strip())
    aot = folders.get("flashinfer")
    if aot is not None and any((aot / "data" / "aot").glob("*/*.so")):
        prebuilt.append(str(aot / "data" / "aot"))
    return Installed(program, versions, folders, tuple(prebuilt))


def _stamped(folder: Path | None) -> str | None:
    """FlashInfer's own idea of its version (`_build_meta.py`), which names the cache folder.

    Without that file FlashInfer calls itself 0.0.0+unknown (flashinfer/version.py).
    """
    if folder is None:
        return None
    try:
        text = (folder / "_build_meta.py").read_text("utf-8", "replace")
    except OSError:
        return "0.0.0+unknown"
    line = re.search(r"""^__version__\s*=\s*["']([^"']+)["']""", text, re.MULTILINE)
    return line[1] if line else None
