"""What lies on the import path of a package and beside it: names, and the small files' contents.

    listing.py PACKAGE

Answers {"roots": the import path, "loaded": the folder that Python would import or null,
"files": {path: content as base64}}. Nothing of the package is imported.
"""

from __future__ import annotations

import base64
import glob
import importlib.util
import json
import os
import sys

SMALL = 1 << 20


def listing(package: str) -> object:
    try:
        spec = importlib.util.find_spec(package)
        places = list(spec.submodule_search_locations or []) if spec else []
    except Exception:  # noqa: BLE001 - a finder of somebody's may raise what it likes
        places = []
    roots = [path for path in dict.fromkeys(sys.path) if path and os.path.isdir(path)]
    files = {}
    for root in roots:
        for name in sorted(os.listdir(root)):
            for path in of(root, name, package):
                if os.path.isfile(path):
                    files[path] = "" if path.endswith(".so") else content(path)
    return {"roots": roots, "loaded": places[0] if places else None, "files": files}


def of(root: str, name: str, package: str) -> list[str]:
    path = os.path.join(root, name)
    if name == package:
        aot = os.path.join(path, "data", "aot", "*", "*.so")
        return [
            os.path.join(path, "__init__.py"),
            os.path.join(path, "_build_meta.py"),
            *sorted(glob.glob(aot)),
        ]
    if name.endswith((".dist-info", ".egg-info")):
        return [os.path.join(path, n) for n in ("METADATA", "PKG-INFO", "direct_url.json")]
    finder = name.startswith("__editable__") and name.endswith(".py")
    return [path] if name.endswith(".pth") or finder else []


def content(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return base64.b64encode(file.read(SMALL)).decode("ascii")
    except OSError:
        return ""


if __name__ == "__main__":
    answer = listing(sys.argv[1])
    print()
    print("stackpatch-answer:" + json.dumps(answer))
