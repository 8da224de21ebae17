"""Overlays on a base in a real registry, judged by docker, skopeo and crane."""

from __future__ import annotations

import gc
import json
import shutil
import tarfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine import Engine, engine
from tests.shop import Shop

from stackpatch.artefacts.layout import Layout
from stackpatch.artefacts.oci import Platform

if TYPE_CHECKING:
    from tests.projects import Ran

AMD = Platform.parse("linux/amd64")
SITE = "usr/local/lib/python3.11/dist-packages"
ASK = (
    "import demo, demo.gate, importlib.metadata as m, json, os; "
    "print(json.dumps([demo.__version__, demo.gate.MAJORS, m.version('demo'), "
    "len(list(m.distributions(name='demo'))), os.environ.get('DEMO_ARCH')]))"
)
DOCKERFILE = """\
FROM {base}
COPY {wheel} /tmp/
RUN python3 -m pip install --no-index --no-deps --break-system-packages /tmp/{wheel} \
 && python3 -c "import demo.gate" && rm /tmp/{wheel}
RUN mkdir /above && echo more > /above/file
"""


@pytest.fixture(scope="module")
def running() -> Engine:
    return engine()


@pytest.fixture
def shop(tmp_path: Path, running: Engine, monkeypatch: pytest.MonkeyPatch) -> Shop:
    running.use(monkeypatch)
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", "replaced by the shop, restored by pytest")
    return Shop(tmp_path)


@pytest.fixture(scope="module")
def base(running: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with the released package, in the registry; `HOST/NAME:TAG`."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "cache").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STACKPATCH_CACHE_DIR", str(folder / "cache"))
        wheel = Shop(folder / "shop").wheel
    shutil.copy(wheel, folder / wheel.name)
    text = DOCKERFILE.format(base=running.base, wheel=wheel.name)
    (folder / "Dockerfile").write_text(text)
    name = f"{running.registry}/overlay-tests/base:1"
    output = f"type=image,name={name},push=true,oci-mediatypes=true"
    running.run(
        "docker",
        "buildx",
        "build",
        "--network=none",
        "--provenance=false",
        "--output",
        output,
        folder,
    )
    return name


def build(shop: Shop, base: str, *words: str, out: str = "dist") -> Ran:
    place = str(shop.folder / out)
    return shop.run(
        *("build", "demo", "--arch", "sm120", "--base", base, "--out", place, "--json", *words)
    )


def image_of(ran: Ran) -> dict[str, Any]:
    assert ran.status == 0, ran.err
    found = ran.document["image"]
    assert isinstance(found, dict)
    return found


def pushed(running: Engine, shop: Shop, ran: Ran, name: str) -> str:
    """Publish the build below the registry; the reference by digest."""
    reference = f"{running.registry}/overlay-tests/{name}"
    done = shop.run(
        *("publish", "demo", "--arch", "sm120", "--to", f"{reference}:1", "--replace"),
        *("--out", str(Path(ran.document["lock"]).parents[3])),
    )
    assert done.status == 0, done.err
    return done.out.strip()


def test_a_container_imports_the_patched_package(running: Engine, shop: Shop, base: str) -> None:
    ran = build(shop, base)
    image = image_of(ran)
    reference = pushed(running, shop, ran, "made")
    index = json.loads(running.run("crane", "manifest", reference))
    assert next(one["digest"] for one in index["manifests"]) == image["digest"]
    running.run("docker", "pull", "-q", reference)
    said = running.run("docker", "run", "--rm", "--network=none", reference, "python3", "-c", ASK)
    version = ran.document["wheel"]["version"]
    assert json.loads(said) == [version, [10, 12], version, 1, None]
    leftover = ("sh", "-c", f"ls /{SITE}/demo/__pycache__ /{SITE}; cat /above/file")
    listed = running.run("docker", "run", "--rm", "--network=none", reference, *leftover)
    assert "gate.cpython-311.pyc" not in listed
    assert "demo-1.2.3.dist-info" not in listed.split()
    assert "more" in listed
    pip = ("python3", "-m", "pip", "uninstall", "-y", "--break-system-packages", "demo")
    gone = running.run("docker", "run", "--rm", "--network=none", reference, *pip)
    assert f"Successfully uninstalled demo-{version}" in gone


def test_only_what_must_be_read_is_read(running: Engine, shop: Shop, base: str) -> None:
    ran = build(shop, base)
    manifest = json.loads(running.run("crane", "manifest", base))
    layers = manifest["layers"]
    size = sum(layer["size"] for layer in layers[-2:])
    (note,) = [one for one in ran.document["notes"] if "layers were read" in one]
    assert f"2 of the base's {len(layers)} layers were read, from the top, {size:,} bytes" in note
    assert size < 100_000 < layers[0]["size"]
    held = Layout.open(Path(image_of(ran)["path"]))
    image = held.image(AMD)
    assert [held.has(layer) for layer in image.layers] == [False] * len(layers) + [True]
    digests = [layer["digest"] for layer in layers]
    assert ran.document["image"]["layers_elsewhere"] == digests


def test_a_recorded_base_is_found_without_its_layers(
    running: Engine, shop: Shop, base: str
) -> None:
    digest = running.run("crane", "digest", base).strip()
    shop.write(
        bases=f"""\
    bases:
      - image: registry.test/overlay-tests/base
        digest: {digest}
        platforms: [linux/amd64]
        kind: site-packages
        path: /{SITE}
        python: "3.11"
        evidence: this test made it
"""
    )
    ran = build(shop, base)
    assert not [note for note in ran.document["notes"] if "layers were read" in note]
    reference = pushed(running, shop, ran, "recorded")
    running.run("docker", "pull", "-q", reference)
    said = running.run("docker", "run", "--rm", "--network=none", reference, "python3", "-c", ASK)
    assert json.loads(said)[1] == [10, 12]
    verified = shop.run(
        *("verify", reference, "--stack", "demo", "--arch", "sm120", "--json"),
    )
    assert verified.status == 0, verified.err
    assert verified.document["layers"]["read"] == 1


def test_by_tag_by_digest_and_from_a_folder_the_layer_is_the_same(
    running: Engine, shop: Shop, base: str
) -> None:
    name, _, _ = base.rpartition(":")
    digest = running.run("crane", "digest", base).strip()
    folder = shop.folder / "base"
    running.run(
        "skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{base}", f"oci:{folder}"
    )
    layers = set()
    for number, text in enumerate((base, f"{name}@{digest}", str(folder))):
        ran = build(shop, text, out=f"dist{number}")
        held = Layout.open(Path(image_of(ran)["path"])).image(AMD)
        layers.add(held.layers[-1].digest)
        lock = json.loads(Path(ran.document["lock"]).read_bytes())
        assert lock["inputs"]["base"]["digest"] == digest
    assert len(layers) == 1
    # By digest and known, the second time without any network.
    offline = build(shop, f"{name}@{digest}", "--offline", out="dist1")
    assert offline.document["reused"] is True
    refused = build(shop, base, "--offline", out="dist4")
    assert refused.status == 2
    assert "a tag may name another image" in refused.document["error"]["message"]


def test_a_lock_finds_its_base_again(running: Engine, shop: Shop, base: str) -> None:
    ran = build(shop, base)
    again = shop.run(
        *("build", "--from-lock", ran.document["lock"], "--out", str(shop.folder / "b"), "--json")
    )
    assert again.status == 0, again.err
    assert again.document["differences"] == []
    assert again.document["image"]["digest"] == ran.document["image"]["digest"]
    assert again.document["reused"] is False


def test_crane_append_makes_the_same_layers(
    running: Engine, shop: Shop, base: str, tmp_path: Path
) -> None:
    """crane appends our tar to the base: the same layers; only config and annotations differ,
    which crane does not write as we do (no labels, no environment, no base's digest)."""
    ran = build(shop, base)
    held = Layout.open(Path(image_of(ran)["path"]))
    ours = held.image(AMD)
    blob = held.blob_path(ours.layers[-1].digest)
    shutil.copy(blob, tmp_path / "layer.tar.gz")
    name = f"{running.registry}/overlay-tests/crane:1"
    running.run("crane", "append", "-b", base, "-f", tmp_path / "layer.tar.gz", "-t", name)
    theirs = json.loads(running.run("crane", "manifest", name))
    assert [layer["digest"] for layer in theirs["layers"]] == [str(x.digest) for x in ours.layers]
    config = json.loads(running.run("crane", "config", name))
    assert config["rootfs"]["diff_ids"] == ours.config_json()["rootfs"]["diff_ids"]
    with tarfile.open(blob) as tar:
        assert f"{SITE}/demo/gate.py" in tar.getnames()


def test_skopeo_takes_the_published_image_for_what_it_is(
    running: Engine, shop: Shop, base: str
) -> None:
    ran = build(shop, base)
    reference = pushed(running, shop, ran, "skopeo")
    ask = ("skopeo", "inspect", "--tls-verify=false", f"docker://{reference}")
    said = json.loads(running.run(*ask))
    ours = Layout.open(Path(image_of(ran)["path"])).image(AMD)
    assert said["Layers"] == [str(layer.digest) for layer in ours.layers]
    assert said["Labels"]["stackpatch.version"] == ran.document["wheel"]["version"]
    assert said["Architecture"] == "amd64"


# -- what is refused ----------------------------------------------------------------------------


def test_what_is_no_base_is_told(running: Engine, shop: Shop, base: str) -> None:
    registry = running.registry
    cases = {
        f"{registry}/overlay-tests/none:1": (2, "there is no"),
        f"{registry}/overlay-tests/base:none": (2, "there is no"),
        f"{registry}/overlay-tests/base@sha256:{'0' * 64}": (2, "there is no"),
        f"{registry}/Overlay/base:1": (2, "no capitals"),
        "127.0.0.1:1/overlay-tests/base:1": (3, "127.0.0.1:1"),
        running.base: (2, "the base image has no demo"),
    }
    for text, (status, said) in cases.items():
        ran = build(shop, text, out="refused")
        assert (ran.status, said in ran.document["error"]["message"]) == (status, True), ran.err
    assert not list((shop.folder / "refused").rglob("lock.json"))


def test_another_platform_is_refused(running: Engine, shop: Shop, base: str) -> None:
    ran = shop.build("--base", base)
    assert ran.status == 2
    assert "holds no image for linux/arm64" in ran.document["error"]["message"]
    assert ran.document["error"]["hint"] == "it has linux/amd64"


# -- a base in the local daemon -------------------------------------------------------------------


def test_a_base_in_the_daemon(running: Engine, shop: Shop, base: str) -> None:
    """The same layer as on the base in the registry, which is known to have it, too; and the
    sparse layout is loaded into the daemon that has the rest."""
    running.run("docker", "pull", "-q", base)
    near = build(shop, base)
    ran = build(shop, f"docker-daemon:{base}", out="local")
    held = Layout.open(Path(image_of(ran)["path"]))
    image = held.image(AMD)
    assert image.layers == Layout.open(Path(image_of(near)["path"])).image(AMD).layers
    assert [held.has(layer) for layer in image.layers][-2:] == [False, True]
    lock = json.loads(Path(ran.document["lock"]).read_bytes())
    assert lock["inputs"]["base"]["name"] == base.rpartition(":")[0]

    tar = shop.folder / "load.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(held.path, arcname=".")
    running.run("docker", "load", "-i", tar)
    said = running.run(
        *("docker", "run", "--rm", "--network=none", str(image.digest)), "python3", "-c", ASK
    )
    assert json.loads(said)[1] == [10, 12]
    running.run("docker", "image", "rm", "-f", str(image.digest))


def test_an_image_that_is_only_in_the_daemon(running: Engine, shop: Shop, base: str) -> None:
    name = "overlay-tests-local:1"
    (shop.folder / "context").mkdir()
    (shop.folder / "context" / "Dockerfile").write_text(
        f"FROM {base}\nRUN echo {shop.folder} > /x\n"
    )
    running.run(
        "docker",
        "build",
        "-q",
        "--network=none",
        "--provenance=false",
        "-t",
        name,
        shop.folder / "context",
    )
    try:
        ran = build(shop, f"docker-daemon:{name}")
        lock = json.loads(Path(ran.document["lock"]).read_bytes())
        assert lock["inputs"]["base"]["name"] is None
        words = ("build", "--from-lock", ran.document["lock"], "--json", "--out")
        asked = shop.run(*words, str(shop.folder / "again"))
        assert asked.status == 2
        assert "--base docker-daemon:NAME" in asked.document["error"]["hint"]
        again = shop.run(*words, str(shop.folder / "again"), "--base", f"docker-daemon:{name}")
        assert (again.status, again.document["differences"]) == (0, [])
    finally:
        running.run("docker", "image", "rm", "-f", name)


def test_verify_reads_the_daemon_s_image(running: Engine, shop: Shop, base: str) -> None:
    running.run("docker", "pull", "-q", base)
    ask = ("verify", f"docker-daemon:{base}", "--stack", "demo", "--arch", "sm120", "--json")
    ran = shop.run(*ask)
    assert ran.status == 1
    assert {one["state"] for one in ran.document["files"]} == {"released"}
    assert ran.document["layers"]["read"] == 2


def test_what_the_daemon_does_not_have_and_no_daemon(
    running: Engine, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = build(shop, "docker-daemon:overlay-tests-none:1")
    assert ran.status == 2
    assert "the docker daemon has no image overlay-tests-none:1" in ran.document["error"]["message"]
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with warnings.catch_warnings():
        # The SDK leaves a socket open that it could not connect.
        warnings.simplefilter("ignore", ResourceWarning)
        ran = build(shop, "docker-daemon:overlay-tests-none:1")
        gc.collect()
    assert ran.status == 3
    assert "no docker daemon answers" in ran.document["error"]["message"]
