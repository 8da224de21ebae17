"""The version of a patched release, and putting it where the package itself states its version."""

from __future__ import annotations

import ast

from packaging.version import InvalidVersion, Version

from stackpatch.errors import InputError


def patched_version(upstream: str, series_short: str) -> str:
    """The PEP 440 local version of a patched release: `0.6.3+sp.0a1b2c3d`.

    A local part that upstream has already is kept and extended. The result is in canonical form,
    which is what installers compare and what file names carry: an all-digit digest loses leading
    zeros there. Raises InputError for what is no version.
    """
    try:
        version = Version(upstream)
        joined = f"{version}{'.' if version.local else '+'}sp.{series_short}"
        return str(Version(joined))
    except InvalidVersion as error:
        msg = f"not a PEP 440 version: {upstream!r} with series {series_short!r}"
        raise InputError(msg) from error


def stamp_version(source: bytes, variable: str, old: str, new: str, *, where: str) -> bytes:
    """The Python source with the string `old` that `variable` is assigned replaced by `new`.

    Found by parsing, so a comment or another variable with the same text is left alone; every
    other byte stays. where: the file, for messages. Raises InputError unless exactly one
    assignment of that value is there.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        msg = f"cannot stamp the version into {where}: not Python source ({error})"
        raise InputError(msg, where=where) from error
    stated: list[str] = []
    spots: list[ast.Constant] = []
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=ast.Constant(value=str() as text) as value):
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            case ast.AnnAssign(
                target=ast.Name(id=name), value=ast.Constant(value=str() as text) as value
            ):
                names = [name]
            case _:
                continue
        if variable in names:
            stated.append(text)
            if text == old:
                spots.append(value)
    if len(spots) != 1 or len(stated) != 1:
        found = ", ".join(repr(text) for text in stated) or "nothing"
        msg = (
            f"cannot stamp the version into {where}: want one `{variable} = {old!r}`, found {found}"
        )
        raise InputError(msg, hint="correct `stamp` in the recipe", where=where)
    spot = spots[0]
    lines = source.splitlines(keepends=True)
    line = lines[spot.lineno - 1]
    before, literal = line[: spot.col_offset], line[spot.col_offset : spot.end_col_offset]
    if spot.end_lineno != spot.lineno or literal.count(old.encode()) != 1:
        msg = f"cannot stamp the version into {where}: {variable} is not one plain string"
        raise InputError(msg, where=f"{where}:{spot.lineno}")
    rewritten = literal.replace(old.encode(), new.encode())
    lines[spot.lineno - 1] = before + rewritten + line[spot.end_col_offset :]
    return b"".join(lines)
