"""What a recipe says of starting a server: read, shown for the releases it is for, refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from tests.folders import RECIPE, make_folder

from stackpatch.cli.main import main
from stackpatch.errors import Problems
from stackpatch.model.recipe_file import parse_recipe
from stackpatch.model.schema import recipe_schema, reference_page

if TYPE_CHECKING:
    from pathlib import Path

    from stackpatch.model.recipe import Recipe

LAUNCH = """\
    launch:
      - releases: ">=1.0,<1.4"
        when: NVFP4 MoE models
        args: [--moe-runner-backend, flashinfer cutlass]
        env: {SERVER_LEVEL: "3 4"}
        why: the default takes kernels that this arch lacks
      - {releases: ">=2", when: any, env: {SERVER_WAIT: "1"}, why: it hangs}
"""
GOOD = RECIPE.replace(
    '  sm120: {cuda: ">=12.8"}\n',
    '  sm120:\n    cuda: ">=12.8"\n    build-args: {CUDA_ARCHITECTURES: 120-real}\n' + LAUNCH,
)


def read(text: str) -> Recipe:
    return parse_recipe("r.yaml", text.encode())


def test_what_is_read() -> None:
    settings = read(GOOD).archs["sm120"]
    first, second = settings.launch
    assert first.args == ("--moe-runner-backend", "flashinfer cutlass")
    assert (first.env, second.env) == ({"SERVER_LEVEL": "3 4"}, {"SERVER_WAIT": "1"})
    assert settings.build_args == {"CUDA_ARCHITECTURES": "120-real"}
    assert read(GOOD).archs["sm121"].launch == ()


@pytest.mark.parametrize(
    ("version", "serves"),
    [("0.9", False), ("1.0", True), ("1.3.9.post1", True), ("1.4", False), ("1.4rc1", False)],
)
def test_which_releases_it_is_for(version: str, serves: bool) -> None:
    assert read(GOOD).archs["sm120"].launch[0].serves(version) is serves


def test_a_release_candidate_inside_the_range_counts() -> None:
    assert read(GOOD).archs["sm120"].launch[0].serves("1.3rc17")


def test_show_says_it_as_a_shell_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(tmp_path, series={})
    (tmp_path / "recipes" / "demo.yaml").write_text(GOOD.replace("series: v1.0", "series: null"))
    assert main(["show", "demo", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert (
        "start with  SERVER_LEVEL='3 4' --moe-runner-backend 'flashinfer cutlass'\n"
        "             for NVFP4 MoE models: the default takes kernels that this arch lacks\n"
    ) in out
    assert "SERVER_WAIT" not in out
    assert main(["show", "demo", "--arch", "sm120", "--json", "--root", str(tmp_path)]) == 0
    archs = json.loads(capsys.readouterr().out)["archs"]
    assert [one["releases"] for one in archs["sm120"]["launch"]] == [">=1.0,<1.4"]
    assert archs["sm120"]["build-args"] == {"CUDA_ARCHITECTURES": "120-real"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('releases: ">=1.0,<1.4"', "releases: newest", "not a PEP 440 range"),
        ("when: NVFP4 MoE models", 'when: ""', "when: empty"),
        ("        why: the default takes kernels that this arch lacks\n", "", "why: missing"),
        ("[--moe-runner-backend, flashinfer cutlass]", "--a b", "want a list"),
        ("[--moe-runner-backend, flashinfer cutlass]", '["--a b"]', "two arguments; write [--a, b"),
        ("[--moe-runner-backend, flashinfer cutlass]", '[""]', "empty or holds a control"),
        ("[--moe-runner-backend, flashinfer cutlass]", r'["a\nb"]', "empty or holds a control"),
        ('SERVER_LEVEL: "3 4"', '"A-B": "3"', "not a variable's name"),
        (', env: {SERVER_WAIT: "1"}', "", "neither args nor env"),
        ("args: [", "arguments: [", "arguments"),
        ("CUDA_ARCHITECTURES: 120-real", "CUDA ARCH: 120-real", "not a variable's name"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(old: str, new: str, said: str) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(Problems) as caught:
        read(GOOD.replace(old, new))
    told = "\n".join(caught.value.problems)
    assert said in told
    assert "r.yaml:" in told
    assert "archs.sm120" in told


def test_an_option_with_a_value_behind_an_equals_sign_may_hold_blanks() -> None:
    text = GOOD.replace("[--moe-runner-backend, flashinfer cutlass]", '["--config={\\"a\\": 1}"]')
    assert read(text).archs["sm120"].launch[0].args == ('--config={"a": 1}',)


@pytest.mark.parametrize("field", ["submodules", "lfs"])
def test_what_a_checkout_needs(field: str) -> None:
    start = "{git: https://example.org/demo.git, pypi: demo, package: demo"
    assert getattr(read(RECIPE).upstream, field) is False
    assert getattr(read(RECIPE.replace(start, f"{start}, {field}: true")).upstream, field) is True
    for wrong in ("1", '"true"', "null"):
        with pytest.raises(Problems) as caught:
            read(RECIPE.replace(start, f"{start}, {field}: {wrong}"))
        assert f"r.yaml:3: upstream.{field}: " in caught.value.problems[0]


def test_the_schema_and_the_page_know_it() -> None:
    jsonschema.validate(yaml.safe_load(GOOD), recipe_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            yaml.safe_load(GOOD.replace("why: it hangs", "because: it hangs")), recipe_schema()
        )
    assert "## Launch" in reference_page()
