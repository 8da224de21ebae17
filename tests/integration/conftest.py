"""What several modules of tests stand on: a package index; a registry, a liar before it, builds."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from tests.faulty_registry import FaultyRegistry, faulty
from tests.projects import index_only
from tests.publishing import finished_build
from tests.registries import RunningRegistry, running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.serving import Server

    from stackpatch.registry.finished import Finished


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A package index in this process; the stand-in for GitHub's API is below it."""
    with index_only(monkeypatch) as server:
        yield server


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    """A real registry, empty at first, for one module of tests."""
    with running_registry(tmp_path_factory.mktemp("registry") / "r") as running:
        yield running


@pytest.fixture
def proxy(registry: RunningRegistry) -> Iterator[FaultyRegistry]:
    """What lies between us and the registry, and breaks what a test wants broken."""
    with faulty(registry.host) as running:
        yield running


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    return f"t/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished build for sm121, on nothing."""
    return finished_build(tmp_path_factory.mktemp("sm121"))


@pytest.fixture(scope="module")
def other_arch(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The same for sm120."""
    return finished_build(tmp_path_factory.mktemp("sm120"), arch="sm120")
