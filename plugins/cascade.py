"""Cascades: a small model writes, a large one steps in where it matters."""

from __future__ import annotations

from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Offer the token-level methods; sequence-level cascades are in `logitkit.processors.cascade.sequence`."""
    return [
        Spec(
            name="cascade",
            family="cascades",
            summary="A small model writes; where a rule does not trust it, a large one gives the token.",
            source="arXiv:2405.19261",
            target="logitkit.processors.cascade.token:Cascade",
            formula="pi(v) = q(v) [v in A] + p(v) q(not A);  A: the tokens that the rule trusts (q small, p large)",
            needs=("large: a larger model with the same tokenizer (for another tokenizer, both as byte models)",),
            cost="one forward of the large model at steps where the rule needs it; it catches up in one chunk",
            failure="diff and token_v1 keep a small model that is sure and wrong, whatever alpha; "
            "a rule that needs the large law at every step saves nothing here: use the speculative form",
            discards=True,
            example="cascade(large='other', rule='token_v3', alpha=0.3)",
        ),
        Spec(
            name="router",
            family="cascades",
            summary="A small network on the small model's state sends the tokens that matter to a large model.",
            source="arXiv:2505.21600",
            target="logitkit.processors.cascade.router:Router",
            formula="p where head(hidden state, largest logits, embedding of the likeliest token) > threshold, else q",
            needs=(
                "large: a larger model with the same tokenizer",
                "head: trained for the pair, or a training-free one",
            ),
            cost="one forward of the large model at routed steps; it catches up in one chunk",
            failure="a head knows the texts it was trained on; the threshold sets the rate, not the quality",
            discards=True,
            example="router(large='other', head='entropy', threshold=0.95)",
        ),
        Spec(
            name="crossover",
            family="cascades",
            summary="Hand the few tokens where two models disagree most to the other one, within a budget.",
            source="arXiv:2603.22446",
            target="logitkit.processors.cascade.crossover:Crossover",
            formula="r where JS(b, r) > threshold and used < budget, else b  (b generates, r is other)",
            needs=("other: a model with the same tokenizer",),
            cost="one forward of the other model",
            failure="a threshold near 0 spends the budget at once; compare with measure='random' at the same rate",
            discards=True,
            example="crossover(other='other', threshold=0.3, budget=0.5)",
        ),
    ]
