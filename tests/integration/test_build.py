"""The main job on real releases: what pip, Python and tar make of what a build leaves."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.images import LayoutMaker, merged
from tests.wheels import contents, make_wheel, wheel_of

from stackpatch import storage
from stackpatch.artefacts.rawzip import RawZip
from stackpatch.artefacts.release import build_release, plan_release
from stackpatch.artefacts.stamp import patched_version
from stackpatch.artefacts.wheel import repack
from stackpatch.model.arch import parse_arch
from stackpatch.model.collection import Collection

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackpatch.artefacts.build import BuildResult

pytestmark = pytest.mark.pypi

ROOT = Path(__file__).parents[2]


def seeded(artefact: Callable[[str, str], Path], stack: str, version: str) -> None:
    """Put the release's pinned files into this test's download cache."""
    for pin in Collection(ROOT).recipe(stack).release(version).artefacts:
        source = artefact(pin.file, pin.sha256)
        folder = storage.cache_root() / "downloads" / "sha256" / pin.sha256
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / pin.file).exists():
            shutil.copyfile(source, folder / pin.file)


def built(
    artefact: Callable[[str, str], Path],
    out: Path,
    *,
    stack: str = "flashinfer",
    version: str = "0.6.3",
    arch: str = "sm121",
    base: str = "scratch",
) -> BuildResult:
    """A build from this repository's own recipe and series, without a network."""
    seeded(artefact, stack, version)
    collection = Collection(ROOT)
    recipe = collection.recipe(stack)
    release = recipe.release(version)
    one = parse_arch(arch)
    plan, opened = plan_release(recipe, release, one, collection.series(stack, release), base=base)
    return build_release(recipe, release, one, plan, opened, out=out, offline=True)


def python(venv: Path, *argv: str, cwd: Path | None = None) -> str:
    """Run a venv's Python; its stdout."""
    done = subprocess.run(
        [str(venv / "bin" / "python"), *argv],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_venv(path: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", str(path)], check=True)
    return path


def site_of(venv: Path) -> Path:
    return next((venv / "lib").glob("python3*/site-packages"))


def test_flashinfer_for_sm121(artefact: Callable[[str, str], Path], tmp_path: Path) -> None:
    result = built(artefact, tmp_path / "out")
    release = Collection(ROOT).recipe("flashinfer").release("0.6.3")
    released = artefact(release.artefacts[1].file, release.artefacts[1].sha256)
    version = result.plan.inputs.patched
    before, after = contents(released), contents(result.folder / wheel_of(result.outputs).path)
    plain = {n: c for n, c in after.items() if ".dist-info/" not in n}
    changed = {n for n in plain if plain[n] != before.get(n)}
    assert changed == {
        "flashinfer/_build_meta.py",
        "flashinfer/compilation_context.py",
        "flashinfer/data/csrc/trtllm_fused_moe_kernel_launcher.cu",
        "flashinfer/jit/cpp_ext.py",
        "flashinfer/jit/env.py",
        "flashinfer/jit/fused_moe.py",
    }
    assert set(plain) == {n for n in before if ".dist-info/" not in n}
    assert b"[10, 12" in after["flashinfer/jit/fused_moe.py"]
    assert f'__version__ = "{version}"'.encode() in after["flashinfer/_build_meta.py"]
    assert result.outputs.notes == ()

    venv = make_venv(tmp_path / "venv")
    wheel = str(result.folder / wheel_of(result.outputs).path)
    python(venv, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-compile", wheel)
    site = site_of(venv)
    assert {n: (site / n).read_bytes() for n in plain} == plain
    code = "import importlib.metadata as m; print(m.version('flashinfer-python'))"
    assert python(venv, "-c", code).strip() == version
    modes = {n: os.access(site / n, os.X_OK) for n in plain}
    with zipfile.ZipFile(released) as archive:
        executable = {i.filename for i in archive.infolist() if i.external_attr >> 16 & 0o111}
    assert {n for n, mode in modes.items() if mode} == executable & set(plain)
    python(venv, "-m", "pip", "uninstall", "-q", "-y", "flashinfer-python")
    assert not (site / "flashinfer").exists()


def test_pip_resolves_a_dependant_that_pins_the_release(
    artefact: Callable[[str, str], Path], tmp_path: Path
) -> None:
    result = built(artefact, tmp_path / "out")
    links = tmp_path / "links"
    metadata = (
        b"Metadata-Version: 2.1\nName: demo\nVersion: 1.2.3\n"
        b"Requires-Dist: flashinfer_python==0.6.3\n\n"
    )
    demo = make_wheel(links, metadata=metadata)
    # flashinfer's own dependencies are not at hand without a network: a copy that has none.
    with RawZip(result.folder / wheel_of(result.outputs).path) as source:
        info = f"flashinfer_python-{result.plan.inputs.patched}.dist-info"
        text = source.read(source.members[f"{info}/METADATA"])
        tags = source.read(source.members[f"{info}/WHEEL"])
    bare = b"".join(
        line for line in text.splitlines(keepends=True) if not line.startswith(b"Requires-Dist")
    )
    version = result.plan.inputs.patched
    make_wheel(
        links,
        {},
        name=f"flashinfer_python-{version}-py3-none-any.whl",
        dist_info=info,
        metadata=bare,
    )
    assert b"Tag: py3-none-any" in tags
    venv = make_venv(tmp_path / "venv")
    argv = ["-m", "pip", "install", "-q", "--no-index", "--find-links", str(links), "demo"]
    python(venv, *argv)
    python(venv, "-m", "pip", "check")
    code = "import importlib.metadata as m; print(m.version('flashinfer-python'))"
    assert python(venv, "-c", code).strip() == version
    assert demo.is_file()


def test_two_builds_elsewhere_give_the_same_bytes(
    artefact: Callable[[str, str], Path], tmp_path: Path
) -> None:
    one = built(artefact, tmp_path / "one")
    code = (
        "import os, sys; os.umask(0o077)\n"
        "from pathlib import Path\n"
        "from tests.conftest import fetch_artefact\n"
        "from tests.integration.test_build import built\n"
        "print(built(fetch_artefact, Path(sys.argv[1])).folder)\n"
    )
    env = {
        **os.environ,
        "STACKPATCH_CACHE_DIR": str(tmp_path / "another cache"),
        "TZ": "America/St_Johns",
        "LC_ALL": "tr_TR.UTF-8",
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": "11",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "two, with space")],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr

    def digests(folder: Path) -> dict[str, str]:
        return {
            p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in folder.rglob("*")
            if p.is_file()
        }

    assert digests(Path(done.stdout.strip())) == digests(one.folder)
    again = built(artefact, tmp_path / "one")
    assert again.reused


def test_a_second_run_costs_next_to_nothing(
    artefact: Callable[[str, str], Path], tmp_path: Path
) -> None:
    built(artefact, tmp_path / "out")
    shutil.rmtree(storage.cache_root() / "sources")
    shutil.rmtree(storage.cache_root() / "downloads")
    collection = Collection(ROOT)
    recipe = collection.recipe("flashinfer")
    release, arch = recipe.release("0.6.3"), parse_arch("sm121")
    started = time.process_time()  # whatever else the machine is doing
    plan, base = plan_release(recipe, release, arch, collection.series("flashinfer", release))
    result = build_release(recipe, release, arch, plan, base, out=tmp_path / "out", offline=True)
    assert result.reused
    assert time.process_time() - started < 0.25


@pytest.mark.parametrize(
    ("stack", "version", "arch"),
    [
        ("flashinfer", "0.5.3", "sm120"),
        ("flashinfer", "0.7.2.post1", "sm121"),
        ("sglang", "0.5.9", "sm120"),
        ("sglang", "0.5.6.post2", "sm121"),
    ],
)
def test_every_series_of_ours_builds(
    artefact: Callable[[str, str], Path], tmp_path: Path, stack: str, version: str, arch: str
) -> None:
    result = built(artefact, tmp_path / "out", stack=stack, version=version, arch=arch)
    found = contents(result.folder / wheel_of(result.outputs).path)
    name = result.plan.inputs.distribution.replace("-", "_")
    record = found[f"{name}-{result.plan.inputs.patched}.dist-info/RECORD"].decode()
    assert len(record.splitlines()) == len([n for n in found if not n.endswith("/")])
    assert json.loads((result.folder / "lock.json").read_bytes())["key"] == result.plan.key


def test_memory_stays_small_for_a_wheel_of_400_megabytes(tmp_path: Path) -> None:
    noise = [os.urandom(4 << 20) for _ in range(4)]
    files = {f"demo/blob{n}.bin": noise[n % 4] * 5 for n in range(20)}
    wheel = make_wheel(tmp_path, {"demo/gate.py": b"1\n", **files}, method=zipfile.ZIP_STORED)
    assert wheel.stat().st_size > 400_000_000
    code = (
        "import sys, pathlib\n"
        "from stackpatch.artefacts.wheel import repack\n"
        "w = pathlib.Path(sys.argv[1])\n"
        "repack(w, {'demo/gate.py': b'2\\n'}, local_version='1.2.3+sp.0a1b2c3d',"
        " target=w.parent / 'out', epoch=0)\n"
        "print(pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(wheel)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100_000


# -- on a real installation -------------------------------------------------------------------


def image_of(venv: Path, folder: Path) -> Path:
    """An image layout with a venv at opt/env, one layer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(venv, "opt/env", recursive=True)
    maker = LayoutMaker(folder)
    return maker.write(maker.image([out.getvalue()], architecture="arm64"))


def unpack(layout: Path, digest: str, root: Path) -> Path:
    for path, (kind, content, mode) in merged(layout, digest).items():
        if kind == "file":
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
            (root / path).chmod(stat.S_IMODE(mode))
    return root


def test_the_overlay_leaves_what_installing_the_patched_wheel_leaves(
    artefact: Callable[[str, str], Path], tmp_path: Path
) -> None:
    release = Collection(ROOT).recipe("flashinfer").release("0.6.3")
    released = artefact(release.artefacts[1].file, release.artefacts[1].sha256)
    venv = make_venv(tmp_path / "venv")
    install = ["-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    python(venv, *install, str(released))
    layout = image_of(venv, tmp_path / "base")
    result = built(artefact, tmp_path / "out", base=str(layout))
    root = unpack(result.folder / "image", result.outputs.image, tmp_path / "root")
    overlaid = next((root / "opt/env/lib").glob("python3*/site-packages"))

    python(venv, "-m", "pip", "uninstall", "-q", "-y", "flashinfer-python")
    python(venv, *install, str(result.folder / wheel_of(result.outputs).path))
    installed = site_of(venv)

    def files(site: Path) -> dict[str, tuple[bool, bytes]]:
        return {
            p.relative_to(site).as_posix(): (os.access(p, os.X_OK), p.read_bytes())
            for top in ("flashinfer", f"flashinfer_python-{result.plan.inputs.patched}.dist-info")
            for p in (site / top).rglob("*")
            if p.is_file() and p.suffix != ".pyc" and p.name not in ("RECORD", "direct_url.json")
        }

    assert files(overlaid) == files(installed)
    # pip's record of a local file is not true of an image.
    assert not list(overlaid.glob("*.dist-info/direct_url.json"))
    found = list(importlib.metadata.distributions(path=[str(overlaid)]))
    versions = [d.version for d in found if d.name == "flashinfer-python"]
    assert versions == [result.plan.inputs.patched]

    def recorded(site: Path) -> set[str]:
        text = next(site.glob("flashinfer_python-*.dist-info/RECORD")).read_text()
        rows = {line.rsplit(",", 2)[0] for line in text.splitlines()}
        return {row for row in rows if not row.endswith(("direct_url.json", ".pyc"))}

    assert recorded(overlaid) == recorded(installed)
    # No bytecode of a changed file is left, and that of the others is.
    cached = {p.name.split(".")[0] for p in (overlaid / "flashinfer/jit/__pycache__").iterdir()}
    assert "core" in cached
    assert not cached & {"env", "fused_moe"}
    layers = json.loads(
        (result.folder / "image/blobs/sha256" / result.outputs.image[7:]).read_bytes()
    )["layers"]
    assert layers[-1]["size"] < 1_000_000


def test_a_released_wheel_repacked_without_changes_installs_the_same(
    artefact: Callable[[str, str], Path], tmp_path: Path
) -> None:
    release = Collection(ROOT).recipe("sglang").release("0.5.9")
    pin = next(a for a in release.artefacts if a.file.endswith(".whl"))
    source = artefact(pin.file, pin.sha256)
    result = repack(
        source,
        {},
        local_version=patched_version("0.5.9", "0a1b2c3d"),
        target=tmp_path,
        epoch=0,
    )
    before, after = contents(source), contents(result.path)
    assert {n: c for n, c in after.items() if ".dist-info/" not in n} == {
        n: c for n, c in before.items() if ".dist-info/" not in n
    }
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(result.path) as new:
        squeezed = {i.filename: i.compress_size for i in old.infolist()}
        kept = [i for i in new.infolist() if i.filename in squeezed]
        assert kept
        assert all(i.compress_size == squeezed[i.filename] for i in kept)
