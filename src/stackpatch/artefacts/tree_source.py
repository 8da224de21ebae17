"""A build from source by an engine of its own: the stack's Dockerfile, told commit and patches.

The engine's steps bring upstream's sources themselves, by the commit that the plan pins, with
submodules and large files, and lay the patched files over them: those go into the build context
with their digests, never over the network.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from stackpatch.artefacts.engines import EngineBase, EngineRequest
from stackpatch.artefacts.engines.flags import check_flag
from stackpatch.artefacts.lock import rfc3339
from stackpatch.artefacts.overlay import BASE_NAME
from stackpatch.errors import InputError
from stackpatch.model.digest import Digest
from stackpatch.storage import cache_root

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stackpatch.artefacts.base import Base
    from stackpatch.artefacts.external import Settings
    from stackpatch.artefacts.tree_plan import TreePlan
    from stackpatch.model.arch import Arch

_ARG = re.compile(r"(?m)^\s*ARG\s+([A-Za-z_][A-Za-z0-9_]*)")
_TOOLS = ("tools/install.py", "tools/source.py")
# Given by the build itself; a person's own value would make the lock tell something else.
_OURS = frozenset(
    {"BASE", "GIT", "COMMIT", "VERSION", "DISTRIBUTION", "PACKAGE", "LFS", "SHADOWED_BY"}
    | {"SOURCE_DATE_EPOCH"}
)


def pinned_dockerfile(
    dockerfile: Path, args: Mapping[str, str], arch: Arch, cuda: str | None
) -> dict[str, Any]:
    """What a plan says of the engine's instructions: digests, and a person's arguments.

    Raises InputError for a Dockerfile that is not there or builds nothing from source, and for
    arguments that it does not take or that are wrong for the arch.
    """
    try:
        text = dockerfile.read_bytes()
        tools = {name: Digest.of_file(dockerfile.parent / name).hex for name in _TOOLS}
    except OSError as error:
        msg = f"cannot read {error.filename}: {error.strerror}"
        hint = "each stack's Dockerfile is dockerfiles/STACK.Dockerfile, beside recipes/"
        raise InputError(msg, hint=hint) from error
    declared = frozenset(_ARG.findall(text.decode("utf-8", "replace")))
    if "COMMIT" not in declared:
        msg = f"{dockerfile.name} takes no COMMIT: it builds nothing from source"
        raise InputError(msg, hint="lay the series over an image with --engine overlay")
    for name, value in args.items():
        if name in _OURS or name not in declared:
            why = "is given by the build itself" if name in _OURS else "is no ARG of it"
            msg = f"--build-arg {name}: {why} ({dockerfile.name})"
            free = ", ".join(sorted(declared - _OURS)) or "none"
            raise InputError(msg, hint=f"those to be set: {free}")
        check_flag(name, value, arch, cuda or arch.min_cuda)
    return {
        "dockerfile": Digest.of(text).hex,
        "tools": tools,
        "args": dict(sorted(args.items())),
    }


def context_files(
    changed: Mapping[str, tuple[bytes, int] | None], dockerfile: Path
) -> dict[str, Path | bytes]:
    """The build context. changed: by path in the git tree, content and mode, None for removed."""
    listed = []
    files: dict[str, Path | bytes] = {name: dockerfile.parent / name for name in _TOOLS}
    for path, new in sorted(changed.items()):
        if "\n" in path:
            msg = f"{path!r} has a line break in its name"
            raise InputError(msg, hint="leave it out of the series")
        if new is None:
            listed.append(f"-  {path}\n")
            continue
        content, _ = new
        listed.append(f"{hashlib.sha256(content).hexdigest()}  {path}\n")
        files[f"source/files/{path}"] = content
    files["source/patched.sha256"] = "".join(listed).encode()
    return files


def source_request(
    plan: TreePlan,
    base: Base,
    settings: Settings,
    changed: Mapping[str, tuple[bytes, int] | None],
    *,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
) -> EngineRequest:
    """What the engine is asked for. Raises InputError."""
    recipe, release = plan.recipe, plan.release
    declared = frozenset(_ARG.findall(settings.dockerfile.read_text("utf-8", "replace")))
    env = recipe.arch(plan.arch.name).env
    given = {
        "GIT": recipe.upstream.git,
        "COMMIT": str(release.commit),
        "VERSION": plan.patched,
        "DISTRIBUTION": canonicalize_name(recipe.upstream.pypi),
        "PACKAGE": recipe.upstream.package,
        "LFS": "*" if recipe.upstream.lfs else "",
        "SHADOWED_BY": " ".join(sorted(recipe.shadowed_by)),
        **env,
        **plan.build_args,
    }
    name = base.pinned.name
    notes = dict(annotations)
    reference = None
    if name:
        notes[BASE_NAME] = name
        if base.layout is None:
            head, slash, last = name.rpartition("/")
            reference = f"{head}{slash}{last.partition(':')[0]}"
    return EngineRequest(
        engine=settings.engine,
        stack=recipe.stack,
        dockerfile=settings.dockerfile,
        files=context_files(changed, settings.dockerfile),
        base=EngineBase(base.image, reference, base.layout),
        platform=plan.arch.platform,
        epoch=release.epoch,
        log=cache_root() / "logs" / f"engine-{plan.key[:16]}.txt",
        args={key: value for key, value in given.items() if key in declared},
        env=dict(env),
        labels=dict(labels),
        annotations={**notes, "org.opencontainers.image.created": rfc3339(release.epoch)},
        secrets=settings.secrets,
        builder=settings.builder,
        cache_from=settings.cache_from,
        cache_to=settings.cache_to,
        network=settings.network,
    )
