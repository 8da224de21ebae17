"""Which index a tag shall name: nothing is lost unasked, and the order of arrival does not show."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.artefacts.oci import INDEX, MANIFEST, Descriptor, Platform
from stackpatch.errors import FindingError, InputError
from stackpatch.model.digest import Digest
from stackpatch.registry.joining import Joined, entry_for, holds, join

DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
PLATFORMS = {
    "sm90": "linux/amd64",
    "sm120": "linux/amd64",
    "sm121": "linux/arm64",
    "sm110": "linux/arm64/v8",
    "power": "linux/ppc64le",
}


def entry(arch: str, content: str = "", **said: str) -> Descriptor:
    annotations = {
        "stackpatch.arch": arch,
        "stackpatch.stack": "demo",
        "stackpatch.release": "1.0",
        "stackpatch.smoke": "not run",
        **{f"stackpatch.{key}": value for key, value in said.items()},
    }
    image = Descriptor(MANIFEST, Digest.of(f"{arch}{content}".encode()), 7)
    return entry_for(image, Platform.parse(PLATFORMS[arch]), annotations)


def current(content: bytes, media: str = INDEX) -> tuple[bytes, Descriptor]:
    return content, Descriptor(media, Digest.of(content), len(content))


def joined(*entries: Descriptor, replace: bool = False) -> bytes:
    content = b""
    for one in entries:
        before = current(content) if content else None
        content = join(before, one, replace=replace, name="r/x:t").content
    return content


def listed(content: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(content)["manifests"]
    return found


def test_the_first_entry_makes_the_index() -> None:
    content = joined(entry("sm121"))
    assert json.loads(content) == {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [entry("sm121").json()],
    }


@given(st.permutations(["sm120", "sm121", "power"]))
def test_the_order_of_arrival_does_not_show(order: list[str]) -> None:
    assert joined(*map(entry, order)) == joined(entry("sm120"), entry("sm121"), entry("power"))


@given(st.lists(st.sampled_from(["sm120", "sm121", "power"]), min_size=1, max_size=6))
def test_what_is_there_already_changes_nothing(arches: list[str]) -> None:
    content = joined(*map(entry, arches))
    for arch in arches:
        again = join(current(content), entry(arch), replace=False, name="t")
        assert again == Joined(content)
        assert holds(content, entry(arch), "t")


_STEPS = st.lists(
    st.tuples(st.sampled_from(sorted(PLATFORMS)), st.sampled_from("ab"), st.sampled_from("12")),
    max_size=8,
)


@given(_STEPS, st.booleans())
def test_a_platforms_image_is_never_lost_or_changed_unasked(
    steps: list[tuple[str, str, str]], replace: bool
) -> None:
    content = b""
    for arch, body, release in steps:
        before = {one["digest"]: one["platform"] for one in listed(content)} if content else {}
        new = entry(arch, body, release=release)
        try:
            done = join(current(content) if content else None, new, replace=replace, name="t")
        except FindingError as error:
            assert not replace
            assert "--replace" in str(error.hint)  # noqa: PT017 - the finding is the outcome
            continue
        after = {one["digest"]: one["platform"] for one in listed(done.content)}
        assert str(new.digest) in after
        lost = before.keys() - after.keys()
        assert bool(lost) == bool(done.gone)
        if not replace:
            assert not lost
        # Never two images that a pull by platform could not tell apart.
        platforms = [Platform(p["os"], p["architecture"]) for p in after.values()]
        assert len(platforms) == len(set(platforms))
        assert len({one["annotations"]["stackpatch.release"] for one in listed(done.content)}) == 1
        content = done.content


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (entry("sm121", "a"), entry("sm121", "b"), "has another image for linux/arm64"),
        (entry("sm90"), entry("sm120"), "has an image for sm90, which is linux/amd64 too"),
        (entry("sm110"), entry("sm121"), "has an image for sm110, which is linux/arm64/v8 too"),
        (entry("sm120", stack="other"), entry("sm121"), "holds other, another stack than demo"),
        (entry("sm120", release="0.9"), entry("sm121"), "holds 0.9, another release than 1.0"),
    ],
)
def test_what_stands_in_the_way_is_named_and_goes_only_when_asked(
    old: Descriptor, new: Descriptor, why: str
) -> None:
    with pytest.raises(FindingError, match=f"r/x:t {why}"):
        joined(old, new)
    done = join(current(joined(old)), new, replace=True, name="t")
    assert [one["digest"] for one in listed(done.content)] == [str(new.digest)]
    assert done.gone == (f"{old.platform} {old.digest}",)


def test_the_entry_of_the_same_image_may_be_renewed() -> None:
    old, new = entry("sm121"), entry("sm121", smoke="passed")
    done = join(current(joined(entry("sm120"), old)), new, replace=False, name="t")
    assert done.gone == ()
    smoke = [one["annotations"]["stackpatch.smoke"] for one in listed(done.content)]
    assert smoke == ["not run", "passed"]


FOREIGN = {
    "mediaType": MANIFEST,
    "digest": str(Digest.of(b"foreign")),
    "size": 3,
    "platform": {"os": "linux", "architecture": "s390x", "x": "kept"},
    "y": [1, {"z": None}],
}


def attestation(about: Descriptor) -> dict[str, Any]:
    return {
        "mediaType": MANIFEST,
        "digest": str(Digest.of(b"about")),
        "size": 3,
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.digest": str(about.digest)},
    }


@pytest.mark.parametrize("media", [INDEX, DOCKER_INDEX])
def test_what_others_wrote_stays_where_and_as_it_was(media: str) -> None:
    theirs = {
        "schemaVersion": 2,
        "mediaType": media,
        "manifests": [FOREIGN],
        "annotations": {"a": "b"},
    }
    content = json.dumps(theirs, indent=2).encode()
    done = join(current(content, media), entry("sm121"), replace=False, name="t")
    parsed = json.loads(done.content)
    assert parsed["mediaType"] == INDEX
    assert parsed["manifests"] == [FOREIGN, entry("sm121").json()]
    assert parsed["annotations"] == {"a": "b"}
    renewed = join(current(done.content), entry("sm121", smoke="x"), replace=False, name="t")
    assert listed(renewed.content)[0] == FOREIGN


def test_an_attestation_goes_with_the_image_that_it_is_about() -> None:
    old = entry("sm121", "old")
    mine = [old.json(), attestation(old), FOREIGN]
    content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": mine}).encode()
    done = join(current(content), entry("sm121", "new"), replace=True, name="t")
    assert listed(done.content) == [FOREIGN, entry("sm121", "new").json()]
    other = join(current(content), entry("sm120"), replace=False, name="t")
    assert listed(other.content) == [*mine, entry("sm120").json()]


def test_a_single_image_is_told_as_one() -> None:
    content = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST}).encode()
    with pytest.raises(FindingError, match="r/x:t names a single image, sha256:"):
        join(current(content, MANIFEST), entry("sm121"), replace=False, name="r/x:t")
    done = join(current(content, MANIFEST), entry("sm121"), replace=True, name="r/x:t")
    assert done.content == joined(entry("sm121"))
    assert done.gone[0].startswith("the single image sha256:")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"schemaVersion": 2}', b'{"manifests": 3}'])
def test_an_index_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(InputError):
        join(current(content), entry("sm121"), replace=True, name="t")
