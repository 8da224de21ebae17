"""What is installed under a distribution's name, and what its files are.

installed.py NAME             [version, folder, RECORD's bytes as base64 or null, the platforms that
                              its wheel is for, this machine's kind], or null
installed.py NAME paths.json  {path: [digest in hex, bytes] or null}, for {path: algorithm}
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import os
import platform
import sys


def installed(name: str) -> object:
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    records = [f for f in found.files or [] if str(f).endswith(".dist-info/RECORD")]
    record = None
    if records:
        with open(str(found.locate_file(records[0])), "rb") as file:
            record = base64.b64encode(file.read()).decode("ascii")
    said = (found.read_text("WHEEL") or "").splitlines()
    tags = [line.partition(":")[2].strip() for line in said if line.startswith("Tag:")]
    platforms = [tag.rpartition("-")[2] for tag in tags]
    return [found.version, str(found.locate_file("")), record, platforms, platform.machine()]


def digests(name: str, wanted: str) -> object:
    folder = str(importlib.metadata.distribution(name).locate_file(""))
    with open(wanted, encoding="utf-8") as file:
        paths = json.load(file)
    return {path: digest(os.path.join(folder, path), kind) for path, kind in paths.items()}


def digest(path: str, algorithm: str) -> object:
    found, size = hashlib.new(algorithm), 0
    try:
        with open(path, "rb") as file:
            for piece in iter(lambda: file.read(1 << 20), b""):
                found.update(piece)
                size += len(piece)
    except OSError:
        return None
    return [found.hexdigest(), size]


if __name__ == "__main__":
    answer = digests(*sys.argv[1:3]) if len(sys.argv) > 2 else installed(sys.argv[1])
    print()
    print("stackpatch-answer:" + json.dumps(answer))
