"""Records what was seen of a build, and prints what is proven: docs/proven.md, README's table.

python -m stackpatch.cli.proven record DIST_FOLDER [--smoke FILE…]   # dist/STACK/VERSION/ARCH
python -m stackpatch.cli.proven page                                 # `make docs` writes it
python -m stackpatch.cli.proven readme README.md                     # with its table made anew
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackpatch.cli import output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stackpatch.checks.proof import Seen, Step
    from stackpatch.model.collection import Collection

BEGIN, END = "<!-- proven: begin -->", "<!-- proven: end -->"

_HEAD = """# What is proven

Generated from the locks and smoke files in `recipes/STACK/proofs/` by `make docs`; what has no such
file is **not verified**. A proof belongs to one series: when a patch changes, it no longer counts
until somebody records a new one (`scripts/prove STACK@RELEASE ARCH`, on any machine; with the GPU,
the kernels' numbers are part of it).
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the three."""
    from stackpatch.errors import StackpatchError

    parser = argparse.ArgumentParser(prog="python -m stackpatch.cli.proven")
    verbs = parser.add_subparsers(dest="verb", required=True)
    record = verbs.add_parser("record", help="keep lock and smoke files of a build as its proof")
    record.add_argument("folder", type=Path)
    record.add_argument("--smoke", type=Path, action="append", default=[])
    verbs.add_parser("page", help="print docs/proven.md")
    readme = verbs.add_parser("readme", help="print the file with its table made anew")
    readme.add_argument("file", type=Path)
    options = parser.parse_args(argv)
    try:
        match options.verb:
            case "record":
                output.write_result(f"{record_proof(options.folder, options.smoke)}\n")
            case "page":
                output.write_result(page(_collection()))
            case _:
                text = options.file.read_text(encoding="utf-8")
                output.write_result(with_table(text, _collection()))
    except StackpatchError as error:
        output.note(f"error: {error.message}")
        return error.exit_status
    return 0


def record_proof(folder: Path, smokes: Sequence[Path]) -> Path:
    """Copy a result's lock and smoke files to the recipe's proofs; return the proof's folder.

    Raises InputError for a result whose files are not those of its lock, or a smoke file that is
    about another build.
    """
    from stackpatch import storage
    from stackpatch.artefacts.lock import intact, read_lock
    from stackpatch.checks.proof import BUILT, BUILT_SCHEMA, LOCK, folder_of, is_about, read_proof
    from stackpatch.errors import InputError

    _, outputs = read_lock(folder / LOCK)
    if not intact(folder, outputs):
        msg = f"{folder} does not hold what its lock.json says"
        raise InputError(msg, hint="build it again", where=str(folder))
    content = (folder / LOCK).read_bytes()
    inputs = json.loads(content)["inputs"]
    recipes = _collection().recipes
    target = folder_of(recipes, inputs["stack"], inputs["version"], inputs["arch"]["name"])
    target.mkdir(parents=True, exist_ok=True)
    made = {
        "schema": BUILT_SCHEMA,
        "made": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "where": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }
    known = target / LOCK
    if not known.exists() or known.read_bytes() != content:
        storage.write_atomically(known, content)
        storage.write_atomically(target / BUILT, (json.dumps(made, indent=2) + "\n").encode())
        # What was seen of another wheel goes. Of the same one it stays, whichever engine made it
        # again: a run on a GPU is not had twice.
        proof = read_proof(target)
        for old in target.glob("smoke-*.json"):
            if proof is None or not is_about(json.loads(old.read_bytes()), proof):
                old.unlink()
    found = [path for path in (folder / "smoke.json",) if path.exists()]
    for path in (*found, *smokes):
        document = path.read_bytes()
        proof = read_proof(target)
        parsed = json.loads(document)
        if proof is None or not is_about(parsed, proof):
            msg = f"{path} is about another build than {folder}"
            raise InputError(msg, hint="record it with the build that was checked", where=str(path))
        storage.write_atomically(target / _name(parsed), document)
    return target


def _name(smoke: Mapping[str, Any]) -> str:
    """A file of its own for each run: the GPU, and when it was made."""
    device = str((smoke.get("device") or {}).get("gpu") or "no-gpu")
    made = str(smoke.get("made") or "some-day").replace(":", "")
    return f"smoke-{device.lower().replace(' ', '-')}-{made}.json"


def page(collection: Collection) -> str:
    """docs/proven.md."""
    from stackpatch.checks.proof import State

    lines = [_HEAD.rstrip(), ""]
    stack = ""
    for name, version, arch, steps in _all(collection):
        if name != stack:
            stack = name
            lines += ["", f"## {name}", ""]
            lines += ["| release | arch | step | known | evidence |", "|---|---|---|---|---|"]
        known = [(s, one) for s, one in steps.items() if one.state is not State.UNVERIFIED]
        open_ = [s.value for s, one in steps.items() if one.state is State.UNVERIFIED]
        for step, one in known:
            evidence = ", ".join(part for part in (one.detail, one.where, one.when[:10]) if part)
            lines.append(f"| {version} | {arch} | {step} | {one.state} | {_cell(evidence)} |")
        if open_:
            why = next(iter({one.detail for one in steps.values() if one.detail}), "")
            reason = why if not known else ""
            lines.append(
                f"| {version} | {arch} | {', '.join(open_)} | not verified | {_cell(reason)} |"
            )
    return "\n".join(lines) + "\n"


def table(collection: Collection) -> str:
    """README's table: one row per release and arch."""
    from stackpatch.checks.proof import Step

    marks = {"yes": "yes", "partly": "partly", "no": "**no**", "not verified": "-"}
    lines = [f"| stack | arch | {' | '.join(Step)} |", "|---" * (len(Step) + 2) + "|"]
    for name, version, arch, steps in _all(collection):
        cells = " | ".join(marks[steps[step].state.value] for step in Step)
        lines.append(f"| {name} {version} | {arch} | {cells} |")
    return "\n".join(lines)


def with_table(text: str, collection: Collection) -> str:
    """The text with what stands between its two markers made anew. Raises InputError."""
    from stackpatch.errors import InputError

    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        msg = f"no {BEGIN} … {END} to write the table between"
        raise InputError(msg)
    return f"{before}{BEGIN}\n\n{table(collection)}\n\n{END}{after}"


def _all(collection: Collection) -> Iterator[tuple[str, str, str, Mapping[Step, Seen]]]:
    """Every stack, release with a series, arch, and what is known of it."""
    from stackpatch.checks.proof import known

    for stack in collection.stacks():
        recipe = collection.recipe(stack)
        for release in recipe.releases:
            series = collection.series(stack, release)
            for arch in recipe.archs:
                narrowed = series.for_arch(arch)
                if not narrowed.patches:
                    continue
                steps = known(collection.recipes, stack, release.version, arch, narrowed.digest)
                yield stack, release.version, arch, steps


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _collection() -> Collection:
    from stackpatch.cli.roots import find_root
    from stackpatch.model.collection import Collection

    return Collection(find_root(None).path)


if __name__ == "__main__":
    sys.exit(main())
