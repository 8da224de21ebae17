"""A series on an installed distribution: all of it or nothing, and back again to the byte.

Every file is replaced by a rename, never written through: installers share files between
environments by hard links and symbolic links, and a write would change the cache behind them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from stackpatch.errors import EnvironmentProblem, FindingError, InputError
from stackpatch.installed import journal as journals
from stackpatch.installed.journal import Before, Journal, Phase, Touched
from stackpatch.installed.record import Row, dump_record, parse_record
from stackpatch.storage import disk_errors, sweep, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stackpatch.installed.distribution import Distribution


@dataclass(frozen=True, slots=True)
class Change:
    """What the series makes of a file. content: None where it removes it. original: the sha256 of
    the released file, None where there is none. executable: None keeps the mode."""

    content: bytes | None
    original: str | None
    executable: bool | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose changes they are. series: the digest, 64 hex digits. version: what the patched package
    calls itself."""

    stack: str
    release: str
    arch: str
    series: str
    version: str


@contextlib.contextmanager
def alone(distribution: Distribution) -> Iterator[None]:
    """Hold the distribution against another stackpatch. Raises EnvironmentProblem if one is there.

    The lock is the metadata folder itself: it leaves no file that pip would not know.
    """
    with disk_errors(distribution.dist_info):
        handle = os.open(distribution.dist_info, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"another stackpatch is at work on {distribution.dist_info}"
            raise EnvironmentProblem(msg, hint="wait for it to end") from None
        for name in (journals.NAME, distribution.record.name):
            sweep(distribution.dist_info, name)
        yield
    finally:
        os.close(handle)


def apply(
    distribution: Distribution, changes: Mapping[str, Change], identity: Identity
) -> Journal | None:
    """Put the changes into the distribution. None where exactly they are there already.

    What an earlier run applied, or was interrupted at, is taken back first. Raises FindingError
    with every file that is neither the release's nor ours; nothing is changed then.
    """
    with alone(distribution):
        present = journals.read(distribution.dist_info)
        if present is not None:
            same = present.phase is Phase.APPLIED and _identity(present) == identity
            if same and not edited(distribution, present):
                return None
            _take_back(distribution, present)
        journal = _prepared(distribution, changes, identity)
        journal.write(distribution.dist_info)
        try:
            # RECORD first: from then on an uninstall takes the journal and new files along.
            _write_record(distribution, changes)
            for path, change in changes.items():
                _put(distribution.site / path, change, journal.files[path].before)
            done = journal.at(Phase.APPLIED)
            done.write(distribution.dist_info)
        except BaseException:
            # What cannot be taken back now, `venv revert` takes back: the journal stays.
            with contextlib.suppress(OSError, EnvironmentProblem, FindingError):
                _take_back(distribution, journal)
            raise
        return done


def revert(distribution: Distribution) -> Journal | None:
    """Take back what was applied, to the byte. None where nothing was.

    Raises FindingError with every file that was edited since; nothing is changed then.
    """
    with alone(distribution):
        present = journals.read(distribution.dist_info)
        if present is not None:
            _take_back(distribution, present)
        return present


def edited(distribution: Distribution, journal: Journal) -> list[str]:
    """The files that are not as the series makes them; for work that was interrupted, those that
    are neither that nor the release's."""
    done = journal.phase is Phase.APPLIED
    found = []
    for path, touched in journal.files.items():
        now = _digest(distribution.site / path)
        if now != touched.after if done else not touched.knows(now):
            found.append(path)
    return found


def unlike_record(distribution: Distribution) -> list[str]:
    """Every file that is missing or not as RECORD says. Raises FindingError for a broken RECORD."""
    found = []
    for path, row in _rows(distribution).items():
        if not row.hashed or PurePosixPath(path).is_absolute() or ".." in path.split("/"):
            continue
        try:
            content = (distribution.site / path).read_bytes()
        except OSError:
            found.append(path)
            continue
        if not row.says(hashlib.new(row.algorithm, content).digest(), len(content)):
            found.append(path)
    return found


# --- applying -----------------------------------------------------------------------------------


def _prepared(
    distribution: Distribution, changes: Mapping[str, Change], identity: Identity
) -> Journal:
    """The journal of what is to be done; every file was looked at, none changed."""
    files: dict[str, Touched] = {}
    wrong: list[str] = []
    folders: list[str] = []
    for path, change in sorted(changes.items()):
        _inside(distribution, path)
        place = distribution.site / path
        now = _digest(place)
        if now != change.original:
            wrong.append(f"{path}: {_unlike(now, change)}")
            continue
        after = None if change.content is None else hashlib.sha256(change.content).hexdigest()
        before = None
        if now is not None:
            before = Before(place.read_bytes(), stat.S_IMODE(place.stat().st_mode))
        else:
            folders += _missing_folders(distribution.site, path)
        files[path] = Touched(before, after)
    if wrong:
        name = f"{distribution.name} {distribution.version}"
        msg = f"{len(wrong)} of the files of {name} are not the release's: {wrong[0]}"
        if wrong[1:]:
            others = ", ".join(one.partition(":")[0] for one in wrong[1:])
            msg += f", and {len(wrong) - 1} more: {others}"
        raise FindingError(
            msg,
            hint="keep edits by hand with `stackpatch venv capture`, then reinstall the package",
            where=str(distribution.site),
        )
    return Journal(
        Phase.APPLYING,
        identity.stack,
        identity.release,
        identity.arch,
        identity.series,
        identity.version,
        distribution.record.read_bytes(),
        files,
        tuple(dict.fromkeys(folders)),
    )


def _put(place: Path, change: Change, before: Before | None) -> None:
    if change.content is None:
        with disk_errors(place):
            place.unlink()
    else:
        mode = before.mode if before is not None else 0o644
        if change.executable is not None:
            mode = mode | 0o111 if change.executable else mode & ~0o111
        write_atomically(place, change.content, mode=mode)
    _forget_compiled(place)


def _write_record(distribution: Distribution, changes: Mapping[str, Change]) -> None:
    """RECORD as an installer would have written it for the patched files, and our journal in it."""
    rows = _rows(distribution)
    for path, change in changes.items():
        if change.content is None:
            rows.pop(path, None)
        else:
            rows[path] = Row.of(path, change.content)
    own = f"{distribution.dist_info.name}/{journals.NAME}"
    rows[own] = Row(own, "", "")
    mode = stat.S_IMODE(distribution.record.stat().st_mode)
    write_atomically(distribution.record, dump_record(rows.values()), mode=mode)


# --- taking back --------------------------------------------------------------------------------


def _take_back(distribution: Distribution, journal: Journal) -> None:
    unknown = edited(distribution, journal)
    if unknown:
        more = f", and {len(unknown) - 1} more: {', '.join(unknown[1:])}" if unknown[1:] else ""
        msg = f"edited since the series was applied: {unknown[0]}{more}"
        raise FindingError(
            msg,
            hint="keep the edits with `stackpatch venv capture`, then reinstall the package",
            where=str(distribution.site),
        )
    for path in journal.files:
        _inside(distribution, path)
    if journal.phase is not Phase.REVERTING:
        journal.at(Phase.REVERTING).write(distribution.dist_info)
    for path, touched in journal.files.items():
        place = distribution.site / path
        sweep(place.parent, place.name)
        now = _digest(place)
        before = touched.before
        if before is None:
            if now is not None:
                with disk_errors(place):
                    place.unlink()
        elif now != before.sha256 or stat.S_IMODE(place.stat().st_mode) != before.mode:
            write_atomically(place, before.content, mode=before.mode)
        _forget_compiled(place)
    for folder in sorted(journal.folders, reverse=True):
        with contextlib.suppress(OSError):  # somebody else put something there
            (distribution.site / folder).rmdir()
    _restore_record(distribution, journal)
    with disk_errors(distribution.dist_info):
        (distribution.dist_info / journals.NAME).unlink()


def _restore_record(distribution: Distribution, journal: Journal) -> None:
    """RECORD as it was; what somebody else has changed in it since stays."""
    was = parse_record(journal.record)
    rows = _rows(distribution)
    rows.pop(f"{distribution.dist_info.name}/{journals.NAME}", None)
    for path in journal.files:
        if path in was:
            rows[path] = was[path]
        else:
            rows.pop(path, None)
    content = journal.record if rows == was else dump_record(rows.values())
    if content != distribution.record.read_bytes():
        mode = stat.S_IMODE(distribution.record.stat().st_mode)
        write_atomically(distribution.record, content, mode=mode)


# --- files --------------------------------------------------------------------------------------


def _identity(journal: Journal) -> Identity:
    return Identity(journal.stack, journal.release, journal.arch, journal.series, journal.version)


def _rows(distribution: Distribution) -> dict[str, Row]:
    try:
        return parse_record(distribution.record.read_bytes())
    except (OSError, ValueError) as error:
        msg = f"{distribution.record} cannot be read: {error}"
        raise FindingError(msg, hint="reinstall the package") from error


def _inside(distribution: Distribution, path: str) -> None:
    """Refuse a path that leaves the site folder, by name or by a folder that is a link."""
    parts = PurePosixPath(path).parts
    if not parts or PurePosixPath(path).is_absolute() or ".." in parts:
        msg = f"{path!r} leaves the folder of the package"
        raise InputError(msg)
    place = distribution.site
    for part in parts[:-1]:
        place /= part
        if place.is_symlink():
            msg = f"{place} is a symbolic link, and nothing is written through one"
            raise FindingError(msg, hint="install the package anew, with copies of its files")


def _missing_folders(site: Path, path: str) -> list[str]:
    above = [str(parent) for parent in PurePosixPath(path).parents if str(parent) != "."]
    return [folder for folder in above if not (site / folder).exists()]


def _digest(place: Path) -> str | None:
    """The sha256 of a file, a link's target included; None where there is none."""
    try:
        return hashlib.sha256(place.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"cannot read {place}: {error.strerror}"
        raise EnvironmentProblem(msg, where=str(place)) from error


def _forget_compiled(place: Path) -> None:
    """Remove the bytecode of a source file: of the same second and size it would be taken."""
    if place.suffix == ".py":
        for compiled in (place.parent / "__pycache__").glob(f"{place.stem}.*.pyc"):
            with contextlib.suppress(OSError):
                compiled.unlink()


def _unlike(now: str | None, change: Change) -> str:
    if now is None:
        return "is missing"
    if change.content is not None and now == hashlib.sha256(change.content).hexdigest():
        return "is patched already, and not by `venv apply`"
    return "was edited" if change.original is not None else "is there, and the release has none"
