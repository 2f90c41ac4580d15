"""The sweep as a Markdown table and a plot, and the range of weights that is usable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.style_sweep import Row

GAIN, LOSS, VARIETY = 0.25, 0.10, 0.9  # at least, at most, at least: what makes a weight usable
COLUMNS = (
    "rule | weight | style ppl | gain | held-out ppl | gain | base ppl | (10-90 %) | mean | change | JS bits | "
    "unigram overlap | bigram seen | held-out | distinct-3 | rep-4 | usable"
)


def usable(row: Row, plain: Row) -> bool:
    """Style perplexity at least 25 % better, base perplexity at most 10 % worse, distinct-3 at least 0.9 of plain."""
    return (
        row.style.geometric <= (1 - GAIN) * plain.style.geometric
        and row.base.geometric <= (1 + LOSS) * plain.base.geometric
        and row.distinct_3 >= VARIETY * plain.distinct_3
    )


def ranges(rows: Sequence[Row]) -> dict[str, list[float]]:
    """For each rule its longest run of neighbouring weights that are usable; empty where none is."""
    plain = next(row for row in rows if row.rule == "none")
    found: dict[str, list[float]] = {}
    for rule in dict.fromkeys(row.rule for row in rows if row.rule != "none"):
        best: list[float] = []
        run: list[float] = []
        for row in sorted((row for row in rows if row.rule == rule), key=lambda row: row.weight):
            run = [*run, row.weight] if usable(row, plain) else []
            best = run if len(run) > len(best) else best
        found[rule] = best
    return found


def report(rows: Sequence[Row], *, about: str) -> str:
    """The sweep as Markdown; perplexities are geometric means over texts, "mean" is the arithmetic one."""
    plain = next(row for row in rows if row.rule == "none")
    lines = [about, "", f"| {COLUMNS} |", "|" + "---|" * (COLUMNS.count("|") + 1)]
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
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"Usable: style perplexity at least {GAIN:.0%} lower, base perplexity at most {LOSS:.0%} higher, "]
    lines[-1] += f"distinct-3 at least {VARIETY:g} of plain decoding."
    for rule, weights in ranges(rows).items():
        said = f"{weights[0]:g} to {weights[-1]:g}" if weights else "none of those measured"
        lines.append(f"- {rule}: {said}")
    return "\n".join(lines) + "\n"


def _percent(share: float) -> str:
    return f"{share:+.0%}"


def plot(rows: Sequence[Row], path: Path, *, title: str) -> Path | None:
    """Draw style against base perplexity and distinct-3 by weight; None where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    plain = next(row for row in rows if row.rule == "none")
    figure = Figure(figsize=(11, 3.6), layout="constrained")
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
