"""Specs of the byte-level methods: distributions over bytes, computed from models over tokens."""

from __future__ import annotations

from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec

SPECS = [
    Spec(
        name="byte_boundary",
        family="byte_level",
        summary="Continue a prompt that ends inside a token, by the model's exact conditional distribution.",
        source="arXiv:2410.09303, arXiv:2506.14123",
        target="logitkit.processors.byte_level.boundary:ByteBoundary",
        formula="p(r | t) P(the bytes that are still missing follow t r);  t: tokens so far, r: next token"
        "\nunchanged once the bytes that were cut from the prompt are written",
        extra_forwards="prompt",
        rewrites_prompt=True,
        cost="the prompt once more, and one forward over the positions inside the cut token",
        revision=7,
        failure="the cut tokens are generated again and count towards max_new_tokens; chat prompts are not cut",
    ),
    Spec(
        name="byte_ensemble",
        family="byte_level",
        summary="Mix or multiply the next-byte distributions of models with any tokenizers.",
        source="arXiv:2410.09303, arXiv:2506.14123, arXiv:2412.03719",
        target="logitkit.processors.byte_level.ensemble:ByteEnsemble",
        revision=7,
        formula="log sum_i w_i p_i  or  sum_i w_i log p_i;  fuse='sequence': w_i also times p_i(text so far)",
        needs_models=("models",),
        needs=(
            "a ByteModel as the generating model",
            "models: ByteModels, or models together with their tokenizers",
        ),
        extra_forwards="every_byte",
        cost="one short forward of each model a byte, about four a token of English",
        modes={"tokens": "the generating model must be a ByteModel; set bytes: true for the model"},
        failure="generation by bytes is slow; fuse='sequence' gives nearly all weight to one model on long texts",
        example="byte_ensemble(models=['other'])",
        example_resources={"other": "byte_model"},
    ),
]


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Return the exact prompt boundary and the ensemble over bytes."""
    return SPECS
