"""`stackpatch show`: one recipe, resolved."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackpatch.cli import output
from stackpatch.cli.context import JsonOption, RootOption
from stackpatch.cli.roots import find_root

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackpatch.checks.proof import Seen, Step
    from stackpatch.model.recipe import ArchSettings, Recipe, Release
    from stackpatch.model.series import Series


def command(
    stack: Annotated[str, typer.Argument(metavar="STACK[@RELEASE]", help="flashinfer@0.6.3")],
    *,
    arch: Annotated[
        str | None, typer.Option("--arch", metavar="ARCH", help="Only what counts for this arch.")
    ] = None,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Show one recipe, resolved for a release."""
    from stackpatch.checks.proof import known
    from stackpatch.model.arch import parse_arch
    from stackpatch.model.collection import Collection
    from stackpatch.model.reference import StackRef

    wanted = StackRef.parse(stack)
    collection = Collection(find_root(root).path)
    recipe = collection.recipe(wanted.stack)
    release = recipe.release(wanted.release)
    series = collection.series(recipe.stack, release)
    archs = dict(recipe.archs)
    if arch is not None:
        name = parse_arch(arch).name
        archs = {name: recipe.arch(name)}
        series = series.for_arch(name)
    proven = {}
    for name in archs:
        narrowed = series.for_arch(name)
        if narrowed.patches:
            proven[name] = known(
                collection.recipes, recipe.stack, release.version, name, narrowed.digest
            )
    output.emit(
        "show",
        {
            **_document(recipe, release, archs, series),
            "proven": {
                name: {step.value: one.json() for step, one in steps.items()}
                for name, steps in proven.items()
            },
        },
        _text(recipe, release, archs, series, proven),
        json=json,
    )


def _document(
    recipe: Recipe, release: Release, archs: dict[str, ArchSettings], series: Series
) -> dict[str, Any]:
    whole = recipe.model_dump(mode="json", by_alias=True)
    del whole["releases"]
    whole["archs"] = {
        name: {
            **whole["archs"][name],
            "launch": [
                one.model_dump(mode="json", by_alias=True)
                for one in settings.launch
                if one.serves(release.version)
            ],
        }
        for name, settings in archs.items()
    }
    return {
        **whole,
        "release": {
            **release.model_dump(mode="json", by_alias=True),
            "default": release.version == recipe.default,
            "artefacts": [
                {
                    **artefact.model_dump(mode="json", by_alias=True),
                    "kind": artefact.kind.value,
                    "platforms": list(artefact.platforms),
                    "pythons": list(artefact.pythons),
                }
                for artefact in release.artefacts
            ],
        },
        "series_digest": series.digest if series.patches else None,
        "patches": [
            {
                "name": patch.name,
                "subject": patch.subject,
                "sha256": patch.sha256,
                "archs": list(patch.trailers.archs) if patch.trailers.archs is not None else None,
                "status": patch.trailers.status.value if patch.trailers.status else None,
                "links": list(patch.trailers.links),
                "applies_to": patch.trailers.range,
                "effects": [str(effect) for effect in patch.trailers.effects],
                "paths": list(patch.paths),
            }
            for patch in series.patches
        ],
    }


def _text(
    recipe: Recipe,
    release: Release,
    archs: dict[str, ArchSettings],
    series: Series,
    proven: Mapping[str, Mapping[Step, Seen]],
) -> list[str]:
    from stackpatch.checks.proof import how_far

    evidence = release.commit_evidence
    lines = [
        f"{recipe.stack} {release.version}: {recipe.summary}",
        f"  upstream   {recipe.upstream.git}, {recipe.upstream.pypi} on the package index",
        f"  tag        {release.tag or 'none'}",
        f"  commit     {release.commit or 'unknown'}",
        f"             {evidence.kind}: {' '.join(evidence.detail.split())}",
        f"  published  {release.date}",
    ]
    lines += [f"  requires   {name} {version}" for name, version in release.requires.items()]
    if release.artefacts:
        lines += ["", "files on the package index"]
        lines += output.table(
            ("  FILE", "BYTES", "SHA256"),
            [(f"  {a.file}", f"{a.size:,}", a.sha256) for a in release.artefacts],
        )
    else:
        lines += ["", "files on the package index: none pinned; the release is its commit"]
    lines += ["", "arches"]
    for name, settings in archs.items():
        env = " ".join(f"{key}={value!r}" for key, value in settings.env.items())
        lines.append(f"  {name}  CUDA {settings.cuda}  {env}".rstrip())
        if name in proven:
            lines.append(f"         {how_far(proven[name])}")
        lines += [f"         {line}" for line in settings.notes.splitlines()]
        lines += _launch(settings, release)
    lines += ["", f"patches ({series.where})" if series.patches else "patches: none"]
    for patch in series.patches:
        only = f" [{' '.join(patch.trailers.archs)}]" if patch.trailers.archs else ""
        lines.append(f"  {patch.name}{only}")
        lines.append(f"      {patch.subject}")
        if patch.trailers.status is not None:
            lines.append(f"      {patch.trailers.status} {' '.join(patch.trailers.links)}".rstrip())
    return lines


def _launch(settings: ArchSettings, release: Release) -> list[str]:
    """What to start the release's server with, as a shell takes it."""
    lines = []
    for one in settings.launch:
        if one.serves(release.version):
            words = [f"{name}={shlex.quote(value)}" for name, value in one.env.items()]
            words += [shlex.quote(argument) for argument in one.args]
            lines.append(f"         start with  {' '.join(words)}")
            lines.append(f"             for {one.when}: {' '.join(one.why.split())}")
    return lines
