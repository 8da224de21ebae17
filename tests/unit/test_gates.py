"""Checks for the GPU: found where they are, read for what they admit, judged by evidence alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stack import GATE, RECIPE

from stackpatch.checks.audit import Audit, Policy, audit
from stackpatch.checks.gates import Admitted, gates_in_file
from stackpatch.checks.gates_evidence import Behind, answer
from stackpatch.checks.gates_opened import opened_by_series, opened_by_text
from stackpatch.cli.main import main
from stackpatch.errors import InputError, Problems
from stackpatch.model.arch import ARCHES, CodeArch, parse_arch
from stackpatch.model.patch import parse_patch
from stackpatch.model.recipe_file import parse_recipe
from stackpatch.model.recipe_gates import GateRule, Kernels
from stackpatch.model.reference import SourceKind
from stackpatch.model.series import parse_series
from stackpatch.series.apply import apply_series
from stackpatch.sources.archive import Member
from stackpatch.sources.store import SourceStore

if TYPE_CHECKING:
    from stackpatch.model.recipe import Recipe

GPU = Path(__file__).parent.parent / "data" / "gpu"
SM120, SM121, SM100, SM103, SM90 = (
    parse_arch(name) for name in ("sm120", "sm121", "sm100", "sm103", "sm90")
)
MAJORS = r"majors ?= ?\[(?P<major>[\d, ]+)\]"
CHECK = (
    r"ICHECK_EQ\( ?major, (?P<major>\d+) ?\)|ICHECK_GE\( ?major, (?P<minimum>\d+) ?\)"
    r"|ICHECK\( ?major == (?P<major>\d+)(?: \|\| major == (?P<major>\d+))* ?\)"
)
GATES = """\
gates:
  rules:
    - name: majors
      what: a list in Python
      paths: ["demo/*.py"]
      contains: MAJORS
      pattern: 'MAJORS = \\[(?P<major>[\\d, ]+)\\]'
      behind: cubins
  kernels:
    cubins:
      kind: binaries
      what: prebuilt
      files: ["demo_cubin/*"]
      measured:
        - release: "1.2.3"
          distribution: demo-cubin
          version: "1.2.3"
          file: demo_cubin-1.2.3-py3-none-any.whl
          sha256: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
          codes: {sm_100f: 4000, sm_103a: 1000}
          date: "2026-11-21"
          how: by hand
      look-at: demo-cubin
"""
SHIPPED = """\
  shipped:
    - patch: 0001-gate.patch
      series: [v1.2.3]
      because: people ask for it
"""


def rule(pattern: str = MAJORS, **more: Any) -> GateRule:
    values = {
        "name": "r",
        "what": "w",
        "paths": ["*"],
        "contains": "a",
        "pattern": pattern,
        "behind": "k",
    }
    return GateRule.model_validate({**values, **more})


def kernels(**more: Any) -> Kernels:
    return Kernels.model_validate(
        {"kind": "binaries", "what": "w", "look-at": "the package", **more}
    )


def measured(**codes: int) -> dict[str, Any]:
    return {
        "release": "1.0",
        "distribution": "d",
        "version": "1.0",
        "file": "d.whl",
        "sha256": "a" * 64,
        "codes": {name.replace("_or_", "|"): count for name, count in codes.items()},
        "date": "2026-11-21",
        "how": "by hand",
    }


def recipe(extra: str = "") -> Recipe:
    return parse_recipe("recipes/demo.yaml", recipe_text(extra).encode(), name="demo")


def recipe_text(extra: str = "") -> str:
    text = RECIPE.format(file="demo-1.2.3-py3-none-any.whl", sha256="b" * 64, size=1)
    return text + GATES + extra


# -- finding ----------------------------------------------------------------------------------


def test_a_check_is_found_with_its_line_and_symbol() -> None:
    source = (
        b"import x\n\n\ndef gen():\n    return flags(\n        majors=[10,\n        12]\n    )\n"
    )
    (gate,) = gates_in_file("a/b.py", source, [rule()])
    assert (gate.path, gate.line, gate.symbol) == ("a/b.py", 6, "gen")
    assert gate.admitted == Admitted(majors=frozenset({10, 12}))
    assert gate.text == "majors=[10, 12]"


@pytest.mark.parametrize(
    "source",
    [
        b"# majors=[12]\n",
        b'def f():\n    """majors=[12]"""\n',
        b"#majors=[12] and majors = [a]\n",
    ],
)
def test_a_quotation_is_no_check(source: bytes) -> None:
    assert gates_in_file("a.py", source, [rule()]) == []


def test_dead_c_code_is_no_check() -> None:
    source = b"#if 0\nvoid f() { ICHECK_EQ(major, 12); }\n#endif\n// ICHECK_EQ(major, 12)\n"
    assert gates_in_file("a.cu", source, [rule(CHECK, contains="ICHECK")]) == []
    live = b"void f() { ICHECK_EQ(major,\n   12); }\n"
    assert len(gates_in_file("a.cu", live, [rule(CHECK, contains="ICHECK")])) == 1


@pytest.mark.parametrize(
    ("text", "passes", "refused"),
    [
        ("ICHECK_EQ(major, 10)", (SM100, SM103), (SM90, SM120, SM121)),
        ("ICHECK(major == 10 || major == 12)", (SM100, SM120, SM121), (SM90,)),
        ("ICHECK_GE(major, 10)", (SM100, SM121), (SM90,)),
    ],
)
def test_what_a_check_admits(text: str, passes: tuple[Any, ...], refused: tuple[Any, ...]) -> None:
    source = f"void f() {{ {text}; }}".encode()
    (gate,) = gates_in_file("a.cu", source, [rule(CHECK, contains="ICHECK")])
    assert all(gate.admitted.admits(arch) for arch in passes)
    assert not any(gate.admitted.admits(arch) for arch in refused)


def test_capabilities_are_exact_and_targets_run_as_devices_run_them() -> None:
    exact = rule(r"ccs\(\[(?P<capability>[\d, ]+)\]\)", contains="ccs")
    (gate,) = gates_in_file("a.py", b"ccs([100, 120])\n", [exact])
    assert gate.admitted.admits(SM120)
    assert not gate.admitted.admits(SM121)
    listed = rule(r'set\(ARCHS "(?P<target>[^"]*)"\)', contains="ARCHS")
    cmake = b'# set(ARCHS "121a")\nset(ARCHS "100f;120f")\n'
    (gate,) = gates_in_file("CMakeLists.txt", cmake, [listed])
    assert gate.admitted.targets == {CodeArch(100, "f"), CodeArch(120, "f")}
    assert [gate.admitted.admits(a) for a in (SM90, SM100, SM103, SM120, SM121)] == [
        False,
        True,
        True,
        True,
        True,
    ]
    (gate,) = gates_in_file("CMakeLists.txt", b'set(ARCHS "120a")\n', [listed])
    assert gate.admitted.admits(SM120)
    assert not gate.admitted.admits(SM121)


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("7.5;12.0f", {CodeArch(75), CodeArch(120, "f")}),
        ("8.0+PTX;12.1a", {CodeArch(80), CodeArch(80, ptx=True), CodeArch(121, "a")}),
        ("sm_100f, Sm103a and 90", {CodeArch(100, "f"), CodeArch(103, "a"), CodeArch(90)}),
        ("10.0.1 1200 v1.2 12", set()),  # versions and counts are no targets
    ],
)
def test_targets_are_read_as_sources_and_cmake_write_them(
    text: str, targets: set[CodeArch]
) -> None:
    listed = rule(r'set\(ARCHS "(?P<target>[^"]*)"\)', contains="ARCHS")
    (gate,) = gates_in_file("CMakeLists.txt", f'set(ARCHS "{text}")\n'.encode(), [listed])
    assert gate.admitted.targets == targets


def test_a_name_without_a_number_admits_what_the_rule_says() -> None:
    named = rule(r"if not is_sm100_supported\(\)", contains="is_sm100", majors=[10])
    (gate,) = gates_in_file("a.py", b"if not is_sm100_supported():\n    raise X\n", [named])
    assert gate.admitted.admits(SM103)
    assert not gate.admitted.admits(SM121)


def test_the_first_rule_has_the_stretch_unless_its_symbols_say_no() -> None:
    source = b"def trt_a():\n    f(majors=[10])\n\n\ndef other():\n    f(majors=[10])\n"
    rules = [rule(name="first", symbols=["trt_*"]), rule(name="second")]
    assert [gate.rule.name for gate in gates_in_file("a.py", source, rules)] == ["first", "second"]


def test_a_method_is_named_whole_or_by_its_last_parts() -> None:
    source = b"namespace n { struct Launcher { void init() { ICHECK_EQ(major, 10); } }; }\n"
    for pattern, count in (("init", 1), ("Launcher::*", 1), ("n::*", 1), ("Launch::*", 0)):
        wanted = rule(CHECK, contains="ICHECK", symbols=[pattern])
        assert len(gates_in_file("a.cu", source, [wanted])) == count, pattern


def test_other_paths_are_not_looked_at() -> None:
    source = b"majors=[10]\n"
    assert gates_in_file("b/a.py", source, [rule(paths=["a/*.py"])]) == []
    assert len(gates_in_file("a/b/c.py", source, [rule(paths=["a/*.py"])])) == 1


def test_a_pattern_that_runs_away_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stackpatch.checks.gates.PATTERN_SECONDS", 0.2)
    start = time.monotonic()
    with pytest.raises(InputError, match="gate rule slow: its pattern runs for more than"):
        gates_in_file("a.py", b"a" * 40 + b"!\n", [rule(r"(?P<major>(a|aa)+)$", name="slow")])
    assert time.monotonic() - start < 20


@given(st.binary(max_size=300), st.sampled_from(["x.py", "x.cu", "x.txt", "x"]))
def test_any_bytes_are_read(content: bytes, path: str) -> None:
    found = gates_in_file(path, b"a majors=[9]\n" + content, [rule()])
    assert all(gate.line >= 1 for gate in found)


# -- judging ----------------------------------------------------------------------------------


def test_binaries_of_another_family_prove_that_opening_cannot_help() -> None:
    found = answer("k", kernels(measured=[measured(sm_100f=4495, sm_103a=670)]), "1.0", SM121)
    assert found.behind is Behind.NOTHING
    assert found.says == (
        "opening this gate cannot help: sm_100f and sm_103a only (5,165 in d 1.0)"
    )
    assert found.evidence["sha256"] == "a" * 64


@pytest.mark.parametrize(
    ("codes", "arch", "expected"),
    [
        ({"sm_100f": 1, "sm_120f": 1}, SM121, Behind.KERNEL),
        ({"sm_120a": 1}, SM121, Behind.NOTHING),
        ({"sm_120a_or_sm_120f": 1}, SM121, Behind.UNKNOWN),
        ({"sm_120a_or_sm_120f": 1}, SM120, Behind.KERNEL),
        ({"sm_100f": 9, "sm_120a_or_sm_120f": 1}, SM121, Behind.UNKNOWN),
        ({"compute_90": 1}, SM121, Behind.KERNEL),
    ],
)
def test_counts_decide_only_where_the_bytes_did(
    codes: dict[str, int], arch: Any, expected: Behind
) -> None:
    found = answer("k", kernels(measured=[measured(**codes)]), "1.0", arch)
    assert found.behind is expected


def test_another_release_and_an_untraced_gate_are_not_known() -> None:
    found = answer("k", kernels(measured=[measured(sm_100f=1)]), "2.0", SM121)
    assert found.behind is Behind.UNKNOWN
    assert "look at the package" in found.says
    assert answer("k", kernels(kind="unknown"), "1.0", SM121).behind is Behind.UNKNOWN


def test_jit_sources_count_once_they_were_compiled_for_the_arch() -> None:
    one = {
        "release": "1.0",
        "arch": "sm121",
        "source": "a.cu",
        "compiles": True,
        "date": "2026-11-21",
        "how": "nvcc 13.0",
    }
    jit = kernels(kind="jit", compiled=[one])
    assert answer("k", jit, "1.0", SM121).behind is Behind.KERNEL
    assert answer("k", jit, "1.0", SM120).behind is Behind.UNKNOWN
    assert answer("k", jit, "1.1", SM121).behind is Behind.UNKNOWN
    refused = kernels(kind="jit", compiled=[{**one, "compiles": False}])
    found = answer("k", refused, "1.0", SM121)
    assert found.behind is Behind.UNKNOWN
    assert "a.cu does not compile" in found.says


def _cubins(folder: Path, **named: str) -> Audit:
    for name, source in named.items():
        target = folder / "demo_cubin" / f"{name}.cubin"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((GPU / source).read_bytes())
    return audit(str(folder), SM121, Policy())


def test_what_the_audit_reads_goes_before_what_was_recorded(tmp_path: Path) -> None:
    stale = kernels(files=["demo_cubin/*"], measured=[measured(sm_100f=9)])
    native = _cubins(tmp_path / "a", x="13.0-sm_121a.cubin")
    assert answer("k", stale, "1.0", SM121, native).behind is Behind.KERNEL
    foreign = _cubins(tmp_path / "b", x="13.0-sm_100f.cubin")
    found = answer("k", stale, "1.0", SM121, foreign)
    assert found.behind is Behind.NOTHING
    assert found.evidence["codes"] == {"sm_100f": 1}


def test_an_audit_that_passed_over_files_proves_nothing(tmp_path: Path) -> None:
    _cubins(tmp_path, x="13.0-sm_121a.cubin", y="13.0-sm_100f.cubin")
    partial = audit(str(tmp_path), SM121, Policy(ignore=("x.cubin",)))
    found = answer("k", kernels(files=["demo_cubin/*"]), "1.0", SM121, partial)
    assert found.behind is Behind.UNKNOWN


# -- before and after -------------------------------------------------------------------------


def opened(files: dict[str, bytes], patch: str, extra: str = "", arch: Any = SM121) -> list[Any]:
    # With the blob's id the hunk is at home in exactly this file, as in every mail of git.
    patch = patch.replace(
        "--- a/demo", f"index {blob(files['demo/gate.py'])}..{'0' * 40} 100644\n--- a/demo"
    )
    store = SourceStore("demo")
    base = store.import_files(
        SourceKind.SDIST,
        "1.2.3",
        [Member.of(path, 0o100644, content) for path, content in files.items()],
        seconds=1770000000,
        evidence={"Made-By": "test"},
    )
    series = parse_series(
        "patches/demo/v1.2.3", b"0001-gate.patch\n", {"0001-gate.patch": patch.encode()}
    )
    result = apply_series(store.objects, base.tree, series.patches, parent=base.commit)
    assert result.applied
    one = recipe(extra)
    return opened_by_series(store.objects, result, one, one.release(), arch)


def blob(content: bytes) -> str:
    return Member.of("x", 0o100644, content).blob


SOURCE = b"MAJORS = [10]\n\n\ndef allowed(major):\n    return major in MAJORS\n"


def test_a_patch_that_opens_a_dead_gate_is_told() -> None:
    (found,) = opened({"demo/gate.py": SOURCE}, GATE)
    assert found.answer.behind is Behind.NOTHING
    assert found.unexplained
    assert found.json()["before"] == "10.x"
    assert found.json()["after"] == "10.x, 12.x"
    assert "cannot help: sm_100f and sm_103a only (5,000 in demo-cubin 1.2.3)" in found.line()


def test_the_recipe_says_why_it_is_shipped() -> None:
    (found,) = opened({"demo/gate.py": SOURCE}, GATE, SHIPPED)
    assert not found.unexplained
    assert found.line().endswith("; shipped because people ask for it")


def test_nothing_is_opened_for_an_arch_that_passed_before() -> None:
    assert opened({"demo/gate.py": SOURCE}, GATE, arch=SM100) == []
    assert opened({"demo/gate.py": SOURCE}, GATE, arch=SM90) == []


def test_a_gate_that_is_removed_was_opened() -> None:
    removal = GATE.replace("+MAJORS = [10, 12]", "+EVERY = True")
    (found,) = opened({"demo/gate.py": SOURCE}, removal)
    assert found.after is None
    assert found.json()["after"] is None


def test_a_gate_that_is_only_written_differently_was_not_opened() -> None:
    assert opened({"demo/gate.py": SOURCE}, GATE.replace("[10, 12]", "[10, 11]")) == []


def test_hunks_alone_show_it_too() -> None:
    one = recipe()
    (found,) = opened_by_text(
        parse_patch("0001-gate.patch", GATE.encode()), one, one.release(), SM121
    )
    assert found.unexplained


# -- the recipe -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("behind: cubins", "behind: cubin", "gates.rules[0].behind: no kernels 'cubin'; did you"),
        ("(?P<major>", "(?P<mayor>", "unknown group 'mayor'; did you mean major?"),
        ("(?P<major>[", "([", "says nothing about what it admits"),
        ("\\[(?P", "[(?P<x", "not a regular expression"),
        ('release: "1.2.3"', 'release: "1.2.4"', "no release '1.2.4' in this recipe"),
        ("sm_100f: 4000", "sm100: 4000", "'sm100' is no target such as sm_100f"),
        ("sm_100f: 4000", "sm_100f: 0", "0 files; leave out what is not there"),
        ("kind: binaries", "kind: jit", "belongs to kernels of the kind binaries"),
        ('"2026-11-21"', '"2026-13-21"', "is not a day such as 2026-11-21"),
        ("look-at: demo-cubin", "lookat: demo-cubin", "unknown key; did you mean look-at?"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(old: str, new: str, expected: str) -> None:
    text = recipe_text()
    assert text.count(old) == 1, old
    with pytest.raises(Problems) as caught:
        parse_recipe("recipes/demo.yaml", text.replace(old, new).encode(), name="demo")
    assert any(expected in problem for problem in caught.value.problems), caught.value.problems


def test_a_reason_for_a_series_that_nobody_has() -> None:
    with pytest.raises(Problems) as caught:
        recipe(SHIPPED.replace("v1.2.3", "v9"))
    assert "no release has the series 'v9'" in caught.value.problems[0]


def test_lint_warns_until_the_recipe_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipes").mkdir()
    folder = tmp_path / "patches/demo/v1.2.3"
    folder.mkdir(parents=True)
    (folder / "series").write_text("0001-gate.patch\n")
    (folder / "0001-gate.patch").write_text(GATE)
    path = tmp_path / "recipes/demo.yaml"
    path.write_text(recipe_text())
    assert main(["lint", "--root", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert "0001-gate.patch:1: seems to open the gate majors for sm121" in said
    assert f"say in {path}, gates.shipped, why it is shipped" in said
    assert main(["lint", "--strict", "--root", str(tmp_path)]) == 1
    capsys.readouterr()
    path.write_text(recipe_text(SHIPPED))
    assert main(["lint", "--root", str(tmp_path)]) == 0
    assert "the gate" not in capsys.readouterr().err


def test_every_arch_is_judged_by_its_major() -> None:
    admitted = Admitted(majors=frozenset({12}))
    assert {name for name, arch in ARCHES.items() if admitted.admits(arch)} == {"sm120", "sm121"}
