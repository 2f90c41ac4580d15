"""Bootstrap intervals of the studies: the recipe of the benchmark, and its text form.

All studies use `bootstrap_interval`: BCa intervals at 95 % from 9999 resamples with the seed 0, paired over items.
"""

from __future__ import annotations

from collections.abc import Sequence

from logitkit.bench.report import Interval, bootstrap_interval

__all__ = ["Interval", "bootstrap_interval", "interval_text"]


def interval_text(interval: Sequence[float], form: str = ".3f") -> str:
    """Return an interval as ``mean [low, high]``.

    Args:
        interval: mean, low end and high end.
        form: format of the numbers.

    Examples:
        >>> interval_text((0.5, 0.25, 0.75), "+.2f")
        '+0.50 [+0.25, +0.75]'
    """
    mean, low, high = interval
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"
