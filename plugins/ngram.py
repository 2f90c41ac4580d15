"""Specs of n-gram style injection: tokens that a corpus, or the prompt, often has at this place gain probability."""

from __future__ import annotations

from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec

LIFT = "log p + weight sum_n w_n log((count_n + k) / k),  over the orders n whose context occurs"


SPECS = [
    Spec(
        name="ngram_style",
        family="ngram",
        summary="Favour the tokens that follow the current context in a corpus, by n-gram counts.",
        source="arXiv:2601.16224",
        target="logitkit.processors.ngram.style:NgramStyle",
        revision=4,
        formula=f"{LIFT};\nrule='literal', as published, penalises the style: + weight sum_n w_n log P_n(token)",
        needs_tables=("table", "background"),
        needs=("table: a file written by `logitkit train-ngram`, or an NgramTable passed to bind by name",),
        failure="a large weight copies the corpus; lower it until distinct-3 recovers, or set target_js",
        example="ngram_style(table='style')",
        example_resources={"style": "ngram_table"},
    ),
    Spec(
        name="ngram_context",
        family="ngram",
        summary="Favour the wording of the prompt, to copy and cite from retrieved text.",
        source="arXiv:2601.16224",
        target="logitkit.processors.ngram.context:NgramContext",
        revision=4,
        formula=f"{LIFT};  counted in the prompt",
        failure="instructions in the prompt are copied too; set context to the retrieved text alone",
        example="ngram_context(weight=0.2)",
    ),
]


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Return style injection from a table, and from the prompt."""
    return SPECS
