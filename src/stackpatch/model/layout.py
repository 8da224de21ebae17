"""How paths of one kind of source (an sdist, a wheel) map to the upstream git tree's paths.

A patch is written once, against the git tree. Rules are folders (ending in a slash, or "" for the
top) or single files; the longest `here` that matches a path decides, and `git: null` says that
the path is generated and not in the git tree. A path without any rule is not in the git tree.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class LayoutRule:
    """One rule. here: folder or file in the source; git: the same in the git tree, or None."""

    here: str
    git: str | None


@dataclass(frozen=True)  # no slots: cached_property needs a dict
class Layout:
    """The rules of one kind of source. Raises InputError for rules that contradict themselves."""

    rules: tuple[LayoutRule, ...]

    def __post_init__(self) -> None:
        seen = set()
        for rule in self.rules:
            if rule.here in seen:
                msg = f"the layout has two rules for {rule.here!r}"
                raise InputError(msg, hint="keep one of them")
            seen.add(rule.here)
            for path in (rule.here, rule.git):
                if path is not None and not _is_plain(path):
                    msg = f"not a relative path in the layout: {path!r}"
                    raise InputError(msg, hint="a folder is `csrc/`, the top an empty text")
            if rule.git is not None and _is_folder(rule.here) != _is_folder(rule.git):
                msg = f"the layout maps {rule.here!r} to {rule.git!r}: one is a folder, one a file"
                raise InputError(msg, hint="end both with a slash, or neither")

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str | None]]) -> Self:
        """From (here, git) pairs."""
        return cls(tuple(LayoutRule(here, git) for here, git in pairs))

    @classmethod
    def identity(cls) -> Self:
        """Every path is the git tree's path."""
        return cls((LayoutRule("", ""),))

    def to_git(self, path: str) -> str | None:
        """The git tree's path of a path in the source; None where it is not in the git tree."""
        for here, folder, git in self._longest_first:
            if folder:
                if path.startswith(here):
                    return None if git is None else git + path[len(here) :]
            elif path == here:
                return git
        return None

    def from_git(self, git_path: str) -> tuple[str, ...]:
        """Every path in the source that stands for this path of the git tree, in rule order."""
        found = []
        for rule in self.rules:
            if rule.git is None:
                continue
            if not _is_folder(rule.git):
                candidate = rule.here if rule.git == git_path else None
            elif git_path.startswith(rule.git) and git_path != rule.git:
                candidate = rule.here + git_path[len(rule.git) :]
            else:
                candidate = None
            # A longer rule may claim the candidate for another place.
            if candidate is not None and self.to_git(candidate) == git_path:
                found.append(candidate)
        return tuple(dict.fromkeys(found))

    def covers(self, git_path: str) -> bool:
        """Whether the source can hold this path of the git tree at all."""
        return bool(self.from_git(git_path))

    @cached_property
    def digest(self) -> str:
        """64 hex digits over the rules; their order does not matter, so it does not count."""
        rules = sorted((rule.here, rule.git) for rule in self.rules)
        return hashlib.sha256(json.dumps(rules).encode()).hexdigest()

    @cached_property
    def _longest_first(self) -> tuple[tuple[str, bool, str | None], ...]:
        ordered = sorted(self.rules, key=lambda rule: -len(rule.here))
        return tuple((rule.here, _is_folder(rule.here), rule.git) for rule in ordered)


def _is_folder(path: str) -> bool:
    return not path or path.endswith("/")


def _is_plain(path: str) -> bool:
    parts = path.removesuffix("/").split("/") if path else []
    return all(part not in {"", ".", ".."} and "\0" not in part for part in parts)
