"""Words and segments: every name that a parser finds in a file is found by its words."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.series.symbols import parse_symbols
from stackpatch.sources import words
from stackpatch.sources.words import Builder, Segment, words_of, words_of_name

if TYPE_CHECKING:
    from collections.abc import Mapping

TREE = "1" * 40


def segment(files: Mapping[str, bytes], relies: tuple[str, ...] = ()) -> Segment:
    builder = Builder()
    for path, content in files.items():
        builder.add(path, f"{len(content):040x}", content)
    made = words.read(builder.finish(TREE, relies))
    assert made is not None
    return made


def holding(made: Segment, name: str) -> list[str]:
    return [made.files[number][0] for number in made.holding(words_of_name(name))]


def test_a_word_is_a_run_of_letters_digits_and_underscores() -> None:
    assert words_of(b"def f_1(x2):\n\treturn a.b[c]\xff\xc3\xa9d # 12 0x1F\n") == {
        b"def", b"f_1", b"x2", b"return", b"a", b"b", b"c", b"d", b"12", b"0x1F",
    }  # fmt: skip
    assert words_of(b"") == set()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("build", {b"build"}),
        ("Launcher::init_common", {b"Launcher", b"init_common"}),
        ("Class.method", {b"Class", b"method"}),
        ("(anonymous)::field", {b"field"}),
        ("tile<128, Half>::run", {b"tile", b"Half", b"run"}),
        ("gr\u00f6\u00dfenma\u00df", {b"enma"}),
        ("operator ()", {b"operator"}),
        ("f", set()),
        ("x::ULL", set()),
        ("", set()),
    ],
)
def test_the_words_of_a_name(name: str, wanted: set[bytes]) -> None:
    assert words_of_name(name) == wanted


def test_only_files_with_every_word_are_listed() -> None:
    made = segment(
        {
            "a.py": b"class Launcher:\n    def init(self): ...\n",
            "b.py": b"class Launcher: ...\n",
            "c.py": b"def init(): ...\n",
            "d.py": b"def reinit(): ...\nclass Launchers: ...\n",
        }
    )
    assert holding(made, "Launcher.init") == ["a.py"]
    assert holding(made, "init") == ["a.py", "c.py"]
    assert holding(made, "Launcher.nowhere") == []
    assert holding(made, "ab") == ["a.py", "b.py", "c.py", "d.py"], "too short to be listed"


def test_a_name_behind_a_number_is_found() -> None:
    made = segment({"a.py": b"x = 1if y else 2\n12naming = 3\n0xfoo_bar = 1\nz = 0xFFull\n"})
    for name in ("naming", "aming", "foo_bar", "oo_bar"):
        assert holding(made, name) == ["a.py"], name
    assert holding(made, "XFFull") == []


def test_words_of_many_files_count_as_everywhere() -> None:
    files = {f"{n}.py": b"import torch\ndef only_%d(): ...\n" % n for n in range(200)}
    files["other.py"] = b"nothing here\n"
    made = segment(files)
    assert len(holding(made, "torch")) == 201
    assert holding(made, "torch.only_7") == ["7.py"]
    assert holding(made, "torch.missing") == []


def test_two_words_with_one_number_are_both_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_number", len)
    made = segment({"a.py": b"alpha\n", "b.py": b"bravo alpha\n", "c.py": b"charlie\n"})
    assert holding(made, "alpha") == holding(made, "bravo") == ["a.py", "b.py"]
    assert holding(made, "zebra") == ["a.py", "b.py"], "an answer may be too long, never too short"


def test_the_same_files_give_the_same_bytes() -> None:
    names = [f"name_{number}" for number in range(300)]
    made = []
    for seed in (1, 2):
        order = names[:]
        random.Random(seed).shuffle(order)
        builder = Builder()
        builder.add("a.py", "2" * 40, " ".join(order).encode())
        made.append(builder.finish(TREE, {"b", "a"} if seed == 1 else ["a", "b"]))
    assert made[0] == made[1]


def test_a_segment_comes_back() -> None:
    odd = b'caf\xe9 "q".py'.decode("utf-8", "surrogateescape")
    made = segment({odd: b"def here(): ...", "b.cu": b"void there();"}, relies=("ab", "aa"))
    assert made.tree == TREE
    assert made.relies == ("aa", "ab")
    assert [path for path, _ in made.files] == [odd, "b.cu"]
    assert holding(made, "here") == [odd]
    empty = segment({})
    assert (empty.files, holding(empty, "here"), holding(empty, "ab")) == ([], [], [])


def test_more_files_than_two_bytes_can_number() -> None:
    builder = Builder()
    for number in range(65_600):
        builder.add(f"{number}.py", "3" * 40, b"word_%d" % number)
    made = words.read(builder.finish(TREE, ()))
    assert made is not None
    assert holding(made, "word_65599") == ["65599.py"]


def _bytes() -> bytes:
    builder = Builder()
    builder.add("a.py", "4" * 40, b"def alpha(): return bravo")
    return builder.finish(TREE, ("aa",))


@pytest.mark.parametrize("length", range(0, len(_bytes()), 7))
def test_a_cut_off_segment_is_none(length: int) -> None:
    assert words.read(_bytes()[:length]) is None


@pytest.mark.parametrize("at", range(0, len(_bytes()), 3))
def test_a_damaged_segment_is_none(at: int) -> None:
    damaged = bytearray(_bytes())
    damaged[at] ^= 0x40
    assert words.read(bytes(damaged)) is None
    assert words.read(_bytes() + b"\0") is None


def test_a_segment_of_another_version_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    content = _bytes()
    assert words.read(content) is not None
    monkeypatch.setattr(words, "VERSION", words.VERSION + 1)
    assert words.read(content) is None


# --- nothing that a parser names is missing -----------------------------------------------------

_PIECES = [
    *("def ", "class ", "struct ", "enum ", "union ", "namespace ", "template <typename T>\n"),
    *("#define ", "__global__ void ", "async ", "@wraps\n", "operator", "int ", "auto ", "using "),
    *("alpha", "bravo_2", "charlie", "_delta", "Echo", "x", "f\u00f6\u00df", "\u540d\u5b57", "~"),
    *("1", "0x1f", "12", "0xg", "1e5", "128x128", "0b11", "1_000", "7ull", "1'000", "ULL"),
    *("(", ")", "{", "}", "[", "]", "<", ">", "::", ":", ".", ",", ";", "=", " = 1\n"),
    *(
        "(self):\n    ",
        "() {\n",
        "}\n",
        "\n",
        "    ",
        "\t",
        "\\\n",
        "\r\n",
        "if ",
        "else",
        "lambda ",
    ),
    *(
        "# note\n",
        "// note\n",
        "/*",
        "*/",
        '"""',
        '"',
        "'",
        "#if 0\n",
        "#endif\n",
        'extern "C" {\n',
    ),
    *("\u00a0", "\uff0c", "\x00", "\udcff"),
]
_SOURCES = st.lists(st.sampled_from(_PIECES), max_size=40).map("".join)


@given(source=_SOURCES, suffix=st.sampled_from(["py", "cpp", "cu", "h"]))
def test_every_symbol_is_found_by_its_words(source: str, suffix: str) -> None:
    content = source.encode("utf-8", "surrogateescape")
    made = segment({f"a.{suffix}": content})
    for symbol in parse_symbols(f"a.{suffix}", content).all:
        for name in (symbol.name, symbol.name.rpartition(".")[2], symbol.name.rpartition("::")[2]):
            assert holding(made, name) == [f"a.{suffix}"], (name, content)


@given(source=st.binary(max_size=200), suffix=st.sampled_from(["py", "cu"]))
def test_every_symbol_in_any_bytes_is_found(source: bytes, suffix: str) -> None:
    for content in (source, b"def " + source, b"int " + source + b"() {}", source + b" = 1\n"):
        made = segment({f"a.{suffix}": content})
        for symbol in parse_symbols(f"a.{suffix}", content).all:
            assert holding(made, symbol.name) == [f"a.{suffix}"], (symbol.name, content)
