"""Every hazard of the field, told as what it is; and never a wrong `upstreamed`, `obsolete`,
`needed`.

A case is a file (or a few) three times: as the patch was made on it, as the patch makes it, and
as upstream has it now. Most cases run with and without an `Effect:` line.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from tests.gitlab import Lab, Link, Script, Submodule, Thing

from stackpatch.model.patch import parse_patch
from stackpatch.series.apply import apply_patch
from stackpatch.series.landed import decide
from stackpatch.series.pick import Outcome, move

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stackpatch.model.verdict import Verdict

FLAT = ("txt", "yaml", "json", "toml", "jinja")


@dataclass(frozen=True, slots=True)
class Case:
    """words: the acceptable verdicts with `effects`; plain: those without, None: the same."""

    name: str
    base: Mapping[str, Thing]
    ours: Mapping[str, Thing]
    up: Mapping[str, Thing]
    words: str
    effects: tuple[str, ...] = ()
    plain: str | None = None
    options: tuple[str, ...] = field(default=())


FILL = "".join(f"{{c}} filler {number}\n" for number in range(30))


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a gate, a function and its siblings are written in one language."""

    name: str
    path: str
    comment: str

    @property
    def fill(self) -> str:
        return FILL.format(c=self.comment)

    def function(self, name: str, *gates: str, indent: str = "", args: str = "") -> str:
        """A function with gates between equal lines, as all its siblings have them."""
        if self.name == "python":
            lines = [
                f"def {name}({args}):",
                "    props = get_props()",
                "    minor = props.minor",
                "    major = props.major",
                *(f"    {gate}" for gate in gates),
                "    check_shape()",
                "    check_dtype()",
                "    launch()",
                "    return done()",
                "",
                "",
            ]
        else:
            lines = [
                f"void {name}({args}) {{",
                "  auto props = get_props();",
                "  int minor = props.minor;",
                "  int major = props.major;",
                *(f"  {gate}" for gate in gates),
                "  check_shape();",
                "  check_dtype();",
                "  launch();",
                "  done();",
                "}",
                "",
            ]
        return "".join(f"{indent}{line}\n" if line else "\n" for line in lines)

    def group(self, name: str, *functions: str) -> str:
        """A class or namespace of functions made with this dialect's inner indent."""
        if self.name == "python":
            return f"class {name}:\n" + "".join(functions) + "\n"
        return f"namespace {name} {{\n" + "".join(functions) + f"}}  // namespace {name}\n\n"

    @property
    def inner(self) -> str:
        return "    " if self.name == "python" else "  "

    @property
    def joint(self) -> str:
        return "." if self.name == "python" else "::"

    @property
    def end(self) -> str:
        return "" if self.name == "python" else ";"

    @property
    def strict(self) -> str:
        return "assert major == 10" if self.name == "python" else "ICHECK_EQ(major, 10);"

    @property
    def relaxed(self) -> str:
        return (
            "assert major in (10, 12)"
            if self.name == "python"
            else "ICHECK(major == 10 || major == 12);"
        )

    @property
    def reworked(self) -> str:
        return "ensure(supports(props))" if self.name == "python" else "ENSURE(supports(props));"

    @property
    def effect(self) -> str:
        return r"in \(10, 12" if self.name == "python" else r"major == 12"

    def says(self, symbol: str, pattern: str | None = None, path: str | None = None) -> str:
        return f"{path or self.path} :: {symbol} :: {pattern or self.effect}"


PYTHON = Dialect("python", "pkg/gate.py", "#")
CPP = Dialect("cpp", "csrc/gate.cpp", "//")
CUDA = Dialect("cuda", "csrc/gate.cu", "//")
DIALECTS = (PYTHON, CPP, CUDA)


def evolved_of(d: Dialect) -> str:
    """The patched function, landed and then changed again."""
    more = "12, 11" if d is PYTHON else "12 || major == 11"
    return d.function("moe", d.relaxed.replace("12", more))


def shared(d: Dialect) -> Iterator[Case]:
    """The cases that every language has."""
    f, s, r, n, fill = d.function, d.strict, d.relaxed, d.reworked, d.fill
    moe = d.says("moe")

    def case(
        name: str,
        base: str,
        ours: str,
        up: str,
        words: str,
        *effects: str,
        plain: str | None = None,
        others: Mapping[str, Thing] | None = None,
        base_others: Mapping[str, Thing] | None = None,
    ) -> Case:
        was = dict(base_others or {})
        now = {d.path: up, **(others if others is not None else was)}
        return Case(
            f"{d.name}: {name}",
            {d.path: base, **was},
            {d.path: ours, **was},
            now,
            words,
            effects,
            plain,
        )

    pair = f("moe", s) + fill + f("fp4", s)
    fixed = f("moe", r) + fill + f("fp4", s)
    yield case("untouched", pair, fixed, pair, "needed", moe)
    yield case("lines above", pair, fixed, fill + pair, "needed", moe)
    yield case("lines between", pair, fixed, f("moe", s) + fill + fill + f("fp4", s), "needed", moe)
    yield case("the function moved", pair, fixed, f("fp4", s) + fill + f("moe", s), "needed", moe)
    yield case("wrong sibling", pair, fixed, f("moe", n) + fill + f("fp4", s), "misplaced", moe)
    yield case(
        "wrong sibling above",
        f("fp4", s) + fill + f("moe", s),
        f("fp4", s) + fill + f("moe", r),
        f("fp4", s) + fill + f("moe", n),
        "misplaced",
        moe,
    )
    yield case(
        "adjacent sibling",
        f("moe", s) + f("fp4", s),
        f("moe", r) + f("fp4", s),
        f("moe", n) + f("fp4", s),
        "misplaced",
        moe,
    )
    yield case("sibling, ours gone", pair, fixed, fill + f("fp4", s), "misplaced unsure", moe)
    yield case(
        "sibling, ours renamed",
        pair,
        fixed,
        f("mixture", s) + fill + f("fp4", s),
        "misplaced unsure",
        moe,
    )
    yield case(
        "siblings renamed in a ring",
        pair,
        fixed,
        f("fp4", s) + fill + f("moe2", s),
        "misplaced unsure",
        moe,
    )
    yield case(
        "sibling added above, ours reworked",
        f("moe", s),
        f("moe", r),
        f("new", s) + f("moe", n),
        "misplaced",
        moe,
    )
    yield case(
        "sibling added above, ours kept",
        f("moe", s),
        f("moe", r),
        f("new", s) + f("moe", s),
        "needed",
        moe,
    )
    yield case(
        "sibling landed, ours not", pair, fixed, f("moe", s) + fill + f("fp4", r), "needed", moe
    )
    yield case(
        "sibling landed, ours reworked",
        pair,
        fixed,
        f("moe", n) + fill + f("fp4", r),
        "conflict",
        moe,
        plain="unsure",
    )
    i = d.inner
    two = d.group("Moe", f("init", s, indent=i)) + d.group("Fp4", f("init", s, indent=i))
    one = d.group("Moe", f("init", r, indent=i)) + d.group("Fp4", f("init", s, indent=i))
    moe_init = d.says(f"Moe{d.joint}init")
    yield case(
        "sibling method",
        two,
        one,
        d.group("Moe", f("init", n, indent=i)) + d.group("Fp4", f("init", s, indent=i)),
        "misplaced",
        moe_init,
    )
    yield case(
        "sibling method, ours gone",
        two,
        one,
        d.group("Fp4", f("init", s, indent=i)),
        "misplaced unsure",
        moe_init,
    )
    yield case(
        "groups swapped",
        two,
        one,
        d.group("Fp4", f("init", s, indent=i)) + d.group("Moe", f("init", s, indent=i)),
        "needed",
        moe_init,
    )
    yield case(
        "group renamed", two, one, two.replace("Moe", "Mixture"), "misplaced unsure", moe_init
    )

    twice, once = (
        f("moe", s, "middle();", "more();", "again();", s),
        f("moe", r, "middle();", "more();", "again();", s),
    )
    yield case("two gates, both there", twice, once, fill + twice, "needed", moe)
    yield case(
        "two gates, ours reworked",
        twice,
        once,
        f("moe", n, "middle();", "more();", "again();", s),
        "conflict misplaced unsure",
        moe,
    )
    yield case(
        "two gates, ours gone",
        twice,
        once,
        f("moe", "middle();", "more();", "again();", s),
        "conflict misplaced unsure",
        moe,
    )
    same = f("moe", "check_shape()", s, "check_shape()", s, "check_shape()", s)
    ours = f("moe", "check_shape()", s, "check_shape()", r, "check_shape()", s)
    yield case(
        "three equal gates, one gone",
        same,
        ours,
        f("moe", "check_shape()", s, "check_shape()", s),
        "conflict misplaced unsure",
        moe,
    )
    yield case(
        "three equal gates, first reworked",
        same,
        ours,
        f("moe", "check_shape()", n, "check_shape()", s, "check_shape()", s),
        "needed conflict misplaced unsure",
        moe,
    )

    gone, without = pair, f("moe") + fill + f("fp4", s)
    absent = d.says(
        "moe", "!" + (r"assert major == 10" if d is PYTHON else r"ICHECK_EQ\(major, 10")
    )
    yield case("deletion, never applied", gone, without, fill + gone, "needed", absent)
    yield case("deletion, landed", gone, without, fill + without, "upstreamed", absent)
    yield case(
        "deletion, landed, sibling too",
        gone,
        without,
        fill + f("moe") + f("fp4"),
        "upstreamed",
        absent,
    )
    yield case(
        "deletion, gate moved down",
        gone,
        without,
        f("moe", "prepare()", "other()", "third()", "fourth()").replace(
            "launch()", f"{s}\n{i}launch()"
        )
        + fill
        + f("fp4", s),
        "conflict misplaced unsure",
        absent,
    )
    yield case(
        "deletion, gate moved to the end",
        gone,
        without,
        f("moe")
        .replace("done()", f"{s}\n{i}done()" if d is not PYTHON else "done()")
        .replace("    launch()\n", f"    {s}\n    launch()\n")
        + fill
        + f("fp4", s),
        "conflict misplaced unsure",
        absent,
    )
    yield case(
        "deletion, gate moved to a helper",
        gone,
        without,
        f("check_arch", s) + f("moe") + fill + f("fp4", s),
        "upstreamed unsure",
        absent,
        plain="misplaced unsure",
    )
    yield case(
        "deletion, gate moved to another file",
        gone,
        without,
        f("moe") + fill + f("fp4", s),
        "upstreamed unsure",
        absent,
        plain="unsure",
        others={"other/" + d.path.rsplit("/", 1)[1]: f("check_arch", s)},
    )
    yield case(
        "deletion, gate in other words",
        gone,
        without,
        f("moe", s.replace("major", "props.major")) + fill + f("fp4", s),
        "unsure",
        absent,
        plain="misplaced unsure",
    )
    yield case(
        "deletion, gate reworked",
        gone,
        without,
        f("moe", n) + fill + f("fp4", s),
        "upstreamed unsure",
        absent,
        plain="misplaced unsure",
    )

    call = f"common(){d.end}"
    for told, gate, was in (
        ("a callee", s, ""),
        ("a callee, in other words", s.replace("major", "props.major"), "new "),
        ("any function", s, "no "),
    ):
        calls: tuple[str, ...] = () if was else (call,)
        called: tuple[str, ...] = () if was == "no " else (call,)
        yield case(
            f"deletion, gate moved into {told}",
            f("moe", *calls, s) + fill + f("common"),
            f("moe", *calls) + fill + f("common"),
            f("moe", *called) + fill + f("common", gate),
            "unsure",
            absent,
            plain="misplaced unsure",
        )
    yield case(
        "deletion, one with the gate is called instead",
        f("moe", s) + fill + f("common", s),
        f("moe") + fill + f("common", s),
        f("moe").replace("check_shape()", "common()") + fill + f("common", s),
        "unsure",
        absent,
        plain="misplaced unsure",
    )
    beside = d.group("Other", f("moe", indent=i))
    for told, gate in (("kept", s), ("in other words", s.replace("major", "props.major"))):
        yield case(
            f"deletion, renamed beside a namesake, {told}",
            f("moe", s) + fill + beside,
            f("moe") + fill + beside,
            f("mixture", gate) + fill + beside,
            "unsure",
            absent,
            plain="misplaced unsure",
        )
        yield case(
            f"deletion, an absence in the whole file, function gone to another, {told}",
            f("moe", s) + fill + f("fp4"),
            f("moe") + fill + f("fp4"),
            fill + f("fp4"),
            "unsure",
            absent.replace(":: moe ::", ":: * ::"),
            plain="unsure",
            others={"other/" + d.path.rsplit("/", 1)[1]: f("mixture", gate)},
        )
    second = s.replace("major", "second_major")
    yield case(
        "landed, beside an absence in the whole file, whose function is in another now",
        f("moe", s) + fill + f("fp4", second),
        f("moe", r) + fill + f("fp4"),
        f("moe", r) + fill,
        "unsure",
        moe,
        d.says("*", "!second_major"),
        others={"other/" + d.path.rsplit("/", 1)[1]: f("fp4", second)},
    )
    turned = "if major != 10: raise Wrong" if d is PYTHON else "if (major != 10) throw Wrong();"
    yield case(
        "deletion, gate the other way round",
        gone,
        without,
        f("moe", turned) + fill + f("fp4", s),
        "unsure",
        absent,
        plain="misplaced unsure",
    )

    both = f("moe", r) + fill + f("fp4", r)
    fp4 = d.says("fp4")
    yield case("half landed", pair, both, f("moe", r) + fill + f("fp4", s), "partial", moe, fp4)
    yield case(
        "other half landed", pair, both, f("moe", s) + fill + f("fp4", r), "partial", moe, fp4
    )
    yield case(
        "half landed, half reworked",
        pair,
        both,
        f("moe", r) + fill + f("fp4", n),
        "partial",
        moe,
        fp4,
        plain="unsure",
    )
    reworded = s.replace("major", "props.major")
    for told, now in (
        ("reworked", n),
        ("in other words", reworded),
        ("evolved, too", f"{s[:-1]}1"),
    ):
        yield case(
            f"half landed, the effect looks at that half only, other half {told}",
            pair,
            both,
            f("moe", r) + fill + f("fp4", now),
            "unsure",
            moe,
        )
    log = f"log_the_major(){d.end}"
    yield case(
        "half landed, addition only, the effect looks at that half only",
        f("moe", s) + fill + f("fp4", s),
        f("moe", s, log) + fill + f("fp4", s, log),
        f("moe", log, s) + fill + f("fp4", s),
        "unsure partial",
        d.says("moe", r"log_the_major\(\)"),
        plain="misplaced unsure partial",
    )
    yield case(
        "landed in other words, but for a comment and an import",
        f("moe", s) + fill,
        ("import y\n" if d is PYTHON else "#include <y>\n")
        + f("moe", r)
        + f"{d.comment} so\n"
        + fill,
        evolved_of(d) + fill,
        "upstreamed",
        moe,
        plain="unsure",
    )
    prose: dict[str, Thing] = {"README.md": "# Gates\n\none\nSM100\ntwo\n"}
    yield Case(
        f"{d.name}: landed, and the prose about it in other words",
        {d.path: pair, **prose},
        {d.path: fixed, "README.md": "# Gates\n\none\nSM100, SM120\ntwo\n"},
        {d.path: fill + fixed, "README.md": "# Gates\n\none\nmany\ntwo\n"},
        "upstreamed",
        (moe,),
        "unsure",
    )
    yield case("half landed, half gone", pair, both, f("moe", r) + fill, "partial unsure", moe, fp4)
    yield case("landed", pair, fixed, fixed, "upstreamed", moe)
    yield case("squashed", pair, both, fill + both + fill, "upstreamed", moe, fp4)
    yield case(
        "landed and moved",
        pair,
        fixed,
        f("fp4", s) + fill + f("moe", r),
        "upstreamed",
        moe,
        plain="upstreamed misplaced unsure",
    )
    yield case("landed, sibling too", pair, fixed, both, "upstreamed", moe)
    evolved = evolved_of(d)
    yield case(
        "evolved",
        pair,
        fixed,
        evolved + fill + f("fp4", s),
        "upstreamed",
        moe,
        plain="unsure misplaced",
    )
    yield case(
        "landed and kept",
        pair,
        fixed,
        f("moe", r, s) + fill + f("fp4", s),
        "unsure",
        moe,
        plain="unsure misplaced",
    )
    yield case(
        "landed, strict one elsewhere in it",
        pair,
        fixed,
        f("moe", r).replace("launch()", f"{s}\n{i}launch()") + fill + f("fp4", s),
        "unsure",
        moe,
        plain="misplaced unsure",
    )
    note = f"if major in (10, 12): log(){d.end}" if d is PYTHON else "if (major == 12) log();"
    yield case(
        "the strict one in other words, what the effect asks for beside it",
        pair,
        fixed,
        f("moe", note, s.replace("major", "props.major")) + fill + f("fp4", s),
        "unsure",
        moe,
        plain="misplaced unsure",
    )
    wrapped = (
        ("assert (", f"{i}major == 10", ")")
        if d is PYTHON
        else ("ICHECK_EQ(", f"{i}{i}major,", f"{i}{i}10);")
    )
    yield case(
        "deletion, gate wrapped over lines",
        f("moe", s) + fill,
        f("moe") + fill,
        f("moe", *wrapped) + fill,
        "unsure",
        absent,
    )
    through = "if major in (10, 12): moe_impl()" if d is PYTHON else "if (major == 12) moe_impl();"
    for told, gate in (("", s), (" in other words", s.replace("major", "props.major"))):
        yield case(
            f"a front took the name, the strict one{told} is behind it",
            f("moe", s),
            f("moe", r),
            f("moe_impl", gate) + f("moe", through),
            "unsure",
            moe,
            plain="misplaced unsure",
        )
    loud = (
        'assert major == 10, "no major in (10, 12)"'
        if d is PYTHON
        else 'ICHECK_EQ(major, 10) << "no major == 12";'
    )
    yield case(
        "landed in the strict one's message",
        pair,
        fixed,
        f("moe", loud) + fill + f("fp4", s),
        "unsure",
        moe,
        plain="misplaced unsure",
    )
    yield case(
        "landed in a comment",
        pair,
        fixed,
        f("moe", n, f"{d.comment} {r}") + fill + f("fp4", s),
        "misplaced",
        moe,
    )
    yield case(
        "only prose about it",
        pair,
        fixed,
        f("moe", n) + f"{d.comment} moe: {r}\n" + f("fp4", s),
        "misplaced",
        moe,
    )

    helper = f("helper", f"return 12{d.end}")
    has = d.says("helper", "return 12")
    yield case(
        "addition, new",
        fill + pair,
        fill + helper + pair,
        f"{d.comment} c\n" + fill + pair,
        "needed",
        has,
    )
    yield case("addition, landed", pair, helper + pair, helper + pair + fill, "upstreamed", has)
    yield case(
        "same addition at the end",
        pair,
        helper + pair,
        pair + helper,
        "upstreamed",
        has,
        plain="unsure",
    )
    yield case(
        "same addition in another file",
        pair,
        helper + pair,
        pair,
        "upstreamed",
        has,
        plain="unsure",
        others={"other/" + d.path.rsplit("/", 1)[1]: helper},
    )
    yield case(
        "an addition of that name elsewhere",
        pair,
        helper + pair,
        pair,
        "needed unsure",
        has,
        others={"other/" + d.path.rsplit("/", 1)[1]: f("helper", f"return 7{d.end}")},
        plain="needed unsure",
    )

    def importing(name: str) -> str:
        return f"import {name}\n" if d is PYTHON else f'#include "{name}.h"\n'

    head = "".join(map(importing, ("one", "two", "three", "four", "five")))
    yield case(
        "an import, upstream has it further down",
        head + pair,
        importing("helper_module") + head + pair,
        head + importing("helper_module") + pair,
        "unsure",
    )
    yield case("an import", head + pair, importing("helper") + head + pair, head + both, "needed")
    line = f"register(major, 12){d.end}"
    long = f("moe", "one_thing()", "another()", "a_third()", "a_fourth()", "a_fifth()")
    yield case(
        "an added line, upstream has it further down",
        long,
        long.replace(f"{i}one_thing()", f"{i}{line}\n{i}one_thing()"),
        long.replace(f"{i}launch()", f"{i}{line}\n{i}launch()"),
        "unsure",
    )
    yield case(
        "half of an addition, upstream has it further down",
        long + f("fp4"),
        long.replace(f"{i}one_thing()", f"{i}{line}\n{i}one_thing()") + f("fp4", line),
        long.replace(f"{i}launch()", f"{i}{line}\n{i}launch()") + f("fp4"),
        "unsure",
        d.says("moe", r"register\(major, 12"),
        d.says("fp4", r"register\(major, 12"),
    )
    yield case(
        "an import beside the gate, upstream has it further down",
        head + pair,
        importing("helper_module") + head + both,
        head + importing("helper_module") + pair,
        "needed",
        moe,
        plain="unsure",
    )
    yield case(
        "an added line, upstream has it in a sibling",
        long + f("fp4"),
        long.replace(f"{i}one_thing()", f"{i}{line}\n{i}one_thing()") + f("fp4"),
        long + f("fp4", line),
        "needed",
    )
    elsewhere = "other/" + d.path.rsplit("/", 1)[1]
    yield Case(
        f"{d.name}: file moved",
        {d.path: pair},
        {d.path: fixed},
        {elsewhere: pair},
        "conflict unsure",
        (moe,),
        "unsure",
    )
    yield Case(
        f"{d.name}: file moved, landed",
        {d.path: pair},
        {d.path: fixed},
        {elsewhere: fixed},
        "upstreamed unsure",
        (moe,),
        "unsure",
    )
    yield Case(
        f"{d.name}: function moved to another file",
        {d.path: pair},
        {d.path: fixed},
        {d.path: f("fp4", s), elsewhere: f("moe", s)},
        "conflict misplaced unsure",
        (moe,),
        "misplaced unsure",
    )
    yield Case(
        f"{d.name}: function moved and landed",
        {d.path: pair},
        {d.path: fixed},
        {d.path: f("fp4", n), elsewhere: f("moe", r)},
        "upstreamed unsure",
        (moe,),
        "unsure",
    )
    yield Case(
        f"{d.name}: function moved, landed and kept",
        {d.path: pair},
        {d.path: fixed},
        {d.path: f("fp4", s), elsewhere: f("moe", r, s)},
        "unsure",
        (moe,),
        "misplaced unsure",
    )
    yield case(
        "scope added, landed",
        pair,
        fixed,
        d.group("Space", f("moe", r, indent=i)) + f("fp4", s),
        "upstreamed",
        moe,
        plain="misplaced unsure",
    )
    yield case(
        "scope added, landed and kept",
        pair,
        fixed,
        d.group("Space", f("moe", r, s, indent=i)) + f("fp4", s),
        "unsure",
        moe,
        plain="misplaced unsure",
    )
    yield Case(
        f"{d.name}: file gone, a stranger has the name",
        {d.path: pair, elsewhere: f("moe", r)},
        {d.path: fixed, elsewhere: f("moe", r)},
        {elsewhere: "# x\n" + helper.replace("helper", "moe") + f("moe_", r)},
        "conflict unsure obsolete",
        (moe,),
        "unsure",
    )
    alone, opened = f("moe", s), f("moe", r)
    stranger = "".join(f"{d.comment} another {k}\n" for k in range(5)) + (
        "def moe(x):\n    return x in (10, 12)\n"
        if d is PYTHON
        else "bool moe(int major) {\n  return major == 12;\n}\n"
    )
    yield Case(
        f"{d.name}: file gone, a stranger has name and text",
        {d.path: pair, elsewhere: stranger},
        {d.path: fixed, elsewhere: stranger},
        {elsewhere: stranger},
        "unsure",
        (moe,),
        "unsure",
    )
    yield Case(
        f"{d.name}: function gone, a stranger has name and text",
        {d.path: pair, elsewhere: stranger},
        {d.path: fixed, elsewhere: stranger},
        {d.path: f("other", n), elsewhere: stranger},
        "unsure",
        (moe,),
        "unsure misplaced",
    )
    yield Case(
        f"{d.name}: everything gone",
        {d.path: pair},
        {d.path: fixed},
        {"README": "empty\n"},
        "obsolete unsure",
        (moe,),
        "unsure",
    )
    yield case("the function renamed, its gate reworked", alone, opened, f("xy", n), "unsure", moe)
    yield Case(
        f"{d.name}: file and function renamed, its gate reworked",
        {d.path: alone},
        {d.path: opened},
        {d.path.replace("gate", "door"): f("xy", n)},
        "unsure",
        (moe,),
        "unsure",
    )
    yield Case(
        f"{d.name}: file gone, a name is left",
        {d.path: pair},
        {d.path: fixed},
        {elsewhere: f("mixture_of_experts", d.strict.replace("major", "moe_major"))},
        "unsure",
        (moe,),
        "unsure",
    )
    kept: dict[str, Thing] = {"README": "x\n"}
    yield Case(
        f"{d.name}: file became a link",
        {d.path: pair},
        {d.path: fixed},
        {d.path: Link(b"../other/x"), "other/x": fixed},
        "conflict unsure",
        (moe,),
        "unsure",
    )
    yield Case(
        f"{d.name}: file became a folder",
        {d.path: pair},
        {d.path: fixed},
        {f"{d.path}/new": fixed},
        "conflict unsure",
        (moe,),
        "unsure",
    )
    yield Case(
        f"{d.name}: file became a submodule",
        {d.path: pair, **kept},
        {d.path: fixed, **kept},
        {d.path: Submodule(), **kept},
        "unsure",
        (moe,),
        "unsure",
    )
    yield Case(
        f"{d.name}: folder became a submodule",
        {d.path: pair, **kept},
        {d.path: fixed, **kept},
        {d.path.split("/")[0]: Submodule(), **kept},
        "unsure",
        (moe,),
        "unsure",
    )
    yield Case(
        f"{d.name}: folder became a link",
        {d.path: pair, **kept},
        {d.path: fixed, **kept},
        {d.path.split("/")[0]: Link(b"elsewhere"), "elsewhere/x": "y\n"},
        "unsure",
        (moe,),
        "unsure",
    )
    marks = f"<<<<<<< HEAD\n{d.comment} a\n=======\n{d.comment} b\n>>>>>>> other\n"
    yield case(
        "conflict markers below",
        pair + marks,
        fixed + marks,
        fill + pair + marks,
        "needed unsure",
        moe,
    )
    yield case("new conflict markers", pair, fixed, pair + marks, "needed unsure", moe)
    sides = f"<<<<<<< HEAD\n{i}{n}\n=======\n{i}{r}\n>>>>>>> other\n"
    yield case(
        "conflict markers around what landed",
        pair,
        fixed,
        f("moe", "MARK").replace(f"{i}MARK\n", sides) + fill + f("fp4", s),
        "misplaced unsure" if d is PYTHON else "unsure",
        moe,
        plain="misplaced unsure",
    )
    yield case(
        "conflict markers at the gate",
        pair,
        fixed,
        f("moe", s, "MARK").replace(f"{i}MARK\n", marks) + fill + f("fp4", s),
        "misplaced conflict unsure",
        moe,
    )


def _above(text: str, head: str) -> str:
    """The head in front; a comment that upstream added goes above it."""
    first, line, rest = text.partition("\n")
    return first + line + head + rest if first in ("# c", "// c") else head + text


def python_only() -> Iterator[Case]:
    """Module lists, class attributes, nested functions, decorators, dead code."""
    path = "pkg/x.py"

    def case(
        name: str,
        base: str,
        ours: str,
        up: str,
        words: str,
        effect: str = "",
        plain: str | None = None,
    ) -> Case:
        effects = (f"{path} :: {effect}",) if effect else ()
        head = "import one\nimport two\nimport three\nimport four\nimport five\n\n\n"
        return Case(
            f"python: {name}",
            {path: head + base},
            {path: head + ours},
            {path: _above(up, head)},
            words,
            effects,
            plain,
        )

    lists = (
        "import os\n\nMOE = [\n    9,\n    10,\n    11,\n]\n\nFP4 = [\n    9,\n    10,\n"
        "    11,\n]\n"
    )
    ours = lists.replace("    11,\n", "    11,\n    12,\n", 1)
    yield case("module lists", lists, ours, "# c\n" + lists, "needed", "MOE :: 12,")
    yield case(
        "module lists, sibling left",
        lists,
        ours,
        "import os\n\nFP4 = [\n    9,\n    10,\n    11,\n]\n",
        "misplaced unsure",
        "MOE :: 12,",
    )
    yield case(
        "module lists, ours reworked",
        lists,
        ours,
        lists.replace("MOE = [\n    9,\n    10,\n    11,\n]", "MOE = supported()"),
        "misplaced conflict unsure",
        "MOE :: 12,",
    )
    yield case(
        "one-line lists, ours gone",
        "A = [10]\nB = [10]\n",
        "A = [10, 12]\nB = [10]\n",
        "B = [10]\n",
        "unsure conflict misplaced obsolete",
        "A :: 12",
        "unsure conflict",
    )
    classes = (
        "class Moe:\n    name = 'x'\n    archs = [10]\n    size = 1\n\n\nclass Fp4:\n"
        "    name = 'x'\n    archs = [10]\n    size = 1\n"
    )
    ours = classes.replace("[10]", "[10, 12]", 1)
    yield case("class attributes", classes, ours, "# c\n" + classes, "needed", "Moe.archs :: 12")
    yield case(
        "class attributes, ours reworked",
        classes,
        ours,
        classes.replace("[10]", "ALL", 1),
        "misplaced conflict unsure",
        "Moe.archs :: 12",
    )
    yield case(
        "class attributes, class gone",
        classes,
        ours,
        classes[classes.index("class Fp4") :],
        "misplaced unsure",
        "Moe.archs :: 12",
    )
    inner = (
        "def {}():\n    x = 1\n\n    def inner(a):\n        b = a\n"
        "        assert a == 10\n        return b\n\n    return inner\n\n\n"
    )
    nested = inner.format("one") + inner.format("two")
    ours = nested.replace("a == 10", "a in (10, 12)", 1)
    yield case("nested functions", nested, ours, "# c\n" + nested, "needed", "one.inner :: 12")
    yield case(
        "nested functions, ours reworked",
        nested,
        ours,
        nested.replace("a == 10", "ok(a)", 1),
        "misplaced",
        "one.inner :: 12",
    )
    prop = (
        "class A:\n    @property\n    def x(self):\n        y = 1\n"
        "        assert self.m == 10\n        return y\n\n    @x.setter\n"
        "    def x(self, v):\n        y = 1\n        assert self.m == 10\n"
        "        return y\n"
    )
    ours = prop.replace("self.m == 10", "self.m in (10, 12)", 1)
    yield case("property and setter", prop, ours, "# c\n" + prop, "needed")
    yield case(
        "property reworked, setter left",
        prop,
        ours,
        prop.replace("self.m == 10", "ok(self)", 1),
        "misplaced conflict unsure",
    )
    branches = (
        "import sys\n\nif sys.platform == 'linux':\n\n    def f(m):\n        a = 1\n"
        "        assert m == 10\n        return a\n\nelse:\n\n    def f(m):\n"
        "        a = 1\n        assert m == 10\n        return a\n"
    )
    ours = branches.replace("m == 10", "m in (10, 12)", 1)
    yield case("two definitions by condition", branches, ours, "# c\n" + branches, "needed")
    yield case(
        "two definitions, first gone",
        branches,
        ours,
        (
            "import sys\n\nif sys.platform == 'win':\n\n    def f(m):\n        a = 1\n"
            "        assert m == 10\n        return a\n"
        ),
        "misplaced conflict unsure",
    )
    body = (
        "def f(m):\n    a = 1\n    b = 2\n    c = 3\n    assert m == 10\n    d = 4\n"
        "    e = 5\n    return a\n"
    )
    ours = body.replace("m == 10", "m in (10, 12)")
    dead = (
        "def f(m):\n    run(m)\n    '''\n    a = 1\n    b = 2\n    c = 3\n"
        "    assert m == 10\n    d = 4\n    e = 5\n    '''\n    return a\n"
    )
    yield case(
        "our place is in a string now", body, ours, dead, "conflict unsure", "f :: 10, 12", "unsure"
    )
    yield case(
        "landed in a string",
        body,
        ours,
        dead.replace("m == 10", "m in (10, 12)"),
        "unsure conflict",
        "f :: 10, 12",
        "unsure",
    )
    yield case(
        "landed where it never runs",
        body,
        ours,
        body.replace("    assert m == 10", "    if False:\n        assert m in (10, 12)"),
        "conflict unsure",
        "f :: 10, 12",
        "unsure",
    )
    for never in ("if 0:", "while False:", "while 0:", "if a:\n        pass\n    elif False:"):
        yield case(
            f"landed where it never runs, {never[-11:]}",
            body,
            ours,
            body.replace("    assert m == 10", f"    {never}\n        assert m in (10, 12)"),
            "conflict unsure",
            "f :: 10, 12",
            "unsure",
        )
    yield case(
        "docstring claims it",
        body,
        ours,
        body.replace("    a = 1", "    '''assert m in (10, 12)'''\n    a = 1"),
        "needed",
        "f :: 10, 12",
    )
    decorated = (
        "@gate(major=10)\ndef one():\n    return 1\n\n\n@gate(major=10)\ndef two():\n    return 1\n"
    )
    ours = decorated.replace("major=10", "major=(10, 12)", 1)
    yield case("decorator", decorated, ours, "# c\n" + decorated, "needed", "one :: 12")
    yield case(
        "decorator, ours gone",
        decorated,
        ours,
        decorated.replace("@gate(major=10)\n", "", 1),
        "misplaced conflict unsure",
        "one :: 12",
        "misplaced unsure",
    )
    above = "class Base:\n    def init(self):\n        a = 1\n{}        return a\n\n\n"
    below = "class Moe(Base):\n    def init(self):\n        b = 2\n        c = 3\n{}        d = 4\n"
    gate, again = "        assert major == 10\n", "        assert props.major == 10\n"
    yield case(
        "deletion, gate moved to the base class's method",
        above.format("") + below.format(gate),
        above.format("") + below.format(""),
        above.format(again) + below.format("        super().init()\n"),
        "unsure",
        "Moe.init :: !assert major == 10",
    )
    call = (
        "def f():\n    a(\n        x=1,\n        major=[10],\n        y=2,\n    )\n"
        "    b(\n        x=1,\n        major=[10],\n        y=2,\n    )\n"
    )
    ours = call.replace("[10]", "[10, 12]", 1)
    yield case("two calls in one function", call, ours, "# c\n" + call, "needed")
    yield case(
        "two calls, ours gone",
        call,
        ours,
        "def f():\n" + call[call.index("    b(") :],
        "misplaced conflict unsure",
    )
    yield case(
        "two calls, swapped",
        call,
        ours,
        "def f():\n"
        + call[call.index("    b(") :]
        + call[call.index("    a(") : call.index("    b(")],
        "needed misplaced conflict unsure",
    )


def cpp_only() -> Iterator[Case]:
    """Overloads, namespaces, templates, #if branches, macros, constants."""
    for suffix in ("cpp", "cu", "cuh"):
        path = f"csrc/x.{suffix}"

        def case(
            name: str,
            base: str,
            ours: str,
            up: str,
            words: str,
            effect: str = "",
            plain: str | None = None,
            path: str = path,
            suffix: str = suffix,
        ) -> Case:
            effects = (f"{path} :: {effect}",) if effect else ()
            head = '#include "a"\n#include "b"\n#include "c"\n#include "d"\n\nusing x::y;\n\n\n'
            return Case(
                f"{suffix}: {name}",
                {path: head + base},
                {path: head + ours},
                {path: _above(up, head)},
                words,
                effects,
                plain,
            )

        body = (
            "{\n  int z = 9;\n  int a = 0;\n  int b = 1;\n  CHECK(m == 10);\n  int c = 2;\n"
            "  int d = 3;\n  int e = 4;\n}\n\n"
        )
        ok = body.replace("m == 10", "m == 10 || m == 12")
        other = body.replace("CHECK(m == 10);", "ENSURE(m);")
        two = f"void f(int m) {body}void f(float m) {body}"
        ours = f"void f(int m) {ok}void f(float m) {body}"
        yield case("overloads", two, ours, "// c\n" + two, "needed")
        yield case(
            "overload reworked",
            two,
            ours,
            f"void f(int m) {other}void f(float m) {body}",
            "misplaced",
        )
        yield case("overload gone", two, ours, f"void f(float m) {body}", "misplaced unsure")
        yield case(
            "overloads swapped",
            two,
            ours,
            f"void f(float m) {body}void f(int m) {body}",
            "needed unsure",
        )
        spaces = f"namespace a {{\nvoid f(int m) {body}}}\nnamespace b {{\nvoid f(int m) {body}}}\n"
        ours = spaces.replace("m == 10", "m == 10 || m == 12", 1)
        yield case("namespaces", spaces, ours, "// c\n" + spaces, "needed", "a::f :: m == 12")
        yield case(
            "namespace gone",
            spaces,
            ours,
            f"namespace b {{\nvoid f(int m) {body}}}\n",
            "misplaced unsure",
            "a::f :: m == 12",
        )
        anonymous = f"namespace {{\nvoid f(int m) {body}}}\nnamespace {{\nvoid f(int m) {body}}}\n"
        yield case(
            "one of two anonymous namespaces gone",
            anonymous,
            anonymous.replace("m == 10", "m == 10 || m == 12", 1),
            f"namespace {{\nvoid f(int m) {body}}}\n",
            "misplaced conflict unsure",
        )
        templates = (
            f"template <int N>\nstruct S {{\nvoid run(int m) {body}}};\ntemplate <>\n"
            f"struct S<10> {{\nvoid run(int m) {body}}};\n"
        )
        ours = templates.replace("m == 10", "m == 10 || m == 12", 1)
        yield case("templates", templates, ours, "// c\n" + templates, "needed")
        yield case(
            "template reworked, specialisation left",
            templates,
            ours,
            templates.replace("CHECK(m == 10)", "ENSURE(m)", 1),
            "misplaced",
        )
        branch = f"#if A\nvoid f(int m) {body}#else\nvoid f(int m) {body}#endif\n"
        ours = branch.replace("m == 10", "m == 10 || m == 12", 1)
        yield case("#if branches", branch, ours, "// c\n" + branch, "needed")
        yield case(
            "#if branch reworked",
            branch,
            ours,
            branch.replace("CHECK(m == 10)", "ENSURE(m)", 1),
            "misplaced conflict unsure",
        )
        yield case(
            "#if branch gone", branch, ours, f"void f(int m) {body}", "misplaced conflict unsure"
        )
        yield case(
            "#if branch turned",
            branch,
            ours,
            branch.replace("#if A", "#if !A"),
            "needed misplaced conflict unsure",
        )
        inside = (
            "void f(int m) {\n#ifdef A\n  x();\n  CHECK(m == 10);\n  y();\n#else\n  x();\n"
            "  CHECK(m == 10);\n  y();\n#endif\n}\n"
        )
        ours = inside.replace("m == 10", "m == 10 || m == 12", 1)
        yield case("#ifdef within a function", inside, ours, "// c\n" + inside, "needed")
        yield case(
            "#ifdef within a function, ours reworked",
            inside,
            ours,
            inside.replace("CHECK(m == 10)", "ENSURE(m)", 1),
            "misplaced conflict unsure",
        )
        yield case(
            "#ifdef within a function, ours gone",
            inside,
            ours,
            "void f(int m) {\n  x();\n  CHECK(m == 10);\n  y();\n}\n",
            "misplaced conflict unsure",
        )
        zero = f"void f(int m) {body}"
        ours = f"void f(int m) {ok}"
        off = "#if 0\n" + zero + "#endif\n"
        yield case(
            "#if 0 around ours", zero, ours, off, "unsure conflict", "f :: m == 12", "unsure"
        )
        yield case(
            "#if 0 around ours, a new one beside",
            zero,
            ours,
            off + f"void f(int m) {other}",
            "unsure conflict misplaced",
            "f :: m == 12",
            "unsure misplaced",
        )
        yield case(
            "landed in #if 0",
            zero,
            ours,
            f"#if 0\nvoid f(int m) {ok}#endif\nvoid f(int m) {body}",
            "unsure conflict misplaced",
            "f :: m == 12",
            "misplaced unsure",
        )
        for never in ("if (false)", "if (0)", "if constexpr (false)", "while (0)"):
            yield case(
                f"landed under {never}",
                zero,
                ours,
                zero.replace("CHECK(m == 10)", f"{never} {{ CHECK(m == 10 || m == 12); }}"),
                "unsure conflict misplaced",
                "f :: m == 12",
                "misplaced unsure conflict",
            )
        yield case(
            "landed, the old one kept in #if 0",
            zero,
            ours,
            off + ours,
            "upstreamed",
            "f :: m == 12",
            "upstreamed unsure",
        )
        yield case(
            "deletion, #if 0 around ours",
            zero,
            zero.replace("  CHECK(m == 10);\n", ""),
            off,
            "unsure",
            "f :: !m == 10",
        )
        yield case(
            "deletion, #if 0 around ours, a new one beside",
            zero,
            zero.replace("  CHECK(m == 10);\n", ""),
            off.replace("  CHECK(m == 10);\n", "") + zero.replace("f(int", "g(int"),
            "unsure misplaced",
            "f :: !m == 10",
        )
        maybe = zero.replace("  CHECK(m == 10);\n", "#if 0 || X\n  CHECK(m == 10);\n#endif\n")
        bare = zero.replace("  CHECK(m == 10);\n", "")
        yield case(
            "deletion, the gate is in #if 0 || X",
            zero,
            bare,
            maybe,
            "conflict",
            "f :: !m == 10",
            "unsure",
        )
        yield case(
            "deletion, #if 0 in a comment above",
            zero,
            bare,
            "/* to test\n#if 0\n*/\n" + zero,
            "needed",
            "f :: !m == 10",
        )
        yield case(
            "landed in #if (0)",
            zero,
            ours,
            zero.replace(
                "  CHECK(m == 10);\n",
                "#if (0)\n  CHECK(m == 10 || m == 12);\n#else\n  ENSURE(m);\n#endif\n",
            ),
            "conflict",
            "f :: m == 12",
            "unsure",
        )
        yield case(
            "landed behind #if 1",
            zero,
            ours,
            zero.replace(
                "  CHECK(m == 10);\n",
                "#if 1\n  ENSURE(m);\n#else\n  CHECK(m == 10 || m == 12);\n#endif\n",
            ),
            "conflict",
            "f :: m == 12",
            "unsure",
        )
        yield case(
            "landed in a block comment",
            zero,
            ours,
            "void f(int m) {\n  run();\n  /*\n" + ok[2:-3] + "  */\n}\n",
            "unsure conflict",
            "f :: m == 12",
            "unsure",
        )
        yield case(
            "our place is in a block comment",
            zero,
            ours,
            "void f(int m) {\n  run();\n  /*\n" + body[2:-3] + "  */\n}\n",
            "unsure conflict",
            "f :: m == 12",
            "unsure",
        )
        macros = (
            "#define A_OK(m)    \\\n  do {             \\\n    x();           \\\n"
            "    CHECK(m == 10);\\\n    y();           \\\n  } while (0)\n\n"
            "#define B_OK(m)    \\\n  do {             \\\n    x();           \\\n"
            "    CHECK(m == 10);\\\n    y();           \\\n  } while (0)\n"
        )
        ours = macros.replace("m == 10", "m >= 10", 1)
        yield case("macros", macros, ours, "// c\n" + macros, "needed", "A_OK :: m >= 10")
        yield case(
            "macro reworked",
            macros,
            ours,
            macros.replace("CHECK(m == 10);", "ENSURE(m);    ", 1),
            "misplaced conflict unsure",
            "A_OK :: m >= 10",
        )
        yield case(
            "macro gone",
            macros,
            ours,
            macros[macros.index("#define B") :],
            "misplaced unsure",
            "A_OK :: m >= 10",
        )
        constants = (
            "constexpr int kMoe[] = {\n  9,\n  10,\n};\n\nconstexpr int kFp4[] = {\n  9,\n"
            "  10,\n};\n"
        )
        ours = constants.replace("  10,\n", "  10,\n  12,\n", 1)
        yield case("constants", constants, ours, "// c\n" + constants, "needed", "kMoe :: 12")
        yield case(
            "constant gone",
            constants,
            ours,
            constants[constants.index("constexpr int kFp4") :],
            "misplaced unsure",
            "kMoe :: 12",
        )
        switch = (
            "int f(int m) {\n  switch (m) {\n    case 9:\n      a();\n      return 1;\n"
            "    case 10:\n      a();\n      return 1;\n    case 11:\n      a();\n"
            "      return 1;\n  }\n}\n"
        )
        ours = switch.replace("case 10:\n      a();", "case 10:\n      b();")
        yield case("a case of a switch", switch, ours, "// c\n" + switch, "needed")
        yield case(
            "a case of a switch, ours gone",
            switch,
            ours,
            switch.replace("    case 10:\n      a();\n      return 1;\n", ""),
            "conflict misplaced unsure",
        )


def flat_files() -> Iterator[Case]:
    """Files that no grammar reads: the place is told by what it stands under."""
    kinds = {
        "CMakeLists.txt": (
            "function({0})\n  set(a 1)\n  set(b 2)\n",
            "  set(arch 100a)\n",
            "  set(arch 100a 120a)\n",
            "  set(arch ${{ALL}})\n",
            "  set(c 3)\n  set(d 4)\nendfunction()\n\n",
        ),
        "x.yaml": (
            "{0}:\n  a: 1\n  b: 2\n",
            "  arch: 10\n",
            "  arch: [10, 12]\n",
            "  arch: all\n",
            "  c: 3\n  d: 4\n\n",
        ),
        "x.json": (
            '  "{0}": {{\n    "a": 1,\n    "b": 2,\n',
            '    "arch": 10,\n',
            '    "arch": 12,\n',
            '    "arch": 11,\n',
            '    "c": 3,\n    "d": 4\n  }},\n',
        ),
        "x.toml": (
            "[{0}]\na = 1\nb = 2\n",
            "arch = 10\n",
            "arch = 12\n",
            "arch = 11\n",
            "c = 3\nd = 4\n\n",
        ),
        "x.txt": ("{0}\na\nb\n", "arch 10\n", "arch 12\n", "arch 11\n", "c\nd\n\n"),
        "kernel.cu.jinja": (
            "void {0}() {{{{\n  a();\n  b();\n",
            "  CHECK(10);\n",
            "  CHECK(12);\n",
            "  ENSURE();\n",
            "  c();\n  d();\n}}}}\n\n",
        ),
    }
    for path, (head, strict, relaxed, reworked, tail) in kinds.items():

        def block(name: str, gate: str, head: str = head, tail: str = tail) -> str:
            return head.format(name) + gate.replace("{{", "{").replace("}}", "}") + tail.format()

        base = block("moe", strict) + block("fp4", strict) + block("mla", strict)
        ours = block("moe", relaxed) + block("fp4", strict) + block("mla", strict)
        middle = block("moe", strict) + block("fp4", relaxed) + block("mla", strict)
        yield Case(f"{path}: untouched", {path: base}, {path: ours}, {path: base}, "needed")
        yield Case(
            f"{path}: below",
            {path: base},
            {path: ours},
            {path: base + block("new", strict)},
            "needed",
        )
        yield Case(
            f"{path}: another above",
            {path: base},
            {path: ours},
            {path: block("new", strict) + base},
            "needed unsure",
        )
        for name, mine in (("first", ours), ("middle", middle)):
            target = "moe" if name == "first" else "fp4"
            blocks = ("moe", "fp4", "mla")
            yield Case(
                f"{path}: {name} reworked",
                {path: base},
                {path: mine},
                {path: "".join(block(b, reworked if b == target else strict) for b in blocks)},
                "misplaced unsure conflict",
            )
            yield Case(
                f"{path}: {name} gone",
                {path: base},
                {path: mine},
                {path: "".join(block(b, strict) for b in blocks if b != target)},
                "misplaced unsure conflict",
            )
            yield Case(
                f"{path}: {name} renamed",
                {path: base},
                {path: mine},
                {path: "".join(block("new" if b == target else b, strict) for b in blocks)},
                "misplaced unsure conflict",
            )
            for order in itertools.permutations(blocks):
                yield Case(
                    f"{path}: {name}, order {order}",
                    {path: base},
                    {path: mine},
                    {path: "".join(block(b, strict) for b in order)},
                    "RIGHT-OR-REFUSED",
                )
        landed = block("moe", relaxed) + block("fp4", strict) + block("mla", strict)
        yield Case(
            f"{path}: landed", {path: base}, {path: ours}, {path: landed + "# end\n"}, "upstreamed"
        )
        yield Case(
            f"{path}: landed in the sibling",
            {path: base},
            {path: ours},
            {path: middle},
            "needed unsure",
        )
        yield Case(
            f"{path}: landed in the sibling, ours gone",
            {path: base},
            {path: ours},
            {path: block("fp4", relaxed) + block("mla", strict)},
            "unsure misplaced conflict",
        )


def whole_files() -> Iterator[Case]:
    """Additions, deletions, renames, modes."""
    text = "def gate():\n    assert major == 10\n    return other_thing()\n"
    more = text.replace("== 10", "in (10, 12)")
    keep: dict[str, Thing] = {"README": "x\n"}
    yield Case("a new file", keep, {**keep, "n.py": text}, keep, "needed")
    yield Case(
        "a new file, landed", keep, {**keep, "n.py": text}, {**keep, "n.py": text}, "upstreamed"
    )
    yield Case(
        "a new file, landed elsewhere",
        keep,
        {**keep, "n.py": text},
        {**keep, "m/n.py": text},
        "unsure",
    )
    yield Case(
        "a new file, another there",
        keep,
        {**keep, "n.py": text},
        {**keep, "n.py": more},
        "unsure conflict",
    )
    yield Case("a file deleted", {**keep, "n.py": text}, keep, {**keep, "n.py": text}, "needed")
    yield Case("a file deleted, landed", {**keep, "n.py": text}, keep, keep, "upstreamed")
    yield Case(
        "a file deleted, but moved",
        {**keep, "n.py": text},
        keep,
        {**keep, "m/n.py": text},
        "unsure",
    )
    yield Case(
        "a file deleted, but renamed",
        {**keep, "n.py": text},
        keep,
        {**keep, "gate.py": text},
        "unsure",
    )
    yield Case(
        "a file deleted, but renamed and changed",
        {**keep, "n.py": text},
        keep,
        {**keep, "gate.py": "import x\n" + more},
        "unsure",
    )
    yield Case(
        "a file deleted, changed",
        {**keep, "n.py": text},
        keep,
        {**keep, "n.py": more},
        "unsure conflict",
    )
    yield Case(
        "a file deleted, a folder there",
        {**keep, "n.py": text},
        keep,
        {**keep, "n.py/x": "x"},
        "unsure conflict",
    )
    moved = ("-M30%",)
    yield Case("a rename", {"a.py": text}, {"b.py": text}, {"a.py": text}, "needed", options=moved)
    # The diff of a bare rename has no content, so nothing shows that it is the same file.
    yield Case(
        "a rename, landed", {"a.py": text}, {"b.py": text}, {"b.py": text}, "unsure", options=moved
    )
    yield Case(
        "a rename with a change",
        {"a.py": text},
        {"b.py": more},
        {"a.py": text},
        "needed",
        options=moved,
    )
    yield Case(
        "a rename with a change, landed",
        {"a.py": text},
        {"b.py": more},
        {"b.py": more},
        "upstreamed",
        options=moved,
    )
    yield Case(
        "a rename with a change, only renamed",
        {"a.py": text},
        {"b.py": more},
        {"b.py": text},
        "partial unsure conflict",
        options=moved,
    )
    yield Case(
        "a rename with a change, only changed",
        {"a.py": text},
        {"b.py": more},
        {"a.py": more},
        "partial unsure conflict",
        options=moved,
    )
    yield Case(
        "a rename, another file there",
        {"a.py": text},
        {"b.py": text},
        {"b.py": "x = 1\n"},
        "unsure conflict",
        options=moved,
    )
    copied = ("-C30%", "--find-copies-harder")
    yield Case(
        "a copy",
        {"a.py": text},
        {"a.py": text, "b.py": more},
        {"a.py": text},
        "needed",
        options=copied,
    )
    yield Case(
        "a copy, landed",
        {"a.py": text},
        {"a.py": text, "b.py": more},
        {"a.py": text, "b.py": more},
        "upstreamed",
        options=copied,
    )
    yield Case(
        "a copy, a plain one there",
        {"a.py": text},
        {"a.py": text, "b.py": more},
        {"a.py": text, "b.py": text},
        "unsure conflict partial",
        options=copied,
    )
    yield Case(
        "a copy, source gone",
        {"a.py": text},
        {"a.py": text, "b.py": more},
        {"b.py": text},
        "unsure conflict partial",
        options=copied,
    )
    run = Script(text.encode())
    yield Case("a mode", {"a.py": text}, {"a.py": run}, {"a.py": text}, "needed")
    yield Case("a mode, landed", {"a.py": text}, {"a.py": run}, {"a.py": run}, "upstreamed")
    yield Case(
        "a mode, file gone", {"a.py": text, **keep}, {"a.py": run, **keep}, keep, "unsure conflict"
    )
    yield Case(
        "a mode, a link there",
        {"a.py": text},
        {"a.py": run},
        {"a.py": Link(b"x")},
        "unsure conflict",
    )
    both = Script(more.encode())
    yield Case(
        "mode and text, only the text",
        {"a.py": text},
        {"a.py": both},
        {"a.py": more},
        "partial unsure",
    )
    yield Case(
        "mode and text, only the mode",
        {"a.py": text},
        {"a.py": both},
        {"a.py": run},
        "partial unsure conflict",
    )
    yield Case(
        "mode and text, landed", {"a.py": text}, {"a.py": both}, {"a.py": both}, "upstreamed"
    )
    yield Case(
        "a link for a file", {"a.py": text}, {"a.py": Link(b"b.py")}, {"a.py": text}, "needed"
    )
    yield Case(
        "a link for a file, landed",
        {"a.py": text},
        {"a.py": Link(b"b.py")},
        {"a.py": Link(b"b.py")},
        "upstreamed",
    )
    yield Case(
        "a link for a file, another link",
        {"a.py": text},
        {"a.py": Link(b"b.py")},
        {"a.py": Link(b"c.py")},
        "unsure conflict partial",
    )
    logo, other = b"\x89PNG\0\1", b"\x89PNG\0\2"
    was: dict[str, Thing] = {"n.py": text, "logo.png": logo}
    ours: dict[str, Thing] = {"n.py": more, "logo.png": other}
    yield Case("a binary file", was, {**was, "logo.png": other}, was, "unsure conflict")
    yield Case("a binary file, landed", was, {**was, "logo.png": other}, ours, "upstreamed")
    yield Case("text and binary, landed", was, ours, ours, "upstreamed")
    yield Case(
        "text and binary, the text landed",
        was,
        ours,
        {**was, "n.py": more},
        "unsure partial conflict",
    )
    added: dict[str, Thing] = {"n.py": text}
    yield Case(
        "text and a new binary, the text landed", added, ours, {"n.py": more}, "unsure conflict"
    )
    yield Case("an empty file", keep, {**keep, "e": ""}, keep, "needed")
    yield Case("an empty file, landed", keep, {**keep, "e": ""}, {**keep, "e": ""}, "upstreamed")


CASES = [
    *(case for dialect in DIALECTS for case in shared(dialect)),
    *python_only(),
    *cpp_only(),
    *flat_files(),
    *whole_files(),
]


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("hazards") / "r.git")


_MADE: dict[tuple[str, tuple[str, ...]], tuple[str, bytes]] = {}


def made(lab: Lab, case: Case, effects: tuple[str, ...]) -> tuple[str, bytes]:
    """Upstream's tree and our mail; made once for all tests of this module."""
    key = (case.name, effects)
    if key not in _MADE:
        message = "subject\n\nbody\n\n" + "".join(f"Effect: {effect}\n" for effect in effects)
        mail = lab.mail(case.base, case.ours, message, *case.options)
        _MADE[key] = lab.tree(lab.commit(case.up)), mail
    return _MADE[key]


def verdict_of(lab: Lab, case: Case, effects: tuple[str, ...]) -> tuple[Verdict, str, bytes]:
    """The verdict at upstream's tree, that tree, and the mail."""
    tree, mail = made(lab, case, effects)
    return decide(lab.objects, tree, parse_patch("p", mail)), tree, mail


def _check(lab: Lab, case: Case, words: str, effects: tuple[str, ...]) -> None:
    verdict, tree, mail = verdict_of(lab, case, effects)
    patch = parse_patch("p", mail)
    result = apply_patch(lab.objects, tree, patch)
    if words == "RIGHT-OR-REFUSED":
        if result.applied:
            path = next(iter(case.up))
            before, after = lab.objects.read(tree, path), lab.objects.read(result.tree, path)
            assert before is not None
            assert after is not None
            assert _changed_block(before, after) == _changed_block(
                _bytes(case.base[path]), _bytes(case.ours[path])
            )
        words = "needed unsure misplaced conflict"
    assert verdict.word in words.split(), (verdict.word, verdict.detail, verdict.evidence)
    assert verdict.detail
    assert verdict.evidence or verdict.word == "unsure"
    if verdict.word == "needed":
        assert result.applied
    if not result.applied:
        assert result.tree == tree
        assert result.failures


def _bytes(thing: Thing) -> bytes:
    assert isinstance(thing, str)
    return thing.encode()


def _changed_block(before: bytes, after: bytes) -> bytes:
    """The name that stands nearest above the one changed line."""
    old, new = before.split(b"\n"), after.split(b"\n")
    at = next(n for n, (a, b) in enumerate(zip(old, new, strict=True)) if a != b)
    return next(
        n for line in reversed(old[:at]) for n in (b"moe", b"fp4", b"mla", b"new") if n in line
    )


@pytest.mark.parametrize("case", [c for c in CASES if c.effects], ids=lambda case: case.name)
def test_with_an_effect(lab: Lab, case: Case) -> None:
    _check(lab, case, case.words, case.effects)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_by_the_text_alone(lab: Lab, case: Case) -> None:
    _check(lab, case, case.plain or case.words, ())


@pytest.mark.parametrize(
    ("case", "effects"),
    [(case, named) for case in CASES for named in sorted({(), case.effects})],
    ids=lambda value: value.name if isinstance(value, Case) else "with" if value else "without",
)
def test_a_rebase_moves_it_nowhere_else(lab: Lab, case: Case, effects: tuple[str, ...]) -> None:
    """A three-way merge may do more than applying; it must not do it to a sibling."""
    words = (case.words if effects or case.plain is None else case.plain).split()
    tree, raw = made(lab, case, effects)
    moved = move(lab.objects, tree, parse_patch("p", raw))
    if moved.outcome.stops:
        assert moved.tree == tree
        assert moved.detail
        return
    if moved.outcome is Outcome.LANDED:
        assert moved.tree == tree
        assert {"upstreamed", "obsolete"} & set(words)
        return
    assert moved.mail is not None
    again = apply_patch(lab.objects, tree, parse_patch("p", moved.mail))
    assert again.tree == moved.tree
    if next(iter(case.up)).rpartition(".")[2] in FLAT and "landed" not in case.name:
        path = next(iter(case.up))
        before, after = lab.objects.read(tree, path), lab.objects.read(moved.tree, path)
        assert before is not None
        assert after is not None
        wanted = _changed_block(_bytes(case.base[path]), _bytes(case.ours[path]))
        renamed = b"new" if "renamed" in case.name else wanted
        assert _changed_block(before, after) == renamed
    else:
        assert {"needed", "partial"} & set(words)
