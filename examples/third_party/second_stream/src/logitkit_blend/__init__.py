"""A plugin with a second stream: one processor, declared as data."""

import logitkit


@logitkit.hookimpl
def logitkit_specs() -> list[logitkit.Spec]:
    """Return the Spec of the mixture."""
    return [
        logitkit.Spec(
            name="blend",
            family="mixtures",
            summary="Sample from a mixture of the model and a second model or a second prompt.",
            source="Jelinek and Mercer 1980, linear interpolation",
            target="logitkit_blend.processor:Blend",
            formula="log((1 - weight) p + weight q)",
            needs_models=("model",),
            extra_forwards="every_step",
            failure="a second model of another domain makes every text worse by its weight",
            example="blend(model='other', weight=0.3)",
            example_resources={"other": "model"},
        )
    ]
