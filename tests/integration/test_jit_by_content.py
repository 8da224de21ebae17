"""FlashInfer's JIT cache decides by contents once patched: real releases, ninja and compilers.

Modules are built and looked into, never loaded: their text says which sources they come from.
The fault that the patch mends (flashinfer issue 4489) is shown on the release as it is.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.test_series_content_running import (
    Copy,
    FlashInfer,
    python,
    unpacked,
)
from tests.nvcc import nvcc

from stackpatch.checks.shadow_jit import jit_modules

if TYPE_CHECKING:
    from collections.abc import Callable

    Making = Callable[[str, Copy], "Module"]

__all__ = ["python", "unpacked"]  # fixtures
pytestmark = [pytest.mark.pypi, pytest.mark.timeout(1800)]

every_version = pytest.mark.parametrize("version", ["0.7.2.post1", "0.6.3"])
newest = pytest.mark.parametrize("version", ["0.7.2.post1"])  # the code is the same in both
OLD = 400 * 86400  # seconds: as old as a wheel's files

# Takes steps, says what each build made: the answer in the module, and which objects are new.
DRIVER = """
    import json, os, pathlib, re, sys, time
    from flashinfer.jit import core
    out = []
    for step in json.loads(sys.argv[1]):
        for path, text in step.get("write", {}).items():
            pathlib.Path(path).write_text(text)
            when = time.time() - step["age"]
            os.utime(path, (when, when))
        for path in step.get("remove", []):
            pathlib.Path(path).unlink()
        if "build" not in step:
            continue
        time.sleep(0.05)  # files are written before the build starts, by any clock
        name, sources, include = step["build"]
        spec = core.gen_jit_spec(name, sources, extra_include_paths=[include])
        def objects():
            return {p.name: p.stat().st_mtime_ns for p in spec.jit_library_path.parent.glob("*.o")}
        before, error = objects(), None
        try:
            if step.get("together"):
                core.build_jit_specs([spec])
            else:
                spec.build(False)
        except RuntimeError as e:
            error = str(e)
        after = objects()
        library = spec.jit_library_path
        text = library.read_bytes() if library.exists() else b""
        out.append({
            "answers": sorted({m.decode() for m in re.findall(rb"answer=([a-z]+)", text)}),
            "compiled": sorted(n for n in after if before.get(n) != after[n]),
            "folder": str(library.parent), "error": error})
    print(json.dumps(out))
"""


@dataclass(slots=True)
class Module:
    """One module of two sources and a header, and what is done to it."""

    flashinfer: FlashInfer
    folder: Path
    toolkit: Path
    steps: list[dict[str, Any]] = field(default_factory=list)
    home: str = "home"

    @property
    def header(self) -> Path:
        return self.folder / "answer.h"

    @property
    def sources(self) -> tuple[Path, Path]:
        """What includes the header, and what does not."""
        return self.folder / "with.cpp", self.folder / "alone.cpp"

    def write(self, path: Path, text: str, age: float = OLD) -> Module:
        self.steps.append({"write": {str(path): text}, "age": age})
        return self

    def says(self, answer: str, age: float = OLD) -> Module:
        """The header with this answer."""
        return self.write(self.header, f'#define ANSWER "answer={answer}"\n', age)

    def start(self, suffix: str = ".cpp") -> Module:
        """Everything as it is at first: the answer is `one`."""
        one, two = self.sources
        self.write(
            one.with_suffix(suffix),
            '#include "answer.h"\nextern "C" const char with[];\nextern "C" const char with[] = ANSWER;\n',  # noqa: E501
        )
        alone = 'extern "C" const char alone[];\nextern "C" const char alone[] = "answer=alone";\n'
        return self.write(two, alone).says("one").build(suffix)

    def build(self, suffix: str = ".cpp", *, together: bool = False) -> Module:
        sources = [str(self.sources[0].with_suffix(suffix)), str(self.sources[1])]
        self.steps.append({"build": ["answer", sources, str(self.folder)], "together": together})
        return self

    def remove(self, path: Path) -> Module:
        self.steps.append({"remove": [str(path)]})
        return self

    def run(self, **env: str) -> list[dict[str, Any]]:
        """Do the steps in a process of its own; what each build made."""
        steps, self.steps = self.steps, []
        programs = os.pathsep.join((str(self.flashinfer.python.parent), os.environ["PATH"]))
        env = {
            "PATH": programs,
            "CUDA_HOME": str(self.toolkit),
            "HOME": str(self.folder / self.home),
        } | env
        env.setdefault("PYTHONDONTWRITEBYTECODE", "")
        found: Any = self.flashinfer._run(DRIVER, json.dumps(steps), env=env)
        assert isinstance(found, list)
        return found

    def answers(self, **env: str) -> list[list[str]]:
        found = self.run(**env)
        assert [each["error"] for each in found] == [None] * len(found), found
        return [[a for a in each["answers"] if a != "alone"] for each in found]


@pytest.fixture(scope="module")
def toolkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CUDA toolkit of the shape that FlashInfer wants: nvcc, and libraries to link with."""
    home = tmp_path_factory.mktemp("cuda")
    (home / "bin").mkdir()
    (home / "lib64").mkdir()
    program = home / "bin/nvcc"
    first = '[ -z "$BEFORE_NVCC" ] || eval "$BEFORE_NVCC"'
    program.write_text(f'#!/bin/sh\n{first}\nexec {nvcc()} "$@"\n')
    program.chmod(0o755)
    for name in ("cudart", "cuda"):
        target = home / f"lib64/lib{name}.so"
        subprocess.run(["c++", "-shared", "-x", "c++", os.devnull, "-o", target], check=True)
    return home


@pytest.fixture
def module(
    unpacked: Callable[[str, Copy], FlashInfer],
    toolkit: Path,
    tmp_path: Path,
) -> Making:
    return lambda version, copy: Module(unpacked(version, copy), tmp_path, toolkit)


# --- the fault ------------------------------------------------------------------------------------


@every_version
@pytest.mark.parametrize(
    ("copy", "second"), [(Copy.RELEASE, "one"), (Copy.PATCHED, "two"), (Copy.BUILD, "two")]
)
def test_older_header_is_stale_without_the_patch_and_built_with_it(
    module: Making, version: str, copy: Copy, second: str
) -> None:
    """As after a reinstall of the same version: another process, other contents, older times."""
    it = module(version, copy)
    assert it.start().answers() == [["one"]]
    assert it.says("two", OLD + 86400).build().answers() == [[second]]


@every_version
def test_kernel_source_that_is_older_is_compiled_again(module: Making, version: str) -> None:
    """A .cu by nvcc, changed in itself."""
    text = 'extern "C" const char with[];\nextern "C" const char with[] = "answer=%s";\n'
    for copy, second in ((Copy.RELEASE, "one"), (Copy.PATCHED, "two")):
        it = module(version, copy)
        it.home = copy.value  # 0.6.3 keeps a build.ninja that is there, another copy's too
        kernel = it.sources[0].with_suffix(".cu")
        it.start(".cu").write(kernel, text % "one").build(".cu")
        it.write(kernel, text % "two", OLD + 5).build(".cu")
        assert it.answers()[1:] == [["one"], [second]]


@every_version
def test_header_of_flashinfer_itself_is_seen_by_host_sources(module: Making, version: str) -> None:
    """Its headers are system headers (-isystem): -MMD, which upstream uses, leaves them out."""
    for copy, second, third in ((Copy.RELEASE, "one", "one"), (Copy.PATCHED, "two", "three")):
        it = module(version, copy)
        it.home = copy.value
        header = it.flashinfer.folder / "flashinfer/data/include/sp_answer.h"
        text = '#define ANSWER "answer=%s"\n'
        it.start().remove(it.header).write(it.header, "#include <sp_answer.h>\n", 0)
        it.write(header, text % "one").build()
        it.write(header, text % "two").build()
        it.write(header, text % "three", -60).build().remove(header)
        assert it.answers()[1:] == [["one"], [second], [third]]


@every_version
def test_the_audit_reads_the_same_record_and_finds_what_is_stale(
    module: Making, version: str
) -> None:
    """Before anything is built again, and whatever the times say."""

    def seen(it: Module) -> list[tuple[str, int | None]]:
        base = it.folder / it.home / ".cache" / "flashinfer"
        return [
            (one.name, None if one.changed is None else len(one.changed))
            for one in jit_modules(base)
        ]

    it = module(version, Copy.PATCHED)
    it.start().run()
    assert seen(it) == [("answer", 0)]
    header = it.header.read_text()
    it.header.write_text(header.replace("one", "two"))
    os.utime(it.header, (1, 1))
    assert seen(it) == [("answer", 1)]  # of two objects one includes it
    it.header.write_text(header)
    assert seen(it) == [("answer", 0)]
    plain = module(version, Copy.RELEASE)
    plain.home = "plain"
    plain.start().run()
    assert seen(plain) == [("answer", None)]  # the release records nothing


# --- nothing more than needed ---------------------------------------------------------------------


@every_version
def test_only_what_the_header_reaches_is_compiled(module: Making, version: str) -> None:
    it = module(version, Copy.PATCHED).start().says("two").build().build()
    first, second, third = it.run()
    assert len(first["compiled"]) == 2
    assert [name.rpartition("_")[2] for name in second["compiled"]] == ["with.o"]
    assert third["compiled"] == []
    assert module(version, Copy.PATCHED).build().run()[0]["compiled"] == []


@newest
def test_contents_that_come_back_are_compiled_again(module: Making, version: str) -> None:
    it = module(version, Copy.PATCHED).start()
    for answer in ("two", "one", "three"):
        it.says(answer).build()
    assert it.answers() == [["one"], ["two"], ["one"], ["three"]]


@newest
def test_newer_times_still_rebuild(module: Making, version: str) -> None:
    """What ninja saw before, it sees still."""
    it = module(version, Copy.PATCHED).start().says("two", -5).build()
    assert it.answers() == [["one"], ["two"]]


# --- records that are lost, wrong, or late --------------------------------------------------------

RECORD = ".flashinfer_inputs.json"


@newest
def test_damaged_record_costs_one_build(module: Making, version: str) -> None:
    it = module(version, Copy.PATCHED)
    [first] = it.start().run()
    record = Path(first["folder"]) / RECORD
    whole = record.read_text()
    assert len(json.loads(whole)) == 2
    assert [each.name for each in record.parent.iterdir() if RECORD in each.name] == [RECORD]
    for damage in ("", "{", "[]", '{"a": "b"}', "\x00"):
        it.write(record, damage).build().build()
    it.remove(record).build().build()
    assert [len(each["compiled"]) for each in it.run()] == [2, 0] * 6
    assert json.loads(record.read_text()).keys() == json.loads(whole).keys()


@newest
def test_cache_of_an_unpatched_copy_is_not_trusted(module: Making, version: str) -> None:
    """The same folder, built before the patch, with sources replaced since."""
    it = module(version, Copy.RELEASE)
    assert it.start().says("two").build().answers() == [["one"], ["one"]]
    assert module(version, Copy.PATCHED).build().answers() == [["two"]]


@newest
def test_source_changed_while_it_was_compiled_is_compiled_again(
    module: Making, version: str
) -> None:
    """The compiler read `one`; the file says `two` before the build ends."""
    text = 'extern "C" const char with[];\nextern "C" const char with[] = "answer=%s";\n'
    it = module(version, Copy.PATCHED)
    kernel = it.sources[0].with_suffix(".cu")
    later = it.folder / "later"
    later.write_text(text % "two")
    it.write(kernel, text % "one").write(it.sources[1], "").build(".cu")
    # nvcc has to have read the file: a copy is compiled first, then the file is replaced.
    swap = f'case "$*" in *" -c "*) {nvcc()} "$@"; s=$?; sleep 0.1; cp {later} {kernel}; touch -d @1 {kernel}; exit $s;; esac'  # noqa: E501
    assert it.answers(BEFORE_NVCC=swap) == [["one"]]
    assert it.build(".cu").answers() == [["two"]]


@newest
def test_failed_build_keeps_what_was_compiled_and_blesses_nothing(
    module: Making, version: str
) -> None:
    it = module(version, Copy.PATCHED).start()
    it.write(it.header, "#error broken\n").build()
    it.says("two").build()
    first, second, third = it.run()
    assert first["error"] is None
    assert "broken" in second["error"]
    assert third["error"] is None
    assert "two" in third["answers"]
    assert [name.rpartition("_")[2] for name in third["compiled"]] == ["with.o"]


@newest
def test_modules_built_together_see_contents_too(module: Making, version: str) -> None:
    """`build_jit_specs` runs ninja in another folder, with records of its own."""
    it = module(version, Copy.PATCHED).start().build(together=True)
    it.says("two").build(together=True).says("one").build().says("two").build(together=True)
    it.build().says("one").build(together=True)
    assert it.answers() == [["one"], ["one"], ["two"], ["one"], ["two"], ["two"], ["one"]]


@newest
def test_header_that_is_gone_is_an_error_and_not_the_old_module(
    module: Making, version: str
) -> None:
    it = module(version, Copy.PATCHED).start()
    it.remove(it.header).build()
    _, second = it.run()
    assert "answer.h" in second["error"]
