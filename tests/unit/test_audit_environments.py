"""A Python environment: asked of its interpreter, or read from its folder, which is never run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stackpatch.checks.audit import Audit, Policy, audit
from stackpatch.checks.targets import TargetKind
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.model.arch import ARCHES

if TYPE_CHECKING:
    from collections.abc import Mapping

GPU = Path(__file__).parent.parent / "data" / "gpu"
FATBIN = (GPU / "13.0-all.fatbin").read_bytes()
SM121A = (GPU / "13.0-sm_121a.cubin").read_bytes()
SM90A = (GPU / "13.0-sm_90a.cubin").read_bytes()
SM120F = (GPU / "13.0-sm_120f.cubin").read_bytes()
FILES = {"p/a.so": FATBIN, "p/b.cubin": SM90A, "p/d/e.bin": bytes(99) + SM121A}


def look(target: Path, **policy: Any) -> Audit:
    return audit(str(target), ARCHES["sm121"], Policy(**policy))


def standings(found: Audit) -> dict[str, str]:
    return {file.path: str(file.standing) for file in found.files}


def unread(found: Audit) -> dict[str, str]:
    return {entry.path: entry.why for entry in found.unread}


def make_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_a_virtual_environment(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    site = venv / "lib" / "python3.11" / "site-packages"
    make_folder(site, FILES)
    make_folder(venv, {"pyvenv.cfg": b"home = /usr/bin\n", "share/k.cubin": SM90A})
    (venv / "lib64").symlink_to("lib")
    found = look(venv)
    assert found.kind is TargetKind.ENVIRONMENT
    assert standings(found) == {
        "p/a.so": "native",
        "p/b.cubin": "missing",
        "p/d/e.bin": "native",
    }  # once, and nothing outside of site-packages


def test_two_site_folders_are_told_apart(tmp_path: Path) -> None:
    venv = make_folder(tmp_path / "venv", {"pyvenv.cfg": b""})
    for lib in ("lib/python3.11", "lib64/python3.11"):
        make_folder(venv / lib / "site-packages", {"k.cubin": SM121A})
    found = look(venv)
    assert [Path(file.path).name for file in found.files] == ["k.cubin"] * 2
    assert {Path(file.path).parts[-4] for file in found.files} == {"lib", "lib64"}


def venv_of(root: Path, site_files: Mapping[str, bytes], cfg: bytes = b"") -> Path:
    """The folder of a virtual environment whose interpreter must not be run: it is a trap."""
    make_folder(root / "lib/python3.11/site-packages", site_files)
    make_folder(root, {"pyvenv.cfg": cfg, "bin/python": b'#!/bin/sh\ntouch "$0.ran"\n'})
    (root / "bin/python").chmod(0o755)
    return root


def test_a_virtual_environments_editable_installs_are_followed(tmp_path: Path) -> None:
    by_path = make_folder(tmp_path / "one", {"q/k.cubin": SM90A})
    by_finder = make_folder(tmp_path / "two/flashinfer", {"k.cubin": SM120F})
    mapping = f"MAPPING: dict[str, str] = {{'flashinfer': '{by_finder}'}}\n"
    site = {
        "one.pth": f"# a comment\n{by_path}\n/nowhere\n".encode(),
        "__editable__.two.pth": b"import __editable___two_finder; __editable___two_finder.x()\n",
        "__editable___two_finder.py": mapping.encode(),
        "shim.pth": b"import os; __import__('_distutils_hack')\n",
        "p/own.cubin": SM121A,
    }
    found = look(venv_of(tmp_path / "venv", site))
    assert {Path(path).name: s for path, s in standings(found).items()} == {
        "own.cubin": "native",
        "k.cubin": "native",
    }
    assert standings(found)[f"{by_path}/q/k.cubin"] == "missing"
    assert standings(found)[f"{by_finder}/k.cubin"] == "native"
    assert unread(found) == {}
    assert not (tmp_path / "venv/bin/python.ran").exists()


def test_what_only_an_interpreter_could_tell_is_said_to_be_left_out(tmp_path: Path) -> None:
    cfg = b"home = /usr/bin\ninclude-system-site-packages = true\n"
    site = {"more.pth": b"import sys; sys.path.insert(0, '/elsewhere')\n"}
    found = look(venv_of(tmp_path / "venv", site, cfg))
    assert found.files == ()
    assert set(unread(found)) == {"pyvenv.cfg", "more.pth"}
    assert all("bin/python to have it asked" in why for why in unread(found).values())
    assert look(tmp_path / "venv", strict=True).missing == ("more.pth", "pyvenv.cfg")


def test_a_folder_that_lies_in_another_one_is_read_once(tmp_path: Path) -> None:
    site = {"deep.pth": b"deep\n", "deep/k.cubin": SM121A}
    found = look(venv_of(tmp_path / "venv", site))
    assert standings(found) == {"deep/k.cubin": "native"}


def test_an_environment_without_packages_is_refused(tmp_path: Path) -> None:
    venv = make_folder(tmp_path / "venv", {"pyvenv.cfg": b""})
    with pytest.raises(InputError, match="no folder with installed packages"):
        look(venv)


def test_an_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "v"], check=True)
    (site,) = (tmp_path / "v").glob("lib/python*/site-packages")
    make_folder(site, FILES)
    editable = make_folder(tmp_path / "src", {"q/k.cubin": SM121A})
    (site / "q.pth").write_text(f"{editable}\n")
    monkeypatch.setenv("PYTHONPATH", str(make_folder(tmp_path / "path", {"z.cubin": SM90A})))
    found = look(tmp_path / "v" / "bin" / "python")
    assert found.kind is TargetKind.ENVIRONMENT
    names = {Path(file.path).name: str(file.standing) for file in found.files}
    assert names == {
        "a.so": "native",
        "b.cubin": "missing",
        "e.bin": "native",
        "k.cubin": "native",  # the editable install
    }


@pytest.mark.parametrize("answer", ["exit 3", "echo nonsense", 'echo "[[1]]"', "echo 7", "exit 0"])
def test_an_interpreter_that_does_not_answer(tmp_path: Path, answer: str) -> None:
    fake = tmp_path / "python3"
    fake.write_text(f"#!/bin/sh\n{answer}\n")
    fake.chmod(0o755)
    with pytest.raises(EnvironmentProblem):
        look(fake)


def test_a_file_named_python_that_cannot_run_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "python").write_bytes(SM121A)
    assert look(tmp_path / "python").kind is TargetKind.FILE
