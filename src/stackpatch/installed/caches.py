"""Every JIT, autotune and compile cache that a patched stack reads, by name.

One row a cache: where it lies, who reads it, what its entries look like, and whether it can hold
something that was made from other sources than the ones installed now. `docs/caches.md` is
generated from this table.

Sources: the packages named in each row, read from PyPI on 2026-11-21; `facts/upstream.md`
section 5 where a row says so. What was not read is `unknown`.
"""

from __future__ import annotations

from stackpatch.installed import locate
from stackpatch.installed.cache import STACKS, Cache, Risk
from stackpatch.installed.caches_compilers import COMPILERS
from stackpatch.installed.caches_flashinfer import FLASHINFER
from stackpatch.installed.caches_servers import SERVERS

_BYTECODE = (
    Cache(
        "python-bytecode",
        "__pycache__ beside the installed modules",
        (),
        locate.nowhere,
        STACKS,
        Risk.UNKNOWN,
        "stale only where an edit keeps size and modification time, or with unchecked hash-based "
        "files",
        "Python's documentation, py_compile",
        instead="python -m compileall -f, on the package's folder",
    ),
)

CACHES: dict[str, Cache] = {
    cache.name: cache for cache in (*FLASHINFER, *COMPILERS, *SERVERS, *_BYTECODE)
}
