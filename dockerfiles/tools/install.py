"""Runs inside an image while it is built: puts a patched wheel in place, and nothing beside it.

Standard library and the image's own pip only. The wheel comes from the build; no network is used.
Afterwards the image has the patched version and only that, no prebuilt kernels that would win over
the patched sources, no compiled leftovers of the unpatched release, and a user that is not root.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys

# Where a base's own settings put caches of compiled code: what lay there would be read again.
MOVED = (
    ("FLASHINFER_WORKSPACE_BASE", ".cache/flashinfer"),
    ("TRITON_CACHE_DIR", ""),
    ("TRITON_HOME", ".triton/cache"),
    ("TVM_FFI_CACHE_DIR", ""),
    ("TORCHINDUCTOR_CACHE_DIR", ""),
    ("TORCH_EXTENSIONS_DIR", ""),
    ("CUTE_DSL_CACHE_DIR", ""),
    ("DG_JIT_CACHE_DIR", ""),
    ("SGLANG_CACHE_DIR", ""),
    ("SGLANG_JIT_CACHE_DIR", ""),
    ("SGLANG_DG_CACHE_DIR", ""),
    ("TRTLLM_DG_CACHE_DIR", ""),
    ("TLLM_AUTOTUNER_CACHE_PATH", ""),
    ("VLLM_CACHE_ROOT", ""),
)
# What such a distribution brings may also have been compiled into the package itself, where it is
# loaded before anything else (FLASHINFER_AOT_DIR in flashinfer/jit/env.py) and no pip removes it.
UNNAMED = {"flashinfer-jit-cache": "flashinfer/data/aot"}
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir")


def main():
    told = argparse.ArgumentParser(description=__doc__)
    told.add_argument("--wheels", required=True, help="folder with the patched wheels")
    told.add_argument("--distribution", required=True)
    told.add_argument("--package", required=True)
    told.add_argument("--version", required=True, help="that must be installed afterwards")
    told.add_argument("--also", default="", help="NAME=VERSION of the other wheels, if any")
    told.add_argument("--shadows", default="", help="distributions to remove, parted by blanks")
    told.add_argument("--caches", default="", help="paths to remove, parted by blanks")
    told.add_argument("--user", default="", help="NAME:NUMBER of a user to add")
    options = told.parse_args()
    shadows = installed_shadows(options.shadows.split())
    unnamed = [UNNAMED[name] for name in options.shadows.split() if name in UNNAMED]
    if shadows:
        print("removing prebuilt kernels: " + " ".join(shadows), flush=True)
        pip("uninstall", "--yes", *shadows)
    wheels = sorted(pathlib.Path(options.wheels).glob("*.whl"))
    others = options.also.split()
    if len(wheels) != 1 + len(others):
        sys.exit(f"want {1 + len(others)} wheels in {options.wheels}, found {len(wheels)}")
    # Bytecode would hold the time of day; Python writes it where it may when it first runs.
    pip(
        "install", "--no-deps", "--no-index", "--no-compile", "--force-reinstall", *map(str, wheels)
    )
    check(options.distribution, options.package, options.version)
    remove(beside(unnamed))
    for name, _, version in (other.partition("=") for other in others):
        check(name, None, version)
    remove([*options.caches.split(), *moved_caches(os.environ)])
    if options.user:
        add_user(options.user)


def pip(*words):
    env = {**os.environ, "PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run([*PIP, *words], env=env)
    if done.returncode != 0:
        sys.exit(done.returncode)


def installed_shadows(names):
    """Installed distributions of these names, and their variants (NAME-sm120, NAME-cu13)."""
    wanted = [normal(name) for name in names]
    found = set()
    for one in importlib.metadata.distributions():
        name = normal(one.metadata["Name"] or "")
        if any(name == each or name.startswith(each + "-") for each in wanted):
            found.add(name)
    return sorted(found)


def beside(paths):
    """Where packages are found now, these folders in them."""
    found = []
    for path in paths:
        package, _, below = path.partition("/")
        spec = importlib.util.find_spec(package)
        places = (spec and spec.submodule_search_locations) or ()
        found += [os.path.join(place, below) for place in places]
    return found


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def check(distribution, package, version):
    """What Python finds now is the patched version, where pip put it."""
    os.chdir("/")
    importlib.invalidate_caches()
    found = importlib.metadata.version(distribution)
    if found != version:
        sys.exit(f"{distribution} {found} is installed, not {version}")
    if package is None:
        return
    spec = importlib.util.find_spec(package)
    origin = pathlib.Path((spec and spec.origin) or "/nowhere").resolve()
    files = importlib.metadata.files(distribution) or []
    if not any(pathlib.Path(one.locate()).resolve() == origin for one in files):
        sys.exit(f"Python finds {package} at {origin}, which is not the installed wheel's")
    print(f"{distribution} {found} at {origin.parent}", flush=True)


def moved_caches(environ):
    """The cache folders that variables name; never a folder at the root, such as `/`, `/opt`."""
    found = []
    for name, below in MOVED:
        value = environ.get(name, "")
        path = pathlib.PurePosixPath(os.path.normpath(value)) / below
        if value.startswith("/") and len(path.parts) > 2:
            found.append(str(path))
    return found


def remove(paths):
    for path in map(pathlib.Path, paths):
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            continue
        print(f"removed {path}", flush=True)


def add_user(text):
    """By hand: useradd writes today's date into /etc/shadow, and small images do not have it."""
    name, _, number = text.partition(":")
    home = pathlib.Path("/home") / name
    for path, line in (
        ("/etc/passwd", f"{name}:x:{number}:{number}::{home}:/bin/sh"),
        ("/etc/group", f"{name}:x:{number}:"),
    ):
        file = pathlib.Path(path)
        lines = file.read_text().splitlines() if file.exists() else []
        if not any(one.split(":")[0] == name for one in lines):
            file.write_text("\n".join([*lines, line]) + "\n")
    home.mkdir(parents=True, exist_ok=True)
    os.chown(home, int(number), int(number))


if __name__ == "__main__":
    main()
