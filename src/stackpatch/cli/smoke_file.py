"""smoke.json: what a run showed, written after each check, so that a run cut short is kept."""

from __future__ import annotations

import json
import platform
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from stackpatch.checks.proof import SMOKE_SCHEMA
from stackpatch.checks.smoke import Result, Smoke, Status
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.storage import disk_errors, write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackpatch.checks.places import Place
    from stackpatch.model.arch import Arch
    from stackpatch.model.recipe import Recipe

NAME = "smoke.json"
_NOT_REACHED = "the run ended before it"


@dataclass(slots=True)
class SmokeFile:
    """The document of one run, and the file that it is written to after each check.

    installed: the version that is there, None for none. wheel: name and sha256, where one is known.
    """

    path: Path
    recipe: Recipe
    arch: Arch
    place: Place
    installed: str | None
    wheel: Mapping[str, str]
    results: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Take in a result and write the file."""
        self.results.append(result)
        whole = {"schema": SMOKE_SCHEMA, **self.document()}
        text = json.dumps(whole, indent=2, ensure_ascii=False, default=str) + "\n"
        write_atomically(self.path, text.encode("utf-8", "surrogateescape"))

    def document(self) -> dict[str, object]:
        """What is known so far; a check that was not reached has not run."""
        reached = {result.name for result in self.results}
        left = (check.name for check in self.recipe.smoke if check.name not in reached)
        missing = [Result(name, Status.NOT_RUN, _NOT_REACHED) for name in left]
        done = Smoke((*self.results, *missing))
        return {
            "stack": self.recipe.stack,
            "version": self.installed,
            "arch": self.arch.name,
            "subject": {**self.place.document(), **self.wheel},
            "device": done.device,
            "made": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "from": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            "ran_on_device": done.ran_on_device,
            "summary": done.summary,
            "checks": [_of(result) for result in done.results],
        }


def place_for(out: Path | None, wheel: Path | None, image: str | None) -> Path:
    """Where the file goes: as asked, else into the build's folder, else into the current one.

    The build's folder is the wheel's, or the one with the image's layout and a lock beside it.
    Looked at before an hour of checks: raises InputError for a folder, EnvironmentProblem for a
    place that cannot be written.
    """
    path = out
    if path is None and wheel is not None:
        path = wheel.parent / NAME
    if path is None and image is not None:
        layout = Path(image.rpartition("@sha256:")[0] or image)
        if (layout / "oci-layout").is_file() and (layout.resolve().parent / "lock.json").is_file():
            path = layout.resolve().parent / NAME
    path = path or Path(NAME)
    if path.is_dir():
        msg = f"--out {path}: is a folder"
        raise InputError(msg, hint=f"name a file, such as {path / NAME}")
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
    except (FileExistsError, NotADirectoryError) as error:
        msg = f"--out {path}: {path.parent} is not a folder"
        raise InputError(msg) from error
    except OSError as error:
        msg = f"cannot write {path}: {(error.strerror or str(error)).lower()}"
        raise EnvironmentProblem(msg, hint="name another file with --out") from error
    return path


def _of(result: Result) -> dict[str, object]:
    return {
        "name": result.name,
        "status": result.status.value,
        "why": result.why,
        "figures": dict(result.figures),
        "seconds": result.seconds,
    }
