"""A release added to a recipe: the rest of the text stays as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.errors import InputError
from stackpatch.model.recipe_edit import (
    NewFile,
    NewRelease,
    add_release,
    set_fork,
    set_series,
)
from stackpatch.model.recipe_file import parse_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


def new(version: str, **changes: object) -> NewRelease:
    return replace(
        NewRelease(
            version=version,
            tag=f"v{version}",
            commit=None,
            evidence="unknown",
            evidence_detail="no history: moved onto the index's archive",
            date="2026-03-25T00:00:00Z",
            date_note=None,
            artefacts=(NewFile(f"flashinfer_python-{version}.tar.gz", "1" * 64, 5),),
            series=f"v{version}",
            stamp=("flashinfer/_build_meta.py", "__version__"),
            requires=(),
        ),
        **changes,  # type: ignore[arg-type]
    )


def added_lines(old: str, text: str) -> list[str]:
    """The lines that text has beyond old, which must be a subsequence of it."""
    rest = iter(text.splitlines())
    extra = []
    for line in old.splitlines():
        for candidate in rest:
            if candidate == line:
                break
            extra.append(candidate)
        else:
            pytest.fail(f"lost: {line!r}")
    return extra + list(rest)


@pytest.mark.parametrize("version", ["0.4.9", "0.5.4", "0.6.7", "0.7.3", "1.0"])
def test_it_goes_where_its_version_belongs(version: str) -> None:
    text = (RECIPES / "flashinfer.yaml").read_text()
    edited = add_release(text, new(version), where="recipe")
    extra = added_lines(text, edited)
    assert f'- version: "{version}"' in extra[0]
    recipe = parse_recipe("flashinfer.yaml", edited.encode(), name="flashinfer")
    versions = [release.version for release in recipe.releases]
    assert versions == sorted(
        versions, key=lambda v: [int(p) for p in v.replace("post", "").split(".")]
    )
    release = recipe.release(version)
    assert release.series == f"v{version}"
    assert release.artefacts[0].sha256 == "1" * 64, "a digest of digits stays a string"
    assert release.stamp is not None


def test_comments_stay_with_their_release() -> None:
    text = (
        'stack: x\nreleases:\n  # the first\n  - version: "1.0"\n    series: null\n\n'
        '  # about 3.0\n  - version: "3.0"\n    series: null # none\n# about archs\narchs: {}\n'
    )
    edited = add_release(text, new("2.0", artefacts=(), stamp=None), where="recipe")
    lines = edited.splitlines()
    assert lines.index('  - version: "2.0"') < lines.index("  # about 3.0")
    assert lines.index("  # about 3.0") == lines.index('  - version: "3.0"') - 1
    last = add_release(text, new("4.0", artefacts=(), stamp=None), where="recipe").splitlines()
    assert last.index('  - version: "4.0"') < last.index("# about archs")
    added_lines(text, edited)


def test_a_comment_below_a_release_stays_with_it() -> None:
    """Deeper than the dash it speaks of the release above, not of the new one."""
    text = (
        'releases:\n  - version: "1.0"\n    series: a\n    # no wheel for arm64\n\n'
        '  # about 3.0\n  - version: "3.0"\n    series: b\n    # seen on GB10\n      # twice\n'
        "# about archs\narchs: {}\n"
    )
    for version, above in (("2.0", "    # no wheel for arm64"), ("4.0", "      # twice")):
        edited = add_release(text, new(version, artefacts=(), stamp=None), where="recipe")
        lines = edited.splitlines()
        at = lines.index(f'  - version: "{version}"')
        assert [line for line in lines[:at] if line.strip()][-1] == above
        added_lines(text, edited)
    tight = 'releases:\n  - version: "1.0"\n    # mine\n  - version: "3.0"\n'
    edited = add_release(tight, new("2.0", artefacts=(), stamp=None), where="recipe")
    assert edited.startswith('releases:\n  - version: "1.0"\n    # mine\n  - version: "2.0"\n')


@pytest.mark.parametrize("version", ["0.5", "2.0", "4.0"])
def test_line_ends_of_the_recipe_are_kept(version: str) -> None:
    text = 'releases:\n  - version: "1.0"\n    series: a\n\n  - version: "3.0"\n    series: b\n'
    made = add_release(text, new(version), where="recipe")
    dos = add_release(text.replace("\n", "\r\n"), new(version), where="recipe")
    assert dos == made.replace("\n", "\r\n")
    bare = 'releases:\r\n  - version: "1.0"\r\n    tag: v1.0'
    assert set_series(bare, "1.0", "v1", where="r") == bare + "\r\n    series: v1\r\n"


@pytest.mark.parametrize("gap", [1, 2, 3])
@pytest.mark.parametrize("indent", [0, 2, 4])
def test_a_list_may_be_indented_as_one_likes(indent: int, gap: int) -> None:
    left = " " * indent
    text = f'releases:\n{left}-{" " * gap}version: "1.0"\n{left} {" " * gap}series: a\n'
    edited = add_release(text, new("2.0"), where="recipe")
    assert [r["version"] for r in yaml.safe_load(edited)["releases"]] == ["1.0", "2.0"]


def test_an_edit_that_would_change_something_else_is_refused() -> None:
    """A block of text that goes on below the comment that seems to end it."""
    text = 'releases:\n- version: "1.0"\n- version: "3.0"\n  series: |\n    a\n\n    # b\n'
    edited = add_release(text, new("2.0"), where="recipe")
    assert [r["version"] for r in yaml.safe_load(edited)["releases"]] == ["1.0", "2.0", "3.0"]
    end = add_release(text, new("4.0"), where="recipe")
    assert yaml.safe_load(end)["releases"][1] == yaml.safe_load(text)["releases"][1]
    alone = 'releases:\n  -\n    version: "1.0"\n  -\n    version: "3.0"\n'
    with pytest.raises(InputError, match=r"2\.0 cannot be added as text"):
        add_release(alone, new("2.0"), where="recipe")


def test_a_pinned_release_without_a_series_gets_it() -> None:
    text = (RECIPES / "flashinfer.yaml").read_text()
    edited = add_release(text, new("0.7.2"), where="recipe")
    old, now = text.splitlines(), edited.splitlines()
    assert [(a, b) for a, b in zip(old, now, strict=True) if a != b] == [
        ("    series: null", "    series: v0.7.2")
    ]
    bare = 'releases:\n  - version: "1.0"\n    tag: v1.0\n\narchs: {}\n'
    with_series = add_release(bare, new("1.0"), where="recipe")
    assert (
        with_series
        == 'releases:\n  - version: "1.0"\n    tag: v1.0\n    series: v1.0\n\narchs: {}\n'
    )


def test_another_series_is_never_replaced() -> None:
    text = (RECIPES / "flashinfer.yaml").read_text()
    with pytest.raises(InputError, match=r"0\.6\.3 already has the series v0\.6\.3") as raised:
        add_release(text, new("0.6.3", series="other"), where="recipes/flashinfer.yaml")
    assert raised.value.where is not None
    line = int(raised.value.where.rsplit(":", 1)[1])
    assert text.splitlines()[line - 1].strip() == "series: v0.6.3"
    assert add_release(text, new("0.6.3"), where="recipe") == text, "the same one is no change"


@pytest.mark.parametrize("text", ["releases: []\n", "releases: [{version: '1'}]\n", "x: 1\n"])
def test_what_cannot_be_edited_is_said(text: str) -> None:
    with pytest.raises(InputError, match="not a list with one release below the other"):
        add_release(text, new("1.0"), where="recipe")


def test_a_date_that_nobody_gave_says_so() -> None:
    text = (RECIPES / "flashinfer.yaml").read_text()
    edited = add_release(text, new("0.8", date_note="when it was moved"), where="recipe")
    assert '    date: "2026-03-25T00:00:00Z"  # when it was moved\n' in edited
    parse_recipe("flashinfer.yaml", edited.encode(), name="flashinfer")


def test_a_file_without_its_last_line_feed() -> None:
    text = 'releases:\n  - version: "1.0"\n    series: a'
    edited = add_release(text, new("2.0", artefacts=(), stamp=None), where="recipe")
    assert [r["version"] for r in yaml.safe_load(edited)["releases"]] == ["1.0", "2.0"]


@given(
    detail=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1),
    name=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1),
    digest=st.text("0123456789abcdef", min_size=64, max_size=64),
)
def test_any_text_comes_back_as_it_went_in(detail: str, name: str, digest: str) -> None:
    text = 'releases:\n  - version: "1.0"\n    series: a\n'
    release = new("2.0", evidence_detail=detail, artefacts=(NewFile(name, digest, 1),))
    read = yaml.safe_load(add_release(text, release, where="recipe"))["releases"][1]
    assert read["commit-evidence"]["detail"] == detail
    assert (read["artefacts"][0]["file"], read["artefacts"][0]["sha256"]) == (name, digest)


# --- a fork, and a series on a release that has none ------------------------------------------

FORK = {
    "url": "https://github.com/somebody/flashinfer.git",
    "branch": "nvfp4/sm120",
    "commit": "1e10000000000000000000000000000000000000",
    "base": "0" * 39 + "1",
    "release": "0.6.3",
}


def forked(text: str, **changes: str) -> str:
    edited = set_fork(text, FORK | changes, where="recipe")
    recipe = parse_recipe("flashinfer.yaml", edited.encode(), name="flashinfer")
    assert recipe.fork is not None
    assert recipe.fork.model_dump() == FORK | changes, "read back, it is what was written"
    return edited


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_fork_comes_at_the_end(end: str) -> None:
    text = (RECIPES / "flashinfer.yaml").read_text().rstrip("\n") + end
    edited = forked(text)
    assert edited.startswith(text)
    assert len(added_lines(text, edited)) == 7
    assert forked(edited) == edited, "twice is once"


BLOCK = """
fork:
  # whose it is
  url: https://github.com/somebody/flashinfer.git  # theirs
  branch: old/branch   # a branch
  commit: null
  base: ""
"""


def test_values_are_replaced_where_they_stand() -> None:
    text = (RECIPES / "flashinfer.yaml").read_text() + BLOCK.replace('  base: ""\n', "")
    edited = forked(text, branch="new")
    assert "  # whose it is\n" in edited
    assert "git  # theirs\n" in edited
    assert "  branch: new   # a branch\n" in edited
    assert edited.endswith(f'  base: "{FORK["base"]}"\n  release: "0.6.3"\n')
    assert forked(edited, branch="new") == edited


def test_a_fork_in_braces_stays_in_braces() -> None:
    flow = "\nfork: {url: /x, branch: b}  # kept\ncaches: [flashinfer-jit]\n"
    text = (RECIPES / "flashinfer.yaml").read_text().split("\ncaches:")[0] + flow
    edited = forked(text)
    assert edited.count("\nfork: {") == 1
    assert "}  # kept\ncaches: [flashinfer-jit]\n" in edited


@pytest.mark.parametrize("value", ["[a, b]", "a", '""', "[]"])
def test_a_fork_that_is_none_is_refused(value: str) -> None:
    text = (RECIPES / "flashinfer.yaml").read_text() + f"\nfork: {value}\n"
    with pytest.raises(InputError, match="`fork` is not a mapping"):
        set_fork(text, FORK, where="recipe")


def test_a_fork_whose_value_is_a_list_is_refused() -> None:
    text = (RECIPES / "flashinfer.yaml").read_text() + "\nfork:\n  url: [a]\n"
    with pytest.raises(InputError, match=r"`fork\.url` is not a single value"):
        set_fork(text, FORK, where="recipe")


def test_a_series_on_a_release_that_has_none() -> None:
    text = (RECIPES / "flashinfer.yaml").read_text()
    edited = set_series(text, "0.7.2", "v0.7.2", where="recipe")
    assert len(edited.splitlines()) == len(text.splitlines())
    old, new_ = (
        {release.version: release.series for release in parse_recipe("r", t.encode()).releases}
        for t in (text, edited)
    )
    assert new_ == old | {"0.7.2": "v0.7.2"}
    assert set_series(edited, "0.7.2", "v0.7.2", where="recipe") == edited
    with pytest.raises(InputError, match=r"0\.7\.2 already has the series v0\.7\.2"):
        set_series(edited, "0.7.2", "other", where="recipe")
    with pytest.raises(InputError, match=r"no release 9\.9"):
        set_series(text, "9.9", "v9.9", where="recipe")


def test_a_series_where_no_key_says_so_yet() -> None:
    text = (RECIPES / "flashinfer.yaml").read_text()
    mark = '- version: "0.7.2"\n'
    before, rest = text.split(mark)
    without = before + mark + rest.replace("    series: null\n", "", 1)
    assert without != text
    edited = set_series(without, "0.7.2", "v0.7.2", where="recipe")
    assert added_lines(without, edited) == ["    series: v0.7.2"]
    flow = "releases:\n  - {version: '1.0', tag: v1.0}\n  - version: '2.0'\n"
    assert yaml.safe_load(set_series(flow, "1.0", "v1.0", where="r"))["releases"] == [
        {"version": "1.0", "tag": "v1.0", "series": "v1.0"},
        {"version": "2.0"},
    ]


KEYS = st.sampled_from(sorted(FORK))


@given(present=st.dictionaries(KEYS, st.sampled_from(["x", "1.0", "no", "1e5", "'a: b'"])))
def test_whatever_the_fork_had_is_replaced_and_nothing_else(present: dict[str, str]) -> None:
    lines = "".join(f"    {key}: {value}   # {key}\n" for key, value in present.items())
    text = f"stack: x  # first\nfork:\n{lines}last: [1]\n" if present else "stack: x  # first\n"
    edited = set_fork(text, FORK, where="recipe")
    assert yaml.safe_load(edited)["fork"] == FORK
    assert all(f"   # {key}\n" in edited for key in present)
    assert edited.startswith("stack: x  # first\n")
    if present:
        assert edited.endswith("last: [1]\n")
