"""How a result came to be: an in-toto Statement v1 with a SLSA provenance v1 predicate.

Unsigned, and made by the same program that built: it tells what went in, it does not prove it.
No times of the run, so that the same inputs give the same document.
"""

from __future__ import annotations

import json
import urllib.parse
from typing import TYPE_CHECKING, Any

from stackpatch.artefacts.vcs import repository_uri

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stackpatch.artefacts.lock import Inputs, Output

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:stackpatch:build:v1"
BUILDER = "urn:stackpatch:local"


def make_provenance(
    inputs: Inputs, wheel: Output | None, image: str, below: Sequence[tuple[Inputs, Output]] = ()
) -> bytes:
    """The statement. image: the manifest's digest, `sha256:…`. wheel: None for a build from git.

    below: the patched stacks that this one stands on, whose wheels were made with it.
    """
    made = [*([] if wheel is None else [wheel]), *(output for _, output in below)]
    dependencies = _dependencies(inputs)
    for lower, _ in below:
        dependencies += [one for one in _dependencies(lower) if one not in dependencies]
    statement = {
        "_type": STATEMENT,
        "subject": [
            *({"name": one.path, "digest": {"sha256": one.sha256}} for one in made),
            {"name": "image", "digest": {"sha256": image.removeprefix("sha256:")}},
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "stack": inputs.stack,
                    "version": inputs.version,
                    "arch": inputs.arch,
                    "engine": inputs.engine,
                    "base": inputs.base.digest or "scratch",
                    **_told(inputs.engine_settings),
                },
                "internalParameters": {
                    "epoch": inputs.epoch,
                    "env": dict(inputs.env),
                    "engineVersion": inputs.engine_version,
                    "seriesSha256": inputs.series_sha256,
                },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"stackpatch": inputs.stackpatch}},
                "metadata": {"invocationId": inputs.key},
            },
        },
    }
    return f"{json.dumps(statement, ensure_ascii=False, indent=2, sort_keys=True)}\n".encode()


def _dependencies(inputs: Inputs) -> list[dict[str, Any]]:
    def quoted(text: str) -> str:
        return urllib.parse.quote(text, safe="")

    found: list[dict[str, Any]] = []
    if inputs.wheel is not None:
        found.append(
            {
                "name": inputs.wheel.file,
                "uri": f"pkg:pypi/{inputs.distribution}@{quoted(inputs.version)}"
                f"?file_name={quoted(inputs.wheel.file)}",
                "digest": {"sha256": inputs.wheel.sha256},
            }
        )
    if inputs.commit is not None:
        at = f"@refs/tags/{quoted(inputs.tag)}" if inputs.tag else ""
        found.append(
            {
                "name": "upstream source",
                "uri": f"git+{repository_uri(inputs.git)}{at}",
                "digest": {"gitCommit": inputs.commit},
                "annotations": {"commitEvidence": inputs.commit_evidence},
            }
        )
    found += [
        {"name": f"{inputs.series}/{patch.name}", "digest": {"sha256": patch.sha256}}
        for patch in inputs.patches
    ]
    if inputs.base.digest is not None:
        found.append(
            {
                "name": inputs.base.name or "base image",
                "digest": {"sha256": inputs.base.digest.removeprefix("sha256:")},
            }
        )
    return found + _of_the_engine(inputs.engine_settings)


def _told(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a person told an engine of its own."""
    return {"buildArgs": dict(settings["args"])} if settings.get("args") else {}


def _of_the_engine(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What an engine of its own worked by: Dockerfile, tools, and images named by digest."""
    files = {"Dockerfile": settings.get("dockerfile"), "tools/install.py": settings.get("tool")}
    files |= settings.get("tools", {})
    found = [
        {"name": name, "digest": {"sha256": digest}}
        for name, digest in sorted(files.items())
        if digest is not None
    ]
    for value in settings.get("args", {}).values():
        image, at, digest = str(value).partition("@sha256:")
        if at:
            found.append({"name": image, "digest": {"sha256": digest}})
    return found
