"""Plans of releases that are their commit: the engine, what the key holds, what is open."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from tests.stack import GATE

from stackpatch.artefacts.external import Instructions, Settings
from stackpatch.artefacts.lock import PinnedBase
from stackpatch.artefacts.plan import Engine
from stackpatch.artefacts.tree_plan import (
    TreePlan,
    choose_tree_engine,
    has_no_wheel,
    plan_tree,
    recorded_base,
)
from stackpatch.artefacts.tree_source import Source, prepare_source
from stackpatch.errors import InputError
from stackpatch.model.arch import parse_arch
from stackpatch.model.recipe_file import parse_recipe
from stackpatch.model.series import Series, parse_series

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.model.recipe import Recipe

SM121, SM120 = parse_arch("sm121"), parse_arch("sm120")
DIGEST = f"sha256:{'c' * 64}"
RECIPE = f"""\
stack: llm
summary: Like TensorRT-LLM
upstream: {{git: "https://git.test/a/llm.git", pypi: llm-py, package: llm, submodules: true}}
layouts:
  wheel:
    - {{here: llm/, git: llm/}}
default: "1.0"
releases:
  - version: "1.0"
    tag: v1.0
    commit: a123456789012345678901234567890123456789
    commit-evidence: {{kind: first-hand, detail: it says so}}
    date: "2026-06-30T00:00:00Z"
    series: v1.0
    bases:
      - {{image: r.test/llm, digest: "{DIGEST}", platforms: [linux/arm64],
         kind: site-packages, path: /opt/site-packages, python: "3.12", evidence: seen there}}
archs:
  sm121:
    env: {{LLM_ARCH: "12.1a"}}
    build-args: {{CUDA_ARCHS: 120-real}}
    cuda: ">=12.9"
  sm120:
    cuda: ">=12.9"
shadowed-by: [llm-kernels]
"""


def recipe(**changes: str) -> Recipe:
    text = RECIPE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return parse_recipe("recipes/llm.yaml", text.encode(), name="llm")


def series(*paths: str) -> Series:
    files = {
        f"{number:04}.patch": GATE.replace("demo/gate.py", path).encode()
        for number, path in enumerate(paths or ("llm/gate.py",), 1)
    }
    return parse_series("patches/llm/v1.0", "\n".join(files).encode(), files)


def plan(one: Recipe | None = None, /, *paths: str, **changes: Any) -> TreePlan:
    found = one or recipe()
    arch = changes.pop("arch", SM121)
    return plan_tree(found, found.release(), arch, series(*paths), **changes)


def source(**changes: Any) -> Source:
    settings = Settings("buildx", "Dockerfile", **changes)  # type: ignore[arg-type]
    read = Instructions("d" * 64, {"tools/source.py": "e" * 64}, frozenset({"COMMIT"}))
    return Source(settings, "buildkit 0.13", read, {"CUDA_ARCHS": "120-real"}, "llm")


@pytest.mark.parametrize(
    ("paths", "asked", "engine", "why"),
    [
        (("llm/gate.py",), "auto", Engine.OVERLAY, "interpreted files only"),
        (("llm/gate.py", "tests/t.py"), "overlay", Engine.OVERLAY, "interpreted files only"),
        (("llm/gate.py", "cpp/k.cu"), "auto", Engine.BUILDX, "the series changes cpp/k.cu"),
        (("cpp/k.cu",), "buildah", Engine.BUILDAH, "the series changes cpp/k.cu"),
        (("llm/gate.py",), "buildx", Engine.BUILDX, "as asked for"),
    ],
)
def test_the_changed_files_decide_on_the_engine(
    paths: tuple[str, ...], asked: str, engine: Engine, why: str
) -> None:
    found, said = choose_tree_engine(recipe(), SM121, series(*paths), asked)
    assert found is engine
    assert why in said


@pytest.mark.parametrize(
    ("paths", "asked", "said"),
    [
        (("cpp/k.cu",), "overlay", "cannot change what must be compiled: cpp/k.cu"),
        (("tests/t.py",), "auto", "nothing that the series changes is in the installed package"),
        (("llm/gate.py",), "docker", "unknown engine 'docker'"),
    ],
)
def test_what_cannot_be_built_is_refused(paths: tuple[str, ...], asked: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        choose_tree_engine(recipe(), SM121, series(*paths), asked)


def test_the_recipe_s_image_is_for_its_platforms_only() -> None:
    one = recipe()
    base, evidence = recorded_base(one.release(), SM121)
    assert base is not None
    assert (base.digest, base.site, base.recorded) == (DIGEST, "opt/site-packages", True)
    assert evidence == "seen there"
    assert recorded_base(one.release(), SM120) == (None, None)


BASE = PinnedBase(DIGEST, "r.test/llm", "opt/site-packages", python="3.12", recorded=True)
CHANGES: dict[str, TreePlan] = {
    "another commit": plan(recipe(a1234="b1234"), base=BASE),
    "other submodules": plan(recipe(**{", submodules: true": ""}), base=BASE),
    "large files": plan(recipe(**{"submodules: true": "submodules: true, lfs: true"}), base=BASE),
    "another distribution": plan(recipe(**{"llm-py": "llm2"}), base=BASE),
    "another layout": plan(recipe(**{"{here: llm/,": "{here: py/llm/,"}), base=BASE),
    "other shadows": plan(recipe(**{"[llm-kernels]": "[]"}), base=BASE),
    "another time": plan(recipe(**{"06-30": "07-01"}), base=BASE),
    "another environment": plan(recipe(**{"12.1a": "12.1"}), base=BASE),
    "another arch": plan(arch=SM120, base=BASE),
    "other patches": plan(recipe(), "llm/other.py", base=BASE),
    "another image": plan(base=dataclasses.replace(BASE, digest=f"sha256:{'d' * 64}")),
    "another name": plan(base=dataclasses.replace(BASE, name="r.test/other")),
    "another folder": plan(base=dataclasses.replace(BASE, site="srv")),
    "an editable one": plan(base=dataclasses.replace(BASE, editable=True)),
    "another python": plan(base=dataclasses.replace(BASE, python="3.11")),
    "one to be looked into": plan(base=dataclasses.replace(BASE, recorded=False)),
    "an engine": plan(engine="buildx", base=BASE, source=source()),
    "its arguments": plan(engine="buildx", base=BASE, source=source(args={"JOBS": "2"})),
    "its network": plan(engine="buildx", base=BASE, source=source(network="host")),
    "its version": plan(
        engine="buildx", base=BASE, source=dataclasses.replace(source(), version="buildkit 0.14")
    ),
    "the recipe's arguments": plan(
        engine="buildx", base=BASE, source=dataclasses.replace(source(), recipe_args={"A": "b"})
    ),
    "the import package": plan(
        engine="buildx", base=BASE, source=dataclasses.replace(source(), package="other")
    ),
    "no base yet": plan(),
}


def test_whatever_changes_the_result_changes_the_key() -> None:
    keys = [one.key for one in (plan(base=BASE), *CHANGES.values())]
    assert len(set(keys)) == len(keys)
    assert plan(base=BASE).key == plan(base=BASE).key == plan(base=BASE).inputs.key


def test_what_changes_nothing_is_not_in_the_key() -> None:
    one = plan(engine="buildx", base=BASE, source=source())
    other = source(builder="far", cache_from=("x",), cache_to=("y",), cuda="13.0")
    assert plan(engine="buildx", base=BASE, source=other).key == one.key


def test_what_is_open_is_said_and_what_is_pinned_too() -> None:
    assert plan(base=BASE).open == ()
    assert plan(base=BASE).lines()[-1] == "pinned   every input above"
    (missing,) = plan().open
    assert "no image to lay the files on is known by digest" in missing
    assert plan().json()["base"] is None
    compiled = plan(recipe(), "cpp/k.cu")
    assert ["to build in" in compiled.open[0], "version of buildx" in compiled.open[1]] == [
        True
    ] * 2
    assert "checkout with submodules" in compiled.lines()
    whole = plan(
        recipe(), "cpp/k.cu", base=BASE, source=source(args={"DEVEL": f"r.test/d@{DIGEST}"})
    )
    assert whole.open == ()
    text = "\n".join(whole.lines())
    assert f"told     CUDA_ARCHS=120-real DEVEL=r.test/d@{DIGEST}, with CUDA >=12.9" in text
    assert "compiled in the base" not in text
    alone = plan(recipe(), "cpp/k.cu", base=BASE, source=source())
    assert any("compiled in the base" in line for line in alone.lines())


def test_a_person_s_argument_comes_before_the_recipe_s() -> None:
    assert source(args={"CUDA_ARCHS": "120-real;121-real"}).build_args == {
        "CUDA_ARCHS": "120-real;121-real"
    }


def test_a_release_without_commit_series_or_patches_has_no_build() -> None:
    one = recipe()
    release = one.release()
    assert has_no_wheel(release)
    unknown = release.model_copy(update={"commit": None})
    assert not has_no_wheel(unknown)
    with pytest.raises(InputError, match="neither a wheel nor a commit"):
        plan_tree(one, unknown, SM121, series())
    with pytest.raises(InputError, match="no patch for sm121"):
        plan_tree(one, release.model_copy(update={"series": None}), SM121, series())
    only = {"a.patch": GATE.replace("Bug:", "Arch: sm90\nBug:").encode()}
    with pytest.raises(InputError, match="no patch for sm121"):
        plan_tree(one, release, SM121, parse_series("s", b"a.patch", only))


def test_a_dockerfile_without_its_tools_is_named(tmp_path: Path) -> None:
    dockerfile = tmp_path / "llm.Dockerfile"
    dockerfile.write_text("ARG COMMIT\n")
    with pytest.raises(InputError, match=r"cannot read .*tools/install\.py"):
        prepare_source(Settings("buildx", dockerfile), recipe(), SM121, "")
