"""Small upstream projects as real git repositories, and series made against them by real git."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch.model.series import Series, load_series
from stackpatch.sources.objects import Objects

if TYPE_CHECKING:
    from pathlib import Path

_ENV = {
    "GIT_AUTHOR_NAME": "Upstream",
    "GIT_AUTHOR_EMAIL": "up@example.invalid",
    "GIT_COMMITTER_NAME": "Upstream",
    "GIT_COMMITTER_EMAIL": "up@example.invalid",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}

Files = Mapping[str, str | None]


@dataclass(frozen=True)
class Version:
    """One tag of the upstream: what `matrix` wants to know of it."""

    version: str
    commit: str
    tree: str


class Upstream:
    """A repository whose main branch is the upstream, with tags."""

    def __init__(self, folder: Path, files: Files, version: str = "1.0") -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        self.versions: list[Version] = []
        self.release(version, files)

    def git(self, *words: str) -> str:
        """Run git in the repository; standard output without its last line feed."""
        done = subprocess.run(
            ("git", "-C", self.folder, *words),
            env=os.environ | _ENV,
            capture_output=True,
            check=True,
        )
        return done.stdout.decode("utf-8", "surrogateescape").rstrip("\n")

    def commit(self, files: Files, message: str) -> str:
        """Write files (None: remove) and commit; the commit's id."""
        for name, content in files.items():
            path = self.folder / name
            if content is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.encode("utf-8", "surrogateescape"))
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def release(self, version: str, files: Files, message: str | None = None) -> Version:
        """Commit and tag a version."""
        commit = self.commit(files, message or f"release {version}")
        self.git("tag", f"v{version}")
        made = Version(version, commit, self.git("rev-parse", "HEAD^{tree}"))
        self.versions.append(made)
        return made

    def series(self, folder: Path, *patches: tuple[str, Files, str], on: str = "1.0") -> Series:
        """A series of (subject, files, trailers) on a version, as mails in a folder."""
        self.git("checkout", "-q", "-B", "work", f"v{on}")
        for subject, files, trailers in patches:
            message = f"{subject}\n\nWhy.\n" + (f"\n{trailers}" if trailers else "")
            self.commit(files, message)
        folder.mkdir(parents=True, exist_ok=True)
        plain = ("--full-index", "--no-signature", "--no-stat", "--zero-commit", "-N")
        made = self.git("format-patch", *plain, "-o", str(folder), f"v{on}").splitlines()
        listing = "# our patches\n" + "".join(f"{line.rsplit('/', 1)[-1]}\n" for line in made)
        (folder / "series").write_text(listing)
        self.git("checkout", "-q", "main")
        return load_series(folder)

    @property
    def objects(self) -> Objects:
        """The repository's objects."""
        return Objects(self.folder / ".git")


def function(name: str, *lines: str, args: str = "props") -> str:
    """A Python function that starts and ends like its siblings."""
    body = "".join(f"    {line}\n" for line in lines)
    head = f"def {name}({args}):\n    device = props.device\n    stream = props.stream\n"
    head += "    minor = props.minor\n    major = props.major\n"
    return f"{head}{body}    check_shape(device)\n    launch(device)\n    return device\n\n\n"


def filler(count: int, word: str = "filler") -> str:
    """Lines between functions, so that their contexts do not meet."""
    return "".join(f"{word}_{number} = {number}\n" for number in range(count)) + "\n\n"
