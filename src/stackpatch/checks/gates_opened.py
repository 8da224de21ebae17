"""Which gates a patch opens for an arch, and whether that can help."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from stackpatch.checks.gates import Gate, gates_in_file, gates_in_text
from stackpatch.checks.gates_evidence import Answer, Behind, answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stackpatch.checks.audit import Audit
    from stackpatch.model.arch import Arch
    from stackpatch.model.patch import Patch
    from stackpatch.model.recipe import Recipe, Release
    from stackpatch.series.apply import SeriesResult
    from stackpatch.sources.objects import Objects


@dataclass(frozen=True, slots=True)
class Opened:
    """A gate that refused the arch before a patch. after: None where the patch removed the gate.

    because: why a patch that cannot help is shipped, from the recipe; None: nobody said.
    """

    patch: str
    before: Gate
    after: Gate | None
    answer: Answer
    because: str | None = None

    @property
    def unexplained(self) -> bool:
        """Whether it leads nowhere and nobody says why it is shipped."""
        return self.answer.behind is Behind.NOTHING and self.because is None

    def json(self) -> dict[str, Any]:
        """As `build --json` has it. line: after the patch, or before where the gate is gone."""
        shown = self.after or self.before
        return {
            "patch": self.patch,
            "rule": self.before.rule.name,
            "path": shown.path,
            "line": shown.line,
            "symbol": shown.symbol,
            "before": str(self.before.admitted),
            "after": None if self.after is None else str(self.after.admitted),
            "behind": self.answer.behind.value,
            "says": self.answer.says,
            "evidence": dict(self.answer.evidence),
            "shipped_because": self.because,
        }

    def line(self) -> str:
        """One line for people."""
        shown = self.after or self.before
        says = f"{self.patch}: {shown.place}: {self.answer.says}"
        return f"{says}; shipped because {self.because}" if self.because else says


def opened_by_series(
    objects: Objects,
    result: SeriesResult,
    recipe: Recipe,
    release: Release,
    arch: Arch,
    *,
    fresh: Audit | None = None,
) -> list[Opened]:
    """The gates that each patch of an applied series opens, in the order of the series.

    fresh: an audit whose target may hold the kernels.
    """
    found: list[Opened] = []
    tree = result.base
    for one in result.results:
        pairs = _opened_between(objects, tree, one.tree, one.changes, recipe, arch)
        found += [judged(pair, one.patch.name, recipe, release, arch, fresh) for pair in pairs]
        tree = one.tree
    return found


def opened_by_text(patch: Patch, recipe: Recipe, release: Release, arch: Arch) -> list[Opened]:
    """What the patch's hunks show by themselves, without the release's sources.

    Sees only what stands in one hunk, and no symbols; for lint, which fetches nothing.
    """
    before: list[Gate] = []
    after: list[Gate] = []
    for file in patch.files:
        for hunk in file.hunks:
            old = b"".join(hunk.old).decode("utf-8", "replace")
            new = b"".join(hunk.new).decode("utf-8", "replace")
            before += gates_in_text(file.path, old, recipe.gates.rules)
            after += gates_in_text(file.path, new, recipe.gates.rules)
    pairs = _opened(before, after, arch)
    return [judged(pair, patch.name, recipe, release, arch) for pair in pairs]


def judged(
    pair: tuple[Gate, Gate | None],
    patch: str,
    recipe: Recipe,
    release: Release,
    arch: Arch,
    fresh: Audit | None = None,
) -> Opened:
    """The opened gate with what stands behind it."""
    before, after = pair
    found = behind(before, recipe, release, arch, fresh)
    because = None
    if found.behind is Behind.NOTHING:
        because = recipe.gates.because(release.series, patch)
    return Opened(patch, before, after, found, because)


def behind(
    gate: Gate, recipe: Recipe, release: Release, arch: Arch, fresh: Audit | None = None
) -> Answer:
    """What stands behind a gate of this release on the arch."""
    name = gate.rule.behind
    return answer(name, recipe.gates.kernels[name], release.version, arch, fresh)


def _opened_between(
    objects: Objects, before: str, after: str, paths: Iterable[str], recipe: Recipe, arch: Arch
) -> list[tuple[Gate, Gate | None]]:
    """The gates of two trees that differ and no longer refuse. paths: those that may differ."""

    def gates(tree: str) -> list[Gate]:
        found: list[Gate] = []
        for path in sorted(paths):
            content = objects.read(tree, path)
            if content is not None:
                found += gates_in_file(path, content, recipe.gates.rules)
        return found

    return _opened(gates(before), gates(after), arch)


def _opened(
    before: Iterable[Gate], after: Iterable[Gate], arch: Arch
) -> list[tuple[Gate, Gate | None]]:
    """Gates that refused the arch, each with what stands in its place; not those that are as
    they were. Gates are told apart by rule, file and symbol, inside by their order."""
    new = _by_place(after)
    found: list[tuple[Gate, Gate | None]] = []
    for place, old in _by_place(before).items():
        now = new.get(place, [])
        texts = [gate.text for gate in old], [gate.text for gate in now]
        for tag, i, j, m, n in SequenceMatcher(None, *texts, autojunk=False).get_opcodes():
            if tag in ("replace", "delete"):
                refusing = [gate for gate in old[i:j] if not gate.admitted.admits(arch)]
                still = sum(not gate.admitted.admits(arch) for gate in now[m:n])
                passing = [gate for gate in now[m:n] if gate.admitted.admits(arch)]
                # As many as refuse now were not opened, only written differently or moved.
                for index, gate in enumerate(refusing[: max(len(refusing) - still, 0)]):
                    found.append((gate, passing[index] if index < len(passing) else None))
    return found


def _by_place(gates: Iterable[Gate]) -> Mapping[tuple[str, str, str], list[Gate]]:
    found: dict[tuple[str, str, str], list[Gate]] = defaultdict(list)
    for gate in gates:
        found[gate.rule.name, gate.path, gate.symbol].append(gate)
    return found
