"""What a cubin was compiled for: number, `a`, `f` or plain, from its own bytes.

Found by experiment with ptxas 12.8, 12.9, 13.0 and 13.5, 2026-11-21 (docs/audit.md, "Where the
target is written"); cuobjdump 13.5 agrees on number and `a`, and does not tell `f` from plain.

* OS ABI 0x33, version 7 (toolkits before 13, below sm_100): `e_flags` has the number in bits 0-7,
  `a` in bit 11. There is no `f` below sm_100.
* OS ABI 0x41, version 8 (sm_100 and later, and everything from 13.0 on): the number in bits 8-23.
  Toolkits before 13 put `a` into bit 3; from 13.0 on it is record 9 of `.nv.compat`.
* `f` is in no flag. The notes in `.note.nv.tkinfo` repeat the compiler's and linker's options, as
  a rule with `-arch sm_120f`; some builds (TensorRT-LLM's generated kernels) leave that out.
"""

from __future__ import annotations

import re
import struct

from stackpatch.checks import elf
from stackpatch.checks.code import Code, DamagedError, Form, code
from stackpatch.model.arch import CodeArch

# `a` came with sm_90, `f` with sm_100.
FIRST_SPECIFIC = 90
FIRST_FAMILY = 100

COMPAT = b".nv.compat"
_OPTIONS = b".note.nv.tkinfo"
_TOOLKIT = b".note.nv.cuinfo"
_COMPAT_SPECIFIC = 9
_STATED = re.compile(rb"(?<![\w-])-{1,2}arch[ =]sm_(\d{2,3})([af]?)(?![\w])")
_CUINFO = struct.Struct("<III12sHHH")
# Options are a few hundred bytes for each object that was linked in; more of them say the same.
_OPTIONS_READ = 1 << 18


def suffixes_possible(number: int) -> frozenset[str]:
    """The suffixes that a target of this number can have at all."""
    if number < FIRST_SPECIFIC:
        return frozenset({""})
    return frozenset({"", "a"} if number < FIRST_FAMILY else {"", "a", "f"})


def compat_specific(records: bytes) -> int | None:
    """Record 9 of a `.nv.compat` section: 1 for `a`, 0 for plain and `f`; None where absent.

    Records are four bytes (form, number, value), those of form 4 have a length and more bytes.
    """
    at = 0
    while at + 4 <= len(records):
        form, number, value = struct.unpack_from("<BBH", records, at)
        if number == _COMPAT_SPECIFIC and form in (2, 3):
            return int(value)
        at += 4 + (value if form == 4 else 0)
    return None


def read_cubin(data: memoryview) -> Code:
    """The target of a whole cubin. Raises DamagedError."""
    head = elf.header(data)
    found = elf.find_sections(data, head, (COMPAT, _OPTIONS, _TOOLKIT))
    options = elf.content(data, found.get(_OPTIONS, ()))[:_OPTIONS_READ]
    stated = {(int(m[1]), m[2].decode()) for m in _STATED.finditer(options)}
    if head.os_abi == 0x33 and head.abi_version == 7:
        number = head.flags & 0xFF
        return _agree(number, {"a" if head.flags & 0x800 else ""}, stated)
    if head.os_abi == 0x41 and head.abi_version == 8:
        number = head.flags >> 8 & 0xFFFF
        compat = elf.content(data, found[COMPAT]) if COMPAT in found else None
        toolkit = _toolkit(elf.content(data, found.get(_TOOLKIT, ())))
        return _agree(number, _suffixes(number, head.flags, compat, toolkit), stated)
    if len(stated) == 1:
        number, suffix = stated.pop()
        return code(Form.MACHINE, number, [suffix])
    msg = (
        f"a cubin of OS ABI {head.os_abi:#x}, version {head.abi_version}, which this reader "
        f"does not know (e_flags {head.flags:#x})"
    )
    raise DamagedError(msg)


def _suffixes(number: int, flags: int, compat: bytes | None, toolkit: int | None) -> set[str]:
    """What the header, `.nv.compat` and the toolkit's version leave open, for ABI version 8."""
    if not 0 < number < 256:
        msg = f"a cubin whose e_flags {flags:#x} name no architecture that can be"
        raise DamagedError(msg)
    possible = suffixes_possible(number)
    specific = compat_specific(compat) if compat is not None else None
    if flags & 0x8 or specific == 1:
        return {"a"}
    if specific == 0:
        return set(possible - {"a"})
    before_13 = (toolkit is not None and toolkit < 130) or (compat is not None and specific is None)
    return set(possible - {"a"} if before_13 else possible)


def _agree(number: int, suffixes: set[str], stated: set[tuple[int, str]]) -> Code:
    """The flags' answer narrowed by the options in the notes; both where they contradict."""
    own = {(number, suffix) for suffix in suffixes}
    if not stated or own == stated:
        return code(Form.MACHINE, number, suffixes, why="the cubin does not say which")
    both = own & stated
    if len(both) == 1 and len(stated) == 1:
        return code(Form.MACHINE, number, [suffix for _, suffix in both])
    candidates = tuple(sorted({CodeArch(n, s) for n, s in own | stated}))
    return Code(Form.MACHINE, candidates, "the cubin's header and its notes disagree")


def _toolkit(note: bytes) -> int | None:
    """The toolkit's version from `.note.nv.cuinfo`, 130 for 13.0; None where it has none."""
    if len(note) < _CUINFO.size:
        return None
    _, _, kind, owner, layout, _, toolkit = _CUINFO.unpack_from(note)
    if kind != 1000 or owner != b"NVIDIA Corp\0" or layout != 2:
        return None
    return int(toolkit)
