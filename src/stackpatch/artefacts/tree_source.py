"""A build from source by an engine of its own: the stack's Dockerfile, told commit and patches.

The engine's steps bring upstream's sources themselves, by the commit that the plan pins, with
submodules and large files, and lay the patched files over them: those go into the build context
with their digests, never over the network.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from stackpatch import proc, storage
from stackpatch.artefacts.engines.context import Executable
from stackpatch.artefacts.external import Instructions, engine_request, read_instructions
from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from stackpatch.artefacts.base import Base
    from stackpatch.artefacts.engines import EngineRequest
    from stackpatch.artefacts.external import Settings
    from stackpatch.artefacts.tree_changes import Changed
    from stackpatch.artefacts.tree_plan import TreePlan
    from stackpatch.artefacts.wheel import WheelResult
    from stackpatch.model.arch import Arch
    from stackpatch.model.recipe import Recipe

_TOOLS = ("tools/install.py", "tools/source.py")
# Given by the build itself; a person's own value would make the lock tell something else.
_OURS = frozenset(
    {"BASE", "GIT", "COMMIT", "VERSION", "DISTRIBUTION", "PACKAGE", "ALSO", "SHADOWED_BY"}
    | {"LFS", "SUBMODULES", "SOURCE_DATE_EPOCH"}
)


@dataclass(frozen=True, slots=True)
class Source:
    """Settings that were checked, with what the Dockerfile asks for.

    version: the engine's, empty where it was not asked. recipe_args: the build arguments that the
    recipe has for the arch. package: what Python imports.
    """

    settings: Settings
    version: str
    instructions: Instructions
    recipe_args: Mapping[str, str]
    package: str

    @property
    def dockerfile(self) -> str:
        """The Dockerfile's sha256, hex."""
        return self.instructions.dockerfile

    @property
    def build_args(self) -> dict[str, str]:
        """The recipe's arguments and, before them, a person's."""
        return {**self.recipe_args, **self.settings.args}

    def pinned(self) -> dict[str, Any]:
        """For the lock; digests are hex."""
        return {
            "dockerfile": self.dockerfile,
            "tools": dict(self.instructions.tools),
            "args": dict(sorted(self.settings.args.items())),
            "build-args": dict(sorted(self.recipe_args.items())),
            "network": self.settings.network,
            "package": self.package,
        }


def prepare_source(settings: Settings, recipe: Recipe, arch: Arch, version: str) -> Source:
    """Check the settings against the stack's Dockerfile. version: of the engine, for the lock.

    Raises InputError as `read_instructions`, and for a Dockerfile that builds nothing from source.
    """
    read = read_instructions(settings, arch, tools=_TOOLS, ours=_OURS)
    if "COMMIT" not in read.declared:
        msg = f"{settings.dockerfile.name} takes no COMMIT: it builds nothing from source"
        raise InputError(msg, hint="lay the series over an image with --engine overlay")
    args = recipe.arch(arch.name).build_args
    return Source(settings, version, read, dict(args), recipe.upstream.package)


def context_files(changed: Changed, dockerfile: Path) -> dict[str, Path | bytes]:
    """The build context: the tools, the patched files, and the list of them with their digests.

    Raises InputError for a name that the list cannot hold.
    """
    listed = []
    files: dict[str, Path | bytes] = {name: dockerfile.parent / name for name in _TOOLS}
    for path, file in sorted(changed.files.items()):
        if "\n" in path:
            msg = f"{path!r} has a line break in its name"
            raise InputError(msg, hint="leave it out of the series")
        if file.content is None:
            listed.append(f"-  {path}\n")
            continue
        listed.append(f"{hashlib.sha256(file.content).hexdigest()}  {path}\n")
        whole = Executable(file.content) if file.mode & 0o100 else file.content
        files[f"source/files/{path}"] = whole
    files["source/patched.sha256"] = "".join(listed).encode("utf-8", "surrogateescape")
    return files


def source_request(
    plan: TreePlan,
    base: Base,
    changed: Changed,
    wheels: Sequence[tuple[str, WheelResult]],
    *,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
) -> EngineRequest:
    """What the engine is asked for. wheels: of the stacks below, by distribution.

    Raises InputError.
    """
    inputs, source = plan.inputs, plan.source
    assert source is not None  # noqa: S101 - the caller asked for it, for mypy
    also = (f"{name}={wheel.version}" for name, wheel in wheels)
    shadows = {*inputs.shadowed_by}
    for one in plan.companions:
        shadows.update(one.plan.inputs.shadowed_by)
    given = {
        "GIT": inputs.git,
        "COMMIT": str(inputs.commit),
        "VERSION": inputs.patched,
        "DISTRIBUTION": canonicalize_name(inputs.distribution),
        "PACKAGE": source.package,
        "ALSO": " ".join(also),
        "LFS": "*" if inputs.checkout.get("lfs") else "",
        "SUBMODULES": "yes" if inputs.checkout.get("submodules") else "no",
        "SHADOWED_BY": " ".join(sorted(shadows)),
        **inputs.env,
        **source.build_args,
    }
    declared = source.instructions.declared
    if wheels and "ALSO" not in declared:
        msg = f"{source.settings.dockerfile.name} takes no ALSO: it cannot install a stack below"
        raise InputError(msg, hint="declare ARG ALSO in it, as dockerfiles/trtllm.Dockerfile does")
    files = context_files(changed, source.settings.dockerfile)
    files |= {f"wheel/{wheel.path.name}": wheel.path for _, wheel in wheels}
    return engine_request(
        inputs,
        source.settings,
        base,
        files,
        {key: value for key, value in given.items() if key in declared},
        labels=labels,
        annotations=annotations,
    )


@contextlib.contextmanager
def with_git_addresses(request: EngineRequest, folder: Path) -> Iterator[EngineRequest]:
    """The request with the person's own rewritings of addresses as a secret of its steps.

    `url.….insteadOf` is how git is told of a mirror, and an address may hold a login. What the
    steps fetch is checked by the commit, so where it comes from changes no byte of the image.
    folder: the scratch folder of the build; the secret lies beside it, where the next build's
    sweep finds it if this one is killed.
    """
    listed = proc.run(
        ["git", "config", "--null", "--get-regexp", r"^url\..*\.insteadof$"], check=False
    )
    if listed.status != 0 or not listed.stdout:
        yield request
        return
    place = folder.with_name(f"{folder.name.removesuffix('.tmp')}.git.tmp")
    with storage.disk_errors(place):
        place.mkdir(mode=0o700)
    try:
        secret = place / "gitconfig"
        for entry in listed.stdout.decode("utf-8", "surrogateescape").rstrip("\0").split("\0"):
            name, _, value = entry.partition("\n")
            proc.run(["git", "config", "--file", secret, "--add", name, value])
        yield replace(request, secrets={**request.secrets, "git": secret})
    finally:
        shutil.rmtree(place, ignore_errors=True)
