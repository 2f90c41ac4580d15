"""Sequence-level deferral rules: scores, areas under the deferral curve (AUC-DF), and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor

from logitkit.processors.cascade import area_under_deferral_curve, length_bias, sequence_score
from studies.intervals import interval_text
from studies.tables import markdown_table


def sequence_scores(logps: Tensor, mask: Tensor, quantiles: Sequence[float]) -> dict[str, Tensor]:
    """Return the score of every sequence under each rule that needs no training, ``[sequences]``.

    Args:
        logps: log-probabilities (nats) of the generated tokens, ``[sequences, tokens]``.
        mask: which entries are tokens, bool of the same shape.
        quantiles: levels of the quantile rule, 0 to 1.
    """
    scores = {"sum": sequence_score(logps, mask, "sum"), "average": sequence_score(logps, mask, "average")}
    for level in quantiles:
        scores[f"quantile {level:g}"] = sequence_score(logps, mask, "quantile", alpha=level)
    return scores


def deferral_area(score: ArrayLike, small: ArrayLike, large: ArrayLike, lengths: ArrayLike) -> dict[str, Any]:
    """Return the area under the deferral curve of a score with its interval, and the score's length bias.

    Args:
        score: score of each sequence; low scores are deferred first.
        small, large: quality of each sequence under the small and the large model.
        lengths: tokens of each sequence.
    """
    return vars(area_under_deferral_curve(score, small, large)) | {"length_bias": length_bias(score, lengths)}


def area_table(rules: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the areas of `deferral_area` by rule as Markdown."""
    rows = []
    for name, results in rules.items():
        area = interval_text([results["area"], *results["interval"]], "+.3f")
        gain = interval_text([results["gain"], *results["gain_interval"]], "+.3f")
        rows.append([name, area, gain, f"{results['length_bias']:+.2f}"])
    return markdown_table(["rule", "AUC-DF", "gain over random", "length bias"], rows)
