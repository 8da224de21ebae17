"""How people name a stack and an upstream version: `flashinfer@0.6.3`, `v0.6.12`, `git:main`."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from packaging.version import InvalidVersion, Version

from stackpatch.errors import InputError

_STACK = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
# What git itself refuses in a ref name (git-check-ref-format), and what could read as an option.
_NOT_A_REF = re.compile(
    r"^-|^/|^@$|[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{|/$|\.$|(?:^|/)\.|\.lock(?:/|$)"
)


class SourceKind(StrEnum):
    """Where an upstream version comes from. The order is the order of preference."""

    GIT = "git"
    SDIST = "sdist"
    WHEEL = "wheel"


@dataclass(frozen=True, slots=True)
class StackRef:
    """A stack, and the release that is meant; None: the recipe's default.

    release: the version number in its PEP 440 normal form.
    """

    stack: str
    release: str | None = None

    def __str__(self) -> str:
        return self.stack if self.release is None else f"{self.stack}@{self.release}"

    @classmethod
    def parse(cls, text: str, *, where: str | None = None) -> Self:
        """From `STACK` or `STACK@RELEASE`. Raises InputError."""
        stack, at, release = text.partition("@")
        if not _STACK.fullmatch(stack):
            msg = f"not a stack name: {text!r}"
            hint = "write STACK or STACK@RELEASE, for example flashinfer@0.6.3"
            raise InputError(msg, hint=hint, where=where)
        if not at:
            return cls(stack)
        version = version_number(release)
        if version is None:
            msg = f"not a release number after the @ in {text!r}"
            hint = f"write a version such as {stack}@0.6.3; `stackpatch list` shows them"
            raise InputError(msg, hint=hint, where=where)
        return cls(stack, version)


@dataclass(frozen=True, slots=True)
class VersionRef:
    """An upstream version as somebody named it.

    kind: said by the person, else None. name: without the kind; a version number in its PEP 440
    normal form, or for git a tag, branch or commit id as written.
    """

    kind: SourceKind | None
    name: str

    def __str__(self) -> str:
        return self.name if self.kind is None else f"{self.kind}:{self.name}"

    @property
    def version(self) -> str | None:
        """The version number that is meant, `0.6.12` for `git:v0.6.12` too; None for a branch."""
        return version_number(self.name)

    @classmethod
    def parse(cls, text: str, *, where: str | None = None) -> Self:
        """From `v0.6.12`, `0.6.12`, `git:REF`, `sdist:0.6.12` or `wheel:0.6.12`.

        Raises InputError for anything else; a branch or a commit needs its `git:`.
        """
        prefix, colon, rest = text.partition(":")
        if not colon:
            version = version_number(text)
            if version is not None:
                return cls(None, version)
            msg = f"not a version number: {text!r}"
            good = bool(text) and not _NOT_A_REF.search(text)
            hint = f"for a commit, tag or branch write git:{text}" if good else _FORMS
            raise InputError(msg, hint=hint, where=where)
        if prefix not in set(SourceKind):
            near = difflib.get_close_matches(prefix, list(SourceKind), 1, 0.5)
            msg = f"unknown kind of source {prefix!r} in {text!r}"
            hint = f"did you mean {near[0]}:{rest}?" if near else _FORMS
            raise InputError(msg, hint=hint, where=where)
        kind = SourceKind(prefix)
        if kind is SourceKind.GIT:
            if not rest or _NOT_A_REF.search(rest):
                msg = f"not a git commit, tag or branch: {rest!r}"
                raise InputError(msg, hint=_FORMS, where=where)
            return cls(kind, rest)
        version = version_number(rest)
        if version is None:
            msg = f"not a version number: {rest!r} in {text!r}"
            raise InputError(msg, hint=_FORMS, where=where)
        return cls(kind, version)


_FORMS = "write 0.6.12, v0.6.12, git:COMMIT, git:BRANCH, sdist:0.6.12 or wheel:0.6.12"


def version_number(text: str) -> str | None:
    """The PEP 440 normal form of `0.6.12` or `v0.6.12`, None where it is no version number."""
    if _COMMIT.fullmatch(text) and "." not in text and len(text) == 40:
        return None  # forty decimal digits would be a legal version, but nobody means one
    try:
        return str(Version(text)) if text == text.strip() else None
    except InvalidVersion:
        return None
