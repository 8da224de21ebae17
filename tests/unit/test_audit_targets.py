"""Every kind of target gives its files once, and says what it could not look into."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import struct
import tarfile
import threading
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.images import LayoutMaker, tar_layer

from stackpatch.artefacts.images import RemoteImage
from stackpatch.artefacts.layout import Layout
from stackpatch.checks import targets, zips
from stackpatch.checks.audit import Audit, Policy, Standing, audit
from stackpatch.checks.code import DamagedError
from stackpatch.checks.inflate import GZIP, Inflated, opened
from stackpatch.checks.members import Member, Unread
from stackpatch.checks.targets import TargetKind, target_kind
from stackpatch.checks.zips import zip_members
from stackpatch.errors import InputError
from stackpatch.model.arch import ARCHES, parse_arch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GPU = Path(__file__).parent.parent / "data" / "gpu"
FATBIN = (GPU / "13.0-all.fatbin").read_bytes()
SM121A = (GPU / "13.0-sm_121a.cubin").read_bytes()
SM90A = (GPU / "13.0-sm_90a.cubin").read_bytes()
SM120F = (GPU / "13.0-sm_120f.cubin").read_bytes()
PLAIN = b"print('no code')\n" * 10
FILES = {"p/a.so": FATBIN, "p/b.cubin": SM90A, "p/c.py": PLAIN, "p/d/e.bin": bytes(99) + SM121A}


def look(target: Path | str, arch: str = "sm121", **policy: Any) -> Audit:
    return audit(str(target), ARCHES[arch], Policy(**policy))


def standings(found: Audit) -> dict[str, str]:
    return {file.path: str(file.standing) for file in found.files}


def unread(found: Audit) -> dict[str, str]:
    return {entry.path: entry.why for entry in found.unread}


EXPECTED = {"p/a.so": "native", "p/b.cubin": "missing", "p/d/e.bin": "native"}


def make_zip(path: Path, files: Mapping[str, bytes], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


# Zips and wheels


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ["x-1-py3-none-any.whl", "x.zip", "no_suffix"])
def test_a_wheel(tmp_path: Path, method: int, name: str) -> None:
    found = look(make_zip(tmp_path / name, FILES, compression=method))
    assert found.kind is TargetKind.ZIP
    assert standings(found) == EXPECTED
    assert found.missing == ("p/b.cubin",)
    assert found.looked_at == 4
    assert found.unread == ()
    assert not list(tmp_path.iterdir())[1:]  # nothing was unpacked


def test_a_wheel_with_large_members_is_streamed(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(1 << 20)
    large = noise * 40 + SM121A + noise * 40 + FATBIN
    path = make_zip(tmp_path / "x.whl", {"a.so": large}, compression=zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    try:
        found = look(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(found.files[0].findings.units.values()) == 2
    assert found.files[0].findings.size == len(large)
    assert peak < 8 << 20


def test_an_empty_zip_has_no_code(tmp_path: Path) -> None:
    assert look(make_zip(tmp_path / "x.whl", {})).files == ()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_said_to_be_unread(tmp_path: Path, method: int) -> None:
    found = look(make_zip(tmp_path / "x.zip", {"a.so": FATBIN}, compression=method))
    assert unread(found) == {"a.so": f"zip compression method {method} is not read"}
    assert found.missing == ()
    assert look(tmp_path / "x.zip", strict=True).missing == ("a.so",)


def test_a_wheel_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = make_zip(tmp_path / "x.whl", FILES, compression=zipfile.ZIP_DEFLATED).read_bytes()
    cut = tmp_path / "cut.whl"
    for size in [*range(0, len(data), 97), len(data) - 1]:
        cut.write_bytes(data[:size])
        if size < 4:
            assert target_kind(str(cut)) is TargetKind.FILE
            continue
        with pytest.raises(InputError, match="not a whole zip") as caught:
            look(cut)
        assert caught.value.where == str(cut)


def test_a_damaged_member_is_unknown_and_the_others_are_read(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.whl", FILES, compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    start = data.index(b"p/a.so") + 6
    data[start + 100 : start + 200] = b"\xff" * 100
    path.write_bytes(data)
    found = look(path)
    assert standings(found) == EXPECTED | {"p/a.so": found.files[0].standing}
    assert found.files[0].findings.damage
    assert found.files[0].standing in (Standing.UNKNOWN, Standing.NATIVE)


def _patched(path: Path, name: bytes, field: int, form: str, value: int) -> None:
    """Change a field of the member's entry in the central directory."""
    data = bytearray(path.read_bytes())
    at = data.rindex(name) - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    struct.pack_into(form, data, at + field, value)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("field", "form", "value", "message"),
    [
        (16, "<I", 1, "checksum does not fit"),
        (24, "<I", 10, "declares another size"),
        (24, "<I", 0xFFFFFF0, "declares another size"),
        (20, "<I", 30, "ends early"),
        (8, "<H", 1, "encrypted"),
        (42, "<I", 7, "no member at byte 7"),
    ],
)
def test_a_central_directory_that_lies(
    tmp_path: Path, field: int, form: str, value: int, message: str
) -> None:
    path = make_zip(tmp_path / "x.whl", {"p/a.so": FATBIN}, compression=zipfile.ZIP_DEFLATED)
    _patched(path, b"p/a.so", field, form, value)
    found = look(path)
    told = [*unread(found).values(), *(d for f in found.files for d in f.findings.damage)]
    assert any(message in line for line in told), told
    assert look(path, strict=True).missing == ("p/a.so",) or found.files[0].standing == "native"


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    files = {f"{i}.so": bytes(100) + FATBIN for i in range(4)}
    path = make_zip(tmp_path / "x.zip", files)
    size = path.stat().st_size
    for name in files:
        _patched(path, name.encode(), 20, "<I", size)
    with pytest.raises(InputError, match="some overlap"):
        look(path)


def test_two_members_of_one_name_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.so", SM90A)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.so", SM121A)
    found = look(path)
    assert unread(found) == {"a.so": "the zip has two members of this name"}
    assert found.files == ()


def test_a_member_without_a_name_is_read(tmp_path: Path) -> None:
    """A mutated wheel had one; zipfile's own `is_dir` fails on it."""
    path = make_zip(tmp_path / "x.whl", {"?.none": SM90A, "a.so": SM121A})
    path.write_bytes(path.read_bytes().replace(b"?.none", b"\0.none"))  # read up to the NUL
    assert standings(look(path)) == {"": "missing", "a.so": "native"}


def test_a_bomb_costs_time_for_what_it_declares_and_no_memory(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a.so": bytes(1 << 28)}, compression=zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    try:
        found = look(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.files == ()
    assert peak < 8 << 20
    _patched(path, b"a.so", 24, "<I", 1 << 20)
    (file,) = look(path).files
    assert "declares another size" in file.findings.damage[0]
    assert file.findings.size < 8 << 20


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    flips=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=6),
    tail=st.lists(st.tuples(st.integers(1, 400), st.integers(0, 255)), max_size=6),
)
def test_mutated_zips_are_read_or_refused(
    tmp_path: Path, flips: list[tuple[int, int]], tail: list[tuple[int, int]]
) -> None:
    path = tmp_path / "x.whl"
    make_zip(path, FILES, compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    for at, value in flips:
        data[at % len(data)] = value
    for back, value in tail:
        data[-back] = value
    path.write_bytes(data)
    try:
        found = look(path)
    except InputError:
        return
    assert set(standings(found).values()) <= {str(s) for s in Standing}


# Folders and single files


def test_a_folder(tmp_path: Path) -> None:
    found = look(make_folder(tmp_path / "t", FILES))
    assert found.kind is TargetKind.FOLDER
    assert standings(found) == EXPECTED


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("k.cubin", SM121A, "native"),
        ("k.cubin", SM90A, "missing"),
        ("hidden.dat", SM121A, "native"),
        ("k.ptx", (GPU / "13.0-compute_121a.ptx").read_bytes(), "ptx"),
        ("k.o", bytes(64) + FATBIN, "native"),
    ],
)
def test_a_single_file(tmp_path: Path, name: str, content: bytes, wanted: str) -> None:
    (tmp_path / name).write_bytes(content)
    found = look(tmp_path / name)
    assert found.kind is TargetKind.FILE
    assert standings(found) == {name: wanted}


def test_links_count_once_and_lead_out_of_the_folder(tmp_path: Path) -> None:
    """uv's environments hold links into its cache; a loop ends."""
    cache = make_folder(tmp_path / "cache", {"k.cubin": SM121A, "d/l.cubin": SM90A})
    root = make_folder(tmp_path / "t", {"a.cubin": SM90A})
    (root / "again.cubin").symlink_to("a.cubin")
    (root / "out.cubin").symlink_to(cache / "k.cubin")
    (root / "loop").symlink_to(root)
    (root / "twice").symlink_to(cache / "d")
    (root / "twice2").symlink_to(cache / "d")
    (root / "nowhere").symlink_to(tmp_path / "absent")
    found = look(root)
    assert standings(found) == {
        "a.cubin": "missing",
        "out.cubin": "native",
        "twice/l.cubin": "missing",
    }
    assert found.unread == ()


def test_a_link_as_the_target_itself(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "t", {"a.cubin": SM90A})
    (tmp_path / "link").symlink_to(root)
    assert standings(look(tmp_path / "link")) == {"a.cubin": "missing"}


def test_pipes_and_odd_names_do_not_stop_it(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "t", {"a\nb\x1b[2J.cubin": SM90A})
    os.mkfifo(root / "pipe")
    (Path(os.fsdecode(os.fsencode(root) + b"/\xff.cubin"))).write_bytes(SM121A)
    found = look(root)
    assert len(found.files) == 2


def test_unreadable_files_are_told(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "t", {"a.cubin": SM90A, "b/c.cubin": SM90A, "d.cubin": SM121A})
    (root / "a.cubin").chmod(0)
    (root / "b").chmod(0)

    def told_well() -> bool:
        found = look(root)
        told = unread(found)
        named = set(told) == {"a.cubin", "b"} and all("denied" in why for why in told.values())
        return named and standings(found) == {"d.cubin": "native"}

    if os.geteuid() != 0:
        assert told_well()
        return
    # Root may read everything, so another user looks.
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_mode & 0o055 == 0:  # pytest's own folders, of which xdist adds one
            path.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setuid(65534)
            status = 0 if told_well() else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("holder", ["folder", "wheel", "tar"])
def test_archives_inside_are_said_to_be_unread(tmp_path: Path, holder: str) -> None:
    inner = make_zip(tmp_path / "inner.zip", {"k.cubin": SM90A}, compression=zipfile.ZIP_DEFLATED)
    files = {"a.whl": inner.read_bytes(), "p/b.TAR.gz": b"", "k.cubin": SM121A, "c.tar.xz": b""}
    if holder == "folder":
        target = make_folder(tmp_path / "dist", files)
    elif holder == "wheel":
        target = make_zip(tmp_path / "x.whl", files, compression=zipfile.ZIP_DEFLATED)
    else:
        target = tmp_path / "x.tar"
        target.write_bytes(tar_layer(files))
    found = look(target)
    assert set(unread(found)) == {"a.whl", "p/b.TAR.gz", "c.tar.xz"}
    assert "audit it by itself" in unread(found)["a.whl"]
    assert standings(found) == {"k.cubin": "native"}
    assert look(target, strict=True).missing == ("a.whl", "c.tar.xz", "p/b.TAR.gz")
    assert look(target, strict=True, ignore=("*.whl", "*.[tT]*")).missing == ()


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_compressed_file_is_read_as_what_it_expands_to(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "k.cubin.packed"
    path.write_bytes(pack(SM90A))
    assert standings(look(path)) == {"k.cubin.packed": "missing"}
    path.write_bytes(pack(SM90A)[:-40])
    found = look(path)
    assert standings(found) == {"k.cubin.packed": "unknown"}
    assert found.missing == ()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.tar.xz", lzma.compress(SM90A), "packed with xz"),
        ("x.tar.bz2", bz2.compress(SM90A), "packed with bzip2"),
        ("x.7z", b"7z\xbc\xaf\x27\x1c" + bytes(40), "packed with 7z"),
        ("x.deb", b"!<arch>\ndebian-binary   1 ", "packed with deb"),
        ("x.whl", b"<html>404</html>", "begins like none"),
        ("x.tar.gz", b"", "begins like none"),
    ],
)
def test_what_is_packed_in_another_way_is_not_called_free_of_code(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        look(tmp_path / name)


# Tars


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_a_tar(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "x.tar").write_bytes(pack(tar_layer(FILES)))
    found = look(tmp_path / "x.tar")
    assert found.kind is TargetKind.TAR
    assert standings(found) == EXPECTED


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_a_tar_that_ends_early_says_so(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    data = pack(tar_layer(FILES))
    for size in (len(data) // 2, len(data) * 3 // 4):
        (tmp_path / "x.tar").write_bytes(data[:size])
        found = look(tmp_path / "x.tar")
        assert found.unread or any(file.findings.damage for file in found.files)


def test_a_tar_of_many_files_is_not_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_layer(dict.fromkeys(map(str, range(10_000)), b"")))
    tracemalloc.start()
    try:
        assert look(tmp_path / "x.tar").looked_at == 10_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 << 20


def test_a_damaged_header_in_the_middle_is_told(tmp_path: Path) -> None:
    """tarfile alone would take it for the end and say nothing of the files behind it."""
    data = bytearray(tar_layer(FILES))
    data[data.index(b"p/d/e.bin") + 150] ^= 0x55  # in the header's checksum
    (tmp_path / "x.tar").write_bytes(data)
    found = look(tmp_path / "x.tar")
    assert "p/d/e.bin" not in standings(found)
    assert "damaged" in unread(found)[""]


def test_a_tar_without_its_end_mark_may_be_cut_off(tmp_path: Path) -> None:
    data = tar_layer({"a.cubin": SM121A})
    (tmp_path / "x.tar").write_bytes(data.rstrip(b"\0").ljust(512 + 5120, b"\0"))
    assert "no end mark" in unread(look(tmp_path / "x.tar"))[""]
    # A layer is known to be whole by its digest.
    layer = data.rstrip(b"\0").ljust(512 + 5120, b"\0")
    assert look(image(tmp_path, layer)).unread == ()


def test_a_tar_header_that_claims_a_long_name_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    (tmp_path / "x.tar").write_bytes(info.tobuf() + bytes(1 << 20))
    tracemalloc.start()
    try:
        found = look(tmp_path / "x.tar")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "tar header of" in unread(found)[""]
    assert peak < 8 << 20


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    flips=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 1 << 16),
)
def test_mutated_tars_never_fail(tmp_path: Path, flips: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(tar_layer(FILES))
    for at, value in flips:
        data[at % len(data)] = value
    (tmp_path / "x.tar").write_bytes(data[: len(data) - cut % 30000])
    look(tmp_path / "x.tar")


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=3000),
    flips=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=3),
    piece=st.integers(1, 5000),
)
def test_compressed_streams_give_their_bytes_or_damage(
    data: bytes, flips: list[tuple[int, int]], piece: int
) -> None:
    for pack in (gzip.compress, zstandard.compress):
        for changed in ([], flips):
            packed = bytearray(pack(data) + pack(data))
            for at, value in changed:
                packed[at % len(packed)] = value
            source, found = opened(io.BytesIO(bytes(packed))), b""
            try:
                while part := source.read(piece):
                    found += part
            except DamagedError:
                assert changed
            else:
                assert changed or found == data * 2


def test_a_gzip_stream_that_ends_early_is_damage() -> None:
    packed = gzip.compress(bytes(100))
    source = Inflated(io.BytesIO(packed[:-9]).read, GZIP)
    assert source.read(1000) == bytes(100)
    with pytest.raises(DamagedError, match="ends early"):
        source.read(1000)


SKIPPABLE = struct.pack("<II", 0x184D2A50, 10) + bytes(10)


def all_of(packed: bytes) -> bytes:
    source, found = opened(io.BytesIO(packed)), b""
    while piece := source.read(7):
        found += piece
    return found


@pytest.mark.parametrize("cut", [*range(1, 18), *range(19, 40)])  # at 18 the first frame is whole
def test_zstd_that_ends_early_is_damage_wherever_it_is_cut(cut: int) -> None:
    content = random.Random(3).randbytes(100)
    packed = zstandard.compress(content) + SKIPPABLE
    assert all_of(packed + packed) == content * 2
    with pytest.raises(DamagedError, match="ends early"):
        all_of(packed[:-cut])


def test_a_zstd_bomb_takes_no_memory_to_speak_of() -> None:
    source, passed = opened(io.BytesIO(zstandard.compress(bytes(1 << 28)))), 0
    tracemalloc.start()
    try:
        while piece := source.read(1 << 18):
            passed += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert passed == 1 << 28
    assert peak < 100 << 20


# Images


def image(tmp_path: Path, *layers: bytes, **options: Any) -> Path:
    maker = LayoutMaker(tmp_path / "image")
    return maker.write(maker.image(layers, architecture="arm64", variant="v8", **options))


GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
PLAIN_LAYER = "application/vnd.oci.image.layer.v1.tar"


@pytest.mark.parametrize("media", [GZIP_LAYER, PLAIN_LAYER])
def test_an_image(tmp_path: Path, media: str) -> None:
    found = look(image(tmp_path, tar_layer(FILES), layer_media=media))
    assert found.kind is TargetKind.IMAGE
    assert standings(found) == EXPECTED
    assert found.unread == ()


def test_a_zstd_layer(tmp_path: Path) -> None:
    packed = zstandard.compress(tar_layer(FILES))
    found = look(image(tmp_path, packed, layer_media=PLAIN_LAYER + "+zstd"))
    assert standings(found) == EXPECTED


def test_upper_layers_hide_what_lies_below(tmp_path: Path) -> None:
    base = {
        "opt/kept.cubin": SM121A,
        "opt/replaced.cubin": SM90A,
        "opt/gone.cubin": SM90A,
        "opt/folder/x.cubin": SM90A,
        "opt/opaque/x.cubin": SM90A,
        "opt/file/x.cubin": SM90A,
        "opt/plain.cubin": SM90A,
        "opt/touched/x.cubin": SM120F,
    }
    upper: dict[str, bytes | None] = {
        "opt/replaced.cubin": SM121A,
        "opt/.wh.gone.cubin": b"",
        "opt/.wh.folder": b"",
        "opt/opaque": None,
        "opt/opaque/.wh..wh..opq": b"",
        "opt/opaque/new.cubin": SM120F,
        "opt/file -> elsewhere": b"",
        "opt/plain.cubin": None,
        "opt/touched": None,
    }
    found = look(image(tmp_path, tar_layer(base), tar_layer(upper)))
    assert standings(found) == {
        "opt/kept.cubin": "native",
        "opt/replaced.cubin": "native",
        "opt/opaque/new.cubin": "native",
        "opt/touched/x.cubin": "native",
    }


def test_a_whiteout_hides_nothing_of_its_own_layer_or_above(tmp_path: Path) -> None:
    one = {"a/x.cubin": SM90A}
    two = {"a/.wh.x.cubin": b"", "b/.wh..wh..opq": b"", "b/y.cubin": SM121A}
    three = {"a/x.cubin": SM121A}
    found = look(image(tmp_path, tar_layer(one), tar_layer(two), tar_layer(three)))
    assert standings(found) == {"a/x.cubin": "native", "b/y.cubin": "native"}


def test_names_with_dots_and_slashes_are_the_same_path(tmp_path: Path) -> None:
    below = tar_layer({"./opt/x.cubin": SM90A})
    found = look(image(tmp_path, below, tar_layer({"opt/x.cubin": SM121A})))
    assert standings(found) == {"opt/x.cubin": "native"}


def _hard_link(name: str, of: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(of)
        info.size = len(SM90A)
        tar.addfile(info, io.BytesIO(SM90A))
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.LNKTYPE, of
        tar.addfile(link)
    return out.getvalue()


def test_a_hard_link_has_the_code_of_its_target(tmp_path: Path) -> None:
    found = look(image(tmp_path, _hard_link("b.cubin", "a.cubin")))
    assert standings(found) == {"a.cubin": "missing", "b.cubin": "missing"}


def test_a_hard_link_to_a_hidden_file_is_said_to_be_unread(tmp_path: Path) -> None:
    layers = (_hard_link("b.cubin", "a.cubin"), tar_layer({".wh.a.cubin": b""}))
    found = look(image(tmp_path, *layers))
    assert found.files == ()
    assert "hard link to a.cubin" in unread(found)["b.cubin"]


def test_a_layer_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Our own overlay images name their base's layers and do not hold them."""
    layout = image(tmp_path, tar_layer({"base.cubin": SM90A}), tar_layer({"a.cubin": SM121A}))
    blobs = sorted((layout / "blobs" / "sha256").iterdir())
    gone = [b for b in blobs if b"base.cubin" in (_gunzipped(b.read_bytes()) or b"")]
    gone[0].unlink()
    found = look(layout)
    assert standings(found) == {"a.cubin": "native"}
    (why,) = unread(found).values()
    assert why.startswith(f"this layer was not read: {layout} does not hold sha256:")
    assert found.missing == ()
    assert look(layout, strict=True).missing == (f"sha256:{gone[0].name}",)


def _gunzipped(data: bytes) -> bytes | None:
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else None


@pytest.mark.parametrize("change", ["flip", "cut", "longer"])
def test_a_layer_that_is_not_what_its_digest_says(tmp_path: Path, change: str) -> None:
    layout = image(tmp_path, tar_layer({"a.cubin": SM121A}))
    (blob,) = (b for b in (layout / "blobs" / "sha256").iterdir() if _gunzipped(b.read_bytes()))
    data = bytearray(blob.read_bytes())
    match change:
        case "flip":
            data[4] ^= 1  # gzip's time: the content stays whole
        case "cut":
            data = data[:-20]
        case _:
            data += bytes(10)
    blob.write_bytes(data)
    assert "cannot be read to its end" in unread(look(layout))[f"sha256:{blob.name}"]


def test_the_image_for_the_archs_platform_is_taken(tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "image")
    arm = maker.image([tar_layer({"a.cubin": SM121A})], architecture="arm64", variant="v8")
    amd = maker.image([tar_layer({"a.cubin": SM90A})])
    layout = maker.write(arm, amd)
    assert standings(look(layout, "sm121")) == {"a.cubin": "native"}
    assert standings(look(layout, "sm120")) == {"a.cubin": "missing"}
    assert standings(look(f"{layout}@{arm['digest']}", "sm121")) == {"a.cubin": "native"}
    with pytest.raises(InputError, match="no image for linux/amd64"):
        look(f"{layout}@{arm['digest']}", "sm120")


# What is no target


@pytest.mark.parametrize(
    ("target", "asked"),
    [
        ("nvcr.io/nvidia/vllm:26.09-py3", "nvcr.io/nvidia/vllm:26.09-py3"),
        ("docker://vllm/vllm-openai:v0.33.0", "vllm/vllm-openai:v0.33.0"),
        ("lmsysorg/sglang@sha256:" + "0" * 64, "lmsysorg/sglang@sha256:" + "0" * 64),
        ("vllm-openai:v1", "vllm-openai:v1"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b"),
    ],
)
def test_an_image_elsewhere_is_asked_for_by_its_reference(target: str, asked: str) -> None:
    seen = []

    def remote(text: str) -> RemoteImage:
        seen.append(text)
        msg = "no network in a unit test"
        raise InputError(msg)

    with pytest.raises(InputError, match="no network in a unit test"):
        audit(target, parse_arch("sm121", where="test"), Policy(), remote=remote)
    assert seen == [asked]
    with pytest.raises(InputError, match="does not exist"):
        look(target)  # nobody is there who could ask


@pytest.mark.parametrize(
    "target", ["vllm/vllm-openai", "nope", "./x:1", "/x:1", "a b:1", "X/y.whl"]
)
def test_what_names_no_image_is_not_asked_for(target: str) -> None:
    def remote(text: str) -> RemoteImage:
        raise AssertionError(text)

    with pytest.raises(InputError, match="does not exist") as caught:
        audit(target, parse_arch("sm121", where="test"), Policy(), remote=remote)
    assert "an image in a registry with its tag or digest" in str(caught.value.hint)


def test_an_image_in_a_registry_is_read_like_a_layout(tmp_path: Path) -> None:
    layout = image(tmp_path, tar_layer({"a.cubin": SM90A}), tar_layer({"b.cubin": SM121A}))
    opened = Layout.open(layout)
    remote = RemoteImage("host/name:1", opened.entries[0], opened)
    found = audit(
        "host.example/name:1",
        parse_arch("sm121", where="test"),
        Policy(),
        remote=lambda _: remote,
    )
    assert found.kind == "registry"
    assert standings(found) == standings(look(layout))
    assert [file.path for file in found.files] == ["a.cubin", "b.cubin"]


# Members that are inflated ahead


def test_members_come_in_the_zips_order_whatever_is_inflated_first(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    sizes = [9 << 20, 10, 5 << 20, 3 << 20, 0, 2 << 20, 3 << 20, 3 << 20, 3 << 20, 3 << 20, 7]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, size in enumerate(sizes):
            archive.writestr(f"{number}.bin", bytes([number]) * size)
    seen = []
    for member in zip_members(path):
        assert isinstance(member, Member)
        content = b""
        while piece := member.source.read(100_000):
            assert len(piece) <= 100_000
            content += piece
        seen.append((member.path, set(content), len(content)))
    assert seen == [(f"{n}.bin", {n} if size else set(), size) for n, size in enumerate(sizes)]


def test_damage_ends_a_member_where_it_did_before(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.cubin", SM121A)
        archive.writestr("b.cubin", SM121A)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 16  # the checksum of the first, in the directory
    data[at] ^= 1
    path.write_bytes(bytes(data))
    found = look(path)
    by_path = {file.path: file for file in found.files}
    assert by_path["a.cubin"].findings.damage[0].endswith("the zip's checksum does not fit")
    assert by_path["a.cubin"].standing == "native"  # its code was read before
    assert by_path["b.cubin"].findings.damage == ()


def test_leaving_a_zip_early_ends_its_threads(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(f"{number}.bin", bytes(1 << 20))
    members = zip_members(path)
    next(members)
    members.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("inflate")]


@pytest.mark.parametrize("target", ["nope", "./no/such", "/no/such.whl", "a\0b", "x" * 5000])
def test_what_does_not_exist_is_named(target: str) -> None:
    with pytest.raises(InputError, match="does not exist"):
        look(target)


def test_a_device_is_no_target() -> None:
    with pytest.raises(InputError, match="neither a file nor a folder"):
        look("/dev/null")


def test_a_target_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(targets, "FileSource", refuse)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        look(tmp_path / "x")


def test_the_same_target_gives_the_same_answer(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "t", FILES)
    first = look(root)
    for name in sorted(FILES, reverse=True):
        content = (root / name).read_bytes()
        (root / name).unlink()
        (root / name).write_bytes(content)
    assert look(root) == first


def test_isal_and_zlib_agree_about_checksums() -> None:
    """The members' checksum is taken with ISA-L."""
    from isal import isal_zlib

    assert isal_zlib.crc32(FATBIN, isal_zlib.crc32(SM90A)) == zlib.crc32(SM90A + FATBIN)


def test_members_wait_as_entries_and_not_opened() -> None:
    count = 0

    def member(entry: zipfile.ZipInfo) -> Unread:
        nonlocal count
        count += 1
        return Unread(entry.filename, "for the test")

    entries = [zipfile.ZipInfo(f"demo/{number}.py") for number in range(1000)]
    for seen, found in enumerate(zips._in_order(entries, member), 1):
        assert found.path == f"demo/{seen - 1}.py"
        assert count <= seen + 1
    assert count == 1000
