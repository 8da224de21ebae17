"""A repository like TensorRT-LLM's, the image of its release, and a server that gives both out.

The repository has a submodule, a file of Git LFS, and Python and CUDA sources in its layout. The
image holds the package as pip leaves it. Nothing is stood in for but the size.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import json
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import git
from tests.engine import engine
from tests.images import LayoutMaker, tar_layer
from tests.wheels import record_hash

from stackpatch.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CHECKOUT = Path(__file__).parents[1]
SITE = "usr/local/lib/python3.12/dist-packages"
LOADER = "tensorrt_llm/_torch/pyexecutor/model_loader.py"
BEFORE = b"def kv_cache(asked, capability):\n    kind = asked\n    return kind\n"
AFTER = BEFORE.replace(
    b"    return", b"    if capability == 120:\n        kind = 'fp8'\n    return"
)
KERNEL = b"__global__ void kernel() {}\n"
CUBIN = b"\x7fELF of a kernel\n" * 700
LFS_PATH = "cpp/tensorrt_llm/kernels/fmha.cubin.cpp"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
    hashlib.sha256(CUBIN).hexdigest().encode(),
    len(CUBIN),
)
ISSUE = "https://github.com/NVIDIA/TensorRT-LLM/issues/10241"
TRAILERS = f"Upstream-Status: Pending\nBug: {ISSUE}"
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

    git: str = ""

    def recipe(self, bases: str = "", more: str = "", **replaced: str) -> None:
        """The recipe. bases: of the release. more: keys of the stack. replaced: text by text."""
        text = RECIPE.format(git=self.git or self.repository, commit=self.commit, bases=bases)
        for old, new in replaced.items():
            assert f"{old}: " in text
            text = re.sub(rf"\b{old}: [^,}}\n]+", f"{old}: {new}", text)
        (self.root / "recipes" / "llm.yaml").write_text(text + more)

    def commit_again(self) -> None:
        """Make what lies in the repository the release."""
        git("add", "-A", cwd=self.repository)
        git("commit", "-q", "--amend", "-m", "release", cwd=self.repository)
        git("tag", "-f", "v1.3.0rc20", cwd=self.repository)
        self.commit = git("rev-parse", "HEAD", cwd=self.repository).strip()

    def patch(self, path: str, before: bytes, after: bytes) -> None:
        """The series: one mail, made by git on the release."""
        (self.repository / path).write_bytes(after)
        git("add", "-A", cwd=self.repository)
        git(
            *("commit", "-q", "-m", f"change {path}\n\nBecause.\n\n{TRAILERS}"),
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


def image(
    folder: Path,
    files: Mapping[str, bytes],
    version: str = "1.3.0rc20",
    *,
    beside: Mapping[str, bytes] | None = None,
) -> tuple[Path, str]:
    """A layout with the package as pip leaves it, and the digest of its one image.

    beside: other files of the site folder.
    """
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
    held |= beside or {}
    layer = tar_layer({f"{SITE}/{path}": content for path, content in held.items()})
    descriptor = maker.image([layer], architecture="arm64")
    return maker.write(descriptor), str(descriptor["digest"])


def push(layout: Path, name: str) -> None:
    """Put the layout's one image into a registry, byte for byte."""
    words = ["skopeo", "copy", "--preserve-digests", "--dest-tls-verify=false"]
    subprocess.run([*words, f"oci:{layout}", f"docker://{name}"], check=True, capture_output=True)


@pytest.fixture(name="shop")
def shop_fixture(tmp_path: Path) -> Shop:
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
        LFS_PATH: POINTER,
        ".gitattributes": b"*.cubin.cpp filter=lfs diff=lfs merge=lfs -text\n",
        "tests/test_loader.py": b"assert True\n",
    }
    for path, content in files.items():
        target = repository / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    # Without git-lfs here, the pointers are committed as they are.
    git("config", "filter.lfs.clean", "cat", cwd=repository)
    git("add", "-A", cwd=repository)
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
def build_fixture(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    def build(*words: str, status: int = 0) -> Any:
        argv = ["build", "llm", "--arch", "sm121", "--root", str(shop.root)]
        found = main([*argv, "--out", str(tmp_path / "dist"), "--json", *words])
        out, err = capsys.readouterr()
        assert found == status, err
        return json.loads(out)

    return build


# --- the repository, served ---------------------------------------------------------------------

# Takes the options of TensorRT-LLM's scripts/build_wheel.py, and makes a wheel that shows what the
# sources were that it was run on.
BUILD_SCRIPT = """\
import argparse, hashlib, os, pathlib, zipfile
told = argparse.ArgumentParser()
for name in ("cuda_architectures", "job_count", "version-override", "dist_dir"):
    told.add_argument("--" + name)
for name in ("clean", "use_ccache", "yes", "skip-stubs"):
    told.add_argument("--" + name, action="store_true")
options = told.parse_args()
version = options.version_override
kernel = pathlib.Path("cpp/tensorrt_llm/kernels/kernel.cu").read_text()
header = pathlib.Path("3rdparty/cutlass/cutlass.h")
third = header.read_text() if header.exists() else "no submodule"
large = pathlib.Path("cpp/tensorrt_llm/kernels/fmha.cubin.cpp").read_bytes()
print(pathlib.Path("/run/secrets/git").read_text(), flush=True)
folder = pathlib.Path(options.dist_dir)
folder.mkdir(parents=True, exist_ok=True)
info = f"tensorrt_llm-{version}.dist-info"
files = {
    "tensorrt_llm/__init__.py": pathlib.Path("tensorrt_llm/__init__.py").read_text(),
    "tensorrt_llm/kernel.bin": f"{options.cuda_architectures} {kernel}{third}",
    "tensorrt_llm/fmha.sha256": hashlib.sha256(large).hexdigest(),
    "tensorrt_llm/tool.mode": oct(os.stat("scripts/tool.sh").st_mode & 0o777),
    f"{info}/METADATA": f"Metadata-Version: 2.1\\nName: tensorrt-llm\\nVersion: {version}\\n",
    f"{info}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
}
loader = "tensorrt_llm/_torch/pyexecutor/model_loader.py"
files[loader] = pathlib.Path(loader).read_text()
files[f"{info}/RECORD"] = "".join(f"{name},,\\n" for name in [*files, f"{info}/RECORD"])
with zipfile.ZipFile(folder / f"tensorrt_llm-{version}-py3-none-any.whl", "w") as out:
    for name, content in files.items():
        out.writestr(zipfile.ZipInfo(name), content)
"""
UPSTREAM = "https://git.upstream.test"
LOGIN = "hunter2-of-the-mirror"


@contextlib.contextmanager
def mirror(folder: Path) -> Iterator[str]:
    """The repositories below the folder over git's own protocol; the address before their names."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    daemon = subprocess.Popen(
        [
            *("git", "daemon", "--export-all", "--reuseaddr", f"--base-path={folder}"),
            *("--listen=127.0.0.1", f"--port={port}", str(folder)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield f"git://127.0.0.1:{port}"
    finally:
        daemon.terminate()
        daemon.wait(10)


class _LargeFiles(http.server.BaseHTTPRequestHandler):
    """Git LFS's batch API and its `basic` transfer (git-lfs docs/api/batch.md), to read from."""

    def do_POST(self) -> None:
        """What is asked for, and where it is."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        host = self.headers["Host"]
        found = [
            {**one, "actions": {"download": {"href": f"http://{host}/{one['oid']}"}}}
            for one in asked["objects"]
        ]
        self._say(json.dumps({"transfer": "basic", "objects": found}).encode())

    def do_GET(self) -> None:
        """The file."""
        if self.path != f"/{hashlib.sha256(CUBIN).hexdigest()}":
            self.send_error(404)
            return
        self._say(CUBIN)

    def _say(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.git-lfs+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""


@contextlib.contextmanager
def large_files() -> Iterator[str]:
    """A server with the file that the repository's pointer names."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _LargeFiles)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def mirrored(folder: Path, monkeypatch: pytest.MonkeyPatch, upstream: str) -> Iterator[str]:
    """The repositories below the folder at an address that only the person's git settings know.

    upstream: the address that leads nowhere by itself. The server of large files is given.
    """
    with mirror(folder) as address, large_files() as store:
        home = folder / "home"
        home.mkdir()
        settings = f'[url "{address}/"]\n\tinsteadOf = {upstream}/\n'
        # Of another server, whose login is nobody's business either.
        settings += f'[url "https://me:{LOGIN}@other.test/"]\n\tinsteadOf = https://o.test/\n'
        (home / ".gitconfig").write_text(settings)
        monkeypatch.setenv("HOME", str(home))
        yield store


def served_files(shop: Shop, folder: Path, upstream: str, store: str) -> None:
    """Make the shop's repository one that can be built from, by way of the mirror alone."""
    for repository in (shop.repository, folder / "cutlass"):
        git("config", "uploadpack.allowAnySHA1InWant", "true", cwd=repository)
    script = shop.repository / "scripts" / "build_wheel.py"
    script.parent.mkdir()
    script.write_text(BUILD_SCRIPT)
    (script.parent / "tool.sh").write_text("#!/bin/sh\n")
    (script.parent / "tool.sh").chmod(0o755)
    modules = shop.repository / ".gitmodules"
    modules.write_text(modules.read_text().replace(str(folder), upstream))
    (shop.repository / ".lfsconfig").write_text(f"[lfs]\n\turl = {store}\n")
    shop.commit_again()


@functools.cache
def devel_image() -> str:
    """A development image in the engine's registry: the base with git and git-lfs, by digest."""
    found = engine()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Dockerfile").write_text(
            f"FROM {found.base}\n"
            "RUN apt-get update -qq && "
            "apt-get install -qq -y --no-install-recommends git git-lfs >/dev/null\n"
        )
        name = f"{found.registry}/tree-devel:2"
        output = f"type=image,name={name},push=true,oci-mediatypes=true"
        build = ("docker", "buildx", "build", "-q", "--network=host", "--provenance=false")
        found.run(*build, "--output", output, folder, timeout=400)
    look = ("skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}")
    digest = found.run(*look, f"docker://{name}").strip()
    return f"{name.rpartition(':')[0]}@{digest}"


@pytest.fixture(name="served")
def served_fixture(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """The shop with a series that changes CUDA, its repository on a mirror."""
    with mirrored(tmp_path, monkeypatch, UPSTREAM) as store:
        served_files(shop, tmp_path, UPSTREAM, store)
        shop.git = f"{UPSTREAM}/TensorRT-LLM"
        shop.recipe()
        tool = shop.repository / "scripts" / "tool.sh"
        tool.write_text("#!/bin/sh\nexit 0\n")
        shop.patch("cpp/tensorrt_llm/kernels/kernel.cu", KERNEL, KERNEL + b"// patched\n")
        yield shop
