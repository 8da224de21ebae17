"""`stackpatch audit`: its document, its exit status, what it tells people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stackpatch.checks.audit import Policy, Standing, judge
from stackpatch.checks.code import Code, Form, code
from stackpatch.checks.scan import Findings
from stackpatch.cli.main import main
from stackpatch.model.arch import ARCHES

if TYPE_CHECKING:
    from collections.abc import Callable

GPU = Path(__file__).parent.parent / "data" / "gpu"
SM121A = (GPU / "13.0-sm_121a.cubin").read_bytes()
SM120F = (GPU / "13.0-sm_120f.cubin").read_bytes()
SM100F = (GPU / "13.0-sm_100f.cubin").read_bytes()
PTX = (GPU / "13.0-compute_121a.ptx").read_bytes()
LTO = (GPU / "13.0-lto.fatbin").read_bytes()
OPEN = SM100F.replace(b"-arch sm_", b"-nope sm_")
OPEN_A = (
    (GPU / "13.0-sm_120a.cubin")
    .read_bytes()
    .replace(b".nv.compat\0", b".nv.XXXXXX\0")
    .replace(b"-arch sm_", b"-nope sm_")
    .replace(b"NVIDIA Corp\0\x02\0", b"NVIDIA Corp\0\x09\0")
)


@pytest.fixture
def run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """Run it on these files; exit status, document, stderr."""

    def call(files: dict[str, bytes], *words: str) -> tuple[int, dict[str, Any], str]:
        root = tmp_path / "t"
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        status = main(["audit", str(root), *words, "--json"])
        out, err = capsys.readouterr()
        return status, json.loads(out), err

    return call


ALL = {"a.so": SM121A + SM120F, "b.cubin": SM100F, "c.ptx": PTX, "d.o": b"no code"}


def test_the_document_of_the_contract(run: Any) -> None:
    status, document, err = run(ALL, "--arch", "sm121")
    assert status == 1
    assert document["schema"] == "stackpatch.audit/1"
    assert document["arch"] == "sm121"
    assert document["native"] == 1
    assert document["ptx"] == 1
    assert document["missing"] == ["b.cubin"]
    assert [(f["path"], f["arches"], f["ptx"]) for f in document["files"]] == [
        ("a.so", ["sm_120f", "sm_121a"], []),
        ("b.cubin", ["sm_100f"], []),
        ("c.ptx", [], ["compute_121a"]),
    ]
    assert document["looked_at"] == 4
    assert document["error"]["kind"] == "finding"
    assert document["error"]["message"] == "1 file has no code that runs on sm121"
    assert "--ignore" in err


def test_nothing_missing_is_status_0(run: Any) -> None:
    status, document, _ = run({"a.so": SM121A}, "--arch", "sm121")
    assert status == 0
    assert document["missing"] == []
    assert "error" not in document


def test_no_gpu_code_at_all_is_status_0_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.py").write_text("pass\n")
    assert main(["audit", str(tmp_path), "--arch", "sm121"]) == 0
    assert capsys.readouterr().out == f"no GPU code in {tmp_path} (1 file)\n"


def test_ptx_can_be_refused(run: Any) -> None:
    assert run({"c.ptx": PTX}, "--arch", "sm121")[0] == 0
    status, document, _ = run({"c.ptx": PTX}, "--arch", "sm121", "--ptx", "refuse")
    assert status == 1
    assert document["missing"] == ["c.ptx"]
    assert document["ptx"] == 0
    assert document["policy"]["ptx"] == "refuse"


@pytest.mark.parametrize("pattern", ["b.cubin", "*.cubin", "*/b.cubin", "x/*", "x/y/b.c[u]bin"])
def test_files_can_be_ignored_by_path_or_name(run: Any, pattern: str) -> None:
    files = {"a.so": SM121A, "x/y/b.cubin": SM100F}
    assert run(files, "--arch", "sm121")[0] == 1
    status, document, _ = run(files, "--arch", "sm121", "--ignore", "zzz", "--ignore", pattern)
    assert status == 0
    assert document["ignored"] == 1
    assert [f["path"] for f in document["files"]] == ["a.so"]


@pytest.mark.parametrize("pattern", ["B.cubin", "cubin", "x", "y/b.cubin"])
def test_other_patterns_ignore_nothing(run: Any, pattern: str) -> None:
    assert run({"x/y/b.cubin": SM100F}, "--arch", "sm121", "--ignore", pattern)[0] == 1


@pytest.mark.parametrize(
    "content", [LTO, SM121A[:-1], OPEN_A], ids=["lto", "cut off", "no evidence"]
)
def test_what_is_unknown_fails_only_when_strict(run: Any, content: bytes) -> None:
    files = {"a.so": SM121A, "u.bin": content}
    status, document, _ = run(files, "--arch", "sm121")
    assert (status, document["unknown"]) == (0, ["u.bin"])
    status, document, _ = run(files, "--arch", "sm121", "--strict")
    assert status == 1
    assert document["missing"] == ["u.bin"]


def test_a_target_that_the_bytes_leave_open_is_told(run: Any) -> None:
    status, document, _ = run({"k.cubin": OPEN}, "--arch", "sm100")
    assert status == 0  # sm_100 and sm_100f both run there
    (file,) = document["files"]
    assert file["arches"] == ["sm_100"]
    assert file["undecided"] == [
        {
            "code": "sm_100",
            "candidates": ["sm_100", "sm_100f"],
            "why": "the cubin does not say which",
        }
    ]
    assert run({"k.cubin": OPEN}, "--arch", "sm121")[1]["missing"] == ["k.cubin"]


def test_an_open_a_is_unknown_on_the_family_and_native_on_its_own(run: Any) -> None:
    assert run({"k.cubin": OPEN_A}, "--arch", "sm121")[1]["unknown"] == ["k.cubin"]
    assert run({"k.cubin": OPEN_A}, "--arch", "sm120")[1]["native"] == 1
    assert run({"k.cubin": OPEN_A}, "--arch", "sm90")[1]["missing"] == ["k.cubin"]


def test_a_library_that_runs_in_parts_is_told(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The seed's lesson: the library had code for the arch, the kernel that was called had not."""
    status, document, _ = run({"lib.so": SM121A + SM100F + SM100F}, "--arch", "sm121")
    assert status == 0
    assert document["partial"] == ["lib.so"]
    assert document["files"][0]["units"] == {"missing": 2, "native": 1}
    main(["audit", str(tmp_path / "t"), "--arch", "sm121"])
    assert "lib.so (1 of 3 parts)" in capsys.readouterr().out


def test_people_see_a_table_and_the_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(30):
        (tmp_path / f"k{number:02}.cubin").write_bytes(SM100F)
    (tmp_path / "a\x1b[31m.cubin").write_bytes(SM100F)
    (tmp_path / "b.whl").write_bytes(b"")
    assert main(["audit", str(tmp_path), "--arch", "sm121"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"31 files with GPU code in {tmp_path} (folder)\n")
    assert "sm_100f  31     missing" in out
    assert "… and 11 more (--json has all)" in out
    assert "b.whl: an archive inside" in out
    assert "\x1b" not in out
    assert r"a\x1b[31m.cubin" in out
    assert "error: 31 files have no code that runs on sm121" in err


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["audit", "/no/such", "--arch", "sm121"], 2, "does not exist"),
        (["audit", ".", "--arch", "sm999"], 2, "unknown arch"),
        (["audit", "."], 2, "missing option"),
        (["audit", "--arch", "sm121"], 2, "missing argument"),
        (["audit", ".", "--arch", "sm121", "--ptx", "maybe"], 2, "maybe"),
        (["audit", "repo/image:tag", "--arch", "sm121", "--offline"], 2, "--offline"),
    ],
)
def test_wrong_usage(
    words: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.lower()


def _judged(*codes: Code, damage: tuple[str, ...] = (), **policy: Any) -> Standing:
    findings = Findings(dict.fromkeys(codes, 1), {frozenset(codes): 1}, damage)
    return judge("x", findings, ARCHES["sm121"], Policy(**policy)).standing


@pytest.mark.parametrize(
    ("codes", "accepting", "refusing"),
    [
        ([code(Form.MACHINE, 121, ["a"])], "native", "native"),
        ([code(Form.MACHINE, 120, ["f"]), code(Form.PTX, 80)], "native", "native"),
        ([code(Form.MACHINE, 120, ["a"]), code(Form.PTX, 80)], "ptx", "missing"),
        ([code(Form.MACHINE, 120, ["a"])], "missing", "missing"),
        ([code(Form.MACHINE, 120, ["", "a"], why="w")], "unknown", "unknown"),
        ([code(Form.MACHINE, 120, ["", "a"], why="w"), code(Form.PTX, 80)], "ptx", "unknown"),
        ([code(Form.PTX, 120, ["", "a"], why="w")], "unknown", "missing"),
        ([code(Form.LTO, 121)], "unknown", "unknown"),
        ([code(Form.OTHER, 90)], "unknown", "unknown"),
        ([code(Form.MACHINE, 90), code(Form.LTO, 121)], "unknown", "unknown"),
    ],
)
def test_what_a_file_does_on_the_arch(codes: list[Code], accepting: str, refusing: str) -> None:
    assert _judged(*codes) == accepting
    assert _judged(*codes, accept_ptx=False) == refusing


def test_damage_turns_missing_into_unknown_and_nothing_else() -> None:
    assert _judged(code(Form.MACHINE, 90), damage=("at byte 7: cut",)) is Standing.UNKNOWN
    assert _judged(code(Form.MACHINE, 121), damage=("at byte 7: cut",)) is Standing.NATIVE
