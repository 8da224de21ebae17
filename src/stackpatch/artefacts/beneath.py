"""The patched stacks that a stack stands on: their wheels beside its own, their layers under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from stackpatch.artefacts.companions import asked_for, not_of_one_version, unmet
from stackpatch.artefacts.overlay import overlay
from stackpatch.artefacts.patched import as_output, patched_wheel, read_metadata
from stackpatch.artefacts.site import Site, taken_out
from stackpatch.artefacts.where import where_installed
from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stackpatch.artefacts.base import Base
    from stackpatch.artefacts.build import Prepared
    from stackpatch.artefacts.lock import Inputs, Output
    from stackpatch.artefacts.oci import Image
    from stackpatch.artefacts.plan import Companion, Plan
    from stackpatch.artefacts.wheel import WheelResult
    from stackpatch.model.digest import Digest
    from stackpatch.model.patch import Patch

    Report = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Below:
    """A companion's patched wheel, and where it goes in the base."""

    plan: Plan
    base: Base
    wheel: WheelResult
    site: Site

    @property
    def paper(self) -> tuple[Inputs, Sequence[Patch], Output]:
        """What the papers of the stack above tell of it."""
        return self.plan.inputs, self.plan.patches, as_output(self.wheel)


def make_companions(
    companions: Sequence[Companion],
    prepared: Sequence[Prepared],
    folder: Path,
    *,
    outside: bool,
    report: Report | None,
) -> tuple[Below, ...]:
    """The companions' wheels, in the folder. outside: another engine installs them.

    Raises InputError.
    """
    made = []
    for one, its in zip(companions, prepared, strict=True):
        wheel = patched_wheel(one.plan, its, folder)
        site = where_installed(
            one.plan.inputs,
            one.base,
            frozenset(wheel.released),
            outside=outside,
            report=report,
        )
        made.append(Below(one.plan, one.base, wheel, site))
    return tuple(made)


def laid_under(base: Base, below: Sequence[Below]) -> tuple[Image, dict[Digest, bytes]]:
    """The base with the companions' layers on it, and those layers' blobs."""
    under, blobs = base.image, {}
    for one in below:
        its = one.plan.inputs
        lower = overlay(
            base.image,
            one.wheel,
            one.site,
            under=under,
            base_name=base.pinned.name,
            epoch=its.epoch,
            labels={},
            annotations={},
            env=its.env,
            shadowing=its.shadowed_by,
            tree=one.plan.layout if one.base.pinned.editable else None,
        )
        under = lower.image
        blobs[lower.layer.digest] = lower.layer.blob
    return under, blobs


def requires_label(below: Sequence[Below]) -> dict[str, str]:
    """The label that names the stacks below; none without one."""
    stood_on = (f"{one.plan.inputs.stack}={one.plan.inputs.patched}" for one in below)
    return {"stackpatch.requires": " ".join(stood_on)} if below else {}


def refuse_misfits(plan: Plan, prepared: Prepared) -> None:
    """Refuse companions in a version that the released wheel's own metadata does not ask for.

    Raises InputError.
    """
    inputs = plan.inputs
    wanted = asked_for(read_metadata(prepared.wheel), platform=inputs.platform, python=None)
    there: dict[str, str] = {
        canonicalize_name(one.plan.inputs.distribution): one.plan.inputs.patched
        for one in plan.companions
    }
    misfits = unmet(wanted, there)
    if misfits:
        file = plan.released.file
        msg = f"{file} asks for other versions than the recipe: {'; '.join(misfits)}"
        raise InputError(msg, hint="correct `requires` of the release in the recipe")


def conflicts(own: tuple[Inputs, Sequence[str], Site], below: Sequence[Below]) -> tuple[str, ...]:
    """Packages of the base that must be of one version with ours and are not.

    own: the inputs of the stack itself, what must be of its version, where it lies. Only as far
    as the base was read.
    """
    lines: list[str] = []
    lower = [(one.plan.inputs, one.plan.same_version, one.site) for one in below]
    for inputs, same_version, site in (own, *lower):
        if site.installed is None:
            continue
        package = canonicalize_name(inputs.distribution)
        there: Mapping[str, str] = {**site.installed.versions, package: inputs.patched}
        gone = taken_out(site, inputs.shadowed_by)
        lines += not_of_one_version(package, set(same_version) - gone.keys(), there)
    return tuple(f"the base image has {line}; it must be replaced" for line in lines)
