"""Papers beside an image: OCI 1.1 artefacts whose `subject` is the image's manifest.

A registry that knows referrers says so when it takes one. For the others the specification has a
tag, `sha256-<hex>`, that names an index of them; it is read, joined and written back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stackpatch.artefacts.images import listed
from stackpatch.artefacts.oci import INDEX, MANIFEST, Descriptor, dump_json, parse_json
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.model.digest import Digest
from stackpatch.registry.blobs import Blob
from stackpatch.registry.client import MAX_DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stackpatch.registry.client import Registry
    from stackpatch.registry.push import Pusher

EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Paper:
    """A file to be put beside an image. kind: its media type, which is the artefact's type too.

    annotations: of the artefact and of its entry in the list.
    """

    name: str
    kind: str
    content: bytes = field(repr=False)
    annotations: Mapping[str, str] = field(default_factory=dict)

    def manifest(self, subject: Descriptor) -> bytes:
        """The artefact's manifest: the same for the same paper and subject."""
        layer = Descriptor(self.kind, Digest.of(self.content), len(self.content)).json()
        layer["annotations"] = {"org.opencontainers.image.title": self.name}
        about = Descriptor(subject.media_type, subject.digest, subject.size).json()
        return dump_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": self.kind,
                "config": Descriptor(EMPTY_TYPE, Digest.of(_EMPTY), len(_EMPTY)).json(),
                "layers": [layer],
                "subject": about,
                "annotations": dict(sorted(self.annotations.items())),
            }
        )


@dataclass(frozen=True, slots=True)
class Attached:
    """A paper that is in the registry. listed: `api`, or `tag` for the fallback."""

    name: str
    kind: str
    digest: Digest
    listed: str


def attach(pusher: Pusher, subject: Descriptor, papers: Sequence[Paper]) -> tuple[Attached, ...]:
    """Put the papers beside the subject, which is there already. What is there is left alone.

    Raises EnvironmentProblem.
    """
    registry = pusher.registry
    known = listed_by_api(registry, subject.digest)
    by_tag = _by_tag(registry, subject.digest) if known is None else None
    attached: list[Attached] = []
    missing: list[Descriptor] = []
    for paper in papers:
        content = paper.manifest(subject)
        digest = Digest.of(content)
        how = "api" if known is not None else "tag"
        if digest not in (known if known is not None else _digests(by_tag)):
            pusher.blob(Blob.of_bytes(_EMPTY))
            pusher.blob(Blob.of_bytes(paper.content))
            headers = pusher.manifest(content, MANIFEST, digest)
            if not pusher.read_back(content, digest):
                msg = f"{registry.session.host} took {paper.name} and does not give it back"
                raise EnvironmentProblem(msg, hint="nothing was tagged")
            if headers.get("OCI-Subject") == str(subject.digest):
                how = "api"
            else:
                how = "tag"
                missing.append(_entry(paper, content))
        attached.append(Attached(paper.name, paper.kind, digest, how))
    if missing:
        _join_tag(pusher, subject.digest, missing)
    return tuple(attached)


def listed_by_api(registry: Registry, subject: Digest) -> frozenset[Digest] | None:
    """What the registry lists for the subject; None where it has no such list."""

    def ask() -> frozenset[Digest] | None:
        asked = registry.ask("GET", f"referrers/{subject}", {"Accept": INDEX})
        # 404 is what the specification has for "no API"; others answer with what they have.
        unknown = frozenset({400, 403, 404, 405, 406, 501})
        with registry.session.send(asked, expected=unknown | {200}) as answer:
            if answer.status_code != 200:
                return None
            content = b""
            for block in registry.session.body(answer, registry.session.limits.document):
                content += block
                if len(content) > MAX_DOCUMENT:
                    return None
        try:
            return frozenset(d.digest for d in listed(content, f"referrers of {subject}"))
        except InputError:
            return None  # a page, or nothing that we can read: then there is no list

    return registry.session.patiently(ask, f"cannot ask for the referrers of {subject}")


def fallback_tag(subject: Digest) -> str:
    """The tag that lists referrers where there is no API (distribution-spec)."""
    return f"sha256-{subject.hex}"


def _by_tag(registry: Registry, subject: Digest) -> bytes | None:
    found = registry.find_manifest(fallback_tag(subject))
    return found[0] if found is not None else None


def _digests(index: bytes | None) -> frozenset[Digest]:
    if index is None:
        return frozenset()
    return frozenset(entry.digest for entry in listed(index, "the referrers' tag"))


def _join_tag(pusher: Pusher, subject: Digest, missing: Sequence[Descriptor]) -> None:
    """Add the entries to the fallback tag's index; again where another was faster."""
    registry, tag = pusher.registry, fallback_tag(subject)
    wanted = {entry.digest for entry in missing}
    for _ in range(_ROUNDS):
        before = _by_tag(registry, subject)
        there = _digests(before)
        if wanted <= there:
            return
        parsed: dict[str, Any] = parse_json(before, where=tag) if before is not None else {}
        entries = [*parsed.get("manifests", [])]
        entries += [entry.json() for entry in missing if entry.digest not in there]
        index = {"schemaVersion": 2, "mediaType": INDEX}
        index |= {key: value for key, value in parsed.items() if key not in {*index, "manifests"}}
        pusher.manifest(dump_json({**index, "manifests": entries}), INDEX, tag)
    if not wanted <= _digests(_by_tag(registry, subject)):
        msg = f"the list {registry.reference.name}:{tag} does not keep what is added to it"
        raise EnvironmentProblem(msg, hint="others write it all the time; run again")


def _entry(paper: Paper, content: bytes) -> Descriptor:
    made = Descriptor(MANIFEST, Digest.of(content), len(content)).json()
    made["artifactType"] = paper.kind
    made["annotations"] = dict(sorted(paper.annotations.items()))
    return Descriptor.parse(made, where=paper.name)
