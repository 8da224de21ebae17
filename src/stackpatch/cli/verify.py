"""`stackpatch verify`: an image's files against what the series yields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stackpatch.artefacts.labels import PLACE
from stackpatch.cli import output
from stackpatch.cli.context import ArchOption, JsonOption, OfflineOption, RootOption

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackpatch.artefacts.base import Opened
    from stackpatch.artefacts.oci import Image
    from stackpatch.artefacts.plan import Engine
    from stackpatch.checks.verify import Verified, Wanted
    from stackpatch.cli.progress import Report
    from stackpatch.cli.workspace import Workspace
    from stackpatch.model.arch import Arch
    from stackpatch.model.recipe import Release


def command(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE",
            help="Folder of an OCI layout, FOLDER@sha256:…, or an image in a registry.",
        ),
    ],
    *,
    stack: Annotated[
        str, typer.Option("--stack", metavar="STACK[@RELEASE]", help="flashinfer@0.6.3")
    ],
    arch: ArchOption,
    site: Annotated[
        str | None,
        typer.Option(
            "--site",
            metavar="PATH",
            help="Folder of the image that holds the package, where it is not found.",
            show_default=False,
        ),
    ] = None,
    editable: Annotated[
        bool, typer.Option("--editable", help="--site holds the git tree, not a wheel's files.")
    ] = False,
    offline: OfflineOption = False,
    json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Say whether an image has the files that the series yields, reading only what decides."""
    from stackpatch.artefacts.base import open_image
    from stackpatch.artefacts.oci import Platform
    from stackpatch.checks.verify import verify_image
    from stackpatch.cli.images import opener
    from stackpatch.cli.progress import reporting
    from stackpatch.cli.workspace import open_workspace
    from stackpatch.errors import FindingError, InputError
    from stackpatch.model.arch import parse_arch

    if editable and site is None:
        msg = "--editable needs the folder of the git tree"
        raise InputError(msg, hint="name it with --site, such as --site /sgl-workspace/sglang")
    work = open_workspace(stack, root, offline=offline)
    wanted_arch = parse_arch(arch)
    remote = opener(offline=offline, what="IMAGE")
    opened = open_image(image, Platform.parse(wanted_arch.platform), remote=remote)
    known = None
    if site is None:
        known, site, editable = _place(opened.chosen.image, work.recipe.stack, work.release)
    with reporting() as report:
        shown = opened.chosen.image
        wanted = _wanted(work, wanted_arch, shown, report, editable=editable)
        found = verify_image(opened.source, opened.chosen.image, wanted, site=site, report=report)
    document = {
        "image": {
            "reference": image,
            "digest": str(opened.chosen.image.digest),
            "index": str(opened.chosen.index) if opened.chosen.index else None,
            "platform": str(opened.chosen.image.platform),
        },
        "stack": work.recipe.stack,
        "release": work.release.version,
        "arch": wanted_arch.name,
        "series": wanted.labels["stackpatch.series"],
        "editable": editable,
        **found.json(),
    }
    failure = None
    if wrongs := found.wrongs():
        what = f"{work.release.series} for {wanted_arch.name}"
        failure = FindingError(
            f"{image} does not have what {what} yields: {wrongs[0]}"
            + (f", and {len(wrongs) - 1} more" if len(wrongs) > 1 else ""),
            hint=_hint(found, site),
        )
    output.emit("verify", document, _lines(opened, found, known), json=json, failure=failure)


def _wanted(work: Workspace, arch: Arch, image: Image, report: Report, *, editable: bool) -> Wanted:
    """What the series yields: of the released wheel or, where there is none, of the git tree."""
    from stackpatch.artefacts.tree_plan import has_no_wheel, plan_tree
    from stackpatch.checks.wanted import wanted_of, wanted_of_tree

    recipe, release, offline = work.recipe, work.release, work.offline
    if has_no_wheel(release):
        from stackpatch.artefacts.tree_changes import changes

        tree = plan_tree(recipe, release, arch, work.series)
        changed = changes(recipe, tree, offline=offline, report=report)
        compiled = _made_from_source(image, recipe.stack, tree.engine)
        return wanted_of_tree(tree, changed, compiled=compiled, editable=editable)
    from stackpatch.artefacts.release import plan_release, prepare_release

    plan, _ = plan_release(recipe, release, arch, work.series, engine="overlay", base="scratch")
    prepared = prepare_release(recipe, release, arch, plan, offline=offline, report=report)
    return wanted_of(plan, prepared, editable=editable)


def _made_from_source(image: Image, stack: str, engine: Engine) -> bool:
    """Whether a release that is its commit was built from source, not laid over.

    By the image's labels, where they are ours: an overlay names the package's place. engine: the
    one that the series needs, which is taken to have made an image that says nothing.
    """
    labels = _labels(image)
    if labels.get("stackpatch.stack") == stack:
        return PLACE not in labels
    return engine.value != "overlay"


def _labels(image: Image) -> Mapping[str, object]:
    return (image.config_json().get("config") or {}).get("Labels") or {}


def _place(image: Image, stack: str, release: Release) -> tuple[str | None, str | None, bool]:
    """Who says where the package lies, the folder, and whether it has the git tree.

    By the image's own label, which an overlay leaves, or by the recipe, which knows the base.
    """
    labels = _labels(image)
    kind, _, folder = str(labels.get(PLACE) or "").partition(":")
    own = labels.get("stackpatch.stack") == stack
    if own and kind in ("site", "editable") and folder.startswith("/"):
        return "the image's label", folder, kind == "editable"
    notes = image.manifest_json().get("annotations") or {}
    base = notes.get("org.opencontainers.image.base.digest")
    for one in release.bases:
        if one.digest in (base, str(image.digest)):
            return "the recipe", one.path, one.kind.value == "editable"
    return None, None, False


def _hint(found: Verified, site: str | None) -> str | None:
    if found.unread:
        return f"a layer was not read: {found.unread}"
    if found.folder is None and site is None:
        return "where the package is imported from a git tree, say --site FOLDER --editable"
    return None


def _lines(opened: Opened, found: Verified, known: str | None) -> list[str]:
    said = {True: "yes", False: "NO"}
    rows = [(one.state.value, one.path, one.why) for one in found.files]
    place = f"/{found.folder.strip('/')}" if found.folder else "not found"
    lines = [
        f"image    {opened.chosen.image.digest} ({opened.chosen.image.platform})",
        f"folder   {place}" + (f", as {known} says" if known else ""),
        f"version  {found.version or '-'}, the series makes {found.wanted.version}",
        f"layers   {found.read} of {found.of} read, {found.bytes:,} of {found.of_bytes:,} bytes",
    ]
    if found.unread:
        lines.append(f"unread   {found.unread}")
    for label in found.labels:
        state = "differs" if label.wrong else ("same" if label.found else "not stated")
        lines.append(f"label    {label.name}: {state}")
    lines += [
        f"beyond   {path}: no file of the package shows it, so it was not looked at"
        for path in found.wanted.outside
    ]
    lines += ["", *output.table(("", "file", ""), rows), ""]
    lines.append(f"right    {said[found.right]}")
    return lines
