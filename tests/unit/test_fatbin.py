"""Fatbins say their targets in their entries' headers; only where those do not is one opened."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import lz4.block  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sources import BytesSource

from stackpatch.checks import fatbin
from stackpatch.checks.code import Code, DamagedError, Form
from stackpatch.checks.scan import Findings, scan

GPU = Path(__file__).parent.parent / "data" / "gpu"
MANY = ["sm_75", "sm_90a", "sm_100", "sm_120f", "sm_121a"]
MANY_PTX = ["compute_100", "compute_120f", "compute_121a"]


def read(data: bytes) -> Findings:
    return scan("x.bin", BytesSource(data))


def labels(found: Findings) -> list[str]:
    return [str(code) + ("" if code.decided else "?") for code in found.codes]


def entry(
    *,
    kind: int = 2,
    arch: int = 120,
    flags: int = 0x11,
    image: bytes = b"",
    compressed: int = 0,
    uncompressed: int = 0,
    isa: tuple[int, int] = (9, 0),
    compat: bytes = b"",
    version: int = 0x101,
) -> bytes:
    """One entry, written from the layout that `fatbin` documents and no code of its own."""
    extension = struct.pack("<II", 72, len(compat)) + compat if compat else b""
    size = 64 + len(extension)
    head = struct.pack("<HHIQII", kind, version, size, len(image), compressed, 64 if compat else 0)
    head += struct.pack("<HHIIIQQQ", isa[1], isa[0], arch, 0, 0, flags, 0, uncompressed)
    return head + extension + image


def container(*entries: bytes, version: int = 1) -> bytes:
    body = b"".join(entries)
    return fatbin.MAGIC + struct.pack("<HHQ", version, 16, len(body)) + body


def single(data: bytes) -> Code:
    (found,) = read(data).codes
    return found


@pytest.mark.parametrize("mode", ["none", "speed", "balance", "size", "all"])
def test_real_fatbins_in_every_compression(mode: str) -> None:
    found = read((GPU / f"13.0-{mode}.fatbin").read_bytes())
    assert labels(found) == MANY + MANY_PTX
    assert set(found.codes.values()) == {1}
    assert list(found.units.values()) == [1]
    assert found.damage == ()


def test_lto_code_is_told_apart() -> None:
    found = read((GPU / "13.0-lto.fatbin").read_bytes())
    assert labels(found) == ["lto_120", "sm_90a"]
    assert [code.form for code in found.codes] == [Form.LTO, Form.MACHINE]


def test_f_without_a_flag_is_found_in_the_image() -> None:
    """12.9's cubins have no record 9; whether its fatbinary set the flag is not known."""
    data = bytearray((GPU / "12.9-in-13.5.fatbin").read_bytes())
    assert labels(read(bytes(data))) == ["sm_100", "sm_100f"]
    at = data.index(struct.pack("<Q", 0x1200011))
    data[at : at + 8] = struct.pack("<Q", 0x1000011)
    assert labels(read(bytes(data))) == ["sm_100", "sm_100f"]


@pytest.mark.parametrize("flag", [0x2000, 0x8000])
def test_compressed_images_are_opened_where_the_header_is_silent(flag: int) -> None:
    cubin = (GPU / "12.9-sm_120f.cubin").read_bytes()
    image = (
        lz4.block.compress(cubin, store_size=False) if flag == 0x2000 else zstandard.compress(cubin)
    )
    made = entry(
        flags=0x11 | flag,
        image=image + bytes(8),
        compressed=len(image),
        uncompressed=len(cubin),
    )
    assert str(single(container(made))) == "sm_120f"


@pytest.mark.parametrize("flag", [0x2000, 0x8000, 0x1000])
def test_an_image_that_cannot_be_opened_leaves_f_open_and_is_told(flag: int) -> None:
    made = entry(flags=0x11 | flag, image=b"\xff" * 64, compressed=64, uncompressed=5000)
    found = read(container(made))
    assert labels(found) == ["sm_120?"]
    assert len(found.damage) == 1
    (code,) = found.codes
    assert code.runs_on(121) is True
    assert code.runs_on(100) is False


def test_a_decompression_bomb_gives_no_more_than_it_declares() -> None:
    bomb = zstandard.compress(bytes(1 << 28))
    made = entry(flags=0x8011, image=bomb, compressed=len(bomb), uncompressed=5000)
    whole = container(made)
    tracemalloc.start()
    try:
        found = read(whole)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert labels(found) == ["sm_120?"]
    assert "64-bit" in found.damage[0]
    assert peak < 8 << 20


def test_an_image_too_large_to_open_is_judged_by_its_header() -> None:
    made = entry(flags=0x8011, image=bytes(64), compressed=64, uncompressed=1 << 40)
    found = read(container(made))
    assert labels(found) == ["sm_120?"]
    assert found.damage == ()


def test_ptx_before_isa_9_is_opened() -> None:
    text = b"//\n.version 8.8\n.target sm_120f\n.address_size 64\n"
    made = entry(kind=1, isa=(8, 8), image=text, flags=0x11)
    assert str(single(container(made))) == "compute_120f"
    assert str(single(container(entry(kind=1, isa=(9, 0), image=text)))) == "compute_120"


def test_an_image_for_another_number_is_damage() -> None:
    text = b".version 8.8\n.target sm_90\n.address_size 64\n"
    found = read(container(entry(kind=1, isa=(8, 8), image=text)))
    assert "whose image is for 90" in found.damage[0]


@pytest.mark.parametrize(
    ("flags", "compat", "wanted"),
    [
        (0x100011, b"", ["sm_120a"]),
        (0x200011, b"", ["sm_120f"]),
        (0x1100011, b"\x02\x09\x01\x00", ["sm_120a"]),
        (0x1000011, b"\x02\x09\x00\x00", ["sm_120"]),
        (0x1200011, b"\x02\x09\x00\x00", ["sm_120f"]),
        (0x300011, b"", ["sm_120", "sm_120a", "sm_120f"]),
        (0x1000011, b"\x02\x09\x01\x00", ["sm_120", "sm_120a", "sm_120f"]),
        (0x1100011, b"\x02\x09\x00\x00", ["sm_120", "sm_120a", "sm_120f"]),
    ],
)
def test_flags_and_the_copy_of_compat_must_agree(
    flags: int, compat: bytes, wanted: list[str]
) -> None:
    found = fatbin.read_entry(fatbin.entry(entry(flags=flags, compat=compat)))
    assert [str(candidate) for candidate in found.candidates] == wanted
    assert bool(found.why) == (len(wanted) > 1)


def test_targets_below_100_are_plain_without_a_flag() -> None:
    found = fatbin.read_entry(fatbin.entry(entry(arch=90)))
    assert [str(candidate) for candidate in found.candidates] == ["sm_90"]


def test_a_future_architecture_is_named_by_its_number() -> None:
    assert str(single(container(entry(arch=155, flags=0x100011)))) == "sm_155a"


def test_an_unknown_kind_of_code_is_named_and_never_called_running() -> None:
    found = single(container(entry(kind=64, arch=121)))
    assert found.form is Form.OTHER
    assert found.runs_on(121) is None
    assert str(found) == "other_121"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (container(version=2), "fatbin of version 2"),
        (container(entry(version=0x201)), "entry of version 0x201"),
        (container(entry(arch=0)), "architecture number 0"),
        (container(entry(arch=1 << 31)), "architecture number 2147483648"),
        (container(entry()[:-1]), "cut off"),
        (container(entry())[:-1], "cut off"),
        (container(entry(image=b"x" * 100))[:-1], "image of 100 bytes is cut off"),
        (container(entry()[:4] + b"\xff" * 12 + entry()[16:]), "header has 4294967295 bytes"),
        (container(entry()[:8] + b"\xff" * 8 + entry()[16:]), "with 64 left"),
    ],
)
def test_damage_is_told_with_its_place(data: bytes, message: str) -> None:
    found = read(b"in front" + data)
    assert any(message in line for line in found.damage)
    assert found.damage[0].startswith("at byte ")


def test_what_came_before_the_damage_is_kept_and_what_comes_after_is_found() -> None:
    good = container(entry(arch=90, flags=0x100011))
    broken = container(entry(arch=80), entry()[:-1])
    found = read(good + broken + good)
    assert [(str(code), count) for code, count in found.codes.items()] == [
        ("sm_80", 1),
        ("sm_90a", 2),
    ]
    assert len(found.damage) == 1


def test_an_empty_fatbin_is_no_code() -> None:
    assert read(container()) == Findings(size=16)


def test_the_magic_in_a_program_that_reads_fatbins_is_no_fatbin() -> None:
    assert read(b"\x81\xf9" + fatbin.MAGIC + b"\x0f\x85\x10\x00\x00\x00\x48\x89" * 4).damage == ()


@pytest.mark.parametrize("name", ["13.0-all.fatbin", "12.9-in-13.5.fatbin", "13.0-lto.fatbin"])
def test_a_fatbin_cut_anywhere_says_less_and_says_so(name: str) -> None:
    data = (GPU / name).read_bytes()
    whole = read(data)
    for size in range(len(data)):
        found = read(data[:size])
        assert set(found.codes) <= set(whole.codes), size
        assert sum(found.codes.values()) < sum(whole.codes.values()), size
        assert bool(found.damage) == (size >= fatbin.HEADER_SIZE), size


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(["13.0-all.fatbin", "13.0-lto.fatbin", "12.9-in-13.5.fatbin"]),
    changes=st.lists(st.tuples(st.integers(0, 1 << 15), st.integers(0, 255)), max_size=12),
    head=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 1 << 15),
)
def test_mutated_fatbins_never_fail(
    name: str, changes: list[tuple[int, int]], head: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray((GPU / name).read_bytes())
    for at, value in changes + head:
        data[at % len(data)] = value
    found = read(bytes(data[: cut % (len(data) + 1)]))
    assert all(code.candidates for code in found.codes)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.builds(
            entry,
            kind=st.integers(0, 0xFFFF),
            arch=st.integers(0, 0xFFFFFFFF),
            flags=st.integers(0, (1 << 64) - 1),
            image=st.binary(max_size=200),
            compressed=st.integers(0, 0xFFFFFFFF),
            uncompressed=st.integers(0, (1 << 64) - 1),
            isa=st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)),
            compat=st.binary(max_size=40),
        ),
        max_size=5,
    )
)
def test_any_entries_never_fail(entries: list[bytes]) -> None:
    read(container(*entries))


def test_look_inside_refuses_what_is_no_ptx() -> None:
    with pytest.raises(DamagedError, match=r"without \.version and \.target"):
        fatbin.look_inside(fatbin.entry(entry(kind=1)), b"nothing")
