"""The end of an import: new patches in the series and the new state in the recipe, or neither.

A journal with everything that is to be written comes first and goes last. A failure undoes what
was written; after a kill the next import finishes what the journal says.
"""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackpatch.errors import FindingError, InputError
from stackpatch.storage import directory_beside, lock, sweep, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stackpatch.cli.origin import Origin
    from stackpatch.cli.workspace import Workspace
    from stackpatch.series.adopt import Adopted
    from stackpatch.sources.forks import Foreign

_SCHEMA = "stackpatch.import-journal/1"


@contextlib.contextmanager
def guard(work: Workspace, *, dry_run: bool) -> Iterator[None]:
    """Keep rebases and other imports of the stack out, and finish one that was killed.

    Raises InputError while a rebase is under way, EnvironmentProblem for another run at work.
    """
    if dry_run:
        yield
        return
    home = work.writable() / ".stackpatch"
    stack = work.recipe.stack
    if not (home / ".gitignore").exists():
        write_atomically(home / ".gitignore", b"*\n")
    what = f"another rebase or import of {stack}"
    with lock(home / "rebase" / f"{stack}.lock", wait=0.2, what=what):
        if (home / "rebase" / stack / "state.json").exists():
            msg = f"a rebase of {stack} is under way, and an import would change its series"
            hint = f"`stackpatch rebase {stack} --status`; --continue or --abort ends it"
            raise InputError(msg, hint=hint)
        _finish(work, _journal(work))
        yield


def write(
    work: Workspace,
    origin: Origin,
    found: Foreign,
    rows: Sequence[Adopted],
    trees: tuple[str, str],
) -> Path | None:
    """Write the new patches and the recipe; the series' folder, None where it did not change.

    trees: the release's, and the one with every patch.
    Raises FindingError where the mails do not give the tree again, InputError where the recipe
    cannot be edited as text or the folder is somebody else's.
    """
    from stackpatch.series.adopt import mails
    from stackpatch.series.rebase import gives_again

    if not rows and origin.since is None:
        return None  # a branch without a commit of its own is nothing to follow yet
    new = mails(rows)
    name = work.release.series or f"v{work.release.version}"
    folder = work.collection.patches / work.recipe.stack / name
    if new and work.release.series is None and folder.exists():
        msg = f"{folder} is there already, and the release does not name it"
        raise InputError(msg, hint="name it as the release's series, or remove it")
    listing = (folder / "series").read_bytes() if work.release.series else b""
    if new:
        whole = {patch.name: patch.raw for patch in work.series.patches}
        whole |= new
        if problem := gives_again(work.store.objects, trees[0], whole, trees[1]):
            msg = f"the series would not apply as it was made: {problem}"
            raise FindingError(msg, hint="nothing was written; please report it")
    said = f"# From {origin.shown}, {found.base[:12]}..{found.head[:12]}, by stackpatch import.\n"
    gap = b"" if not listing or listing.endswith(b"\n") else b"\n"
    listing += gap + (said + "".join(f"{one}\n" for one in new)).encode()
    path = work.collection.recipe_path(work.recipe.stack)
    before = path.read_bytes().decode("utf-8")
    after = _recipe(work, origin, found, before, name if new else None, str(path))
    if not new and after == before:
        return None
    journal = {
        "schema": _SCHEMA,
        "folder": name,
        "new_folder": work.release.series is None,
        "files": {one: base64.b64encode(raw).decode() for one, raw in new.items()},
        "series": base64.b64encode(listing).decode() if new else None,
        "recipe": [before, after],
    }
    place = _journal(work)
    old_listing = (folder / "series").read_bytes() if new and work.release.series else None
    write_atomically(place, json.dumps(journal).encode())
    try:
        _put(work, journal)
    except BaseException:
        _undo(folder, new, old_listing, path, before)
        place.unlink(missing_ok=True)
        raise
    place.unlink()
    return folder if new else None


def _recipe(
    work: Workspace, origin: Origin, found: Foreign, text: str, series: str | None, where: str
) -> str:
    """The recipe's text afterwards; read back, so that it says what was meant."""
    from stackpatch.model.recipe_edit import set_fork, set_series
    from stackpatch.model.recipe_file import check_recipe

    if series is not None:
        text = set_series(text, work.release.version, series, where=where)
    if origin.kind == "fork":
        values = {"url": origin.url}
        if origin.branch is not None:
            values["branch"] = origin.branch
        values |= {
            "commit": found.head,
            "base": (origin.base or found.base) if origin.since == found.base else found.base,
            "release": work.release.version,
        }
        text = set_fork(text, values, where=where)
    _, faults = check_recipe(text.encode(), name=work.recipe.stack)
    if faults:
        msg = f"the recipe cannot be edited as text: {faults[0].text}"
        hint = "write its `fork` and `releases` with one key below the other"
        raise InputError(msg, hint=hint, where=f"{where}:{faults[0].line}")
    return text


def _journal(work: Workspace) -> Path:
    return work.root.path / ".stackpatch" / "import" / f"{work.recipe.stack}.json"


def _finish(work: Workspace, place: Path) -> None:
    """Write what a killed import had decided."""
    try:
        journal = json.loads(place.read_bytes())
    except FileNotFoundError:
        return
    except ValueError:
        journal = None
    if not isinstance(journal, dict) or journal.get("schema") != _SCHEMA:
        msg = "the journal of an import that was killed cannot be read"
        raise InputError(msg, hint="look at the series, then remove it", where=str(place))
    path = work.collection.recipe_path(work.recipe.stack)
    if path.read_bytes().decode("utf-8") not in journal["recipe"]:
        msg = "an import was killed while it wrote, and the recipe was edited since"
        hint = f"put recipe and series right by hand, then remove {place}"
        raise InputError(msg, hint=hint, where=str(path))
    _put(work, journal)
    place.unlink()


def _put(work: Workspace, journal: Mapping[str, Any]) -> None:
    """Everything that the journal says; twice gives the same as once."""
    path = work.collection.recipe_path(work.recipe.stack)
    sweep(path.parent, path.name)
    if journal["series"] is not None:
        folder = work.collection.patches / work.recipe.stack / journal["folder"]
        sweep(folder.parent, folder.name)
        files = {name: base64.b64decode(raw) for name, raw in journal["files"].items()}
        listing = base64.b64decode(journal["series"])
        if journal["new_folder"] and not folder.exists():
            with directory_beside(folder) as scratch:
                for name, raw in {**files, "series": listing}.items():
                    write_atomically(scratch / name, raw)
        else:
            for name, raw in {**files, "series": listing}.items():
                write_atomically(folder / name, raw)
    write_atomically(path, journal["recipe"][1].encode())


def _undo(
    folder: Path, new: Mapping[str, bytes], listing: bytes | None, recipe: Path, before: str
) -> None:
    """Everything as it was, as far as the disk lets us."""
    with contextlib.suppress(Exception):
        if recipe.read_bytes().decode("utf-8") != before:
            write_atomically(recipe, before.encode())
    with contextlib.suppress(Exception):
        if listing is not None and (folder / "series").read_bytes() != listing:
            write_atomically(folder / "series", listing)
    for name in new:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    if listing is None and new:
        with contextlib.suppress(OSError):
            (folder / "series").unlink()
            folder.rmdir()
