"""A small finished build, and publishing it, for tests."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from tests.images import LayoutMaker, tar_layer
from tests.stack import make_stack
from tests.wheels import contents, make_wheel, wheel_of

from stackpatch.registry.client import Registry
from stackpatch.registry.finished import Finished, open_finished
from stackpatch.registry.patience import Limits
from stackpatch.registry.publish import Publication, Published
from stackpatch.registry.reference import Reference

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stack import Stack

DIST = "usr/local/lib/python3.12/dist-packages"


def finished_build(
    folder: Path, *, arch: str = "sm121", base: str = "scratch", smoke: Any = None, gate: str = ""
) -> Finished:
    """The small stack, built below `folder`, as it would be published.

    smoke: what smoke.json holds. gate: another text of the first patch.
    """
    stack: Stack = make_stack(folder / "wheel", **({"gate": gate} if gate else {}))
    result = stack.build(folder / "dist", arch=arch, base=base)
    if smoke is not None:
        (result.folder / "smoke.json").write_text(json.dumps(smoke))
    return open_finished(result.folder, result.plan.inputs.json())


def smoke_of(finished: Finished | None = None, **checks: str) -> dict[str, Any]:
    """A smoke.json with these checks; about the build where one is given."""
    listed = [{"name": name, "status": status, "why": ""} for name, status in checks.items()]
    subject = {"sha256": wheel_of(finished.outputs).sha256} if finished is not None else {}
    return {"schema": "stackpatch.smoke/1", "subject": subject, "checks": listed}


def base_layout(folder: Path, *, architecture: str = "arm64", size: int = 20_000) -> Path:
    """A base image of two layers: `size` incompressible bytes, and the small stack's release."""
    maker = LayoutMaker(folder)
    released = contents(make_wheel(folder.parent / "released"))
    big = tar_layer({"opt/model": random.Random(architecture).randbytes(size)})
    small = tar_layer({f"{DIST}/{path}": content for path, content in released.items()})
    return maker.write(maker.image([big, small], architecture=architecture))


def publication(
    finished: Finished, host: str, name: str, tag: str = "t", **options: Any
) -> tuple[Publication, list[float]]:
    """A publication that does not wait; the second: what it would have waited, in seconds."""
    limits = Limits(document=options.pop("seconds", 180.0))
    registry = Registry.open(Reference.parse(f"{host}/{name}"), limits=limits)
    pauses: list[float] = []
    registry.session.pause = pauses.append
    return Publication(finished, registry, tag, limits=limits, **options), pauses


def publish(finished: Finished, host: str, name: str, tag: str = "t", **options: Any) -> Published:
    """Publish without waiting."""
    return publication(finished, host, name, tag, **options)[0].run()
