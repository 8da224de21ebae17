"""The Dockerfiles with real engines: the real patched wheels, and a project that is compiled."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.engine import Engine, engine
from tests.engine_builds import AMD64, own_files

from stackpatch.artefacts.engines import EngineBase, EngineRequest, build_image
from stackpatch.artefacts.layout import Layout
from stackpatch.errors import FindingError

CHECKOUT = Path(__file__).parents[2]
SITE = "usr/local/lib/python3.11/dist-packages"


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = engine()
    found.use(monkeypatch)
    return found


def stackpatch(real: Engine, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stackpatch", *map(str, words), "--root", str(CHECKOUT)],
        env=real.env,
        capture_output=True,
        text=True,
        timeout=500,
    )


def build(real: Engine, stack: str, *words: str | Path) -> dict[str, Any]:
    done = stackpatch(real, "build", stack, "--arch", "sm120", "--json", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.pypi
@pytest.mark.parametrize(
    ("stack", "name"),
    [("flashinfer", "buildx"), ("flashinfer", "buildah"), ("sglang", "buildx")],
)
def test_the_real_wheel_goes_into_an_image(
    real: Engine, tmp_path: Path, stack: str, name: Literal["buildx", "buildah"]
) -> None:
    how = ("--engine", name, "--base", real.base, "--out")
    one = build(real, stack, *how, tmp_path / "one")
    assert one["engine"] == name
    assert one["reused"] is False
    assert build(real, stack, *how, tmp_path / "one")["reused"] is True
    two = build(real, stack, *how, tmp_path / "two")
    assert two["image"]["digest"] == one["image"]["digest"]
    lock = json.loads(Path(one["lock"]).read_bytes())["inputs"]["engine"]
    assert lock["dockerfile"] == sha256(CHECKOUT / "dockerfiles" / f"{stack}.Dockerfile")
    assert lock["tool"] == sha256(CHECKOUT / "dockerfiles" / "tools" / "install.py")
    # What Python finds in the image is the patched version, and the user is not root.
    there = f"{real.registry}/dockerfiles-{stack}:{os.getpid()}-{name}"
    push(real, one, there)
    package = {"flashinfer": "flashinfer-python"}.get(stack, stack)
    code = f"import importlib.metadata as m; print(m.version('{package}'))"
    said = real.run("docker", "run", "--rm", "--network=none", there, "python3", "-c", code)
    assert said.strip() == one["wheel"]["version"]
    assert real.run("docker", "run", "--rm", "--network=none", there, "id", "-u").strip() == "10001"
    env = real.run("docker", "run", "--rm", "--network=none", there, "env")
    assert "FLASHINFER_CUDA_ARCH_LIST=12.0a" in env.splitlines()
    if (stack, name) == ("flashinfer", "buildx"):  # the OCI format that buildah writes has none
        check = ("docker", "inspect", "--format", "{{json .Config.Healthcheck.Test}}", there)
        kind, words = json.loads(real.run(*check))
        assert kind == "CMD-SHELL"
        real.run("docker", "run", "--rm", "--network=none", there, "sh", "-c", words)
    real.run("docker", "rmi", "-f", there)


@pytest.mark.pypi
def test_caches_of_the_base_are_gone_wherever_its_settings_put_them(
    real: Engine, tmp_path: Path
) -> None:
    """What was compiled from the released sources would be read again."""
    site = "/usr/local/lib/python3.11/dist-packages"
    stale = (
        *("/root/.cache/flashinfer/a", "/opt/warm/triton/b", "/opt/ws/.cache/flashinfer/c"),
        f"{site}/flashinfer/data/aot/norm/norm.so",  # as FlashInfer's own AOT build leaves it
    )
    kept = ("/opt/ws/mine", "/opt/warm/mine")
    made = " ".join(f"{Path(path).parent}" for path in (*stale, *kept))
    (tmp_path / "Dockerfile").write_text(
        f"FROM {real.base}\nENV TRITON_CACHE_DIR=/opt/warm/triton FLASHINFER_WORKSPACE_BASE=/opt/ws"
        f" VLLM_CACHE_ROOT=/opt\nRUN mkdir -p {made} && touch {' '.join((*stale, *kept))}\n"
    )
    base = f"{real.registry}/warm-base:{os.getpid()}"
    words = ("docker", "buildx", "build", "-q", "--provenance=false", "--network=none")
    real.run(*words, "--push", "-t", base, tmp_path)
    how = ("--engine", "buildx", "--base", base, "--out", tmp_path / "out")
    one = build(real, "flashinfer", *how)
    there = f"{real.registry}/dockerfiles-warm:{os.getpid()}"
    publish = ("publish", "flashinfer", "--arch", "sm120", "--out", tmp_path / "out")
    done = stackpatch(real, *publish, "--to", there)
    assert done.returncode == 0, done.stderr
    assert one["image"]["digest"] in done.stderr
    look = "for one in " + " ".join((*stale, *kept)) + "; do test -e $one && echo $one; done; true"
    said = real.run(
        "docker", "run", "--rm", "--network=none", done.stdout.strip(), "sh", "-c", look
    )
    assert said.split() == list(kept)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def push(real: Engine, built: dict[str, Any], there: str) -> None:
    """Onto the base's repository's registry: the base's layers are mounted by our own client."""
    folder = Path(built["image"]["path"])
    base = Layout.open(real.base_layout)
    image = Layout.open(folder).image(AMD64)
    for layer in image.layers:
        if not Layout.open(folder).has(layer):
            base.copy_blob(layer, folder / "blobs" / "sha256" / layer.digest.hex)
    source = f"oci:{folder}"
    real.run("skopeo", "copy", "--dest-tls-verify=false", source, f"docker://{there}")


@pytest.mark.pypi
def test_a_lock_brings_the_same_image_back(real: Engine, tmp_path: Path) -> None:
    how = ("--engine", "buildx", "--base", real.base, "--build-arg", "PYTHON=/usr/bin/python3")
    one = build(real, "flashinfer", *how, "--out", tmp_path / "one")
    words = ("build", "--from-lock", one["lock"], "--json", "--out", tmp_path / "two")
    done = stackpatch(real, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads(done.stdout)
    assert two["image"]["digest"] == one["image"]["digest"]
    assert two["differences"] == []


@pytest.mark.pypi
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--builder", "x"), 2, "--builder is for the engines buildx and buildah"),
        (("--engine", "buildx"), 2, "need a base image"),
        (("--engine", "buildah", "--base", "BASE", "--builder", "x"), 2, "buildah has no builders"),
        (("--engine", "buildx", "--base", "BASE", "--builder", "no-such"), 3, "no-such"),
        (("--engine", "buildx", "--base", "BASE", "--build-arg", "X"), 2, "has no value"),
        (("--engine", "buildx", "--base", "BASE", "--build-arg", "X=1"), 2, "is no ARG"),
        (("--engine", "buildx", "--base", "BASE", "--ca-file", "/none"), 2, "no file /none"),
        (("--engine", "kaniko"), 2, "unknown engine"),
    ],
)
def test_wrong_use_ends_with_one_message(
    real: Engine, tmp_path: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    given = [real.base if word == "BASE" else word for word in words]
    done = stackpatch(real, "build", "flashinfer", "--arch", "sm120", *given, "--out", tmp_path)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("image"))


# --- a Dockerfile that compiles, on a project that stands in for TensorRT-LLM ------------------

BUILD_SCRIPT = """
import argparse, os, pathlib, sys, zipfile
told = argparse.ArgumentParser()
for name in ("--clean", "--use_ccache", "--yes", "--skip-stubs"):
    told.add_argument(name, action="store_true")
for name in ("--cuda_architectures", "--job_count", "--version-override", "--dist_dir"):
    told.add_argument(name, required=True)
options = told.parse_args()
assert int(options.job_count) > 0
here = pathlib.Path(__file__).resolve().parents[1]
kernel = (here / "cpp" / "kernel.cu").read_text()
third = (here / "3rdparty" / "lib" / "lib.h").read_text()
pathlib.Path(options.dist_dir).mkdir(parents=True)
version = options.version_override
wheel = pathlib.Path(options.dist_dir) / f"tensorrt_llm-{version}-py3-none-any.whl"
info = f"tensorrt_llm-{version}.dist-info"
files = {
    "tensorrt_llm/__init__.py": f"ARCHS = {options.cuda_architectures!r}\\n",
    "tensorrt_llm/kernel.bin": kernel + third + os.environ["SOURCE_DATE_EPOCH"],
    f"{info}/METADATA": f"Metadata-Version: 2.1\\nName: tensorrt-llm\\nVersion: {version}\\n",
    f"{info}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
}
files[f"{info}/RECORD"] = "".join(f"{name},,\\n" for name in [*files, f"{info}/RECORD"])
with zipfile.ZipFile(wheel, "w") as out:
    for name, content in files.items():
        out.writestr(zipfile.ZipInfo(name), content)
"""


def git(folder: Path, *words: str) -> str:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_ALLOW_PROTOCOL": "file:http"}
    names = ("-c", "user.name=a", "-c", "user.email=a@b.test", "-c", "protocol.file.allow=always")
    done = subprocess.run(
        ["git", *names, "-C", folder, *words], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def devel(tmp_path_factory: pytest.TempPathFactory) -> EngineBase:
    """A development image: the base with git in it, as the real ones have, from Debian's mirror.

    Its git takes submodules from a folder, where real ones come over the network.
    """
    found = engine()
    folder = tmp_path_factory.mktemp("devel")
    (folder / "Dockerfile").write_text(
        f"FROM {found.base}\n"
        "RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends git >/dev/null "
        "&& git config --system protocol.file.allow always\n"
    )
    there = f"{found.registry}/devel"
    output = f"type=image,name={there}:1,push=true,oci-mediatypes=true"
    build = ("docker", "buildx", "build", "-q", "--network=host", "--provenance=false")
    found.run(*build, "--output", output, folder, timeout=400)
    found.run(
        "skopeo", "copy", "--src-tls-verify=false", f"docker://{there}:1", f"oci:{folder}/oci"
    )
    return EngineBase(Layout.open(folder / "oci").image(AMD64), there)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A repository with a submodule; its commit is the one that a recipe would pin."""
    root = tmp_path_factory.mktemp("upstream")
    lib, project = root / "lib", root / "project"
    for folder in (lib, project):
        folder.mkdir()
        git(folder, "init", "-q", "-b", "main")
    (lib / "lib.h").write_text("third party\n")
    git(lib, "add", ".")
    git(lib, "commit", "-q", "-m", "lib")
    git(project, "submodule", "add", "-q", "../lib", "3rdparty/lib")
    for name, text in {
        "scripts/build_wheel.py": BUILD_SCRIPT,
        "cpp/kernel.cu": "upstream kernel\n",
        "cpp/gone.cu": "to be removed\n",
    }.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "release")
    for folder in (lib, project):
        git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    return root, git(project, "rev-parse", "HEAD")


def compiled(
    real: Engine, folder: Path, devel: EngineBase, upstream: tuple[Path, str], **changes: str
) -> EngineRequest:
    root, commit = upstream
    patched = b"patched kernel\n"
    listed = f"{hashlib.sha256(patched).hexdigest()}  cpp/kernel.cu\n-  cpp/gone.cu\n"
    tools = CHECKOUT / "dockerfiles" / "tools"
    args = {
        "DEVEL": f"{devel.reference}@{devel.image.digest}",
        "GIT": "/mnt/upstream/project",
        "COMMIT": commit,
        "VERSION": "1.3.0rc20+sp.12345678",
        "CUDA_ARCHS": "120-real",
        "LFS": "",
        **changes,
    }
    return EngineRequest(
        engine="buildx",
        stack="trtllm",
        dockerfile=CHECKOUT / "dockerfiles" / "trtllm.Dockerfile",
        files={
            "tools/source.py": tools / "source.py",
            "tools/install.py": tools / "install.py",
            "source/patched.sha256": listed.encode(),
            "source/files/cpp/kernel.cu": patched,
            "upstream": root,
        },
        base=devel,
        platform="linux/amd64",
        epoch=1_770_000_000,
        log=folder / "log.txt",
        args=args,
        cold=True,
    )


def test_patched_sources_are_compiled_and_installed(
    real: Engine, tmp_path: Path, devel: EngineBase, upstream: tuple[Path, str]
) -> None:
    digests = []
    for number in range(2):
        one = compiled(real, tmp_path / str(number), devel, upstream)
        digests.append(build_image(one, tmp_path / str(number) / "image").digest)
    assert digests[0] == digests[1]
    files = own_files(tmp_path / "0" / "image")
    assert files[f"{SITE}/tensorrt_llm/__init__.py"] == b"ARCHS = '120-real'\n"
    # The patched kernel, the submodule's header, and the release's time.
    assert files[f"{SITE}/tensorrt_llm/kernel.bin"] == b"patched kernel\nthird party\n1770000000"
    assert not [path for path in files if path.startswith("src/")]  # no sources in the image


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"COMMIT": "1" * 40}, "git fetch ended with"),
        ({"COMMIT": "main"}, "want the commit's 40 digits"),
    ],
)
def test_another_commit_is_never_taken(
    real: Engine,
    tmp_path: Path,
    devel: EngineBase,
    upstream: tuple[Path, str],
    changes: dict[str, str],
    words: str,
) -> None:
    with pytest.raises(FindingError, match=words):
        build_image(compiled(real, tmp_path, devel, upstream, **changes), tmp_path / "o" / "image")
