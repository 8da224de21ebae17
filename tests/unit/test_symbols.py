"""Enclosing symbols, by a real parse, on what Python, C++ and CUDA files really hold."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.series.plain import plain_text
from stackpatch.series.symbols import (
    Language,
    Symbol,
    Symbols,
    language_of,
    parse_symbols,
    remarks,
    same_symbol,
)

PYTHON = '''\
"""About."""
import os

ARCHS = [
    10,
]
LIMIT: int = 3


def top(a, b=1):
    def inner():
        return 1

    return inner


class Outer:
    attr = 1

    class Inner:
        def method(self):
            pass

    @property
    def value(self):
        return 1

    @value.setter
    def value(self, new):
        x = 1


@decorate(
    "x",
)
async def waits():
    await x


if os.name == "nt":

    def top(a, b=1):
        pass
'''

CUDA = """\
#include <x>
#define ONE(a) \\
  do_it(a)

namespace fi { namespace detail {
constexpr int kMajor = 10;
enum class Kind { A, B };
template <int N, typename T>
__global__ void __launch_bounds__(128) kernel(T* out, const int n) {
  auto f = [&](int x) {
    return x;
  };
  out[0] = n;
}

struct Params {
  int a;
  void init() { a = 1; }
};

void Params::later(int b) const {
  a = b;
}
}  // namespace detail
}

namespace {
static inline int helper() { return 1; }
}
void over(int a) {
  x();
}
void over(float a) {
  x();
}
int& Launcher<10>::ref() {
  return y;
}
bool operator==(const A& a, const B& b) { return true; }
extern "C" int c_name(void) {
  return 1;
}
"""


def lines_with(text: str, part: str) -> list[int]:
    return [number for number, line in enumerate(text.splitlines(), 1) if part in line]


def at(path: str, text: str, part: str, nth: int = 0) -> str:
    return parse_symbols(path, text.encode()).at(lines_with(text, part)[nth]).name


@pytest.mark.parametrize(
    ("part", "nth", "name"),
    [
        ("import os", 0, ""),
        ("    10,", 0, "ARCHS"),
        ("LIMIT", 0, "LIMIT"),
        ("def top", 0, "top"),
        ("return 1", 0, "top.inner"),
        ("return inner", 0, "top"),
        ("attr = 1", 0, "Outer.attr"),
        ("pass", 0, "Outer.Inner.method"),
        ("@property", 0, "Outer.value"),
        ("x = 1", 0, "Outer.value"),
        ('    "x",', 0, "waits"),
        ("await x", 0, "waits"),
        ("if os.name", 0, ""),
        ("pass", 1, "top"),
    ],
)
def test_python(part: str, nth: int, name: str) -> None:
    assert at("x.py", PYTHON, part, nth) == name


@pytest.mark.parametrize("path", ["x.cu", "x.cuh", "x.cpp", "x.h"])
@pytest.mark.parametrize(
    ("part", "nth", "name"),
    [
        ("#include", 0, ""),
        ("do_it", 0, "ONE"),
        ("kMajor", 0, "fi::detail::kMajor"),
        ("enum class", 0, "fi::detail::Kind"),
        ("template <int", 0, "fi::detail::kernel"),
        ("out[0]", 0, "fi::detail::kernel"),
        ("return x;", 0, "fi::detail::kernel"),
        ("  int a;", 0, "fi::detail::Params"),
        ("a = 1", 0, "fi::detail::Params::init"),
        ("a = b", 0, "fi::detail::Params::later"),
        ("helper", 0, "(anonymous)::helper"),
        ("return y", 0, "Launcher<10>::ref"),
        ("operator==", 0, "operator=="),
        ("c_name", 0, "c_name"),
        ("}  // namespace", 0, ""),
    ],
)
def test_cpp_and_cuda(path: str, part: str, nth: int, name: str) -> None:
    assert at(path, CUDA, part, nth) == name


def test_nothing_is_unread_in_the_samples() -> None:
    assert parse_symbols("x.py", PYTHON.encode()).unread == ()
    assert parse_symbols("x.cu", CUDA.encode()).unread == ()


def test_overloads_are_told_apart_by_parameters_and_twins_by_order() -> None:
    one = parse_symbols("x.cu", CUDA.encode())
    first, second = one.named("over")
    assert (first.signature, second.signature) == ("(int a)", "(float a)")
    assert same_symbol(first, one, first, one)
    assert not same_symbol(first, one, second, one)
    two = parse_symbols("x.py", PYTHON.encode())
    early, late = (s for s in two.named("top") if s.name == "top")
    assert (early.ordinal, late.ordinal) == (0, 1)
    assert not same_symbol(early, two, late, two)


def test_a_unique_name_is_the_same_with_other_parameters() -> None:
    one = parse_symbols("x.py", b"def f(a):\n    pass\n")
    two = parse_symbols("x.py", b"x = 1\n\n\ndef f(a, b):\n    pass\n")
    assert same_symbol(one.all[0], one, two.named("f")[0], two)
    assert not same_symbol(one.all[0], one, two.named("x")[0], two)


def test_names_are_found_with_and_without_what_is_around_them() -> None:
    symbols = parse_symbols("x.cu", CUDA.encode())
    for name in ("init", "Params::init", "detail::Params::init", "fi::detail::Params::init"):
        assert [s.name for s in symbols.named(name)] == ["fi::detail::Params::init"]
    assert symbols.named("nit") == ()
    assert symbols.named("arams::init") == ()
    (whole,) = symbols.named("*")
    assert (whole.first, whole.last) == (1, CUDA.count("\n"))


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a.py", Language.PYTHON),
        ("a.pyi", Language.PYTHON),
        ("a.cu", Language.CPP),
        ("A.CUH", Language.CPP),
        ("a.hpp", Language.CPP),
        ("a.cu.jinja", None),
        ("a.txt", None),
        ("CMakeLists.txt", None),
        ("py", None),
        ("a.pyx", None),
    ],
)
def test_languages(path: str, language: Language | None) -> None:
    assert language_of(path) is language


def test_a_file_without_grammar_has_no_symbols_and_no_certainty() -> None:
    symbols = parse_symbols("a.txt", b"def f():\n    pass\n")
    assert symbols.all == ()
    assert symbols.at(1).name == ""
    assert not symbols.certain(1)


def test_what_was_not_read_is_not_certain() -> None:
    text = "def f():\n    return 1\n\n\ndef (:\n    x = = 1\n\n\ndef g():\n    return 1\n"
    symbols = parse_symbols("a.py", text.encode())
    assert symbols.unread
    assert symbols.certain(2)
    assert not symbols.certain(6)
    missing = parse_symbols("a.cu", b"void f() {\n  a();\n")
    assert missing.unread


@given(st.binary(max_size=200), st.sampled_from(["a.py", "a.cu", "a.txt"]))
def test_any_bytes_are_answered(content: bytes, path: str) -> None:
    symbols = parse_symbols(path, content)
    for number in range(1, symbols.lines + 2):
        symbols.at(number)
        symbols.certain(number)
    plain = plain_text(path, content)
    assert len(plain.lines) == len(content.split(b"\n"))


NAMES = st.sampled_from("abc")


@st.composite
def modules(draw: st.DrawFn, depth: int = 0) -> list[str]:
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        name = draw(NAMES)
        kind = draw(st.sampled_from(["def", "class", "line", "if"]))
        if kind == "line" or depth > 2:
            lines.append(f"call({name})")
        else:
            head = {"def": f"def {name}(x):", "class": f"class {name}:", "if": "if x:"}[kind]
            lines += [head, *(f"    {line}" for line in draw(modules(depth + 1)))]
    return lines


@given(modules())
def test_python_symbols_are_those_of_pythons_own_parser(lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    expected: list[tuple[str, int, int]] = []

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                expected.append((name, child.lineno, child.end_lineno or 0))
                visit(child, f"{name}.")
            else:
                visit(child, prefix)

    visit(ast.parse(text), "")
    found = [(s.name, s.first, s.last) for s in parse_symbols("x.py", text.encode()).all]
    assert sorted(found) == sorted(expected)


def plain(path: str, text: str) -> list[str]:
    return [line.decode() for line in plain_text(path, text.encode()).lines]


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("a.py", "x = 1  # y\n", ["x = 1", ""]),
        (
            "a.py",
            "def f():\n    '''doc\n    more'''\n    return 'text # no'\n",
            ["def f():", "", "", "return 'text # no'", ""],
        ),
        ("a.py", "x = '''kept\n# kept'''\n", ["x = '''kept", "# kept'''", ""]),
        ("a.cu", "a(); // b\n/* c\n d */ e();\n", ["a();", "", "e();", ""]),
        ("a.cu", 'f("// kept");\n', ['f("// kept");', ""]),
        (
            "a.cu",
            "#if 0\na();\n#if X\nb();\n#else\nc();\n#endif\n#else\nd();\n#endif\ne();\n",
            ["#if 0", "", "", "", "", "", "", "#else", "d();", "#endif", "e();", ""],
        ),
        (
            "a.cu",
            "#if 0\na();\n#elif X\nb();\n#endif\n",
            ["#if 0", "", "#elif X", "b();", "#endif", ""],
        ),
        ("a.cu", "#  if false\na();\n", ["# if false", "", ""]),
        ("a.cu", "#if 01\na();\n#endif\n", ["#if 01", "a();", "#endif", ""]),
        *(
            ("a.cu", f"#if {condition}\na();\n#endif\n", [f"#if {condition}", kept, "#endif", ""])
            for condition, kept in (
                ("0 || X", "a();"),
                ("0 == X", "a();"),
                ("(0)", ""),
                ("0 && X", ""),
                ("0 && X || Y", "a();"),
                ("1", "a();"),
            )
        ),
        (
            "a.cu",
            "#if 1\na();\n#elif X\nb();\n#else\nc();\n#endif\nd();\n",
            ["#if 1", "a();", "#elif X", "", "#else", "", "#endif", "d();", ""],
        ),
        (
            "a.cu",
            "#if X\na();\n#elif 0\nb();\n#endif\n",
            ["#if X", "a();", "#elif 0", "", "#endif", ""],
        ),
        ("a.cu", "/* say\n#if 0\n*/\na();\n", ["", "", "", "a();", ""]),
        ("CMakeLists.txt", "set(a) # kept\n  # gone\nb\n", ["set(a) # kept", "", "b", ""]),
        ("a.yaml", "# gone\na: '#kept'\n", ["", "a: '#kept'", ""]),
        ("a.cu.jinja", "// gone\n{# gone #}\na(); // kept\n", ["", "", "a(); // kept", ""]),
        ("a.md", "# kept\n", ["# kept", ""]),
        ("a.json", '{"#": 1}\n', ['{"#": 1}', ""]),
    ],
)
def test_plain_text_is_what_does_something(path: str, text: str, expected: list[str]) -> None:
    assert plain(path, text) == expected


def test_plain_text_of_a_symbol_knows_its_lines() -> None:
    text = "x = 1\n\n\ndef f():\n    # no\n    a = [\n        10,\n    ]\n"
    symbols, found = parse_symbols("a.py", text.encode()), plain_text("a.py", text.encode())
    (symbol,) = symbols.named("f")
    flat = found.of(symbol)
    assert flat == "def f(): a = [ 10, ]"
    assert found.line_of(symbol, flat.index("10")) == 7
    assert found.line_of(symbol, 0) == 4
    assert (found.line(6), found.line(99), found.line(0)) == (b"a = [", b"", b"")


@pytest.mark.parametrize(
    ("path", "text", "dead"),
    [
        ("a.py", "if False:\n    a = 1\nelse:\n    b = 1\n", ["a = 1"]),
        ("a.py", "if x:\n    a = 1\nelif 0:\n    b = 1\nelif y:\n    c = 1\n", ["b = 1"]),
        ("a.py", "while False:\n    a = 1\nwhile 0:\n    b = 1\n", ["a = 1", "b = 1"]),
        ("a.py", "if 0 or x:\n    a = 1\nif 10:\n    b = 1\nwhile True:\n    c = 1\n", []),
        ("a.py", "if 'False':\n    a = 1\nif not 0:\n    b = 1\n", []),
        ("a.cu", "void f() {\n  if (false) { a(); } else { b(); }\n}\n", ["{ a(); }"]),
        (
            "a.cu",
            "void f() {\n  if constexpr (0) a();\n  while (0) { b(); }\n}\n",
            ["a();", "{ b(); }"],
        ),
        ("a.cu", "void f() {\n  do { a(); } while (0);\n  if (x && false) b();\n}\n", []),
        ("a.h", "void f() {\n  if (0x0) a();\n  if (1) b();\n  for (;false;) c();\n}\n", []),
    ],
)
def test_what_stands_under_a_false_condition_is_a_remark(
    path: str, text: str, dead: list[str]
) -> None:
    content = text.encode()
    assert [content[first:end].decode() for first, end in remarks(path, content)] == dead


_PARTS = st.lists(st.sampled_from(["a", "b", ":", "::", ".", "operator()", "<x::y>"]), max_size=5)


@given(st.lists(_PARTS.map("".join), max_size=6), _PARTS.map("".join))
def test_symbols_by_name_are_those_that_end_with_it(names: list[str], wanted: str) -> None:
    symbols = Symbols(Language.CPP, tuple(Symbol(n, "", 1, 1) for n in names), (), 1)
    ends = (f".{wanted}", f"::{wanted}")
    expected = [n for n in names if n == wanted or n.endswith(ends)]
    assert [symbol.name for symbol in symbols.named(wanted)] == expected
