"""Texts beside points: none covers another text, and each number is there."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.bench.report.marks import MARK, marks

ROOM = (64, 0, 560, 272)
POINT = st.tuples(st.floats(80, 540), st.floats(20, 260), st.text("ab<", min_size=1, max_size=12))


def box(mark: str) -> tuple[float, float, float, float, str]:
    """Return left, top, right and bottom of a text, and the text."""
    found = re.fullmatch(r'<text class="mark" text-anchor="(\w+)" x="(.*)" y="(.*)">(.*)</text>', mark)
    assert found is not None
    anchor, x, y, text = found.groups()
    text = text.replace("&lt;", "<")
    width, left = 0.6 * MARK * len(text), float(x)
    left = left if anchor == "start" else left - width
    return left, float(y) - MARK, left + width, float(y) + 3, text


def test_worked_example() -> None:
    """A point at the right edge has its text on its left; the second of two close points moves below."""
    first, second = marks([(500.0, 100.0, "a long name"), (500.0, 112.0, "another name")], ROOM)
    assert box(first)[4] == "1 a long name" and 'text-anchor="end"' in first and 'y="94.0"' in first
    assert box(second)[4] == "2 another name" and 'y="129.0"' in second


def test_a_name_without_room_leaves_its_number() -> None:
    """A name that is wider than the drawing is not written."""
    (mark,) = marks([(300.0, 100.0, "n" * 80)], ROOM)
    assert box(mark)[4] == "1"


@settings(max_examples=60, deadline=None)
@given(st.lists(POINT, min_size=1, max_size=9))
def test_names_cover_nothing(points: list[tuple[float, float, str]]) -> None:
    """Names are inside the drawing, apart from each other and from all points; every point has its number."""
    placed = [box(mark) for mark in marks(points, ROOM)]
    assert [mark[4].split(" ")[0] for mark in placed] == [str(number) for number in range(1, len(points) + 1)]
    named = [mark for mark in placed if " " in mark[4]]
    for place, (left, top, right, bottom, _) in enumerate(named):
        assert left >= ROOM[0] - 0.1 and right <= ROOM[2] + 0.1 and bottom <= ROOM[3] + 0.1
        for other in named[:place]:
            assert (
                left >= other[2] - 0.2 or other[0] >= right - 0.2 or top >= other[3] - 0.2 or other[1] >= bottom - 0.2
            )
        assert not any(left + 5 < x < right - 5 and top + 5 < y < bottom - 5 for x, y, _ in points)
