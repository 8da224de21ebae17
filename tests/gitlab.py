"""Real git as the laboratory and the oracle: commits, mails, `git apply` and merges, without a
work tree.

Everything is made by `git fast-import` and plumbing in one bare repository, so that names and
contents may be any bytes, and ids are the same on every machine.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackpatch.sources.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WHO = "Ada Example <ada@example.invalid>"
WHEN = "1767225600 +0130"


@dataclass(frozen=True, slots=True)
class Script:
    """An executable file."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: bytes


@dataclass(frozen=True, slots=True)
class Submodule:
    """A submodule at some commit."""

    commit: str = "1" * 40


Thing = bytes | str | Script | Link | Submodule


class Lab:
    """One bare repository. Paths are `str` with surrogate escapes, contents bytes or `str`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ada Example",
            "GIT_AUTHOR_EMAIL": "ada@example.invalid",
            "GIT_COMMITTER_NAME": "Ada Example",
            "GIT_COMMITTER_EMAIL": "ada@example.invalid",
            "GIT_AUTHOR_DATE": WHEN,
            "GIT_COMMITTER_DATE": WHEN,
            "LC_ALL": "C.UTF-8",
        }
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "--bare", "-b", "main", ".")
        self.objects = Objects(folder)

    def run(
        self, *argv: str | bytes, stdin: bytes = b"", index: str = ""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run git here; the caller looks at the status. index: name of an index file."""
        environment = dict(self.environment)
        if index:
            environment["GIT_INDEX_FILE"] = str(self.path / index)
        return subprocess.run(
            ["git", *argv], cwd=self.path, env=environment, input=stdin, capture_output=True
        )

    def git(self, *argv: str | bytes, stdin: bytes = b"", index: str = "") -> bytes:
        """Run git here and insist that it succeeds; its stdout."""
        done = self.run(*argv, stdin=stdin, index=index)
        assert done.returncode == 0, (argv, done.stderr.decode("utf-8", "replace"))
        return done.stdout

    def commit(self, files: Mapping[str, Thing], *parents: str, message: str = "a commit") -> str:
        """A commit that holds exactly these files; its id."""
        text = message.encode("utf-8", "surrogateescape")
        stream = [b"commit refs/lab/it", b"mark :1", f"author {WHO} {WHEN}".encode()]
        stream += [f"committer {WHO} {WHEN}".encode(), b"data %d" % len(text), text]
        stream += [
            b"%s %s" % (b"merge" if number else b"from", parent.encode())
            for number, parent in enumerate(parents)
        ]
        stream.append(b"deleteall")
        for path, thing in files.items():
            mode, content = _mode(thing)
            name = quoted(path.encode("utf-8", "surrogateescape"))
            if isinstance(thing, Submodule):
                stream.append(b"M 160000 %s %s" % (thing.commit.encode(), name))
            else:
                stream += [b"M %s inline %s" % (mode, name), b"data %d" % len(content), content]
        stream += [b"", b"get-mark :1", b"done", b""]
        self.run("update-ref", "-d", "refs/lab/it")
        done = self.git(
            "fast-import", "--quiet", "--force", "--done", "--cat-blob-fd=1",
            stdin=b"\n".join(stream),
        )  # fmt: skip
        return done.decode().strip()

    def tree(self, commit: str) -> str:
        """The tree of a commit, as git says it."""
        return self.git("rev-parse", f"{commit}^{{tree}}").decode().strip()

    def mails(self, *argv: str) -> list[bytes]:
        """`git format-patch` of a range, one mail each."""
        out = self.git("format-patch", "--stdout", "--full-index", "--no-renames", *argv)
        starts = [0] if out else []
        at = out.find(b"\nFrom ")
        while at != -1:
            if out[at + 6 : at + 46].isalnum() and out[at + 46 : at + 71].endswith(b" 2001"):
                starts.append(at + 1)
            at = out.find(b"\nFrom ", at + 1)
        return [out[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]

    def mail(
        self,
        base: Mapping[str, Thing],
        ours: Mapping[str, Thing],
        message: str = "a commit",
        *options: str,
    ) -> bytes:
        """The mail that turns `base` into `ours`; both stay in the repository."""
        parent = self.commit(base)
        (mail,) = self.mails(*options, f"{parent}..{self.commit(ours, parent, message=message)}")
        return mail

    def apply(self, tree: str, mail: bytes, *options: str) -> str | None:
        """The tree that `git apply` makes; None when it refuses."""
        self.git("read-tree", tree, index="lab-index")
        done = self.run("apply", "--cached", *options, stdin=mail, index="lab-index")
        if done.returncode:
            return None
        return self.git("write-tree", index="lab-index").decode().strip()

    def merge(self, base: str, ours: str, theirs: str) -> str | None:
        """The tree of a three-way merge of commits; None when it conflicts."""
        above = self.git("commit-tree", "-m", "x", "-p", base, self.tree(ours)).decode().strip()
        done = self.run("merge-tree", "--write-tree", above, theirs)
        return done.stdout.split()[0].decode() if done.returncode == 0 else None


def _mode(thing: Thing) -> tuple[bytes, bytes]:
    match thing:
        case str():
            return b"100644", thing.encode("utf-8", "surrogateescape")
        case bytes():
            return b"100644", thing
        case Script():
            return b"100755", thing.content
        case Link():
            return b"120000", thing.target
        case Submodule():
            return b"160000", b""


def quoted(name: bytes) -> bytes:
    """A path as fast-import reads it, whatever its bytes."""
    return b'"' + b"".join(b"\\%03o" % byte for byte in name) + b'"'
