"""The figures of docs/publish.md: what each fault costs in requests and bytes, measured again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.faulty_registry import FaultyRegistry, faulty
from tests.publishing import base_layout, finished_build, publication

from stackpatch.errors import StackpatchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.registries import RunningRegistry

    from stackpatch.registry.finished import Finished

DOCUMENT = Path(__file__).parents[2] / "docs" / "publish.md"
CHUNK = 100_000
_UPLOADS = r"/v2/[^?]*/blobs/uploads/[^?]+(\?.*)?"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """On a base of one megabyte, which lies in the layout and has to be sent."""
    folder = tmp_path_factory.mktemp("build")
    base = base_layout(folder / "base", size=1_000_000)
    return finished_build(folder, base=str(base))


def lie(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
    return status, {**headers, "Docker-Content-Digest": f"sha256:{'1' * 64}"}, body


def nothing(proxy: FaultyRegistry) -> None:
    del proxy


def rule(method: str, path: str, **how: Any) -> Callable[[FaultyRegistry], None]:
    def apply(proxy: FaultyRegistry) -> None:
        proxy.break_(method, path, **how)

    return apply


def lost(proxy: FaultyRegistry) -> None:
    proxy.stable_uploads = True
    proxy.break_("PATCH", _UPLOADS, after=4, drop=True)


# What stands in the first column of the table, and how it is done.
CASES: dict[str, Callable[[FaultyRegistry], None]] = {
    "nothing": nothing,
    "429 with `Retry-After: 2` to a chunk": rule(
        "PATCH", _UPLOADS, after=4, status=429, headers={"Retry-After": "2"}
    ),
    "500 to a chunk": rule("PATCH", _UPLOADS, after=4, status=500),
    "500 three times to the manifest": rule("PUT", ".*/manifests/sha256:.*", times=3, status=500),
    "the answer to a chunk lost, sessions kept by the registry": lost,
    "the answer to a chunk lost, docker-registry 2.8": rule("PATCH", _UPLOADS, after=4, drop=True),
    "connection cut in mid-chunk, docker-registry 2.8": rule(
        "PATCH", _UPLOADS, after=4, cut=50_000
    ),
    "404 to a chunk": rule("PATCH", _UPLOADS, after=4, status=404),
    "500 for good": rule("PATCH", _UPLOADS, after=4, times=None, status=500),
    "401 to a chunk, no login at hand": rule(
        "PATCH", _UPLOADS, after=4, status=401, headers={"WWW-Authenticate": "Basic realm=x"}
    ),
    "wrong digest echoed for the manifest": rule("PUT", ".*/manifests/sha256:.*", change=lie),
    "wrong digest echoed for the tag": rule("PUT", ".*/manifests/t", change=lie),
}


def measured(registry: RunningRegistry, build: Finished, case: str, name: str) -> str:
    """The row of the table."""
    with faulty(registry.host) as proxy:
        CASES[case](proxy)
        made, pauses = publication(build, proxy.host, name)
        made.chunk = CHUNK
        outcome = "published"
        try:
            made.run()
        except StackpatchError:
            outcome = "refused"
        requests = len(proxy.asked) - 1  # without the one that asks whether TLS is spoken
        # Chunks alone: what else is sent grows with every label and every paper.
        sent = sum(one.sent for one in proxy.asked if one.method == "PATCH")
    watched = outcome == "published"  # the last pause only watches the tag
    waits = len(pauses) - watched
    tag = "moved" if "t" in registry.tags(name) else "untouched"
    return f"| {case} | {outcome} | {tag} | {waits} | {requests} | {sent:,} |"


@pytest.mark.parametrize("case", CASES)
def test_the_row_is_in_the_document(registry: RunningRegistry, build: Finished, case: str) -> None:
    row = measured(registry, build, case, f"figures/{list(CASES).index(case)}")
    table = DOCUMENT.read_text("utf-8")
    found = [line for line in table.splitlines() if line.startswith(f"| {case} |")]
    assert found == [row]


def test_the_table_has_no_other_rows() -> None:
    rows = re.findall(
        r"^\| (.+?) \| (?:published|refused) \|", DOCUMENT.read_text("utf-8"), re.MULTILINE
    )
    assert rows == list(CASES)
