"""What a series changes of a git tree: as files of a package, as a layer, as a build context."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pygit2
import pytest
from tests.wheels import record_hash

from stackpatch.artefacts.engines.context import Executable, write_context
from stackpatch.artefacts.layer import Kind
from stackpatch.artefacts.site import Installed, Reading, Site
from stackpatch.artefacts.tree_changes import Changed, ChangedFile, changed_files
from stackpatch.artefacts.tree_layer import refuse_other_release, tree_layer_entries
from stackpatch.artefacts.tree_source import context_files
from stackpatch.errors import InputError
from stackpatch.installed.record import Row, parse_record
from stackpatch.model.layout import Layout
from stackpatch.sources.objects import Entry, Objects

from .test_tree_plan import plan

if TYPE_CHECKING:
    from pathlib import Path

RULES = Layout.of([("llm/", "python/llm/"), ("llm/libs/", None)])
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
EPOCH = 1_770_000_000


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    pygit2.init_repository(str(tmp_path / "o.git"), bare=True)
    return Objects(tmp_path / "o.git")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def changed(
    objects: Objects, before: dict[str, bytes], after: dict[str, bytes | None], mode: int = 0o100644
) -> Changed:
    held = {path: Entry(0o100644, objects.write_blob(text)) for path, text in before.items()}
    tree = objects.with_changes("", held)
    new = {
        path: None if text is None else Entry(mode, objects.write_blob(text))
        for path, text in after.items()
    }
    return changed_files(objects, tree, new, RULES)


def test_files_are_placed_where_the_package_has_them(objects: Objects) -> None:
    found = changed(
        objects,
        {"python/llm/a.py": b"old", "python/llm/gone.py": b"x", "tests/t.py": b"x", "same": b"x"},
        {
            "python/llm/a.py": b"new",
            "python/llm/gone.py": None,
            "python/llm/new.py": b"n",
            "tests/t.py": b"y",
            "same": b"x",
        },
    )
    assert found.outside == ("tests/t.py",)
    assert found.placed(editable=False) == {
        "llm/a.py": ChangedFile(b"new", 0o644, sha256(b"old"), ("llm/a.py",)),
        "llm/gone.py": ChangedFile(None, 0, sha256(b"x"), ("llm/gone.py",)),
        "llm/new.py": ChangedFile(b"n", 0o644, None, ("llm/new.py",)),
    }
    editable = found.placed(editable=True)
    assert list(editable) == ["python/llm/a.py", "python/llm/gone.py", "python/llm/new.py"]


def test_a_program_stays_one_and_a_link_is_refused(objects: Objects) -> None:
    found = changed(objects, {"python/llm/t.sh": b"x"}, {"python/llm/t.sh": b"x"}, 0o100755)
    assert found.files["python/llm/t.sh"].mode == 0o755, "the mode alone is a change"
    with pytest.raises(InputError, match=r"python/llm/l is a symbolic link"):
        changed(objects, {}, {"python/llm/l": b"/etc"}, 0o120000)


@pytest.mark.parametrize(
    ("before", "after"), [(POINTER, b"real"), (b"real", POINTER), (POINTER, None), (None, POINTER)]
)
def test_a_file_of_git_lfs_is_refused(
    objects: Objects, before: bytes | None, after: bytes | None
) -> None:
    held = {} if before is None else {"python/llm/k.bin": before}
    with pytest.raises(InputError, match=r"python/llm/k\.bin is kept by Git LFS"):
        changed(objects, held, {"python/llm/k.bin": after})


# -- the layer ------------------------------------------------------------------------------------

FILES = {
    "llm/a.py": ChangedFile(b"new", 0o644, sha256(b"old"), ()),
    "llm/gone.py": ChangedFile(None, 0, sha256(b"x"), ()),
    "llm/tool": ChangedFile(b"#!", 0o755, None, ()),
}
HELD = {"llm/a.py": b"old", "llm/gone.py": b"x", "llm/other.py": b"o"}
PYC = "llm/__pycache__/a.cpython-312.pyc"


def installed(version: str = "1.0", held: dict[str, bytes] = HELD) -> Site:
    """As it is read of an image, every layer of it."""
    record = {path: Row.of(path, content) for path, content in held.items()}
    record |= {path: Row(path, "", "") for path in (PYC, "llm-1.0.dist-info/RECORD")}
    found = Installed(
        version,
        "llm-1.0.dist-info",
        record,
        {},
        frozenset(record),
        {path: record_hash(content) for path, content in held.items()},
        {"llm-py": "llm-1.0.dist-info", "llm-kernels": "llm_kernels-1.dist-info"},
        {"llm-kernels": frozenset({"llm_kernels/k.so"})},
    )
    return Site("opt/site", found, reading=Reading(1, 1, 9))


def test_the_layer_has_the_changes_and_hides_what_would_be_met_instead() -> None:
    made = tree_layer_entries(FILES, installed(), epoch=EPOCH, shadowing=["llm-kernels"])
    files = {one.path: one for one in made if one.kind is Kind.FILE}
    assert {path: one.mode for path, one in files.items()} == {
        "opt/site/llm/a.py": 0o644,
        "opt/site/llm/tool": 0o755,
        "opt/site/llm-1.0.dist-info/RECORD": 0o644,
    }
    hidden = {one.path for one in made if one.kind is Kind.WHITEOUT}
    assert hidden == {f"opt/site/{path}" for path in (PYC, "llm/gone.py", "llm_kernels")}
    assert {one.mtime for one in made} == {EPOCH}
    record = files["opt/site/llm-1.0.dist-info/RECORD"].content
    assert record is not None
    rows = parse_record(record)
    assert list(rows) == sorted(rows)
    assert rows["llm/a.py"] == Row.of("llm/a.py", b"new")
    assert rows["llm/tool"] == Row.of("llm/tool", b"#!")
    assert not {"llm/gone.py", PYC} & rows.keys()
    assert rows["llm/other.py"] == Row.of("llm/other.py", b"o")


def test_on_nothing_there_is_nothing_to_hide() -> None:
    made = tree_layer_entries(FILES, Site("opt/site"), epoch=EPOCH, on_top=False, shadowing=["x"])
    assert {one.kind for one in made} == {Kind.FILE}


def test_without_a_look_the_names_of_bytecode_are_guessed() -> None:
    site = Site("opt/site", python="3.12")
    made = tree_layer_entries(FILES, site, epoch=EPOCH)
    hidden = {one.path for one in made if one.kind is Kind.WHITEOUT}
    assert f"opt/site/{PYC}" in hidden
    assert not [one for one in made if one.path.endswith("RECORD")]


@pytest.mark.parametrize(
    ("site", "said"),
    [
        (installed("1.1"), "has llm-py 1.1, the patched release is 1.0"),
        (installed("what?"), "has llm-py what[?], the patched release is 1.0"),
        (installed(held={**HELD, "llm/a.py": b"mine"}), "llm/a.py .* it was changed there"),
        (installed(held={"llm/gone.py": b"x"}), "llm/a.py .* it is missing there"),
        (installed(held={**HELD, "llm/tool": b""}), "llm/tool is new in the series"),
    ],
)
def test_an_image_with_something_else_is_refused(site: Site, said: str) -> None:
    with pytest.raises(InputError, match=said):
        refuse_other_release(plan().inputs, FILES, site)


def test_the_image_of_the_release_and_one_that_was_not_read_are_taken() -> None:
    refuse_other_release(plan().inputs, FILES, installed())
    refuse_other_release(plan().inputs, FILES, Site("opt/site"))


# -- the build context ----------------------------------------------------------------------------


def test_the_context_has_each_file_with_its_mode_and_a_list_of_digests(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("install.py", "source.py"):
        (tools / name).write_text(name)
    (tmp_path / "llm.Dockerfile").write_text("FROM scratch\n")
    odd = os.fsdecode(b"llm/\xff.py")
    files = context_files(
        Changed({**FILES, odd: ChangedFile(b"o", 0o644, None, ())}), tmp_path / "llm.Dockerfile"
    )
    assert files["source/patched.sha256"] == (
        f"{sha256(b'new')}  llm/a.py\n-  llm/gone.py\n{sha256(b'#!')}  llm/tool\n".encode()
        + f"{sha256(b'o')}  ".encode()
        + b"llm/\xff.py\n"
    )
    assert isinstance(files["source/files/llm/tool"], Executable)
    write_context(tmp_path / "context", tmp_path / "llm.Dockerfile", files)
    below = tmp_path / "context" / "source" / "files" / "llm"
    assert {path.name: path.stat().st_mode & 0o777 for path in below.iterdir()} == {
        "a.py": 0o644,
        "tool": 0o755,
        os.fsdecode(b"\xff.py"): 0o644,
    }


def test_a_name_that_the_list_cannot_hold_is_refused(tmp_path: Path) -> None:
    bad = Changed({"llm/a\nb.py": ChangedFile(b"", 0o644, None, ())})
    with pytest.raises(InputError, match="line break"):
        context_files(bad, tmp_path / "x.Dockerfile")
