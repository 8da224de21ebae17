"""The facts about arches against independent tables, and which code runs where."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.errors import InputError
from stackpatch.model.arch import ARCHES, Arch, CodeArch, parse_arch

# One row an arch, written out: capability, target, family, platform, oldest CUDA, shared memory
# per block in KiB, oldest PTX ISA with the arch-specific target.
FACTS = {
    "sm89": ("8.9", "sm_89", None, "linux/amd64", "11.8", 99, "7.8"),
    "sm90": ("9.0", "sm_90a", None, "linux/amd64", "12.0", 227, "8.0"),
    "sm100": ("10.0", "sm_100a", "sm_100f", "linux/amd64", "12.8", 227, "8.6"),
    "sm103": ("10.3", "sm_103a", "sm_100f", "linux/amd64", "12.9", 227, "8.8"),
    "sm110": ("11.0", "sm_110a", "sm_110f", "linux/arm64", "13.0", 227, "9.0"),
    "sm120": ("12.0", "sm_120a", "sm_120f", "linux/amd64", "12.8", 99, "8.7"),
    "sm121": ("12.1", "sm_121a", "sm_120f", "linux/arm64", "12.9", 99, "8.8"),
}

DEVICES = [89, 90, 100, 103, 110, 120, 121]

# What ptxas 13.0 compiled for which target, tried pair by pair. A PTX file with an `f` or `a`
# target is bound to these devices; so is machine code that was made for them.
PTXAS_ACCEPTS = {
    "compute_89": {89, 90, 100, 103, 110, 120, 121},
    "compute_120": {120, 121},
    "compute_90a": {90},
    "compute_121a": {121},
    "compute_100f": {100, 103},
    "compute_103f": {103},
    "compute_110f": {110},
    "compute_120f": {120, 121},
    "compute_121f": {121},
}

# Machine code without suffix: same major, same or later minor.
BINARY = {
    "sm_80": {89},
    "sm_86": {89},
    "sm_89": {89},
    "sm_90": {90},
    "sm_100": {100, 103},
    "sm_103": {103},
    "sm_110": {110},
    "sm_120": {120, 121},
    "sm_121": {121},
    "sm_87": set(),  # Tegra: Orin's code runs on Orin
    "sm_75": set(),
}


def test_the_arches_are_exactly_those_of_the_contract() -> None:
    assert list(ARCHES) == list(FACTS)
    assert all(arch.name == name for name, arch in ARCHES.items())


@pytest.mark.parametrize("name", FACTS)
def test_facts(name: str) -> None:
    arch = ARCHES[name]
    dotted, target, family, platform, cuda, shared, ptx = FACTS[name]
    assert (arch.dotted, arch.target, arch.family) == (dotted, target, family)
    assert (arch.platform, arch.min_cuda, arch.ptx_isa) == (platform, cuda, ptx)
    assert arch.shared_memory == shared * 1024
    assert arch.capability == int(dotted.replace(".", ""))
    assert arch.products
    assert all(product.strip() == product != "" for product in arch.products)


def test_shared_memory_is_what_cutlass_says() -> None:
    # sm90, sm100 and sm120_smem_capacity_bytes in CUTLASS 4.x's headers
    assert ARCHES["sm90"].shared_memory == ARCHES["sm100"].shared_memory == 232_448
    assert ARCHES["sm120"].shared_memory == ARCHES["sm121"].shared_memory == 101_376


@pytest.mark.parametrize("code", PTXAS_ACCEPTS)
def test_ptx_runs_where_ptxas_compiles_it_to(code: str) -> None:
    parsed = CodeArch.parse(code)
    assert parsed.ptx
    assert {device for device in DEVICES if parsed.runs_on(device)} == PTXAS_ACCEPTS[code]


@pytest.mark.parametrize("code", BINARY)
def test_plain_machine_code_runs_on_its_major_from_its_minor_on(code: str) -> None:
    parsed = CodeArch.parse(code)
    assert {device for device in DEVICES if parsed.runs_on(device)} == BINARY[code]


@pytest.mark.parametrize("name", FACTS)
def test_every_arch_runs_its_own_targets(name: str) -> None:
    arch = ARCHES[name]
    assert arch.runs(CodeArch.parse(arch.target))
    assert arch.runs(CodeArch(arch.capability))
    if arch.family is not None:
        assert arch.runs(CodeArch.parse(arch.family))


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(FACTS, 2)))
def test_no_arch_runs_another_ones_specific_code(one: str, other: str) -> None:
    code = CodeArch(ARCHES[other].capability, "a")
    assert not ARCHES[one].runs(code)


def test_spark_does_not_run_datacenter_blackwell_and_the_other_way_round() -> None:
    for code in ("sm_100", "sm_100a", "sm_100f", "sm_103a", "compute_100f"):
        assert not ARCHES["sm121"].runs(CodeArch.parse(code)), code
    for code in ("sm_120", "sm_120f", "sm_121a", "compute_120"):
        assert not ARCHES["sm100"].runs(CodeArch.parse(code)), code
    # plain PTX is the exception: the driver compiles it
    assert ARCHES["sm121"].runs(CodeArch.parse("compute_100"))


@pytest.mark.parametrize(
    "code", ["sm_121", "sm_121a", "sm_120f", "compute_90", "compute_100a", "sm_89"]
)
def test_code_arch_round_trips(code: str) -> None:
    assert str(CodeArch.parse(code)) == code


@pytest.mark.parametrize(
    "text",
    ["", "sm121", "sm_1", "sm_1210", "sm_121b", "SM_121", "sm_121 ", "121a", "compute_", "sm_12.1"],
)
def test_other_spellings_of_a_target_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a GPU target"):
        CodeArch.parse(text)


@given(st.sampled_from(sorted(FACTS)))
def test_parse_arch_finds_each_by_its_name(name: str) -> None:
    assert parse_arch(name) is ARCHES[name]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("SM121", "sm121"),
        ("sm_121", "sm121"),
        ("sm_121a", "sm121"),
        ("sm_120f", "sm120"),
        ("compute_90a", "sm90"),
        ("121", "sm121"),
        ("12.1", "sm121"),
        ("sm12.0", "sm120"),
        ("sm-100", "sm100"),
        ("sm1210", "sm121"),
        ("sm21", "sm121"),
    ],
)
def test_a_wrong_name_is_refused_with_the_one_that_was_meant(wrong: str, meant: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_arch(wrong, where="here:3")
    assert caught.value.hint == f"did you mean {meant}?"
    assert caught.value.where == "here:3"
    assert repr(wrong) in caught.value.message


def test_a_name_that_resembles_none_gets_the_list() -> None:
    with pytest.raises(InputError) as caught:
        parse_arch("blackwell")
    assert caught.value.hint == "known: " + ", ".join(FACTS)


@given(st.text(max_size=20))
def test_any_other_text_ends_in_an_input_error(text: str) -> None:
    if text not in ARCHES:
        with pytest.raises(InputError) as caught:
            parse_arch(text)
        assert caught.value.hint


@given(
    st.builds(
        CodeArch,
        st.sampled_from([50, 53, 62, 72, 75, 80, 86, 87, 88, *DEVICES]),
        st.sampled_from(["", "a", "f"]),
        st.booleans(),
    ),
    st.sampled_from(sorted(ARCHES)),
)
def test_nothing_runs_on_an_older_device_than_it_was_made_for(code: CodeArch, name: str) -> None:
    arch: Arch = ARCHES[name]
    if arch.runs(code):
        assert arch.capability >= code.number
        assert CodeArch.parse(str(code)) == code
