"""What a build of a git tree makes: an overlay on an image of the release, or a build from source.

There is no wheel to hand on; the image and the same papers as of a build from a wheel are the
result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.artefacts.beneath import conflicts, laid_under, make_companions, requires_label
from stackpatch.artefacts.build import IMAGE
from stackpatch.artefacts.labels import image_annotations, image_labels, image_tag, place_label
from stackpatch.artefacts.layer import make_layer
from stackpatch.artefacts.layout import write_layout
from stackpatch.artefacts.lock import rfc3339
from stackpatch.artefacts.making import base_notes
from stackpatch.artefacts.overlay import base_annotations
from stackpatch.artefacts.papers import MadeImage, write_papers
from stackpatch.artefacts.release import prepare_release
from stackpatch.artefacts.tree_changes import changes
from stackpatch.artefacts.tree_layer import refuse_other_release, tree_layer_entries
from stackpatch.artefacts.where import where_installed
from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stackpatch.artefacts.base import Base
    from stackpatch.artefacts.beneath import Below
    from stackpatch.artefacts.lock import Outputs
    from stackpatch.artefacts.tree_changes import Changed, ChangedFile
    from stackpatch.artefacts.tree_plan import TreePlan
    from stackpatch.model.arch import Arch
    from stackpatch.model.recipe import Recipe

    Report = Callable[[str, int, int | None], None]


def make_tree(
    recipe: Recipe,
    arch: Arch,
    plan: TreePlan,
    base: Base,
    folder: Path,
    *,
    offline: bool,
    report: Report | None,
) -> Outputs:
    """Fill the empty folder. Raises as `build_tree`."""
    if plan.source is not None and offline:
        msg = "a build from source brings upstream's sources over the network"
        raise InputError(msg, hint="leave --offline out; a build that is there is found with it")
    changed = changes(recipe, plan, offline=offline, report=report)
    prepared = [
        prepare_release(one.recipe, one.release, arch, one.plan, offline=offline, report=report)
        for one in plan.companions
    ]
    below = make_companions(
        plan.companions, prepared, folder, outside=plan.source is not None, report=report
    )
    if plan.source is None:
        made, notes = _overlaid(plan, base, changed, below, folder, report)
    else:
        made, notes = _from_source(plan, base, changed, below, folder)
    return write_papers(
        folder,
        plan.inputs,
        plan.patches,
        base,
        wheel=None,
        made=made,
        below=[one.paper for one in below],
        notes=notes,
    )


def _overlaid(
    plan: TreePlan,
    base: Base,
    changed: Changed,
    below: Sequence[Below],
    folder: Path,
    report: Report | None,
) -> tuple[MadeImage, list[str]]:
    """The image with the changed files on top, below `folder`; notes."""
    inputs, on_top = plan.inputs, bool(base.image.layers)
    files = changed.placed(editable=base.pinned.editable)
    site = where_installed(inputs, base, frozenset(files), report=report)
    refuse_other_release(inputs, files, site)
    shadowing = () if base.pinned.editable else inputs.shadowed_by
    entries = tree_layer_entries(
        files, site, epoch=inputs.epoch, on_top=on_top, shadowing=shadowing
    )
    layer = make_layer(entries, epoch=inputs.epoch, folders=site.folders)
    under, blobs = laid_under(base, below)
    labels = {**image_labels(inputs), **requires_label(below), **place_label(base, site.path)}
    told = base_annotations(base.image, base.pinned.name)
    image = under.with_layer(
        layer,
        created=rfc3339(inputs.epoch),
        comment=f"stackpatch overlay {inputs.stack} {inputs.patched}",
        annotations={**image_annotations(inputs), **labels, **told},
        labels=labels,
        env=inputs.env,
    )
    write_layout(
        folder / IMAGE,
        image,
        {**blobs, layer.digest: layer.blob},
        base=base.layout,
        annotations={"org.opencontainers.image.ref.name": image_tag(inputs)},
        sparse=base.source is not None and base.layout is None,
    )
    notes = [f"not in the package, so not in the image: {path}" for path in changed.outside]
    if base.source is not None:
        notes += base_notes(inputs, base, site)
    notes += _version_notes(plan, base, files, read=site.installed is not None)
    notes += conflicts((inputs, plan.same_version, site), below)
    return MadeImage.of(image, folder), notes


def _version_notes(
    plan: TreePlan, base: Base, files: Mapping[str, ChangedFile], *, read: bool
) -> list[str]:
    """What the installation goes on saying, which is not true any more."""
    inputs = plan.inputs
    still = f"the package in the image still says {inputs.version}"
    notes = [f"{still}; the image's labels say {inputs.patched}"]
    if not read and base.source is not None and not base.pinned.editable:
        notes.append(f"RECORD of the installation goes on naming {len(files)} released files")
    if base.source is None:
        notes.append("made on nothing: the layer alone, to be laid on an image of the release")
    return notes


def _from_source(
    plan: TreePlan, base: Base, changed: Changed, below: Sequence[Below], folder: Path
) -> tuple[MadeImage, list[str]]:
    """The image that the engine makes of the patched sources; notes."""
    assert plan.source is not None  # noqa: S101 - the caller asked for it, for mypy
    inputs = plan.inputs
    # Only here: an overlay needs no engine.
    from stackpatch.artefacts.engines import build_image
    from stackpatch.artefacts.tree_source import source_request, with_git_addresses

    request = source_request(
        plan,
        base,
        changed,
        [(one.plan.inputs.distribution, one.wheel) for one in below],
        labels={**image_labels(inputs), **requires_label(below)},
        annotations=image_annotations(inputs),
    )
    with with_git_addresses(request, folder) as asked:
        image = build_image(
            asked,
            folder / IMAGE,
            progress=plan.source.settings.progress,
            ref_name=image_tag(inputs),
        )
    return MadeImage.of(image, folder), [
        "built from source by its Dockerfile; its log names every step"
    ]
