"""What a series makes of a release's files, as an image is held against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.artefacts.labels import image_labels
from stackpatch.artefacts.patched import read_member
from stackpatch.artefacts.stamp import stamp_version
from stackpatch.checks.verify import Expected, Wanted
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from stackpatch.artefacts.build import Prepared
    from stackpatch.artefacts.plan import Plan
    from stackpatch.artefacts.tree_changes import Changed
    from stackpatch.artefacts.tree_plan import TreePlan


def wanted_of(plan: Plan, prepared: Prepared, *, editable: bool = False) -> Wanted:
    """The files that the plan's series changes in the released wheel, with its version stamp.

    editable: by their paths in the git tree, without what is not in it. Raises InputError.
    """
    inputs, shipped = plan.inputs, prepared.shipped
    files = {
        path: Expected(content, shipped.originals.get(path))
        for path, content in shipped.content.items()
    }
    if inputs.stamp is not None:
        path, variable = inputs.stamp
        found = files.get(path)
        content = found.content if found is not None else None
        released = found.released if found is not None else None
        if content is None:
            content = read_member(prepared.wheel, path)
            released = Digest.of(content).hex
        where = f"{prepared.wheel.name}: {path}"
        stamped = stamp_version(content, variable, inputs.version, inputs.patched, where=where)
        files[path] = Expected(stamped, released)
    if editable:
        placed = {plan.layout.to_git(path): one for path, one in files.items()}
        files = {path: one for path, one in placed.items() if path is not None}
    distribution, labels = None if editable else inputs.distribution, image_labels(inputs)
    return Wanted(inputs.stack, distribution, inputs.patched, files, labels, shipped.outside)


def wanted_of_tree(
    plan: TreePlan, changed: Changed, *, compiled: bool, editable: bool = False
) -> Wanted:
    """The files that a series changes of a release that is its commit.

    compiled: the image was built from source and states the patched version; an overlay leaves
    the installation's own. editable: by their paths in the git tree.
    """
    files = {
        path: Expected(file.content, file.original)
        for path, file in changed.placed(editable=editable).items()
    }
    inputs = plan.inputs
    distribution = None if editable else inputs.distribution
    version = inputs.patched if compiled else inputs.version
    labels = image_labels(inputs)
    return Wanted(inputs.stack, distribution, version, files, labels, changed.outside)
