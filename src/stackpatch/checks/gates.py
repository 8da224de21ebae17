"""Where the sources ask which GPU they run on, and what each of those checks admits.

A recipe's rules say how a check is recognised; nothing here knows a stack. A check is read in text
without comments, docstrings and `#if 0`, white space collapsed, so that a quotation is no check.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from stackpatch.errors import InputError
from stackpatch.model.arch import CodeArch
from stackpatch.model.trailers import compile_pattern
from stackpatch.series.plain import plain_text
from stackpatch.series.symbols import parse_symbols
from stackpatch.sources.objects import EXECUTABLE, REGULAR

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import regex

    from stackpatch.model.arch import Arch
    from stackpatch.model.recipe_gates import GateRule
    from stackpatch.sources.objects import Objects

# For one rule on one file; as long as an `Effect:` may take.
PATTERN_SECONDS = 2.0
# A target as sources write it: sm_100f, Sm100a, 103a; as CMake lists do: 12.0f, 8.0+PTX.
_TARGET = re.compile(r"(?<![\d.])(\d{1,2})\.?(\d)([af]?)(?![\w.])(\+PTX)?")
_OLDEST = 20  # a smaller number is a version or a count


@dataclass(frozen=True, slots=True)
class Admitted:
    """What a check lets pass.

    majors: major versions (12). capabilities: exact devices (121). minimum: every major version
    from this one on; None: no such clause. targets: compilation targets, as devices run them.
    """

    majors: frozenset[int] = frozenset()
    capabilities: frozenset[int] = frozenset()
    minimum: int | None = None
    targets: frozenset[CodeArch] = frozenset()

    def admits(self, arch: Arch) -> bool:
        """Whether a device of this arch passes."""
        return (
            arch.major in self.majors
            or arch.capability in self.capabilities
            or (self.minimum is not None and arch.major >= self.minimum)
            or any(arch.runs(target) for target in self.targets)
        )

    def __str__(self) -> str:
        parts = [f"{major}.x" for major in sorted(self.majors)]
        parts += [f"{number // 10}.{number % 10}" for number in sorted(self.capabilities)]
        parts += [str(target) for target in sorted(self.targets)]
        if self.minimum is not None:
            parts.append(f"{self.minimum}.x and later")
        return ", ".join(parts) or "nothing"


@dataclass(frozen=True, slots=True)
class Gate:
    """One check in the sources. line: 1-based. symbol: the enclosing one, "" for the file."""

    rule: GateRule
    path: str
    line: int
    symbol: str
    text: str
    admitted: Admitted

    @property
    def place(self) -> str:
        """`path:line (symbol)`."""
        return f"{self.path}:{self.line}" + (f" ({self.symbol})" if self.symbol else "")


def gates_in_tree(objects: Objects, tree: str, rules: Sequence[GateRule]) -> list[Gate]:
    """Every check that the rules recognise, by path and line. Raises InputError for a pattern
    that runs away."""
    found: list[Gate] = []
    for path, entry in objects.walk(tree):
        if entry.mode in (REGULAR, EXECUTABLE) and any(_is_for(rule, path) for rule in rules):
            found += gates_in_file(path, objects.blob(entry.id), rules)
    return sorted(found, key=lambda gate: (gate.path, gate.line))


def gates_in_file(path: str, content: bytes, rules: Iterable[GateRule]) -> list[Gate]:
    """The checks in one file, in the order of the text. A stretch belongs to the first rule."""
    wanted = [rule for rule in rules if _is_for(rule, path) and rule.contains.encode() in content]
    if not wanted:
        return []
    symbols, plain = parse_symbols(path, content), plain_text(path, content)
    whole = symbols.file
    text = plain.of(whole)
    taken: list[tuple[int, int]] = []
    found: list[tuple[int, Gate]] = []
    for rule in wanted:
        for match in _matches(rule, path, text):
            first, last = match.span()
            if any(first < end and start < last for start, end in taken):
                continue
            line = plain.line_of(whole, first)
            symbol = symbols.around(line, plain.line_of(whole, max(last - 1, first))).name
            if _counts(rule, symbol):
                taken.append((first, last))
                gate = Gate(rule, path, line, symbol, match[0][:200], _admitted(rule, match))
                found.append((first, gate))
    return [gate for _, gate in sorted(found, key=lambda item: item[0])]


def gates_in_text(path: str, text: str, rules: Iterable[GateRule]) -> list[Gate]:
    """The checks in a piece of a file, whose symbols are not known: rules bound to some of them
    count too. Comments count as well; for a first look only."""
    plain = " ".join(text.split())
    found: list[Gate] = []
    taken: set[int] = set()
    for rule in rules:
        if not _is_for(rule, path) or rule.contains not in text:
            continue
        for match in _matches(rule, path, plain):
            if match.start() not in taken:
                taken.add(match.start())
                found.append(Gate(rule, path, 0, "", match[0][:200], _admitted(rule, match)))
    return found


def _is_for(rule: GateRule, path: str) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in rule.paths)


def _counts(rule: GateRule, symbol: str) -> bool:
    joint = "::" if "::" in symbol else "."
    parts = symbol.split(joint)
    names = {joint.join(parts[i:]) for i in range(len(parts))}
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in rule.symbols)


def _matches(rule: GateRule, path: str, text: str) -> list[regex.Match[str]]:
    try:
        return list(_compiled(rule.pattern).finditer(text, timeout=PATTERN_SECONDS))
    except TimeoutError:
        msg = (
            f"gate rule {rule.name}: its pattern runs for more than {PATTERN_SECONDS:g} s on {path}"
        )
        raise InputError(msg, hint="write it without nested repetitions") from None


def _admitted(rule: GateRule, match: regex.Match[str]) -> Admitted:
    """What the groups of a match say; the rule's own `majors` where it has no groups."""
    captures = match.capturesdict()

    def numbers(group: str) -> frozenset[int]:
        pieces = captures.get(group, [])
        return frozenset(int(number) for piece in pieces for number in re.findall(r"\d+", piece))

    targets = frozenset(
        CodeArch(int(major + minor), suffix, ptx=ptx)
        for piece in captures.get("target", [])
        for major, minor, suffix, with_ptx in _TARGET.findall(piece)
        if int(major + minor) >= _OLDEST
        for ptx in ((False, True) if with_ptx else (False,))
    )
    minimum = numbers("minimum")
    return Admitted(
        majors=numbers("major") | frozenset(rule.majors),
        capabilities=numbers("capability"),
        minimum=min(minimum) if minimum else None,
        targets=targets,
    )


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> regex.Pattern[str]:
    return compile_pattern(pattern)
