"""Where a base has a package: as the recipe records, as a person says, or as its layers show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.artefacts.base import USUAL_SITE
from stackpatch.artefacts.finding import find_installed
from stackpatch.artefacts.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackpatch.artefacts.base import Base
    from stackpatch.artefacts.lock import Inputs


def where_installed(
    inputs: Inputs,
    base: Base,
    watched: frozenset[str],
    *,
    outside: bool = False,
    report: Callable[[str, int, int | None], None] | None = None,
) -> Site:
    """The folder of the base that takes the package's files, and what was seen there.

    watched: files, by path in that folder, whose content matters. outside: another engine
    installs the package, and nothing is read for it. Raises InputError.
    """
    pinned = base.pinned
    if base.source is None or outside:
        return Site(pinned.site or USUAL_SITE)
    if pinned.recorded and pinned.site is not None:
        return Site(pinned.site, python=pinned.python)
    return find_installed(
        base.source,
        base.image,
        inputs.distribution,
        watched=watched,
        site=pinned.site,
        shadowing=inputs.shadowed_by,
        report=report,
    )
