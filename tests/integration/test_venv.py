"""`stackpatch venv` on a real FlashInfer release in real virtual environments."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import fetch_artefact
from tests.projects import Ran

from stackpatch.cli import main
from stackpatch.model.recipe_file import parse_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
RELEASE = "0.6.3"
GATE = "flashinfer/jit/fused_moe.py"

pytestmark = [pytest.mark.pypi, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def wheel() -> Path:
    return pinned(".whl")


def pinned(suffix: str) -> Path:
    recipe = parse_recipe("flashinfer.yaml", (ROOT / "recipes" / "flashinfer.yaml").read_bytes())
    artefacts = recipe.release(RELEASE).artefacts
    one = next(a for a in artefacts if a.file.endswith(suffix))
    return fetch_artefact(one.file, one.sha256)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the release's files; the store is made on the first use."""
    folder = tmp_path_factory.mktemp("cache")
    for suffix in (".whl", ".tar.gz"):
        file = pinned(suffix)
        there = folder / "downloads" / "sha256" / file.parent.name / file.name
        there.parent.mkdir(parents=True)
        there.symlink_to(file)
    return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """A virtual environment with the released wheel."""
    folder = tmp_path_factory.mktemp("template") / "venv"
    make_venv(folder)
    pip(folder, "install", str(wheel))
    return folder


@pytest.fixture
def venv(
    tmp_path: Path, template: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", str(cache))
    folder = tmp_path / "venv"
    make_venv(folder)
    shutil.copytree(site(template), site(folder), dirs_exist_ok=True)
    yield folder
    shutil.rmtree(folder)


def make_venv(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)


def pip(folder: Path, *words: str) -> None:
    argv = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "--quiet"]
    options = ["--no-deps", "--no-index"] if words[0] == "install" else ["--yes"]
    subprocess.run([*argv, *words, *options, "--disable-pip-version-check"], check=True)


def site(folder: Path) -> Path:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return folder / "lib" / version / "site-packages"


def run(verb: str, venv: Path, *words: str, stack: str = "flashinfer", json_: bool = True) -> Ran:
    out, err = io.StringIO(), io.StringIO()
    argv = ["venv", verb, stack, "--python", str(venv), "--root", str(ROOT), *words]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main.main([*argv, "--json"] if json_ else argv)
    return Ran(status, out.getvalue(), err.getvalue())


def files(folder: Path) -> dict[str, bytes]:
    """Every file below it but bytecode."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }


def state(venv: Path, *words: str) -> tuple[int, str]:
    ran = run("status", venv, *words)
    document: dict[str, Any] = ran.document
    assert document["schema"] == "stackpatch.venv-status/1"
    return ran.status, document["state"]


def test_the_installed_files_become_those_of_the_patched_wheel(venv: Path, tmp_path: Path) -> None:
    before = files(site(venv))
    assert state(venv) == (1, "not patched")
    ran = run("apply", venv, "--arch", "sm121", "--offline")
    assert ran.status == 0, ran.err
    assert ran.document["changed"] is True
    assert GATE in ran.document["files"]
    assert state(venv) == (0, "applied")
    # The build's wheel, unpacked, is the oracle.
    out = tmp_path / "dist"
    argv = ["build", "flashinfer", "--arch", "sm121", "--offline", "--json", "--out", str(out)]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        assert main.main([*argv, "--root", str(ROOT)]) == 0
    made = json.loads(said.getvalue())["wheel"]["path"]
    with zipfile.ZipFile(made) as archive:
        wanted = {
            name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name
        }
    after = files(site(venv))
    assert {name: c for name, c in after.items() if ".dist-info/" not in name} == wanted
    again = run("apply", venv, "--arch", "sm121", "--offline")
    assert (again.status, again.document["changed"]) == (0, False)
    back = run("revert", venv)
    assert (back.status, back.document["files"]) == (0, ran.document["files"])
    assert files(site(venv)) == before
    assert state(venv) == (1, "not patched")
    assert run("revert", venv).document["changed"] is False


def test_a_reinstall_takes_it_away_and_is_seen(venv: Path, wheel: Path) -> None:
    run("apply", venv, "--arch", "sm121", "--offline")
    assert state(venv) == (0, "applied")
    pip(venv, "install", "--force-reinstall", str(wheel))
    assert not list(site(venv).glob("*.dist-info/stackpatch.json"))
    assert state(venv) == (1, "not patched")
    run("apply", venv, "--arch", "sm121", "--offline")
    pip(venv, "uninstall", "flashinfer-python")
    assert not list(site(venv).glob("flashinfer*")), "nothing of ours is left behind"
    ran = run("status", venv)
    assert ran.status == 1
    assert "flashinfer-python is not installed" in ran.err


def test_edits_by_hand_become_a_patch_that_gives_them_again(venv: Path, tmp_path: Path) -> None:
    run("apply", venv, "--arch", "sm121", "--offline")
    edited = site(venv) / "flashinfer" / "norm.py"
    edited.write_text(edited.read_text() + "\n# mine\n")
    ours = site(venv) / GATE
    ours.write_text(ours.read_text().replace("import", "import  # mine\nimport", 1))
    (site(venv) / "flashinfer" / "data" / "csrc" / "mine.cu").write_text("// mine\n")
    shown = run("status", venv)
    assert (shown.status, shown.document["state"]) == (1, "edited")
    assert shown.document["edited"] == [GATE, "flashinfer/norm.py"]
    for refused in (run("revert", venv), run("apply", venv, "--arch", "sm121", "--offline")):
        assert refused.status == 1
        assert "venv capture" in refused.err
    wanted = {path: (site(venv) / path).read_bytes() for path in (GATE, "flashinfer/norm.py")}

    to = tmp_path / "captured"
    plain = run("capture", venv, "--to", str(to), "--offline", "--arch", "sm121")
    assert plain.status == 1, "a new file is named and not taken without being asked"
    assert [one["path"] for one in plain.document["left_out"]] == ["flashinfer/data/csrc/mine.cu"]
    shutil.rmtree(to)
    title = ("--subject", "Say whose it is")
    ran = run("capture", venv, "--to", str(to), "--offline", "--with-new", *title)
    assert ran.status == 0, ran.err
    assert ran.document["files"] == ["csrc/mine.cu", GATE, "flashinfer/norm.py"]
    patch = (to / ran.document["patch"]).read_text()
    assert "Subject: [PATCH] Say whose it is" in patch
    assert "\nUpstream-Status: Pending\n" in patch
    listed = (to / "series").read_text().split()
    assert listed[-1] == ran.document["patch"]
    assert len(listed) == 7, "behind the six of the series"

    # Another environment with recipes that have the captured series.
    root = tmp_path / "root"
    shutil.copytree(ROOT / "recipes", root / "recipes")
    shutil.copytree(ROOT / "patches", root / "patches")
    shutil.rmtree(root / "patches/flashinfer/v0.6.3")
    to.rename(root / "patches/flashinfer/v0.6.3")
    other = tmp_path / "other"
    make_venv(other)
    pip(other, "install", str(pinned(".whl")))
    there = run("apply", other, "--arch", "sm121", "--offline", "--root", str(root))
    assert there.status == 0, there.err
    assert {path: (site(other) / path).read_bytes() for path in wanted} == wanted
    assert (site(other) / "flashinfer/data/csrc/mine.cu").read_text() == "// mine\n"


def test_capture_of_an_unpatched_package(venv: Path, tmp_path: Path) -> None:
    to = tmp_path / "captured"
    none = run("capture", venv, "--to", str(to), "--offline")
    assert (none.status, none.document["patch"]) == (0, None)
    assert not to.exists()
    (site(venv) / "flashinfer/norm.py").unlink()
    (site(venv) / "flashinfer/rope.py").write_bytes(b"\0")
    (site(venv) / "flashinfer/_build_meta.py").write_text("__version__ = '9'\n")
    ran = run("capture", venv, "--to", str(to), "--offline")
    assert ran.status == 1
    assert ran.document["files"] == ["flashinfer/norm.py"]
    left = {one["path"]: one["why"] for one in ran.document["left_out"]}
    assert left["flashinfer/rope.py"] == "is compiled or binary"
    assert "is not in the git tree" in left["flashinfer/_build_meta.py"]
    again = run("capture", venv, "--to", str(to), "--offline")
    assert again.status == 2
    assert "exists already" in again.err


def test_the_patched_wheel_is_known_as_such(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", str(cache))
    out, said = tmp_path / "dist", io.StringIO()
    argv = ["build", "flashinfer", "--arch", "sm120", "--offline", "--json", "--out", str(out)]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        assert main.main([*argv, "--root", str(ROOT)]) == 0
    venv = tmp_path / "venv"
    make_venv(venv)
    pip(venv, "install", json.loads(said.getvalue())["wheel"]["path"])
    ran = run("status", venv)
    assert (ran.status, ran.document["state"]) == (0, "patched wheel")
    assert "sm120" in ran.document["detail"]
    for verb, words in (("apply", ("--arch", "sm120")), ("capture", ("--to", str(tmp_path / "x")))):
        refused = run(verb, venv, *words, "--offline")
        assert refused.status == 1
        assert "patched wheel already" in refused.err
    root = tmp_path / "root"
    shutil.copytree(ROOT / "recipes", root / "recipes")
    shutil.copytree(ROOT / "patches", root / "patches")
    listing = root / "patches/flashinfer/v0.6.3/series"
    last = listing.read_text().split()[-1]
    listing.write_text(listing.read_text().replace(last, ""))
    (listing.parent / last).unlink()
    older = run("status", venv, "--root", str(root))
    assert (older.status, older.document["state"]) == (1, "another series")


def test_a_series_that_has_changed_since_is_seen_and_replaced(venv: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(ROOT / "recipes", root / "recipes")
    shutil.copytree(ROOT / "patches", root / "patches")
    listing = root / "patches/flashinfer/v0.6.3/series"
    last = listing.read_text().split()[-1]
    listing.write_text(listing.read_text().replace(last, ""))
    (listing.parent / last).unlink()
    shorter = run("apply", venv, "--arch", "sm121", "--offline", "--root", str(root))
    assert shorter.status == 0, shorter.err
    assert state(venv) == (1, "another series")
    longer = run("apply", venv, "--arch", "sm121", "--offline")
    assert longer.document["changed"] is True
    assert state(venv) == (0, "applied")
    assert state(venv, "--root", str(root)) == (1, "another series")


def test_what_is_installed_otherwise_is_said(venv: Path, tmp_path: Path) -> None:
    record = next(site(venv).glob("flashinfer_python-*.dist-info")) / "RECORD"
    metadata = record.parent / "METADATA"
    text = metadata.read_text()
    metadata.write_text(text.replace(f"Version: {RELEASE}", "Version: 0.6.4"))
    other = run("apply", venv, "--arch", "sm121", "--offline")
    assert other.status == 1
    assert "no release 0.6.4" in other.err
    named = run("apply", venv, "--arch", "sm121", "--offline", stack=f"flashinfer@{RELEASE}")
    assert named.status == 1
    assert "0.6.4 is installed, not 0.6.3" in named.err
    metadata.write_text(text)
    (record.parent / "direct_url.json").write_text(
        json.dumps({"url": "file:///src/flashinfer", "dir_info": {"editable": True}})
    )
    editable = run("status", venv)
    assert editable.status == 1
    assert "editable install of file:///src/flashinfer" in editable.err
    (record.parent / "direct_url.json").unlink()
    kept = record.read_bytes()
    record.unlink()
    without = run("status", venv)
    assert without.status == 1
    assert "has no RECORD" in without.err
    record.write_bytes(kept)
    (site(venv) / "aaa.pth").write_text(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n")
    (tmp_path / "flashinfer").mkdir()
    (tmp_path / "flashinfer/__init__.py").touch()
    shadowed = run("status", venv)
    assert shadowed.status == 1
    assert "is not what `import flashinfer` finds" in shadowed.err


def test_wrong_usage_is_one_message(venv: Path, tmp_path: Path) -> None:
    for words, said in (
        (("apply", venv), "differs by arch"),
        (("apply", venv, "--arch", "sm89"), "has no recipe for sm89"),
        (("apply", tmp_path / "none"), "there is no such file"),
        (("capture", venv, "--to", str(tmp_path / "x"), "--subject", " "), "--subject is empty"),
    ):
        verb, where, *more = words
        ran = run(str(verb), Path(where), *(str(word) for word in more), "--offline")
        assert ran.status == 2, ran.err
        assert said in ran.err
        assert ran.err.count("error:") == 1


def test_for_people(venv: Path) -> None:
    applied = run("apply", venv, "--arch", "sm121", "--offline", json_=False)
    assert applied.out.startswith("applied: flashinfer-python 0.6.3 in ")
    assert f"  {GATE}\n" in applied.out
    assert "start them again" in applied.out
    assert run("status", venv, json_=False).out.startswith("applied: 0.6.3+sp.")
    assert run("revert", venv, json_=False).out.startswith("taken back: 0.6.3+sp.")
