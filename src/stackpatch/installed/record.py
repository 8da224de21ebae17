"""A wheel's RECORD: every file with its hash and size (PyPA's spec of installed projects)."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_HASH = re.compile(r"sha(256|384|512)=[A-Za-z0-9_-]+=*")


@dataclass(frozen=True, slots=True)
class Row:
    """One line. hash: `sha256=<urlsafe base64 without padding>` or ""; size: bytes in digits."""

    path: str
    hash: str
    size: str

    @classmethod
    def of(cls, path: str, content: bytes) -> Row:
        """The row for a file with this content."""
        return cls(path, f"sha256={encoded(hashlib.sha256(content).digest())}", str(len(content)))

    @property
    def hashed(self) -> bool:
        """Whether it states a hash that may be trusted, and a size."""
        return bool(_HASH.fullmatch(self.hash)) and self.size.isdecimal()

    @property
    def algorithm(self) -> str:
        """`sha256`, as hashlib calls it."""
        return self.hash.partition("=")[0]

    def says(self, digest: bytes, size: int) -> bool:
        """Whether the content with this digest and size is the one that is recorded."""
        return self.hash.partition("=")[2].rstrip("=") == encoded(digest) and (
            int(self.size) == size
        )


def encoded(digest: bytes) -> str:
    """A digest as RECORD writes it."""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def parse_record(content: bytes) -> dict[str, Row]:
    """The rows by path, in order. Raises ValueError that says what is wrong."""
    rows: dict[str, Row] = {}
    try:
        text = io.StringIO(content.decode("utf-8"), newline="")
        for line in csv.reader(text, strict=True):
            if not line:
                continue
            if len(line) != 3:
                msg = f"a line has {len(line)} fields, not 3: {','.join(line)[:80]}"
                raise ValueError(msg)
            if line[0] in rows:
                msg = f"{line[0]} stands there twice"
                raise ValueError(msg)
            rows[line[0]] = Row(*line)
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return rows


def dump_record(rows: Iterable[Row]) -> bytes:
    """The file, lines ending in a line feed."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows((r.path, r.hash, r.size) for r in rows)
    return text.getvalue().encode("utf-8")
