"""Where sources and compiled modules are."""

import os
import pathlib

_DATA = pathlib.Path(__file__).parent.parent / "data"
FLASHINFER_CSRC_DIR = _DATA / "csrc"
FLASHINFER_INCLUDE_DIR = _DATA / "include"
AOT_DIR = _DATA / "aot"


def cached_ops():
    base = pathlib.Path(os.environ.get("FLASHINFER_WORKSPACE_BASE") or pathlib.Path.home())
    return base / ".cache" / "flashinfer" / "0.6.3+sp.standin" / "121a" / "cached_ops"
