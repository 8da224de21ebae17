"""What a build makes: the wheel, the image, and the documents that say what went into them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from stackpatch.artefacts.base import USUAL_SITE
from stackpatch.artefacts.build import IMAGE, LOCK, PROVENANCE, SBOM
from stackpatch.artefacts.companions import asked_for, not_of_one_version, unmet
from stackpatch.artefacts.finding import find_installed
from stackpatch.artefacts.layout import write_layout
from stackpatch.artefacts.lock import Output, Outputs, dump_lock
from stackpatch.artefacts.overlay import overlay
from stackpatch.artefacts.provenance import make_provenance
from stackpatch.artefacts.rawzip import RawZip
from stackpatch.artefacts.sbom import make_sbom
from stackpatch.artefacts.site import Site, taken_out
from stackpatch.artefacts.stamp import stamp_version
from stackpatch.artefacts.wheel import WheelResult, repack
from stackpatch.errors import InputError
from stackpatch.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stackpatch.artefacts.base import Base
    from stackpatch.artefacts.build import Prepared
    from stackpatch.artefacts.oci import Descriptor, Image
    from stackpatch.artefacts.plan import Plan


def make(
    plan: Plan,
    base: Base,
    prepared: Prepared,
    folder: Path,
    report: Callable[[str, int, int | None], None] | None = None,
) -> Outputs:
    """Fill the empty folder. Raises InputError for inputs that do not fit each other.

    report: called with a label, bytes done, bytes in all, while a base is read.
    """
    inputs = plan.inputs
    wheel = _wheel(plan, prepared, folder)
    below = _companions(plan, prepared, folder, report)
    _refuse_misfits(plan, prepared)
    site = _site(plan, base, wheel, report, outside=plan.external is not None)
    image, index, elsewhere = _image(plan, base, wheel, site, below, folder)
    made, digest = _output(wheel), str(image.digest)
    lower = [(one.plan.inputs, one.plan.patches, _output(one.wheel)) for one in below]
    _write(folder / SBOM, make_sbom(inputs, plan.patches, made, digest, lower))
    pairs = [(its, output) for its, _, output in lower]
    _write(folder / PROVENANCE, make_provenance(inputs, made, digest, pairs))
    files = (made, *_listed(folder, image, but=made.path))
    notes = (*_notes(plan, base, prepared, site), *_conflicts(plan, site, below))
    if elsewhere:
        size, place = sum(one.size for one in elsewhere), base.pinned.name or base.pinned.digest
        left = f"image/ is without {len(elsewhere)} layers of the base, {size:,} bytes: they stay"
        notes += (f"{left} in {place}, and `stackpatch publish` takes them from there",)
    outputs = Outputs(made, str(image.digest), str(index), files, notes, elsewhere)
    _write(folder / LOCK, dump_lock(inputs, outputs))
    return outputs


@dataclass(frozen=True, slots=True)
class _Below:
    """A companion's patched wheel, and where it goes in the base."""

    plan: Plan
    base: Base
    wheel: WheelResult
    site: Site


def _output(wheel: WheelResult) -> Output:
    return Output(wheel.path.name, wheel.bytes, wheel.sha256)


def _wheel(plan: Plan, prepared: Prepared, folder: Path) -> WheelResult:
    """The patched wheel, in the folder."""
    inputs, shipped = plan.inputs, prepared.shipped
    if not shipped.content:
        msg = f"nothing that the series changes is in {inputs.wheel.file}"
        outside = ", ".join(shipped.outside[:3])
        raise InputError(msg, hint=f"it changes {outside}" if outside else None)
    if Digest.of_file(prepared.wheel).hex != inputs.wheel.sha256:
        msg = f"{prepared.wheel} is not the pinned wheel (sha256 {inputs.wheel.sha256})"
        raise InputError(msg, hint="remove the file and fetch it again", where=str(prepared.wheel))
    changes, originals = dict(shipped.content), dict(shipped.originals)
    if inputs.stamp is not None:
        _stamp(plan, prepared.wheel, changes, originals)
    return repack(
        prepared.wheel,
        changes,
        local_version=inputs.patched,
        target=folder,
        epoch=inputs.epoch,
        originals=originals,
        executable=shipped.executable,
    )


def _companions(
    plan: Plan,
    prepared: Prepared,
    folder: Path,
    report: Callable[[str, int, int | None], None] | None,
) -> tuple[_Below, ...]:
    """The patched wheels of the stacks that this one stands on, in the same folder."""
    made = []
    for one, its in zip(plan.companions, prepared.companions, strict=True):
        wheel = _wheel(one.plan, its, folder)
        outside = plan.external is not None
        site = _site(one.plan, one.base, wheel, report, outside=outside)
        made.append(_Below(one.plan, one.base, wheel, site))
    return tuple(made)


def _refuse_misfits(plan: Plan, prepared: Prepared) -> None:
    """Refuse companions in a version that the released wheel's own metadata does not ask for.

    Raises InputError.
    """
    inputs = plan.inputs
    with RawZip(prepared.wheel) as source:
        name = next((n for n in source.members if n.endswith(".dist-info/METADATA")), None)
        metadata = source.read(source.members[name]) if name else b""
    wanted = asked_for(metadata, platform=inputs.platform, python=None)
    there: dict[str, str] = {
        canonicalize_name(one.plan.inputs.distribution): one.plan.inputs.patched
        for one in plan.companions
    }
    misfits = unmet(wanted, there)
    if misfits:
        msg = f"{inputs.wheel.file} asks for other versions than the recipe: {'; '.join(misfits)}"
        raise InputError(msg, hint="correct `requires` of the release in the recipe")


def _conflicts(plan: Plan, site: Site, below: Sequence[_Below]) -> tuple[str, ...]:
    """Packages of the base that must be of one version with ours and are not.

    Only as far as the base was read.
    """
    lines: list[str] = []
    for one, its in ((plan, site), *((lower.plan, lower.site) for lower in below)):
        if its.installed is None:
            continue
        package = canonicalize_name(one.inputs.distribution)
        there = {**its.installed.versions, package: one.inputs.patched}
        gone = taken_out(its, one.inputs.shadowed_by)
        lines += not_of_one_version(package, set(one.same_version) - gone.keys(), there)
    return tuple(f"the base image has {line}; it must be replaced" for line in lines)


def _stamp(
    plan: Plan, source: Path, changes: dict[str, bytes | None], originals: dict[str, str]
) -> None:
    """Add the file that states the version, with the patched one."""
    inputs = plan.inputs
    if inputs.stamp is None:
        return
    path, variable = inputs.stamp
    content = changes.get(path)
    if content is None:
        content = read_member(source, path)
        originals[path] = Digest.of(content).hex
    changes[path] = stamp_version(
        content, variable, inputs.version, inputs.patched, where=f"{source.name}: {path}"
    )


def read_member(wheel: Path, path: str) -> bytes:
    """A file of a wheel. Raises InputError when it is not there."""
    with RawZip(wheel) as source:
        member = source.members.get(path)
        if member is None:
            msg = f"{wheel.name} has no {path}, where the recipe's stamp is"
            raise InputError(msg, hint="correct `stamp` in the recipe")
        return source.read(member)


def _site(
    plan: Plan,
    base: Base,
    wheel: WheelResult,
    report: Callable[[str, int, int | None], None] | None,
    *,
    outside: bool,
) -> Site:
    """Where the package lies. outside: another engine installs it, and nothing is read for it."""
    pinned = base.pinned
    if base.source is None or outside:
        return Site(pinned.site or USUAL_SITE)
    if pinned.recorded and pinned.site is not None:
        return Site(pinned.site, python=pinned.python)
    return find_installed(
        base.source,
        base.image,
        plan.inputs.distribution,
        watched=frozenset(wheel.released),
        site=pinned.site,
        shadowing=plan.inputs.shadowed_by,
        report=report,
    )


def _image(
    plan: Plan,
    base: Base,
    wheel: WheelResult,
    site: Site,
    below: Sequence[_Below],
    folder: Path,
) -> tuple[Image, Digest, tuple[Descriptor, ...]]:
    """The image, its index's digest, and the layers that were not written."""
    inputs = plan.inputs
    labels = {
        "stackpatch.arch": inputs.arch,
        "stackpatch.series": f"sha256:{inputs.series_sha256}",
        "stackpatch.stack": inputs.stack,
        "stackpatch.version": inputs.patched,
    }
    annotations = {
        "org.opencontainers.image.title": inputs.stack,
        "org.opencontainers.image.version": inputs.patched,
        "org.opencontainers.image.source": inputs.git,
    }
    if inputs.commit is not None:
        annotations["org.opencontainers.image.revision"] = inputs.commit
    # A tag cannot hold a plus sign.
    tag = f"{inputs.patched}-{inputs.arch}".replace("+", "_")
    if below:
        stood_on = (f"{one.plan.inputs.stack}={one.plan.inputs.patched}" for one in below)
        labels["stackpatch.requires"] = " ".join(stood_on)
    if plan.external is not None:
        from stackpatch.artefacts.external import external_image

        return external_image(
            plan,
            base,
            [*((one.plan, one.wheel) for one in below), (plan, wheel)],
            folder,
            labels=labels,
            annotations=annotations,
            ref_name=tag,
        )
    under, blobs = base.image, {}
    for one in below:
        its = one.plan.inputs
        lower = overlay(
            base.image,
            one.wheel,
            one.site,
            under=under,
            base_name=base.pinned.name,
            epoch=its.epoch,
            labels={},
            annotations={},
            env=its.env,
            shadowing=its.shadowed_by,
            tree=one.plan.layout if one.base.pinned.editable else None,
        )
        under = lower.image
        blobs[lower.layer.digest] = lower.layer.blob
    # Where `verify` looks, without reading a layer to find it.
    labels["stackpatch.place"] = f"{'editable' if base.pinned.editable else 'site'}:/{site.path}"
    made = overlay(
        base.image,
        wheel,
        site,
        under=under,
        base_name=base.pinned.name,
        epoch=inputs.epoch,
        labels=labels,
        annotations=annotations,
        env=inputs.env,
        shadowing=plan.inputs.shadowed_by,
        tree=plan.layout if base.pinned.editable else None,
    )
    index = write_layout(
        folder / IMAGE,
        made.image,
        {**blobs, made.layer.digest: made.layer.blob},
        base=base.layout,
        annotations={"org.opencontainers.image.ref.name": tag},
        sparse=base.source is not None and base.layout is None,
    )
    written = {path.name for path in (folder / IMAGE / "blobs" / "sha256").iterdir()}
    elsewhere = tuple(one for one in made.image.layers if one.digest.hex not in written)
    return made.image, index, elsewhere


def _listed(folder: Path, image: Image, *, but: str) -> list[Output]:
    """Every file of the result but one and the lock; a layer's digest is in its name."""
    known = {layer.digest.hex for layer in image.layers}
    files = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.name == but:
            continue
        digest = path.name if path.name in known else Digest.of_file(path).hex
        files.append(Output(path.relative_to(folder).as_posix(), path.stat().st_size, digest))
    return files


def _notes(plan: Plan, base: Base, prepared: Prepared, site: Site) -> tuple[str, ...]:
    """What a person should know of the result."""
    notes = [f"not in the wheel, so not in the result: {path}" for path in prepared.shipped.outside]
    if base.source is None or plan.external is not None:
        return tuple(notes)
    name = base.pinned.name or "the base image"
    if base.pinned.recorded:
        notes.append(
            f"that {name} has {plan.inputs.stack} {plan.inputs.version} in /{site.path} is the "
            f"recipe's word ({base.evidence}); its layers were not read"
        )
    if site.reading is not None:
        one = site.reading
        notes.append(
            f"{one.layers} of the base's {one.of} layers were read, from the top, {one.bytes:,} "
            f"bytes: {plan.inputs.distribution} {plan.inputs.version} is in /{site.path}"
        )
    if base.pinned.editable:
        stamp = plan.inputs.stamp
        if stamp is not None and plan.layout.to_git(stamp[0]) is None:
            notes.append(
                f"{stamp[0]} is not in the git tree, so the package in the image goes on stating "
                "its own version"
            )
        return tuple(notes)
    for shadow, paths in taken_out(site, plan.inputs.shadowed_by).items():
        seen = site.installed is not None and shadow in site.installed.distributions
        what = f"/{site.path}/{paths[0]}" + f" and {len(paths) - 1} more" * (len(paths) > 1)
        there = "" if seen else " if it is there; its layer was not read"
        notes.append(
            f"taken out of the base{there}: {what}, as the prebuilt code of {shadow} would win "
            "over patched source"
        )
    return tuple(notes)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o644)
