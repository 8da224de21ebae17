"""What engines print, understood far enough to say which step failed and what it said.

Nothing here decides whether a build worked; the exit status does.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from stackpatch.errors import EnvironmentProblem, FindingError, InputError, StackpatchError

if TYPE_CHECKING:
    from pathlib import Path

_KEPT = 40  # lines of a step's output; the log has all of them
_SHOWN = 15
_VERTEX = re.compile(r"#(\d+) (.*)")
_OUTPUT = re.compile(r"\d+\.\d+ ?(.*)")
_STATE = re.compile(r"(DONE \d|CACHED$|CANCELED|ERROR: |sha256:|\.\.\.$|extracting |transferring )")
_BASE = re.compile(r"failed to resolve source metadata for (\S+): (.*)")
_EXIT = re.compile(r"did not complete successfully: exit code: (\d+)")
_PARSE = ("dockerfile parse error", "failed to parse dockerfile", "unknown instruction")
# buildah's words for a program that a signal ended: somebody stopped it, or memory ran out.
_ENDED = "subprocess exited on "
_NO_LOGIN = (
    "unauthorized",
    "authentication required",
    "access denied",
    "may require authorization",
)
_DISK = ("no space left on device", "disk quota exceeded")


@dataclass(slots=True)
class Step:
    """One step of a build. said: its last lines. failed: the engine's own words about it."""

    name: str
    said: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))
    failed: str | None = None


class Transcript(Protocol):
    """Fed with every line; knows afterwards which step failed. last: what was said at the end."""

    last: deque[str]

    def feed(self, line: str) -> None:
        """One line that the engine printed."""

    def failed(self) -> Step | None:
        """The step that ended with an error of its own."""


@dataclass(slots=True)
class BuildKitTranscript:
    """`--progress=plain`: `#7 [2/3] RUN …`, `#7 0.61 output`, `#7 ERROR: …`."""

    steps: dict[str, Step] = field(default_factory=dict)
    last: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def feed(self, line: str) -> None:
        """One line."""
        if line.strip():
            self.last.append(line)
        found = _VERTEX.fullmatch(line)
        if not found:
            return
        number, rest = found[1], found[2]
        step = self.steps.get(number)
        if step is None:
            self.steps[number] = Step(rest)
        elif rest.startswith("ERROR: "):
            step.failed = rest.removeprefix("ERROR: ")
        elif output := _OUTPUT.fullmatch(rest):
            step.said.append(output[1])
        elif rest.startswith("[") and not step.said:
            step.name = rest

    def failed(self) -> Step | None:
        """The first step with an error; a step that was cancelled because of it has none."""
        errors = [step for step in self.steps.values() if step.failed]
        exits = [step for step in errors if step.failed and _EXIT.search(step.failed)]
        return next(iter([*exits, *errors]), None)


@dataclass(slots=True)
class BuildahTranscript:
    """buildah's: `STEP 4/6: RUN …`, output as it is, then `Error: …`."""

    step: Step | None = None
    error: str | None = None
    last: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def feed(self, line: str) -> None:
        """One line."""
        if line.strip():
            self.last.append(line)
        if re.match(r"(\[\d+/\d+\] )?STEP \d+(/\d+)?: ", line):
            self.step = Step(line)
        elif line.startswith("Error: "):
            self.error = line.removeprefix("Error: ")
        elif self.step is not None:
            self.step.said.append(line)

    def failed(self) -> Step | None:
        """The step that ran last, where a program in it ended badly."""
        if self.error is None or self.step is None:
            return None
        ran = re.search(r"building at STEP .*: exit status (\d+)$", self.error)
        if ran is None or any(line.startswith(_ENDED) for line in self.step.said):
            return None
        self.step.failed = f"exit code: {ran[1]}"
        return self.step


def explain(transcript: Transcript, status: int, engine: str, log: Path) -> StackpatchError:
    """The error for a build that ended with this status, with what the failing step said."""
    hint = f"the whole log is {log}"
    ends = list(transcript.last)
    told = next((line for line in reversed(ends) if re.match(r"(?i)error:? ", line)), "")
    reason = re.sub(r"(?i)^error:? (failed to solve: )?", "", told)
    if any(word in line.lower() for line in ends for word in _DISK):
        msg = f"no space left while {engine} was building"
        return EnvironmentProblem(msg, hint=f"free some space and run again; {hint}")
    if any(word in reason.lower() for word in _PARSE):
        return InputError(f"{engine} cannot read the Dockerfile: {reason}", hint=hint)
    step = transcript.failed()
    if step is not None and step.failed is not None and "exit code" in step.failed:
        code = step.failed.rpartition("exit code: ")[2]
        said = [line for line in step.said if line.strip()][-_SHOWN:]
        shown = "".join(f"\n  {line}" for line in said) or "\n  (it printed nothing)"
        msg = f"a step of the build ended with status {code}: {_short(step.name)}{shown}"
        return FindingError(msg, hint=hint)
    if any(word in reason.lower() for word in _NO_LOGIN):
        msg = f"{engine} was not let into a registry: {reason}"
        where = "`docker login`" if engine == "buildx" else "`buildah login` or `docker login`"
        return EnvironmentProblem(msg, hint=f"it uses the login of {where}; {hint}")
    if image := _BASE.search(reason):
        msg = f"{engine} cannot read the image {image[1]}: {image[2]}"
        own = "a builder reads it by itself, from where the builder is and with its network"
        way = "an image in a folder goes along (`skopeo copy docker://… oci:DIR`, --base DIR)"
        return EnvironmentProblem(msg, hint=f"{own}; {way}; {hint}")
    if status < 0:
        msg = f"{engine} was ended by signal {-status} in mid-build"
        return EnvironmentProblem(msg, hint=f"nothing was kept; run again; {hint}")
    said = [reason] if reason else ends[-3:]
    msg = f"{engine} ended with status {status}: {' '.join(said) or 'it said nothing'}"
    return EnvironmentProblem(msg, hint=hint)


def interesting(line: str) -> bool:
    """Whether a line is worth showing while the build runs: no state, no byte counts."""
    found = _VERTEX.fullmatch(line)
    if not found:
        return bool(line.strip())
    return not _STATE.match(found[2])


def _short(name: str) -> str:
    return name if len(name) <= 160 else f"{name[:157]}..."
