"""Content digests and commit ids that can only be made by parsing."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A sha256 digest. `str()` gives the OCI form `sha256:<64 hex>`."""

    hex: str

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.hex):
            msg = f"not a sha256 digest: {self.hex!r} (want 64 lower-case hex digits)"
            raise ValueError(msg)

    def __str__(self) -> str:
        return f"sha256:{self.hex}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `sha256:<hex>` or the bare hex. Raises ValueError."""
        return cls(text.removeprefix("sha256:"))

    @classmethod
    def of(cls, content: bytes) -> Self:
        """The digest of these bytes."""
        return cls(hashlib.sha256(content).hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """The digest of a file, read in pieces."""
        with path.open("rb") as file:
            return cls(hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True, slots=True, order=True)
class Commit:
    """A full git commit id: 40 lower-case hex digits."""

    hex: str

    def __post_init__(self) -> None:
        if not _COMMIT.fullmatch(self.hex):
            msg = f"not a full commit id: {self.hex!r} (want 40 lower-case hex digits)"
            raise ValueError(msg)

    def __str__(self) -> str:
        return self.hex
