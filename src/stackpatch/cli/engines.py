"""Engines of their own on the command line: their options, and what they say while they build."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from stackpatch.cli import terminal
from stackpatch.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stackpatch.artefacts.external import External, Settings
    from stackpatch.artefacts.tree_source import Source
    from stackpatch.model.arch import Arch
    from stackpatch.model.recipe import Recipe

BuilderOption = Annotated[
    str | None,
    typer.Option(
        "--builder",
        metavar="NAME",
        help="buildx: the builder to use, also one on another machine or in Kubernetes.",
        show_default=False,
    ),
]
CacheFromOption = Annotated[
    list[str] | None,
    typer.Option(
        "--cache-from", metavar="SPEC", help="buildx: a cache to read, type=registry,ref=…"
    ),
]
CacheToOption = Annotated[
    list[str] | None,
    typer.Option(
        "--cache-to", metavar="SPEC", help="buildx: a cache to write, type=registry,ref=…,mode=max"
    ),
]
CaFileOption = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        help="Certificates for a build's steps, behind a proxy that inspects TLS; in no layer.",
        show_default=False,
    ),
]
PipConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--pip-config",
        metavar="FILE",
        help="pip.conf for a build's steps: package indexes, with credentials; in no layer.",
        show_default=False,
    ),
]
BuildArgOption = Annotated[
    list[str] | None,
    typer.Option("--build-arg", metavar="NAME=VALUE", help="An ARG of the stack's Dockerfile."),
]
CudaOption = Annotated[
    str | None,
    typer.Option(
        "--cuda",
        metavar="VERSION",
        help="The CUDA toolkit in the base image, to judge arch flags by.",
        show_default=False,
    ),
]
NetworkOption = Annotated[
    str,
    typer.Option("--network", metavar="WHICH", help="Of a build's steps: none, host or default."),
]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The options of engines of their own, as a person gave them, for a build from source."""

    build_args: Sequence[str] = ()
    cuda: str | None = None
    builder: str | None = None
    cache_from: Sequence[str] = ()
    cache_to: Sequence[str] = ()
    ca_file: Path | None = None
    pip_config: Path | None = None
    network: str = "none"

    def refuse(self) -> None:
        """Raise InputError when one was given: the built-in engine has none."""
        named = {
            "--builder": self.builder,
            "--cache-from": self.cache_from,
            "--cache-to": self.cache_to,
            "--ca-file": self.ca_file,
            "--pip-config": self.pip_config,
            "--build-arg": self.build_args,
            "--cuda": self.cuda,
            "--network": self.network if self.network != "none" else None,
        }
        given = next((option for option, value in named.items() if value), None)
        if given is not None:
            msg = f"{given} is for the engines buildx and buildah"
            raise InputError(msg, hint="say --engine buildx or --engine buildah with it")

    def settings(
        self, engine: str, stack: str, root: Path, *, locked: Mapping[str, Any] | None = None
    ) -> Settings:
        """For that engine. root: the folder with dockerfiles/. locked: the engine's entry of a
        lock to build from, which then says the build arguments and the network.
        """
        from stackpatch.artefacts.external import Settings

        secrets = {"ca": self.ca_file, "pip": self.pip_config}
        return Settings(
            engine=cast("Literal['buildx', 'buildah']", engine),
            dockerfile=_dockerfiles(root) / f"{stack}.Dockerfile",
            args=_pairs(self.build_args) if locked is None else dict(locked.get("args") or {}),
            cuda=self.cuda,
            builder=self.builder,
            cache_from=tuple(self.cache_from),
            cache_to=tuple(self.cache_to),
            secrets={key: path for key, path in secrets.items() if path is not None},
            network=self.network if locked is None else str(locked.get("network") or "none"),
            progress=_say,
        )


def external(
    engine: str,
    options: EngineOptions,
    *,
    stack: str,
    root: Path,
    arch: Arch,
    locked: Mapping[str, Any] | None = None,
) -> External | None:
    """The engine that `--engine` names, asked for its version; None for the built-in one.

    root: the folder with dockerfiles/. locked: the engine's entry of a lock to build from. Raises
    InputError for options that the engine does not have, EnvironmentProblem for the engine.
    """
    if engine not in ("buildx", "buildah"):
        if engine in ("auto", "overlay"):
            options.refuse()
        return None
    from stackpatch.artefacts.engines import identify
    from stackpatch.artefacts.external import prepare_external

    settings = options.settings(engine, stack, root, locked=locked)
    version = identify(settings.engine, builder=settings.builder, platform=arch.platform)
    return prepare_external(settings, arch, version)


def from_source(
    engine: str,
    options: EngineOptions,
    recipe: Recipe,
    *,
    root: Path,
    arch: Arch,
    locked: Mapping[str, Any] | None = None,
    planning: bool = False,
) -> Source:
    """The engine that compiles a stack from source; its steps need a network.

    planning: an engine that is not here has no version yet, and that is no error. The rest, and
    what is raised, as `external`.
    """
    from stackpatch.artefacts.engines import identify
    from stackpatch.artefacts.tree_source import prepare_source

    settings = options.settings(engine, recipe.stack, root, locked=locked)
    if settings.network == "none":
        settings = replace(settings, network="default")
    checked = prepare_source(settings, recipe, arch, "")
    try:
        version = identify(settings.engine, builder=settings.builder, platform=arch.platform)
    except EnvironmentProblem:
        if not planning:
            raise
        version = ""
    return replace(checked, version=version)


def _dockerfiles(root: Path) -> Path:
    """Those beside the recipes, else those that the installed package carries."""
    beside = root / "dockerfiles"
    if beside.is_dir():
        return beside
    carried = Path(__file__).parents[1] / "data" / "dockerfiles"
    return carried if carried.is_dir() else beside


def _pairs(words: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name in pairs:
            why = "stands twice" if equals else "has no value"
            msg = f"--build-arg {name} {why}"
            raise InputError(msg, hint="want --build-arg NAME=VALUE, once for each name")
        pairs[name] = value
    return pairs


def _say(line: str) -> None:
    """One line of an engine, for whoever watches; a closed stderr changes nothing."""
    with suppress(OSError):
        terminal.write(sys.stderr, f"{line}\n")
