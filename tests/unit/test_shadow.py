"""What would be loaded instead of the patched source, each case planted for real."""

from __future__ import annotations

import json
import random
import venv
import zipfile
from collections import Counter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import pytest
from tests.images import LayoutMaker, tar_layer
from tests.stack import RECIPE

from stackpatch.artefacts.images import RemoteImage
from stackpatch.artefacts.layout import Layout
from stackpatch.checks.audit import Policy, audit_members
from stackpatch.checks.shadow import Effect, Finding, Kind, Scene, shadows
from stackpatch.checks.shadow_scene import Noted, shadowing
from stackpatch.checks.targets import target_kind, target_members
from stackpatch.errors import InputError
from stackpatch.model.arch import parse_arch
from stackpatch.model.recipe_file import parse_recipe

if TYPE_CHECKING:
    from stackpatch.artefacts.base import OpenRemote
    from stackpatch.artefacts.images import ImageSource
    from stackpatch.artefacts.oci import Descriptor

_TEXT = RECIPE.format(file="demo-1.2.3-py3-none-any.whl", sha256="b" * 64, size=1)
DEMO = parse_recipe(
    "r",
    _TEXT.replace(
        "shadowed-by: [torch]",
        "shadowed-by: [demo-jit-cache]\nsame-version: [demo-cubin, demo-jit-cache]",
    ).encode(),
)
SM90 = parse_arch("sm90")


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


def scene_of_target(target: Path | str, remote: OpenRemote | None = None) -> Scene:
    """What an audit of the target sees of the stack while it reads it."""
    kind = target_kind(str(target), remote=remote)
    noted = Noted(str(target), kind, DEMO)
    members = target_members(str(target), kind, "linux/amd64", remote=remote)
    audit_members(str(target), kind, noted.passing(members), SM90, Policy())
    return noted.scene()


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
    scene = scene_of_target(site(env))
    assert scene.links == (
        (f"{site(env)}/__editable___demo_finder.py", str(tmp_path / "src/demo")),
    )


def test_a_folder_alone_does_not_say_which_copy_wins(tmp_path: Path) -> None:
    package(tmp_path / "opt/site-packages")
    package(tmp_path / "workspace/demo/python")
    scene = scene_of_target(tmp_path)
    assert len(scene.copies) == 2
    (found,) = shadows(scene, DEMO)
    assert (found.kind, found.effect) == (Kind.COPIES, Effect.UNKNOWN)
    put(tmp_path, {"opt/site-packages/demo.pth": "# no\nimport sys\n/workspace/demo/python\n"})
    found = shadows(scene_of_target(tmp_path), DEMO)[1]
    assert (found.kind, found.what) == (
        Kind.EDITABLE,
        "the import path is led to /workspace/demo/python",
    )


def test_a_wheel_is_read_like_a_folder(tmp_path: Path) -> None:
    from tests.wheels import FILES, make_wheel

    wheel = make_wheel(tmp_path, {**FILES, "demo/data/aot/k/k.so": b""})
    (found,) = shadows(scene_of_target(wheel), DEMO)
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
    found = shadows(scene_of_target(layout), DEMO)
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
    again = scene_of_target("host.example/x:1", lambda _: remote)
    assert shadows(again, DEMO) == found


def test_no_environment_is_said() -> None:
    with pytest.raises(InputError):
        shadowing(Path("/nowhere/python"), DEMO)


def test_a_package_of_cubins_is_named_and_takes_nothing(env: Path) -> None:
    package(site(env), "1.2.3+sp.01234567")
    package(site(env), name="demo_cubin")
    (found,) = shadowing(env, DEMO)
    assert (found.kind, found.effect) == (Kind.PREBUILT, Effect.NONE)
    assert found.what == "demo-cubin 1.2.3"
    assert "no source that a series changes" in found.why


def test_a_package_of_cubins_of_another_release_has_to_be_looked_at(env: Path) -> None:
    package(site(env), "1.2.3+sp.01234567")
    package(site(env), "1.2.2", name="demo_cubin")
    (found,) = shadowing(env, DEMO)
    assert found.effect is Effect.UNKNOWN
    assert "refuses to be imported" in found.why
    assert found.todo == "pip install demo-cubin==1.2.3, or uninstall it"


class Counting:
    """A layout that counts how often each blob is opened."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.opened: Counter[str] = Counter()

    def open_blob(self, descriptor: Descriptor) -> IO[bytes]:
        self.opened[str(descriptor.digest)] += 1
        return self.layout.open_blob(descriptor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.layout, name)


def test_an_images_layers_are_read_once_for_the_audit_and_the_shadows(tmp_path: Path) -> None:
    code = (Path(__file__).parents[1] / "data/gpu/13.0-sm_90a.cubin").read_bytes()
    lower = {"opt/demo/__init__.py": b"", "opt/demo/_build_meta.py": b'__version__ = "7"\n'}
    upper = {"opt/demo/data/aot/k/k.so": code, "opt/x.pth": b"/elsewhere\n"}
    maker = LayoutMaker(tmp_path / "layout")
    layers = [tar_layer(lower), tar_layer(upper)]
    layout = Layout.open(maker.write(maker.image(layers)))
    source = Counting(layout)
    remote = RemoteImage("host/name:1", layout.entries[0], cast("ImageSource", source))
    kind = target_kind("host.example/x:1", remote=lambda _: remote)
    noted = Noted("host.example/x:1", kind, DEMO)
    members = target_members("x:1", kind, "linux/amd64", remote=lambda _: remote)
    found = audit_members("x:1", kind, noted.passing(members), SM90, Policy())
    assert [file.path for file in found.files] == ["opt/demo/data/aot/k/k.so"]
    assert found.looked_at == 4  # what was noted is audited too
    scene = noted.scene()
    assert scene.copies == ("opt/demo",)
    assert scene.versions == {"opt/demo": "7"}
    assert scene.links == (("opt/x.pth", "/elsewhere"),)
    assert sorted(source.opened.values())[-2:] == [1, 1]
    assert set(source.opened.values()) == {1}


def test_what_is_noted_is_audited_to_its_end_and_damage_is_told(tmp_path: Path) -> None:
    """A `.pth` may be large, hold GPU code behind its first megabyte, and be damaged."""
    code = (Path(__file__).parents[1] / "data/gpu/13.0-sm_90a.cubin").read_bytes()
    large = random.Random(1).randbytes(3 << 20)
    wheel = tmp_path / "x.zip"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("s/a.pth", b"/elsewhere\n" + large + code)
    with zipfile.ZipFile(wheel, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("s/b.pth", large)
        at = archive.getinfo("s/b.pth").header_offset
    data = bytearray(wheel.read_bytes())
    data[at + 2000 : at + 2400] = bytes(400)
    wheel.write_bytes(data)
    kind = target_kind(str(wheel))
    noted = Noted(str(wheel), kind, DEMO)
    members = target_members(str(wheel), kind, "linux/amd64")
    found = audit_members("x", kind, noted.passing(members), SM90, Policy())
    assert {file.path: file.standing.value for file in found.files} == {
        "s/a.pth": "native",
        "s/b.pth": "unknown",
    }
    assert noted.scene().links[0] == ("s/a.pth", "/elsewhere")


def test_every_finding_says_four_things(env: Path, tmp_path: Path) -> None:
    package(site(env))
    package(site(env), name="demo_jit_cache")
    put(site(env), {"demo/data/aot/k/k.so": ""})
    put(tmp_path / "cache/1.2.3/121a/cached_ops/k", {"k.so": ""})
    found = shadowing(env, DEMO, jit=[tmp_path / "cache"])
    assert len(found) == 3
    for one in found:
        assert all(one.json().values())
