"""Specs of the selectors, which choose among the sequences of each prompt."""

from __future__ import annotations

from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec

PACKAGE = "logitkit.processors.searches"

SPECS = [
    Spec(
        name="best_of",
        kind="selector",
        family="selectors",
        summary="Choose the best of several sequences by likelihood, certainty, frequency, or a judge of yours.",
        source="arXiv:2502.18581, arXiv:2203.11171",
        target=f"{PACKAGE}.best_of:BestOf",
        revision=2,
        needs_files=("by",),
        formula="likelihood: sum log p(x_t);  self_certainty: mean over t of -1/V sum_v log(V p(v))",
        needs=("by: a measure, or a function(prompt, text) or a reward model, passed to bind under its name",),
        extra_forwards="rows",
        cost="n rows in place of one",
        failure="the likeliest of many samples is often short, or repeats itself; use mean_likelihood or mbr",
        example="best_of(n=3)",
    ),
    Spec(
        name="mbr",
        kind="selector",
        family="selectors",
        summary="Choose the sequence that agrees best with all sequences (minimum Bayes risk).",
        source="arXiv:2005.10283, arXiv:2311.05263",
        target=f"{PACKAGE}.mbr:MBR",
        revision=3,
        needs_files=("utility",),
        formula="arg max_i sum_(j != i) w_j utility(x_i, x_j) / sum_(j != i) w_j;  behind beams w_j ~ p(x_j), with "
        "j = i",
        needs=(
            "utility: a function(hypothesis, reference) or an object with pairwise_scores, such as a metric of mbrs, "
            "passed to bind under its name, unless it is built in",
        ),
        extra_forwards="rows",
        cost="n rows in place of one",
        failure="where all samples share a fault, it keeps the fault; n(n-1) utilities are computed for each prompt",
        example="mbr(n=3)",
    ),
]


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Return the selectors."""
    return SPECS
