"""A build from git is told as one from a wheel is: lock, SBOM, provenance, labels, a registry."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packageurl import PackageURL
from tests.engine_builds import own_files
from tests.images import LayoutMaker, merged, tar_layer
from tests.papers import valid_sbom, valid_statement
from tests.registries import RunningRegistry, running_registry
from tests.shop import Shop as WheelShop
from tests.stack import make_stack
from tests.trees import (
    AFTER,
    BEFORE,
    ISSUE,
    LOADER,
    SITE,
    Shop,
    build_fixture,
    image,
    push,
    shop_fixture,
)
from tests.wheels import FILES, METADATA, record_hash

from stackpatch.artefacts.layout import Layout
from stackpatch.artefacts.oci import Platform
from stackpatch.cli.main import main
from stackpatch.cli.proven import record_proof

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

shop, build = shop_fixture, build_fixture
ARM64 = Platform("linux", "arm64")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("registry") / "r") as running:
        yield running


@pytest.fixture(name="there")
def _there(shop: Shop, registry: RunningRegistry, tmp_path: Path) -> str:
    """The release's image in a registry, by name and digest."""
    name = f"{registry.host}/t/{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    push(shop.base, f"{name}:released")
    return f"{name}@{shop.digest}"


def run(shop: Shop, capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> Any:
    found = main([*words, "--arch", "sm121", "--root", str(shop.root), "--json"])
    out, err = capsys.readouterr()
    assert found == status, err
    return json.loads(out)


def pedigree(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["metadata"]["component"]["pedigree"]
    return found


def test_the_sbom_has_each_patch_with_its_diff_and_what_it_resolves(
    shop: Shop, build: Callable[..., Any]
) -> None:
    made = build("--base", str(shop.base))
    document = valid_sbom(Path(made["sbom"]).read_bytes())
    component = document["metadata"]["component"]
    assert (component["name"], component["version"]) == ("tensorrt-llm", made["patched"])
    assert "hashes" not in component, "there is no wheel whose hash it could be"
    (patch,) = pedigree(document)["patches"]
    (mail,) = (shop.root / "patches" / "llm" / "v1.3.0rc20").glob("*.patch")
    assert patch["type"] == "unofficial"
    assert patch["diff"]["text"]["content"] == mail.read_text()
    assert [one["source"]["url"] for one in patch["resolves"]] == [ISSUE]
    digest = hashlib.sha256(mail.read_bytes()).hexdigest()
    assert component["properties"] == [
        {"name": f"stackpatch:patch:{mail.name}", "value": f"sha256:{digest}"}
    ]
    (ancestor,) = pedigree(document)["ancestors"]
    sources = PackageURL.from_string(ancestor["purl"]).qualifiers
    assert sources == {"vcs_url": f"git+file://{shop.repository}@{shop.commit}"}
    image, base = document["components"]
    assert f"sha256:{image['hashes'][0]['content']}" == made["image"]["digest"]
    assert base["version"] == shop.digest


def test_the_provenance_has_the_commit_the_patches_and_the_base(
    shop: Shop, build: Callable[..., Any]
) -> None:
    made = build("--base", str(shop.base))
    lock = json.loads(Path(made["lock"]).read_text())
    statement = valid_statement(Path(made["provenance"]).read_bytes())
    assert statement["subject"] == [
        {"name": "image", "digest": {"sha256": made["image"]["digest"].removeprefix("sha256:")}}
    ]
    found = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    digests = [next(iter(one["digest"].values())) for one in found]
    (patch,) = lock["inputs"]["series"]["patches"]
    assert digests == [shop.commit, patch["sha256"], shop.digest.removeprefix("sha256:")]
    assert found[0]["annotations"] == {"commitEvidence": "second-hand"}
    assert statement["predicate"]["runDetails"]["metadata"]["invocationId"] == made["key"]


def test_the_lock_names_every_file_and_is_of_the_one_schema(
    shop: Shop, build: Callable[..., Any]
) -> None:
    made = build("--base", str(shop.base))
    lock = json.loads(Path(made["lock"]).read_text())
    assert (lock["schema"], lock["outputs"]["wheel"]) == ("stackpatch.lock/1", None)
    folder = Path(made["lock"]).parent
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {one["path"] for one in lock["outputs"]["files"]} == there - {"lock.json"}
    assert {"sbom.cdx.json", "provenance.json"} < there
    inputs = lock["inputs"]
    assert inputs["upstream"]["submodules"] is True
    assert inputs["distribution"] == "tensorrt-llm"
    assert set(inputs["base"]) == {
        *("digest", "index", "name", "site", "editable", "python", "recorded")
    }


def test_an_image_from_git_says_the_same_things_as_one_from_a_wheel(
    shop: Shop, build: Callable[..., Any], tmp_path: Path
) -> None:
    made = build("--base", str(shop.base))
    from_git = Layout.open(Path(made["image"]["path"])).image(ARM64)
    wheel = make_stack(tmp_path / "wheel").build(tmp_path / "wheels")
    from_wheel = Layout.open(wheel.folder / "image").image(ARM64)

    def labels(image: Any) -> dict[str, str]:
        found: dict[str, str] = image.config_json()["config"]["Labels"]
        return found

    own = {key for key in labels(from_git) if key.startswith("stackpatch.")}
    assert own == labels(from_wheel).keys()
    assert labels(from_git)["stackpatch.place"] == f"site:/{SITE}"
    notes = from_git.manifest_json()["annotations"]
    of_the_base = {key for key in notes if ".base." in key}
    assert of_the_base == {"org.opencontainers.image.base.digest"}
    assert notes.keys() - of_the_base == from_wheel.manifest_json()["annotations"].keys()


def test_a_base_in_a_registry_stays_there_and_the_papers_go_beside_the_image(
    shop: Shop,
    there: str,
    registry: RunningRegistry,
    build: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    made = build("--base", there)
    lower = Layout.open(shop.base).image(ARM64).layers
    assert made["image"]["layers_elsewhere"] == [str(one.digest) for one in lower]
    lock = json.loads(Path(made["lock"]).read_text())
    elsewhere = lock["outputs"]["image"]["layers-elsewhere"]
    assert [one["digest"] for one in elsewhere] == [str(one.digest) for one in lower]
    assert any("`stackpatch publish` takes them from there" in note for note in made["notes"])

    to = f"{registry.host}/t/published-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}:x"
    argv = ("publish", "llm", "--to", to, "--out", str(tmp_path / "dist"))
    done = run(shop, capsys, *argv)
    assert done["blobs_mounted"] == len(lower)
    papers = {one["name"]: Path(made["lock"]).parent / one["name"] for one in done["referrers"]}
    assert list(papers) == ["sbom.cdx.json", "provenance.json", "lock.json"]
    name = to.removeprefix(f"{registry.host}/").rpartition(":")[0]
    listing = registry.manifest(name, made["image"]["digest"].replace(":", "-"))
    assert listing is not None
    for entry in json.loads(listing)["manifests"]:
        raw = registry.manifest(name, entry["digest"])
        assert raw is not None
        (layer,) = json.loads(raw)["layers"]
        content = registry.get(f"/v2/{name}/blobs/{layer['digest']}")[2]
        assert (
            content == papers[layer["annotations"]["org.opencontainers.image.title"]].read_bytes()
        )

    verified = run(shop, capsys, "verify", done["reference"], "--stack", "llm")
    assert (verified["layers"]["read"], verified["layers"]["of"]) == (1, 2)
    assert verified["right"] is True
    other = run(shop, capsys, "verify", there, "--stack", "llm", status=1)
    assert LOADER in other["error"]["message"]


def test_a_build_that_was_changed_or_is_of_other_inputs_is_not_published(
    shop: Shop,
    build: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    made = build("--base", str(shop.base))
    argv = ("publish", "llm", "--to", "127.0.0.1:1/a:b", "--out", str(tmp_path / "dist"))
    sbom = Path(made["sbom"])
    content = sbom.read_bytes()
    sbom.write_bytes(content.replace(b"unofficial", b"unofficiaL"))
    error = run(shop, capsys, *argv, status=1)["error"]
    assert "sbom.cdx.json is not as it was built" in error["message"]
    sbom.write_bytes(content)
    shop.recipe(lfs="false")
    error = run(shop, capsys, *argv, status=1)["error"]
    assert "upstream.lfs" in error["message"]


def recorded(name: str, digest: str, *, kind: str = "site-packages", path: str = SITE) -> str:
    return (
        "    bases:\n"
        f"      - {{image: {name}, digest: '{digest}', platforms: [linux/arm64],\n"
        f"         kind: {kind}, path: /{path}, python: '3.12', evidence: seen there}}\n"
    )


def test_the_recipe_s_image_is_the_same_input_whoever_names_it(
    shop: Shop,
    there: str,
    build: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    shop.recipe(recorded(there.partition("@")[0], shop.digest))
    first = build()
    lock = json.loads(Path(first["lock"]).read_text())
    assert lock["inputs"]["base"]["recorded"] is True
    assert any("is the recipe's word (seen there)" in note for note in first["notes"])
    assert build("--dry-run")["key"] == first["key"]
    again = build("--base", there)
    assert (again["reused"], again["key"]) == (True, first["key"])
    name, _, digest = there.partition("@")
    tagged = build("--base", f"{name}:released@{digest}")
    assert tagged["key"] != first["key"], "the image says what its base is called"
    inputs = json.loads(Path(tagged["lock"]).read_text())["inputs"]
    notes = Layout.open(Path(tagged["image"]["path"])).image(ARM64).manifest_json()["annotations"]
    assert inputs["base"]["name"] == notes["org.opencontainers.image.base.name"]
    assert inputs["base"]["name"] == f"{name}:released"
    assert build()["reused"] is False
    held = own_files(Path(first["image"]["path"]))
    assert held[f"{SITE}/{LOADER}"] == AFTER
    stale = f"{SITE}/tensorrt_llm/_torch/pyexecutor/__pycache__/.wh.model_loader.cpython-312.pyc"
    assert stale in held, "nobody looked, so the bytecode that may be there is hidden"
    argv = ["build", "--from-lock", first["lock"], "--root", str(shop.root), "--json"]
    assert main([*argv, "--out", str(tmp_path / "again")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["reused"], found["differences"]) == (False, [])


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "editable", "path": "srv/llm"},
        {"path": "opt/site-packages"},
        {"python": "3.11"},
    ],
)
def test_what_the_recipe_says_of_the_base_is_part_of_the_key(
    shop: Shop, build: Callable[..., Any], change: dict[str, str]
) -> None:
    digest = f"sha256:{'c' * 64}"
    python = change.pop("python", "3.12")
    shop.recipe(recorded("nvcr.test/llm", digest))
    before = build("--dry-run")["key"]
    shop.recipe(recorded("nvcr.test/llm", digest, **change).replace("3.12", python))
    assert build("--dry-run")["key"] != before


def test_an_editable_installation_takes_the_files_where_git_has_them(
    shop: Shop, build: Callable[..., Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    maker = LayoutMaker(tmp_path / "editable")
    layer = tar_layer({f"srv/llm/{LOADER}": BEFORE, f"srv/llm/tests/{'x'}.py": b""})
    layout = maker.write(maker.image([layer], architecture="arm64"))
    digest = str(Layout.open(layout).image(ARM64).digest)
    bases = recorded("nvcr.test/llm", digest, kind="editable", path="srv/llm")
    shop.recipe(bases)
    text = (shop.root / "recipes" / "llm.yaml").read_text()
    moved = "{here: tensorrt_llm/, git: tensorrt_llm/}"
    assert moved in text
    # As in a wheel whose paths are not the tree's.
    text = text.replace(moved, "{here: llm/, git: tensorrt_llm/}")
    (shop.root / "recipes" / "llm.yaml").write_text(text)
    made = build("--base", str(layout))
    held = merged(Path(made["image"]["path"]), made["image"]["digest"])
    assert held[f"srv/llm/{LOADER}"][1] == AFTER
    assert not [path for path in held if path.startswith("srv/llm/llm")]
    found = run(shop, capsys, "verify", made["image"]["path"], "--stack", "llm")
    assert (found["editable"], found["right"]) == (True, True)


def test_prebuilt_code_that_would_win_is_taken_out(
    shop: Shop, build: Callable[..., Any], tmp_path: Path
) -> None:
    shop.recipe(more="shadowed-by: [llm-kernels]\n")
    files = {
        f"{SITE}/llm_kernels/k.so": b"\x7fELF",
        f"{SITE}/llm_kernels-1.0.dist-info/METADATA": b"Name: llm-kernels\nVersion: 1.0\n",
        f"{SITE}/llm_kernels-1.0.dist-info/RECORD": (
            b"llm_kernels/k.so,,\nllm_kernels-1.0.dist-info/METADATA,,\n"
            b"llm_kernels-1.0.dist-info/RECORD,,\n"
        ),
    }
    released = {
        path: content
        for path, (kind, content, _) in merged(shop.base, shop.digest).items()
        if kind == "file"
    }
    maker = LayoutMaker(tmp_path / "with-kernels")
    layout = maker.write(maker.image([tar_layer({**released, **files})], architecture="arm64"))
    made = build("--base", str(layout))
    held = merged(Path(made["image"]["path"]), made["image"]["digest"])
    assert held[f"{SITE}/{LOADER}"][1] == AFTER
    assert not [path for path in held if "llm_kernels" in path]
    assert any("prebuilt code of llm-kernels would win" in note for note in made["notes"])


def test_a_stack_below_is_patched_with_it(
    shop: Shop, build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", str(tmp_path / "cache"))
    below = WheelShop(tmp_path)
    assert below.root == shop.root
    shop.recipe("    requires: {demo: '1.2.3'}\n")
    made = build("--base", "scratch")
    lock = json.loads(Path(made["lock"]).read_text())
    (required,) = lock["inputs"]["requires"]
    assert (required["stack"], required["version"]) == ("demo", "1.2.3")
    assert required["patched"].startswith("1.2.3+sp.")
    (wheel,) = made["wheels"]
    assert Path(wheel["path"]).name == f"demo-{required['patched']}-py3-none-any.whl"
    held = merged(Path(made["image"]["path"]), made["image"]["digest"])
    assert held[f"{SITE}/{LOADER}"][1] == AFTER
    assert b"[10, 12]" in held[f"{SITE}/demo/gate.py"][1]
    image = Layout.open(Path(made["image"]["path"])).image(ARM64)
    assert len(image.layers) == 2
    label = image.config_json()["config"]["Labels"]["stackpatch.requires"]
    assert label == f"demo={required['patched']}"
    sbom = valid_sbom(Path(made["sbom"]).read_bytes())
    assert "demo" in [one["name"] for one in sbom["components"]]
    names = [
        one["name"] for one in valid_statement(Path(made["provenance"]).read_bytes())["subject"]
    ]
    assert names == [Path(wheel["path"]).name, "image"]
    assert build("--base", "scratch")["reused"] is True


def test_a_stack_below_on_the_recipe_s_image_is_published_with_it(
    shop: Shop,
    registry: RunningRegistry,
    build: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", str(tmp_path / "cache"))
    WheelShop(tmp_path)
    lines = [f"{path},{record_hash(content)},{len(content)}" for path, content in FILES.items()]
    beside = {
        **FILES,
        "demo-1.2.3.dist-info/METADATA": METADATA,
        "demo-1.2.3.dist-info/RECORD": "".join(
            f"{line}\n" for line in [*lines, "demo-1.2.3.dist-info/RECORD,,"]
        ).encode(),
    }
    files = {LOADER: BEFORE, "tensorrt_llm/__init__.py": b""}
    layout, digest = image(tmp_path / "both", files, beside=beside)
    unique = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]
    name = f"{registry.host}/t/both-{unique}"
    push(layout, f"{name}:x")
    shop.recipe(recorded(name, digest) + "    requires: {demo: '1.2.3'}\n")
    planned = build("--dry-run")
    made = build()
    assert made["key"] == planned["key"]
    held = own_files(Path(made["image"]["path"]))
    assert b"[10, 12]" in held[f"{SITE}/demo/gate.py"]
    assert held[f"{SITE}/{LOADER}"] == AFTER
    out = ("--out", str(tmp_path / "dist"))
    done = run(shop, capsys, "publish", "llm", "--to", f"{name}-ours:x", *out)
    assert done["blobs_mounted"] == 1
    for stack in ("llm", "demo"):
        assert run(shop, capsys, "verify", done["reference"], "--stack", stack)["right"] is True


def test_what_was_built_from_git_can_be_recorded(
    shop: Shop, build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = build("--base", str(shop.base))
    monkeypatch.chdir(shop.root)
    folder = record_proof(Path(made["lock"]).parent, [])
    assert folder == shop.root / "recipes" / "llm" / "proofs" / "1.3.0rc20-sm121"
    again = build("--base", str(shop.base))
    assert again["proven"]["image builds"]["state"] == "yes"
    assert again["verified"] == "builds; nobody has run it on the arch"
