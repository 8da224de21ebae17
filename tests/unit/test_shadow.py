"""What would be loaded instead of the patched source, each case planted for real."""

from __future__ import annotations

import json
import os
import venv
from pathlib import Path

import pytest
from tests.images import LayoutMaker, tar_layer
from tests.stack import RECIPE

from stackpatch.artefacts.images import RemoteImage
from stackpatch.artefacts.layout import Layout
from stackpatch.checks.shadow import Effect, Finding, JitModule, Kind, Scene, shadows
from stackpatch.checks.shadow_scene import (
    RECORD,
    jit_modules,
    ninja_sources,
    record_inputs,
    shadowing,
    target_scene,
)
from stackpatch.errors import InputError
from stackpatch.model.recipe_file import parse_recipe

_TEXT = RECIPE.format(file="demo-1.2.3-py3-none-any.whl", sha256="b" * 64, size=1)
DEMO = parse_recipe(
    "r", _TEXT.replace("shadowed-by: [torch]", "shadowed-by: [demo-jit-cache]").encode()
)


@pytest.fixture(scope="module")
def _base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("venv") / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    return folder


@pytest.fixture
def env(_base: Path) -> Path:
    """A real virtual environment, emptied."""
    for entry in sorted(site(_base).rglob("*"), reverse=True):
        entry.rmdir() if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    return _base


def site(env: Path) -> Path:
    return next(env.glob("lib/python*/site-packages"))


def put(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def package(root: Path, version: str = "1.2.3", name: str = "demo") -> None:
    put(
        root,
        {
            f"{name}/__init__.py": "raise SystemExit('nothing may import it')\n",
            f"{name}/_build_meta.py": f'__version__ = "{version}"\n',
            f"{name}-{version}.dist-info/METADATA": f"Name: {name}\nVersion: {version}\n",
        },
    )


def kinds(found: list[Finding]) -> list[tuple[Kind, Effect]]:
    return [(one.kind, one.effect) for one in found]


def test_a_plain_installation_has_no_shadow(env: Path) -> None:
    package(site(env))
    assert shadowing(env, DEMO) == []
    assert shadowing(env / "bin" / "python", DEMO) == []


def test_nothing_installed_has_none_either(env: Path) -> None:
    assert shadowing(env, DEMO) == []


def test_modules_in_data_aot_win(env: Path) -> None:
    package(site(env))
    put(
        site(env),
        {"demo/data/aot/k/k.so": "", "demo/data/aot/l/l.so": "", "demo/data/aot/x.txt": ""},
    )
    (found,) = shadowing(env, DEMO)
    assert (found.kind, found.effect) == (Kind.AOT, Effect.WINS)
    assert found.what == "2 compiled modules"
    assert found.where == str(site(env) / "demo/data/aot")


def test_a_prebuilt_package_wins_and_its_provider_may(env: Path) -> None:
    package(site(env))
    package(site(env), name="demo_jit_cache")
    package(site(env), name="demo_jit_cache_cu130")
    package(site(env), name="unrelated_jit_cache")
    found = shadowing(env, DEMO)
    assert kinds(found) == [(Kind.PREBUILT, Effect.WINS), (Kind.PREBUILT, Effect.UNKNOWN)]
    assert found[0].what == "demo-jit-cache 1.2.3"
    assert found[0].todo == "pip uninstall demo-jit-cache"


def test_a_stamped_build_does_not_claim_that_the_package_wins(env: Path) -> None:
    package(site(env), "1.2.3+sp.01234567")
    package(site(env), name="demo_jit_cache")
    (found,) = shadowing(env, DEMO)
    assert found.effect is Effect.UNKNOWN
    assert "FLASHINFER_DISABLE_VERSION_CHECK=1" in found.why


def test_an_editable_install_is_where_python_imports_from(env: Path, tmp_path: Path) -> None:
    put(tmp_path / "src", {"demo/__init__.py": ""})
    url = (tmp_path / "src").as_uri()
    put(
        site(env),
        {
            "__editable__.demo-1.2.3.pth": f"{tmp_path / 'src'}\n",
            "demo-1.2.3.dist-info/METADATA": "Name: demo\nVersion: 1.2.3\n",
            "demo-1.2.3.dist-info/direct_url.json": json.dumps(
                {"url": url, "dir_info": {"editable": True}}
            ),
        },
    )
    (found,) = shadowing(env, DEMO)
    assert (found.kind, found.effect) == (Kind.EDITABLE, Effect.WINS)
    assert str(tmp_path / "src" / "demo") in found.why


def test_a_copy_in_site_packages_beats_an_editable_one(env: Path, tmp_path: Path) -> None:
    put(tmp_path / "src", {"demo/__init__.py": ""})
    package(site(env))
    direct = json.dumps({"url": (tmp_path / "src").as_uri(), "dir_info": {"editable": True}})
    put(
        site(env),
        {"demo-1.2.3.dist-info/direct_url.json": direct, "zz.pth": f"{tmp_path / 'src'}\n"},
    )
    found = shadowing(env, DEMO)
    assert kinds(found) == [(Kind.COPIES, Effect.WINS), (Kind.EDITABLE, Effect.UNKNOWN)]
    assert found[0].what.endswith(f"Python imports {site(env) / 'demo'}")
    assert found[0].where == str(tmp_path / "src" / "demo")


def test_a_wheel_from_a_folder_is_no_editable_install(env: Path) -> None:
    package(site(env))
    put(
        site(env),
        {"demo-1.2.3.dist-info/direct_url.json": '{"url": "file:///x", "dir_info": {}}'},
    )
    assert shadowing(env, DEMO) == []


def test_a_finder_without_metadata_is_followed(env: Path, tmp_path: Path) -> None:
    """The shape of setuptools' finders: a `.pth` that imports a module with a mapping."""
    put(tmp_path / "src", {"demo/__init__.py": ""})
    package(site(env))
    mapping = f"MAPPING = {{'demo': '{tmp_path / 'src/demo'}'}}\n"
    finder = mapping + (
        "import sys, importlib.util as u\n"
        "class F:\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        "        if name in MAPPING:\n"
        "            place = MAPPING[name]\n"
        "            return u.spec_from_file_location(name, place + '/__init__.py',\n"
        "                submodule_search_locations=[place])\n"
        "def install():\n"
        "    sys.meta_path.insert(0, F)\n"
    )
    put(
        site(env),
        {
            "__editable___demo_finder.py": finder,
            "__editable__.demo.pth": "import __editable___demo_finder as f; f.install()\n",
        },
    )
    (found,) = shadowing(env, DEMO)
    assert (found.kind, found.effect) == (Kind.COPIES, Effect.WINS)
    assert found.what.endswith(f"Python imports {tmp_path / 'src/demo'}")
    assert found.where == str(site(env) / "demo")
    scene = target_scene(str(site(env)), DEMO, "linux/amd64")
    assert scene.links == (
        (f"{site(env)}/__editable___demo_finder.py", str(tmp_path / "src/demo")),
    )


def test_a_folder_alone_does_not_say_which_copy_wins(tmp_path: Path) -> None:
    package(tmp_path / "opt/site-packages")
    package(tmp_path / "workspace/demo/python")
    scene = target_scene(str(tmp_path), DEMO, "linux/amd64")
    assert len(scene.copies) == 2
    (found,) = shadows(scene, DEMO)
    assert (found.kind, found.effect) == (Kind.COPIES, Effect.UNKNOWN)
    put(tmp_path, {"opt/site-packages/demo.pth": "# no\nimport sys\n/workspace/demo/python\n"})
    found = shadows(target_scene(str(tmp_path), DEMO, "linux/amd64"), DEMO)[1]
    assert (found.kind, found.what) == (
        Kind.EDITABLE,
        "the import path is led to /workspace/demo/python",
    )


def test_a_wheel_is_read_like_a_folder(tmp_path: Path) -> None:
    from tests.wheels import FILES, make_wheel

    wheel = make_wheel(tmp_path, {**FILES, "demo/data/aot/k/k.so": b""})
    (found,) = shadows(target_scene(str(wheel), DEMO, "linux/amd64"), DEMO)
    assert found.kind is Kind.AOT


def test_an_image_is_read_through_its_layers(tmp_path: Path) -> None:
    site = "usr/lib/python3/dist-packages"
    lower = {
        f"{site}/demo/__init__.py": b"",
        f"{site}/demo/data/aot/k/k.so": b"old",
        f"{site}/demo_jit_cache-1.2.3.dist-info/METADATA": b"",
        f"{site}/demo.pth": b"/workspace/gone\n",
    }
    upper = {
        f"{site}/.wh.demo.pth": b"",
        "workspace/demo/python/demo/__init__.py": b"",
        f"{site}/demo-1.2.3.dist-info/direct_url.json": json.dumps(
            {"url": "file:///workspace/demo/python", "dir_info": {"editable": True}}
        ).encode(),
    }
    maker = LayoutMaker(tmp_path / "layout")
    layout = maker.write(maker.image([tar_layer(lower), tar_layer(upper)]))
    found = shadows(target_scene(str(layout), DEMO, "linux/amd64"), DEMO)
    assert kinds(found) == [
        (Kind.COPIES, Effect.UNKNOWN),
        (Kind.EDITABLE, Effect.UNKNOWN),
        (Kind.AOT, Effect.WINS),
        (Kind.PREBUILT, Effect.WINS),
    ]
    assert "workspace/demo/python" in found[1].what
    assert not [one for one in found if "/workspace/gone" in one.what]  # whited out above
    opened = Layout.open(layout)
    remote = RemoteImage("host/name:1", opened.entries[0], opened)
    again = target_scene("host.example/x:1", DEMO, "linux/amd64", remote=lambda _: remote)
    assert shadows(again, DEMO) == found


def test_no_environment_is_said() -> None:
    with pytest.raises(InputError):
        shadowing(Path("/nowhere/python"), DEMO)


# -- compiled modules -------------------------------------------------------------------------

NINJA = """\
ninja_required_version = 1.3
rule cuda_compile
  command = nvcc
build {folder}/a.cuda.o: cuda_compile {source}
build {folder}/b.o: compile {other}
build {folder}/k.so: link {folder}/a.cuda.o {folder}/b.o
default {folder}/k.so
"""


def module(base: Path, version: str = "1.2.3") -> tuple[Path, Path]:
    folder = base / version / "121a" / "cached_ops" / "k"
    source = base.parent / "src" / "a b.cu"
    put(base.parent, {"src/a b.cu": "kernel 1\n", "src/b.cc": "binding\n"})
    escaped = str(source).replace(" ", "$ ")
    text = NINJA.format(folder=folder, source=escaped, other=base.parent / "src/b.cc")
    put(folder, {"build.ninja": text, "k.so": "ELF"})
    return folder, source


def scene(base: Path, version: str = "1.2.3") -> Scene:
    return Scene(
        copies=("/s/demo",),
        loaded="/s/demo",
        versions={"/s/demo": version},
        jit=tuple(jit_modules(base)),
    )


def test_a_module_that_nothing_vouches_for_is_unknown_and_never_fresh(tmp_path: Path) -> None:
    folder, source = module(tmp_path / "cache")
    (one,) = jit_modules(tmp_path / "cache")
    assert one == JitModule("k", str(folder), "1.2.3", (str(source), str(tmp_path / "src/b.cc")))
    (found,) = shadows(scene(tmp_path / "cache"), DEMO)
    assert (found.kind, found.effect) == (Kind.JIT, Effect.UNKNOWN)


def test_a_stale_module_is_told_by_content_whatever_the_times_say(tmp_path: Path) -> None:
    folder, source = module(tmp_path / "cache")
    record_inputs(folder)
    (found,) = shadows(scene(tmp_path / "cache"), DEMO)
    assert found.effect is Effect.UNKNOWN  # headers are not recorded, so it is not called fresh
    source.write_text("kernel 2\n")
    os.utime(source, (1, 1))  # far older than the module: ninja has no work to do
    (found,) = shadows(scene(tmp_path / "cache"), DEMO)
    assert (found.kind, found.effect) == (Kind.JIT, Effect.WINS)
    assert str(source) in found.what
    source.write_text("kernel 1\n")
    os.utime(source)  # newer and the same: not stale
    (found,) = shadows(scene(tmp_path / "cache"), DEMO)
    assert found.effect is Effect.UNKNOWN


def test_a_source_that_is_gone_is_another_source(tmp_path: Path) -> None:
    folder, source = module(tmp_path / "cache")
    record_inputs(folder)
    source.unlink()
    (found,) = shadows(scene(tmp_path / "cache"), DEMO)
    assert found.effect is Effect.WINS


def test_a_record_of_an_earlier_module_counts_for_nothing(tmp_path: Path) -> None:
    folder, source = module(tmp_path / "cache")
    record_inputs(folder)
    source.write_text("kernel 2\n")
    (folder / "k.so").write_text("ELF, built again\n")
    (found,) = shadows(scene(tmp_path / "cache"), DEMO)
    assert found.effect is Effect.UNKNOWN


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"module": 1, "inputs": 2}', "\x00"])
def test_a_broken_record_counts_for_nothing(tmp_path: Path, record: str) -> None:
    folder, _ = module(tmp_path / "cache")
    (folder / RECORD).write_text(record)
    (found,) = shadows(scene(tmp_path / "cache"), DEMO)
    assert found.effect is Effect.UNKNOWN


def test_modules_of_another_version_and_self_checking_ones_are_no_matter(tmp_path: Path) -> None:
    folder, _ = module(tmp_path / "cache")
    assert shadows(scene(tmp_path / "cache", "1.2.3+sp.01234567"), DEMO) == []
    (folder / "meta.json").write_text("{}")
    assert shadows(scene(tmp_path / "cache"), DEMO) == []


def test_the_sources_of_a_build_file() -> None:
    text = "build a$ b.o: cuda_compile /x/a$ b.cu | dep.h\nbuild c.so: link a.o\n"
    assert ninja_sources(text) == ("/x/a b.cu",)
    assert ninja_sources("build a.o: compile $\n/x.cc\n") == ("/x.cc",)
    assert ninja_sources("") == ()


def test_every_finding_says_four_things(env: Path, tmp_path: Path) -> None:
    package(site(env))
    package(site(env), name="demo_jit_cache")
    put(site(env), {"demo/data/aot/k/k.so": ""})
    module(tmp_path / "cache")
    found = shadowing(env, DEMO, jit=[tmp_path / "cache"])
    assert len(found) == 3
    for one in found:
        assert all(one.json().values())
