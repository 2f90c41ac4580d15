"""Specs of the cascades: a small model generates, and a large model gives the tokens that matter."""

from __future__ import annotations

from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec

SPECS = [
    Spec(
        name="cascade",
        family="cascade",
        summary="Generate with a small model, and take a token from a large model where a deferral rule says so.",
        source="arXiv:2405.19261",
        target="logitkit.processors.cascade.token:Cascade",
        revision=4,
        formula="pi(v) = q(v) [v in A] + p(v) q(not A);  q, p: small and large model, A: accepted tokens",
        needs_models=("large",),
        needs=("large: a larger model with the same tokenizer; with different tokenizers, both as byte models",),
        extra_forwards="gated",
        cost="one forward of the large model where the rule needs it, which also reads the positions skipped before",
        failure="diff and token_v1 never defer where the small model is certain and wrong, at any alpha; a rule "
        "that compares both models saves no forward here; write | speculate() behind it",
        discards=True,
        example="cascade(large='other', rule='token_v3', alpha=0.3)",
        example_resources={"other": "model"},
    ),
    Spec(
        name="router",
        family="cascade",
        summary="Generate with a small model, and let a network on its hidden state route tokens to a large model.",
        source="arXiv:2505.21600",
        target="logitkit.processors.cascade.router:Router",
        revision=4,
        formula="p where head(hidden state, largest logits, embedding of the likeliest token) > threshold, else q",
        needs_models=("large",),
        needs_files=("head",),
        needs=(
            "large: a larger model with the same tokenizer",
            "head: a head trained for these two models, or an uncertainty that needs no training",
        ),
        extra_forwards="gated",
        cost="one forward of the large model at routed tokens, which also reads the positions skipped before",
        failure="a head fails on texts unlike those of its training; the threshold sets the rate, not the quality",
        discards=True,
        example="router(large='other', head='entropy', threshold=0.95)",
        example_resources={"other": "model"},
    ),
    Spec(
        name="crossover",
        family="cascade",
        summary="Take the token of another model at the positions of largest disagreement, within a budget.",
        source="arXiv:2603.22446",
        target="logitkit.processors.cascade.crossover:Crossover",
        revision=4,
        formula="r where JS(b, r) > threshold and used < budget, else b;  b: generating model, r: other model",
        needs_models=("other",),
        needs=("other: a model with the same tokenizer",),
        extra_forwards="every_step",
        cost="one forward of the other model",
        failure="a threshold near 0 uses the budget at the first positions; compare with measure='random' at "
        "the same rate",
        discards=True,
        example="crossover(other='other', threshold=0.3, budget=0.5)",
        example_resources={"other": "model"},
    ),
]


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Return the token-level methods; sequence-level cascades are in `logitkit.processors.cascade.sequence`."""
    return SPECS
