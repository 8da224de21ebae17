"""A small stack for build tests: recipe, series, wheel, all made here."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.wheels import FILES, make_wheel

from stackpatch.artefacts.base import Base, open_base
from stackpatch.artefacts.build import BuildResult, Prepared, build
from stackpatch.artefacts.plan import Plan, make_plan
from stackpatch.artefacts.shipped import Shipped
from stackpatch.model.arch import parse_arch
from stackpatch.model.recipe_file import parse_recipe
from stackpatch.model.series import Series, parse_series

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.model.recipe import Recipe

RECIPE = """\
stack: demo
summary: A package for tests
upstream:
  git: https://git.test/demo/demo.git
  pypi: demo
  package: demo
layouts:
  wheel:
    - {{here: demo/, git: demo/}}
    - {{here: demo/data/, git: ""}}
    - {{here: demo/_meta.py, git: null}}
default: "1.2.3"
releases:
  - version: "1.2.3"
    tag: v1.2.3
    commit: a123456789012345678901234567890123456789
    commit-evidence: {{kind: first-hand, detail: read from the wheel}}
    date: "2026-02-05T00:00:24Z"
    artefacts:
      - {{file: {file}, sha256: "{sha256}", bytes: {size}}}
    series: v1.2.3
    stamp: {{path: demo/_meta.py, variable: __version__}}
archs:
  sm121:
    env: {{DEMO_ARCH: "12.1a"}}
    cuda: ">=12.9"
  sm120:
    cuda: ">=12.8"
caches: [flashinfer-jit]
shadowed-by: [torch]
"""

GATE = """\
From 1111111111111111111111111111111111111111 Mon Sep 17 00:00:00 2001
From: A Person <a@example.invalid>
Date: Thu, 5 Feb 2026 10:00:00 +0100
Subject: [PATCH] gate: open it for 12

Closed for no reason.

Upstream-Status: Submitted [https://github.com/demo/demo/pull/77]
Bug: https://github.com/demo/demo/issues/7
---
 demo/gate.py | 2 +-

diff --git a/demo/gate.py b/demo/gate.py
--- a/demo/gate.py
+++ b/demo/gate.py
@@ -1,4 +1,4 @@
-MAJORS = [10]
+MAJORS = [10, 12]
\x20
\x20
 def allowed(major):
--\x20
2.39.5
"""
TESTS = (
    GATE.replace("1111111111", "2222222222")
    .replace("gate: open it for 12", "tests: try it")
    .replace("Submitted [https://github.com/demo/demo/pull/77]", "Inappropriate")
    .replace("Bug: https://github.com/demo/demo/issues/7", "Arch: sm121")
    .replace("demo/gate.py", "tests/test_gate.py")
)
PATCHED_GATE = FILES["demo/gate.py"].replace(b"[10]", b"[10, 12]")


@dataclass(frozen=True)
class Stack:
    """Everything that a build of the small stack needs."""

    recipe: Recipe
    series: Series
    wheel: Path

    def plan(self, *, arch: str = "sm121", base: Base, engine: str = "auto") -> Plan:
        """The plan for an arch."""
        release = self.recipe.release()
        return make_plan(
            self.recipe, release, parse_arch(arch), self.series, engine=engine, base=base.pinned
        )

    def prepared(self) -> Prepared:
        """The wheel and the change of the gate, as applying the series gives them."""
        shipped = Shipped(
            {"demo/gate.py": PATCHED_GATE},
            {},
            {"demo/gate.py": hashlib.sha256(FILES["demo/gate.py"]).hexdigest()},
            ("tests/test_gate.py",),
        )
        return Prepared(self.wheel, shipped)

    def build(
        self, out: Path, *, base: str = "scratch", arch: str = "sm121", **options: Any
    ) -> BuildResult:
        """Build below `out`; options: what `open_base` takes more."""
        opened = open_base(base, parse_arch(arch), **options)
        return build(self.plan(arch=arch, base=opened), opened, self.prepared, out=out)


def make_stack(
    folder: Path, *, gate: str = GATE, name: str = "demo-1.2.3-py3-none-any.whl"
) -> Stack:
    """The stack, its wheel in the folder; uncompressed, so that its digest is known."""
    wheel = make_wheel(folder, name=name, method=zipfile.ZIP_STORED)
    content = wheel.read_bytes()
    text = RECIPE.format(
        file=wheel.name, sha256=hashlib.sha256(content).hexdigest(), size=len(content)
    )
    recipe = parse_recipe("recipes/demo.yaml", text.encode(), name="demo")
    files = {"0001-gate.patch": gate.encode(), "0002-tests.patch": TESTS.encode()}
    series = parse_series("patches/demo/v1.2.3", "\n".join(files).encode(), files)
    return Stack(recipe, series, wheel)
