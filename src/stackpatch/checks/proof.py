"""What somebody has seen of a build: how far a release got on an arch, where and when.

A proof is a folder `recipes/STACK/proofs/VERSION-ARCH/`: the build's `lock.json`, `built.json`
(when and where it was made) and any number of `smoke-*.json`. Nothing else counts as seen, and a
file that is about another series or another wheel than the lock counts for nothing: a patch that
was changed since takes its proof along.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from stackpatch.artefacts.lock import SCHEMA as LOCK_SCHEMA
from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

BUILT_SCHEMA = "stackpatch.built/1"
SMOKE_SCHEMA = "stackpatch.smoke/1"
LOCK, BUILT = "lock.json", "built.json"


class Step(StrEnum):
    """What can be seen of a build, in the order in which it gets there."""

    APPLIES = "applies"
    BUILDS = "builds"
    INSTALLS = "wheel installs"
    IMAGE = "image builds"
    CODE = "code for the arch"
    RUNS = "runs on the arch"
    NUMBERS = "numbers right"


class State(StrEnum):
    """What is known of a step."""

    YES = "yes"
    PARTLY = "partly"
    NO = "no"
    UNVERIFIED = "not verified"


@dataclass(frozen=True, slots=True)
class Seen:
    """One step: what is known, and the evidence.

    when: RFC 3339. where: the machine. detail: what was seen, or why nothing counts.
    """

    state: State
    detail: str = ""
    when: str = ""
    where: str = ""

    def json(self) -> dict[str, str]:
        """For `--json`."""
        return {
            "state": self.state.value,
            "detail": self.detail,
            "when": self.when,
            "where": self.where,
        }


@dataclass(frozen=True, slots=True)
class Proof:
    """The files of one proof folder, parsed. version: the patched one that the lock states."""

    version: str
    series_sha256: str
    wheel_sha256: str
    lock: Mapping[str, Any]
    built: Mapping[str, Any]
    smokes: tuple[Mapping[str, Any], ...]


def folder_of(recipes: Path, stack: str, version: str, arch: str) -> Path:
    """Where the proof of a release on an arch lies."""
    return recipes / stack / "proofs" / f"{version}-{arch}"


def read_proof(folder: Path) -> Proof | None:
    """The proof in the folder, None where there is none. Raises InputError for a broken one."""
    if not (folder / LOCK).exists():
        return None
    lock = _document(folder / LOCK, LOCK_SCHEMA)
    built = _document(folder / BUILT, BUILT_SCHEMA)
    smokes = tuple(_document(p, SMOKE_SCHEMA) for p in sorted(folder.glob("smoke-*.json")))
    try:
        outputs = lock["outputs"]
        # Of a release that is built from its git tree there is an image and no wheel.
        wheel = ""
        if outputs.get("wheel") is not None:
            wheel = next(f["sha256"] for f in outputs["files"] if f["path"] == outputs["wheel"])
        inputs = lock["inputs"]
        return Proof(
            str(inputs["patched-version"]),
            str(inputs["series"]["sha256"]),
            str(wheel),
            lock,
            built,
            smokes,
        )
    except (KeyError, TypeError, StopIteration) as error:
        msg = f"{folder / LOCK} is not a lock of a build: {error!r}"
        raise InputError(msg, where=str(folder / LOCK)) from error


def known(
    recipes: Path, stack: str, version: str, arch: str, series_sha256: str
) -> dict[Step, Seen]:
    """What is known of a release on an arch, from its folder. Raises InputError."""
    return judge(read_proof(folder_of(recipes, stack, version, arch)), series_sha256)


def judge(proof: Proof | None, series_sha256: str) -> dict[Step, Seen]:
    """What is known of each step. series_sha256: of today's series for the arch."""
    nothing = dict.fromkeys(Step, Seen(State.UNVERIFIED))
    if proof is None:
        return nothing
    if proof.series_sha256 != series_sha256:
        old = Seen(State.UNVERIFIED, f"seen for another series only ({proof.version})")
        return dict.fromkeys(Step, old)
    when, where = str(proof.built.get("made", "")), str(proof.built.get("where", ""))
    inputs, outputs = proof.lock["inputs"], proof.lock["outputs"]
    smokes = [one for one in proof.smokes if is_about(one, proof)]
    return {
        Step.APPLIES: Seen(
            State.YES, f"{len(inputs['series']['patches'])} patches, all guards", when, where
        ),
        Step.BUILDS: Seen(
            State.YES,
            f"{inputs['engine']['name']}"
            + f", wheel's sha256 {proof.wheel_sha256[:12]}" * bool(proof.wheel_sha256),
            when,
            where,
        ),
        Step.INSTALLS: _check(smokes, "files", needs_wheel=proof.wheel_sha256),
        Step.IMAGE: Seen(State.YES, str(outputs["image"]["digest"])[:19], when, where),
        Step.CODE: _code(smokes),
        Step.RUNS: _runs(smokes),
        Step.NUMBERS: _numbers(smokes),
    }


def how_far(steps: Mapping[Step, Seen]) -> str:
    """One word or two for the whole: the furthest step that was seen, `unverified` for none."""
    if steps[Step.NUMBERS].state is State.YES:
        return "runs, numbers right"
    if steps[Step.NUMBERS].state is State.PARTLY:
        return "runs, some numbers checked and right"
    if steps[Step.RUNS].state is State.YES:
        return "runs"
    if steps[Step.INSTALLS].state is State.YES:
        return "builds and installs; nobody has run it on the arch"
    if steps[Step.BUILDS].state is State.YES:
        return "builds; nobody has run it on the arch"
    return "unverified"


def is_about(smoke: Mapping[str, Any], proof: Proof) -> bool:
    """Whether a run was of this build: by the wheel's digest, else by the imported version.

    The version ends in eight digits of the series, so another series has another one.
    """
    if smoke.get("arch") != proof.lock["inputs"]["arch"]["name"]:
        return False
    subject = smoke.get("subject")
    if isinstance(subject, dict) and subject.get("sha256"):
        return bool(subject["sha256"] == proof.wheel_sha256)
    if smoke.get("version") is not None:
        return bool(smoke["version"] == proof.version)
    imported = (c for c in smoke.get("checks", ()) if c.get("name") == "import")
    return any((c.get("figures") or {}).get("distribution") == proof.version for c in imported)


def _results(
    smokes: Iterable[Mapping[str, Any]], wanted: str
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Every run of a check, with the document that it is in; newest first. wanted: a prefix."""
    found = [
        (one, check)
        for one in smokes
        for check in one.get("checks", ())
        if check["name"] == wanted or (wanted.endswith("-") and check["name"].startswith(wanted))
    ]
    return sorted(found, key=lambda pair: str(pair[0].get("made", "")), reverse=True)


def _seen(state: State, smoke: Mapping[str, Any], detail: str) -> Seen:
    host = smoke.get("host") or {}
    device = smoke.get("device") or {}
    where = str(device.get("gpu") or host.get("machine") or smoke.get("from") or "")
    return Seen(state, detail, str(smoke.get("made", "")), where)


def _check(smokes: Sequence[Mapping[str, Any]], name: str, *, needs_wheel: str) -> Seen:
    for smoke, check in _results(smokes, name):
        if (smoke.get("subject") or {}).get("sha256") != needs_wheel:
            continue
        if check["status"] == "not-run":
            continue
        state = State.YES if check["status"] == "passed" else State.NO
        if state is State.YES and (check.get("figures") or {}).get("for"):
            state = State.PARTLY  # laid out on a machine of another kind
        return _seen(state, smoke, str(check.get("why", "")))
    return Seen(State.UNVERIFIED)


def _code(smokes: Sequence[Mapping[str, Any]]) -> Seen:
    """Compiled for the arch by nvcc (`build`), or found in installed binaries (`audit`)."""
    said = []
    for name in ("audit", "build"):
        for smoke, check in _results(smokes, name):
            if check["status"] != "not-run":
                figures = check.get("figures") or {}
                some = int(figures.get("native") or 0) + int(figures.get("ptx") or 0)
                state = State.YES if check["status"] == "passed" else State.NO
                text = f"{name}: {check.get('why', '')}"
                if state is State.NO and some and figures.get("missing"):
                    state, text = State.PARTLY, f"{text}; {some} others run on it"
                said.append(_seen(state, smoke, text))
                break
    worst = (State.NO, State.PARTLY, State.YES)
    return min(said, key=lambda one: worst.index(one.state), default=Seen(State.UNVERIFIED))


def _runs(smokes: Sequence[Mapping[str, Any]]) -> Seen:
    for smoke, check in _results(smokes, "device"):
        if check["status"] == "not-run":
            continue
        numbers = [c for _, c in _results([smoke], "numbers-") if c["status"] == "passed"]
        if check["status"] == "passed" and numbers:
            return _seen(State.YES, smoke, str(check.get("why", "")))
    return Seen(State.UNVERIFIED)


def _numbers(smokes: Sequence[Mapping[str, Any]]) -> Seen:
    """Over all runs, the newest judgement of each check on a device that was the arch."""
    on_device = [
        one for one in smokes if any(c["status"] == "passed" for _, c in _results([one], "device"))
    ]
    newest: dict[str, tuple[Mapping[str, Any], str]] = {}
    for smoke, check in _results(on_device, "numbers-"):
        known = newest.get(check["name"])
        if known is None or known[1] == "not-run":
            newest[check["name"]] = (smoke, str(check["status"]))
    judged = {name: one for name, one in newest.items() if one[1] != "not-run"}
    if not judged:
        return Seen(State.UNVERIFIED)
    smoke = max((one[0] for one in judged.values()), key=lambda one: str(one.get("made", "")))
    failed = sorted(name for name, one in judged.items() if one[1] != "passed")
    if failed:
        return _seen(State.NO, smoke, f"failed: {', '.join(failed)}")
    left = sorted(set(newest) - set(judged))
    if left:
        text = f"{len(judged)} of {len(newest)}; not run: {', '.join(left)}"
        return _seen(State.PARTLY, smoke, text)
    return _seen(State.YES, smoke, f"all {len(judged)}")


def _document(path: Path, schema: str) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_bytes())
        stated = document["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path} cannot be read as {schema}: {error}"
        raise InputError(msg, hint="record the proof again", where=str(path)) from error
    if stated != schema:
        msg = f"{path} has schema {stated!r}, not {schema}"
        raise InputError(msg, where=str(path))
    if not isinstance(document, dict):  # pragma: no cover - a list has no "schema"
        raise InputError(f"{path} is no object", where=str(path))  # noqa: EM102
    return document
