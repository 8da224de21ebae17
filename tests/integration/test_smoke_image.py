"""Smoke checks and audits of images: in a docker daemon, in a registry, in a layout folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine import Engine, engine

from stackpatch.artefacts.engines.inspect import ContainerRun, Ran, find_image
from stackpatch.checks.audit import Policy, audit
from stackpatch.checks.place_image import InImage, in_image
from stackpatch.checks.places import Job, ask
from stackpatch.errors import EnvironmentProblem, InputError
from stackpatch.model.arch import parse_arch

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
GPU = ROOT / "tests" / "data" / "gpu"
SITE = "/usr/local/lib/python3.11/dist-packages"
INFO = "flashinfer_python-0.6.3+sp.1.dist-info"


@dataclass(frozen=True)
class Made:
    """An image with a flashinfer that holds one cubin for sm_120a and one for sm_90a."""

    engine: Engine
    name: str
    digest: str
    layout: Path
    layout_digest: str  # another: the copy has OCI's media types
    folder: Path

    @property
    def reference(self) -> str:
        return f"{self.engine.registry}/{self.name}@{self.digest}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    found = engine()
    folder = tmp_path_factory.mktemp("image")
    package = folder / "flashinfer"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = '0.6.3+sp.1'\n")
    (package / "own.cubin").write_bytes((GPU / "13.0-sm_120a.cubin").read_bytes())
    (package / "other.cubin").write_bytes((GPU / "12.8-sm_90a.cubin").read_bytes())
    (folder / INFO).mkdir()
    (folder / INFO / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: flashinfer-python\nVersion: 0.6.3+sp.1\n"
    )
    (folder / INFO / "RECORD").write_text(f"flashinfer/own.cubin,,\n{INFO}/RECORD,,\n")
    (folder / "Dockerfile").write_text(
        f"FROM {found.base}\nCOPY flashinfer {SITE}/flashinfer\nCOPY {INFO} {SITE}/{INFO}\n"
    )
    name = f"smoke-{uuid.uuid4().hex[:12]}"
    tag = f"{found.registry}/{name}:1"
    found.run("docker", "build", "--quiet", "--provenance=false", "-t", tag, folder)
    found.run("docker", "push", "--quiet", tag)
    layout = folder / "layout"
    tls = "--src-tls-verify=false"
    found.run("skopeo", "copy", "--quiet", tls, f"docker://{tag}", f"oci:{layout}")
    digest = found.run("crane", "digest", "--insecure", tag).strip()
    copied = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    yield Made(found, name, digest, layout, copied, folder)
    found.run("docker", "image", "rm", "--force", tag, check=False)


@pytest.fixture(autouse=True)
def _daemon(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.engine.use(monkeypatch)


def cli(*words: object, made: Made) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "stackpatch", *map(str, words), "--json"]
    argv += ["--root", str(ROOT)]
    env = {**os.environ, **made.engine.env}
    return subprocess.run(argv, capture_output=True, text=True, cwd=made.folder, env=env)


WANTED = {
    f"{SITE[1:]}/flashinfer/own.cubin": "native",
    f"{SITE[1:]}/flashinfer/other.cubin": "missing",
}


def standings(told: dict[str, Any]) -> dict[str, str]:
    return {file["path"]: file["standing"] for file in told["files"]}


def test_an_image_reads_the_same_wherever_it_is(made: Made) -> None:
    seen = {}
    for kind, target in (
        ("image", made.layout),
        ("registry", made.reference),
        ("registry", f"docker://{made.reference}"),
        ("registry", f"{made.engine.registry}/{made.name}:1"),
        ("engine", f"docker-daemon:{made.engine.registry}/{made.name}:1"),
    ):
        done = cli("audit", target, "--arch", "sm120", made=made)
        assert done.returncode == 1, done.stderr  # one file is for another arch
        told = json.loads(done.stdout)
        assert told["kind"] == kind
        assert standings(told) == WANTED
        assert told["unread"] == []
        seen[str(target)] = told["files"]
    assert len({json.dumps(files) for files in seen.values()}) == 1


def test_an_image_of_another_platform_is_not_taken_for_it(made: Made) -> None:
    done = cli("audit", made.reference, "--arch", "sm121", made=made)
    assert done.returncode == 2
    assert "holds no image for linux/arm64" in json.loads(done.stdout)["error"]["message"]


@pytest.mark.parametrize(
    ("target", "status", "words"),
    [
        ("127.0.0.1:15000/no-such-thing:1", 2, "no-such-thing"),
        ("docker-daemon:no-such-image:1", 2, "the docker daemon has no image no-such-image:1"),
        ("127.0.0.1:1/x:1", 3, "127.0.0.1:1"),
        ("no/such/path", 2, "does not exist"),
        ("./x:1", 2, "does not exist"),
    ],
)
def test_an_image_that_is_not_there(made: Made, target: str, status: int, words: str) -> None:
    target = target.replace("127.0.0.1:15000", made.engine.registry)
    done = cli("audit", target, "--arch", "sm120", made=made)
    assert done.returncode == status, done.stdout
    assert words in json.loads(done.stdout)["error"]["message"]
    assert "Traceback" not in done.stderr


def test_offline_an_image_in_a_registry_is_not_read(made: Made) -> None:
    done = cli("audit", made.reference, "--arch", "sm120", "--offline", made=made)
    assert done.returncode == 2
    assert "--offline" in json.loads(done.stdout)["error"]["message"]


def test_reading_an_image_of_the_daemon_leaves_no_container(made: Made) -> None:
    target = f"docker-daemon:{made.engine.registry}/{made.name}:1"
    audit(target, parse_arch("sm120", where="test"), Policy())
    filters = ("--filter", "label=org.stackpatch=read", "--filter", f"ancestor={target[14:]}")
    assert made.engine.run("docker", "ps", "--all", "--quiet", *filters) == ""


def test_smoke_in_an_image_of_the_daemon(made: Made) -> None:
    image = f"{made.engine.registry}/{made.name}:1"
    wanted = ("import", "audit", "shadowing", "device")
    only = [word for name in wanted for word in ("--only", name)]
    done = cli("smoke", "flashinfer", "--arch", "sm120", "--image", image, *only, made=made)
    told = json.loads(done.stdout)
    checks = {check["name"]: check for check in told["checks"]}
    assert told["version"] == "0.6.3+sp.1"
    assert told["subject"]["kind"] == "image"
    assert told["subject"]["image"] == image
    assert told["subject"]["digest"] == made.digest
    assert "cannot hand a GPU" in told["subject"]["no_gpu"]
    assert checks["audit"]["status"] == "failed"
    assert "other.cubin" in checks["audit"]["why"]
    assert checks["shadowing"]["status"] == "passed"
    assert checks["shadowing"]["figures"]["loaded"] == f"{SITE}/flashinfer"
    assert checks["device"]["status"] == "not-run"
    assert checks["import"]["status"] == "failed"  # it has no compilation_context
    assert told["ran_on_device"] is False
    assert done.returncode == 1
    assert json.loads((made.folder / "smoke.json").read_text())["checks"] == told["checks"]


def test_smoke_in_a_layout_brings_it_and_takes_it_away(made: Made) -> None:
    with in_image(str(made.layout), "linux/amd64", "python3") as place:
        assert place.digest == made.layout_digest
        assert find_image(place.image) is not None
        assert ask(place, "installed.py", "flashinfer-python")[0] == "0.6.3+sp.1"
        named = place.image
    assert find_image(named) is None


def test_a_layout_without_its_base_is_told(made: Made, tmp_path: Path) -> None:
    sparse = tmp_path / "layout"
    shutil.copytree(made.layout, sparse)
    manifest = json.loads((sparse / "blobs/sha256" / made.layout_digest[7:]).read_text())
    (sparse / "blobs/sha256" / manifest["layers"][0]["digest"][7:]).unlink()
    with (
        pytest.raises(InputError, match="does not hold layer sha256:"),
        in_image(str(sparse), "linux/amd64", "python3"),
    ):
        pass


def test_an_image_in_a_registry_is_pulled(made: Made) -> None:
    made.engine.run("docker", "image", "rm", "--force", made.reference, check=False)
    with in_image(made.reference, "linux/amd64", "python3") as place:
        assert place.digest == made.digest
        program = b"import os; print(sorted(os.listdir('/stackpatch')))"
        done = place.run(Job({"a.py": program}, ("a.py",), 60))
        assert done.text().strip() == "['a.py']"


def test_programs_are_read_only_and_there_is_no_network(made: Made) -> None:
    program = (
        b"import os, socket\n"
        b"try:\n    open('/stackpatch/x', 'w')\nexcept OSError as error:\n    print(error.errno)\n"
        b"print(sorted(os.listdir('/sys/class/net')))\n"
    )
    with in_image(f"{made.engine.registry}/{made.name}:1", "linux/amd64", "python3") as place:
        done = place.run(Job({"a.py": program}, ("a.py",), 60))
    assert done.text().splitlines() == ["30", "['lo']"]  # EROFS


def test_a_container_that_hangs_is_killed_and_removed(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stackpatch.checks.place_image._GRACE", 1.0)
    with in_image(f"{made.engine.registry}/{made.name}:1", "linux/amd64", "python3") as place:
        place.no_gpu = "not asked for"
        marked = uuid.uuid4().hex.encode()
        program = b"import time; time.sleep(600) # " + marked
        with pytest.raises(EnvironmentProblem, match="was killed"):
            place.run(Job({"a.py": program}, ("a.py",), 2))
        filters = ("--filter", f"ancestor={place.image}")
        assert made.engine.run("docker", "ps", "--all", "--quiet", *filters) == ""


def test_a_python_that_the_image_does_not_have_is_one_sentence(made: Made) -> None:
    image = f"{made.engine.registry}/{made.name}:1"
    done = cli(
        *("smoke", "flashinfer", "--arch", "sm120", "--image", image, "--python", "python9"),
        made=made,
    )
    assert done.returncode == 3
    assert "python9" in json.loads(done.stdout)["error"]["message"]


def test_a_daemon_that_gives_gpus_is_asked_for_them() -> None:
    runs: list[ContainerRun] = []

    def runner(run: ContainerRun, *, timeout: float) -> Ran:
        runs.append(run)
        return Ran(0, "done\n", 0.1)

    place = InImage("id", "shown", "sha256:0", "python3", runner)
    assert place.run(Job({"a.py": b""}, ("a.py", "x"), 5)).text() == "done\n"
    assert runs[0].gpus is True
    assert runs[0].network == "none"
    assert tuple(runs[0].command) == ("python3", "-I", "/stackpatch/a.py", "x")
    assert "no_gpu" not in place.document()


def test_without_a_gpu_it_runs_without_one_and_another_error_is_not_hidden() -> None:
    runs: list[bool] = []

    def runner(run: ContainerRun, *, timeout: float) -> Ran:
        runs.append(run.gpus)
        if run.gpus:
            msg = "the daemon cannot hand a GPU to a container"
            raise EnvironmentProblem(msg)
        return Ran(0, "", 0.1)

    place = InImage("id", "shown", "sha256:0", "python3", runner)
    place.run(Job({"a.py": b""}, ("a.py",), 5))
    place.run(Job({"a.py": b""}, ("a.py",), 5))
    assert runs == [True, False, False]  # asked once
    assert place.document()["no_gpu"] == "the daemon cannot hand a GPU to a container"

    def broken(run: ContainerRun, *, timeout: float) -> Ran:
        msg = "the daemon cannot run id: no space left"
        raise EnvironmentProblem(msg)

    with pytest.raises(EnvironmentProblem, match="no space left"):
        InImage("id", "shown", "sha256:0", "python3", broken).run(Job({"a.py": b""}, ("a.py",), 5))
