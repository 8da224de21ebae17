"""List or clear the JIT caches that a patched stack may read stale."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stackpatch.cli import output
from stackpatch.cli.context import JsonOption, RootOption, subcommands
from stackpatch.cli.progress import size
from stackpatch.errors import FindingError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stackpatch.installed.cache import Cache
    from stackpatch.installed.clear import Kept, Plan
    from stackpatch.installed.interpreter import Installed
    from stackpatch.installed.listing import Listed
    from stackpatch.installed.surroundings import Surroundings

app = subcommands()

StackArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[STACK]", help="Only the caches that this stack reads.", show_default=False
    ),
]
PythonOption = Annotated[
    Path | None,
    typer.Option(
        "--python",
        metavar="PATH",
        help="An interpreter or virtual environment: its installed versions say which entries "
        "are read.",
    ),
]


@app.command("list")
def list_(
    stack: StackArgument = None,
    *,
    python: PythonOption = None,
    json: JsonOption = False,
    root: RootOption = None,  # noqa: ARG001 - every command takes it
) -> None:
    """List the caches: where they lie, how large they are, whether they can be stale."""
    from stackpatch.installed import caches, clear, listing

    asked = clear.request(_name(stack), ())
    around, installed = _around(python)
    chosen = [
        cache
        for cache in caches.CACHES.values()
        if asked.stack is None or asked.stack in cache.stacks
    ]
    rows = listing.listing(chosen, around)
    document = {
        "stack": asked.stack,
        "installed": _versions(installed),
        "prebuilt": list(installed.prebuilt) if installed else None,
        "caches": [row.document() for row in rows],
    }
    output.emit("cache-list", document, _list_text(rows, installed), json=json)


@app.command("clear")
def clear_(
    stack: StackArgument = None,
    *,
    python: PythonOption = None,
    cache: Annotated[
        list[str] | None,
        typer.Option(
            "--cache",
            metavar="NAME",
            help="Take all of this cache, stale or not; may be repeated.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go, and change nothing.")
    ] = False,
    json: JsonOption = False,
    root: RootOption = None,  # noqa: ARG001 - every command takes it
) -> None:
    """Clear what a patched stack can read stale, and nothing else.

    Never follows a link out of a cache, and leaves what it does not recognise.
    """
    from stackpatch.installed import clear

    asked = clear.request(_name(stack), cache or ())
    around, installed = _around(python)
    made = clear.plan(asked, around)
    done = made if dry_run else clear.carry_out(made)
    failure = None
    if done.incomplete:
        count = len(_blocked(done)) + len(done.refused)
        msg = f"{count} place{'s' * (count != 1)} could not be cleared"
        failure = FindingError(msg, hint="the reason stands beside each of them")
    document = {
        "stack": asked.stack,
        "dry_run": dry_run,
        "installed": _versions(installed),
        "prebuilt": list(installed.prebuilt) if installed else None,
        **_document(done),
    }
    text = list(_clear_text(done, installed, dry_run=dry_run))
    output.emit("cache-clear", document, text, json=json, failure=failure)


def _name(stack: str | None) -> str | None:
    """`flashinfer@0.6.3` names the stack too; which release is installed, --python says."""
    return None if stack is None else stack.partition("@")[0]


def _around(python: Path | None) -> tuple[Surroundings, Installed | None]:
    from stackpatch.installed import interpreter
    from stackpatch.installed.surroundings import surroundings

    if python is None:
        return surroundings(), None
    if not str(python):
        msg = "--python needs a path"
        raise InputError(msg)
    installed = interpreter.ask(python)
    return surroundings(versions=installed.versions), installed


def _versions(installed: Installed | None) -> dict[str, str] | None:
    return None if installed is None else dict(sorted(installed.versions.items()))


def _list_text(rows: Iterable[Listed], installed: Installed | None) -> list[str]:
    """A table of what is there; the rest by name."""
    table, absent = [], []
    for row in rows:
        if row.location is None or not row.exists:
            absent.append(row.cache.name)
            continue
        where = str(row.location.path)
        if row.resolved is not None:
            where += f" -> {row.resolved}"
        if row.size.unreadable:
            where += f" ({row.size.unreadable} unreadable)"
        table.append((row.cache.name, str(row.cache.risk), size(row.size.bytes), where))
    there = {row[0] for row in table}
    missing = [name for name in dict.fromkeys(absent) if name not in there]
    lines = output.table(("CACHE", "RISK", "SIZE", "PLACE"), table) if table else []
    if missing:
        lines += [*([""] if lines else []), f"Not there: {', '.join(missing)}"]
    return [*lines, *_prebuilt(installed)]


def _prebuilt(installed: Installed | None) -> list[str]:
    if installed is None or not installed.prebuilt:
        return []
    return [
        "",
        f"Prebuilt modules win over patched sources there: {', '.join(installed.prebuilt)}",
        f"  {installed.python} -m pip uninstall flashinfer-jit-cache",
    ]


def _document(plan: Plan) -> dict[str, object]:
    return {
        "bytes": sum(item.bytes for item in plan.taken),
        "taken": [
            {"cache": t.cache.name, "path": str(t.path), "bytes": t.bytes, "why": t.why}
            for t in plan.taken
        ],
        "left": [
            {"cache": k.cache.name, "path": str(k.path), "why": str(k.why), "detail": k.detail}
            for k in plan.kept
        ],
        "refused": [
            {
                "cache": r.cache.name,
                "path": str(r.path),
                "why": r.refusal.why,
                "hint": r.refusal.hint,
            }
            for r in plan.refused
        ],
        "passed": [{"cache": cache.name, "why": why} for cache, why in plan.passed],
    }


def _clear_text(plan: Plan, installed: Installed | None, *, dry_run: bool) -> Iterable[str]:
    """What went, by cache and with the reason once; then what stays and why."""
    verb = "would go" if dry_run else "gone"
    told: Cache | None = None
    for item in plan.taken:
        if item.cache is not told:
            told = item.cache
            yield f"{item.cache.name}: {item.why}"
        yield f"  {verb:9} {size(item.bytes):>9}  {item.path}"
    for place in plan.refused:
        yield f"  refused              {place.path}: {place.refusal.why}"
        if place.refusal.hint:
            yield f"                       {place.refusal.hint}"
    for kept in _worth_telling(plan):
        yield f"  stays                {kept.path}: {kept.detail}"
    if plan.taken:
        count = len(plan.taken)
        total = size(sum(item.bytes for item in plan.taken))
        what = "1 entry" if count == 1 else f"{count} entries"
        yield f"{'Would free' if dry_run else 'Freed'} {total} in {what}."
    else:
        yield "Nothing that could be stale was found."
    unknown = [cache.name for cache, why in plan.passed if why.startswith("not known")]
    if unknown:
        yield f"Not looked into, because not known to be stale (--cache NAME): {', '.join(unknown)}"
    yield from _prebuilt(installed)


def _blocked(plan: Plan) -> list[Kept]:
    from stackpatch.installed.survey import Why

    return [kept for kept in plan.kept if kept.why in {Why.BUSY, Why.FAILED}]


def _worth_telling(plan: Plan) -> list[Kept]:
    """Everything but what is the cache's own and harmless; that is in the document."""
    from stackpatch.installed.survey import Why

    return [kept for kept in plan.kept if kept.why is not Why.KEPT]
