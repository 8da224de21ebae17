"""`stackpatch smoke`: the recipe's checks on an installed stack."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
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
            "--out",
            metavar="FILE",
            help="Where to write what was found; else smoke.json in the build's folder (of --wheel "
            "or of the layout in --image), else in the current one.",
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
    from stackpatch.cli.smoke_file import SmokeFile, place_for
    from stackpatch.cli.workspace import open_workspace
    from stackpatch.errors import FindingError
    from stackpatch.model.arch import parse_arch

    work = open_workspace(stack, root)
    wanted = parse_arch(arch, where="--arch")
    work.recipe.arch(wanted.name)
    built = _wheel(wheel)
    target = place_for(out, wheel, image)
    programs = work.root.recipes / work.recipe.stack / "smoke"
    with _place(python, image, ssh_config, wanted) as place:
        installed = installed_version(place, work.recipe.upstream.pypi)
        version = built.version if built is not None else None
        if version is None and "@" in stack:
            version = installed
            if version is None or version.partition("+")[0] != work.release.version:
                version = work.release.version
        digest = {} if built is None else {"wheel": built.name, "sha256": built.sha256}
        paper = SmokeFile(target, work.recipe, wanted, place, installed, digest)

        def report(result: Result) -> None:
            output.note(f"{result.status.value:8} {result.name}: {result.why}")
            paper.add(result)

        done = smoke(
            work.recipe,
            wanted,
            Subject(place, version, wheel),
            programs,
            only=only or (),
            skip=skip or (),
            report=report,
        )
        found = paper.document()
    failure = None
    if failed := done.of(Status.FAILED):
        names = ", ".join(result.name for result in failed)
        failure = FindingError(f"smoke failed on {wanted.name}: {names}")
    lines = people(done, wanted.name)
    subject = place.document()
    if "no_gpu" in subject:
        lines.append(f"the container had no GPU: {subject['no_gpu']}")
    lines.append(f"every figure: {target}")
    output.emit("smoke", {**found, "file": str(target)}, lines, json=json, failure=failure)


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


@dataclass(frozen=True, slots=True)
class _Built:
    """The wheel that the stack was installed from."""

    name: str
    version: str
    sha256: str


def _wheel(wheel: Path | None) -> _Built | None:
    """Raises InputError for a file that is not there, or whose name is no wheel's."""
    from hashlib import file_digest

    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    from stackpatch.errors import InputError

    if wheel is None:
        return None
    if not wheel.is_file():
        msg = f"--wheel {wheel}: there is no such file"
        raise InputError(msg, hint="`stackpatch build` makes it, below dist/")
    try:
        parse_wheel_filename(wheel.name)
    except InvalidWheelFilename as error:
        msg = f"--wheel {wheel}: its name is no wheel's, so it says no version"
        raise InputError(msg, hint="keep the name that `stackpatch build` gave it") from error
    with wheel.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    return _Built(wheel.name, wheel.name.split("-")[1], digest)
