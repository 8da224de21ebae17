"""The overlay: what an image holds after the layer, and which images it refuses."""

from __future__ import annotations

import importlib.metadata
import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.images import LayoutMaker, merged, tar_layer
from tests.wheels import FILES, METADATA, contents, make_wheel, record_hash

from stackpatch.artefacts.finding import find_installed
from stackpatch.artefacts.layer import Kind
from stackpatch.artefacts.layout import Layout, write_layout
from stackpatch.artefacts.lock import rfc3339
from stackpatch.artefacts.oci import Image, Platform
from stackpatch.artefacts.overlay import Overlay, layer_entries, overlay
from stackpatch.artefacts.site import Installed, Reading, Site, compiled_leftovers, taken_out
from stackpatch.artefacts.wheel import WheelResult, repack
from stackpatch.errors import InputError
from stackpatch.installed.record import Row, parse_record

if TYPE_CHECKING:
    from collections.abc import Mapping

EPOCH = 1770249624
VERSION = "1.2.3+sp.0a1b2c3d"
SITE = "opt/env/lib/python3.12/site-packages"
OLD, NEW = "demo-1.2.3.dist-info", f"demo-{VERSION}.dist-info"
AMD = Platform("linux", "amd64")
CHANGES: dict[str, bytes | None] = {
    "demo/gate.py": b"MAJORS = [10, 12]\n",
    "demo/sub/new.py": b"NEW = 1\n",
    "demo/old.py": None,
    "demo/data/csrc/kernel.cu": b"__global__ void k12() {}\n",
}
PYC = ("demo/__pycache__/{}.cpython-312.pyc", "demo/__pycache__/{}.cpython-312.opt-1.pyc")


@pytest.fixture
def wheel(tmp_path: Path) -> WheelResult:
    source = make_wheel(tmp_path / "released")
    return repack(source, CHANGES, local_version=VERSION, target=tmp_path / "out", epoch=EPOCH)


def installed(
    files: Mapping[str, bytes] | None = None, *, site: str = SITE, version: str = "1.2.3"
) -> dict[str, bytes | None]:
    """What pip leaves for the released wheel, as paths of an image."""
    name = f"demo-{version}.dist-info"
    content = dict(FILES if files is None else files)
    content[f"{name}/METADATA"] = METADATA.replace(b"1.2.3", version.encode(), 1)
    content[f"{name}/INSTALLER"] = b"pip\n"
    content[f"{name}/REQUESTED"] = b""
    content[f"{name}/entry_points.txt"] = b"[console_scripts]\n"
    unhashed = [p.format(stem) for stem in ("gate", "old", "_meta") for p in PYC]
    rows = [f"{n},{record_hash(c)},{len(c)}" for n, c in content.items()]
    rows += [f"{n},," for n in (*unhashed, f"{name}/RECORD")]
    rows += [f"../../../bin/demo,{record_hash(b'#!')},2"]
    content |= dict.fromkeys(unhashed, b"bytecode")
    content[f"{name}/RECORD"] = ("\r\n".join(rows) + "\r\n").encode()
    top: dict[str, bytes | None] = dict.fromkeys(["opt", "opt/env", site], None)
    return {
        **top,
        **{f"{site}/{n}": c for n, c in content.items()},
        f"{site}/torch-2.9.0.dist-info/METADATA": b"Name: torch\n",
        f"{site}/torch/__init__.py": b"",
        "opt/env/bin/demo": b"#!",
    }


def based_on(tmp_path: Path, *layers: Mapping[str, bytes | None], **options: Any) -> Layout:
    maker = LayoutMaker(tmp_path / "base")
    tars = [tar_layer(layer, folder_mode=0o2775) for layer in layers]
    return Layout.open(maker.write(maker.image(tars, **options)))


def on(layout: Layout, wheel: WheelResult, site: Site | None = None) -> Overlay:
    image = layout.image(AMD)
    return overlay(
        image,
        wheel,
        site or find_installed(layout, image, "demo", watched=frozenset(wheel.released)),
        base_name="registry.test/base:1",
        epoch=EPOCH,
        labels={"stackpatch.stack": "demo"},
        annotations={"org.opencontainers.image.version": VERSION},
        env={"DEMO_ARCH": "12.1a"},
    )


def unpacked(tmp_path: Path, layout: Layout, made: Overlay) -> Path:
    """The image's files on disk, as a runtime would give them."""
    target = tmp_path / "result"
    write_layout(target, made.image, {made.layer.digest: made.layer.blob}, base=layout)
    root = tmp_path / "root"
    for path, (kind, content, _) in merged(target, str(made.image.digest)).items():
        if kind == "file":
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
    return root


def test_the_image_holds_the_patched_files_and_no_leftovers(
    tmp_path: Path, wheel: WheelResult
) -> None:
    layout = based_on(tmp_path, installed())
    root = unpacked(tmp_path, layout, on(layout, wheel)) / SITE
    expected = {
        name: content for name, content in contents(wheel.path).items() if name.startswith("demo/")
    }
    found = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in (root / "demo").rglob("*")
        if path.is_file()
    }
    kept = dict.fromkeys([p.format("_meta") for p in PYC], b"bytecode")
    assert found == {**expected, **kept}
    assert sorted(p.name for p in root.iterdir()) == [
        "demo",
        NEW,
        "torch",
        "torch-2.9.0.dist-info",
    ]


def test_python_sees_the_patched_version_and_only_that(tmp_path: Path, wheel: WheelResult) -> None:
    layout = based_on(tmp_path, installed())
    root = unpacked(tmp_path, layout, on(layout, wheel)) / SITE
    found = [d for d in importlib.metadata.distributions(path=[str(root)]) if d.name == "demo"]
    assert [d.version for d in found] == [VERSION]
    for file in found[0].files or ():
        assert file.locate().is_file(), file  # type: ignore[attr-defined]
        if file.hash:
            content = Path(str(file.locate())).read_bytes()
            assert record_hash(content) == f"sha256={file.hash.value}"
    assert {str(file) for file in found[0].files or ()} >= {
        "../../../bin/demo",
        f"{NEW}/INSTALLER",
        f"{NEW}/REQUESTED",
        f"{NEW}/RECORD",
        PYC[0].format("_meta"),
        "demo/sub/new.py",
    }


def test_record_names_every_file_of_the_package_once(tmp_path: Path, wheel: WheelResult) -> None:
    layout = based_on(tmp_path, installed())
    root = unpacked(tmp_path, layout, on(layout, wheel)) / SITE
    rows = parse_record((root / NEW / "RECORD").read_bytes())
    there = {
        path.relative_to(root).as_posix()
        for top in ("demo", NEW)
        for path in (root / top).rglob("*")
        if path.is_file()
    }
    assert set(rows) == there | {"../../../bin/demo"}
    assert list(rows) == sorted(rows)


def test_the_image_says_what_it_is(tmp_path: Path, wheel: WheelResult) -> None:
    layout = based_on(tmp_path, installed())
    made = on(layout, wheel)
    config = made.image.config_json()
    assert config["config"]["Env"] == ["PATH=/usr/bin", "A=1", "DEMO_ARCH=12.1a"]
    assert config["config"]["Labels"] == {"old": "yes", "stackpatch.stack": "demo"}
    assert config["created"] == "2026-02-05T00:00:24Z"
    assert made.image.manifest_json()["annotations"] == {
        "org.opencontainers.image.base.digest": str(layout.image(AMD).digest),
        "org.opencontainers.image.base.name": "registry.test/base:1",
        "org.opencontainers.image.version": VERSION,
        "stackpatch.stack": "demo",
    }


def test_folders_of_the_base_keep_their_modes_and_owners(
    tmp_path: Path, wheel: WheelResult
) -> None:
    layout = based_on(tmp_path, installed())
    made = on(layout, wheel)
    with tarfile.open(fileobj=io.BytesIO(made.layer.blob)) as tar:
        found = {m.name: m for m in tar}
    assert (found[SITE].mode, found[SITE].uid, found[SITE].gid) == (0o2775, 7, 8)
    assert found[SITE].mtime == 1_600_000_000
    # New here, so nobody's but ours.
    assert (found[f"{SITE}/{NEW}"].mode, found[f"{SITE}/{NEW}"].uid) == (0o755, 0)


def test_the_layer_holds_nothing_but_what_changed(tmp_path: Path, wheel: WheelResult) -> None:
    layout = based_on(tmp_path, installed())
    site = find_installed(layout, layout.image(AMD), "demo")
    entries = layer_entries(wheel, site, epoch=EPOCH, on_top=True)
    names = {(e.kind, e.path.removeprefix(f"{SITE}/")) for e in entries}
    info = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "INSTALLER", "REQUESTED")
    assert names == {
        *((Kind.FILE, name) for name, content in CHANGES.items() if content is not None),
        *((Kind.FILE, f"{NEW}/{name}") for name in info),
        (Kind.WHITEOUT, OLD),
        (Kind.WHITEOUT, "demo/old.py"),
        *((Kind.WHITEOUT, p.format(stem)) for p in PYC for stem in ("gate", "old")),
    }


def test_scratch_gets_the_files_and_no_whiteouts(tmp_path: Path, wheel: WheelResult) -> None:
    made = overlay(
        Image.scratch(AMD),
        wheel,
        Site(SITE),
        base_name=None,
        epoch=EPOCH,
        labels={},
        annotations={},
        env={},
    )
    with tarfile.open(fileobj=io.BytesIO(made.layer.blob)) as tar:
        files = [m.name.removeprefix(f"{SITE}/") for m in tar if not m.isdir()]
    assert not [name for name in files if ".wh." in name]
    assert f"{NEW}/INSTALLER" in files
    assert "annotations" not in made.image.manifest_json()
    assert made.image.config_json()["rootfs"]["diff_ids"] == [str(made.layer.diff_id)]


def test_a_base_that_is_not_read_gets_whiteouts_by_convention(wheel: WheelResult) -> None:
    entries = layer_entries(wheel, Site(SITE), epoch=EPOCH, on_top=True)
    hidden = {e.path.removeprefix(f"{SITE}/") for e in entries if e.kind is Kind.WHITEOUT}
    levels = ("", ".opt-1", ".opt-2")
    stems = ("demo/__pycache__/gate", "demo/__pycache__/old", "demo/sub/__pycache__/new")
    assert hidden == {
        OLD,
        "demo/old.py",
        *(f"{stem}.cpython-312{level}.pyc" for stem in stems for level in levels),
    }
    record = next(e for e in entries if e.path.endswith("RECORD"))
    assert f"{NEW}/INSTALLER" in parse_record(record.content)


def test_bytecode_of_an_unknown_python_is_not_guessed() -> None:
    assert compiled_leftovers(Site("srv/packages"), ["demo/gate.py"]) == ()
    assert compiled_leftovers(Site(SITE), ["demo/kernel.cu"]) == ()
    assert compiled_leftovers(Site("usr/lib/python3.9/x"), ["a.py"])[0] == (
        "__pycache__/a.cpython-39.opt-1.pyc"
    )


def test_changes_that_install_elsewhere_are_refused(tmp_path: Path) -> None:
    files = {**FILES, "demo-1.2.3.data/scripts/tool": b"#!python\n"}
    result = repack(
        make_wheel(tmp_path, files),
        {"demo-1.2.3.data/scripts/tool": b"#!python\n1\n"},
        local_version=VERSION,
        target=tmp_path / "out",
        epoch=EPOCH,
    )
    with pytest.raises(InputError, match=r"cannot place demo-1\.2\.3\+sp.*/scripts/tool"):
        on(based_on(tmp_path, installed(files)), result)


# -- reading the base -------------------------------------------------------------------------


def test_where_a_package_lives_is_found(tmp_path: Path) -> None:
    layout = based_on(tmp_path, installed())
    site = find_installed(layout, layout.image(AMD), "Demo", watched={"demo/gate.py"})
    assert site.path == SITE
    assert site.installed is not None
    assert site.installed.version == "1.2.3"
    assert site.installed.dist_info == OLD
    assert site.installed.kept == {"INSTALLER": b"pip\n", "REQUESTED": b""}
    assert site.installed.distributions == {"demo": OLD, "torch": "torch-2.9.0.dist-info"}
    assert site.installed.hashes == {"demo/gate.py": record_hash(FILES["demo/gate.py"])}
    assert site.installed.record["../../../bin/demo"] == Row(
        "../../../bin/demo", record_hash(b"#!"), "2"
    )


@pytest.mark.parametrize(
    "gone",
    [
        {f"{SITE}/.wh.demo-1.2.3.dist-info": b""},
        {f"{SITE}/{OLD}/.wh..wh..opq": b""},
        {f"{SITE}/.wh..wh..opq": b""},
        {"opt/.wh.env": b""},
        {"opt/env": b"a file in the place of the folder"},
        {f"{SITE}/{OLD}/.wh.RECORD": b""},
    ],
)
def test_what_an_upper_layer_removed_is_not_there(
    tmp_path: Path, gone: dict[str, bytes | None]
) -> None:
    layout = based_on(tmp_path, installed(), gone)
    with pytest.raises(InputError, match="the base image has no demo"):
        find_installed(layout, layout.image(AMD), "demo")


def test_a_whiteout_does_not_hide_what_its_own_layer_brings(tmp_path: Path) -> None:
    upper = {f"{SITE}/.wh.{OLD}": b"", **installed(version="1.2.4")}
    layout = based_on(tmp_path, installed(), upper)
    site = find_installed(layout, layout.image(AMD), "demo")
    assert site.installed is not None
    assert site.installed.version == "1.2.4"


def test_the_uppermost_content_counts(tmp_path: Path) -> None:
    upper: dict[str, bytes | None] = {f"{SITE}/demo/gate.py": b"edited\n"}
    layout = based_on(tmp_path, installed(), upper)
    site = find_installed(layout, layout.image(AMD), "demo", watched={"demo/gate.py"})
    assert site.installed is not None
    assert site.installed.hashes == {"demo/gate.py": record_hash(b"edited\n")}


def test_absolute_and_dotted_member_names_are_the_same_paths(tmp_path: Path) -> None:
    layout = based_on(tmp_path, {f"./{path}": c for path, c in installed().items()})
    assert find_installed(layout, layout.image(AMD), "demo").path == SITE


def test_two_installations_are_refused(tmp_path: Path) -> None:
    other = "usr/lib/python3/dist-packages"
    layout = based_on(tmp_path, installed() | installed(site=other))
    with pytest.raises(InputError, match=r"has demo 2 times: opt/env.*usr/lib/python3") as caught:
        find_installed(layout, layout.image(AMD), "demo")
    assert "--site" in str(caught.value.hint)
    for one in (SITE, other):
        assert find_installed(layout, layout.image(AMD), "demo", site=f"/{one}/").path == one


def test_an_editable_installation_is_refused(tmp_path: Path) -> None:
    url = json.dumps({"url": "file:///src", "dir_info": {"editable": True}}).encode()
    layout = based_on(tmp_path, {**installed(), f"{SITE}/{OLD}/direct_url.json": url})
    with pytest.raises(InputError, match="editable installation"):
        find_installed(layout, layout.image(AMD), "demo")


def test_an_installation_from_a_url_loses_the_url(tmp_path: Path, wheel: WheelResult) -> None:
    url = b'{"url": "https://x/demo.whl", "archive_info": {}}'
    layout = based_on(tmp_path, {**installed(), f"{SITE}/{OLD}/direct_url.json": url})
    root = unpacked(tmp_path, layout, on(layout, wheel)) / SITE
    assert not (root / NEW / "direct_url.json").exists()


@pytest.mark.parametrize("version", ["1.2.4", "1.2.3+sp.ffffffff", "1.2.3.post1", "x"])
def test_a_base_with_another_version_is_refused(
    tmp_path: Path, wheel: WheelResult, version: str
) -> None:
    layout = based_on(tmp_path, installed(version=version))
    with pytest.raises(InputError) as caught:
        on(layout, wheel)
    expected = f"the base image has demo {version}, the patched release is 1.2.3"
    assert caught.value.message == expected


def test_a_base_whose_files_were_changed_is_refused(tmp_path: Path, wheel: WheelResult) -> None:
    upper: dict[str, bytes | None] = {f"{SITE}/demo/gate.py": b"MAJORS = [10, 11]\n"}
    layout = based_on(tmp_path, installed(), upper)
    with pytest.raises(InputError, match=r"demo/gate\.py of the base.*it was changed there"):
        on(layout, wheel)


def test_a_base_that_lacks_a_file_is_refused(tmp_path: Path, wheel: WheelResult) -> None:
    upper: dict[str, bytes | None] = {f"{SITE}/demo/.wh.old.py": b""}
    layout = based_on(tmp_path, installed(), upper)
    with pytest.raises(InputError, match=r"demo/old\.py of the base.*it is missing there"):
        on(layout, wheel)


@pytest.mark.parametrize("content", [b"a,b\n", b"x,,\nx,,\n", b"\xff"])
def test_a_record_that_cannot_be_read_is_said(tmp_path: Path, content: bytes) -> None:
    layout = based_on(tmp_path, {**installed(), f"{SITE}/{OLD}/RECORD": content})
    with pytest.raises(InputError, match="RECORD cannot be read"):
        find_installed(layout, layout.image(AMD), "demo")


@pytest.mark.parametrize("junk", [b"\x28\xb5\x2f\xfd\0\0\0", b"not a tar" * 100, b"\x1f\x8b\x08"])
def test_a_layer_that_cannot_be_read_is_said(tmp_path: Path, junk: bytes) -> None:
    maker = LayoutMaker(tmp_path / "base")
    layout = Layout.open(maker.write(maker.image([junk], layer_media="application/x.tar+zstd")))
    with pytest.raises(InputError, match=r"application/x\.tar\+zstd. cannot be read"):
        find_installed(layout, layout.image(AMD), "demo")


def test_times_are_written_in_utc() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00Z"
    assert rfc3339(EPOCH) == "2026-02-05T00:00:24Z"


@pytest.mark.parametrize("tags", ["cp311-cp311-manylinux_2_34_x86_64", "cp311-cp311-any"])
def test_a_wheel_for_another_python_is_refused(tmp_path: Path, tags: str) -> None:
    source = make_wheel(tmp_path / "released", name=f"demo-1.2.3-{tags}.whl")
    bound = repack(source, CHANGES, local_version=VERSION, target=tmp_path / "out", epoch=EPOCH)
    layout = based_on(tmp_path, installed())
    with pytest.raises(
        InputError, match="the wheel is for cp311, the base image has demo for cp312"
    ):
        on(layout, bound)
    fits = make_wheel(tmp_path / "b", name=f"demo-1.2.3-{tags.replace('311', '312')}.whl")
    bound = repack(fits, CHANGES, local_version=VERSION, target=tmp_path / "out", epoch=EPOCH)
    assert on(layout, bound).layer.blob
    stable = make_wheel(tmp_path / "c", name="demo-1.2.3-cp38-abi3-manylinux_2_34_x86_64.whl")
    bound = repack(stable, CHANGES, local_version=VERSION, target=tmp_path / "out", epoch=EPOCH)
    assert on(layout, bound).layer.blob


AOT = "flashinfer/data/aot"


@pytest.mark.parametrize(
    ("paths", "read", "gone"),
    [
        (("flashinfer/a.py", f"{AOT}/norm/norm.so"), 2, {AOT}),
        (("flashinfer/a.py",), 2, set()),
        # A layer that was not read may have it, and to hide what is not there does no harm.
        (("flashinfer/a.py",), 1, {"flashinfer_jit_cache", AOT}),
    ],
)
def test_modules_that_were_compiled_into_the_package_itself_are_taken_out(
    paths: tuple[str, ...], read: int, gone: set[str]
) -> None:
    """No distribution names them, pip does not remove them, and FlashInfer loads them first."""
    there = Installed("1", "flashinfer_python-1.dist-info", {}, {}, frozenset(paths), {}, {})
    site = Site(SITE, there, {}, Reading(read, 2, 10))
    found = taken_out(site, ("flashinfer-jit-cache",))
    assert {path for listed in found.values() for path in listed} == gone
    assert taken_out(site, ("torch",)).get("torch", ("torch",)) == ("torch",)
