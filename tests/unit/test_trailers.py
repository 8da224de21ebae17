"""Trailers: ours are read strictly, others' are kept, and a claim nobody would read is refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from stackpatch.model.trailers import Effect, UpstreamWord, compile_pattern, parse_trailers

BODY = """\
Why this is so.

It goes on: here.

Upstream-Status: Submitted [https://github.com/o/r/pull/2577]
Bug: https://github.com/o/r/issues/1
Bug: https://github.com/o/r/issues/2
Arch: sm120 sm121
Applies-To: >=0.6.0,<0.6.7
Effect: a/b.py :: C.f :: gate=\\[10, 12
Effect: a/b.cu :: * :: !ICHECK_EQ\\(major,
 10\\)
Signed-off-by: Ada Example <ada@example.invalid>"""


def test_every_trailer_is_read() -> None:
    trailers, problems = parse_trailers(BODY, first_line=7)
    assert problems == []
    assert trailers.status is UpstreamWord.SUBMITTED
    assert trailers.status_note == "https://github.com/o/r/pull/2577"
    assert trailers.bugs == ("https://github.com/o/r/issues/1", "https://github.com/o/r/issues/2")
    assert trailers.archs == ("sm120", "sm121")
    assert trailers.applies_to == SpecifierSet(">=0.6.0,<0.6.7")
    assert trailers.effects == (
        Effect("a/b.py", "C.f", "gate=\\[10, 12", absent=False, line=16),
        Effect("a/b.cu", "*", "ICHECK_EQ\\(major, 10\\)", absent=True, line=17),
    )
    assert trailers.others == (("Signed-off-by", "Ada Example <ada@example.invalid>"),)
    assert trailers.links == (
        "https://github.com/o/r/pull/2577",
        "https://github.com/o/r/issues/1",
        "https://github.com/o/r/issues/2",
    )
    assert str(trailers.effects[1]) == "a/b.cu :: * :: !ICHECK_EQ\\(major, 10\\)"


@pytest.mark.parametrize(
    "body", ["", "Only prose.", "One.\n\nTwo: three\nfour five", "Note:\n\nx y"]
)
def test_no_trailers_restrict_nothing(body: str) -> None:
    trailers, problems = parse_trailers(body)
    assert problems == []
    assert (trailers.status, trailers.archs, trailers.applies_to) == (None, None, None)
    assert trailers.effects == ()


GOOD = [
    "Upstream-Status: Pending",
    "Upstream-Status: Inappropriate [only for us]",
    "Upstream-Status: Backport [https://github.com/o/r/commit/abc]",
    "Upstream-Status: Inactive-Upstream",
    "Upstream-Status: Denied [it was]",
    "Arch: sm120, sm121",
    "Effect: p :: s :: x\n(cherry picked from commit 1234)",
    "Effect: p :: s :: x\n[ada: fixed a typo]",
    "Architecture-note: x",
    "Reviewed-by: A <a@b.c>",
    "Effect: p :: s :: a :: b",
    "Effect: p :: s :: a[^:]{0,60}b[^)]{0,60}c(?:d|e){2,9}f{1,}",
    "Effect: p :: s :: (?:a{99}b){99}",
    "Effect: p :: s :: [{}]x{y}\\{1000000000\\}",
]


@pytest.mark.parametrize("body", GOOD)
def test_what_is_allowed(body: str) -> None:
    assert parse_trailers(f"x\n\n{body}")[1] == []


WORDS = "Pending, Submitted, Backport, Denied, Inappropriate, Inactive-Upstream"
NONE = "no such trailer; did you mean"
PLACE = "not in the last paragraph, where trailers go"
BAD = {
    "Upstream-Status: pending": f"3: Upstream-Status: 'pending' is none of {WORDS}",
    "Upstream-Status: Accepted": f"3: Upstream-Status: 'Accepted' is none of {WORDS}",
    "Upstream-Status: Submitted": "3: Upstream-Status: Submitted needs a link, `Submitted [https://…]`",
    "Upstream-Status: Backport [v0.6.7]": (
        "3: Upstream-Status: Backport needs a link, `Backport [https://…]`"
    ),
    "Upstream-Status: Pending\nUpstream-Status: Denied": (
        "4: Upstream-Status: given twice (first at line 3)"
    ),
    "Arch: sm120\nArch: sm121": "4: Arch: given twice (first at line 3)",
    "Applies-To: >=1\nApplies-To: <2": "4: Applies-To: given twice (first at line 3)",
    "Arch: sm122": "3: Arch: unknown arch 'sm122'; did you mean sm121?",
    "Arch: ": "3: Arch: names no arch; leave the trailer out for all",
    "Applies-To: 0.6.x": "3: Applies-To: not a PEP 440 range: '0.6.x'",
    "Applies-To: >=0.6 and <0.7": "3: Applies-To: not a PEP 440 range: '>=0.6 and <0.7'",
    "Bug: 2577": "3: Bug: not a URL: '2577'",
    "Effect: a.py": "3: Effect: want `path :: symbol :: regular expression`",
    "Effect: a.py :: f": "3: Effect: want `path :: symbol :: regular expression`",
    "Effect: a.py :: :: x": "3: Effect: want `path :: symbol :: regular expression`",
    "Effect: a.py :: f :: x*": "3: Effect: the regular expression matches the empty text",
    "Effect: a.py :: f :: (x": ("3: Effect: not a regular expression: missing ) at position 2"),
    **dict.fromkeys(
        (
            "Effect: a.py :: f :: x{99999999999}",
            "Effect: a.py :: f :: x{,99999}",
            "Effect: a.py :: f :: (x{1,999}){1,999}",
            "Effect: a.py :: f :: (?:(?:[ab]{50}y){50}z){50}",
            "Effect: a.py :: f :: x{100}{100}{100}",
        ),
        "3: Effect: not a regular expression: its counted repetitions are too many",
    ),
    **dict.fromkeys(
        (
            *("Effect: a.py :: f :: (?R)", "Effect: a.py :: f :: x\\b(?R)y"),
            *(r"Effect: a.py :: f :: (a(?1)?b)", r"Effect: a.py :: f :: (?P<n>a(?&n)?b)"),
        ),
        "3: Effect: not a regular expression: it calls itself or one of its groups",
    ),
    r"Effect: a.py :: f :: (|){40}\b": (
        "3: Effect: the regular expression runs away, even on the empty text"
    ),
    "Upstream-status: Pending": f"3: Upstream-status: {NONE} Upstream-Status?",
    "Upstream-State: Pending": "3: Upstream-State: no such trailer; did you mean Upstream-Status?",
    "UpstreamStatus: Pending": "3: UpstreamStatus: no such trailer; did you mean Upstream-Status?",
    "effect: a :: b :: c": "3: effect: no such trailer; did you mean Effect?",
    "Effects: a :: b :: c": "3: Effects: no such trailer; did you mean Effect?",
    "Applies-to: >=1": "3: Applies-to: no such trailer; did you mean Applies-To?",
    "Applies-For: >=1": "3: Applies-For: no such trailer; did you mean Applies-To?",
    "AppliesTo: >=1": "3: AppliesTo: no such trailer; did you mean Applies-To?",
    "Arch-List: sm121": "3: Arch-List: no such trailer; did you mean Arch?",
    "ARCH: sm121": "3: ARCH: no such trailer; did you mean Arch?",
    "Effect: a :: b :: c\ngoes on": (
        "4: not a trailer, between trailers: 'goes on'; indent what goes on"
    ),
    "Effect: a :: b :: c\n\nThanks to all.": f"3: Effect: {PLACE}",
    "Effect: a :: b :: c\n\nSigned-off-by: A": f"3: Effect: {PLACE}",
    "Because of this\nApplies-To: >=1": f"4: Applies-To: {PLACE}",
    "arch: sm121\n\nthe end": "3: Arch: not in the last paragraph, where trailers go",
    "Arch: sm120, sm121\n\nthe end": "3: Arch: not in the last paragraph, where trailers go",
    "Bug: https://x.y/1\n\nthe end": "3: Bug: not in the last paragraph, where trailers go",
}


@pytest.mark.parametrize(("body", "expected"), BAD.items())
def test_a_bad_trailer_is_one_message_with_its_line(body: str, expected: str) -> None:
    _, problems = parse_trailers(f"x\n\n{body}", first_line=1)
    assert [f"{line}: {text}" for line, text in problems] == [expected]


def test_what_looks_like_a_call_is_none() -> None:
    body = r"Effect: a.py :: f :: \(?R[(?1)]x(?P<n>y)"
    assert parse_trailers(f"x\n\n{body}")[1] == []


@pytest.mark.parametrize(
    "body", ["Bug: the gate is too strict.\n\nThe end.", "Arch: a word of prose\n\nThe end."]
)
def test_prose_may_begin_like_a_trailer(body: str) -> None:
    assert parse_trailers(body)[1] == []


@given(st.text(max_size=80))
@example("Effect: a :: b :: [[a]")
@example("Effect: a :: b :: [a--b]")
@example("Effect: a :: b :: a(?i)b")
@example("Effect: a :: b :: (?P<x>a)(?P=x)\\1")
@example("Effect: a :: b :: \\p{Nope}")
@example("Effect: a :: b :: " + "(" * 1900)
@example("Effect: a :: b :: (((a{1000}){1000}){1000}){1000}")
@example("Arch: ,,, ,")
@example("Applies-To: ,")
@example("Upstream-Status: [")
def test_any_text_is_answered(text: str) -> None:
    for body in (text, f"x\n\n{text}", f"x\n\nEffect: a :: b :: {text}"):
        trailers, problems = parse_trailers(body, first_line=10)
        for line, said in problems:
            assert 10 <= line <= 10 + body.count("\n")
            assert said
        for effect in trailers.effects:
            assert compile_pattern(effect.pattern).pattern == effect.pattern
