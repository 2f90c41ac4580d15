"""The byte family: laws over bytes from models over tokens."""

from __future__ import annotations

from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Offer what works on bytes."""
    return [
        Spec(
            name="byte_boundary",
            family="bytes",
            summary="Continue a prompt cut anywhere, inside a token too, by the model's exact conditional law.",
            source="arXiv:2410.09303, arXiv:2506.14123",
            target="logitkit.processors.byte_level.boundary:ByteBoundary",
            formula="p(r | t) P(the removed bytes not yet spelled follow t r), until all are spelled; then nothing",
            cost="the prompt once more, and a forward over the places inside the cut token; none after the boundary",
            failure="the new tokens begin with the cut ones, which max_new_tokens counts; chat prompts are not cut",
        ),
        Spec(
            name="byte_ensemble",
            family="bytes",
            summary="Mix or multiply the next-byte laws of models with any tokenizers, byte by byte or as whole texts.",
            source="arXiv:2410.09303, arXiv:2506.14123, arXiv:2412.03719",
            target="logitkit.processors.byte_level.ensemble:ByteEnsemble",
            formula="log sum_i w_i p_i  or  sum_i w_i log p_i;  sequence: w_i grows with p_i(written so far)",
            needs=("a ByteModel as the generating model", "models: ByteModels, or models with their tokenizers"),
            cost="one short forward of each model a byte, about four a token of English",
            modes={"tokens": "its generating model must be a ByteModel; write bytes: true for the model"},
            failure="bytes are slow; sequence soon trusts one model alone, as long texts tell models apart",
            example="byte_ensemble(models=['byte_model'])",
            fixture="logitkit.registry.laws.byte_subjects:byte_models",
        ),
    ]
