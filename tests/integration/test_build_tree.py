"""Releases that are their commit: a repository like TensorRT-LLM's, its image, the real program.

The repository has a submodule, a pointer of Git LFS, and Python and CUDA sources in its layout. The
image holds the package as pip leaves it. Nothing is stood in for but the size.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import git
from tests.engine import engine
from tests.engine_builds import own_files
from tests.images import LayoutMaker, merged, tar_layer
from tests.wheels import record_hash

from stackpatch.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CHECKOUT = Path(__file__).parents[2]
SITE = "usr/local/lib/python3.12/dist-packages"
LOADER = "tensorrt_llm/_torch/pyexecutor/model_loader.py"
BEFORE = b"def kv_cache(asked, capability):\n    kind = asked\n    return kind\n"
AFTER = BEFORE.replace(
    b"    return", b"    if capability == 120:\n        kind = 'fp8'\n    return"
)
KERNEL = b"__global__ void kernel() {}\n"
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
RECIPE = """\
stack: llm
summary: Like TensorRT-LLM
upstream: {{git: "{git}", pypi: tensorrt-llm, package: tensorrt_llm, submodules: true, lfs: true}}
layouts:
  wheel:
    - {{here: tensorrt_llm/, git: tensorrt_llm/}}
    - {{here: tensorrt_llm/libs/, git: null}}
python: "3.12"
default: "1.3.0rc20"
releases:
  - version: "1.3.0rc20"
    tag: v1.3.0rc20
    commit: {commit}
    commit-evidence: {{kind: second-hand, detail: another project says so}}
    date: "2026-06-30T00:00:00Z"
    series: v1.3.0rc20
{bases}archs:
  sm121:
    env: {{DEMO_ARCH: "12.1a"}}
    build-args: {{CUDA_ARCHS: 120-real}}
    cuda: ">=12.9"
  sm120:
    env: {{DEMO_ARCH: "12.0a"}}
    build-args: {{CUDA_ARCHS: 120-real}}
    cuda: ">=12.9"
"""


@dataclass
class Shop:
    """A folder with the recipe and series, and the image of the release."""

    root: Path
    repository: Path
    base: Path
    digest: str
    commit: str

    def recipe(self, bases: str = "") -> None:
        text = RECIPE.format(git=self.repository, commit=self.commit, bases=bases)
        (self.root / "recipes" / "llm.yaml").write_text(text)

    def patch(self, path: str, before: bytes, after: bytes) -> None:
        """The series: one mail, made by git on the release."""
        (self.repository / path).write_bytes(after)
        git("add", "-A", cwd=self.repository)
        git(
            *("commit", "-q", "-m", f"change {path}\n\nBecause.\n\nUpstream-Status: Pending"),
            cwd=self.repository,
        )
        folder = self.root / "patches" / "llm" / "v1.3.0rc20"
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        git("format-patch", "-q", "-N", "-1", "-o", str(folder), cwd=self.repository)
        git("reset", "-q", "--hard", self.commit, cwd=self.repository)
        assert (self.repository / path).read_bytes() == before
        (name,) = [one.name for one in folder.iterdir()]
        (folder / "series").write_text(f"{name}\n")


def image(folder: Path, files: Mapping[str, bytes], version: str = "1.3.0rc20") -> tuple[Path, str]:
    """A layout with the package as pip leaves it, and the digest of its one image."""
    name = f"tensorrt_llm-{version}.dist-info"
    held = {
        **files,
        f"{name}/METADATA": f"Name: tensorrt_llm\nVersion: {version}\n".encode(),
        f"{name}/INSTALLER": b"pip\n",
    }
    rows = [f"{path},{record_hash(content)},{len(content)}" for path, content in held.items()]
    stale = "tensorrt_llm/_torch/pyexecutor/__pycache__/model_loader.cpython-312.pyc"
    rows += [f"{stale},,", f"{name}/RECORD,,"]
    held |= {stale: b"bytecode", f"{name}/RECORD": ("\n".join(rows) + "\n").encode()}
    maker = LayoutMaker(folder)
    layer = tar_layer({f"{SITE}/{path}": content for path, content in held.items()})
    descriptor = maker.image([layer], architecture="arm64")
    return maker.write(descriptor), str(descriptor["digest"])


@pytest.fixture(name="shop")
def _shop(tmp_path: Path) -> Shop:
    module = tmp_path / "cutlass"
    repository = tmp_path / "TensorRT-LLM"
    for folder in (module, repository):
        folder.mkdir()
        git("init", "-q", "-b", "main", cwd=folder)
    (module / "cutlass.h").write_text("#pragma once\n")
    git("add", "-A", cwd=module)
    git("commit", "-q", "-m", "cutlass", cwd=module)
    git(
        *("-c", "protocol.file.allow=always", "submodule", "--quiet", "add"),
        *(str(module), "3rdparty/cutlass"),
        cwd=repository,
    )
    files = {
        LOADER: BEFORE,
        "tensorrt_llm/__init__.py": b"",
        "cpp/tensorrt_llm/kernels/kernel.cu": KERNEL,
        "cpp/tensorrt_llm/kernels/fmha.cubin.cpp": POINTER,
        ".gitattributes": b"*.cubin.cpp filter=lfs diff=lfs merge=lfs -text\n",
        "tests/test_loader.py": b"assert True\n",
    }
    for path, content in files.items():
        target = repository / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    git(
        "-c", "filter.lfs.clean=cat", "-c", "filter.lfs.required=false", "add", "-A", cwd=repository
    )
    git("commit", "-q", "-m", "release", cwd=repository)
    git("tag", "v1.3.0rc20", cwd=repository)
    commit = git("rev-parse", "HEAD", cwd=repository).strip()
    installed = {
        **{path: content for path, content in files.items() if path.startswith("tensorrt_llm/")},
        "tensorrt_llm/libs/libtensorrt_llm.so": b"\x7fELF",
    }
    base, digest = image(tmp_path / "base", installed)
    root = tmp_path / "root"
    (root / "recipes").mkdir(parents=True)
    (root / "dockerfiles" / "tools").mkdir(parents=True)
    ours = CHECKOUT / "dockerfiles"
    shutil.copy(ours / "trtllm.Dockerfile", root / "dockerfiles" / "llm.Dockerfile")
    for tool in ("install.py", "source.py"):
        shutil.copy(ours / "tools" / tool, root / "dockerfiles" / "tools" / tool)
    shop = Shop(root, repository, base, digest, commit)
    shop.recipe()
    shop.patch(LOADER, BEFORE, AFTER)
    return shop


@pytest.fixture(name="build")
def _build(shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def build(*words: str, status: int = 0) -> Any:
        argv = ["build", "llm", "--arch", "sm121", "--root", str(shop.root)]
        found = main([*argv, "--out", str(tmp_path / "dist"), "--json", *words])
        out, err = capsys.readouterr()
        assert found == status, err
        return json.loads(out)

    return build


def test_the_image_has_the_patched_file_and_everything_else_of_the_release(
    shop: Shop, build: Callable[..., Any]
) -> None:
    made = build("--base", str(shop.base))
    assert (made["engine"], made["wheel"], made["reused"]) == ("overlay", None, False)
    assert made["version"] == "1.3.0rc20"
    assert made["patched"].startswith("1.3.0rc20+sp.")
    before = merged(shop.base, shop.digest)
    after = merged(shop.root.parent / made["image"]["path"], made["image"]["digest"])
    assert after[f"{SITE}/{LOADER}"][1] == AFTER
    stale = f"{SITE}/tensorrt_llm/_torch/pyexecutor/__pycache__/model_loader.cpython-312.pyc"
    record = f"{SITE}/tensorrt_llm-1.3.0rc20.dist-info/RECORD"
    assert stale in before
    assert stale not in after
    same = {p for p in before if p not in (f"{SITE}/{LOADER}", record, stale)}
    assert {p: after[p][:2] for p in same} == {p: before[p][:2] for p in same}
    assert {p for p in set(after) - set(before) if after[p][0] == "file"} == set()
    rows = dict(line.split(",", 1) for line in after[record][1].decode().splitlines())
    assert rows[LOADER] == f"{record_hash(AFTER)},{len(AFTER)}"
    assert stale.removeprefix(f"{SITE}/") not in rows
    assert "tensorrt_llm/libs/libtensorrt_llm.so" in rows


def test_a_second_run_does_nothing_and_other_places_give_the_same_bytes(
    shop: Shop, build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = build("--base", str(shop.base))
    assert build("--base", str(shop.base))["reused"] is True
    lock = json.loads((tmp_path / first["lock"]).read_text())
    assert lock["inputs"]["upstream"]["commit"] == shop.commit
    assert lock["inputs"]["upstream"]["submodules"] is True
    moved = tmp_path / "elsewhere"
    shutil.copytree(shop.base, moved)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    os.umask(0o077)
    try:
        again = build("--base", str(moved), "--out", str(tmp_path / "other"))
    finally:
        os.umask(0o022)
    assert again["reused"] is False
    assert (again["image"]["digest"], again["key"]) == (first["image"]["digest"], first["key"])
    for file in lock["outputs"]["files"]:
        place = (tmp_path / again["lock"]).parent / file["path"]
        assert hashlib.sha256(place.read_bytes()).hexdigest() == file["sha256"], file["path"]


def test_a_result_that_was_damaged_is_made_again(
    shop: Shop, build: Callable[..., Any], tmp_path: Path
) -> None:
    first = build("--base", str(shop.base))
    lock = tmp_path / first["lock"]
    for damage in (b"{}", b"", b'{"schema": "stackpatch.lock/1", "key": "0"}'):
        lock.write_bytes(damage)
        made = build("--base", str(shop.base))
        assert (made["reused"], made["image"]) == (False, first["image"])
    (lock.parent / "image" / "index.json").write_bytes(b"")
    assert build("--base", str(shop.base))["reused"] is False


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({LOADER: BEFORE + b"# mine\n"}, "is not the one of the commit: it was changed there"),
        ({LOADER: None}, "is not the one of the commit: it is missing there"),
        (
            {"version": "1.3.0rc19"},
            "the base image has tensorrt-llm 1.3.0rc19, the patched release",
        ),
    ],
)
def test_a_base_with_something_else_is_refused(
    shop: Shop, build: Callable[..., Any], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    files: dict[str, Any] = {LOADER: BEFORE, "tensorrt_llm/__init__.py": b""}
    version = change.pop("version", "1.3.0rc20")
    files |= change
    held = {path: content for path, content in files.items() if content is not None}
    base, _ = image(tmp_path / "other-base", held, version)
    error = build("--base", str(base), status=2)["error"]
    assert said in error["message"]
    assert not (tmp_path / "dist").exists() or not list((tmp_path / "dist").rglob("image"))


def test_the_dry_run_pins_every_input_and_reads_nothing(
    shop: Shop, build: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = f"sha256:{'c' * 64}"
    shop.recipe(
        "    bases:\n"
        f"      - {{image: nvcr.test/llm/release, digest: '{digest}', platforms: [linux/arm64],\n"
        f"         kind: site-packages, path: /{SITE}, python: '3.12', evidence: seen there}}\n"
    )
    shutil.rmtree(shop.repository)  # nothing of it is needed to plan
    document = build("--dry-run")
    assert document["open"] == []
    plan = document["plan"]
    assert plan["upstream"]["commit"] == shop.commit
    assert plan["base"] == {
        "digest": digest,
        "index": None,
        "name": "nvcr.test/llm/release",
        "site": SITE,
        "editable": False,
        "python": "3.12",
        "recorded": True,
    }
    assert plan["engine"] == {"name": "overlay", "version": "2"}
    assert len(plan["series"]["patches"][0]["sha256"]) == 64
    assert main(["build", "llm", "--arch", "sm121", "--dry-run", "--root", str(shop.root)]) == 0
    text = capsys.readouterr().out
    assert f"base     nvcr.test/llm/release@{digest}" in text
    assert "pinned   every input above" in text
    assert not (tmp_path / "dist").exists()


def test_what_must_be_compiled_is_built_from_source_and_says_what_is_open(
    shop: Shop,
    build: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    shop.patch("cpp/tensorrt_llm/kernels/kernel.cu", KERNEL, KERNEL + b"// more\n")
    document = build("--dry-run")
    assert document["plan"]["engine"]["name"] == "buildx"
    assert document["plan"]["engine"]["build-args"] == {"CUDA_ARCHS": "120-real"}
    engine = "the version of buildx is known where it runs: `stackpatch doctor`"
    assert document["open"] == [
        "no image to build in is known by digest: say --base IMAGE@sha256:…",
        engine,
    ]
    named = build("--dry-run", "--base", str(shop.base))
    assert (named["open"], named["plan"]["base"]["digest"]) == ([engine], shop.digest)
    assert main(["build", "llm", "--arch", "sm121", "--dry-run", "--root", str(shop.root)]) == 0
    text = capsys.readouterr().out
    assert "checkout with LFS and submodules" in text
    assert "told     CUDA_ARCHS=120-real, with CUDA >=12.9" in text
    assert "from source, because the series changes cpp/tensorrt_llm/kernels/kernel.cu" in text
    assert named["plan"]["engine"]["dockerfile"] == file_digest(shop, "llm.Dockerfile")
    assert set(named["plan"]["engine"]["tools"]) == {"tools/install.py", "tools/source.py"}
    told = build("--dry-run", "--base", str(shop.base), "--build-arg", "JOBS=2")
    assert told["plan"]["engine"]["build-args"] == {"CUDA_ARCHS": "120-real"}
    assert told["plan"]["engine"]["args"] == {"JOBS": "2"}
    assert told["key"] != named["key"]
    error = build("--engine", "overlay", status=2)["error"]
    assert "an overlay cannot change what must be compiled" in error["message"]


def file_digest(shop: Shop, name: str) -> str:
    return hashlib.sha256((shop.root / "dockerfiles" / name).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--build-arg", "COMMIT=main"), "is given by the build itself"),
        (("--build-arg", "NO_SUCH=1"), "is no ARG of llm.Dockerfile"),
        (("--build-arg", "CUDA_ARCHS=121f"), "121f"),
        (("--build-arg", "JOBS"), "has no value"),
    ],
)
def test_arguments_that_are_wrong_for_a_build_from_source(
    shop: Shop, build: Callable[..., Any], words: tuple[str, ...], said: str
) -> None:
    shop.patch("cpp/tensorrt_llm/kernels/kernel.cu", KERNEL, KERNEL + b"// more\n")
    assert said in build("--dry-run", *words, status=2)["error"]["message"]
    (shop.root / "dockerfiles" / "llm.Dockerfile").write_text("FROM scratch\n")
    assert "takes no COMMIT" in build("--dry-run", status=2)["error"]["message"]
    (shop.root / "dockerfiles" / "llm.Dockerfile").unlink()
    assert "cannot read" in build("--dry-run", status=2)["error"]["message"]


def test_an_overlay_takes_no_options_of_other_engines(
    shop: Shop, build: Callable[..., Any]
) -> None:
    error = build("--base", str(shop.base), "--build-arg", "A=1", status=2)["error"]
    assert "--build-arg is for the engines buildx and buildah" in error["message"]


def test_faults_are_told_in_words(shop: Shop, build: Callable[..., Any]) -> None:
    assert "say --base IMAGE" in build(status=2)["error"]["message"]
    assert "unknown engine 'docker'" in build("--engine", "docker", status=2)["error"]["message"]
    shop.patch("tests/test_loader.py", b"assert True\n", b"assert 1\n")
    error = build("--base", str(shop.base), status=2)["error"]
    assert "nothing that the series changes is in the installed package" in error["message"]


def test_a_series_that_does_not_apply_leaves_nothing(
    shop: Shop, build: Callable[..., Any], tmp_path: Path
) -> None:
    (mail,) = (shop.root / "patches" / "llm" / "v1.3.0rc20").glob("*.patch")
    mail.write_text(mail.read_text().replace("     kind = asked", "     kind = wanted"))
    error = build("--base", str(shop.base), status=1)["error"]
    assert LOADER in json.dumps(error)
    assert not list((tmp_path / "dist").rglob("image"))


def test_a_file_that_the_series_adds_and_one_that_it_removes(
    shop: Shop, build: Callable[..., Any]
) -> None:
    folder = shop.repository / "tensorrt_llm"
    (folder / "guard.py").write_text("OPEN = (120, 121)\n")
    (folder / "__init__.py").unlink()
    shop.patch(LOADER, BEFORE, AFTER)
    made = build("--base", str(shop.base))
    after = merged(shop.root.parent / made["image"]["path"], made["image"]["digest"])
    assert after[f"{SITE}/tensorrt_llm/guard.py"][1] == b"OPEN = (120, 121)\n"
    assert f"{SITE}/tensorrt_llm/__init__.py" not in after


def test_without_a_base_the_layer_alone_is_made(shop: Shop, build: Callable[..., Any]) -> None:
    made = build("--base", "scratch")
    held = merged(shop.root.parent / made["image"]["path"], made["image"]["digest"])
    assert {p for p in held if held[p][0] == "file"} == {f"{SITE}/{LOADER}"}
    assert any("made on nothing" in note for note in made["notes"])


def test_the_image_verifies_and_another_does_not(
    shop: Shop, build: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    made = build("--base", str(shop.base))
    folder = shop.root.parent / made["image"]["path"]

    def verify(image: Path, status: int) -> Any:
        argv = ["verify", str(image), "--stack", "llm", "--arch", "sm121", "--root", str(shop.root)]
        assert main([*argv, "--json"]) == status
        return json.loads(capsys.readouterr().out)

    good = verify(folder, 0)
    assert [file["path"] for file in good["files"]] == [LOADER]
    lock = json.loads((folder.parent / "lock.json").read_text())
    assert good["series"] == f"sha256:{lock['inputs']['series']['sha256']}"
    bad = verify(shop.base, 1)
    assert LOADER in bad["error"]["message"]


# --- from source, with a real engine --------------------------------------------------------------

BUILD_SCRIPT = """\
import argparse, os, pathlib, zipfile
told = argparse.ArgumentParser()
for name in ("cuda_architectures", "job_count", "version-override", "dist_dir"):
    told.add_argument("--" + name)
for name in ("clean", "use_ccache", "yes", "skip-stubs"):
    told.add_argument("--" + name, action="store_true")
options = told.parse_args()
version = options.version_override
kernel = pathlib.Path("cpp/tensorrt_llm/kernels/kernel.cu").read_text()
third = pathlib.Path("3rdparty/cutlass/cutlass.h").read_text()
folder = pathlib.Path(options.dist_dir)
folder.mkdir(parents=True, exist_ok=True)
info = f"tensorrt_llm-{version}.dist-info"
files = {
    "tensorrt_llm/__init__.py": pathlib.Path("tensorrt_llm/__init__.py").read_text(),
    "tensorrt_llm/kernel.bin": f"{options.cuda_architectures} {kernel}{third}",
    f"{info}/METADATA": f"Metadata-Version: 2.1\\nName: tensorrt-llm\\nVersion: {version}\\n",
    f"{info}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
}
files[f"{info}/RECORD"] = "".join(f"{name},,\\n" for name in [*files, f"{info}/RECORD"])
with zipfile.ZipFile(folder / f"tensorrt_llm-{version}-py3-none-any.whl", "w") as out:
    for name, content in files.items():
        out.writestr(zipfile.ZipInfo(name), content)
"""


@pytest.fixture(name="devel", scope="module")
def _devel(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A development image in the registry: the base with git, from Debian's mirror."""
    found = engine()
    folder = tmp_path_factory.mktemp("devel")
    (folder / "Dockerfile").write_text(
        f"FROM {found.base}\n"
        "RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends git >/dev/null\n"
    )
    name = f"{found.registry}/tree-devel:1"
    output = f"type=image,name={name},push=true,oci-mediatypes=true"
    build = ("docker", "buildx", "build", "-q", "--network=host", "--provenance=false")
    found.run(*build, "--output", output, folder, timeout=400)
    look = ("skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}")
    digest = found.run(*look, f"docker://{name}").strip()
    return f"{name.rpartition(':')[0]}@{digest}"


@pytest.fixture(name="served")
def _served(shop: Shop, tmp_path: Path) -> Iterator[Shop]:
    """The repository and its submodule over git's own protocol, as steps of a build reach them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"git://127.0.0.1:{port}"
    script = shop.repository / "scripts" / "build_wheel.py"
    script.parent.mkdir()
    script.write_text(BUILD_SCRIPT)
    modules = shop.repository / ".gitmodules"
    modules.write_text(modules.read_text().replace(str(tmp_path / "cutlass"), f"{address}/cutlass"))
    git("rm", "-q", "--cached", "cpp/tensorrt_llm/kernels/fmha.cubin.cpp", cwd=shop.repository)
    git("add", ".gitmodules", "scripts", cwd=shop.repository)
    git("commit", "-q", "--amend", "-m", "release", cwd=shop.repository)
    git("tag", "-f", "v1.3.0rc20", cwd=shop.repository)
    shop.commit = git("rev-parse", "HEAD", cwd=shop.repository).strip()
    for folder in (shop.repository, tmp_path / "cutlass"):
        git("config", "uploadpack.allowAnySHA1InWant", "true", cwd=folder)
    shop.patch("cpp/tensorrt_llm/kernels/kernel.cu", KERNEL, KERNEL + b"// patched\n")
    text = RECIPE.format(git=f"{address}/TensorRT-LLM", commit=shop.commit, bases="")
    (shop.root / "recipes" / "llm.yaml").write_text(text.replace("lfs: true", "lfs: false"))
    daemon = subprocess.Popen(
        [
            *("git", "daemon", "--export-all", "--reuseaddr", f"--base-path={tmp_path}"),
            *("--listen=127.0.0.1", f"--port={port}", str(tmp_path)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield shop
    finally:
        daemon.terminate()
        daemon.wait(10)


def test_a_series_that_touches_cuda_is_compiled_by_a_real_engine(
    served: Shop,
    devel: str,
    build: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    found = engine()
    found.use(monkeypatch)
    how = ("--arch", "sm120", "--base", found.base, "--network", "host")
    made = build(*how, "--build-arg", f"DEVEL={devel}")
    assert (made["engine"], made["reused"]) == ("buildx", False)
    site = "usr/local/lib/python3.11/dist-packages"
    held = own_files(tmp_path / made["image"]["path"])
    kernel = held[f"{site}/tensorrt_llm/kernel.bin"].decode()
    # The patched source, the submodule's header at its pinned commit, the flags of the recipe.
    assert kernel == f"120-real {KERNEL.decode()}// patched\n#pragma once\n"
    assert [name for name in held if name.endswith("/METADATA") and "sp." in name]
    lock = json.loads((tmp_path / made["lock"]).read_text())
    assert lock["inputs"]["engine"]["build-args"]["CUDA_ARCHS"] == "120-real"
    assert lock["inputs"]["engine"]["dockerfile"] == file_digest(served, "llm.Dockerfile")
    assert build(*how, "--build-arg", f"DEVEL={devel}")["reused"] is True
