"""Conditions on which to look again: every answer, beside a real GitHub double and a real index."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.folders import RECIPE
from tests.serving import Reply, Server, serving

from stackpatch.model.recipe_file import parse_recipe
from stackpatch.model.recipe_watch import Condition
from stackpatch.sources.pypi import PackageIndex
from stackpatch.sources.releases import all_versions, open_index
from stackpatch.sources.tracker import Tracker
from stackpatch.sources.watch import Due, Seen, Trigger, index_versions, triggers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stackpatch.model.recipe import Recipe

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ISSUE = "https://github.com/o/r/issues/1"
PULL = "https://github.com/o/r/pull/2"
PATHS = {ISSUE: "/repos/o/r/issues/1", PULL: "/repos/o/r/issues/2"}


@pytest.fixture
def github() -> Iterator[Server]:
    with serving() as server:
        yield server


def state(server: Server, url: str, state: str, *, merged: bool = False) -> None:
    body: dict[str, Any] = {"state": state, "title": "x"}
    if "/pull/" in url:
        body["pull_request"] = {"merged_at": "2026-01-01T00:00:00Z" if merged else None}
    server.replies[PATHS[url]] = Reply(json.dumps(body).encode(), kind="application/json")


def recipe(when: str, *, why: str = "look at it") -> Recipe:
    more = f"revisit:\n  - why: {why}\n    when: {when}\n"
    return parse_recipe("r.yaml", (RECIPE + more).encode())


def one(
    when: str,
    tmp_path: Path,
    server: Server | None = None,
    versions: Sequence[str] | str = (),
    *,
    offline: bool = False,
    now: datetime = NOW,
) -> Trigger:
    api = server.url if server else "http://127.0.0.1:9"
    tracker = Tracker(tmp_path / "links.json", api=api, now=lambda: now, offline=offline)
    (found,) = triggers(recipe(when), tracker, lambda _: versions, now=lambda: now)
    tracker.save()
    return found


@pytest.mark.parametrize(
    ("what", "url", "is_", "merged", "due"),
    [
        ("closed", ISSUE, "open", False, Due.NOT_YET),
        ("closed", ISSUE, "closed", False, Due.DUE),
        ("closed", PULL, "open", False, Due.NOT_YET),
        ("closed", PULL, "closed", False, Due.DUE),
        ("closed", PULL, "closed", True, Due.DUE),
        ("merged", PULL, "open", False, Due.NOT_YET),
        ("merged", PULL, "closed", False, Due.NOT_YET),
        ("merged", PULL, "closed", True, Due.DUE),
    ],
)
def test_issues_and_pull_requests(
    tmp_path: Path, github: Server, what: str, url: str, is_: str, merged: bool, due: Due
) -> None:
    state(github, url, is_, merged=merged)
    found = one(f"{{{what}: '{url}'}}", tmp_path, github)
    assert found.due is due
    (seen,) = found.evidence
    assert (seen.what, seen.subject, seen.checked) == (what, url, NOW)
    assert seen.says == f"{'merged' if merged else is_} (seen now)"


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(b"{}", status=403), "refuses more requests"),
        (Reply(b"{}", status=429), "refuses more requests"),
        (Reply(b"oops", status=500), "answered 500"),
        (Reply(b"<html>"), "did not answer with JSON"),
        (Reply(b"[]"), "none of GitHub's"),
        (Reply(b"", status=404), "did not answer with JSON"),
        (
            Reply(b'{"message": "Not Found"}', status=404),
            "GitHub has no such thing, or does not show it",
        ),
        (None, "cannot be reached"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_unknown(
    tmp_path: Path, github: Server, reply: Reply | None, says: str
) -> None:
    if reply is not None:
        github.replies[PATHS[ISSUE]] = reply
    found = one(f"{{closed: '{ISSUE}'}}", tmp_path, github if reply else None)
    assert (found.due, found.evidence[0].holds) == (Due.UNKNOWN, None)
    assert says in found.evidence[0].says


def test_what_was_seen_earlier(tmp_path: Path, github: Server) -> None:
    """A closed issue stays closed as far as anybody can tell; an open one may be closed by now."""
    state(github, ISSUE, "open")
    state(github, PULL, "closed", merged=True)
    when = f"{{all: [{{closed: '{ISSUE}'}}, {{merged: '{PULL}'}}]}}"
    assert one(when, tmp_path, github).due is Due.NOT_YET
    later = one(when, tmp_path, offline=True, now=NOW + timedelta(days=3))
    assert later.due is Due.UNKNOWN
    assert [seen.holds for seen in later.evidence] == [None, True]
    assert "open (seen 3 days ago; not asked (offline))" in later.evidence[0].says
    assert later.evidence[1].checked == NOW


@pytest.mark.parametrize(
    ("when", "versions", "due", "says"),
    [
        ('{released: ">=1.3.0"}', ["1.2", "1.3.0", "1.4"], Due.DUE, "1.3.0 is the first that fits"),
        ('{released: ">=1.3.0"}', ["1.2"], Due.NOT_YET, "the newest is 1.2"),
        (
            '{released: ">=1.3.0"}',
            ["1.2", "1.3.0rc24"],
            Due.NOT_YET,
            "the newest is 1.2 (1.3.0rc24 is a pre-release)",
        ),
        ('{released: ">=1.3.0rc1"}', ["1.2", "1.3.0rc24"], Due.NOT_YET, "the newest is 1.2"),
        (
            '{released: ">=1.3.0rc1", prereleases: true}',
            ["1.2", "1.3.0rc24"],
            Due.DUE,
            "1.3.0rc24 is the first that fits",
        ),
        ('{released: ">=1.3.0", prereleases: false}', ["1.10.0"], Due.DUE, "1.10.0 is the first"),
        ('{released: ">=1.3"}', [], Due.NOT_YET, "there is none that counts"),
        (
            '{released: ">=1.3"}',
            ["2.0.dev1"],
            Due.NOT_YET,
            "there is none that counts (2.0.dev1 is a pre-release)",
        ),
        ('{released: ">=1.3"}', "not asked (offline)", Due.UNKNOWN, "not asked (offline)"),
    ],
)
def test_releases(
    tmp_path: Path, when: str, versions: Sequence[str] | str, due: Due, says: str
) -> None:
    found = one(when, tmp_path, versions=versions)
    assert found.due is due
    assert found.evidence[0].says.startswith(says)
    assert found.evidence[0].subject.startswith("demo >=1.3")


def test_another_distribution_and_the_place_of_an_issue(tmp_path: Path) -> None:
    more = f"""
issues:
  - {{url: "{ISSUE}", why: no condition}}
  - url: {PULL}
    why: needs the other one
    revisit: {{released: ">=0.6.13", distribution: flashinfer-python}}
revisit:
  - {{why: ours, when: {{released: ">=2"}}}}
"""
    asked: list[str] = []

    def versions(distribution: str) -> list[str]:
        asked.append(distribution)
        return {"flashinfer-python": ["0.6.13"], "demo": ["1.0"]}[distribution]

    tracker = Tracker(tmp_path / "links.json", offline=True)
    found = triggers(parse_recipe("r", (RECIPE + more).encode()), tracker, versions)
    assert [(t.why, t.subject, t.due) for t in found] == [
        ("needs the other one", PULL, Due.DUE),
        ("ours", None, Due.NOT_YET),
    ]
    assert asked == ["flashinfer-python", "demo"]


# --- three values -----------------------------------------------------------------------------

LEAVES: dict[bool | None, str] = {True: ">=1", False: ">=2", None: ">=3"}


def leaf(holds: bool | None) -> dict[str, Any]:
    """A condition that the index below makes true, false or unknown."""
    return {"released": ">=2" if holds is False else ">=1", "distribution": f"d-{holds}".lower()}


def versions_by_name(distribution: str) -> Sequence[str] | str:
    return "nobody answers" if distribution == "d-none" else ["1.0"]


def evaluated(when: dict[str, Any], tmp_path: Path) -> Trigger:
    tracker = Tracker(tmp_path / "none.json", offline=True)
    (found,) = triggers(recipe(json.dumps(when)), tracker, versions_by_name)
    return found


@pytest.mark.parametrize(("one_", "other"), list(product([True, False, None], repeat=2)), ids=str)
def test_all_and_any_with_what_is_unknown(
    tmp_path: Path, one_: bool | None, other: bool | None
) -> None:
    both = {one_, other}
    every = False if False in both else None if None in both else True
    some = True if True in both else None if None in both else False
    for word, expected in (("all", every), ("any", some)):
        found = evaluated({word: [leaf(one_), leaf(other)]}, tmp_path)
        assert found.due == {True: "due", False: "not yet", None: "unknown"}[expected]
        assert len(found.evidence) == len(both), "every part is shown, and once"


TREES = st.recursive(
    st.sampled_from([True, False, None]).map(leaf),
    lambda inner: st.tuples(st.sampled_from(["all", "any"]), st.lists(inner, min_size=1)).map(
        lambda pair: {pair[0]: pair[1]}
    ),
    max_leaves=8,
)


def possible(tree: dict[str, Any], unknown_is: Iterator[bool]) -> bool:
    if "released" in tree:
        name = tree["distribution"]
        return next(unknown_is) if name == "d-none" else name == "d-true"
    results = [possible(part, unknown_is) for part in next(iter(tree.values()))]
    return all(results) if "all" in tree else any(results)


@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(tree=TREES)
def test_an_answer_holds_whatever_the_unknown_turns_out_to_be(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    """Never wrong with certainty: `due` and `not yet` are so for every value of the unknowns."""
    count = json.dumps(tree).count("d-none")
    worlds = {
        possible(tree, iter(values)) for values in product([True, False], repeat=min(count, 8))
    }
    due = evaluated(tree, tmp_path).due
    if len(worlds) == 1:
        assert due is (Due.DUE if worlds == {True} else Due.NOT_YET)
    else:
        assert due is Due.UNKNOWN


# --- the index --------------------------------------------------------------------------------


def test_versions_come_from_the_persons_index(
    github: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", github.index)
    for file in ("demo-1.0.tar.gz", "demo-1.2rc1-py3-none-win_amd64.whl", "other-9.tar.gz"):
        github.put("demo", file, b"x")
    github.put("demo", "demo-2.0.tar.gz", b"x", yanked="broken")
    index = open_index()
    assert isinstance(index, PackageIndex)
    assert all_versions("demo", index) == ["1.0", "1.2rc1"], "withdrawn ones do not count"
    ask = index_versions(offline=False)
    assert ask("demo") == ask("demo") == ["1.0", "1.2rc1"]
    assert len([path for path in github.paths() if path == "/simple/demo/"]) == 2
    missing = ask("nothing-here")
    assert isinstance(missing, str)
    assert "nothing-here" in missing
    assert index_versions(offline=True)("demo") == "not asked (offline)"


def test_evidence_as_json() -> None:
    seen = Seen("closed", ISSUE, holds=None, says="never seen", checked=NOW)
    assert json.loads(json.dumps(seen.to_json())) == {
        "what": "closed",
        "subject": ISSUE,
        "holds": None,
        "says": "never seen",
        "checked": "2026-03-01T12:00:00+00:00",
    }
    assert Condition.model_validate({"closed": ISSUE}).closed == ISSUE
