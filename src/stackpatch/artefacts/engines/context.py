"""The build context: a folder that is the same on every machine.

An engine keys its cache by a file's content, mode and owner, not by its time, so a layer that it
remembers may carry the time of another build's context. Hence every file here has one time that
depends on nothing, not even on SOURCE_DATE_EPOCH, and lies before any release.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from stackpatch.errors import InputError
from stackpatch.model.git_path import unsafe

if TYPE_CHECKING:
    from collections.abc import Mapping

DOCKERFILE = "Dockerfile"
# 1980-01-01, the oldest time that a zip can hold: a wheel may be built from these files.
CONTEXT_TIME = 315_532_800


class Executable(bytes):
    """Content of a file of the context that may be run."""


def write_context(
    folder: Path, dockerfile: Path, files: Mapping[str, Path | bytes], *, skip: tuple[str, ...] = ()
) -> None:
    """Fill the new folder. files: by path below it, bytes or what to copy, a file or a folder.

    Modes are 0644 or 0755, links stay links. skip: names of files and folders that are left out
    of a copied folder (`.git`). Raises InputError for a path that leaves the folder, for a link
    that does, and for a file that is missing.
    """
    folder.mkdir()
    text = _read(dockerfile)
    _check_dockerfile(dockerfile, text)
    (folder / DOCKERFILE).write_bytes(text)
    for name, source in sorted(files.items()):
        why = unsafe(name)
        if why is not None or name in (DOCKERFILE, ".dockerignore"):
            msg = f"cannot put {name!r} into a build context: {why or 'it is taken'}"
            raise InputError(msg)
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, bytes):
            target.write_bytes(source)
            target.chmod(0o755 if isinstance(source, Executable) else 0o644)
        elif source.is_dir():
            _copy_tree(source, target, skip)
        else:
            _copy_file(source, target)
    _settle(folder)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise InputError(msg, where=str(path)) from error


def _check_dockerfile(path: Path, text: bytes) -> None:
    """A `# syntax=` line would let an engine run a frontend from the network, pinned by nothing."""
    for number, line in enumerate(text.splitlines(), 1):
        plain = line.strip().replace(b" ", b"").lower()
        if not plain.startswith(b"#"):
            return
        if plain.startswith(b"#syntax="):
            msg = f"{path} names a frontend: {line.decode('utf-8', 'replace').strip()}"
            raise InputError(msg, hint="remove the line", where=f"{path}:{number}")


def _copy_file(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
        target.chmod(0o755 if source.stat().st_mode & stat.S_IXUSR else 0o644)
    except FileNotFoundError as error:
        msg = f"cannot put {source} into a build context: it does not exist"
        raise InputError(msg) from error


def _copy_tree(source: Path, target: Path, skip: tuple[str, ...]) -> None:
    root = source.resolve()
    for folder, names, files in os.walk(source):
        here = target / Path(folder).relative_to(source)
        here.mkdir(parents=True, exist_ok=True)
        names[:] = sorted(name for name in names if name not in skip)
        for name in sorted([*files, *(n for n in names if (Path(folder) / n).is_symlink())]):
            if name in skip:
                continue
            path = Path(folder) / name
            if path.is_symlink():
                points_to = Path(os.path.normpath(Path(folder).resolve() / path.readlink()))
                if not points_to.is_relative_to(root):
                    msg = f"{path} is a link that leaves its folder"
                    raise InputError(msg, where=str(path))
                (here / name).symlink_to(path.readlink())
            elif path.is_file():
                _copy_file(path, here / name)
            else:
                msg = f"{path} is no file, no folder and no link"
                raise InputError(msg, where=str(path))


def _settle(folder: Path) -> None:
    for here, names, files in os.walk(folder, topdown=False):
        for name in (*names, *files):
            path = Path(here) / name
            if not path.is_symlink():
                executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if executable else 0o644)
            os.utime(path, (CONTEXT_TIME, CONTEXT_TIME), follow_symlinks=False)
    folder.chmod(0o755)
    os.utime(folder, (CONTEXT_TIME, CONTEXT_TIME))
