"""Report of `studies.style_sweep`: a Markdown table, a plot, and the usable range of weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.plots import new_figure
from studies.tables import markdown_table

if TYPE_CHECKING:
    from studies.style_sweep import SweepRow

# A weight is usable if it lowers style perplexity by GAIN or more, raises base perplexity by LOSS or less, and keeps at
# least the share VARIETY of plain decoding's distinct-3.
GAIN, LOSS, VARIETY = 0.25, 0.10, 0.9
COLUMNS = (
    *("rule", "weight", "style ppl", "gain", "held-out ppl", "gain", "base ppl", "(10-90 %)", "mean", "change"),
    *("JS bits", "unigram overlap", "bigram seen", "held-out", "distinct-3", "rep-4", "usable"),
)


def usable(row: SweepRow, plain: SweepRow) -> bool:
    """Return whether a weight is usable, compared with plain decoding; see `GAIN`, `LOSS` and `VARIETY`."""
    return (
        row.style.geometric <= (1 - GAIN) * plain.style.geometric
        and row.base.geometric <= (1 + LOSS) * plain.base.geometric
        and row.distinct_3 >= VARIETY * plain.distinct_3
    )


def ranges(rows: Sequence[SweepRow]) -> dict[str, list[float]]:
    """Return for each rule the longest sequence of neighbouring usable weights; empty if no weight is usable."""
    plain = next(row for row in rows if row.rule == "none")
    results: dict[str, list[float]] = {}
    for rule in dict.fromkeys(row.rule for row in rows if row.rule != "none"):
        best: list[float] = []
        current: list[float] = []
        for row in sorted((row for row in rows if row.rule == rule), key=lambda row: row.weight):
            current = [*current, row.weight] if usable(row, plain) else []
            best = current if len(current) > len(best) else best
        results[rule] = best
    return results


def report(rows: Sequence[SweepRow], *, about: str) -> str:
    """Return the sweep as Markdown.

    Perplexities are geometric means over texts; the column ``mean`` is the arithmetic mean.

    Args:
        rows: the measured configurations, plain decoding among them.
        about: a line about the measurement.
    """
    plain = next(row for row in rows if row.rule == "none")
    table = []
    for row in rows:
        cells = (
            row.rule,
            f"{row.weight:g}",
            f"{row.style.geometric:.0f}",
            _percent(1 - row.style.geometric / plain.style.geometric),
            f"{row.held_out.geometric:.0f}",
            _percent(1 - row.held_out.geometric / plain.held_out.geometric),
            f"{row.base.geometric:.2f}",
            f"{row.base.low:.2f}-{row.base.high:.2f}",
            f"{row.base.arithmetic:.2f}",
            _percent(row.base.geometric / plain.base.geometric - 1),
            f"{row.js_bits:.3f}",
            f"{row.unigram_overlap:.3f}",
            f"{row.bigram_seen:.3f}",
            f"{row.held_out_bigrams:.3f}",
            f"{row.distinct_3:.2f}",
            f"{row.repetition_4:.2f}",
            "yes" if row.rule != "none" and usable(row, plain) else "",
        )
        table.append(cells)
    criterion = f"Usable: style perplexity at least {GAIN:.0%} lower, base perplexity at most {LOSS:.0%} higher, "
    criterion += f"distinct-3 at least {VARIETY:g} of plain decoding."
    lines = [about, "", markdown_table(COLUMNS, table), "", criterion]
    for rule, weights in ranges(rows).items():
        usable_range = f"{weights[0]:g} to {weights[-1]:g}" if weights else "none of those measured"
        lines.append(f"- {rule}: {usable_range}")
    return "\n".join(lines) + "\n"


def _percent(share: float) -> str:
    """Return a share as a signed percentage."""
    return f"{share:+.0%}"


def plot(rows: Sequence[SweepRow], path: Path, *, title: str) -> Path | None:
    """Draw style perplexity, base perplexity and distinct-3 against the weight.

    Returns:
        The path of the plot; None if matplotlib is not installed.
    """
    figure = new_figure(11, 3.6)
    if figure is None:
        return None
    plain = next(row for row in rows if row.rule == "none")
    panels: list[tuple[str, Any]] = [
        ("style perplexity / plain", lambda row: row.style.geometric / plain.style.geometric),
        ("base perplexity / plain", lambda row: row.base.geometric / plain.base.geometric),
        ("distinct-3 / plain", lambda row: row.distinct_3 / plain.distinct_3),
    ]
    bounds = (1 - GAIN, 1 + LOSS, VARIETY)
    for axis, (label, value), bound in zip(figure.subplots(1, len(panels)), panels, bounds, strict=True):
        for rule in dict.fromkeys(row.rule for row in rows if row.rule not in ("none", "target_js")):
            line = sorted((row for row in rows if row.rule == rule), key=lambda row: row.weight)
            axis.plot([0, *(row.weight for row in line)], [1, *map(value, line)], marker="o", markersize=3, label=rule)
        axis.axhline(bound, color="grey", linewidth=0.8, linestyle="--")
        axis.set(xlabel="weight", ylabel=label, yscale="log" if label.startswith("style") else "linear")
    figure.axes[0].legend(fontsize=8)
    figure.suptitle(title, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    return path
