"""Members of sdists and wheels, and every archive that must be refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import struct
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.sources.archive import Limits, Member, members
from stackpatch.sources.objects import EXECUTABLE, REGULAR, SYMLINK
from stackpatch.sources.shape import Refusal, Shape, clean

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SDIST = "pkg-1.0.tar.gz"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".tar.gz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.xz": lzma.compress,
}


def file(name: str, content: bytes = b"x\n", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    return info, content


def special(name: str, kind: bytes, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


def tar_bytes(*entries: tuple[tarfile.TarInfo, bytes], format_: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=format_, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def sdist(folder: Path, *entries: tuple[tarfile.TarInfo, bytes], name: str = SDIST) -> Path:
    path = folder / name
    suffix = next(suffix for suffix in COMPRESS if name.endswith(suffix))
    path.write_bytes(COMPRESS[suffix](tar_bytes(*entries)))
    return path


def wheel(
    folder: Path, *entries: tuple[str, bytes, int], name: str = "p-1-py3-none-any.whl"
) -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for entry, content, mode in entries:
            info = zipfile.ZipInfo(entry)
            info.external_attr, info.create_system = mode << 16, 3
            info.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(info, content)
    return path


def read(path: Path, **limits: int) -> dict[str, tuple[int, bytes]]:
    found = list(members(path, limits=Limits(**limits)))
    assert len({member.path for member in found}) == len(found)
    return {member.path: (member.mode, member.content) for member in found}


def refused(path: Path, *words: str, **limits: int) -> InputError:
    with pytest.raises(InputError) as caught:
        read(path, **limits)
    for word in (path.name, *words):
        assert word in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("suffix", list(COMPRESS))
def test_an_sdist_is_read_without_its_top_folder(tmp_path: Path, suffix: str) -> None:
    path = sdist(
        tmp_path,
        special("pkg-1.0", tarfile.DIRTYPE),
        file("pkg-1.0/setup.py", b"# \xff\r\n"),
        file("pkg-1.0/bin/run", b"#!/bin/sh\n", 0o755),
        file("./pkg-1.0//a/./b.py", b""),
        special("pkg-1.0/a/link", tarfile.SYMTYPE, "../setup.py"),
        name=f"pkg-1.0{suffix}",
    )
    assert read(path) == {
        "setup.py": (REGULAR, b"# \xff\r\n"),
        "bin/run": (EXECUTABLE, b"#!/bin/sh\n"),
        "a/b.py": (REGULAR, b""),
        "a/link": (SYMLINK, b"../setup.py"),
    }


def test_a_zip_sdist_is_read_without_its_top_folder(tmp_path: Path) -> None:
    path = wheel(
        tmp_path, ("pkg-1.0/", b"", 0o40755), ("pkg-1.0/a.py", b"1\n", 0o100644), name="pkg-1.0.zip"
    )
    assert read(path) == {"a.py": (REGULAR, b"1\n")}


def test_a_wheel_is_read_as_it_is(tmp_path: Path) -> None:
    path = wheel(
        tmp_path,
        ("pkg/__init__.py", b"1\n", 0o100644),
        ("pkg/tool", b"2\n", 0o100755),
        ("pkg/plain", b"3\n", 0),
        ("pkg/link", b"tool", 0o120777),
        ("p-1.dist-info/RECORD", b"", 0o100644),
    )
    assert read(path) == {
        "pkg/__init__.py": (REGULAR, b"1\n"),
        "pkg/tool": (EXECUTABLE, b"2\n"),
        "pkg/plain": (REGULAR, b"3\n"),
        "pkg/link": (SYMLINK, b"tool"),
        "p-1.dist-info/RECORD": (REGULAR, b""),
    }


def test_the_blob_id_is_gits(tmp_path: Path) -> None:
    (member,) = members(sdist(tmp_path, file("p/a", b"hello\n")))
    assert member == Member("a", REGULAR, b"hello\n", "ce013625030ba8dba906f756967f9e9ca394464a")


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_undecodable_names_survive(tmp_path: Path, format_: int) -> None:
    long = "p/" + "/".join(["folder" * 10] * 6) + "/name"
    odd = b"p/caf\xe9".decode("utf-8", "surrogateescape")
    path = tmp_path / SDIST
    path.write_bytes(gzip.compress(tar_bytes(file(long), file(odd), format_=format_)))
    assert set(read(path)) == {long[2:], odd[2:]}


def test_a_hard_link_is_a_copy(tmp_path: Path) -> None:
    path = sdist(
        tmp_path,
        file("p/a", b"content\n", 0o755),
        special("p/sub/b", tarfile.LNKTYPE, "p/a"),
    )
    assert read(path)["sub/b"] == (EXECUTABLE, b"content\n")


def test_a_hard_link_to_nothing_in_the_archive_is_refused(tmp_path: Path) -> None:
    for target in ("p/absent", "../../etc/passwd", "/etc/passwd"):
        refused(sdist(tmp_path, file("p/a"), special("p/b", tarfile.LNKTYPE, target)))


def test_the_same_member_twice_is_taken_once(tmp_path: Path) -> None:
    assert list(read(sdist(tmp_path, file("p/a"), file("p/./a")))) == ["a"]


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ((file("p/a", b"1"), file("p/a", b"2")), "twice"),
        ((file("p/a", b"1"), file("p/a", b"1", 0o755)), "twice"),
        ((file("p/a"), special("p/a", tarfile.SYMTYPE, "x")), "twice"),
        ((file("p/a"), file("p/a/b")), "file and a folder"),
        ((file("p/a/b"), file("p/a")), "file and a folder"),
        ((special("p/a", tarfile.SYMTYPE, "b"), file("p/a/c")), "file and a folder"),
        ((file("p/a"), special("p/a", tarfile.DIRTYPE)), "file and a folder"),
        ((file("p/a"), file("q/b")), "one top folder"),
        ((file("setup.py"),), "one folder"),
        ((special("p/x", tarfile.CHRTYPE),), "device"),
        ((special("p/x", tarfile.BLKTYPE),), "device"),
        ((special("p/x", tarfile.FIFOTYPE),), "named pipe"),
        ((special("p/x", b"Z"),), "kind"),
    ],
)
def test_members_that_make_no_tree_are_refused(
    tmp_path: Path, entries: tuple[tuple[tarfile.TarInfo, bytes], ...], word: str
) -> None:
    refused(sdist(tmp_path, *entries), word)


EVIL_NAMES = [
    "p/../../x",
    "p/..",
    "../p/x",
    "/etc/passwd",
    "//p/x",
    "C:\\x",
    "c:/x",
    "p/.git/config",
    "p/.GIT/config",
    "p/sub/.Git/hooks/x",
    "p/.git",
    "p/.git /config",
    "p/.git./config",
    "p/git~1/config",
    "p/GIT~1/config",
    "p/.git::$INDEX_ALLOCATION/config",
    "p/.g\u200cit/config",
    "p/.gi\ufefft/config",
    "p/a\\..\\..\\x",
    "p/a\\.git\\config",
]


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_a_path_that_leaves_the_tree_is_refused_in_a_tar(tmp_path: Path, name: str) -> None:
    error = refused(sdist(tmp_path, file("p/good"), file(name)))
    assert name.replace("\\", "\\\\").encode("ascii", "ignore")[:3].decode() in error.message


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_a_path_that_leaves_the_tree_is_refused_in_a_wheel(tmp_path: Path, name: str) -> None:
    refused(wheel(tmp_path, ("p/good", b"", 0o100644), (name, b"x", 0o100644)))


@pytest.mark.parametrize(
    "name", [".gitignore", ".gitmodules", ".github/x", "git", "a.git", "...", "gitx~1"]
)
def test_a_path_that_only_looks_like_it_is_taken(name: str) -> None:
    assert clean(f"p/{name}") == f"p/{name}"


def test_a_nul_in_a_name_is_refused(tmp_path: Path) -> None:
    info, content = file("p/x")
    info.pax_headers = {"path": "p/a\0b"}
    refused(sdist(tmp_path, (info, content)), "NUL")
    # zipfile writes and reads names only up to the NUL: make one by hand.
    path = wheel(tmp_path, ("pkg/aXb.py", b"", 0o100644))
    path.write_bytes(path.read_bytes().replace(b"aXb", b"a\0b"))
    refused(path, "NUL")


@pytest.mark.parametrize(
    "target",
    ["/etc/passwd", "../../x", "..", "../", "sub/../../..", "", ".git/config", "C:\\x", "a/.GIT"],
)
def test_a_link_that_leaves_is_refused(tmp_path: Path, target: str) -> None:
    entries = [("p/d/l", target.encode(), 0o120777), ("p/sub/f", b"", 0o100644)]
    if target in {"..", "../"}:  # from d/l that is the top, which is inside: place it at the top
        entries[0] = ("p/l", target.encode(), 0o120777)
    refused(wheel(tmp_path, *entries, name="p-1.zip"), "link")
    if target:
        refused(
            sdist(tmp_path, file("p/sub/f"), special(entries[0][0], tarfile.SYMTYPE, target)),
            "link",
        )


def test_links_are_followed_as_the_kernel_does(tmp_path: Path) -> None:
    # By text alone `d/x/..` is d; really it is the parent of the top, because d/x is the top.
    chain = [
        special("p/d/x", tarfile.SYMTYPE, ".."),
        special("p/y", tarfile.SYMTYPE, "d/x/../secret"),
    ]
    refused(sdist(tmp_path, *chain), "'y'", "out of the tree")
    refused(sdist(tmp_path, *reversed(chain)), "'y'", "out of the tree")


def test_a_link_loop_is_refused(tmp_path: Path) -> None:
    loop = [special("p/a", tarfile.SYMTYPE, "b"), special("p/b", tarfile.SYMTYPE, "a")]
    refused(sdist(tmp_path, *loop), "circle")


def test_links_that_stay_are_taken(tmp_path: Path) -> None:
    path = sdist(
        tmp_path,
        file("p/x/f"),
        special("p/d/up", tarfile.SYMTYPE, "../x"),
        special("p/again", tarfile.SYMTYPE, "d/up/f"),
        special("p/dangling", tarfile.SYMTYPE, "nowhere/at/all"),
        special("p/top", tarfile.SYMTYPE, "x/.."),
    )
    assert {name for name, (mode, _) in read(path).items() if mode == SYMLINK} == {
        "d/up",
        "again",
        "dangling",
        "top",
    }


def test_special_files_in_a_wheel_are_refused(tmp_path: Path) -> None:
    for mode in (0o010644, 0o020644, 0o060644, 0o140644):
        refused(wheel(tmp_path, ("pkg/x", b"", mode)), "neither a file nor a link")


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path, ("pkg/x", b"content", 0o100644))
    raw = bytearray(path.read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    refused(path, "encrypted", "pkg/x")


# --- damage -------------------------------------------------------------------------------------


def _noise(size: int) -> bytes:
    return os.urandom(size)


@pytest.mark.parametrize("suffix", list(COMPRESS))
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_sdist_is_refused(tmp_path: Path, suffix: str, part: float) -> None:
    entries = [file(f"p/{number}", _noise(3000)) for number in range(20)]
    path = sdist(tmp_path, *entries, name=f"p-1{suffix}")
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * part)])
    refused(path, "damaged or cut off")


def test_every_truncation_of_a_small_sdist_is_refused(tmp_path: Path) -> None:
    path = sdist(tmp_path, file("p/a", b"a" * 700), file("p/b", b"b"))
    raw = path.read_bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        refused(path, "damaged or cut off")


def test_a_tar_that_was_cut_before_it_was_compressed_is_refused(tmp_path: Path) -> None:
    """gzip is content, the tar inside ends between two members or inside one."""
    raw = tar_bytes(*[file(f"p/{number}", _noise(600)) for number in range(4)])
    path = tmp_path / SDIST
    end = 4 * 1536  # header and two blocks of content each
    path.write_bytes(gzip.compress(raw[: end + 512]))
    assert len(read(path)) == 4
    for length in (end, end - 1, end - 512, 3 * 1536 + 512, 3 * 1536, 1536 + 100, 512, 100):
        path.write_bytes(gzip.compress(raw[:length]))
        refused(path, "damaged or cut off")


def test_a_broken_header_in_the_middle_is_not_the_end(tmp_path: Path) -> None:
    raw = bytearray(tar_bytes(file("p/a"), file("p/b"), file("p/c")))
    raw[1024 + 3] ^= 0xFF
    path = tmp_path / SDIST
    path.write_bytes(gzip.compress(bytes(raw)))
    refused(path, "damaged or cut off", "1,024")


def test_something_behind_the_end_of_a_tar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / SDIST
    path.write_bytes(gzip.compress(tar_bytes(file("p/a")) + tar_bytes(file("p/b"))))
    refused(path, "damaged or cut off")


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / SDIST
    stored = gzip.compress(tar_bytes(file("p/a", b"a" * 600)), compresslevel=0)
    path.write_bytes(stored.replace(b"aaaa", b"aaab", 1))
    refused(path, "damaged or cut off", "CRC")


def test_a_truncated_wheel_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path, *[(f"pkg/{number}", _noise(500), 0o100644) for number in range(5)])
    raw = path.read_bytes()
    for length in range(0, len(raw), 37):
        path.write_bytes(raw[:length])
        refused(path, "damaged or cut off")
    path.write_bytes(raw.replace(raw[40:60], bytes(20), 1))
    refused(path, "damaged or cut off")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    for name in (SDIST, "p-1.tar.xz", "p-1.tar.bz2", "p-1-py3-none-any.whl", "p-1.zip"):
        path = tmp_path / name
        path.write_bytes(b"<!DOCTYPE html><html><body>Sign in</body></html>")
        refused(path, "damaged or cut off")
    odd = tmp_path / "p-1.rpm"
    odd.write_bytes(b"")
    refused(odd, "neither a wheel nor an sdist")


def test_a_missing_archive_is_the_environments_fault(tmp_path: Path) -> None:
    for name in (SDIST, "p-1.zip"):
        with pytest.raises(EnvironmentProblem, match="No such file"):
            list(members(tmp_path / name))


# --- bombs --------------------------------------------------------------------------------------


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    refused(sdist(tmp_path, *[file(f"p/{n}") for n in range(6)]), "more than 5", members=5)
    assert len(read(sdist(tmp_path, *[file(f"p/{n}") for n in range(5)]), members=5)) == 5
    many = [(f"p/{n}", b"", 0o100644) for n in range(6)]
    refused(wheel(tmp_path, *many), "more than 5", members=5)


def test_a_file_that_is_too_large_is_refused_by_name(tmp_path: Path) -> None:
    refused(sdist(tmp_path, file("p/a"), file("p/big", bytes(2000))), "p/big", "2,000", file=1999)
    assert read(sdist(tmp_path, file("p/big", bytes(2000))), file=2000)
    refused(wheel(tmp_path, ("p/big", bytes(2000), 0o100644)), "p/big", file=1999)


def test_a_lying_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    info, _ = file("p/huge")
    info.size = 1 << 40
    header = info.tobuf(tarfile.GNU_FORMAT)
    path = tmp_path / SDIST
    path.write_bytes(gzip.compress(header + bytes(10240)))
    refused(path, "p/huge", "1,099,511,627,776")


def test_too_much_in_all_is_refused(tmp_path: Path) -> None:
    entries = [file(f"p/{n}", _noise(5000)) for n in range(5)]
    refused(sdist(tmp_path, *entries), "more than 20,000 bytes", total=20_000)
    parts = [(f"p/{n}", _noise(5000), 0o100644) for n in range(5)]
    refused(wheel(tmp_path, *parts), "more than 20,000 bytes", total=20_000)


def test_a_bomb_is_refused_by_its_ratio_before_it_has_burst(tmp_path: Path) -> None:
    bomb = sdist(tmp_path, file("p/zeros", bytes(90 << 20)))
    assert bomb.stat().st_size < 200_000
    refused(bomb, "times its size")
    refused(wheel(tmp_path, ("p/zeros", bytes(90 << 20), 0o100644)), "times its size")
    # Small things may compress as well as they like.
    assert read(sdist(tmp_path, file("p/zeros", bytes(1 << 20))))


def test_a_bomb_behind_the_end_of_the_tar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / SDIST
    path.write_bytes(gzip.compress(tar_bytes(file("p/a")) + bytes(90 << 20)))
    refused(path, "times its size")


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path, ("pkg/a", _noise(5000), 0o100644), ("pkg/b", _noise(10), 0o100644))
    raw = bytearray(path.read_bytes())
    for found in list(re.finditer(b"PK\x01\x02", raw))[1:]:  # the second's entry says 5,000 too
        raw[found.start() + 20 : found.start() + 24] = struct.pack("<I", 5005)
    path.write_bytes(raw)
    refused(path, "overlap")


def test_progress_counts_packed_bytes(tmp_path: Path) -> None:
    for path in (
        sdist(tmp_path, *[file(f"p/{n}", _noise(50_000)) for n in range(10)]),
        wheel(tmp_path, *[(f"p/{n}", _noise(50_000), 0o100644) for n in range(10)]),
    ):
        seen: list[tuple[int, int | None]] = []
        list(members(path, progress=lambda done, total: seen.append((done, total))))  # noqa: B023
        size = path.stat().st_size
        assert seen[-1] == (size, size)
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)


# --- properties ---------------------------------------------------------------------------------

_PARTS = st.sampled_from(["a", "b", "..", ".", "", ".git", "c d", "\u00e9"])
_NAMES = st.lists(_PARTS, min_size=1, max_size=4).map("/".join)


@given(_NAMES)
def test_a_clean_path_is_a_git_path(name: str) -> None:
    try:
        path = clean(name)
    except Refusal:
        assert ".." in name or ".git" in name or name.startswith("/")
        return
    assert ".." not in path.split("/")
    assert "" not in path.split("/") or path == ""
    assert clean(path) == path


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "d/a", "d/b", "d/e/a"]),
            st.lists(st.sampled_from(["..", "a", "b", "d", "e", "."]), min_size=1, max_size=5),
        ),
        max_size=5,
        unique_by=lambda entry: entry[0],
    )
)
def test_links_that_we_take_stay_inside_on_a_real_disk(
    tmp_path_factory: pytest.TempPathFactory, links: list[tuple[str, list[str]]]
) -> None:
    """The judgement against the kernel's: realpath of every link that we let in."""
    shape = Shape()
    try:
        for path, target in links:
            shape.add(path, SYMLINK, "x", "/".join(target))
        shape.finish()
    except Refusal:
        return
    top = tmp_path_factory.mktemp("links") / "tree"
    for path, target in links:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).symlink_to("/".join(target))
    for path, _ in links:
        assert os.path.realpath(top / path).startswith(str(top))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_never_gives_other_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever byte changes: the same files, or a refusal in words; never a crash."""
    folder = tmp_path_factory.mktemp("damage")
    if data.draw(st.booleans()):
        path = sdist(folder, file("p/a", b"alpha" * 50), file("p/b/c", b"beta"))
    else:
        path = wheel(folder, ("p/a", b"alpha" * 50, 0o100644), ("p/b/c", b"beta", 0o100644))
    contents = {content for _, content in read(path).values()}
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        found = read(path)
    except InputError as error:
        assert path.name in error.message  # noqa: PT017 - either outcome is right
    else:
        assert {content for _, content in found.values()} <= contents | {b""}
