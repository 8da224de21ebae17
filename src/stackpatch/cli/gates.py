"""What several commands say of gates: which ones a series opens, and whether that can help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackpatch.checks.gates_opened import Opened, opened_by_series, opened_by_text
from stackpatch.errors import EnvironmentProblem, InputError, Problems
from stackpatch.model.arch import ARCHES
from stackpatch.model.lint import Remark
from stackpatch.model.reference import SourceKind
from stackpatch.series.apply import apply_series

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stackpatch.cli.progress import Report
    from stackpatch.cli.workspace import Workspace
    from stackpatch.model.arch import Arch
    from stackpatch.model.collection import Collection
    from stackpatch.model.patch import Patch


def opened_gates(
    work: Workspace, arch: Arch, patches: Sequence[Patch], report: Report
) -> list[Opened] | None:
    """The gates that these patches open, judged in the release's sources. None: the sources are
    not in the store (a build that was found again fetches nothing), so nobody looked."""
    if not patches or not work.recipe.gates.rules:
        return []
    if not any(work.store.find(kind, work.release.version) for kind in SourceKind):
        return None
    base = work.base(report)
    result = apply_series(work.store.objects, base.tree, patches, parent=base.commit)
    return opened_by_series(work.store.objects, result, work.recipe, work.release, arch)


def unexplained_gates(collection: Collection, stacks: Iterable[str] = ()) -> list[Remark]:
    """A warning for each patch that opens a gate which cannot help and says nowhere why."""
    found: set[Remark] = set()
    for stack in tuple(stacks) or collection.stacks():
        try:
            recipe = collection.recipe(stack)
        except (InputError, Problems, EnvironmentProblem):
            continue  # told as problems of the recipe
        where = collection.shown(collection.recipe_path(stack))
        for release in recipe.releases:
            if release.series is None or not recipe.gates.rules:
                continue
            try:
                series = collection.series(stack, release)
            except (InputError, Problems, EnvironmentProblem, OSError):
                continue
            for name in sorted(recipe.archs):
                for patch in series.for_arch(name).patches:
                    for gate in opened_by_text(patch, recipe, release, ARCHES[name]):
                        if gate.unexplained:
                            text = (
                                f"seems to open the gate {gate.before.rule.name} for {name}: "
                                f"{gate.answer.says}; say in {where}, gates.shipped, why it is "
                                "shipped"
                            )
                            found.add(Remark(f"{series.where}/{patch.name}", 1, text))
    return sorted(found)
