"""run_all.py: nothing is blurred, nothing outlives its check, and the file is whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stackpatch.model.collection import Collection

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
PROGRAMS = RECIPES / "flashinfer" / "smoke"
STACKS = sorted(path.stem for path in RECIPES.glob("*.yaml"))


def run(
    tmp_path: Path, source: str, *options: str, limit: float = 30, timeout: float = 60
) -> tuple[int, dict[str, Any], str]:
    """run_all.py over one program: (its exit status, the check's result, what people saw)."""
    folder = tmp_path / "programs"
    folder.mkdir(exist_ok=True)
    for name in ("run_all.py", "_check.py"):
        shutil.copy(PROGRAMS / name, folder)
    (folder / "program.py").write_text(source)
    out = tmp_path / "smoke.json"
    argv = [sys.executable, str(folder / "run_all.py"), "--arch", "sm121", "--out", str(out)]
    argv += ["--check", f"one=program.py:{limit}", *options]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    document = json.loads(out.read_text())
    assert document["schema"] == "stackpatch.smoke/1"
    assert len(document["checks"]) == 1
    return done.returncode, document["checks"][0], done.stderr


def saying(status: int, word: str) -> str:
    line = json.dumps({"status": word, "why": "because", "figures": {"n": 1}})
    return f"import sys; print({line!r}); sys.exit({status})"


@pytest.mark.parametrize(
    ("status", "word", "ours"), [(0, "passed", 0), (1, "failed", 1), (77, "not-run", 0)]
)
def test_each_status_comes_through(tmp_path: Path, status: int, word: str, ours: int) -> None:
    code, result, said = run(tmp_path, saying(status, word))
    assert (code, result["status"]) == (ours, word)
    assert (result["why"], result["figures"]) == ("because", {"n": 1})
    counts = [int(word == w) for w in ("passed", "failed", "not-run")]
    assert "{} passed, {} failed, {} not run".format(*counts) in said


@pytest.mark.parametrize(("status", "word"), [(0, "failed"), (1, "passed"), (0, "not-run")])
def test_a_status_that_belies_the_words_is_a_failure(
    tmp_path: Path, status: int, word: str
) -> None:
    code, result, _ = run(tmp_path, saying(status, word))
    assert (code, result["status"]) == (1, "failed")
    assert f"says {word!r} but ended with status {status}" in result["why"]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("pass", "ended with status 0 and gave no result"),
        ("print('passed')", "ended with status 0 and gave no result"),
        ("print('{}')", "ended with status 0 and gave no result"),
        ("import sys; sys.exit(77)", "ended with status 77 and gave no result"),
        ("import os; os.abort()", "SIGABRT"),
        ("import os; os.kill(os.getpid(), 9)", "when memory runs out"),
    ],
)
def test_a_program_without_a_result_has_failed(tmp_path: Path, source: str, why: str) -> None:
    code, result, _ = run(tmp_path, source)
    assert (code, result["status"]) == (1, "failed")
    assert why in result["why"]


HANGS = """
import os, subprocess, sys, time
out = sys.argv[0] + ".pids"
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
far = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                       start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(out + ".daemon", "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
open(out, "w").write(f"{os.getpid()} {child.pid} {far.pid}")
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_check_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    started = time.monotonic()
    code, result, _ = run(tmp_path, HANGS, limit=3)
    assert time.monotonic() - started < 30
    assert (code, result["status"]) == (1, "failed")
    assert "did not end within 3 s" in result["why"]
    folder = tmp_path / "programs"
    pids = [int(p) for p in (folder / "program.py.pids").read_text().split()]
    pids.append(int((folder / "program.py.pids.daemon").read_text()))
    assert len(pids) == 4
    assert [pid for pid in pids if alive(pid)] == []


def test_an_interrupted_run_kills_its_check_and_keeps_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "programs"
    folder.mkdir()
    shutil.copy(PROGRAMS / "run_all.py", folder)
    (folder / "good.py").write_text(saying(0, "passed"))
    (folder / "program.py").write_text(HANGS)
    out = tmp_path / "smoke.json"
    argv = [sys.executable, str(folder / "run_all.py"), "--arch", "sm121", "--out", str(out)]
    argv += ["--check", "good=good.py:30", "--check", "hang=program.py:300"]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as child:
        pids = folder / "program.py.pids"
        for _ in range(600):
            if pids.exists() and pids.read_text() and Path(f"{pids}.daemon").exists():
                break
            time.sleep(0.05)
        time.sleep(0.2)
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=30) == 130
    found = [int(p) for p in pids.read_text().split()]
    assert [pid for pid in found if alive(pid)] == []
    assert [c["name"] for c in json.loads(out.read_text())["checks"]] == ["good"]


def test_a_failure_of_the_machine_is_said_in_a_sentence(tmp_path: Path) -> None:
    code, result, _ = run(tmp_path, "pass", "--python", str(tmp_path / "none"))
    assert code == 1
    assert result["why"].endswith("cannot be run: No such file or directory")
    (tmp_path / "programs" / "program.py").unlink()
    argv = [sys.executable, str(tmp_path / "programs" / "run_all.py"), "--arch", "sm121"]
    for wrong in (["--check", "one=two"], ["--only", "nobody"]):
        done = subprocess.run([*argv, *wrong], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stack", STACKS)
def test_the_list_beside_the_programs_is_the_recipes_in_its_order(stack: str) -> None:
    recipe = Collection(ROOT).recipe(stack)
    wanted = {
        "stack": stack,
        "checks": [
            {"name": c.name, "program": c.program, "timeout": c.timeout}
            for c in recipe.smoke
            if c.program is not None
        ],
        "env": {arch: dict(s.env) for arch, s in recipe.archs.items()},
    }
    assert json.loads((RECIPES / stack / "smoke" / "checks.json").read_text()) == wanted


@pytest.mark.parametrize("stack", STACKS)
def test_a_folder_of_programs_runs_its_own_checks_without_stackpatch(
    stack: str, tmp_path: Path
) -> None:
    """The folder alone, copied elsewhere, with a Python that has nothing of ours."""
    folder, out = tmp_path / "smoke", tmp_path / "smoke.json"
    shutil.copytree(RECIPES / stack / "smoke", folder)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    argv = [str(python), "-B", str(folder / "run_all.py"), "--arch", "sm121", "--out", str(out)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    told = json.loads(out.read_text())
    recipe = Collection(ROOT).recipe(stack)
    assert told["stack"] == stack
    assert [c["name"] for c in told["checks"]] == [c.name for c in recipe.smoke if c.program]
    assert not [c for c in told["checks"] if "no program" in c["why"]], done.stderr
    assert {c["status"] for c in told["checks"]} <= {"failed", "not-run"}  # nothing is installed
    assert "Traceback" not in done.stderr
    numbers = [c for c in told["checks"] if c["name"].startswith("numbers")]
    assert len(numbers) == (7 if stack == "flashinfer" else 0)
    for judged in numbers:  # without numpy nobody can judge: that is no fault of the stack
        assert judged["status"] == "not-run"
        assert "numpy" in judged["why"]


def test_without_a_list_the_runner_says_so(tmp_path: Path) -> None:
    shutil.copy(PROGRAMS / "run_all.py", tmp_path)
    argv = [sys.executable, str(tmp_path / "run_all.py"), "--arch", "sm121"]
    for content in (None, "{"):
        if content is not None:
            (tmp_path / "checks.json").write_text(content)
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert f"{tmp_path}/checks.json: " in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("torch", "status", "why"),
    [
        ("", "not-run", "no GPU: no NVIDIA driver"),
        ("OLD = 1", "failed", "driver on your system is too old"),
        ("HERE = (9, 0)", "failed", "the GPU is sm90 (Fake), not sm121"),
    ],
)
def test_the_device_check_tells_no_gpu_an_old_driver_and_another_arch_apart(
    tmp_path: Path, torch: str, status: str, why: str
) -> None:
    (tmp_path / "torch.py").write_text(
        f"HERE, OLD = None, 0\n{torch}\n"
        """
__version__ = "2.99"
float64 = None
class version:
    cuda = "13.0"
class cuda:
    is_available = staticmethod(lambda: HERE is not None)
    current_device = staticmethod(lambda: 0)
    get_device_capability = staticmethod(lambda index=0: HERE)
    get_device_name = staticmethod(lambda index=0: "Fake")
    @staticmethod
    def get_device_properties(index):
        class properties:
            total_memory, multi_processor_count = 1, 1
        return properties
    @staticmethod
    def init():
        raise RuntimeError("The NVIDIA driver on your system is too old" if OLD
                           else "no NVIDIA driver")
"""
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": "/nowhere"}
    argv = [sys.executable, "-B", str(PROGRAMS / "device.py"), "--arch", "sm121"]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    told = json.loads(done.stdout)
    assert told["status"] == status, told
    assert why in told["why"]
    assert done.returncode == {"failed": 1, "not-run": 77}[status]
