"""Plots of a summary as inline SVG, without scripts, fonts or links; the page's style sheet sets the colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from logitkit.bench.report.summary import Summary, TaskTable
from logitkit.bench.report.tables import ARROWS, number
from logitkit.bench.speed.cost import front
from logitkit.bench.tasks.task import Metric
from logitkit.registry.chain import Chain

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 16, 48


@dataclass(frozen=True, kw_only=True)
class Point:
    """One strategy in a plot.

    Attributes:
        x, y: coordinates in data units.
        low, high: interval of ``y``.
        label: name of the strategy.
        marked: whether the point is filled.
    """

    x: float
    y: float
    low: float
    high: float
    label: str
    marked: bool = False


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot.

    Attributes:
        title: title of the plot.
        about: how to read the plot.
        svg: the drawing; names in it are escaped.
        legend: for each point its number, its strategy and whether it is marked.
    """

    title: str
    about: str
    svg: str
    legend: Sequence[tuple[int, str, bool]]


def plots(summary: Summary) -> list[Plot]:
    """Return a plot of quality against cost for each task, then the plots of sweeps."""
    of_quality = [plot for table in summary.tables if (plot := _quality(summary, table))]
    return of_quality + [plot for table in summary.tables for plot in _sweeps(summary, table)]


def _quality(summary: Summary, table: TaskTable) -> Plot | None:
    """Return a plot of a task's first metric against cost, with its Pareto front; None for fewer than two points."""
    metric, prices = table.metrics[0], summary.costs.get(table.model, {})
    if metric.better is None:
        return None
    places = {
        row.chain: prices[row.chain].ratio if prices else row.forwards
        for row in table.rows
        if row.chain in prices or (not prices and row.forwards is not None)
    }
    rows = [row for row in table.rows if row.chain in places and math.isfinite(row.cells[metric.name].value)]
    if len(rows) < 2:
        return None
    cells = [row.cells[metric.name] for row in rows]
    sign = 1 if metric.better == "higher" else -1
    best = front([(float(places[row.chain] or 0), sign * cell.value) for row, cell in zip(rows, cells, strict=True)])
    points = [
        Point(x=float(places[row.chain] or 0), y=c.value, low=c.low, high=c.high, label=row.chain, marked=on)
        for row, c, on in zip(rows, cells, best, strict=True)
    ]
    xlabel = f"time / time of {summary.run.compared_with}" if prices else "forwards per step"
    name = f"{table.task}, {table.model}: quality against cost"
    about = "Filled: no other strategy is better at the same or a lower cost (Pareto front). Bars: 95 % intervals."
    return _plot(name, about, points, xlabel, metric, line=[point for point in points if point.marked])


def _sweeps(summary: Summary, table: TaskTable) -> list[Plot]:
    """Return plots of a task's metrics against the swept parameter, and against the rates of intervention."""
    of_sweeps = []
    for (name, parameter), chains in sweeps({row.chain: row.text for row in table.rows}).items():
        rows = {row.chain: row for row in table.rows}
        for metric in [metric for metric in table.metrics if metric.better][:2]:
            axes: dict[str, Mapping[str, float]] = {f"{parameter} of {name}": chains}
            for key in dict.fromkeys(key for chain in chains for key in rows[chain].interventions):
                rates = {c: rows[c].interventions[key] for c in chains if key in rows[c].interventions}
                if len(rates) == len(chains):
                    axes[" ".join(key)] = rates
            for label, places in axes.items():
                cells = {chain: rows[chain].cells[metric.name] for chain in places}
                points = [
                    Point(x=x, y=cells[c].value, low=cells[c].low, high=cells[c].high, label=c, marked=True)
                    for c, x in sorted(places.items(), key=lambda item: item[1])
                    if math.isfinite(cells[c].value)
                ]
                if len(points) > 2 and len({point.y for point in points}) > 1:
                    title = f"{table.task}, {table.model}: {metric.name} against {label}"
                    about = "Bars: 95 % bootstrap intervals of means."
                    of_sweeps.append(_plot(title, about, points, label, metric, line=points))
    return of_sweeps


def sweeps(texts: Mapping[str, str]) -> dict[tuple[str, str], dict[str, float]]:
    """Find sweeps: three or more strategies whose chains differ in one number only.

    Args:
        texts: the chain of each strategy.

    Returns:
        ``{(processor, parameter): {strategy: number}}``.

    Examples:
        >>> sweeps({"a": "cfg(1.2)", "b": "cfg(1.5)", "c": "cfg(2.0)"})
        {('cfg', 'scale'): {'a': 1.2, 'b': 1.5, 'c': 2.0}}
    """
    families: dict[Any, dict[str, float]] = {}
    for strategy, text in texts.items():
        steps = Chain(text).steps
        for place, (name, parameters) in enumerate(steps):
            for parameter, value in parameters.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    others = {key: other for key, other in parameters.items() if key != parameter}
                    frame = repr([*steps[:place], (name, others), *steps[place + 1 :]])
                    families.setdefault((name, parameter, frame), {})[strategy] = float(value)
    return {(name, parameter): chains for (name, parameter, _), chains in families.items() if len(chains) > 2}


def _plot(
    title: str, about: str, points: Sequence[Point], xlabel: str, metric: Metric, *, line: Sequence[Point]
) -> Plot:
    """Draw points with their intervals, and a line through the points in ``line``."""
    xs, ys = [point.x for point in points], [y for point in points for y in (point.low, point.high)]
    across, up = _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT), _Axis(min(ys), max(ys), HEIGHT - BOTTOM, TOP)
    unit = f", {metric.unit}" if metric.unit else ""
    parts = [f"<title>{escape(title)}</title>", *_axes(across, up, xlabel, f"{metric.name}{unit}")]
    ordered = sorted(line, key=lambda point: point.x)
    joined = " ".join(f"{across(point.x):.1f},{up(point.y):.1f}" for point in ordered)
    parts.append(f'<polyline class="front" points="{joined}"/>')
    for place, point in enumerate(points, 1):
        x, y = across(point.x), up(point.y)
        kind = "on" if point.marked else "off"
        caption = escape(f"{point.label}: {number(point.y)} at {number(point.x)}")
        parts.append(
            f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" y1="{up(point.low):.1f}" y2="{up(point.high):.1f}"/>'
        )
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{caption}</title></circle>')
        parts.append(f'<text class="mark" x="{x + 7:.1f}" y="{y - 6:.1f}">{place}</text>')
    better = f" {ARROWS[metric.better]} is better" if metric.better else ""
    description = escape(f"{title}. {len(points)} strategies.{better}")
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{description}">{"".join(parts)}</svg>'
    legend = [(place, point.label, point.marked) for place, point in enumerate(points, 1)]
    return Plot(title=title, about=about, svg=svg, legend=legend)


class _Axis:
    """Maps data values to pixels, with a margin on both sides, and chooses round values for ticks."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
        self.low, self.high, self.start, self.end = low - margin, high + margin, start, end

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return four to eight round values in the range of the axis."""
        step = 10 ** math.floor(math.log10((self.high - self.low) / 4))
        step = next(step * times for times in (1, 2, 5, 10) if (self.high - self.low) / (step * times) <= 8)
        first = math.ceil(self.low / step)
        return [place * step for place in range(first, math.floor(self.high / step) + 1)]


def _axes(across: _Axis, up: _Axis, xlabel: str, ylabel: str) -> list[str]:
    """Return the elements of two axes with ticks, grid lines and labels."""
    base, middle = HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2
    parts = []
    for value in across.ticks():
        parts.append(f'<line class="grid" x1="{across(value):.1f}" x2="{across(value):.1f}" y1="{TOP}" y2="{base}"/>')
        parts.append(
            f'<text class="tick" text-anchor="middle" x="{across(value):.1f}" y="{base + 16}">{value:.4g}</text>'
        )
    for value in up.ticks():
        y = up(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" text-anchor="end" x="{LEFT - 6}" y="{y + 4:.1f}">{value:.4g}</text>')
    centre = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="name" text-anchor="middle" x="{centre}" y="{HEIGHT - 10}">{escape(xlabel)}</text>')
    turned = f'transform="rotate(-90 14 {middle})"'
    parts.append(f'<text class="name" text-anchor="middle" x="14" y="{middle}" {turned}>{escape(ylabel)}</text>')
    return parts
