"""GPU code is found wherever in a file it lies, in bounded time and memory whatever the file is."""

from __future__ import annotations

import io
import struct
import tarfile
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sources import BytesSource

from stackpatch.checks import ptx
from stackpatch.checks import scan as scanning
from stackpatch.checks.code import DamagedError, Form
from stackpatch.checks.fatbin import MAGIC
from stackpatch.checks.scan import Findings, scan
from stackpatch.checks.window import CHUNK, FileSource, Window

GPU = Path(__file__).parent.parent / "data" / "gpu"
FATBIN = (GPU / "13.0-all.fatbin").read_bytes()
CUBIN = (GPU / "13.0-sm_121a.cubin").read_bytes()
PTX = (GPU / "13.0-compute_121a.ptx").read_bytes()
MANY = "sm_75 sm_90a sm_100 sm_120f sm_121a compute_100 compute_120f compute_121a"


def read(data: bytes, name: str = "x.so", piece: int = 1 << 30) -> Findings:
    return scan(name, BytesSource(data, piece))


def labels(found: Findings) -> str:
    return " ".join(str(code) for code in found.codes)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [(FATBIN, MANY), (CUBIN, "sm_121a"), (PTX, "compute_121a"), (b"", ""), (b"\x7fELF", "")],
)
@pytest.mark.parametrize("piece", [1 << 30, 1000, 7])
def test_a_file_of_its_own(data: bytes, wanted: str, piece: int) -> None:
    found = read(data, piece=piece)
    assert labels(found) == wanted
    assert found.damage == ()
    assert sum(found.units.values()) == (1 if wanted else 0)


@pytest.mark.parametrize("name", ["a.so", "weights.bin", "a.dll", "noend", "a.pt", "x.PY.bak"])
def test_code_hidden_in_other_bytes(name: str) -> None:
    data = b"\x7fELF\x02\x01\x01" + bytes(100) + CUBIN + b"abc" + FATBIN + bytes(9) + CUBIN
    found = read(data, name)
    assert found.codes[next(c for c in found.codes if str(c) == "sm_121a")] == 3
    assert sum(found.units.values()) == 3


@pytest.mark.parametrize("at", [*range(CHUNK - 24, CHUNK + 1), 2 * CHUNK - 3])
@pytest.mark.parametrize(("data", "wanted"), [(FATBIN, MANY), (CUBIN, "sm_121a")])
def test_code_across_the_edge_of_a_piece(at: int, data: bytes, wanted: str) -> None:
    found = read(b"\xaa" * at + data + b"\xaa" * 3)
    assert labels(found) == wanted
    assert found.damage == ()
    assert found.size == at + len(data) + 3


@pytest.mark.parametrize("at", range(CHUNK - 250, CHUNK + 1, 5))
def test_ptx_across_the_edge_of_a_piece(at: int) -> None:
    assert labels(read(b"\xaa" * at + PTX + bytes(500))) == "compute_121a"


def test_a_static_library() -> None:
    archive = b"!<arch>\n"
    for name in (b"a.o/", b"b.o/"):
        archive += name.ljust(48) + str(len(FATBIN)).encode().ljust(10) + b"`\n" + FATBIN
    assert set(read(archive, "x.a").codes.values()) == {2}


def test_a_tar_is_not_needed_to_find_what_is_in_it() -> None:
    """A file that we do not know the format of is still looked through."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("k.cubin")
        info.size = len(CUBIN)
        tar.addfile(info, io.BytesIO(CUBIN))
    assert labels(read(out.getvalue(), "x.unknown")) == "sm_121a"


@pytest.mark.parametrize("name", ["a.py", "README.md", "k.CU", "d/e.hpp", "n.ipynb", "a.json"])
def test_prose_that_quotes_ptx_holds_no_code(name: str) -> None:
    quoting = b"# as in\n" + PTX + b"\n" + FATBIN
    assert read(quoting, name) == Findings()
    assert labels(read(quoting, "a.so")).startswith("sm_75")


@pytest.mark.parametrize("name", ["a.py", "k.txt", "n.json"])
@pytest.mark.parametrize(
    ("data", "wanted"), [(FATBIN, MANY), (CUBIN, "sm_121a"), (PTX, "compute_121a")]
)
def test_code_under_a_name_of_prose(name: str, data: bytes, wanted: str) -> None:
    assert labels(read(data, name)) == wanted


def test_a_sentence_about_ptx_is_no_module() -> None:
    assert read(b"use .target sm_90 here").codes == {}
    assert read(b".target sm_90\n.version 8.0\n").codes == {}
    assert read(b".version 8.0\nand then\n.target sm_90\n").codes == {}
    assert read(b".version %d.%d\n.target sm_%d\n").codes == {}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b".version 8.8\n.target sm_121a\n", "compute_121a"),
        (b".version 9.0\r\n.target sm_120f, debug\r\n", "compute_120f"),
        (b"//\n// Generated\n//\n\n.version 6.0\n// why\n.target sm_50\n", "compute_50"),
        (b"\x00.version 7.0\t\n\n.target\tsm_80\x00", "compute_80"),
        (b".version 10.1\n.target sm_155\n", "compute_155"),
    ],
)
def test_the_spellings_of_a_ptx_head(text: bytes, wanted: str) -> None:
    assert labels(read(text, "x.ptx")) == wanted


def test_ptx_that_starts_a_file_is_told_from_other_text() -> None:
    assert ptx.starts_module(b"//\n// x\n\n.version 8.0\n")
    assert ptx.starts_module(b".version 8.0")
    assert not ptx.starts_module(b"# .version 8.0")
    assert not ptx.starts_module(b"")
    with pytest.raises(DamagedError):
        ptx.read_ptx(b".version 8.0\n")


def test_units_say_what_is_loaded_together() -> None:
    found = read(CUBIN + FATBIN + CUBIN)
    counts = sorted((len(unit), count) for unit, count in found.units.items())
    assert counts == [(1, 2), (8, 1)]


def test_a_cubin_whose_tables_come_first() -> None:
    """As TensorRT-LLM's generator writes them: what the tables name lies behind them."""
    head = bytearray(CUBIN[:64])
    (table,) = struct.unpack_from("<Q", head, 40)
    (count,) = struct.unpack_from("<H", head, 60)
    sections = bytearray(CUBIN[table : table + 64 * count])
    for index in range(count):
        (offset,) = struct.unpack_from("<Q", sections, 64 * index + 24)
        struct.pack_into("<Q", sections, 64 * index + 24, offset + 64 + len(sections))
    struct.pack_into("<QQ", head, 32, 0, 64)
    struct.pack_into("<H", head, 56, 0)
    moved = bytes(head) + bytes(sections) + CUBIN
    assert labels(read(moved)) == "sm_121a"
    assert read(moved).damage == ()
    assert read(moved[:-2000]).damage


def test_a_truncated_cubin_is_damage() -> None:
    found = read(CUBIN[:-1])
    assert found.codes == {}
    assert found.damage == (
        f"at byte 0: a cubin of {len(CUBIN)} bytes is cut off after {len(CUBIN) - 1}",
    )


def test_a_cubin_too_large_to_look_into_keeps_its_number() -> None:
    head = bytearray(CUBIN)
    struct.pack_into("<Q", head, 32, scanning.INSIDE_LIMIT + 1)  # program headers far behind
    (found,) = read(bytes(head)).codes
    assert [str(c) for c in found.candidates] == ["sm_121", "sm_121a", "sm_121f"]
    assert "too many to look into" in found.why
    assert found.runs_on(121) is True


@pytest.mark.parametrize(
    "unit",
    [
        b"\x7fELF",
        b".target",
        MAGIC,
        MAGIC + struct.pack("<HHQ", 1, 16, 0),
        MAGIC + struct.pack("<HHQ", 1, 16, 1 << 63),
        MAGIC + struct.pack("<HHQ", 3, 32, 1),
        CUBIN[:64],
        FATBIN[: 16 + 64],
        b".version 8.0\n.target sm_90\n",
    ],
)
def test_a_file_full_of_beginnings_ends_soon(unit: bytes) -> None:
    """Each copy costs work: there is an end to it."""
    data = unit * ((16 << 20) // len(unit))
    started = time.monotonic()
    found = read(data)
    assert time.monotonic() - started < 30  # 4 s at most where this was written
    assert len(found.damage) <= scanning.MAX_DAMAGES + 1
    assert found.size == len(data) or "gave up" in found.damage[-1]


def test_headers_that_claim_much_cost_little_memory() -> None:
    head = bytearray(CUBIN[:64])
    struct.pack_into("<Q", head, 32, scanning.INSIDE_LIMIT - 1000)
    data = bytes(head) * ((64 << 20) // len(head))
    tracemalloc.start()
    try:
        found = read(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.damage or found.codes
    assert peak < 100 << 20


def test_giving_up_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, unit in (
        ("MAX_FALSE_HITS", b".target"),
        ("MAX_FALSE_HITS", MAGIC + struct.pack("<HHQ", 1, 16, 0)),
        ("MAX_IMAGES", CUBIN),
        ("MAX_DAMAGES", CUBIN[:64]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(scanning, name, 5)
            assert "gave up" in read(unit * 20).damage[-1]
    assert read(CUBIN * 20).damage == ()


def test_the_work_inside_images_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = (
        (GPU / "12.9-in-13.5.fatbin")
        .read_bytes()
        .replace(struct.pack("<Q", 0x1200011), struct.pack("<Q", 0x1000011))
    )
    assert all(code.decided for code in read(data).codes)
    monkeypatch.setattr(scanning, "INSIDE_TOTAL", 100)
    assert not any(code.decided for code in read(data).codes)


def test_a_file_that_cannot_be_read_on_is_damage() -> None:
    class Broken(BytesSource):
        def read(self, size: int) -> bytes:
            if self._at:
                msg = "cannot be read: Input/output error"
                raise DamagedError(msg)
            return super().read(size)

    found = scan("x.so", Broken(CUBIN * 100, piece=len(CUBIN)))
    assert "Input/output error" in found.damage[-1]


def test_a_large_sparse_file_needs_little(tmp_path: Path) -> None:
    path = tmp_path / "big.so"
    with path.open("wb") as file:
        file.write(CUBIN)
        file.truncate(256 << 20)
        file.seek(0, 2)
        file.write(FATBIN)
    tracemalloc.start()
    try:
        with FileSource(path) as source:
            found = scan(path.name, source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.size == path.stat().st_size
    assert sum(found.units.values()) == 2
    assert peak < 4 << 20


def test_passing_over_an_image_reads_nothing_of_it(tmp_path: Path) -> None:
    """The speed on uncompressed files: an entry of 1 TB costs a seek."""
    size = 1 << 40
    head = struct.pack("<HHIQII", 2, 0x101, 64, size, 0, 0)
    head += struct.pack("<HHIIIQQQ", 0, 9, 90, 0, 0, 0x100011, 0, 0)
    path = tmp_path / "x.fatbin"
    with path.open("wb") as file:
        file.write(MAGIC + struct.pack("<HHQ", 1, 16, len(head) + size) + head)
        file.truncate(16 + len(head) + size)
        file.seek(0, 2)
        file.write(CUBIN)
    started = time.monotonic()
    with FileSource(path) as source:
        found = scan(path.name, source)
    assert labels(found) == "sm_90a sm_121a"
    assert found.damage == ()
    assert time.monotonic() - started < 5


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(
        st.one_of(
            st.binary(max_size=300),
            st.sampled_from([FATBIN, CUBIN, PTX, MAGIC, b"\x7fELF", b".target sm_90", CUBIN[:999]]),
        ),
        max_size=6,
    ),
    piece=st.integers(1, 4000),
    flips=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=8),
)
def test_any_file_is_read_to_its_end(
    parts: list[bytes], piece: int, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(b"".join(parts))
    for at, value in flips:
        if data:
            data[at % len(data)] = value
    found = read(bytes(data), piece=piece)
    assert found == read(bytes(data))  # however the bytes come
    assert found.size <= len(data)
    assert all(code.form in Form for code in found.codes)


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=2000),
    piece=st.integers(1, 300),
    steps=st.lists(st.tuples(st.sampled_from("fps"), st.integers(0, 700)), max_size=12),
)
def test_the_window_shows_what_is_there(
    data: bytes, piece: int, steps: list[tuple[str, int]]
) -> None:
    window = Window(BytesSource(data, piece))
    at = 0
    for step, size in steps:
        match step:
            case "f":
                have = window.fill(size)
                assert have >= min(size, len(data) - at)
                assert window.peek(size) == data[at : at + size]
            case "p":
                assert data[at:].startswith(window.peek(size))
            case _:
                passed = window.skip(size)
                assert passed == min(size, len(data) - at)
                at += passed
        assert window.offset == at
        assert data[:at].endswith(window.before())


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(
            [FATBIN, CUBIN, PTX + bytes(9), bytes(700), b"\xaa" * 5, b"\x7fELF.target"]
        ),
        max_size=9,
    ),
    front=st.sampled_from([0, 1, CHUNK - 900, CHUNK - 3]),
    piece=st.sampled_from([1 << 30, 5000, 301]),
)
def test_every_piece_of_code_is_counted_once(parts: list[bytes], front: int, piece: int) -> None:
    found = read(b"\xbb" * front + b"".join(parts), piece=piece)
    wanted = sum(part in (FATBIN, CUBIN, PTX + bytes(9)) for part in parts)
    assert sum(found.units.values()) == wanted
    assert found.damage == ()
