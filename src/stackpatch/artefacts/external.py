"""A build whose image another engine makes: what of it goes into the lock, and its request.

The patched wheel is the same as with the overlay engine; the stack's Dockerfile puts it into the
base. Everything that the image's bytes depend on is pinned: the Dockerfile and its tools by
digest, build arguments, the engine's version.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from stackpatch.artefacts.build import IMAGE
from stackpatch.artefacts.engines import EngineBase, EngineRequest, build_image
from stackpatch.artefacts.engines.adopt import BASE_NAME
from stackpatch.artefacts.engines.flags import check_flags, check_toolkit, toolkit_of
from stackpatch.artefacts.papers import MadeImage
from stackpatch.errors import InputError
from stackpatch.model.arch import parse_arch
from stackpatch.model.digest import Digest
from stackpatch.storage import cache_root

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from stackpatch.artefacts.base import Base
    from stackpatch.artefacts.engines import EngineName
    from stackpatch.artefacts.lock import Inputs
    from stackpatch.artefacts.plan import Plan
    from stackpatch.artefacts.wheel import WheelResult
    from stackpatch.model.arch import Arch

_ARG = re.compile(r"(?m)^\s*ARG\s+([A-Za-z_][A-Za-z0-9_]*)")
# Given by the build itself; a person's own value would make the lock tell something else.
_OURS = frozenset(
    {"BASE", "VERSION", "DISTRIBUTION", "PACKAGE", "ALSO", "SHADOWED_BY", "SOURCE_DATE_EPOCH"}
)
_TOOL = "tools/install.py"


@dataclass(frozen=True, slots=True)
class Settings:
    """How a person wants an outside engine to be run.

    dockerfile: the stack's; its folder has tools/. args: build arguments of a person's own. cuda:
    the toolkit in the image that compiles, for judging flags; None: as the base says. Of the rest
    nothing changes the image.
    """

    engine: EngineName
    dockerfile: Path
    args: Mapping[str, str] = field(default_factory=dict)
    cuda: str | None = None
    builder: str | None = None
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    secrets: Mapping[str, Path] = field(default_factory=dict)
    network: str = "none"
    progress: Callable[[str], object] | None = None


@dataclass(frozen=True, slots=True)
class Instructions:
    """A Dockerfile that was read. dockerfile, tools: sha256 (hex), of the tools by their path
    beside it. declared: the names of its ARGs.
    """

    dockerfile: str
    tools: Mapping[str, str]
    declared: frozenset[str]


def read_instructions(
    settings: Settings, arch: Arch, *, tools: Collection[str], ours: frozenset[str]
) -> Instructions:
    """The settings' Dockerfile, and its tools; a person's arguments are held against it.

    ours: the arguments that the build gives itself. Raises InputError for a Dockerfile that is
    not there, and for arguments that it does not declare or that would build for something else
    than the arch.
    """
    path = settings.dockerfile
    try:
        text = path.read_bytes()
        digests = {name: Digest.of_file(path.parent / name).hex for name in sorted(tools)}
    except OSError as error:
        msg = f"cannot read {error.filename}: {error.strerror}"
        hint = "each stack's Dockerfile is dockerfiles/STACK.Dockerfile, beside recipes/"
        raise InputError(msg, hint=hint) from error
    declared = frozenset(_ARG.findall(text.decode("utf-8", "replace")))
    for name in settings.args:
        if name in ours or name not in declared:
            why = "is given by the build itself" if name in ours else f"is no ARG of {path.name}"
            free = ", ".join(sorted(declared - ours)) or "none"
            msg = f"--build-arg {name} {why}"
            raise InputError(msg, hint=f"those to be set: {free}")
    if settings.cuda is not None:
        check_toolkit(arch, settings.cuda)
    check_flags(settings.args, arch, settings.cuda)
    return Instructions(Digest.of(text).hex, digests, declared)


@dataclass(frozen=True, slots=True)
class External:
    """Settings that were checked, with what the Dockerfile asks for. version: the engine's."""

    settings: Settings
    version: str
    instructions: Instructions

    def pinned(self) -> dict[str, Any]:
        """For the lock; digests are hex."""
        return {
            "dockerfile": self.instructions.dockerfile,
            "tool": self.instructions.tools[_TOOL],
            "args": dict(sorted(self.settings.args.items())),
            "network": self.settings.network,
        }


def prepare_external(settings: Settings, arch: Arch, version: str) -> External:
    """Check the settings against the Dockerfile. version: of the engine, for the lock.

    Raises InputError as `read_instructions`, and for a Dockerfile that takes no wheel.
    """
    read = read_instructions(settings, arch, tools=(_TOOL,), ours=_OURS)
    if "COMMIT" in read.declared:
        path = settings.dockerfile
        msg = f"{path.name} compiles sources; for a release with wheels `build` does not drive that"
        hint = (
            "docs/containers.md says how to run it by hand; where the series changes interpreted"
            " files only, use --engine overlay"
        )
        raise InputError(msg, hint=hint, where=str(path))
    return External(settings, version, read)


def external_image(
    plan: Plan,
    base: Base,
    wheels: Sequence[tuple[Plan, WheelResult]],
    folder: Path,
    *,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    ref_name: str,
) -> MadeImage:
    """The image, below `folder`.

    wheels: the patched ones, those of the stacks below first, this plan's last. Raises what
    `build_image` raises.
    """
    external = plan.external
    assert external is not None  # noqa: S101 - the caller asked for it, for mypy
    inputs, settings = plan.inputs, external.settings
    also = [f"{one.inputs.distribution}={one.inputs.patched}" for one, _ in wheels[:-1]]
    shadows = {name for one, _ in wheels for name in one.inputs.shadowed_by}
    given = {
        "VERSION": inputs.patched,
        "DISTRIBUTION": canonicalize_name(inputs.distribution),
        "ALSO": " ".join(also),
        "SHADOWED_BY": " ".join(sorted(shadows)),
        **inputs.env,
        **settings.args,
    }
    files: dict[str, Path | bytes] = {_TOOL: settings.dockerfile.parent / _TOOL}
    files |= {f"wheel/{wheel.path.name}": wheel.path for _, wheel in wheels}
    request = engine_request(
        inputs,
        settings,
        base,
        files,
        {key: value for key, value in given.items() if key in external.instructions.declared},
        labels=labels,
        annotations=annotations,
    )
    image = build_image(request, folder / IMAGE, progress=settings.progress, ref_name=ref_name)
    return MadeImage.of(image, folder)


def engine_request(
    inputs: Inputs,
    settings: Settings,
    base: Base,
    files: Mapping[str, Path | bytes],
    args: Mapping[str, str],
    *,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
) -> EngineRequest:
    """What an engine is asked for. files, args: of the Dockerfile.

    Raises InputError, also for the recipe's own flags where the base's toolkit makes something
    else of them; what it is, `--cuda` says or the base, unless sources compile in another image.
    """
    name = base.pinned.name
    elsewhere = "DEVEL" in args
    cuda = settings.cuda or (None if elsewhere else toolkit_of(base.image))
    check_flags({**inputs.env, **args}, parse_arch(inputs.arch), cuda)
    return EngineRequest(
        engine=settings.engine,
        stack=inputs.stack,
        dockerfile=settings.dockerfile,
        files=files,
        base=EngineBase(
            base.image,
            None if base.layout is not None or name is None else _untagged(name),
            base.layout,
        ),
        platform=inputs.platform,
        epoch=inputs.epoch,
        log=cache_root() / "logs" / f"engine-{inputs.key[:16]}.txt",
        args=args,
        env=inputs.env,
        labels=labels,
        annotations={**annotations, BASE_NAME: name} if name else annotations,
        secrets=settings.secrets,
        builder=settings.builder,
        cache_from=settings.cache_from,
        cache_to=settings.cache_to,
        network=settings.network,
    )


def _untagged(name: str) -> str:
    """Without its tag: buildah takes a tag or a digest, not both."""
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"
