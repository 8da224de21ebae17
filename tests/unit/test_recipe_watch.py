"""What a recipe follows: issues, conditions to look again, a fork; the reader and the schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from tests.folders import RECIPE

from stackpatch.model.recipe_file import check_recipe
from stackpatch.model.schema import recipe_schema, reference_page

if TYPE_CHECKING:
    from stackpatch.model.recipe import Recipe

VALIDATOR = jsonschema.Draft202012Validator(recipe_schema())
PULL = "https://github.com/NVIDIA/TensorRT-LLM/pull/7484"
ISSUE = "https://github.com/NVIDIA/TensorRT-LLM/issues/10462"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
GOOD = f"""
issues:
  - url: {ISSUE}
    why: NVFP4 on SM120
    revisit: {{closed: "{ISSUE}"}}
revisit:
  - why: drop the guard
    when:
      all:
        - closed: {ISSUE}
        - merged: {PULL}
        - any:
            - released: ">=1.3.0"
            - {{released: ">=0.6.13rc1", prereleases: true, distribution: flashinfer-python}}
fork:
  url: https://github.com/somebody/TensorRT-LLM.git
  branch: nvfp4-kv/sm120
  commit: {COMMIT}
  base: {COMMIT}
  release: "1.0"
"""


def taken(more: str) -> Recipe:
    recipe, faults = check_recipe((RECIPE + more).encode())
    assert [fault.text for fault in faults] == []
    assert recipe is not None
    assert [e.message for e in VALIDATOR.iter_errors(yaml.safe_load(RECIPE + more))] == []
    return recipe


def refused(more: str) -> list[str]:
    """Every fault, `field: text`."""
    recipe, faults = check_recipe((RECIPE + more).encode())
    assert recipe is None
    first = RECIPE.count("\n") + 1
    assert all(fault.line >= first for fault in faults)
    return [f"{'.'.join(map(str, fault.path))}: {fault.text}" for fault in faults]


def test_a_recipe_that_follows_everything() -> None:
    recipe = taken(GOOD)
    assert recipe.issues[0].revisit is not None
    assert recipe.issues[0].revisit.closed == ISSUE
    (revisit,) = recipe.revisit
    assert revisit.when.all is not None
    closed, merged, either = revisit.when.all
    assert (closed.closed, merged.merged) == (ISSUE, PULL)
    assert either.any is not None
    assert [one.released for one in either.any] == [">=1.3.0", ">=0.6.13rc1"]
    assert [one.prereleases for one in either.any] == [None, True]
    assert either.any[1].distribution == "flashinfer-python"
    fork = recipe.fork
    assert fork is not None
    assert (fork.branch, fork.commit, fork.base, fork.release) == (
        "nvfp4-kv/sm120",
        COMMIT,
        COMMIT,
        "1.0",
    )


def test_a_recipe_need_not_follow_anything() -> None:
    recipe = taken("")
    assert (recipe.issues, recipe.revisit, recipe.fork) == ((), (), None)


@pytest.mark.parametrize(
    ("when", "fault"),
    [
        ("{}", "want exactly one of all, any, closed, merged, released; found none"),
        (f"{{closed: '{ISSUE}', merged: '{PULL}'}}", "found closed and merged"),
        ("{released: '>=1', any: [{released: '>=2'}]}", "found any and released"),
        ("{closed: '#7484'}", "is not https://github.com/OWNER/REPOSITORY/issues/N or …/pull/N"),
        ("{closed: 'https://gitlab.com/a/b/issues/1'}", "is not https://github.com/OWNER"),
        ("{closed: 'https://github.com/a/b/commit/abc'}", "is not https://github.com/OWNER"),
        ("{closed: 'https://github.com/a/b/issues/12x'}", "is not https://github.com/OWNER"),
        (f"{{merged: '{ISSUE}'}}", "issues are `closed`"),
        ("{released: newest}", "is not a PEP 440 range such as >=12.9"),
        ("{released: ''}", "an empty range admits every version"),
        ("{released: 1.3}", "1.3 is YAML for a number; quote it"),
        ("{released: '>=1', prereleases: 1}", "should be a valid boolean"),
        ("{released: '>=1', distribution: Flash_Infer}", "on the index (PEP 503)"),
        (f"{{closed: '{ISSUE}', prereleases: true}}", "prereleases goes with `released` only"),
        (f"{{closed: '{ISSUE}', distribution: x}}", "distribution goes with `released` only"),
        ("{all: []}", "empty; at least one is needed"),
        ("{all: {closed: x}}", "want a list, found a mapping"),
        ("{all: [closed]}", "want a mapping, found the text 'closed'"),
        (f"{{close: '{ISSUE}'}}", "unknown key; did you mean closed?"),
        (f"{{all: [{{any: [{{close: '{ISSUE}'}}]}}]}}", "unknown key; did you mean closed?"),
        ("'closed(#7484) and released(>=1.3.0)'", "found the text"),
    ],
    ids=str,
)
def test_a_condition_that_says_something_else_is_refused(when: str, fault: str) -> None:
    more = f"revisit: [{{why: x, when: {when}}}]\n"
    said = refused(more)
    assert any(fault in text for text in said), said
    known_to_the_schema = not any(
        text in fault for text in ("goes with", "on the index", "PEP 440", "admits every")
    )
    wrong = list(VALIDATOR.iter_errors(yaml.safe_load(RECIPE + more)))
    assert bool(wrong) or not known_to_the_schema


@pytest.mark.parametrize(
    ("fork", "fault"),
    [
        ("{branch: main}", "fork.url: missing"),
        ("{url: https://example.org/x.git}", "names neither a branch nor a commit"),
        ("{url: 'ext::sh -c id', branch: main}", "is not a git URL"),
        ("{url: /srv/x.git, branch: --upload-pack=x}", "is not a branch's name"),
        ("{url: /srv/x.git, branch: a..b}", "is not a branch's name"),
        ("{url: /srv/x.git, branch: a.lock}", "is not a branch's name"),
        ("{url: /srv/x.git, commit: d0886ce}", "is not a full commit id"),
        (
            "{url: /srv/x.git, branch: main, base: v1.0}",
            "fork.base: 'v1.0' is not a full commit id",
        ),
        ("{url: /srv/x.git, branch: main, release: '2.0'}", "no release '2.0' in this recipe"),
        ("{url: /srv/x.git, branch: main, tag: x}", "fork.tag: unknown key"),
    ],
    ids=str,
)
def test_a_fork_that_says_something_else_is_refused(fork: str, fault: str) -> None:
    said = refused(f"fork: {fork}\n")
    assert len(said) == 1
    assert fault in said[0]


def test_every_fault_of_a_condition_is_told_at_its_place() -> None:
    said = refused(
        "revisit:\n  - why: ''\n    when:\n      all:\n        - closed: nothing\n"
        "        - released: x\n"
    )
    assert [text.partition(": ")[0] for text in said] == [
        "revisit.0.why",
        "revisit.0.when.all.0.closed",
        "revisit.0.when.all.1.released",
    ]


def test_the_reference_explains_conditions_and_forks() -> None:
    page = reference_page()
    assert "| `released` | range of versions or null |" in page
    assert "| `branch` | branch or null |" in page
    assert "list of [Condition](#condition)" in page
