"""The overlay engine: a base image and one layer with what the patched wheel changes.

After the layer, the image's site folder is what installing the patched wheel there would have
made of it: changed files, no removed ones, no bytecode of either, and one dist-info, the patched
version's, whose RECORD still names what the base's installer wrote beside it (scripts, bytecode).
So `importlib.metadata`, `pip list` and `pip uninstall` see the patched version and only that.

An editable installation is a copy of the git tree: there only the tree's own files are changed,
and its dist-info, which lies elsewhere, stays. Distributions whose prebuilt code would win over
the patched source are taken out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import parse_wheel_filename
from packaging.version import InvalidVersion, Version

from stackpatch.artefacts.layer import Entry, Kind, Layer, make_layer
from stackpatch.artefacts.lock import rfc3339
from stackpatch.artefacts.site import Site, compiled_leftovers, taken_out
from stackpatch.artefacts.wheel import InstalledFile, WheelResult
from stackpatch.errors import InputError
from stackpatch.installed.record import Row, dump_record, parse_record

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from stackpatch.artefacts.oci import Image
    from stackpatch.model.layout import Layout

INSTALLER = b"stackpatch\n"
BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"


@dataclass(frozen=True, slots=True)
class Overlay:
    """The new image and its one new layer."""

    image: Image
    layer: Layer


def overlay(
    base: Image,
    wheel: WheelResult,
    site: Site,
    *,
    base_name: str | None,
    epoch: int,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    env: Mapping[str, str],
    shadowing: Collection[str] = (),
    tree: Layout | None = None,
    under: Image | None = None,
) -> Overlay:
    """The image with the patched files on top.

    base: `Image.scratch` for none. under: what the layer is put on, where other stacks' layers
    lie on the base already. base_name: what the base is called, for the annotation.
    epoch: Unix time of the new files, the layer and the image. labels and annotations are added;
    env goes into the image's environment. shadowing: distributions to take out of a base. tree:
    how the wheel's paths lie in the git tree, where the site is one. Raises InputError when the
    image holds another version, or files other than the released ones where the series changes
    them.
    """
    if wheel.elsewhere:
        msg = f"the overlay engine cannot place {wheel.elsewhere[0]}, which installs elsewhere"
        raise InputError(msg, hint="leave it out of the series or build with another engine")
    on_top = bool(base.layers)
    if on_top:
        _same_python(wheel, site)
    if site.installed is not None:
        _same_release(wheel, site)
    if tree is not None:
        entries = tree_entries(wheel, site, tree, epoch=epoch)
    else:
        entries = layer_entries(wheel, site, epoch=epoch, on_top=on_top, shadowing=shadowing)
    layer = make_layer(entries, epoch=epoch, folders=site.folders)
    notes = {**annotations, **labels, **base_annotations(base, base_name)}
    image = (under or base).with_layer(
        layer,
        created=rfc3339(epoch),
        comment=f"stackpatch overlay {wheel.name} {wheel.version}",
        annotations=notes,
        labels=labels,
        env=env,
    )
    return Overlay(image, layer)


def base_annotations(base: Image, name: str | None) -> dict[str, str]:
    """What an image says of its base; nothing of `scratch`. name: what the base is called."""
    if not base.layers:
        return {}
    named = {BASE_NAME: name} if name else {}
    return {BASE_DIGEST: str(base.digest), **named}


def layer_entries(
    wheel: WheelResult,
    site: Site,
    *,
    epoch: int,
    on_top: bool,
    shadowing: Collection[str] = (),
) -> tuple[Entry, ...]:
    """The layer's files and, where it lies on top of something, whiteouts."""
    files = dict(wheel.files)
    record_name = f"{wheel.dist_info}/RECORD"
    record = parse_record(files.pop(record_name).content)
    kept = dict(site.installed.kept) if site.installed else {"INSTALLER": INSTALLER}
    for name, content in kept.items():
        files[f"{wheel.dist_info}/{name}"] = InstalledFile(content)
    touched = [path for path in (*files, *wheel.removed) if path.endswith(".py")]
    stale = compiled_leftovers(site, touched) if on_top else ()
    rows = _installed_rows(site, record, gone={*stale, *wheel.removed})
    rows |= {path: Row.of(path, file.content) for path, file in files.items()}
    rows[record_name] = Row(record_name, "", "")
    # Installers write RECORD sorted; the order says nothing.
    files[record_name] = InstalledFile(dump_record(rows[path] for path in sorted(rows)))
    entries = [
        Entry(
            f"{site.path}/{path}",
            content=file.content,
            mode=0o755 if file.executable else 0o644,
            mtime=epoch,
        )
        for path, file in files.items()
    ]
    if on_top:
        old = site.installed.dist_info if site.installed else wheel.old_dist_info
        hidden = {old, *stale, *wheel.removed}
        hidden.update(path for paths in taken_out(site, shadowing).values() for path in paths)
        entries += [
            Entry(f"{site.path}/{path}", Kind.WHITEOUT, mtime=epoch) for path in sorted(hidden)
        ]
    return tuple(entries)


def tree_entries(wheel: WheelResult, site: Site, tree: Layout, *, epoch: int) -> tuple[Entry, ...]:
    """The layer of a git tree in the site folder: changed files, whiteouts of removed ones.

    What the wheel has and git does not (metadata, generated files) has no place there.
    """
    own = f"{wheel.dist_info}/"
    placed = {
        git: file
        for path, file in wheel.files.items()
        if not path.startswith(own) and (git := tree.to_git(path)) is not None
    }
    old = f"{wheel.old_dist_info}/"
    removed = [
        git
        for path in wheel.removed
        if not path.startswith(old) and (git := tree.to_git(path)) is not None
    ]
    hidden = {*removed, *compiled_leftovers(site, [*placed, *removed])}
    return (
        *(
            Entry(
                f"{site.path}/{path}",
                content=file.content,
                mode=0o755 if file.executable else 0o644,
                mtime=epoch,
            )
            for path, file in sorted(placed.items())
        ),
        *(Entry(f"{site.path}/{path}", Kind.WHITEOUT, mtime=epoch) for path in sorted(hidden)),
    )


def _installed_rows(site: Site, record: Mapping[str, Row], gone: set[str]) -> dict[str, Row]:
    """RECORD's rows by path: the wheel's, and those that the base's installer added to them."""
    rows = dict(record)
    if site.installed is not None:
        old = f"{site.installed.dist_info}/"
        for path, row in site.installed.record.items():
            if not path.startswith(old) and path not in gone:
                rows.setdefault(path, row)
    return rows


def _same_python(wheel: WheelResult, site: Site) -> None:
    """Refuse a wheel that is bound to another CPython than the base's: its compiled files, which
    stay the base's, have other names."""
    tags = parse_wheel_filename(wheel.path.name)[3]
    bound = {tag.interpreter for tag in tags if tag.abi not in ("none", "abi3")}
    found = (site.bytecode_tag or "").replace("cpython-", "cp")
    if bound and found and found not in bound:
        wanted = ", ".join(sorted(bound))
        msg = f"the wheel is for {wanted}, the base image has {wheel.name} for {found}"
        raise InputError(msg, hint="correct `python` in the recipe, or take another base image")


def _same_release(wheel: WheelResult, site: Site) -> None:
    """Refuse to patch another version, or files that are not the released ones."""
    installed = site.installed
    if installed is None:
        return
    wanted = wheel.old_dist_info.removesuffix(".dist-info").rpartition("-")[2]
    try:
        same = Version(installed.version) == Version(wanted)
    except InvalidVersion:
        same = False
    if not same:
        msg = (
            f"the base image has {wheel.name} {installed.version}, the patched release is {wanted}"
        )
        raise InputError(msg, hint=f"take a base image with {wheel.name} {wanted}")
    for path, released in wheel.released.items():
        stated = installed.record.get(path)
        # What lies there counts; RECORD says what an installer once put there.
        found = installed.hashes.get(path)
        if found is None or released.partition("=")[0] != "sha256":
            found = stated.hash.rstrip("=") if stated and path in installed.paths else None
        if found != released.rstrip("="):
            what = "was changed there" if found else "is missing there"
            msg = f"{path} of the base image is not the released one: it {what}"
            raise InputError(msg, hint="take a base image with the package from the index")
