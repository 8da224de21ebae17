"""Engines that are programs of their own: BuildKit through buildx, and buildah.

`build_image` is the one way in: what a request says goes in, an OCI layout comes out that is the
same on any machine, or an error that says what the failing step said, and nothing.
"""

from stackpatch.artefacts.engines.request import EngineBase, EngineName, EngineRequest
from stackpatch.artefacts.engines.running import build_image, identify

__all__ = ["EngineBase", "EngineName", "EngineRequest", "build_image", "identify"]
