"""Stacks on stacks: which patched stacks a release stands on, planned with it.

sglang, vllm and TensorRT-LLM pin a FlashInfer release in their own metadata. Where our recipe of
that stack has a series for the release, its patched wheel belongs into the same result and below
this stack in the same image. Where it has none, the released package serves, and the plan says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.artefacts.base import open_base
from stackpatch.artefacts.lock import PinnedStack
from stackpatch.artefacts.plan import Companion, make_plan
from stackpatch.errors import InputError

if TYPE_CHECKING:
    from stackpatch.artefacts.base import OpenRemote
    from stackpatch.model.arch import Arch
    from stackpatch.model.collection import Collection
    from stackpatch.model.recipe import Release


def plan_companions(
    collection: Collection,
    release: Release,
    arch: Arch,
    *,
    base: str,
    remote: OpenRemote | None,
    above: tuple[str, ...],
) -> tuple[tuple[Companion, ...], tuple[PinnedStack, ...]]:
    """The companions of a release, deepest first, and all stacks that it requires.

    base, remote: as `open_base` takes them. above: the stacks that ask, so that none is its own
    companion. Raises InputError, also for stacks that require each other.
    """
    companions: list[Companion] = []
    required: list[PinnedStack] = []
    for stack, version in sorted(release.requires.items()):
        if stack in above:
            msg = f"{' > '.join((*above, stack))}: a stack cannot stand on itself"
            raise InputError(msg, hint="correct `requires` in one of the recipes")
        found = _companion(
            collection, stack, version, arch, base=base, remote=remote, above=(*above, stack)
        )
        if not found:
            required.append(PinnedStack(stack, version))
            continue
        own = found[-1].plan
        companions += [one for one in found if one not in companions]
        required.append(PinnedStack(stack, version, own.inputs.patched, own.key))
    return tuple(companions), tuple(required)


def _companion(
    collection: Collection,
    stack: str,
    version: str,
    arch: Arch,
    *,
    base: str,
    remote: OpenRemote | None,
    above: tuple[str, ...],
) -> tuple[Companion, ...]:
    """The stack's plan after those that it stands on itself; nothing without a series for it."""
    if stack not in collection.stacks():
        return ()
    recipe = collection.recipe(stack)
    release = next((one for one in recipe.releases if one.version == version), None)
    if release is None or arch.name not in recipe.archs:
        return ()
    series = collection.series(stack, release)
    if not series.for_arch(arch.name).patches:
        return ()
    below, required = plan_companions(
        collection, release, arch, base=base, remote=remote, above=above
    )
    opened = open_base(base, arch, recorded=release.bases, remote=remote)
    plan = make_plan(
        recipe,
        release,
        arch,
        series,
        engine="overlay",
        base=opened.pinned,
        companions=below,
        requires=required,
    )
    return (*below, Companion(recipe, release, plan, opened))
