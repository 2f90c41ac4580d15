"""Tables and plot of `studies.small_pair`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studies.cascade_sequences import area_table
from studies.intervals import interval_text
from studies.plots import new_figure
from studies.tables import markdown_table


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw quality against the share of tokens from the other model; writes nothing without matplotlib."""
    figure = new_figure(11, 4)
    if figure is None:
        return
    panels = figure.subplots(1, 3, sharey=True)
    lines: list[dict[str, list[tuple[float, float]]]] = [{}, {}, {}]
    for row in results["tokens"]:
        rule = row["chain"].split("'")[3]
        lines[0].setdefault(rule, []).append((row["rate"], row["right"][0]))
    for row in results["router"][1:]:
        lines[1].setdefault(row["head"], []).append((row["rate"], row["right"][0]))
    for row in results["crossover"]:
        lines[2].setdefault(f"{row['direction']} {row['measure']}", []).append((row["rate"], row["right"][0]))
    for panel, title, points_by_name in zip(panels, ("token rules", "routers", "crossover"), lines, strict=True):
        for name, points in points_by_name.items():
            style = ":" if "random" in name else "-"
            panel.plot(*zip(*sorted(points), strict=True), marker=".", label=name, linestyle=style)
        panel.set(title=title, xlabel="share of tokens from the other model")
        panel.legend(fontsize=6)
    panels[0].set_ylabel("share of right sums")
    figure.savefig(path, dpi=100)


def tables(results: dict[str, Any], count: int) -> str:
    """Return all results as Markdown."""
    alone = ", ".join(f"{name} {interval_text(right)}" for name, right in results["alone"].items())
    report, *routed = results["router"]
    areas = results["sequences"]
    rates = [[f"`{row['chain']}`", f"{row['rate']:.3f}", interval_text(row["right"])] for row in results["tokens"]]
    switched = [
        [
            row["direction"],
            row["measure"],
            str(row["budget"]),
            f"{row['rate']:.3f}",
            interval_text(row["right"]),
        ]
        for row in results["crossover"]
    ]
    routes = [[row["head"], str(row["threshold"]), f"{row['rate']:.3f}", interval_text(row["right"])] for row in routed]
    parts = [
        f"{count} sums. Alone: {alone}.",
        "Token rules, small to tuned.",
        markdown_table(["rule", "deferral rate", "right"], rates),
        "Crossover.",
        markdown_table(["direction", "measure", "budget", "swapped", "right"], switched),
        f"Routers, small to tuned. The trained head on held-out tokens: {json.dumps(report)}.",
        markdown_table(["head", "threshold", "routed", "right"], routes),
        f"Sequence rules, {areas['items']} sums: small {areas['small']:.3f}, tuned {areas['large']:.3f}.",
        area_table(areas["rules"]),
    ]
    return "\n\n".join(parts)
