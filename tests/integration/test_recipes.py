"""What our recipes state, held against the package index and the releases' own bytes."""

from __future__ import annotations

import email
import hashlib
import html
import json
import os
import re
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.conftest import fetch_artefact
from tests.remote import metadata, open_wheel

from stackpatch.model.arch import ARCHES, CodeArch
from stackpatch.model.layout import Layout
from stackpatch.model.recipe import Artefact, EvidenceKind, Recipe, Release
from stackpatch.model.recipe_file import parse_recipe
from stackpatch.model.reference import SourceKind

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.pypi

ROOT = Path(__file__).parents[2]
RECIPES = {
    path.stem: parse_recipe(path.name, path.read_bytes(), name=path.stem)
    for path in sorted((ROOT / "recipes").glob("*.yaml"))
}
RELEASES = [
    pytest.param(recipe, release, id=f"{stack}-{release.version}")
    for stack, recipe in RECIPES.items()
    for release in recipe.releases
]
WITH_FILES = [
    pytest.param(recipe, release, id=f"{stack}-{release.version}")
    for stack, recipe in RECIPES.items()
    for release in recipe.releases
    if release.artefacts
]
# Whole files: small ones. flashinfer 0.7.2 is 0.7.2.post1 but for a few files, and 120 MB more to
# fetch; 0.6.16 and 0.6.18 are here because others require them. vLLM's wheels have 400 MB each.
READ = [
    param
    for param in WITH_FILES
    if param.id not in ("flashinfer-0.6.16", "flashinfer-0.6.18", "flashinfer-0.7.2")
    and not str(param.id).startswith("vllm")
]


def index_page(distribution: str) -> str:
    """The index's page, HTML or JSON as it likes, asked for with everything it knows."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    request = urllib.request.Request(
        f"{index}/{distribution}/",
        headers={"Accept": "application/vnd.pypi.simple.v1+json, text/html;q=0.1"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = answer.read()
        assert isinstance(found, bytes)
    return found.decode()


def index_files(distribution: str) -> dict[str, tuple[str, str | None]]:
    """File name -> sha256 and upload time, None where the index does not say it."""
    page = index_page(distribution)
    if page.lstrip().startswith("{"):
        return {
            file["filename"]: (file["hashes"]["sha256"], file.get("upload-time"))
            for file in json.loads(page)["files"]
        }
    found = {}
    for tag, name in re.findall(r"<a ([^>]*)>([^<]+)</a>", page):
        digest = re.search(r"#sha256=([0-9a-f]{64})", tag)
        uploaded = re.search(r'data-upload-time="([^"]+)"', tag)
        if digest:
            found[html.unescape(name)] = (digest[1], uploaded[1] if uploaded else None)
    return found


@pytest.fixture(scope="module")
def index() -> dict[str, dict[str, tuple[str, str | None]]]:
    return {name: index_files(recipe.upstream.pypi) for name, recipe in RECIPES.items()}


@pytest.mark.parametrize(("recipe", "release"), WITH_FILES)
def test_every_pinned_file_is_on_the_index_with_its_sha256(
    recipe: Recipe, release: Release, index: dict[str, dict[str, tuple[str, str | None]]]
) -> None:
    files = index[recipe.stack]
    assert {a.file: a.sha256 for a in release.artefacts} == {
        a.file: files[a.file][0] for a in release.artefacts
    }
    of_version = re.compile(rf"[a-z_]+-{re.escape(release.version)}(-.+\.whl|\.tar\.gz)")
    assert {name for name in files if of_version.fullmatch(name)} == {
        a.file for a in release.artefacts
    }, "the index has files of this release that the recipe does not pin"
    uploaded = [time for a in release.artefacts if (time := files[a.file][1]) is not None]
    if uploaded:
        assert min(uploaded)[:19] + "Z" == release.date


def artefacts(recipe: Recipe, release: Release) -> list[Artefact]:
    """The files to read: the sdist, and the wheel that is taken when nothing else is said."""
    kinds = {artefact.kind for artefact in release.artefacts}
    return [recipe.artefact(release, kind) for kind in sorted(kinds)]


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of an archive; an sdist's without its top folder."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            for info in wheel.infolist():
                if not info.is_dir():
                    yield info.filename, wheel.read(info)
    else:
        with tarfile.open(path) as sdist:
            for member in sdist:
                if member.isfile():
                    opened = sdist.extractfile(member)
                    assert opened is not None
                    yield member.name.partition("/")[2], opened.read()
                else:
                    assert member.isdir(), f"{member.name} is neither a file nor a folder"


def layout(recipe: Recipe, kind: SourceKind) -> Layout:
    return Layout.of((rule.here, rule.git) for rule in recipe.layouts.rules(kind))


# What is in an archive and not in git: packaging metadata, generated files, compiled modules.
NOT_IN_GIT = re.compile(
    r"[^/]+\.dist-info/.*|[^/]+\.egg-info/.*|PKG-INFO|setup\.cfg"
    r"|flashinfer/_build_meta\.py|sglang/_version\.py|sglang/srt/.*\.cpython-3\d+-.*\.so"
)
SLIM = "flashinfer/experimental/KERNEL_SOURCES_EXCLUDED.txt"
LEFT_OUT = re.compile(r"flashinfer/experimental/[^/]+/csrc/.*")
# What vLLM's build brings from other repositories, and what it compiles.
FETCHED_BY_VLLM = re.compile(
    r"vllm/third_party/(?:deep_gemm|fmha_sm100|tml_fa4|triton_kernels)/.*"
    r"|vllm/third_party/flashmla/flash_mla_interface\.py"
    r"|vllm/vllm_flash_attn/(?!\.gitkeep).*"
    r"|vllm/[a-z_A-Z]+\.abi3\.so|vllm/vllm-rs|vllm/_version\.py"
)


@pytest.mark.parametrize(("recipe", "release"), READ)
def test_layouts_lead_every_kind_of_source_to_the_same_tree(
    recipe: Recipe, release: Release
) -> None:
    trees: dict[SourceKind, dict[str, str]] = {}
    for artefact in artefacts(recipe, release):
        path = fetch_artefact(artefact.file, artefact.sha256)
        assert path.stat().st_size == artefact.size
        rules = layout(recipe, artefact.kind)
        tree: dict[str, str] = {}
        for name, content in contents(path):
            git = rules.to_git(name)
            assert (git is None) == bool(NOT_IN_GIT.fullmatch(name)), name
            if git is None:
                continue
            assert name in rules.from_git(git), name
            digest = hashlib.sha256(content).hexdigest()
            assert tree.setdefault(git, digest) == digest, f"two files for {git} differ"
        trees[artefact.kind] = tree
    if SourceKind.SDIST in trees:
        sdist, wheel = trees[SourceKind.SDIST], trees[SourceKind.WHEEL]
        # FlashInfer leaves sources out of wheels that would be too large, and says so in one file.
        slim = wheel.pop(SLIM, None) is not None
        assert slim == (release.version == "0.7.4")
        assert {path: sdist.get(path) for path in wheel} == wheel
        # nothing of the package itself is in the sdist alone
        package = layout(recipe, SourceKind.WHEEL).to_git(f"{recipe.upstream.package}/__init__.py")
        assert package is not None
        inside = package.removesuffix("__init__.py")
        alone = [path for path in set(sdist) - set(wheel) if path.startswith(inside)]
        assert [path for path in alone if not (slim and LEFT_OUT.fullmatch(path))] == []
        assert bool(alone) == slim
        assert len(wheel) > 1000


@pytest.mark.parametrize(("recipe", "release"), READ)
def test_commits_and_stamps_are_what_the_wheel_says(recipe: Recipe, release: Release) -> None:
    artefact = recipe.artefact(release, SourceKind.WHEEL)
    with zipfile.ZipFile(fetch_artefact(artefact.file, artefact.sha256)) as wheel:
        names = wheel.namelist()
        assert any(name.startswith(f"{recipe.upstream.package}/") for name in names)
        assert release.stamp is not None
        stamped = wheel.read(release.stamp.path).decode()
    assert re.search(
        rf'^{release.stamp.variable}\b.*= *["\']{re.escape(release.version)}["\']$',
        stamped,
        re.MULTILINE,
    )
    stated = re.search(r'^__git_(?:version|commit)__ = "([0-9a-f]{40})"$', stamped, re.MULTILINE)
    if release.commit_evidence.kind is EvidenceKind.FIRST_HAND:
        assert stated is not None
        assert stated[1] == release.commit
    else:
        assert stated is None, "the wheel says its commit: the evidence is first-hand"


def test_some_release_is_read_whole() -> None:
    assert {str(param.id).partition("-")[0] for param in READ} == {"flashinfer", "sglang"}
    assert len(READ) == 7


VLLM = [param for param in WITH_FILES if str(param.id).startswith("vllm")]


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
@pytest.mark.parametrize(("recipe", "release"), VLLM)
def test_vllm_wheels_hold_the_sdists_files_and_compiled_ones(
    recipe: Recipe, release: Release, machine: str
) -> None:
    """Every file by name and CRC, from the wheel's own directory; 400 MB stay where they are."""
    wheel = next(a for a in release.artefacts if a.file.endswith(f"_{machine}.whl"))
    sdist = recipe.artefact(release, SourceKind.SDIST)
    rules, source = layout(recipe, SourceKind.WHEEL), layout(recipe, SourceKind.SDIST)
    tree = {
        git: zlib.crc32(content)
        for name, content in contents(fetch_artefact(sdist.file, sdist.sha256))
        if (git := source.to_git(name)) is not None
    }
    opened, size = open_wheel(wheel.file)
    with opened:
        assert size == wheel.size
        held = {i.filename: i.CRC for i in opened.infolist() if not i.is_dir()}
        assert release.stamp is not None
        stamped = opened.read(release.stamp.path).decode()
    mapped = {name: git for name in held if (git := rules.to_git(name)) is not None}
    assert {git: held[name] for name, git in mapped.items()} == {
        git: tree.get(git) for git in mapped.values()
    }
    elsewhere = [name for name in held if name not in mapped and ".dist-info/" not in name]
    assert [name for name in elsewhere if not FETCHED_BY_VLLM.fullmatch(name)] == []
    from_git = [git for git in tree if git.startswith("vllm/")]
    assert [
        git for git in from_git if not rules.from_git(git) and not FETCHED_BY_VLLM.fullmatch(git)
    ] == []
    assert len(mapped) > 1500
    said = re.search(r"^__commit_id__ = commit_id = 'g([0-9a-f]{9})'$", stamped, re.MULTILINE)
    assert said is not None
    assert said[1] in release.commit_evidence.detail
    assert release.commit is None or release.commit.startswith(said[1])
    assert f"__version__ = version = '{release.version}'" in stamped


def required(metadata: bytes) -> dict[str, str]:
    """The stacks that a METADATA or PKG-INFO pins, outside of its extras."""
    found = {}
    for requirement in email.message_from_bytes(metadata).get_all("Requires-Dist", []):
        pin = re.fullmatch(r"flashinfer[_-]python(?:\[\w+\])?==([\w.]+)", requirement)
        if pin:
            found["flashinfer"] = pin[1]
    return found


def wheels(release: Release) -> list[Artefact]:
    return [artefact for artefact in release.artefacts if artefact.kind is SourceKind.WHEEL]


@pytest.mark.parametrize(
    ("release", "artefact"),
    [
        pytest.param(release, artefact, id=artefact.file)
        for recipe in RECIPES.values()
        for release in recipe.releases
        for artefact in wheels(release)
    ],
)
def test_requirements_are_what_every_wheel_says(release: Release, artefact: Artefact) -> None:
    said = required(metadata(artefact.file))
    assert release.requires == said
    for stack, version in said.items():
        assert RECIPES[stack].release(version).version == version


TRTLLM_STUBS = {
    "1.3.0rc24": "40672c4e1930d7a4dc25b08b2eb9027e0a83156473b849bf641ce1ff0b931c51",
    "1.4.0rc1": "b4c1fb8d0fd60b9b8351fa4348f216cd14e53b5311ee70db9006806e7121e8a4",
}


@pytest.mark.parametrize("release", RECIPES["trtllm"].releases, ids=lambda one: one.version)
def test_trtllm_is_its_commit_because_the_index_has_only_a_stub(
    release: Release, index: dict[str, dict[str, tuple[str, str | None]]]
) -> None:
    files = {n: d for n, d in index["trtllm"].items() if f"-{release.version}." in n}
    assert release.artefacts == ()
    assert release.source is SourceKind.GIT
    if release.commit_evidence.kind is not EvidenceKind.FIRST_HAND:
        assert files == {}, "the index has it: its commit may be known first-hand"
        assert release.requires == {}
        return
    name = f"tensorrt_llm-{release.version}.tar.gz"
    digest = TRTLLM_STUBS[release.version]
    assert {file: found[0] for file, found in files.items()} == {name: digest}
    assert digest[:12] in release.commit_evidence.detail
    held = dict(contents(fetch_artefact(name, digest)))
    assert not [path for path in held if path.endswith((".py", ".cpp", ".cu", ".h"))]
    info = email.message_from_bytes(held["PKG-INFO"])
    assert f"https://github.com/NVIDIA/TensorRT-LLM/commit/{release.commit}" in str(
        info.get_all("Project-URL")
    )
    assert release.requires == required(held["PKG-INFO"])
    uploaded = index["trtllm"][name][1]
    assert uploaded is None or uploaded[:19] + "Z" == release.date


# Asks a release's own module what it makes of the variable. torch and tvm_ffi are stood in for:
# the module takes nothing of them but the question whether a GPU is there.
_ASK = """
import importlib.util, sys, types
package = types.ModuleType("flashinfer")
package.__path__ = []
sys.modules["flashinfer"] = package
sys.modules["torch"] = types.ModuleType("torch")
spec = importlib.util.spec_from_file_location("flashinfer.compilation_context", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
context = module.CompilationContext()
print(" ".join(f"{major}.{minor}" for major, minor in sorted(context.TARGET_CUDA_ARCHS)))
"""


@pytest.mark.parametrize(
    ("recipe", "release"), [param for param in READ if str(param.id).startswith("flashinfer")]
)
def test_every_release_takes_the_arch_list_for_the_specific_target(
    recipe: Recipe, release: Release, tmp_path: Path
) -> None:
    artefact = recipe.artefact(release, SourceKind.WHEEL)
    module = tmp_path / "compilation_context.py"
    with zipfile.ZipFile(fetch_artefact(artefact.file, artefact.sha256)) as wheel:
        module.write_bytes(wheel.read("flashinfer/compilation_context.py"))
    for stack in RECIPES.values():
        for name, settings in stack.archs.items():
            done = subprocess.run(
                [sys.executable, "-c", _ASK, str(module)],
                env={**os.environ, **settings.env},
                capture_output=True,
                check=True,
                timeout=60,
            )
            (target,) = done.stdout.decode().split()
            code = CodeArch.parse(f"sm_{target.replace('.', '')}")
            assert str(code) == ARCHES[name].target
