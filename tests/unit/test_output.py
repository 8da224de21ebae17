"""Results, notes and errors: what reaches which stream, in every encoding and terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from stackpatch.cli import output, terminal
from stackpatch.errors import EnvironmentProblem, FindingError, InputError, Problems


class Tty(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.raw_bytes = io.BytesIO()
        super().__init__(self.raw_bytes, encoding=encoding)

    def isatty(self) -> bool:
        if self.closed:
            msg = "I/O operation on closed file"
            raise ValueError(msg)
        return True


@pytest.fixture(autouse=True)
def _new_run() -> None:
    output.start()


def shown(words: str, *, encoding: str) -> bytes:
    """What `terminal.write` puts on a pipe of this encoding."""
    code = f"import sys\nfrom stackpatch.cli import terminal\nterminal.write(sys.stdout, {words})"
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, check=True, timeout=60
    ).stdout


# Documents


def test_text_goes_to_stdout_and_ends_with_a_newline(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit("list", {"stacks": []}, "one\ntwo", json=False)
    output.emit("list", {"stacks": []}, ["three", "four"], json=False)
    output.emit("list", {"stacks": []}, "five\n", json=False)
    output.emit("list", {"stacks": []}, json=False)
    assert capsys.readouterr() == ("one\ntwo\nthree\nfour\nfive\n", "")


def test_document_goes_to_stdout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    output.note("on the way")
    output.warn("careful")
    output.emit("list", {"stacks": [1]}, "text", json=True)
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"schema": "stackpatch.list/1", "stacks": [1]}
    assert shown.err == "on the way\nwarning: careful\n"


def test_schema_is_the_first_key_and_error_the_last() -> None:
    text = output.render_document("lint", {"b": 1, "a": 2}, InputError("m"))
    assert list(json.loads(text)) == ["schema", "b", "a", "error"]


def test_a_result_with_a_finding_is_one_document_and_the_findings_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    finding = FindingError("2 files drifted", hint="see above", where="x.py:3")
    with pytest.raises(typer.Exit) as wish:
        output.emit("audit", {"files": ["x.py"]}, "x.py", json=True, failure=finding)
    assert wish.value.exit_code == 1
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "schema": "stackpatch.audit/1",
        "files": ["x.py"],
        "error": {
            "kind": "finding",
            "message": "2 files drifted",
            "hint": "see above",
            "where": "x.py:3",
        },
    }


def test_a_result_with_a_finding_for_people_is_text_then_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit):
        output.emit("audit", {}, "x.py", json=False, failure=FindingError("drift"))
    assert capsys.readouterr() == ("x.py\n", "error: drift\n")


def test_a_failure_after_the_document_adds_no_second_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.emit("build", {"key": "k"}, json=True)
    output.fail("build", EnvironmentProblem("disk"), json=True)
    shown = capsys.readouterr()
    assert json.loads(shown.out)["key"] == "k"
    assert shown.err == "error: disk\n"


def test_a_command_that_emits_twice_is_a_mistake() -> None:
    output.emit("build", {}, json=True)
    with pytest.raises(AssertionError, match="two documents"):
        output.emit("build", {}, json=True)


def test_problems_are_in_the_document() -> None:
    error = Problems("2 problems", ("a:1: x", "b:2: y"), hint="mend them")
    assert output.error_document(error) == {
        "kind": "input",
        "message": "2 problems",
        "hint": "mend them",
        "where": None,
        "problems": ["a:1: x", "b:2: y"],
    }


class Word(StrEnum):
    NEEDED = "needed"


def test_values_become_plain_json() -> None:
    document = {
        "path": Path("/a/b"),
        "tuple": (1, 2.5, None, True),
        "word": Word.NEEDED,
        "nested": {Path("k"): [Path("v")]},
    }
    found = json.loads(output.render_document("show", document))
    assert found == {
        "schema": "stackpatch.show/1",
        "path": "/a/b",
        "tuple": [1, 2.5, None, True],
        "word": "needed",
        "nested": {"k": ["v"]},
    }


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}, float("nan"), float("inf")])
def test_values_that_json_has_not_are_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        output.render_document("show", {"value": value})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_every_document_is_ascii_and_reads_back(value: Any) -> None:
    text = output.render_document("show", {"value": value})
    assert text.isascii()
    assert json.loads(text)["value"] == value
    whole = {"schema": "stackpatch.show/1", "value": value}
    assert text == json.dumps(whole, indent=2) + "\n", "laid out as Python's own"


@given(
    st.dictionaries(
        st.text().filter(lambda key: key != "schema"),
        st.recursive(
            st.none() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
    )
)
def test_what_was_written_before_stands_like_the_object_itself(value: dict[str, Any]) -> None:
    kept = output.Written(str(output.written(value)))
    assert output.render_document("show", kept) == output.render_document("show", value)
    for within in ({"a": kept}, {"a": [kept, 1, {"b": kept}]}, {"a": {"b": {"c": [[kept]]}}}):
        plain = json.loads(json.dumps(within).replace(json.dumps(kept), json.dumps(value)))
        assert output.render_document("show", within) == output.render_document("show", plain)


def test_a_failure_joins_what_was_written_before() -> None:
    text = output.render_document("show", output.written({"a": 1}), FindingError("no"))
    document = json.loads(text)
    assert (document["schema"], document["a"]) == ("stackpatch.show/1", 1)
    assert document["error"]["message"] == "no"


@given(st.binary())
def test_names_that_are_not_utf8_give_a_document_that_strict_readers_take(name: bytes) -> None:
    text = output.render_document("show", {"path": Path("/" + os.fsdecode(name).replace("/", ""))})
    assert json.loads(text)["path"].encode("utf-8")  # no lone surrogate


# Errors for people


def test_error_lines(capsys: pytest.CaptureFixture[str]) -> None:
    output.fail("x", Problems("2 problems", ("a:1: x", "b:2: y"), hint="mend"), json=False)
    assert capsys.readouterr() == ("", "error: 2 problems\na:1: x\nb:2: y\n  hint: mend\n")


def test_colours_only_on_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Tty()
    monkeypatch.setenv("TERM", "xterm-256color")
    assert terminal.style("x", "red", stream) == "\x1b[1;31mx\x1b[0m"
    assert terminal.style("x", "red", io.StringIO()) == "x"
    assert terminal.style("x", "red", None) == "x"
    with monkeypatch.context() as patch:
        patch.setenv("NO_COLOR", "1")
        assert terminal.style("x", "red", stream) == "x"
    with monkeypatch.context() as patch:
        patch.setenv("NO_COLOR", "")  # no-color.org: an empty value does not count
        assert terminal.colours(stream)
    for term in ("dumb", None):
        with monkeypatch.context() as patch:
            patch.setenv("TERM", term) if term else patch.delenv("TERM")
            assert terminal.style("x", "red", stream) == "x"
    stream.close()
    assert terminal.style("x", "red", stream) == "x"


# Bytes on the stream


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "é ✓ \U0001f600".encode()),
        ("latin-1", b"\xe9 \\u2713 \\U0001f600"),
        ("ascii", b"\\xe9 \\u2713 \\U0001f600"),
        ("cp1252", b"\xe9 \\u2713 \\U0001f600"),
    ],
)
def test_every_encoding_of_stdout_takes_every_text(encoding: str, expected: bytes) -> None:
    assert shown("'\\xe9 \\u2713 \\U0001f600'", encoding=encoding) == expected


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_file_name_that_is_not_utf8_goes_out_as_it_is(encoding: str) -> None:
    assert shown("'caf\\udce9.py'", encoding=encoding) == b"caf\xe9.py"


def test_control_characters_are_made_visible_and_our_colours_pass() -> None:
    stream = Tty()
    terminal.write(stream, "a\x1b]0;title\x07b\rc\x00\x9b31m \x1b[31mred\x1b[0m\ttab\n\x1b[2J")
    assert stream.raw_bytes.getvalue() == (
        b"a\\x1b]0;title\\x07b\\x0dc\\x00\\x9b31m \x1b[31mred\x1b[0m\ttab\n\\x1b[2J"
    )


def test_colours_of_others_and_words_that_turn_the_line_are_made_visible() -> None:
    stream = Tty()
    terminal.write(stream, "\x1b[8mhidden\x1b[0m \x1b[38;5;0m \u202eevil\u202c \u2066x\u2069\n")
    assert stream.raw_bytes.getvalue() == (
        b"\\x1b[8mhidden\x1b[0m \\x1b[38;5;0m \\u202eevil\\u202c \\u2066x\\u2069\n"
    )


@given(st.text())
def test_what_is_written_holds_no_control_character_but_newline_and_tab(text: str) -> None:
    stream = Tty()
    terminal.write(stream, text)
    out = stream.raw_bytes.getvalue()
    assert not re.search(rb"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]", out)


def test_write_keeps_the_order_with_what_was_buffered() -> None:
    stream = Tty()
    stream.write("first ")
    terminal.write(stream, "second ")
    stream.write("third")
    stream.flush()
    assert stream.raw_bytes.getvalue() == b"first second third"


def test_write_to_no_stream_does_nothing() -> None:
    terminal.write(None, "x")
    terminal.silence(None)


# Tables


def test_table_aligns_and_never_cuts_outside_a_terminal() -> None:
    rows = [("flashinfer", "0.6.3", "x" * 300), ("sg", "0.5.6.post2", "y")]
    lines = output.table(("stack", "release", "note"), rows)
    assert lines == [
        "stack       release      note",
        "flashinfer  0.6.3        " + "x" * 300,
        "sg          0.5.6.post2  y",
    ]


def test_table_without_rows_is_its_header() -> None:
    assert output.table(("a", "b"), []) == ["a  b"]


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_table_fits_a_narrow_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Tty())
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = output.table(("name", "what"), [("a", "w" * 200), ("b", "short")])
    assert lines[1].endswith("...")
    assert len(lines[1]) == columns
    assert lines[2] == "b     short"


def test_colours_and_wide_letters_keep_the_columns_straight() -> None:
    red = "\x1b[31mneeded\x1b[0m"
    lines = output.table(("verdict", "x"), [(red, "1"), ("漢字", "2"), ("e\u0301", "3")])
    assert [terminal.width(line) for line in lines[1:]] == [10, 10, 10]
    assert terminal.width("漢字") == 4
    assert terminal.width(red) == 6


def test_shorten_drops_colours_with_what_it_cuts() -> None:
    assert terminal.shorten("\x1b[31mabcdefghij\x1b[0m", 8) == "abcde..."
    assert terminal.shorten("\x1b[31mabc\x1b[0m", 8) == "\x1b[31mabc\x1b[0m"


# A real terminal


def test_on_a_real_terminal_errors_are_red() -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "stackpatch", "nonsense"],
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(follower)
    assert process.wait(timeout=60) == 2
    shown = os.read(leader, 4096)
    os.close(leader)
    assert shown.startswith(b"\x1b[1;31merror:\x1b[0m no such command: nonsense\r\n")
