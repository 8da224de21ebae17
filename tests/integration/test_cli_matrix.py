"""`stackpatch matrix` and `stackpatch apply` as a person and a nightly job use them."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.projects import RELAXED, REWORKED, STRICT, Project, gate, open_gate

from stackpatch.cli import matrix_inputs
from stackpatch.cli.matrix import page

if TYPE_CHECKING:
    from pathlib import Path

    from tests.serving import Server


@pytest.fixture
def project(tmp_path: Path, index: Server) -> Project:
    """Five releases on the index: needed, needed further down, conflict, landed, lost again."""
    files = {"a.py": gate(STRICT), "b.py": gate(STRICT)}
    project = Project(tmp_path, index, files, open_gate("a"), open_gate("b", "Arch: sm121"))
    project.write_recipe(project.offer(project.up.versions[0]))
    for version, changed in (
        ("1.1", {"a.py": gate(STRICT, "x = 1\n\n\n")}),
        ("1.2", {"a.py": gate(REWORKED)}),
        ("1.10", {"a.py": gate(RELAXED)}),
        ("2.0rc1", {"b.py": gate(RELAXED)}),
    ):
        project.offer(project.up.release(version, changed))
    return project


def words(document: dict[str, Any]) -> list[list[str]]:
    return [[cell["verdict"] for cell in patch["cells"]] for patch in document["patches"]]


EXPECTED = [["needed", "needed", "conflict", "upstreamed"], ["needed"] * 4]


def test_the_document_has_the_shape_of_the_contract(project: Project) -> None:
    ran = project.run("matrix", "demo", "--refs", "all", "--json")
    assert ran.status == 0, ran.err
    document = ran.document
    assert document["schema"] == "stackpatch.matrix/1"
    assert document["stack"] == "demo"
    assert document["versions"] == ["1.0", "1.1", "1.2", "1.10"], "by number; no release candidate"
    assert words(document) == EXPECTED
    for patch in document["patches"]:
        assert {"name", "path", "cells"} <= patch.keys()
        assert (project.root / patch["path"]).is_file()
        for cell, version in zip(patch["cells"], document["versions"], strict=True):
            assert cell["version"] == version
            assert cell["detail"]
            assert cell["evidence"]
            for piece in cell["evidence"]:
                assert {"path", "line", "symbol", "text"} <= piece.keys()
    first = document["patches"][0]
    assert [cell["detail"] for cell in first["cells"][:2]] == ["clean", "offset 3"]
    assert first["landed"] == "1.10"
    assert (document["newest_clean"], document["newest_ready"]) == ("1.1", "1.10")


def test_the_grid_for_people(project: Project) -> None:
    out = project.run("matrix", "demo", "--refs", "all").out.splitlines()
    assert "  1  Open a  (upstream from 1.10)" in out
    grid = [line.split()[:3] for line in out if line[:1].isdigit()]
    assert grid == [["1.0", "N", "N"], ["1.1", "N", "N"], ["1.2", "X", "N"], ["1.10", "U", "N"]]
    assert "the whole series applies up to: 1.1" in out
    assert "N needed, X conflict, U upstreamed" in out


@pytest.mark.parametrize(
    ("spec", "versions"),
    [
        (">=1.1,<1.10", ["1.1", "1.2"]),
        ("==1.*", ["1.0", "1.1", "1.2", "1.10"]),
        ("1.2, v1.0", ["1.2", "1.0"]),
        ("git:v1.2", ["v1.2"]),
        ("sdist:2.0rc1", ["2.0rc1"]),
        ("stored", ["1.0"]),
        ("1.10,1.0", ["1.10", "1.0"]),
        ("1.1,v1.1, 1.1,", ["1.1"]),
        ("==2.0rc1", ["2.0rc1"]),
        (">=1.10rc1", ["1.10", "2.0rc1"]),
    ],
)
def test_the_forms_of_refs(project: Project, spec: str, versions: list[str]) -> None:
    ran = project.run("matrix", "demo", "--refs", spec, "--json")
    assert ran.status == 0, ran.err
    assert ran.document["versions"] == versions


@pytest.mark.parametrize(
    ("words_", "said"),
    [
        (("demo", "--refs", ">=x"), "is no range of versions"),
        (("demo", "--refs", ">=9"), "no version of demo fits"),
        (("demo", "--refs", ""), "names no version"),
        (("demo", "--refs", " , "), "names no version"),
        (("demo", "--refs", "1.3"), "nearest: 1.2, 1.10"),
        (("demo", "--refs", "git:v7"), "no branch or tag 'v7'"),
        ((), "name one stack or several, or --all"),
        (("demo", "--all"), "name one stack or several, or --all"),
        (("--all", "--html", "x.html"), "--html writes one page for one stack"),
        (("demo", "demo@1.0", "--html", "x.html"), "--html writes one page for one stack"),
        (("demo", "nobody"), "no recipe for 'nobody'"),
        (("nobody",), "no recipe for 'nobody'"),
        (("demo@3",), "3"),
    ],
)
def test_wrong_usage_is_one_message(project: Project, words_: tuple[str, ...], said: str) -> None:
    ran = project.run("matrix", *words_)
    assert ran.status == 2
    assert said in ran.err
    assert ran.out == ""


def test_all_stacks_in_one_document(project: Project) -> None:
    ran = project.run("matrix", "--all", "--refs", "all", "--json")
    (only,) = ran.document["stacks"]
    assert only["stack"] == "demo"
    assert words(only) == EXPECTED


def test_several_series_in_one_document(project: Project) -> None:
    ran = project.run("matrix", "demo", "demo@1.0", "demo", "--refs", "all", "--json")
    both = ran.document["stacks"]
    assert len(both) == 2, "each once"
    alone = project.run("matrix", "demo", "--refs", "all", "--json").document
    assert both == [{k: v for k, v in alone.items() if k != "schema"}] * 2
    text = project.run("matrix", "demo", "demo@1.0", "--refs", "all").out
    assert text.count("the whole series applies up to: 1.1") == 2


def test_the_order_of_a_list_says_nothing_of_what_is_newest(project: Project) -> None:
    for spec in ("1.0,1.2,1.10", "1.10,1.2,1.0"):
        document = project.run("matrix", "demo", "--refs", spec, "--json").document
        assert document["newest_ready"] == "1.10"
        assert document["patches"][0]["landed"] == "1.10"


def test_a_version_that_a_patch_is_not_meant_for_is_marked(project: Project) -> None:
    patch = project.patches / "v1.0" / "0002-Open-b.patch"
    patch.write_text(patch.read_text().replace("Arch: sm121", "Arch: sm121\nApplies-To: <1.2"))
    ran = project.run("matrix", "demo", "--refs", "all", "--json")
    first, second = ran.document["patches"]
    assert (first["applies_to"], second["applies_to"]) == (None, "<1.2")
    assert [cell["meant"] for cell in first["cells"]] == [None] * 4
    assert [cell["meant"] for cell in second["cells"]] == [True, True, False, False]
    out = project.run("matrix", "demo", "--refs", "all").out
    grid = [line.split()[:3] for line in out.splitlines() if line[:1].isdigit()]
    assert [row[2] for row in grid] == ["N", "N", "N*", "N*"]
    assert "* not meant for that version (Applies-To)" in out


@pytest.fixture
def with_unreachable(project: Project) -> Project:
    """Beside `demo`, a stack whose upstream cannot be had."""
    text = project.recipe.read_text().replace("stack: demo", "stack: far")
    text = text.replace(f'git: "{project.up.folder}"', 'git: "https://127.0.0.1:1/far"')
    text = text.replace("pypi: demo", "pypi: far")
    before, _, after = text.partition("    artefacts:")
    text = before + after[after.index("    series:") :]
    (project.root / "recipes" / "far.yaml").write_text(text)
    shutil.copytree(project.patches, project.root / "patches" / "far")
    return project


def test_a_stack_that_cannot_be_had_leaves_the_others(with_unreachable: Project) -> None:
    project = with_unreachable
    alone = project.run("matrix", "demo", "--json").document
    for asked in (("--all",), ("far", "demo")):
        ran = project.run("matrix", *asked, "--json")
        assert ran.status == 3, ran.err
        document = ran.document
        assert document["stacks"] == [{k: v for k, v in alone.items() if k != "schema"}]
        (failed,) = document["failed"]
        assert failed["stack"] == "far"
        assert failed["error"]["kind"] == document["error"]["kind"] == "environment"
        assert document["error"]["message"] == f"far: {failed['error']['message']}"
        text = project.run("matrix", *asked)
        assert text.status == 3
        assert "the whole series applies up to: 1.0" in text.out
        assert "error: far: " in text.err
    assert project.run("matrix", "far", "--json").document.keys() == {"schema", "error"}
    assert project.run("matrix", "far", "far@1.0", "--json").document.keys() == {"schema", "error"}


def test_a_series_that_fails_its_own_release_leaves_the_others(project: Project) -> None:
    shutil.copy(project.recipe, project.root / "recipes" / "other.yaml")
    other = project.root / "recipes" / "other.yaml"
    other.write_text(other.read_text().replace("stack: demo", "stack: other"))
    shutil.copytree(project.patches, project.root / "patches" / "other")
    patch = project.root / "patches" / "other" / "v1.0" / "0001-Open-a.patch"
    patch.write_text(patch.read_text().replace("major == 10", "major == 11"))
    ran = project.run("matrix", "--all", "--json")
    assert ran.status == 1, ran.err
    assert [one["stack"] for one in ran.document["stacks"]] == ["demo"]
    assert [one["stack"] for one in ran.document["failed"]] == ["other-1.0"]
    assert "other" in ran.document["error"]["message"]
    assert project.run("matrix", "--all", "--json").status == 1, "never remembered as an answer"


def test_a_second_run_needs_no_network_and_says_the_same(project: Project) -> None:
    first = project.run("matrix", "demo", "--refs", "all", "--json")
    asked = len(project.index.asked)
    again = project.run("matrix", "demo", "--refs", "stored", "--offline", "--json")
    assert again.document == first.document
    assert len(project.index.asked) == asked


def test_a_damaged_memory_of_verdicts_costs_only_time(project: Project) -> None:
    from stackpatch.storage import cache_root

    first = project.run("matrix", "demo", "--refs", "all", "--json").document
    memory = cache_root() / "verdicts" / "demo.json"
    for damage in (b"", b"{}", b"[]", b"\xff\xfe", memory.read_bytes()[:-40]):
        memory.write_bytes(damage)
        (memory.parent / "demo-1.0.matrix").unlink()
        assert project.run("matrix", "demo", "--refs", "stored", "--json").document == first


def test_a_matrix_that_nothing_has_changed_is_not_judged_again(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = ("matrix", "demo", "--refs", "stored")
    project.run("matrix", "demo", "--refs", "all")
    first = project.run(*asked, "--json", "--html", str(tmp_path / "first.html"))
    table = project.run(*asked)
    several = project.run("matrix", "demo", "demo@1.0", "--refs", "stored", "--json")
    assert [table.status, several.status] == [0, 0]

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("judged again")

    monkeypatch.setattr("stackpatch.series.matrix.compute_all", refuse)
    monkeypatch.setattr("stackpatch.series.apply.apply_series", refuse)
    again = project.run(*asked, "--json", "--html", str(tmp_path / "again.html"))
    assert (again.status, again.out) == (0, first.out)
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "first.html").read_bytes()
    assert project.run(*asked).out == table.out
    assert project.run("matrix", "--all", "--refs", "stored", "--json").document == {
        "schema": "stackpatch.matrix/1",
        "stacks": [{k: v for k, v in first.document.items() if k != "schema"}],
    }
    assert first.document in [
        {"schema": "stackpatch.matrix/1", **one} for one in several.document["stacks"]
    ]


def test_what_has_changed_is_judged_again(project: Project) -> None:
    asked = ("matrix", "demo", "--refs", "stored", "--json")
    project.run("matrix", "demo", "--refs", "all")
    assert words(project.run(*asked).document) == EXPECTED
    patch = project.patches / "v1.0" / "0002-Open-b.patch"
    text = patch.read_text()
    patch.write_text(text.replace("[PATCH] Open b", "[PATCH] Open the other"))
    assert project.run(*asked).document["patches"][1]["subject"] == "Open the other"
    patch.write_text(text)
    assert project.run(*asked).document["patches"][1]["subject"] == "Open b"
    project.offer(project.up.release("2.0", {"b.py": gate(RELAXED)}))
    assert project.run("fetch", "demo", "2.0").status == 0
    document = project.run(*asked).document
    assert document["versions"][-1] == "2.0"
    assert words(document)[1][-1] == "upstreamed"
    recipe = project.root / "recipes" / "demo.yaml"
    listing = "layouts: {sdist: [{here: '', git: ''}, {here: b.py, git: null}]}\n"
    recipe.write_text(recipe.read_text() + listing)
    # The archives are read anew under the new layout, where nothing is at b.py.
    assert project.run("fetch", "demo", "1.0", "1.1").status == 0
    ran = project.run("matrix", "demo", "--refs", "1.0,1.1", "--json")
    assert ran.status == 1, ran.out
    assert "0002-Open-b.patch" in ran.err


HEAVY = ("typer", "pydantic", "yaml", "pygit2", "tree_sitter", "packaging", "requests", "rich")


def _alone(project: Project, *asked: str, cwd: Path | None = None) -> tuple[str, list[str]]:
    """What a process of its own prints, and which of the heavy libraries it brought up."""
    program = (
        "import sys; from stackpatch.cli.main import main; status = main(sys.argv[1:]); "
        f"print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr); "
        "sys.exit(status)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *asked],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd or project.root,
    )
    return ran.stdout, ran.stderr.split()


def test_the_same_words_again_bring_up_no_library(project: Project) -> None:
    project.run("matrix", "demo", "--refs", "all")
    for asked in (
        ("matrix", "demo", "--json"),
        ("matrix", "demo"),
        ("matrix", "demo", "demo@1.0", "--offline", "--refs", ">=1.0,<2"),
        ("matrix", "--all", "--json", "--root", str(project.root)),
        ("matrix", "--all", "--refs=stored"),
    ):
        first, needed = _alone(project, *asked)
        assert {"typer", "pydantic", "pygit2"} <= set(needed), asked
        again, needed = _alone(project, *asked)
        assert again == first
        assert needed == [], asked


# They decide no answer: what is on a terminal, what is written how, whether an answer is one still.
BESIDE = {
    *("", "errors", "proc", "storage", "cli", "cli.terminal", "cli.progress"),
    *("cli.matrix_again", "cli.matrix_text"),
}


def test_every_module_that_answers_is_in_the_state(project: Project) -> None:
    """A module of another room would change answers without changing the state."""
    program = (
        "import sys; from stackpatch.cli.main import main; main(sys.argv[1:]); "
        "print(*(name for name in sys.modules if name.startswith('stackpatch')), file=sys.stderr)"
    )
    asked = ("matrix", "demo", "--refs", "1.0,1.2")
    ran = subprocess.run(
        [sys.executable, "-c", program, *asked],
        capture_output=True,
        text=True,
        check=True,
        cwd=project.root,
    )
    used = {name.removeprefix("stackpatch").lstrip(".") for name in ran.stderr.split()}
    modules = {*matrix_inputs._WORDING, *matrix_inputs._ASKING}
    covered = {part.removesuffix(".py").replace("/", ".") for part in modules}
    rooms = ("model", "series", "sources")
    left = {name for name in used if not name.startswith(rooms) and name not in covered | BESIDE}
    assert not left
    assert covered <= used, "nothing for nothing"


def test_the_run_that_brings_a_release_is_remembered_too(project: Project) -> None:
    """It changes the store while it judges, and is looked at again."""
    first, _ = _alone(project, "matrix", "demo", "--json")
    assert _alone(project, "matrix", "demo", "--json") == (first, [])


def test_what_the_index_decides_is_asked_anew(project: Project) -> None:
    asked = ("matrix", "demo", "--refs", "all", "--json")
    before = project.run(*asked).document["versions"]
    project.run(*asked)
    project.offer(project.up.release("3.0", {"b.py": gate(RELAXED)}))
    assert project.run(*asked).document["versions"] == [*before, "3.0"]


def test_the_same_words_in_another_folder_are_another_question(
    project: Project, tmp_path: Path
) -> None:
    """Another folder has other recipes and names its files otherwise; so has a nearer root."""
    asked = ("matrix", "demo", "--json")
    copy, below = tmp_path / "copy", project.root / "recipes"
    shutil.copytree(project.root, copy)
    patch = "patches/demo/v1.0/0001-Open-a.patch"
    for folder, shown in ((project.root, patch), (below, f"{project.root}/{patch}"), (copy, patch)):
        for _ in range(2):
            told = json.loads(_alone(project, *asked, cwd=folder)[0])
            assert told["patches"][0]["path"] == shown
    for name in ("recipes", "patches"):
        shutil.copytree(copy / name, below / name)
    nearer = below / "patches" / "demo" / "v1.0" / "0002-Open-b.patch"
    nearer.write_text(nearer.read_text().replace("[PATCH] Open b", "[PATCH] Nearer"))
    told = json.loads(_alone(project, *asked, cwd=below)[0])
    assert told["patches"][1]["subject"] == "Nearer"


def test_two_runs_at_once_leave_a_memory_that_is_whole(project: Project) -> None:
    asked = ("matrix", "demo", "--json")
    first = project.run(*asked).out
    from stackpatch.storage import cache_root

    shutil.rmtree(cache_root() / "verdicts")
    program = "import sys; from stackpatch.cli.main import main; sys.exit(main(sys.argv[1:]))"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, *asked], stdout=subprocess.PIPE, cwd=project.root
        )
        for _ in range(3)
    ]
    outputs = {one.communicate()[0].decode() for one in running}
    assert outputs == {_alone(project, *asked)[0]}
    assert json.loads(outputs.pop())["versions"] == json.loads(first)["versions"]
    assert _alone(project, *asked)[1] == []


def test_a_series_that_stopped_applying_to_its_release_is_not_remembered(
    project: Project,
) -> None:
    asked = ("matrix", "demo", "--refs", "stored", "--json")
    assert project.run(*asked).status == 0
    patch = project.patches / "v1.0" / "0001-Open-a.patch"
    patch.write_text(patch.read_text().replace("major == 10", "major == 11"))
    for _ in range(2):
        assert project.run(*asked).status == 1


@pytest.mark.parametrize("damage", [b"", b"x", b"{}", b"\xff\n{}"])
def test_a_damaged_matrix_costs_only_time(project: Project, damage: bytes) -> None:
    from stackpatch.storage import cache_root

    asked = ("matrix", "demo", "--refs", "stored", "--json")
    first = project.run(*asked).out
    kept = cache_root() / "verdicts" / "demo-1.0.matrix"
    whole = kept.read_bytes()
    kept.write_bytes(damage)
    assert project.run(*asked).out == first
    assert kept.read_bytes() == whole, "mended"


def test_a_pattern_that_runs_away_is_named(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stackpatch.series.effects.PATTERN_SECONDS", 0.01)
    path = project.patches / "v1.0" / "0001-Open-a.patch"
    text = path.read_text().replace(r"major in \(10, 12\)", r"(.+)+(.+)+(.+)+\d{9}")
    path.write_text(text)
    ran = project.run("matrix", "demo", "--refs", "1.2")
    assert ran.status == 2, ran.out
    assert "runs for more than" in ran.err
    assert "Traceback" not in ran.err


def test_html_is_written_beside_the_table(project: Project, tmp_path: Path) -> None:
    target = tmp_path / "made" / "matrix.html"
    ran = project.run("matrix", "demo", "--refs", "all", "--html", str(target), "--json")
    text = target.read_text()
    assert str(target) in ran.err
    assert text == page({k: v for k, v in ran.document.items() if k != "schema"})
    start = text.index('id="data">') + len('id="data">')
    data = json.loads(text[start : text.index("</script>", start)])
    assert words(data) == EXPECTED


def test_a_page_replaces_no_device_and_no_folder(project: Project, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for target in (pipe, tmp_path):
        ran = project.run("matrix", "demo", "--html", str(target))
        assert ran.status == 2, ran.err
        assert "name a file" in ran.err
    assert pipe.is_fifo()


# --- apply ------------------------------------------------------------------------------------


def test_apply_writes_the_patched_tree(project: Project, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = project.run("apply", "demo", "--arch", "sm121", "--to", str(out), "--json")
    assert ran.status == 0, ran.err
    document = ran.document
    assert (document["stack"], document["version"], document["arch"]) == ("demo", "1.0", "sm121")
    assert (document["applied"], document["path"]) == (True, str(out))
    assert document["changed"] == ["a.py", "b.py"]
    assert len(document["commits"]) == 2
    assert {p.name: p.read_text() for p in out.iterdir()} == {
        "a.py": gate(RELAXED),
        "b.py": gate(RELAXED),
    }
    assert stat.S_IMODE((out / "a.py").stat().st_mode) == 0o644


def test_apply_takes_the_archs_own_patches_only(project: Project, tmp_path: Path) -> None:
    ran = project.run("apply", "demo", "--arch", "sm120", "--to", str(tmp_path / "o"), "--json")
    assert ran.document["changed"] == ["a.py"]
    assert project.run("apply", "demo", "--arch", "sm90", "--dry-run").status == 2


def test_apply_writes_into_nothing_that_is_there(project: Project, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("mine\n")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for target in (full, full / "mine", tmp_path / "link"):
        ran = project.run("apply", "demo", "--arch", "sm121", "--to", str(target))
        assert ran.status == 2, target
        assert "name a new or an empty folder" in ran.err
    assert (full / "mine").read_text() == "mine\n"
    (tmp_path / "empty").mkdir()
    assert project.run("apply", "demo", "--arch", "sm121", "--to", f"{tmp_path}/empty").status == 0


def test_apply_at_another_version(project: Project, tmp_path: Path) -> None:
    ran = project.run("apply", "demo", "--arch", "sm121", "--at", "1.1", "--dry-run", "--json")
    assert [one["offset"] for one in ran.document["patches"]] == [3, 0]
    assert ran.document["source"] == "sdist:1.1"
    assert ran.document["path"] is None
    out = tmp_path / "out"
    ran = project.run("apply", "demo", "--arch", "sm121", "--at", "1.2", "--to", str(out), "--json")
    assert ran.status == 1
    failure = ran.document["patches"][0]["failures"][0]
    assert failure["path"] == "a.py"
    assert ran.document["error"]["kind"] == "finding"
    assert not out.exists(), "a failed run writes nothing"
    assert list(tmp_path.glob(".out*")) == []


def test_apply_needs_a_place_or_dry_run(project: Project) -> None:
    ran = project.run("apply", "demo", "--arch", "sm121")
    assert ran.status == 2
    assert "nowhere to write" in ran.err


def test_apply_gives_the_same_tree_everywhere(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = project.run("apply", "demo", "--arch", "sm121", "--dry-run", "--json").document
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", str(tmp_path / "another cache"))
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    before = os.umask(0o077)
    try:
        again = project.run(
            "apply", "demo", "--arch", "sm121", "--to", str(tmp_path / "o"), "--json"
        )
    finally:
        os.umask(before)
    assert (again.document["tree"], again.document["commits"]) == (first["tree"], first["commits"])
    assert stat.S_IMODE((tmp_path / "o" / "a.py").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "o").stat().st_mode) == 0o755
