"""Whether the files of an installed distribution are the ones that its wheel brought.

Held against the RECORD of the wheel that was built, where one is named; else against the RECORD
that the installer wrote beside the package, which an edit of a file by hand does not change.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackpatch import proc
from stackpatch.artefacts.record import parse_record
from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

_QUESTION = """
import importlib.metadata as m, json, sys
try:
    d = m.distribution(sys.argv[1])
except m.PackageNotFoundError:
    print(sys.argv[2] + "null"); raise SystemExit
info = [f for f in (d.files or []) if str(f).endswith(".dist-info/RECORD")]
place = str(d.locate_file(info[0])) if info else None
print(sys.argv[2] + json.dumps([d.version, str(d.locate_file("")), place]))
"""
_MARK = "stackpatch-answer:"


@dataclass(frozen=True, slots=True)
class InstalledFiles:
    """What was found. trouble: paths that are missing or of other bytes. site: where it lies."""

    why: str
    figures: Mapping[str, Any]
    trouble: tuple[str, ...]
    site: Path | None

    def folder_of(self, package: str) -> Path | None:
        """The folder of the import package, if there is one."""
        folder = self.site / package.replace(".", "/") if self.site is not None else None
        return folder if folder is not None and folder.is_dir() else None


def installed_files(python: Path, distribution: str, wheel: Path | None) -> InstalledFiles:
    """Compare every recorded file. Raises InputError for a wheel that cannot be read."""
    argv = (python, "-I", "-c", _QUESTION, distribution, _MARK)
    answer = proc.run(argv, timeout=60, check=False)
    lines = [line for line in answer.text().splitlines() if line.startswith(_MARK)]
    if not lines:
        msg = f"{python} did not answer: {answer.error_text()[-200:]}"
        raise InputError(msg, hint="name a Python interpreter, such as .venv/bin/python")
    told = json.loads(lines[-1].removeprefix(_MARK))
    if told is None:
        why = f"{distribution} is not installed in {python}"
        return InstalledFiles(why, {}, (distribution,), None)
    version, site, record = told
    figures: dict[str, Any] = {"version": version, "folder": site}
    root = Path(site)
    if wheel is not None:
        text, figures["wheel"] = _of_wheel(wheel), wheel.name
        figures["wheel_sha256"] = hashlib.sha256(wheel.read_bytes()).hexdigest()
    elif record is not None:
        text = Path(record).read_bytes()
    else:
        why = f"{distribution} {version} has no RECORD: it was not installed from a wheel"
        return InstalledFiles(why, figures, (distribution,), root)
    try:
        rows = parse_record(text)
    except ValueError as error:
        why = f"the RECORD of {distribution} cannot be read: {error}"
        return InstalledFiles(why, figures, (distribution,), root)
    missing, other, held = [], [], 0
    for path, row in rows.items():
        if not row.hashed or ".." in Path(path).parts:
            continue
        held += 1
        try:
            content = (root / path).read_bytes()
        except OSError:
            missing.append(path)
            continue
        if not row.says(hashlib.new(row.algorithm, content).digest(), len(content)):
            other.append(path)
    figures |= {"files": held, "missing": missing[:20], "other": other[:20]}
    trouble = (*other, *missing)
    if trouble:
        why = f"{len(trouble)} of {held} files are not those of {figures.get('wheel', 'RECORD')}: "
        return InstalledFiles(why + trouble[0], figures, trouble, root)
    if not held:
        return InstalledFiles("the RECORD names no file", figures, (distribution,), root)
    return InstalledFiles(f"{held} files of {distribution} {version}", figures, (), root)


def _of_wheel(wheel: Path) -> bytes:
    """The RECORD inside a wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if n.endswith(".dist-info/RECORD")]
            if len(names) == 1:
                return archive.read(names[0])
    except (OSError, zipfile.BadZipFile) as error:
        msg = f"--wheel {wheel}: cannot be read: {error}"
        raise InputError(msg) from error
    msg = f"--wheel {wheel}: holds no RECORD, so it is no wheel"
    raise InputError(msg)
