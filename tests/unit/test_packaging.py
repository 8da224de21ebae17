"""The wheel of stackpatch itself: complete, reproducible, and usable without a checkout."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from stackpatch import __version__

CHECKOUT = Path(__file__).parents[2]
DATA = ("recipes", "patches", "dockerfiles")


def build_wheel(folder: Path, *, umask: int = 0o022, **env: str) -> Path:
    """Build the wheel with the venv's own hatchling, so that no network is needed."""
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*argv, "--wheel-dir", str(folder), str(CHECKOUT)],
        check=True,
        capture_output=True,
        umask=umask,
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **env},
        timeout=300,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty venv with the wheel in it; the dependencies are borrowed from this one.

    A `.pth` line adds our site-packages without running the `.pth` files in there, so the
    editable stackpatch of the checkout is not on the path.
    """
    folder = tmp_path_factory.mktemp("venv") / "v"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    argv = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python")]
    subprocess.run(
        [*argv, "install", "--quiet", "--no-deps", "--no-index", str(wheel)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder


def run(installed: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = installed / "bin" / "stackpatch"
    return subprocess.run([program, *words], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_the_wheel_holds_the_whole_package_and_its_set(wheel: Path) -> None:
    source = CHECKOUT / "src"
    wanted = {
        path.relative_to(source).as_posix()
        for path in (source / "stackpatch").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    wanted |= {
        f"stackpatch/data/{path.relative_to(CHECKOUT).as_posix()}"
        for name in DATA
        for path in (CHECKOUT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    info = f"stackpatch-{__version__}.dist-info"
    wanted |= {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    wanted |= {f"{info}/licenses/LICENSE"}
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == wanted
        metadata = archive.read(f"{info}/METADATA").decode()
    assert f"Version: {__version__}\n" in metadata
    assert "License-Expression: Apache-2.0\n" in metadata


def test_the_wheel_is_the_same_under_another_umask_and_time_zone(
    wheel: Path, tmp_path: Path
) -> None:
    again = build_wheel(tmp_path, umask=0o077, TZ="Asia/Kathmandu", LC_ALL="C")
    assert again.name == wheel.name
    assert sha256(again) == sha256(wheel)


def test_the_sdist_holds_every_file_of_the_repository(tmp_path: Path) -> None:
    """So that both commands of the README work from it: `make` needs constraints.txt, scripts/."""
    argv = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory"]
    subprocess.run([*argv, tmp_path], cwd=CHECKOUT, check=True, capture_output=True, timeout=300)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True, text=True
    )
    tracked = {name for name in listed.stdout.split("\0") if (CHECKOUT / name).is_file()}
    assert tracked - held == set()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_installed_package_is_the_wheels(installed: Path, tmp_path: Path) -> None:
    code = "import stackpatch; print(stackpatch.__file__)"
    done = subprocess.run(
        [installed / "bin/python", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert Path(done.stdout.strip()).is_relative_to(installed)


def test_the_installed_program_lists_its_own_set_from_another_folder(
    installed: Path, tmp_path: Path
) -> None:
    done = run(installed, "list", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    stacks = {stack["name"] for stack in json.loads(done.stdout)["stacks"]}
    assert stacks == {path.stem for path in (CHECKOUT / "recipes").glob("*.yaml")}
    assert "flashinfer" in stacks


def test_the_installed_set_passes_its_own_lint(installed: Path, tmp_path: Path) -> None:
    done = run(installed, "lint", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_help_and_version_of_the_installed_program(installed: Path, tmp_path: Path) -> None:
    assert run(installed, "--version", cwd=tmp_path).stdout == f"stackpatch {__version__}\n"
    assert "build" in run(installed, "--help", cwd=tmp_path).stdout


def imported() -> dict[str, Path]:
    """Every top-level package that the source imports, also inside functions, and one file."""
    found: dict[str, Path] = {}
    for path in (CHECKOUT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.append(node.module)
            found |= {name.partition(".")[0]: path for name in names}
    own = {"stackpatch", "__future__", *sys.stdlib_module_names}
    return {name: path for name, path in found.items() if name not in own}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    owners = metadata.packages_distributions()
    used = set()
    for name, path in imported().items():
        distributions = {canonicalize_name(owner) for owner in owners.get(name, [name])}
        assert distributions & declared, f"{path} imports {name}, which pyproject.toml lacks"
        used |= distributions
    assert declared <= used, f"declared and never imported: {sorted(declared - used)}"
