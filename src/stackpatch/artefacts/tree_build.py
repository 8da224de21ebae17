"""An overlay made of a git tree: the files that a series changes, over the image that has them.

For releases that are their commit (`tree_plan`). The image keeps its installed package; what the
series changes is replaced there, in one layer, and the installation's RECORD is brought up to date
where it was read. A result is a folder that is there whole or not at all.
"""

from __future__ import annotations

import json
import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

from stackpatch import storage
from stackpatch.artefacts.base import USUAL_SITE, Base
from stackpatch.artefacts.layer import Entry, Kind, Layer, make_layer
from stackpatch.artefacts.layout import write_layout
from stackpatch.artefacts.lock import rfc3339
from stackpatch.artefacts.overlay import BASE_DIGEST, BASE_NAME
from stackpatch.artefacts.plan import Engine
from stackpatch.artefacts.record import Row, dump_record
from stackpatch.artefacts.site import Site, compiled_leftovers
from stackpatch.errors import InputError
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from stackpatch.artefacts.external import Settings
    from stackpatch.artefacts.oci import Image
    from stackpatch.artefacts.tree_plan import TreePlan
    from stackpatch.sources.objects import Entry as TreeEntry
    from stackpatch.sources.objects import Objects

    Report = Callable[[str, int, int | None], None]

LOCK, IMAGE = "lock.json", "image"
SCHEMA = "stackpatch.tree-lock/1"
_MODES = {0o100755: 0o755, 0o100644: 0o644}


@dataclass(frozen=True, slots=True)
class Changed:
    """What the series changes of an installed package, by path in its site folder.

    content: None where the file is removed. modes: permission bits of what stays. originals: the
    hash of what was there, as RECORD writes it. outside: paths of the git tree that the package
    does not have, such as tests. tree: all of it by path in the git tree, content and mode, None
    for removed.
    """

    content: Mapping[str, bytes | None]
    modes: Mapping[str, int]
    originals: Mapping[str, str]
    outside: tuple[str, ...] = ()
    tree: Mapping[str, tuple[bytes, int] | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TreeResult:
    """A finished build. reused: it was there already. notes: what a person should know of it."""

    plan: TreePlan
    folder: Path
    image: str
    reused: bool
    notes: tuple[str, ...] = field(default=())

    def json(self) -> dict[str, Any]:
        """The keys that `build --json` promises; there is no wheel."""
        return {
            "stack": self.plan.recipe.stack,
            "version": self.plan.patched,
            "arch": self.plan.arch.name,
            "engine": self.plan.engine.value,
            "key": self.plan.key,
            "reused": self.reused,
            "wheel": None,
            "image": {"path": str(self.folder / IMAGE), "digest": self.image},
            "lock": str(self.folder / LOCK),
            "notes": list(self.notes),
        }


def build_tree(
    plan: TreePlan,
    base: Base,
    *,
    out: Path,
    offline: bool = False,
    report: Report | None = None,
    settings: Settings | None = None,
    wait: float = 600.0,
) -> TreeResult:
    """Carry out a plan on its base, or find the result that is there.

    settings: of the engine, for a build from source. Raises FindingError with every failure when
    the series does not apply, InputError when the base has another version or other files than
    the released ones, what fetching raises, and what the engine does.
    """
    target = out / plan.folder
    done = _finished(target, plan)
    if done is not None:
        return done
    with storage.disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    guard = target.parent / f".{target.name}.lock"
    with storage.lock(guard, wait=wait, what=f"another build of {plan.folder}"):
        storage.sweep(target.parent, target.name)
        done = _finished(target, plan)
        if done is not None:
            return done
        changed = changes(plan, offline=offline, report=report)
        with storage.directory_beside(target) as scratch:
            if settings is None:
                image, index, notes = _overlaid(plan, base, changed, scratch, report)
            else:
                image, index, notes = _from_source(plan, base, settings, changed, scratch)
            (scratch / LOCK).write_bytes(_lock(plan, image, index, notes, scratch))
        return TreeResult(plan, target, str(image.digest), reused=False, notes=notes)


def _overlaid(
    plan: TreePlan, base: Base, changed: Changed, folder: Path, report: Report | None
) -> tuple[Image, str, tuple[str, ...]]:
    """The image with the changed files on top, below `folder`; its index's digest; notes."""
    site = _site(plan, base, changed, report)
    layer = make_layer(
        entries(changed, site, epoch=plan.release.epoch),
        epoch=plan.release.epoch,
        folders=site.folders,
    )
    image = _image(plan, base, layer, site)
    index = write_layout(
        folder / IMAGE,
        image,
        {layer.digest: layer.blob},
        base=base.layout,
        annotations={"org.opencontainers.image.ref.name": _tag(plan)},
        sparse=base.source is not None and base.layout is None,
    )
    return image, str(index), _notes(plan, base, changed, site)


def _from_source(
    plan: TreePlan, base: Base, settings: Settings, changed: Changed, folder: Path
) -> tuple[Image, str, tuple[str, ...]]:
    """The image that the engine makes of the patched sources."""
    from stackpatch.artefacts.engines import build_image
    from stackpatch.artefacts.tree_source import source_request

    labels, annotations = _told(plan)
    request = source_request(
        plan, base, settings, changed.tree, labels=labels, annotations=annotations
    )
    target = folder / IMAGE
    image = build_image(request, target, progress=settings.progress, ref_name=_tag(plan))
    index = str(Digest.of_file(target / "index.json"))
    return image, index, ("built from source by its Dockerfile; its log names every step",)


def _tag(plan: TreePlan) -> str:
    """What the image is called in its layout; a tag cannot hold a plus sign."""
    return f"{plan.patched}-{plan.arch.name}".replace("+", "_")


def changes(plan: TreePlan, *, offline: bool = False, report: Report | None = None) -> Changed:
    """The series on the release's commit. Raises as `build_tree`."""
    from stackpatch.model.reference import SourceKind, VersionRef
    from stackpatch.series.apply import apply_series
    from stackpatch.series.failures import not_applied
    from stackpatch.sources.fetch import bring
    from stackpatch.sources.store import SourceStore

    store = SourceStore(plan.recipe.stack)
    reference = VersionRef(SourceKind.GIT, plan.release.version)
    stored = bring(plan.recipe, reference, store=store, offline=offline, report=report)
    objects = store.objects.scratch()
    result = apply_series(objects, stored.tree, plan.patches, parent=stored.commit)
    if not result.applied:
        raise not_applied(plan.series, stored.label, result)
    return _placed(objects, stored.tree, result.changes, plan)


def _placed(
    objects: Objects, before: str, changed: Mapping[str, TreeEntry | None], plan: TreePlan
) -> Changed:
    content: dict[str, bytes | None] = {}
    modes: dict[str, int] = {}
    originals: dict[str, str] = {}
    outside: list[str] = []
    tree: dict[str, tuple[bytes, int] | None] = {}
    for path, entry in sorted(changed.items()):
        old = objects.entry(before, path)
        if old == entry:
            continue
        for mode in (one.mode for one in (old, entry) if one is not None):
            if mode not in _MODES:
                msg = f"{path} is a symbolic link, which a build from git does not change"
                raise InputError(msg, hint="leave it out of the series")
        tree[path] = None if entry is None else (objects.blob(entry.id), _MODES[entry.mode])
        places = plan.layout.from_git(path)
        if not places:
            outside.append(path)
            continue
        for place in places:
            content[place] = None if entry is None else objects.blob(entry.id)
            if entry is not None:
                modes[place] = _MODES[entry.mode]
            if old is not None:
                originals[place] = Row.of(place, objects.blob(old.id)).hash
    if not content and plan.engine is Engine.OVERLAY:
        msg = f"nothing that the series changes is in the package: {', '.join(outside[:3])}"
        raise InputError(msg, hint="correct `layouts.wheel` in the recipe")
    return Changed(content, modes, originals, tuple(outside), tree)


def _site(plan: TreePlan, base: Base, changed: Changed, report: Report | None) -> Site:
    """Where the package lies; read from the base's layers unless the recipe records it."""
    pinned = base.pinned
    if base.source is None:
        return Site(pinned.site or USUAL_SITE)
    if pinned.recorded and pinned.site is not None:
        return Site(pinned.site, python=pinned.python)
    from stackpatch.artefacts.finding import find_installed

    site = find_installed(
        base.source,
        base.image,
        plan.recipe.upstream.pypi,
        watched=frozenset(changed.content),
        site=pinned.site,
        report=report,
    )
    _same_release(plan, changed, site)
    return site


def _same_release(plan: TreePlan, changed: Changed, site: Site) -> None:
    """Refuse another version, and files that are not those of the commit."""
    installed = site.installed
    if installed is None:
        return
    name, wanted = plan.recipe.upstream.pypi, plan.release.version
    try:
        same = Version(installed.version) == Version(wanted)
    except InvalidVersion:
        same = False
    if not same:
        msg = f"the base image has {name} {installed.version}, the patched release is {wanted}"
        raise InputError(msg, hint=f"take a base image with {name} {wanted}")
    for path in changed.content:
        released = changed.originals.get(path)
        found = installed.hashes.get(path)
        if released is None and path in installed.paths:
            msg = f"{path} is new in the series, and the base image has one already"
            raise InputError(msg, hint="take the image of the release")
        if released is not None and (found or "").rstrip("=") != released.rstrip("="):
            what = "was changed there" if found else "is missing there"
            msg = f"{path} of the base image is not the one of the commit: it {what}"
            raise InputError(msg, hint="take the image that was made of this release")


def entries(changed: Changed, site: Site, *, epoch: int) -> tuple[Entry, ...]:
    """The layer: changed files, whiteouts of removed ones and of old bytecode, RECORD."""
    made = [
        Entry(f"{site.path}/{path}", content=content, mode=changed.modes[path], mtime=epoch)
        for path, content in sorted(changed.content.items())
        if content is not None
    ]
    removed = [path for path, content in changed.content.items() if content is None]
    stale = compiled_leftovers(site, [path for path in changed.content if path.endswith(".py")])
    made += [
        Entry(f"{site.path}/{path}", Kind.WHITEOUT, mtime=epoch)
        for path in sorted({*removed, *stale})
    ]
    if site.installed is not None:
        rows = dict(site.installed.record)
        for path, content in changed.content.items():
            rows.pop(path, None)
            if content is not None:
                rows[path] = Row.of(path, content)
        for path in stale:
            rows.pop(path, None)
        record = posixpath.join(site.installed.dist_info, "RECORD")
        text = dump_record(rows[path] for path in sorted(rows))
        made.append(Entry(f"{site.path}/{record}", content=text, mode=0o644, mtime=epoch))
    return tuple(made)


def _told(plan: TreePlan) -> tuple[dict[str, str], dict[str, str]]:
    """Labels and annotations of the image."""
    labels = {
        "stackpatch.arch": plan.arch.name,
        "stackpatch.series": f"sha256:{plan.series_sha256}",
        "stackpatch.stack": plan.recipe.stack,
        "stackpatch.version": plan.patched,
    }
    annotations = {
        "org.opencontainers.image.title": plan.recipe.stack,
        "org.opencontainers.image.version": plan.patched,
        "org.opencontainers.image.source": plan.recipe.upstream.git,
        "org.opencontainers.image.revision": str(plan.release.commit),
        **labels,
    }
    return labels, annotations


def _image(plan: TreePlan, base: Base, layer: Layer, site: Site) -> Image:
    recipe, release = plan.recipe, plan.release
    labels, annotations = _told(plan)
    kind = "editable" if base.pinned.editable else "site"
    labels["stackpatch.place"] = f"{kind}:/{site.path}"
    if base.image.layers:
        annotations[BASE_DIGEST] = str(base.image.digest)
        if base.pinned.name:
            annotations[BASE_NAME] = base.pinned.name
    return base.image.with_layer(
        layer,
        created=rfc3339(release.epoch),
        comment=f"stackpatch overlay {recipe.stack} {plan.patched}",
        annotations=annotations,
        labels=labels,
        env=recipe.arch(plan.arch.name).env,
    )


def _notes(plan: TreePlan, base: Base, changed: Changed, site: Site) -> tuple[str, ...]:
    notes = [f"not in the package, so not in the image: {path}" for path in changed.outside]
    if site.installed is None:
        notes.append(
            f"that the base has {plan.recipe.stack} {plan.release.version} in /{site.path} was not "
            "looked at, and the installation's RECORD there names the released files"
        )
    notes.append(
        f"the package in the image still says {plan.release.version}; the image's labels say "
        f"{plan.patched}"
    )
    if base.source is None:
        notes.append("made on nothing: the layer alone, to be laid on an image of the release")
    return tuple(notes)


def _lock(plan: TreePlan, image: Image, index: str, notes: tuple[str, ...], folder: Path) -> bytes:
    known = {layer.digest.hex for layer in image.layers}
    files = [
        {
            "path": path.relative_to(folder).as_posix(),
            "bytes": path.stat().st_size,
            "sha256": path.name if path.name in known else Digest.of_file(path).hex,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    document = {
        "schema": SCHEMA,
        "key": plan.key,
        "inputs": plan.json(),
        "outputs": {
            "wheel": None,
            "image": {"digest": str(image.digest), "index": index},
            "files": files,
            "notes": list(notes),
        },
    }
    text = json.dumps(document, ensure_ascii=False, indent=2, sort_keys=True)
    return f"{text}\n".encode()


def _finished(target: Path, plan: TreePlan) -> TreeResult | None:
    """What lies there, if it is whole and was made by this plan."""
    try:
        document = json.loads((target / LOCK).read_bytes())
        if document["schema"] != SCHEMA or document["key"] != plan.key:
            return None
        outputs = document["outputs"]
        for file in outputs["files"]:
            if (target / file["path"]).stat().st_size != file["bytes"]:
                return None
        notes = tuple(str(note) for note in outputs["notes"])
        return TreeResult(plan, target, str(outputs["image"]["digest"]), reused=True, notes=notes)
    except (OSError, ValueError, KeyError, TypeError):
        return None
