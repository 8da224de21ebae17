"""All GPU code in one file of whatever kind, found in one pass from its first byte to its last.

Fatbins and cubins are recognised wherever they lie: in a section of a library or object, in a
static library, in a Windows DLL, as an array in `.rodata` (how TensorRT-LLM ships its kernels),
or as a file of their own under any name. That reads no section table of the host's file, so a
damaged or foreign one hides nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stackpatch.checks import cubin, elf, fatbin, ptx
from stackpatch.checks.code import Code, DamagedError, Form, code
from stackpatch.checks.window import CHUNK, Window

if TYPE_CHECKING:
    from stackpatch.checks.window import Source

# An image is looked into only up to this size; a longer one is judged by its header alone. The
# largest of 15,812 cubins of flashinfer-cubin 0.6.13 has 0.6 MB.
INSIDE_LIMIT = 24 << 20
# Real files stay far below these; they bound the time that a hostile one can take.
INSIDE_TOTAL = 1 << 30
MAX_IMAGES = 1_000_000
MAX_FALSE_HITS = 300_000
MAX_DAMAGES = 16

# Source and prose may quote PTX; such a file counts only when it is GPU code from its first byte.
_PROSE = frozenset(
    (
        *("c", "cc", "cpp", "cxx", "cu", "cuh", "h", "hh", "hpp", "inc", "py", "pyi", "ipynb"),
        *("cmake", "css", "csv", "diff", "htm", "html", "j2", "jinja", "js", "json", "md", "patch"),
        *("rst", "svg", "toml", "txt", "yaml", "yml"),
    )
)
_SNIFF = 1 << 12
_MARKS = (fatbin.MAGIC, elf.MAGIC, ptx.MARK)


@dataclass(frozen=True, slots=True)
class Findings:
    """What one file holds.

    codes: every target and how many images have it. units: what must run as a whole (a fatbin,
    a cubin, a PTX module) as the set of its targets, and how many are alike. damage: what could
    not be read, and where. size: bytes that were passed.
    """

    codes: dict[Code, int] = field(default_factory=dict)
    units: dict[frozenset[Code], int] = field(default_factory=dict)
    damage: tuple[str, ...] = ()
    size: int = 0


class _Collector:
    """Gathers findings while a file goes by."""

    def __init__(self) -> None:
        self.codes: Counter[Code] = Counter()
        self.units: Counter[frozenset[Code]] = Counter()
        self.damage: list[str] = []
        self.images = 0
        self.false_hits = 0
        self.inside = 0  # bytes that were looked into

    def add_unit(self, found: list[Code]) -> None:
        self.codes.update(found)
        if found:
            self.units[frozenset(found)] += 1

    def add_damage(self, offset: int, why: str) -> None:
        self.damage.append(f"at byte {offset}: {why}")

    def may_look_inside(self, size: int) -> bool:
        """Whether an image of this size may be decompressed and read; counts it when it may."""
        if size > INSIDE_LIMIT or self.inside + size > INSIDE_TOTAL:
            return False
        self.inside += size
        return True

    @property
    def full(self) -> bool:
        """Whether the file has so much, or so much that is damaged, that no more is read."""
        return (
            len(self.damage) >= MAX_DAMAGES
            or self.images >= MAX_IMAGES
            or self.false_hits >= MAX_FALSE_HITS
        )

    def findings(self, size: int) -> Findings:
        codes = {code: self.codes[code] for code in sorted(self.codes)}
        return Findings(codes, dict(self.units), tuple(self.damage), size)


def is_prose(name: str) -> bool:
    """Whether a file's name says that it is source or prose: mostly, its start alone is read."""
    return name.rpartition(".")[2].lower() in _PROSE


def scan(name: str, source: Source) -> Findings:
    """Read the file `name` once and say which GPU code it holds.

    Never fails over what the bytes are, nor when the source cannot go on: that is damage.
    """
    window, found = Window(source), _Collector()
    try:
        _scan(name, window, found)
    except DamagedError as error:
        found.add_damage(window.offset, str(error))
    return found.findings(window.offset)


def _scan(name: str, window: Window, found: _Collector) -> None:
    window.fill(_SNIFF)
    if is_prose(name) and not _is_code(window.peek(_SNIFF)):
        return
    hits = _Hits(window)
    while True:
        # Code begins most files that hold it, and often follows on code: no need to search then.
        if not _read_here(window, found):
            at = hits.next()
            if at is None:
                return
            window.skip(at)
            if not _read_here(window, found):
                _ptx(window, found)
                found.false_hits += 1
                window.skip(1)
        if found.full:
            found.add_damage(window.offset, "too much code, or too much of it damaged: gave up")
            return


def _read_here(window: Window, found: _Collector) -> bool:
    """Read the fatbin or cubin at the window's place; False when there is none."""
    window.fill(elf.HEADER_SIZE)
    start = window.peek(elf.HEADER_SIZE)
    if fatbin.is_header(start):
        _fatbin(window, found)
        return True
    if elf.is_cuda(start):
        _cubin(window, found)
        return True
    return False


def _is_code(start: bytes) -> bool:
    return elf.is_cuda(start) or fatbin.is_header(start) or ptx.starts_module(start)


class _Hits:
    """Finds the next place that may begin GPU code, looking at each byte once for each mark."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._known: dict[bytes, int | None] = dict.fromkeys(_MARKS)  # offset of the next one
        self._searched = dict.fromkeys(_MARKS, 0)  # offset up to which there is none

    def next(self) -> int | None:
        """How far ahead of the window's place the next mark is; None at the end of the file."""
        window = self._window
        while True:
            if window.fill(len(max(_MARKS, key=len))) == 0:
                return None
            nearest = -1
            for mark in _MARKS:
                hit = self._hit(mark, nearest)
                nearest = hit if hit >= 0 else nearest
            if nearest >= 0:
                return nearest
            if window.ended:
                window.skip(window.ready)
                return None
            window.skip(window.ready - len(max(_MARKS, key=len)) + 1)
            window.fill(CHUNK)

    def _hit(self, mark: bytes, before: int) -> int:
        """Where in the window the mark is next, -1 for nowhere in front of `before`."""
        window = self._window
        known = self._known[mark]
        if known is not None and known >= window.offset:
            at = known - window.offset
            return at if before < 0 or at < before else -1
        end = window.ready if before < 0 else min(window.ready, before + len(mark) - 1)
        start = max(self._searched[mark] - len(mark) + 1 - window.offset, 0)
        found = window.find(mark, start, end) if start < end else -1
        self._known[mark] = found + window.offset if found >= 0 else None
        reached = found + 1 if found >= 0 else end
        self._searched[mark] = max(self._searched[mark], window.offset + reached)
        return found


def _ptx(window: Window, found: _Collector) -> None:
    """Note the PTX module whose `.target` may be at the window's place."""
    before = window.before()
    window.fill(ptx.LOOK_AHEAD)
    module = ptx.target_at(before + window.peek(ptx.LOOK_AHEAD), len(before))
    if module is not None:
        found.images += 1
        found.add_unit([module])


def _cubin(window: Window, found: _Collector) -> None:
    """A cubin at the window's place; moves behind it, or behind its magic when it is damaged."""
    offset = window.offset
    found.images += 1
    try:
        head = elf.header(window.peek(elf.HEADER_SIZE))
        size = head.tables_end
        if size <= INSIDE_LIMIT:
            _have(window, size)
            with window.view(size) as data:
                size = elf.end_of(data, head)
        if size > INSIDE_LIMIT:
            found.add_unit([_huge_cubin(head, size)])
            window.skip(elf.HEADER_SIZE)
            return
        _have(window, size)
        with window.view(size) as data:
            found.add_unit([cubin.read_cubin(data)])
        window.skip(size)
    except DamagedError as error:
        found.add_damage(offset, str(error))
        window.skip(len(elf.MAGIC))


def _have(window: Window, size: int) -> None:
    if window.fill(size) < size:
        msg = f"a cubin of {size} bytes is cut off after {window.ready}"
        raise DamagedError(msg)


def _huge_cubin(head: elf.Header, size: int) -> Code:
    """A cubin that is too long to look into: its number, every suffix possible."""
    number = head.flags >> 8 & 0xFFFF if head.os_abi == 0x41 else head.flags & 0xFF
    return code(
        Form.MACHINE,
        number,
        cubin.suffixes_possible(number),
        why=f"the cubin has {size} bytes, too many to look into",
    )


def _fatbin(window: Window, found: _Collector) -> None:
    """A fatbin at the window's place; moves behind what of it could be read."""
    codes: list[Code] = []
    try:
        left = fatbin.body_size(window.peek(fatbin.HEADER_SIZE))
        window.skip(fatbin.HEADER_SIZE)
        found.false_hits += left == 0
        while left > 0:
            left -= _entry(window, left, codes, found)
            if found.full:
                break
    except DamagedError as error:
        found.add_damage(window.offset, str(error))
        window.skip(min(len(fatbin.MAGIC), window.ready))
    found.add_unit(codes)


def _entry(window: Window, left: int, codes: list[Code], found: _Collector) -> int:
    """One entry of a fatbin that has `left` bytes more; returns how many it took."""
    if left < fatbin.ENTRY_SIZE or window.fill(fatbin.ENTRY_SIZE) < fatbin.ENTRY_SIZE:
        msg = f"a fatbin is cut off: {left} bytes are missing"
        raise DamagedError(msg)
    head_size = fatbin.entry_header_size(window.peek(fatbin.ENTRY_SIZE))
    window.fill(head_size)
    head = window.peek(head_size)
    entry = fatbin.entry(head)
    if len(head) < head_size or head_size + entry.size > left:
        msg = f"a fatbin entry of {head_size + entry.size} bytes with {left} left"
        raise DamagedError(msg)
    what = fatbin.read_entry(entry)
    window.skip(head_size)
    found.images += 1
    if (
        not what.decided
        and found.may_look_inside(max(entry.size, entry.uncompressed))
        and window.fill(entry.size) >= entry.size
    ):
        try:
            what = fatbin.look_inside(entry, window.peek(entry.size))
        except DamagedError as error:
            found.add_damage(window.offset, str(error))
    if window.skip(entry.size) < entry.size:
        msg = f"a fatbin's image of {entry.size} bytes is cut off"
        raise DamagedError(msg)
    codes.append(what)
    return head_size + entry.size
