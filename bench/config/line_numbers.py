"""Line of every key of a run file, and mistakes as text in the order of their lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from logitkit.bench.config.preflight import Mistake, Place


def collect_lines(node: Any, place: Place, lines: dict[Place, int], mistakes: list[Mistake]) -> None:
    """Record the line of every key, and report duplicate keys, of which YAML silently keeps the last."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*place, str(key.value))
            if here in lines:
                mistakes.append((here, f"duplicate key, first in line {lines[here]}"))
            lines[here] = key.start_mark.line + 1
            collect_lines(value, here, lines, mistakes)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            if isinstance(value, yaml.ScalarNode):
                lines.setdefault((*place, str(value.value or "plain")), value.start_mark.line + 1)


def messages(mistakes: list[Mistake], lines: Mapping[Place, int]) -> list[str]:
    """Return the mistakes as text, in the order of their lines and without duplicates."""
    placed = [(_line(place, lines), place, message) for place, message in mistakes]
    placed.sort(key=lambda mistake: mistake[0])
    return [
        (f"line {line}: " if line else "") + (f"{'.'.join(place)}: " if place else "") + message
        for line, place, message in dict.fromkeys(placed)
    ]


def _line(place: Place, lines: Mapping[Place, int]) -> int:
    """Return the line of a place, else of the nearest enclosing part of the file; 0 if there is none."""
    if place in lines:
        return lines[place]
    if place[:1] == ("chains",) and len(place) > 1:  # the name of a swept chain begins with the name in the file
        starts = [key for key in lines if len(key) == 2 and key[0] == "chains" and place[1].startswith(f"{key[1]} ")]
        if starts:
            return lines[max(starts, key=lambda key: len(key[1]))]
    return _line(place[:-1], lines) if place else 0
