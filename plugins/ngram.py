"""N-gram style injection: favour what a corpus, or the prompt, would say next."""

from __future__ import annotations

from typing import Any

from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec

LIFT = "log p + weight sum_n w_n log((count_n + k) / k)  over the orders n whose context occurs"


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Offer style injection from a table and from the prompt."""
    return [
        Spec(
            name="ngram_style",
            family="style",
            summary="Favour what a corpus would say next, by the counts of its n-grams.",
            source="arXiv:2601.16224",
            target="logitkit.processors.ngram.style:NgramStyle",
            formula=f"{LIFT};\nrule literal (as published; penalises the style): + weight sum_n w_n log P_n(token)",
            needs=("table: a file from `logitkit train-ngram`, or an NgramTable passed to bind by name",),
            cost="none",
            failure="a large weight repeats the corpus: raise it until distinct-3 falls, or set target_js",
            example="ngram_style(table='style')",
            fixture="logitkit.plugins.ngram:example_tables",
        ),
        Spec(
            name="ngram_context",
            family="style",
            summary="Favour the prompt's own wording: copying and citing from retrieved text.",
            source="arXiv:2601.16224",
            target="logitkit.processors.ngram.context:NgramContext",
            formula=f"{LIFT}, counted in the prompt",
            cost="none",
            failure="a prompt of instructions is repeated too: give the source alone as context",
            example="ngram_context(weight=0.2)",
        ),
    ]


def example_tables(model: Any, tokenizer: Any) -> dict[str, Any]:
    """A table of a few sentences, for the laws."""
    from logitkit.processors.ngram.table import NgramTable

    return {"style": NgramTable.train(["a prompt of the other text", "the text of a prompt, the other one"], tokenizer)}
