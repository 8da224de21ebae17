"""One patch: a `git format-patch` mail, as bytes and as parsed values.

The raw bytes are the truth; the parsed view sits beside them. Parsing is strict and reports every
problem of a mail at once, because a patch that is half understood must not be half applied.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.parser import BytesHeaderParser
from email.utils import parseaddr, parsedate_to_datetime
from typing import TYPE_CHECKING

from stackpatch.errors import Problems
from stackpatch.model.diff import FilePatch, parse_diff
from stackpatch.model.trailers import Trailers, parse_trailers

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from email.message import Message

_FROM = re.compile(rb"From ([0-9a-f]{40}) ")
_SUBJECT_PREFIX = re.compile(r"^(\[[^\]]*\]\s*)+")
_DIFF_START = re.compile(rb"^(diff --git |diff --cc |diff --combined |Index: |--- )", re.MULTILINE)
_IN_BODY_FROM = re.compile(r"From: ([^\n]+)\n\n+")
_SUMMARY = re.compile(
    rb"^ (\d{1,9}) files? changed"
    rb"(?:, (\d{1,9}) insertions?\(\+\))?(?:, (\d{1,9}) deletions?\(-\))?$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Patch:
    """A parsed mail.

    name: its file name in the series. date: with the author's UTC offset. message: subject, body
    and trailers as git would record them. files: what it changes, paths as `str` with
    undecodable bytes as surrogate escapes.
    """

    name: str
    raw: bytes
    subject: str
    author_name: str
    author_email: str
    date: datetime
    message: str
    trailers: Trailers
    files: tuple[FilePatch, ...]

    @property
    def sha256(self) -> str:
        """64 hex digits over the mail's bytes."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that it reads or writes, sorted, once each."""
        named = {p for file in self.files for p in (file.old_path, file.new_path) if p is not None}
        return tuple(sorted(named))


def parse_patch(name: str, raw: bytes, *, where: str | None = None) -> Patch:
    """Parse one mail. `where` is the path to name in messages, by default the name.

    Raises Problems with one `file:line: field: what is wrong` line for every problem.
    """
    place = where or name
    found: list[str] = []

    def problem(line: int, text: str) -> None:
        found.append(f"{place}:{line}: {text}")

    if not raw.strip():
        msg = f"{place} is empty"
        raise Problems(msg, (f"{place}:1: the patch file is empty",))
    if raw.startswith(b"\xef\xbb\xbf"):
        problem(1, "starts with a byte order mark; save the mail as git format-patch wrote it")
    head_end = raw.find(b"\n\n")
    if re.search(rb"^diff --git [^\n]*\r$", raw, re.MULTILINE) or b"\r\n\r\n" in raw[:4096]:
        problem(1, "the mail's own lines end in CRLF; fetch it again without conversion")
        msg = f"{place} cannot be read"
        raise Problems(msg, tuple(found))
    if not _FROM.match(raw) and not raw.startswith((b"From:", b"Subject:", b"Date:")):
        problem(1, "not a mail from `git format-patch` (no From line); export it with that command")
        msg = f"{place} is not a git format-patch mail"
        raise Problems(msg, tuple(found))
    if head_end < 0:
        problem(1, "the mail ends within its headers")
        msg = f"{place} is truncated"
        raise Problems(msg, tuple(found))

    headers_start = raw.index(b"\n") + 1 if _FROM.match(raw) else 0
    headers = BytesHeaderParser().parsebytes(raw[headers_start : head_end + 1])
    encoding = str(headers.get("Content-Transfer-Encoding", "8bit")).strip().lower()
    if encoding not in ("8bit", "7bit", "binary"):
        problem(1, f"Content-Transfer-Encoding {encoding}: only mails as git writes them (8bit)")
        msg = f"{place} cannot be read"
        raise Problems(msg, tuple(found))
    if headers.get_content_maintype() == "multipart":
        problem(1, "the patch is an attachment; save it as `git format-patch` without --attach")
    charset = headers.get_content_charset() or "utf-8"

    body_start = head_end + 2
    body_end, diff_start = _split_body(raw, body_start)
    try:
        body = raw[body_start:body_end].decode(charset).strip("\n")
    except (LookupError, UnicodeError):
        problem(raw.count(b"\n", 0, body_start) + 1, f"the message is not valid {charset}")
        body = ""
    first_body_line = raw.count(b"\n", 0, body_start) + 1
    leading = raw[body_start:body_end].decode("latin-1")
    first_body_line += len(leading) - len(leading.lstrip("\n"))

    titled = _header(headers, "Subject", problem)
    subject = _SUBJECT_PREFIX.sub("", titled or "").strip()
    if titled is not None and not subject:
        problem(1, "Subject: empty")
    sender = _header(headers, "From", problem)
    if written := _IN_BODY_FROM.match(body):
        # `git format-patch --from` names the author there, and the sender in the header.
        sender = written[1]
        body = body[written.end() :].lstrip("\n")
        first_body_line += len(written[0].split("\n")) - 1
    author_name, author_email = parseaddr(sender or "")
    if sender is not None and "@" not in author_email:
        problem(1, f"From: no name and address in {sender!r}")
    if any(character in author_name + author_email for character in "<>\n\0"):
        problem(1, "From: holds a character that git cannot record")
    date = _date(_header(headers, "Date", problem), problem)
    if any("\0" in text for text in (subject, body)):
        problem(1, "the message holds a NUL, which git cannot record")
    trailers, trailer_problems = parse_trailers(body, first_line=first_body_line)
    for line, text in trailer_problems:
        problem(line, text)

    files: tuple[FilePatch, ...] = ()
    if diff_start is None:
        problem(raw.count(b"\n") + 1, "the mail holds no diff")
    else:
        files, diff_problems = parse_diff(
            raw[diff_start:], first_line=raw.count(b"\n", 0, diff_start) + 1
        )
        for line, text in diff_problems:
            problem(line, text)
        if not diff_problems and (said := _unlike_summary(raw, body_end, diff_start, files)):
            problem(*said)
    if found or date is None:
        count = len(found)
        msg = f"{place}: {count} problem{'s' * (count != 1)}"
        raise Problems(msg, tuple(found))
    message = subject + (f"\n\n{body}" if body else "") + "\n"
    return Patch(
        name,
        raw,
        subject,
        author_name or author_email,
        author_email,
        date,
        message,
        trailers,
        files,
    )


def _header(headers: Message, field: str, problem: Callable[[int, str], None]) -> str | None:
    """A header's text, None when that is a problem. Raw UTF-8, which git can write, is read."""
    value = next((v for k, v in headers.raw_items() if k.lower() == field.lower()), None)
    if value is None:
        problem(1, f"{field}: missing")
        return None
    try:
        text = str(value).encode("utf-8", "surrogateescape").decode("utf-8")
        return str(make_header(decode_header(" ".join(text.split()))))
    except (LookupError, UnicodeError, HeaderParseError, ValueError):
        problem(1, f"{field}: cannot be decoded")
        return None


def _date(stated: str | None, problem: Callable[[int, str], None]) -> datetime | None:
    """The date with its zone. Without one it would mean another moment on every machine."""
    if stated is None:
        return None
    try:
        date = parsedate_to_datetime(stated)
    except (TypeError, ValueError, OverflowError, IndexError):
        problem(1, f"Date: not a date: {stated!r}")
        return None
    if date.tzinfo is None:
        if not stated.endswith("-0000"):
            problem(1, f"Date: no time zone in {stated!r}")
            return None
        date = date.replace(tzinfo=UTC)
    if not 1970 < date.year < 2100:
        problem(1, f"Date: {stated!r} is no date of a patch")
        return None
    return date


def _unlike_summary(
    raw: bytes, start: int, end: int, files: tuple[FilePatch, ...]
) -> tuple[int, str] | None:
    """Where the mail's own summary (`2 files changed, …`) counts otherwise: it was cut or edited.

    A mail without a summary says nothing, and that is fine.
    """
    said = _SUMMARY.search(raw, start, end)
    if said is None:
        return None
    hunks = [hunk for file in files for hunk in file.hunks]
    counts = (
        len({file.path for file in files}),
        sum(len(hunk.added) for hunk in hunks),
        sum(len(hunk.removed) for hunk in hunks),
    )
    expected = tuple(int(number or 0) for number in said.groups())
    if counts == expected:
        return None
    text = (
        f"the summary says {expected[0]} files, +{expected[1]} -{expected[2]} lines, but the diff "
        f"has {counts[0]} files, +{counts[1]} -{counts[2]}: truncated or edited; export it again"
    )
    return raw.count(b"\n", 0, said.start()) + 1, text


def _split_body(raw: bytes, start: int) -> tuple[int, int | None]:
    """Where the message ends and where the diff starts, as `git am` sees it."""
    marker = re.compile(rb"^---(?:[ \t]*)$", re.MULTILINE).search(raw, start)
    diff = _DIFF_START.search(raw, start)
    if diff is None:
        return (marker.start() if marker else len(raw)), None
    if marker is not None and marker.start() < diff.start():
        return marker.start(), diff.start()
    return diff.start(), diff.start()
