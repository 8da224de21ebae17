"""A release into a bare repository in one stream to `git fast-import`: one pack, one commit.

The commit depends on its inputs alone. The ref moves after the pack is in place, in the same
program; a stream that ends early (a kill, a refused member) moves nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stackpatch import proc
from stackpatch.errors import EnvironmentProblem
from stackpatch.sources.objects import SYMLINK
from stackpatch.sources.shape import Refusal, Shape, as_input_error

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from stackpatch.sources.archive import Member
    from stackpatch.sources.names import Addition
    from stackpatch.sources.objects import Objects

IDENTITY = "stackpatch <stackpatch@localhost>"

# Nobody's settings reach git where it only works on our own store.
PRIVATE = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

# Measured on flashinfer 0.7.2.post1 (10,235 files, 420 MB): zlib level 3 without deltas 5.5 s and
# 65 MB; level 1 5.2 s, 71 MB; level 3 with deltas against the file before 8 s and 52 MB. Files
# that a release shares with another one are not sent at all, which saves far more.
_SETTINGS = ("core.compression=3", "fastimport.unpackLimit=0", "core.hooksPath=/dev/null")


def write_release(
    objects: Objects,
    ref: str,
    files: Iterable[Member],
    *,
    message: str,
    seconds: int,
    what: str,
    lock: int,
    names: Addition,
) -> None:
    """Make `ref` a commit without parents whose tree has exactly these files.

    message, seconds: the commit's, the time as Unix time in UTC. what: names the release in
    messages. lock: descriptor of the store's lock, which git shall hold as long as it lives.
    names: is offered every file while its content is in hand.
    Raises InputError for files that make no tree, EnvironmentProblem when git cannot write.
    """
    argv = ["git", f"--git-dir={objects.path}"]
    argv += [word for setting in _SETTINGS for word in ("-c", setting)]
    argv += ["fast-import", "--quiet", "--done", "--force", "--depth=0"]
    with _explained(objects.path, what), proc.feeding(argv, env=PRIVATE, pass_fds=(lock,)) as write:
        shape = Shape()
        entries: dict[bytes, bytes] = {}
        sent: set[str] = set()
        for file in files:
            link = file.content.decode("utf-8", "surrogateescape") if file.mode == SYMLINK else None
            if not shape.add(file.path, file.mode, file.blob, link):
                continue
            if file.blob not in sent and not objects.has(file.blob):
                sent.add(file.blob)
                write(b"blob\ndata %d\n" % len(file.content))
                write(file.content)
                write(b"\n")
            names.offer(file.path, file.mode, file.blob, file.content)
            name = file.path.encode("utf-8", "surrogateescape")
            entries[name] = b"M %o %s %s\n" % (file.mode, file.blob.encode(), _quoted(name))
        shape.finish()
        text = message.encode()
        write(b"commit %s\ncommitter %s %d +0000\n" % (ref.encode(), IDENTITY.encode(), seconds))
        write(b"data %d\n%s\n" % (len(text), text))
        for name in sorted(entries):
            write(entries[name])
        write(b"done\n")


class _explained:  # noqa: N801 - reads as a word at its one place
    """Turns what the stream can raise into words about the release."""

    def __init__(self, store: Path, what: str) -> None:
        self._store, self._what = store, what

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Refusal):
            raise as_input_error(error, self._what) from None
        if isinstance(error, EnvironmentProblem):
            words = error.message.lower()
            if "no space left" in words or "disk quota" in words or "file too large" in words:
                msg = f"no space left while storing {self._what} in {self._store}"
                hint = "free some space and run again"
                raise EnvironmentProblem(msg, hint=hint, where=str(self._store)) from error


def _quoted(name: bytes) -> bytes:
    """A path as fast-import reads any path: in double quotes, with C escapes."""
    for raw, escaped in ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\n", b"\\n")):
        name = name.replace(raw, escaped)
    return b'"' + name + b'"'
