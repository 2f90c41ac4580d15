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
            target="logitkit.processors.byteboundary:ByteBoundary",
            formula="p(r | t) P(the removed bytes not yet spelled follow t r), until all are spelled; then nothing",
            cost="the prompt once more, and a forward over the places inside the cut token; none after the boundary",
            failure="the new tokens begin with the cut ones, which max_new_tokens counts; chat prompts are not cut",
        ),
    ]
