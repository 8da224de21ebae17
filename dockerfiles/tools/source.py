"""Runs inside an image while it is built: upstream's sources at one commit, with the patched files.

Standard library and git only. The commit is named by its 40 digits, so what git brings is checked
by git itself; submodules are those that the commit names. The patched files come from the build,
never from the network, and are compared with their digests after everything else was done.
"""

import argparse
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

POINTER = b"version https://git-lfs.github.com/spec/"


def main():
    told = argparse.ArgumentParser(description=__doc__)
    told.add_argument("--git", required=True)
    told.add_argument("--commit", required=True)
    told.add_argument(
        "--patched", required=True, help="folder with the files that a series changes"
    )
    told.add_argument("--to", required=True)
    told.add_argument("--submodules", default="yes", choices=("yes", "no"))
    told.add_argument("--lfs", default="", help="git-lfs patterns to bring, parted by commas")
    options = told.parse_args()
    if not re.fullmatch("[0-9a-f]{40}", options.commit):
        sys.exit(f"{options.commit}: want the commit's 40 digits")
    target, patched = pathlib.Path(options.to), pathlib.Path(options.patched)
    bring(options.git, options.commit, target, submodules=options.submodules == "yes")
    if options.lfs:
        large_files(target, options.lfs)
    put(patched, target)


def bring(url, commit, target, *, submodules):
    target.mkdir(parents=True)
    git(target, "init", "--quiet")
    git(target, "fetch", "--quiet", "--depth=1", "--no-tags", url, commit)
    # Large files come afterwards, and only those that a build needs.
    env = {"GIT_LFS_SKIP_SMUDGE": "1"}
    git(target, "checkout", "--quiet", "--detach", "FETCH_HEAD", env=env)
    found = git(target, "rev-parse", "HEAD", read=True).strip()
    if found != commit:
        sys.exit(f"{url} gave commit {found}, not {commit}")
    if submodules and (target / ".gitmodules").exists():
        # Relative addresses of submodules are meant relative to upstream's.
        git(target, "remote", "add", "origin", url)
        words = ("submodule", "update", "--init", "--recursive", "--depth=1")
        git(target, *words, env=env)


def large_files(target, patterns):
    git(target, "lfs", "install", "--local")
    git(target, "lfs", "pull", "--include", patterns)
    listed = git(target, "lfs", "ls-files", "--name-only", "--include", patterns, read=True)
    for name in listed.splitlines():
        with open(target / name, "rb") as file:
            if file.read(len(POINTER)) == POINTER:
                sys.exit(f"{name} is still a pointer of git-lfs, not the file")


def put(patched, target):
    """The series' files over upstream's. `patched.sha256` lists them; a line with `-` removes."""
    text = os.fsdecode((patched / "patched.sha256").read_bytes())
    listed = text.split("\n")[:-1]
    root = target.resolve()
    for line in listed:
        digest, _, name = line.partition("  ")
        place = target / name
        if root not in place.parent.resolve().parents and place.parent.resolve() != root:
            sys.exit(f"{name} leaves the source tree")
        if digest == "-":
            place.unlink()
            continue
        source = patched / "files" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        mode = os.stat(source).st_mode
        if place.is_symlink():
            sys.exit(f"{name} is a link upstream")
        shutil.copyfile(source, place)
        place.chmod(0o755 if mode & 0o100 else 0o644)
        if hashlib.sha256(place.read_bytes()).hexdigest() != digest:
            sys.exit(f"{name} is not the patched file")
    print(f"{len(listed)} patched files in {target}", flush=True)


def git(folder, *words, env=None, read=False):
    done = subprocess.run(
        ["git", "-c", "advice.detachedHead=false", "-C", str(folder), *words],
        env={**os.environ, **(env or {}), "GIT_TERMINAL_PROMPT": "0"},
        stdout=subprocess.PIPE if read else None,
        text=True,
    )
    if done.returncode != 0:
        sys.exit(f"git {words[0]} ended with {done.returncode}")
    return done.stdout or ""


if __name__ == "__main__":
    main()
