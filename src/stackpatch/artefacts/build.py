"""A build as a folder that is there whole or not at all, and is found again by its key.

One process builds a result at a time; another one that wants the same waits and then finds it.
What a kill leaves behind is a hidden folder that the next build removes.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from stackpatch import storage
from stackpatch.artefacts.lock import Outputs, intact, read_lock
from stackpatch.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stackpatch.artefacts.base import Base
    from stackpatch.artefacts.lock import Inputs
    from stackpatch.artefacts.plan import Companion, Plan
    from stackpatch.artefacts.shipped import Shipped
    from stackpatch.model.patch import Patch

LOCK, SBOM, PROVENANCE, IMAGE = "lock.json", "sbom.cdx.json", "provenance.json", "image"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a build works on, brought only when there is something to build.

    wheel: the released wheel, whose sha256 was checked. shipped: what the series changes in it.
    companions: the same of the plan's companions, in their order.
    """

    wheel: Path
    shipped: Shipped
    companions: tuple[Prepared, ...] = ()


class Planned(Protocol):
    """A build that was decided, from a wheel or from git."""

    @property
    def inputs(self) -> Inputs:
        """Everything that its bytes depend on."""

    @property
    def key(self) -> str:
        """64 hex digits that name the result."""

    @property
    def folder(self) -> str:
        """Where the result goes below the output folder: STACK/VERSION/ARCH."""

    def json(self) -> dict[str, Any]:
        """The inputs, as a lock has them."""

    @property
    def patches(self) -> tuple[Patch, ...]:
        """Those for the arch, in order."""

    @property
    def companions(self) -> tuple[Companion, ...]:
        """The plans of the patched stacks that this one stands on."""

    def lines(self) -> tuple[str, ...]:
        """The plan for a person to read."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A finished build. reused: it was there already. notes: what a person should know of it.

    caches: what to clear where the result is installed, as `cache list` shows them.
    """

    plan: Planned
    folder: Path
    outputs: Outputs
    reused: bool
    caches: Sequence[Mapping[str, Any]] = ()

    def json(self) -> dict[str, Any]:
        """The keys that `build --json` promises."""
        one, out = self.plan.inputs, self.outputs
        return {
            "stack": one.stack,
            "version": one.version,
            "patched": one.patched,
            "arch": one.arch,
            "engine": one.engine,
            "key": one.key,
            "reused": self.reused,
            "wheel": None
            if out.wheel is None
            else {
                "path": str(self.folder / out.wheel.path),
                "sha256": out.wheel.sha256,
                "version": one.patched,
            },
            "image": {
                "path": str(self.folder / IMAGE),
                "digest": out.image,
                "index": out.index,
                "layers_elsewhere": [str(one.digest) for one in out.elsewhere],
            },
            "lock": str(self.folder / LOCK),
            "sbom": str(self.folder / SBOM),
            "provenance": str(self.folder / PROVENANCE),
            "requires": [
                {"stack": r.stack, "version": r.version, "patched": r.patched, "key": r.key}
                for r in one.requires
            ],
            "wheels": [
                {"path": str(self.folder / file.path), "sha256": file.sha256}
                for file in sorted(out.files, key=lambda file: file.path)
                if file.path.endswith(".whl")
            ],
            "caches": [dict(cache) for cache in self.caches],
            "notes": list(out.notes),
        }


def build(
    plan: Plan,
    base: Base,
    prepare: Callable[[], Prepared],
    *,
    out: Path,
    caches: Sequence[Mapping[str, Any]] = (),
    wait: float = 600.0,
    report: Callable[[str, int, int | None], None] | None = None,
) -> BuildResult:
    """The result of the plan below `out`: the one that is there, or a new one.

    prepare: called when something must be built. The rest as `find_or_make`; report: called with
    a label, bytes done, bytes in all. Raises InputError for inputs that do not fit.
    """

    def fill(folder: Path) -> Outputs:
        # Only here: a build that is found again needs none of what makes one.
        from stackpatch.artefacts.making import make

        return make(plan, base, prepare(), folder, report)

    return find_or_make(plan, fill, out=out, caches=caches, wait=wait)


def find_or_make(
    plan: Planned,
    fill: Callable[[Path], Outputs],
    *,
    out: Path,
    caches: Sequence[Mapping[str, Any]] = (),
    wait: float = 600.0,
) -> BuildResult:
    """The plan's result below `out`, which `fill` makes in an empty folder if it is not there.

    wait: seconds to wait for another build of the same folder. Raises InputError for a file in
    the way, EnvironmentProblem for the disk, and what `fill` raises.
    """
    target = out / plan.folder
    guard = target.parent / f".{target.name}.lock"
    done = _finished(target, plan.key)
    if done is not None:
        _sweep_if_idle(target, guard)
        return BuildResult(plan, target, done, reused=True, caches=caches)
    _make_room(target.parent, out)
    with storage.lock(guard, wait=wait, what=f"another build of {plan.folder}"):
        storage.sweep(target.parent, target.name)
        done = _finished(target, plan.key)
        if done is not None:
            return BuildResult(plan, target, done, reused=True, caches=caches)
        with storage.directory_beside(target) as scratch:
            outputs = fill(scratch)
        return BuildResult(plan, target, outputs, reused=False, caches=caches)


def _make_room(parent: Path, out: Path) -> None:
    with storage.disk_errors(parent):
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            msg = f"cannot build below {out}: a file is in the way at {error.filename}"
            raise InputError(msg, hint="name another folder with --out DIR") from error


def _sweep_if_idle(target: Path, guard: Path) -> None:
    """Remove what a killed build left beside a whole result, unless somebody builds there."""
    if any(target.parent.glob(f".{target.name}.*.tmp")):
        with (
            contextlib.suppress(EnvironmentProblem),
            storage.lock(guard, wait=0.0),
        ):
            storage.sweep(target.parent, target.name)


def _finished(target: Path, key: str) -> Outputs | None:
    """What lies in the folder, if it is whole and was made by this plan."""
    try:
        found, outputs = read_lock(target / LOCK)
    except InputError:
        return None
    return outputs if found == key and intact(target, outputs) else None
