"""A plugin from elsewhere: one processor, as data."""

import logitkit


@logitkit.hookimpl
def logitkit_specs() -> list[logitkit.Spec]:
    """Offer the frequency penalty."""
    return [
        logitkit.Spec(
            name="frequency_penalty",
            family="penalties",
            summary="Make a token less likely each time it is written; the prompt does not count.",
            source="OpenAI API reference, frequency_penalty",
            target="logitkit_frequency_penalty.processor:FrequencyPenalty",
            formula="log p - penalty * count",
            failure="a large penalty forbids function words too, and texts fall apart",
            example="frequency_penalty(penalty=0.5)",
        )
    ]
