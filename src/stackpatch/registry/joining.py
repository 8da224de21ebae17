"""Which index a tag shall name once one more image joins it, or why it must not. Pure.

A tag names an index with one image a platform. A further arch joins what is there; nothing that
the tag gives people today is lost or changed unless that was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackpatch.artefacts.images import listed
from stackpatch.artefacts.oci import INDEX, INDEXES, Descriptor, Platform, dump_json, parse_json
from stackpatch.errors import FindingError

if TYPE_CHECKING:
    from collections.abc import Mapping

ARCH, STACK, VERSION, RELEASE, SMOKE = (
    "stackpatch.arch",
    "stackpatch.stack",
    "stackpatch.version",
    "stackpatch.release",
    "stackpatch.smoke",
)
# On an entry that describes another entry (BuildKit's attestations).
_ABOUT = "vnd.docker.reference.digest"
_HINT = "name another tag, or say --replace"


@dataclass(frozen=True, slots=True)
class Joined:
    """The index's bytes, and what of the old one is not in it any more, in words."""

    content: bytes
    gone: tuple[str, ...] = ()


def entry_for(image: Descriptor, platform: Platform, annotations: Mapping[str, str]) -> Descriptor:
    """The image's entry in an index."""
    made = Descriptor(image.media_type, image.digest, image.size, platform).json()
    made["annotations"] = dict(sorted(annotations.items()))
    return Descriptor.parse(made, where="the new entry")


def join(
    current: tuple[bytes, Descriptor] | None, entry: Descriptor, *, replace: bool, name: str
) -> Joined:
    """The index that holds the entry and what the tag held before.

    current: what the tag names now, None for nothing. replace: whether what stands in the way may
    go. name: the tag as people write it. Raises FindingError where something stands in the way.
    """
    if current is None:
        return Joined(_index({}, [entry]))
    content, descriptor = current
    if descriptor.media_type not in INDEXES:
        what = (
            f"{name} names a single image, {descriptor.digest}, and no index that could be joined"
        )
        if not replace:
            raise FindingError(what, hint=_HINT)
        return Joined(_index({}, [entry]), (f"the single image {descriptor.digest}",))
    parsed = parse_json(content, where=name)
    kept, gone = [], []
    for old in listed(content, name):
        why = _in_the_way(old, entry)
        if why is None:
            kept.append(old)
        elif why:
            gone.append((old, why))
    if gone and not replace:
        what = f"{name} {gone[0][1]}"
        raise FindingError(what, hint=_HINT)
    lost = {str(old.digest) for old, _ in gone}
    kept = [old for old in kept if old.annotations.get(_ABOUT) not in lost]
    entries = [*kept, entry]
    if all(ARCH in one.annotations for one in entries):
        # All ours: the order in which they came must not show.
        entries.sort(key=lambda one: (str(one.platform), str(one.digest)))
    else:
        entries = _at_its_place(listed(content, name), kept, entry)
    return Joined(_index(parsed, entries), tuple(f"{old.platform} {old.digest}" for old, _ in gone))


def holds(content: bytes, entry: Descriptor, name: str) -> bool:
    """Whether the index has the entry as it is."""
    return any(one.json() == entry.json() for one in listed(content, name))


def _in_the_way(old: Descriptor, new: Descriptor) -> str | None:
    """None: it stays. Empty: it is the same image, whose entry is renewed. Else: why it goes."""
    said, ours = old.annotations, new.annotations
    if old.digest == new.digest:
        return ""
    for key, word in ((STACK, "stack"), (RELEASE, "release")):
        if key in said and said[key] != ours.get(key):
            return f"holds {said[key]}, another {word} than {ours.get(key)}"
    if old.platform is not None and new.platform is not None and old.platform.serves(new.platform):
        arch = said.get(ARCH)
        if arch is not None and arch != ours.get(ARCH):
            return (
                f"has an image for {arch}, which is {old.platform} too: a pull by that tag could"
                f" not tell it from {ours.get(ARCH)}"
            )
        return f"has another image for {old.platform}, {old.digest}"
    return None


def _at_its_place(
    before: tuple[Descriptor, ...], kept: list[Descriptor], entry: Descriptor
) -> list[Descriptor]:
    """The entry where the same image stood, else at the end; the others in their order."""
    left = {str(one.digest) for one in kept}
    made: list[Descriptor] = []
    for old in before:
        if old.digest == entry.digest:
            if entry not in made:
                made.append(entry)
        elif str(old.digest) in left:
            made.append(old)
    return made if entry in made else [*made, entry]


def _index(parsed: dict[str, Any], entries: list[Descriptor]) -> bytes:
    """An OCI index: what an old one says beside its entries stays."""
    made = {"schemaVersion": 2, "mediaType": INDEX}
    made |= {key: value for key, value in parsed.items() if key not in {*made, "manifests"}}
    return dump_json({**made, "manifests": [one.json() for one in entries]})
