"""The target of PTX text: `.target sm_121a` in the head of a module."""

from __future__ import annotations

import re

from stackpatch.checks.code import Code, DamagedError, Form, code

MARK = b".target"
# A module starts with its ISA version and its target; comments may stand between them. Whether a
# hit is a module, not a sentence about one, is decided by both lines being there.
_SPACE = rb"(?:\s|//[^\n]{0,200}\n){1,64}"
_HEAD = re.compile(
    rb"\.version[ \t]+(\d{1,2})\.(\d{1,2})" + _SPACE + rb"\.target[ \t]+sm_(\d{2,3})([af]?)(?!\w)"
)
_START = re.compile(rb"(?:\s|//[^\n]{0,400}\n){0,200}\.version[ \t]+\d")
# How much of the text behind `.target` is needed.
LOOK_AHEAD = 64


def starts_module(text: bytes) -> bool:
    """Whether a file that begins with these bytes is PTX."""
    return _START.match(text) is not None


def target_at(text: bytes, at: int) -> Code | None:
    """The PTX module whose `.target` is at this offset of text; None when it is no module."""
    for found in _HEAD.finditer(text):
        if found.start() <= at < found.end():
            return code(Form.PTX, int(found[3]), [found[4].decode()])
    return None


def read_ptx(text: bytes) -> Code:
    """The target of one PTX module's text. Raises DamagedError."""
    found = _HEAD.search(text[:65536])
    if not found:
        msg = "a PTX module without .version and .target"
        raise DamagedError(msg)
    return code(Form.PTX, int(found[3]), [found[4].decode()])
