"""Mails: what git writes is read exactly, everything else is one clear message with its line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.gitlab import Lab, Link, Script, Thing

from stackpatch.errors import Problems
from stackpatch.model.diff import Change
from stackpatch.model.patch import Patch, parse_patch

if TYPE_CHECKING:
    from pathlib import Path

MAIL = b"""\
From 29dd4df31c94b5a709b8f890d302e752a81e11be Mon Sep 17 00:00:00 2001
From: Ada Example <ada@example.invalid>
Date: Thu, 1 Jan 2026 01:30:00 +0130
Subject: [PATCH 1/2] jit: let the gate
 through

Why this is so.

Upstream-Status: Pending
Arch: sm121
---
 gate.py | 2 +-
 1 file changed, 1 insertion(+), 1 deletion(-)

diff --git a/gate.py b/gate.py
index 587be6b4c3f93f93c489c0111bba5596147a26cb..b68025345d5301abad4d9ec9166f455243a0d746 100644
--- a/gate.py
+++ b/gate.py
@@ -1,3 +1,3 @@ def gate():
 def gate():
-    return [10]
+    return [10, 12]
 # end
-- \n2.39.5

""".replace(b"\\n", b"\n")


def problems_of(raw: bytes) -> list[str]:
    with pytest.raises(Problems) as caught:
        parse_patch("0001.patch", raw)
    return list(caught.value.problems)


def test_a_mail_is_read_completely() -> None:
    patch = parse_patch("0001.patch", MAIL)
    assert patch.subject == "jit: let the gate through"
    assert (patch.author_name, patch.author_email) == ("Ada Example", "ada@example.invalid")
    assert patch.date == datetime(2026, 1, 1, tzinfo=UTC)
    assert patch.date.utcoffset() == timedelta(minutes=90)
    assert patch.message == (
        "jit: let the gate through\n\nWhy this is so.\n\nUpstream-Status: Pending\nArch: sm121\n"
    )
    assert patch.trailers.archs == ("sm121",)
    assert patch.paths == ("gate.py",)
    (file,) = patch.files
    assert (file.change, file.old_mode, file.new_mode) == (Change.MODIFY, 0o100644, 0o100644)
    (hunk,) = file.hunks
    assert hunk.old == (b"def gate():\n", b"    return [10]\n", b"# end\n")
    assert hunk.new == (b"def gate():\n", b"    return [10, 12]\n", b"# end\n")
    assert (hunk.heading, hunk.leading_context, hunk.trailing_context) == (b"def gate():", 1, 1)
    assert MAIL.split(b"\n")[hunk.line - 1].startswith(b"@@ ")
    assert MAIL.split(b"\n")[file.line - 1].startswith(b"diff --git")


SAME = "is read all the same"
READ_ALL_THE_SAME = {
    "no From line of an mbox": MAIL.partition(b"\n")[2],
    "no summary": MAIL.replace(b" 1 file changed, 1 insertion(+), 1 deletion(-)\n", b""),
    "no marker": MAIL.replace(
        b"---\n gate.py | 2 +-\n 1 file changed, 1 insertion(+), 1 deletion(-)\n", b""
    ),
    "no signature": MAIL.partition(b"-- \n")[0],
    "a signature whose blank was stripped": MAIL.replace(b"-- \n", b"--\n"),
    "a signature of many lines": MAIL + b"Ada\nHouse of Examples\n",
    "an 8bit header": MAIL.replace(b"Subject:", b"Content-Transfer-Encoding: 8bit\nSubject:"),
    "abbreviated ids": MAIL.replace(b"c3f93f93c489c0111bba5596147a26cb", b""),
    "no heading": MAIL.replace(b"@@ def gate():", b"@@"),
}


@pytest.mark.parametrize("raw", READ_ALL_THE_SAME.values(), ids=READ_ALL_THE_SAME.keys())
def test_what_tools_leave_out_does_not_matter(raw: bytes) -> None:
    known, found = parse_patch("p", MAIL), parse_patch("p", raw)
    assert [h.lines for f in found.files for h in f.hunks] == [
        h.lines for f in known.files for h in f.hunks
    ]
    assert (found.message, found.date) == (known.message, known.date)


BAD = {
    "empty": (b"", "1: the patch file is empty"),
    "blank": (b" \n\n", "1: the patch file is empty"),
    "a bare diff": (
        b"diff --git" + MAIL.partition(b"diff --git")[2],
        "1: not a mail from `git format-patch` (no From line); export it with that command",
    ),
    "HTML of a login page": (
        b"<!DOCTYPE html>\n<html>\n",
        "1: not a mail from `git format-patch` (no From line); export it with that command",
    ),
    "CRLF": (
        MAIL.replace(b"\n", b"\r\n"),
        "1: the mail's own lines end in CRLF; fetch it again without conversion",
    ),
    "cut within the headers": (MAIL[:150], "1: the mail ends within its headers"),
    "cut within the message": (MAIL[: MAIL.index(b"Upstream")], "9: the mail holds no diff"),
    "cut before the hunk": (
        MAIL[: MAIL.index(b"@@ ")],
        "15: gate.py: changes nothing",
    ),
    "cut within the hunk": (
        MAIL[: MAIL.index(b" # end")],
        "23: the hunk at line 19 ends 1 line too early",
    ),
    "cut within a header line": (
        MAIL[: MAIL.index(b"1,3 @@")],
        "19: malformed hunk header",
    ),
    "quoted-printable": (
        MAIL.replace(b"Subject:", b"Content-Transfer-Encoding: quoted-printable\nSubject:"),
        "1: Content-Transfer-Encoding quoted-printable: only mails as git writes them (8bit)",
    ),
    "base64": (
        MAIL.replace(b"Subject:", b"Content-Transfer-Encoding: Base64\nSubject:"),
        "1: Content-Transfer-Encoding base64: only mails as git writes them (8bit)",
    ),
    "an attachment": (
        MAIL.replace(b"Subject:", b'Content-Type: multipart/mixed; boundary="x"\nSubject:'),
        "1: the patch is an attachment; save it as `git format-patch` without --attach",
    ),
    "no sender": (MAIL.replace(b"From: Ada", b"X-From: Ada"), "1: From: missing"),
    "no address": (
        MAIL.replace(b"<ada@example.invalid>", b""),
        "1: From: no name and address in 'Ada Example'",
    ),
    "no date": (MAIL.replace(b"Date:", b"X-Date:"), "1: Date: missing"),
    "a date that is none": (
        MAIL.replace(b"Thu, 1 Jan 2026 01:30:00 +0130", b"last week"),
        "1: Date: not a date: 'last week'",
    ),
    "a date without zone": (
        MAIL.replace(b" +0130", b""),
        "1: Date: no time zone in 'Thu, 1 Jan 2026 01:30:00'",
    ),
    "a date before git": (
        MAIL.replace(b"2026 01", b"1966 01"),
        "1: Date: 'Thu, 1 Jan 1966 01:30:00 +0130' is no date of a patch",
    ),
    "no subject": (MAIL.replace(b"Subject:", b"X-Subject:"), "1: Subject: missing"),
    "only a prefix as subject": (
        MAIL.replace(b"jit: let the gate\n through", b""),
        "1: Subject: empty",
    ),
    "a subject in broken base64": (
        MAIL.replace(b"jit: let the gate\n through", b"=?utf-8?b?a?="),
        "1: Subject: cannot be decoded",
    ),
    "a subject that is not UTF-8": (
        MAIL.replace(b"jit:", b"\xff:"),
        "1: Subject: cannot be decoded",
    ),
    "a message that is not UTF-8": (
        MAIL.replace(b"Why this", b"Wh\xff this"),
        "7: the message is not valid utf-8",
    ),
    "a message in an unknown charset": (
        MAIL.replace(b"Subject:", b"Content-Type: text/plain; charset=klingon\nSubject:"),
        "8: the message is not valid klingon",
    ),
    "a byte order mark": (
        b"\xef\xbb\xbf" + MAIL,
        "1: starts with a byte order mark; save the mail as git format-patch wrote it",
    ),
    "two mails in one file": (
        MAIL + MAIL,
        "27: the mail goes on after its signature; one file, one patch",
    ),
    "a file missing": (
        MAIL.replace(b" 1 file changed, 1 i", b" 2 files changed, 1 i"),
        (
            "13: the summary says 2 files, +1 -1 lines, but the diff has 1 files, +1 -1: "
            "truncated or edited; export it again"
        ),
    ),
    "a hunk missing": (
        MAIL.replace(b"1 insertion(+), 1", b"3 insertions(+), 1"),
        (
            "13: the summary says 1 files, +3 -1 lines, but the diff has 1 files, +1 -1: "
            "truncated or edited; export it again"
        ),
    ),
}


@pytest.mark.parametrize(("raw", "said"), BAD.values(), ids=BAD.keys())
def test_a_bad_mail_is_one_message_with_its_line(raw: bytes, said: str) -> None:
    assert problems_of(raw)[:1] == [f"0001.patch:{said}"]
    assert len(problems_of(raw)) == (2 if "byte order mark" in said else 1)


def test_all_problems_of_a_mail_are_told_at_once() -> None:
    raw = MAIL.replace(b"Arch: sm121", b"Arch: sm122").replace(b"Pending", b"Maybe")
    raw = raw.replace(b"a/gate.py b/gate.py", b"a/../gate.py b/../gate.py")
    raw = raw.replace(b" a/gate.py\n+++ b/gate.py", b" a/../gate.py\n+++ b/../gate.py")
    assert problems_of(raw) == [
        (
            "0001.patch:9: Upstream-Status: 'Maybe' is none of Pending, Submitted, Backport, "
            "Denied, Inappropriate, Inactive-Upstream"
        ),
        "0001.patch:10: Arch: unknown arch 'sm122'; did you mean sm121?",
        "0001.patch:15: ../gate.py: `..` leaves the tree",
    ]


def test_where_names_the_file_as_the_person_knows_it() -> None:
    with pytest.raises(Problems) as caught:
        parse_patch("p", b"x", where="patches/flashinfer/v1/0001.patch")
    assert caught.value.problems[0].startswith("patches/flashinfer/v1/0001.patch:1: ")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (b"=?UTF-8?q?J=C3=B6rg=20Example?=", "Jörg Example"),
        ("Jörg Example".encode(), "Jörg Example"),
        (b'"Example, Ada Q."', "Example, Ada Q."),
        (b"=?ISO-8859-1?Q?J=F6rg?= Example", "Jörg Example"),
    ],
)
def test_the_author_is_who_the_mail_says(header: bytes, name: str) -> None:
    patch = parse_patch("p", MAIL.replace(b"From: Ada Example", b"From: " + header))
    assert patch.author_name == name


def test_minus_zero_is_utc_and_no_local_time() -> None:
    patch = parse_patch("p", MAIL.replace(b"+0130", b"-0000"))
    assert patch.date == datetime(2026, 1, 1, 1, 30, tzinfo=UTC)


def test_the_author_of_a_forwarded_patch_is_in_its_message() -> None:
    raw = MAIL.replace(b"Why this", b"From: Grace Example <grace@example.invalid>\n\nWhy this")
    patch = parse_patch("p", raw)
    assert (patch.author_name, patch.author_email) == ("Grace Example", "grace@example.invalid")
    assert patch.message == parse_patch("p", MAIL).message


def test_lines_are_counted_after_a_forwarded_author() -> None:
    raw = MAIL.replace(b"Why this", b"From: Grace Example <grace@example.invalid>\n\nWhy this")
    raw = raw.replace(b"Arch: sm121", b"Arch: sm999")
    (said,) = problems_of(raw)
    number = int(said.split(":")[1])
    assert raw.split(b"\n")[number - 1] == b"Arch: sm999"


def test_a_message_may_hold_dashes_and_diff_words() -> None:
    raw = MAIL.replace(b"Why this is so.", b"Why:\n --- a/x\n  diff --git\n---- so.")
    patch = parse_patch("p", raw)
    assert patch.message.startswith(
        "jit: let the gate through\n\nWhy:\n --- a/x\n  diff --git\n---- so.\n"
    )
    assert len(patch.files) == 1


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab") / "r.git")


def git_reads(lab: Lab, raw: bytes, folder: Path) -> tuple[str, str, str]:
    """Author, address and message as `git mailinfo` reads them."""
    folder.mkdir(exist_ok=True)
    info = lab.git("mailinfo", str(folder / "m"), str(folder / "p"), stdin=raw).decode()
    facts = dict(line.split(": ", 1) for line in info.splitlines() if ": " in line)
    body = (folder / "m").read_bytes().decode().strip("\n")
    message = facts["Subject"] + (f"\n\n{body}" if body else "") + "\n"
    return facts["Author"], facts["Email"], message


@pytest.mark.parametrize("name", [n for n in READ_ALL_THE_SAME if n != "no From line of an mbox"])
def test_git_reads_the_same_mail(lab: Lab, tmp_path: Path, name: str) -> None:
    raw = READ_ALL_THE_SAME[name]
    patch = parse_patch("p", raw)
    assert git_reads(lab, raw, tmp_path) == (patch.author_name, patch.author_email, patch.message)


def test_git_reads_a_forwarded_author_the_same(lab: Lab, tmp_path: Path) -> None:
    raw = MAIL.replace(b"Why this", b"From: Gr\xc3\xa4ce <grace@example.invalid>\n\nWhy this")
    patch = parse_patch("p", raw)
    assert git_reads(lab, raw, tmp_path) == (patch.author_name, patch.author_email, patch.message)


MESSAGES = st.lists(
    st.sampled_from(
        [
            "subject word",
            "Größe",
            "x" * 90,
            "",
            "Effect-free prose",
            "---- so",
            "--- a",
            " --- ",
            "> quoted",
            "From me",
            "Signed-off-by: Ada <ada@example.invalid>",
            "[tag] x",
            "-- ",
        ]
    ),
    min_size=1,
    max_size=6,
).map(lambda lines: "\n".join(["A subject", "", *lines]))


@given(MESSAGES)
@example("A subject")
@example("[Bugfix] a: b\n\n[x] c")
def test_messages_survive_format_patch_as_git_am_reads_them(
    tmp_path_factory: pytest.TempPathFactory, message: str
) -> None:
    lab = _shared_lab(tmp_path_factory)
    raw = lab.mail({"a": "x\n"}, {"a": "y\n"}, message)
    folder = tmp_path_factory.getbasetemp() / "mailinfo"
    try:
        patch = parse_patch("p", raw)
    except Problems:
        # A line of the message that looks like a diff: git am stops reading the message there.
        assert "--- a" in message
        return
    assert git_reads(lab, raw, folder)[2] == patch.message


_LABS: dict[str, Lab] = {}


def _shared_lab(factory: pytest.TempPathFactory) -> Lab:
    if "it" not in _LABS:
        _LABS["it"] = Lab(factory.mktemp("shared") / "r.git")
    return _LABS["it"]


def _whole(raw: bytes) -> Patch | None:
    """Parse; problems must be lines of the mail, and nothing else may be raised."""
    try:
        return parse_patch("p", raw)
    except Problems as error:
        assert error.problems  # noqa: PT017
        lines = raw.count(b"\n") + 2
        for said in error.problems:
            name, number, text = said.split(":", 2)
            assert name == "p"
            assert 1 <= int(number) <= lines, said
            assert text.strip()
        return None


@given(st.binary(max_size=400))
def test_any_bytes_are_answered(raw: bytes) -> None:
    assert _whole(raw) is None


RICH = MAIL.replace(b"Arch: sm121\n", b"Arch: sm121\nEffect: gate.py :: gate :: \\[10, 12\\]\n")


@given(st.data())
def test_a_damaged_mail_is_answered(data: st.DataObject) -> None:
    """Bytes changed, cut out, doubled: a mail is read, or refused with its lines."""
    raw = bytearray(RICH)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(raw) - 1, 0)))
        match data.draw(st.sampled_from(["byte", "cut", "double", "line", "insert", "join"])):
            case "byte":
                raw[at : at + 1] = data.draw(st.binary(min_size=1, max_size=3))
            case "cut":
                del raw[at : at + data.draw(st.integers(1, 80))]
            case "double":
                raw[at:at] = raw[at : at + data.draw(st.integers(1, 80))]
            case "line":
                lines = bytes(raw).split(b"\n")
                number = data.draw(st.integers(0, len(lines) - 1))
                raw = bytearray(b"\n".join(lines[:number] + lines[number + 1 :]))
            case "insert":
                raw[at:at] = data.draw(
                    st.sampled_from(
                        [
                            b"@@ -1 +1 @@\n",
                            b"diff --git a/x b/x\n",
                            b"--- ",
                            b"\n\n",
                            b"-- \n",
                            b"=?utf-8?b?",
                            b"{9999999999}",
                            b"\\",
                            b'"',
                            b"\r\n",
                            b"Effect: ",
                            b"9" * 5000,
                        ]
                    )
                )
            case _:
                raw += RICH
    _whole(bytes(raw))


@given(st.integers(0, len(RICH)))
def test_a_cut_mail_is_never_half_a_patch(length: int) -> None:
    """Wherever a download stopped: refused, or nothing but the signature is missing."""
    patch = _whole(RICH[:length])
    if patch is not None:
        assert patch.files == parse_patch("p", RICH).files


def test_a_cut_mail_of_several_files_is_refused(lab: Lab) -> None:
    base = {name: f"{name}\n" * 5 for name in "abc"}
    raw = lab.mail(base, {**{n: t + "more\n" for n, t in base.items()}, "d": "", "e": "e\n"})
    whole = len(parse_patch("p", raw).files)
    for length in range(raw.index(b"diff --git"), len(raw) - len(b"-- \n2.39.5\n\n") - 8):
        patch = _whole(raw[:length])
        assert patch is None or len(patch.files) == whole


def test_kinds_of_files_are_told_apart(lab: Lab) -> None:
    base: dict[str, Thing] = {
        "mode": "m\n" * 9,
        "old": "o\n" * 9,
        "gone": "g\n",
        "kept": "k\n" * 9,
        "type": "t\n",
    }
    ours: dict[str, Thing] = {
        "mode": Script(b"m\n" * 9),
        "new": "o\n" * 9,
        "fresh": "f\n",
        "kept": "k\n" * 9,
        "copy": "k\n" * 9,
        "link": Link(b"kept"),
        "type": Link(b"kept"),
    }
    raw = lab.mail(base, ours, "s", "-M", "-C", "--find-copies-harder")
    patch = parse_patch("p", raw)
    found = {(f.change.value, f.old_path, f.new_path, f.old_mode, f.new_mode) for f in patch.files}
    assert found == {
        ("copy", "kept", "copy", None, None),
        ("add", None, "fresh", None, 0o100644),
        ("delete", "gone", None, 0o100644, None),
        ("add", None, "link", None, 0o120000),
        ("modify", "mode", "mode", 0o100644, 0o100755),
        ("rename", "old", "new", None, None),
        ("delete", "type", None, 0o100644, None),
        ("add", None, "type", None, 0o120000),
    }
