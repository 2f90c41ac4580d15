"""Bytes: what only the law of the next byte can say."""

from __future__ import annotations

from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Offer the methods over bytes."""
    return [
        Spec(
            name="byte_ensemble",
            family="bytes",
            summary="Mix or multiply the next-byte laws of models with any tokenizers, byte by byte or as whole texts.",
            source="arXiv:2410.09303, arXiv:2506.14123, arXiv:2412.03719",
            target="logitkit.processors.byteensemble:ByteEnsemble",
            formula="log sum_i w_i p_i  or  sum_i w_i log p_i;  sequence: w_i grows with p_i(written so far)",
            needs=("a ByteModel as the generating model", "models: ByteModels, or models with their tokenizers"),
            cost="one short forward of each model a byte, about four a token of English",
            failure="bytes are slow; sequence soon trusts one model alone, as long texts tell models apart",
            example="byte_ensemble(models=['byte_model'])",
            fixture="logitkit.registry.byte_subjects:byte_models",
        ),
    ]
