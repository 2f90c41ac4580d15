"""Specs of the steps about the tokens of a text."""

from __future__ import annotations

from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec

SPECS = [
    Spec(
        name="canonical",
        family="canonical",
        revision=2,
        summary="Let the continuation be written in the tokens that the tokenizer itself would write.",
        source="arXiv:2601.14658",
        target="logitkit.processors.canonical:Canonical",
        formula="-inf for v where no continuation makes x v begin an encoding;"
        "\nend tokens: allowed where encode(decode(x)) = x",
        failure="renormalised token by token, which is not the distribution of whole canonical texts; "
        "tokenizers without rules take up to seconds a step",
        forbids=True,
        merged_tokens=True,
        example="canonical()",
    ),
    Spec(
        name="retokenize",
        family="canonical",
        summary="Average the model over the prompt in its own tokens and in random re-splits of them.",
        source="arXiv:2506.01687",
        target="logitkit.processors.canonical:Retokenize",
        formula="log((p_1 + ... + p_k) / k);  p_1: the prompt in its own tokens;"
        "\np_2, ..., p_k: tokens of the prompt split into pairs with the same bytes",
        extra_forwards="every_step",
        cost="k - 1 forwards, as rows of one forward where streams are fused",
        failure="a model that has seldom read such splits is worse behind them; lower share",
        merged_tokens=True,
        example="retokenize(k=3, share=0.5)",
    ),
]


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Return the Specs of the family."""
    return SPECS
