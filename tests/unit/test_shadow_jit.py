"""Compiled modules in FlashInfer's cache: stale is told by content, from FlashInfer's own record.

Records and logs are made here as ninja and the patched FlashInfer write them;
tests/integration/test_jit_by_content.py has the real ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stack import RECIPE

from stackpatch.checks.shadow import Effect, Finding, Kind, Scene, shadows
from stackpatch.checks.shadow_jit import RECORD, jit_modules, ninja_builds, ninja_deps
from stackpatch.model.recipe_file import parse_recipe

_TEXT = RECIPE.format(file="demo-1.2.3-py3-none-any.whl", sha256="b" * 64, size=1)
DEMO = parse_recipe("r", _TEXT.encode())
NINJA = """\
ninja_required_version = 1.3
rule cuda_compile
  command = nvcc
build {folder}/a.cuda.o: cuda_compile {source}
build {folder}/b.o: compile {other}
build {folder}/k.so: link {folder}/a.cuda.o {folder}/b.o
default {folder}/k.so
"""


class Module:
    """A module `k` of two objects; the first one also includes a header."""

    def __init__(self, base: Path, version: str = "0.6.3") -> None:
        self.base = base / "cache"
        self.folder = self.base / version / "121a" / "cached_ops" / "k"
        self.version = version
        data = base / "site/demo/data"
        self.source, self.other, self.header = data / "a b.cu", data / "b.cc", data / "h.cuh"
        for path in (self.source, self.other, self.header):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{path.name} 1\n")
        self.folder.mkdir(parents=True)
        source = str(self.source).replace(" ", "$ ")
        text = NINJA.format(folder=self.folder, source=source, other=self.other)
        (self.folder / "build.ninja").write_text(text)
        (self.folder / "k.so").write_text("ELF")
        self.objects = {
            str(self.folder / "a.cuda.o"): [str(self.source), str(self.header)],
            str(self.folder / "b.o"): [str(self.other)],
        }
        for name in self.objects:
            Path(name).write_text("object")

    def deps(self) -> bytes:
        """`.ninja_deps` as ninja writes it, version 4."""
        log, ids = b"# ninjadeps\n" + struct.pack("<i", 4), dict[str, int]()

        def known(path: str) -> int:
            nonlocal log
            if path not in ids:
                name = path.encode() + b"\0" * (-len(path.encode()) % 4)
                log += struct.pack("<I", len(name) + 4) + name
                log += struct.pack("<I", ~len(ids) & 0xFFFFFFFF)
                ids[path] = len(ids)
            return ids[path]

        for made, inputs in self.objects.items():
            numbers = [known(path) for path in (made, *inputs)]
            when = Path(made).stat().st_mtime_ns
            body = struct.pack("<III", numbers[0], when & 0xFFFFFFFF, when >> 32)
            body += struct.pack(f"<{len(inputs)}I", *numbers[1:])
            log += struct.pack("<I", len(body) | 1 << 31) + body
        return log

    def record(self) -> Module:
        """What a patched FlashInfer leaves behind after a build."""
        found = {}
        for made, inputs in self.objects.items():
            status = Path(made).stat()
            lines = [f"{int(status.st_mtime)} {status.st_size}"]
            lines += [
                f"{path}\0{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
                for path in sorted(inputs)
            ]
            found[made] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        (self.folder / RECORD).write_text(json.dumps(found))
        (self.folder / ".ninja_deps").write_bytes(self.deps())
        return self

    @property
    def changed(self) -> tuple[str, ...] | None:
        (one,) = jit_modules(self.base)
        return one.changed

    def found(self, loaded: str | None = None) -> list[Finding]:
        site = loaded or str(self.source.parent.parent)
        scene = Scene((site,), site, versions={site: self.version})
        return shadows(replace(scene, jit=tuple(jit_modules(self.base))), DEMO)


def test_a_module_that_nothing_vouches_for_is_unknown_and_never_fresh(tmp_path: Path) -> None:
    it = Module(tmp_path)
    (one,) = jit_modules(it.base)
    assert (one.name, one.where, one.version) == ("k", str(it.folder), "0.6.3")
    assert one.sources == (str(it.source), str(it.other))
    assert one.changed is None
    (found,) = it.found()
    assert (found.kind, found.effect) == (Kind.JIT, Effect.UNKNOWN)


def test_what_is_proven_to_be_of_these_contents_shadows_nothing(tmp_path: Path) -> None:
    it = Module(tmp_path).record()
    os.utime(it.source)  # newer and the same
    assert it.changed == ()
    assert it.found() == []


@pytest.mark.parametrize("which", ["source", "header"])
def test_a_stale_module_is_told_by_content_whatever_the_times_say(
    tmp_path: Path, which: str
) -> None:
    it = Module(tmp_path).record()
    path: Path = getattr(it, which)
    path.write_text("changed\n")
    os.utime(path, (1, 1))  # far older than the module: ninja has no work to do
    assert it.changed == (str(it.folder / "a.cuda.o"),)
    (found,) = it.found()
    assert (found.kind, found.effect) == (Kind.JIT, Effect.WINS)
    assert f"{it.folder}/a.cuda.o" in found.what
    path.unlink()
    assert it.changed == (str(it.folder / "a.cuda.o"),)


def test_a_stale_module_of_a_stamped_build_is_named_and_takes_nothing(tmp_path: Path) -> None:
    """Its FlashInfer compares contents itself, and compiles it again."""
    it = Module(tmp_path, "0.6.3+sp.01234567").record()
    it.other.write_text("changed\n")
    (found,) = it.found()
    assert (found.kind, found.effect) == (Kind.JIT, Effect.NONE)
    assert "compiles it again" in found.why


def test_an_object_that_was_made_again_or_is_gone_is_not_judged(tmp_path: Path) -> None:
    it = Module(tmp_path).record()
    made = it.folder / "b.o"
    os.utime(made)  # after ninja noted it: what it was made from is not in the log
    assert it.changed is None
    made.unlink()
    assert it.changed is None


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"a": "b"}', "\x00", "1"])
def test_a_broken_record_counts_for_nothing(tmp_path: Path, record: str) -> None:
    it = Module(tmp_path).record()
    (it.folder / RECORD).write_text(record)
    assert it.changed is None
    assert [one.effect for one in it.found()] == [Effect.UNKNOWN]


@pytest.mark.parametrize("log", [b"", b"# ninjadeps\n\3\0\0\0", b"# ninjadeps\n\4\0\0\0"])
def test_a_log_that_is_not_read_counts_for_nothing(tmp_path: Path, log: bytes) -> None:
    it = Module(tmp_path).record()
    (it.folder / ".ninja_deps").write_bytes(log)
    assert it.changed is None


def test_a_log_is_read_up_to_where_it_is_cut(tmp_path: Path) -> None:
    it = Module(tmp_path)
    log = it.deps()
    whole = ninja_deps(log)
    assert {made: list(inputs) for made, (_, inputs) in whole.items()} == it.objects
    for size in range(len(log)):
        assert ninja_deps(log[:size]).items() <= whole.items()


@given(st.binary(max_size=200))
def test_any_bytes_are_read(tail: bytes) -> None:
    ninja_deps(tail)
    ninja_deps(b"# ninjadeps\n\4\0\0\0" + tail)


def test_a_module_of_another_installations_sources_wins_up_to_0_6_11(tmp_path: Path) -> None:
    it = Module(tmp_path).record()
    (found,) = it.found(loaded="/another/demo")
    assert (found.kind, found.effect) == (Kind.JIT, Effect.WINS)
    assert str(it.source) in found.what
    (it.folder / "k.so").unlink()  # a build that failed, or is still to come, takes them too
    (again,) = it.found(loaded="/another/demo")
    assert again == found
    assert it.found() == []  # of this installation, nothing is there that could be stale
    other = tmp_path / "newer"
    other.mkdir()
    assert Module(other, "0.6.11.post1").record().found(loaded="/another/demo") == []


def test_modules_of_another_version_and_self_checking_ones_are_no_matter(tmp_path: Path) -> None:
    it = Module(tmp_path)
    site = str(it.source.parent.parent)
    scene = Scene((site,), site, versions={site: "0.6.3+sp.01234567"})
    assert shadows(replace(scene, jit=tuple(jit_modules(it.base))), DEMO) == []
    (it.folder / "meta.json").write_text("{}")
    assert it.found() == []


def test_a_folder_that_names_no_version_is_no_trouble(tmp_path: Path) -> None:
    it = Module(tmp_path, "not a version")
    assert [one.effect for one in it.found()] == [Effect.UNKNOWN]


def test_the_objects_and_sources_of_a_build_file() -> None:
    text = "build a$ b.o: cuda_compile /x/a$ b.cu | dep.h\nbuild c.so: link a.o\n"
    assert ninja_builds(text) == (("a b.o", ("/x/a b.cu",)),)
    assert ninja_builds("build a.o: compile $\n/x.cc\n") == (("a.o", ("/x.cc",)),)
    assert ninja_builds("") == ()
