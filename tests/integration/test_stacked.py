"""Stacks on stacks, on real releases: SGLang with the FlashInfer that its own metadata asks for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation import make_schemabased_validator
from tests.images import LayoutMaker, merged, tar_layer
from tests.integration.test_build import built as built_alone
from tests.integration.test_build import make_venv, python, seeded
from tests.wheels import contents, make_wheel, wheel_of

from stackpatch.artefacts.release import build_release, plan_release
from stackpatch.artefacts.stacked import plan_companions
from stackpatch.errors import InputError
from stackpatch.model.arch import parse_arch
from stackpatch.model.collection import Collection

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackpatch.artefacts.build import BuildResult
    from stackpatch.artefacts.plan import Plan

    Artefact = Callable[[str, str], Path]

pytestmark = pytest.mark.pypi
ROOT = Path(__file__).parents[2]


def plan_of(root: Path, stack: str, version: str, arch: str, base: str = "scratch") -> Plan:
    collection = Collection(root)
    recipe = collection.recipe(stack)
    release = recipe.release(version)
    series = collection.series(stack, release)
    return plan_release(
        recipe, release, parse_arch(arch), series, base=base, collection=collection
    )[0]


def stacked(
    artefact: Artefact, out: Path, *, root: Path = ROOT, base: str = "scratch", arch: str = "sm121"
) -> BuildResult:
    seeded(artefact, "sglang", "0.5.9")
    seeded(artefact, "flashinfer", "0.6.3")
    collection = Collection(root)
    recipe = collection.recipe("sglang")
    release = recipe.release("0.5.9")
    series = collection.series("sglang", release)
    plan, opened = plan_release(
        recipe, release, parse_arch(arch), series, base=base, collection=collection
    )
    return build_release(recipe, release, parse_arch(arch), plan, opened, out=out, offline=True)


def test_one_build_makes_both_wheels_one_image_and_one_lock(
    artefact: Artefact, tmp_path: Path
) -> None:
    result = stacked(artefact, tmp_path / "out")
    alone = built_alone(artefact, tmp_path / "alone")
    wheels = {path.name: path for path in result.folder.glob("*.whl")}
    assert sorted(name.split("-")[0] for name in wheels) == ["flashinfer_python", "sglang"]
    lower = alone.folder / wheel_of(alone.outputs).path
    assert wheels[lower.name].read_bytes() == lower.read_bytes()

    lock = json.loads((result.folder / "lock.json").read_bytes())
    (required,) = lock["inputs"]["requires"]
    assert required == {
        "stack": "flashinfer",
        "version": "0.6.3",
        "patched": alone.plan.inputs.patched,
        "key": alone.plan.key,
    }
    assert set(wheels) < {file["path"] for file in lock["outputs"]["files"]}
    document = result.json()
    assert document["requires"] == [required]
    assert {Path(one["path"]).name for one in document["wheels"]} == set(wheels)

    files = files_in(result)
    site = "usr/local/lib/python3.12/dist-packages"
    assert b"[10, 12" in files[f"{site}/flashinfer/jit/fused_moe.py"]
    info = {name for name in files if name.endswith(".dist-info/METADATA")}
    assert info == {
        f"{site}/flashinfer_python-{alone.plan.inputs.patched}.dist-info/METADATA",
        f"{site}/sglang-{result.plan.inputs.patched}.dist-info/METADATA",
    }
    assert not [name for name in files if "/.wh." in name]


def test_the_papers_name_the_patches_of_both(artefact: Artefact, tmp_path: Path) -> None:
    result = stacked(artefact, tmp_path / "out")
    raw = (result.folder / "sbom.cdx.json").read_text()
    validator = make_schemabased_validator(OutputFormat.JSON, SchemaVersion.V1_6)
    assert validator.validate_str(raw) is None
    document = json.loads(raw)
    top = document["metadata"]["component"]
    lower = next(one for one in document["components"] if one["name"] == "flashinfer-python")
    assert len(top["pedigree"]["patches"]) == 1
    assert len(lower["pedigree"]["patches"]) == 6
    depends = {one["ref"]: one["dependsOn"] for one in document["dependencies"]}
    assert depends[top["bom-ref"]] == [lower["bom-ref"]]
    statement = json.loads((result.folder / "provenance.json").read_bytes())
    names = [one["name"] for one in statement["subject"]]
    assert [name.split("-")[0] for name in names] == ["sglang", "flashinfer_python", "image"]
    inputs = {
        one["name"] for one in statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    }
    assert "flashinfer_python-0.6.3-py3-none-any.whl" in inputs
    assert sum(name.startswith("v0.6.3/") for name in inputs) == 6


def test_pip_takes_the_pair(artefact: Artefact, tmp_path: Path) -> None:
    result = stacked(artefact, tmp_path / "out")
    venv = make_venv(tmp_path / "venv")
    wheels = [str(path) for path in sorted(result.folder.glob("*.whl"))]
    python(venv, "-m", "pip", "install", "-q", "--no-deps", "--no-index", *wheels)
    program = (
        "import importlib.metadata as m; print(m.version('flashinfer-python'), m.version('sglang'))"
    )
    flashinfer, sglang = python(venv, "-c", program).split()
    assert flashinfer == result.plan.companions[0].plan.inputs.patched
    assert sglang == result.plan.inputs.patched
    # and what sglang's own metadata asks of FlashInfer holds
    said = python(
        venv,
        "-c",
        "from importlib.metadata import requires, version\n"
        "from pip._vendor.packaging.requirements import Requirement as R\n"
        "wanted = next(R(r) for r in requires('sglang') if r.startswith('flashinfer_python'))\n"
        "print(wanted.specifier.contains(version('flashinfer-python')))",
    )
    assert said.strip() == "True"


def test_twice_the_same_bytes_and_found_again(artefact: Artefact, tmp_path: Path) -> None:
    first = stacked(artefact, tmp_path / "a")
    second = stacked(artefact, tmp_path / "b")
    assert first.outputs == second.outputs
    assert (first.folder / "lock.json").read_bytes() == (second.folder / "lock.json").read_bytes()
    assert stacked(artefact, tmp_path / "a").reused


def test_on_a_base_both_old_packages_give_way(artefact: Artefact, tmp_path: Path) -> None:
    site = "usr/local/lib/python3.12/dist-packages"
    seeded(artefact, "sglang", "0.5.9")
    seeded(artefact, "flashinfer", "0.6.3")
    maker = LayoutMaker(tmp_path / "base")
    files: dict[str, bytes] = {}
    collection = Collection(ROOT)
    for stack, version in (("sglang", "0.5.9"), ("flashinfer", "0.6.3")):
        recipe = collection.recipe(stack)
        pin = next(
            one
            for one in recipe.release(version).artefacts
            if one.file.endswith("-py3-none-any.whl")
        )
        files |= _installed(artefact(pin.file, pin.sha256), site)
    cubin = make_wheel(
        tmp_path / "w",
        {"flashinfer_cubin/__init__.py": b""},
        name="flashinfer_cubin-0.6.2-py3-none-any.whl",
        dist_info="flashinfer_cubin-0.6.2.dist-info",
    )
    files |= _installed(cubin, site)
    maker.write(maker.image([tar_layer(files)], architecture="arm64"))
    result = stacked(artefact, tmp_path / "out", base=str(tmp_path / "base"))
    after = files_in(result)
    info = {name.split("/")[-2] for name in after if name.endswith(".dist-info/METADATA")}
    lower = result.plan.companions[0].plan.inputs
    assert f"flashinfer_python-{lower.patched}.dist-info" in info
    assert f"sglang-{result.plan.inputs.patched}.dist-info" in info
    assert not {"sglang-0.5.9.dist-info", "flashinfer_python-0.6.3.dist-info"} & info
    # FlashInfer refuses to start beside kernels of another release: the result says so
    (note,) = (note for note in result.outputs.notes if "flashinfer-cubin" in note)
    assert f"flashinfer-cubin 0.6.2 beside flashinfer-python {lower.patched}" in note


def files_in(result: BuildResult) -> dict[str, bytes]:
    """What unpacking the result's image gives."""
    found = merged(result.folder / "image", result.outputs.image)
    return {name: content for name, (kind, content, _) in found.items() if kind == "file"}


def _installed(wheel: Path, site: str) -> dict[str, bytes]:
    return {f"{site}/{name}": content for name, content in contents(wheel).items()}


def test_a_release_without_a_series_below_is_said_to_be_taken_as_released() -> None:
    collection = Collection(ROOT)
    release = collection.recipe("sglang").release("0.5.23")
    assert release.requires == {"flashinfer": "0.7.2"}
    companions, required = plan_companions(
        collection, release, parse_arch("sm121"), base="scratch", remote=None, above=("sglang",)
    )
    assert companions == ()
    (one,) = required
    assert (one.stack, one.version, one.patched, one.key) == ("flashinfer", "0.7.2", None, None)


def copied(tmp_path: Path) -> Path:
    for name in ("recipes", "patches"):
        shutil.copytree(ROOT / name, tmp_path / "own" / name)
    return tmp_path / "own"


def test_a_recipe_that_requires_what_the_wheel_does_not_ask_for_is_refused(
    artefact: Artefact, tmp_path: Path
) -> None:
    root = copied(tmp_path)
    path = root / "recipes/sglang.yaml"
    path.write_text(
        path.read_text().replace(
            'requires: {flashinfer: "0.6.3"}', 'requires: {flashinfer: "0.5.3"}'
        )
    )
    seeded(artefact, "flashinfer", "0.5.3")
    with pytest.raises(InputError, match=r"asks for other versions.*flashinfer-python==0\.6\.3"):
        stacked(artefact, tmp_path / "out", root=root)
    assert not list((tmp_path / "out").rglob("*.whl"))


def test_stacks_that_stand_on_each_other_are_refused(tmp_path: Path) -> None:
    root = copied(tmp_path)
    path = root / "recipes/flashinfer.yaml"
    text = path.read_text()
    assert text.count("    series: v0.6.3\n") == 1
    path.write_text(
        text.replace(
            "    series: v0.6.3\n", '    series: v0.6.3\n    requires: {sglang: "0.5.9"}\n'
        )
    )
    with pytest.raises(InputError, match="sglang > flashinfer > sglang"):
        plan_of(root, "sglang", "0.5.9", "sm121")


def test_a_changed_series_below_is_another_build(artefact: Artefact, tmp_path: Path) -> None:
    first = plan_of(ROOT, "sglang", "0.5.9", "sm121")
    root = copied(tmp_path)
    series = root / "patches/flashinfer/v0.6.3/series"
    names = [line for line in series.read_text().splitlines() if line.endswith(".patch")]
    series.write_text("\n".join(names[:-1]) + "\n")
    (series.parent / names[-1]).unlink()
    second = plan_of(root, "sglang", "0.5.9", "sm121")
    assert first.key != second.key
    assert first.inputs.series_sha256 == second.inputs.series_sha256
