"""The software bill of materials: CycloneDX 1.6, each patch in the wheel's pedigree.

No time of the build and no random serial number: the same inputs give the same document.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
import uuid
from typing import TYPE_CHECKING, Any

from stackpatch.artefacts.vcs import commit_page, repository_uri
from stackpatch.model.trailers import UpstreamWord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackpatch.artefacts.lock import Inputs, Output
    from stackpatch.model.patch import Patch

_GITHUB = re.compile(r"https://github\.com/([^/]+/[^/]+)/(issues|pull|commit)/([0-9a-z]+)")


def make_sbom(
    inputs: Inputs,
    patches: Sequence[Patch],
    wheel: Output | None,
    image: str,
    below: Sequence[tuple[Inputs, Sequence[Patch], Output]] = (),
) -> bytes:
    """The document. image: the manifest's digest, `sha256:…`. wheel: None for a build from git.

    below: the same of the patched stacks that this one stands on, which are in the image too.
    """
    library = _library(inputs, patches, wheel)
    stood_on = [_library(*one) for one in below]
    container: dict[str, Any] = {
        "type": "container",
        "bom-ref": f"image:{image}",
        "name": inputs.stack,
        "version": inputs.patched,
        "purl": f"pkg:oci/{inputs.stack}@{_quoted(image)}?arch={inputs.platform.split('/')[1]}",
        "hashes": [{"alg": "SHA-256", "content": image.removeprefix("sha256:")}],
    }
    lower = [one["bom-ref"] for one in stood_on]
    depends = [{"ref": library["bom-ref"], "dependsOn": sorted(lower)}]
    depends += [{"ref": ref, "dependsOn": []} for ref in lower]
    components = [container, *stood_on]
    under = [library["bom-ref"], *lower]
    if inputs.base.digest is not None:
        base = _base(inputs.base.digest, inputs.base.name)
        components.append(base)
        under.append(base["bom-ref"])
        depends.append({"ref": base["bom-ref"], "dependsOn": []})
    depends.append({"ref": container["bom-ref"], "dependsOn": under})
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'stackpatch:{inputs.key}')}",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {
                "components": [
                    {"type": "application", "name": "stackpatch", "version": inputs.stackpatch}
                ]
            },
            "component": library,
            "properties": [
                {"name": "stackpatch:key", "value": inputs.key},
                {"name": "stackpatch:arch", "value": inputs.arch},
                {"name": "stackpatch:engine", "value": inputs.engine},
                {"name": "stackpatch:series", "value": f"sha256:{inputs.series_sha256}"},
            ],
        },
        "components": components,
        "dependencies": sorted(depends, key=lambda one: str(one["ref"])),
    }
    return f"{json.dumps(document, ensure_ascii=False, indent=2)}\n".encode()


def _library(inputs: Inputs, patches: Sequence[Patch], wheel: Output | None) -> dict[str, Any]:
    purl = f"pkg:pypi/{inputs.distribution}@{_quoted(inputs.patched)}"
    pedigree: dict[str, Any] = {"ancestors": [_released(inputs)]}
    if inputs.commit is not None:
        known = {"first-hand": "read from the release itself"}.get(
            inputs.commit_evidence, inputs.commit_evidence
        )
        commit = {"uid": inputs.commit}
        if page := commit_page(inputs.git, inputs.commit):
            commit["url"] = page
        commit["message"] = f"{inputs.tag or inputs.version}, the patched release ({known})"
        pedigree["commits"] = [commit]
    if patches:
        pedigree["patches"] = [_patch(patch) for patch in patches]
    made = {} if wheel is None else {"hashes": [{"alg": "SHA-256", "content": wheel.sha256}]}
    return {
        "type": "library",
        "bom-ref": purl,
        "name": inputs.distribution,
        "version": inputs.patched,
        "purl": purl,
        **made,
        "pedigree": pedigree,
        # CycloneDX 1.6 gives a patch no hash of its own.
        "properties": [
            {"name": f"stackpatch:patch:{patch.name}", "value": f"sha256:{patch.sha256}"}
            for patch in patches
        ],
    }


def _released(inputs: Inputs) -> dict[str, Any]:
    """What was patched: the released wheel by its hash, or the sources by their commit."""
    upstream = f"pkg:pypi/{inputs.distribution}@{_quoted(inputs.version)}"
    released: dict[str, Any] = {
        "type": "library",
        "bom-ref": upstream,
        "name": inputs.distribution,
        "version": inputs.version,
    }
    if inputs.wheel is None:
        sources = _quoted(f"git+{repository_uri(inputs.git)}@{inputs.commit}")
        released["purl"] = f"{upstream}?vcs_url={sources}"
    else:
        released["purl"] = f"{upstream}?file_name={_quoted(inputs.wheel.file)}"
        released["hashes"] = [{"alg": "SHA-256", "content": inputs.wheel.sha256}]
    released["externalReferences"] = [{"type": "vcs", "url": repository_uri(inputs.git)}]
    return released


def _patch(patch: Patch) -> dict[str, Any]:
    backport = patch.trailers.status is UpstreamWord.BACKPORT
    diff: dict[str, Any]
    try:
        text = {"contentType": "text/x-patch", "content": patch.raw.decode("utf-8")}
    except UnicodeDecodeError:
        encoded = base64.b64encode(patch.raw).decode("ascii")
        text = {"contentType": "text/x-patch", "encoding": "base64", "content": encoded}
    diff = {"text": text}
    made: dict[str, Any] = {"type": "backport" if backport else "unofficial", "diff": diff}
    if links := patch.trailers.links:
        made["resolves"] = [_issue(patch, link) for link in links]
    return made


def _issue(patch: Patch, link: str) -> dict[str, Any]:
    found = _GITHUB.match(link)
    issue: dict[str, Any] = {"type": "defect"}
    if found:
        issue["id"] = f"{found[1]}{'@' if found[2] == 'commit' else '#'}{found[3]}"
    return {
        **issue,
        "name": patch.subject,
        "source": {"name": urllib.parse.urlsplit(link).hostname or "link", "url": link},
        "references": [link],
    }


def _base(digest: str, name: str | None) -> dict[str, Any]:
    return {
        "type": "container",
        "bom-ref": f"image:{digest}",
        "name": name or "base image",
        "version": digest,
        "hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}],
    }


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")
