"""What each stack's build is told about the architecture, and values that only look right."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.images import LayoutMaker, tar_layer
from tests.stack import make_stack

from stackpatch.artefacts.base import Base, open_base
from stackpatch.artefacts.engines import EngineRequest, flags
from stackpatch.artefacts.external import Settings, engine_request
from stackpatch.artefacts.lock import PinnedBase
from stackpatch.artefacts.oci import Image
from stackpatch.errors import InputError
from stackpatch.model.arch import ARCHES, Arch, CodeArch, parse_arch

SM120, SM121, SM90 = (parse_arch(name) for name in ("sm120", "sm121", "sm90"))
STACKS = ("flashinfer", "sglang", "vllm", "trtllm")
# Toolkits that exist, oldest first.
TOOLKITS = ("11.8", "12.0", "12.6", "12.8", "12.9", "13.0", "13.1", "13.3")


@pytest.mark.parametrize(
    ("stack", "arch", "cuda", "wanted"),
    [
        ("flashinfer", "sm120", "12.8", {"FLASHINFER_CUDA_ARCH_LIST": "12.0a"}),
        ("flashinfer", "sm121", "13.0", {"FLASHINFER_CUDA_ARCH_LIST": "12.1a"}),
        ("sglang", "sm89", "12.8", {"FLASHINFER_CUDA_ARCH_LIST": "8.9"}),
        (
            "vllm",
            "sm121",
            "13.0",
            {"TORCH_CUDA_ARCH_LIST": "12.0", "FLASHINFER_CUDA_ARCH_LIST": "12.1a"},
        ),
        (
            "vllm",
            "sm120",
            "13.0",
            {"TORCH_CUDA_ARCH_LIST": "12.0", "FLASHINFER_CUDA_ARCH_LIST": "12.0a"},
        ),
        (
            "vllm",
            "sm121",
            "12.9",
            {"TORCH_CUDA_ARCH_LIST": "12.1a", "FLASHINFER_CUDA_ARCH_LIST": "12.1a"},
        ),
        ("trtllm", "sm121", "13.0", {"CUDA_ARCHS": "120-real"}),
        ("trtllm", "sm120", "12.8", {"CUDA_ARCHS": "120-real"}),
        ("trtllm", "sm100", "13.0", {"CUDA_ARCHS": "100-real"}),
    ],
)
def test_each_stack_is_told_what_serves_the_arch(
    stack: str, arch: str, cuda: str, wanted: dict[str, str]
) -> None:
    found = flags.arch_flags(stack, parse_arch(arch), cuda)
    assert dict(found.args) == wanted
    assert len(found.why) == len(wanted)
    for value, why in zip(wanted.values(), found.why, strict=True):
        assert value in why


@pytest.mark.parametrize(
    ("name", "value", "arch", "cuda", "why"),
    [
        ("FLASHINFER_CUDA_ARCH_LIST", "12.0a;12.1a", SM121, "13.0", "at one space"),
        ("FLASHINFER_CUDA_ARCH_LIST", "12.0a,12.1a", SM121, "13.0", "at one space"),
        ("FLASHINFER_CUDA_ARCH_LIST", "12.0a  12.1a", SM121, "13.0", "at one space"),
        ("FLASHINFER_CUDA_ARCH_LIST", " 12.1a", SM121, "13.0", "at one space"),
        ("FLASHINFER_CUDA_ARCH_LIST", "12.1a\n", SM121, "13.0", "at one space"),
        ("FLASHINFER_CUDA_ARCH_LIST", "sm_121a", SM121, "13.0", "major.minor"),
        ("FLASHINFER_CUDA_ARCH_LIST", "12.0f", SM120, "12.8", "CUDA 12.9"),
        ("FLASHINFER_CUDA_ARCH_LIST", "12.0a", SM121, "13.0", "nothing in it"),
        ("FLASHINFER_CUDA_ARCH_LIST", "", SM121, "13.0", "at one space"),
        ("TORCH_CUDA_ARCH_LIST", "12.0f", SM121, "13.0", "ValueError"),
        ("TORCH_CUDA_ARCH_LIST", "12.1f", SM121, "13.0", "ValueError"),
        ("TORCH_CUDA_ARCH_LIST", "12.0a;12.1a", SM121, "13.0", "sm121 is lost"),
        ("TORCH_CUDA_ARCH_LIST", "12.0", SM121, "12.9", "nothing in it"),
        ("TORCH_CUDA_ARCH_LIST", "9.0", SM120, "13.0", "nothing in it"),
        ("TORCH_CUDA_ARCH_LIST", "", SM120, "13.0", "nothing in it"),
        ("CUDA_ARCHS", "121f", SM121, "13.0", "takes no `f`"),
        ("CUDA_ARCHS", "120f-real", SM121, "13.0", "takes no `f`"),
        ("CUDA_ARCHS", "121-real", SM121, "13.0", "EXCLUDE_SM_120"),
        ("CUDA_ARCHS", "100-real;121-real", SM121, "13.0", "EXCLUDE_SM_120"),
        ("CUDA_ARCHS", "120-virtual", SM120, "13.0", "no PTX"),
        ("CUDA_ARCHS", "120a-real", SM121, "13.0", "sm120 only"),
        ("CUDA_ARCHS", "120-real,121-real", SM121, "13.0", "parted by `;`"),
        ("CUDA_ARCHS", "90-real", SM120, "13.0", "nothing in it"),
        ("CUDA_ARCHS", "", SM120, "13.0", "not a capability"),
    ],
)
def test_a_value_that_builds_for_something_else_is_refused_with_the_reason(
    name: str, value: str, arch: Arch, cuda: str, why: str
) -> None:
    with pytest.raises(InputError) as caught:
        flags.check_flag(name, value, arch, cuda)
    assert why in caught.value.message
    assert name in caught.value.message
    assert arch.name in caught.value.message


@pytest.mark.parametrize(
    ("name", "value", "arch", "cuda"),
    [
        ("FLASHINFER_CUDA_ARCH_LIST", "12.0a 12.1a", SM121, "13.0"),
        ("FLASHINFER_CUDA_ARCH_LIST", "12.0f", SM121, "12.9"),
        ("TORCH_CUDA_ARCH_LIST", "12.0", SM121, "13.0"),
        ("TORCH_CUDA_ARCH_LIST", "12.1a", SM121, "12.9"),
        ("TORCH_CUDA_ARCH_LIST", "9.0 12.0+PTX", SM120, "13.0"),
        ("CUDA_ARCHS", "120-real;121-real", SM121, "13.0"),
        ("CUDA_ARCHS", "90-real;100-real;120-real", SM121, "13.0"),
        ("CUDA_ARCHS", "90-real", SM90, "12.8"),
        ("MAX_JOBS", "whatever; it is", SM121, "13.0"),
    ],
)
def test_a_value_that_serves_passes(name: str, value: str, arch: Arch, cuda: str) -> None:
    flags.check_flag(name, value, arch, cuda)


@pytest.mark.parametrize(
    ("arch", "cuda"), [("sm121", "12.8"), ("sm120", "12.6"), ("sm110", "12.9")]
)
def test_a_toolkit_that_does_not_know_the_arch_is_refused(arch: str, cuda: str) -> None:
    with pytest.raises(InputError, match=f"CUDA {cuda} knows no"):
        flags.arch_flags("flashinfer", parse_arch(arch), cuda)


@pytest.mark.parametrize("cuda", ["", "13.x", "latest"])
def test_a_toolkit_without_a_number_is_refused(cuda: str) -> None:
    with pytest.raises(InputError, match="want one such as"):
        flags.arch_flags("flashinfer", SM121, cuda)


@pytest.mark.parametrize(
    ("env", "cuda"),
    [
        (["PATH=/bin", "CUDA_VERSION=13.0.1"], "13.0.1"),
        (["CUDA_VERSION=12.9"], "12.9"),
        (["CUDA_VERSION="], None),
        (["CUDA_VERSION=latest"], None),
        (["NV_CUDA_LIB_VERSION=13.0.1-1"], None),
        ([], None),
    ],
)
def test_the_toolkit_is_what_nvidias_images_state(env: list[str], cuda: str | None) -> None:
    assert flags.toolkit_of(image(env)) == cuda


def image(env: list[str]) -> Image:
    maker = LayoutMaker(Path("/nowhere"))
    described = maker.image(
        [tar_layer({"a": b"b"})], architecture="arm64", config={"config": {"Env": env}}
    )
    manifest = maker.blobs[described["digest"].removeprefix("sha256:")]
    config = json.loads(manifest)["config"]["digest"].removeprefix("sha256:")
    return Image.read(manifest, maker.blobs[config], where="a test")


def test_without_a_toolkit_what_some_toolkit_makes_right_passes() -> None:
    """A vLLM for sm121 wants another value before CUDA 13; nobody said which it is."""
    for value in ("12.0", "12.1a"):
        flags.check_flags({"TORCH_CUDA_ARCH_LIST": value}, SM121, None)
    for value in ("9.0", "12.0f"):
        with pytest.raises(InputError):
            flags.check_flags({"TORCH_CUDA_ARCH_LIST": value}, SM121, None)


def test_what_serves_is_said_with_what_does_not() -> None:
    with pytest.raises(InputError) as caught:
        flags.check_flags({"TORCH_CUDA_ARCH_LIST": "12.0"}, SM121, "12.9")
    assert str(caught.value.hint).startswith("12.1a serves (before CUDA 13 vLLM knows no family")


@pytest.mark.parametrize(
    ("own", "stated", "said", "why"),
    [
        ("12.1a", "13.0.1", None, None),
        ("12.1a", None, None, None),
        ("12.0a", "13.0.1", None, "nothing in it is built for sm_121a"),
        ("12.1a", "12.8.1", None, "CUDA 12.8.1 knows no sm_121a"),
        ("12.1a", "12.8.1", "13.0", None),
        ("12.1a", None, "12.8", "CUDA 12.8 knows no sm_121a"),
    ],
)
def test_the_recipes_own_flags_are_held_against_the_bases_toolkit(
    tmp_path: Path, own: str, stated: str | None, said: str | None, why: str | None
) -> None:
    """A recipe is written for some toolkit; the base that a person names may have another."""
    inputs = make_stack(tmp_path).plan(base=open_base("scratch", SM121)).inputs
    inputs = replace(inputs, env={"FLASHINFER_CUDA_ARCH_LIST": own})
    made = image([f"CUDA_VERSION={stated}"] if stated else [])
    pinned = PinnedBase(str(made.digest), "r.test/base", None)
    settings = Settings("buildx", tmp_path / "demo.Dockerfile", cuda=said)
    base = Base(made, None, None, pinned)

    def ask() -> EngineRequest:
        return engine_request(inputs, settings, base, {}, {}, labels={}, annotations={})

    if why is None:
        assert ask().env["FLASHINFER_CUDA_ARCH_LIST"] == own
    else:
        with pytest.raises(InputError, match=why):
            ask()


def test_a_stack_without_rules_is_refused() -> None:
    with pytest.raises(InputError, match="no rules"):
        flags.arch_flags("llamacpp", SM121, "13.0")


@given(
    stack=st.sampled_from(STACKS),
    arch=st.sampled_from(sorted(ARCHES)),
    cuda=st.sampled_from(TOOLKITS),
)
def test_what_we_choose_passes_what_we_check(stack: str, arch: str, cuda: str) -> None:
    try:
        chosen = flags.arch_flags(stack, ARCHES[arch], cuda)
    except InputError:
        assert tuple(map(int, cuda.split("."))) < tuple(map(int, ARCHES[arch].min_cuda.split(".")))
        return
    for name, value in chosen.args.items():
        flags.check_flag(name, value, ARCHES[arch], cuda)


@given(
    entries=st.lists(
        st.sampled_from(["9.0a", "10.0a", "10.3a", "12.0a", "12.0f", "12.1a", "12.1f", "12.0"]),
        min_size=1,
        max_size=4,
    ),
    arch=st.sampled_from(sorted(ARCHES)),
)
def test_a_list_for_flashinfer_passes_only_if_the_arch_runs_something_of_it(
    entries: list[str], arch: str
) -> None:
    """Held to the rule which code runs where, which `audit` goes by."""
    device = ARCHES[arch]
    codes = []
    for entry in entries:
        number = int(entry[:-1].replace(".", "") if entry[-1] in "af" else entry.replace(".", ""))
        codes.append(CodeArch(number, entry[-1] if entry[-1] in "af" else ""))
    runs = any(device.runs(code) for code in codes)
    try:
        flags.check_flag("FLASHINFER_CUDA_ARCH_LIST", " ".join(entries), device, "13.3")
    except InputError:
        return
    assert runs


@given(text=st.text(max_size=30), arch=st.sampled_from(sorted(ARCHES)))
def test_any_text_is_judged_or_refused(text: str, arch: str) -> None:
    for name in (flags.FLASHINFER, flags.TORCH, flags.TRTLLM):
        with contextlib.suppress(InputError):  # and nothing else
            flags.check_flag(name, text, ARCHES[arch], "13.0")
