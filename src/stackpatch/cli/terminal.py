"""Streams as they come: any encoding, colours or none, narrow or endless, closed at the other end.

Text for people may carry file names that are not UTF-8 and words of other people's patches, so
control characters are made visible here; only our own colours pass.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import shutil
import unicodedata
from typing import Literal, TextIO

Colour = Literal["red", "green", "yellow", "blue", "bold", "dim"]

_CODES: dict[Colour, str] = {
    "red": "1;31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "bold": "1",
    "dim": "2",
}
_OURS = r"\[(?:0|[12]|(?:1;)?3[1-4])m"
_COLOUR = re.compile(rf"\x1b{_OURS}")
# What turns the reading direction of all that follows is no better than a cursor's movement.
_CONTROL = re.compile(
    rf"\x1b(?!{_OURS})|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)


def _encode_anyway(error: UnicodeError) -> tuple[str | bytes, int]:
    """Codec error handler: an undecoded byte goes out as it came, the rest as `\\uNNNN`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    out = b"".join(
        bytes([ord(c) - 0xDC00])
        if 0xDC80 <= ord(c) <= 0xDCFF
        else c.encode("ascii", "backslashreplace")
        for c in found
    )
    return out, error.end


codecs.register_error("stackpatch", _encode_anyway)


def _visible(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def write(stream: TextIO | None, text: str) -> None:
    """Write and flush, whatever the stream's encoding can express. Raises OSError.

    A stream that is closed (None, as with `>&-`) takes nothing.
    """
    if stream is None:
        return
    safe = _CONTROL.sub(_visible, text)
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        stream.write(safe)
    else:
        stream.flush()
        buffer.write(safe.encode(stream.encoding or "utf-8", "stackpatch"))
    stream.flush()


def silence(stream: TextIO | None) -> None:
    """Send what is still to come nowhere, so that nothing fails again when Python flushes."""
    if stream is None:
        return
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person watches this stream."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def colours(stream: TextIO | None) -> bool:
    """Whether to colour: a capable terminal, and NO_COLOR (no-color.org) is not set."""
    return (
        is_terminal(stream)
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") != "dumb"
    )


def style(text: str, colour: Colour, stream: TextIO | None) -> str:
    """The text in a colour where the stream shows colours, else as it is."""
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if colours(stream) else text


def columns(stream: TextIO | None) -> int | None:
    """The width of the terminal behind the stream; None where it is none."""
    return shutil.get_terminal_size().columns if is_terminal(stream) else None


def width(text: str) -> int:
    """Columns that the text takes: colours none, combining marks none, wide letters two."""
    plain = _COLOUR.sub("", text)
    if plain.isascii():
        return len(plain)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in plain
    )


def shorten(text: str, room: int) -> str:
    """At most `room` columns; what is cut is replaced by an ellipsis, colours are then dropped."""
    if width(text) <= room:
        return text
    kept = _COLOUR.sub("", text)
    while kept and width(kept) > room - 3:
        kept = kept[:-1]
    return kept + "..."
