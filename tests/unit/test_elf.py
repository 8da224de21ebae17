"""The ELF reader uses no offset before it has compared it with the bytes that are there."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from stackpatch.checks import elf
from stackpatch.checks.code import DamagedError

GPU = Path(__file__).parent.parent / "data" / "gpu"


def data() -> bytes:
    return (GPU / "13.0-sm_121a.cubin").read_bytes()


WANTED = (b".note.nv.tkinfo", b".nv.compat", b".shstrtab", b".nv.info", b".no.such")


def names(content: bytes) -> list[str]:
    found = elf.find_sections(memoryview(content), elf.header(content), WANTED)
    return [section.name.decode() for group in found.values() for section in group]


def patched(content: bytes, at: int, form: str, value: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into(form, changed, at, value)
    return bytes(changed)


@pytest.mark.parametrize("path", sorted(GPU.glob("*.cubin")), ids=lambda path: path.name)
def test_a_cubin_is_read_as_pyelftools_reads_it(path: Path) -> None:
    content = path.read_bytes()
    head = elf.header(content)
    oracle = ELFFile(io.BytesIO(content))
    assert (head.machine, head.flags) == (elf.MACHINE_CUDA, oracle["e_flags"])
    sections = [s for s in oracle.iter_sections() if s["sh_type"] != "SHT_NOBITS" and s.name]
    wanted: dict[bytes, list[bytes]] = {}
    for section in sections:
        wanted.setdefault(section.name.encode(), []).append(section.data())
    assert len(wanted) > 5
    found = elf.find_sections(memoryview(content), head, wanted)
    assert wanted == {
        name: [elf.content(memoryview(content), [one]) for one in group]
        for name, group in found.items()
    }
    ends = [s["sh_offset"] + s["sh_size"] for s in sections]
    ends.append(oracle["e_shoff"] + oracle["e_shnum"] * oracle["e_shentsize"])
    ends.append(oracle["e_phoff"] + oracle["e_phnum"] * oracle["e_phentsize"])
    assert elf.end_of(memoryview(content), head) == max(ends)


def test_the_sections_of_a_real_cubin() -> None:
    assert names(data()) == [".shstrtab", ".note.nv.tkinfo", ".nv.info", ".nv.compat"]
    assert elf.is_cuda(data()[:64])
    assert not elf.is_cuda(b"\x7fELF" + bytes(60))


def test_content_is_what_the_section_holds() -> None:
    content = data()
    head = elf.header(content)
    view = memoryview(content)
    (notes,) = elf.find_sections(view, head, [b".note.nv.tkinfo"]).values()
    assert b"-arch sm_121a" in elf.content(view, notes)
    assert elf.content(view, []) == b""
    assert elf.end_of(view, head) == len(content)


def test_a_name_may_be_the_end_of_another_and_stand_last() -> None:
    """Linkers let `.info` share the bytes of `.nv.info`, and the last NUL may be missing."""
    content = bytearray(64 + 3 * 64) + b"\0.nv.info"
    content[:6] = elf.MAGIC + b"\x02\x01"
    struct.pack_into("<Q", content, 40, 64)
    struct.pack_into("<HHH", content, 58, 64, 3, 2)
    for index, name in enumerate((1, 4, 0)):
        struct.pack_into("<II", content, 64 + 64 * index, name, 1)
    struct.pack_into("<QQ", content, 64 + 128 + 24, 256, 9)
    whole = bytes(content)
    found = elf.find_sections(memoryview(whole), elf.header(whole), [b".info", b".nv.info"])
    assert {name: len(group) for name, group in found.items()} == {b".nv.info": 1, b".info": 1}


def test_nobits_sections_take_no_bytes() -> None:
    empty = elf.Section(b".bss", elf.SECTION_NOBITS, 1 << 60, 1 << 60)
    assert elf.content(memoryview(b"x"), [empty]) == b""
    assert empty.end == 1 << 60


def test_more_sections_than_the_header_can_count() -> None:
    content = data()
    head = elf.header(content)
    extended = patched(content, 60, "<H", 0)
    extended = patched(extended, 62, "<H", 0xFFFF)
    extended = patched(extended, head.section_offset + 32, "<Q", head.section_count)
    extended = patched(extended, head.section_offset + 40, "<I", head.names_index)
    assert names(extended) == names(content)


@pytest.mark.parametrize(
    ("at", "form", "value", "message"),
    [
        (4, "<B", 1, "not a 64-bit"),
        (0, "<B", 0, "not a 64-bit"),
        (58, "<H", 63, "section header of 63 bytes"),
        (40, "<Q", 1 << 62, "behind the last"),
        (62, "<H", 900, "section of names is number 900"),
        (60, "<H", 0xFFFE, "behind the last"),
    ],
)
def test_headers_that_lie_are_named(at: int, form: str, value: int, message: str) -> None:
    with pytest.raises(DamagedError, match=message):
        names(patched(data(), at, form, value))


def test_a_section_behind_the_end_is_named() -> None:
    content = data()
    section = elf.Section(b".nv.compat", 1, len(content) - 1, 2)
    with pytest.raises(DamagedError, match=r"\.nv\.compat ends behind"):
        elf.content(memoryview(content), [section])


def test_names_behind_the_end_are_named() -> None:
    content = data()
    head = elf.header(content)
    at = head.section_offset + head.names_index * 64 + 24
    with pytest.raises(DamagedError, match="names end behind"):
        names(patched(content, at, "<Q", len(content)))


def test_a_file_without_sections_has_none() -> None:
    content = patched(data(), 40, "<Q", 0)
    assert names(content) == []


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    for start in (b"", elf.MAGIC + b"\x02\x01\x01"):
        whole = start + content
        try:
            head = elf.header(whole)
            elf.find_sections(memoryview(whole), head, WANTED)
            elf.end_of(memoryview(whole), head)
        except DamagedError:
            continue
