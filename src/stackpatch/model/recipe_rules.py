"""What the fields of a recipe must say together, checked on the file's plain values.

The rules read plain values and not the typed recipe, so that they also speak when some other
field is wrong: a person sees every problem in one run. Each rule looks only at values of the type
that it needs and leaves the others to the types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from stackpatch.errors import InputError
from stackpatch.model import nearest
from stackpatch.model.arch import ARCHES, CodeArch, parse_arch
from stackpatch.model.base_rules import check_bases
from stackpatch.model.gate_rules import check_gates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackpatch.model.yamlfile import Path

# Toolkits against which a `cuda` range is held: all that NVIDIA published from 11.8 on.
_TOOLKITS = tuple(
    Version(text)
    for text in ("11.8", *(f"12.{n}" for n in range(10)), *(f"13.{n}" for n in range(6)))
)
_ARCH_LIST = "FLASHINFER_CUDA_ARCH_LIST"


class Finding(NamedTuple):
    """What is wrong, and where in the file."""

    path: Path
    text: str


def cross_check(recipe: dict[str, Any], *, name: str | None = None) -> Iterator[Finding]:
    """Every rule over one recipe. name: the stack that the file's own name says."""
    stack = recipe.get("stack")
    if name is not None and isinstance(stack, str) and stack != name:
        yield Finding(("stack",), f"{stack!r} in a file named {name}.yaml; they must agree")
    upstream = recipe.get("upstream")
    distribution = upstream.get("pypi") if isinstance(upstream, dict) else None
    yield from _default(recipe)
    yield from _fork(recipe)
    yield from _unique(recipe, "releases", "version")
    yield from _unique(recipe, "releases", "tag")
    yield from _unique(recipe, "smoke", "name")
    yield from _unique(recipe, "issues", "url")
    for path, release in _mappings(recipe.get("releases"), ("releases",)):
        yield from _commit(path, release)
        yield from _artefacts(path, release, distribution)
        requires = release.get("requires")
        if isinstance(requires, dict) and isinstance(stack, str) and stack in requires:
            yield Finding((*path, "requires", stack), "a stack cannot require itself")
    yield from _archs(recipe)
    layouts = recipe.get("layouts")
    if isinstance(layouts, dict):
        for kind, rules in layouts.items():
            yield from _layout(rules, ("layouts", kind))
    for check in (check_bases, check_gates):
        for place, text in check(recipe):
            yield Finding(place, text)
    for field in ("caches", "shadowed-by", "same-version"):
        yield from _repeated(recipe.get(field), field)


def _mappings(value: object, path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The mappings in a list, each with its path; whatever else is there belongs to the types."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict):
                yield (*path, index), item


def _default(recipe: dict[str, Any]) -> Iterator[Finding]:
    default = recipe.get("default")
    releases = _mappings(recipe.get("releases"), ("releases",))
    versions = [release.get("version") for _, release in releases]
    known = [version for version in versions if isinstance(version, str)]
    if isinstance(default, str) and default not in known and len(known) == len(versions):
        text = f"no release {default!r} in this recipe; {nearest.hint(default, known)}"
        yield Finding(("default",), text)


def _fork(recipe: dict[str, Any]) -> Iterator[Finding]:
    fork = recipe.get("fork")
    release = fork.get("release") if isinstance(fork, dict) else None
    releases = _mappings(recipe.get("releases"), ("releases",))
    versions = [one.get("version") for _, one in releases]
    known = [version for version in versions if isinstance(version, str)]
    if isinstance(release, str) and release not in known and len(known) == len(versions):
        text = f"no release {release!r} in this recipe; {nearest.hint(release, known)}"
        yield Finding(("fork", "release"), text)


def _unique(recipe: dict[str, Any], listed: str, field: str) -> Iterator[Finding]:
    """A value that two of a list's mappings have; versions as PEP 440 compares them."""
    seen: dict[object, Path] = {}
    for path, one in _mappings(recipe.get(listed), (listed,)):
        value = one.get(field)
        if not isinstance(value, str):
            continue
        key: object = value
        if field == "version":
            try:
                key = Version(value)
            except InvalidVersion:
                continue
        if key in seen:
            first = seen[key][-1]
            yield Finding((*path, field), f"{value!r} is {listed}[{first}]'s {field} already")
        seen.setdefault(key, path)


def _commit(path: Path, release: dict[str, Any]) -> Iterator[Finding]:
    tag, commit = release.get("tag"), release.get("commit")
    evidence = release.get("commit-evidence")
    kind = evidence.get("kind") if isinstance(evidence, dict) else None
    if commit is None and kind != "unknown":
        what = f"tag {tag} without a commit" if isinstance(tag, str) else "no commit"
        yield Finding(
            (*path, "commit"),
            f"{what}: a tag can be moved; write the 40 hex digits, or say "
            "`commit-evidence: {kind: unknown, detail: …}`",
        )
    if isinstance(commit, str) and kind == "unknown":
        text = "unknown, but a commit is given; say first-hand or second-hand, and where from"
        yield Finding((*path, "commit-evidence", "kind"), text)
    if commit is None and kind == "unknown" and not release.get("artefacts"):
        yield Finding(path, "neither a commit nor artefacts: there is nothing to fetch")


def _artefacts(path: Path, release: dict[str, Any], distribution: object) -> Iterator[Finding]:
    files: dict[str, int] = {}
    digests: dict[str, int] = {}
    sdists = 0
    for place, artefact in _mappings(release.get("artefacts"), (*path, "artefacts")):
        index = int(place[-1])
        file, sha256 = artefact.get("file"), artefact.get("sha256")
        if isinstance(file, str):
            if file in files:
                yield Finding((*place, "file"), f"{file} is artefacts[{files[file]}] already")
            files.setdefault(file, index)
            fault = _file_fault(file, distribution, release.get("version"))
            if fault is not None:
                yield Finding((*place, "file"), fault)
            elif not file.endswith(".whl"):
                sdists += 1
                if sdists > 1:
                    yield Finding((*place, "file"), "a second sdist; a release has one")
        if isinstance(sha256, str):
            if sha256 in digests:
                text = f"the same as artefacts[{digests[sha256]}]'s; two files never share one"
                yield Finding((*place, "sha256"), text)
            digests.setdefault(sha256, index)


def _file_fault(file: str, distribution: object, version: object) -> str | None:
    """What is wrong with an artefact's file name, None when it fits the release."""
    if "/" in file or "\\" in file:
        return f"{file!r} is not a plain file name"
    try:
        if file.endswith(".whl"):
            name, found = parse_wheel_filename(file)[:2]
        else:
            name, found = parse_sdist_filename(file)
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        return f"{file!r} is no sdist's name (NAME-VERSION.tar.gz) and no wheel's"
    if isinstance(distribution, str) and name != canonicalize_name(distribution):
        return f"a file of {name}, but upstream.pypi is {distribution}"
    try:
        if isinstance(version, str) and found != Version(version):
            return f"a file of version {found}, but the release is {version}"
    except InvalidVersion:
        return None
    return None


def _archs(recipe: dict[str, Any]) -> Iterator[Finding]:
    archs = recipe.get("archs")
    if not isinstance(archs, dict):
        return
    for name, settings in archs.items():
        path: Path = ("archs", name)
        try:
            arch = parse_arch(name)
        except InputError as error:
            yield Finding(path, f"{error.message}; {error.hint}")
            continue
        if not isinstance(settings, dict):
            continue
        if (cuda := settings.get("cuda")) is not None and isinstance(cuda, str):
            try:
                allowed = SpecifierSet(cuda)
            except InvalidSpecifier:
                allowed = None
            if allowed is not None:
                yield from _cuda((*path, "cuda"), allowed, arch.name)
        env = settings.get("env")
        if isinstance(env, dict) and isinstance(value := env.get(_ARCH_LIST), str):
            fault = _arch_list_fault(value, arch.name)
            if fault is not None:
                yield Finding((*path, "env", _ARCH_LIST), fault)


def _cuda(path: Path, allowed: SpecifierSet, name: str) -> Iterator[Finding]:
    arch = ARCHES[name]
    too_old = [v for v in _TOOLKITS if v < Version(arch.min_cuda) and allowed.contains(v)]
    if too_old:
        text = f"admits CUDA {too_old[-1]}, but {arch.target} came with {arch.min_cuda}"
        yield Finding(path, text)


def _arch_list_fault(value: str, name: str) -> str | None:
    """What FlashInfer would make of its own variable (compilation_context.py, 0.5.3 to 0.7.2).

    It splits on a single space and takes each entry's last number for the minor version. Up to
    0.6.6 an entry without suffix is the plain target, for which ptxas refuses FP4 instructions.
    """
    arch = ARCHES[name]
    suffix = arch.target.removeprefix(f"sm_{arch.capability}")
    example = f"{arch.dotted}{suffix}"
    targets = []
    for entry in value.split(" "):
        number, dot, minor = entry.partition(".")
        try:
            if not dot:
                raise ValueError  # noqa: TRY301 - one answer for every way to be wrong
            targets.append(CodeArch.parse(f"sm_{number}{minor}"))
        except ValueError:
            return f"{entry!r} in {value!r}: want entries like {example}, one space between them"
    if not any(target.runs_on(arch.capability) for target in targets):
        return f"nothing in {value!r} runs on {name}; {example} does"
    if suffix and not any(t.suffix and t.runs_on(arch.capability) for t in targets):
        return (
            f"{value!r} is the plain target up to FlashInfer 0.6.6, which has no FP4 "
            f"instructions; write {example}"
        )
    return None


def _layout(rules: object, path: Path) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for place, rule in _mappings(rules, path):
        here, git = rule.get("here"), rule.get("git")
        if not isinstance(here, str):
            continue
        if here in seen:
            yield Finding((*place, "here"), f"{here!r} has a rule already ([{seen[here]}])")
        seen.setdefault(here, int(place[-1]))
        if isinstance(git, str) and _is_folder(here) != _is_folder(git):
            text = f"maps {_what(here)} to {_what(git)}; end both in / or neither"
            yield Finding((*place, "git"), text)


def _is_folder(prefix: str) -> bool:
    return prefix == "" or prefix.endswith("/")


def _what(prefix: str) -> str:
    return f"{'the folder' if _is_folder(prefix) else 'the file'} {prefix!r}"


def _repeated(value: object, field: str) -> Iterator[Finding]:
    if isinstance(value, list):
        seen: set[object] = set()
        for index, item in enumerate(value):
            if isinstance(item, str) and item in seen:
                yield Finding((field, index), f"{item!r} is named twice")
            if isinstance(item, str):
                seen.add(item)
