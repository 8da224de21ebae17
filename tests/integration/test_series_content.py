"""The shipped patches against the releases they are made for, and the true table they are held to.

Real sdists from the package index and real git. What the patched code then does is in
`test_series_content_running.py`.
"""

from __future__ import annotations

import csv
import re
import subprocess
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.version import Version
from tests.conftest import fetch_artefact, git

from stackpatch.model.series import Series, load_series
from stackpatch.model.trailers import UpstreamWord
from stackpatch.series.effects import judge_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackpatch.model.patch import Patch

pytestmark = pytest.mark.pypi

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"


@dataclass(frozen=True, slots=True)
class Base:
    """A release that a series is made for. prefix: where the sdist's root lies in the git tree."""

    stack: str
    version: str
    file: str
    sha256: str
    prefix: str

    @property
    def series(self) -> Series:
        """The shipped series."""
        return load_series(ROOT / "patches" / self.stack / f"v{self.version}")

    def __str__(self) -> str:
        return f"{self.stack}-{self.version}"


BASES = (
    Base(
        "flashinfer",
        "0.6.3",
        "flashinfer_python-0.6.3.tar.gz",
        "84a762538247a86bc52ff31d9505d161ce1ec059174c1821c87c3ed1e44670fc",
        "",
    ),
    Base(
        "flashinfer",
        "0.5.3",
        "flashinfer_python-0.5.3.tar.gz",
        "100d59b0ede47878d2808cd3a1b9039d7a952d66338bc9f68dac192ae1b2e3f1",
        "",
    ),
    Base(
        "flashinfer",
        "0.7.2.post1",
        "flashinfer_python-0.7.2.post1.tar.gz",
        "af60319898dcfd552ba12a34165b9dd46c0bbd83d48ce665b1df6bd6ae77e9f1",
        "",
    ),
    Base(
        "sglang",
        "0.5.9",
        "sglang-0.5.9.tar.gz",
        "11b1445bfb039c20217783850fda66a71b814391b2cf313f4e6cadc3b9fea41b",
        "python/",
    ),
    Base(
        "sglang",
        "0.5.6.post2",
        "sglang-0.5.6.post2.tar.gz",
        "52545aeb2c85b001fc6fa86d846c837ab5192299c1eeae410cdc0b232ef6d35d",
        "python/",
    ),
    Base(
        "vllm",
        "0.13.0",
        "vllm-0.13.0.tar.gz",
        "4ad43db45fef37114b550d03a4f423fb3fa3a31d8bc09ee810ef8b9cdcd4b5fe",
        "",
    ),
    Base(
        "vllm",
        "0.33.0",
        "vllm-0.33.0.tar.gz",
        "f4c33c2503d52bb411146afa9618a4f48bed68912f617e6803ac8d76e4c74112",
        "",
    ),
)


def release_files(base: Base, paths: set[str]) -> dict[str, bytes]:
    """These git tree paths of the release, from its sdist."""
    with tarfile.open(fetch_artefact(base.file, base.sha256)) as archive:
        top = archive.getnames()[0].split("/", 1)[0]
        found = {}
        for path in sorted(paths):
            member = archive.extractfile(f"{top}/{path.removeprefix(base.prefix)}")
            assert member is not None, path
            found[path] = member.read()
    return found


def touched(series: Series) -> set[str]:
    """The paths that the series reads or writes, its effects' included."""
    named = {path for patch in series.patches for path in patch.paths}
    return named | {effect.path for patch in series.patches for effect in patch.trailers.effects}


@pytest.fixture(name="base", params=BASES, ids=str, scope="module")
def _base(request: pytest.FixtureRequest) -> Base:
    base: Base = request.param
    return base


@pytest.fixture(name="repository", scope="module")
def _repository(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with the release's files that the series touches, on branch `base`."""
    folder = tmp_path_factory.mktemp(f"{base}")
    git("init", "-q", "-b", "base", cwd=folder)
    for path, content in release_files(base, touched(base.series)).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    git("add", "-A", "-f", cwd=folder)
    git("commit", "-q", "-m", "base", cwd=folder)
    return folder


@pytest.fixture(name="patched", scope="module")
def _patched(base: Base, repository: Path) -> Path:
    """The same repository with the series applied by `git am` as branch `series`."""
    git("checkout", "-q", "-f", "-B", "series", "base", cwd=repository)
    mails = [f"{base.series.where}/{patch.name}" for patch in base.series.patches]
    git("am", "-q", "--no-3way", *mails, cwd=repository)
    return repository


def test_git_am_takes_every_mail_as_written(base: Base, patched: Path) -> None:
    subjects = git("log", "--reverse", "--format=%s", "base..series", cwd=patched).splitlines()
    assert subjects == [patch.subject for patch in base.series.patches]
    people = set(git("log", "--format=%an <%ae> %aI", "base..series", cwd=patched).splitlines())
    assert people == {"stackpatch developers <stackpatch@localhost> 2026-11-21T00:00:00+00:00"}
    for commit, patch in zip(commits(patched), base.series.patches, strict=True):
        assert git("show", "-s", "--format=%B", commit, cwd=patched).strip() == (
            patch.message.strip()
        )


def test_git_apply_takes_every_patch_without_offset_or_fuzz(
    base: Base, patched: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    git("worktree", "add", "-q", "--detach", str(tree), "base", cwd=patched)
    for patch in base.series.patches:
        done = subprocess.run(
            ["git", "apply", "--verbose", "--index", "-C3", f"{base.series.where}/{patch.name}"],
            cwd=tree,
            capture_output=True,
            check=True,
        )
        assert b"offset" not in done.stderr
        assert b"fuzz" not in done.stderr
    assert git("write-tree", cwd=tree).strip() == (
        git("rev-parse", "series^{tree}", cwd=patched).strip()
    )
    git("worktree", "remove", "-f", str(tree), cwd=patched)


def commits(patched: Path) -> list[str]:
    """The series' commits, oldest first."""
    return git("rev-list", "--reverse", "base..series", cwd=patched).split()


def test_index_lines_name_the_real_blobs(base: Base, patched: Path) -> None:
    """A mail made for another release would carry other blob ids and still apply."""
    for commit, patch in zip(commits(patched), base.series.patches, strict=True):
        listed = re.findall(rb"^index ([0-9a-f]{40})\.\.([0-9a-f]{40})", patch.raw, re.MULTILINE)
        assert len(listed) == len(patch.files)
        for (old, new), file in zip(listed, patch.files, strict=True):
            was = git("rev-parse", f"{commit}^:{file.new_path}", cwd=patched)
            now = git("rev-parse", f"{commit}:{file.new_path}", cwd=patched)
            assert (old.decode(), new.decode()) == (was.strip(), now.strip())


def test_patched_python_compiles(base: Base, patched: Path) -> None:
    for path in {path for patch in base.series.patches for path in patch.paths}:
        content = (patched / path).read_bytes()
        if path.endswith(".py"):
            compile(content, path, "exec", dont_inherit=True)
        assert b"\r\n" not in content
        assert not re.search(rb"^(<<<<<<<|>>>>>>>)", content, re.MULTILINE)


def steps(base: Base, patched: Path) -> Iterator[tuple[Patch, str]]:
    """Each patch with the commit that it made."""
    yield from zip(base.series.patches, commits(patched), strict=True)


def blob(patched: Path, commit: str, path: str) -> bytes:
    """A file's content at a commit."""
    return subprocess.run(
        ["git", "show", f"{commit}:{path}"], cwd=patched, capture_output=True, check=True
    ).stdout


def test_effects_hold_after_each_patch_and_never_before(base: Base, patched: Path) -> None:
    """On the release itself and at the patch's place in the series alike."""
    for patch, commit in steps(base, patched):
        assert patch.trailers.effects, patch.name
        for effect in patch.trailers.effects:
            for before in ("base", f"{commit}^"):
                found = judge_file(effect, effect.path, blob(patched, before, effect.path))
                assert found.holds is False, f"{patch.name}: {effect} at {before}"
            after = judge_file(effect, effect.path, blob(patched, commit, effect.path))
            assert after.holds is True, f"{patch.name}: {effect}"


def test_effects_of_a_patch_survive_the_rest_of_the_series(base: Base, patched: Path) -> None:
    for patch in base.series.patches:
        for effect in patch.trailers.effects:
            found = judge_file(effect, effect.path, blob(patched, "series", effect.path))
            assert found.holds is True, f"{patch.name}: {effect}"


def test_effects_are_safe_to_search(base: Base) -> None:
    """No repetition within a repetition, none of unbounded reach over a whole file."""
    for patch in base.series.patches:
        for effect in patch.trailers.effects:
            assert not re.search(r"\([^)]*[+*}][^)]*\)[+*{]", effect.pattern), effect
            assert not re.search(r"(?<!\\)\.[*+]", effect.pattern), effect
            assert "\\s\\s" not in effect.pattern


def test_headers_say_status_range_and_reason(base: Base) -> None:
    for patch in base.series.patches:
        trailers = patch.trailers
        assert trailers.status in {
            UpstreamWord.BACKPORT,
            UpstreamWord.INAPPROPRIATE,
            UpstreamWord.PENDING,
        }
        assert trailers.status_note, patch.name
        assert trailers.applies_to is not None
        assert Version(base.version) in trailers.applies_to, patch.name
        assert len(patch.message.split("\n\n")) >= 4, f"{patch.name}: no reason given"
        assert patch.name in (ROOT / "docs" / "patches.md").read_text(encoding="utf-8")


def test_gates_are_for_sm12x_only_and_say_that_no_kernel_is_behind_them() -> None:
    for version in ("0.6.3", "0.5.3"):
        series = load_series(ROOT / "patches" / "flashinfer" / f"v{version}")
        gates = series.patches[:3]
        for patch in gates:
            assert patch.trailers.archs == ("sm120", "sm121")
            said = " ".join(patch.message.split())
            assert "a known dead end" in said
            assert "is sm_100 or sm_103 code" in said
        rest = series.patches[4:]
        assert [patch.name for patch in series.for_arch("sm100").patches] == [
            patch.name for patch in rest
        ]
        assert len(series.for_arch("sm121").patches) == 4 + len(rest)


OLD_CHECK = (
    '  TVM_FFI_ICHECK_EQ(major, 10) << "MoE kernel requires 10.x architecture. '
    'Current device has SM "'
)


def test_gates_are_opened_and_nothing_else_is_touched() -> None:
    """Only the gates and what their messages say: no line beside them."""
    for version in ("0.6.3", "0.5.3"):
        series = load_series(ROOT / "patches" / "flashinfer" / f"v{version}")
        gone = [line for patch in series.patches[:3] for line in removed(patch)]
        assert gone == [
            "        supported_major_versions=[10]",
            OLD_CHECK,
            "                               << major << minor;",
            "    TVM_FFI_ICHECK_EQ(std::get<0>(device_props), 10)",
            '        << "This kernel requires 10.x architecture. Current device has SM "',
        ]


def removed(patch: Patch) -> list[str]:
    """The lines that a patch takes away."""
    diff = patch.raw.decode().split("\ndiff --git ", 1)[1]
    return [line[1:] for line in diff.splitlines() if re.match(r"-(?!-- )", line)]


# --- the true table -------------------------------------------------------------------------------

FLASHINFER = ("fi-a-jit-arch", "fi-b1-init-common", "fi-b2-fp4-launcher")
SGLANG = ("sg-c-bias-dtype", "sg-d-weight-scale")


def table(name: str) -> list[dict[str, str]]:
    """The rows of a CSV file of the test data."""
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_true_table_has_every_cell_once() -> None:
    rows = table("truth.csv")
    cells = Counter((row["patch"], row["release"]) for row in rows)
    assert len(cells) == len(rows) == 200
    releases = {name: {r["release"] for r in rows if r["patch"] == name} for name in FLASHINFER}
    assert len({frozenset(versions) for versions in releases.values()}) == 1
    assert {name: sum(n for (p, _), n in cells.items() if p == name) for name in FLASHINFER} == (
        dict.fromkeys(FLASHINFER, 42)
    )
    assert {name: sum(n for (p, _), n in cells.items() if p == name) for name in SGLANG} == (
        dict.fromkeys(SGLANG, 37)
    )


def test_true_table_has_the_known_totals() -> None:
    """125 landed and 13 moved cells, and 62 that need the patch (35 of which still take it)."""
    assert Counter(row["truth"] for row in table("truth.csv")) == {
        "UPSTREAMED": 125,
        "NEEDED": 62,
        "MOVED": 13,
    }


def test_true_table_agrees_with_the_cells_that_were_given() -> None:
    ours = {(row["patch"], row["release"]): row for row in table("truth.csv")}
    given = table("truth-sample.csv")
    assert len(given) == 25
    for row in given:
        mine = ours[row["patch"], row["release"]]
        assert {k: mine[k] for k in ("truth", "where", "note")} == {
            k: row[k] for k in ("truth", "where", "note")
        }


def test_true_table_turns_once_and_never_back() -> None:
    """What landed stays landed: the table must not flicker between neighbouring releases."""
    landed_in = {
        "fi-a-jit-arch": "0.6.7",
        "fi-b1-init-common": "0.6.7",
        "fi-b2-fp4-launcher": "0.6.7",
        "sg-c-bias-dtype": "0.5.14",
        "sg-d-weight-scale": "0.5.8",
    }
    for row in table("truth.csv"):
        landed = Version(row["release"]) >= Version(landed_in[row["patch"]])
        assert (row["truth"] == "UPSTREAMED") is landed, row


def test_true_table_names_shipped_patches_and_says_where_it_looked() -> None:
    rows = table("truth.csv")
    assert len({(row["patch"], row["file"]) for row in rows}) == 5
    for row in rows:
        assert (ROOT / row["file"]).is_file(), row["file"]
        assert re.fullmatch(r"[\w/.]+:\d+(\+[\w/.]+:\d+)?", row["where"]), row
        assert row["note"]


def test_true_table_points_at_real_lines_of_the_pinned_releases(base: Base) -> None:
    """The places of the table, looked up in the releases that we patch."""
    says = {
        "fi-a-jit-arch": r"supported_major_versions=\[10",
        "fi-b1-init-common": r"ICHECK.*major.*10",
        "fi-b2-fp4-launcher": r"ICHECK_EQ\(std::get<0>|void init\(",
        "sg-c-bias-dtype": r"correction_bias\.to\(hidden_states\.dtype",
        "sg-d-weight-scale": r"weight_scale\.shape\[assert_dim\] %",
    }
    patches = {"flashinfer": FLASHINFER, "sglang": SGLANG}.get(base.stack, ())
    rows = [
        row
        for row in table("truth.csv")
        if row["patch"] in patches and row["release"] == base.version
    ]
    assert len(rows) == len(patches)
    for row in rows:
        path, number = row["where"].split(":")
        content = release_files(base, {base.prefix + path})[base.prefix + path]
        line = content.decode().splitlines()[int(number) - 1]
        assert re.search(says[row["patch"]], line), (row, line)
