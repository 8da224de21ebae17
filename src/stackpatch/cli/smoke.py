"""`stackpatch smoke`: the recipe's checks on an installed stack."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stackpatch.cli import output
from stackpatch.cli.context import JsonOption, RootOption

if TYPE_CHECKING:
    from stackpatch.checks.smoke import Result, Smoke, Subject


def command(
    stack: Annotated[str, typer.Argument(metavar="STACK", help="Such as flashinfer@0.6.3.")],
    *,
    arch: Annotated[str, typer.Option("--arch", metavar="A", help="Such as sm120 or sm121.")],
    python: Annotated[
        Path | None,
        typer.Option("--python", metavar="PATH", help="The interpreter that has the stack."),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option("--image", metavar="REF", help="An image; not built in yet."),
    ] = None,
    wheel: Annotated[
        Path | None,
        typer.Option(
            "--wheel", metavar="FILE", help="The built wheel: installed files are held against it."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Where to write smoke.json; else beside the wheel."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="CHECK", help="Run this; may repeat.")
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option("--skip", metavar="CHECK", help="Leave out; may repeat.")
    ] = None,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Run the recipe's checks on an installed stack: each passed, failed or not run."""
    from stackpatch.checks.smoke import Status, Subject, smoke
    from stackpatch.cli.workspace import open_workspace
    from stackpatch.errors import EnvironmentProblem, FindingError, InputError
    from stackpatch.installed.interpreter import ask
    from stackpatch.model.arch import parse_arch
    from stackpatch.storage import write_atomically

    if image is not None:
        msg = "smoke checks in an image are not built in yet: nothing was run"
        hint = "run recipes/STACK/smoke/run_all.py in a container of it, or name --python PATH"
        raise EnvironmentProblem(msg, hint=hint)
    if python is None:
        msg = "smoke needs to know what to check"
        raise InputError(msg, hint="name the Python that has the stack: --python PATH")
    place = open_workspace(stack, root)
    wanted = parse_arch(arch, where="--arch")
    place.recipe.arch(wanted.name)
    installed = ask(python)
    version = None
    if wheel is not None:
        if not wheel.is_file():
            msg = f"--wheel {wheel}: there is no such file"
            raise InputError(msg, hint="`stackpatch build` makes it, below dist/")
        version = wheel.name.split("-")[1]
    elif "@" in stack:
        version = installed.versions.get(place.recipe.upstream.package)
        if version is None or version.partition("+")[0] != place.release.version:
            version = place.release.version
    programs = place.root.recipes / place.recipe.stack / "smoke"
    subject = Subject(installed.python, version, wheel)
    done = smoke(
        place.recipe, wanted, subject, programs, only=only or (), skip=skip or (), report=_say
    )
    found = {
        "stack": place.recipe.stack,
        "version": installed.versions.get(place.recipe.upstream.package),
        "arch": wanted.name,
        "subject": _subject(subject),
        "device": done.device,
        "ran_on_device": done.ran_on_device,
        "summary": done.summary,
        "checks": [_document(result) for result in done.results],
    }
    target = out or (wheel.parent / "smoke.json" if wheel is not None else None)
    if target is not None:
        whole = {"schema": "stackpatch.smoke/1", **found}
        text = json_format.dumps(whole, indent=2, ensure_ascii=False, default=str) + "\n"
        write_atomically(target, text.encode("utf-8", "surrogateescape"))
    failure = None
    if failed := done.of(Status.FAILED):
        names = ", ".join(result.name for result in failed)
        failure = FindingError(f"smoke failed on {wanted.name}: {names}")
    output.emit("smoke", found, people(done, wanted.name), json=json, failure=failure)


def people(done: Smoke, arch: str) -> list[str]:
    """The table, then what it shows and what it does not."""
    rows = [(r.status.value, r.name, r.why) for r in done.results]
    lines = [*output.table(("", "check", "why"), rows), "", f"{done.summary}"]
    if not done.ran_on_device:
        lines.append(f"NOTHING WAS SHOWN ON A GPU: no kernel ran on a device that is {arch}")
    return lines


def _say(result: Result) -> None:
    output.note(f"{result.status.value:8} {result.name}: {result.why}")


def _subject(subject: Subject) -> dict[str, object]:
    from hashlib import sha256

    found: dict[str, object] = {"kind": "python", "python": str(subject.python)}
    if subject.wheel is not None:
        found["wheel"] = subject.wheel.name
        found["sha256"] = sha256(subject.wheel.read_bytes()).hexdigest()
    return found


def _document(result: Result) -> dict[str, object]:
    return {
        "name": result.name,
        "status": result.status.value,
        "why": result.why,
        "figures": dict(result.figures),
        "seconds": result.seconds,
    }
