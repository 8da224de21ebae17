"""Enclosing symbols of source lines, by a real parse: Python, C, C++ and CUDA.

tree-sitter's CUDA grammar is a superset of its C++ grammar and reads FlashInfer's macros with
fewer errors (measured on FlashInfer 0.6.3: 7 of 407 C++ and CUDA files hold an unread stretch of
more than five lines), so it serves the whole C family.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tree_sitter import Node


class Language(StrEnum):
    """The languages whose symbols we can tell."""

    PYTHON = "python"
    CPP = "cpp"


_SUFFIXES = {
    **dict.fromkeys((".py", ".pyi"), Language.PYTHON),
    **dict.fromkeys(
        (".c", ".cc", ".cpp", ".cxx", ".cu", ".cuh", ".h", ".hh", ".hpp", ".hxx", ".inl", ".inc"),
        Language.CPP,
    ),
}


@dataclass(frozen=True, slots=True)
class Symbol:
    """A named stretch of a file. Lines are 1-based and inclusive.

    name: qualified, `Class.method` or `space::Class::method`; "" for the file itself.
    signature: parameter list with white space collapsed, "" where there is none.
    ordinal: position among the file's symbols of the same name and signature, from 0.
    """

    name: str
    signature: str
    first: int
    last: int
    ordinal: int = 0


@dataclass(frozen=True, slots=True)
class Symbols:
    """The symbols of one file.

    language is None for files that we cannot parse: every line is then in the file itself.
    unread: line ranges that the parser could not read.
    """

    language: Language | None
    all: tuple[Symbol, ...]
    unread: tuple[tuple[int, int], ...]
    lines: int
    # The same by the last part of their names: a large file has a thousand, and is asked as often.
    by_last: Mapping[str, Sequence[Symbol]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_last: dict[str, list[Symbol]] = {}
        for symbol in self.all:
            by_last.setdefault(last_part(symbol.name), []).append(symbol)
        object.__setattr__(self, "by_last", by_last)

    @property
    def file(self) -> Symbol:
        """The file as a symbol."""
        return Symbol("", "", 1, self.lines)

    def at(self, line: int) -> Symbol:
        """The innermost symbol that holds this line."""
        return self.around(line, line)

    def around(self, first: int, last: int) -> Symbol:
        """The innermost symbol that holds all these lines."""
        best = self.file
        for symbol in self.all:
            if symbol.first > first:
                break
            if symbol.last >= last and symbol.first >= best.first:
                best = symbol
        return best

    def certain(self, line: int) -> bool:
        """Whether the parser's answer for this line can be relied on.

        Within an unread stretch a definition's head may have been lost; a symbol found inside the
        stretch and around the line still stands.
        """
        if self.language is None:
            return False
        inner = self.at(line)
        return not any(
            first <= line <= last and not (first <= inner.first and inner.name)
            for first, last in self.unread
        )

    def named(self, name: str) -> tuple[Symbol, ...]:
        """Every symbol with this qualified name, enclosing namespaces or classes left out or not.

        `init_common` and `FusedMoeLauncher::init_common` both find
        `flashinfer::FusedMoeLauncher::init_common`.
        """
        if name == "*":
            return (self.file,)
        return tuple(s for s in self._alike(name) if s.name == name or lies_within(s.name, name))

    def exactly(self, full: str) -> tuple[Symbol, ...]:
        """Every symbol with exactly this qualified name."""
        return tuple(symbol for symbol in self._alike(full) if symbol.name == full)

    def _alike(self, name: str) -> Sequence[Symbol]:
        return self.by_last.get(last_part(name), ())

    def count(self, symbol: Symbol) -> int:
        """How many symbols share its name."""
        return len(self.exactly(symbol.name))


def last_part(name: str) -> str:
    """What stands behind the last joint: names that end alike have the same."""
    return name.rpartition("::")[2].rpartition(".")[2]


def lies_within(full: str, name: str) -> bool:
    """Whether a qualified name is the other one in some namespace or class."""
    return full.endswith((f".{name}", f"::{name}"))


def same_symbol(one: Symbol, in_one: Symbols, other: Symbol, in_other: Symbols) -> bool:
    """Whether two files' symbols are the same definition, moved or not.

    Equal names settle it where the name is unique on both sides; overloads and redefinitions must
    also agree in their parameters or, for equal parameters, in their order of appearance.
    """
    if one.name != other.name:
        return False
    if one.name == "":
        return True
    if in_one.count(one) == 1 and in_other.count(other) == 1:
        return True
    return (one.signature, one.ordinal) == (other.signature, other.ordinal)


def language_of(path: str) -> Language | None:
    """The language by the file name's suffix; templates (`x.cu.jinja`) have none."""
    name = path.rpartition("/")[2]
    at = name.rfind(".")
    return _SUFFIXES.get(name[at:].lower()) if at > 0 else None


def parse_symbols(path: str, content: bytes) -> Symbols:
    """Find the symbols of a file."""
    language = language_of(path)
    if language is None:
        return Symbols(None, (), (), _lines(content))
    return _read(language, content)[0]


def remarks(path: str, content: bytes) -> Sequence[tuple[int, int]]:
    """Where comments, docstrings and what stands under `if False:` or `if (0)` are.

    Each as its first byte and the one after its last.
    """
    language = language_of(path)
    return () if language is None else _read(language, content)[1]


# A file is asked for by every patch that touches it, before and after; parsing is what costs most.
@lru_cache(maxsize=128)
def _read(language: Language, content: bytes) -> tuple[Symbols, tuple[tuple[int, int], ...]]:
    """The symbols and the remarks, in one pass over the syntax tree."""
    root, captures = _grammar(language).parse(content)
    symbols: list[Symbol] = []
    seen: dict[tuple[str, str], int] = {}
    for symbol in _symbols(language, captures.get("d", [])):
        key = (symbol.name, symbol.signature)
        ordinal = seen.get(key, 0)
        seen[key] = ordinal + 1
        symbols.append(replace(symbol, ordinal=ordinal) if ordinal else symbol)
    symbols.sort(key=lambda s: (s.first, -s.last))
    idle = sorted((node.start_byte, node.end_byte) for node in captures.get("r", []))
    unread = tuple(_unread(root))
    return Symbols(language, tuple(symbols), unread, _lines(content)), tuple(idle)


def _lines(content: bytes) -> int:
    return content.count(b"\n") + (not content.endswith(b"\n"))


# What defines a symbol. Captures come in any order and are sorted by where they start; the scopes
# around a definition are then a stack. Much faster than walking every node in Python.
_DEFINITIONS = {
    Language.PYTHON: """
        (function_definition) @d
        (class_definition) @d
        (expression_statement (assignment left: (identifier))) @d
    """,
    Language.CPP: """
        (function_definition) @d
        (namespace_definition) @d
        (class_specifier body: (_)) @d
        (struct_specifier body: (_)) @d
        (union_specifier body: (_)) @d
        (enum_specifier body: (_)) @d
        (preproc_def) @d
        (preproc_function_def) @d
        (declaration declarator: (init_declarator)) @d
    """,
}
_REMARKS = {
    Language.PYTHON: """
        (comment) @r
        (expression_statement . (string) @r .)
        (if_statement condition: [(false) (integer)] @never consequence: (block) @r
          (#any-of? @never "False" "0"))
        (elif_clause condition: [(false) (integer)] @never consequence: (block) @r
          (#any-of? @never "False" "0"))
        (while_statement condition: [(false) (integer)] @never body: (block) @r
          (#any-of? @never "False" "0"))
    """,
    Language.CPP: """
        (comment) @r
        (if_statement
          condition: (condition_clause value: [(false) (number_literal)] @never)
          consequence: (_) @r
          (#any-of? @never "false" "0"))
        (while_statement
          condition: (condition_clause value: [(false) (number_literal)] @never)
          body: (_) @r
          (#any-of? @never "false" "0"))
    """,
}
_VARIABLES = ("expression_statement", "declaration")


class _Grammar:
    """A tree-sitter parser, and the query for what we want to know of a file."""

    def __init__(self, language: Language) -> None:
        import tree_sitter

        match language:
            case Language.PYTHON:
                import tree_sitter_python

                grammar = tree_sitter_python.language()
            case Language.CPP:
                import tree_sitter_cuda

                grammar = tree_sitter_cuda.language()
        loaded = tree_sitter.Language(grammar)
        self._parser = tree_sitter.Parser(loaded)
        self._query = tree_sitter.Query(loaded, _DEFINITIONS[language] + _REMARKS[language])
        self._cursor = tree_sitter.QueryCursor

    def parse(self, content: bytes) -> tuple[Node, dict[str, list[Node]]]:
        """The root, and the definitions (`d`) and remarks (`r`) below it, in any order."""
        root = self._parser.parse(content).root_node
        return root, self._cursor(self._query).captures(root)


@cache
def _grammar(language: Language) -> _Grammar:
    return _Grammar(language)


def _symbols(language: Language, definitions: list[Node]) -> Iterator[Symbol]:
    joint = "." if language is Language.PYTHON else "::"
    # (end byte, prefix for what is inside, whether it is a function)
    scopes: list[tuple[int, str, bool]] = []
    for node in sorted(definitions, key=lambda node: (node.start_byte, -node.end_byte)):
        while scopes and scopes[-1][0] <= node.start_byte:
            scopes.pop()
        prefix, in_function = (scopes[-1][1], scopes[-1][2]) if scopes else ("", False)
        if node.type in _VARIABLES:
            if not in_function:
                for name in _variables(node):
                    yield Symbol(prefix + name, "", *_span(_whole(node)))
            continue
        named = _function(node) if language is Language.CPP else None
        if named is None:
            own = _text(node.child_by_field_name("name")) or "(anonymous)"
            named = own, _text(node.child_by_field_name("parameters"))
        elif node.type == "function_definition" and not named[0]:
            continue
        name = prefix + named[0]
        if node.type != "namespace_definition":
            yield Symbol(name, named[1], *_span(_whole(node)))
        scopes.append((node.end_byte, name + joint, node.type == "function_definition"))


def _variables(node: Node) -> Iterator[str]:
    if node.type == "expression_statement":
        yield _text(node.children[0].child_by_field_name("left"))
        return
    for declarator in node.children_by_field_name("declarator"):
        inner: Node | None = declarator
        while inner is not None and (deeper := inner.child_by_field_name("declarator")) is not None:
            inner = deeper
        if declarator.type == "init_declarator":
            yield _text(inner)


def _function(node: Node) -> tuple[str, str] | None:
    """A C++ function's name and parameters; None for what is no function."""
    if node.type != "function_definition":
        return None
    declarator = node.child_by_field_name("declarator")
    while declarator is not None and declarator.type != "function_declarator":
        inner = declarator.child_by_field_name("declarator")
        if inner is None:  # references and attributes carry theirs without a field name
            named = declarator.named_children
            inner = next((child for child in named if child.type.endswith("declarator")), None)
        declarator = inner
    if declarator is None:
        return "", ""
    name = re.sub(r"\s*::\s*", "::", _text(declarator.child_by_field_name("declarator")))
    return name, _text(declarator.child_by_field_name("parameters"))


def _whole(node: Node) -> Node:
    """The definition with its decorators or its template head."""
    parent = node.parent
    heads = ("template_declaration", "decorated_definition")
    return parent if parent is not None and parent.type in heads else node


def _text(node: Node | None) -> str:
    if node is None or node.text is None:
        return ""
    return " ".join(node.text.decode("utf-8", "replace").split())


def _span(node: Node) -> tuple[int, int]:
    # A node that ends at column 0 ends with the line before (preprocessor lines do).
    ends_before = node.end_point[1] == 0 and node.end_point > node.start_point
    return node.start_point[0] + 1, node.end_point[0] + (0 if ends_before else 1)


def _unread(node: Node) -> Iterator[tuple[int, int]]:
    if node.type == "ERROR" or node.is_missing:
        yield _span(node)
    elif node.has_error:
        for child in node.children:
            yield from _unread(child)
