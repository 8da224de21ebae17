"""Which GPU code a target holds, and what of it runs on an arch.

`missing` is a file that has GPU code none of which can run on the arch: asked for a kernel in it,
the CUDA driver answers "no kernel image is available". What is not decided by the bytes is
`unknown` and never called missing, unless the policy is strict.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from stackpatch.checks.code import Code, Form
from stackpatch.checks.members import Alias, Member, Unread, is_archive
from stackpatch.checks.scan import Findings, scan
from stackpatch.checks.targets import TargetKind, target_kind, target_members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stackpatch.artefacts.base import OpenRemote
    from stackpatch.checks.members import Found
    from stackpatch.model.arch import Arch


class Standing(StrEnum):
    """What a file's code does on the arch."""

    NATIVE = "native"  # machine code for it
    PTX = "ptx"  # only by the driver's JIT
    MISSING = "missing"  # none of its code runs
    UNKNOWN = "unknown"  # the bytes do not say, or could not be read


@dataclass(frozen=True, slots=True)
class Policy:
    """What the caller accepts. ignore: patterns of paths (`fnmatch`), whole or the last part.

    accept_ptx: whether code that the driver must compile counts as running. strict: whether what
    is unknown counts as missing.
    """

    accept_ptx: bool = True
    ignore: tuple[str, ...] = ()
    strict: bool = False

    def ignores(self, path: str) -> bool:
        """Whether a pattern names this path; `*` matches `/` too."""
        name = path.rpartition("/")[2]
        return any(
            fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(name, pattern)
            for pattern in self.ignore
        )


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file with GPU code.

    units: what is loaded as a whole (a fatbin, a cubin, a PTX module), counted by what it does on
    the arch: a library may run in parts.
    """

    path: str
    standing: Standing
    findings: Findings
    units: dict[Standing, int]

    @property
    def partial(self) -> bool:
        """Whether the file runs, and parts of it do not."""
        runs = self.standing in (Standing.NATIVE, Standing.PTX)
        return runs and any(self.units.get(s) for s in (Standing.MISSING, Standing.UNKNOWN))

    def codes(self, form: Form) -> tuple[Code, ...]:
        """Its targets of one form."""
        return tuple(code for code in self.findings.codes if code.form is form)


@dataclass(frozen=True, slots=True)
class Audit:
    """The answer for a whole target. files: those with GPU code, sorted by path.

    looked_at: how many files were read. ignored: how many the policy passed over. unread: what
    was not looked into, and why.
    """

    target: str
    kind: TargetKind
    arch: Arch
    policy: Policy
    files: tuple[FileReport, ...] = ()
    unread: tuple[Unread, ...] = ()
    looked_at: int = 0
    ignored: int = 0

    def standing(self, standing: Standing) -> tuple[FileReport, ...]:
        """The files of this standing."""
        return tuple(file for file in self.files if file.standing is standing)

    @property
    def missing(self) -> tuple[str, ...]:
        """The paths that fail the audit: missing ones and, when strict, what is unknown."""
        failing = {file.path for file in self.standing(Standing.MISSING)}
        if self.policy.strict:
            failing |= {file.path for file in self.standing(Standing.UNKNOWN)}
            failing |= {entry.path for entry in self.unread}
        return tuple(sorted(failing))


@dataclass(slots=True)
class _Progress:
    """What was gathered so far."""

    files: dict[str, Findings] = field(default_factory=dict)
    unread: list[Unread] = field(default_factory=list)
    looked_at: int = 0
    ignored: int = 0
    size: int = 0


def audit(
    target: str,
    arch: Arch,
    policy: Policy,
    *,
    remote: OpenRemote | None = None,
    report: Callable[[str, int, int | None], None] | None = None,
) -> Audit:
    """Read the target once and judge it. report: called with a label and the bytes read so far.

    remote: opens images in registries. Raises InputError when the target cannot be audited at
    all, EnvironmentProblem for the network and the engine.
    """
    kind = target_kind(target, remote=remote)
    members = target_members(target, kind, arch.platform, remote=remote)
    return audit_members(target, kind, members, arch, policy, report=report)


def audit_members(
    target: str,
    kind: TargetKind,
    members: Iterable[Found],
    arch: Arch,
    policy: Policy,
    *,
    report: Callable[[str, int, int | None], None] | None = None,
) -> Audit:
    """As `audit`, of files that somebody else brings. target, kind: what they are called."""
    found = _gather(members, policy, report)
    # Thousands of files share a few sets of targets.
    known: dict[frozenset[Code], Standing] = {}
    files = tuple(
        judge(path, findings, arch, policy, known)
        for path, findings in sorted(found.files.items())
        if findings.codes or findings.damage
    )
    return Audit(
        target=target,
        kind=kind,
        arch=arch,
        policy=policy,
        files=files,
        unread=tuple(sorted(found.unread, key=lambda entry: (entry.path, entry.why))),
        looked_at=found.looked_at,
        ignored=found.ignored,
    )


def judge(
    path: str,
    findings: Findings,
    arch: Arch,
    policy: Policy,
    known: dict[frozenset[Code], Standing] | None = None,
) -> FileReport:
    """What the code of one file does on the arch. known: answers for this arch and policy, which
    are looked up and added to."""
    known = {} if known is None else known

    def standing_of(codes: frozenset[Code]) -> Standing:
        found = known.get(codes)
        if found is None:
            found = known[codes] = _standing(codes, arch, policy)
        return found

    units: Counter[Standing] = Counter()
    for codes, count in findings.units.items():
        units[standing_of(codes)] += count
    standing = standing_of(frozenset(findings.codes))
    if standing is Standing.MISSING and findings.damage:
        standing = Standing.UNKNOWN  # what could not be read may be what the arch needs
    return FileReport(path, standing, findings, dict(units))


def _standing(codes: Iterable[Code], arch: Arch, policy: Policy) -> Standing:
    """The best that one of these pieces of code does."""
    answers = {(code.form, code.runs_on(arch.capability)) for code in codes}
    if (Form.MACHINE, True) in answers:
        return Standing.NATIVE
    if policy.accept_ptx and (Form.PTX, True) in answers:
        return Standing.PTX
    open_forms = {form for form, answer in answers if answer is None}
    if not policy.accept_ptx:
        open_forms.discard(Form.PTX)
    return Standing.UNKNOWN if open_forms or not answers else Standing.MISSING


def _gather(
    members: Iterable[Found],
    policy: Policy,
    report: Callable[[str, int, int | None], None] | None,
) -> _Progress:
    found = _Progress()
    for member in members:
        if policy.ignores(member.path):
            found.ignored += 1
            continue
        match member:
            case Unread():
                found.unread.append(member)
            case Alias():
                if member.of in found.files:
                    found.files[member.path] = found.files[member.of]
            case Member() if is_archive(member.path):
                why = "an archive inside the target is not opened; audit it by itself"
                found.unread.append(Unread(member.path, why))
            case Member():
                findings = scan(member.path, member.source)
                found.looked_at += 1
                found.size += findings.size
                if findings.codes or findings.damage:
                    # In a tar a later entry replaces an earlier one of the same path.
                    found.files[member.path] = findings
                if report is not None:
                    report("reading", found.size, None)
    return found
