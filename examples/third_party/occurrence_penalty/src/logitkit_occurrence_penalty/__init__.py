"""A third-party plugin with one processor, declared as data."""

import logitkit


@logitkit.hookimpl
def logitkit_specs() -> list[logitkit.Spec]:
    """Return the Spec of the frequency penalty."""
    return [
        logitkit.Spec(
            name="occurrence_penalty",
            family="penalties",
            summary="Lower the score of a token each time the token is generated; the prompt does not count.",
            source="OpenAI API reference, frequency_penalty",
            target="logitkit_occurrence_penalty.processor:OccurrencePenalty",
            formula="log p - penalty * count",
            failure="a large penalty also suppresses function words, and the text becomes ungrammatical",
            example="occurrence_penalty(penalty=0.5)",
        )
    ]
