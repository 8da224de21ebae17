"""The `series` file and the patches beside it: complete, once each, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_patch import MAIL

from stackpatch.errors import EnvironmentProblem, InputError, Problems
from stackpatch.model.series import load_series, parse_series

if TYPE_CHECKING:
    from pathlib import Path

OTHER = MAIL.replace(b"gate.py", b"other.py").replace(b"Arch: sm121", b"Arch: sm120")
FREE = MAIL.replace(b"gate.py", b"free.py").replace(b"Arch: sm121\n", b"")
FILES = {"1.patch": MAIL, "2.patch": OTHER, "3.patch": FREE}


def problems_of(listing: str, files: dict[str, bytes] | None = None) -> list[str]:
    with pytest.raises(Problems) as caught:
        parse_series("s", listing.encode(), FILES if files is None else files)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    "listing",
    [
        "1.patch\n2.patch\n3.patch\n",
        "1.patch\n2.patch\n3.patch",
        "# about\n\n1.patch # why\n  2.patch -p1\n\t3.patch\t\n# 4.patch\n",
        "1.patch\r\n2.patch\r\n3.patch\r\n",
    ],
)
def test_a_series_is_read_in_its_order(listing: str) -> None:
    series = parse_series("s", listing.encode(), FILES)
    assert [patch.name for patch in series.patches] == ["1.patch", "2.patch", "3.patch"]


def test_the_order_is_the_lists_own() -> None:
    one = parse_series("s", b"3.patch\n1.patch\n2.patch\n", FILES)
    two = parse_series("s", b"1.patch\n2.patch\n3.patch\n", FILES)
    assert [patch.name for patch in one.patches] == ["3.patch", "1.patch", "2.patch"]
    assert one.digest != two.digest
    assert (
        parse_series("elsewhere", b"# x\n3.patch\n1.patch\n2.patch\n", FILES).digest == one.digest
    )


def test_the_digest_is_written_down() -> None:
    """A golden value: it names builds and cache folders, and must not drift."""
    series = parse_series("s", b"1.patch\n2.patch\n3.patch\n", FILES)
    assert series.short == series.digest[:8]
    assert series.digest == ("303ccb8eff71e7115b7833b8724dab85fd21eef53cfe4c7868e6b8d1871589c6")


def test_an_arch_gets_its_patches() -> None:
    series = parse_series("s", b"1.patch\n2.patch\n3.patch\n", FILES)
    names = {
        arch: [p.name for p in series.for_arch(arch).patches] for arch in ("sm120", "sm121", "sm90")
    }
    assert names == {
        "sm120": ["2.patch", "3.patch"],
        "sm121": ["1.patch", "3.patch"],
        "sm90": ["3.patch"],
    }
    assert len({series.for_arch(arch).digest for arch in names} | {series.digest}) == 4
    assert series.for_arch("sm121").arch == "sm121"


BAD = {
    "1.patch\n2.patch\n3.patch\n4.patch\n": ["s/series:4: 4.patch: no such file in s/"],
    "1.patch\n2.patch\n1.patch\n3.patch\n": ["s/series:3: 1.patch: listed twice (first at line 1)"],
    "1.patch\n2.patch\n": ["s/3.patch:1: lies beside the series but is not listed in it"],
    "1.patch\n# 2.patch\n3.patch\n": [
        "s/2.patch:1: lies beside the series but is not listed in it"
    ],
    "": [
        "s/1.patch:1: lies beside the series but is not listed in it",
        "s/2.patch:1: lies beside the series but is not listed in it",
        "s/3.patch:1: lies beside the series but is not listed in it",
    ],
    "1.patch -p0\n2.patch\n3.patch\n": [
        "s/series:1: 1.patch: only -p1 patches (git format-patch's own) are taken"
    ],
    "1.patch 2.patch\n3.patch\n": [
        "s/series:1: want one patch file name a line, found '1.patch 2.patch'",
        "s/1.patch:1: lies beside the series but is not listed in it",
        "s/2.patch:1: lies beside the series but is not listed in it",
    ],
    "../1.patch\n1.patch\n2.patch\n3.patch\n": [
        "s/series:1: ../1.patch: must be a plain file name in s/"
    ],
    "/etc/passwd\n1.patch\n2.patch\n3.patch\n": [
        "s/series:1: /etc/passwd: must be a plain file name in s/"
    ],
    "1.patch\n2.patch\nx\\3.patch\n3.patch\n": [
        "s/series:3: x\\3.patch: must be a plain file name in s/"
    ],
}


@pytest.mark.parametrize(("listing", "expected"), BAD.items())
def test_a_bad_list_is_told_with_its_lines(listing: str, expected: list[str]) -> None:
    assert problems_of(listing) == expected


def test_everything_wrong_is_told_at_once() -> None:
    files = {"1.patch": MAIL.replace(b"sm121", b"sm1"), "2.patch": b"", "3.patch": FREE}
    assert problems_of("1.patch\n4.patch\n2.patch\n2.patch\n", files) == [
        "s/series:2: 4.patch: no such file in s/",
        "s/series:4: 2.patch: listed twice (first at line 3)",
        "s/3.patch:1: lies beside the series but is not listed in it",
        "s/1.patch:10: Arch: unknown arch 'sm1'; did you mean sm121?",
        "s/2.patch:1: the patch file is empty",
    ]


@pytest.mark.parametrize(
    "name", ["README.md", "notes.txt", "1.patch~", "1.patch.orig", ".1.patch.swp"]
)
def test_what_is_no_patch_may_lie_beside(name: str) -> None:
    series = parse_series("s", b"1.patch\n2.patch\n3.patch\n", {**FILES, name: b"\0"})
    assert len(series.patches) == 3


def test_a_list_that_is_no_text() -> None:
    with pytest.raises(Problems) as caught:
        parse_series("s", b"1.patch\n\xff\n", FILES)
    assert caught.value.problems == ("s/series:1: not UTF-8 text",)


@given(st.binary(max_size=80))
def test_any_list_is_answered(listing: bytes) -> None:
    try:
        parse_series("s", listing, FILES)
    except Problems as error:
        assert all(problem.startswith("s/") for problem in error.problems)  # noqa: PT017


def test_a_folder_is_read(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "series").write_bytes(b"1.patch\n2.patch\n3.patch\n")
    (tmp_path / "old").mkdir()
    series = load_series(tmp_path, where="patches/x/v1")
    assert series == parse_series("patches/x/v1", b"1.patch\n2.patch\n3.patch\n", FILES)


def test_no_folder_no_list_and_a_folder_as_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no series in there"):
        load_series(tmp_path / "none", where="there")
    with pytest.raises(InputError, match="no series in there"):
        load_series(tmp_path, where="there")
    (tmp_path / "series").mkdir()
    with pytest.raises(InputError, match="no series in there"):
        load_series(tmp_path, where="there")


def test_an_unreadable_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(tmp_path), "read_bytes", refuse)
    with pytest.raises(EnvironmentProblem, match=r"not allowed to read .*/series"):
        load_series(tmp_path)
