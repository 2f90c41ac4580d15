"""Texts beside the points of a plot: number and name, placed so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

MARK = 15  # font size of the texts on a phone, where it is largest
Box = tuple[float, float, float, float]  # left, top, right, bottom


def marks(points: Sequence[tuple[float, float, str]], room: Box) -> list[str]:
    """Return a text for each point: its number, and its name where that covers no other text or point.

    Args:
        points: position in the drawing, and name.
        room: where texts may stand.

    Examples:
        >>> marks([(50.0, 50.0, "plain")], (0, 0, 200, 100))
        ['<text class="mark" text-anchor="start" x="57.0" y="44.0">1 plain</text>']
    """
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y, _ in points]
    texts = []
    for place, (x, y, name) in enumerate(points, 1):
        tried = [(text, *side) for text in (f"{place} {name}", str(place)) for side in _sides(x, y, text)]
        text, anchor, box = next(
            (each for each in tried if _is_free(each[2], taken, room)), (str(place), *_sides(x, y, "0")[0])
        )
        taken.append(box)
        at = box[0] if anchor == "start" else box[2]
        texts.append(
            f'<text class="mark" text-anchor="{anchor}" x="{at:.1f}" y="{box[3] - 3:.1f}">{escape(text)}</text>'
        )
    return texts


def _sides(x: float, y: float, text: str) -> list[tuple[str, Box]]:
    """Return the anchor and the box of a text above and below a point, on its right and on its left."""
    width = 0.6 * MARK * len(text)
    right, left = (x + 7, x + 7 + width), (x - 7 - width, x - 7)
    return [
        (anchor, (start, base - MARK, end, base + 3))
        for base in (y - 6, y + 17)
        for anchor, (start, end) in (("start", right), ("end", left))
    ]


def _is_free(box: Box, taken: Sequence[Box], room: Box) -> bool:
    """Return whether a box is inside the room and overlaps none of the others."""
    left, top, right, bottom = box
    inside = left > room[0] and top > room[1] and right < room[2] and bottom < room[3]
    return inside and not any(left < b[2] and b[0] < right and top < b[3] and b[1] < bottom for b in taken)
