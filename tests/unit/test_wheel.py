"""The patched wheel: what changes, what stays, and what is refused."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import stat
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest
from packaging.specifiers import SpecifierSet
from packaging.utils import parse_wheel_filename
from packaging.version import Version
from tests.wheels import FILES, METADATA, contents, make_wheel, record_hash

from stackpatch.artefacts import rawzip
from stackpatch.artefacts.stamp import patched_version
from stackpatch.artefacts.wheel import WheelResult, repack
from stackpatch.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EPOCH = 1770249624  # 2026-02-05T00:00:24Z
VERSION = "1.2.3+sp.0a1b2c3d"
NEW = "demo-1.2.3+sp.0a1b2c3d.dist-info"
CHANGES: dict[str, bytes | None] = {
    "demo/gate.py": b"MAJORS = [10, 12]\n",
    "demo/sub/new.py": b"NEW = 1\n",
    "demo/old.py": None,
}
# Made with CPython 3.11.7 and zlib 1.2.13; no other build may give another.
GOLDEN_WHEEL = "efb30ea5115ab3c58a9109a4b17a090222628e857027a93dc846d4561e2c0fcf"


def patched(
    tmp_path: Path, wheel: Path, changes: Mapping[str, bytes | None] | None = None
) -> WheelResult:
    return repack(
        wheel,
        CHANGES if changes is None else changes,
        local_version=VERSION,
        target=tmp_path / "out",
        epoch=EPOCH,
    )


def record(path: Path) -> dict[str, tuple[str, str]]:
    raw = contents(path)[f"{NEW}/RECORD"].decode()
    return {name: (digest, size) for name, digest, size in csv.reader(io.StringIO(raw))}


# -- what comes out ---------------------------------------------------------------------------


def test_changes_additions_and_removals_are_in_the_wheel(tmp_path: Path) -> None:
    result = patched(tmp_path, make_wheel(tmp_path))
    found = contents(result.path)
    assert found["demo/gate.py"] == b"MAJORS = [10, 12]\n"
    assert found["demo/sub/new.py"] == b"NEW = 1\n"
    assert "demo/old.py" not in found
    assert found["demo/__init__.py"] == FILES["demo/__init__.py"]
    assert result.sha256 == hashlib.sha256(result.path.read_bytes()).hexdigest()
    assert result.bytes == result.path.stat().st_size


def test_names_carry_the_local_version(tmp_path: Path) -> None:
    result = patched(tmp_path, make_wheel(tmp_path))
    assert result.path.name == "demo-1.2.3+sp.0a1b2c3d-py3-none-any.whl"
    name, version, _, _ = parse_wheel_filename(result.path.name)
    assert (name, str(version)) == ("demo", VERSION)
    folders = {name.split("/")[0] for name in contents(result.path)}
    assert folders == {"demo", NEW}
    assert (result.dist_info, result.old_dist_info) == (NEW, "demo-1.2.3.dist-info")


def test_only_the_version_header_of_metadata_changes(tmp_path: Path) -> None:
    result = patched(tmp_path, make_wheel(tmp_path))
    expected = METADATA.replace(b"\nVersion: 1.2.3\n", b"\nVersion: 1.2.3+sp.0a1b2c3d\n", 1)
    assert contents(result.path)[f"{NEW}/METADATA"] == expected


def test_metadata_with_crlf_keeps_it(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, metadata=METADATA.replace(b"\n", b"\r\n"))
    found = contents(patched(tmp_path, wheel).path)[f"{NEW}/METADATA"]
    assert found.count(b"\r\n") == METADATA.count(b"\n")
    assert b"\r\nVersion: 1.2.3+sp.0a1b2c3d\r\n" in found


def test_record_names_exactly_the_members_with_their_hashes(tmp_path: Path) -> None:
    result = patched(tmp_path, make_wheel(tmp_path))
    found, rows = contents(result.path), record(result.path)
    assert set(rows) == set(found)
    assert rows.pop(f"{NEW}/RECORD") == ("", "")
    assert rows == {name: (record_hash(found[name]), str(len(found[name]))) for name in rows}
    assert list(found)[-1] == f"{NEW}/RECORD"


def test_modes_keep_the_executable_bit_and_nothing_else(tmp_path: Path) -> None:
    result = repack(
        make_wheel(tmp_path),
        {"demo/run.sh": b"#!/bin/sh\n", "demo/tool.sh": b"#!/bin/sh\nexit 1\n"},
        local_version=VERSION,
        target=tmp_path / "out",
        epoch=EPOCH,
        executable={"demo/run.sh": True},
    )
    with zipfile.ZipFile(result.path) as archive:
        modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
    assert modes.pop("demo/run.sh") == stat.S_IFREG | 0o755
    assert modes.pop("demo/tool.sh") == stat.S_IFREG | 0o755
    assert set(modes.values()) == {stat.S_IFREG | 0o644}
    assert result.files["demo/run.sh"].executable


def test_a_change_of_the_mode_alone_is_a_change(tmp_path: Path) -> None:
    result = repack(
        make_wheel(tmp_path),
        {"demo/gate.py": FILES["demo/gate.py"]},
        local_version=VERSION,
        target=tmp_path / "out",
        epoch=EPOCH,
        executable={"demo/gate.py": True},
    )
    assert result.files["demo/gate.py"].executable


def test_a_change_to_the_same_bytes_is_none(tmp_path: Path) -> None:
    result = patched(tmp_path, make_wheel(tmp_path), {"demo/gate.py": FILES["demo/gate.py"]})
    assert sorted(result.files) == [
        f"{NEW}/METADATA",
        f"{NEW}/RECORD",
        f"{NEW}/WHEEL",
        f"{NEW}/entry_points.txt",
    ]


def test_the_result_tells_what_an_installation_would_differ_in(tmp_path: Path) -> None:
    result = patched(tmp_path, make_wheel(tmp_path))
    found = contents(result.path)
    assert {name: file.content for name, file in result.files.items()} == {
        name: content
        for name, content in found.items()
        if name.startswith(NEW) or name in {"demo/gate.py", "demo/sub/new.py"}
    }
    assert result.removed == ("demo/old.py",)
    assert result.elsewhere == ()
    assert result.pure


def test_the_data_folder_is_renamed_with_the_version(tmp_path: Path) -> None:
    files = {**FILES, "demo-1.2.3.data/scripts/demo-tool": b"#!python\n"}
    wheel = make_wheel(tmp_path, files)
    result = patched(tmp_path, wheel, {"demo-1.2.3.data/scripts/demo-tool": b"#!python\n1\n"})
    moved = "demo-1.2.3+sp.0a1b2c3d.data/scripts/demo-tool"
    assert contents(result.path)[moved] == b"#!python\n1\n"
    assert result.elsewhere == (moved,)
    assert moved in record(result.path)


def test_signatures_of_the_old_record_are_left_out(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, extra={"demo-1.2.3.dist-info/RECORD.jws": b"{}"})
    found = contents(patched(tmp_path, wheel).path)
    assert not [name for name in found if "jws" in name]


def test_folder_members_stay_while_something_is_in_them(tmp_path: Path) -> None:
    extra = {"demo/": b"", "demo/only/": b"", "demo-1.2.3.dist-info/": b""}
    wheel = make_wheel(tmp_path, {**FILES, "demo/only/x.py": b""}, extra=extra)
    result = patched(tmp_path, wheel, {"demo/only/x.py": None})
    with zipfile.ZipFile(result.path) as archive:
        folders = {i.filename: i.external_attr for i in archive.infolist() if i.is_dir()}
    assert folders == dict.fromkeys(["demo/", f"{NEW}/"], (stat.S_IFDIR | 0o755) << 16 | 0x10)


def test_a_build_tag_and_several_tags_stay_in_the_name(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, name="demo-1.2.3-1a-cp312-cp312-manylinux_2_28_x86_64.whl")
    result = patched(tmp_path, wheel)
    assert result.path.name == "demo-1.2.3+sp.0a1b2c3d-1a-cp312-cp312-manylinux_2_28_x86_64.whl"


def test_binaries_of_a_platform_wheel_stay_byte_for_byte(tmp_path: Path) -> None:
    binary = b"\x7fELF" + bytes(range(256)) * 40
    name = "demo-1.2.3-cp312-cp312-linux_x86_64.whl"
    wheel = make_wheel(tmp_path, {**FILES, "demo/_c.so": binary}, name=name, pure=False)
    result = patched(tmp_path, wheel)
    assert contents(result.path)["demo/_c.so"] == binary
    assert not result.pure
    assert record(result.path)["demo/_c.so"][0] == record_hash(binary)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_every_strong_hash_of_record_is_checked(tmp_path: Path, algorithm: str) -> None:
    wheel = make_wheel(tmp_path, algorithm=algorithm)
    assert record(patched(tmp_path, wheel).path)["demo/tool.sh"][0] == record_hash(
        FILES["demo/tool.sh"], algorithm
    )


# -- the same bytes everywhere ----------------------------------------------------------------


def test_golden_digest(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, method=zipfile.ZIP_STORED)
    assert patched(tmp_path, wheel).sha256 == GOLDEN_WHEEL


def test_another_folder_umask_and_time_zone_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = patched(tmp_path / "a", make_wheel(tmp_path / "a"))
    before = os.umask(0o077)
    try:
        monkeypatch.setenv("TZ", "Asia/Kathmandu")
        time.tzset()
        two = patched(tmp_path / "b c", make_wheel(tmp_path / "b c"))
    finally:
        os.umask(before)
        monkeypatch.undo()
        time.tzset()
    assert one.path.read_bytes() == two.path.read_bytes()
    assert stat.S_IMODE(two.path.stat().st_mode) == 0o644


def test_unchanged_members_keep_their_compressed_bytes(tmp_path: Path) -> None:
    # Level 1 gives other bytes than our zlib's default: they must come through as they are.
    wheel = make_wheel(tmp_path)
    raw = zlib.compressobj(1, zlib.DEFLATED, -15)
    data = FILES["demo/data/csrc/kernel.cu"]
    squeezed = raw.compress(data) + raw.flush()
    assert squeezed in rebuilt_with(wheel, "demo/data/csrc/kernel.cu", squeezed).read_bytes()
    assert squeezed in patched(tmp_path, wheel).path.read_bytes()


def rebuilt_with(wheel: Path, name: str, squeezed: bytes) -> Path:
    """The wheel with one member's deflate stream replaced by another of the same content."""
    kept = contents(wheel)
    out = io.BytesIO()
    with rawzip.RawZip(wheel) as source:
        writer = rawzip.ZipWriter(out, EPOCH)
        for member in source.members.values():
            if member.name != name:
                writer.add(member.name, kept[member.name], executable=member.executable)
                continue
            changed = rawzip.Member(
                name, 8, zlib.crc32(kept[name]), len(squeezed), len(kept[name]), 0, executable=False
            )
            writer._begin(name, changed, executable=False)
            writer._write(squeezed)
        writer.finish()
    wheel.write_bytes(out.getvalue())
    return wheel


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0, (1980, 1, 1, 0, 0, 0)),
        (EPOCH, (2026, 2, 5, 0, 0, 24)),
        (EPOCH + 1, (2026, 2, 5, 0, 0, 24)),
        (1 << 40, (2107, 12, 31, 23, 59, 58)),
    ],
)
def test_times_are_the_epoch_within_what_zip_can_hold(
    tmp_path: Path, epoch: int, expected: tuple[int, ...]
) -> None:
    result = repack(
        make_wheel(tmp_path), CHANGES, local_version=VERSION, target=tmp_path / "o", epoch=epoch
    )
    with zipfile.ZipFile(result.path) as archive:
        assert {info.date_time for info in archive.infolist()} == {expected}
        assert {info.extra for info in archive.infolist()} == {b""}
        assert {info.create_system for info in archive.infolist()} == {3}


def test_more_members_than_plain_zip_can_count(tmp_path: Path) -> None:
    files = {f"demo/m{number}.py": b"" for number in range(66_000)}
    result = patched(tmp_path, make_wheel(tmp_path, files), {"demo/m7.py": b"7\n"})
    with zipfile.ZipFile(result.path) as archive:
        assert len(archive.infolist()) == 66_004
        assert archive.read("demo/m7.py") == b"7\n"


def test_zip64_sizes_and_offsets_are_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The limit of 4 GiB lowered: from 2,000 bytes on the zip64 fields must carry the numbers.
    monkeypatch.setattr(rawzip, "_MAX_32", 2000)
    out = io.BytesIO()
    writer = rawzip.ZipWriter(out, EPOCH)
    big = bytes(range(250)) * 20
    writer.add("first.bin", big)
    writer.add("second.txt", b"small")
    writer.finish()
    raw = out.getvalue()
    # Python believes the plain field unless it is all ones, so put the real marker back.
    marked = raw.replace(struct.pack("<L", 2000), struct.pack("<L", 0xFFFFFFFF))
    with zipfile.ZipFile(io.BytesIO(marked)) as archive:
        assert archive.read("first.bin") == big
        assert archive.read("second.txt") == b"small"


def test_a_zip64_wheel_is_read(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    rewritten = tmp_path / "z64" / wheel.name
    rewritten.parent.mkdir()
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(rewritten, "w") as new:
        for info in old.infolist():
            with new.open(zipfile.ZipInfo(info.filename), "w", force_zip64=True) as out:
                out.write(old.read(info))
    assert rewritten.read_bytes() != wheel.read_bytes()
    found = contents(patched(tmp_path, rewritten).path)
    assert found["demo/gate.py"] == b"MAJORS = [10, 12]\n"
    with zipfile.ZipFile(tmp_path / "out" / "demo-1.2.3+sp.0a1b2c3d-py3-none-any.whl") as archive:
        assert {info.extra for info in archive.infolist()} == {b""}


def test_a_streamed_wheel_with_data_descriptors_is_read(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    pipe = Pipe()
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(zipfile.ZipInfo(info.filename), old.read(info), zipfile.ZIP_DEFLATED)
    wheel.write_bytes(pipe.getvalue())
    with zipfile.ZipFile(wheel) as archive:
        assert all(info.flag_bits & 8 for info in archive.infolist())
    result = patched(tmp_path, wheel)
    with zipfile.ZipFile(result.path) as archive:
        assert archive.testzip() is None
        assert not any(info.flag_bits & 8 for info in archive.infolist())


# -- versions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("upstream", "short", "expected"),
    [
        ("0.6.3", "0a1b2c3d", "0.6.3+sp.0a1b2c3d"),
        ("0.7.2.post1", "deadbeef", "0.7.2.post1+sp.deadbeef"),
        ("0.6.3+cu130", "0a1b2c3d", "0.6.3+cu130.sp.0a1b2c3d"),
        ("1.3.0rc24", "0a1b2c3d", "1.3.0rc24+sp.0a1b2c3d"),
        ("v0.6.3", "0a1b2c3d", "0.6.3+sp.0a1b2c3d"),
        # PEP 440 reads an all-digit part as a number: the canonical form is what pip compares.
        ("0.6.3", "00123456", "0.6.3+sp.123456"),
    ],
)
def test_the_local_version(upstream: str, short: str, expected: str) -> None:
    assert patched_version(upstream, short) == expected
    assert str(Version(expected)) == expected
    # What a dependant pins still fits.
    assert SpecifierSet(f"=={Version(upstream).public}", prereleases=True).contains(expected)


def test_a_version_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="not a PEP 440 version: 'main'"):
        patched_version("main", "0a1b2c3d")


@pytest.mark.parametrize("version", ["1.2.4+sp.0a1b2c3d", "1.2.3+SP.0a1b2c3d", "1.2.3-sp", "1.2.3"])
def test_a_version_of_another_release_is_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(InputError, match=r"is not a local version of 1\.2\.3"):
        repack(make_wheel(tmp_path), {}, local_version=version, target=tmp_path / "o", epoch=0)


# -- changes that cannot be made --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("../evil.py", b"", "leaves the folder"),
        ("/etc/passwd", b"", "absolute path"),
        ("demo//x.py", b"", "not a plain relative path"),
        ("demo/./x.py", b"", "not a plain relative path"),
        ("demo\\x.py", b"", "character"),
        ("demo/x\n.py", b"", "character"),
        ("demo/none.py", None, "cannot remove demo/none.py"),
        ("demo-1.2.3.dist-info/METADATA", b"", "only files of the package"),
        ("demo/gate.py/x.py", b"", "demo/gate.py is a file"),
        ("demo/data", b"", "it is a folder"),
        ("demo/_c.so", b"text", "demo/_c.so is compiled code"),
        ("demo/libx.so.12", b"text", "demo/libx.so.12 is compiled code"),
        ("demo/k.cubin", None, "cannot remove"),
        ("demo/tool.sh", b"\x7fELF\2\1", "demo/tool.sh is compiled code"),
    ],
)
def test_impossible_changes_are_refused_by_name(
    tmp_path: Path, name: str, content: bytes | None, text: str
) -> None:
    with pytest.raises(InputError, match=text):
        patched(tmp_path, make_wheel(tmp_path), {name: content})
    assert not (tmp_path / "out").exists()


def test_removing_compiled_code_is_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {**FILES, "demo/_c.so": b"\x7fELF"}, pure=False)
    with pytest.raises(InputError, match=r"demo/_c\.so is compiled code"):
        patched(tmp_path, wheel, {"demo/_c.so": None})


def test_a_file_may_take_the_place_of_a_removed_folder(tmp_path: Path) -> None:
    changes = {"demo/data/csrc/kernel.cu": None, "demo/data": b"a file now\n"}
    found = contents(patched(tmp_path, make_wheel(tmp_path), changes).path)
    assert found["demo/data"] == b"a file now\n"


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize(
    ("originals", "text"),
    [
        ({"demo/gate.py": sha(b"other")}, "demo/gate.py is not the file that the series"),
        ({}, "holds demo/gate.py already, which the series adds"),
        (
            {"demo/gate.py": sha(FILES["demo/gate.py"]), "demo/x.py": sha(b"")},
            "does not hold demo/x.py, which the series changes",
        ),
    ],
)
def test_a_change_made_from_another_file_is_refused(
    tmp_path: Path, originals: dict[str, str], text: str, algorithm: str
) -> None:
    with pytest.raises(InputError, match=text):
        repack(
            make_wheel(tmp_path, algorithm=algorithm),
            {"demo/gate.py": b"1\n", "demo/x.py": b"2\n"},
            local_version=VERSION,
            target=tmp_path / "out",
            epoch=EPOCH,
            originals=originals,
        )


def test_a_change_made_from_the_wheels_own_file_goes_in(tmp_path: Path) -> None:
    result = repack(
        make_wheel(tmp_path),
        {"demo/gate.py": b"1\n", "demo/x.py": b"2\n"},
        local_version=VERSION,
        target=tmp_path / "out",
        epoch=EPOCH,
        originals={"demo/gate.py": sha(FILES["demo/gate.py"])},
    )
    assert contents(result.path)["demo/gate.py"] == b"1\n"


# -- wheels that cannot be trusted ------------------------------------------------------------

INFO = "demo-1.2.3.dist-info"


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        ({"../../etc/cron.d/x": b""}, "leaves the folder"),
        ({"/abs.py": b""}, "absolute path"),
        ({"C:/x.py": b""}, "absolute path"),
        ({"demo/../../x": b""}, "leaves the folder"),
        ({"demo\\..\\x": b""}, "character"),
        ({"demo/unlisted.py": b""}, "holds demo/unlisted.py, which its RECORD does not name"),
        ({"other-1.dist-info/METADATA": b""}, "found demo-1.2.3.dist-info, other-1.dist-info"),
    ],
)
def test_hostile_members_are_refused(tmp_path: Path, extra: dict[str, bytes], text: str) -> None:
    with pytest.raises(InputError, match=text):
        patched(tmp_path, make_wheel(tmp_path, extra=extra))
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("demo/gate.py", b"import os\n")
    with pytest.raises(InputError, match=r"'demo/gate\.py' occurs twice"):
        patched(tmp_path, wheel)


def test_a_link_is_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    with zipfile.ZipFile(wheel, "a") as archive:
        info = zipfile.ZipInfo("demo/link.py")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match=r"'demo/link\.py' is a link or a device"):
        patched(tmp_path, wheel)


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (b"", "holds demo-1.2.3.dist-info/METADATA, which its RECORD does not name"),
        (b"a,b\n", "a line has 2 fields"),
        (b"\xff\xfe,,\n", "RECORD cannot be read"),
        (b'"unclosed,,\n', "RECORD cannot be read"),
        (b"demo/x,,\ndemo/x,,\n", "demo/x stands there twice"),
        (b"demo/gate.py,md5=abc,3\n", "no usable hash and size for demo/gate.py"),
        (b"demo/gate.py,,\n", "no usable hash and size for demo/gate.py"),
        (b"demo/gate.py,sha256=abc,-3\n", "no usable hash and size for demo/gate.py"),
    ],
)
def test_a_record_that_cannot_hold_is_refused(tmp_path: Path, record: bytes, text: str) -> None:
    with pytest.raises(InputError, match=text):
        patched(tmp_path, make_wheel(tmp_path, record=record))


def test_a_record_that_names_a_file_too_many_is_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    row = f"demo/ghost.py,{record_hash(b'')},0\n".encode()
    wheel = make_wheel(tmp_path, record=contents(wheel)[f"{INFO}/RECORD"] + row)
    with pytest.raises(InputError, match=r"its RECORD names demo/ghost\.py, which it does not"):
        patched(tmp_path, wheel)


@pytest.mark.parametrize("what", ["hash", "size"])
def test_content_that_is_not_what_record_says_is_refused(tmp_path: Path, what: str) -> None:
    wheel = make_wheel(tmp_path)
    good = contents(wheel)[f"{INFO}/RECORD"]
    content = FILES["demo/tool.sh"]
    row = f"{record_hash(content)},{len(content)}".encode()
    wrong = f"{record_hash(b'x' if what == 'hash' else content)},{len(content) + 1}".encode()
    assert row in good
    wheel = make_wheel(tmp_path, record=good.replace(row, wrong))
    with pytest.raises(InputError, match=r"demo/tool\.sh is not what its RECORD says"):
        patched(tmp_path, wheel)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("missing", ["RECORD", "METADATA", "WHEEL"])
def test_a_missing_part_of_dist_info_is_named(tmp_path: Path, missing: str) -> None:
    wheel = make_wheel(tmp_path)
    kept = {n: c for n, c in contents(wheel).items() if n != f"{INFO}/{missing}"}
    if missing != "RECORD":
        lines = kept[f"{INFO}/RECORD"].splitlines(keepends=True)
        kept[f"{INFO}/RECORD"] = b"".join(li for li in lines if missing.encode() not in li)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in kept.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match=f"has no {INFO}/{missing}"):
        patched(tmp_path, wheel)


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        (b"Name: demo\n\nVersion: 1.2.3\n", "states none"),
        (b"Name: demo\nVersion: 1.2.4\n\n", "states 1.2.4"),
        (b"Version: 1.2.3\nVersion: 1.2.3\n\n", "states 1.2.3, 1.2.3"),
        (b"Version: nonsense\n\n", "states nonsense"),
    ],
)
def test_metadata_of_another_version_is_refused(tmp_path: Path, metadata: bytes, text: str) -> None:
    with pytest.raises(InputError, match=text):
        patched(tmp_path, make_wheel(tmp_path, metadata=metadata))


@pytest.mark.parametrize(
    ("name", "dist_info", "text"),
    [
        ("other-1.2.3-py3-none-any.whl", INFO, "does not belong to this file name"),
        ("demo-1.2.3-py3-none-any.whl", "demo-1.2.2.dist-info", "does not belong"),
        ("demo-1.2.3.whl", INFO, "not a wheel's file name"),
        ("demo-1.2.3-py3-none-any.zip", INFO, "not a wheel's file name"),
    ],
)
def test_a_wheel_that_contradicts_its_name_is_refused(
    tmp_path: Path, name: str, dist_info: str, text: str
) -> None:
    with pytest.raises(InputError, match=text):
        patched(tmp_path, make_wheel(tmp_path, name=name, dist_info=dist_info))


@pytest.mark.parametrize("cut", [0, 10, 400, -30])
def test_a_truncated_wheel_is_refused(tmp_path: Path, cut: int) -> None:
    wheel = make_wheel(tmp_path)
    wheel.write_bytes(wheel.read_bytes()[:cut])
    with pytest.raises(InputError, match="not a readable zip file"):
        patched(tmp_path, wheel)


def test_a_missing_wheel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        patched(tmp_path, tmp_path / "demo-1.2.3-py3-none-any.whl")


def damage(wheel: Path, name: str, byte: int) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = archive.getinfo(name)
    raw = bytearray(wheel.read_bytes())
    raw[info.header_offset + 30 + len(name) + byte] ^= 0x55
    wheel.write_bytes(raw)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_content_is_refused_and_leaves_nothing(tmp_path: Path, method: int) -> None:
    wheel = make_wheel(tmp_path, method=method)
    damage(wheel, "demo/data/csrc/kernel.cu", 20)
    with pytest.raises(InputError, match=r"'demo/data/csrc/kernel\.cu' (is damaged|does not)"):
        patched(tmp_path, wheel)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_member_under_another_name_at_its_place_is_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    raw = wheel.read_bytes()
    at = raw.index(b"demo/gate.py")
    wheel.write_bytes(raw[:at] + b"demo/gatX.py" + raw[at + 12 :])
    with pytest.raises(InputError, match=r"'demo/gate\.py' is called 'demo/gatX\.py'"):
        patched(tmp_path, wheel, {})


def central(wheel: Path, name: str, field: int, value: int, size: str) -> None:
    """Set a field of a member's central directory record."""
    raw = bytearray(wheel.read_bytes())
    at = raw.rindex(name.encode()) - 46
    assert raw[at : at + 4] == b"PK\1\2"
    struct.pack_into(size, raw, at + field, value)
    wheel.write_bytes(raw)


@pytest.mark.parametrize(
    ("field", "value", "size", "text"),
    [
        (8, 1, "<H", "is encrypted"),
        (10, 12, "<H", "compressed by method 12"),
        (24, 10, "<L", "is longer than it says"),
        (16, 1, "<L", "does not match its size and CRC"),
        (20, 8, "<L", "does not end where it says"),
    ],
)
def test_a_directory_that_lies_is_refused(
    tmp_path: Path, field: int, value: int, size: str, text: str
) -> None:
    wheel = make_wheel(tmp_path)
    central(wheel, "demo/data/csrc/kernel.cu", field, value, size)
    with pytest.raises(InputError, match=text):
        patched(tmp_path, wheel)


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, method=zipfile.ZIP_STORED)
    with zipfile.ZipFile(wheel) as archive:
        offset = archive.getinfo("demo/_meta.py").header_offset
    central(wheel, "demo/gate.py", 42, offset, "<L")
    with pytest.raises(InputError, match="overlaps another one"):
        patched(tmp_path, wheel)


def test_a_bomb_is_stopped_at_its_stated_size(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {**FILES, "demo/bomb.txt": b"\0" * 300_000_000})
    central(wheel, "demo/bomb.txt", 24, 1000, "<L")
    code = (
        "import sys,pathlib;from stackpatch.artefacts.rawzip import RawZip\n"
        "from stackpatch.errors import InputError\n"
        "z=RawZip(pathlib.Path(sys.argv[1]))\n"
        "try: z.copy(z.members['demo/bomb.txt'], len)\n"
        "except InputError as e: print(e)\n"
        "print(pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(wheel)], capture_output=True, text=True, check=True
    )
    said, peak = done.stdout.splitlines()
    assert "longer than it says" in said
    assert int(peak) < 60_000


def test_a_full_disk_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: rawzip.ZipWriter, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rawzip.ZipWriter, "_write", full)
    with pytest.raises(EnvironmentProblem, match="no space left"):
        patched(tmp_path, make_wheel(tmp_path))
    assert list((tmp_path / "out").iterdir()) == []


WEIGH = """\
import sys
from pathlib import Path
from stackpatch.artefacts.wheel import repack
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
before = peak()
source, target = Path(sys.argv[1]), Path(sys.argv[2])
repack(source, {"demo/gate.py": b"x = 1\\n"}, local_version="1.2.3+sp.1", target=target, epoch=0)
print(peak() - before)
"""


def test_a_large_compiled_file_is_never_whole_in_memory(tmp_path: Path) -> None:
    """120 MB of machine code cost less than 24 MB more than a start of Python; a wheel of vLLM with
    475 MB took 26 MB in all."""
    big = b"\x7fELF" + bytes(120 << 20)
    source = make_wheel(
        tmp_path / "in",
        {**FILES, "demo/kernels.so": big},
        name="demo-1.2.3-cp38-abi3-manylinux_2_31_x86_64.whl",
        method=zipfile.ZIP_STORED,
    )
    argv = [sys.executable, "-c", WEIGH, str(source), str(tmp_path / "out")]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=120)
    assert int(done.stdout) < 24_000
    (made,) = (tmp_path / "out").glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        assert archive.getinfo("demo/kernels.so").file_size == len(big)
