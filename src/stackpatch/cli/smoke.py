"""`stackpatch smoke`: the recipe's checks on an installed stack."""

from __future__ import annotations

import contextlib
import json as json_format
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stackpatch.cli import output
from stackpatch.cli.context import ArchOption, JsonOption, RootOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackpatch.checks.places import Place
    from stackpatch.checks.smoke import Result, Smoke
    from stackpatch.model.arch import Arch


def command(
    stack: Annotated[str, typer.Argument(metavar="STACK[@RELEASE]", help="flashinfer@0.6.3")],
    *,
    arch: ArchOption,
    python: Annotated[
        str | None,
        typer.Option(
            "--python",
            metavar="PATH",
            help="The interpreter that has the stack; ssh://[user@]host[:port]/path for one on "
            "another machine. With --image: as it is called there [python3].",
            show_default=False,
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            metavar="REF",
            help="An image that has the stack: an OCI layout folder, or one that the docker "
            "daemon has or can pull. Run there, with its GPUs.",
            show_default=False,
        ),
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
    ssh_config: Annotated[
        Path | None,
        typer.Option("--ssh-config", metavar="FILE", help="For ssh, instead of ~/.ssh/config."),
    ] = None,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Run the recipe's checks on an installed stack: each passed, failed or not run."""
    from stackpatch.checks.smoke import Status, Subject, smoke
    from stackpatch.checks.smoke_files import installed_version
    from stackpatch.cli.workspace import open_workspace
    from stackpatch.errors import FindingError, InputError
    from stackpatch.model.arch import parse_arch
    from stackpatch.storage import write_atomically

    work = open_workspace(stack, root)
    wanted = parse_arch(arch, where="--arch")
    work.recipe.arch(wanted.name)
    if wheel is not None and not wheel.is_file():
        msg = f"--wheel {wheel}: there is no such file"
        raise InputError(msg, hint="`stackpatch build` makes it, below dist/")
    programs = work.root.recipes / work.recipe.stack / "smoke"
    with _place(python, image, ssh_config, wanted) as place:
        installed = installed_version(place, work.recipe.upstream.pypi)
        version = None
        if wheel is not None:
            version = wheel.name.split("-")[1]
        elif "@" in stack:
            version = installed
            if version is None or version.partition("+")[0] != work.release.version:
                version = work.release.version
        done = smoke(
            work.recipe,
            wanted,
            Subject(place, version, wheel),
            programs,
            only=only or (),
            skip=skip or (),
            report=_say,
        )
        subject = place.document() | _wheel(wheel)
    found = {
        "stack": work.recipe.stack,
        "version": installed,
        "arch": wanted.name,
        "subject": subject,
        "device": done.device,
        "made": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "from": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
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
    lines = people(done, wanted.name)
    if "no_gpu" in subject:
        lines.append(f"the container had no GPU: {subject['no_gpu']}")
    output.emit("smoke", found, lines, json=json, failure=failure)


@contextlib.contextmanager
def _place(
    python: str | None, image: str | None, ssh_config: Path | None, arch: Arch
) -> Iterator[Place]:
    """Where the stack is. Raises InputError for options that do not say it, or contradict."""
    from stackpatch.checks.place_ssh import SCHEME, Behind
    from stackpatch.checks.places import Here
    from stackpatch.errors import InputError
    from stackpatch.installed.interpreter import ask

    if python is not None and python.startswith(SCHEME):
        if image is not None:
            msg = "--image runs where DOCKER_HOST says; --python ssh://… is for no image"
            raise InputError(msg, hint="DOCKER_HOST=ssh://host stackpatch smoke … --image REF")
        yield Behind.parse(python, ssh_config)
        return
    if ssh_config is not None:
        msg = "--ssh-config is for --python ssh://…"
        raise InputError(msg)
    if image is not None:
        from stackpatch.checks.place_image import in_image

        with in_image(image, arch.platform, python or "python3") as place:
            yield place
        return
    if python is None:
        msg = "smoke needs to know what to check"
        hint = "--python PATH, --python ssh://host/PATH or --image REF"
        raise InputError(msg, hint=hint)
    yield Here(ask(Path(python)).python)


def people(done: Smoke, arch: str) -> list[str]:
    """The table, then what it shows and what it does not."""
    rows = [(r.status.value, r.name, r.why) for r in done.results]
    lines = [*output.table(("", "check", "why"), rows), "", f"{done.summary}"]
    if not done.ran_on_device:
        lines.append(f"NOTHING WAS SHOWN ON A GPU: no kernel ran on a device that is {arch}")
    return lines


def _say(result: Result) -> None:
    output.note(f"{result.status.value:8} {result.name}: {result.why}")


def _wheel(wheel: Path | None) -> dict[str, object]:
    from hashlib import sha256

    if wheel is None:
        return {}
    return {"wheel": wheel.name, "sha256": sha256(wheel.read_bytes()).hexdigest()}


def _document(result: Result) -> dict[str, object]:
    return {
        "name": result.name,
        "status": result.status.value,
        "why": result.why,
        "figures": dict(result.figures),
        "seconds": result.seconds,
    }
