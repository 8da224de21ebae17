"""A finished build in its folder, as it is to be published: held against its lock, every file.

What was changed by hand, or belongs to another build, is refused here, before anything is sent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackpatch.artefacts.build import IMAGE, LOCK, PROVENANCE, SBOM
from stackpatch.artefacts.layout import Layout
from stackpatch.artefacts.lock import differences, rfc3339
from stackpatch.artefacts.locked import read_locked
from stackpatch.artefacts.oci import Platform
from stackpatch.artefacts.provenance import PREDICATE
from stackpatch.errors import FindingError, InputError
from stackpatch.model.digest import Digest
from stackpatch.registry.joining import ARCH, RELEASE, SMOKE, STACK, VERSION
from stackpatch.registry.reference import Reference
from stackpatch.registry.referrers import Paper

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stackpatch.artefacts.lock import Outputs
    from stackpatch.artefacts.oci import Image

SMOKE_FILE = "smoke.json"
# Chosen when the result was built, not by the recipe: what was built is compared without them.
_OF_THE_BUILD = ("base", "engine")
_SMOKE_HINT = "run smoke again, or remove the file"
_CREATED = "org.opencontainers.image.created"


@dataclass(frozen=True, slots=True)
class Finished:
    """A build that may be published. inputs: as the lock has them. smoke: None where none ran."""

    folder: Path
    inputs: Mapping[str, Any]
    outputs: Outputs
    layout: Layout
    image: Image
    base: Reference | None
    smoke: Tried | None

    @property
    def annotations(self) -> dict[str, str]:
        """What an index says of the image."""
        one = self.inputs
        said = self.smoke.said if self.smoke is not None else "not run"
        return {
            ARCH: str(one["arch"]["name"]),
            RELEASE: str(one["version"]),
            SMOKE: said,
            STACK: str(one["stack"]),
            VERSION: str(one["patched-version"]),
        }

    def papers(self) -> tuple[Paper, ...]:
        """What is put beside the image. The times are the release's, not today's."""
        made = {_CREATED: rfc3339(int(self.inputs["epoch"]))}
        statement = {**made, "in-toto.io/predicate-type": PREDICATE}
        found = [
            self._paper(SBOM, "application/vnd.cyclonedx+json", made),
            self._paper(PROVENANCE, "application/vnd.in-toto+json", statement),
            self._paper(LOCK, "application/vnd.stackpatch.lock.v1+json", made),
        ]
        if self.smoke is not None:
            said = {**made, SMOKE: self.smoke.said}
            found.append(self._paper(SMOKE_FILE, "application/vnd.stackpatch.smoke.v1+json", said))
        return tuple(found)

    def _paper(self, name: str, kind: str, annotations: Mapping[str, str]) -> Paper:
        try:
            return Paper(name, kind, (self.folder / name).read_bytes(), annotations)
        except OSError as error:
            msg = f"cannot read {self.folder / name}: {error.strerror}"
            raise InputError(msg, hint="build again") from error


@dataclass(frozen=True, slots=True)
class Tried:
    """What smoke.json says. failed: the checks that did not pass. said: in a few words."""

    failed: tuple[str, ...]
    said: str


def open_finished(folder: Path, expected: Mapping[str, Any]) -> Finished:
    """The build in the folder. expected: the inputs that a build would have now.

    Every file is hashed. Raises InputError where there is no build, FindingError where it is
    another one than would be built now, or was changed.
    """
    if not (folder / LOCK).is_file():
        msg = f"there is no finished build in {folder}"
        raise InputError(msg, hint="run `stackpatch build` first, or name its folder with --out")
    locked = read_locked(folder / LOCK)
    inputs, outputs = locked.inputs, locked.outputs
    changed = differences(_comparable(inputs, expected), _comparable(expected, expected))
    if changed:
        shown = "; ".join(changed[:3]) + ("; …" if len(changed) > 3 else "")
        msg = f"{folder} was built from other inputs than there are now: {shown}"
        raise FindingError(
            msg, hint="run `stackpatch build` again, then publish", where=str(folder)
        )
    _unchanged(folder, outputs)
    layout = Layout.open(folder / IMAGE)
    platform = Platform.parse(inputs["arch"]["platform"])
    image = layout.image(platform, Digest.parse(outputs.image))
    return Finished(folder, inputs, outputs, layout, image, _base(inputs), _smoke(folder, outputs))


def _comparable(inputs: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What both sides must agree in; keys that `other` does not know are left out."""
    found = {k: v for k, v in inputs.items() if k not in _OF_THE_BUILD and k in other}
    required = inputs.get("requires", ())
    if isinstance(required, list):
        # A required stack's key names its base too, which is the build's choice.
        found["requires"] = [{**one, "key": None} for one in required]
    return found


def _unchanged(folder: Path, outputs: Outputs) -> None:
    """Every file as the lock has it. Raises FindingError with all that are not."""
    wrong = []
    for file in outputs.files:
        path = folder / file.path
        if not path.is_file():
            wrong.append(f"{file.path} is missing")
        elif path.stat().st_size != file.bytes or Digest.of_file(path).hex != file.sha256:
            wrong.append(f"{file.path} is not as it was built")
    if wrong:
        shown = "; ".join(wrong[:5]) + ("; …" if len(wrong) > 5 else "")
        msg = f"the build in {folder} does not match its lock: {shown}"
        raise FindingError(msg, hint="run `stackpatch build` again", where=str(folder / LOCK))


def _base(inputs: Mapping[str, Any]) -> Reference | None:
    """Where the base is, as the lock has it; None for none, and for one that has no such name."""
    base = inputs.get("base") or {}
    if not base.get("digest") or not base.get("name"):
        return None
    try:
        reference = Reference.parse(str(base["name"]))
        return reference.at(Digest.parse(str(base["digest"])))
    except (InputError, ValueError):
        return None


def _smoke(folder: Path, outputs: Outputs) -> Tried | None:
    """What smoke.json says of this build. Raises InputError for one that cannot be believed."""
    path = folder / SMOKE_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        document = json.loads(content)
        checks = {str(one["name"]): str(one["status"]) for one in document["checks"]}
        subject = document.get("subject") or {}
        about = subject.get("sha256"), subject.get("digest")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        msg = f"{path} cannot be read as the result of `stackpatch smoke`"
        raise InputError(msg, hint=_SMOKE_HINT, where=str(path)) from error
    stated = [one for one in about if one is not None]
    ours = {outputs.image, outputs.index}
    if outputs.wheel is not None:
        ours.add(outputs.wheel.sha256)
    if stated and not any(one in ours for one in stated):
        msg = f"{path} is about another build ({stated[0]}, this one is {outputs.image})"
        raise InputError(msg, hint=_SMOKE_HINT, where=str(path))
    failed = tuple(name for name, status in checks.items() if status == "failed")
    passed = sum(status == "passed" for status in checks.values())
    idle = len(checks) - passed - len(failed)
    counts = f"{passed} passed, {len(failed)} failed, {idle} not run"
    if failed:
        return Tried(failed, f"failed ({counts}): {', '.join(failed)}"[:500])
    return Tried((), f"{'passed' if passed else 'not run'} ({counts})")
