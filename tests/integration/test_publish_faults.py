"""A registry that fails at every single request of a publication: never a half-published tag.

After each run the registry itself is asked: the tag names what it named before, or an index whose
every manifest and blob is there with its digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.faulty_registry import FaultyRegistry, faulty
from tests.publishing import finished_build, publication, publish
from tests.stack import GATE

from stackpatch.errors import EnvironmentProblem, FindingError, StackpatchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.registries import RunningRegistry

    from stackpatch.registry.finished import Finished

# All combinations take ten minutes: STACKPATCH_ALL_FAULTS=1.
_STRIDE = 1 if os.environ.get("STACKPATCH_ALL_FAULTS") else 8
_SERIAL = iter(range(10**6))
INDEX = "application/vnd.oci.image.index.v1+json"


def arches(registry: RunningRegistry, name: str, tag: str = "t") -> set[str]:
    """The arches in the tag's index, after everything below it was read and hashed."""
    raw = registry.manifest(name, tag)
    if raw is None:
        return set()
    found = set()
    for entry in json.loads(raw)["manifests"]:
        manifest = registry.manifest(name, entry["digest"])
        assert manifest is not None, "the tag names a manifest that is not there"
        assert f"sha256:{hashlib.sha256(manifest).hexdigest()}" == entry["digest"]
        assert len(manifest) == entry["size"]
        parsed = json.loads(manifest)
        for blob in [parsed["config"], *parsed["layers"]]:
            status, _, body = registry.get(f"/v2/{name}/blobs/{blob['digest']}")
            assert status == 200
            assert f"sha256:{hashlib.sha256(body).hexdigest()}" == blob["digest"]
        found.add(entry["annotations"]["stackpatch.arch"])
    return found


def requests_of(registry: RunningRegistry, finished: Finished) -> int:
    """How many requests publishing takes when nothing is wrong."""
    with faulty(registry.host) as proxy:
        publish(finished, proxy.host, f"f/{next(_SERIAL)}")
        return len(proxy.asked)


FAULTS: dict[str, dict[str, Any]] = {
    "401": {"status": 401, "headers": {"WWW-Authenticate": 'Basic realm="x"'}},
    "403": {"status": 403},
    "404": {"status": 404, "body": b'{"errors":[{"code":"NAME_UNKNOWN","message":"?"}]}'},
    "429": {"status": 429, "headers": {"Retry-After": "1"}},
    "500": {"status": 500},
    "nonsense": {"status": 200, "body": b"<html>hello</html>"},
    "no answer": {"drop": True},
    "cut": {"cut": 20},
}


@pytest.mark.parametrize("before", ["nothing", "another arch"])
@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_registry_that_breaks_for_good_at_any_request_leaves_no_half_of_anything(
    registry: RunningRegistry, small: Finished, other_arch: Finished, fault: str, before: str
) -> None:
    count = requests_of(registry, small)
    assert count > 20
    outcomes: list[bool] = []
    said: list[str] = []
    # Each run takes every eighth request; together they take every request with some fault.
    first = (list(FAULTS).index(fault) * 2 + (before == "nothing")) % _STRIDE
    for number in range(first, count + 1, _STRIDE):
        name = f"f/{next(_SERIAL)}"
        if before == "another arch":
            publish(other_arch, registry.host, name)
        was = registry.manifest(name, "t")
        with faulty(registry.host) as proxy:
            proxy.break_(".*", ".*", after=number, times=None, **FAULTS[fault])
            try:
                publish(small, proxy.host, name)
            except StackpatchError as error:
                said.append(error.message)
                outcomes.append(False)
            else:
                outcomes.append(True)
        now = registry.manifest(name, "t")
        held = arches(registry, name)
        if now != was:
            # The tag moved: then to a whole index, with what was there before in it.
            assert held == ({"sm121", "sm120"} if was else {"sm121"}), number
        if outcomes[-1]:
            assert "sm121" in held
        again = publish(small, registry.host, name)
        assert arches(registry, name) == ({"sm121", "sm120"} if was else {"sm121"})
        assert str(again.image) == small.outputs.image
    assert outcomes.count(False) > len(outcomes) // 2, "the faults were not felt"
    assert all(message and "\n" not in message for message in said)


@pytest.mark.parametrize("fault", ["429", "500", "no answer", "cut"])
def test_one_fault_at_any_request_is_overcome(
    registry: RunningRegistry, small: Finished, fault: str
) -> None:
    count = requests_of(registry, small)
    for number in range(list(FAULTS).index(fault) % min(_STRIDE, 3), count, min(_STRIDE, 3)):
        name = f"f/{next(_SERIAL)}"
        with faulty(registry.host) as proxy:
            proxy.break_(".*", ".*", after=number, **FAULTS[fault])
            made, pauses = publication(small, proxy.host, name)
            done = made.run()
        assert arches(registry, name) == {"sm121"}
        assert len(pauses) <= 2, (number, pauses)  # one to try again, one to watch the tag
        assert done.requests <= count + 8


def test_a_wrong_digest_echoed_for_any_put_leaves_the_tag_alone_or_whole(
    registry: RunningRegistry, small: Finished
) -> None:
    def lie(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        return status, {**headers, "Docker-Content-Digest": f"sha256:{'1' * 64}"}, body

    with faulty(registry.host) as proxy:
        publish(small, proxy.host, f"f/{next(_SERIAL)}")
        puts = proxy.count("PUT", ".*")
    for number in range(puts):
        name = f"f/{next(_SERIAL)}"
        with faulty(registry.host) as proxy:
            proxy.break_("PUT", ".*", after=number, change=lie)
            with pytest.raises(EnvironmentProblem, match="which it is not"):
                publish(small, proxy.host, name)
            last = [one.path for one in proxy.asked if one.method == "PUT"][-1]
        if not last.endswith("/manifests/t"):
            assert "t" not in registry.tags(name)
        else:  # the lie was about the tag itself: what it names is whole
            assert arches(registry, name) == {"sm121"}


def test_a_manifest_that_reads_back_otherwise_never_gets_a_tag(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str, small: Finished
) -> None:
    def other(
        status: int, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        return status, {**headers, "Docker-Content-Digest": ""}, body.replace(b"demo", b"domo")

    proxy.break_("GET", r".*/manifests/sha256:.*", times=None, change=other)
    with pytest.raises(EnvironmentProblem):
        publish(small, proxy.host, name)
    assert registry.tags(name) == []


def test_without_a_referrers_api_the_tag_lists_them_and_with_one_it_does_not(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str, small: Finished
) -> None:
    done = publish(small, proxy.host, name)
    assert {one.listed for one in done.referrers} == {"tag"}
    with_api = f"{name}-api"
    listing: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    body = json.dumps(listing).encode()
    proxy.break_("GET", ".*/referrers/.*", times=None, status=200, body=body)

    def knows(
        status: int, headers: dict[str, str], content: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        return status, {**headers, "OCI-Subject": small.outputs.image}, content

    proxy.break_("PUT", ".*/manifests/sha256:.*", times=None, change=knows)
    done = publish(small, proxy.host, with_api)
    assert {one.listed for one in done.referrers} == {"api"}
    assert registry.tags(with_api) == ["t"]


def test_a_registry_that_lists_nothing_and_says_nothing_gets_the_tag(
    registry: RunningRegistry, proxy: FaultyRegistry, name: str, small: Finished
) -> None:
    """An API that answers, and a PUT without OCI-Subject: the specification wants the tag."""
    listing = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    body = json.dumps(listing).encode()
    proxy.break_("GET", ".*/referrers/.*", times=None, status=200, body=body)
    done = publish(small, proxy.host, name)
    assert {one.listed for one in done.referrers} == {"tag"}
    assert len(registry.tags(name)) == 2


def test_the_list_of_papers_keeps_what_others_put_there(
    registry: RunningRegistry, name: str, small: Finished
) -> None:
    publish(small, registry.host, name)
    tag = small.outputs.image.replace(":", "-")
    raw = registry.manifest(name, tag)
    assert raw is not None
    listing = json.loads(raw)
    theirs = dict(listing["manifests"].pop(), annotations={"whose": "theirs"})
    listing["manifests"] = [theirs]
    listing["x"] = 1
    registry.put_manifest(name, tag, json.dumps(listing).encode(), INDEX)
    publish(small, registry.host, name)
    raw = registry.manifest(name, tag)
    assert raw is not None
    found = json.loads(raw)
    assert found["manifests"][0] == theirs
    assert found["x"] == 1
    assert len(found["manifests"]) == 3


def test_another_publisher_between_our_look_and_our_move_is_joined(
    registry: RunningRegistry,
    proxy: FaultyRegistry,
    name: str,
    small: Finished,
    other_arch: Finished,
) -> None:
    rule = proxy.break_(
        "HEAD", ".*/manifests/t", before=lambda: publish(other_arch, registry.host, name)
    )
    done = publish(small, proxy.host, name)
    assert rule.fitted == 2
    assert arches(registry, name) == {"sm120", "sm121"}
    assert registry.manifest(name, "t") == registry.manifest(name, str(done.digest))


def back_to_now(registry: RunningRegistry, name: str) -> Callable[[], object]:
    """What a publisher does that looked now: it lets the tag name what it names now."""
    content = registry.manifest(name, "t")
    assert content is not None
    return lambda: registry.put_manifest(name, "t", content, INDEX)


@pytest.mark.parametrize("look", [0, 1])
def test_another_publisher_that_undoes_our_move_is_noticed_and_joined(
    registry: RunningRegistry,
    proxy: FaultyRegistry,
    name: str,
    small: Finished,
    other_arch: Finished,
    look: int,
) -> None:
    """It looked before we moved and moved after us: what it wrote lacks our image."""
    publish(other_arch, registry.host, name)
    undo = back_to_now(registry, name)
    # The GETs of the tag: first look, look of the loop, then the two that read it back.
    rule = proxy.break_("GET", ".*/manifests/t", after=2 + look, before=undo)
    publish(small, proxy.host, name)
    assert rule.fitted >= 5
    assert arches(registry, name) == {"sm120", "sm121"}


def test_what_a_stalled_publisher_undoes_is_only_an_entry(
    registry: RunningRegistry, name: str, small: Finished, other_arch: Finished
) -> None:
    """The window that is left: it looked before us and moves when we no longer watch."""
    publish(other_arch, registry.host, name)
    undo = back_to_now(registry, name)
    done = publish(small, registry.host, name)
    undo()
    assert arches(registry, name) == {"sm120"}
    # Whoever pulls by the printed digest does not notice, and publishing again brings it back.
    assert registry.manifest(name, str(done.digest)) is not None
    again = publish(small, registry.host, name)
    assert again.digest == done.digest
    assert arches(registry, name) == {"sm120", "sm121"}
    assert again.layer_bytes == 0


def test_a_publisher_that_is_never_let_in_says_so(
    registry: RunningRegistry,
    proxy: FaultyRegistry,
    name: str,
    small: Finished,
    other_arch: Finished,
) -> None:
    publish(other_arch, registry.host, name)
    undo = back_to_now(registry, name)
    proxy.break_("GET", ".*/manifests/t", after=1, times=None, before=undo)
    with pytest.raises(FindingError, match="others keep moving"):
        publish(small, proxy.host, name)
    assert arches(registry, name) == {"sm120"}


def test_a_racing_build_for_the_same_platform_is_not_run_over(
    registry: RunningRegistry,
    proxy: FaultyRegistry,
    name: str,
    small: Finished,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    changed = finished_build(
        tmp_path_factory.mktemp("changed"), gate=GATE.replace("Closed for no", "Closed without a")
    )
    proxy.break_("HEAD", ".*/manifests/t", before=lambda: publish(changed, registry.host, name))
    with pytest.raises(FindingError, match="has another image for linux/arm64"):
        publish(small, proxy.host, name)
    raw = registry.manifest(name, "t")
    assert raw is not None
    assert [one["digest"] for one in json.loads(raw)["manifests"]] == [changed.outputs.image]


def test_two_publishers_at_once_both_get_in(
    registry: RunningRegistry, small: Finished, other_arch: Finished
) -> None:
    for _ in range(8):
        name = f"f/{next(_SERIAL)}"
        trouble: list[BaseException] = []

        def go(finished: Finished, name: str = name, trouble: list[Any] = trouble) -> None:
            try:
                made, _ = publication(finished, registry.host, name)
                made.registry.session.pause = time.sleep
                made.run()
            except BaseException as error:  # noqa: BLE001 - shown below
                trouble.append(error)

        threads = [threading.Thread(target=go, args=(one,)) for one in (small, other_arch)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert trouble == []
        assert arches(registry, name) == {"sm120", "sm121"}
