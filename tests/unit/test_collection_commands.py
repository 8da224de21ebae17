"""`list`, `show`, `lint` and `schema` as a person and as a script use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jsonschema  # type: ignore[import-untyped]
import pytest
from tests.folders import RECIPE, mail, make_folder

from stackpatch.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).parents[2]


class Ran(NamedTuple):
    """How a run ended and what it said."""

    status: int
    out: str
    err: str

    def document(self) -> dict[str, Any]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Ran]:
    """Run the program on the folder in tmp_path."""

    def invoke(*words: str, root: Path | None = None) -> Ran:
        capfd.readouterr()
        status = main.main([*words, "--root", str(root or tmp_path)])
        return Ran(status, *capfd.readouterr())

    return invoke


def test_list_of_our_own(run: Callable[..., Ran]) -> None:
    ran = run("list", root=CHECKOUT)
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert any(line.startswith("flashinfer: ") for line in lines)
    assert any(
        line.split() == ["0.6.3", "*", "v0.6.3", "d0886ce2b677", str(count)]
        for line in lines
        for count in range(1, 20)
    )
    assert any("bbe9c7eeb520 (second-hand)" in line for line in lines)
    assert any(line.split()[:3] == ["0.5.23", "v0.5.23", "unknown"] for line in lines)


def test_list_as_json_has_the_shape_of_the_contract(run: Callable[..., Ran]) -> None:
    ran = run("list", "--json", root=CHECKOUT)
    assert ran.status == 0
    document = ran.document()
    assert document["schema"] == "stackpatch.list/1"
    assert "error" not in document
    stacks = {stack["name"]: stack for stack in document["stacks"]}
    assert {"flashinfer", "sglang"} <= set(stacks)
    assert {"sm120", "sm121"} <= set(stacks["flashinfer"]["arches"])
    releases = {release["version"]: release for release in stacks["flashinfer"]["releases"]}
    pinned = releases["0.6.3"]
    assert pinned["tag"] == "v0.6.3"
    assert pinned["commit"] == "d0886ce2b67761a5b4f9396b4c3741f7860791b0"
    assert pinned["default"] is True
    assert releases["0.5.3"]["default"] is False
    listing = (CHECKOUT / "patches/flashinfer/v0.6.3/series").read_text().splitlines()
    names = [line for line in listing if line.strip() and not line.startswith("#")]
    assert pinned["patches"] == len(names)
    assert releases["0.7.2"]["patches"] == 0
    unknown = {release["version"]: release for release in stacks["sglang"]["releases"]}["0.5.23"]
    assert (unknown["commit"], unknown["commit_evidence"]) == (None, "unknown")


def test_list_shows_the_good_beside_the_broken(run: Callable[..., Ran], tmp_path: Path) -> None:
    make_folder(tmp_path, recipes={"demo.yaml": RECIPE, "bad.yaml": "x"})
    (tmp_path / "patches/demo/v1.0/series").write_text("0001.patch\nabsent.patch\n")
    ran = run("list")
    assert ran.status == 2
    assert ran.out.startswith("demo: A demonstration\n")
    assert ran.out.splitlines()[-1].split()[-1] == "?"
    assert "bad.yaml:1: want a mapping" in ran.err
    assert "series:2: absent.patch: no such file" in ran.err
    document = run("list", "--json").document()
    assert [stack["name"] for stack in document["stacks"]] == ["demo"]
    assert document["stacks"][0]["releases"][0]["patches"] is None
    assert document["error"]["kind"] == "input"
    assert len(document["error"]["problems"]) == 2


def test_list_of_nothing(run: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    assert run("list", "--json").document() == {"schema": "stackpatch.list/1", "stacks": []}


def test_show_the_default_release(run: Callable[..., Ran]) -> None:
    ran = run("show", "flashinfer", root=CHECKOUT)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("flashinfer 0.6.3: ")
    for wanted in (
        "d0886ce2b67761a5b4f9396b4c3741f7860791b0",
        "first-hand",
        "flashinfer_python-0.6.3-py3-none-any.whl",
        "0fe2de934a4b3690c543dafb03f38d7bb4a762431abe8ae4f7292d6fef10c65d",
        "FLASHINFER_CUDA_ARCH_LIST='12.1a'",
        "sm90",
    ):
        assert wanted in ran.out


def test_show_as_json(run: Callable[..., Ran], tmp_path: Path) -> None:
    text = mail(trailers="Upstream-Status: Pending\nArch: sm121\nApplies-To: >=1.0\n")
    files = {"series": "0001.patch\n0002.patch\n", "0001.patch": mail(), "0002.patch": text}
    make_folder(tmp_path, series={"demo/v1.0": files})
    document = run("show", "demo@1.0", "--json").document()
    assert document["schema"] == "stackpatch.show/1"
    assert document["stack"] == "demo"
    assert document["release"]["version"] == "1.0"
    assert document["release"]["default"] is True
    assert document["release"]["artefacts"] == [
        {
            "file": "demo-1.0-py3-none-any.whl",
            "sha256": "a" * 64,
            "bytes": 10,
            "kind": "wheel",
            "platforms": [],
            "pythons": [],
        }
    ]
    first, second = document["patches"]
    assert first["subject"] == "demo: add b"
    assert first["status"] == "Submitted"
    assert first["links"] == ["https://example.org/pull/1"]
    assert first["effects"] == ["demo/x.py :: * :: b = 2"]
    assert first["paths"] == ["demo/x.py"]
    assert (first["archs"], second["archs"]) == (None, ["sm121"])
    assert (first["applies_to"], second["applies_to"]) == (None, ">=1.0")
    assert len(document["series_digest"]) == 64


def test_show_for_one_arch(run: Callable[..., Ran], tmp_path: Path) -> None:
    text = mail("demo: only there", trailers="Upstream-Status: Pending\nArch: sm121\n")
    files = {"series": "0001.patch\n0002.patch\n", "0001.patch": mail(), "0002.patch": text}
    make_folder(tmp_path, series={"demo/v1.0": files})
    both = run("show", "demo", "--arch", "sm121", "--json").document()
    one = run("show", "demo", "--arch", "sm120", "--json").document()
    assert (len(both["patches"]), len(one["patches"])) == (2, 1)
    assert both["series_digest"] != one["series_digest"]
    assert list(one["archs"]) == ["sm120"]
    shown = run("show", "demo", "--arch", "sm121").out
    assert "demo: only there" in shown
    assert "[sm121]" in shown
    assert "DGX Spark" in shown
    assert "only there" not in run("show", "demo", "--arch", "sm120").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "dmeo"), "did you mean demo?"),
        (("show", "demo@1.1"), "no pinned release '1.1'"),
        (("show", "demo@latest"), "not a release number"),
        (("show", "demo", "--arch", "sm_121a"), "did you mean sm121?"),
        (("show", "demo", "--arch", "sm90"), "no arch 'sm90'"),
        (("show",), "STACK"),
        (("lint", "dmeo"), "did you mean demo?"),
    ],
)
def test_wrong_names(
    run: Callable[..., Ran], tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    make_folder(tmp_path)
    ran = run(*words)
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.err
    document = run(*words, "--json").document()
    assert document["error"]["kind"] == "input"


def test_lint_of_our_own(run: Callable[..., Ran]) -> None:
    ran = run("lint", "--strict", root=CHECKOUT)
    assert (ran.status, ran.out) == (0, "")
    assert ran.err.startswith("no problem in ")


def test_lint_tells_findings_on_stdout_and_ends_with_1(
    run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path, recipes={"demo.yaml": RECIPE + "extra: 1\nmore: no\n"})
    monkeypatch.chdir(tmp_path)
    ran = run("lint")
    assert ran.status == 1
    lines = ran.out.splitlines()
    assert [line[: line.index(": ")] for line in lines] == [
        "recipes/demo.yaml:20",
        "recipes/demo.yaml:21",
        "recipes/demo.yaml:21",
    ]
    assert "3 problems in 1 file, of 1 recipe, 1 series, 1 patch" in ran.err
    document = run("lint", "--json").document()
    assert document["schema"] == "stackpatch.lint/1"
    assert document["error"]["kind"] == "finding"
    assert [problem["line"] for problem in document["problems"]] == [20, 21, 21]
    assert document["problems"][0]["path"] == "recipes/demo.yaml"
    assert (document["recipes"], document["series"], document["patches"]) == (1, 1, 1)


def test_lint_warnings_count_only_when_strict(run: Callable[..., Ran], tmp_path: Path) -> None:
    text = mail(trailers="Signed-off-by: A Person <person@example.org>\n")
    make_folder(tmp_path, series={"demo/v1.0": {"series": "0001.patch\n", "0001.patch": text}})
    ran = run("lint")
    assert (ran.status, ran.out) == (0, "")
    assert ran.err.count("warning:") == 2
    assert len(run("lint", "--json").document()["warnings"]) == 2
    strict = run("lint", "--strict")
    assert strict.status == 1
    assert len(strict.out.splitlines()) == 2
    assert "warning:" not in strict.err


def test_lint_knows_the_caches(run: Callable[..., Ran], tmp_path: Path) -> None:
    text = RECIPE.replace("[flashinfer-jit]", "[flashinfer-jti]")
    make_folder(tmp_path, recipes={"demo.yaml": text})
    ran = run("lint")
    assert ran.status == 1
    assert "unknown cache 'flashinfer-jti'; did you mean flashinfer-jit" in ran.out


def test_schema_on_stdout_is_the_schema(run: Callable[..., Ran]) -> None:
    ran = run("schema", root=CHECKOUT)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == (CHECKOUT / "docs/schema/recipe.schema.json").read_text("utf-8")
    wrapped = run("schema", "--json", root=CHECKOUT).document()
    assert wrapped["schema"] == "stackpatch.schema/1"
    jsonschema.Draft202012Validator.check_schema(wrapped["recipe"])
    assert wrapped["recipe"] == json.loads(ran.out)
