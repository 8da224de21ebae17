"""`stackpatch smoke` on a real virtual environment: the files check, and what the result says."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from stackpatch.artefacts.record import Row, dump_record

ROOT = Path(__file__).parents[2]
INFO = "flashinfer_python-0.6.3+sp.1.dist-info"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel of a flashinfer that says its version and holds no kernel."""
    return wheel_for(tmp_path, "any")


def wheel_for(folder: Path, platform: str) -> Path:
    files = {
        "flashinfer/__init__.py": b"__version__ = '0.6.3+sp.1'\n",
        f"{INFO}/METADATA": b"Metadata-Version: 2.1\nName: flashinfer-python\n"
        b"Version: 0.6.3+sp.1\n",
        f"{INFO}/WHEEL": f"Wheel-Version: 1.0\nTag: py3-none-{platform}\n".encode(),
    }
    rows = [Row.of(path, content) for path, content in files.items()]
    files[f"{INFO}/RECORD"] = dump_record([*rows, Row(f"{INFO}/RECORD", "", "")])
    path = folder / f"flashinfer_python-0.6.3+sp.1-py3-none-{platform}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def python(tmp_path: Path, wheel: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    found = tmp_path / "venv" / "bin" / "python"
    argv = [str(found), "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(argv, check=True, capture_output=True)
    return found


def smoke(*options: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "stackpatch", "smoke", "flashinfer", "--arch", "sm121"]
    env = {**os.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    return subprocess.run(
        [*argv, *map(str, options)], capture_output=True, text=True, cwd=ROOT, env=env, check=False
    )


def test_a_fault_planted_in_a_file_fails_the_files_check(python: Path, wheel: Path) -> None:
    first = smoke("--python", python, "--wheel", wheel, "--json")
    told = json.loads(first.stdout)
    by_name = {check["name"]: check for check in told["checks"]}
    assert by_name["files"]["status"] == "passed"
    assert told["ran_on_device"] is False
    assert by_name["device"]["status"] == "not-run"
    written = json.loads((wheel.parent / "smoke.json").read_text())
    assert written["checks"] == told["checks"]
    assert written["subject"]["sha256"] == by_name["files"]["figures"]["wheel_sha256"]

    package = next((python.parents[1] / "lib").glob("python*/site-packages/flashinfer"))
    (package / "__init__.py").write_text("__version__ = '0.6.3'\n")
    again = smoke("--python", python, "--wheel", wheel, "--json")
    assert again.returncode == 1
    check = json.loads(again.stdout)["checks"][0]
    assert (check["name"], check["status"]) == ("files", "failed")
    assert check["figures"]["other"] == ["flashinfer/__init__.py"]


def test_what_another_machine_runs_is_not_said_to_be_for_this_one(
    tmp_path: Path, python: Path, wheel: Path
) -> None:
    def files(wheel: Path) -> dict[str, Any]:
        told = json.loads(
            smoke("--python", python, "--wheel", wheel, "--only", "files", "--json").stdout
        )
        check: dict[str, Any]
        (check,) = (one for one in told["checks"] if one["name"] == "files")
        assert check["status"] == "passed"
        return check

    assert "for this machine" not in files(wheel)["why"], "py3-none-any is for every machine"
    here = platform.machine()
    other = "aarch64" if here == "x86_64" else "x86_64"
    for machine in (here, other):
        tag = f"manylinux_2_28_{machine}"
        site = next((python.parents[1] / "lib").glob("python*/site-packages"))
        shutil.rmtree(site / INFO)
        laid_out = wheel_for(tmp_path, tag)
        argv = [str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--upgrade"]
        argv += ["--only-binary=:all:", "--platform", tag, "--target", str(site), str(laid_out)]
        subprocess.run(argv, check=True, capture_output=True)
        check = files(laid_out)
        said = f", which are for {tag} and not for this machine ({here})"
        assert check["why"].endswith(said) is (machine == other)
        assert ("for" in check["figures"]) is (machine == other)


def test_a_run_without_a_gpu_never_reads_as_shown(python: Path) -> None:
    done = smoke("--python", python)
    assert "NOTHING WAS SHOWN ON A GPU" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ([], 2, "--python PATH"),
        (["--image", "x"], 3, "no docker daemon answers"),
        (["--image", str(ROOT)], 2, "is not an OCI layout"),
        (["--image", "x", "--python", "ssh://h/p"], 2, "is for no image"),
        (["--python", "ssh://-oProxyCommand=x/p"], 2, "is not ssh://[user@]host[:port]/path"),
        (["--python", "ssh://host"], 2, "is not ssh://[user@]host[:port]/path"),
        (["--python", "ssh://host:99999/p"], 2, "is not ssh://[user@]host[:port]/path"),
        (["--python", "ssh://h/p", "--ssh-config", "/none"], 2, "no such file"),
        (["--python", sys.executable, "--ssh-config", "/none"], 2, "is for --python ssh://"),
        (["--python", sys.executable, "--only", "nothing"], 2, "has no such check"),
        (["--python", "/none"], 2, "no such file"),
        (["--python", sys.executable, "--wheel", "/none.whl"], 2, "no such file"),
    ],
)
def test_bad_input_is_one_sentence(options: list[str], status: int, words: str) -> None:
    done = smoke(*options)
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr
