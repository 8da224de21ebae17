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
from tests.images import LayoutMaker

from stackpatch.cli.smoke_file import place_for
from stackpatch.installed.record import Row, dump_record
from stackpatch.model.collection import Collection

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
    """As an installer leaves it: the wheel's files, its RECORD among them."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python3*/site-packages")
    laid_out_in(site, wheel)
    return tmp_path / "venv" / "bin" / "python"


def laid_out_in(site: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)


def smoke(*options: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "stackpatch", "smoke", "flashinfer", "--arch", "sm121"]
    argv += ["--root", str(ROOT)]
    env = {**os.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    return subprocess.run(
        [*argv, *map(str, options)], capture_output=True, text=True, cwd=cwd, env=env, check=False
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
    again = smoke("--python", python, "--wheel", wheel, "--only", "files", "--json")
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
        laid_out_in(site, laid_out)
        check = files(laid_out)
        said = f", which are for {tag} and not for this machine ({here})"
        assert check["why"].endswith(said) is (machine == other)
        assert ("for" in check["figures"]) is (machine == other)


def test_a_run_without_a_gpu_never_reads_as_shown_and_leaves_its_file(
    python: Path, tmp_path: Path
) -> None:
    done = smoke("--python", python, "--only", "device", "--only", "files", cwd=tmp_path)
    assert "NOTHING WAS SHOWN ON A GPU" in done.stdout
    assert "Traceback" not in done.stderr
    assert done.stdout.rstrip().endswith("every figure: smoke.json")
    left = json.loads((tmp_path / "smoke.json").read_text())
    recipe = Collection(ROOT).recipe("flashinfer")
    assert [check["name"] for check in left["checks"]] == [check.name for check in recipe.smoke]
    assert left["subject"] == {"kind": "python", "python": str(python)}


def test_a_layout_in_a_builds_folder_has_its_result_there(tmp_path: Path) -> None:
    build = tmp_path / "dist" / "sm121"
    layout = LayoutMaker(build / "image").write()
    assert place_for(None, None, str(layout)) == Path("smoke.json")  # nobody's build
    (build / "lock.json").write_text("{}")
    for named in (str(layout), f"{layout}@sha256:{'0' * 64}"):
        assert place_for(None, None, named) == build / "smoke.json"
    assert place_for(tmp_path / "x.json", None, str(layout)) == tmp_path / "x.json"
    wheel = tmp_path / "a" / "x.whl"
    wheel.parent.mkdir()
    assert place_for(None, wheel, str(layout)) == tmp_path / "a" / "smoke.json"


def test_a_place_that_cannot_be_written_is_told_before_any_check(
    python: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for out, status, words in (
        (tmp_path, 2, "is a folder"),
        (tmp_path / "file" / "smoke.json", 2, "is not a folder"),
        ("/proc/smoke.json", 3, "cannot write /proc/smoke.json: no such file"),
    ):
        done = smoke("--python", python, "--out", out, "--json")
        assert done.returncode == status, out
        assert words in json.loads(done.stdout)["error"]["message"]
        assert "Traceback" not in done.stderr
        assert "files" not in done.stderr  # no check ran


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
        (["--python", sys.executable, "--wheel", __file__], 2, "its name is no wheel's"),
    ],
)
def test_bad_input_is_one_sentence(options: list[str], status: int, words: str) -> None:
    done = smoke(*options)
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr
