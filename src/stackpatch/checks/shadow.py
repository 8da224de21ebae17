"""What Python and FlashInfer would load instead of the patched source, from a listing.

Pure: `shadow_scene` reads an environment, a folder or an image into a `Scene`; here it is judged.
Facts about FlashInfer: flashinfer/jit/{env,core,cpp_ext,cute_dsl_core}.py of 0.6.3 and 0.7.2.post1.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stackpatch.model.recipe import Recipe


# Read in the sdists of 0.5.0 to 0.7.2.post1, `JitSpec.build` in flashinfer/jit/core.py.
_LAST_TO_KEEP_NINJA = "0.6.11"
_FIRST_TO_WRITE_NINJA = Version("0.6.11.post1")
_CLEAR = "stackpatch cache clear flashinfer --cache flashinfer-jit"


class Kind(StrEnum):
    """What lies in the way."""

    COPIES = "copies"
    EDITABLE = "editable"
    AOT = "aot"
    PREBUILT = "prebuilt"
    JIT = "jit"


class Effect(StrEnum):
    """What it does to a patch. UNKNOWN is never a kind of all right: somebody has to look.

    NONE: it lies there, is named so that nobody has to wonder, and takes nothing from a patch.
    """

    WINS = "wins"
    UNKNOWN = "unknown"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing. what, where, why it wins (or may), what to do about it."""

    kind: Kind
    effect: Effect
    what: str
    where: str
    why: str
    todo: str

    def json(self) -> dict[str, str]:
        """As `audit --json` has it."""
        return {
            "kind": self.kind.value,
            "effect": self.effect.value,
            "what": self.what,
            "where": self.where,
            "why": self.why,
            "todo": self.todo,
        }


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed distribution. editable: where its source lies, None where it is a copy."""

    name: str
    version: str
    where: str
    editable: str | None = None


@dataclass(frozen=True, slots=True)
class JitModule:
    """A module in FlashInfer's cache, compiled or about to be.

    version: the folder's, which names the FlashInfer that reads it. sources: as its build.ninja
    names them. changed: objects of it that were compiled from other contents than lie there now;
    None: nothing says from which. checked: FlashInfer compares contents itself (CuTe-DSL). built:
    there is a library, not a build.ninja alone.
    """

    name: str
    where: str
    version: str
    sources: tuple[str, ...] = ()
    changed: tuple[str, ...] | None = None
    checked: bool = False
    built: bool = True


@dataclass(frozen=True, slots=True)
class Scene:
    """What an environment has of a stack.

    copies: folders of the stack's package, in the order of the import path as far as it is known.
    loaded: the one that Python really imports; None: nobody asked. resolved: the same, with links
    followed. links: `.pth` lines and finders
    that lead elsewhere. modules: compiled modules in `data/aot` by package folder. versions: what
    FlashInfer calls itself, by package folder.
    """

    copies: tuple[str, ...] = ()
    loaded: str | None = None
    resolved: str | None = None
    distributions: tuple[Distribution, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    modules: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    jit: tuple[JitModule, ...] = ()


def shadows(scene: Scene, recipe: Recipe) -> list[Finding]:
    """Everything that would be, or may be, loaded instead of the stack's patched source."""
    return [
        *_copies(scene, recipe.upstream.package),
        *_editable(scene, recipe),
        *_aot(scene),
        *_prebuilt(scene, recipe),
        *_companions(scene, recipe),
        *_jit(scene, recipe.upstream.package),
    ]


def _copies(scene: Scene, package: str) -> Iterator[Finding]:
    if len(scene.copies) < 2:
        return
    if scene.loaded is not None:
        others = [folder for folder in scene.copies if folder != scene.loaded]
        yield Finding(
            Kind.COPIES,
            Effect.WINS,
            f"{len(scene.copies)} copies of {package}; Python imports {scene.loaded}",
            ", ".join(others),
            "the first on the import path wins, and a patch in another changes nothing",
            f"patch {scene.loaded}, or remove the copies that are not meant",
        )
        return
    yield Finding(
        Kind.COPIES,
        Effect.UNKNOWN,
        f"{len(scene.copies)} copies of {package}",
        ", ".join(scene.copies),
        "the first on the import path wins; which that is was not asked of an interpreter",
        "name the interpreter itself, or remove the copies that are not meant",
    )


def _editable(scene: Scene, recipe: Recipe) -> Iterator[Finding]:
    told = False
    for one in scene.distributions:
        if one.editable is None or one.name != canonicalize_name(recipe.upstream.pypi):
            continue
        told = True
        what = f"{one.name} {one.version} is an editable install of {one.editable}"
        todo = f"patch {one.editable}, or `pip uninstall {one.name}` and install the patched wheel"
        if scene.loaded is None:
            why = "Python may import it from there; no interpreter was asked"
            yield Finding(Kind.EDITABLE, Effect.UNKNOWN, what, one.where, why, todo)
        elif scene.loaded.startswith(f"{one.editable.rstrip('/')}/"):
            why = f"Python imports {scene.loaded}; a patch in site-packages changes nothing"
            yield Finding(Kind.EDITABLE, Effect.WINS, what, one.where, why, todo)
        else:
            why = f"Python imports {scene.loaded} today; another import path may change that"
            yield Finding(Kind.EDITABLE, Effect.UNKNOWN, what, one.where, why, todo)
    for file, target in () if told else scene.links:
        yield Finding(
            Kind.EDITABLE,
            Effect.UNKNOWN,
            f"the import path is led to {target}",
            file,
            f"{recipe.upstream.package} may be imported from there; no interpreter was asked",
            "name the interpreter itself, or remove the line",
        )


def _aot(scene: Scene) -> Iterator[Finding]:
    for folder, count in sorted(scene.modules.items()):
        yield Finding(
            Kind.AOT,
            Effect.WINS,
            f"{count} compiled module{'s' * (count != 1)}",
            f"{folder}/data/aot",
            "a module there is loaded before any source is looked at, whatever made it",
            f"remove {folder}/data/aot, unless it was built from the patched sources",
        )


def _prebuilt(scene: Scene, recipe: Recipe) -> Iterator[Finding]:
    """Distributions that the recipe names, and providers of theirs (flashinfer-jit-cache-cu130)."""
    own = scene.versions.get(scene.loaded or next(iter(scene.copies), ""))
    for one in scene.distributions:
        named = next(
            (n for n in recipe.shadowed_by if one.name == n or one.name.startswith(f"{n}-")), None
        )
        if named is None:
            continue
        what = f"{one.name} {one.version}"
        todo = f"pip uninstall {one.name}"
        if one.name != named:
            why = f"by its name a provider of {named}, whose modules are loaded before any source"
            yield Finding(Kind.PREBUILT, Effect.UNKNOWN, what, one.where, why, todo)
        elif own is not None and "+sp." in own:
            why = (
                f"a build stamped {own} ignores it where the series has the patch for that; without"
                " that patch the import fails or, with FLASHINFER_DISABLE_VERSION_CHECK=1, its "
                "modules win"
            )
            yield Finding(Kind.PREBUILT, Effect.UNKNOWN, what, one.where, why, todo)
        else:
            why = "its modules are loaded before any source is looked at"
            yield Finding(Kind.PREBUILT, Effect.WINS, what, one.where, why, todo)


def _companions(scene: Scene, recipe: Recipe) -> Iterator[Finding]:
    """Distributions of kernels that no patch changes (flashinfer-cubin), of this release or not."""
    own = scene.versions.get(scene.loaded or next(iter(scene.copies), ""))
    for one in scene.distributions:
        if one.name not in recipe.same_version or one.name in recipe.shadowed_by:
            continue
        what = f"{one.name} {one.version}"
        if own is None or one.version.partition("+")[0] == own.partition("+")[0]:
            why = "its kernels come from no source that a series changes, and are taken as they are"
            todo = "nothing"
            yield Finding(Kind.PREBUILT, Effect.NONE, what, one.where, why, todo)
        else:
            why = (
                f"it is of another release than {recipe.upstream.package} {own}, which refuses to "
                "be imported beside it or, told not to look, takes its kernels"
            )
            todo = f"pip install {one.name}=={own.partition('+')[0]}, or uninstall it"
            yield Finding(Kind.PREBUILT, Effect.UNKNOWN, what, one.where, why, todo)


def _jit(scene: Scene, package: str) -> Iterator[Finding]:
    """Modules that the installed FlashInfer would read. Where nothing proves what a module was
    made from, that is what is said: ninja compares times only, and times prove nothing."""
    own = scene.versions.get(scene.loaded or next(iter(scene.copies), ""))
    silent: dict[str, list[str]] = defaultdict(list)
    for module in scene.jit:
        if module.checked or (own is not None and module.version != own):
            continue
        foreign = _foreign(module, scene, package)
        if foreign:
            yield Finding(
                Kind.JIT,
                Effect.WINS,
                f"module {module.name} is made from the sources of another installation: {foreign}",
                module.where,
                f"FlashInfer up to {_LAST_TO_KEEP_NINJA} takes a build.ninja that is there, whoever"
                " wrote it",
                _CLEAR,
            )
        elif not module.built:
            continue
        elif module.changed and "+sp." in module.version:
            yield Finding(
                Kind.JIT,
                Effect.NONE,
                f"module {module.name} was compiled from other contents: {module.changed[0]}",
                module.where,
                "the patched FlashInfer compares contents, and compiles it again when it is used",
                "nothing",
            )
        elif module.changed:
            yield Finding(
                Kind.JIT,
                Effect.WINS,
                f"module {module.name} was compiled from other contents: {module.changed[0]}",
                module.where,
                "ninja compares modification times and may find nothing to do",
                _CLEAR,
            )
        elif module.changed is None:
            silent[module.where.rpartition("/")[0]].append(module.name)
    for folder, names in sorted(silent.items()):
        shown = ", ".join(sorted(names)[:5]) + (", …" if len(names) > 5 else "")
        yield Finding(
            Kind.JIT,
            Effect.UNKNOWN,
            f"{len(names)} compiled module{'s' * (len(names) != 1)}: {shown}",
            folder,
            "nothing says from which contents of its sources and headers each was built; ninja "
            "compares modification times only",
            f"{_CLEAR}, if sources were changed in place",
        )


def _foreign(module: JitModule, scene: Scene, package: str) -> str | None:
    """A source of the module that lies in another installation of the package, where the release
    that reads the module would take it; None: there is none, or nobody can tell."""
    try:
        keeps = Version(module.version) < _FIRST_TO_WRITE_NINJA
    except InvalidVersion:
        return None
    if scene.loaded is None or not keeps:
        return None
    own = tuple(f"{folder}/" for folder in (scene.loaded, scene.resolved) if folder)
    others = (s for s in module.sources if f"/{package}/data/" in s and not s.startswith(own))
    return next(others, None)
