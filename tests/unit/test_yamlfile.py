"""The strict reader: what it takes, everything it refuses, and the line it says."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.errors import Problems
from stackpatch.model import yamlfile
from stackpatch.model.yamlfile import Document, Fault, field_name, load, parse

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def value(text: str) -> object:
    document = parse(text.encode())
    assert document.faults == ()
    assert not document.broken
    return document.value


def said(text: str | bytes) -> list[str]:
    """Every fault, as people see it."""
    raw = text.encode() if isinstance(text, str) else text
    with pytest.raises(Problems) as caught:
        load("f", raw)
    return list(caught.value.problems)


def test_plain_values() -> None:
    text = """\
a: text
b: "1.10"
c: 12
d: -3
e: 0
f: true
g: false
h: null
i: [x, "y", 3]
j: {k: v}
"quoted key": >-
  folded
l: ""
m: 'single'
"""
    assert value(text) == {
        "a": "text",
        "b": "1.10",
        "c": 12,
        "d": -3,
        "e": 0,
        "f": True,
        "g": False,
        "h": None,
        "i": ["x", "y", 3],
        "j": {"k": "v"},
        "quoted key": "folded",
        "l": "",
        "m": "single",
    }


@pytest.mark.parametrize(
    "word",
    [
        "v0.6.3",
        "0.6.3",
        "0.7.2.post1",
        "d0886ce2b67761a5b4f9396b4c3741f7860791b0",
        "flashinfer/_build_meta.py",
        "__version__",
        "https://example.org/x#y",
        "sm121",
        "None",
        "nope",
        "a b c",
        "git@github.com:x/y.git",
        "3rdparty/cutlass/",
        "..",
        "-x",
    ],
)
def test_words_that_every_reader_takes_for_text_need_no_quotes(word: str) -> None:
    assert value(f"key: {word}\n") == {"key": word}
    assert yaml.safe_load(f"key: {word}\n") == {"key": word}  # the premise


# Each with what PyYAML's safe loader makes of it.
SURPRISES = {
    "no": False,
    "yes": True,
    "on": True,
    "off": False,
    "No": False,
    "ON": True,
    "True": True,
    "FALSE": False,
    "~": None,
    "Null": None,
    "1.10": 1.1,
    "0.6": 0.6,
    "12.8": 12.8,
    "1e3": "1e3",  # a number in YAML 1.2
    "1.5e+3": 1500.0,
    "4e41": "4e41",
    ".5": 0.5,
    ".inf": float("inf"),
    "-.INF": float("-inf"),
    "0123": 83,
    "0o17": "0o17",  # 15 in YAML 1.2
    "0x1F": 31,
    "0b11": 3,
    "1_000": 1000,
    "+12": 12,
    "08": "08",  # 8 in YAML 1.2
    "1:30": 90,
    "190:20:30": 685230,
    "12345678901234567890": 12345678901234567890,
    "y": "y",  # true in other YAML 1.1 readers
    "N": "N",
}


@pytest.mark.parametrize("word", SURPRISES)
def test_words_that_some_reader_takes_for_something_else_need_quotes(word: str) -> None:
    assert yaml.safe_load(f"key: {word}\n") == {"key": SURPRISES[word]}  # the premise
    (line,) = said(f"# comment\nkey: {word}\n")
    assert line.startswith(f"f:2: key: {word} is YAML for ")
    assert value(f'key: "{word}"\n') == {"key": word}


@pytest.mark.parametrize("word", ["2026-02-06", "2026-02-06T00:28:23Z", "2026-2-6 1:02:03"])
def test_a_date_needs_quotes(word: str) -> None:
    (line,) = said(f"key: {word}\n")
    assert line == f'f:1: key: {word} is YAML for a date; quote it: "{word}"'


def test_not_a_number_and_its_like() -> None:
    for word in (".nan", "=", "<<"):
        (line,) = said(f"key: {word}\n")
        assert line.startswith(f"f:1: key: {word} is YAML for ")


def test_a_commit_of_digits_needs_quotes_and_is_not_repeated_without_end() -> None:
    digits = "1234567890" * 4
    assert said(f"commit: {digits}\n") == [
        f'f:1: commit: {digits} is YAML for a number; quote it: "{digits}"'
    ]
    (line,) = said(f"commit: {'9' * 100_000}\n")
    assert len(line) < 200


def test_a_value_that_was_forgotten() -> None:
    assert said("a:\nb: 1\n") == ["f:1: a: no value; write null where none is meant"]
    assert said("a: [1, ]\nb: [, 1]\n")[0].startswith("f:2: not YAML")


def test_keys_must_be_words() -> None:
    assert said("1: a\n") == ["f:1: 1: a key must be text; put it in quotes"]
    assert said("on: a\n")[0].startswith("f:1: on: on is YAML for true or false")
    assert said("null: a\n")[0].startswith("f:1: null: null is YAML for no value")
    assert said("1.5: a\n")[0].startswith("f:1: 1.5: 1.5 is YAML for a number")
    assert said("? [a, b]\n: c\n") == [
        "f:1: a key must be a word, not a list, a mapping or an alias"
    ]
    assert said("? {a: no}\n: c\n") == [
        "f:1: a key must be a word, not a list, a mapping or an alias",
        'f:1: a: no is YAML for true or false; write one of them, or "no"',
    ]
    assert value('"1": a\n') == {"1": "a"}
    assert said('"": a\n"": b\n') == ["f:2: : the key stands twice (first on line 1)"]


def test_a_key_that_stands_twice_at_any_depth() -> None:
    text = """\
a: 1
b:
  - c: 1
    d: 2
    c: 3
a:
  e: no
"""
    assert said(text) == [
        "f:5: b[0].c: the key stands twice (first on line 3)",
        "f:6: a: the key stands twice (first on line 1)",
        'f:7: a.e: no is YAML for true or false; write one of them, or "no"',
    ]
    assert yaml.safe_load("a: 1\na: 2\n") == {"a": 2}  # the premise


def test_aliases_anchors_tags() -> None:
    assert said("a: &x 1\nb: *x\n") == [
        "f:1: a: anchors (&x) are not taken; write it out",
        "f:2: b: aliases (*x) are not taken; write it out",
    ]
    assert said("a: !!str 1\n") == ["f:1: a: tags (tag:yaml.org,2002:str) are not taken"]
    assert said("a: !!python/object/apply:os.system [id]\n") == [
        "f:1: a: tags (tag:yaml.org,2002:python/object/apply:os.system) are not taken"
    ]
    assert said("a: !x {b: 1}\n") == ["f:1: a: tags (!x) are not taken"]
    assert said("&k a: 1\n")[0] == "f:1: a: a key takes no anchor and no tag"
    assert said("base: &b {x: 1}\nd:\n  <<: *b\n")[0].startswith("f:1: base: anchors")
    assert said("%YAML 1.1\n---\na: 1\n") == ["f:1: % directives are not taken"]


def test_an_alias_bomb_is_refused_at_once() -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    start = time.perf_counter()
    problems = said("\n".join(lines))
    assert time.perf_counter() - start < 2
    assert problems[0].startswith("f:1: a0: anchors (&a0)")
    assert "f:2: a1[0]: aliases (*a0) are not taken; write it out" in problems


def test_an_alias_of_itself() -> None:
    assert said("a: &a [*a]\n") == [
        "f:1: a: anchors (&a) are not taken; write it out",
        "f:1: a[0]: aliases (*a) are not taken; write it out",
    ]


def test_one_document() -> None:
    assert said("a: 1\n---\nb: 2\n") == ["f:2: a second document starts here; one file holds one"]
    assert said("a: 1\n...\nb: 2\n")[0].startswith("f:3: ")
    assert value("---\na: 1\n...\n") == {"a": 1}


@pytest.mark.parametrize("text", ["", "\n\n", "   \n"])
def test_an_empty_file(text: str) -> None:
    assert said(text) == ["f:1: the file is empty"]


def test_only_comments() -> None:
    assert said("# a\n# b\n") == ["f:1: the file holds only comments"]
    assert said("---\n") == ["f:2: no value; write null where none is meant"]


def test_bytes_that_are_no_text() -> None:
    assert said(b"a: 1\nb: caf\xe9\n") == ["f:2: not UTF-8 text (byte 0xe9)"]
    assert said("a: é\n".encode("utf-16"))[0] == "f:1: not UTF-8 text (byte 0xff)"
    assert said(b"\x7fELF\x02\x01\x01\0\0\0")[0] == "f:1: a character that does not show: U+007F"
    assert said(b"a: 1\nb: \0\n") == ["f:2: a character that does not show: U+0000"]


def test_a_byte_order_mark_is_told_with_everything_else() -> None:
    assert said(b"\xef\xbb\xbfa: no\n") == [
        "f:1: starts with a byte order mark; save it without one",
        'f:1: a: no is YAML for true or false; write one of them, or "no"',
    ]


@pytest.mark.parametrize("character", ["\u202e", "\u2066", "\u200b", "\u2028", "\x85", "\ufeff"])
def test_characters_that_hide_or_reorder_text(character: str) -> None:
    assert said(f"a: 1\nb: x{character}y\n") == [
        f"f:2: a character that does not show: U+{ord(character):04X}"
    ]


def test_tabs_are_told_together_with_the_rest() -> None:
    assert said("a:\n\tb: no\n") == [
        "f:2: a tab character; use spaces",
        'f:2: a.b: no is YAML for true or false; write one of them, or "no"',
    ]
    assert said("a: x\t# why\n") == ["f:1: a tab character; use spaces"]


def test_line_ends() -> None:
    assert value("a: 1\r\nb: 2\r\n") == {"a": 1, "b": 2}
    assert said("a: 1\r\nb: no\r\n")[0].startswith("f:2: b: ")
    assert said("a: 1\rb: 2\n") == ["f:1: a carriage return without a line feed"]


def test_syntax_errors_say_the_line() -> None:
    (line,) = said("a: 1\nb: [1, 2\nc: 3\n")
    assert line.startswith("f:3: not YAML: ")
    assert "line 2" in line
    (line,) = said("a: 1\n b: 2\n")
    assert line.startswith("f:2: not YAML: ")
    (line,) = said('a: "open\n')
    assert line.startswith("f:2: not YAML: ")
    (line,) = said("a: @b\n")
    assert line.startswith("f:1: not YAML: ")
    (line,) = said("a: 1: 2\n")
    assert line.startswith("f:1: not YAML: ")


def test_depth_and_size_have_an_end() -> None:
    deep = "[" * 1000 + "]" * 1000
    assert said(f"a:\n  {deep}\n") == ["f:2: nested deeper than 16 levels"]
    assert value("a: " + "[" * 15 + "]" * 15 + "\n")
    huge = b"a: " + b"x" * yamlfile.MAX_BYTES
    assert said(huge) == ["f:1: too large: a recipe has at most 1,048,576 bytes"]


def test_lines_of_every_path() -> None:
    document = parse(b"a: 1\nb:\n  - c\n  - d:\n      e: 2\n  - {f: 3,\n     g: 4}\n")
    assert document.lines == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 1): 4,
        ("b", 1, "d"): 4,
        ("b", 1, "d", "e"): 5,
        ("b", 2): 6,
        ("b", 2, "f"): 6,
        ("b", 2, "g"): 7,
    }
    assert document.line(("b", 1, "d", "absent", 3)) == 4
    assert document.line(("absent",)) == 1


def test_faulty_paths_cover_what_is_below() -> None:
    document = parse(b"a: no\nb: {c: no}\n")
    assert document.is_faulty(("a",))
    assert document.is_faulty(("a", "x"))
    assert document.is_faulty(("b", "c"))
    assert not document.is_faulty(("b",))
    assert not document.is_faulty(())


def test_field_names() -> None:
    assert field_name(("releases", 0, "artefacts", 12, "file")) == "releases[0].artefacts[12].file"
    assert field_name(()) == ""
    assert Fault(3, (), "x").at("f") == "f:3: x"
    assert Fault(3, ("a", "b"), "x").at("f") == "f:3: a.b: x"


def test_problems_come_in_the_order_of_lines_and_are_counted() -> None:
    with pytest.raises(Problems) as caught:
        load("recipes/x.yaml", b"a: no\nb: 1.5\n")
    assert caught.value.message == "recipes/x.yaml: 2 problems"
    assert [line.split(":")[1] for line in caught.value.problems] == ["1", "2"]
    with pytest.raises(Problems) as caught:
        load("x", b"a: no\n")
    assert caught.value.message == "x: 1 problem"


def test_load_gives_the_document() -> None:
    document = load("f", b"a: [1, b]\n")
    assert isinstance(document, Document)
    assert document.value == {"a": [1, "b"]}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_our_recipes_read_as_pyyaml_reads_them(path: Path) -> None:
    raw = path.read_bytes()
    assert load(path.name, raw).value == yaml.safe_load(raw)


def test_libyaml_and_the_pure_parser_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [path.read_bytes() for path in RECIPES]
    samples += [b"a: no\nb: &x 1\nc: *x\nd: !!str y\ne: 'q'\n", b"a: {b: [1, 2.5, '3']}\n"]
    found = [parse(raw) for raw in samples]
    monkeypatch.setattr(yamlfile, "_LOADER", yaml.SafeLoader)
    assert [parse(raw) for raw in samples] == found


words = st.text(
    st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=12
)


@given(words)
def test_a_plain_word_means_the_same_to_every_reader_or_is_refused(word: str) -> None:
    text = f"key: {word}\n"
    document = parse(text.encode())
    if document.faults:
        return
    assert isinstance(document.value, dict)
    ours = document.value["key"]
    theirs = yaml.safe_load(text)["key"]
    assert ours == theirs
    assert type(ours) is type(theirs)


# libyaml takes no surrogate pairs in \u escapes.
texts = st.text(st.characters(max_codepoint=0xD7FF), max_size=8)
trees = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner),
    max_leaves=12,
)


@given(st.dictionaries(texts, trees, min_size=1, max_size=5))
def test_whatever_json_can_say_comes_back(tree: dict[str, object]) -> None:
    """JSON is YAML: with every word quoted, nothing is ambiguous."""
    document = parse(json.dumps(tree, ensure_ascii=True).encode())
    if any("deeper" in fault.text for fault in document.faults):
        return
    assert document.faults == ()
    assert document.value == tree


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything(raw: bytes) -> None:
    document = parse(raw)
    assert document.faults or not document.broken
    for fault in document.faults:
        assert 1 <= fault.line <= raw.count(b"\n") + raw.count(b"\r") + 2


@given(st.text(alphabet='abc:-?[]{}&*!|>"#,% \n', max_size=60))
def test_no_punctuation_raises_anything(text: str) -> None:
    document = parse(text.encode())
    assert document.faults or not document.broken
    for path, line in document.lines.items():
        # What is missing at the end stands on the line after the last: `---` alone.
        assert 1 <= line <= text.count("\n") + 2, path
