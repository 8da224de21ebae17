"""scripts/prove: what it installs, and what it has checked of a wheel for another machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.wheels import FILES, METADATA, make_wheel

SCRIPT = Path(__file__).parents[2] / "scripts" / "prove"
PROGRAM = """\
#!/bin/sh
case $1 in
  build) cat "$0.json" ;;
  *) echo "$@" >> "$0.said"
     find "$(dirname "$6")/../lib" -name '*.dist-info' -exec basename {} \\; >> "$0.installed" ;;
esac
"""
OTHER = "aarch64" if platform.machine() == "x86_64" else "x86_64"


def wheel_for(folder: Path, machine: str) -> Path:
    """A wheel whose platform is the machine; its bytes run on any."""
    tag = f"py3-none-manylinux_2_28_{machine}"
    made = make_wheel(folder, name=f"demo-1.2.3-{tag}.whl", pure=False)
    changed = folder / "changed"
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("/WHEEL"):
                content = content.replace(b"py3-none-any", tag.encode())
            new.writestr(name, content)
    return changed.rename(made)


def prove(tmp_path: Path, *wheels: Path, words: tuple[object, ...] = ()) -> tuple[int, str, str]:
    """Status, what `stackpatch smoke` was called with, what was installed then."""
    program = tmp_path / "stackpatch"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    listed = [{"path": str(wheel)} for wheel in wheels]
    document = {"wheel": listed[-1], "wheels": listed}
    (tmp_path / "stackpatch.json").write_text(json.dumps(document))
    env = {**os.environ, "STACKPATCH": str(program), "TMPDIR": str(tmp_path)}
    argv = [str(SCRIPT), "demo@1.2.3", "sm121", *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True, env=env)
    # There is no lock beside these wheels, so nothing can be recorded: the last step says so.
    assert "lock.json" in done.stderr or done.returncode == 1, done.stderr
    said = tmp_path / "stackpatch.said"
    installed = tmp_path / "stackpatch.installed"
    assert not list(tmp_path.glob("tmp.*")), "no environment is left behind"
    return (
        done.returncode,
        said.read_text() if said.exists() else done.stderr,
        installed.read_text() if installed.exists() else "",
    )


def test_the_wheels_of_the_stacks_it_needs_are_installed_with_it(tmp_path: Path) -> None:
    base = make_wheel(
        tmp_path / "base",
        FILES,
        name="below-2.0-py3-none-any.whl",
        dist_info="below-2.0.dist-info",
        metadata=METADATA.replace(b"demo", b"below").replace(b"1.2.3", b"2.0"),
    )
    wheel = make_wheel(tmp_path / "own with a blank")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "mine"], check=True)
    python = tmp_path / "mine/bin/python"
    status, said, installed = prove(tmp_path, base, wheel, words=(python, "--skip", "numbers-moe"))
    assert status == 2, said
    assert said == (
        f"smoke demo@1.2.3 --arch sm121 --python {python} --wheel {wheel} --skip numbers-moe\n"
    )
    assert {"below-2.0.dist-info", "demo-1.2.3.dist-info"} <= set(installed.split())


@pytest.mark.parametrize("machine", [platform.machine(), OTHER])
def test_a_wheel_for_another_machine_is_laid_out_and_only_read(
    tmp_path: Path, machine: str
) -> None:
    wheel = wheel_for(tmp_path / "wheel", machine)
    _, said, installed = prove(tmp_path, wheel)
    assert "demo-1.2.3.dist-info" in installed.split()
    assert said.endswith("--only files --only audit\n") is (machine == OTHER)


def test_a_wheel_that_pip_refuses_is_no_wheel_for_another_machine(tmp_path: Path) -> None:
    broken = tmp_path / "demo-1.2.3-py3-none-any.whl"
    broken.write_bytes(b"no zip")
    status, said, installed = prove(tmp_path, broken)
    assert (status, installed) == (1, "")
    assert "laid out" not in said
