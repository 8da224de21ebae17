"""Plans: the engine that changed files need, the key, and where a wheel has git's files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pygit2
import pytest
from tests.images import LayoutMaker
from tests.stack import GATE, Stack, make_stack

import stackpatch
from stackpatch.artefacts.base import USUAL_SITE, open_base
from stackpatch.artefacts.plan import choose_engine, make_plan
from stackpatch.artefacts.shipped import shipped_changes, wheel_paths
from stackpatch.artefacts.stamp import stamp_version
from stackpatch.errors import InputError
from stackpatch.model.arch import parse_arch
from stackpatch.model.layout import Layout
from stackpatch.model.series import parse_series
from stackpatch.sources.objects import Entry, Objects

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.model.patch import Patch

SM121 = parse_arch("sm121")
PURE = "demo-1.2.3-py3-none-any.whl"
BOUND = "demo-1.2.3-cp312-cp312-manylinux_2_28_x86_64.whl"


def patch(path: str) -> Patch:
    raw = GATE.replace("demo/gate.py", path).encode()
    return parse_series("s", b"a.patch\n", {"a.patch": raw}).patches[0]


# -- engines ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["demo/gate.py", "csrc/kernel.cu", "include/x.cuh", "setup.py"])
def test_a_wheel_without_compiled_code_needs_no_compiler(path: str) -> None:
    engine, why = choose_engine("auto", PURE, [patch(path)])
    assert engine == "overlay"
    assert "holds no compiled code" in why


@pytest.mark.parametrize("path", ["demo/gate.py", "demo/config.json", "demo/tmpl.jinja"])
def test_interpreted_files_of_a_bound_wheel_need_no_compiler(path: str) -> None:
    engine, why = choose_engine("auto", BOUND, [patch(path)])
    assert engine == "overlay"
    assert "interpreted" in why


@pytest.mark.parametrize(
    "path", ["csrc/k.cu", "rust/lib.rs", "a/B.HPP", "CMakeLists.txt", "x/Cargo.toml", "c/y.pyx"]
)
def test_sources_of_compiled_code_are_refused_by_name(path: str) -> None:
    with pytest.raises(InputError, match="must be compiled") as caught:
        choose_engine("auto", BOUND, [patch("demo/gate.py"), patch(path)])
    assert path in caught.value.message
    assert "--engine buildx or buildah" in str(caught.value.hint)


def test_many_such_files_are_counted() -> None:
    patches = [patch(f"csrc/{name}.cu") for name in "abcde"]
    with pytest.raises(InputError, match=r"csrc/a\.cu, csrc/b\.cu, csrc/c\.cu and 2 more"):
        choose_engine("auto", BOUND, patches)


def test_a_person_may_insist_on_the_overlay() -> None:
    assert choose_engine("overlay", BOUND, [patch("csrc/k.cu")])[0] == "overlay"


@pytest.mark.parametrize("engine", ["buildx", "buildah"])
def test_engines_of_their_own_are_taken_when_asked_for(engine: str) -> None:
    assert choose_engine(engine, PURE, []) == (engine, "asked for")
    assert choose_engine(engine, BOUND, [patch("csrc/k.cu")])[0] == engine


@pytest.mark.parametrize("engine", ["buildx", "buildah"])
def test_an_engine_without_its_settings_gives_no_plan(tmp_path: Path, engine: str) -> None:
    with pytest.raises(InputError, match=f"the {engine} engine needs its settings"):
        make_stack(tmp_path).plan(base=open_base("scratch", SM121), engine=engine)


def test_an_unknown_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown engine 'kaniko'") as caught:
        choose_engine("kaniko", PURE, [])
    assert caught.value.hint == "known: auto, overlay, buildx, buildah"


# -- plans ------------------------------------------------------------------------------------


def test_the_series_is_narrowed_to_the_arch(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    one = stack.plan(arch="sm121", base=open_base("scratch", SM121))
    two = stack.plan(arch="sm120", base=open_base("scratch", parse_arch("sm120")))
    assert [p.name for p in one.patches] == ["0001-gate.patch", "0002-tests.patch"]
    assert [p.name for p in two.patches] == ["0001-gate.patch"]
    assert one.inputs.patched != two.inputs.patched
    assert one.key != two.key
    assert one.inputs.patched == f"1.2.3+sp.{stack.series.for_arch('sm121').short}"
    assert one.folder == f"demo/{one.inputs.patched}/sm121"


def test_a_series_without_a_patch_for_the_arch_is_refused(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    only = parse_series(
        "s", b"a.patch\n", {"a.patch": GATE.replace("Bug:", "Arch: sm90\nBug:").encode()}
    )
    with pytest.raises(InputError, match="has no patch for sm121"):
        Stack(stack.recipe, only, stack.wheel).plan(base=open_base("scratch", SM121))


def test_an_arch_that_the_recipe_lacks_is_refused(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    with pytest.raises(InputError, match="has no arch 'sm90'"):
        stack.plan(arch="sm90", base=open_base("scratch", parse_arch("sm90")))


def test_the_plan_reads_like_this(tmp_path: Path) -> None:
    lines = make_stack(tmp_path).plan(base=open_base("scratch", SM121)).lines()
    text = "\n".join(lines)
    assert lines[0].startswith("build    demo 1.2.3 for sm121 (linux/arm64) as 1.2.3+sp.")
    assert "         0001-gate.patch" in lines
    assert "base     scratch" in lines
    assert "env      DEMO_ARCH=12.1a" in lines
    assert "time     2026-02-05T00:00:24Z" in lines
    assert "release  v1.2.3, a12345678901 (first-hand)" in lines
    assert str(tmp_path) not in text


def test_the_plan_is_the_same_in_another_folder(tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "base")
    layout = maker.write(maker.image([], architecture="arm64"))
    copy = tmp_path / "elsewhere"
    layout.rename(copy)
    maker.write(maker.image([], architecture="arm64"))
    one = make_stack(tmp_path / "a").plan(base=open_base(str(layout), SM121))
    two = make_stack(tmp_path / "b").plan(base=open_base(str(copy), SM121))
    assert one.key == two.key
    assert one.lines() == two.lines()


def test_the_program_version_is_an_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = make_stack(tmp_path)
    before = stack.plan(base=open_base("scratch", SM121)).key
    monkeypatch.setattr(stackpatch, "__version__", "9.9")
    assert stack.plan(base=open_base("scratch", SM121)).key != before


def test_a_release_without_layout_rules_has_gits_paths(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    plain = stack.recipe.model_copy(
        update={"layouts": stack.recipe.layouts.model_copy(update={"wheel": ()})}
    )
    plan = make_plan(
        plain, plain.release(), SM121, stack.series, base=open_base("scratch", SM121).pinned
    )
    assert plan.layout.to_git("demo/_meta.py") == "demo/_meta.py"


# -- bases ------------------------------------------------------------------------------------


def test_scratch_is_a_base_with_a_usual_place(tmp_path: Path) -> None:
    base = open_base("scratch", SM121)
    assert (base.layout, base.pinned.digest, base.pinned.site) == (None, None, USUAL_SITE)
    assert open_base("scratch", SM121, site="/opt/sp/").pinned.site == "opt/sp"
    assert str(base.image.platform) == "linux/arm64"


@pytest.mark.parametrize("prefix", ["", "oci:"])
def test_a_layout_folder_is_a_base(tmp_path: Path, prefix: str) -> None:
    maker = LayoutMaker(tmp_path / "base")
    descriptor = maker.image([], architecture="arm64")
    other = maker.image([], architecture="arm64", config={"x": 1})
    path = maker.write(descriptor)
    found = open_base(f"{prefix}{path}", SM121)
    assert (found.pinned.digest, found.pinned.name) == (descriptor["digest"], None)
    maker.write(descriptor, other)
    found = open_base(f"{prefix}{path}@{other['digest']}", SM121)
    assert found.pinned.digest == other["digest"]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("nvcr.io/nvidia/x:1", "no such folder", "or `scratch`"),
        ("./missing", "no such folder", "or `scratch`"),
        ("oci:a/b", "no such folder", "or `scratch`"),
        ("x@sha256:12", "not a sha256 digest", None),
        ("", "no such folder", "or `scratch`"),
    ],
)
def test_what_is_no_base(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_base(text, SM121)
    assert hint is None or hint in str(caught.value.hint)


# -- where a wheel has git's files ------------------------------------------------------------

RULES = Layout.of(
    [
        ("flashinfer/", "flashinfer/"),
        ("flashinfer/_build_meta.py", None),
        ("flashinfer/data/", ""),
        ("flashinfer/data/cutlass/", "3rdparty/cutlass/"),
        ("b12x/", "flashinfer/experimental/b12x/"),
        ("build_backend.py", "build_backend.py"),
    ]
)
HELD = frozenset(
    {
        "flashinfer/__init__.py",
        "flashinfer/_build_meta.py",
        "flashinfer/jit/core.py",
        "flashinfer/data/csrc/k.cu",
        "flashinfer/data/cutlass/include/c.h",
        "flashinfer/experimental/b12x/a.py",
        "b12x/a.py",
        "build_backend.py",
    }
)


@pytest.mark.parametrize(
    ("git", "added", "expected"),
    [
        ("flashinfer/jit/core.py", False, ("flashinfer/jit/core.py",)),
        ("csrc/k.cu", False, ("flashinfer/data/csrc/k.cu",)),
        ("3rdparty/cutlass/include/c.h", False, ("flashinfer/data/cutlass/include/c.h",)),
        ("build_backend.py", False, ("build_backend.py",)),
        (
            "flashinfer/experimental/b12x/a.py",
            False,
            ("flashinfer/experimental/b12x/a.py", "b12x/a.py"),
        ),
        ("flashinfer/_build_meta.py", False, ()),
        ("tests/test_x.py", False, ()),
        ("flashinfer/jit/new.py", True, ("flashinfer/jit/new.py",)),
        ("flashinfer/fresh/deep/new.py", True, ("flashinfer/fresh/deep/new.py",)),
        ("csrc/sub/new.cu", True, ("flashinfer/data/csrc/sub/new.cu",)),
        ("tests/new.py", True, ()),
        ("NEWS.md", True, ()),
        ("docs/deep/x.rst", True, ()),
        ("flashinfer/jit/new.py", False, ()),
    ],
)
def test_where_a_wheel_has_a_file(git: str, added: bool, expected: tuple[str, ...]) -> None:
    assert wheel_paths(RULES, git, HELD, added=added) == expected


def test_new_files_at_the_top_of_a_plain_layout() -> None:
    held = {"demo/a.py", "top.py"}
    assert wheel_paths(Layout.identity(), "demo/new.py", held, added=True) == ("demo/new.py",)
    assert wheel_paths(Layout.identity(), "new.py", held, added=True) == ("new.py",)
    assert wheel_paths(Layout.identity(), "new.py", {"demo/a.py"}, added=True) == ()


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    pygit2.init_repository(str(tmp_path / "o.git"), bare=True)
    return Objects(tmp_path / "o.git")


def test_changes_of_the_tree_become_changes_of_the_wheel(objects: Objects) -> None:
    def blob(text: bytes, mode: int = 0o100644) -> Entry:
        return Entry(mode, objects.write_blob(text))

    paths = ["csrc/k.cu", "flashinfer/jit/core.py", "tests/t.py", "flashinfer/__init__.py"]
    before = objects.with_changes("", {p: blob(b"old") for p in paths})
    shipped = shipped_changes(
        objects,
        before,
        {
            "csrc/k.cu": blob(b"new"),
            "flashinfer/jit/core.py": None,
            "flashinfer/jit/run.py": blob(b"#!", 0o100755),
            "flashinfer/__init__.py": blob(b"old"),
            "tests/t.py": blob(b"new"),
        },
        RULES,
        HELD,
    )
    assert shipped.content == {
        "flashinfer/data/csrc/k.cu": b"new",
        "flashinfer/jit/core.py": None,
        "flashinfer/jit/run.py": b"#!",
    }
    assert shipped.executable == {"flashinfer/jit/run.py": True}
    assert set(shipped.originals) == {"flashinfer/data/csrc/k.cu", "flashinfer/jit/core.py"}
    assert shipped.outside == ("tests/t.py",)


def test_a_change_of_the_mode_comes_through(objects: Objects) -> None:
    old = Entry(0o100755, objects.write_blob(b"x"))
    before = objects.with_changes("", {"csrc/k.cu": old})
    changes = {"csrc/k.cu": Entry(0o100644, old.id)}
    shipped = shipped_changes(objects, before, changes, RULES, HELD)
    assert shipped.executable == {"flashinfer/data/csrc/k.cu": False}


def test_links_are_refused(objects: Objects) -> None:
    link = Entry(0o120000, objects.write_blob(b"target"))
    with pytest.raises(InputError, match="is a symbolic link"):
        shipped_changes(
            objects, objects.with_changes("", {}), {"flashinfer/l.py": link}, RULES, HELD
        )


# -- the version in the source ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b'__version__ = "1.2"\n', b'__version__ = "1.2+sp.x"\n'),
        (b"__version__ = version = '1.2'\n", b"__version__ = version = '1.2+sp.x'\n"),
        (b'__version__: str = "1.2"  # 1.2\r\n', b'__version__: str = "1.2+sp.x"  # 1.2\r\n'),
        (b'# 1.2\nx = "1.2"\n__version__ = "1.2"', b'# 1.2\nx = "1.2"\n__version__ = "1.2+sp.x"'),
        (
            '# é\nä = 1; __version__ = "1.2"\n'.encode(),
            '# é\nä = 1; __version__ = "1.2+sp.x"\n'.encode(),
        ),
        (
            b'try:\n    __version__ = "1.2"\nfinally:\n    pass\n',
            b'try:\n    __version__ = "1.2+sp.x"\nfinally:\n    pass\n',
        ),
    ],
)
def test_the_stamp_touches_one_string(source: bytes, expected: bytes) -> None:
    assert stamp_version(source, "__version__", "1.2", "1.2+sp.x", where="f.py") == expected


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (b"", "found nothing"),
        (b'__version__ = "1.3"\n', "found '1.3'"),
        (b'version = "1.2"\n', "found nothing"),
        (b'__version__ = "1.2"\n__version__ = "1.2"\n', "found '1.2', '1.2'"),
        (b'__version__ = "1.2"\n__version__ = "dev"\n', "found '1.2', 'dev'"),
        (b'__version__ = f"{1}.2"\n', "found nothing"),
        (b'__version__ = "1" ".2"\n', "not one plain string"),
        (b'__version__ = """1\\\n.2"""\n', "not one plain string"),
        (b"__version__ = (\n", "not Python source"),
        (b"\0", "not Python source"),
    ],
)
def test_a_stamp_that_does_not_fit_is_refused(source: bytes, text: str) -> None:
    with pytest.raises(InputError, match=text):
        stamp_version(source, "__version__", "1.2", "1.2+sp.x", where="f.py")
