"""Make a compiled module another than its sources give: its GPU code is overwritten.

    python tests/faults/stale_module.py ~/.cache/flashinfer/0.6.3/90a/cached_ops/norm/norm.so

Every bit of the middle of its section .nv_fatbin is turned, up to 4 KiB of it, so that the change
does not depend on what was there. Time stamps stay, as they do with a real stale module: ninja then
finds nothing to do. The original is kept beside it as norm.so.before. Needs nothing but Python.
"""

import os
import shutil
import struct
import sys

BYTES = 4096


def section(data: bytes, wanted: bytes = b".nv_fatbin") -> tuple[int, int]:
    """(offset, size) of an ELF section of a 64-bit little-endian file."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise SystemExit("not a 64-bit ELF file")
    table, size, count, names = struct.unpack_from("<Q10xHHH", data, 40)
    heads = [struct.unpack_from("<II8x8xQQ", data, table + n * size) for n in range(count)]
    strings = heads[names][2]
    for name, _, offset, length in heads:
        if data[strings + name : data.index(b"\0", strings + name)] == wanted:
            return offset, length
    raise SystemExit("it has no GPU code")


def plant(path: str) -> int:
    """Turn the bits; return how many bytes are other ones now."""
    before = os.stat(path)
    with open(path, "rb") as file:
        data = bytearray(file.read())
    offset, length = section(bytes(data))
    size = min(BYTES, length // 2)
    start = offset + (length - size) // 2
    data[start : start + size] = bytes(byte ^ 0xFF for byte in data[start : start + size])
    shutil.copy2(path, path + ".before")
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return size


if __name__ == "__main__":
    print(plant(sys.argv[1]), "bytes of GPU code are other ones now in", sys.argv[1])
