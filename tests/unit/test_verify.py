"""`verify`: each state of a file, what is read for it, and what is never called right."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.images import LayoutMaker, tar_layer
from tests.shop import OTHER_GATE, Shop
from tests.stack import PATCHED_GATE
from tests.unit.test_base_remote import Distant
from tests.unit.test_overlay import SITE, installed
from tests.wheels import FILES

from stackpatch.artefacts.layout import Layout
from stackpatch.artefacts.oci import Platform
from stackpatch.checks.verify import Expected, State, Wanted, verify_image

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.projects import Ran

    from stackpatch.checks.verify import Verified

ARM = Platform.parse("linux/arm64")
GATE = "demo/gate.py"
VERSION = "1.2.3+sp.0a1b2c3d"
NEW = f"demo-{VERSION}.dist-info"
BIG = {"usr/share/big": b"\x00" * 300_000}


def sha(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


WANTED = Wanted(
    "demo",
    "demo",
    VERSION,
    {
        GATE: Expected(PATCHED_GATE, sha(FILES[GATE])),
        "demo/new.py": Expected(b"NEW = 1\n", None),
        "demo/old.py": Expected(None, sha(FILES["demo/old.py"])),
    },
    {"stackpatch.stack": "demo", "stackpatch.series": "sha256:1"},
)
OVERLAY: dict[str, bytes | None] = {
    f"{SITE}/{GATE}": PATCHED_GATE,
    f"{SITE}/demo/new.py": b"NEW = 1\n",
    f"{SITE}/demo/.wh.old.py": b"",
    f"{SITE}/.wh.demo-1.2.3.dist-info": b"",
    f"{SITE}/{NEW}/RECORD": b"",
}


def image(folder: Path, *layers: Mapping[str, bytes | None], **options: Any) -> Distant:
    maker = LayoutMaker(folder / "there")
    options = {"architecture": "arm64", **options}
    entry = maker.image([tar_layer(one) for one in layers], **options)
    return Distant(Layout.open(maker.write(entry)))


def verified(there: Distant, **options: Any) -> Verified:
    return verify_image(there, there.layout.image(ARM), WANTED, **options)


def states(found: Verified) -> dict[str, str]:
    return {one.path.removeprefix("demo/"): one.state.value for one in found.files}


RIGHT = {"gate.py": "patched", "new.py": "patched", "old.py": "removed"}


def test_an_overlay_is_decided_by_its_own_layer(tmp_path: Path) -> None:
    there = image(tmp_path, BIG, installed(), OVERLAY)
    found = verified(there)
    assert states(found) == RIGHT
    assert (found.right, found.version, found.folder) == (True, VERSION, SITE)
    assert (found.read, found.of, len(there.blobs)) == (1, 3, 1)
    assert found.bytes < 2000 < found.of_bytes
    assert found.wrongs() == []


def test_the_base_alone_is_released(tmp_path: Path) -> None:
    found = verified(image(tmp_path, BIG, installed()))
    assert states(found) == {"gate.py": "released", "new.py": "missing", "old.py": "present"}
    assert not found.right
    assert "its demo is 1.2.3, not 1.2.3+sp.0a1b2c3d" in found.wrongs()
    assert found.read == 2  # a new file may be in the lowest layer


@pytest.mark.parametrize(
    ("above", "path", "state"),
    [
        ({f"{SITE}/{GATE}": b"edited"}, "gate.py", State.OTHER),
        ({f"{SITE}/{GATE} -> elsewhere.py": b""}, "gate.py", State.OTHER),
        ({f"{SITE}/{GATE}": FILES[GATE]}, "gate.py", State.RELEASED),
        ({f"{SITE}/demo/.wh.gate.py": b""}, "gate.py", State.HIDDEN),
        ({f"{SITE}/.wh.demo": b""}, "gate.py", State.HIDDEN),
        ({f"{SITE}/demo/.wh..wh..opq": b""}, "gate.py", State.HIDDEN),
        ({f"{SITE}/demo": b"a file now"}, "gate.py", State.HIDDEN),
        ({f"{SITE}/demo/old.py": b"GONE = True\n"}, "old.py", State.PRESENT),
    ],
)
def test_what_a_later_layer_does_counts(
    tmp_path: Path, above: dict[str, bytes | None], path: str, state: State
) -> None:
    found = verified(image(tmp_path, installed(), OVERLAY, above))
    assert states(found)[path] == state
    assert not found.right


def test_what_a_later_layer_does_elsewhere_does_not_count(tmp_path: Path) -> None:
    found = verified(image(tmp_path, installed(), OVERLAY, {"etc/motd": b"x", "srv/.wh.demo": b""}))
    assert (found.right, found.read) == (True, 2)


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_nothing_is_right_while_a_layer_that_decides_is_unread(tmp_path: Path, how: str) -> None:
    there = image(tmp_path, installed(), OVERLAY, {"etc/motd": b"x" * 5000})
    top = there.layout.blob_path(there.layout.image(ARM).layers[-1].digest)
    if how == "missing":
        top.unlink()
    else:
        top.write_bytes(top.read_bytes()[:30])
    found = verified(there)
    assert set(states(found).values()) == {"unknown"}
    assert (found.right, found.read) == (False, 0)
    assert found.unread is not None
    assert found.unread.startswith("layer sha256:")


def test_a_base_layer_that_is_not_at_hand_decides_only_what_it_may_hold(tmp_path: Path) -> None:
    whole = dict(OVERLAY)
    there = image(tmp_path, installed(), whole)
    base = there.layout.image(ARM).layers[0]
    there.layout.blob_path(base.digest).unlink()
    assert verified(there).right
    del whole[f"{SITE}/demo/new.py"]
    other = image(tmp_path / "b", installed(), whole)
    other.layout.blob_path(base.digest).unlink()
    found = verified(other)
    assert states(found) == {**RIGHT, "new.py": "unknown"}
    assert not found.right


def test_a_hard_link_is_not_guessed_at(tmp_path: Path) -> None:
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, content in OVERLAY.items():
            info = tarfile.TarInfo(path)
            linked = path.endswith(GATE)
            if linked:
                info.type, info.linkname = tarfile.LNKTYPE, "opt/store/gate.py"
            info.size = 0 if linked else len(content or b"")
            tar.addfile(info, io.BytesIO(b"" if linked else content or b""))
    maker = LayoutMaker(tmp_path / "there")
    entry = maker.image([tar_layer(installed()), out.getvalue()], architecture="arm64")
    found = verified(Distant(Layout.open(maker.write(entry))))
    assert states(found)["gate.py"] == "unknown"
    assert "a hard link to opt/store/gate.py" in found.wrongs()[0]


def test_an_image_without_the_package(tmp_path: Path) -> None:
    found = verified(image(tmp_path, {"etc/motd": b"x"}))
    assert set(states(found).values()) == {"missing"}
    assert (found.right, found.folder) == (False, None)


def test_a_named_folder_is_the_one_that_counts(tmp_path: Path) -> None:
    there = image(tmp_path, installed(), OVERLAY)
    assert verified(there, site=f"/{SITE}/").right
    assert not verified(there, site="/srv/packages").right


def labelled(labels: dict[str, str], notes: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "config": {"config": {"Labels": labels}},
        "manifest": {"annotations": notes or {}},
    }


@pytest.mark.parametrize(
    ("labels", "notes", "right"),
    [
        ({}, {}, True),
        ({"stackpatch.stack": "demo", "stackpatch.series": "sha256:1"}, {}, True),
        ({"stackpatch.series": "sha256:2"}, {}, False),
        ({"stackpatch.series": "sha256:1"}, {"stackpatch.series": "sha256:2"}, False),
        ({"stackpatch.stack": "other"}, {}, True),
        ({"stackpatch.stack": "other", "stackpatch.requires": f"demo={VERSION}"}, {}, True),
        ({"stackpatch.stack": "other", "stackpatch.requires": "demo=1"}, {}, False),
    ],
)
def test_what_the_image_says_of_itself(
    tmp_path: Path, labels: dict[str, str], notes: dict[str, str], right: bool
) -> None:
    found = verified(image(tmp_path, installed(), OVERLAY, **labelled(labels, notes)))
    assert states(found) == RIGHT
    assert found.right is right


# -- the command --------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("STACKPATCH_CACHE_DIR", "replaced by the shop, restored by pytest")
    return Shop(tmp_path)


def base_of(shop: Shop, files: Mapping[str, bytes | None] | None = None) -> Path:
    maker = LayoutMaker(shop.folder / "base")
    layers = [tar_layer(BIG), tar_layer(installed() if files is None else files)]
    return maker.write(maker.image(layers, architecture="arm64"))


def verify(shop: Shop, place: str | Path, *words: str) -> Ran:
    return shop.run("verify", str(place), "--stack", "demo", "--arch", "sm121", "--json", *words)


def test_a_build_verifies(shop: Shop) -> None:
    made = shop.build("--base", str(base_of(shop))).document["image"]
    ran = verify(shop, made["path"])
    assert ran.status == 0, ran.err
    document = ran.document
    assert document["schema"] == "stackpatch.verify/1"
    assert document["right"] is True
    assert document["image"]["digest"] == made["digest"]
    assert {one["path"]: one["state"] for one in document["files"]} == {
        "demo/gate.py": "patched",
        "demo/_meta.py": "patched",
    }
    assert document["layers"]["read"] == 1
    assert document["layers"]["of"] == 3
    assert all(one["found"] == one["wanted"] for one in document["labels"])
    people = shop.run("verify", made["path"], "--stack", "demo", "--arch", "sm121")
    assert people.status == 0
    assert "right    yes" in people.out
    by_digest = verify(shop, f"{made['path']}@{made['digest']}")
    assert by_digest.document["right"] is True


def test_from_scratch_too(shop: Shop) -> None:
    made = shop.build().document["image"]
    assert verify(shop, made["path"]).status == 0


def test_another_series_is_a_finding(shop: Shop) -> None:
    made = shop.build("--base", str(base_of(shop))).document["image"]
    shop.write(gate=OTHER_GATE)
    ran = verify(shop, made["path"])
    assert ran.status == 1
    document = ran.document
    assert document["right"] is False
    assert {one["path"]: one["state"] for one in document["files"]}["demo/gate.py"] == "other"
    assert {one["name"] for one in document["labels"] if one["found"] != one["wanted"]} == {
        "stackpatch.series",
        "stackpatch.version",
    }
    assert document["error"]["kind"] == "finding"


def test_the_base_is_a_finding(shop: Shop) -> None:
    ran = verify(shop, base_of(shop))
    assert ran.status == 1
    assert "demo/_meta.py is released" in ran.document["error"]["message"]


def test_the_wrong_platform_is_said(shop: Shop) -> None:
    made = shop.build().document["image"]
    ran = shop.run("verify", made["path"], "--stack", "demo", "--arch", "sm120", "--json")
    assert ran.status == 2
    assert ran.document["error"]["hint"] == "it has linux/arm64"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("./none",), "no such folder"),
        (("none",), "no such folder"),
        (("oci:none",), "no such folder"),
        (("docker.io/a/b:1", "--offline"), "a tag may name another image today"),
        ((f"docker.io/a/b@sha256:{'0' * 64}", "--offline"), "--offline forbids"),
        (("docker.io/A/b:1",), "no capitals"),
        ((".", "--editable"), "--editable needs the folder"),
    ],
)
def test_bad_images(shop: Shop, words: tuple[str, ...], said: str) -> None:
    ran = verify(shop, *words)
    assert ran.status == 2
    assert said in ran.document["error"]["message"]


def test_a_file_is_no_image(shop: Shop) -> None:
    ran = verify(shop, shop.folder)
    assert ran.status == 2
    assert "is not an OCI layout" in ran.document["error"]["message"]


def test_an_editable_installation(shop: Shop) -> None:
    maker = LayoutMaker(shop.folder / "base")
    entry = maker.image([tar_layer({"workspace/demo/demo/x.py": b""})], architecture="arm64")
    layout = maker.write(entry)
    shop.write(
        bases=f"""\
    bases:
      - image: registry.test/demo
        digest: {entry["digest"]}
        platforms: [linux/arm64]
        kind: editable
        path: /workspace/demo
        python: "3.12"
        evidence: this test
"""
    )
    made = shop.build("--base", str(layout)).document["image"]
    ran = verify(shop, made["path"])
    assert (ran.status, ran.document["editable"]) == (0, True)
    assert [one["path"] for one in ran.document["files"]] == ["demo/gate.py"]
    # Without the recipe's word the image's own label says it, and a person may.
    shop.write()
    for words in ((), ("--site", "/workspace/demo", "--editable")):
        again = verify(shop, made["path"], *words)
        assert (again.status, again.document["editable"]) == (0, True)
        assert json.dumps(again.document["files"]) == json.dumps(ran.document["files"])
