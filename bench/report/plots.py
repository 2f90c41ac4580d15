"""Plots of a summary as inline SVG, without scripts, fonts or links; the page's style sheet sets the colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from logitkit.bench.report.marks import marks
from logitkit.bench.report.summary import StrategyRow, Summary, TaskTable
from logitkit.bench.report.wording import ARROWS, FUSED, agreeing, counted, number
from logitkit.bench.tasks.task import Metric
from logitkit.registry.chain import Chain

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 16, 48
ROOM = (LEFT, 0, WIDTH, HEIGHT - BOTTOM)  # where the marks of points may stand: left, top, right, bottom
ROUNDS = 5  # rounds of timing from which the range of the cost holds its median with a confidence of 94 %

READING = """\
Vertical bars: 95 % intervals. Horizontal bars: the cost from the lowest to the highest paired round, or the 95 %
interval of forwards per step over batches. Open circle: dominated, that is another strategy is shown to be better
(Holm's correction over all pairs) and the ranges of cost show that it costs no more. Each point has its number in the
list below the plot, and its name where there is room."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One strategy in a plot.

    Attributes:
        x, y: coordinates in data units.
        low, high: interval of ``y``.
        label: name of the strategy.
        left, right: interval of ``x``; None without one.
        note: what the legend adds to the name; a point with a note is not filled.
    """

    x: float
    y: float
    low: float
    high: float
    label: str
    left: float | None = None
    right: float | None = None
    note: str = ""

    @property
    def across(self) -> tuple[float, float]:
        """The interval of ``x``, a point without one."""
        return (self.x if self.left is None else self.left, self.x if self.right is None else self.right)


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot.

    Attributes:
        title: title of the plot.
        about: what the plot does not show; `READING` says how to read all plots.
        svg: the drawing; names in it are escaped.
        legend: for each point its number, its strategy and the note to it.
    """

    title: str
    about: str
    svg: str
    legend: Sequence[tuple[int, str, str]]


def plots(summary: Summary) -> list[Plot]:
    """Return a plot of quality against cost for each task, then the plots of sweeps."""
    of_quality = [plot for table in summary.tables if (plot := _quality(summary, table))]
    return of_quality + [plot for table in summary.tables for plot in _sweeps(summary, table)]


def _quality(summary: Summary, table: TaskTable) -> Plot | None:
    """Return a plot of a task's metric `chart_metric` against cost; None for fewer than two points."""
    metric, prices = next(metric for metric in table.metrics if metric.name == table.chart), _prices(summary, table)
    if metric.better is None:
        return None
    rows = [row for row in table.rows if row.chain in prices]
    drawn = [row for row in rows if math.isfinite(row.cells[metric.name].value)]
    if len(drawn) < 2:
        return None
    timed = summary.costs.get(table.model)
    rounds = min(cost.rounds for cost in timed.values()) if timed else ROUNDS
    better = table.better if rounds >= ROUNDS else {}
    beaten = dominated({row.chain: prices[row.chain] for row in drawn}, better)
    points = []
    for row in drawn:
        cell, (price, left, right) = row.cells[metric.name], prices[row.chain]
        note = f"dominated by {', '.join(beaten[row.chain])}" if beaten[row.chain] else ""
        place = {"x": price, "y": cell.value, "low": cell.low, "high": cell.high, "left": left, "right": right}
        points.append(Point(**place, label=row.chain, note=note))
    xlabel = f"time / time of {summary.run.compared_with}" if timed else "forwards per step"
    title = f"{table.task}, {table.model}: {metric.name} against cost"
    return _plot(title, _about(table, metric, rows, drawn, rounds if timed else None), points, xlabel, metric)


def _prices(summary: Summary, table: TaskTable) -> dict[str, tuple[float, float, float]]:
    """Return the cost of each strategy with its range: measured time, or forwards per step where none was measured."""
    if table.model in summary.costs:
        return {name: (cost.ratio, cost.low, cost.high) for name, cost in summary.costs[table.model].items()}
    prices = {}
    for row in table.rows:
        if row.forwards is not None and row.forwards_low is not None and row.forwards_high is not None:
            prices[row.chain] = row.forwards, row.forwards_low, row.forwards_high
    return prices


def dominated(
    prices: Mapping[str, tuple[float, float, float]], better: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Return the strategies that dominate each strategy: they are shown to be better, and cost no more.

    A strategy costs no more if the upper end of its range of cost is not above the lower end of the other's.
    Strategies whose ranges overlap do not dominate each other, whatever their means are.

    Args:
        prices: for each strategy its cost, and the ends of the range of its cost.
        better: for each strategy the strategies that are shown to be better.

    Examples:
        >>> prices = {"a": (1.0, 1.0, 1.0), "b": (1.0, 1.0, 1.0), "c": (2.0, 0.9, 2.5)}
        >>> dominated(prices, {"a": ["b", "c"]})
        {'a': ['b'], 'b': [], 'c': []}
    """
    return {
        name: [other for other in better.get(name, ()) if other in prices and prices[other][2] <= lowest]
        for name, (_, lowest, _) in prices.items()
    }


def _about(
    table: TaskTable, metric: Metric, rows: Sequence[StrategyRow], drawn: Sequence[StrategyRow], rounds: int | None
) -> str:
    """Return what a plot of quality against cost does not show; ``rounds`` of timing, None for forwards per step."""
    sentences = [FUSED] if rounds is None else []
    if rounds is not None and rounds < ROUNDS:
        few = f"{counted(rounds, 'round')} of timing {agreeing(rounds, 'is')} too few"
        sentences.append(f"{few} to call a strategy dominated.")
    first = table.metrics[0]
    if metric.name != first.name:
        cell = table.rows[0].cells[first.name]
        width = f"{cell.high - cell.low:.2f}"
        many = counted(cell.samples, "sample")
        sentences.append(f"No plot of {first.name}: with {many} its interval is {width} wide.")
    absent = [row.chain for row in rows if row not in drawn]
    if absent:
        sentences.append(f"Not drawn, because {metric.name} is infinite: {', '.join(absent)}.")
    return " ".join(sentences)


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
                    Point(x=x, y=cells[c].value, low=cells[c].low, high=cells[c].high, label=c)
                    for c, x in sorted(places.items(), key=lambda item: item[1])
                    if math.isfinite(cells[c].value)
                ]
                if len(points) > 2 and len({point.y for point in points}) > 1:
                    title = f"{table.task}, {table.model}: {metric.name} against {label}"
                    about = ""
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
    title: str, about: str, points: Sequence[Point], xlabel: str, metric: Metric, *, line: Sequence[Point] = ()
) -> Plot:
    """Draw points with their intervals, and a line through the points in ``line``."""
    xs, ys = [x for point in points for x in point.across], [y for point in points for y in (point.low, point.high)]
    across, up = _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT), _Axis(min(ys), max(ys), HEIGHT - BOTTOM, TOP)
    unit = f", {metric.unit}" if metric.unit else ""
    parts = [f"<title>{escape(title)}</title>", *_axes(across, up, xlabel, f"{metric.name}{unit}")]
    joined = " ".join(f"{across(point.x):.1f},{up(point.y):.1f}" for point in sorted(line, key=lambda point: point.x))
    parts += [f'<polyline class="line" points="{joined}"/>'] if line else []
    texts = marks([(across(point.x), up(point.y), point.label) for point in points], ROOM)
    for place, point in enumerate(points):
        x, y = across(point.x), up(point.y)
        kind = "off" if point.note else "on"
        left, right = map(across, point.across)
        caption = escape(f"{point.label}: {number(point.y)} at {number(point.x)}")
        parts.append(
            f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" y1="{up(point.low):.1f}" y2="{up(point.high):.1f}"/>'
        )
        if left < right:
            parts.append(f'<line class="bar" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{caption}</title></circle>')
        parts.append(texts[place])
    better = f" {ARROWS[metric.better]} is better" if metric.better else ""
    description = escape(f"{title}. {counted(len(points), 'strategy')}.{better}")
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{description}">{"".join(parts)}</svg>'
    legend = [(place, point.label, point.note) for place, point in enumerate(points, 1)]
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
