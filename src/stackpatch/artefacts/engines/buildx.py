"""The buildx engine: BuildKit, through the docker CLI.

Everything an option names lies in the working folder under a name of ours, so that no path of a
person's machine has to pass through the comma-separated options of `docker buildx build`.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from stackpatch.artefacts.engines.context import DOCKERFILE
from stackpatch.artefacts.engines.transcript import BuildKitTranscript

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.artefacts.engines.request import EngineRequest

CONTEXT, RESULT, BASE, SECRETS, METADATA = "context", "result", "base", "secrets", "built.json"
_LOCAL_BASE = "stackpatch-base"


def argv(request: EngineRequest, here: Path) -> tuple[str, ...]:
    """The command, for a working folder with context/, secrets/ID and, for a local base, base.

    Pure. Build arguments are words of the command line: nothing of them is read by a shell.
    here: the person's folder, which relative paths of local caches are meant from.
    """
    base = request.base
    words = ["docker", "buildx", "build", "--progress=plain", "--provenance=false", "--sbom=false"]
    if request.builder is not None:
        words += ["--builder", request.builder]
    if request.cold:
        words.append("--no-cache")
    words += ["--platform", request.platform, "--network", request.network]
    if base.reference is not None:
        named = f"{base.reference}@{base.image.digest}"
    else:
        named = _LOCAL_BASE
        words += ["--build-context", f"{_LOCAL_BASE}=oci-layout://{BASE}@{base.image.digest}"]
    args = {**request.args, "BASE": named, "SOURCE_DATE_EPOCH": str(request.epoch)}
    for name, value in sorted(args.items()):
        words += ["--build-arg", f"{name}={value}"]
    for name in sorted(request.secrets):
        words += ["--secret", f"id={name},src={SECRETS}/{name}"]
    for text in request.cache_from:
        words += ["--cache-from", _anchored(text, here)]
    for text in request.cache_to:
        words += ["--cache-to", _anchored(text, here)]
    words += ["--metadata-file", METADATA]
    words += ["--output", f"type=oci,dest={RESULT},tar=false,rewrite-timestamp=true"]
    words += ["--file", f"{CONTEXT}/{DOCKERFILE}", CONTEXT]
    return tuple(words)


def _anchored(cache: str, here: Path) -> str:
    """A cache's fields (CSV, as docker reads them) with a folder of a local one below `here`."""
    fields = next(csv.reader([cache]), [])
    if "type=local" not in fields:
        return cache
    pairs = [field.partition("=") for field in fields]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(
        f"{name}={here / value}" if name in ("src", "dest") else f"{name}{equals}{value}"
        for name, equals, value in pairs
    )
    return line.getvalue()


def transcript() -> BuildKitTranscript:
    """What follows its output."""
    return BuildKitTranscript()
