"""Clearing on real folders: what goes, what stays, and nothing outside, ever.

The layout is that of flashinfer/jit/{env,core,cpp_ext}.py, 0.6.3 and 0.7.2.post1.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackpatch.errors import InputError
from stackpatch.installed import clear, guard, remove, survey
from stackpatch.installed.cache import Risk
from stackpatch.installed.caches import CACHES
from stackpatch.installed.locate import Location
from stackpatch.installed.surroundings import Surroundings
from stackpatch.installed.survey import Why

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping

MODULE_FILES = (
    "build.ninja",
    ".ninja_log",
    ".ninja_deps",
    "norm.so",
    "norm.cuda.o",
    "norm.cuda.o.d",
    "flashinfer_norm_binding.cuda.o",
)


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def module(folder: Path, name: str = "norm") -> Path:
    for file in MODULE_FILES:
        write(folder / "cached_ops" / name / file.replace("norm.", f"{name}."))
    write(folder / "cached_ops" / "tmp" / f"{name}.lock", "")
    write(folder / "generated" / name / "norm_config.inc")
    write(folder / "flashinfer_jit.log")
    return folder / "cached_ops" / name


class Home:
    """A home folder with a FlashInfer cache."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cache = path / ".cache" / "flashinfer"

    def around(self, versions: Mapping[str, str] | None = None, **environ: str) -> Surroundings:
        return Surroundings(environ, self.path, "u", self.path / "tmp", versions)

    def plan(
        self,
        stack: str | None = "flashinfer",
        *names: str,
        versions: Mapping[str, str] | None = None,
        **environ: str,
    ) -> clear.Plan:
        return clear.plan(clear.request(stack, names), self.around(versions, **environ))

    def clear(
        self,
        stack: str | None = "flashinfer",
        *names: str,
        versions: Mapping[str, str] | None = None,
        **environ: str,
    ) -> clear.Plan:
        return clear.carry_out(self.plan(stack, *names, versions=versions, **environ))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.cache.mkdir(parents=True)
    return made


def tree(folder: Path) -> dict[str, str]:
    """Every path below a folder with what it is; file contents included."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_text(errors="replace")
        else:
            found[name] = "folder" if path.is_dir() else "other"
    return found


def went(plan: clear.Plan, home: Home) -> list[str]:
    return [str(item.path.relative_to(home.path)) for item in plan.taken]


def stays(plan: clear.Plan, home: Home, *whys: Why) -> dict[str, str]:
    return {
        str(kept.path.relative_to(home.path)): kept.detail for kept in plan.kept if kept.why in whys
    }


# --- what goes ---------------------------------------------------------------------------------


def test_modules_and_rendered_sources_go_and_locks_logs_and_cubins_stay(home: Home) -> None:
    module(home.cache / "0.6.3" / "121a")
    write(home.cache / "cubins" / "abc" / "fmha" / "x.cubin")
    done = home.clear()
    assert went(done, home) == [
        ".cache/flashinfer/0.6.3/121a/cached_ops/norm",
        ".cache/flashinfer/0.6.3/121a/generated/norm",
    ]
    left = tree(home.cache)
    assert [name for name, what in left.items() if what != "folder"] == [
        "0.6.3/121a/cached_ops/tmp/norm.lock",
        "0.6.3/121a/flashinfer_jit.log",
        "cubins/abc/fmha/x.cubin",
    ]
    assert not done.incomplete


def test_the_dry_run_names_exactly_what_the_real_run_takes(home: Home) -> None:
    for version in ("0.6.3", "0.7.2.post1"):
        for arches in ("121a", "90a_120f", "89"):
            module(home.cache / version / arches, "norm")
            module(home.cache / version / arches, "fp4_quantization_120")
    write(home.cache / "0.6.3" / "89" / "cached_ops" / "norm" / "notes.txt")
    before = tree(home.path)
    planned = home.plan()
    assert tree(home.path) == before
    done = clear.carry_out(planned)
    assert done.taken == planned.taken
    assert done.kept == planned.kept
    files = [p for item in planned.taken for p in before if _below(p, went_one(item, home))]
    assert sorted(set(before) - set(tree(home.path))) == sorted(files)
    assert sum(item.bytes for item in planned.taken) == sum(
        len(before[path]) for path in files if before[path] != "folder"
    )


def went_one(item: clear.Taken, home: Home) -> str:
    return str(item.path.relative_to(home.path))


def _below(path: str, parent: str) -> bool:
    return path == parent or path.startswith(parent + "/")


def test_a_second_clear_finds_nothing(home: Home) -> None:
    module(home.cache / "0.6.3" / "121a")
    home.clear()
    before = tree(home.path)
    assert home.clear().taken == []
    assert tree(home.path) == before


def test_no_arch_was_known_so_the_modules_lie_below_the_version(home: Home) -> None:
    # "_".join(()) is "", and `<cache>/<version>/""` is the version's own folder
    module(home.cache / "0.6.3")
    assert ".cache/flashinfer/0.6.3/cached_ops/norm" in went(home.clear(), home)


def test_the_series_own_folder_stays(home: Home) -> None:
    module(home.cache / "0.6.3+sp.0123abcd" / "121a")
    module(home.cache / "0.6.3" / "121a")
    done = home.clear()
    assert all("+sp" not in path for path in went(done, home))
    assert stays(done, home, Why.CURRENT) == {
        ".cache/flashinfer/0.6.3+sp.0123abcd": (
            "named by its series, so made from exactly those sources"
        )
    }
    assert (home.cache / "0.6.3+sp.0123abcd/121a/cached_ops/norm/norm.so").exists()


def test_asked_by_name_the_series_own_folder_goes_too(home: Home) -> None:
    module(home.cache / "0.6.3+sp.0123abcd" / "121a")
    assert len(home.clear(None, "flashinfer-jit").taken) == 2


def test_an_interpreter_narrows_to_what_it_reads(home: Home) -> None:
    for version in ("0.5.3", "0.6.3", "0.6.3+sp.0123abcd"):
        module(home.cache / version / "121a")
    done = home.clear(versions={"flashinfer": "0.6.3"})
    assert {path.split("/")[2] for path in went(done, home)} == {"0.6.3"}
    assert set(stays(done, home, Why.NOT_READ)) == {
        ".cache/flashinfer/0.5.3",
        ".cache/flashinfer/0.6.3+sp.0123abcd",
    }


def test_an_interpreter_without_flashinfer_reads_nothing(home: Home) -> None:
    module(home.cache / "0.6.3" / "121a")
    done = home.clear(versions={"sglang": "0.5.9"})
    assert done.taken == []
    assert stays(done, home, Why.NOT_READ) == {
        ".cache/flashinfer/0.6.3": "that interpreter has no FlashInfer"
    }


def test_sglang_autotune_goes_even_for_a_patched_flashinfer(home: Home) -> None:
    # its key has FlashInfer's version, and nothing of SGLang's own sources
    folder = (
        home.path / ".cache/sglang/flashinfer/autotune/0.6.3+sp.0123abcd/sm121/0123456789abcdef"
    )
    write(folder / "rank_tp0_pp0_dp0.json", "{}")
    assert went(home.clear("sglang"), home) == [str(folder.relative_to(home.path))]


def test_only_sglangs_own_kernels_go_from_tvm_ffi(home: Home) -> None:
    base = home.path / ".cache/tvm-ffi"
    for name in ("sgl_kernel_jit_norm_4096_bf16_0123456789abcdef", "mine_0123456789abcdef"):
        write(base / name / "build.ninja")
        write(base / name / "cuda_0.o")
        write(base / name / "lock", "")
    write(base / "libtorch_c_dlpack_addon_torch28-cuda.so")
    done = home.clear("sglang")
    assert went(done, home) == [".cache/tvm-ffi/sgl_kernel_jit_norm_4096_bf16_0123456789abcdef"]
    named = home.clear("sglang", "tvm-ffi")
    assert went(named, home) == [".cache/tvm-ffi/mine_0123456789abcdef"]
    assert (base / "libtorch_c_dlpack_addon_torch28-cuda.so").exists()


def test_safe_caches_go_only_by_name(home: Home) -> None:
    entry = home.path / ".triton/cache" / ("A2" * 26)
    write(entry / "kernel.cubin")
    write(entry / "__grp__kernel.json")
    done = home.clear(None)
    assert done.taken == []
    assert "triton" in [cache.name for cache, _ in done.passed]
    assert went(home.clear(None, "triton"), home) == [str(entry.relative_to(home.path))]


def test_every_stale_cache_that_can_be_cleared_is_tried_by_default(home: Home) -> None:
    passed = {cache.name for cache, _ in home.plan(None).passed}
    expected = {c.name for c in CACHES.values() if c.risk is not Risk.STALE or not c.clearable}
    assert passed == expected


def test_autotune_of_flashinfer_0_7(home: Home) -> None:
    entry = home.cache / "autotune/v2/0123456789abcdef"
    write(entry / "manifest.json", "{}")
    write(entry / "entries" / ("0" * 24 + ".json"), "{}")
    write(home.cache / "autotune/v2/fedcba9876543210/unmarked.json", "{}")
    done = home.clear()
    assert went(done, home) == [".cache/flashinfer/autotune/v2/0123456789abcdef"]
    assert ".cache/flashinfer/autotune/v2/fedcba9876543210" in stays(done, home, Why.UNRECOGNISED)


def test_a_cache_that_is_one_file(home: Home) -> None:
    file = write(home.path / "tactics.json", '{"a": 1}')
    done = home.clear("trtllm", TLLM_AUTOTUNER_CACHE_PATH=str(file))
    assert went(done, home) == ["tactics.json"]
    assert not file.exists()
    assert home.clear("trtllm", TLLM_AUTOTUNER_CACHE_PATH=str(file)).taken == []


@pytest.mark.parametrize("kind", ["text", "link", "folder", "fifo", "relative"])
def test_a_variable_that_names_another_file_costs_nothing(home: Home, kind: str) -> None:
    target = write(home.path / "thesis.tex", "\\documentclass{book}")
    named = home.path / "named"
    match kind:
        case "text":
            named = target
        case "link":
            write(home.path / "real.json", "{}")
            named.symlink_to(home.path / "real.json")
        case "folder":
            named.mkdir()
        case "fifo":
            os.mkfifo(named)
        case _:
            named = Path("tactics.json")
    before = tree(home.path)
    done = home.clear("trtllm", TLLM_AUTOTUNER_CACHE_PATH=str(named))
    assert done.taken == []
    assert [r.cache.name for r in done.refused] == ["trtllm-autotuner"]
    assert done.incomplete
    assert tree(home.path) == before


# --- what is not recognised --------------------------------------------------------------------


def test_what_is_not_the_caches_stays_and_is_told(home: Home) -> None:
    folder = home.cache / "0.6.3" / "121a"
    own = module(folder)
    strangers = [
        write(home.cache / "notes.txt"),
        write(home.cache / "my-kernels" / "a.cu"),
        write(home.cache / "0.6.3" / "backup.tar"),
        write(folder / "cached_ops" / "todo.md"),
        write(folder / "cached_ops" / "thesis" / "main.tex"),  # a folder without build.ninja
        write(own / "profile.nsys-rep"),  # in the middle of a module
        write(own / "deep" / "er" / "mine.txt"),
    ]
    before = {path: path.read_text() for path in strangers}
    done = home.clear()
    assert {path: path.read_text() for path in strangers} == before
    told = stays(done, home, Why.UNRECOGNISED)
    for path in strangers:
        name = str(path.relative_to(home.path))
        assert any(name == t or name.startswith(t + "/") for t in told), name
    # all that was the module's own is gone, so that ninja builds it anew
    assert sorted(str(p.relative_to(own)) for p in own.rglob("*") if p.is_file()) == [
        "deep/er/mine.txt",
        "profile.nsys-rep",
    ]


def test_links_inside_stay_and_their_targets_too(home: Home, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "norm.so", "precious")
    own = module(home.cache / "0.6.3" / "121a")
    (own / "linked.so").symlink_to(outside)
    (own / "linked_folder").symlink_to(outside.parent)
    (home.cache / "0.6.3" / "121a" / "cached_ops" / "other").symlink_to(outside.parent)
    (home.cache / "0.5.3").symlink_to(tmp_path / "outside")
    (home.cache / "dangling").symlink_to("/nowhere")
    done = home.clear()
    assert outside.read_text() == "precious"
    assert (own / "linked.so").is_symlink()
    assert (own / "linked_folder").is_symlink()
    told = stays(done, home, Why.UNRECOGNISED)
    assert told[".cache/flashinfer/0.5.3"].startswith("a symbolic link")
    assert ".cache/flashinfer/0.6.3/121a/cached_ops/other" in told


def test_things_that_are_neither_file_nor_folder_stay(home: Home) -> None:
    own = module(home.cache / "0.6.3" / "121a")
    os.mkfifo(own / "pipe.so")
    place = own / "s.o"
    with contextlib.chdir(own), socket.socket(socket.AF_UNIX) as server:
        server.bind("s.o")
    done = home.clear()
    assert (own / "pipe.so").exists()
    assert place.exists()
    assert len(stays(done, home, Why.UNRECOGNISED)) == 2


def test_a_hard_link_loses_a_name_and_no_bytes(home: Home, tmp_path: Path) -> None:
    own = module(home.cache / "0.6.3" / "121a")
    kept = tmp_path / "kept.so"
    kept.hardlink_to(own / "norm.so")
    (own / "twin.so").hardlink_to(own / "norm.so")
    (item,) = [i for i in home.plan().taken if i.path == own]
    assert item.bytes == len(MODULE_FILES)  # one byte each, the twin none
    home.clear()
    assert kept.read_text() == "x"


@pytest.mark.parametrize(
    "name", ["0.6.3", "0.6.3+sp.0123abcd", "0.6.12rc2", "0.7.2.post1", "0.0.0+unknown"]
)
def test_versions_are_recognised(home: Home, name: str) -> None:
    module(home.cache / name / "121a")
    assert home.clear(None, "flashinfer-jit").taken


@pytest.mark.parametrize("name", ["main", "..0.6.3", "0", "0.6.3 copy", "0.6.3.bak ", "v0.6.3"])
def test_other_folders_are_not_taken_for_versions(home: Home, name: str) -> None:
    module(home.cache / name / "121a")
    before = tree(home.path)
    assert home.clear(None, "flashinfer-jit").taken == []
    assert tree(home.path) == before


def test_names_that_are_not_utf8(home: Home) -> None:
    own = module(home.cache / "0.6.3" / "121a")
    odd = os.fsencode(own) + b"/caf\xe9.txt"
    Path(os.fsdecode(odd)).write_text("mine")
    done = home.clear()
    assert os.path.exists(odd)  # noqa: PTH110 - bytes
    assert len(stays(done, home, Why.UNRECOGNISED)) == 1


def test_a_tree_that_is_too_deep_stays(home: Home) -> None:
    own = module(home.cache / "0.6.3" / "121a")
    deep = own.joinpath(*["d"] * 60)
    deep.mkdir(parents=True)
    write(deep / "a.so")
    done = home.clear()
    assert (deep / "a.so").exists()
    assert "lies too deep" in stays(done, home, Why.UNRECOGNISED).values()
    assert not (own / "norm.so").exists()


# --- roots -------------------------------------------------------------------------------------


def check(path: Path, home: Path, *, by_name: bool = False) -> guard.Root | guard.Refusal | None:
    return guard.check(Location(path, "V", "$V"), home, asked_by_name=by_name)


def refused(path: Path, home: Path, *, by_name: bool = False) -> str:
    found = check(path, home, by_name=by_name)
    assert isinstance(found, guard.Refusal), found
    return found.why


def test_roots_that_nobody_means(tmp_path: Path) -> None:
    home = tmp_path / "h" / "u"
    home.mkdir(parents=True)
    assert "top-level" in refused(Path("/"), home)
    assert "top-level" in refused(Path("/tmp"), home)
    assert "top-level" in refused(Path("/tmp/../usr"), home)
    assert refused(home, home) == "is your home folder"
    assert refused(home.parent, home) == "holds your home folder"
    assert "relative" in refused(Path("x"), home)
    write(home / "f")
    assert refused(home / "f", home) == "is not a folder"
    assert check(home / "absent", home) is None
    assert check(home / "f" / "below", home) is None


def test_home_behind_a_link_is_still_home(tmp_path: Path) -> None:
    real = tmp_path / "data" / "u"
    real.mkdir(parents=True)
    (tmp_path / "home").symlink_to(tmp_path / "data")
    assert refused(real, tmp_path / "home" / "u") == "is your home folder"
    assert refused(tmp_path / "home", tmp_path / "home" / "u") == "holds your home folder"


@pytest.mark.parametrize("bare", [False, True])
def test_a_repository_is_not_a_cache(tmp_path: Path, bare: bool) -> None:
    argv = ["git", "init", "-q", *(["--bare"] if bare else []), str(tmp_path / "r" / "x")]
    subprocess.run(argv, check=True)
    assert "repository" in refused(tmp_path / "r" / "x", tmp_path / "home")
    assert "repository" in refused(tmp_path / "r" / "x", tmp_path / "home", by_name=True)


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert "cannot be reached" in refused(tmp_path / "a", tmp_path / "home")


def test_a_mount_point_is_taken_only_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "mounted here"
    place.mkdir()
    monkeypatch.setattr(guard, "mount_points", lambda: frozenset({str(place)}))
    assert "mount point" in refused(place, tmp_path / "home")
    assert isinstance(check(place, tmp_path / "home", by_name=True), guard.Root)


def test_mount_points_are_read_from_the_kernel() -> None:
    assert {"/", "/proc"} <= guard.mount_points()
    line = r"36 35 98:0 /m /mnt/a\040b\134c rw - ext3 /dev/root rw"
    assert guard._parsed(line + "\nshort line\n") == {"/mnt/a b\\c"}


def test_a_mount_inside_a_module_stays(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one where we may mount, else one that the kernel's list is made to name."""
    own = module(home.cache / "0.6.3" / "121a")
    precious = write(tmp_path / "precious" / "weights.so", "precious")
    (own / "sub").mkdir()
    script = f"""
        mount --bind {precious.parent} {own / "sub"} || exit 77
        exec {sys.executable} -c "
        from pathlib import Path
        from stackpatch.installed import clear
        from stackpatch.installed.surroundings import Surroundings
        around = Surroundings({{}}, Path('{home.path}'), 'u', Path('/tmp'), None)
        done = clear.carry_out(clear.plan(clear.request('flashinfer', ()), around))
        print([k.detail for k in done.kept if k.path.name == 'sub'])"
    """
    flags = "-m" if os.geteuid() == 0 else "-Urm"
    argv = ["unshare", flags, "sh", "-c", textwrap.dedent(script)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0 and re.search("not permitted|denied", done.stderr):
        real = guard.mount_points()
        monkeypatch.setattr(survey, "mount_points", lambda: {*real, str(own / "sub")})
        kept = [one.detail for one in home.clear().kept if one.path.name == "sub"]
        assert kept == ["is mounted from elsewhere"]
    else:
        assert done.returncode == 0, done.stderr
        assert done.stdout == "['is mounted from elsewhere']\n"
    assert precious.read_text() == "precious"
    assert not (own / "norm.so").exists()


def test_a_root_that_is_a_link_is_cleared_when_all_of_it_is_the_caches(
    home: Home, tmp_path: Path
) -> None:
    target = tmp_path / "bigdisk" / "fi"
    home.cache.rmdir()
    home.cache.symlink_to(target)
    module(target / "0.6.3" / "121a")
    done = home.clear()
    assert len(done.taken) == 2
    assert not (target / "0.6.3/121a/cached_ops/norm").exists()
    assert home.cache.is_symlink()


def test_a_root_that_is_a_link_to_something_else_is_refused(home: Home, tmp_path: Path) -> None:
    target = tmp_path / "work"
    home.cache.rmdir()
    home.cache.symlink_to(target)
    module(target / "0.6.3" / "121a")
    write(target / "thesis.tex")
    before = tree(target)
    done = home.clear()
    assert done.taken == []
    assert "thesis.tex" in done.refused[0].refusal.why
    assert tree(target) == before


def test_the_folder_above_may_be_a_link(home: Home, tmp_path: Path) -> None:
    """~/.cache on another disk is a person's own arrangement, and common."""
    (tmp_path / "disk").mkdir()
    shutil.move(home.path / ".cache", tmp_path / "disk" / "cache")
    (home.path / ".cache").symlink_to(tmp_path / "disk" / "cache")
    module(home.cache / "0.6.3" / "121a")
    write(home.cache / "notes.txt")
    assert len(home.clear().taken) == 2


def test_two_rules_that_lead_to_one_folder_count_once(home: Home) -> None:
    module(home.cache / "0.6.3" / "121a")
    (home.path / ".cache/sglang/.cache").mkdir(parents=True)
    (home.path / ".cache/sglang/.cache/flashinfer").symlink_to(home.cache)
    assert len(home.plan().taken) == 2


def test_a_root_that_is_swapped_after_the_plan_is_left_alone(home: Home, tmp_path: Path) -> None:
    module(home.cache / "0.6.3" / "121a")
    planned = home.plan()
    other = tmp_path / "other"
    module(other / "0.6.3" / "121a")
    home.cache.rename(tmp_path / "was")
    other.rename(home.cache)
    before = tree(home.cache)
    done = clear.carry_out(planned)
    assert done.taken == []
    assert done.incomplete
    assert list(stays(done, home, Why.FAILED).values()) == ["the folder was replaced"]
    assert tree(home.cache) == before


def test_no_descriptor_is_reached_through_a_link(tmp_path: Path) -> None:
    write(tmp_path / "real" / "below" / "x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    top = os.open(tmp_path, os.O_RDONLY)
    try:
        with remove._parent(top, ("real", "below", "x")) as parent:
            assert os.listdir(parent) == ["x"]  # noqa: PTH208 - a descriptor
        with pytest.raises(NotADirectoryError), remove._parent(top, ("link", "below", "x")):
            pass
    finally:
        os.close(top)
    found = (tmp_path / "real").stat()
    root = guard.Root(
        tmp_path, tmp_path / "link", linked=False, identity=(found.st_dev, found.st_ino)
    )
    with pytest.raises(NotADirectoryError):
        root.open()


def test_a_folder_on_the_way_that_becomes_a_link_leads_nowhere(home: Home, tmp_path: Path) -> None:
    module(home.cache / "0.6.3" / "121a")
    planned = home.plan()
    outside = tmp_path / "outside"
    module(outside / "121a")
    (home.cache / "0.6.3").rename(tmp_path / "was")
    (home.cache / "0.6.3").symlink_to(outside)
    before = tree(outside)
    done = clear.carry_out(planned)
    assert done.taken == []
    assert done.incomplete
    assert tree(outside) == before


def test_an_entry_that_is_another_one_by_now_is_left_alone(home: Home) -> None:
    own = module(home.cache / "0.6.3" / "121a")
    planned = home.plan()
    own.rename(own.with_name("moved"))
    module(home.cache / "0.6.3" / "121a")
    done = clear.carry_out(planned)
    assert (own / "norm.so").exists()
    assert [k.detail for k in done.kept if k.path == own] == [
        "was replaced by another one meanwhile"
    ]


def test_an_entry_that_is_gone_by_now_is_no_failure(home: Home) -> None:
    own = module(home.cache / "0.6.3" / "121a")
    planned = home.plan()
    shutil.rmtree(own)
    done = clear.carry_out(planned)
    assert not done.incomplete
    assert [item.path.name for item in done.taken] == ["norm"]  # the rendered sources


# --- other processes ---------------------------------------------------------------------------


@contextlib.contextmanager
def locked_elsewhere(path: Path) -> Iterator[None]:
    """Another process holds the lock, as filelock does it."""
    code = (
        "import fcntl, os, sys; f = os.open(sys.argv[1], os.O_RDWR | os.O_TRUNC | os.O_CREAT);"
        "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)


@pytest.mark.parametrize("lock", ["norm.lock", "flashinfer_jit.lock"])
def test_a_module_that_is_being_compiled_stays_and_is_told(home: Home, lock: str) -> None:
    folder = home.cache / "0.6.3" / "121a"
    own = module(folder)
    path = write(folder / "cached_ops" / "tmp" / lock, "")
    with locked_elsewhere(path):
        planned = home.plan()
        done = clear.carry_out(planned)
    assert done.incomplete
    (busy,) = stays(done, home, Why.BUSY).items()
    assert busy[0].endswith("cached_ops/norm")
    assert lock in busy[1]
    assert (own / "norm.so").exists()
    assert not home.clear().incomplete
    assert not own.exists()


def test_a_compile_that_begins_after_the_plan_is_respected(home: Home) -> None:
    folder = home.cache / "0.6.3" / "121a"
    own = module(folder)
    planned = home.plan()
    with locked_elsewhere(folder / "cached_ops" / "tmp" / "norm.lock"):
        done = clear.carry_out(planned)
    assert (own / "norm.so").exists()
    assert set(stays(done, home, Why.BUSY)) == {".cache/flashinfer/0.6.3/121a/cached_ops/norm"}


def test_a_lock_inside_the_entry_counts_too(home: Home) -> None:
    entry = home.path / ".cache/tvm-ffi/sgl_kernel_jit_norm_0123456789abcdef"
    write(entry / "build.ninja")
    with locked_elsewhere(write(entry / "lock", "")):
        done = home.clear("sglang")
    assert done.incomplete
    assert (entry / "build.ninja").exists()


def test_a_planted_lock_that_is_a_link_or_a_pipe_does_no_harm(home: Home, tmp_path: Path) -> None:
    folder = home.cache / "0.6.3" / "121a"
    module(folder)
    target = write(tmp_path / "precious", "precious")
    lock = folder / "cached_ops" / "tmp" / "norm.lock"
    lock.unlink()
    lock.symlink_to(target)
    os.mkfifo(folder / "cached_ops" / "tmp" / "flashinfer_jit.lock")
    assert not home.clear().incomplete
    assert target.read_text() == "precious"


def test_locks_are_free_again_afterwards(home: Home) -> None:
    folder = home.cache / "0.6.3" / "121a"
    module(folder)
    home.clear()
    lock = folder / "cached_ops" / "tmp" / "norm.lock"
    with lock.open("r+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_arrives_while_it_is_deleted_goes_back(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = module(home.cache / "0.6.3" / "121a")
    real = remove._move

    def moved(top: int, aside: int, piece: survey.Piece, name: str) -> survey.Left | None:
        if piece.parts[-1] == "norm" and "cached_ops" in piece.parts:
            write(own / "deep" / "mine.txt", "precious")  # between the plan and the rename
        return real(top, aside, piece, name)

    planned = home.plan()
    monkeypatch.setattr(remove, "_move", moved)
    done = clear.carry_out(planned)
    assert tree(own) == {"deep": "folder", "deep/mine.txt": "precious"}
    assert (
        "arrived meanwhile"
        in stays(done, home, Why.UNRECOGNISED)[
            ".cache/flashinfer/0.6.3/121a/cached_ops/norm/deep/mine.txt"
        ]
    )
    assert not list(home.cache.glob(".stackpatch-cleared-*"))


def test_a_reader_sees_whole_modules_or_none_and_strangers_files_survive(home: Home) -> None:
    """A thread writes modules and files of its own all the while."""
    folder = home.cache / "0.6.3" / "121a"
    stop = threading.Event()
    halves: list[set[str]] = []
    written: list[Path] = []

    def produce() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            scratch = home.path / "scratch" / f"m{number}"
            for name in ("build.ninja", "a.o", "b.o", "m.so"):
                write(scratch / name)
            target = folder / "cached_ops" / f"m{number % 7}"
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                scratch.rename(target)
            mine = folder / "cached_ops" / f"m{number % 7}" / f"note{number}.txt"
            with contextlib.suppress(OSError):
                mine.write_text("mine")
                written.append(mine)

    def read() -> None:
        while not stop.is_set():
            for number in range(7):
                place = folder / "cached_ops" / f"m{number}"
                try:
                    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
                except OSError:
                    continue
                names = set(os.listdir(handle))  # noqa: PTH208 - a descriptor
                same = place.exists() and place.stat().st_ino == os.fstat(handle).st_ino
                os.close(handle)
                own = names & {"build.ninja", "a.o", "b.o", "m.so"}
                notes = any(name.endswith(".txt") for name in names)
                if same and not notes and 0 < len(own) < 4:
                    halves.append(own)

    threads = [threading.Thread(target=produce), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    try:
        until = time.monotonic() + 2.0
        rounds = 0
        while time.monotonic() < until:
            home.clear()
            rounds += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    home.clear()
    assert rounds > 3
    assert not halves
    kept = {path.name for path in home.cache.rglob("note*.txt")}
    assert {path.name for path in written} <= kept
    assert written


def test_two_clears_at_once(home: Home) -> None:
    for number in range(40):
        module(home.cache / "0.6.3" / "121a", f"m{number}")
    mine = write(home.cache / "0.6.3/121a/cached_ops/m3/mine.txt", "precious")
    failures: list[str] = []

    def go() -> None:
        try:
            if home.clear().incomplete:
                home.clear()
        except Exception:  # noqa: BLE001 - shown by the assertion
            failures.append(traceback.format_exc())

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    home.clear()
    assert failures == []
    assert mine.read_text() == "precious"
    left = [p for p in home.cache.rglob("*") if p.is_file() and p.suffix not in {".lock", ".log"}]
    assert left == [mine]


@pytest.mark.parametrize("moment", range(6))
def test_a_kill_leaves_nothing_that_the_next_clear_does_not_take(
    home: Home, moment: int, tmp_path: Path
) -> None:
    for number in range(60):
        module(home.cache / "0.6.3" / "121a", f"m{number}")
    mine = write(home.cache / "0.6.3/121a/cached_ops/m3/mine.txt", "precious")
    code = f"""
        import os, signal, threading
        from pathlib import Path
        from stackpatch.installed import clear
        from stackpatch.installed.surroundings import Surroundings
        around = Surroundings({{}}, Path({str(home.path)!r}), "u", Path("/tmp"), None)
        planned = clear.plan(clear.request("flashinfer", ()), around)
        left = [{moment} * 90]
        real = os.unlink
        def unlink(*words, **names):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*words, **names)
        os.unlink = unlink
        clear.carry_out(planned)
    """
    argv = [sys.executable, "-c", textwrap.dedent(code)]
    killed = subprocess.run(argv, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(home.cache.glob(".stackpatch-cleared-*"))
    done = home.clear()
    assert not done.incomplete
    assert mine.read_text() == "precious"
    assert not list(home.cache.glob(".stackpatch-cleared-*"))
    left = [p for p in home.cache.rglob("*") if p.is_file() and p.suffix not in {".lock", ".log"}]
    assert left == [mine]


def test_the_aside_folder_of_a_live_clear_is_not_swept(home: Home) -> None:
    aside = home.cache / ".stackpatch-cleared-0123abcd"
    write(aside / "0" / "norm.so")
    handle = os.open(aside, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        assert home.clear().taken == []
        assert (aside / "0" / "norm.so").exists()
    finally:
        os.close(handle)
    assert went(home.clear(), home) == [".cache/flashinfer/.stackpatch-cleared-0123abcd"]
    assert not aside.exists()


def test_a_strangers_file_in_a_left_over_aside_folder_stays(home: Home) -> None:
    aside = home.cache / ".stackpatch-cleared-0123abcd"
    write(aside / "0" / "norm.so")
    mine = write(aside / "0" / "mine.txt")
    home.clear()
    assert mine.exists()
    assert not (aside / "0" / "norm.so").exists()


# --- permissions -------------------------------------------------------------------------------


def as_nobody(act: Callable[[Path], None]) -> None:
    """Run act in a child without privileges, in a folder of its own that it may write."""
    folder = Path(tempfile.mkdtemp(prefix="stackpatch-nobody-", dir="/tmp"))
    nobody = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(folder, nobody, -1)
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            act(folder)
            status = 0
        except BaseException:  # noqa: BLE001 - told by the parent
            os.write(into, traceback.format_exc().encode()[-4000:])
        os._exit(status)
    os.close(into)
    with os.fdopen(out, "rb") as stream:
        said = stream.read().decode()
    _, ended = os.waitpid(child, 0)
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
    assert ended == 0, said


def _home_in(folder: Path) -> Home:
    made = Home(folder / "home")
    made.cache.mkdir(parents=True)
    return made


def test_a_module_that_cannot_be_read_stays_and_the_rest_goes() -> None:
    def act(folder: Path) -> None:
        home = _home_in(folder)
        shut = module(home.cache / "0.6.3" / "121a", "shut")
        module(home.cache / "0.6.3" / "121a", "norm")
        shut.chmod(0o000)
        done = home.clear()
        assert done.incomplete
        assert stays(done, home, Why.FAILED) == {
            ".cache/flashinfer/0.6.3/121a/cached_ops/shut": "permission denied"
        }
        assert not (home.cache / "0.6.3/121a/cached_ops/norm").exists()
        assert shut.exists()

    as_nobody(act)


def test_a_folder_that_may_not_be_written_keeps_its_entries() -> None:
    def act(folder: Path) -> None:
        home = _home_in(folder)
        own = module(home.cache / "0.6.3" / "121a")
        own.parent.chmod(0o555)
        done = home.clear()
        assert done.incomplete
        assert (own / "norm.so").exists()
        assert stays(done, home, Why.FAILED) == {
            ".cache/flashinfer/0.6.3/121a/cached_ops/norm": "permission denied"
        }

    as_nobody(act)


def test_a_root_that_may_not_be_written_is_told() -> None:
    def act(folder: Path) -> None:
        home = _home_in(folder)
        own = module(home.cache / "0.6.3" / "121a")
        home.cache.chmod(0o555)
        done = home.clear()
        assert done.incomplete
        assert done.taken == []
        assert (own / "norm.so").exists()

    as_nobody(act)


def test_a_module_that_may_not_be_written_inside() -> None:
    """Renaming a folder needs the right to write in it; nothing may be lost half-way."""

    def act(folder: Path) -> None:
        home = _home_in(folder)
        own = module(home.cache / "0.6.3" / "121a")
        own.chmod(0o555)
        before = tree(own)
        done = home.clear()
        assert done.incomplete
        found = list(home.cache.rglob("norm.so"))
        assert found
        assert tree(found[0].parent) == before

    as_nobody(act)


def give_away(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Make files another user's: root gives them away, anybody else is told so by lstat."""
    if os.geteuid() == 0:
        for path in paths:
            os.chown(path, 1234, 1234)
        return
    ids = {(found.st_dev, found.st_ino) for found in map(os.lstat, paths)}

    def told(real: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def stat(*words: Any, **named: Any) -> os.stat_result:
            found = real(*words, **named)
            if (found.st_dev, found.st_ino) not in ids:
                return found
            return os.stat_result((*found[:4], 1234, 1234, *found[6:]))

        return stat

    for name in ("stat", "lstat", "fstat"):
        monkeypatch.setattr(os, name, told(getattr(os, name)))


def test_another_users_files_stay(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    own = module(home.cache / "0.6.3" / "121a")
    other = module(home.cache / "0.6.3" / "121a", "other")
    give_away(monkeypatch, own / "norm.so", other)
    done = home.clear()
    told = stays(done, home, Why.UNRECOGNISED)
    assert told[".cache/flashinfer/0.6.3/121a/cached_ops/norm/norm.so"] == "belongs to user 1234"
    assert told[".cache/flashinfer/0.6.3/121a/cached_ops/other"] == "belongs to user 1234"
    assert (own / "norm.so").exists()
    assert (other / "build.ninja").exists()


def test_another_users_cache_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    module(home.cache / "0.6.3" / "121a")
    give_away(monkeypatch, home.cache)
    done = home.clear()
    assert done.taken == []
    why = f"belongs to user 1234, not to you ({os.geteuid()})"
    assert [place.refusal.why for place in done.refused] == [why]


# --- any mess ----------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        "0.6.3",
        "0.6.3+sp.ab",
        "121a",
        "cached_ops",
        "generated",
        "tmp",
        "norm",
        "build.ninja",
        "norm.so",
        "a.cu",
        "notes.txt",
        ".git",
        "cubins",
        "autotune",
        "flashinfer_jit.log",
        ".hid",
    ]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.lists(NAMES, min_size=1, max_size=6), st.sampled_from(["file", "dir", "link"])
        ),
        max_size=14,
    ),
    st.sampled_from([(), ("flashinfer-jit",)]),
)
def test_only_what_the_plan_names_goes_whatever_lies_there(
    made: list[tuple[list[str], str]], names: tuple[str, ...]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        home.cache.mkdir(parents=True)
        outside = write(Path(folder) / "outside" / "norm.so", "precious")
        for parts, kind in made:
            path = home.cache.joinpath(*parts)
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                match kind:
                    case "file":
                        path.write_text("x")
                    case "dir":
                        path.mkdir()
                    case _:
                        path.symlink_to(outside.parent)
        before = tree(Path(folder))
        planned = home.plan("flashinfer", *names)
        assert tree(Path(folder)) == before
        done = clear.carry_out(planned)
        after = tree(Path(folder))
        gone = [str(item.path.relative_to(folder)) for item in done.taken]
        assert done.taken == planned.taken
        for name in before:
            expected = not any(_below(name, item) for item in gone)
            assert (name in after) is expected, name
        assert not set(after) - set(before)
        for name, what in before.items():
            if what.startswith("->") or name.endswith((".txt", ".hid")):
                assert name in after


@settings(max_examples=60)
@given(st.randoms(use_true_random=False), st.sampled_from(sorted(CACHES)))
def test_no_cache_takes_what_looks_like_a_persons_own(rng: random.Random, name: str) -> None:
    cache = CACHES[name]
    if not cache.entries:
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "c"
        for _ in range(6):
            words = rng.choices(["Documents", "src", "main.py", "README.md", ".git", "model"], k=3)
            with contextlib.suppress(OSError):
                write(root.joinpath(*words))
        found = guard.check(Location(root, None, "r"), Path("/home/u"), asked_by_name=True)
        if found is None:
            return
        if isinstance(found, guard.Refusal):
            assert "repository" in found.why
            return
        assert survey.survey(found, cache.entries).pieces == [] or name == "flashinfer-cubins"


# --- requests ----------------------------------------------------------------------------------


def test_requests_are_checked() -> None:
    with pytest.raises(InputError, match="no stack 'flashinfr'") as stack:
        clear.request("flashinfr", ())
    assert "flashinfer" in str(stack.value.hint)
    with pytest.raises(InputError, match="no cache 'tritn'") as cache:
        clear.request(None, ("tritn",))
    assert cache.value.hint == "did you mean triton?"
    with pytest.raises(InputError, match="does not clear flashinfer-aot") as aot:
        clear.request(None, ("flashinfer-aot",))
    assert "pip uninstall" in str(aot.value.hint)
    with pytest.raises(InputError, match="trtllm does not read the cache sglang-jit"):
        clear.request("trtllm", ("sglang-jit",))
    assert clear.request(None, ("triton", "triton")).names == ("triton",)
