"""What an audit can look at, by what the path is: the way to its files."""

from __future__ import annotations

import os
import re
import stat
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from stackpatch.checks.code import DamagedError
from stackpatch.checks.environments import environment
from stackpatch.checks.inflate import Pushed, is_compressed, opened
from stackpatch.checks.layers import image_members, remote_members
from stackpatch.checks.members import Found, Member, Unread, is_archive
from stackpatch.checks.tars import is_tar, tar_members
from stackpatch.checks.window import FileSource, Source
from stackpatch.checks.zips import is_zip, zip_members
from stackpatch.errors import InputError
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackpatch.artefacts.base import OpenRemote

_SNIFF = 512
_PYTHON = re.compile(r"(?:python|pypy)[\d.]*")
# As skopeo and podman call them.
ENGINE = "docker-daemon:"
REGISTRY = "docker://"
# `HOST/REPOSITORY`, `NAME:TAG`, `…@sha256:…`: what is no path that somebody meant.
_IMAGE = re.compile(
    r"(?:[\w.-]+(?::\d+)?/)?[a-z0-9][\w.-]*(?:/[\w.-]+)*(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?"
)
# How files begin that hold others in a way that is not read here.
_NOT_READ = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"!<arch>\ndebian-binary": "deb",
    b"\xed\xab\xee\xdb": "rpm",
    b"hsqs": "squashfs",
}


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
            yield from _single(path)
        case TargetKind.FOLDER:
            yield from folder_members(path)
        case TargetKind.ENVIRONMENT:
            found = environment(path)
            for folder in found.folders:
                prefix = "" if len(found.folders) == 1 else f"{folder}/"
                yield from folder_members(folder, prefix)
            yield from found.beyond
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


def _single(path: Path) -> Iterator[Found]:
    """A file that is neither a zip nor a tar; one that is compressed is read as what it expands to.

    Raises InputError for one that holds others in a way that is not read here.
    """
    with _opened(path) as source:
        start = source.read(_SNIFF)
    packing = next((name for magic, name in _NOT_READ.items() if start.startswith(magic)), None)
    if packing is not None:
        msg = f"{path} is packed with {packing}, which is not read here"
        raise InputError(msg, hint="unpack it and audit the folder", where=str(path))
    if is_archive(path.name) and not is_compressed(start):
        msg = f"{path} is no whole archive: it begins like none that is read here"
        raise InputError(msg, hint="fetch it again", where=str(path))
    with _opened(path) as source:
        yield Member(path.name, opened(source) if is_compressed(start) else source)


def _file(path: str, shown: str) -> Iterator[Found]:
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
