"""Everything that a matrix can depend on, in one digest, before any of it is parsed.

The recipes, the series, what the source stores hold, and the code that judges and words it. Reading
those bytes takes some milliseconds; parsing them, and the libraries for that, take most of what a
remembered matrix would. What comes over the network is not among them: see `Question.decided_here`.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackpatch.cli.roots import find_root
from stackpatch.errors import InputError
from stackpatch.model import own_code
from stackpatch.series.rules import rules, versions
from stackpatch.sources.fingerprint import fingerprint
from stackpatch.storage import cache_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LARGEST = 1 << 24
# What makes a document of the verdicts; what makes a question of the words and finds what it means.
_WORDING = ("cli/matrix_answer.py", "cli/output.py")
_ASKING = tuple(
    f"cli/{name}.py"
    for name in ("commands", "context", "main", "matrix", "matrix_inputs", "roots", "workspace")
)
_LIBRARIES = ("packaging", "pydantic", "pyyaml", "typer")


@dataclass(frozen=True, slots=True)
class Question:
    """What a run of `stackpatch matrix` asked.

    stacks: as a person names them, with or without a release; None for every one with a series.
    root: what `--root` names. json: whether the answer is wanted as a document.
    """

    stacks: tuple[str, ...] | None
    refs: str
    root: str | None
    offline: bool
    json: bool

    @property
    def several(self) -> bool:
        """Whether the answer is a list of matrices rather than one."""
        return self.stacks is None or len(self.stacks) > 1

    @property
    def decided_here(self) -> bool:
        """Whether the files on this machine alone decide the answer.

        Without `--offline` a range asks the package index which versions there are, and a branch
        is asked for again.
        """
        return self.offline or self.refs == "stored"

    @property
    def folder(self) -> Path:
        """The folder with recipes and patches. Raises InputError where there is none."""
        return find_root(None if self.root is None else Path(self.root)).path

    def to_json(self) -> dict[str, Any]:
        """The question as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: Any) -> Question:
        """What `to_json` gave. Raises KeyError or TypeError for something else."""
        asked = cls(**{**said, "stacks": None if said["stacks"] is None else tuple(said["stacks"])})
        kinds: dict[str, Any] = {"refs": str, "root": str | None, "offline": bool, "json": bool}
        right = all(isinstance(getattr(asked, name), kind) for name, kind in kinds.items())
        if not right or not all(isinstance(stack, str) for stack in asked.stacks or ()):
            msg = f"no question: {said!r}"
            raise TypeError(msg)
        return asked


def wording() -> str:
    """The digest of the code that makes a document of verdicts."""
    return own_code.digest(*_WORDING)


def asked_here(words: Sequence[str]) -> str:
    """The digest of the words on the command line and of the places that decide what they mean."""
    try:
        here = str(Path.cwd())
    except FileNotFoundError:  # it was removed under us
        here = ""
    places = [here, str(cache_root())]
    return hashlib.sha256(json.dumps([*places, *words]).encode()).hexdigest()


def state(question: Question) -> str | None:
    """The digest of all that the answer can depend on; None where that is not sure.

    An unreadable file, a link to a folder, something that is no plain file: those who use them
    say what is wrong with them.
    """
    whole = hashlib.sha256(f"{rules()} {wording()}".encode())
    whole.update(json.dumps([own_code.digest(*_ASKING), *versions(*_LIBRARIES)]).encode())
    try:
        folder = question.folder
        names = sorted(entry.name for entry in os.scandir(folder / "recipes"))
        known = [name.removesuffix(".yaml") for name in names if name.endswith(".yaml")]
        wanted = sorted({name.partition("@")[0] for name in question.stacks or known})
        if not set(wanted) <= set(known):
            return None
        whole.update(os.fsencode(f"{folder} {known} {wanted}"))
        for stack in wanted:
            for path in (folder / "recipes" / f"{stack}.yaml", *_files(folder / "patches" / stack)):
                content = _plain(path)
                whole.update(os.fsencode(f"{path}\0{len(content)}\0"))
                whole.update(content)
            whole.update(fingerprint(cache_root() / "sources" / f"{stack}.git").encode())
    except (InputError, OSError, _UnclearError):
        return None
    return whole.hexdigest()


class _UnclearError(Exception):
    """What lies here cannot be told by the bytes of plain files below it."""


def _files(folder: Path) -> Iterator[Path]:
    """Every file below the folder, always in the same order; none where it is not there."""

    def refuse(error: OSError) -> None:
        if not (isinstance(error, FileNotFoundError) and error.filename == str(folder)):
            raise error

    for place, below, names in os.walk(folder, onerror=refuse):
        below.sort()
        here = Path(place)
        if any((here / name).is_symlink() for name in below):
            raise _UnclearError
        for name in sorted(names):
            yield here / name


def _plain(path: Path) -> bytes:
    """The content of a plain file of a size that a recipe or a patch can have."""
    if not path.is_file():  # a pipe or a device would never end
        raise _UnclearError
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise _UnclearError
    return content
