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
        summary="Choose the best of several sequences by likelihood or by the certainty of the model.",
        source="arXiv:2502.18581",
        target=f"{PACKAGE}.best_of:BestOf",
        formula="likelihood: sum log p(x_t);  self_certainty: mean over t of -1/V sum_v log(V p(v))",
        extra_forwards="rows",
        cost="n rows in place of one",
        failure="the likeliest of many samples is often short, or repeats itself; use mean_likelihood or mbr",
        example="best_of(n=3)",
    ),
]


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Return the searches and the selectors."""
    return [*SEARCH_SPECS, *SELECTOR_SPECS]
