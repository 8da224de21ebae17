"""The layer of an overlay that is made of a git tree.

The image keeps its installed package; what the series changes is replaced there, and the
installation's RECORD is brought up to date where it was read.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from stackpatch.artefacts.layer import Entry, Kind
from stackpatch.artefacts.site import compiled_leftovers, taken_out
from stackpatch.errors import InputError
from stackpatch.installed.record import Row, dump_record, encoded

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from stackpatch.artefacts.lock import Inputs
    from stackpatch.artefacts.site import Site
    from stackpatch.artefacts.tree_changes import ChangedFile


def tree_layer_entries(
    files: Mapping[str, ChangedFile],
    site: Site,
    *,
    epoch: int,
    on_top: bool = True,
    shadowing: Collection[str] = (),
) -> tuple[Entry, ...]:
    """Changed files; whiteouts of removed ones, of old bytecode and of what would win; RECORD.

    files: by path in the site folder. on_top: whether something lies below. shadowing:
    distributions whose prebuilt code would be met instead of the patched source.
    """
    made = [
        Entry(f"{site.path}/{path}", content=file.content, mode=file.mode, mtime=epoch)
        for path, file in sorted(files.items())
        if file.content is not None
    ]
    hidden: set[str] = set()
    if on_top:
        hidden.update(path for path, file in files.items() if file.content is None)
        hidden.update(compiled_leftovers(site, files))
        hidden.update(path for paths in taken_out(site, shadowing).values() for path in paths)
    made += [Entry(f"{site.path}/{path}", Kind.WHITEOUT, mtime=epoch) for path in sorted(hidden)]
    if site.installed is not None:
        rows = {path: row for path, row in site.installed.record.items() if path not in hidden}
        rows |= {
            path: Row.of(path, file.content)
            for path, file in files.items()
            if file.content is not None
        }
        record = posixpath.join(site.installed.dist_info, "RECORD")
        text = dump_record(rows[path] for path in sorted(rows))
        made.append(Entry(f"{site.path}/{record}", content=text, mode=0o644, mtime=epoch))
    return tuple(made)


def refuse_other_release(inputs: Inputs, files: Mapping[str, ChangedFile], site: Site) -> None:
    """Refuse another version, and files that are not those of the commit. Raises InputError."""
    installed = site.installed
    if installed is None:
        return
    name, wanted = inputs.distribution, inputs.version
    try:
        same = Version(installed.version) == Version(wanted)
    except InvalidVersion:
        same = False
    if not same:
        msg = f"the base image has {name} {installed.version}, the patched release is {wanted}"
        raise InputError(msg, hint=f"take a base image with {name} {wanted}")
    for path, file in files.items():
        found = (installed.hashes.get(path) or "").rstrip("=")
        if file.original is None:
            if path in installed.paths:
                msg = f"{path} is new in the series, and the base image has one already"
                raise InputError(msg, hint="take the image of the release")
        elif found != f"sha256={encoded(bytes.fromhex(file.original))}":
            what = "was changed there" if found else "is missing there"
            msg = f"{path} of the base image is not the one of the commit: it {what}"
            raise InputError(msg, hint="take the image that was made of this release")
