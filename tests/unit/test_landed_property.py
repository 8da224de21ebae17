"""Verdicts on upstreams made at random, against the truth that made them.

A model of two files full of functions that differ in nothing but their names, which upstream
moves, renames, reworks, comments out, splits and drops. What the model knows of the patched
functions is the truth; a certain verdict must not contradict it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests.gitlab import Lab

from stackpatch.model.patch import parse_patch
from stackpatch.series.landed import decide
from stackpatch.series.pick import Outcome, move

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = ("alpha", "bravo", "charlie", "delta")


@dataclass(frozen=True, slots=True)
class Block:
    """A function. gate: 10 strict, 12 relaxed, 11 something else, None: it has none."""

    name: str
    gate: int | None = 10
    extra: int | None = None
    idle: bool = False
    file: int = 0


def render(path: str, blocks: Sequence[Block]) -> str:
    """The blocks of one file in one language; each is as long as the others."""
    out = ["head()", ""] if path.endswith(".py") else ["int head();", ""]
    for block in blocks:
        around = ["dev = device()", "major = props(dev)", "check_shape()", "launch_it()"]
        at = block.extra
        above, below = around[:2], around[2:]
        if at is not None:
            (above if at < 3 else below).insert(at if at < 3 else at - 3, "log_this()")
        gate = [] if block.gate is None else [f"check_major(major, {block.gate})"]
        body = [*above, *gate, *below]
        if path.endswith(".py"):
            lines = [
                f"def {block.name}():",
                *(f"    {line}" for line in body),
                "    return dev",
                "",
                "",
            ]
            mark = "# "
        else:
            lines = [
                f"void {block.name}() {{",
                *(f"  {line};" for line in body),
                "  done();",
                "}",
                "",
            ]
            mark = "// "
        out += [mark + line if line else line for line in lines] if block.idle else lines
    return "\n".join(out) + "\n"


@dataclass(frozen=True, slots=True)
class World:
    """What the patch was made on, what it does, and what upstream has."""

    suffix: str
    base: tuple[Block, ...]
    targets: tuple[str, ...]
    up: tuple[Block, ...]
    removes: bool

    def files(self, blocks: Sequence[Block]) -> dict[str, str]:
        paths = (f"src/one.{self.suffix}", f"src/two.{self.suffix}")
        made = {
            path: render(path, [b for b in blocks if b.file == number])
            for number, path in enumerate(paths)
        }
        return {path: text for path, text in made.items() if text.count("\n") > 3}

    @property
    def ours(self) -> tuple[Block, ...]:
        gate = None if self.removes else 12
        return tuple(replace(b, gate=gate) if b.name in self.targets else b for b in self.base)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    count = draw(st.integers(2, 4))
    base = tuple(Block(name) for name in NAMES[:count])
    names = [block.name for block in base]
    targets = tuple(draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)))
    up = list(base)
    for _ in range(draw(st.integers(0, 4))):
        if not up:
            break
        at = draw(st.integers(0, len(up) - 1))
        match draw(
            st.sampled_from(
                [
                    "land",
                    "rework",
                    "ungate",
                    "move",
                    "drop",
                    "rename",
                    "extra",
                    "idle",
                    "away",
                    "copy",
                ]
            )
        ):
            case "land":
                up[at] = replace(up[at], gate=12)
            case "rework":
                up[at] = replace(up[at], gate=11)
            case "ungate":
                up[at] = replace(up[at], gate=None)
            case "move":
                up.insert(draw(st.integers(0, len(up) - 1)), up.pop(at))
            case "drop":
                del up[at]
            case "rename":
                up[at] = replace(up[at], name=up[at].name + "_v2")
            case "extra":
                up[at] = replace(up[at], extra=draw(st.integers(0, 5)))
            case "idle":
                up[at] = replace(up[at], idle=True)
            case "away":
                up[at] = replace(up[at], file=1)
            case _:
                up.insert(at, replace(up[at], name=up[at].name + "_new"))
    suffix = draw(st.sampled_from(["py", "cu"]))
    return World(suffix, base, targets, tuple(up), draw(st.booleans()))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("worlds") / "r.git")


def truth(world: World) -> set[str]:
    """For each function of the patch: `wanted`, `there`, `other` or `gone`."""
    found = set()
    for name in world.targets:
        live = [b for b in world.up if b.name == name and not b.idle]
        if not live:
            # Renamed or commented out: its gate is somewhere, or somebody took it out on purpose.
            found.add("gone")
        for block in live:
            done = block.gate is None if world.removes else block.gate == 12
            found.add("there" if done else "wanted" if block.gate == 10 else "other")
    return found


@settings(max_examples=250)
@given(worlds(), st.booleans())
def test_no_certain_verdict_is_wrong(lab: Lab, world: World, claims: bool) -> None:
    path = f"src/one.{world.suffix}"
    pattern = r"!check_major\(major, 10\)" if world.removes else r"check_major\(major, 12\)"
    effects = [f"Effect: {path} :: {name} :: {pattern}" for name in world.targets] if claims else []
    mail = lab.mail(
        world.files(world.base), world.files(world.ours), "\n".join(["s", "", *effects])
    )
    tree = lab.tree(lab.commit({"README": "x\n", **world.files(world.up)}))
    patch = parse_patch("p", mail)
    verdict = decide(lab.objects, tree, patch)
    state = truth(world)
    event(f"{'/'.join(sorted(state))}: {verdict.word}")
    match verdict.word:
        case "needed":
            assert state == {"wanted"}, verdict
        case "upstreamed":
            # A gate that is neither ours nor the old one may be as good: that is the author's
            # `!` to say. Without it, only what is there counts.
            allowed = {"there", "other"} if world.removes and claims else {"there"}
            assert state <= allowed, verdict
        case "obsolete":
            assert state == {"gone"}, verdict
            removed = {b.name for b in world.up if b.gate == 10 and not b.idle}
            assert not {f"{name}_v2" for name in world.targets} & removed
        case "partial":
            assert state != {"wanted"}, verdict
            assert state != {"there"}, verdict
        case _:
            assert verdict.detail


@settings(max_examples=250)
@given(worlds())
def test_a_rebase_changes_no_other_function(lab: Lab, world: World) -> None:
    mail = lab.mail(world.files(world.base), world.files(world.ours), "s")
    files = {"README": "x\n", **world.files(world.up)}
    tree = lab.tree(lab.commit(files))
    moved = move(lab.objects, tree, parse_patch("p", mail))
    event(moved.outcome.value)
    if moved.outcome.stops or moved.outcome is Outcome.LANDED:
        assert moved.tree == tree
        return
    gate = None if world.removes else 12
    wanted = world.files(
        tuple(
            replace(b, gate=gate) if b.name in world.targets and not b.idle else b for b in world.up
        )
    )
    for path, text in wanted.items():
        content = lab.objects.read(moved.tree, path)
        assert content is not None
        assert content.decode() == text
