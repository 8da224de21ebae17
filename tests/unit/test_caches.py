"""The table of caches, what is recognised in them, their sizes, and what a build says of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.cli import cache_reference
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.installed import advice, interpreter, listing, shape
from stackpatch.installed.cache import STACKS, Risk
from stackpatch.installed.caches import CACHES
from stackpatch.installed.surroundings import Surroundings

CHECKOUT = Path(__file__).parents[2]

# facts/upstream.md, section 5: every variable that its table names, but those that only switch.
CONTROLS = """
FLASHINFER_WORKSPACE_BASE FLASHINFER_CUBIN_DIR CUTE_DSL_CACHE_DIR TRITON_CACHE_DIR TRITON_HOME
TORCHINDUCTOR_CACHE_DIR TORCH_EXTENSIONS_DIR CUDA_CACHE_PATH TVM_FFI_CACHE_DIR DG_JIT_CACHE_DIR
SGLANG_DG_CACHE_DIR QUACK_CACHE_DIR TILELANG_CACHE_DIR TLLM_AUTOTUNER_CACHE_PATH
TRTLLM_DG_CACHE_DIR TRTLLM_FETCHCONTENT_CACHE SGLANG_CACHE_DIR SGLANG_JIT_CACHE_DIR
SGLANG_CUTE_AOT_CACHE_DIR VLLM_CACHE_ROOT XDG_CACHE_HOME VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR
""".split()  # noqa: SIM905 - a list would be a screen long


def around(home: Path, **environ: str) -> Surroundings:
    return Surroundings(environ, home, "u", Path("/tmp"), None)


def test_every_control_that_is_known_upstream_is_in_the_table() -> None:
    named = {variable for cache in CACHES.values() for variable in cache.variables}
    assert set(CONTROLS) <= named


@pytest.mark.parametrize("name", sorted(CACHES))
def test_a_row_is_whole(name: str) -> None:
    cache = CACHES[name]
    assert re.fullmatch(r"[a-z0-9-]+", name)
    assert cache.what
    assert cache.reason
    assert cache.source
    assert cache.stacks
    assert set(cache.stacks) <= set(STACKS)
    assert not cache.reason.endswith(".")
    if cache.risk is Risk.STALE and not cache.clearable:
        assert cache.instead, "what is stale and not ours to clear needs another way"
    for variable in cache.variables:  # each one moves the cache, or is there for the record
        places = cache.locations(around(Path("/home/u"), **{variable: "/elsewhere"}))
        moved = any(str(place.path).startswith("/elsewhere") for place in places)
        assert moved is cache.clearable or name in {"flashinfer-b12x", "tilelang", "trtllm-build"}


@pytest.mark.parametrize("name", sorted(CACHES))
def test_patterns_compile_and_match_one_level_each(name: str) -> None:
    for entry in CACHES[name].entries:
        for pattern in (*entry.levels, entry.inside, entry.marker.replace("{-1}", "x")):
            compiled = re.compile(pattern)
            assert not compiled.fullmatch("..") or pattern == entry.inside
            assert not compiled.fullmatch("a/b")


@given(
    st.text(
        alphabet=st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12
    )
)
def test_a_random_name_is_nobodys(name: str) -> None:
    """Names of a person's own never reach an entry of the caches that go by default."""
    for cache in ("flashinfer-jit", "flashinfer-autotune", "sglang-autotune", "tvm-ffi"):
        meaning = shape.step(CACHES[cache].entries, 0, name, folder=True)
        if meaning.deeper or [entry for entry in meaning.ends if not entry.keep]:
            assert re.match(r"\d+\.\d|v\d|.+_[0-9a-f]{16}", name)


def test_locks_of_an_entry() -> None:
    entry = shape.Entry(("a", "b", "c"), locks=("{0}/{1}/tmp/{-1}.lock", "x"))
    assert entry.lock_paths(("v{1}", "b", "norm")) == (
        ("v{1}", "b", "tmp", "norm.lock"),
        ("x",),
    )


def test_a_marker_may_be_the_folders_own_name() -> None:
    entry = shape.Entry(("x",), marker=r"{-1}\.so")
    assert entry.marked(frozenset({"a+b.so"}), "a+b")
    assert not entry.marked(frozenset({"aab.so"}), "a+b")


# --- sizes -------------------------------------------------------------------------------------


def fill(path: Path, count: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * count)
    return path


def test_sizes_count_hard_links_once_and_follow_no_links(tmp_path: Path) -> None:
    fill(tmp_path / "outside", 10_000)
    base = tmp_path / "cache"
    first = fill(base / "a" / "one", 100)
    (base / "a" / "two").hardlink_to(first)
    fill(base / "b" / "three", 7)
    (base / "link").symlink_to(tmp_path / "outside")
    (base / "up").symlink_to(tmp_path)
    os.mkfifo(base / "pipe")
    assert listing.measure(base) == listing.Size(107, 2, 0)


def test_a_cache_does_not_count_what_belongs_to_another(tmp_path: Path) -> None:
    base = tmp_path / ".cache/flashinfer"
    fill(base / "0.6.3/121a/cached_ops/norm/norm.so", 100)
    fill(base / "cubins/x/y.cubin", 1000)
    rows = {
        (row.cache.name, str(row.location.path)): row
        for row in listing.listing(CACHES.values(), around(tmp_path))
        if row.location
    }
    assert rows["flashinfer-jit", str(base)].size.bytes == 100
    assert rows["flashinfer-cubins", str(base / "cubins")].size.bytes == 1000


def test_a_very_deep_tree_is_measured(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    before = Path.cwd()
    try:
        os.fchdir(here)
        for _ in range(1200):
            Path("d").mkdir()
            os.chdir("d")
        Path("file").write_bytes(b"x" * 5)
        os.fchdir(here)
        found = listing.measure(tmp_path)
    finally:
        os.chdir(before)
        os.close(here)
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)
    assert found == listing.Size(5, 1, 0)


def test_measuring_while_files_come_and_go(tmp_path: Path) -> None:
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            path = fill(tmp_path / f"d{number % 5}" / "x" / "f", 3)
            path.unlink()
            path.parent.rmdir()
            path.parent.parent.rmdir()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(300):
            found = listing.measure(tmp_path)
            assert found.bytes <= 3
            assert found.unreadable == 0
    finally:
        stop.set()
        thread.join(10)


def test_rows_say_where_a_link_leads(tmp_path: Path) -> None:
    home = tmp_path / "home"
    fill(tmp_path / "disk" / "tvm" / "f", 9)
    (home / ".cache").mkdir(parents=True)
    (home / ".cache/tvm-ffi").symlink_to(tmp_path / "disk" / "tvm")
    (row,) = listing.listing([CACHES["tvm-ffi"]], around(home))
    assert (row.exists, row.size.bytes, row.resolved) == (True, 9, tmp_path / "disk" / "tvm")
    (home / ".cache/tvm-ffi").unlink()
    (home / ".cache/tvm-ffi").symlink_to("/nowhere")
    (row,) = listing.listing([CACHES["tvm-ffi"]], around(home))
    assert (row.exists, row.size.bytes, row.resolved) == (True, 0, None)


def test_rows_have_the_contracts_keys(tmp_path: Path) -> None:
    for row in listing.listing(CACHES.values(), around(tmp_path)):
        document = row.document()
        assert {"name", "path", "variable", "bytes", "exists", "stale_risk"} <= set(document)
        assert document["stale_risk"] in {"stale", "safe", "unknown"}
        json.dumps(document)


# --- what a build says -------------------------------------------------------------------------


def advised(stack: str, release: str = "0.6.3") -> dict[str, advice.Advice]:
    return {item.cache.name: item for item in advice.for_build(stack, release, "sm121")}


def test_a_patched_flashinfer_needs_no_clearing_of_its_own_kernels() -> None:
    found = advised("flashinfer")
    assert found["flashinfer-jit"].clear is advice.Clear.NO
    assert "0.6.3+sp." in found["flashinfer-jit"].why
    assert found["flashinfer-jit"].command is None
    assert found["flashinfer-aot"].clear is advice.Clear.YES
    assert "pip uninstall flashinfer-jit-cache" in str(found["flashinfer-aot"].command)


def test_a_patched_sglang_needs_its_tactics_and_kernels_cleared() -> None:
    found = advised("sglang", "0.5.9")
    for name in ("sglang-autotune", "tvm-ffi"):
        assert found[name].clear is advice.Clear.YES
        assert found[name].command == "stackpatch cache clear sglang"
    assert found["sglang-torch-compile"].clear is advice.Clear.MAYBE
    assert "--cache sglang-torch-compile" in str(found["sglang-torch-compile"].command)
    assert "triton" not in found


def test_advice_is_the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [item.document() for item in advice.for_build("sglang", "0.5.9", "sm120")]
    for name in ("HOME", "USER", "SGLANG_CACHE_DIR", "TMPDIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "/tmp/other")
    assert [item.document() for item in advice.for_build("sglang", "0.5.9", "sm120")] == before
    assert "/nonexistent" not in json.dumps(before)


@pytest.mark.parametrize("stack", STACKS)
def test_every_command_that_is_advised_exists(stack: str) -> None:
    from stackpatch.installed import clear

    for item in advice.for_build(stack, "1.0", "sm120"):
        if item.command and item.command.startswith("stackpatch"):
            words = item.command.split()
            assert words[:3] == ["stackpatch", "cache", "clear"]
            clear.request(words[3], tuple(words[5:6]))


# --- interpreters ------------------------------------------------------------------------------


def fake_site(folder: Path, files: dict[str, str]) -> Path:
    """A virtual environment without pip, with these files in its site-packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    return folder


def metadata(name: str, version: str) -> str:
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"


def test_an_interpreter_is_asked_without_importing_anything(tmp_path: Path) -> None:
    venv = fake_site(
        tmp_path / "venv",
        {
            "flashinfer/__init__.py": "raise SystemExit('imported')",
            "flashinfer/_build_meta.py": '__version__ = "0.6.3+sp.0123abcd"\n',
            "flashinfer/data/aot/norm/norm.so": "",
            "flashinfer_python-0.6.3.dist-info/METADATA": metadata("flashinfer-python", "0.6.3"),
            "flashinfer_jit_cache/__init__.py": "",
            "flashinfer_jit_cache-0.6.3+cu130.dist-info/METADATA": metadata(
                "flashinfer-jit-cache", "0.6.3+cu130"
            ),
            "sglang/__init__.py": "raise SystemExit('imported')",
            "sglang-0.5.9.dist-info/METADATA": metadata("sglang", "0.5.9"),
            "sitecustomize.py": "print('noise')\nprint('stackpatch-answer:not json')",
        },
    )
    found = interpreter.ask(venv)
    assert found.python == venv / "bin" / "python"
    # the version that names the cache folder is the one in _build_meta.py
    assert found.versions["flashinfer"] == "0.6.3+sp.0123abcd"
    assert found.versions["sglang"] == "0.5.9"
    assert found.prebuilt[0] == "flashinfer-jit-cache 0.6.3+cu130"
    assert found.prebuilt[1].endswith("flashinfer/data/aot")
    assert interpreter.ask(venv / "bin" / "python").versions == found.versions


def test_a_flashinfer_without_its_stamp_calls_itself_unknown(tmp_path: Path) -> None:
    venv = fake_site(tmp_path / "venv", {"flashinfer/__init__.py": ""})
    assert interpreter.ask(venv).versions["flashinfer"] == "0.0.0+unknown"


def test_the_callers_variables_and_folder_do_not_leak_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = fake_site(tmp_path / "venv", {})
    fill(tmp_path / "here" / "sglang" / "__init__.py", 0)
    (tmp_path / "here" / "json.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "here"))
    assert dict(interpreter.ask(venv).folders) == {}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("absent", "there is no such file"),
        ("folder", "a folder without bin/python"),
        ("text", "is not executable"),
        ("garbage", "cannot be run"),
        ("other", "is not a Python interpreter that works"),
    ],
)
def test_what_is_no_interpreter_is_said(tmp_path: Path, what: str, message: str) -> None:
    path = tmp_path / what
    match what:
        case "folder":
            path.mkdir()
        case "text":
            path.write_text("x")
        case "garbage":
            path.write_bytes(b"\x7fELF\0garbage")
            path.chmod(0o755)
        case "other":
            path = Path("/bin/echo")
        case _:
            pass
    with pytest.raises(InputError, match=message):
        interpreter.ask(path)


def test_an_interpreter_that_hangs_is_given_up(tmp_path: Path) -> None:
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    with pytest.raises(EnvironmentProblem, match=r"no answer within 0\.3 s"):
        interpreter.ask(hanging, timeout=0.3)


# --- the document ------------------------------------------------------------------------------


def test_the_document_is_fresh() -> None:
    committed = (CHECKOUT / "docs" / "caches.md").read_text("utf-8")
    assert committed == cache_reference.render(), "run `make docs`"


def test_the_document_names_every_cache_and_every_reason() -> None:
    text = cache_reference.render()
    for cache in CACHES.values():
        assert f"### {cache.name}\n" in text
        assert cache.reason in text
    assert "/home/user" not in text


@pytest.mark.parametrize("stack", ["flashinfer", "sglang"])
def test_the_recipes_name_exactly_the_caches_that_their_stack_reads(stack: str) -> None:
    recipe = yaml.safe_load((CHECKOUT / "recipes" / f"{stack}.yaml").read_text("utf-8"))
    assert sorted(recipe["caches"]) == sorted(c.name for c in CACHES.values() if stack in c.stacks)
