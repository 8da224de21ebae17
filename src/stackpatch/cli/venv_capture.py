"""Edits by hand in an installed package as a series: read, mapped to the git tree, written."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch import proc
from stackpatch.storage import directory_beside, write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stackpatch.cli.venv_subject import Subject
    from stackpatch.installed.hand_edits import Edits
    from stackpatch.installed.record import Row
    from stackpatch.model.layout import Layout
    from stackpatch.sources.objects import Objects
    from stackpatch.sources.store import Stored

_TEXT_LIMIT = 16 << 20  # bytes of a file that can be a person's source


@dataclass(frozen=True, slots=True)
class Captured:
    """A series to write. files: by name, none where nothing was edited. patch: the new one's name.
    paths: what it changes, in the git tree. left_out: edited files that it cannot hold, and why."""

    files: Mapping[str, bytes]
    patch: str | None
    paths: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


def captured(subject: Subject, title: str, *, with_new: bool) -> Captured:
    """The edits as one patch, behind the series where `venv apply` put it there.

    Raises FindingError for work that was interrupted, and what fetching the release raises.
    """
    from stackpatch.artefacts.rawzip import RawZip
    from stackpatch.cli.progress import reporting
    from stackpatch.errors import FindingError
    from stackpatch.installed import hand_edits
    from stackpatch.installed.journal import Phase
    from stackpatch.installed.record import parse_record
    from stackpatch.model.layout import Layout
    from stackpatch.model.reference import SourceKind
    from stackpatch.series.captured import Author, capture
    from stackpatch.sources.fetch import artefact

    work = subject.work
    subject.refuse_patched_wheel()
    journal = subject.journal()
    if journal is not None and journal.phase is not Phase.APPLIED:
        msg = f"{subject.shown}: a run of `venv apply` or `venv revert` was interrupted here"
        raise FindingError(msg, hint=f"`stackpatch venv revert {work.recipe.stack}` mends it first")
    with reporting() as report:
        base = work.base(report)
        # Any machine's wheel has the same sources; the one that serves most is pinned first.
        wheel = artefact(
            work.recipe, work.release, SourceKind.WHEEL, offline=work.offline, report=report
        )
    with RawZip(wheel) as source:
        name = next(n for n in source.members if n.endswith(".dist-info/RECORD"))
        rows = parse_record(source.read(source.members[name]))
    ours = {path: touched.after for path, touched in journal.files.items()} if journal else {}
    edits = hand_edits.find(subject.distribution, rows, ours)
    objects, tree = work.store.objects, base.tree
    files: dict[str, bytes] = {}
    if journal is not None:
        tree, files = _on_series(subject, base, journal.series, journal.arch)
    rules = [(rule.here, rule.git) for rule in work.recipe.layouts.rules(SourceKind.WHEEL)]
    layout = Layout.of(rules) if rules else Layout.identity()
    chosen, left_out = _mapped(subject, edits, layout, rows, objects, base.tree, with_new=with_new)
    author = Author(*_author(), int(time.time()))
    made = capture(objects, tree, chosen, subject=title, author=author, number=len(files) + 1)
    if made is None:
        return Captured({}, None, (), left_out)
    name, mail = made
    listing = "".join(f"{one}\n" for one in (*files, name)).encode()
    return Captured({**files, name: mail, "series": listing}, name, tuple(sorted(chosen)), left_out)


def write(taken: Captured, folder: Path) -> None:
    """Make the folder with the series; whole, or not at all."""
    with directory_beside(folder) as scratch:
        for name, content in taken.files.items():
            write_atomically(scratch / name, content)


def _on_series(
    subject: Subject, base: Stored, digest: str, arch: str
) -> tuple[str, dict[str, bytes]]:
    """The tree that the applied series makes, and its patches.

    Raises FindingError where the recipe's series is another one by now.
    """
    from stackpatch.errors import FindingError
    from stackpatch.series.apply import apply_series
    from stackpatch.series.failures import not_applied

    work = subject.work
    series = work.series.for_arch(arch)
    if series.digest != digest:
        msg = f"another series than today's is on {subject.shown}"
        raise FindingError(
            msg, hint="capture with the recipes it was applied from (--root), or revert by hand"
        )
    patches, among = series.patches, work.series.patches
    result = apply_series(work.store.objects, base.tree, patches, parent=base.commit, among=among)
    if not result.applied:
        raise not_applied(series.where, base.label, result)
    return result.tree, {patch.name: patch.raw for patch in series.patches}


def _mapped(
    subject: Subject,
    edits: Edits,
    layout: Layout,
    rows: Mapping[str, Row],
    objects: Objects,
    tree: str,
    *,
    with_new: bool,
) -> tuple[dict[str, bytes | None], tuple[tuple[str, str], ...]]:
    """The edits by path in the git tree, and what cannot be one."""
    chosen: dict[str, bytes | None] = {}
    left: list[tuple[str, str]] = []

    def take(path: str, content: bytes | None, *, new: bool) -> None:
        if content is not None and (why := _not_text(content)):
            left.append((path, why))
            return
        git_path = layout.to_git(path)
        if git_path is None:
            left.append((path, "is not in the git tree: it is made when the package is built"))
            return
        entry = objects.entry(tree, git_path)
        if not new and path in rows:
            blob = objects.blob(entry.id) if entry is not None else None
            if blob is None or not rows[path].says(hashlib.sha256(blob).digest(), len(blob)):
                left.append((path, f"the wheel's own is not the git tree's {git_path}"))
                return
        if git_path in chosen and chosen[git_path] != content:
            left.append((path, f"another copy of {git_path} was edited differently"))
            return
        chosen[git_path] = content

    for path, content in edits.changed.items():
        take(path, content, new=False)
    for path in edits.removed:
        take(path, None, new=False)
    for path in edits.added:
        if with_new:
            take(path, (subject.distribution.site / path).read_bytes(), new=True)
        else:
            left.append((path, "the wheel does not have it; --with-new takes it"))
    return chosen, tuple(left)


def _not_text(content: bytes) -> str | None:
    if len(content) > _TEXT_LIMIT:
        return f"has {len(content):,} bytes"
    if b"\0" in content:
        return "is compiled or binary"
    return None


def _author() -> tuple[str, str]:
    """As git would sign, where it is set; else a name that is nobody's."""
    found = []
    for key, other in (("user.name", "stackpatch"), ("user.email", "stackpatch@localhost")):
        said = proc.run(("git", "config", "--get", key), check=False).text().strip()
        found.append(said if said and not set(said) & set("<>\n") else other)
    return found[0], found[1]
