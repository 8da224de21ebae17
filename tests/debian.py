"""Programs from Debian's packages, for tests that hold us against the real thing."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SUITE = "trixie"  # newer than the machine's own release; what is wanted here starts on bookworm


def program_of_debian(name: str) -> str:
    """A program whose package has its name: the tests' own copy, the one on PATH, or fetched.

    Fetched from Debian by apt, which checks its signatures, once, into the tests' cache.
    """
    kept = Path(os.environ["STACKPATCH_TEST_CACHE"]) / f"{name}-{_SUITE}"
    program = kept / "root/usr/bin" / name
    if program.is_file():
        return str(program)
    if found := shutil.which(name):
        return found
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (kept / "root").is_dir():
            _fetch(name, kept)
    return str(program)


def _fetch(name: str, kept: Path) -> None:
    """Debian's package, without touching apt's own lists."""
    assert _KEYRING.is_file(), f"no {name}, and not on Debian: install one on PATH"
    mirror = os.environ.get("STACKPATCH_ENGINE_MIRROR", "http://deb.debian.org/debian")
    (kept / "lists/partial").mkdir(parents=True, exist_ok=True)
    (kept / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
    (kept / "sources").write_text(f"deb [signed-by={_KEYRING}] {mirror} {_SUITE} main\n")
    settings = {
        "Dir::Etc::sourcelist": kept / "sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::Lists": kept / "lists",
        "Dir::Cache": kept / "cache",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
    }
    options = [f"-o{key}={value}" for key, value in settings.items()]
    for words in (["update"], ["download", name]):
        subprocess.run(
            ["apt-get", "-qq", *options, *words], cwd=kept, check=True, capture_output=True
        )
    (package,) = kept.glob(f"{name}_*.deb")
    subprocess.run(["dpkg", "-x", package, kept / "new"], check=True)
    (kept / "new").rename(kept / "root")
    for scratch in ("lists", "cache"):
        shutil.rmtree(kept / scratch)
    package.unlink()
