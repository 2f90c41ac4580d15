"""Shared parts of the pages of evidence: the split of items, paired comparisons with their power, and the pages.

The half of an item follows from its name alone, so that a longer run never moves an item. Settings are chosen on the
development half; every comparison that a page reports is made on the held-out half, or where nothing was chosen on all
items. `comparison_table` corrects for all comparisons of a table (Holm) and states what each could have seen.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

from logitkit.bench.report import bootstrap_interval, holm, sign_flips
from studies.intervals import interval_text
from studies.tables import markdown_table

Half = Literal["development", "held-out"]
LEVEL, POWER = 0.05, 0.8  # of the two-sided tests whose power is stated
RESULTS = re.compile(r"(<!-- results: (\w+) -->).*?(<!-- end -->)", re.DOTALL)


class PairedDifferences(NamedTuple):
    """A comparison: what is compared, its unit, and the difference of every item."""

    comparison: str
    unit: str
    differences: Sequence[float]


def item_id(text: str) -> str:
    """Return a short name of an item made of a text of a data set, which results files do not repeat.

    Examples:
        >>> item_id("Who wrote the play Hamlet?")
        'bb4ac74fc05c'
    """
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def half_of(item: str, share: float = 1 / 3) -> Half:
    """Return the half of an item, drawn from a hash of its name.

    Args:
        item: a name that identifies the item within its data set.
        share: share of the items that are for development.

    Examples:
        >>> [half_of(f"question {number}") for number in range(4)]
        ['held-out', 'development', 'held-out', 'held-out']
    """
    draw = int.from_bytes(hashlib.sha256(item.encode()).digest()[:8], "big") / 2**64
    return "development" if draw < share else "held-out"


def smallest_seen(differences: Sequence[float]) -> float:
    """Return the smallest true mean difference that a two-sided test at 5 % sees in 80 % of such samples.

    The normal approximation, without the correction for several comparisons: 2.80 standard errors of the mean.

    Examples:
        >>> round(smallest_seen([-1.0, 1.0] * 50), 3)
        0.282
    """
    if len(differences) < 2:
        return math.nan
    return _distance() * float(np.std(differences, ddof=1)) / math.sqrt(len(differences))


def items_to_see(differences: Sequence[float], difference: float) -> int:
    """Return the number of items with which a mean difference would be seen; see `smallest_seen`.

    Examples:
        >>> items_to_see([-1.0, 1.0] * 50, 0.1)
        793
    """
    return needed_items(float(np.std(differences, ddof=1)), difference)


def needed_items(spread: float, difference: float) -> int:
    """Return the number of items with which a mean difference would be seen.

    Args:
        spread: standard deviation of the difference of one item.
        difference: the mean difference.
    """
    return math.ceil((_distance() * spread / difference) ** 2)


def _distance() -> float:
    """Return the sum of the quantiles of the level and of the power."""
    return NormalDist().inv_cdf(1 - LEVEL / 2) + NormalDist().inv_cdf(POWER)


def comparison_table(compared: Sequence[PairedDifferences], form: str = "+.3f") -> str:
    """Return paired differences with intervals, corrected p-values and power.

    Args:
        compared: the comparisons of one table, over which p-values are corrected.
        form: format of the differences.
    """
    ps = holm([sign_flips(np.asarray(one.differences, dtype=float)) for one in compared])
    rows = [
        [
            one.comparison,
            one.unit,
            str(len(one.differences)),
            interval_text(bootstrap_interval(one.differences), form),
            f"{p:.3f}" if p >= 0.001 else "<0.001",
            f"{smallest_seen(one.differences):{form.lstrip('+')}}",
        ]
        for one, p in zip(compared, ps, strict=True)
    ]
    headings = ["difference", "unit", "items", "mean, 95 %", "p (Holm)", "seen with 80 % power"]
    return markdown_table(headings, rows)


def write_results(page: Path, results: dict[str, str]) -> None:
    """Replace the parts of a page between ``<!-- results: NAME -->`` and ``<!-- end -->``; others stay as they are."""
    text = page.read_text(encoding="utf-8")
    page.write_text(
        RESULTS.sub(
            lambda part: f"{part[1]}\n\n{results[part[2]]}\n\n{part[3]}" if part[2] in results else part[0], text
        ),
        encoding="utf-8",
    )
