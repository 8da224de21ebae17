"""Whether the files of an installed distribution are the ones that its wheel brought.

Held against the RECORD of the wheel that was built, where one is named; else against the RECORD
that the installer wrote beside the package, which an edit of a file by hand does not change.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackpatch.checks.places import ask
from stackpatch.errors import InputError
from stackpatch.installed.record import parse_record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stackpatch.checks.places import Place


@dataclass(frozen=True, slots=True)
class InstalledFiles:
    """What was found. trouble: paths that are missing or of other bytes. site: where it lies."""

    why: str
    figures: Mapping[str, Any]
    trouble: tuple[str, ...]
    site: str | None


def installed_version(place: Place, distribution: str) -> str | None:
    """The version that is installed at the place; None where it is not."""
    told = ask(place, "installed.py", distribution)
    return None if told is None else str(told[0])


def installed_site(place: Place, distribution: str) -> str | None:
    """The folder that a distribution was installed into; None where it is not."""
    told = ask(place, "installed.py", distribution)
    return None if told is None else str(told[1])


def installed_files(place: Place, distribution: str, wheel: Path | None) -> InstalledFiles:
    """Compare every recorded file. Raises InputError for a wheel that cannot be read."""
    told = ask(place, "installed.py", distribution)
    if told is None:
        why = f"{distribution} is not installed in {place.python}"
        return InstalledFiles(why, {}, (distribution,), None)
    version, site, record, platforms, machine = told
    figures: dict[str, Any] = {"version": version, "folder": site}
    if wheel is not None:
        text, figures["wheel"] = _of_wheel(wheel), wheel.name
        with wheel.open("rb") as file:
            figures["wheel_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    elif record is not None:
        text = base64.b64decode(record)
    else:
        why = f"{distribution} {version} has no RECORD: it was not installed from a wheel"
        return InstalledFiles(why, figures, (distribution,), site)
    try:
        rows = parse_record(text)
    except ValueError as error:
        why = f"the RECORD of {distribution} cannot be read: {error}"
        return InstalledFiles(why, figures, (distribution,), site)
    hashed = {
        path: row
        for path, row in rows.items()
        if row.hashed and ".." not in path.split("/") and not path.startswith("/")
    }
    wanted = {path: row.algorithm for path, row in hashed.items()}
    found = ask(place, "installed.py", distribution, given=json.dumps(wanted).encode())
    missing, other = [], []
    for path, row in hashed.items():
        got = found.get(path)
        if got is None:
            missing.append(path)
        elif not row.says(bytes.fromhex(got[0]), int(got[1])):
            other.append(path)
    figures |= {"files": len(hashed), "missing": missing[:20], "other": other[:20]}
    trouble = (*other, *missing)
    if trouble:
        source = figures.get("wheel", "RECORD")
        why = f"{len(trouble)} of {len(hashed)} files are not those of {source}: "
        return InstalledFiles(why + trouble[0], figures, trouble, site)
    if not hashed:
        return InstalledFiles("the RECORD names no file", figures, (distribution,), site)
    why = f"{len(hashed)} files of {distribution} {version}"
    if platforms and not any(_runs_on(machine, one) for one in platforms):
        # `pip install --platform` lays out what this machine cannot run.
        figures["for"] = platforms
        why += f", which are for {platforms[0]} and not for this machine ({machine})"
    return InstalledFiles(why, figures, (), site)


def _runs_on(machine: str, platform: str) -> bool:
    """Whether a wheel's platform tag is for a kind of machine: `any`, `manylinux_2_28_aarch64`."""
    return platform == "any" or platform.lower().endswith(f"_{machine.lower()}")


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
