"""What `doctor` looks for, one function each; engines and CUDA have modules of their own.

A probe reports what it saw and never guesses: an answer that it cannot read is `unknown`, with
the answer.
"""

from __future__ import annotations

import os
import shutil
from importlib import metadata
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from stackpatch import proc, storage
from stackpatch.checks.answers import unread, version_in
from stackpatch.checks.doctor import Finding, Level, Probe
from stackpatch.checks.probes_engines import buildah, buildx, docker, podman
from stackpatch.checks.probes_gpu import gpu, nvcc
from stackpatch.checks.reachable import package_index

if TYPE_CHECKING:
    from pathlib import Path

_GIB = 1 << 30
_TIGHT = 2 * _GIB  # a flashinfer release with its history of sources, and one build
_FULL = 200 << 20  # one wheel and its unpacked sources


def probes(dist: Path) -> tuple[Probe, ...]:
    """Everything that `doctor` looks for. dist: the folder that builds go to."""
    return (
        Probe("git", git, required=True),
        Probe("disk: cache", lambda _: disk("disk: cache", storage.cache_root()), required=True),
        Probe("disk: dist", lambda _: disk("disk: dist", dist), required=True),
        Probe("packages", lambda _: packages()),
        Probe("tree-sitter", lambda _: grammars()),
        Probe("package index", package_index),
        Probe("docker", docker),
        Probe("buildx", buildx),
        Probe("buildah", buildah),
        Probe("podman", podman),
        Probe("nvcc", nvcc),
        Probe("gpu", gpu),
    )


def git(timeout: float) -> Finding:
    """git, with `fast-import` for sources and `merge-tree --write-tree` for moving patches."""
    name = "git"
    if proc.find("git") is None:
        return Finding(
            name,
            Level.ABSENT,
            good_for="nothing works without it",
            advice="install git 2.38 or newer",
            required=True,
        )
    version = version_in(proc.run(("git", "--version"), timeout=timeout, check=False), r"version")
    if version is None:
        return unread(name, "git --version", required=True)
    helps = {
        word: proc.run(("git", word, "-h"), timeout=timeout, check=False)
        for word in ("fast-import", "merge-tree")
    }
    if b"usage: git fast-import" not in helps["fast-import"].stdout + helps["fast-import"].stderr:
        return Finding(
            name,
            Level.UNUSABLE,
            found=True,
            version=version,
            good_for="it lacks fast-import, with which sources are stored",
            advice="install a complete git, 2.38 or newer",
            required=True,
        )
    if b"--write-tree" not in helps["merge-tree"].stdout + helps["merge-tree"].stderr:
        return Finding(
            name,
            Level.LIMITED,
            found=True,
            version=version,
            good_for="fetch, apply, build; not rebase, upstream, matrix",
            detail="has no merge-tree --write-tree",
            advice="install git 2.38 or newer",
            required=True,
        )
    return Finding(
        name,
        Level.OK,
        found=True,
        version=version,
        good_for="everything",
        detail="has fast-import and merge-tree --write-tree",
        required=True,
    )


def disk(name: str, folder: Path) -> Finding:
    """Free space and permission at a folder, or at the nearest one above that exists."""
    folder = folder.absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        return Finding(
            name,
            Level.UNUSABLE,
            detail=f"{there} is not a folder",
            good_for="nothing can be written there",
            advice=_elsewhere(name),
            required=True,
        )
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding(
            name,
            Level.UNUSABLE if name == "disk: cache" else Level.LIMITED,
            found=True,
            detail=f"{there} is not writable",
            good_for="nothing can be written there",
            advice=_elsewhere(name),
            required=True,
        )
    free = shutil.disk_usage(there).free
    detail = f"{free / 1e9:.1f} GB free at {there}"
    if free >= _TIGHT:
        return Finding(
            name, Level.OK, found=True, good_for="everything", detail=detail, required=True
        )
    level, good = (
        (Level.UNUSABLE, "too little for one release")
        if free < _FULL
        else (Level.LIMITED, "a few releases; an image build with buildx or buildah needs more")
    )
    return Finding(
        name,
        level,
        found=True,
        good_for=good,
        detail=detail,
        advice=f"free some space, or: {_elsewhere(name)}",
        required=True,
    )


def _elsewhere(name: str) -> str:
    if name == "disk: cache":
        return "set STACKPATCH_CACHE_DIR to a folder on another disk"
    return "name another folder with `stackpatch build --out DIR`"


def packages() -> Finding:
    """Our own Python packages against what our metadata asks for."""
    name = "packages"
    try:
        wanted = [Requirement(text) for text in metadata.requires("stackpatch") or ()]
    except metadata.PackageNotFoundError:
        return Finding(
            name,
            Level.LIMITED,
            found=True,
            detail="stackpatch runs from a folder and is not installed",
            advice="pip install the checkout",
        )
    wrong, seen = [], []
    for requirement in wanted:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        seen.append(f"{requirement.name} {installed}")
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    if wrong:
        return Finding(
            name,
            Level.LIMITED,
            found=True,
            good_for="commands that do not need these",
            detail="; ".join(wrong),
            advice="pip install --upgrade stackpatch",
        )
    return Finding(name, Level.OK, found=True, good_for="everything", detail=", ".join(seen))


# For each grammar, a line in which only a parser for that language finds a function.
_SAMPLES = {
    "python": b"def f():\n    pass\n",
    # C and C++ are read with the CUDA grammar too.
    "cuda": b"template <class T> __global__ void f(T *x) { x[threadIdx.x] = 0; }\n",
}


def grammars() -> Finding:
    """Whether the grammars load and parse: guards look for the function around a hunk."""
    import importlib

    import tree_sitter

    wrong, seen = [], []
    for language, sample in _SAMPLES.items():
        package = f"tree_sitter_{language}"
        try:
            grammar = tree_sitter.Language(importlib.import_module(package).language())
            root = tree_sitter.Parser(grammar).parse(sample).root_node
        except Exception as error:  # noqa: BLE001 - an ABI mismatch raises what it likes
            wrong.append(f"{language}: {error}")
            continue
        if root.has_error:
            wrong.append(f"{language}: does not parse")
        seen.append(f"{language} {metadata.version(package.replace('_', '-'))}")
    found = Finding(
        "tree-sitter",
        Level.OK,
        found=True,
        version=metadata.version("tree-sitter"),
        good_for="everything",
        detail=", ".join(seen),
    )
    if not wrong:
        return found
    return Finding(
        found.name,
        Level.LIMITED,
        found=True,
        version=found.version,
        good_for="no patch of those languages: the guards cannot find the function of a hunk",
        detail="; ".join(wrong),
        advice="pip install --upgrade --force-reinstall stackpatch",
    )
