"""`stackpatch audit`: which GPU code a target really holds, and what of it runs on an arch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stackpatch.cli import output, progress
from stackpatch.cli.context import ArchOption, JsonOption, OfflineOption, RootOption

if TYPE_CHECKING:
    from stackpatch.artefacts.images import RemoteImage
    from stackpatch.checks.audit import Audit, FileReport
    from stackpatch.checks.code import Code


class PtxPolicy(StrEnum):
    """Whether code that the driver must compile counts as running."""

    ACCEPT = "accept"
    REFUSE = "refuse"


# How many paths are shown to people; the document has all of them.
_SHOWN = 20


def command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A wheel or zip, a folder, a Python environment (its folder or interpreter), an "
            "OCI layout (DIR or DIR@sha256:…), an image in a registry (HOST/NAME:TAG, …@sha256:…) "
            "or in the docker daemon (docker-daemon:IMAGE), a tar, or a single file.",
        ),
    ],
    *,
    arch: ArchOption,
    ptx: Annotated[
        PtxPolicy,
        typer.Option("--ptx", help="Whether PTX that the driver compiles counts as running."),
    ] = PtxPolicy.ACCEPT,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore",
            metavar="PATTERN",
            help="Pass over paths or file names that match; may repeat. * matches / too.",
        ),
    ] = None,
    stack: Annotated[
        str | None,
        typer.Option(
            "--stack",
            metavar="STACK[@RELEASE]",
            help="Also: the stack's checks for the GPU beside these kernels, and what in the "
            "target would be loaded instead of its patched sources.",
            show_default=False,
        ),
    ] = None,
    jit: Annotated[
        list[Path] | None,
        typer.Option(
            "--jit",
            metavar="DIR",
            help="With --stack: a FlashInfer cache folder to look into for stale modules; may "
            "repeat.",
            show_default=False,
        ),
    ] = None,
    offline: OfflineOption = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Count what cannot be decided as missing.")
    ] = False,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Say which GPU code a wheel, folder, venv or image holds, and what runs on the arch."""
    from stackpatch.checks.audit import Policy, audit
    from stackpatch.errors import FindingError, InputError
    from stackpatch.model.arch import parse_arch

    policy = Policy(ptx is PtxPolicy.ACCEPT, tuple(ignore or ()), strict)
    if jit and stack is None:
        msg = "--jit says where a stack's modules lie, and no --stack was named"
        raise InputError(msg, hint="--stack flashinfer")
    lines: list[str] = []
    more: dict[str, object] = {}
    wanted = parse_arch(arch, where="--arch")

    def remote(text: str) -> RemoteImage:
        from stackpatch.cli.images import opener  # only now: it brings a whole HTTP client

        if offline:  # its layers are never kept
            msg = f"{text} is in a registry, and --offline forbids to read it"
            raise InputError(msg, hint="name a layout folder, or docker-daemon:IMAGE")
        return opener(what="TARGET")(text)

    with progress.reporting() as report:
        if stack is None:
            found = audit(target, wanted, policy, remote=remote, report=report)
        else:
            from stackpatch.checks.audit import audit_members
            from stackpatch.checks.shadow_scene import Noted
            from stackpatch.checks.targets import target_kind, target_members
            from stackpatch.cli.gates import beside
            from stackpatch.cli.workspace import open_workspace

            work = open_workspace(stack, root, offline=offline)
            kind = target_kind(target, remote=remote)
            noted = Noted(target, kind, work.recipe)
            members = target_members(target, kind, wanted.platform, remote=remote)
            passing = noted.passing(members)
            found = audit_members(target, kind, passing, wanted, policy, report=report)
            answer = beside(work, found, noted.scene(jit or ()), report)
            lines, more = answer.lines(), answer.document()
    failure = None
    if found.missing:
        count = len(found.missing)
        verb = "has" if count == 1 else "have"
        failure = FindingError(
            f"{_files(count)} {verb} no code that runs on {found.arch.name}"
            + (", or none that is known to run there" if strict else ""),
            hint="--ignore PATTERN passes over files that the arch does not need",
        )
    whole = {**document(found), **more}
    output.emit("audit", whole, [*people(found), *lines], json=json, failure=failure)


def document(found: Audit) -> dict[str, object]:
    """The command's document."""
    from stackpatch.checks.audit import Standing

    return {
        "target": found.target,
        "kind": found.kind,
        "arch": found.arch.name,
        "policy": {
            "ptx": PtxPolicy.ACCEPT if found.policy.accept_ptx else PtxPolicy.REFUSE,
            "ignore": found.policy.ignore,
            "strict": found.policy.strict,
        },
        "native": len(found.standing(Standing.NATIVE)),
        "ptx": len(found.standing(Standing.PTX)),
        "missing": found.missing,
        "unknown": [file.path for file in found.standing(Standing.UNKNOWN)],
        "partial": [file.path for file in found.files if file.partial],
        "unread": [{"path": entry.path, "why": entry.why} for entry in found.unread],
        "looked_at": found.looked_at,
        "ignored": found.ignored,
        "files": [_file_document(file) for file in found.files],
    }


def people(found: Audit) -> list[str]:
    """The lines for people."""
    from stackpatch.checks.audit import Standing

    arch = found.arch.name
    if not found.files:
        where = f"what was read of {found.target}" if found.unread else found.target
        return [f"no GPU code in {where} ({_files(found.looked_at)})", *_unread(found)]
    lines = [f"{_files(len(found.files))} with GPU code in {found.target} ({found.kind})"]
    lines += [
        f"  {len(files):>6}  {_explain(standing, arch)}"
        for standing in Standing
        if (files := found.standing(standing))
    ]
    lines += ["", *output.table(("targets", "files", arch), _by_targets(found.files)), ""]
    for standing in (Standing.MISSING, Standing.UNKNOWN):
        lines += _paths(_explain(standing, arch), found.standing(standing))
    lines += _paths(
        f"runs only in parts on {arch}", tuple(file for file in found.files if file.partial)
    )
    return [*lines, *_unread(found)]


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _explain(standing: str, arch: str) -> str:
    return {
        "native": f"runs natively on {arch}",
        "ptx": f"runs on {arch} by the driver's PTX compiler",
        "missing": f"does not run on {arch}",
        "unknown": f"not known whether it runs on {arch}",
    }[standing]


def _by_targets(files: tuple[FileReport, ...]) -> list[tuple[str, str, str]]:
    """One row for each set of targets that files share, the most common first."""
    counts: dict[tuple[str, str], int] = {}
    for file in files:
        names = " ".join(_label(code) for code in file.findings.codes) or "(unreadable)"
        counts[names, file.standing] = counts.get((names, file.standing), 0) + 1
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(names, str(count), standing) for (names, standing), count in order]


def _label(code: Code) -> str:
    return str(code) if code.decided else "|".join(str(c) for c in code.candidates)


def _paths(title: str, files: tuple[FileReport, ...]) -> list[str]:
    if not files:
        return []
    lines = [f"{title}:"]
    for file in files[:_SHOWN]:
        lines.append(f"  {_printable(file.path)}{_detail(file)}")
        lines += [f"    {why}" for why in file.findings.damage[:3]]
    if len(files) > _SHOWN:
        lines.append(f"  … and {len(files) - _SHOWN} more (--json has all)")
    return lines


def _detail(file: FileReport) -> str:
    if not file.partial:
        return ""
    total = sum(file.units.values())
    runs = sum(count for standing, count in file.units.items() if standing in ("native", "ptx"))
    return f" ({runs} of {total} parts)"


def _unread(found: Audit) -> list[str]:
    if not found.unread:
        return []
    lines = ["not looked into:"]
    lines += [
        f"  {_printable(entry.path or found.target)}: {_printable(entry.why)}"
        for entry in found.unread[:_SHOWN]
    ]
    if len(found.unread) > _SHOWN:
        lines.append(f"  … and {len(found.unread) - _SHOWN} more (--json has all)")
    return lines


def _file_document(file: FileReport) -> dict[str, object]:
    from stackpatch.checks.code import Form

    codes = file.findings.codes
    found: dict[str, object] = {
        "path": file.path,
        "standing": file.standing,
        "arches": _names(file.codes(Form.MACHINE)),
        "ptx": _names(file.codes(Form.PTX)),
        "units": dict(sorted(file.units.items())),
    }
    other = [*file.codes(Form.LTO), *file.codes(Form.OTHER)]
    if other:
        found["other"] = _names(tuple(other))
    undecided = [
        {"code": str(code), "candidates": [str(c) for c in code.candidates], "why": code.why}
        for code in codes
        if not code.decided
    ]
    if undecided:
        found["undecided"] = undecided
    if file.findings.damage:
        found["unreadable"] = list(file.findings.damage)
    return found


def _printable(text: str) -> str:
    """A name from somebody's archive, without what a terminal would act on."""
    return "".join(
        c if c.isprintable() or "\udc80" <= c <= "\udcff" else repr(c)[1:-1] for c in text
    )


def _names(codes: tuple[Code, ...]) -> list[str]:
    return sorted({str(code) for code in codes})
