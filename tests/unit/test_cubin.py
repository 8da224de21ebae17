"""Cubins of four toolkits say what they were compiled for, and what they do not say stays open."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackpatch.checks.code import Code, DamagedError, Form, code
from stackpatch.checks.cubin import compat_specific, read_cubin
from stackpatch.model.arch import CodeArch

GPU = Path(__file__).parent.parent / "data" / "gpu"
CUBINS = sorted(path.name for path in GPU.glob("*.cubin"))


def cubin(name: str) -> bytes:
    return (GPU / name).read_bytes()


def read(data: bytes) -> Code:
    return read_cubin(memoryview(data))


def candidates(data: bytes) -> list[str]:
    return [str(candidate) for candidate in read(data).candidates]


def without_options(data: bytes) -> bytes:
    """As TensorRT-LLM's generated kernels are: notes without `-arch`."""
    changed = data.replace(b"-arch sm_", b"-nope sm_")
    assert changed != data
    return changed


def with_flags(data: bytes, flags: int) -> bytes:
    return data[:48] + struct.pack("<I", flags) + data[52:]


def flags_of(data: bytes) -> int:
    return int.from_bytes(data[48:52], "little")


def test_there_are_cubins_of_every_toolkit() -> None:
    assert {name.partition("-")[0] for name in CUBINS} == {"12.8", "12.9", "13.0", "13.5"}
    assert len(CUBINS) >= 30


@pytest.mark.parametrize("name", CUBINS)
def test_a_cubin_names_its_target(name: str) -> None:
    wanted = name.partition("-")[2].removesuffix(".cubin")
    found = read(cubin(name))
    assert [str(candidate) for candidate in found.candidates] == [wanted]
    assert found == Code(Form.MACHINE, (CodeArch.parse(wanted),))
    assert found.decided
    assert str(found) == wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("13.0-sm_120.cubin", ["sm_120", "sm_120f"]),
        ("13.0-sm_120f.cubin", ["sm_120", "sm_120f"]),
        ("13.0-sm_120a.cubin", ["sm_120a"]),  # .nv.compat
        ("13.5-sm_120a.cubin", ["sm_120a"]),
        ("13.5-sm_120f.cubin", ["sm_120", "sm_120f"]),
        ("12.8-sm_100a.cubin", ["sm_100a"]),  # e_flags
        ("12.8-sm_100.cubin", ["sm_100", "sm_100f"]),
        ("12.9-sm_100f.cubin", ["sm_100", "sm_100f"]),
        ("12.9-sm_121a.cubin", ["sm_121a"]),
        ("13.0-sm_90.cubin", ["sm_90"]),
        ("13.0-sm_90a.cubin", ["sm_90a"]),
        ("13.0-sm_75.cubin", ["sm_75"]),
    ],
)
def test_without_the_notes_a_is_still_known_and_f_is_left_open(
    name: str, wanted: list[str]
) -> None:
    found = read(without_options(cubin(name)))
    assert [str(candidate) for candidate in found.candidates] == wanted
    assert bool(found.why) == (len(wanted) > 1)


@pytest.mark.parametrize("name", ["12.8-sm_90.cubin", "12.8-sm_90a.cubin", "12.9-sm_90a.cubin"])
def test_cubins_before_abi_8_have_no_notes_and_need_none(name: str) -> None:
    assert b"-arch" not in cubin(name)
    assert candidates(cubin(name)) == [name.partition("-")[2].removesuffix(".cubin")]


def test_flags_alone_do_not_tell_a_from_plain_since_13() -> None:
    """Why `.nv.compat` and the notes are read at all."""
    plain, specific, family = (cubin(f"13.0-sm_120{s}.cubin") for s in ("", "a", "f"))
    assert flags_of(plain) == flags_of(specific) == flags_of(family)


def test_header_and_notes_that_disagree_are_both_told() -> None:
    changed = cubin("13.0-sm_120f.cubin").replace(b"-arch sm_120f", b"-arch sm_121a")
    found = read(changed)
    assert candidates(changed) == ["sm_120", "sm_120f", "sm_121a"]
    assert "disagree" in found.why
    assert found.runs_on(121) is True  # all three do
    assert found.runs_on(120) is None
    assert found.runs_on(100) is False


def test_an_a_that_the_notes_call_plain_is_open() -> None:
    changed = cubin("13.0-sm_121a.cubin").replace(b"-arch sm_121a ", b"-arch sm_121  ")
    assert candidates(changed) == ["sm_121", "sm_121a"]
    assert read(changed).runs_on(121) is True


def test_a_future_architecture_is_named_by_its_number() -> None:
    data = without_options(cubin("13.0-sm_120a.cubin"))
    future = with_flags(data, flags_of(data) & ~0xFFFF00 | 135 << 8)
    assert candidates(future) == ["sm_135a"]
    data = cubin("13.0-sm_120f.cubin").replace(b"-arch sm_120f", b"-arch sm_135f")
    future = with_flags(data, flags_of(data) & ~0xFFFF00 | 135 << 8)
    assert candidates(future) == ["sm_135f"]
    assert read(future).runs_on(121) is False


@pytest.mark.parametrize("number", [0, 256, 4000])
def test_flags_that_name_no_architecture_are_not_guessed_from(number: int) -> None:
    data = cubin("13.0-sm_120a.cubin")
    with pytest.raises(DamagedError, match="name no architecture"):
        read(with_flags(data, flags_of(data) & ~0xFFFF00 | number << 8))


def test_an_unknown_abi_is_read_by_its_notes_or_not_at_all() -> None:
    data = cubin("13.0-sm_120a.cubin")
    newer = data[:8] + b"\x09" + data[9:]
    assert candidates(newer) == ["sm_120a"]
    with pytest.raises(DamagedError, match="version 9, which this reader does not know"):
        read(without_options(newer))


def test_without_any_evidence_every_suffix_is_possible() -> None:
    data = cubin("13.0-sm_120a.cubin").replace(b".nv.compat\0", b".nv.XXXXXX\0")
    data = without_options(data).replace(b"NVIDIA Corp\0\x02\0", b"NVIDIA Corp\0\x09\0")
    assert candidates(data) == ["sm_120", "sm_120a", "sm_120f"]
    assert read(data).runs_on(120) is True
    assert read(data).runs_on(121) is None


def test_the_toolkit_version_decides_where_compat_is_absent() -> None:
    """Before 13.0 `a` is a bit of e_flags, so its absence says: not `a`."""
    data = cubin("13.0-sm_120a.cubin").replace(b".nv.compat\0", b".nv.XXXXXX\0")
    older = without_options(data).replace(b"\x02\0\x78\0\x82\0", b"\x02\0\x78\0\x81\0")
    assert candidates(older) == ["sm_120", "sm_120f"]


def test_compat_records_are_walked_by_their_lengths() -> None:
    long_one = struct.pack("<BBH", 4, 11, 8) + b"\x02\x09\x01\x00" * 2
    assert compat_specific(long_one + b"\x02\x09\x00\x00") == 0
    assert compat_specific(long_one) is None
    assert compat_specific(b"\x02\x02\x01\x00\x02\x09\x01\x00") == 1
    assert compat_specific(b"\x02\x09\x01") is None
    assert compat_specific(b"") is None
    assert compat_specific(struct.pack("<BBH", 4, 11, 0xFFFF)) is None


def test_runs_is_told_only_where_every_candidate_agrees() -> None:
    open_one = code(Form.MACHINE, 120, ["", "f"], why="because")
    assert open_one.runs_on(121) is True
    assert open_one.runs_on(100) is False
    open_two = code(Form.MACHINE, 120, ["", "a"], why="because")
    assert open_two.runs_on(121) is None
    assert open_two.runs_on(120) is True
    assert code(Form.LTO, 120).runs_on(120) is None
    assert code(Form.OTHER, 120).runs_on(90) is None
    assert code(Form.PTX, 80).runs_on(121) is True
    assert code(Form.PTX, 90, ["a"]).runs_on(121) is False


@pytest.mark.parametrize("name", ["12.8-sm_90a.cubin", "13.0-sm_120f.cubin"])
def test_a_cubin_cut_anywhere_is_damaged_and_never_another_target(name: str) -> None:
    data = cubin(name)
    whole = read(data)
    for size in range(len(data)):
        try:
            found = read(data[:size])
        except DamagedError as error:
            assert str(error)  # noqa: PT017 - both ends are right
        else:
            assert found == whole, size


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(CUBINS),
    changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=12),
    tables=st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=6),
)
def test_mutated_cubins_are_read_or_refused(
    name: str, changes: list[tuple[int, int]], tables: list[tuple[int, int]]
) -> None:
    data = bytearray(cubin(name))
    for at, value in changes + tables:
        data[at % len(data)] = value
    try:
        found = read(bytes(data))
    except DamagedError:
        return
    assert found.form is Form.MACHINE
    assert found.candidates
