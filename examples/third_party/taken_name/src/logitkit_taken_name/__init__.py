"""A plugin that offers ``top_p``, which logitkit has, and another processor besides."""

import logitkit

TARGET = "transformers.generation.logits_process:TopPLogitsWarper"


@logitkit.hookimpl
def logitkit_specs() -> list[logitkit.Spec]:
    """Offer a name that is taken, and one that is free."""
    return [
        logitkit.Spec(name="top_p", summary="Another nucleus.", source="here", target=TARGET),
        logitkit.Spec(name="another_nucleus", summary="The same by another name.", source="here", target=TARGET),
    ]
