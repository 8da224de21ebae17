"""What an audit can look at, by what the path is: the way to its files."""

from __future__ import annotations

import json
import os
import re
import stat
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from stackpatch import proc
from stackpatch.checks.code import DamagedError
from stackpatch.checks.inflate import Pushed, opened
from stackpatch.checks.layers import image_members, remote_members
from stackpatch.checks.members import Found, Member, Unread
from stackpatch.checks.tars import is_tar, tar_members
from stackpatch.checks.window import FileSource, Source
from stackpatch.checks.zips import is_zip, zip_members
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackpatch.artefacts.base import OpenRemote

_SNIFF = 512
_ARCHIVES = (".whl", ".zip", ".egg", ".conda", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2")
_PYTHON = re.compile(r"(?:python|pypy)[\d.]*")
# As skopeo and podman call them.
ENGINE = "docker-daemon:"
REGISTRY = "docker://"
# `HOST/REPOSITORY`, `NAME:TAG`, `…@sha256:…`: what is no path that somebody meant.
_IMAGE = re.compile(
    r"(?:[\w.-]+(?::\d+)?/)?[a-z0-9][\w.-]*(?:/[\w.-]+)*(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?"
)
# Prints what the interpreter imports from, without what the caller's environment would add.
_ASK = "import json, sys; print(json.dumps(sys.path))"
_ASK_TIMEOUT = 60.0


class TargetKind(StrEnum):
    """What a target was taken for."""

    ZIP = "zip"
    TAR = "tar"
    FILE = "file"
    FOLDER = "folder"
    ENVIRONMENT = "environment"
    IMAGE = "image"
    REGISTRY = "registry"
    ENGINE = "engine"


def target_kind(target: str, *, remote: OpenRemote | None = None) -> TargetKind:
    """What the target is. remote: opens images in registries, None where nobody can.

    Raises InputError when there is nothing that can be audited.
    """
    if target.startswith(ENGINE):
        return TargetKind.ENGINE
    if target.startswith(REGISTRY) and remote is not None:
        return TargetKind.REGISTRY
    path = Path(target)
    layout, digest = _split(target)
    if digest is not None and (layout / "oci-layout").is_file():
        return TargetKind.IMAGE
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if remote is not None and _names_image(target):
            return TargetKind.REGISTRY
        raise _missing(target) from error
    if stat.S_ISDIR(mode):
        if (path / "oci-layout").is_file():
            return TargetKind.IMAGE
        return TargetKind.ENVIRONMENT if (path / "pyvenv.cfg").is_file() else TargetKind.FOLDER
    if not stat.S_ISREG(mode):
        msg = f"{target} is neither a file nor a folder"
        raise InputError(msg)
    if _PYTHON.fullmatch(path.name) and os.access(path, os.X_OK):
        return TargetKind.ENVIRONMENT
    with _opened(path) as source:
        start = source.read(_SNIFF)
    if is_zip(start):
        return TargetKind.ZIP
    with _opened(path) as source:
        return TargetKind.TAR if is_tar(_expanded_start(source)) else TargetKind.FILE


def target_members(
    target: str, kind: TargetKind, platform: str, *, remote: OpenRemote | None = None
) -> Iterator[Found]:
    """Every file of the target, in a fixed order. platform: which image of several is meant.

    Raises InputError when the target as a whole cannot be read, EnvironmentProblem for the
    network and the engine.
    """
    path = Path(target)
    match kind:
        case TargetKind.ZIP:
            yield from zip_members(path)
        case TargetKind.TAR:
            with _opened(path) as source:
                yield from tar_members(opened(source))
        case TargetKind.FILE:
            with _opened(path) as source:
                yield Member(path.name, source)
        case TargetKind.FOLDER:
            yield from folder_members(path)
        case TargetKind.ENVIRONMENT:
            folders = environment_folders(path)
            for folder in folders:
                yield from folder_members(folder, "" if len(folders) == 1 else f"{folder}/")
        case TargetKind.IMAGE:
            layout, digest = _split(target)
            yield from image_members(layout, platform, digest)
        case TargetKind.REGISTRY:
            if remote is None:
                raise _missing(target)
            yield from remote_members(remote(target.removeprefix(REGISTRY)), platform)
        case TargetKind.ENGINE:
            yield from engine_members(target.removeprefix(ENGINE))


def engine_members(reference: str) -> Iterator[Found]:
    """Every file that a container of an engine's image would have, as the engine exports it."""
    from stackpatch.artefacts.engines.bring import Pieces, container_tar

    with container_tar(reference) as pieces:
        yield from tar_members(Pushed(b"", Pieces(pieces)))


def folder_members(root: Path, prefix: str = "") -> Iterator[Found]:
    """Every regular file below a folder, sorted; prefix: put before each path.

    A symbolic link counts where it leads out of the folder (uv's environments hold links into
    its cache); inside, the file itself is met anyway.
    """
    real_root = os.path.realpath(root)
    seen: set[tuple[int, int]] = set()
    waiting = [(str(root), prefix)]
    while waiting:
        folder, shown = waiting.pop()
        try:
            status = os.stat(folder)  # noqa: PTH116 - a str from scandir
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield Unread(shown.rstrip("/") or ".", f"cannot be read: {error.strerror}")
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        below = []
        for entry in entries:
            path = shown + entry.name
            if entry.is_symlink() and _inside(entry.path, real_root):
                continue
            try:
                if entry.is_dir():
                    below.append((entry.path, f"{path}/"))
                elif entry.is_file():
                    yield from _file(entry.path, path)
            except OSError as error:
                yield Unread(path, f"cannot be read: {error.strerror}")
        waiting += reversed(below)


def environment_folders(path: Path) -> tuple[Path, ...]:
    """The folders with installed packages of a virtual environment or an interpreter.

    Raises InputError for an environment without any, EnvironmentProblem when the interpreter
    does not run.
    """
    if path.is_dir():
        found = [
            folder
            for pattern in ("lib/python*/site-packages", "lib64/python*/site-packages")
            for folder in sorted(path.glob(pattern))
        ]
        found += [folder for folder in (path / "Lib" / "site-packages",) if folder.is_dir()]
    else:
        # -I: without PYTHONPATH, the current folder and the user's own site folder.
        asked = proc.run([path.absolute(), "-I", "-c", _ASK], timeout=_ASK_TIMEOUT).text()
        try:
            entries = [Path(entry) for entry in json.loads(asked)]
        except (ValueError, TypeError) as error:
            msg = f"{path} does not answer like a Python interpreter"
            raise EnvironmentProblem(msg) from error
        standard = {Path(os.path.realpath(e)) for e in entries if (e / "os.py").is_file()}
        found = [
            entry
            for entry in entries
            if entry.is_dir()
            and not any(Path(os.path.realpath(entry)) in (s, s / "lib-dynload") for s in standard)
        ]
    unique = {os.path.realpath(folder): folder for folder in reversed(found)}
    if not unique:
        msg = f"{path} has no folder with installed packages"
        raise InputError(msg, hint="name the site-packages folder itself")
    return tuple(sorted(unique.values()))


def _file(path: str, shown: str) -> Iterator[Found]:
    """One file; an archive among files is said to be unread, not silently passed over."""
    if path.lower().endswith(_ARCHIVES):
        yield Unread(shown, "an archive inside the target is not opened; audit it by itself")
        return
    try:
        source = FileSource(Path(path))
    except OSError as error:
        yield Unread(shown, f"cannot be read: {error.strerror}")
        return
    with source:
        yield Member(shown, source)


def _inside(link: str, real_root: str) -> bool:
    real = os.path.realpath(link)
    return real == real_root or real.startswith(real_root.rstrip("/") + "/")


def _opened(path: Path) -> FileSource:
    try:
        return FileSource(path)
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise InputError(msg, where=str(path)) from error


def _expanded_start(source: Source) -> bytes:
    try:
        expanded = opened(source)
        start = b""
        while len(start) < _SNIFF and (piece := expanded.read(_SNIFF - len(start))):
            start += piece
    except DamagedError:
        return b""
    return start


def _split(target: str) -> tuple[Path, Digest | None]:
    """A layout's folder and the digest that `DIR@sha256:…` names."""
    folder, mark, digest = target.rpartition("@sha256:")
    if not mark:
        return Path(target), None
    try:
        return Path(folder), Digest.parse(digest)
    except ValueError:
        return Path(target), None


def _names_image(target: str) -> bool:
    """Whether a target that is no path is an image's name: with a tag, a digest or a host."""
    if target.startswith(("/", ".")) or not _IMAGE.fullmatch(target):
        return False
    host, mark, _ = target.partition("/")
    return ":" in target or "@" in target or (bool(mark) and "." in host)


def _missing(target: str) -> InputError:
    msg = f"{target} does not exist"
    hint = (
        "name a wheel, a folder, a Python environment, an OCI layout, an image in a registry "
        "with its tag or digest, or `docker-daemon:IMAGE`"
    )
    return InputError(msg, hint=hint)
