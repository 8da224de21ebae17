"""Clearing: which entries a stack can read stale, as a plan, and taking exactly those away.

The plan names every piece with its inode; carrying it out takes a piece only while it is still
the same one, moves it aside in one rename, so that a reader sees all of it or nothing, and then
deletes it. Where and why something is not taken is part of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stackpatch.errors import InputError
from stackpatch.installed import guard, remove
from stackpatch.installed.cache import STACKS, Cache, Risk
from stackpatch.installed.caches import CACHES
from stackpatch.installed.survey import Left, Piece, Survey, Why, describe, survey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from stackpatch.installed.guard import Refusal, Root
    from stackpatch.installed.locate import Location
    from stackpatch.installed.surroundings import Surroundings

# The local part that `build` gives a patched FlashInfer: it is the digest of its series.
_SERIES = "+sp."


@dataclass(frozen=True, slots=True)
class Taken:
    """One piece that goes, and why."""

    cache: Cache
    root: Root | None
    path: Path
    piece: Piece | None
    bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class Kept:
    """One path that stays, and why."""

    cache: Cache
    path: Path
    why: Why
    detail: str


@dataclass(frozen=True, slots=True)
class Refused:
    """One place in which nothing is deleted."""

    cache: Cache
    path: Path
    refusal: Refusal


@dataclass(slots=True)
class Plan:
    """What goes, what stays, where nothing is touched. passed: caches not looked into, and why."""

    taken: list[Taken] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    passed: list[tuple[Cache, str]] = field(default_factory=list)

    @property
    def incomplete(self) -> bool:
        """Whether something that should go cannot."""
        return bool(self.refused) or any(k.why in {Why.BUSY, Why.FAILED} for k in self.kept)


@dataclass(frozen=True, slots=True)
class Request:
    """What the person asked for. stack: None for all. names: caches asked for by name."""

    stack: str | None = None
    names: tuple[str, ...] = ()


def request(stack: str | None, names: Sequence[str]) -> Request:
    """Check a stack and names of caches. Raises InputError that names the right ones."""
    if stack is not None and stack not in STACKS:
        msg = f"there is no stack {stack!r}"
        raise InputError(msg, hint=f"known: {', '.join(STACKS)}")
    for name in names:
        cache = CACHES.get(name)
        if cache is None:
            msg = f"there is no cache {name!r}"
            raise InputError(msg, hint=_nearest(name))
        if not cache.clearable:
            msg = f"stackpatch does not clear {name}: {cache.reason}"
            raise InputError(msg, hint=cache.instead or None)
        if stack is not None and stack not in cache.stacks:
            msg = f"{stack} does not read the cache {name}"
            raise InputError(msg, hint=f"it is read by {', '.join(cache.stacks)}")
    return Request(stack, tuple(dict.fromkeys(names)))


def plan(asked: Request, around: Surroundings) -> Plan:
    """Compute what goes and what stays; changes nothing."""
    made = Plan()
    for cache in CACHES.values():
        if asked.stack is not None and asked.stack not in cache.stacks:
            continue
        if asked.names and cache.name not in asked.names:
            continue
        if not asked.names and (cache.risk is not Risk.STALE or not cache.clearable):
            made.passed.append((cache, _why_passed(cache)))
            continue
        seen: set[Path] = set()
        for place in cache.locations(around):
            _place(made, cache, place, asked, around, seen)
    return made


def carry_out(made: Plan) -> Plan:
    """Do what a plan says; returns what went and what stayed after all."""
    done = Plan(kept=list(made.kept), refused=list(made.refused), passed=list(made.passed))
    by_root: dict[tuple[str, Path], list[Taken]] = {}
    for item in made.taken:
        by_root.setdefault(
            (item.cache.name, item.root.real if item.root else item.path), []
        ).append(item)
    for items in by_root.values():
        first = items[0]
        if first.root is None:
            _remove_file(done, first)
            continue
        pieces = [item.piece for item in items if item.piece is not None]
        gone, left = remove.pieces(first.root, pieces)
        done.taken += [item for item in items if item.piece in gone]
        done.kept += [_kept(first.cache, first.root.path, stays) for stays in left]
    return done


def _place(
    made: Plan,
    cache: Cache,
    place: Location,
    asked: Request,
    around: Surroundings,
    seen: set[Path],
) -> None:
    """One place of one cache."""
    if cache.file:
        _plan_file(made, cache, place)
        return
    root = guard.check(place, around.home, asked_by_name=cache.name in asked.names)
    if root is None:
        return
    if isinstance(root, guard.Refusal):
        made.refused.append(Refused(cache, place.path, root))
        return
    if root.real in seen:  # two rules that lead to one folder
        return
    seen.add(root.real)
    try:
        found = survey(root, cache.entries)
    except OSError as error:
        made.refused.append(
            Refused(cache, place.path, guard.Refusal(f"cannot be read: {describe(error)}"))
        )
        return
    strange = [left for left in found.left if left.why is Why.UNRECOGNISED]
    if root.linked and (strange or not found.pieces):
        named = f", {'/'.join(strange[0].parts)} for one" if strange else ""
        why = f"is a link to {root.real}, which holds other things than this cache{named}"
        hint = "remove by hand what is yours to remove there, or the link"
        if not strange and not found.left:
            return  # an empty folder behind a link
        made.refused.append(Refused(cache, place.path, guard.Refusal(why, hint)))
        return
    _decide(made, cache, root, found, asked, around)


def _decide(
    made: Plan, cache: Cache, root: Root, found: Survey, asked: Request, around: Surroundings
) -> None:
    by_name = cache.name in asked.names
    made.kept += [_kept(cache, root.path, left) for left in found.left]
    folded: dict[tuple[tuple[str, ...], Why, str], int] = {}
    for piece in found.pieces:
        stays = _stays(cache, piece, around, by_name=by_name)
        if stays is None and (holder := remove.busy(root, piece)):
            stays = Left(piece.parts, Why.BUSY, f"{holder} is locked: a process is at work on it")
        if stays is None:
            why = "asked for by name" if by_name else cache.reason
            path = root.path.joinpath(*piece.parts)
            made.taken.append(Taken(cache, root, path, piece, piece.bytes, why))
        else:  # one line for a version, not one for each of its modules
            key = (stays.parts, stays.why, stays.detail)
            if key not in folded:
                made.kept.append(_kept(cache, root.path, stays))
            folded[key] = folded.get(key, 0) + 1


def _stays(cache: Cache, piece: Piece, around: Surroundings, *, by_name: bool) -> Left | None:
    """Why a recognised piece is not taken; None when it is."""
    if piece.entry.named_only and not by_name:
        return Left(piece.parts, Why.KEPT, f"no stack's own; `--cache {cache.name}` takes it")
    version = piece.version
    if version is None:
        return None
    top = piece.parts[:1]
    if around.versions is not None:
        installed = around.versions.get("flashinfer")
        if installed is None:
            return Left(top, Why.NOT_READ, "that interpreter has no FlashInfer")
        if installed != version:
            return Left(top, Why.NOT_READ, f"that interpreter has FlashInfer {installed}")
    if cache.per_series and _SERIES in version and not by_name:
        return Left(top, Why.CURRENT, "named by its series, so made from exactly those sources")
    return None


def _why_passed(cache: Cache) -> str:
    if not cache.clearable:
        return f"not cleared by stackpatch; {cache.instead}" if cache.instead else "not cleared"
    if cache.risk is Risk.SAFE:
        return f"cannot be stale: {cache.reason}"
    return f"not known to be stale; `--cache {cache.name}` takes it: {cache.reason}"


def _kept(cache: Cache, root: Path, left: Left) -> Kept:
    return Kept(cache, root.joinpath(*left.parts), left.why, left.detail)


def _plan_file(made: Plan, cache: Cache, place: Location) -> None:
    """A cache that is one file; its name says nothing, so its content has to."""
    path = place.path
    found = remove.look_at_file(path)
    match found:
        case None:
            return
        case str():
            made.refused.append(Refused(cache, path, guard.Refusal(found)))
        case int():
            made.taken.append(Taken(cache, None, path, None, found, cache.reason))


def _remove_file(done: Plan, item: Taken) -> None:
    problem = remove.file(item.path)
    if problem is None:
        done.taken.append(item)
    else:
        done.kept.append(Kept(item.cache, item.path, Why.FAILED, problem))


def _nearest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, CACHES, 1, 0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(CACHES)}"


def total(items: Iterable[Taken]) -> int:
    """Bytes that go, or went."""
    return sum(item.bytes for item in items)
