"""Path rules of the caches, held against what upstream's own lines compute."""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.errors import EnvironmentProblem
from stackpatch.installed.caches import CACHES
from stackpatch.installed.surroundings import Surroundings, login_name, surroundings

if TYPE_CHECKING:
    from collections.abc import Mapping

HOME = Path("/home/u")
# Values that a person really writes: empty, relative, with ~, with a trailing slash, with blanks.
VALUES = st.sampled_from(
    ["", ".", "rel/x", "~", "~/x", "/abs", "/abs/", "/with space/é", "/a/../b", "~other/x"]
)


def around(
    environ: Mapping[str, str] | None = None, versions: Mapping[str, str] | None = None
) -> Surroundings:
    return Surroundings(environ or {}, HOME, "u", Path("/tmp"), versions)


def paths(name: str, environ: Mapping[str, str] | None = None, **versions: str) -> list[str]:
    found = CACHES[name].locations(around(environ, versions or None))
    return [str(place.path) for place in found]


@given(VALUES)
def test_flashinfer_takes_its_base_as_it_is(value: str) -> None:
    # flashinfer/jit/env.py: pathlib.Path(os.getenv("FLASHINFER_WORKSPACE_BASE", home))
    expected = str(Path(value) / ".cache" / "flashinfer")
    assert paths("flashinfer-jit", {"FLASHINFER_WORKSPACE_BASE": value}) == [expected]


def test_flashinfer_lies_in_two_places_while_sglang_is_not_known() -> None:
    assert paths("flashinfer-jit") == [
        "/home/u/.cache/flashinfer",
        "/home/u/.cache/sglang/.cache/flashinfer",
    ]
    assert paths("flashinfer-jit", {"SGLANG_CACHE_DIR": "~/s"})[1] == "/home/u/s/.cache/flashinfer"


@pytest.mark.parametrize(
    ("sglang", "moved"),
    [("0.5.9", False), ("0.5.17", False), ("0.5.18", True), ("0.5.23", True), ("0.6.0", True)],
)
def test_sglang_moves_the_caches_of_others_from_0_5_18_on(sglang: str, moved: bool) -> None:
    below = [
        cache
        for cache in ("flashinfer-jit", "triton", "torchinductor", "cuda-driver", "tilelang")
        if any("/.cache/sglang/" in path for path in paths(cache, sglang=sglang))
    ]
    assert bool(below) is moved
    assert len(below) == (5 if moved else 0)
    assert ("/home/u/.cache/deep_gemm" in paths("deep-gemm", sglang=sglang)) is not moved


def test_without_sglang_nothing_is_moved() -> None:
    assert paths("flashinfer-jit", flashinfer="0.6.3") == ["/home/u/.cache/flashinfer"]


def test_a_version_that_cannot_be_read_decides_nothing() -> None:
    assert len(paths("flashinfer-jit", sglang="main-branch")) == 2


@given(VALUES)
def test_triton(value: str) -> None:
    # knobs.py: TRITON_CACHE_DIR wins; else TRITON_HOME joined with .triton/cache
    assert paths("triton", {"TRITON_CACHE_DIR": value, "TRITON_HOME": "/no"}) == [str(Path(value))]
    home = str(Path(value) / ".triton" / "cache")
    assert paths("triton", {"TRITON_HOME": value})[0] == home


@given(VALUES)
def test_tvm_ffi_expands_the_home_folder(value: str) -> None:
    if value.startswith("~other"):
        return  # another account's home: not ours to clear
    expected = value.replace("~", str(HOME), 1) if value.startswith("~") else value
    assert paths("tvm-ffi", {"TVM_FFI_CACHE_DIR": value}) == [str(Path(expected))]


@pytest.mark.parametrize("name", ["FLASHINFER_CUBIN_DIR", "FLASHINFER_AUTOTUNE_CACHE_DIR"])
def test_empty_is_unset_where_upstream_asks_for_truth(name: str) -> None:
    cache = "flashinfer-cubins" if "CUBIN" in name else "flashinfer-autotune"
    assert paths(cache, {name: ""}) == paths(cache)
    assert paths(cache, {name: "/c"}) == ["/c"]


def test_empty_is_a_value_where_upstream_takes_it() -> None:
    assert paths("flashinfer-jit", {"FLASHINFER_WORKSPACE_BASE": ""}) == [".cache/flashinfer"]
    assert paths("sglang-cute-aot", {"SGLANG_CUTE_AOT_CACHE_DIR": ""}) == []


def test_cute_dsl_names_the_user_by_the_environment_first() -> None:
    assert paths("cute-dsl", {"USER": "v"})[0] == "/tmp/v/cutlass_python_cache"
    assert paths("cute-dsl", {"USERNAME": "w"})[0] == "/tmp/w/cutlass_python_cache"
    assert paths("cute-dsl")[0] == "/tmp/u/cutlass_python_cache"
    assert paths("cute-dsl", {"TMPDIR": "/fast"})[0] == "/fast/u/cutlass_python_cache"
    assert "/home/u/.cache/flashinfer/cute_dsl" in paths("cute-dsl")


def test_deep_gemm_lies_in_every_place_of_its_list() -> None:
    found = paths("deep-gemm", {"DG_JIT_CACHE_DIR": "/a:/b"}, sglang="0.5.23")
    assert found == ["/a", "/b", "/home/u/.cache/sglang/deep_gemm", "/home/u/.cache/vllm/deep_gemm"]


def test_knobs_are_off_when_the_variable_says_so() -> None:
    for word in ("0", "off", " None ", "DISABLED"):
        assert paths("flashinfer-moe-knobs", {"FLASHINFER_MOE_EP_KNOB_CACHE": word}) == []
    assert paths("flashinfer-moe-knobs") == ["/home/u/.cache/flashinfer/moe_ep_knob_cache.json"]


@pytest.mark.parametrize("cache", ["torch-extensions", "vllm-torch-compile", "flashinfer-b12x"])
def test_xdg_is_honoured_by_those_that_do(cache: str) -> None:
    assert all(path.startswith("/x/") for path in paths(cache, {"XDG_CACHE_HOME": "/x"}))


@pytest.mark.parametrize("cache", ["flashinfer-jit", "tvm-ffi", "sglang-autotune", "triton"])
def test_xdg_is_not_honoured_by_those_that_do_not(cache: str) -> None:
    assert paths(cache, {"XDG_CACHE_HOME": "/x"}) == paths(cache)


def test_torchinductor_cleans_the_users_name() -> None:
    assert paths("torchinductor", {"LOGNAME": "a/b:c"})[0] == "/tmp/torchinductor_a_b_c"


@given(
    st.dictionaries(
        st.sampled_from(sorted({v for c in CACHES.values() for v in c.variables} | {"USER"})),
        VALUES,
    ),
    st.sampled_from([None, {}, {"sglang": "0.5.9"}, {"sglang": "0.5.23", "flashinfer": "0.7.2"}]),
)
def test_every_rule_gives_places_whatever_is_set(
    environ: dict[str, str], versions: dict[str, str] | None
) -> None:
    for cache in CACHES.values():
        for place in cache.locations(around(environ, versions)):
            assert str(place.path)
            assert place.rule
            if place.variable is not None:
                assert place.variable in environ
                assert place.rule.startswith("$")
            if not environ:
                assert place.path.is_absolute()


@given(
    st.dictionaries(st.sampled_from(["TMPDIR", "TEMP", "TMP"]), st.sampled_from(["/x", "", "/"]))
)
def test_the_temporary_folder_exists(environ: dict[str, str]) -> None:
    assert surroundings({"HOME": "/h", **environ}).temporary.is_dir()


def test_surroundings_agree_with_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    found = surroundings()
    assert found.temporary == Path(tempfile.gettempdir())
    assert found.home == Path.home()
    assert login_name(found) == getpass.getuser()


@pytest.mark.parametrize("home", ["", "/h"])
def test_home_as_python_finds_it(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    assert surroundings().home == Path.home()


def test_no_home_at_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    with pytest.raises(EnvironmentProblem, match="no home folder"):
        surroundings({})
    assert surroundings({"HOME": "/h"}).user == ""
