"""The address of a git repository as papers write it: a URI, whatever git was told."""

from __future__ import annotations

import urllib.parse


def repository_uri(git: str) -> str:
    """`https://…`, `ssh://git@HOST/PATH` for `git@HOST:PATH`, `file:///…` for a path."""
    if "://" in git:
        return git
    if git.startswith("/"):
        return f"file://{urllib.parse.quote(git)}"
    host, _, path = git.partition(":")
    return f"ssh://{host}/{urllib.parse.quote(path.lstrip('/'))}"


def commit_page(git: str, commit: str) -> str | None:
    """Where a person can read the commit; None for a repository that is on no web server."""
    uri = repository_uri(git)
    if not uri.startswith(("https://", "http://")):
        return None
    return f"{uri.removesuffix('.git')}/commit/{commit}"
