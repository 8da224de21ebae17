"""`stackpatch upstream`: verdict, evidence, first version, and the links of the trailers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.projects import RELAXED, REWORKED, STRICT, Project, gate, index_only, open_gate
from tests.serving import Reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.serving import Server

PULL = "https://github.com/demo/demo/pull/77"
SUBMITTED = rf"""Upstream-Status: Submitted [{PULL}]
Bug: https://github.com/demo/demo/issues/7
Effect: a.py :: build :: major in \(10, 12\)"""


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with index_only(monkeypatch) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, index: Server) -> Project:
    ours = ("Open a", {"a.py": gate(RELAXED)}, SUBMITTED)
    return Project(tmp_path, index, {"a.py": gate(STRICT), "b.py": gate(STRICT)}, ours)


def judged(project: Project, *words: str) -> dict[str, Any]:
    ran = project.run("upstream", "demo", *words, "--json")
    assert ran.status == 0, ran.err
    return ran.document


def said(row: dict[str, Any], layer: str) -> list[str]:
    return [piece["says"] for piece in row["evidence"] if piece["layer"] == layer]


def test_the_document_has_the_shape_of_the_contract(project: Project) -> None:
    project.up.release("2.0", {"b.py": gate(REWORKED)})
    document = judged(project, "--at", "git:v2.0")
    assert document["schema"] == "stackpatch.upstream/1"
    assert (document["stack"], document["at"]) == ("demo", "git:v2.0")
    (row,) = document["patches"]
    assert {"name", "verdict", "detail", "since", "evidence", "links"} <= row.keys()
    assert (row["verdict"], row["detail"], row["since"]) == ("needed", "clean", None)
    assert row["links"][0]["url"] == PULL
    assert all({"url", "state", "checked"} <= link.keys() for link in row["links"])


def test_a_squashed_pull_request_is_found_by_its_number(project: Project) -> None:
    project.up.commit({"a.py": gate(RELAXED), "note": "and more\n"}, "Open all gates (#77)")
    project.up.commit({"b.py": gate(REWORKED)}, "Mention #77 and (#770)")
    project.up.release("2.0", {"note": "2\n"})
    (row,) = judged(project, "--at", "git:v2.0", "--history")["patches"]
    assert (row["verdict"], row["detail"]) == ("upstreamed", "identical")
    (named,) = said(row, "commit")
    assert "merged #77, which the patch names" in named
    assert any("first that touches the line" in says for says in said(row, "search"))


def test_an_equal_patch_id_is_found(project: Project) -> None:
    project.up.commit({"b.py": gate(REWORKED)}, "other")
    commit = project.up.commit({"a.py": gate(RELAXED)}, "the same change, other words")
    project.up.release("2.0", {"note": "2\n"})
    (row,) = judged(project, "--at", "git:v2.0", "--history")["patches"]
    assert said(row, "patch-id") == [f"commit {commit[:12]} has the same patch-id"]
    assert row["verdict"] == "upstreamed"


def test_people_see_what_landed_hunk_by_hunk_and_what_a_commit_says(
    tmp_path: Path, index: Server
) -> None:
    files = {"a.py": gate(STRICT), "b.py": gate(STRICT)}
    both = {"a.py": gate(RELAXED), "b.py": gate(RELAXED)}
    effects = "".join(f"Effect: {name}.py :: build :: \\(10, 12\n" for name in "ab")
    project = Project(tmp_path, index, files, ("Open both", both, f"{SUBMITTED}\n{effects}"))
    commit = project.up.commit({"a.py": gate(RELAXED)}, "Open the first gate (#77)")
    project.up.release("2.0", {"note": "2\n"})
    out = project.run("upstream", "demo", "--at", "git:v2.0", "--history").out
    assert "  partial: not upstream: b.py (build)\n" in out
    named = (
        f"    commit    commit {commit[:12]} merged #77, which the patch names: Open the first gate"
    )
    assert named in out
    hunks = [line.split() for line in out.splitlines() if line.startswith("    hunk ")]
    assert [(words[1], words[-3:]) for words in hunks] == [
        ("landed:", ["[a.py", "in", "build]"]),
        ("applies:", ["[b.py", "in", "build]"]),
    ]


def test_a_named_commit_is_an_ancestor(tmp_path: Path, index: Server) -> None:
    project = Project(tmp_path, index, {"a.py": gate(STRICT)}, open_gate("a"))
    commit = project.up.commit({"a.py": gate(RELAXED)}, "landed")
    link = f"https://github.com/demo/demo/commit/{commit}"
    path = project.patches / "v1.0" / "0001-Open-a.patch"
    path.write_text(
        path.read_text().replace("Upstream-Status: Pending", f"Upstream-Status: Backport [{link}]")
    )
    project.up.release("2.0", {"a.py": gate(RELAXED + "  # evolved")})
    (row,) = judged(project, "--at", "git:v2.0", "--history")["patches"]
    assert any(f"commit {commit[:12]}, which the patch names" in s for s in said(row, "commit"))
    assert (row["verdict"], row["detail"]) == ("upstreamed", "equivalent")


def test_a_commit_that_was_reverted_is_not_taken_for_landed(project: Project) -> None:
    project.up.commit({"a.py": gate(RELAXED)}, "Open the gate (#77)")
    project.up.commit({"a.py": gate(STRICT)}, 'Revert "Open the gate (#77)" (#78)')
    project.up.release("2.0", {"note": "2\n"})
    (row,) = judged(project, "--at", "git:v2.0", "--history")["patches"]
    assert row["verdict"] in ("needed", "unsure")
    assert row["since"] is None


@pytest.mark.parametrize("unrelated", [False, True], ids=["shallow", "unrelated"])
def test_without_a_common_history_that_is_said(project: Project, unrelated: bool) -> None:
    if unrelated:
        project.up.git("checkout", "-q", "--orphan", "fresh")
    project.up.release("2.0", {"a.py": gate(RELAXED), "note": "2\n"})
    words = ("--history",) if unrelated else ()
    (row,) = judged(project, "--at", "git:v2.0", *words)["patches"]
    assert any("no history connects the two versions" in says for says in said(row, "search"))
    assert said(row, "commit") == said(row, "patch-id") == []
    assert row["verdict"] == "upstreamed", "the effect is there all the same"


def test_a_namesake_of_old_drops_no_patch(tmp_path: Path, index: Server) -> None:
    """b.py has an open `build` of its own; ours went to another file under another name."""
    files = {"a.py": gate(STRICT), "b.py": gate(RELAXED)}
    project = Project(tmp_path, index, files, open_gate("a"))
    moved = gate(STRICT).replace("def build", "def make")
    project.up.release("2.0", {"a.py": None, "c.py": moved})
    (row,) = judged(project, "--at", "git:v2.0")["patches"]
    assert (row["verdict"], row["since"]) == ("unsure", None)
    matrix = project.run("matrix", "demo", "--refs", "git:v2.0", "--json").document
    assert matrix["patches"][0]["cells"][0]["verdict"] == "unsure"
    ran = project.run("rebase", "demo", "--onto", "git:v2.0", "--dry-run", "--json")
    assert (ran.status, ran.document["patches"][0]["outcome"]) == (1, "conflict")


def test_since_is_the_first_version_that_has_it_to_stay(project: Project) -> None:
    project.write_recipe(project.offer(project.up.versions[0]))
    for version, line in (("1.1", RELAXED), ("1.2", STRICT), ("1.3", RELAXED), ("1.4", RELAXED)):
        project.offer(project.up.release(version, {"a.py": gate(line)}))
    assert project.run("matrix", "demo", "--refs", "all").status == 0
    document = judged(project)
    assert document["at"] == "sdist:1.4", "the newest, when nobody names one"
    assert document["patches"][0]["since"] == "1.3"


def test_since_says_after_which_version_it_can_have_been(project: Project) -> None:
    """1.1 has it too, and is not in the store."""
    project.write_recipe(project.offer(project.up.versions[0]))
    for version in ("1.1", "1.2"):
        project.offer(project.up.release(version, {"a.py": gate(RELAXED)}))
    assert project.run("fetch", "demo", "1.0", "1.2").status == 0
    (row,) = judged(project, "--at", "1.2")["patches"]
    assert (row["since"], row["since_after"]) == ("1.2", "1.0")
    out = project.run("upstream", "demo", "--at", "1.2").out
    assert "identical, first in 1.2 of the versions in the store, not in 1.0\n" in out
    (row,) = judged(project, "--at", "1.0")["patches"]
    assert (row["verdict"], row["since"], row["since_after"]) == ("needed", None, None)


def test_since_is_after_no_version_that_is_unsure(tmp_path: Path, index: Server) -> None:
    files = {"a.py": gate(STRICT), "b.py": gate(RELAXED)}
    project = Project(tmp_path, index, files, open_gate("a"))
    moved = gate(STRICT).replace("def build", "def make")
    project.up.release("1.1", {"a.py": None, "c.py": moved})
    project.up.release("1.2", {"a.py": gate(RELAXED), "c.py": None})
    assert judged(project, "--at", "git:v1.1")["patches"][0]["verdict"] == "unsure"
    (row,) = judged(project, "--at", "git:v1.2")["patches"]
    assert (row["since"], row["since_after"]) == ("v1.2", None)


def test_several_versions_are_several_rows(project: Project) -> None:
    project.up.release("1.1", {"note": "1\n"})
    project.up.release("2.0", {"a.py": gate(RELAXED)})
    document = judged(project, "--at", "git:v1.1", "--at", "git:v2.0")
    assert document["at"] == ["git:v1.1", "git:v2.0"]
    found = [(row["at"], row["verdict"]) for row in document["patches"]]
    assert found == [("git:v1.1", "needed"), ("git:v2.0", "upstreamed")]


def test_a_version_that_cannot_be_had_hides_no_other(project: Project) -> None:
    project.up.release("1.1", {"note": "1\n"})
    judged(project, "--at", "git:v1.1")
    text = project.recipe.read_text()
    project.recipe.write_text(text.replace(str(project.up.folder), "https://127.0.0.1:9/demo.git"))
    ran = project.run("upstream", "demo", "--at", "git:v2.0", "--at", "git:v1.1", "--json")
    assert ran.status == 3
    assert [(row["at"], row["verdict"]) for row in ran.document["patches"]] == [
        ("git:v1.1", "needed")
    ]
    assert "127.0.0.1:9" in ran.document["error"]["message"]
    assert "git:v2.0: not judged" in ran.err


def test_without_an_index_the_newest_in_the_store_is_judged_and_that_is_said(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_RETRIES", "0")
    project.write_recipe(project.offer(project.up.versions[0]))
    project.offer(project.up.release("1.1", {"a.py": gate(RELAXED)}))
    assert judged(project)["at"] == "sdist:1.1"
    project.index.close()
    ran = project.run("upstream", "demo", "--json")
    assert ran.status == 3, "the newest version is not known"
    assert ran.document["at"] == "sdist:1.1"
    assert [row["verdict"] for row in ran.document["patches"]] == ["upstreamed"]
    assert "cannot read the index page" in ran.document["error"]["message"]
    assert "judged at the newest version in the store, sdist:1.1" in ran.err
    assert project.run("upstream", "demo", "--offline").status == 0


def test_without_an_index_and_a_store_there_is_one_error(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_RETRIES", "0")
    project.index.close()
    ran = project.run("upstream", "demo", "--json")
    assert (ran.status, list(ran.document)) == (3, ["schema", "error"])


def test_a_version_that_a_patch_is_not_meant_for_is_said(tmp_path: Path, index: Server) -> None:
    files = {"a.py": gate(STRICT), "b.py": gate(STRICT)}
    both = (open_gate("a", "Applies-To: <1.5"), open_gate("b"))
    project = Project(tmp_path, index, files, *both)
    project.write_recipe(project.offer(project.up.versions[0]))
    project.offer(project.up.release("2.0", {"note": "2\n"}))
    refs = [word for ref in ("1.0", "2.0", "git:main") for word in ("--at", ref)]
    rows = judged(project, *refs)["patches"]
    assert [row["verdict"] for row in rows] == ["needed"] * 6
    assert [row["meant"] for row in rows] == [True, None, False, None, None, None]
    out = project.run("upstream", "demo", *refs).out
    assert out.count("\n  not meant for this version: Applies-To: <1.5\n") == 1


def test_links_are_asked_once_kept_and_shown_with_their_age(project: Project) -> None:
    project.up.release("2.0", {"note": "2\n"})
    pull = {"state": "closed", "title": "Open", "pull_request": {"merged_at": "2026-01-02"}}
    path = "/github/repos/demo/demo/issues/77"
    project.index.replies[path] = Reply(json.dumps(pull).encode(), headers={"ETag": '"1"'})
    gone = Reply(b'{"message": "Not Found", "status": "404"}', 404)
    project.index.replies["/github/repos/demo/demo/issues/7"] = gone
    document = judged(project, "--at", "git:v2.0", "--at", "git:v1.0")
    first, second = document["patches"][0]["links"]
    assert (first["state"], first["title"]) == ("merged", "Open")
    assert first["checked"].endswith("+00:00")
    assert second["state"] == "missing", "the server's 404"
    assert project.index.paths().count(path) == 1
    offline = judged(project, "--at", "git:v2.0", "--offline")
    kept = offline["patches"][0]["links"][0]
    assert (kept["state"], kept["checked"]) == ("merged", first["checked"])
    assert kept["why"] == "not asked (offline)"
    shown = project.run("upstream", "demo", "--at", "git:v2.0", "--offline").out
    assert f"{PULL}: merged (seen now; not asked (offline))" in shown


def test_a_link_never_decides_a_verdict(project: Project) -> None:
    project.up.release("2.0", {"note": "2\n"})
    pull = {"state": "closed", "title": "Open", "pull_request": {"merged_at": "2026-01-02"}}
    project.index.replies["/github/repos/demo/demo/issues/77"] = Reply(json.dumps(pull).encode())
    (row,) = judged(project, "--at", "git:v2.0")["patches"]
    assert (row["links"][0]["state"], row["verdict"]) == ("merged", "needed")


@pytest.mark.parametrize(
    ("words", "status", "said_"),
    [
        (("--at", "git:v9"), 2, "no branch or tag 'v9'"),
        (("--at", "x y"), 2, "not a version number"),
        (("--offline", "--history"), 2, "--history needs the network"),
        (("--at", "5.0", "--offline"), 3, "--offline forbids"),
    ],
)
def test_bad_input(project: Project, words: tuple[str, ...], status: int, said_: str) -> None:
    ran = project.run("upstream", "demo", *words)
    assert (ran.status, ran.out) == (status, "")
    assert said_ in ran.err


WATCHES = """
issues:
  - url: https://github.com/demo/demo/issues/7
    why: the gate
    revisit: {closed: "https://github.com/demo/demo/issues/7"}
revisit:
  - why: drop the patch
    when:
      all:
        - merged: https://github.com/demo/demo/pull/77
        - released: ">=2.0"
"""


def test_what_to_look_at_again_is_told(project: Project) -> None:
    release = project.up.release("2.0", {"b.py": gate(REWORKED)})
    project.recipe.write_text(project.recipe.read_text() + WATCHES)
    pull = {"state": "closed", "title": "x", "pull_request": {"merged_at": "2026-01-01"}}
    replies = project.index.replies
    replies["/github/repos/demo/demo/issues/77"] = Reply(json.dumps(pull).encode())
    replies["/github/repos/demo/demo/issues/7"] = Reply(b'{"state": "open", "title": "x"}')
    project.offer(project.up.versions[0])
    document = judged(project, "--at", "git:v2.0")
    first, second = document["revisit"]
    assert (first["revisit"], first["issue"]) == (
        "not yet",
        "https://github.com/demo/demo/issues/7",
    )
    assert (second["revisit"], second["why"], second["issue"]) == (
        "not yet",
        "drop the patch",
        None,
    )
    assert [piece["holds"] for piece in second["evidence"]] == [True, False]
    project.offer(release)
    ran = project.run("upstream", "demo", "--at", "git:v2.0")
    assert "revisit: due: drop the patch" in ran.out
    assert "yes       released demo >=2.0: 2.0 is the first that fits" in ran.out
    assert "revisit: not yet: the gate [https://github.com/demo/demo/issues/7]" in ran.out
    offline = judged(project, "--at", "git:v2.0", "--offline")
    assert [one["revisit"] for one in offline["revisit"]] == ["unknown", "unknown"]


def test_what_to_look_at_again_is_told_where_no_source_can_be_had(project: Project) -> None:
    # As for TensorRT-LLM, which is in git alone, where git does not answer.
    text = project.recipe.read_text() + WATCHES
    project.recipe.write_text(text.replace(str(project.up.folder), "https://127.0.0.1:9/demo.git"))
    replies = project.index.replies
    replies["/github/repos/demo/demo/issues/7"] = Reply(b'{"state": "closed", "title": "x"}')
    ran = project.run("upstream", "demo", "--at", "git:v2.0", "--json")
    assert ran.status == 3, ran.err
    document = ran.document
    assert (document["at"], document["patches"]) == (None, [])
    assert "127.0.0.1:9" in document["error"]["message"]
    assert [one["revisit"] for one in document["revisit"]] == ["due", "unknown"]
    told = project.run("upstream", "demo", "--at", "git:v2.0")
    assert told.status == 3
    assert "demo 1.0: not judged" in told.out
    assert "revisit: due: the gate [https://github.com/demo/demo/issues/7]" in told.out
    assert "error: " in told.err


def test_a_recipe_that_waits_for_nothing_says_nothing(project: Project) -> None:
    project.up.release("2.0", {"b.py": gate(REWORKED)})
    assert judged(project, "--at", "git:v2.0")["revisit"] == []
