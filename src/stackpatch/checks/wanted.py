"""What a series makes of a release's files, as an image is held against it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from stackpatch.artefacts.making import read_member
from stackpatch.artefacts.plan import Engine
from stackpatch.artefacts.stamp import stamp_version
from stackpatch.checks.verify import Expected, Wanted
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from stackpatch.artefacts.build import Prepared
    from stackpatch.artefacts.plan import Plan
    from stackpatch.artefacts.tree_build import Changed
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
    labels = {
        "stackpatch.arch": inputs.arch,
        "stackpatch.series": f"sha256:{inputs.series_sha256}",
        "stackpatch.stack": inputs.stack,
        "stackpatch.version": inputs.patched,
    }
    distribution = None if editable else inputs.distribution
    return Wanted(inputs.stack, distribution, inputs.patched, files, labels)


def wanted_of_tree(plan: TreePlan, changed: Changed, *, editable: bool = False) -> Wanted:
    """The files that a series changes of a release that is its commit.

    An overlay leaves the installation's own version; what was built from source has the patched
    one. editable: by their paths in the git tree.
    """
    files = {
        path: Expected(content, _hex(changed.originals.get(path)))
        for path, content in changed.content.items()
    }
    if editable:
        placed = {plan.layout.to_git(path): one for path, one in files.items()}
        files = {path: one for path, one in placed.items() if path is not None}
    labels = {
        "stackpatch.arch": plan.arch.name,
        "stackpatch.series": f"sha256:{plan.series_sha256}",
        "stackpatch.stack": plan.recipe.stack,
        "stackpatch.version": plan.patched,
    }
    distribution = None if editable else plan.recipe.upstream.pypi
    version = plan.release.version if plan.engine is Engine.OVERLAY else plan.patched
    return Wanted(plan.recipe.stack, distribution, version, files, labels)


def _hex(row: str | None) -> str | None:
    """A sha256 as RECORD writes it, in hex."""
    if row is None:
        return None
    encoded = row.removeprefix("sha256=")
    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).hex()
