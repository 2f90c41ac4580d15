"""Figures of the studies. matplotlib is optional: without it, studies write no plots."""

from __future__ import annotations

from typing import Any


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of matplotlib, sizes in inches; None if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    return Figure(figsize=(width, height), layout="constrained")
