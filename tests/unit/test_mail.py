"""A commit as a mail: read back by us and by git it says the same, whatever its message holds."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.gitlab import Lab

from stackpatch.model.patch import parse_patch
from stackpatch.series.export import diff
from stackpatch.series.mail import compose, disarmed, file_name, status_of
from stackpatch.sources.forks import Commit, read_commit

if TYPE_CHECKING:
    from pathlib import Path

WHEN = 1767225600
COMMIT = Commit(
    "1" * 40, ("2" * 40,), "3" * 40, "Ada Example", "ada@example.invalid", WHEN, 90, "", exact=True
)
STATUS = (("Upstream-Status", "Pending"), ("Origin", "other, /x, commit 1"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("mail") / "lab.git")


@pytest.fixture(scope="module")
def change(lab: Lab) -> bytes:
    """A diff, for the mails to have one."""
    before, after = (lab.tree(lab.commit({"f": text})) for text in ("1\n", "2\n"))
    return diff(lab.objects, before, after)


def mailed(message: str, change: bytes, **more: object) -> bytes:
    commit = replace(COMMIT, message=message, **more)  # type: ignore[arg-type]
    # As the command does: what the commit says of itself stays.
    return compose(commit, STATUS[1:] if status_of(commit) else STATUS, change)


def by_git(mail: bytes, folder: Path) -> tuple[str, str, bytes]:
    """Author, subject and message as `git mailinfo` reads them."""
    done = subprocess.run(
        ("git", "mailinfo", "--encoding=UTF-8", "-b", folder / "message", folder / "patch"),
        input=mail, capture_output=True, check=True,
    )  # fmt: skip
    fields = dict(line.split(": ", 1) for line in done.stdout.decode().splitlines() if ": " in line)
    author = f"{fields['Author']} <{fields['Email']}>"
    return author, fields["Subject"], (folder / "message").read_bytes()


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "Ada",
        "Lovelace, Ada",
        'Ada "The Count" Lovelace',
        "Ada (King's College)",
        "Ada.Lovelace",
        "Ådä Łovelace",
        "Łovelace, Ådä",
        "ada@work",
        "Ada\\Byron",
        "李 小龙",
        "[bot] Ada",
        "Ada; Byron: Countess",
    ],
)
def test_names_come_back(name: str, change: bytes, tmp_path: Path) -> None:
    mail = mailed("Subject", change, name=name)
    assert parse_patch("p", mail).author_name == name
    if not set('"(@') & set(name):  # which git's reader rewrites
        assert by_git(mail, tmp_path)[0] == f"{name} <ada@example.invalid>"


def test_a_commit_without_a_name_has_its_address(change: bytes) -> None:
    patch = parse_patch("p", mailed("Subject", change, name=" "))
    assert patch.author_name == patch.author_email == "ada@example.invalid"


@pytest.mark.parametrize(
    ("seconds", "offset", "shown"),
    [
        (WHEN, 90, "2026-01-01T01:30:00+01:30"),
        (WHEN, -330, "2025-12-31T18:30:00-05:30"),
        (WHEN, 0, "2026-01-01T00:00:00+00:00"),
        (WHEN, 840, "2026-01-01T14:00:00+14:00"),
    ],
)
def test_dates_keep_their_zone(change: bytes, seconds: int, offset: int, shown: str) -> None:
    mail = mailed("Subject", change, seconds=seconds, offset=offset)
    assert parse_patch("p", mail).date.isoformat() == shown


# --- messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "subject", "body"),
    [
        ("One line", "One line", ""),
        ("Two\nlines\n\nbody", "Two lines", "body"),
        ("\n\nLeading blanks\n\n\n\nbody\n", "Leading blanks", "body"),
        ("", "(no subject)", ""),
        ("DOS\r\n\r\nbody\r\nmore\r\n", "DOS", "body\nmore"),
        ("Blank line with blanks\n   \nbody  \n", "Blank line with blanks", "body"),
        ("Indented code\n\n    x = 1\n", "Indented code", "    x = 1"),
    ],
)
def test_subject_and_body(message: str, subject: str, body: str, change: bytes) -> None:
    patch = parse_patch("p", mailed(message, change))
    assert patch.subject == subject
    text = patch.message.removeprefix(f"{subject}\n\n")
    assert text.split("\n\nUpstream-Status")[0].split("Upstream-Status")[0].rstrip("\n") == body
    assert (patch.trailers.status, patch.trailers.others[-1]) == ("Pending", STATUS[1])


def test_trailers_join_the_last_paragraph(change: bytes) -> None:
    message = "S\n\nBody.\n\nSigned-off-by: A <a@b.invalid>\nCo-authored-by: B <b@b.invalid>\n"
    patch = parse_patch("p", mailed(message, change))
    assert patch.message.endswith(
        "\n\nSigned-off-by: A <a@b.invalid>\nCo-authored-by: B <b@b.invalid>\n"
        "Upstream-Status: Pending\nOrigin: other, /x, commit 1\n"
    )
    assert [key for key, _ in patch.trailers.others] == [
        "Signed-off-by",
        "Co-authored-by",
        "Origin",
    ]


def test_a_body_that_only_looks_like_a_trailer_stays_text(change: bytes) -> None:
    patch = parse_patch("p", mailed("S\n\nnote: see below\n", change))
    assert "note: see below\n\nUpstream-Status: Pending\n" in patch.message


def test_a_status_of_its_own_is_seen() -> None:
    message = "S\n\nUpstream-Status: Denied [too special]\n"
    assert status_of(replace(COMMIT, message=message)) == "Denied"
    assert status_of(replace(COMMIT, message="S\n\nUpstream-Status: maybe\n")) is None
    assert status_of(replace(COMMIT, message="S\n")) is None


def test_what_is_indented_is_told() -> None:
    message = "S\n\n---\ntext\ndiff --git a/x b/x\n\nEffect: none\n"
    assert disarmed(replace(COMMIT, message=message)) == (
        "---",
        "diff --git a/x b/x",
        "Effect: none",
    )
    assert disarmed(replace(COMMIT, message="S\n\nplain\n")) == ()


LINE = st.one_of(
    st.sampled_from(
        [
            "", "---", "--- a/x", "+++ b/x", "diff --git a/x b/x", "Index: x", "@@ -1 +1 @@",
            "From: x <y@z>", "Subject: other", "Date: today", "From " + "a" * 40 + " x", ">From x",
            "Signed-off-by: A <a@b.invalid>", "Effect: x", "Effect: a :: b :: c", "Bug: 1",
            "Arch: sm121", "Arch: sm999", "Upstream-Status: Soon", "Upstream-Status: Pending",
            "Applies-To: nothing", "upstream-status: x", "  indented", "\ttab", "-- ", "[PATCH] x",
            "MIME-Version: 1.0", "Content-Type: text/html", "ünï", "a: b", "-", " 1 file changed",
        ]
    ),
    st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=12),
)  # fmt: skip


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lines=st.lists(LINE, max_size=9))
def test_no_message_is_read_as_something_else(
    lines: list[str], change: bytes, tmp_path: Path
) -> None:
    message = "A subject\n\n" + "\n".join(lines) + "\n"
    mail = mailed(message, change)
    patch = parse_patch("p", mail)
    assert patch.subject == "A subject"
    assert (patch.author_name, patch.author_email) == ("Ada Example", "ada@example.invalid")
    assert [file.path for file in patch.files] == ["f"]
    assert patch.trailers.status is not None
    words = "".join("".join(lines).split())
    assert words in "".join(patch.message.split()).replace("\u2028", ""), "nothing is left out"
    author, subject, _ = by_git(mail, tmp_path)
    assert (author, subject) == ("Ada Example <ada@example.invalid>", "A subject")
    assert (tmp_path / "patch").read_bytes().count(b"diff --git") == 1


# --- file names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("b: open the gate", "0007-b-open-the-gate.patch"),
        ("[None][feat] x/y: ../../etc", "0007-None-feat-x-y-.-.-etc.patch"),
        ("ünï", "0007-n.patch"),
        ("李", "0007-patch.patch"),
        ("...", "0007-patch.patch"),
        ("# comment", "0007-comment.patch"),
        ("x" * 99, f"0007-{'x' * 52}.patch"),
        ("a" * 51 + " b", f"0007-{'a' * 51}.patch"),
    ],
)
def test_file_names_are_plain(subject: str, name: str) -> None:
    assert file_name(7, subject) == name


@given(st.text(), st.integers(1, 99999))
def test_any_subject_gives_a_name_that_a_series_takes(subject: str, number: int) -> None:
    name = file_name(number, subject)
    assert name.isascii()
    assert name.endswith(".patch")
    assert not set(name) & set("/\\ #\n\t")
    assert ".." not in name
    assert len(name) < 80


# --- commits as they were made ----------------------------------------------------------------


def test_a_commit_of_the_store(lab: Lab) -> None:
    parent = lab.commit({"f": "1\n"})
    made = lab.commit({"f": "2\n"}, parent, message="S\n\nBödy\n")
    found = read_commit(lab.objects, made)
    assert (found.id, found.parents, found.tree) == (made, (parent,), lab.tree(made))
    assert (found.name, found.email) == ("Ada Example", "ada@example.invalid")
    assert (found.seconds, found.offset) == (WHEN, 90)
    assert (found.message, found.subject, found.exact) == ("S\n\nBödy\n", "S", True)


def raw_commit(lab: Lab, head: bytes, message: bytes) -> str:
    tree = lab.tree(lab.commit({"f": "1\n"}))
    content = b"tree " + tree.encode() + b"\n" + head + b"\n\n" + message
    done = lab.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", stdin=content)
    return done.decode().strip()


def test_an_encoding_that_the_commit_names(lab: Lab) -> None:
    who = "author Jörg <j@x.invalid> 1 -0330\ncommitter C <c@x.invalid> 1 +0000\n"
    head = who.encode("latin-1") + b"encoding ISO-8859-1"
    found = read_commit(lab.objects, raw_commit(lab, head, "grün\n".encode("latin-1")))
    assert (found.name, found.message, found.exact) == ("Jörg", "grün\n", True)
    assert found.offset == -210


@pytest.mark.parametrize("encoding", [b"", b"\nencoding nonsense"])
def test_bytes_that_no_encoding_explains_are_told(lab: Lab, encoding: bytes) -> None:
    head = b"author A <a@x.invalid> 1 +0000\ncommitter C <c@x.invalid> 1 +0000" + encoding
    found = read_commit(lab.objects, raw_commit(lab, head, b"gr\xfcn\n"))
    assert (found.message, found.exact) == ("gr\ufffdn\n", False)


def test_an_author_that_nobody_can_read(lab: Lab, change: bytes) -> None:
    head = b"author nobody\ncommitter C <c@x.invalid> 1 +0000"
    found = read_commit(lab.objects, raw_commit(lab, head, b"S\n"))
    assert (found.name, found.email, found.exact) == ("", "", False)
    with pytest.raises(Exception, match="problem"):
        parse_patch("p", compose(found, (), change))
