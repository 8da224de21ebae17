"""What speaks against `conflict`: an effect that is not in its function, but in one that it calls.

Upstream takes a function apart and leaves its name in front. An effect that is looked for in the
front is absent there, and the patch does not apply, although what it does is there.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from stackpatch.series.effects import judge_file
from stackpatch.series.side import Side

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackpatch.series.effects import Finding
    from stackpatch.sources.objects import Objects

_CALL = re.compile(r"([A-Za-z_]\w{2,})\s*\(")


def against_conflict(
    objects: Objects, tree: str, findings: Sequence[Finding], origin: str | None
) -> Iterator[str]:
    """An absent effect that a function of the same file has, which its own one calls since.

    origin: the tree that the patch was made on; what was called there already took nothing over.
    """
    for finding in findings:
        effect = finding.effect
        if finding.holds is not False or effect.absent or finding.path is None:
            continue
        if effect.symbol == "*":  # every function of the file was looked at
            continue
        content = objects.read(tree, finding.path)
        if content is None:
            continue
        side = Side(finding.path, content)
        before = objects.read(origin, effect.path) if origin is not None else None
        known = _called(Side(effect.path, before), effect.symbol) if before is not None else set()
        for called in sorted(_called(side, effect.symbol) - known):
            there = judge_file(replace(effect, symbol=called), finding.path, content)
            if there.holds and there.symbol is not None:
                yield f"{finding.symbol} calls {called} now, and {there.says}"


def _called(side: Side, name: str) -> set[str]:
    """What the symbol calls, of what the same file defines."""
    named = side.symbols.named(name)
    found = {call for symbol in named for call in _CALL.findall(side.plain.of(symbol))}
    own = {symbol.name for symbol in named}
    return {call for call in found if any(s.name not in own for s in side.symbols.named(call))}
