"""A series onto another upstream version: patch by patch, stopping for a person, safe to kill.

The state is one file, replaced as a whole after every step. Nothing outside its folder changes
before the end; the caller then writes the new series and the new release.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from stackpatch.errors import InputError, Problems, WaitingError
from stackpatch.model.patch import parse_patch
from stackpatch.model.reference import version_number
from stackpatch.model.series import parse_series
from stackpatch.model.verdict import Verdict, Word
from stackpatch.series import worktree
from stackpatch.series.apply import apply_series
from stackpatch.series.export import remail
from stackpatch.series.pick import Move, Outcome, Step, step, write
from stackpatch.series.rebase_state import State
from stackpatch.series.resolution import resolution
from stackpatch.series.variants import Variants
from stackpatch.storage import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from stackpatch.model.patch import Patch
    from stackpatch.model.series import Series
    from stackpatch.sources.objects import Objects

_STATE = "state.json"


class Rebase:
    """One stack's rebase in one folder: `state.json`, and `worktree/` while it waits."""

    def __init__(
        self, folder: Path, objects: Objects, series: Series, archs: Collection[str] = ()
    ) -> None:
        """archs: those of the recipe, for each of which the new series must apply."""
        self.folder = folder
        self.worktree = folder / "worktree"
        self._file = folder / _STATE
        self._objects = objects
        self._series = series
        self._archs = archs

    def state(self) -> State | None:
        """The state of a rebase under way, None when there is none."""
        try:
            return State.from_json(self._file.read_bytes(), str(self._file))
        except FileNotFoundError:
            return None

    def restore(self, state: State) -> None:
        """See that the store has what the state speaks of: it may have been cleared meanwhile.

        Raises InputError where the series changed, or the trees cannot be made again.
        """
        self._same_series(state)
        if self._objects.has(state.tree):
            return
        mails = {one.name: one.mail for one in state.moves if one.mail is not None}
        if problem := gives_again(self._objects, state.onto_tree, mails, state.tree):
            msg = f"the source store lost what the rebase had made: {problem}"
            raise InputError(msg, hint="--restart begins anew, --abort ends it")

    def start(
        self,
        stack: str,
        release: str,
        onto: str,
        tree: str,
        *,
        origin: str | None = None,
        covers: Callable[[str], bool],
    ) -> State:
        """Begin, and go on until the end or the first patch that needs a person."""
        under_way = self.state()
        if under_way is not None:
            msg = f"a rebase of {under_way.stack} onto {under_way.onto} is under way"
            hint = "--continue, --skip, --abort, --restart or --status"
            raise InputError(msg, hint=hint, where=str(self._file))
        digest = self._series.digest
        state = State(stack, release, onto, tree, digest, tree, (), origin=origin)
        return self.proceed(state, covers=covers)

    def proceed(self, state: State, *, covers: Callable[[str], bool]) -> State:
        """Move the patches that are left; keeps the state where a patch stops it."""
        patches = self._series.patches
        state = advance(self._objects, state, patches, covers=covers, archs=self._archs)
        if state.waiting is not None:
            self.reopen(state)
        self._keep(state)
        return state

    def reopen(self, state: State) -> None:
        """Make the work tree for the waiting patch, anew where there is one."""
        patch = self._waiting(state)
        worktree.create(self.worktree, self._objects, state.tree, patch, state.onto)

    def resume(self, state: State, *, covers: Callable[[str], bool]) -> State:
        """Take the person's work tree as the waiting patch's result and go on."""
        patch = self._waiting(state)
        tree = worktree.read(self.worktree, self._objects, state.tree, patch)
        if left_out := worktree.ignored(self.worktree):
            more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
            msg = f"upstream's .gitignore would leave out {', '.join(left_out[:5])}{more}"
            hint = (
                "in the work tree, `git add -f` what belongs to the patch and remove the rest "
                "(`git clean -fdX` does that), then --continue"
            )
            raise WaitingError(msg, hint=hint, where=str(self.worktree))
        if tree == state.tree:
            msg = f"the work tree changes nothing, so nothing is left of {patch.name}"
            raise WaitingError(msg, hint="drop the patch with --skip", where=str(self.worktree))
        stopped = state.moves[-1]
        mail = remail(self._objects, patch, state.tree, tree)
        if problem := self._unwritable(state, patch, mail, tree):
            msg = f"what the work tree holds cannot be written as a patch: {problem}"
            raise WaitingError(msg, hint="undo that part, then --continue", where=str(self.folder))
        told = resolution(self._objects, state.tree, tree, patch, mail, origin=state.origin)
        against = (
            _not_meant(patch, state.onto),
            _variants(self._objects, state, self._series.patches, self._archs).add(
                parse_patch(patch.name, mail)
            ),
        )
        detail = "; ".join(("resolved by hand", *told, *(said for said in against if said)))
        resolved = replace(stopped, outcome=Outcome.RESOLVED, detail=detail, tree=tree, mail=mail)
        return self._settle(state, resolved, covers=covers)

    def _unwritable(self, state: State, patch: Patch, mail: bytes, tree: str) -> str | None:
        try:
            return gives_again(self._objects, state.tree, {patch.name: mail}, tree)
        except Problems as error:  # what no patch may do: lint would refuse it
            return error.problems[0].partition(": ")[2]

    def skip(self, state: State, *, covers: Callable[[str], bool]) -> State:
        """Drop the waiting patch and go on."""
        self._waiting(state)
        dropped = replace(state.moves[-1], outcome=Outcome.SKIPPED, detail="dropped by hand")
        return self._settle(state, dropped, covers=covers)

    def forget(self) -> None:
        """Remove the state and the work tree."""
        forget(self.folder)

    def _settle(self, state: State, settled: Move, *, covers: Callable[[str], bool]) -> State:
        moves = (*state.moves[:-1], settled)
        state = replace(state, moves=moves, tree=settled.tree, waiting=None)
        self._keep(state)
        worktree.remove(self.worktree)
        return self.proceed(state, covers=covers)

    def _same_series(self, state: State) -> None:
        if state.series != self._series.digest:
            msg = f"the series of {state.stack} changed since the rebase began"
            raise InputError(msg, hint="--restart begins anew, --abort ends it")

    def _waiting(self, state: State) -> Patch:
        self._same_series(state)
        if state.waiting is None:
            msg = "no patch is waiting"
            raise InputError(msg, hint="--status shows where the rebase stands")
        return self._patch(state.waiting)

    def _patch(self, name: str) -> Patch:
        found = next((patch for patch in self._series.patches if patch.name == name), None)
        if found is None:
            msg = f"the rebase waits for {name}, which its series does not have"
            raise InputError(
                msg, hint="--restart begins anew, --abort ends it", where=str(self._file)
            )
        return found

    def _keep(self, state: State) -> None:
        write_atomically(self._file, state.to_json())


def forget(folder: Path) -> None:
    """Remove a rebase's folder, whatever is in it. The state goes first: without it, none is."""
    (folder / _STATE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def advance(
    objects: Objects,
    state: State,
    patches: Sequence[Patch],
    *,
    covers: Callable[[str], bool],
    archs: Collection[str] | None = None,
) -> State:
    """Move patches until the end or the first that stops. Changes nothing but the store.

    A state that waits stays as it is: nothing goes past a patch that needs a person.
    archs: the recipe's, where the result is to be a series of that version: then a patch stops too
    whose `Applies-To` leaves the version out, or that would not apply for one of them.
    """
    if state.waiting is not None:
        return state
    left = patches[len(state.moves) :]
    variants = None if archs is None else _variants(objects, state, patches, archs)
    moves = write(objects, _steps(objects, state, left, covers, variants))
    stopped = bool(moves) and moves[-1].outcome.stops
    return replace(
        state,
        moves=(*state.moves, *moves),
        tree=moves[-1].tree if moves else state.tree,
        waiting=moves[-1].name if stopped else None,
    )


def _steps(
    objects: Objects,
    state: State,
    patches: Sequence[Patch],
    covers: Callable[[str], bool],
    variants: Variants | None,
) -> Iterator[Step]:
    """Each patch on the tree that the one before made, to the first that needs a person."""
    tree = state.tree
    for patch in patches:
        one = step(objects, tree, patch, origin=state.origin, covers=covers)
        if variants is not None and one.goes_on:
            against = _not_meant(patch, state.onto)
            if against is None and variants:  # they take the mail as it will be read
                one = replace(one, move=write(objects, [one])[0])
                against = variants.add(parse_patch(patch.name, one.move.mail or b""))
            if against is not None:
                one = one.stopped(f"it goes on ({one.move.outcome.value}), but {against}")
        yield one
        if one.move.outcome.stops:
            return
        tree = one.move.tree


def _variants(
    objects: Objects, state: State, patches: Sequence[Patch], archs: Collection[str]
) -> Variants:
    """What the arches have of the patches that moved so far."""
    restricted = any(patch.trailers.archs is not None for patch in patches)
    variants = Variants(objects, state.onto_tree, archs if restricted else ())
    for one in state.moves:
        if one.mail is not None:
            variants.add(parse_patch(one.name, one.mail))
    return variants


def _not_meant(patch: Patch, onto: str) -> str | None:
    """What the patch's own `Applies-To` has against a version; a branch is in no range."""
    version = onto.partition(":")[2]
    if patch.trailers.meant_for(version) is not False:
        return None
    meant = patch.trailers.applies_to
    return f"its Applies-To ({meant}), which is to be edited, leaves out {version_number(version)}"


def gives_again(objects: Objects, onto: str, mails: Mapping[str, bytes], tree: str) -> str | None:
    """Why these mails, read back and applied to a tree, do not give that tree; None: they do."""
    series = parse_series("the moved series", "".join(f"{n}\n" for n in mails).encode(), mails)
    result = apply_series(objects, onto, series.patches)
    for one in result.results:
        for failure in one.failures:
            return f"{one.patch.name}: {failure.path}: {failure.detail}"
    return None if result.tree == tree else "the tree that they give is another one"


def culprit(verdicts: Sequence[tuple[str, Verdict]]) -> tuple[str, Verdict] | None:
    """The first of the versions (with a patch's verdict, oldest first) where it stopped applying.

    None when it applies at all of them, or at none.
    """
    applied = False
    for name, verdict in verdicts:
        if verdict.word is Word.NEEDED:
            applied = True
        elif applied:
            return name, verdict
    return None
