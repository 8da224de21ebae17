"""Recipes: what is read from a good one, and every way to write a bad one."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stackpatch.errors import InputError, Problems
from stackpatch.model.layout import Layout
from stackpatch.model.recipe import Artefact, EvidenceKind, Recipe, Release
from stackpatch.model.recipe_file import check_recipe, parse_recipe
from stackpatch.model.reference import SourceKind

CHECKOUT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
A64 = "a" * 64
B64 = "b" * 64

GOOD = f"""\
stack: demo
summary: A demonstration
upstream:
  git: https://example.org/demo.git
  pypi: demo-dist
  package: demo
layouts:
  wheel:
    - {{here: demo/, git: src/demo/}}
    - {{here: demo/_version.py, git: null}}
default: "1.1"
releases:
  - version: "1.0"
    tag: v1.0
    commit: {COMMIT}
    commit-evidence: {{kind: first-hand, detail: in the wheel}}
    date: "2026-02-06T00:28:21Z"
    artefacts:
      - file: demo_dist-1.0.tar.gz
        sha256: {A64}
        bytes: 10
      - file: demo_dist-1.0-py3-none-any.whl
        sha256: {B64}
        bytes: 20
    series: v1.0
    stamp: {{path: demo/_version.py, variable: __version__}}
    requires: {{other: "2.0"}}
  - version: "1.1"
    tag: v1.1
    commit: null
    commit-evidence: {{kind: unknown, detail: nobody says}}
    date: "2026-03-06T00:28:21Z"
    artefacts:
      - file: demo_dist-1.1-cp312-cp312-manylinux_2_34_x86_64.whl
        sha256: {"c" * 64}
        bytes: 30
      - file: demo_dist-1.1-cp312-cp312-manylinux_2_34_aarch64.whl
        sha256: {"d" * 64}
        bytes: 31
archs:
  sm120:
    env: {{FLASHINFER_CUDA_ARCH_LIST: "12.0a"}}
    cuda: ">=12.8"
    # a comment
    notes: by somebody, somewhere
  sm121:
    cuda: ">=12.9"
    # another
caches: [flashinfer-jit]
shadowed-by: [demo-prebuilt]
issues:
  - url: https://example.org/1
    why: because
"""


def read(text: str, *, name: str | None = None) -> Recipe:
    return parse_recipe("r.yaml", text.encode(), name=name)


def said(text: str, *, name: str | None = None) -> list[str]:
    """Every problem of the text, without the file name."""
    with pytest.raises(Problems) as caught:
        read(text, name=name)
    assert all(line.startswith("r.yaml:") for line in caught.value.problems)
    return [line.removeprefix("r.yaml:") for line in caught.value.problems]


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, f"{old!r} stands {GOOD.count(old)} times"
    return GOOD.replace(old, new)


def test_a_good_recipe_in_full() -> None:
    recipe = read(GOOD, name="demo")
    assert recipe.stack == "demo"
    assert recipe.upstream.git == "https://example.org/demo.git"
    assert recipe.upstream.pypi == "demo-dist"
    assert [r.version for r in recipe.releases] == ["1.0", "1.1"]
    first, second = recipe.releases
    assert (first.tag, first.commit) == ("v1.0", COMMIT)
    assert first.commit_evidence.kind is EvidenceKind.FIRST_HAND
    assert (second.commit, second.commit_evidence.kind) == (None, EvidenceKind.UNKNOWN)
    assert first.epoch == 1770337701
    assert (first.series, second.series) == ("v1.0", None)
    assert first.stamp is not None
    assert (first.stamp.path, first.stamp.variable) == ("demo/_version.py", "__version__")
    assert first.requires == {"other": "2.0"}
    assert recipe.archs["sm120"].env == {"FLASHINFER_CUDA_ARCH_LIST": "12.0a"}
    assert (recipe.caches, recipe.shadowed_by) == (("flashinfer-jit",), ("demo-prebuilt",))
    assert recipe.issues[0].why == "because"


def test_an_artefact_tells_kind_platform_and_python_by_its_name() -> None:
    sdist, pure = read(GOOD).releases[0].artefacts
    assert (sdist.kind, sdist.platforms, sdist.pythons) == (SourceKind.SDIST, (), ())
    assert (pure.kind, pure.platforms, pure.pythons) == (SourceKind.WHEEL, (), ())
    assert (sdist.size, pure.size) == (10, 20)
    amd64, arm64 = read(GOOD).releases[1].artefacts
    assert (amd64.platforms, amd64.pythons) == (("linux/amd64",), ("3.12",))
    assert (arm64.platforms, arm64.pythons) == (("linux/arm64",), ("3.12",))


@pytest.mark.parametrize(
    ("file", "platforms", "pythons"),
    [
        ("d-1-cp310-abi3-manylinux2014_aarch64.whl", ("linux/arm64",), ()),
        (
            "d-1-cp38-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            ("linux/amd64",),
            (),
        ),
        ("d-1-cp39-cp39-linux_x86_64.whl", ("linux/amd64",), ("3.9",)),
        (
            "d-1-cp311.cp312-cp311.cp312-musllinux_1_2_x86_64.whl",
            ("linux/amd64",),
            ("3.11", "3.12"),
        ),
        ("d-1-py2.py3-none-any.whl", (), ()),
        ("d-1-py3-none-manylinux_2_28_aarch64.whl", ("linux/arm64",), ()),
    ],
)
def test_wheel_names(file: str, platforms: tuple[str, ...], pythons: tuple[str, ...]) -> None:
    artefact = Artefact(file=file, sha256=A64, bytes=1)
    assert (artefact.platforms, artefact.pythons) == (platforms, pythons)


def test_layouts_default_to_the_git_tree() -> None:
    layouts = read(GOOD).layouts
    as_it_is = Layout.of((rule.here, rule.git) for rule in layouts.rules(SourceKind.SDIST))
    assert as_it_is.to_git("a/b.py") == "a/b.py"
    assert layouts.rules(SourceKind.GIT) == layouts.rules(SourceKind.SDIST)
    wheel = Layout.of((rule.here, rule.git) for rule in layouts.rules(SourceKind.WHEEL))
    assert wheel.to_git("demo/x.py") == "src/demo/x.py"
    assert wheel.to_git("demo/_version.py") is None
    assert said(changed("  wheel:\n", "  sdist: []\n  wheel:\n")) == [
        "8: layouts.sdist: empty; at least one is needed"
    ]


def test_release_by_version_by_tag_and_by_default() -> None:
    recipe = read(GOOD)
    assert recipe.release().version == "1.1"
    for wanted in ("1.0", "v1.0"):
        assert recipe.release(wanted).version == "1.0"
    with pytest.raises(InputError) as caught:
        recipe.release("1.2")
    assert caught.value.message == "demo has no pinned release '1.2'"
    assert caught.value.hint is not None
    assert "1.1" in caught.value.hint


def test_arch_of_the_recipe() -> None:
    recipe = read(GOOD)
    assert recipe.arch("sm121").cuda == ">=12.9"
    with pytest.raises(InputError, match="no arch 'sm90'"):
        recipe.arch("sm90")


def test_artefact_by_kind_platform_and_python() -> None:
    recipe = read(GOOD)
    first, second = recipe.releases
    wheel = SourceKind.WHEEL
    assert recipe.artefact(first, SourceKind.SDIST).file == "demo_dist-1.0.tar.gz"
    assert recipe.artefact(first, wheel, "linux/arm64", "3.13").file.endswith("any.whl")
    assert recipe.artefact(second, wheel).file.endswith("x86_64.whl")
    assert recipe.artefact(second, wheel, "linux/arm64").file.endswith("aarch64.whl")
    assert recipe.artefact(second, wheel, "linux/arm64", "3.12").file.endswith("aarch64.whl")
    with pytest.raises(InputError) as caught:
        recipe.artefact(second, SourceKind.SDIST)
    assert caught.value.message == "the recipe pins no sdist of demo 1.1"
    assert caught.value.hint == "it pins: wheel"
    with pytest.raises(InputError, match=r"pins no wheel of demo 1.1 for linux/amd64 and Python"):
        recipe.artefact(second, wheel, python="3.11")
    with pytest.raises(InputError, match=r"no wheel of demo 1\.1 for linux/riscv64"):
        recipe.artefact(second, wheel, "linux/riscv64")


def test_artefacts_for_several_pythons_need_one_named() -> None:
    extra = f"""\
      - file: demo_dist-1.1-cp313-cp313-manylinux_2_34_x86_64.whl
        sha256: {"e" * 64}
        bytes: 32
archs:
"""
    text = GOOD.replace("archs:\n", extra)
    recipe = read(text)
    release = recipe.release("1.1")
    with pytest.raises(InputError, match=r"several files of demo 1\.1 fit linux/amd64: "):
        recipe.artefact(release, SourceKind.WHEEL)
    assert "cp313" in recipe.artefact(release, SourceKind.WHEEL, python="3.13").file
    named = read(text.replace('default: "1.1"', 'python: "3.12"\ndefault: "1.1"'))
    assert "cp312" in named.artefact(named.release("1.1"), SourceKind.WHEEL).file


def test_values_cannot_be_changed() -> None:
    recipe = read(GOOD)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.stack = "other"
    with pytest.raises(ValidationError, match="frozen"):
        recipe.releases[0].commit = None


# Every bad input: what is changed in the good recipe, and exactly what is said.
BAD = {
    "a float where a version belongs": (
        '  - version: "1.0"',
        "  - version: 1.10",
        ['13: releases[0].version: 1.10 is YAML for a number; quote it: "1.10"'],
    ),
    "an integer where a version belongs": (
        'default: "1.1"',
        "default: 1",
        ['11: default: want text, found the number 1; quote it: "1"'],
    ),
    "an octal-looking version": (
        '  - version: "1.0"',
        "  - version: 0123",
        ['13: releases[0].version: 0123 is YAML for a number; quote it: "0123"'],
    ),
    "a date without quotes": (
        'date: "2026-02-06T00:28:21Z"',
        "date: 2026-02-06T00:28:21Z",
        [
            (
                "17: releases[0].date: 2026-02-06T00:28:21Z is YAML for a date; "
                'quote it: "2026-02-06T00:28:21Z"'
            )
        ],
    ),
    "a day without a time": (
        'date: "2026-02-06T00:28:21Z"',
        'date: "2026-02-06"',
        ["17: releases[0].date: '2026-02-06' is not a UTC time such as 2026-02-06T00:28:23Z"],
    ),
    "a day that does not exist": (
        'date: "2026-02-06T00:28:21Z"',
        'date: "2026-02-30T00:28:21Z"',
        ["17: releases[0].date: '2026-02-30T00:28:21Z' is not a date that exists"],
    ),
    "a day before zip files": (
        'date: "2026-02-06T00:28:21Z"',
        'date: "1970-01-01T00:00:00Z"',
        ["17: releases[0].date: '1970-01-01T00:00:00Z' cannot be recorded in a wheel (a zip file)"],
    ),
    "an unknown key at the top": (
        "summary: A demonstration",
        "summary: A demonstration\nsummery: x",
        ["3: summery: unknown key; did you mean summary?"],
    ),
    "an unknown key deep inside": (
        "        bytes: 10",
        "        bytes: 10\n        sha512: x",
        ["22: releases[0].artefacts[0].sha512: unknown key; did you mean sha256?"],
    ),
    "a key spelt with an underscore": (
        "shadowed-by:",
        "shadowed_by:",
        ["50: shadowed_by: unknown key; did you mean shadowed-by?"],
    ),
    "an unknown kind of layout": (
        "  wheel:",
        "  zip:",
        ["8: layouts.zip: unknown key; known: sdist, wheel"],
    ),
    "an unknown key in a layout rule": (
        "{here: demo/, git: src/demo/}",
        "{here: demo/, git: src/demo/, strip: 1}",
        ["9: layouts.wheel[0].strip: unknown key; known: here, git"],
    ),
    "a layout rule that leaves the tree": (
        "git: src/demo/}",
        "git: ../demo/}",
        ["9: layouts.wheel[0].git: '../demo/' is not a plain path inside the tree"],
    ),
    "a layout rule into .git": (
        "git: src/demo/}",
        "git: .git/hooks/}",
        ["9: layouts.wheel[0].git: '.git/hooks/' is not a plain path inside the tree"],
    ),
    "an absolute layout rule": (
        "{here: demo/,",
        "{here: /demo/,",
        ["9: layouts.wheel[0].here: '/demo/' is not a plain path inside the tree"],
    ),
    "a folder for a file": (
        "git: src/demo/}",
        "git: src/demo}",
        [
            (
                "9: layouts.wheel[0].git: maps the folder 'demo/' to the file 'src/demo'; "
                "end both in / or neither"
            )
        ],
    ),
    "two layout rules for one prefix": (
        "{here: demo/_version.py, git: null}",
        "{here: demo/, git: null}",
        ["10: layouts.wheel[1].here: 'demo/' has a rule already ([0])"],
    ),
    "a key that stands twice": (
        "    tag: v1.0",
        "    tag: v1.0\n    tag: v1.00",
        ["15: releases[0].tag: the key stands twice (first on line 14)"],
    ),
    "a tag without a commit": (
        f"    commit: {COMMIT}\n",
        "",
        [
            (
                "13: releases[0].commit: tag v1.0 without a commit: a tag can be moved; write the "
                "40 hex digits, or say `commit-evidence: {kind: unknown, detail: …}`"
            )
        ],
    ),
    "a short commit": (
        f"commit: {COMMIT}",
        "commit: d0886ce",
        ["15: releases[0].commit: 'd0886ce' is not a full commit id (40 lower-case hex digits)"],
    ),
    "a commit in capitals": (
        f"commit: {COMMIT}",
        f"commit: {COMMIT.upper()}",
        [
            (
                f"15: releases[0].commit: '{COMMIT.upper()}' is not a full commit id "
                "(40 lower-case hex digits)"
            )
        ],
    ),
    "a commit of digits without quotes": (
        f"commit: {COMMIT}",
        f"commit: {'1' * 40}",
        [f'15: releases[0].commit: {"1" * 40} is YAML for a number; quote it: "{"1" * 40}"'],
    ),
    "a known commit of unknown evidence": (
        "{kind: first-hand, detail: in the wheel}",
        "{kind: unknown, detail: in the wheel}",
        [
            (
                "16: releases[0].commit-evidence.kind: unknown, but a commit is given; "
                "say first-hand or second-hand, and where from"
            )
        ],
    ),
    "an unknown commit of known evidence": (
        "{kind: unknown, detail: nobody says}",
        "{kind: second-hand, detail: nobody says}",
        [
            (
                "30: releases[1].commit: tag v1.1 without a commit: a tag can be moved; write the "
                "40 hex digits, or say `commit-evidence: {kind: unknown, detail: …}`"
            )
        ],
    ),
    "no evidence": (
        "    commit-evidence: {kind: first-hand, detail: in the wheel}\n",
        "",
        ["13: releases[0].commit-evidence: missing"],
    ),
    "evidence of no known kind": (
        "kind: first-hand",
        "kind: hearsay",
        [
            (
                "16: releases[0].commit-evidence.kind: want first-hand, second-hand or unknown, "
                "found the text 'hearsay'"
            )
        ],
    ),
    "a sha256 with its algorithm": (
        f"sha256: {A64}",
        f"sha256: sha256:{A64}",
        [
            (
                f"20: releases[0].artefacts[0].sha256: 'sha256:{A64}' is not a sha256 "
                "(64 lower-case hex digits)"
            )
        ],
    ),
    "two files with one sha256": (
        f"sha256: {B64}",
        f"sha256: {A64}",
        [
            (
                "23: releases[0].artefacts[1].sha256: the same as artefacts[0]'s; "
                "two files never share one"
            )
        ],
    ),
    "two releases of one version": (
        '  - version: "1.1"',
        '  - version: "1.0"',
        [
            "11: default: no release '1.1' in this recipe; did you mean 1.0?",
            "28: releases[1].version: '1.0' is releases[0]'s version already",
            "34: releases[1].artefacts[0].file: a file of version 1.1, but the release is 1.0",
            "37: releases[1].artefacts[1].file: a file of version 1.1, but the release is 1.0",
        ],
    ),
    "two checks of one name": (
        "    why: because\n",
        (
            "    why: because\nsmoke:\n  - {name: files, builtin: files}\n"
            "  - {name: files, builtin: audit}\n"
        ),
        ["56: smoke[1].name: 'files' is smoke[0]'s name already"],
    ),
    "an issue that is listed twice": (
        "    why: because\n",
        "    why: because\n  - {url: 'https://example.org/1', why: again}\n",
        ["54: issues[1].url: 'https://example.org/1' is issues[0]'s url already"],
    ),
    "a companion that is named twice": (
        "shadowed-by: [demo-prebuilt]",
        "same-version: [demo-cubin, demo-cubin]",
        ["50: same-version[1]: 'demo-cubin' is named twice"],
    ),
    "two releases of one tag": (
        "tag: v1.1",
        "tag: v1.0",
        ["29: releases[1].tag: 'v1.0' is releases[0]'s tag already"],
    ),
    "a version that is none": (
        '  - version: "1.0"',
        '  - version: "latest"',
        ["13: releases[0].version: 'latest' is not a PEP 440 version such as 0.6.3 or 0.7.2.post1"],
    ),
    "a version with a v": (
        '  - version: "1.0"',
        '  - version: "v1.0"',
        ["13: releases[0].version: 'v1.0' is written '1.0' in PEP 440"],
    ),
    "a local version": (
        '  - version: "1.0"',
        '  - version: "1.0+sp.1"',
        ["13: releases[0].version: '1.0+sp.1' has a local part; upstream releases have none"],
    ),
    "a default that is not pinned": (
        'default: "1.1"',
        'default: "1.2"',
        ["11: default: no release '1.2' in this recipe; did you mean 1.1 or 1.0?"],
    ),
    "a file of another release": (
        "demo_dist-1.0.tar.gz",
        "demo_dist-1.2.tar.gz",
        ["19: releases[0].artefacts[0].file: a file of version 1.2, but the release is 1.0"],
    ),
    "a file of another distribution": (
        "demo_dist-1.0.tar.gz",
        "other-1.0.tar.gz",
        ["19: releases[0].artefacts[0].file: a file of other, but upstream.pypi is demo-dist"],
    ),
    "a file of no known kind": (
        "demo_dist-1.0.tar.gz",
        "demo_dist-1.0.exe",
        [
            (
                "19: releases[0].artefacts[0].file: 'demo_dist-1.0.exe' is no sdist's name "
                "(NAME-VERSION.tar.gz) and no wheel's"
            )
        ],
    ),
    "a wheel's name with a part too few": (
        "demo_dist-1.0-py3-none-any.whl",
        "demo_dist-1.0-py3-none.whl",
        [
            (
                "22: releases[0].artefacts[1].file: 'demo_dist-1.0-py3-none.whl' is no sdist's "
                "name (NAME-VERSION.tar.gz) and no wheel's"
            )
        ],
    ),
    "a file with a folder": (
        "demo_dist-1.0.tar.gz",
        "../demo_dist-1.0.tar.gz",
        ["19: releases[0].artefacts[0].file: '../demo_dist-1.0.tar.gz' is not a plain file name"],
    ),
    "a file that is listed twice": (
        "demo_dist-1.0-py3-none-any.whl",
        "demo_dist-1.0.tar.gz",
        [
            "22: releases[0].artefacts[1].file: demo_dist-1.0.tar.gz is artefacts[0] already",
            "22: releases[0].artefacts[1].file: a second sdist; a release has one",
        ],
    ),
    "a size in words": (
        "bytes: 10",
        'bytes: "10"',
        ["21: releases[0].artefacts[0].bytes: want a whole number, found the text '10'"],
    ),
    "a size of nothing": (
        "bytes: 10",
        "bytes: 0",
        ["21: releases[0].artefacts[0].bytes: 0 is not above 0"],
    ),
    "a size that is true": (
        "bytes: 10",
        "bytes: true",
        ["21: releases[0].artefacts[0].bytes: want a whole number, found true"],
    ),
    "an unknown arch": (
        "  sm121:",
        "  sm_121a:",
        ["46: archs.sm_121a: unknown arch 'sm_121a'; did you mean sm121?"],
    ),
    "a toolkit that is too old for the arch": (
        'cuda: ">=12.9"',
        'cuda: ">=12.8"',
        ["47: archs.sm121.cuda: admits CUDA 12.8, but sm_121a came with 12.9"],
    ),
    "a toolkit as a number": (
        'cuda: ">=12.9"',
        "cuda: 12.9",
        ['47: archs.sm121.cuda: 12.9 is YAML for a number; quote it: "12.9"'],
    ),
    "a range that is none": (
        'cuda: ">=12.9"',
        'cuda: "12.9+"',
        ["47: archs.sm121.cuda: '12.9+' is not a PEP 440 range such as >=12.9"],
    ),
    "an empty range": (
        'cuda: ">=12.9"',
        'cuda: ""',
        [
            "47: archs.sm121.cuda: an empty range admits every version",
        ],
    ),
    "how far somebody got is no setting": (
        "    # another\n",
        "    verified: runs\n",
        ["48: archs.sm121.verified: unknown key; known: env, build-args, launch, cuda, notes"],
    ),
    "a variable that is a number": (
        'env: {FLASHINFER_CUDA_ARCH_LIST: "12.0a"}',
        "env: {MAX_JOBS: 2}",
        ['42: archs.sm120.env.MAX_JOBS: want text, found the number 2; quote it: "2"'],
    ),
    "a variable that is none": (
        'env: {FLASHINFER_CUDA_ARCH_LIST: "12.0a"}',
        'env: {MAX-JOBS: "2"}',
        ["42: archs.sm120.env.MAX-JOBS: 'MAX-JOBS' is not a variable's name"],
    ),
    "a variable with a line break": (
        'env: {FLASHINFER_CUDA_ARCH_LIST: "12.0a"}',
        'env: {A: "2\\n3"}',
        ["42: archs.sm120.env.A: holds a line break or NUL"],
    ),
    "the plain target of a part that needs its suffix": (
        '"12.0a"',
        '"12.0"',
        [
            (
                "42: archs.sm120.env.FLASHINFER_CUDA_ARCH_LIST: '12.0' is the plain target up to "
                "FlashInfer 0.6.6, which has no FP4 instructions; write 12.0a"
            )
        ],
    ),
    "the arch list of another part": (
        '"12.0a"',
        '"10.0a"',
        [
            (
                "42: archs.sm120.env.FLASHINFER_CUDA_ARCH_LIST: nothing in '10.0a' runs on sm120; "
                "12.0a does"
            )
        ],
    ),
    "an arch list with a semicolon": (
        '"12.0a"',
        '"12.0a;12.1a"',
        [
            (
                "42: archs.sm120.env.FLASHINFER_CUDA_ARCH_LIST: '12.0a;12.1a' in '12.0a;12.1a': "
                "want entries like 12.0a, one space between them"
            )
        ],
    ),
    "an arch list with a space at its end": (
        '"12.0a"',
        '"12.0a "',
        [
            (
                "42: archs.sm120.env.FLASHINFER_CUDA_ARCH_LIST: '' in '12.0a ': "
                "want entries like 12.0a, one space between them"
            )
        ],
    ),
    "no arch at all": (
        GOOD[GOOD.index("archs:") : GOOD.index("caches:")],
        "archs: {}\n",
        ["40: archs: empty; at least one is needed"],
    ),
    "no release at all": (
        GOOD[GOOD.index("releases:") : GOOD.index("archs:")],
        "releases: []\n",
        [
            "11: default: no release '1.1' in this recipe; there is none",
            "12: releases: empty; at least one is needed",
        ],
    ),
    "a mapping where a list belongs": (
        "caches: [flashinfer-jit]",
        "caches: {flashinfer-jit: 1}",
        ["49: caches: want a list, found a mapping"],
    ),
    "a list where a mapping belongs": (
        '    requires: {other: "2.0"}',
        "    requires: [other]",
        ["27: releases[0].requires: want a mapping, found a list"],
    ),
    "text where a release belongs": (
        "releases:\n",
        "releases:\n  - v0.9\n",
        ["13: releases[0]: want a mapping, found the text 'v0.9'"],
    ),
    "null where text belongs": (
        "summary: A demonstration",
        "summary: null",
        ["2: summary: want text, found null"],
    ),
    "an empty summary": (
        "summary: A demonstration",
        'summary: " "',
        ["2: summary: empty"],
    ),
    "a requirement of itself": (
        "requires: {other:",
        "requires: {demo:",
        ["27: releases[0].requires.demo: a stack cannot require itself"],
    ),
    "a requirement by range": (
        '{other: "2.0"}',
        '{other: ">=2.0"}',
        [
            (
                "27: releases[0].requires.other: '>=2.0' is not a PEP 440 version such as 0.6.3 "
                "or 0.7.2.post1"
            )
        ],
    ),
    "a cache named twice": (
        "[flashinfer-jit]",
        "[flashinfer-jit, flashinfer-jit]",
        ["49: caches[1]: 'flashinfer-jit' is named twice"],
    ),
    "a series in a folder of its own": (
        "series: v1.0",
        "series: ../v1.0",
        ["25: releases[0].series: '../v1.0' is not a plain folder name"],
    ),
    "a distribution that is not normalised": (
        "pypi: demo-dist",
        "pypi: Demo_Dist",
        ["5: upstream.pypi: 'Demo_Dist' is 'demo-dist' on the index (PEP 503)"],
    ),
    "a git transport that runs programs": (
        "git: https://example.org/demo.git",
        'git: "ext::sh -c id"',
        [
            (
                "4: upstream.git: 'ext::sh -c id' is not a git URL (https, ssh, git, file) or "
                "an absolute path"
            )
        ],
    ),
    "a git URL that is an option": (
        "git: https://example.org/demo.git",
        "git: --upload-pack=id",
        [
            (
                "4: upstream.git: '--upload-pack=id' is not a git URL (https, ssh, git, file) or "
                "an absolute path"
            )
        ],
    ),
    "a tag that is an option": (
        "tag: v1.0",
        "tag: --exec",
        ["14: releases[0].tag: '--exec' is not a tag's name"],
    ),
    "an issue without its reason": (
        "    why: because\n",
        "",
        ["52: issues[0].why: missing"],
    ),
    "an issue by number": (
        "url: https://example.org/1",
        "url: 2577",
        ['52: issues[0].url: want text, found the number 2577; quote it: "2577"'],
    ),
    "an alias": (
        "summary: A demonstration",
        "summary: &s A demonstration",
        ["2: summary: anchors (&s) are not taken; write it out"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_by_line_and_field(case: str) -> None:
    old, new, expected = BAD[case]
    assert said(changed(old, new)) == expected


def test_every_problem_of_a_file_in_one_run() -> None:
    text = (
        GOOD.replace('  - version: "1.0"', "  - version: 1.0")
        .replace("summary: A demonstration", "summary: A demonstration\nextra: 1")
        .replace(f"    commit: {COMMIT}\n", "")
        .replace("  sm121:", "  sm_121:")
        .replace("    commit-evidence: {kind: first-hand, detail: in the wheel}\n", "")
        .replace("package: demo", "package: demo\n  package: demo")
        .replace("    why: because\n", "")
    )
    assert said(text, name="other") == [
        "1: stack: 'demo' in a file named other.yaml; they must agree",
        (
            "3: extra: unknown key; known: stack, summary, upstream, layouts, python, default, "
            "releases, archs, caches, shadowed-by, same-version, gates and 4 more"
        ),
        "8: upstream.package: the key stands twice (first on line 7)",
        '15: releases[0].version: 1.0 is YAML for a number; quote it: "1.0"',
        "15: releases[0].commit-evidence: missing",
        (
            "15: releases[0].commit: tag v1.0 without a commit: a tag can be moved; write the "
            "40 hex digits, or say `commit-evidence: {kind: unknown, detail: …}`"
        ),
        "46: archs.sm_121: unknown arch 'sm_121'; did you mean sm121?",
        "52: issues[0].why: missing",
    ]


def test_nothing_to_fetch_from() -> None:
    cut = GOOD[GOOD.index("    artefacts:\n      - file: demo_dist-1.1") : GOOD.index("archs:")]
    assert said(GOOD.replace(cut, "")) == [
        "28: releases[1]: neither a commit nor artefacts: there is nothing to fetch"
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("- a\n", "a list"),
        ("a\n", "the text 'a'"),
        ("12\n", "the number 12"),
        ("true\n", "true"),
        ("null\n", "null"),
    ],
)
def test_a_file_that_is_no_mapping(text: str, found: str) -> None:
    assert said(text) == [f"1: want a mapping that starts with `stack:`, found {found}"]


def test_an_empty_mapping_names_every_key_that_must_be_there() -> None:
    required = ["stack", "summary", "upstream", "default", "releases", "archs"]
    assert said("{}\n") == [f"1: {key}: missing" for key in required]


def test_a_broken_file_says_only_what_is_broken() -> None:
    assert said("stack: [\n")[0].startswith("2: not YAML")
    assert said("") == ["1: the file is empty"]


def test_the_message_counts() -> None:
    with pytest.raises(Problems) as caught:
        read(changed("bytes: 10", "bytes: 0"))
    assert caught.value.message == "r.yaml: 1 problem"
    assert caught.value.exit_status == 2


def plain(recipe: str) -> dict[str, Any]:
    found = yaml.safe_load(recipe)
    assert isinstance(found, dict)
    return found


def test_json_of_the_same_content_is_the_same_recipe() -> None:
    assert read(json.dumps(plain(GOOD))) == read(GOOD)


def test_what_is_dumped_reads_back() -> None:
    recipe = read(GOOD)
    dumped = recipe.model_dump(mode="json", by_alias=True)
    assert read(json.dumps(dumped)) == recipe


def paths(node: object, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in the tree."""
    found = [at] if at else []
    if isinstance(node, dict | list):
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
            found += paths(inner, (*at, key))
    return found


JUNK: list[object] = [None, True, 7, "", "x y", [], {}, [1], {"a": 1}, "1.0", "ü", -1, [[]], "/"]


@given(st.sampled_from(paths(plain(GOOD))), st.sampled_from(JUNK))
def test_any_value_anywhere_gives_a_recipe_or_faults(path: tuple[Any, ...], junk: object) -> None:
    """Neither the types nor the rules between fields ever raise, whatever stands where."""
    tree: Any = copy.deepcopy(plain(GOOD))
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = junk
    recipe, faults = check_recipe(json.dumps(tree, indent=1).encode())
    assert (recipe is None) == bool(faults)
    assert list(faults) == sorted(faults, key=lambda fault: fault.line)
    for fault in faults:
        assert fault.text
        assert "pydantic" not in fault.text
        assert "Input should" not in fault.text, fault


@given(st.sampled_from(paths(plain(GOOD))))
def test_any_key_or_item_may_be_missing(path: tuple[Any, ...]) -> None:
    tree: Any = copy.deepcopy(plain(GOOD))
    node = tree
    for key in path[:-1]:
        node = node[key]
    del node[path[-1]]
    recipe, faults = check_recipe(json.dumps(tree, indent=1).encode())
    assert (recipe is None) == bool(faults)
    if isinstance(path[-1], str) and len(faults) == 1 and faults[0].text == "missing":
        assert faults[0].path == path


@pytest.mark.parametrize("stack", ["flashinfer", "sglang"])
def test_our_recipes(stack: str) -> None:
    raw = (CHECKOUT / f"recipes/{stack}.yaml").read_bytes()
    recipe = parse_recipe(f"recipes/{stack}.yaml", raw, name=stack)
    assert {"sm120", "sm121"} <= set(recipe.archs)
    for release in recipe.releases:
        assert release.artefacts
        for platform in ("linux/arm64", "linux/amd64"):
            wheel = recipe.artefact(release, SourceKind.WHEEL, platform)
            assert wheel.platforms in ((), (platform,))
        for kind in (SourceKind.SDIST, SourceKind.WHEEL):
            Layout.of((rule.here, rule.git) for rule in recipe.layouts.rules(kind))


def release_of(stack: str, version: str) -> Release:
    raw = (CHECKOUT / f"recipes/{stack}.yaml").read_bytes()
    return parse_recipe("r", raw).release(version)


def test_the_releases_that_the_project_was_made_for() -> None:
    flashinfer = release_of("flashinfer", "0.6.3")
    assert flashinfer.commit == "d0886ce2b67761a5b4f9396b4c3741f7860791b0"
    assert flashinfer.commit_evidence.kind is EvidenceKind.FIRST_HAND
    assert release_of("sglang", "0.5.9").requires == {"flashinfer": "0.6.3"}
    assert release_of("sglang", "0.5.6.post2").requires == {"flashinfer": "0.5.3"}
    # known from other projects' files only, and marked so
    for version in ("0.5.9", "0.5.6.post2"):
        assert release_of("sglang", version).commit_evidence.kind is EvidenceKind.SECOND_HAND
    assert release_of("sglang", "0.5.23").commit is None


def test_pydantic_and_yaml_are_not_imported_by_the_values_around_recipes() -> None:
    code = (
        "import sys, stackpatch.model.collection, stackpatch.model.series\n"
        "assert 'pydantic' not in sys.modules, 'pydantic'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
