"""Builds: the folder that appears at once, found again, whoever dies in between."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.images import LayoutMaker, merged, tar_layer
from tests.stack import PATCHED_GATE, make_stack
from tests.wheels import FILES, contents, wheel_of

import stackpatch
from stackpatch import storage
from stackpatch.artefacts import build as building
from stackpatch.artefacts import papers
from stackpatch.artefacts.base import open_base
from stackpatch.artefacts.build import Prepared, build
from stackpatch.artefacts.layout import Layout
from stackpatch.artefacts.shipped import Shipped
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.model.arch import parse_arch

if TYPE_CHECKING:
    from collections.abc import Callable

SM121 = parse_arch("sm121")
GOLDEN = {
    "wheel": "c4c68933abdb7da0abcee6000ddd3999e6fa8b3e562797e6ecb1c67d2c18c2fe",
    "index": "c6d4dc3647eea9fad5895f5bb670d47a7688259b31808b888f86af146fbc9a8d",
    "sbom.cdx.json": "f8adfdccf4dbbab1abba6b65619736da4d15ad6550a30271f61f9b855c2aff02",
    "provenance.json": "7d4b572dd893e028e5cfd438be0ca7030089f9acacd095a2e8cfed1c08e90ade",
    "lock.json": "0a06da512716b5a0e2ee517ad391b7294fb395f599af011ce261d1faf79dfba1",
}


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    """Mode and digest of everything below a folder."""
    return {
        path.relative_to(folder).as_posix(): (
            stat.S_IMODE(path.stat().st_mode),
            "" if path.is_dir() else sha(path),
        )
        for path in sorted(folder.rglob("*"))
    }


# -- what a build leaves ----------------------------------------------------------------------


def test_everything_is_there(tmp_path: Path) -> None:
    result = make_stack(tmp_path).build(tmp_path / "out")
    assert not result.reused
    version = result.plan.inputs.patched
    assert result.folder == tmp_path / "out" / "demo" / version / "sm121"
    assert {p.name for p in result.folder.iterdir()} == {
        f"demo-{version}-py3-none-any.whl",
        "image",
        "lock.json",
        "sbom.cdx.json",
        "provenance.json",
    }
    found = contents(result.folder / wheel_of(result.outputs).path)
    assert found["demo/gate.py"] == PATCHED_GATE
    assert found["demo/_meta.py"] == FILES["demo/_meta.py"].replace(b"1.2.3", version.encode())
    image = Layout.open(result.folder / "image").image(open_base("scratch", SM121).image.platform)
    assert str(image.digest) == result.outputs.image
    assert image.config_json()["config"]["Env"] == ["DEMO_ARCH=12.1a"]


def test_the_documents_name_each_other(tmp_path: Path) -> None:
    result = make_stack(tmp_path).build(tmp_path / "out")
    lock = json.loads((result.folder / "lock.json").read_bytes())
    assert lock["key"] == result.plan.key
    assert lock["outputs"]["image"] == {
        "digest": result.outputs.image,
        "index": f"sha256:{sha(result.folder / 'image' / 'index.json')}",
        "layers-elsewhere": [],
    }
    listed = {f["path"]: (f["bytes"], f["sha256"]) for f in lock["outputs"]["files"]}
    there = {
        p.relative_to(result.folder).as_posix(): (p.stat().st_size, sha(p))
        for p in result.folder.rglob("*")
        if p.is_file() and p.name != "lock.json"
    }
    assert listed == there
    provenance = json.loads((result.folder / "provenance.json").read_bytes())
    assert {s["digest"]["sha256"] for s in provenance["subject"]} == {
        wheel_of(result.outputs).sha256,
        result.outputs.image.removeprefix("sha256:"),
    }
    sbom = json.loads((result.folder / "sbom.cdx.json").read_bytes())
    assert sbom["metadata"]["component"]["hashes"][0]["content"] == wheel_of(result.outputs).sha256


def test_the_json_has_the_promised_shape(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    base = open_base("scratch", SM121)
    cache = {"name": "flashinfer-jit", "path": "/c", "stale_risk": "none"}
    result = build(
        stack.plan(base=base), base, stack.prepared, out=tmp_path / "out", caches=[cache]
    )
    document = result.json()
    assert document["caches"] == [cache]
    assert {key: document[key] for key in ("stack", "version", "arch", "engine", "reused")} == {
        "stack": "demo",
        "version": "1.2.3",
        "arch": "sm121",
        "engine": "overlay",
        "reused": False,
    }
    assert document["wheel"]["version"] == result.plan.inputs.patched
    assert sha(Path(document["wheel"]["path"])) == document["wheel"]["sha256"]
    for key in ("lock", "sbom", "provenance"):
        assert Path(document[key]).is_file()
    assert Path(document["image"]["path"], "index.json").is_file()
    assert document["notes"] == ["not in the wheel, so not in the result: tests/test_gate.py"]
    json.dumps(document)


def test_known_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stackpatch, "__version__", "0")
    result = make_stack(tmp_path).build(tmp_path / "out")
    found = {name: sha(result.folder / name) for name in GOLDEN if name.endswith(".json")}
    found["wheel"] = wheel_of(result.outputs).sha256
    found["index"] = sha(result.folder / "image" / "index.json")
    assert found == GOLDEN


def test_another_folder_umask_locale_and_time_zone_give_the_same_bytes(tmp_path: Path) -> None:
    one = make_stack(tmp_path / "a").build(tmp_path / "a" / "out")
    code = (
        "import os,sys,pathlib; os.umask(0o077)\n"
        "from tests.stack import make_stack\n"
        "p = pathlib.Path(sys.argv[1]); print(make_stack(p).build(p / 'o ut').folder)"
    )
    other = tmp_path / "b with space"
    env = {
        **os.environ,
        "TZ": "Pacific/Chatham",
        "LC_ALL": "tr_TR.UTF-8",
        "SOURCE_DATE_EPOCH": "1",
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(other)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert tree(Path(done.stdout.strip())) == tree(one.folder)


# -- the second run ---------------------------------------------------------------------------


def never() -> Prepared:
    pytest.fail("there was nothing to prepare")


def again(tmp_path: Path, prepare: Callable[[], Prepared]) -> building.BuildResult:
    stack = make_stack(tmp_path)
    base = open_base("scratch", SM121)
    return build(stack.plan(base=base), base, prepare, out=tmp_path / "out")


def test_a_second_run_does_nothing_and_says_so(tmp_path: Path) -> None:
    first = make_stack(tmp_path).build(tmp_path / "out")
    times = {p: p.stat().st_mtime_ns for p in first.folder.rglob("*")}
    second = again(tmp_path, never)
    assert second.reused
    assert {**second.json(), "reused": False} == first.json()
    assert {p: p.stat().st_mtime_ns for p in first.folder.rglob("*")} == times


def test_a_second_run_loads_nothing_that_makes_a_result(tmp_path: Path) -> None:
    make_stack(tmp_path).build(tmp_path / "out")
    code = (
        "import sys, pathlib\n"
        "from tests.stack import make_stack\n"
        "stack = make_stack(pathlib.Path(sys.argv[1]))\n"
        "before = set(sys.modules)\n"
        "assert stack.build(pathlib.Path(sys.argv[1]) / 'out').reused\n"
        "print(*sorted(set(sys.modules) - before))\n"
        "print(*sorted(sys.modules))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    new, everything = (set(line.split()) for line in done.stdout.splitlines())
    assert new == set()
    heavy = {"pygit2", "requests", "tarfile", "tree_sitter", "stackpatch.artefacts.making"}
    assert not heavy & everything


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "lock.json").unlink(),
        lambda f: (f / "lock.json").write_bytes(b"{}"),
        lambda f: (f / "image" / "index.json").unlink(),
        lambda f: (f / "sbom.cdx.json").write_bytes(b""),
        lambda f: next(f.glob("*.whl")).write_bytes(b"PK"),
        lambda f: shutil.rmtree(f / "image"),
        shutil.rmtree,
    ],
)
def test_a_damaged_result_is_built_again(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    stack = make_stack(tmp_path)
    first = stack.build(tmp_path / "out")
    before = tree(first.folder)
    damage(first.folder)
    second = stack.build(tmp_path / "out")
    assert not second.reused
    assert tree(second.folder) == before


def test_a_result_of_other_inputs_is_replaced_as_a_whole(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    first = stack.build(tmp_path / "out")
    (first.folder / "left by somebody").write_text("x")
    base = open_base("scratch", SM121, site="srv/site")
    plan = stack.plan(base=base)
    second = build(plan, base, stack.prepared, out=tmp_path / "out")
    assert second.folder == first.folder
    assert not second.reused
    assert second.outputs.image != first.outputs.image
    assert not (second.folder / "left by somebody").exists()


# -- inputs that do not fit -------------------------------------------------------------------


def test_a_wheel_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    stack.wheel.write_bytes(stack.wheel.read_bytes() + b"\0")
    with pytest.raises(InputError, match="is not the pinned wheel"):
        stack.build(tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.whl"))


def test_a_series_that_changes_nothing_in_the_wheel_is_refused(tmp_path: Path) -> None:
    nothing = Prepared(make_stack(tmp_path).wheel, Shipped({}, {}, {}, ("tests/test_gate.py",)))
    with pytest.raises(InputError, match="nothing that the series changes is in demo-1") as caught:
        again(tmp_path, lambda: nothing)
    assert caught.value.hint == "it changes tests/test_gate.py"


def test_a_change_that_was_made_from_another_file_is_refused(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    prepared = stack.prepared()
    wrong = dataclasses.replace(prepared.shipped, originals={"demo/gate.py": "0" * 64})
    with pytest.raises(InputError, match=r"demo/gate\.py is not the file that the series"):
        again(tmp_path, lambda: Prepared(prepared.wheel, wrong))


@pytest.mark.parametrize(
    ("stamp", "text"),
    [
        ({"path": "demo/none.py"}, "has no demo/none.py, where the recipe's stamp is"),
        ({"variable": "VERSION"}, "want one `VERSION = '1.2.3'`, found nothing"),
    ],
)
def test_a_stamp_that_is_wrong_is_refused(tmp_path: Path, stamp: dict[str, str], text: str) -> None:
    stack = make_stack(tmp_path)
    release = stack.recipe.release()
    assert release.stamp is not None
    changed = release.model_copy(update={"stamp": release.stamp.model_copy(update=stamp)})
    recipe = stack.recipe.model_copy(update={"releases": (changed,)})
    with pytest.raises(InputError, match=text):
        dataclasses.replace(stack, recipe=recipe).build(tmp_path / "out")


def test_a_failure_leaves_the_older_result(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    first = stack.build(tmp_path / "out")
    (first.folder / "sbom.cdx.json").unlink()
    before = tree(first.folder)
    with pytest.raises(InputError):
        again(tmp_path, lambda: Prepared(stack.wheel, Shipped({"demo/x.so": b""}, {}, {})))
    assert tree(first.folder) == before
    assert sorted(p.name for p in first.folder.parent.iterdir()) == [".sm121.lock", "sm121"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(papers, "_write", full)
    with pytest.raises(EnvironmentProblem, match="no space left while writing"):
        make_stack(tmp_path).build(tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == [".sm121.lock"]


@pytest.mark.parametrize("place", ["out", "out/demo"])
def test_a_file_in_the_way_is_said(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("a file")
    with pytest.raises(InputError, match="a file is in the way"):
        make_stack(tmp_path).build(tmp_path / "out")


def test_a_folder_that_may_not_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "out")  # the tests may run as root

    stack = make_stack(tmp_path)
    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(EnvironmentProblem, match="not allowed to write"):
        stack.build(tmp_path / "out")


# -- a base -----------------------------------------------------------------------------------


def test_shadowing_packages_are_taken_out_of_the_base_and_named(tmp_path: Path) -> None:
    from tests.unit.test_overlay import SITE, installed

    maker = LayoutMaker(tmp_path / "base")
    layout = maker.write(maker.image([tar_layer(installed())], architecture="arm64"))
    stack = make_stack(tmp_path)
    result = stack.build(tmp_path / "out", base=str(layout))
    assert (
        f"taken out of the base: /{SITE}/torch and 1 more, as the prebuilt code of torch would win "
        "over patched source"
    ) in result.outputs.notes
    seen = merged(result.folder / "image", result.outputs.image)
    assert f"{SITE}/demo/gate.py" in seen
    assert not [path for path in seen if path.startswith(f"{SITE}/torch")]
    assert stack.build(tmp_path / "out", base=str(layout)).json() == {
        **result.json(),
        "reused": True,
    }
    lock = json.loads((result.folder / "lock.json").read_bytes())
    assert lock["inputs"]["base"]["digest"] == str(open_base(str(layout), SM121).image.digest)


def test_a_damaged_base_layer_stops_the_build(tmp_path: Path) -> None:
    from tests.unit.test_overlay import installed

    maker = LayoutMaker(tmp_path / "base")
    extra = tar_layer({"usr/share/big": b"x" * 5000})
    layout = maker.write(maker.image([tar_layer(installed()), extra], architecture="arm64"))
    layer = Layout.open(layout).image(open_base("scratch", SM121).image.platform).layers[1]
    path = layout / "blobs" / "sha256" / layer.digest.hex
    raw = bytearray(path.read_bytes())
    raw[4] ^= 1  # the gzip header's time: it still unpacks to the same tar
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"is not what its digest stands for"):
        make_stack(tmp_path).build(tmp_path / "out", base=str(layout))
    assert not list((tmp_path / "out").rglob("lock.json"))


# -- other processes --------------------------------------------------------------------------

STAGES = {
    "while the wheel is written": "stackpatch.artefacts.rawzip:ZipWriter.add",
    "after the wheel": "stackpatch.artefacts.making:_image",
    "while the image is written": "stackpatch.artefacts.layout:_put",
    "before the lock": "stackpatch.artefacts.papers:dump_lock",
    "before the rename": "stackpatch.storage:replace_directory",
    "at the first rename": "pathlib:Path.rename",
    "between the renames": "pathlib:Path.rename@2",
    "after the renames": "stackpatch.storage:shutil.rmtree",
}
KILLED = """\
import os, signal, sys, pathlib, importlib
from tests.stack import make_stack
place, _, count = sys.argv[2].partition("@")
module, _, name = place.partition(":")
owner = importlib.import_module(module)
*path, last = name.split(".")
for part in path:
    owner = getattr(owner, part)
left = int(count or 1)
def die(*a, **k):
    global left
    left -= 1
    if left:
        return real(*a, **k)
    os.kill(os.getpid(), getattr(signal, sys.argv[3]))
    import time; time.sleep(30)
real = getattr(owner, last)
setattr(owner, last, die)
folder = pathlib.Path(sys.argv[1])
make_stack(folder).build(folder / "out")
"""


def killed(folder: Path, stage: str, how: str) -> int:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), stage, how],
        env=env,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
@pytest.mark.parametrize("older", [False, True], ids=["new", "older result"])
def test_after_a_kill_the_same_command_works(tmp_path: Path, stage: str, *, older: bool) -> None:
    stack = make_stack(tmp_path)
    expected = tree(stack.build(tmp_path / "reference").folder)
    parent = tmp_path / "out" / "demo" / stack.plan(base=open_base("scratch", SM121)).inputs.patched
    if older:
        base = open_base("scratch", SM121, site="srv/site")
        build(stack.plan(base=base), base, stack.prepared, out=tmp_path / "out")
    status = killed(tmp_path, stage, "SIGKILL")
    if status == 0:
        # Only a replacement removes anything: without an older result this stage is not reached.
        assert stage.endswith(("rmtree", "@2"))
        assert not older
    else:
        assert status == -signal.SIGKILL
        leftovers = [p.name for p in parent.iterdir() if p.name.endswith(".tmp")]
        assert leftovers
        whole = older and not stage.endswith("@2")
        assert (parent / "sm121").exists() == whole
    result = stack.build(tmp_path / "out")
    assert tree(result.folder) == expected
    assert sorted(p.name for p in parent.iterdir()) == [".sm121.lock", "sm121"]


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_an_interruption_leaves_no_scratch(tmp_path: Path, stage: str) -> None:
    status = killed(tmp_path, stage, "SIGINT")
    if stage.endswith(("rmtree", "@2")):
        return  # reached only where something is replaced
    assert status != 0
    assert [p for p in (tmp_path / "out").rglob("*") if p.name.endswith(".tmp")] == []
    assert not list((tmp_path / "out").rglob("lock.json"))


def test_of_two_builds_one_builds_and_the_other_waits(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    base = open_base("scratch", SM121)
    prepared: list[int] = []
    results: list[building.BuildResult] = []

    def slow() -> Prepared:
        prepared.append(1)
        time.sleep(0.5)
        return stack.prepared()

    def run() -> None:
        results.append(build(stack.plan(base=base), base, slow, out=tmp_path / "out"))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(prepared) == 1
    assert sorted(result.reused for result in results) == [False, True, True]
    assert len({result.outputs for result in results}) == 1


def test_waiting_ends(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    base = open_base("scratch", SM121)
    plan = stack.plan(base=base)
    parent = tmp_path / "out" / "demo" / plan.inputs.patched
    with (
        storage.lock(parent / ".sm121.lock"),
        pytest.raises(EnvironmentProblem, match=r"another build of demo/.* is still at work"),
    ):
        build(plan, base, never, out=tmp_path / "out", wait=0.1)
