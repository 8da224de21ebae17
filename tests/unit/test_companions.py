"""Packages that must fit each other, by their own metadata."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from stackpatch.artefacts.companions import asked_for, not_of_one_version, unmet
from stackpatch.errors import InputError

METADATA = b"""Metadata-Version: 2.4
Name: sglang
Requires-Dist: flashinfer_python[cu13]==0.7.2
Requires-Dist: flashinfer_cubin==0.7.2
Requires-Dist: torch==2.14.1
Requires-Dist: torchcodec==0.8.0; sys_platform != "linux" or platform_machine != "aarch64"
Requires-Dist: old; python_version < "3.12"
Requires-Dist: pytest; extra == "test"
Requires-Dist: twice>=1
Requires-Dist: twice<2

Requires-Dist: of-the-description==1
"""


def test_what_a_wheel_asks_for() -> None:
    found = asked_for(METADATA, platform="linux/arm64", python="3.12")
    assert sorted(found) == ["flashinfer-cubin", "flashinfer-python", "torch", "twice"]
    assert found["flashinfer-python"] == SpecifierSet("==0.7.2")
    assert found["twice"] == SpecifierSet(">=1,<2")


def test_markers_are_those_of_the_target_and_not_of_this_machine() -> None:
    assert "torchcodec" in asked_for(METADATA, platform="linux/amd64", python=None)
    assert "torchcodec" not in asked_for(METADATA, platform="linux/arm64", python=None)
    assert "old" in asked_for(METADATA, platform="linux/arm64", python="3.11")


def test_what_cannot_be_read_is_quoted() -> None:
    with pytest.raises(InputError, match="a b c"):
        asked_for(b"Requires-Dist: a b c\n\n", platform="linux/arm64", python=None)


def test_a_patched_version_is_what_was_asked_for() -> None:
    wanted = asked_for(METADATA, platform="linux/arm64", python=None)
    assert unmet(wanted, {"flashinfer-python": "0.7.2+sp.12345678"}) == ()


@pytest.mark.parametrize("version", ["0.7.2.post1", "0.7.1", "0.7.2rc1", "nonsense"])
def test_another_version_is_named_with_both(version: str) -> None:
    wanted = asked_for(METADATA, platform="linux/arm64", python=None)
    assert unmet(wanted, {"flashinfer-python": version, "numpy": "1"}) == (
        f"flashinfer-python {version} is there, flashinfer-python==0.7.2 is asked for",
    )


def test_companions_are_of_one_version_but_for_the_local_part() -> None:
    family = ("flashinfer-cubin", "flashinfer-jit-cache")
    there = {
        "flashinfer-python": "0.6.3+sp.f33b8143",
        "flashinfer-cubin": "0.6.3",
        "flashinfer-jit-cache": "0.6.3+cu130",
    }
    assert not_of_one_version("flashinfer-python", family, there) == ()
    there["flashinfer-cubin"] = "0.6.2"
    assert not_of_one_version("flashinfer-python", family, there) == (
        "flashinfer-cubin 0.6.2 beside flashinfer-python 0.6.3+sp.f33b8143: not of one version",
    )
    del there["flashinfer-python"]
    assert not_of_one_version("flashinfer-python", family, there) == ()


@given(st.lists(st.sampled_from(["1.0", "1.0+a", "1.0.post1", "2.0"]), min_size=2, max_size=2))
def test_two_versions_fit_exactly_when_their_public_parts_are_the_same(pair: list[str]) -> None:
    first, second = pair
    said = not_of_one_version("a", ("b",), {"a": first, "b": second})
    assert bool(said) is (first.partition("+")[0] != second.partition("+")[0])
