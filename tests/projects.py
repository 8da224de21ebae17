"""A stack in a folder, run through the real entry point: its upstream is a real git repository."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.serving import Server, serving
from tests.upstreams import Files, Upstream, Version, filler, function

from stackpatch.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STRICT, RELAXED = "assert major == 10", "assert major in (10, 12)"
REWORKED = "assert supports(major)"
RECIPE = """\
# The demonstration's recipe; comments stay.
stack: demo
summary: A demonstration
upstream: {{git: "{git}", pypi: demo, package: demo}}
default: "1.0"  # the one that most people run
releases:
  - version: "1.0"
    tag: v1.0
    commit: {commit}
    commit-evidence: {{kind: first-hand, detail: the tag}}
    date: "2026-01-01T00:00:00Z"
{artefacts}    series: v1.0
archs:
  sm120: {{cuda: ">=12.8"}}
  sm121: {{cuda: ">=12.9"}}
caches: [flashinfer-jit]
"""


@dataclass(frozen=True)
class Ran:
    """How a run ended and what it said."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


def gate(line: str, before: str = "") -> str:
    """A module whose function `build` holds the line."""
    return '"""Gates."""\n\nimport sys\n\n\n' + before + function("build", line) + filler(9)


def open_gate(name: str, more: str = "") -> tuple[str, Files, str]:
    """A patch that relaxes the gate of `NAME.py`, with its effect."""
    effect = rf"Effect: {name}.py :: build :: major in \(10, 12\)"
    trailers = f"Upstream-Status: Pending\n{effect}" + (f"\n{more}" if more else "")
    return (f"Open {name}", {f"{name}.py": gate(RELAXED)}, trailers)


class Project:
    """The upstream `up`, a folder `root` with recipe and series, and a package index `index`."""

    def __init__(
        self, folder: Path, index: Server, files: Files, *patches: tuple[str, Files, str]
    ) -> None:
        self.folder = folder
        self.index = index
        self.up = Upstream(folder / "up", files)
        self.root = folder / "root"
        self.series = self.up.series(self.patches / "v1.0", *patches)
        self.write_recipe()

    @property
    def patches(self) -> Path:
        return self.root / "patches" / "demo"

    @property
    def recipe(self) -> Path:
        return self.root / "recipes" / "demo.yaml"

    @property
    def home(self) -> Path:
        """The folder of a rebase under way."""
        return self.root / ".stackpatch" / "rebase" / "demo"

    @property
    def worktree(self) -> Path:
        return self.home / "worktree"

    def write_recipe(self, artefacts: str = "", **changes: str) -> None:
        commit = self.up.versions[0].commit
        text = RECIPE.format(git=self.up.folder, commit=commit, artefacts=artefacts)
        for old, new in changes.items():
            text = text.replace(f"{old}: ", f"{old}: {new} #")
        self.recipe.parent.mkdir(parents=True, exist_ok=True)
        self.recipe.write_text(text)

    def run(self, *words: str) -> Ran:
        """Run the program in this process."""
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            at = words.index("--") if "--" in words else len(words)
            status = main.main([*words[:at], "--root", str(self.root), *words[at:]])
        out.seek(0)
        err.seek(0)
        return Ran(status, out.read(), err.read())

    def child(self, *words: str, python: str = "") -> subprocess.Popen[bytes]:
        """Run the program as a child process; python: statements that it runs first."""
        code = f"{python}\nimport sys\nfrom stackpatch.cli.main import main\n"
        code += f"sys.exit(main({[*words, '--root', str(self.root)]!r}))\n"
        return subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(os.environ),
        )

    def offer(self, version: Version) -> str:
        """Put the version on the index as an sdist; the `artefacts` of a recipe that pins it."""
        prefix = f"demo-{version.version}/"
        archive = subprocess.run(
            ("git", "-C", self.up.folder, "archive", f"--prefix={prefix}", version.commit),
            capture_output=True,
            check=True,
        ).stdout
        content = gzip.compress(archive, mtime=0)
        file = f"demo-{version.version}.tar.gz"
        self.index.put("demo", file, content)
        digest = hashlib.sha256(content).hexdigest()
        return (
            f'    artefacts:\n      - {{file: {file}, sha256: "{digest}", bytes: {len(content)}}}\n'
        )

    def commit(self) -> None:
        """A commit of the person's own in the work tree of a conflict."""
        who = ("-c", "user.name=A", "-c", "user.email=a@example.invalid")
        words = (*who, "commit", "-q", "-a", "--allow-empty", "-m", "mine")
        subprocess.run(("git", "-C", self.worktree, *words), check=True)

    def files(self) -> dict[str, bytes]:
        """Everything in recipes/ and patches/."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for top in ("recipes", "patches")
            for path in sorted((self.root / top).rglob("*"))
            if path.is_file()
        }


@contextlib.contextmanager
def index_only(monkeypatch: Any) -> Iterator[Server]:
    """A package index in this process, the only one that pip's settings name."""
    with serving() as server:
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", server.index)
        monkeypatch.setenv("STACKPATCH_GITHUB_API", f"{server.url}/github")
        yield server
