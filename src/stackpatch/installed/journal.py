"""What a series has changed in an installed distribution: enough to take every byte of it back.

One file in the distribution's metadata folder, so that it goes with the distribution: pip removes
it because RECORD names it. It is written before the first file changes and says how far the work
has come, so that a kill leaves nothing that `venv revert` could not mend.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from stackpatch.errors import EnvironmentProblem
from stackpatch.storage import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = "stackpatch.json"
_SCHEMA = "stackpatch.venv-journal/1"


class Phase(StrEnum):
    """How far the work has come. What is neither done nor undone was interrupted."""

    APPLYING = "applying"
    APPLIED = "applied"
    REVERTING = "reverting"


@dataclass(frozen=True, slots=True)
class Before:
    """A file as the release has it. mode: its permission bits."""

    content: bytes
    mode: int

    @property
    def sha256(self) -> str:
        """64 hex digits."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True)
class Touched:
    """One file. before: None where the release has none. after: the sha256 of what the series
    makes of it, None where it removes it."""

    before: Before | None
    after: str | None

    def knows(self, sha256: str | None) -> bool:
        """Whether a file of this digest (None: no file) is the release's or the series'."""
        return sha256 in (self.before.sha256 if self.before else None, self.after)


@dataclass(frozen=True, slots=True)
class Journal:
    """A series in an installed distribution. series: its digest, 64 hex digits. version: what the
    patched package calls itself. record: RECORD as it was. folders: those that were made."""

    phase: Phase
    stack: str
    release: str
    arch: str
    series: str
    version: str
    record: bytes
    files: Mapping[str, Touched]
    folders: tuple[str, ...] = ()

    def at(self, phase: Phase) -> Journal:
        """The same, further on."""
        return replace(self, phase=phase)

    def write(self, dist_info: Path) -> None:
        """Put it beside the metadata, in place of an older one."""
        files = {
            path: {
                "before": None
                if one.before is None
                else {"mode": one.before.mode, "content": _packed(one.before.content)},
                "after": one.after,
            }
            for path, one in self.files.items()
        }
        document = {
            "schema": _SCHEMA,
            "phase": self.phase.value,
            "stack": self.stack,
            "release": self.release,
            "arch": self.arch,
            "series": self.series,
            "version": self.version,
            "record": _packed(self.record),
            "files": files,
            "folders": list(self.folders),
        }
        whole = json.dumps(document, indent=1, sort_keys=True)
        digest = hashlib.sha256(whole.encode()).hexdigest()
        write_atomically(dist_info / NAME, f"{whole}\n{digest}\n".encode())


def read(dist_info: Path) -> Journal | None:
    """The journal of a distribution; None where nothing was applied.

    Raises EnvironmentProblem for one that is damaged: what it would put back cannot be trusted.
    """
    path = dist_info / NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise EnvironmentProblem(msg) from error
    try:
        whole, digest, rest = content.decode().rsplit("\n", 2)
        if rest or hashlib.sha256(whole.encode()).hexdigest() != digest:
            raise ValueError  # noqa: TRY301 - one answer to every damage
        return _journal(json.loads(whole))
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        msg = f"{path} is damaged: what was there before the series cannot be known from it"
        hint = "reinstall the distribution (pip install --force-reinstall --no-deps)"
        raise EnvironmentProblem(msg, hint=hint, where=str(path)) from error


def _journal(document: Any) -> Journal:
    if document["schema"] != _SCHEMA:
        raise ValueError(document["schema"])
    files = {}
    for path, one in document["files"].items():
        known = one["before"]
        before = None if known is None else Before(_unpacked(known["content"]), known["mode"])
        files[path] = Touched(before, one["after"])
    return Journal(
        Phase(document["phase"]),
        document["stack"],
        document["release"],
        document["arch"],
        document["series"],
        document["version"],
        _unpacked(document["record"]),
        files,
        tuple(document["folders"]),
    )


def _packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode("ascii")


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text, validate=True))
