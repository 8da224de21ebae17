"""The patched wheel of a plan: the released one with the series' files and its version stamp."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.artefacts.lock import Output
from stackpatch.artefacts.rawzip import RawZip
from stackpatch.artefacts.stamp import stamp_version
from stackpatch.artefacts.wheel import WheelResult, repack
from stackpatch.errors import InputError
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.artefacts.build import Prepared
    from stackpatch.artefacts.plan import Plan


def patched_wheel(plan: Plan, prepared: Prepared, folder: Path) -> WheelResult:
    """Write the wheel into the folder. Raises InputError for inputs that do not fit each other."""
    inputs, shipped, released = plan.inputs, prepared.shipped, plan.released
    if not shipped.content:
        msg = f"nothing that the series changes is in {released.file}"
        outside = ", ".join(shipped.outside[:3])
        raise InputError(msg, hint=f"it changes {outside}" if outside else None)
    if Digest.of_file(prepared.wheel).hex != released.sha256:
        msg = f"{prepared.wheel} is not the pinned wheel (sha256 {released.sha256})"
        raise InputError(msg, hint="remove the file and fetch it again", where=str(prepared.wheel))
    changes, originals = dict(shipped.content), dict(shipped.originals)
    if inputs.stamp is not None:
        _stamp(plan, prepared.wheel, changes, originals)
    return repack(
        prepared.wheel,
        changes,
        local_version=inputs.patched,
        target=folder,
        epoch=inputs.epoch,
        originals=originals,
        executable=shipped.executable,
    )


def as_output(wheel: WheelResult) -> Output:
    """The wheel as a file of a result."""
    return Output(wheel.path.name, wheel.bytes, wheel.sha256)


def read_member(wheel: Path, path: str) -> bytes:
    """A file of a wheel. Raises InputError when it is not there."""
    with RawZip(wheel) as source:
        member = source.members.get(path)
        if member is None:
            msg = f"{wheel.name} has no {path}, where the recipe's stamp is"
            raise InputError(msg, hint="correct `stamp` in the recipe")
        return source.read(member)


def read_metadata(wheel: Path) -> bytes:
    """The wheel's METADATA, empty where it has none."""
    with RawZip(wheel) as source:
        name = next((n for n in source.members if n.endswith(".dist-info/METADATA")), None)
        return source.read(source.members[name]) if name else b""


def _stamp(
    plan: Plan, source: Path, changes: dict[str, bytes | None], originals: dict[str, str]
) -> None:
    """Add the file that states the version, with the patched one."""
    inputs = plan.inputs
    if inputs.stamp is None:
        return
    path, variable = inputs.stamp
    content = changes.get(path)
    if content is None:
        content = read_member(source, path)
        originals[path] = Digest.of(content).hex
    changes[path] = stamp_version(
        content, variable, inputs.version, inputs.patched, where=f"{source.name}: {path}"
    )
