"""The lock: what names a build, and what a damaged one is worth."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.stack import make_stack

from stackpatch.artefacts.base import open_base
from stackpatch.artefacts.lock import (
    Inputs,
    Output,
    Outputs,
    Pinned,
    PinnedBase,
    PinnedPatch,
    PinnedStack,
    differences,
    dump_lock,
    intact,
    read_lock,
)
from stackpatch.errors import InputError
from stackpatch.model.arch import parse_arch

if TYPE_CHECKING:
    from pathlib import Path

OUTPUTS = Outputs(
    Output("demo.whl", 3, "a" * 64),
    f"sha256:{'b' * 64}",
    f"sha256:{'c' * 64}",
    (Output("image/index.json", 2, "d" * 64), Output("demo.whl", 3, "a" * 64)),
    ("a note",),
)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    base = open_base("scratch", parse_arch("sm121"))
    return make_stack(tmp_path).plan(base=base).inputs


def test_every_input_is_in_the_lock(inputs: Inputs) -> None:
    text = dump_lock(inputs, OUTPUTS).decode()
    document = json.loads(text)
    assert document["schema"] == "stackpatch.lock/1"
    assert document["key"] == inputs.key
    one = document["inputs"]
    assert one["wheel"]["file"] == "demo-1.2.3-py3-none-any.whl"
    assert one["upstream"] == {
        "git": "https://git.test/demo/demo.git",
        "tag": "v1.2.3",
        "commit": "a123456789012345678901234567890123456789",
        "commit-evidence": "first-hand",
    }
    assert [p["name"] for p in one["series"]["patches"]] == ["0001-gate.patch", "0002-tests.patch"]
    assert one["arch"] == {
        "name": "sm121",
        "platform": "linux/arm64",
        "env": {"DEMO_ARCH": "12.1a"},
    }
    assert one["engine"] == {"name": "overlay", "version": "4"}
    assert one["base"]["digest"] is None


def test_the_file_is_sorted_indented_and_ends_with_a_newline(inputs: Inputs) -> None:
    text = dump_lock(inputs, OUTPUTS).decode()
    assert text.endswith("}\n")
    again = json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False)
    assert text == f"{again}\n"


OTHER: dict[str, Any] = {
    "stack": "x",
    "distribution": "x",
    "version": "9",
    "patched": "9",
    "git": "x",
    "tag": None,
    "commit": None,
    "commit_evidence": "second-hand",
    "epoch": 1,
    "wheel": Pinned("demo-1.2.3-py3-none-any.whl", "0" * 64, 1),
    "layout": (("", ""),),
    "stamp": None,
    "series": "x",
    "series_sha256": "0" * 64,
    "patches": (PinnedPatch("0001-gate.patch", "0" * 64),),
    "arch": "sm120",
    "platform": "linux/amd64",
    "env": {"DEMO_ARCH": "12.0a"},
    "shadowed_by": ("x",),
    "base": PinnedBase(f"sha256:{'0' * 64}"),
    "engine": "buildx",
    "engine_version": "5",
    "stackpatch": "9",
    "requires": (PinnedStack("other", "2"),),
    "engine_settings": {"dockerfile": "d" * 64},
    "checkout": {"submodules": True},
}


def test_the_table_below_names_every_input(inputs: Inputs) -> None:
    assert set(OTHER) == {field.name for field in dataclasses.fields(inputs)}


@pytest.mark.parametrize("name", OTHER)
def test_every_input_changes_the_key(inputs: Inputs, name: str) -> None:
    changed = dataclasses.replace(inputs, **{name: OTHER[name]})
    assert changed.key != inputs.key
    assert differences(inputs.json(), changed.json())


def test_the_key_does_not_depend_on_the_order_of_the_environment(inputs: Inputs) -> None:
    one = dataclasses.replace(inputs, env={"A": "1", "B": "2"})
    two = dataclasses.replace(inputs, env={"B": "2", "A": "1"})
    assert one.key == two.key


def test_differences_name_the_place_and_both_values(inputs: Inputs) -> None:
    changed = dataclasses.replace(inputs, arch="sm120", env={})
    assert differences(inputs.json(), changed.json()) == [
        'arch.env.DEMO_ARCH: "12.1a" → null',
        'arch.name: "sm121" → "sm120"',
    ]
    assert differences(inputs.json(), inputs.json()) == []


def test_a_lock_reads_back(tmp_path: Path, inputs: Inputs) -> None:
    path = tmp_path / "lock.json"
    path.write_bytes(dump_lock(inputs, OUTPUTS))
    key, outputs = read_lock(path)
    assert key == inputs.key
    assert outputs == dataclasses.replace(
        OUTPUTS, files=tuple(sorted(OUTPUTS.files, key=lambda f: f.path))
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"schema": "stackpatch.lock/2"}',
        b'{"schema": "stackpatch.lock/1", "key": "x"}',
        b'{"schema": "stackpatch.lock/1", "key": "x", "outputs": {"files": [1]}}',
        b'{"schema": "stackpatch.lock/1", "key": "x", "outputs": {"files": [], "wheel": "x"}}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_what_is_no_lock_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lock.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"lock\.json (is not a lock file|has schema)"):
        read_lock(path)


def test_a_missing_lock_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_lock(tmp_path / "lock.json")


def test_outputs_are_intact_while_every_file_has_its_size(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "image/index.json").write_bytes(b"{}")
    assert not intact(tmp_path, OUTPUTS)
    (tmp_path / "demo.whl").write_bytes(b"abc")
    assert intact(tmp_path, OUTPUTS)
    (tmp_path / "demo.whl").write_bytes(b"ab")
    assert not intact(tmp_path, OUTPUTS)
