"""The base images of a release: who has the package where, without a layer being read.

An image of an inference stack has ten gigabytes, and where it keeps the package is what decides
about an overlay. What is written down here by digest needs not be looked for.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from stackpatch.model.recipe_base import Strict
from stackpatch.model.recipe_fields import (
    DigestText,
    FolderInImage,
    ImageName,
    ImageTag,
    PlatformText,
    PythonVersion,
    Sentence,
)


class BaseKind(StrEnum):
    """How an image has the package."""

    SITE_PACKAGES = "site-packages"
    EDITABLE = "editable"


class BaseImage(Strict):
    """An image that holds the package of this release, by digest."""

    image: ImageName = Field(
        description="Registry and repository, without a tag: docker.io/lmsysorg/sglang."
    )
    tag: ImageTag | None = Field(
        default=None, description="What the digest was called when somebody looked, quoted; null."
    )
    digest: DigestText = Field(
        description="sha256:… of the index, or of the manifest for its one platform."
    )
    platforms: tuple[PlatformText, ...] = Field(
        min_length=1, description="Platforms that it holds, such as linux/arm64."
    )
    kind: BaseKind = Field(
        description="site-packages: as pip installs a wheel. editable: a copy of the git tree that "
        "Python imports from."
    )
    path: FolderInImage = Field(
        description="Folder in the image, from /. site-packages: the one that holds the import "
        "package. editable: the one that holds the git tree's root."
    )
    python: PythonVersion = Field(description="The CPython that imports it there; quoted.")
    evidence: Sentence = Field(
        description="Who saw this release at this path in this digest, and where that is written."
    )

    @property
    def reference(self) -> str:
        """`docker.io/lmsysorg/sglang@sha256:…`."""
        return f"{self.image}@{self.digest}"
