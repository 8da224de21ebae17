"""Reading an environment, a folder or an image into the scene that `shadow` judges.

Nothing of it is imported and nothing written. An interpreter is asked where it would import the
package from; a folder or an image is only read, and then nobody knows the order of the path.
"""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

from stackpatch import proc
from stackpatch.checks.code import DamagedError
from stackpatch.checks.members import Found, Member
from stackpatch.checks.shadow import Distribution, Finding, Scene, shadows
from stackpatch.checks.shadow_jit import jit_modules
from stackpatch.checks.targets import TargetKind
from stackpatch.checks.window import Kept, Source
from stackpatch.errors import EnvironmentProblem
from stackpatch.installed.interpreter import ask

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stackpatch.model.recipe import Recipe

# The import path, and where the package would be imported from, without importing it.
_QUESTION = """
import importlib.util as u, json, sys
try:
    spec = u.find_spec(sys.argv[1])
    places = list(spec.submodule_search_locations or []) if spec else []
except Exception:
    places = []
print()
print(json.dumps([[p for p in sys.path if p], places[:1]]))
"""
_SECONDS = 60.0
_SMALL = 1 << 20
_INFO = re.compile(r"(?P<name>[^/]+?)-(?P<version>[^/-]+)\.(?:dist|egg)-info/(?P<file>[^/]+)$")
_VERSION = re.compile(r"""^__version__\s*=\s*["']([^"']+)["']""", re.MULTILINE)
_EDITABLE = re.compile(r"""["'](?P<package>\w+)["']\s*:\s*["'](?P<place>[^"']+)["']""")


def shadowing(python: Path, recipe: Recipe, *, jit: Iterable[Path] = ()) -> list[Finding]:
    """What shadows the stack's patched source in an interpreter's environment.

    python: an interpreter or a virtual environment's folder. jit: FlashInfer's cache folders
    (`~/.cache/flashinfer`) to look into. Raises InputError, EnvironmentProblem as `ask` does.
    """
    return shadows(environment_scene(python, recipe, jit=jit), recipe)


def environment_scene(python: Path, recipe: Recipe, *, jit: Iterable[Path] = ()) -> Scene:
    """The scene of an interpreter, in the order of its own import path."""
    installed = ask(python)
    package = recipe.upstream.package
    try:
        question = (installed.python, "-I", "-c", _QUESTION, package)
        answer = json.loads(proc.run(question, timeout=_SECONDS).text().splitlines()[-1])
        roots, places = ([str(Path(entry)) for entry in entries] for entries in answer)
    except (ValueError, IndexError, TypeError) as error:
        msg = f"{python} does not say what its import path is"
        raise EnvironmentProblem(msg) from error
    known = [root for root in dict.fromkeys(roots) if Path(root).is_dir()]
    scene = scene_of(_installed(known, recipe), recipe, roots=known, jit=jit)
    folder = next(iter(places), None)
    copies = scene.copies
    versions = dict(scene.versions)
    if folder is not None and not any(_same(folder, copy) for copy in copies):
        copies = (*copies, folder)  # an editable install lies outside the path's folders
    if folder is not None:
        folder = next(copy for copy in copies if _same(folder, copy))
        if package == "flashinfer" and package in installed.versions:
            versions[folder] = installed.versions[package]
    return replace(
        scene,
        copies=_unique(copies),
        loaded=folder,
        resolved=os.path.realpath(folder) if folder is not None else None,
        links=(),  # the interpreter was asked
        versions=versions,
    )


def listed_scene(told: Mapping[str, Any], recipe: Recipe) -> Scene:
    """The scene from what `agents/listing.py` answers, here or on another machine."""
    roots = [str(root) for root in told["roots"]]
    listing = {str(p): base64.b64decode(text) for p, text in told["files"].items()}
    scene = scene_of(listing.items(), recipe, roots=roots)
    loaded = str(told["loaded"]) if told["loaded"] is not None else None
    copies = scene.copies
    if loaded is not None and loaded not in copies:
        copies = (*copies, loaded)
    return replace(scene, copies=copies, loaded=loaded, links=())


class Noted:
    """A target's files as they go by on their way to the audit, which is the one that reads them.

    Kept of them is what the scene needs: names, and the small files' contents.
    """

    def __init__(self, target: str, kind: TargetKind, recipe: Recipe) -> None:
        self._target = target
        self._kind = kind
        self._recipe = recipe
        self._listing: list[tuple[str, bytes]] = []

    def passing(self, members: Iterable[Found]) -> Iterator[Found]:
        """The same members; each is to be read before the next one is asked for."""
        prefix = f"{self._target.rstrip('/')}/" if self._kind is TargetKind.FOLDER else ""
        for member in members:
            path = prefix + member.path
            if not isinstance(member, Member) or not wants(path, self._recipe):
                yield member
            elif path.endswith((".so", "METADATA", "PKG-INFO")):  # that it is there
                self._listing.append((path, b""))
                yield member
            else:
                start, source = _start(member.source)
                self._listing.append((path, start))
                yield Member(member.path, source)

    def scene(self, jit: Iterable[Path] = ()) -> Scene:
        """The scene, when all have passed; an environment's interpreter is asked.

        jit: FlashInfer's cache folders. Raises InputError, EnvironmentProblem as `ask` does.
        """
        if self._kind is TargetKind.ENVIRONMENT:
            return environment_scene(Path(self._target), self._recipe, jit=jit)
        return scene_of(self._listing, self._recipe, jit=jit)


def _start(source: Source) -> tuple[bytes, Source]:
    """A source's first bytes, and a source that still gives all of them."""
    pieces: list[bytes] = []
    left = _SMALL
    try:
        while left and (piece := source.read(left)):
            pieces.append(piece)
            left -= len(piece)
    except DamagedError as error:
        return b"".join(pieces), Kept(pieces, fault=error)
    return b"".join(pieces), Kept(pieces, rest=source)


def scene_of(
    listing: Iterable[tuple[str, bytes]],
    recipe: Recipe,
    *,
    roots: Iterable[str] = (),
    jit: Iterable[Path] = (),
) -> Scene:
    """The scene of a listing: paths, with the content of the small files that `wants` names.

    roots: the import path's folders in their order; without them the order is not known.
    """
    package = recipe.upstream.package
    copies: list[str] = []
    modules: dict[str, int] = {}
    versions: dict[str, str] = {}
    found: dict[tuple[str, str, str], str | None] = {}
    links: list[tuple[str, str]] = []
    for path, content in listing:
        folder, _, name = path.rpartition("/")
        if path.endswith(f"{package}/__init__.py") and folder.rpartition("/")[2] == package:
            copies.append(folder)
        elif name == "_build_meta.py" and folder.rpartition("/")[2] == package:
            if line := _VERSION.search(content.decode("utf-8", "replace")):
                versions[folder] = line[1]
        elif name.endswith(".so") and f"{package}/data/aot/" in path:
            owner = path.partition("/data/aot/")[0]
            modules[owner] = modules.get(owner, 0) + 1
        elif info := _INFO.search(path):
            key = (canonicalize_name(info["name"]), info["version"], folder)
            place = _editable_place(content) if info["file"] == "direct_url.json" else None
            found[key] = place or found.get(key)
        elif _leads(name):
            links += [(path, place) for place in _links(name, content, package)]
    order = {root: number for number, root in enumerate(roots)}
    copies.sort(key=lambda copy: (order.get(copy.rpartition("/")[0], len(order)), copy))
    return Scene(
        copies=_unique(copies),
        distributions=tuple(
            Distribution(name, version, where, place)
            for (name, version, where), place in sorted(found.items())
        ),
        links=tuple(links),
        modules=modules,
        versions=versions,
        jit=tuple(module for base in jit for module in jit_modules(base)),
    )


def wants(path: str, recipe: Recipe) -> bool:
    """Whether a path belongs into the listing."""
    package = recipe.upstream.package
    folder, _, name = path.rpartition("/")
    info = _INFO.search(path)
    return (
        (name in ("__init__.py", "_build_meta.py") and folder.rpartition("/")[2] == package)
        or (name.endswith(".so") and f"{package}/data/aot/" in path)
        or (info is not None and info["file"] in ("METADATA", "PKG-INFO", "direct_url.json"))
        or (_leads(name) and "/" in path)
    )


def _installed(roots: Iterable[str], recipe: Recipe) -> Iterator[tuple[str, bytes]]:
    """What the folders of an import path hold of the stack; their other packages are passed by."""
    package = recipe.upstream.package
    for root in roots:
        try:
            names = sorted(os.listdir(root))  # noqa: PTH208 - names only
        except OSError:
            continue
        for name in names:
            path = Path(root) / name
            if name == package:
                files = [path / "__init__.py", path / "_build_meta.py"]
                files += sorted((path / "data" / "aot").glob("*/*.so"))
            elif name.endswith((".dist-info", ".egg-info")):
                files = [path / n for n in ("METADATA", "PKG-INFO", "direct_url.json")]
            elif _leads(name):
                files = [path]
            else:
                continue
            for file in files:
                if file.is_file():
                    yield str(file), b"" if file.suffix == ".so" else _bytes(file)


def _leads(name: str) -> bool:
    """Whether a file can lead the import path elsewhere: a `.pth` or setuptools' finder."""
    return name.endswith(".pth") or (name.startswith("__editable__") and name.endswith(".py"))


def _links(name: str, content: bytes, package: str) -> Iterator[str]:
    """Where a `.pth` file or an editable finder leads the import path for this package."""
    text = content.decode("utf-8", "replace")
    if name.endswith(".py"):
        found = _EDITABLE.finditer(text)
        yield from (one["place"] for one in found if one["package"] == package)
        return
    for line in text.splitlines():
        if line.strip() and not line.startswith(("#", "import ", "import\t")):
            yield line.strip()


def _editable_place(content: bytes) -> str | None:
    try:
        document = json.loads(content)
        if document.get("dir_info", {}).get("editable") is not True:
            return None
        return unquote(urlsplit(str(document["url"])).path) or None
    except (ValueError, KeyError, AttributeError):
        return None


def _unique(folders: Iterable[str]) -> tuple[str, ...]:
    """The folders in their order, one for each place (lib64 is often a link to lib)."""
    seen = {os.path.realpath(folder): folder for folder in reversed(tuple(folders))}
    return tuple(reversed(tuple(seen.values())))


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_SMALL)
    except OSError:
        return b""
