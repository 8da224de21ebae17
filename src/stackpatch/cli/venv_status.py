"""Whether a series is on an installed package: what is there, as one word and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackpatch.cli.venv_subject import Subject


class State(StrEnum):
    """What an installed package is."""

    APPLIED = "applied"  # `venv apply` put today's series there
    WHEEL = "patched wheel"  # installed from a wheel of today's series
    RELEASED = "not patched"  # the release's own files
    OUTDATED = "another series"  # patched, by another series than today's
    INTERRUPTED = "interrupted"  # a run was killed in the middle
    EDITED = "edited"  # files are neither the release's nor the series'
    UNKNOWN = "another version"  # none of the recipe's releases


@dataclass(frozen=True, slots=True)
class Found:
    """A state, why, the files that were edited, and what to do."""

    state: State
    detail: str
    edited: tuple[str, ...] = ()
    hint: str | None = None

    @property
    def good(self) -> bool:
        """Whether today's series is there, and nothing else."""
        return self.state in (State.APPLIED, State.WHEEL)


def look(subject: Subject) -> Found:
    """Every file that RECORD states, and what `venv apply` left. Nothing is fetched."""
    from stackpatch.installed import inplace
    from stackpatch.installed.journal import Phase

    distribution, work = subject.distribution, subject.work
    again = f"`stackpatch venv apply {work.recipe.stack}` puts it on"
    journal = subject.journal()
    if journal is not None and journal.phase is not Phase.APPLIED:
        detail = f"{journal.version} was being put on or taken back when the run ended"
        return Found(
            State.INTERRUPTED,
            detail,
            tuple(inplace.edited(distribution, journal)),
            f"`stackpatch venv revert {work.recipe.stack}` mends it",
        )
    edited = set(inplace.unlike_record(distribution))
    if journal is not None:
        edited |= set(inplace.edited(distribution, journal))
    if edited:
        count = len(edited)
        detail = f"{count} file{'s are' if count != 1 else ' is'} not as installed"
        hint = f"`stackpatch venv capture {work.recipe.stack} --to DIR` keeps the edits"
        return Found(State.EDITED, detail, tuple(sorted(edited)), hint)
    if journal is not None:
        here = (journal.release, journal.series)
        if here == (work.release.version, _digest(subject, journal.arch)):
            detail = f"{journal.version} for {journal.arch}, {len(journal.files)} files"
            return Found(State.APPLIED, detail)
        detail = f"{journal.version} is there; the recipe's series is another one today"
        return Found(State.OUTDATED, detail, hint=again)
    if subject.patched_wheel:
        ours = [name for name in work.recipe.archs if _version(subject, name) == _plain(subject)]
        if ours:
            return Found(State.WHEEL, f"{distribution.version}, as for {', '.join(ours)}")
        detail = f"{distribution.version} is not what the recipe's series makes today"
        return Found(State.OUTDATED, detail, hint="install a wheel that is built from it")
    if _plain(subject) != work.release.version:
        detail = f"{distribution.version} is installed; the recipe has {work.release.version}"
        return Found(State.UNKNOWN, detail, hint="`stackpatch list` shows the releases")
    detail = f"the files of {distribution.version} as they were released"
    return Found(State.RELEASED, detail, hint=again)


def _digest(subject: Subject, arch: str) -> str | None:
    if subject.work.release.series is None:
        return None
    return subject.work.series.for_arch(arch).digest


def _version(subject: Subject, arch: str) -> str:
    """What the patched wheel for the arch is called."""
    from stackpatch.artefacts.stamp import patched_version

    work = subject.work
    return patched_version(work.release.version, work.series.for_arch(arch).short)


def _plain(subject: Subject) -> str:
    from packaging.version import InvalidVersion, Version

    try:
        return str(Version(subject.distribution.version))
    except InvalidVersion:
        return subject.distribution.version
