"""Lines in other words, and lines that say more: what a person should look at, and what not."""

from __future__ import annotations

import pytest

from stackpatch.series.rewording import reads_like, says_again, says_more

GATE = b"assert major == 10"
CHECK = b"ICHECK_EQ(major, 10);"


@pytest.mark.parametrize(
    ("line", "found", "alike"),
    [
        (GATE, b"assert props.major == 10", True),
        (GATE, b"if major != 10: raise Wrong", True),
        (GATE, b"@require_major(10)", True),
        (GATE, b"ensure(supports(props))", False),
        (GATE, b"if major != 11: raise Wrong", False),
        (GATE, b"block = 10", False),
        (b"check_shape(device)", b"check_shapes(device)", True),
        (b"check_shape(device)", b"launch(stream)", False),
        (CHECK, b"if (props.Major < 10) return;", True),
        (b"\xff\xfe", b"", False),
    ],
)
def test_other_words(line: bytes, found: bytes, alike: bool) -> None:
    assert reads_like(line, found) == alike


@pytest.mark.parametrize(
    ("line", "found", "again"),
    [
        (GATE, GATE, True),
        (GATE, b"assert props.major == 10", True),
        (CHECK, b"ICHECK_EQ(props.major, 10);", True),
        (GATE, b"assert major in (10, 12)", False),
        (CHECK, b"ICHECK(major == 10);", False),
        (GATE, b"assert 10 == major", False),
        (GATE, b"assert the_very_long_name_of_props.of_this_device.major == 10", False),
        (CHECK, b"ICHECK_EQ(major, 10 | 12);", False),
    ],
)
def test_the_same_again(line: bytes, found: bytes, again: bool) -> None:
    assert says_again(line, found) == again


@pytest.mark.parametrize(
    ("line", "found", "more"),
    [
        (GATE, GATE + b", 'not major in (10, 12)'", True),
        (CHECK, b'ICHECK_EQ(major, 10) << "no major == 12";', True),
        (CHECK, CHECK + b" next();", True),
        (GATE, GATE, False),
        (CHECK, CHECK, False),
        (GATE, GATE + b" or major == 12", False),
        (GATE, b"assert major == 100, 'x'", False),
        (GATE, b"x = 1, 2", False),
    ],
)
def test_the_same_with_a_message(line: bytes, found: bytes, more: bool) -> None:
    assert says_more(line, found) == more
