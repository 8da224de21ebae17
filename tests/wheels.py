"""Small wheels and image layouts for tests, written with the standard library alone."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stackpatch.artefacts.lock import Output, Outputs

FILES: dict[str, bytes] = {
    "demo/__init__.py": b'"""Demo."""\n\nfrom ._meta import __version__ as __version__\n',
    "demo/_meta.py": b'__version__ = "1.2.3"\n__git_version__ = "0123"\n',
    "demo/gate.py": b"MAJORS = [10]\n\n\ndef allowed(major):\n    return major in MAJORS\n",
    "demo/data/csrc/kernel.cu": b"__global__ void k() {}\n" * 400,
    "demo/old.py": b"GONE = True\n",
    "demo/tool.sh": b"#!/bin/sh\nexit 0\n",
}
METADATA = (
    b"Metadata-Version: 2.4\nName: demo\nVersion: 1.2.3\nSummary: Version: 9.9.9 is not it\n"
    b"Requires-Dist: torch\n\nVersion: 1.2.3\n\nA body that names a Version: header.\n"
)
WHEEL = b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: %s\nTag: py3-none-any\n\n"


def wheel_of(outputs: Outputs) -> Output:
    """The wheel of a result that has one."""
    assert outputs.wheel is not None
    return outputs.wheel


def record_hash(content: bytes, algorithm: str = "sha256") -> str:
    """As RECORD writes it."""
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, content).digest())
    return f"{algorithm}={digest.rstrip(b'=').decode()}"


def make_wheel(
    folder: Path,
    files: Mapping[str, bytes] | None = None,
    *,
    name: str = "demo-1.2.3-py3-none-any.whl",
    dist_info: str = "demo-1.2.3.dist-info",
    metadata: bytes = METADATA,
    pure: bool = True,
    record: bytes | None = None,
    extra: Mapping[str, bytes] | None = None,
    executable: tuple[str, ...] = ("demo/tool.sh",),
    method: int = zipfile.ZIP_DEFLATED,
    algorithm: str = "sha256",
) -> Path:
    """Write a wheel; extra members are in the archive and not in RECORD."""
    content = dict(FILES if files is None else files)
    content[f"{dist_info}/METADATA"] = metadata
    content[f"{dist_info}/WHEEL"] = WHEEL % (b"true" if pure else b"false")
    content[f"{dist_info}/entry_points.txt"] = b"[console_scripts]\ndemo = demo.gate:allowed\n"
    rows = "".join(f"{n},{record_hash(c, algorithm)},{len(c)}\n" for n, c in content.items())
    made = rows.encode() + f"{dist_info}/RECORD,,\n".encode()
    content[f"{dist_info}/RECORD"] = made if record is None else record
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    with zipfile.ZipFile(path, "w", method) as archive:
        for member, data in {**content, **(extra or {})}.items():
            info = zipfile.ZipInfo(member, (2025, 6, 7, 8, 9, 10))
            info.compress_type = method
            info.create_system = 3
            mode = 0o100755 if member in executable else 0o100664
            info.external_attr = mode << 16
            archive.writestr(info, data)
    return path


def contents(path: Path) -> dict[str, bytes]:
    """Every member of an archive by name."""
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}
