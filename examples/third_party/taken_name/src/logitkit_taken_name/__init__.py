"""A plugin that offers ``top_p``, a name that logitkit already uses, and one more processor."""

import logitkit

TARGET = "transformers.generation.logits_process:TopPLogitsWarper"


@logitkit.hookimpl
def logitkit_specs() -> list[logitkit.Spec]:
    """Return two Specs: one with a name already in use, one with a free name."""
    return [
        logitkit.Spec(name="top_p", summary="Another nucleus.", source="here", target=TARGET),
        logitkit.Spec(name="another_nucleus", summary="The same by another name.", source="here", target=TARGET),
    ]
