"""The download cache: files under their sha256, complete and checked, or not there at all.

A download grows as a hidden `.part` beside its final place, hashed as it streams. An interrupted
one goes on where the server proves (206) that it can; whatever way the bytes came, only the
sha256 of the whole lets the file take its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch import storage
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.sources.transport import Interrupted, Transport, redact

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stackpatch.sources.transport import Answer

    Progress = Callable[[int, int | None], None]

_LIMIT = 16 << 30  # bytes, where nobody says how large a file is
_MOST_INTERRUPTIONS = 100
_LOCK_WAIT = 3600.0  # seconds for another process that downloads the same file
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Pinned:
    """A file that is wanted: its name, its sha256 (64 hex digits), its size in bytes if known."""

    file: str
    sha256: str
    size: int | None = None


@dataclass(slots=True)
class DownloadCache:
    """The folder with the downloads. root: usually `cache_root() / "downloads"`."""

    root: Path

    def path(self, wanted: Pinned) -> Path:
        """Where the file lies once it is there. Raises InputError for a name that is none."""
        plain = wanted.file not in {"", ".", ".."} and not wanted.file.startswith(".")
        if not plain or re.search(r"[/\\\x00-\x1f]", wanted.file):
            msg = f"not a file name: {wanted.file!r}"
            raise InputError(msg)
        return self.root / "sha256" / wanted.sha256 / wanted.file

    def find(self, wanted: Pinned) -> Path | None:
        """The file, hashed again just now; None when it is absent or damaged."""
        path = self.path(wanted)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None
        return path if digest == wanted.sha256 else None

    def fetch(
        self,
        wanted: Pinned,
        locate: Callable[[], str],
        transport: Transport,
        progress: Progress | None = None,
    ) -> Path:
        """The file, downloaded if it is not there yet.

        locate: asks an index for the URL; not called when the file is there. progress: bytes
        there, of how many. Two processes download a file once. Raises EnvironmentProblem.
        """
        path = self.path(wanted)
        lock = self.root / "locks" / wanted.sha256
        with storage.lock(lock, wait=_LOCK_WAIT, what=f"another download of {wanted.file}"):
            found = self.find(wanted)
            if found is not None:
                return found
            with storage.disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)  # damaged, or find() had found it
                part = path.with_name(f".{path.name}.part")
                _Download(wanted, locate(), transport, part, progress).run()
                part.chmod(0o644)
                part.replace(path)
        return path


@dataclass(slots=True)
class _Download:
    """One file on its way into its part."""

    wanted: Pinned
    url: str
    transport: Transport
    part: Path
    progress: Progress | None
    # Whether a wrong digest may be ours: the part began in another run, or nobody said a length.
    doubtful: bool = False

    def run(self) -> None:
        """Fill the part until it is the file. Raises EnvironmentProblem."""
        self.doubtful = self._size() > 0
        digest = self._until_complete()
        if digest != self.wanted.sha256 and self.doubtful:
            self.part.unlink()
            digest = self._until_complete()
        if digest != self.wanted.sha256:
            what = f"a file with sha256 {digest}"
            raise self._refuse(what, "nothing of it is kept")

    def _until_complete(self) -> str:
        """The sha256 of the complete part, over as many requests as it takes."""
        attempt = 0
        for _ in range(_MOST_INTERRUPTIONS):
            before = self._size()
            try:
                return self._transfer()
            except Interrupted as error:
                attempt = 1 if self._size() > before else attempt + 1
                what = f"{self.wanted.file} could not be downloaded"
                last = attempt > self.transport.settings.retries
                self.transport.wait(attempt, error, what, last=last)
        msg = f"{self.wanted.file} could not be downloaded: {_MOST_INTERRUPTIONS} interruptions"
        raise EnvironmentProblem(msg, hint="run again: it goes on where it stopped")

    def _transfer(self) -> str:
        """One request; the sha256 of the part after it."""
        have, size = self._size(), self.wanted.size
        if size is not None and have == size:
            return self._hash().hexdigest()  # killed between the last byte and the rename
        if size is not None and have > size:
            have = 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        with self.transport.open(self.url, headers) as answer:
            have, total = self._judge(answer, have)
            hasher = self._hash() if have else hashlib.sha256()
            limit = _LIMIT if total is None else total
            with self.part.open("ab" if have else "wb") as out:
                for block in answer.chunks:
                    if not have and _is_page(answer, block):
                        hint = "a proxy or a login page answers in its place"
                        what = "an HTML page"
                        raise self._refuse(what, hint)
                    have += len(block)
                    if have > limit:
                        what = f"more than {limit:,} bytes"
                        raise self._refuse(what, "nothing of it is kept")
                    out.write(block)
                    hasher.update(block)
                    if self.progress:
                        self.progress(have, total)
                out.flush()
                os.fsync(out.fileno())
        if total is None:
            self.doubtful = True
        elif have < total:
            reason = (
                f"the connection to {redact(self.url)} broke off at {have:,} of {total:,} bytes"
            )
            raise Interrupted(reason)
        return hasher.hexdigest()

    def _judge(self, answer: Answer, have: int) -> tuple[int, int | None]:
        """Where the body starts in the file, and how large the file is, if anybody knows."""
        shown, wanted = redact(answer.url), self.wanted
        if answer.status in {404, 410}:
            msg = f"{wanted.file} is not at {shown} ({answer.status})"
            raise EnvironmentProblem(msg, hint="the index names a file that its server has not")
        if answer.status == 416:  # our part is longer than the file: not its beginning
            self.part.unlink(missing_ok=True)
            reason = f"{shown} has nothing behind byte {have:,}"
            raise Interrupted(reason, 0)
        length = answer.headers.get("Content-Length", "")
        size = int(length) if length.isdigit() else None
        if answer.status == 206:
            proof = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if proof is None or int(proof[1]) != have:
                self.part.unlink(missing_ok=True)
                reason = f"{shown} answered with another range than we asked for"
                raise Interrupted(reason, 0)
            size = None if proof[2] == "*" else int(proof[2])
        else:
            have = 0
        page = answer.headers.get("Content-Type", "").startswith("text/html")
        if size is not None and wanted.size not in (None, size) and not page:
            what = f"a file of {size:,} bytes, not {wanted.size:,}"
            raise self._refuse(what, "look at the pin")
        return have, size if wanted.size is None or page else wanted.size

    def _refuse(self, what: str, hint: str) -> EnvironmentProblem:
        self.part.unlink(missing_ok=True)
        wanted = self.wanted
        msg = f"{redact(self.url)} gave {what} for {wanted.file}, whose sha256 is {wanted.sha256}"
        return EnvironmentProblem(msg, hint=hint)

    def _hash(self) -> hashlib._Hash:
        with self.part.open("rb") as file:
            return hashlib.file_digest(file, "sha256")

    def _size(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self.part.stat().st_size
        return 0


def _is_page(answer: Answer, start: bytes) -> bool:
    """Whether the server sends a page where a file should be: it says so and it looks like it."""
    says = answer.headers.get("Content-Type", "").startswith("text/html")
    return says and start.lstrip()[:1] == b"<"
