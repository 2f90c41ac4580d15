"""Specs of the searches over the law of a chain, and of the selectors among their sequences."""

from __future__ import annotations

from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec

PACKAGE = "logitkit.processors.searches"

SEARCH_SPECS = [
    Spec(
        name="smc",
        kind="search",
        family="searches",
        summary="Sample whole texts from a target distribution with weighted particles (sequential Monte Carlo).",
        source="arXiv:2510.14901, arXiv:2602.10273, arXiv:2603.05432",
        target=f"{PACKAGE}.smc:SMC",
        needs_models=("models",),
        needs_files=("log_weight",),
        formula="q(v) ~ gamma(x v),  log w += log sum_v gamma(x v) - log gamma(x);  power: gamma(x) = p(x)^alpha",
        needs=(
            "models: other models with the tokenizer of the generating model (targets product, min, power_mean)",
            "target 'constraint': a constraint step before smc, such as grammar or choices",
            "log_weight: a function of rows of token ids, passed to bind under its name",
        ),
        extra_forwards="rows",
        cost="a row for each particle in place of one; a forward of each of the models",
        failure="few particles for a sharp target: the effective sample size in the trace falls to 1; raise particles",
        example="smc(particles=3)",
    ),
]

SELECTOR_SPECS = [
    Spec(
        name="best_of",
        kind="selector",
        family="selectors",
        summary="Choose the best of several sequences by likelihood, certainty, frequency, or a judge of yours.",
        source="arXiv:2502.18581, arXiv:2203.11171",
        target=f"{PACKAGE}.best_of:BestOf",
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
        source="arXiv:2005.10283",
        target=f"{PACKAGE}.mbr:MBR",
        needs_files=("utility",),
        formula="arg max_i sum_(j != i) w_j utility(x_i, x_j) / sum_(j != i) w_j",
        needs=("utility: a function(hypothesis, reference), passed to bind under its name, unless it is built in",),
        extra_forwards="rows",
        cost="n rows in place of one",
        failure="where all samples share a fault, it keeps the fault; n(n-1) utilities are computed for each prompt",
        example="mbr(n=3)",
    ),
]


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Return the searches and the selectors."""
    return [*SEARCH_SPECS, *SELECTOR_SPECS]
