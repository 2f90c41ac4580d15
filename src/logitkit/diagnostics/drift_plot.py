"""The course of a drift as an SVG picture that follows the colours of the reader's system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from logitkit.diagnostics.drift import TurnDrift

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 24, 56
COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#0891b2")
STYLE = """text{font:13px sans-serif;fill:#1f2937}.axis{stroke:#9ca3af}.ground{fill:#ffffff}
@media(prefers-color-scheme:dark){text{fill:#e5e7eb}.ground{fill:#111827}}"""


def drift_plot(courses: Mapping[str, Sequence[TurnDrift]]) -> str:
    """Return an SVG picture of the divergence of each turn; a ring marks a turn with a reminder.

    Args:
        courses: the turns of each chain, by its name.

    Example:
        >>> svg = drift_plot({"plain": [TurnDrift(1, 8, 0.5, False), TurnDrift(2, 8, 0.7, True)]})
        >>> svg.startswith("<svg"), svg.count("<circle")
        (True, 3)
    """
    turns = max(len(course) for course in courses.values())
    top = max((turn.divergence for course in courses.values() for turn in course), default=0.0) or 1.0
    rings = " (a ring: with a reminder)" if any(turn.reminder for course in courses.values() for turn in course) else ""
    height = HEIGHT + 20 * len(courses)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>Drift of a conversation</title><style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
    ]
    for step in range(5):
        value = top * step / 4
        parts.append(
            f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_y(value, top)}" y2="{_y(value, top)}"/>'
        )
        parts.append(f'<text x="{LEFT - 8}" y="{_y(value, top) + 4}" text-anchor="end">{value:.3g}</text>')
    for turn in range(1, turns + 1):
        parts.append(f'<text x="{_x(turn, turns)}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{turn}</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 8}">KL from the model with the goal restated, nats a token</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 16}" text-anchor="end">turn{rings}</text>')
    for number, (name, course) in enumerate(courses.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = [(_x(turn.turn, turns), _y(turn.divergence, top)) for turn in course]
        line = " ".join(f"{x},{y}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"/>' for x, y in points]
        parts += [
            f'<circle cx="{x}" cy="{y}" r="8" fill="none" stroke="{colour}"/>'
            for (x, y), turn in zip(points, course, strict=True)
            if turn.reminder
        ]
        below = HEIGHT + 20 * number
        parts.append(f'<rect x="{LEFT}" y="{below - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + 20}" y="{below}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(turn: int, turns: int) -> float:
    """Return where a turn stands."""
    return round(LEFT + (turn - 0.5) * (WIDTH - LEFT - RIGHT) / turns, 1)


def _y(value: float, top: float) -> float:
    """Return where a divergence stands."""
    return round(TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM), 1)
