"""Lock files as something to build from: which build they describe, and what differs from it.

A build writes `lock.json` beside its result. `recipes/STACK.lock.json` holds several of them, one
for each release, arch and kind of image, to be committed beside the recipe:
`{"schema": "stackpatch.locks/1", "locks": [the lock files]}`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackpatch.artefacts.build import LOCK
from stackpatch.artefacts.lock import (
    SCHEMA,
    Outputs,
    canonical,
    differences,
    parse_outputs,
)
from stackpatch.errors import InputError
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

COLLECTION = "stackpatch.locks/1"
_LARGEST = 64 << 20


@dataclass(frozen=True, slots=True)
class Locked:
    """One lock. inputs: as its file has them. outputs: what came out. where: the lock's file, for
    messages.
    """

    inputs: Mapping[str, Any]
    outputs: Outputs
    where: str

    @property
    def files(self) -> dict[str, str]:
        """The sha256 (hex) of each file by its path."""
        return {one.path: one.sha256 for one in self.outputs.files}

    @property
    def stack(self) -> str:
        """`flashinfer@0.6.3`."""
        return f"{self.inputs['stack']}@{self.inputs['version']}"

    @property
    def arch(self) -> str:
        """`sm121`."""
        return str(self.inputs["arch"]["name"])

    @property
    def engine(self) -> str:
        """`overlay`, `buildx` or `buildah`."""
        return str(self.inputs["engine"]["name"])

    @property
    def site(self) -> str | None:
        """The folder of the base that a person named; None where it was found or is recorded."""
        base = self.inputs["base"]
        return None if base.get("recorded") else base.get("site")

    @property
    def base(self) -> str | None:
        """The base as `--base` takes it: `scratch`, or a name with its digest; None: no name."""
        base = self.inputs["base"]
        if base["digest"] is None:
            return "scratch"
        return f"{base['name']}@{base.get('index') or base['digest']}" if base["name"] else None

    @property
    def title(self) -> str:
        """How a list of several calls it."""
        base = self.inputs["base"]
        on = base["name"] or (base["digest"] or "scratch")[:19]
        return f"{self.stack} {self.arch} {self.engine} on {on}"


def read_locked(path: Path, *, stack: str | None = None, arch: str | None = None) -> Locked:
    """The lock in a file, the only one or the one for this stack (`STACK` or `STACK@RELEASE`) and
    arch. Raises InputError for what is no lock, and for none or several that fit.
    """
    locks = [_locked(one, str(path)) for one in _documents(path)]
    fits = [
        one
        for one in locks
        if (arch is None or one.arch == arch)
        and (stack is None or stack in (one.stack, one.stack.partition("@")[0]))
    ]
    if len(fits) == 1:
        return fits[0]
    wanted = " ".join(word for word in (stack, arch) if word)
    msg = f"{path} holds {len(fits) or 'no'} lock{'s' * (len(fits) != 1)}"
    msg += f" of {wanted}" if wanted else ""
    held = "; ".join(one.title for one in (fits or locks)) or "nothing"
    raise InputError(msg, hint=f"name STACK@RELEASE and --arch; it holds {held}", where=str(path))


def with_lock(path: Path, lock: bytes) -> bytes:
    """The file of a stack's locks with this one in it, in place of one for the same build.

    lock: a lock file's bytes. The same build: release, arch, engine and the base's name.
    """
    new = json.loads(lock)
    kept = _documents(path) if path.exists() else []
    for one in kept:
        _locked(one, str(path))
    locks = [one for one in kept if _same_build(one) != _same_build(new)]
    locks = sorted([*locks, new], key=_same_build)
    document = {"schema": COLLECTION, "locks": locks}
    return f"{json.dumps(document, ensure_ascii=False, indent=2, sort_keys=True)}\n".encode()


def input_differences(locked: Locked, inputs: Mapping[str, Any]) -> list[str]:
    """The inputs that are not the lock's, as `path: the lock's → now`."""
    return differences(locked.inputs, inputs)


def output_differences(locked: Locked, folder: Path) -> list[str]:
    """What of the result in the folder is not the lock's, by the bytes as they lie on the disk.

    Raises InputError when the folder holds no result.
    """
    made = read_locked(folder / LOCK)
    lines = []
    for path in sorted({*locked.files, *made.files}):
        if path not in locked.files:
            lines.append(f"{path}: none → there")
            continue
        try:
            found = Digest.of_file(folder / path).hex
        except OSError:
            found = "missing"
        if found != locked.files[path]:
            lines.append(f"{path}: {locked.files[path]} → {found}")
    if made.outputs.image != locked.outputs.image:
        lines.append(f"image: {locked.outputs.image} → {made.outputs.image}")
    return lines


def _same_build(lock: Mapping[str, Any]) -> tuple[str, ...]:
    inputs = lock["inputs"]
    base = inputs["base"]
    name = base["name"] or base["digest"] or "scratch"
    return (inputs["version"], inputs["arch"]["name"], inputs["engine"]["name"], name)


def _documents(path: Path) -> list[Mapping[str, Any]]:
    """The lock documents in a file. Raises InputError."""
    try:
        if path.stat().st_size > _LARGEST:
            msg = f"{path} is too large for a lock file"
            raise InputError(msg)
        document = json.loads(path.read_bytes())
        if document["schema"] == COLLECTION:
            return [dict(one) for one in document["locks"]]
        if document["schema"] != SCHEMA:
            msg = f"{path} has schema {document['schema']!r}, not {SCHEMA}"
            hint = "name the lock.json of a build, or recipes/STACK.lock.json"
            raise InputError(msg, hint=hint, where=str(path))
        found = [document]
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise InputError(msg, where=str(path)) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _no_lock(str(path), error) from error
    return found


def _locked(document: Mapping[str, Any], where: str) -> Locked:
    try:
        inputs, key = document["inputs"], str(document["key"])
        locked = Locked(inputs, parse_outputs(document["outputs"], where), where)
        # What is asked of it later, so that a lock that lacks it is told here.
        _ = (locked.title, locked.site, locked.base, _same_build(document))
        actual = hashlib.sha256(canonical(inputs)).hexdigest()
    except (ValueError, KeyError, TypeError, StopIteration, AttributeError) as error:
        raise _no_lock(where, error) from error
    if key != actual:
        msg = f"{where} was edited: its key is not the one of its inputs"
        raise InputError(msg, hint="take the file as the build wrote it", where=where)
    return locked


def _no_lock(where: str, error: Exception) -> InputError:
    msg = f"{where} is not a lock file of a build ({error!r})"
    return InputError(msg, hint="a build writes one as dist/STACK/VERSION/ARCH/lock.json")
