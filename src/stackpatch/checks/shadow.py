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

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stackpatch.model.recipe import Recipe


class Kind(StrEnum):
    """What lies in the way."""

    COPIES = "copies"
    EDITABLE = "editable"
    AOT = "aot"
    PREBUILT = "prebuilt"
    JIT = "jit"


class Effect(StrEnum):
    """What it does to a patch. UNKNOWN is never a kind of all right: somebody has to look."""

    WINS = "wins"
    UNKNOWN = "unknown"


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
    """A compiled module in FlashInfer's cache.

    version: the folder's, which names the FlashInfer that reads it. sources: as its build.ninja
    names them. changed: those whose content is not what was recorded when the module was built;
    None: nothing was recorded. checked: FlashInfer compares contents itself (CuTe-DSL).
    """

    name: str
    where: str
    version: str
    sources: tuple[str, ...] = ()
    changed: tuple[str, ...] | None = None
    checked: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """What an environment has of a stack.

    copies: folders of the stack's package, in the order of the import path as far as it is known.
    loaded: the one that Python really imports; None: nobody asked. links: `.pth` lines and finders
    that lead elsewhere. modules: compiled modules in `data/aot` by package folder. versions: what
    FlashInfer calls itself, by package folder.
    """

    copies: tuple[str, ...] = ()
    loaded: str | None = None
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
        *_jit(scene),
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


def _jit(scene: Scene) -> Iterator[Finding]:
    """Modules that the installed FlashInfer would read. Where nothing proves what a module was
    made from, that is what is said: ninja compares times only, and times prove nothing."""
    own = scene.versions.get(scene.loaded or next(iter(scene.copies), ""))
    silent: dict[str, list[str]] = defaultdict(list)
    for module in scene.jit:
        if module.checked or (own is not None and module.version != own):
            continue
        if module.changed:
            yield Finding(
                Kind.JIT,
                Effect.WINS,
                f"module {module.name} was built from other sources: {', '.join(module.changed)}",
                module.where,
                "ninja compares modification times and may find nothing to do",
                "stackpatch cache clear flashinfer --cache flashinfer-jit",
            )
        else:
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
            "stackpatch cache clear flashinfer --cache flashinfer-jit, if sources were changed in "
            "place",
        )
