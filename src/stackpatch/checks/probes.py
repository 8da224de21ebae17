"""What `doctor` looks for, one function each: tools, engines, CUDA, GPU, packages, disk.

A probe reports what it saw and never guesses: an answer that it cannot read is `unknown`, with
the answer.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from stackpatch import proc, storage
from stackpatch.checks.doctor import Finding, Level, Probe
from stackpatch.checks.reachable import package_index
from stackpatch.errors import EnvironmentProblem
from stackpatch.model.arch import ARCHES

if TYPE_CHECKING:
    from stackpatch.proc import Completed

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
    version = _version(proc.run(("git", "--version"), timeout=timeout, check=False), r"version")
    if version is None:
        return _unread(name, "git --version", required=True)
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


def docker(timeout: float) -> Finding:
    """The docker CLI, and whether a daemon answers it."""
    name = "docker"
    if proc.find("docker") is None:
        return _no_engine(name, "smoke --image, and the buildx engine")
    done = proc.run(("docker", "version", "--format", "{{json .}}"), timeout=timeout, check=False)
    try:
        said = json.loads(done.text())
        client = str(said["Client"]["Version"])
        server = said.get("Server")
        daemon = str(server["Version"]) if server else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return _unread(name, "docker version", done)
    if daemon is None:
        why = done.error_text().splitlines()
        return Finding(
            name,
            Level.LIMITED,
            found=True,
            version=client,
            good_for="nothing yet: its daemon does not answer",
            detail=why[-1] if why else "",
            advice="start the daemon, or set DOCKER_HOST; the overlay engine needs neither",
        )
    return Finding(
        name,
        Level.OK,
        found=True,
        version=client,
        good_for="smoke --image, and with buildx the buildx engine",
        detail=f"daemon {daemon}",
    )


def buildx(timeout: float) -> Finding:
    """docker's buildx plugin, its builder, and whether its BuildKit builds reproducibly."""
    from stackpatch.artefacts.engines.versions import find_buildx

    name, good_for = "buildx", "the buildx engine"
    if proc.find("docker") is None:
        return _no_engine(name, good_for)
    done = proc.run(("docker", "buildx", "version"), timeout=timeout, check=False)
    if done.status != 0:
        return _no_engine(name, good_for)
    version = _version(done, r"buildx v?")
    if version is None:
        return _unread(name, "docker buildx version", done)
    try:
        found = find_buildx(timeout=timeout)
    except EnvironmentProblem as error:
        return _not_yet(name, version, error.message, error.hint, good_for="nothing yet")
    problem = found.problem()
    if problem is not None:
        return _not_yet(name, version, *problem)
    shown = ", ".join(platform for platform in found.platforms if platform.count("/") == 1)
    detail = f"builder {found.builder} ({found.driver}): {found.identity}, for {shown}"
    return Finding(name, Level.OK, found=True, version=version, good_for=good_for, detail=detail)


def buildah(timeout: float) -> Finding:
    """buildah, its storage driver, and whether it builds reproducibly."""
    from stackpatch.artefacts.engines.versions import find_buildah

    name, good_for = "buildah", "the buildah engine, without a daemon"
    if proc.find(name) is None:
        return _no_engine(name, good_for)
    done = proc.run((name, "--version"), timeout=timeout, check=False)
    version = _version(done, r"version ")
    if version is None:
        return _unread(name, "buildah --version", done)
    try:
        found = find_buildah(timeout=timeout)
    except EnvironmentProblem as error:
        return _not_yet(name, version, error.message, error.hint, good_for="nothing yet")
    problem = found.problem()
    if problem is not None:
        return _not_yet(name, version, *problem)
    detail = f"storage driver {found.driver}"
    return Finding(name, Level.OK, found=True, version=version, good_for=good_for, detail=detail)


def _not_yet(
    name: str,
    version: str,
    why: str,
    advice: str | None,
    *,
    good_for: str = "no build of ours: two builds could differ, or none would come out",
) -> Finding:
    """An engine that is there and cannot do what we promise."""
    return Finding(
        name,
        Level.LIMITED,
        found=True,
        version=version,
        good_for=good_for,
        detail=why,
        advice=advice,
    )


def podman(timeout: float) -> Finding:
    """podman runs images without a daemon."""
    name, good_for = "podman", "smoke --image where DOCKER_HOST names its socket (not tried)"
    if proc.find(name) is None:
        return _no_engine(name, good_for)
    done = proc.run((name, "--version"), timeout=timeout, check=False)
    version = _version(done, r"version ")
    if version is None:
        return _unread(name, f"{name} --version", done)
    return Finding(name, Level.OK, found=True, version=version, good_for=good_for)


def nvcc(timeout: float) -> Finding:
    """The CUDA compiler, and which of our arches it can target."""
    name = "nvcc"
    program = proc.find("nvcc") or _toolkit_nvcc()
    if program is None:
        return Finding(
            name,
            Level.ABSENT,
            good_for="not needed to build: FlashInfer compiles where it runs",
            advice="install the CUDA toolkit, 12.9 or newer for sm121, to try a compile here",
        )
    done = proc.run((program, "--version"), timeout=timeout, check=False)
    version = _version(done, r"release ")
    if version is None:
        return _unread(name, "nvcc --version", done)
    listed = proc.run((program, "--list-gpu-code"), timeout=timeout, check=False)
    targets = set(re.findall(r"sm_(\d+)", listed.text()))
    can = [
        arch.name
        for arch in ARCHES.values()
        if Version(version) >= Version(arch.min_cuda)
        and (not targets or str(arch.capability) in targets)
    ]
    cannot = [
        f"{arch.name} (needs {arch.min_cuda})" for arch in ARCHES.values() if arch.name not in can
    ]
    return Finding(
        name,
        Level.LIMITED if cannot else Level.OK,
        found=True,
        version=version,
        good_for=f"compiling for {', '.join(can) or 'none of our arches'}",
        detail=f"{program}" + (f"; not {', '.join(cannot)}" if cannot else ""),
        advice="install CUDA 13 for all of them" if cannot else None,
    )


def gpu(timeout: float) -> Finding:
    """GPUs of this machine; none is fine, builds and audits need none."""
    name = "gpu"
    absent = Finding(
        name,
        Level.ABSENT,
        good_for="everything but the smoke checks that compute on a GPU",
    )
    if proc.find("nvidia-smi") is None:
        return absent
    query = ("--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")
    done = proc.run(("nvidia-smi", *query), timeout=timeout, check=False)
    if done.status != 0:
        why = (done.error_text() or done.text().strip()).splitlines()
        return Finding(
            name,
            Level.UNUSABLE,
            good_for=absent.good_for,
            detail=f"nvidia-smi: {why[-1] if why else f'status {done.status}'}",
            advice="check the driver",
        )
    devices, driver = [], None
    for line in done.text().splitlines():
        fields = [field.strip() for field in line.rsplit(",", 2)]
        if len(fields) != 3 or not re.fullmatch(r"\d+\.\d+", fields[1]):
            continue
        capability = int(fields[1].replace(".", ""))
        arch = next((a.name for a in ARCHES.values() if a.capability == capability), None)
        devices.append((fields[0], fields[1], arch))
        driver = fields[2]
    if not devices:
        return absent if not done.text().strip() else _unread(name, "nvidia-smi", done)
    known = sorted({arch for _, _, arch in devices if arch})
    return Finding(
        name,
        Level.OK if known else Level.LIMITED,
        found=True,
        version=f"driver {driver}",
        good_for=f"smoke checks on {', '.join(known)}" if known else "no smoke check of our arches",
        detail="; ".join(f"{device}, compute capability {cap}" for device, cap, _ in devices),
    )


def _toolkit_nvcc() -> Path | None:
    """nvcc where a toolkit puts it without being on PATH."""
    for base in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"):
        if base and os.access(Path(base) / "bin" / "nvcc", os.X_OK):
            return Path(base) / "bin" / "nvcc"
    return None


def _no_engine(name: str, without: str) -> Finding:
    return Finding(
        name,
        Level.ABSENT,
        good_for=f"needed only for {without}",
    )


def _unread(
    name: str, command: str, done: Completed | None = None, *, required: bool = False
) -> Finding:
    """A program that answers in a way that we cannot read."""
    said = (done.text().strip() or done.error_text() or f"status {done.status}") if done else ""
    first = said.splitlines()[0][:200] if said else ""
    return Finding(
        name,
        Level.UNKNOWN,
        found=True,
        good_for="unknown: its answer cannot be read",
        detail=f"`{command}` said: {first}" if first else f"`{command}` said nothing that we read",
        advice=f"run `{command}` by hand",
        required=required,
    )


def _version(done: Completed, before: str) -> str | None:
    """The version number after `before` in what a program printed; None where there is none."""
    if done.status != 0:
        return None
    found = re.search(before + r"\s*(\d+(?:\.\d+)+)", done.text())
    if not found:
        return None
    try:
        Version(found[1])
    except InvalidVersion:
        return None
    return found[1]
