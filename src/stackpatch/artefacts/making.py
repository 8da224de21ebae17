"""What a build from a wheel makes: the patched wheel, the image, and what is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.artefacts.beneath import (
    Below,
    conflicts,
    laid_under,
    make_companions,
    refuse_misfits,
    requires_label,
)
from stackpatch.artefacts.build import IMAGE
from stackpatch.artefacts.labels import image_annotations, image_labels, image_tag, place_label
from stackpatch.artefacts.layout import write_layout
from stackpatch.artefacts.overlay import overlay
from stackpatch.artefacts.papers import MadeImage, write_papers
from stackpatch.artefacts.patched import as_output, patched_wheel
from stackpatch.artefacts.site import Site, taken_out
from stackpatch.artefacts.where import where_installed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stackpatch.artefacts.base import Base
    from stackpatch.artefacts.build import Prepared
    from stackpatch.artefacts.lock import Inputs, Outputs
    from stackpatch.artefacts.plan import Plan
    from stackpatch.artefacts.wheel import WheelResult


def make(
    plan: Plan,
    base: Base,
    prepared: Prepared,
    folder: Path,
    report: Callable[[str, int, int | None], None] | None = None,
) -> Outputs:
    """Fill the empty folder. Raises InputError for inputs that do not fit each other.

    report: called with a label, bytes done, bytes in all, while a base is read.
    """
    outside = plan.external is not None
    wheel = patched_wheel(plan, prepared, folder)
    below = make_companions(
        plan.companions, prepared.companions, folder, outside=outside, report=report
    )
    refuse_misfits(plan, prepared)
    watched = frozenset(wheel.released)
    site = where_installed(plan.inputs, base, watched, outside=outside, report=report)
    made = _image(plan, base, wheel, site, below, folder)
    notes = [f"not in the wheel, so not in the result: {path}" for path in prepared.shipped.outside]
    if base.source is not None and not outside:
        notes += base_notes(plan.inputs, base, site)
        notes += _own_version(plan, base)
    notes += conflicts((plan.inputs, plan.same_version, site), below)
    return write_papers(
        folder,
        plan.inputs,
        plan.patches,
        base,
        wheel=as_output(wheel),
        made=made,
        below=[one.paper for one in below],
        notes=notes,
    )


def _image(
    plan: Plan,
    base: Base,
    wheel: WheelResult,
    site: Site,
    below: Sequence[Below],
    folder: Path,
) -> MadeImage:
    """The image, below the folder."""
    inputs = plan.inputs
    labels = {**image_labels(inputs), **requires_label(below)}
    annotations, tag = image_annotations(inputs), image_tag(inputs)
    if plan.external is not None:
        from stackpatch.artefacts.external import external_image

        return external_image(
            plan,
            base,
            [*((one.plan, one.wheel) for one in below), (plan, wheel)],
            folder,
            labels=labels,
            annotations=annotations,
            ref_name=tag,
        )
    under, blobs = laid_under(base, below)
    made = overlay(
        base.image,
        wheel,
        site,
        under=under,
        base_name=base.pinned.name,
        epoch=inputs.epoch,
        labels={**labels, **place_label(base, site.path)},
        annotations=annotations,
        env=inputs.env,
        shadowing=inputs.shadowed_by,
        tree=plan.layout if base.pinned.editable else None,
    )
    write_layout(
        folder / IMAGE,
        made.image,
        {**blobs, made.layer.digest: made.layer.blob},
        base=base.layout,
        annotations={"org.opencontainers.image.ref.name": tag},
        sparse=base.source is not None and base.layout is None,
    )
    return MadeImage.of(made.image, folder)


def base_notes(inputs: Inputs, base: Base, site: Site) -> list[str]:
    """What a person should know of the base: what was believed, what was read, what was hidden."""
    notes = []
    name = base.pinned.name or "the base image"
    if base.pinned.recorded:
        notes.append(
            f"that {name} has {inputs.stack} {inputs.version} in /{site.path} is the "
            f"recipe's word ({base.evidence}); its layers were not read"
        )
    if site.reading is not None:
        one = site.reading
        notes.append(
            f"{one.layers} of the base's {one.of} layers were read, from the top, {one.bytes:,} "
            f"bytes: {inputs.distribution} {inputs.version} is in /{site.path}"
        )
    if base.pinned.editable:
        return notes
    for shadow, paths in taken_out(site, inputs.shadowed_by).items():
        whole = site.reading is not None and site.reading.whole
        seen = whole or (site.installed is not None and shadow in site.installed.distributions)
        what = f"/{site.path}/{paths[0]}" + f" and {len(paths) - 1} more" * (len(paths) > 1)
        there = "" if seen else " if it is there; its layer was not read"
        notes.append(
            f"taken out of the base{there}: {what}, as the prebuilt code of {shadow} would win "
            "over patched source"
        )
    return notes


def _own_version(plan: Plan, base: Base) -> list[str]:
    """That an editable installation goes on stating its own version, where it does."""
    stamp = plan.inputs.stamp
    if not base.pinned.editable or stamp is None or plan.layout.to_git(stamp[0]) is not None:
        return []
    what = "is not in the git tree, so the package in the image goes on stating its own version"
    return [f"{stamp[0]} {what}"]
