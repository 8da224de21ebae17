"""Whether a kernel stands behind a gate, by what was measured.

Three answers and no fourth: there is code for the arch, there is none, or nobody knows. Code of a
wrong arch is proof that opening cannot help only where the kernels are binaries and every one of
the package was counted.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from stackpatch.checks.code import Form
from stackpatch.model.recipe_gates import KernelKind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from stackpatch.checks.audit import Audit
    from stackpatch.model.arch import Arch, CodeArch
    from stackpatch.model.recipe_gates import Compiled, Kernels


class Behind(StrEnum):
    """What stands behind a gate on an arch."""

    KERNEL = "kernel"
    NOTHING = "nothing"
    UNKNOWN = "not-known"


@dataclass(frozen=True, slots=True)
class Answer:
    """What stands behind the gate, in a sentence, and by which evidence."""

    behind: Behind
    says: str
    evidence: Mapping[str, Any]


def answer(
    name: str, kernels: Kernels, release: str, arch: Arch, fresh: Audit | None = None
) -> Answer:
    """Judge the kernels for a release on an arch. fresh: an audit whose target may hold them; what
    it counted goes before what the recipe recorded."""
    match kernels.kind:
        case KernelKind.BINARIES:
            return _binaries(name, kernels, release, arch, fresh)
        case KernelKind.JIT:
            return _compiled(name, kernels, release, arch)
        case KernelKind.UNKNOWN:
            return _unknown(name, kernels, "it is not known what stands behind it")


def _binaries(name: str, kernels: Kernels, release: str, arch: Arch, fresh: Audit | None) -> Answer:
    found = _in_target(kernels, fresh) if fresh is not None else None
    if found is not None:
        return found_counts(name, kernels, arch, *found)
    measured = next((m for m in kernels.measured if m.release == release), None)
    if measured is None:
        return _unknown(name, kernels, f"the binaries of {release} were not measured")
    evidence = {
        "kernels": name,
        "distribution": measured.distribution,
        "version": measured.version,
        "file": measured.file,
        "sha256": measured.sha256,
        "codes": dict(measured.codes),
        "date": measured.date,
        "how": measured.how,
    }
    what = f"{measured.distribution} {measured.version}"
    return found_counts(name, kernels, arch, measured.targets(), what, evidence)


def found_counts(
    name: str,
    kernels: Kernels,
    arch: Arch,
    counts: tuple[tuple[tuple[CodeArch, ...], int], ...],
    what: str,
    evidence: Mapping[str, Any],
) -> Answer:
    """The answer that counts of a package give. counts: the targets that are possible, and how
    many files."""
    runs = Counter[bool | None]()
    names = sorted({str(one) for candidates, _ in counts for one in candidates})
    for candidates, count in counts:
        answers = {arch.runs(candidate) for candidate in candidates}
        runs[answers.pop() if len(answers) == 1 else None] += count
    shown = _enumerated(names)
    if runs[True]:
        says = f"a kernel stands behind it: {what} has code that runs on {arch.name}"
        if runs[False] or runs[None]:
            says += f" ({runs[True]:,} of {runs.total():,} counted; the gate may need another one)"
        return Answer(Behind.KERNEL, says, evidence)
    if runs[None] or not runs:
        return _unknown(name, kernels, f"the bytes of {what} leave the target open")
    says = f"opening this gate cannot help: {shown} only ({runs[False]:,} in {what})"
    return Answer(Behind.NOTHING, says, evidence)


def _in_target(
    kernels: Kernels, audit: Audit | None
) -> tuple[tuple[tuple[tuple[CodeArch, ...], int], ...], str, Mapping[str, Any]] | None:
    """What an audit counted of these kernels; None where its target has none, or was not read
    completely: a part that is missing may be the one that counts."""
    if audit is None or not kernels.files:
        return None
    counts: Counter[tuple[CodeArch, ...]] = Counter()
    files = 0
    for file in audit.files:
        if not any(fnmatch.fnmatchcase(file.path, pattern) for pattern in kernels.files):
            continue
        if file.findings.damage:
            return None
        files += 1
        for code in file.findings.codes:
            if code.form is not Form.MACHINE:
                return None
            counts[code.candidates] += 1
    if not files or audit.unread or audit.ignored:
        return None
    codes = {"|".join(str(c) for c in candidates): n for candidates, n in sorted(counts.items())}
    evidence = {"target": audit.target, "files": files, "codes": codes, "how": "this audit"}
    return tuple(counts.items()), audit.target, evidence


def _compiled(name: str, kernels: Kernels, release: str, arch: Arch) -> Answer:
    tried = [c for c in kernels.compiled if c.release == release and c.arch == arch.name]
    failed = next((c for c in tried if not c.compiles), None)
    if failed is not None:
        says = f"its source {failed.source} does not compile for {arch.name}"
        return _unknown(name, kernels, f"{says} ({failed.how})", _compilation(name, failed))
    if tried:
        first = tried[0]
        says = (
            f"a kernel stands behind it: {first.source} compiles for {arch.name} when it is first "
            "used; that it computes right is for smoke to say"
        )
        return Answer(Behind.KERNEL, says, _compilation(name, first))
    says = f"its sources were not compiled for {arch.name} at {release}"
    return _unknown(name, kernels, says)


def _compilation(name: str, one: Compiled) -> Mapping[str, Any]:
    return {
        "kernels": name,
        "source": one.source,
        "compiles": one.compiles,
        "date": one.date,
        "how": one.how,
    }


def _unknown(
    name: str, kernels: Kernels, why: str, evidence: Mapping[str, Any] | None = None
) -> Answer:
    says = f"not known whether a kernel stands behind it: {why}; look at {kernels.look_at}"
    return Answer(Behind.UNKNOWN, says, evidence or {"kernels": name})


def _enumerated(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
