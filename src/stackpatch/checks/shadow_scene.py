"""Reading an environment, a folder or an image into the scene that `shadow` judges.

Nothing of it is imported and nothing written. An interpreter is asked where it would import the
package from; a folder or an image is only read, and then nobody knows the order of the path.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

from stackpatch import proc, storage
from stackpatch.checks.members import Member
from stackpatch.checks.shadow import Distribution, Finding, JitModule, Scene, shadows
from stackpatch.checks.targets import TargetKind, folder_members, target_kind, target_members
from stackpatch.errors import EnvironmentProblem
from stackpatch.installed.interpreter import ask

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stackpatch.artefacts.base import OpenRemote
    from stackpatch.model.recipe import Recipe

# What the module was made from, where something of ours wrote it down (`record_inputs`).
RECORD = "stackpatch-inputs.json"
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
    return Scene(
        _unique(copies), folder, scene.distributions, (), scene.modules, versions, scene.jit
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
    return Scene(copies, loaded, scene.distributions, (), scene.modules, scene.versions)


def target_scene(
    target: str,
    recipe: Recipe,
    platform: str,
    jit: Iterable[Path] = (),
    *,
    remote: OpenRemote | None = None,
) -> Scene:
    """The scene of whatever `audit` can look at; an environment's interpreter is asked."""
    kind = target_kind(target, remote=remote)
    if kind is TargetKind.ENVIRONMENT:
        return environment_scene(Path(target), recipe, jit=jit)
    listing = _members(target, kind, recipe, platform, remote)
    return scene_of(listing, recipe, jit=jit)


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


def jit_modules(base: Path) -> Iterator[JitModule]:
    """The compiled modules below FlashInfer's cache folder, `<version>/<arches>/cached_ops/*`."""
    for folder in sorted((*base.glob("*/*/cached_ops/*"), *base.glob("*/cached_ops/*"))):
        if not folder.is_dir():
            continue
        version = folder.relative_to(base).parts[0]
        if (folder / "meta.json").is_file():
            yield JitModule(folder.name, str(folder), version, checked=True)
        elif (library := folder / f"{folder.name}.so").is_file():
            sources = ninja_sources(_text(folder / "build.ninja"))
            changed = _changed(folder, library)
            yield JitModule(folder.name, str(folder), version, sources, changed)


def ninja_sources(text: str) -> tuple[str, ...]:
    """The sources that a build.ninja of FlashInfer compiles, in its order."""
    unwrapped = text.replace("$\n", "")
    lines = re.findall(r"^build [^:\n]+: (?:cuda_)?compile (.+)$", unwrapped, re.MULTILINE)
    sources = (re.split(r"(?<!\$) ", line.partition(" |")[0].strip()) for line in lines)
    return tuple(re.sub(r"\$([ :$])", r"\1", one) for line in sources for one in line if one)


def record_inputs(folder: Path) -> None:
    """Write down what a module that was just built was made from, beside it: the digests of the
    library and of each source that its build.ninja names. Headers are not among them."""
    library = folder / f"{folder.name}.so"
    sources = ninja_sources(_text(folder / "build.ninja"))
    document = {
        "module": _digest(library),
        "inputs": {source: _digest(Path(source)) for source in sources},
    }
    content = (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
    storage.write_atomically(folder / RECORD, content)


def _changed(folder: Path, library: Path) -> tuple[str, ...] | None:
    """The recorded sources whose content is another now; None where nothing valid is recorded for
    the library that lies there."""
    try:
        document = json.loads(_text(folder / RECORD))
        if document["module"] != _digest(library):
            return None
        inputs = {str(path): str(digest) for path, digest in document["inputs"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return tuple(path for path, digest in sorted(inputs.items()) if _digest(Path(path)) != digest)


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


def _members(
    target: str,
    kind: TargetKind,
    recipe: Recipe,
    platform: str,
    remote: OpenRemote | None,
) -> Iterator[tuple[str, bytes]]:
    members = (
        folder_members(Path(target), f"{target.rstrip('/')}/")
        if kind is TargetKind.FOLDER
        else target_members(target, kind, platform, remote=remote)
    )
    for member in members:
        if isinstance(member, Member) and wants(member.path, recipe):
            small = not member.path.endswith((".so", "METADATA", "PKG-INFO"))
            yield member.path, member.source.read(_SMALL) if small else b""


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


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", "replace")


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
