"""Lint: every error at once, on our folder and on somebody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.folders import RECIPE, TRAILERS, mail, make_folder

from stackpatch.errors import InputError
from stackpatch.installed.caches import CACHES
from stackpatch.model.collection import Collection
from stackpatch.model.lint import Remark, Report, lint

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def problems(*stacks: str, caches: frozenset[str] | None = None) -> list[str]:
    report = lint(Collection(Path.cwd()), stacks, known_caches=caches)
    return [str(remark) for remark in report.problems]


def test_a_good_folder(tmp_path: Path) -> None:
    make_folder(tmp_path)
    report = lint(Collection(tmp_path), known_caches=frozenset({"flashinfer-jit"}))
    assert report == Report([], [], recipes=1, series=1, patches=1)


def test_our_own_folder() -> None:
    report = lint(Collection(CHECKOUT), known_caches=frozenset(CACHES))
    assert [str(remark) for remark in report.problems + report.warnings] == []
    assert report.recipes >= 2
    assert report.patches >= 10


def test_a_broken_recipe_does_not_hide_a_broken_patch(tmp_path: Path) -> None:
    make_folder(
        tmp_path,
        recipes={"demo.yaml": RECIPE + "extra: 1\n", "other.yaml": "- a\n"},
        series={
            "demo/v1.0": {
                "series": "0001.patch\n0002.patch\n",
                "0001.patch": mail(trailers="Upstream-Status: Perhaps\n"),
                "0002.patch": mail(trailers="Effect: nothing\n"),
            }
        },
    )
    found = problems()
    assert found[0].startswith(
        "patches/demo/v1.0/0001.patch:8: Upstream-Status: 'Perhaps' is none of Pending"
    )
    assert found[1] == (
        "patches/demo/v1.0/0002.patch:8: Effect: want `path :: symbol :: regular expression`"
    )
    assert found[2].startswith("recipes/demo.yaml:20: extra: unknown key; ")
    assert found[3] == (
        "recipes/other.yaml:1: want a mapping that starts with `stack:`, found a list"
    )
    assert len(found) == 4


def test_a_series_that_names_a_missing_file_lists_one_twice_and_forgets_one(
    tmp_path: Path,
) -> None:
    make_folder(
        tmp_path,
        series={
            "demo/v1.0": {
                "series": "# why\n0001.patch\n0002.patch\n0001.patch\n../0003.patch\n",
                "0001.patch": mail(),
                "0009.patch": mail(),
            }
        },
    )
    assert problems() == [
        "patches/demo/v1.0/0009.patch:1: lies beside the series but is not listed in it",
        "patches/demo/v1.0/series:3: 0002.patch: no such file in patches/demo/v1.0/",
        "patches/demo/v1.0/series:4: 0001.patch: listed twice (first at line 2)",
        (
            "patches/demo/v1.0/series:5: ../0003.patch: must be a plain file name in "
            "patches/demo/v1.0/"
        ),
    ]


def test_a_series_folder_without_a_series_file(tmp_path: Path) -> None:
    make_folder(tmp_path, series={"demo/v1.0": {"0001.patch": mail()}})
    assert problems() == ["patches/demo/v1.0/series:1: no series in patches/demo/v1.0"]


def test_a_release_whose_series_is_not_there(tmp_path: Path) -> None:
    make_folder(tmp_path, series={"demo/v1.1": {"series": "0001.patch\n", "0001.patch": mail()}})
    assert problems() == [
        "patches/demo/v1.1/series:1: no release of demo has this series; nothing reads it",
        "recipes/demo.yaml:15: releases[0].series: no folder patches/demo/v1.0; did you mean v1.1?",
    ]


def test_no_patches_folder_at_all(tmp_path: Path) -> None:
    make_folder(tmp_path, series={})
    (tmp_path / "patches").rmdir()
    assert problems() == [
        "recipes/demo.yaml:15: releases[0].series: no folder patches/demo/v1.0; there is none"
    ]


def test_a_patch_that_is_meant_for_another_release(tmp_path: Path) -> None:
    text = mail(trailers=TRAILERS + "Applies-To: >=1.1,<2\n")
    make_folder(tmp_path, series={"demo/v1.0": {"series": "0001.patch\n", "0001.patch": text}})
    (found,) = problems()
    assert found.startswith("patches/demo/v1.0/0001.patch:10: Applies-To: ")
    assert found.endswith(" leaves out 1.0, the release that this series is for")


def test_a_patch_for_a_pre_release_range_that_holds(tmp_path: Path) -> None:
    text = mail(trailers=TRAILERS + "Applies-To: >=1.0rc1,<1.1\n")
    make_folder(tmp_path, series={"demo/v1.0": {"series": "0001.patch\n", "0001.patch": text}})
    assert problems() == []


def test_a_patch_for_an_arch_that_the_recipe_lacks(tmp_path: Path) -> None:
    text = mail(trailers=TRAILERS + "Arch: sm103 sm121\n")
    make_folder(tmp_path, series={"demo/v1.0": {"series": "0001.patch\n", "0001.patch": text}})
    assert problems() == [
        "patches/demo/v1.0/0001.patch:10: Arch: the recipe has no sm103 (it has sm120, sm121)"
    ]


def test_what_a_patch_does_not_say_is_a_warning(tmp_path: Path) -> None:
    text = mail(trailers="Signed-off-by: A Person <person@example.org>\n")
    make_folder(tmp_path, series={"demo/v1.0": {"series": "0001.patch\n", "0001.patch": text}})
    report = lint(Collection(tmp_path))
    assert report.problems == []
    assert [str(remark) for remark in report.warnings] == [
        (
            "patches/demo/v1.0/0001.patch:1: Effect: missing; without one, `upstream` can only "
            "compare texts"
        ),
        "patches/demo/v1.0/0001.patch:1: Upstream-Status: missing; has upstream seen it?",
    ]


def test_an_empty_series_is_a_warning(tmp_path: Path) -> None:
    make_folder(tmp_path, series={"demo/v1.0": {"series": "# none yet\n"}})
    report = lint(Collection(tmp_path))
    assert report.problems == []
    assert [str(remark) for remark in report.warnings] == [
        "patches/demo/v1.0/series:1: the series has no patch"
    ]


def test_requirements_of_other_recipes(tmp_path: Path) -> None:
    def needs(what: str) -> dict[str, str]:
        text = RECIPE.replace("    series: v1.0\n", f"    requires: {what}\n")
        other = RECIPE.replace("stack: demo", "stack: other").replace("    series: v1.0\n", "")
        return {"demo.yaml": text, "other.yaml": other}

    make_folder(tmp_path, recipes=needs('{other: "1.0"}'), series={})
    assert problems() == []
    make_folder(tmp_path, recipes=needs('{othre: "1.0"}'), series={})
    assert problems() == [
        (
            "recipes/demo.yaml:15: releases[0].requires.othre: no recipe for 'othre'; "
            "did you mean other?"
        )
    ]
    make_folder(tmp_path, recipes=needs('{other: "1.1"}'), series={})
    assert problems() == [
        (
            "recipes/demo.yaml:15: releases[0].requires.other: other has no pinned release '1.1'; "
            "did you mean 1.0?"
        )
    ]
    # a broken other recipe is told where it is broken, once
    make_folder(tmp_path, recipes={**needs('{other: "1.1"}'), "other.yaml": "- a\n"}, series={})
    assert [line.split(":")[0] for line in problems()] == ["recipes/other.yaml"]


def test_unknown_caches(tmp_path: Path) -> None:
    make_folder(tmp_path)
    assert problems(caches=frozenset({"flashinfer-cubins", "triton"})) == [
        (
            "recipes/demo.yaml:19: caches[0]: unknown cache 'flashinfer-jit'; did you mean "
            "flashinfer-cubins?"
        )
    ]
    assert problems(caches=None) == []


def test_programs_of_checks_that_are_not_there(tmp_path: Path) -> None:
    checks = """\
smoke:
  - {name: files, builtin: files}
  - {name: import, program: imprt.py}
  - {name: device, program: device.py}
"""
    make_folder(tmp_path, recipes={"demo.yaml": RECIPE + checks})
    line = RECIPE.count("\n") + 3
    assert problems() == [
        (
            f"recipes/demo.yaml:{line}: smoke[1].program: no file recipes/demo/smoke/imprt.py; "
            "there is none"
        ),
        (
            f"recipes/demo.yaml:{line + 1}: smoke[2].program: no file "
            "recipes/demo/smoke/device.py; there is none"
        ),
    ]
    programs = tmp_path / "recipes/demo/smoke"
    programs.mkdir(parents=True)
    for name in ("import.py", "device.py", "_check.py"):
        (programs / name).write_text("")
    assert problems() == [
        (
            f"recipes/demo.yaml:{line}: smoke[1].program: no file recipes/demo/smoke/imprt.py; "
            "did you mean import.py?"
        )
    ]


def test_what_nothing_reads(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "recipes/vllm.yml").write_text("stack: vllm\n")
    (tmp_path / "recipes/demo.lock.json").write_text("{}")
    (tmp_path / "patches/loose.patch").write_text(mail())
    (tmp_path / "patches/demo/loose.patch").write_text(mail())
    (tmp_path / "patches/demo/README.md").write_text("why")
    (tmp_path / "patches/dmeo/v1").mkdir(parents=True)
    (tmp_path / "patches/.keep").write_text("")
    assert problems() == [
        (
            "patches/demo/loose.patch:1: lies outside a series folder (patches/STACK/SERIES/); "
            "nothing reads it"
        ),
        "patches/dmeo:1: patches of a stack without a recipe; did you mean demo?",
        (
            "patches/loose.patch:1: lies outside a series folder (patches/STACK/SERIES/); "
            "nothing reads it"
        ),
        "recipes/vllm.yml:1: recipes end in .yaml; nothing reads this file",
    ]


def test_only_the_stacks_that_were_named(tmp_path: Path) -> None:
    make_folder(tmp_path, recipes={"demo.yaml": RECIPE, "bad.yaml": "x"})
    (tmp_path / "patches/loose.patch").write_text(mail())
    assert problems("demo") == []
    assert problems("bad") == [
        "recipes/bad.yaml:1: want a mapping that starts with `stack:`, found the text 'x'"
    ]
    with pytest.raises(InputError, match="no recipe for 'dem'"):
        problems("dem")


def test_somebody_elses_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no recipes/ folder"):
        problems()
    (tmp_path / "recipes").mkdir()
    assert problems() == ["recipes:1: holds no recipe (STACK.yaml)"]
    assert problems() == ["recipes:1: holds no recipe (STACK.yaml)"]  # nothing was written


def test_junk_in_every_place(tmp_path: Path) -> None:
    make_folder(tmp_path, series={})
    recipes, series = tmp_path / "recipes", tmp_path / "patches/demo/v1.0"
    series.mkdir(parents=True)
    (recipes / "elf.yaml").write_bytes(b"\x7fELF\x02\x01\x01\0\0")
    (recipes / "empty.yaml").write_bytes(b"")
    (recipes / "folder.yaml").mkdir()
    (recipes / "gone.yaml").symlink_to("nowhere")
    os.mkfifo(recipes / "pipe.yaml")
    (series / "series").write_text("elf.patch\nempty.patch\nhtml.patch\nlatin.patch\n")
    (series / "elf.patch").write_bytes(b"\x7fELF\x02\x01\x01\0\0")
    (series / "empty.patch").write_bytes(b"")
    (series / "html.patch").write_text("<!DOCTYPE html>\n<title>Not found</title>\n")
    (series / "latin.patch").write_bytes(mail("demo: caf\xe9").encode("latin-1"))
    found = problems()
    assert {line.split(":")[0] for line in found} == {
        "patches/demo/v1.0/elf.patch",
        "patches/demo/v1.0/empty.patch",
        "patches/demo/v1.0/html.patch",
        *(f"recipes/{name}.yaml" for name in ("elf", "empty", "folder", "gone", "pipe")),
    } | {line.split(":")[0] for line in found if "latin" in line}
    for line in found:
        path, number, text = line.split(":", 2)
        assert Path(path).name
        assert int(number) >= 1
        assert text.strip()
        assert "Traceback" not in text


def test_a_series_file_that_is_no_text(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "patches/demo/v1.0/series").write_bytes(b"\xff\xfe0\0")
    assert problems() == ["patches/demo/v1.0/series:1: not UTF-8 text"]
    (tmp_path / "patches/demo/v1.0/series").unlink()
    (tmp_path / "patches/demo/v1.0/series").mkdir()
    (found,) = problems()
    assert found.startswith("patches/demo/v1.0/series:1: ")


def test_a_patches_folder_that_is_a_file(tmp_path: Path) -> None:
    make_folder(tmp_path, series={})
    (tmp_path / "patches").rmdir()
    (tmp_path / "patches").write_text("")
    found = problems()
    assert any(line.startswith("patches") and "cannot be read" in line for line in found)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    make_folder(tmp_path)
    odd = os.fsdecode(b"caf\xe9")
    (tmp_path / f"recipes/{odd}.yaml").write_text("x")
    (tmp_path / f"patches/demo/v1.0/{odd}.patch").write_text(mail())
    found = problems()
    assert any(line.startswith(f"recipes/{odd}.yaml:1: ") for line in found)
    assert any(f"{odd}.patch:1: lies beside the series" in line for line in found)


def test_remarks_sort_by_file_and_line_and_are_said_once(tmp_path: Path) -> None:
    assert sorted([Remark("b", 1, "x"), Remark("a", 10, "x"), Remark("a", 9, "x")]) == [
        Remark("a", 9, "x"),
        Remark("a", 10, "x"),
        Remark("b", 1, "x"),
    ]
    make_folder(tmp_path, recipes={"demo.yaml": RECIPE, "twin.yaml": RECIPE})
    found = problems()
    assert len(found) == len(set(found))
