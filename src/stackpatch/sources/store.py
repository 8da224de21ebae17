"""The source store: one bare repository per stack, where every upstream release is a tree.

`refs/sources/<kind>/<version>` names each. From an archive it is a commit of ours whose message
says which bytes it was made of; from git it is upstream's own commit, and `refs/evidence/...`
names a blob with where it came from. Both kinds of ref move last, under one lock.
"""

from __future__ import annotations

import bisect
import contextlib
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pygit2
from packaging.version import InvalidVersion, Version

from stackpatch import proc, storage
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.model import nearest
from stackpatch.model.reference import SourceKind, VersionRef, version_number
from stackpatch.sources import packing
from stackpatch.sources.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from stackpatch.sources.archive import Member

_REFS = "refs/sources/"
_EVIDENCE = "refs/evidence/"
# What a ref's last component cannot hold, and the slash: `feature` and `feature/x` can both be
# kept. Each is written as %XX.
_NOT_IN_A_REF = re.compile(r"[^A-Za-z0-9_+!.-]|^\.|\.(?=\.|$|lock$)")

# The store is ours alone: no reflogs, nothing repacks or prunes behind our back, fetched packs
# stay packs.
_CONFIG = """\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
\tlogAllRefUpdates = false
\thooksPath = /dev/null
[gc]
\tauto = 0
[maintenance]
\tauto = false
[fetch]
\tunpackLimit = 1
\twriteCommitGraph = false
\trecurseSubmodules = false
[receive]
\tautogc = false
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """One upstream version in the store.

    version: its number, or for git a branch or commit as it was asked for. commit, tree: object
    ids. evidence: what it was made of (`Artefact`, `Sha256`, `Layout`, `Digest-From`; for git
    `Url`, `Commit`, `Tag`, `Pinned`).
    """

    kind: SourceKind
    version: str
    commit: str
    tree: str
    evidence: Mapping[str, str]

    @property
    def label(self) -> str:
        """As a person writes it: `sdist:0.6.3`."""
        return f"{self.kind}:{self.version}"


class SourceStore:
    """The source store of one stack; created on its first use."""

    def __init__(self, stack: str, root: Path | None = None) -> None:
        """root: the folder with the stores; without one, in the user's cache."""
        self.stack = stack
        self._root = root or storage.cache_root() / "sources"
        self.path = self._root / f"{stack}.git"
        self._objects: Objects | None = None

    @property
    def objects(self) -> Objects:
        """The store's objects. Raises EnvironmentProblem where the folder is no repository."""
        if self._objects is None:
            if not self.path.exists():
                with self.exclusive():
                    pass
            try:
                self._objects = Objects(self.path)
            except pygit2.GitError as error:
                msg = f"the source store {self.path} is damaged: {error}"
                hint = f"remove {self.path}; `stackpatch fetch {self.stack}` makes a new one"
                raise EnvironmentProblem(msg, hint=hint) from error
        return self._objects

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[int]:
        """Hold the store against other processes; creates it and removes what a kill left.

        Yields the lock's descriptor. Every git that writes here inherits it, so that one that
        outlives us keeps the next process out.
        """
        what = f"another stackpatch that writes to the store of {self.stack}"
        with storage.lock(self._root / f"{self.stack}.lock", what=what) as handle:
            if self.path.exists():
                self._sweep()
            else:
                storage.sweep(self._root, self.path.name)
                with storage.directory_beside(self.path) as scratch:
                    _create(scratch)
            yield handle

    # --- reading --------------------------------------------------------------------------------

    def find(self, kind: SourceKind, version: str) -> Stored | None:
        """What the store has under exactly this kind and version; None for nothing."""
        name = _ref(kind, version)
        try:
            reference = self.objects.repository.references.get(name)
        except ValueError:  # libgit2's word for a name that can be no ref
            return None
        return None if reference is None else self._stored(name, str(reference.target))

    def versions(self) -> list[Stored]:
        """Everything in the store, oldest version first; branches and commits come last."""
        references = self.objects.repository.references
        found = [
            self._stored(name, str(references[name].target))
            for name in references
            if name.startswith(_REFS)
        ]
        order = list(SourceKind)
        return sorted(
            found, key=lambda stored: (version_key(stored.version), order.index(stored.kind))
        )

    def resolve(self, ref: VersionRef) -> Stored:
        """The stored version that a person named.

        Without a kind git is preferred, then sdist, then wheel. Raises InputError with the
        nearest ones.
        """
        kinds = list(SourceKind) if ref.kind is None else [ref.kind]
        for kind in kinds:
            exact = self.find(kind, ref.name)
            if exact is not None:
                return exact
        found = self.versions()
        for kind in kinds:
            for stored in found:
                if stored.kind is kind and _means(ref, stored):
                    return stored
        raise self._unknown(ref, found)

    # --- writing --------------------------------------------------------------------------------

    def import_files(
        self,
        kind: SourceKind,
        version: str,
        files: Iterable[Member],
        *,
        seconds: int,
        evidence: Mapping[str, str],
    ) -> Stored:
        """Store a release under git paths; the same evidence again reads no file of it.

        seconds: the release's date as Unix time. evidence: single lines that say what the files
        are made of; they must change whenever the files can. Raises InputError for files that
        make no tree, EnvironmentProblem when the disk refuses.
        """
        present = self.imported(kind, version, seconds=seconds, evidence=evidence)
        if present is not None:
            return present
        what = f"{self.stack} {version} ({kind})"
        with contextlib.closing(self.objects.names.addition()) as addition:
            with self.exclusive() as lock:
                present = self.imported(kind, version, seconds=seconds, evidence=evidence)
                if present is not None:  # another process was faster
                    return present
                packing.write_release(
                    self.objects,
                    _ref(kind, version),
                    files,
                    message=self._message(kind, version, evidence),
                    seconds=seconds,
                    what=what,
                    lock=lock,
                    names=addition,
                )
            present = self.imported(kind, version, seconds=seconds, evidence=evidence)
            if present is None:
                msg = f"git stored {what}, and yet it is not in {self.path}"
                raise EnvironmentProblem(msg, hint="`stackpatch doctor` looks at git and the disk")
            self.objects.names.add(present.tree, addition)
        return present

    def imported(
        self, kind: SourceKind, version: str, *, seconds: int, evidence: Mapping[str, str]
    ) -> Stored | None:
        """The stored version, if it was made of exactly this."""
        stored = self.find(kind, version)
        if stored is None:
            return None
        _, content = self.objects.repository.read(stored.commit)
        head, _, message = content.partition(b"\n\n")
        same = message.decode() == self._message(kind, version, evidence)
        return stored if same and head.endswith(b" %d +0000" % seconds) else None

    def record_commit(
        self, version: str, commit: str, evidence: Mapping[str, str], *, lock: int
    ) -> Stored:
        """Name a commit of upstream's that lies in the store already. Call it under `exclusive`."""
        text = "".join(f"{key}: {_line(value)}\n" for key, value in evidence.items())
        blob = self.objects.write_blob(text.encode())
        name = _ref(SourceKind.GIT, version)
        commands = f"update {_evidence_ref(name)} {blob}\nupdate {name} {commit}\n"
        proc.run(
            ["git", f"--git-dir={self.path}", "update-ref", "--stdin"],
            stdin=commands.encode(),
            env=packing.PRIVATE,
            pass_fds=(lock,),
        )
        return self._stored(name, commit)

    # --- inside ---------------------------------------------------------------------------------

    def _stored(self, name: str, commit: str) -> Stored:
        kind, _, version = name.removeprefix(_REFS).partition("/")
        try:
            if kind == SourceKind.GIT:
                blob = self.objects.repository.references.get(_evidence_ref(name))
                text = self.objects.blob(str(blob.target)) if blob is not None else b""
            else:
                _, content = self.objects.repository.read(commit)
                text = content.partition(b"\n\n")[2].partition(b"\n\n")[2]
            tree = self.objects.tree_of(commit)
        except KeyError as error:
            msg = f"the source store {self.path} is damaged: {name} has lost its objects"
            hint = f"remove {self.path}; `stackpatch fetch {self.stack}` makes a new one"
            raise EnvironmentProblem(msg, hint=hint) from error
        pairs = (line.split(": ", 1) for line in text.decode("utf-8", "replace").splitlines())
        evidence = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
        return Stored(SourceKind(kind), unquote(version), commit, tree, MappingProxyType(evidence))

    def _message(self, kind: SourceKind, version: str, evidence: Mapping[str, str]) -> str:
        lines = "".join(f"{key}: {_line(value)}\n" for key, value in evidence.items())
        return f"{self.stack} {version}, {kind}\n\n{lines}"

    def _sweep(self) -> None:
        """Remove what a killed git left; the lock says that none is alive."""
        leftovers = [
            *self.path.glob("fast_import_crash_*"),
            *self.path.glob("*.lock"),
            *(self.path / "names").glob(".*.tmp"),
            *(self.path / "objects" / "pack").glob("tmp_*"),
            *(self.path / "objects" / "pack").glob(".tmp-*"),
            *(self.path / "refs").rglob("*.lock"),
        ]
        for leftover in leftovers:
            with contextlib.suppress(OSError):
                leftover.unlink()

    def _unknown(self, ref: VersionRef, found: list[Stored]) -> InputError:
        shown = f"{ref.kind} of {ref.name}" if ref.kind else ref.name
        msg = f"the source store of {self.stack} has no {shown}"
        fetch = f"`stackpatch fetch {self.stack} {ref}` brings it"
        near = nearest_versions(ref, found)
        hint = f"nearest: {', '.join(near)}; {fetch}" if near else fetch
        return InputError(msg, hint=hint)


def nearest_versions(ref: VersionRef, found: list[Stored]) -> list[str]:
    """What the store has that is nearest to it: the versions around it, or names like it."""
    other_kinds = [stored.label for stored in found if _means(VersionRef(None, ref.name), stored)]
    if other_kinds:
        return other_kinds
    wanted = ref.version
    if wanted is None:
        names = [stored.version for stored in found if stored.kind is SourceKind.GIT]
        return [nearest.hint(ref.name, names)] if names else []
    return neighbours(wanted, [stored.version for stored in found])


def neighbours(wanted: str, versions: Iterable[str]) -> list[str]:
    """The version before and the one after it, of those that are version numbers."""
    numbers = sorted({number for text in versions if (number := version_number(text))}, key=Version)
    at = bisect.bisect_left([Version(number) for number in numbers], Version(wanted))
    return numbers[max(at - 1, 0) : at + 1]


def version_key(text: str) -> tuple[int, Version | str]:
    """Orders version numbers by PEP 440, and everything else behind them by name."""
    try:
        return (0, Version(text))
    except InvalidVersion:
        return (1, text)


def _means(ref: VersionRef, stored: Stored) -> bool:
    if ref.version is not None:
        return version_key(ref.version) == version_key(version_number(stored.version) or "")
    abbreviated = len(ref.name) >= 7 and stored.commit.startswith(ref.name)
    return stored.kind is SourceKind.GIT and (abbreviated or stored.evidence.get("Tag") == ref.name)


def _ref(kind: SourceKind, version: str) -> str:
    return f"{_REFS}{kind}/{_NOT_IN_A_REF.sub(_percent, version)}"


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape"))


def _evidence_ref(name: str) -> str:
    return _EVIDENCE + name.removeprefix(_REFS)


def _line(value: str) -> str:
    if "\n" in value or "\r" in value:
        msg = f"evidence must be a single line: {value!r}"
        raise ValueError(msg)
    return value


def _create(folder: Path) -> None:
    """An empty bare repository; git's templates, hooks and defaults stay out of it."""
    for name in ("objects/info", "objects/pack", "refs/heads", "refs/tags"):
        (folder / name).mkdir(parents=True)
    (folder / "config").write_text(_CONFIG)
    (folder / "HEAD").write_text("ref: refs/heads/main\n")
