"""Specs of canonical decoding."""

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
        example="canonical()",
    )
]


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Return the Spec of canonical decoding."""
    return SPECS
