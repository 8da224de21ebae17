"""Compiled modules in FlashInfer's cache, and whether their sources are what they were made from.

By content: ninja compares modification times alone, and times prove nothing. A patched FlashInfer
(series v0.6.3 and later) leaves in `.flashinfer_inputs.json`, for every object, a digest of it and
of all that it was compiled from, headers included, as ninja lists them in `.ninja_deps`. The same
digest is made here of what lies there now. Other builds leave nothing that could be compared.

Layout of `.ninja_deps`: ninja's src/deps_log.h, version 4 (ninja 1.9 and later).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from stackpatch.checks.shadow import JitModule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RECORD = ".flashinfer_inputs.json"
_DEPS_HEADER = b"# ninjadeps\n" + struct.pack("<i", 4)
_DEPS_RECORD = 1 << 31
# A module of a hundred sources has a log of two megabytes.
_MOST = 64 << 20


def jit_modules(base: Path) -> Iterator[JitModule]:
    """The modules below FlashInfer's cache folder, `<version>/<arches>/cached_ops/*`."""
    for folder in sorted((*base.glob("*/*/cached_ops/*"), *base.glob("*/cached_ops/*"))):
        if not folder.is_dir():
            continue
        version = folder.relative_to(base).parts[0]
        if (folder / "meta.json").is_file():
            yield JitModule(folder.name, str(folder), version, checked=True)
            continue
        built = (folder / f"{folder.name}.so").is_file()
        build = ninja_builds(_bytes(folder / "build.ninja").decode("utf-8", "replace"))
        if built or build:
            sources = tuple(source for _, given in build for source in given)
            changed = _changed(folder, [made for made, _ in build]) if built else None
            yield JitModule(folder.name, str(folder), version, sources, changed, built=built)


def ninja_builds(text: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What a build.ninja of FlashInfer compiles, in its order: an object, and its sources."""
    unwrapped = text.replace("$\n", "")
    lines = re.findall(r"^build (.+?): (?:cuda_)?compile (.+)$", unwrapped, re.MULTILINE)
    return tuple(
        (_plain(made), tuple(_plain(one) for one in re.split(r"(?<!\$) ", given) if one))
        for made, given in ((made, rest.partition(" |")[0].strip()) for made, rest in lines)
    )


def ninja_deps(log: bytes) -> Mapping[str, tuple[int, tuple[str, ...]]]:
    """Each object in a deps log: the time in nanoseconds that ninja noted, and its inputs.

    Empty for a log of another version; a record that is cut off ends it, as for ninja.
    """
    found: dict[str, tuple[int, tuple[str, ...]]] = {}
    if not log.startswith(_DEPS_HEADER):
        return found
    paths: list[str] = []
    at = len(_DEPS_HEADER)
    while at + 4 <= len(log):
        (size,) = struct.unpack_from("<I", log, at)
        body = log[at + 4 : at + 4 + (size & ~_DEPS_RECORD)]
        at += 4 + len(body)
        if len(body) < (size & ~_DEPS_RECORD) or len(body) % 4 or len(body) < 4:
            break
        if not size & _DEPS_RECORD:
            paths.append(os.fsdecode(body[:-4].rstrip(b"\0")))  # padded to 4; then a checksum
            continue
        numbers = struct.unpack(f"<{len(body) // 4}I", body)
        if len(numbers) < 3 or any(n >= len(paths) for n in (numbers[0], *numbers[3:])):
            break
        made, low, high, *inputs = numbers
        found[paths[made]] = (high << 32 | low, tuple(paths[one] for one in inputs))
    return found


def _changed(folder: Path, objects: list[str]) -> tuple[str, ...] | None:
    """The objects that were compiled from other contents than lie there now.

    None where that cannot be told of one of them: nothing valid is recorded.
    """
    try:
        recorded = json.loads(_bytes(folder / RECORD))
    except ValueError:
        return None
    deps = ninja_deps(_bytes(folder / ".ninja_deps"))
    if not objects or not isinstance(recorded, dict):
        return None
    changed = []
    for name in objects:
        path = os.path.join(folder, name)  # noqa: PTH118 - as FlashInfer spells it
        now = _fingerprint(folder, path, *deps[name]) if name in deps else None
        if now is None or path not in recorded:
            return None
        if recorded[path] != now:
            changed.append(path)
    return tuple(changed)


def _fingerprint(folder: Path, made: str, noted: int, inputs: tuple[str, ...]) -> str | None:
    """FlashInfer's digest of an object and its inputs; None where ninja holds it for invalid.

    flashinfer/jit/cpp_ext.py, `_objects_with_fingerprint`, of the patched releases.
    """
    try:
        built = Path(made).stat()
    except OSError:
        return None
    if built.st_mtime_ns > noted:
        return None
    lines = [f"{int(built.st_mtime)} {built.st_size}"]
    paths = sorted(os.path.join(folder, one) for one in inputs)  # noqa: PTH118
    lines += [f"{path}\0{_content(path)}" for path in paths]
    text = "\n".join(lines).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()


def _content(path: str) -> str:
    try:
        status = Path(path).stat()
        return _digest(path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    except OSError:
        return "unreadable"


@lru_cache(1 << 15)  # modules share thousands of headers
def _digest(path: str, *identity: int) -> str:  # noqa: ARG001 - another file, another key
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(word: str) -> str:
    """A path without ninja's escapes."""
    return re.sub(r"\$([ :$])", r"\1", word)


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST)
    except OSError:
        return b""
