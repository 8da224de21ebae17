"""The module `norm`, "compiled" into an ELF file whose section .nv_fatbin is its source.

Like ninja it compares modification times alone: a module that is newer than its source is kept.
"""

import os
import struct

from . import env


class _Module:
    def __init__(self, text):
        self._added = 3.0 if b" + eps + 3" in text else 0.0

    def rmsnorm(self, out, x, weight, eps, enable_pdl):
        import flashinfer

        out.set(flashinfer.norm(x.numpy(), weight.numpy(), eps + self._added))


class _Spec:
    def __init__(self):
        self._aot = env.AOT_DIR / "norm" / "norm.so"
        self.is_aot = self._aot.exists()

    def get_library_path(self):
        return self._aot if self.is_aot else env.cached_ops() / "norm" / "norm.so"

    def build(self, verbose):
        source = env.FLASHINFER_INCLUDE_DIR / "flashinfer" / "norm.cuh"
        library = self.get_library_path()
        if library.exists() and library.stat().st_mtime_ns >= source.stat().st_mtime_ns:
            return
        # What ninja hands on of the compiler's words.
        if said := os.environ.get("STANDIN_COMPILER"):
            raise RuntimeError(
                f"Ninja build failed. Ninja output:\n{said}\ncompilation terminated."
            )
        library.parent.mkdir(parents=True, exist_ok=True)
        library.write_bytes(elf(source.read_bytes()))

    def build_and_load(self):
        self.build(verbose=False)
        data = self.get_library_path().read_bytes()
        if data[64:].startswith(b"\xdd"):  # a driver refuses such code
            raise RuntimeError("CUDA error: device kernel image is invalid")
        return _Module(data)


def gen_norm_module():
    return _Spec()


def elf(code):
    """An ELF file with one section .nv_fatbin that holds `code`."""
    names = b"\0.nv_fatbin\0.shstrtab\0"
    at = 64 + len(code)
    table = at + len(names)
    sections = [(0, 0, 0, 0), (1, 1, 64, len(code)), (12, 3, at, len(names))]
    head = struct.pack(
        "<4s5B7xHHIQQQIHHHHHH",
        *(b"\x7fELF", 2, 1, 1, 0, 0, 3, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, len(sections), 2),
    )
    rows = [struct.pack("<IIQQQQIIQQ", n, k, 0, 0, o, s, 0, 0, 1, 0) for n, k, o, s in sections]
    return head + code + names + b"".join(rows)
