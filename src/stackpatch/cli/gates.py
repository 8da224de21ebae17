"""What several commands say of gates: which ones a series opens, and whether that can help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch.checks.gates import gates_in_tree
from stackpatch.checks.gates_evidence import Behind
from stackpatch.checks.gates_opened import Opened, behind, opened_by_series, opened_by_text
from stackpatch.checks.shadow import Effect, shadows
from stackpatch.errors import EnvironmentProblem, InputError, Problems
from stackpatch.model.arch import ARCHES
from stackpatch.model.lint import Remark
from stackpatch.model.reference import SourceKind
from stackpatch.series.apply import apply_series
from stackpatch.series.failures import not_applied

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stackpatch.checks.audit import Audit
    from stackpatch.checks.gates import Gate
    from stackpatch.checks.gates_evidence import Answer
    from stackpatch.checks.shadow import Finding, Scene
    from stackpatch.cli.progress import Report
    from stackpatch.cli.workspace import Workspace
    from stackpatch.model.arch import Arch
    from stackpatch.model.collection import Collection
    from stackpatch.model.patch import Patch

# How many places of one kind are shown to people; the document has all of them.
_SHOWN = 20
_WORDS = {
    Effect.WINS: "shadows",
    Effect.UNKNOWN: "may shadow",
    Effect.NONE: "lies beside and takes nothing from",
}


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
    among = work.series.patches
    result = apply_series(work.store.objects, base.tree, patches, parent=base.commit, among=among)
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


@dataclass(frozen=True, slots=True)
class Beside:
    """What `audit --stack` adds: the checks in the patched sources beside what the target holds."""

    label: str
    arch: Arch
    gates: tuple[tuple[Gate, Answer], ...]
    opened: tuple[Opened, ...]
    shadowing: tuple[Finding, ...]

    def document(self) -> dict[str, object]:
        """The keys `stack`, `gates`, `opened` and `shadowing`."""
        return {
            "stack": self.label,
            "gates": [
                {
                    "rule": gate.rule.name,
                    "path": gate.path,
                    "line": gate.line,
                    "symbol": gate.symbol,
                    "admits": str(gate.admitted),
                    "open": gate.admitted.admits(self.arch),
                    "behind": found.behind.value,
                    "says": found.says,
                    "evidence": dict(found.evidence),
                }
                for gate, found in self.gates
            ],
            "opened": [one.json() for one in self.opened],
            "shadowing": [one.json() for one in self.shadowing],
        }

    def lines(self) -> list[str]:
        """For people: what the series opens, what stays shut, what would win over the sources."""
        arch = self.arch.name
        shut = [(g, a) for g, a in self.gates if not g.admitted.admits(self.arch)]
        lines = ["", f"{len(self.gates)} checks in {self.label}, {len(shut)} refuse {arch}"]
        for standing, title in (
            (Behind.KERNEL, "refused, and a kernel is there"),
            (Behind.NOTHING, "refused, and rightly: opening cannot help"),
            (Behind.UNKNOWN, "refused; what stands behind is not known"),
        ):
            some = [(g, a) for g, a in shut if a.behind is standing]
            lines += [f"{title} ({len(some)}):"] if some else []
            lines += [f"  {gate.place}: admits {gate.admitted}" for gate, _ in some[:_SHOWN]]
            if len(some) > _SHOWN:
                lines.append(f"  … and {len(some) - _SHOWN} more (--json has all)")
            lines += [f"  {says}" for says in sorted({a.says for _, a in some})]
        if self.opened:
            lines += ["opened by the series:", *(f"  {one.line()}" for one in self.opened)]
        harmless = all(one.effect is Effect.NONE for one in self.shadowing)
        lines.append("nothing found that shadows the sources" if harmless else "")
        for one in self.shadowing:
            lines += [f"{_WORDS[one.effect]} the sources: {one.what}", f"  where: {one.where}"]
            lines += [f"  why: {one.why}", f"  do: {one.todo}"]
        return lines


def beside(work: Workspace, found: Audit, scene: Scene, report: Report) -> Beside:
    """The stack's checks and shadows for the target and arch of an audit, which saw this scene."""
    arch, recipe, release = found.arch, work.recipe, work.release
    base = work.base(report)
    patches = work.series.for_arch(arch.name).patches
    objects = work.store.objects
    among = work.series.patches
    result = apply_series(objects, base.tree, patches, parent=base.commit, among=among)
    if not result.applied:
        raise not_applied(work.series.where, base.label, result)
    gates = gates_in_tree(objects, result.tree, recipe.gates.rules)
    return Beside(
        label=f"{recipe.stack} {release.version}" + (" with its series" if patches else ""),
        arch=arch,
        gates=tuple((gate, behind(gate, recipe, release, arch, found)) for gate in gates),
        opened=tuple(opened_by_series(objects, result, recipe, release, arch, fresh=found)),
        shadowing=tuple(shadows(scene, recipe)),
    )
