"""The lock of a build: every input by digest, and what came out.

`Lock.key` is the sha256 over the canonical form of the inputs; two builds with one key give the
same bytes. The file is JSON, sorted and indented, so that a change shows as a change of a line.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stackpatch.artefacts.oci import Descriptor
from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCHEMA = "stackpatch.lock/1"


@dataclass(frozen=True, slots=True)
class Pinned:
    """A file of the release: name, sha256 (64 hex digits), size in bytes."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class PinnedPatch:
    """A patch of the series: its file name and the sha256 of the mail."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class PinnedBase:
    """The base image: the digest of its manifest, None for `scratch`; what it is called if known.

    index: the digest of the index that it was taken from. site: the folder for the package's
    files where a person or the recipe says it, else it is found. editable: that folder has the
    git tree. python: the version whose bytecode may lie there, where the recipe says it.
    recorded: the recipe says that this image has the release, so no layer is read.
    """

    digest: str | None
    name: str | None = None
    site: str | None = None
    index: str | None = None
    editable: bool = False
    python: str | None = None
    recorded: bool = False


@dataclass(frozen=True, slots=True)
class PinnedStack:
    """A stack that this one stands on, by its release.

    patched: the version of its patched wheel, and key: what names the build of it; both None
    where no series is known for the release, so that the released package is what serves.
    """

    stack: str
    version: str
    patched: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that the bytes of a build depend on. Times are Unix seconds, digests hex.

    commit_evidence: how the commit is known (first-hand, second-hand, unknown). engine_version:
    of the overlay format, or the external engine's. shadowed_by: what is taken out of a base.
    layout: how the wheel's paths map to the git tree, as pairs. stamp: file and variable that
    state the version. requires: the stacks that this one stands on. engine_settings: what an
    engine of its own was told: Dockerfile and tools by digest, build arguments. wheel: None for a
    release that is its commit; checkout: what a checkout of it needs (submodules, Git LFS), empty
    where a wheel is what is patched.
    """

    stack: str
    distribution: str
    version: str
    patched: str
    git: str
    tag: str | None
    commit: str | None
    commit_evidence: str
    epoch: int
    wheel: Pinned | None
    layout: tuple[tuple[str, str | None], ...]
    stamp: tuple[str, str] | None
    series: str | None
    series_sha256: str
    patches: tuple[PinnedPatch, ...]
    arch: str
    platform: str
    env: Mapping[str, str]
    shadowed_by: tuple[str, ...]
    base: PinnedBase
    engine: str
    engine_version: str
    stackpatch: str
    requires: tuple[PinnedStack, ...] = ()
    engine_settings: Mapping[str, Any] = field(default_factory=dict)
    checkout: Mapping[str, bool] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """64 hex digits that name the result."""
        return hashlib.sha256(canonical(self.json())).hexdigest()

    def json(self) -> dict[str, Any]:
        """As it stands in the lock file."""
        return {
            "stack": self.stack,
            "distribution": self.distribution,
            "version": self.version,
            "patched-version": self.patched,
            "upstream": {
                "git": self.git,
                "tag": self.tag,
                "commit": self.commit,
                "commit-evidence": self.commit_evidence,
                **self.checkout,
            },
            "epoch": self.epoch,
            "wheel": None
            if self.wheel is None
            else {
                "file": self.wheel.file,
                "sha256": self.wheel.sha256,
                "bytes": self.wheel.bytes,
            },
            "layout": [list(rule) for rule in self.layout],
            "stamp": list(self.stamp) if self.stamp else None,
            "series": {
                "name": self.series,
                "sha256": self.series_sha256,
                "patches": [{"name": p.name, "sha256": p.sha256} for p in self.patches],
            },
            "arch": {"name": self.arch, "platform": self.platform, "env": dict(self.env)},
            "shadowed-by": list(self.shadowed_by),
            "requires": [
                {"stack": r.stack, "version": r.version, "patched": r.patched, "key": r.key}
                for r in self.requires
            ],
            "base": {
                "digest": self.base.digest,
                "index": self.base.index,
                "name": self.base.name,
                "site": self.base.site,
                "editable": self.base.editable,
                "python": self.base.python,
                "recorded": self.base.recorded,
            },
            "engine": {
                "name": self.engine,
                "version": self.engine_version,
                **self.engine_settings,
            },
            "stackpatch": self.stackpatch,
        }


@dataclass(frozen=True, slots=True)
class Output:
    """One file of a result: path below its folder, size in bytes, sha256 (64 hex digits)."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a build made. image: the manifest's digest; index: the one of index.json.

    wheel: None for a build from git, which leaves the image alone. elsewhere: the base's layers
    that were left where they are.
    """

    wheel: Output | None
    image: str
    index: str
    files: tuple[Output, ...]
    notes: tuple[str, ...] = field(default=())
    elsewhere: tuple[Descriptor, ...] = field(default=())


def dump_lock(inputs: Inputs, outputs: Outputs) -> bytes:
    """The lock file."""
    document = {
        "schema": SCHEMA,
        "key": inputs.key,
        "inputs": inputs.json(),
        "outputs": {
            "wheel": None if outputs.wheel is None else outputs.wheel.path,
            "image": {
                "digest": outputs.image,
                "index": outputs.index,
                "layers-elsewhere": [one.json() for one in outputs.elsewhere],
            },
            "files": [
                {"path": f.path, "bytes": f.bytes, "sha256": f.sha256}
                for f in sorted(outputs.files, key=lambda f: f.path)
            ],
            "notes": list(outputs.notes),
        },
    }
    text = json.dumps(document, ensure_ascii=False, indent=2, sort_keys=True)
    return f"{text}\n".encode()


def read_lock(path: Path) -> tuple[str, Outputs]:
    """The key and the outputs that a lock file states. Raises InputError."""
    try:
        document = json.loads(path.read_bytes())
        if document["schema"] != SCHEMA:
            msg = f"{path} has schema {document['schema']!r}, not {SCHEMA}"
            raise InputError(msg, where=str(path))
        return str(document["key"]), parse_outputs(document["outputs"], str(path))
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise InputError(msg, where=str(path)) from error
    except (ValueError, KeyError, TypeError, StopIteration, RecursionError) as error:
        msg = f"{path} is not a lock file of a build ({error!r})"
        raise InputError(msg, where=str(path)) from error


def parse_outputs(stated: Mapping[str, Any], where: str) -> Outputs:
    """The `outputs` of a lock file. Raises KeyError, TypeError, ValueError, StopIteration."""
    files = tuple(
        Output(str(f["path"]), int(f["bytes"]), str(f["sha256"])) for f in stated["files"]
    )
    named = stated["wheel"]
    wheel = None if named is None else next(f for f in files if f.path == named)
    image = stated["image"]
    notes = tuple(str(note) for note in stated["notes"])
    elsewhere = tuple(Descriptor.parse(one, where=where) for one in image["layers-elsewhere"])
    return Outputs(wheel, str(image["digest"]), str(image["index"]), files, notes, elsewhere)


def intact(folder: Path, outputs: Outputs) -> bool:
    """Whether every file is there with its size: cheap, and blind to a change that keeps it."""
    try:
        return all(
            (folder / output.path).stat().st_size == output.bytes for output in outputs.files
        )
    except OSError:
        return False


def differences(old: Mapping[str, Any], new: Mapping[str, Any], at: str = "") -> list[str]:
    """The inputs that differ between two locks, as `path: old → new` lines."""
    lines: list[str] = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{at}{key}.")
        elif before != after:
            lines.append(f"{at}{key}: {json.dumps(before)} → {json.dumps(after)}")
    return lines


def canonical(value: Mapping[str, Any]) -> bytes:
    """One byte string for one value: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def rfc3339(epoch: int) -> str:
    """A Unix time as `2026-02-06T00:00:00Z`."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
