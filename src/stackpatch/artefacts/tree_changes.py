"""What a series changes of a release that is its commit, and where an installed package has it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch.artefacts.plan import Engine
from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stackpatch.artefacts.tree_plan import TreePlan
    from stackpatch.model.layout import Layout
    from stackpatch.model.recipe import Recipe
    from stackpatch.sources.objects import Entry as TreeEntry
    from stackpatch.sources.objects import Objects

    Report = Callable[[str, int, int | None], None]

# git's file modes; `sources.objects` has them too, and brings pygit2 along.
_MODES = {0o100755: 0o755, 0o100644: 0o644}
# The first line of what git has in place of a file that Git LFS keeps (git-lfs docs/spec.md).
_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """One file. content: None where it is removed; mode: its permission bits then 0.

    original: sha256 (hex) of what was there, None where it is new. places: its paths in the
    package's site folder; none for what the package does not have, such as tests.
    """

    content: bytes | None
    mode: int
    original: str | None
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """What the series changes, by path in the git tree, in order."""

    files: Mapping[str, ChangedFile]

    @property
    def outside(self) -> tuple[str, ...]:
        """Paths of the git tree that the package does not have."""
        return tuple(path for path, file in self.files.items() if not file.places)

    def placed(self, *, editable: bool) -> dict[str, ChangedFile]:
        """What the package has, by path in its folder. editable: that folder has the git tree."""
        return {
            place: file
            for path, file in self.files.items()
            for place in ((path,) if editable and file.places else file.places)
        }


def changes(
    recipe: Recipe, plan: TreePlan, *, offline: bool = False, report: Report | None = None
) -> Changed:
    """The plan's series on the release's commit.

    Raises FindingError with every failure when it does not apply, InputError for what a build
    from git cannot change, and what fetching raises.
    """
    # Only here: a build that is found again reads no git.
    from stackpatch.model.reference import SourceKind, VersionRef
    from stackpatch.series.apply import apply_series
    from stackpatch.series.failures import not_applied
    from stackpatch.sources.fetch import bring
    from stackpatch.sources.store import SourceStore

    store = SourceStore(recipe.stack)
    reference = VersionRef(SourceKind.GIT, plan.inputs.version)
    stored = bring(recipe, reference, store=store, offline=offline, report=report)
    objects = store.objects.scratch()
    patches, among = plan.patches, plan.series
    result = apply_series(objects, stored.tree, patches, parent=stored.commit, among=among)
    if not result.applied:
        raise not_applied(plan.inputs.series or recipe.stack, stored.label, result)
    changed = changed_files(objects, stored.tree, result.changes, plan.layout)
    if plan.engine is Engine.OVERLAY and not changed.placed(editable=False):
        outside = ", ".join(changed.outside[:3])
        msg = f"nothing that the series changes is in the package: {outside}"
        raise InputError(msg, hint="correct `layouts.wheel` in the recipe")
    return changed


def changed_files(
    objects: Objects, before: str, changed: Mapping[str, TreeEntry | None], layout: Layout
) -> Changed:
    """The changes of the tree `before`. Raises InputError for links and for files of Git LFS."""
    files = {}
    for path, entry in sorted(changed.items()):
        old = objects.entry(before, path)
        if old == entry:
            continue
        for one in (old, entry):
            if one is not None and one.mode not in _MODES:
                msg = f"{path} is a symbolic link, which a build from git does not change"
                raise InputError(msg, hint="leave it out of the series")
        was = None if old is None else objects.blob(old.id)
        content = None if entry is None else objects.blob(entry.id)
        if any(text is not None and text.startswith(_POINTER) for text in (was, content)):
            msg = f"{path} is kept by Git LFS: git has a pointer in its place, not the file"
            raise InputError(msg, hint="leave it out of the series")
        files[path] = ChangedFile(
            content,
            0 if entry is None else _MODES[entry.mode],
            None if was is None else hashlib.sha256(was).hexdigest(),
            layout.from_git(path),
        )
    return Changed(files)
