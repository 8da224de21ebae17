"""A fork of a demonstration's upstream, and pull requests of it, as real git repositories."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.upstreams import _ENV, Files

if TYPE_CHECKING:
    from pathlib import Path

    from tests.projects import Project

DRIVER = {
    "GIT_AUTHOR_NAME": 'Fork, Dr. "F"',
    "GIT_AUTHOR_EMAIL": "fork@example.invalid",
    "GIT_AUTHOR_DATE": "2026-02-01T12:00:00+0130",
}


class Fork:
    """A clone of the project's upstream with a branch `work` that starts at its release 1.0."""

    def __init__(self, project: Project, folder: Path, at: str = "v1.0") -> None:
        self.folder = folder
        self.upstream = project.up
        subprocess.run(
            ("git", "clone", "-q", "--no-local", project.up.folder, folder),
            env=os.environ | _ENV,
            check=True,
            capture_output=True,
        )
        self.git("checkout", "-q", "-b", "work", at)

    @property
    def url(self) -> str:
        return f"file://{self.folder}"

    def git(self, *words: str, **environment: str) -> str:
        """Run git in the fork; standard output without its last line feed."""
        done = subprocess.run(
            ("git", "-C", self.folder, *words),
            env=os.environ | _ENV | DRIVER | environment,
            capture_output=True,
        )
        assert done.returncode == 0, (words, done.stderr.decode())
        return done.stdout.decode("utf-8", "surrogateescape").rstrip("\n")

    def write(self, files: Files) -> None:
        """Write files (None: remove) and stage everything."""
        for name, content in files.items():
            path = self.folder / name
            if content is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.encode("utf-8", "surrogateescape"))
        self.git("add", "-A")

    def commit(self, files: Files, message: str) -> str:
        """Write files and commit; the commit's id."""
        self.write(files)
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def pull(self, number: int) -> str:
        """Offer the branch as a pull request at the upstream; its address."""
        head = f"HEAD:refs/pull/{number}/head"
        self.git("push", "-q", "--force", str(self.upstream.folder), head)
        return f"https://github.com/someone/{self.upstream.folder.name}/pull/{number}"
