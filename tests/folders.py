"""A small folder with recipes and patches for the tests of what reads such folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = """\
stack: demo
summary: A demonstration
upstream: {git: https://example.org/demo.git, pypi: demo, package: demo}
default: "1.0"
releases:
  - version: "1.0"
    tag: v1.0
    commit: 0123456789abcdef0123456789abcdef01234567
    commit-evidence: {kind: second-hand, detail: somebody says so}
    date: "2026-02-06T00:28:21Z"
    artefacts:
      - file: demo-1.0-py3-none-any.whl
        sha256: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
        bytes: 10
    series: v1.0
archs:
  sm120: {cuda: ">=12.8"}
  sm121: {cuda: ">=12.9", notes: DGX Spark}
caches: [flashinfer-jit]
"""

TRAILERS = """\
Upstream-Status: Submitted [https://example.org/pull/1]
Effect: demo/x.py :: * :: b = 2
"""


def mail(subject: str = "demo: add b", *, trailers: str = TRAILERS, path: str = "demo/x.py") -> str:
    """A `git format-patch` mail that adds a line to a file."""
    return f"""\
From 0123456789abcdef0123456789abcdef01234567 Mon Sep 17 00:00:00 2001
From: A Person <person@example.org>
Date: Fri, 6 Feb 2026 00:28:21 +0000
Subject: [PATCH] {subject}

Because b was missing.

{trailers}---
 {path} | 1 +
 1 file changed, 1 insertion(+)

diff --git a/{path} b/{path}
index 1111111..2222222 100644
--- a/{path}
+++ b/{path}
@@ -1,2 +1,3 @@
 a = 1
+b = 2
 c = 3
--
2.39.5
""".replace("\n--\n2.39.5", "\n-- \n2.39.5\n")


def make_folder(
    root: Path,
    *,
    recipes: dict[str, str] | None = None,
    series: dict[str, dict[str, str]] | None = None,
) -> Path:
    """Write a folder; by default one stack, one release, one patch, nothing wrong.

    recipes: file name -> text. series: folder below patches/ -> file name -> text.
    """
    for name, text in ({"demo.yaml": RECIPE} if recipes is None else recipes).items():
        path = root / "recipes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    good = {"demo/v1.0": {"series": "0001.patch\n", "0001.patch": mail()}}
    for folder, files in (good if series is None else series).items():
        for name, text in files.items():
            path = root / "patches" / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for name in ("recipes", "patches"):
        (root / name).mkdir(parents=True, exist_ok=True)
    return root
