"""Editing a recipe's text: everything else stays byte for byte, comments and order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml
from packaging.version import InvalidVersion, Version

from stackpatch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


@dataclass(frozen=True, slots=True)
class NewFile:
    """One index file of the new release. size: bytes."""

    file: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class NewRelease:
    """What a rebase knows of the release that it moved a series to."""

    version: str
    tag: str | None
    commit: str | None
    evidence: str
    evidence_detail: str
    date: str
    date_note: str | None
    artefacts: Sequence[NewFile]
    series: str
    stamp: tuple[str, str] | None
    requires: Sequence[tuple[str, str]]


def add_release(text: str, release: NewRelease, *, where: str) -> str:
    """The recipe's text with the release in version order, or with its series on a pinned one.

    Raises InputError where the recipe already has another series for that release, or cannot be
    edited as text.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    sequence = _value(root, "releases")
    if not isinstance(sequence, yaml.SequenceNode) or sequence.flow_style or not sequence.value:
        msg = "the recipe's `releases` is not a list with one release below the other"
        raise InputError(msg, hint="write it as a block list and run again", where=where)
    items = [item for item in sequence.value if isinstance(item, yaml.MappingNode)]
    for item in items:
        known = _value(item, "version")
        if isinstance(known, yaml.ScalarNode) and _same(known.value, release.version):
            return _set_series(text, item, release.version, release.series, where=where)
    lines = text.splitlines(keepends=True)
    dash = sequence.start_mark.column
    end = _line_end(text)
    block = [f"{line}{end}" for line in _block(release, " " * dash)]
    later = [item for item in items if _later(item, release.version)]
    if later:
        at = later[0].start_mark.line
        while at and _comment(lines[at - 1]) and not _comment(lines[at - 1], deeper_than=dash):
            at -= 1
        lines[at:at] = [*block, end]
    else:
        at = _last_line(items[-1]) + 1
        while at < len(lines) and _comment(lines[at], deeper_than=dash):
            at += 1
        if lines[at - 1 : at] and not lines[at - 1].endswith(("\n", "\r")):
            lines[at - 1] += end
        lines[at:at] = [end, *block]
    edited = "".join(lines)
    _only_added(text, edited, release, where)
    return edited


def _comment(line: str, *, deeper_than: int = -1) -> bool:
    """Whether the line is a comment, and indented by more columns than that."""
    text = line.lstrip(" ")
    return text.startswith("#") and len(line) - len(text) > deeper_than


def _line_end(text: str) -> str:
    """What the recipe's own lines end in."""
    first = text.find("\n")
    return "\r\n" if first > 0 and text[first - 1] == "\r" else "\n"


def _only_added(text: str, edited: str, release: NewRelease, where: str) -> None:
    """Hold the edit to what it promises. Raises InputError for a recipe that is written so that
    it did something else."""
    try:
        before, after = yaml.safe_load(text), yaml.safe_load(edited)
        added = [r for r in after["releases"] if r not in before["releases"]]
        rest = [r for r in after["releases"] if r in before["releases"]]
        versions = [one["version"] for one in added]
        if versions == [release.version] and after | {"releases": rest} == before:
            return
    except (yaml.YAMLError, TypeError, KeyError, ValueError):
        pass
    msg = f"the recipe is written in a way in which {release.version} cannot be added as text"
    raise InputError(msg, hint="write its `releases` as other recipes do", where=where)


def set_series(text: str, version: str, series: str, *, where: str) -> str:
    """The recipe's text with this series on a release that has none yet.

    Raises InputError where it has another series, or cannot be edited as text.
    """
    sequence = _value(yaml.compose(text, Loader=yaml.SafeLoader), "releases")
    for item in sequence.value if isinstance(sequence, yaml.SequenceNode) else ():
        known = _value(item, "version")
        if isinstance(known, yaml.ScalarNode) and _same(known.value, version):
            if item.flow_style and _value(item, "series") is None:
                return _in_braces(text, item, "series", _scalar(series))
            return _set_series(text, item, version, series, where=where)
    msg = f"the recipe has no release {version} to give a series"
    raise InputError(msg, where=where)


def set_fork(text: str, values: Mapping[str, str], *, where: str) -> str:
    """The recipe's text with these values in its `fork`, which is added where there is none.

    values: each a key of `fork` and its text; keys that it has besides stay.
    Raises InputError where `fork` cannot be edited as text.
    """
    if _value(yaml.compose(text, Loader=yaml.SafeLoader), "fork") is None:
        new = _line_end(text)
        end = "" if text.endswith("\n") else new
        lines = "".join(f"  {key}: {_fork_value(value)}{new}" for key, value in values.items())
        return f"{text}{end}{new}fork:{new}{lines}"
    for key, value in values.items():
        node = _value(yaml.compose(text, Loader=yaml.SafeLoader), "fork")
        if not isinstance(node, yaml.MappingNode) or not node.value:
            msg = "the recipe's `fork` is not a mapping"
            raise InputError(msg, hint="write its keys below it, or take it out", where=where)
        present = _value(node, key)
        if present is not None and not isinstance(present, yaml.ScalarNode):
            msg = f"the recipe's `fork.{key}` is not a single value"
            raise InputError(msg, where=f"{where}:{present.start_mark.line + 1}")
        if present is not None:
            if present.value != value or present.tag == "tag:yaml.org,2002:null":
                start, stop = present.start_mark.index, present.end_mark.index
                text = text[:start] + _fork_value(value) + text[stop:]
        elif node.flow_style:
            text = _in_braces(text, node, key, _fork_value(value))
        else:
            rows = text.splitlines(keepends=True)
            at = _last_line(node) + 1
            end = _line_end(text)
            if not rows[at - 1].endswith("\n"):
                rows[at - 1] += end
            rows.insert(at, f"{' ' * node.start_mark.column}{key}: {_fork_value(value)}{end}")
            text = "".join(rows)
    return text


def _fork_value(value: str) -> str:
    if re.fullmatch(r"[0-9a-f]{40}", value):
        return _hex(value)
    return _quoted(value) if re.match(r"[0-9]", value) else _scalar(value)


def _in_braces(text: str, node: yaml.MappingNode, key: str, value: str) -> str:
    """A key more in a mapping that is written `{…}`."""
    end = node.end_mark.index - 1
    inside = text[:end].rstrip()
    comma = " " if inside.endswith((",", "{")) else ", "
    return f"{inside}{comma}{key}: {value}{text[len(inside) : end]}{text[end:]}"


def _set_series(text: str, item: yaml.MappingNode, version: str, series: str, *, where: str) -> str:
    present = _value(item, "series")
    if isinstance(present, yaml.ScalarNode):
        if present.value == series:
            return text
        if present.tag != "tag:yaml.org,2002:null":
            line = present.start_mark.line + 1
            msg = f"{version} already has the series {present.value}"
            hint = "rebase onto another version, or remove that series first"
            raise InputError(msg, hint=hint, where=f"{where}:{line}")
        start, end = present.start_mark.index, present.end_mark.index
        return text[:start] + _scalar(series) + text[end:]
    lines = text.splitlines(keepends=True)
    at = _last_line(item) + 1
    end = _line_end(text)
    if not lines[at - 1].endswith(("\n", "\r")):
        lines[at - 1] += end
    lines.insert(at, f"{' ' * item.start_mark.column}series: {_scalar(series)}{end}")
    return "".join(lines)


def _block(release: NewRelease, indent: str) -> list[str]:
    inner = f"{indent}  "
    tag = _scalar(release.tag) if release.tag else "null"
    lines = [
        f"{indent}- version: {_quoted(release.version)}",
        f"{inner}tag: {tag}",
        f"{inner}commit: {release.commit or 'null'}",
        f"{inner}commit-evidence:",
        f"{inner}  kind: {release.evidence}",
        f"{inner}  detail: {_scalar(release.evidence_detail)}",
        f"{inner}date: {_quoted(release.date)}"
        + (f"  # {release.date_note}" if release.date_note else ""),
    ]
    if release.artefacts:
        lines.append(f"{inner}artefacts:")
        for file in release.artefacts:
            lines += [
                f"{inner}  - file: {_scalar(file.file)}",
                f"{inner}    sha256: {_hex(file.sha256)}",
                f"{inner}    bytes: {file.size}",
            ]
    lines.append(f"{inner}series: {_scalar(release.series)}")
    if release.stamp is not None:
        path, variable = release.stamp
        lines.append(f"{inner}stamp: {{path: {_scalar(path)}, variable: {_scalar(variable)}}}")
    if release.requires:
        lines.append(f"{inner}requires:")
        lines += [f"{inner}  {name}: {_quoted(version)}" for name, version in release.requires]
    return lines


def _hex(digits: str) -> str:
    """A digest that a YAML reader could take for a number (all digits, `1e5`) needs quotes."""
    return digits if re.search(r"[a-df]", digits) else _quoted(digits)


def _scalar(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else _quoted(text)


def _quoted(text: str) -> str:
    """In double quotes, by YAML's rules: JSON's differ above U+FFFF."""
    dumped: str = yaml.safe_dump(text, default_style='"', allow_unicode=False, width=1 << 30)
    return dumped.rstrip("\n")


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == key:
                found: yaml.Node = value
                return found
    return None


def _last_line(node: yaml.Node) -> int:
    """The 0-based line on which a node's last text stands; its end mark is after the blanks."""
    if isinstance(node, yaml.MappingNode) and node.value and not node.flow_style:
        return _last_line(node.value[-1][1])
    if isinstance(node, yaml.SequenceNode) and node.value and not node.flow_style:
        return _last_line(node.value[-1])
    end = node.end_mark
    return int(end.line) - (1 if end.column == 0 and end.index > node.start_mark.index else 0)


def _same(one: str, other: str) -> bool:
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other


def _later(item: yaml.MappingNode, version: str) -> bool:
    known = _value(item, "version")
    try:
        return isinstance(known, yaml.ScalarNode) and Version(known.value) > Version(version)
    except InvalidVersion:
        return False
