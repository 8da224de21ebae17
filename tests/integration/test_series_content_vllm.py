"""What the vLLM patches do: the releases' own choice of kernels, on every device, patched or not.

The module is the release's; torch and the rest of vLLM are stood in for, because the function that
is patched takes nothing of them but the questions that are asked of the platform.
"""

from __future__ import annotations

import ast
import functools
import itertools
import json
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import fetch_artefact, git
from tests.remote import open_wheel

from stackpatch.model.series import load_series

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.pypi

ROOT = Path(__file__).parents[2]
SERIES = ROOT / "patches" / "vllm" / "v0.13.0"
MODULE = "vllm/model_executor/layers/quantization/mxfp4.py"
TRANSFORM = "vllm/model_executor/layers/quantization/compressed_tensors/transform/linear.py"
SDISTS = {
    "0.33.0": "f4c33c2503d52bb411146afa9618a4f48bed68912f617e6803ac8d76e4c74112",
    "0.13.0": "4ad43db45fef37114b550d03a4f423fb3fa3a31d8bc09ee810ef8b9cdcd4b5fe",
    "0.19.0": "81e59cf87175e7a62eb8d9acf5989484bbd17089d5eface353f89067bda282d9",
}
DEVICES = ((8, 9), (9, 0), (10, 0), (10, 3), (11, 0), (12, 0), (12, 1))
CUTLASS, MARLIN = "SM100_FI_MXFP4_MXFP8_CUTLASS", "MARLIN"


@dataclass
class Platform:
    """vLLM's platform for one device, as its interface.py defines the questions."""

    capability: tuple[int, int]

    def is_cuda(self) -> bool:
        return True

    def is_xpu(self) -> bool:
        return False

    def is_rocm(self) -> bool:
        return False

    def get_device_capability(self) -> tuple[int, int]:
        return self.capability

    def has_device_capability(self, wanted: int) -> bool:
        return self.capability[0] * 10 + self.capability[1] >= wanted

    def is_device_capability(self, wanted: int) -> bool:
        return self.capability[0] * 10 + self.capability[1] == wanted

    def is_device_capability_family(self, wanted: int) -> bool:
        return self.capability[0] == wanted // 10


@functools.cache
def source(version: str, path: str = MODULE) -> str:
    """A file of the release's sdist."""
    name = f"vllm-{version}.tar.gz"
    with tarfile.open(fetch_artefact(name, SDISTS[version])) as archive:
        member = archive.extractfile(f"vllm-{version}/{path}")
        assert member is not None
        return member.read().decode()


def choice(text: str) -> Callable[..., str]:
    """get_mxfp4_backend() of that source, with all that it asks given by the caller."""
    tree = ast.parse(text)
    kept: list[ast.stmt] = [
        node
        for node in tree.body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef))
        and node.name in ("Mxfp4Backend", "get_mxfp4_backend", "get_mxfp4_backend_with_lora")
    ]
    assert len(kept) == 3
    code = compile(ast.Module(kept, []), MODULE, "exec", dont_inherit=True)

    def ask(capability: tuple[int, int], *, flashinfer: bool = True, **asked: bool) -> str:
        envs = SimpleNamespace(
            VLLM_MXFP4_USE_MARLIN=asked.get("marlin", False),
            VLLM_USE_FLASHINFER_MOE_MXFP4_BF16=asked.get("bf16", False),
            VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8=asked.get("mxfp8", False),
            VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8_CUTLASS=asked.get("cutlass", False),
        )
        said: list[str] = []
        scope: dict[str, Any] = {
            "Enum": Enum,
            "current_platform": Platform(capability),
            "has_flashinfer": lambda: flashinfer,
            "has_triton_kernels": lambda: True,
            "is_torch_equal_or_newer": lambda _version: True,
            "envs": envs,
            "logger": SimpleNamespace(info_once=said.append, warning_once=said.append),
        }
        exec(code, scope)  # noqa: S102 - the release's own code, its digest checked
        backend = scope["get_mxfp4_backend"](with_lora_support=False)
        return str(backend.name)

    return ask


@pytest.fixture(name="before", scope="module")
def _before() -> Callable[..., str]:
    return choice(source("0.13.0"))


@pytest.fixture(name="after", scope="module")
def _after(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    folder = tmp_path_factory.mktemp("vllm")
    target = folder / MODULE
    target.parent.mkdir(parents=True)
    target.write_text(source("0.13.0"))
    git("init", "-q", cwd=folder)
    for patch in load_series(SERIES).patches:
        git("apply", f"{SERIES}/{patch.name}", cwd=folder)
    return choice(target.read_text())


@pytest.mark.parametrize("device", [(12, 0), (12, 1)])
def test_the_request_is_honoured_on_sm12x(
    before: Callable[..., str], after: Callable[..., str], device: tuple[int, int]
) -> None:
    assert before(device, cutlass=True) == MARLIN
    assert after(device, cutlass=True) == CUTLASS
    assert after(device, cutlass=True, mxfp8=True) == CUTLASS


@pytest.mark.parametrize("device", [(12, 0), (12, 1)])
def test_nothing_else_changes_the_choice_on_sm12x(
    after: Callable[..., str], device: tuple[int, int]
) -> None:
    assert after(device) == MARLIN
    assert after(device, mxfp8=True) == MARLIN
    assert after(device, bf16=True) == MARLIN
    assert after(device, cutlass=True, flashinfer=False) == MARLIN


def test_every_other_device_chooses_as_before(
    before: Callable[..., str], after: Callable[..., str]
) -> None:
    """All devices, all settings: the two differ for SM12x with the request, and nowhere else."""
    seen = set()
    names = ("cutlass", "mxfp8", "bf16", "marlin", "flashinfer")
    for device, values in itertools.product(DEVICES, itertools.product((False, True), repeat=5)):
        asked = dict(zip(names, values, strict=True))
        was, now = before(device, **asked), after(device, **asked)
        seen.add(was)
        if device[0] == 12 and asked["cutlass"] and asked["flashinfer"]:
            assert (was, now) == (MARLIN, CUTLASS)
        else:
            assert was == now, (device, asked)
    assert len(seen) >= 6, "the stand-ins reach most of the choices"


def test_nothing_behind_the_choice_asks_for_the_device() -> None:
    """The message says so: what follows is decided by the backend's name alone."""
    text = source("0.13.0")
    inside = text[text.index("class Mxfp4MoEMethod") :]
    assert "capability" not in inside
    assert inside.count(CUTLASS) >= 3


def test_later_releases_honour_it_elsewhere() -> None:
    """What the Upstream-Status line claims, in the first release that does."""
    text = source("0.19.0", "vllm/model_executor/layers/fused_moe/oracle/mxfp4.py")
    assert "envs.VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8_CUTLASS" in text
    experts = source("0.19.0", "vllm/model_executor/layers/fused_moe/flashinfer_cutlass_moe.py")
    device = experts[experts.index("def _supports_current_device") :]
    assert "is_device_capability_family(120)" in device[: device.index("@staticmethod")]
    scheme = experts[experts.index("def _supports_quant_scheme") :]
    assert "(kMxfp4Static, kMxfp8Dynamic)" in scheme[: scheme.index("@staticmethod")]
    assert "get_mxfp4_backend" not in source("0.19.0")


# --- 0.33.0: QuTLASS ------------------------------------------------------------------------------


def way(text: str, capability: tuple[int, int], *, scheme: bool = True) -> str:
    """Which method from_schemes() of that source makes of an NVFP4 layer with a transform."""
    (owner,) = [
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and node.name == "CompressedTensorsLinearTransformMethod"
    ]
    (made,) = [
        node
        for node in owner.body
        if isinstance(node, ast.FunctionDef) and node.name == "from_schemes"
    ]
    made.decorator_list = []
    made.body = [node for node in made.body if not isinstance(node, ast.ImportFrom)]
    made.returns = None
    for argument in made.args.args:
        argument.annotation = None
    scope: dict[str, Any] = {
        "current_platform": Platform(capability),
        "is_qutlass_fp4_scheme": lambda _scheme, _transforms: scheme,
        "QutlassNvFP4LinearMethod": lambda *_: "qutlass",
    }
    code = compile(ast.Module([made], []), TRANSFORM, "exec", dont_inherit=True)
    exec(code, scope)  # noqa: S102 - the release's own code, its digest checked
    return str(scope["from_schemes"](lambda *_: "generic", None, None, {"0": None}, {}))


@pytest.mark.parametrize("scheme", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_qutlass_is_left_to_the_devices_that_the_wheel_has_it_for(
    device: tuple[int, int], *, scheme: bool, tmp_path: Path
) -> None:
    before = source("0.33.0", TRANSFORM)
    target = tmp_path / TRANSFORM
    target.parent.mkdir(parents=True)
    target.write_text(before)
    git("init", "-q", cwd=tmp_path)
    folder = SERIES.parent / "v0.33.0"
    for patch in load_series(folder).patches:
        git("apply", f"{folder}/{patch.name}", cwd=tmp_path)
    was, now = way(before, device, scheme=scheme), way(target.read_text(), device, scheme=scheme)
    assert was == ("qutlass" if scheme and device >= (10, 0) else "generic")
    assert now == ("qutlass" if scheme and device[0] == 10 else "generic")


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_the_released_qutlass_is_for_sm100_alone(machine: str, tmp_path: Path) -> None:
    """By our own reader of GPU code, over that one member of the released wheel."""
    wheel, _ = open_wheel(f"vllm-0.33.0-cp38-abi3-manylinux_2_28_{machine}.whl")
    target = tmp_path / "_qutlass_C.abi3.so"
    with wheel:
        target.write_bytes(wheel.read("vllm/_qutlass_C.abi3.so"))
    done = subprocess.run(
        [sys.executable, "-m", "stackpatch", "audit", str(target), "--arch", "sm120", "--json"],
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    (file,) = json.loads(done.stdout)["files"]
    assert (file["arches"], file["ptx"]) == (["sm_100f"], [])


def test_the_lines_that_the_newest_page_names_are_there() -> None:
    """docs/newest.md on vLLM 0.33.0: what stands at each place that it names."""
    layers, v1 = "vllm/model_executor/layers", "vllm/v1/attention"
    wanted = {
        f"{layers}/quantization/compressed_tensors/transform/linear.py:53": "capability(100)",
        f"{layers}/quantization/fp_quant.py:64": "return 100",
        f"{layers}/fused_moe/oracle/nvfp4.py:203": "AVAILABLE_BACKENDS = [",
        f"{layers}/fused_moe/experts/flashinfer_cutlass_moe.py:136": "family(120)",
        f"{layers}/fused_moe/oracle/mxfp4.py:402": "_get_priority_backends_for_gpt_oss",
        f"{v1}/backends/flashinfer.py:114": "def _nvfp4_kv_on_fa2",
        f"{v1}/ops/flashmla.py:LINE": "FlashMLA Dense is only supported on Hopper",
    }
    page = (ROOT / "docs" / "newest.md").read_text(encoding="utf-8")
    for place, text in wanted.items():
        path, _, stated = place.partition(":")
        lines = source("0.33.0", path).splitlines()
        (number,) = (
            [n for n, line in enumerate(lines, 1) if text in line]
            if stated == "LINE"
            else ([int(stated)])
        )
        assert text in lines[number - 1], place
        short = "/".join(path.split("/")[-2:])
        assert f"{short}:{number}" in page, place
