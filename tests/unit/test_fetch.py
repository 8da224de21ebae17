"""What a person asks for arrives once, from the right place, or is named as missing."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import textwrap
import time
import zipfile
from typing import TYPE_CHECKING

import pytest
from tests.conftest import git
from tests.serving import Reply, Server, serving

from stackpatch.errors import EnvironmentProblem, FindingError, InputError
from stackpatch.model.recipe_file import parse_recipe
from stackpatch.model.reference import SourceKind, VersionRef
from stackpatch.sources.fetch import artefact, bring, fetch
from stackpatch.sources.releases import index_files, index_versions, list_index_versions
from stackpatch.sources.store import SourceStore, Stored
from stackpatch.storage import cache_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stackpatch.model.recipe import Recipe, Release

GIT, SDIST, WHEEL = SourceKind.GIT, SourceKind.SDIST, SourceKind.WHEEL
CODE = {"pkg/__init__.py": b"VERSION = 1\n", "csrc/a.cu": b"// a\n"}


def make_sdist(version: str, files: dict[str, bytes] = CODE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in {**files, "pkg.egg-info/PKG-INFO": b"x\n"}.items():
            info = tarfile.TarInfo(f"pkg-{version}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(out.getvalue(), mtime=0)


def make_wheel(version: str, files: dict[str, bytes] = CODE) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as wheel:
        for name, content in files.items():
            here = name.replace("csrc/", "pkg/data/csrc/")
            wheel.writestr(zipfile.ZipInfo(here), content)
        wheel.writestr(zipfile.ZipInfo(f"pkg-{version}.dist-info/METADATA"), b"Name: pkg\n")
    return out.getvalue()


FILES = {
    "pkg-1.0.tar.gz": make_sdist("1.0"),
    "pkg-1.0-py3-none-any.whl": make_wheel("1.0"),
    "pkg-1.1-cp312-cp312-manylinux_2_34_x86_64.whl": make_wheel("1.1"),
    "pkg-1.1-cp312-cp312-manylinux_2_34_aarch64.whl": make_wheel("1.1", {"pkg/arm.py": b"\n"}),
}
UNPINNED = {
    "pkg-0.9.tar.gz": make_sdist("0.9"),
    "pkg-0.10-py3-none-any.whl": make_wheel("0.10"),
    "pkg-2.0rc1.tar.gz": make_sdist("2.0rc1"),
}
RECIPE = """\
stack: pkg
summary: A package
upstream: {{git: "{git}", pypi: pkg, package: pkg}}
layouts:
  sdist:
    - {{here: "", git: ""}}
    - {{here: pkg.egg-info/, git: null}}
  wheel:
    - {{here: pkg/, git: pkg/}}
    - {{here: pkg/data/csrc/, git: csrc/}}
default: "1.0"
releases:
{releases}
archs:
  sm121: {{cuda: ">=12.9"}}
"""


def release(version: str, *, tag: str | None, commit: str | None, files: dict[str, bytes]) -> str:
    evidence = "{kind: first-hand, detail: here}" if commit else "{kind: unknown, detail: none}"
    lines = [f'  - version: "{version}"']
    if tag:
        lines.append(f"    tag: {tag}")
    if commit:
        lines.append(f"    commit: {commit}")
    lines.append(f"    commit-evidence: {evidence}")
    lines += ['    date: "2026-02-06T00:28:21Z"', "    artefacts:" if files else ""]
    for file, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        lines.append(f"      - {{file: {file}, sha256: {digest}, bytes: {len(content)}}}")
    return "\n".join(line for line in lines if line)


class World:
    """An index, a git upstream, and a recipe for both."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.server = server
        self.upstream = folder / "upstream"
        self.upstream.mkdir()
        git("init", "-q", "-b", "main", cwd=self.upstream)
        (self.upstream / "README").write_text("from git\n")
        git("add", "-A", cwd=self.upstream)
        git("commit", "-q", "-m", "one", cwd=self.upstream)
        git("tag", "v1.0", cwd=self.upstream)
        self.commit = git("rev-parse", "HEAD", cwd=self.upstream).strip()
        for file, content in {**FILES, **UNPINNED}.items():
            server.put("pkg", file, content)
        self.recipe = self.recipe_with()

    def recipe_with(self, *, layout: str = "", sdist: bytes = FILES["pkg-1.0.tar.gz"]) -> Recipe:
        of = {
            v: {f: c for f, c in FILES.items() if f.startswith(f"pkg-{v}")} for v in ("1.0", "1.1")
        }
        of["1.0"]["pkg-1.0.tar.gz"] = sdist
        releases = [
            release("1.0", tag="v1.0", commit=self.commit, files=of["1.0"]),
            release("1.1", tag=None, commit=None, files=of["1.1"]),
            release("1.2", tag="v1.2", commit=self.commit, files={}),
        ]
        text = RECIPE.format(git=self.upstream, releases="\n".join(releases))
        if layout:
            text = text.replace('{here: "", git: ""}', layout)
        return parse_recipe("recipes/pkg.yaml", text.encode())


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with serving() as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.index)
        monkeypatch.setenv("PIP_RETRIES", "0")
        yield World(tmp_path, server)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(self: socket.socket, address: object) -> None:
        pytest.fail(f"a second fetch must not reach the network: {address!r}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "none")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")


def paths(stored: Stored) -> dict[str, bytes]:
    objects = SourceStore("pkg").objects
    return {path: objects.blob(entry.id) for path, entry in objects.walk(stored.tree)}


def labels(found: list[Stored]) -> list[str]:
    return [stored.label for stored in found]


def test_a_release_arrives_under_git_paths(world: World) -> None:
    sdist, wheel = fetch(world.recipe, "1.0", [SDIST, WHEEL])
    assert paths(sdist) == paths(wheel) == CODE
    assert sdist.tree == wheel.tree
    assert sdist.evidence["Artefact"] == "pkg-1.0.tar.gz"
    assert sdist.evidence["Sha256"] == hashlib.sha256(FILES["pkg-1.0.tar.gz"]).hexdigest()
    assert sdist.evidence["Digest-From"] == "recipe"
    _, commit = SourceStore("pkg").objects.repository.read(sdist.commit)
    assert f" {world.recipe.release('1.0').epoch} +0000\n".encode() in commit


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("1.0", "sdist:1.0"),
        ("v1.0", "sdist:1.0"),
        ("wheel:1.0", "wheel:1.0"),
        ("1.1", "wheel:1.1"),
        ("git:v1.0", "git:1.0"),
        ("git:main", "git:main"),
        ("0.9", "sdist:0.9"),
        ("0.10", "wheel:0.10"),
        ("2.0rc1", "sdist:2.0rc1"),
    ],
)
def test_the_kind_that_is_taken(world: World, wanted: str, expected: str) -> None:
    assert labels(fetch(world.recipe, wanted)) == [expected]
    assert bring(world.recipe, VersionRef.parse(wanted)).label == expected


def test_several_versions_in_the_order_asked_for(world: World) -> None:
    pinned, named = world.recipe.release("1.0"), VersionRef.parse("wheel:1.0")
    wanted: list[str | VersionRef | Release] = ["0.9", pinned, named]
    assert labels(fetch(world.recipe, wanted)) == ["sdist:0.9", "sdist:1.0", "wheel:1.0"]


def test_git_is_taken_where_it_was_fetched(world: World) -> None:
    fetch(world.recipe, "git:1.0")
    assert labels(fetch(world.recipe, "1.0")) == ["git:1.0"]
    assert paths(fetch(world.recipe, "1.0")[0]) == {"README": b"from git\n"}


def test_a_second_fetch_does_no_network_and_reads_no_archive(
    world: World, request: pytest.FixtureRequest
) -> None:
    wanted = ["sdist:1.0", "wheel:1.0", "git:1.0", "1.1", "0.9", "0.10", f"git:{world.commit}"]
    first = fetch(world.recipe, wanted)
    world.server.asked.clear()
    request.getfixturevalue("no_network")
    shutil.rmtree(cache_root() / "downloads")
    assert fetch(world.recipe, wanted) == first
    assert fetch(world.recipe, wanted, offline=True) == first
    assert world.server.asked == []


def test_a_branch_is_asked_for_again_but_not_offline(world: World, tmp_path: Path) -> None:
    (first,) = fetch(world.recipe, "git:main")
    git("commit", "-q", "--allow-empty", "-m", "two", cwd=world.upstream)
    assert fetch(world.recipe, "git:main", offline=True) == [first]
    assert fetch(world.recipe, "git:main")[0].commit != first.commit


def test_a_changed_layout_imports_again_without_network(
    world: World, request: pytest.FixtureRequest
) -> None:
    fetch(world.recipe, ["1.0", "0.9"])
    changed = world.recipe_with(layout='{here: "", git: "python/"}')
    request.getfixturevalue("no_network")
    for stored in fetch(changed, ["1.0", "0.9"], offline=True):
        assert set(paths(stored)) == {f"python/{name}" for name in CODE}


def test_only_the_asked_version_is_downloaded(world: World) -> None:
    fetch(world.recipe, "1.0")
    assert world.server.paths() == ["/simple/pkg/", "/files/pkg-1.0.tar.gz"]


def test_progress_is_told_for_both_halves(world: World) -> None:
    seen: dict[str, tuple[int, int | None]] = {}
    fetch(
        world.recipe, "1.0", report=lambda label, done, total: seen.update({label: (done, total)})
    )
    size = len(FILES["pkg-1.0.tar.gz"])
    assert seen == {"pkg-1.0.tar.gz": (size, size), "import pkg-1.0.tar.gz": (size, size)}


# --- platforms ----------------------------------------------------------------------------------


def test_the_wheel_of_the_platform(world: World) -> None:
    usual = fetch(world.recipe, "1.1")[0]
    assert usual.evidence["Artefact"].endswith("x86_64.whl")
    arm = fetch(world.recipe, "1.1", platform="linux/arm64")[0]
    assert arm.evidence["Artefact"].endswith("aarch64.whl")
    assert paths(arm) == {"pkg/arm.py": b"\n"}
    # Without a platform, what is there serves: no ping-pong between two people's wishes.
    assert fetch(world.recipe, "1.1", offline=True) == [arm]


def test_an_artefact_is_a_checked_file(world: World, request: pytest.FixtureRequest) -> None:
    pinned = world.recipe.release("1.1")
    path = artefact(world.recipe, pinned, WHEEL, "linux/arm64")
    assert path.read_bytes() == FILES[path.name]
    assert path.name.endswith("aarch64.whl")
    request.getfixturevalue("no_network")
    assert artefact(world.recipe, pinned, WHEEL, "linux/arm64") == path
    assert artefact(world.recipe, pinned, WHEEL, "linux/arm64", offline=True) == path
    path.write_bytes(b"damaged")
    with pytest.raises(EnvironmentProblem, match="--offline forbids"):
        artefact(world.recipe, pinned, WHEEL, "linux/arm64", offline=True)


# --- what is not there --------------------------------------------------------------------------


def test_offline_names_everything_that_is_missing_at_once(world: World) -> None:
    fetch(world.recipe, "0.9")
    wanted = ["1.0", "wheel:1.0", "git:1.0", "0.9", "0.10", "git:main"]
    with pytest.raises(EnvironmentProblem) as caught:
        fetch(world.recipe, wanted, offline=True)
    missing = caught.value.message.partition("fetch it: ")[2].split(", ")
    assert missing == [
        "sdist:1.0 (pkg-1.0.tar.gz)",
        "wheel:1.0 (pkg-1.0-py3-none-any.whl)",
        "git:1.0",
        "0.10",
        "git:main",
    ]
    assert "stackpatch fetch pkg sdist:1.0 wheel:1.0 git:1.0 0.10 git:main" in str(
        caught.value.hint
    )
    assert labels(SourceStore("pkg").versions()) == ["sdist:0.9"]


def test_offline_imports_what_was_downloaded_before(world: World) -> None:
    artefact(world.recipe, world.recipe.release("1.0"), SDIST)
    assert labels(fetch(world.recipe, "1.0", offline=True)) == ["sdist:1.0"]


def test_a_version_that_nobody_has(world: World) -> None:
    with pytest.raises(InputError, match=r"the index has no version 0\.9\.5 of pkg") as caught:
        fetch(world.recipe, "0.9.5")
    assert caught.value.hint == "nearest: 0.9, 0.10"


def test_a_kind_that_the_release_has_not(world: World) -> None:
    with pytest.raises(InputError, match=r"the recipe pins no sdist of pkg 1\.1"):
        fetch(world.recipe, "sdist:1.1")
    with pytest.raises(InputError, match=r"the index has no wheel of pkg 0\.9"):
        fetch(world.recipe, "wheel:0.9")
    with pytest.raises(InputError, match=r"nobody knows the commit of pkg 1\.1"):
        fetch(world.recipe, "git:1.1")


def test_drift_on_the_index_is_refused_with_both_digests(world: World) -> None:
    world.server.put("pkg", "pkg-1.0.tar.gz", make_sdist("1.0", {"evil.py": b""}))
    with pytest.raises(FindingError, match="is not the file that the recipe pins"):
        fetch(world.recipe, "1.0")
    assert SourceStore("pkg").versions() == []


def test_wrong_bytes_behind_the_right_digest_are_refused(world: World) -> None:
    right = FILES["pkg-1.0.tar.gz"]
    wrong = bytes(len(right))
    world.server.replies["/files/pkg-1.0.tar.gz"] = Reply(wrong)
    with pytest.raises(EnvironmentProblem, match=hashlib.sha256(wrong).hexdigest()):
        fetch(world.recipe, "1.0")
    assert SourceStore("pkg").versions() == []


def test_a_moved_tag_is_drift(world: World) -> None:
    git("commit", "-q", "--allow-empty", "-m", "two", cwd=world.upstream)
    git("tag", "-f", "v1.0", cwd=world.upstream)
    with pytest.raises(FindingError, match=f"the recipe pins {world.commit}"):
        fetch(world.recipe, "git:1.0")


def test_a_truncated_sdist_with_its_digest_pinned_is_refused(world: World) -> None:
    cut = FILES["pkg-1.0.tar.gz"][:-20]
    world.server.put("pkg", "pkg-1.0.tar.gz", cut)
    with pytest.raises(InputError, match=r"pkg-1\.0\.tar\.gz is damaged or cut off"):
        fetch(world.recipe_with(sdist=cut), "1.0")
    assert SourceStore("pkg").versions() == []


def test_an_sdist_that_leaves_the_tree_is_refused(world: World) -> None:
    evil = make_sdist("1.0", {"../../evil": b"x"})
    world.server.put("pkg", "pkg-1.0.tar.gz", evil)
    with pytest.raises(InputError, match="leads out of the tree"):
        fetch(world.recipe_with(sdist=evil), "1.0")
    assert SourceStore("pkg").versions() == []


def test_two_files_for_one_git_path_are_refused(world: World) -> None:
    both = make_sdist("1.0", {"a/x": b"1", "b/x": b"2"})
    world.server.put("pkg", "pkg-1.0.tar.gz", both)
    layout = "{here: a/, git: c/}\n    - {here: b/, git: c/}"
    with pytest.raises(InputError, match="'c/x': it is there twice") as caught:
        fetch(world.recipe_with(sdist=both, layout=layout), "1.0")
    assert "pkg 1.0 (sdist)" in caught.value.message


# --- the index's own list -----------------------------------------------------------------------


def test_versions_of_the_index_in_order(world: World) -> None:
    assert index_versions(world.recipe) == ["0.9", "0.10", "1.0", "1.1"]
    found = list_index_versions(world.recipe, pre=True)
    assert [(each.version, each.kind) for each in found] == [
        ("0.9", SDIST),
        ("0.10", WHEEL),
        ("1.0", SDIST),
        ("1.1", WHEEL),
        ("2.0rc1", SDIST),
    ]
    assert [len(each.files) for each in found] == [1, 1, 2, 2, 1]


def test_yanked_versions_are_marked_and_not_offered(world: World) -> None:
    world.server.put("pkg", "pkg-3.0.tar.gz", b"x", yanked="bad")
    world.server.put("pkg", "pkg-3.1.tar.gz", b"x", yanked="")
    world.server.put("pkg", "pkg-3.2.tar.gz", b"x", yanked="half")
    world.server.put("pkg", "pkg-3.2-py3-none-any.whl", b"x")
    marks = {each.version: each.yanked for each in list_index_versions(world.recipe)}
    assert marks["3.0"] == "bad"
    assert marks["3.1"] == ""
    assert marks["3.2"] is None
    assert index_versions(world.recipe)[-1] == "3.2"


WHEELS = [
    "pkg-5.0-cp310-cp310-manylinux_2_34_x86_64.whl",
    "pkg-5.0-cp312-cp312-manylinux_2_34_x86_64.whl",
    "pkg-5.0-cp313-cp313-manylinux_2_34_x86_64.whl",
    "pkg-5.0-cp312-cp312-manylinux_2_34_aarch64.whl",
    "pkg-5.0-cp314-cp314-macosx_11_0_arm64.whl",
    "pkg-5.0-cp314-cp314-win_amd64.whl",
]


@pytest.mark.parametrize(
    ("platform", "without", "expected"),
    [
        (None, "", "pkg-5.0-cp313-cp313-manylinux_2_34_x86_64.whl"),
        ("linux/arm64", "", "pkg-5.0-cp312-cp312-manylinux_2_34_aarch64.whl"),
        ("linux/arm64", "aarch64", "pkg-5.0-cp313-cp313-manylinux_2_34_x86_64.whl"),
        (None, "cp313", "pkg-5.0-cp312-cp312-manylinux_2_34_x86_64.whl"),
        (None, "linux", None),
    ],
)
def test_which_wheel_stands_for_a_version(
    world: World, platform: str | None, without: str, expected: str | None
) -> None:
    for file in reversed(WHEELS):
        if not without or without not in file:
            world.server.put("pkg", file, file.encode())
    found = list_index_versions(world.recipe, platform=platform)
    chosen = {each.version: each.sources[each.kind].name for each in found}
    assert chosen.get("5.0") == expected


def test_a_universal_wheel_and_an_sdist_win(world: World) -> None:
    for file in (*WHEELS, "pkg-5.0-py3-none-any.whl"):
        world.server.put("pkg", file, file.encode())
    assert list_index_versions(world.recipe)[-1].sources[WHEEL].name == "pkg-5.0-py3-none-any.whl"
    world.server.put("pkg", "pkg-5.0.zip", b"1")
    world.server.put("pkg", "pkg-5.0.tar.gz", b"2")
    newest = list_index_versions(world.recipe)[-1]
    assert newest.kind is SDIST
    assert newest.sources[SDIST].name == "pkg-5.0.tar.gz"


def test_names_that_are_no_release_are_passed_over(world: World) -> None:
    before = index_versions(world.recipe)
    for file in ("pkg-bad.tar.gz", "pkg-9.0.exe", "pkg-9.0.tar.gz.asc", "pkg-9.0-py3.whl"):
        world.server.put("pkg", file, b"x")
    world.server.put("pkg", "pkg-more-9.0.tar.gz", b"x")
    world.server.put("pkg", "pkg-9.1.tar.gz", b"x", sha256=None)
    assert index_versions(world.recipe) == before


def test_files_to_pin_come_with_their_sizes(world: World) -> None:
    found = index_files(world.recipe, "1.0")
    assert [(file.name, file.size, file.sha256) for file in found] == [
        (name, len(FILES[name]), hashlib.sha256(FILES[name]).hexdigest())
        for name in ("pkg-1.0.tar.gz", "pkg-1.0-py3-none-any.whl")
    ]
    with pytest.raises(InputError, match="has no version 7"):
        index_files(world.recipe, "7")


def test_an_unpinned_release_says_so(world: World) -> None:
    (stored,) = fetch(world.recipe, "0.9")
    assert stored.evidence["Digest-From"] == "index, not pinned"


def test_an_unpinned_release_whose_index_has_no_digest_is_not_taken(world: World) -> None:
    world.server.put("pkg", "pkg-0.8.tar.gz", make_sdist("0.8"), sha256=None)
    with pytest.raises(InputError, match=r"no version 0\.8"):
        fetch(world.recipe, "0.8")


# --- kills --------------------------------------------------------------------------------------

_CHILD = textwrap.dedent(
    """\
    import sys, time
    from pathlib import Path
    from stackpatch.model.recipe_file import parse_recipe
    from stackpatch.sources import archive, download, fetch, git, packing

    def stop(*args, **kwargs):
        Path(sys.argv[2]).touch()
        time.sleep(600)

    exec(sys.argv[3])
    recipe = parse_recipe("r", Path(sys.argv[1]).read_bytes())
    fetch.fetch(recipe, ["1.0", "wheel:1.0", "git:1.0"])
    """
)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize(
    "stage",
    [
        "download._Download._judge = stop",
        "download.os.fsync = stop",
        "download.Path = None; download._Download.run = stop",
        "archive._admit = stop",
        "packing._quoted = stop",
        "git.fetch_pinned = stop",
    ],
)
def test_a_kill_at_every_stage_then_the_same_again(
    world: World, tmp_path: Path, stage: str, how: signal.Signals
) -> None:
    text = (tmp_path / "recipe.yaml").write_bytes
    text(world_text(world))
    here = tmp_path / "here"
    argv = [sys.executable, "-c", _CHILD, str(tmp_path / "recipe.yaml"), str(here), stage]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 60
        while not here.exists():
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(how)
        assert child.wait() != 0
    found = fetch(world.recipe, ["1.0", "wheel:1.0", "git:1.0"])
    assert [paths(stored) for stored in found] == [CODE, CODE, {"README": b"from git\n"}]
    store = SourceStore("pkg").path
    assert "error" not in git("--git-dir", str(store), "fsck", "--full", cwd=tmp_path)
    assert not list(cache_root().rglob("*.part"))
    assert not list(cache_root().rglob("tmp_*"))


def world_text(world: World) -> bytes:
    files = {file: content for file, content in FILES.items() if file.startswith("pkg-1.0")}
    pinned = release("1.0", tag="v1.0", commit=world.commit, files=files)
    return RECIPE.format(git=world.upstream, releases=pinned).encode()
