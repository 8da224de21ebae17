"""Put a series on an installed package, take it back, or keep edits made there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stackpatch.cli import output
from stackpatch.cli.context import JsonOption, OfflineOption, RootOption, subcommands
from stackpatch.errors import FindingError, InputError

app = subcommands()

StackArgument = Annotated[
    str,
    typer.Argument(
        metavar="STACK[@RELEASE]", help="Without a release, the one that is installed is meant."
    ),
]
PythonOption = Annotated[
    Path, typer.Option("--python", metavar="PATH", help="An interpreter or virtual environment.")
]
ArchOption = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="ARCH",
        help="Needed where the series is not the same for every arch.",
        show_default=False,
    ),
]


@app.command("apply")
def apply_(
    stack: StackArgument,
    *,
    python: PythonOption,
    arch: ArchOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Put the series on the installed package: all of it, or nothing.

    Every file must be the release's. A reinstall takes the series away again; `venv status` says
    so.
    """
    from stackpatch.cli.venv_subject import changes_of, open_subject
    from stackpatch.installed import inplace

    subject = open_subject(stack, python, arch, root, offline=offline)
    subject.refuse_patched_wheel()
    changes = changes_of(subject)
    done = inplace.apply(subject.distribution, changes, subject.identity)
    stale = subject.stale_caches()
    document = {
        **subject.document(),
        "changed": done is not None,
        "files": sorted(changes),
        "stale_caches": stale,
    }
    lines = [
        f"{'applied' if done else 'is there already'}: {subject.shown}",
        *(f"  {path}" for path in sorted(changes)),
        "Processes that run keep what they have imported: start them again.",
    ]
    if stale:
        command = f"stackpatch cache clear {subject.work.recipe.stack} --python {python}"
        lines.append(f"Can be stale: {', '.join(stale)}. `{command}` takes it away.")
    output.emit("venv-apply", document, lines, json=json)


@app.command("status")
def status(
    stack: StackArgument,
    *,
    python: PythonOption,
    arch: ArchOption = None,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Say whether the series is on the installed package, whole and unedited; exit 1 if not."""
    from stackpatch.cli.venv_status import look
    from stackpatch.cli.venv_subject import open_subject

    subject = open_subject(stack, python, arch, root, offline=True, tolerant=True)
    found = look(subject)
    document = {
        **subject.document(),
        "state": found.state.value,
        "detail": found.detail,
        "edited": list(found.edited),
    }
    lines = [f"{found.state.value}: {found.detail}"]
    lines += [f"  edited  {path}" for path in found.edited]
    failure = None
    if not found.good:
        failure = FindingError(f"{subject.shown}: {found.state.value}", hint=found.hint)
    output.emit("venv-status", document, lines, json=json, failure=failure)


@app.command("revert")
def revert(
    stack: StackArgument,
    *,
    python: PythonOption,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Take back what `venv apply` changed, to the byte."""
    from stackpatch.cli.venv_subject import open_subject
    from stackpatch.installed import inplace

    subject = open_subject(stack, python, None, root, offline=True, tolerant=True)
    done = inplace.revert(subject.distribution)
    stale = subject.stale_caches() if done else []
    document: dict[str, Any] = {
        **subject.document(),
        "changed": done is not None,
        "files": sorted(done.files) if done else [],
        "stale_caches": stale,
    }
    what = f"taken back: {done.version}" if done else "nothing was applied here"
    lines = [f"{what}; {subject.shown} is as it was installed" if done else what]
    lines += [f"  {path}" for path in sorted(done.files)] if done else []
    if stale:
        command = f"stackpatch cache clear {subject.work.recipe.stack} --python {python}"
        lines.append(f"Can be stale: {', '.join(stale)}. `{command}` takes it away.")
    output.emit("venv-revert", document, lines, json=json)


@app.command("capture")
def capture_(
    stack: StackArgument,
    *,
    python: PythonOption,
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="Folder to make, with the new series.")
    ],
    subject: Annotated[
        str, typer.Option("--subject", metavar="TEXT", help="What the edits do, in a line.")
    ] = "Edits made by hand",
    with_new: Annotated[
        bool, typer.Option("--with-new", help="Take files too that the wheel does not have.")
    ] = False,
    arch: ArchOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Turn edits by hand in the installed package into a series.

    Held against the pinned wheel and, where `venv apply` was here, against what it wrote: then
    the edits come as one more patch behind the series'. The installed files stay as they are.
    """
    from stackpatch.cli.venv_capture import captured, write
    from stackpatch.cli.venv_subject import open_subject

    if to.exists():
        msg = f"--to {to} exists already"
        raise InputError(msg, hint="name a folder that is not there yet")
    if not subject.strip():
        msg = "--subject is empty"
        raise InputError(msg, hint="say in a line what the edits do")
    found = open_subject(stack, python, arch, root, offline=offline)
    taken = captured(found, " ".join(subject.split()), with_new=with_new)
    if taken.files:
        write(taken, to)
    document = {
        **found.document(),
        "path": str(to) if taken.files else None,
        "patch": taken.patch,
        "files": list(taken.paths),
        "left_out": [{"path": path, "why": why} for path, why in taken.left_out],
    }
    lines = [f"{to / taken.patch}" if taken.patch else f"no edits in {found.shown}"]
    lines += [f"  {path}" for path in taken.paths]
    lines += [f"  left out  {path}: {why}" for path, why in taken.left_out]
    if taken.patch:
        lines.append(
            "Say in it why it is needed, and by an `Effect:` line what must hold after it."
        )
    failure = None
    if taken.left_out:
        count = len(taken.left_out)
        msg = f"{count} edited file{'s' * (count != 1)} could not be captured"
        failure = FindingError(msg, hint="the reason stands beside each of them")
    output.emit("venv-capture", document, lines, json=json, failure=failure)
