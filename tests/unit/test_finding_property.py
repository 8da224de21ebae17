"""Reading layers from the top until everything was met gives what unpacking all of them gives."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import IO, TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from tests.wheels import record_hash

from stackpatch.artefacts.finding import Search
from stackpatch.artefacts.oci import LAYER, Descriptor, Image, Platform, dump_json
from stackpatch.checks.verify import Expected, State, Wanted, verify_image
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping

SITE = "opt/python3.12/site-packages"
INFO = f"{SITE}/demo-1.dist-info/RECORD"
FILES = ("demo/a.py", "demo/b.py", "demo/sub/c.py")
PATCHED, RELEASED = b"patched\n", b"released\n"
# What one layer may hold: each name leads to an entry. None: a whiteout (by its own name).
ENTRIES: Mapping[str, tuple[str, bytes]] = {
    **{f"{path} patched": (f"{SITE}/{path}", PATCHED) for path in FILES},
    **{f"{path} released": (f"{SITE}/{path}", RELEASED) for path in FILES},
    **{f"{path} other": (f"{SITE}/{path}", b"x") for path in FILES},
    "hide a": (f"{SITE}/demo/.wh.a.py", b""),
    "hide c": (f"{SITE}/demo/sub/.wh.c.py", b""),
    "hide sub": (f"{SITE}/demo/.wh.sub", b""),
    "hide demo": (f"{SITE}/.wh.demo", b""),
    "empty demo": (f"{SITE}/demo/.wh..wh..opq", b""),
    "empty site": (f"{SITE}/.wh..wh..opq", b""),
    "hide opt": (".wh.opt", b""),
    "demo is a file": (f"{SITE}/demo", b"a file"),
    "sub is a file": (f"{SITE}/demo/sub", b"a file"),
    "the dist-info": (INFO, b"demo/a.py,,\n"),
    "hide the dist-info": (f"{SITE}/.wh.demo-1.dist-info", b""),
    "elsewhere": ("etc/motd", b"hello"),
}


def possible(names: frozenset[str]) -> dict[str, bytes]:
    """The entries of a layer, without those that lie below a file of the same layer."""
    entries = dict(ENTRIES[name] for name in sorted(names))
    return {
        path: content
        for path, content in entries.items()
        if not any(path.startswith(f"{other}/") for other in entries)
    }


layers = st.lists(
    st.frozensets(st.sampled_from(sorted(ENTRIES)), max_size=6).map(possible),
    min_size=1,
    max_size=5,
)


def unpacked(stack: list[dict[str, bytes]]) -> dict[str, bytes]:
    """What unpacking every layer leaves, the lowest first: image-spec 1.1, layer.md, by hand."""
    tree: dict[str, bytes] = {}
    for layer in stack:
        for path in layer:
            folder, _, name = path.rpartition("/")
            if name == ".wh..wh..opq":
                tree = {p: c for p, c in tree.items() if not p.startswith(f"{folder}/")}
            elif name.startswith(".wh."):
                gone = f"{folder}/{name[4:]}".lstrip("/")
                tree = {p: c for p, c in tree.items() if p != gone and not p.startswith(f"{gone}/")}
        for path, content in layer.items():
            if path.rpartition("/")[2].startswith(".wh."):
                continue
            above = {path[:at] for at, char in enumerate(path) if char == "/"}
            tree = {
                p: c for p, c in tree.items() if not p.startswith(f"{path}/") and p not in above
            }
            tree[path] = content
    return tree


class Stacked:
    """The layers as a source that counts what is read."""

    label = "the layers"

    def __init__(self, stack: list[dict[str, bytes]]) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.layers: list[Descriptor] = []
        self.read: list[Digest] = []
        for number, layer in enumerate(stack):
            out = io.BytesIO()
            with tarfile.open(fileobj=out, mode="w") as tar:
                for path, content in {**layer, f"n{number}": b""}.items():
                    info = tarfile.TarInfo(path)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
            digest = Digest.of(out.getvalue())
            self.blobs[digest] = out.getvalue()
            self.layers.append(Descriptor(LAYER, digest, len(out.getvalue())))

    def document(self, descriptor: Descriptor) -> bytes:
        raise AssertionError(descriptor)

    def open_blob(self, descriptor: Descriptor) -> IO[bytes]:
        self.read.append(descriptor.digest)
        return io.BytesIO(self.blobs[descriptor.digest])

    def image(self) -> Image:
        base = Image.scratch(Platform("linux", "amd64"))
        config = base.config_json()
        config["rootfs"]["diff_ids"] = [str(layer.digest) for layer in self.layers]
        raw = dump_json(config)
        manifest = base.manifest_json()
        manifest["config"] |= {"digest": str(Digest.of(raw)), "size": len(raw)}
        manifest["layers"] = [layer.json() for layer in self.layers]
        return Image.read(dump_json(manifest), raw, where="a test")


WANTED = Wanted(
    "demo",
    None,
    "1",
    {
        "demo/a.py": Expected(PATCHED, hashlib.sha256(RELEASED).hexdigest()),
        "demo/b.py": Expected(PATCHED, None),
        "demo/sub/c.py": Expected(None, hashlib.sha256(RELEASED).hexdigest()),
    },
    {},
)


def expected(tree: Mapping[str, bytes], path: str) -> set[State]:
    """What the file is, by the unpacked tree; a file that is not there may be hidden or missing."""
    content = tree.get(f"{SITE}/{path}")
    if WANTED.files[path].content is None:
        return {State.PRESENT if content is not None else State.REMOVED}
    if content is None:
        return {State.HIDDEN, State.MISSING}
    if content == PATCHED:
        return {State.PATCHED}
    released = content == RELEASED and WANTED.files[path].released is not None
    return {State.RELEASED if released else State.OTHER}


@given(layers)
def test_verify_says_what_unpacking_shows(stack: list[dict[str, bytes]]) -> None:
    there = Stacked(stack)
    found = verify_image(there, there.image(), WANTED, site=SITE)
    tree = unpacked(stack)
    for one in found.files:
        assert one.state in expected(tree, one.path), (one, stack)
    ups = [layer.digest for layer in reversed(there.layers)]
    assert there.read == ups[: found.read]


@given(layers)
def test_the_search_finds_the_dist_info_that_unpacking_leaves(
    stack: list[dict[str, bytes]],
) -> None:
    there = Stacked(stack)
    search = Search("demo", watched=FILES, site=None)
    for layer in reversed(there.layers):
        search.read(there, layer)
        if search.enough():
            break
    tree = unpacked(stack)
    assert search.folder() == (SITE if INFO in tree else None)
    if search.folder() is not None:
        for path in FILES:
            content = tree.get(f"{SITE}/{path}")
            assert search.has(f"{SITE}/{path}") == (content is not None)
            found = search.content(f"{SITE}/{path}")
            assert found == (record_hash(content) if content is not None else None)


@given(layers, st.integers(0, 4))
def test_a_layer_that_cannot_be_read_never_makes_an_image_right(
    stack: list[dict[str, bytes]], number: int
) -> None:
    there = Stacked(stack)
    broken = there.layers[number % len(there.layers)]
    whole = there.blobs[broken.digest]
    there.blobs[broken.digest] = whole[:-1]
    found = verify_image(there, there.image(), WANTED, site=SITE)
    if broken.digest not in there.read:
        assert found.unread is None
        return
    assert found.unread is not None
    above = Stacked(stack[there.layers.index(broken) + 1 :])
    decided = verify_image(above, above.image(), WANTED, site=SITE)
    for one, by_above in zip(found.files, decided.files, strict=True):
        match by_above.state:
            case State.MISSING:
                assert one.state is State.UNKNOWN
            case State.REMOVED:  # hidden above, or in no layer above
                assert one.state in (State.REMOVED, State.UNKNOWN)
            case _:
                assert one.state is by_above.state
    assert not found.right
