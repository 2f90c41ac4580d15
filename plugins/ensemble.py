"""Specs of the ensembles: several models, with any tokenizers, choose each token together."""

from __future__ import annotations

from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.required_package import RequiredPackage
from logitkit.registry.spec import Spec

NEEDS = ("models: other models, with their tokenizers where a model has no name_or_path",)
COST = "one forward of each helper; none for a row whose last token adds nothing to the helper's tokens"

# The alignment by edit distance alone needs this package.
EDIT_DISTANCE = (RequiredPackage(name="rapidfuzz", extra="ensembles", values={"align": "mined"}),)

SPECS = [
    Spec(
        name="ensemble",
        family="ensemble",
        summary="Average models with different tokenizers, at every step or where the main model is uncertain.",
        source="arXiv:2406.12585, arXiv:2410.03777, arXiv:2404.09492",
        target="logitkit.processors.ensemble.processors:Ensemble",
        revision=6,
        formula="log sum_i w_i p_i A_i, or the mean of logs, or the maximum;"
        "\nA_i: alignment of the vocabulary of model i to that of the main model",
        needs_models=("models",),
        needs_files=("align",),
        needs_packages=EDIT_DISTANCE,
        needs=NEEDS,
        extra_forwards="every_step",
        cost=COST,
        failure="a much weaker helper lowers the quality; give the main model more weight, or use core",
        example="ensemble(models=['other'], align='gac')",
        example_resources={"other": "foreign_model"},
    ),
    Spec(
        name="core",
        family="ensemble",
        summary="Weight tokens by the agreement of the models, and models by agreement and certainty (CoRE).",
        source="arXiv:2510.13855",
        target="logitkit.processors.ensemble.processors:Core",
        revision=7,
        formula="w_0 p + sum_i w_i (p_i A_i) f(abs(p_i A_i - mean));"
        "\nw_i: sum of f over the entropy of model i, w_0 >= main_floor; f: kernel",
        needs_models=("models",),
        needs_files=("align",),
        needs_packages=EDIT_DISTANCE,
        needs=NEEDS,
        extra_forwards="every_step",
        cost=COST,
        failure="only the topk likeliest tokens of each model stay possible; topk=0 keeps all",
        example="core(models=['other'], align='mined')",
        example_resources={"other": "foreign_model"},
    ),
    Spec(
        name="deepen",
        family="ensemble",
        summary="Move the main model's logits towards the mean of all models in a space of shared tokens (DeePEn).",
        source="arXiv:2404.12715",
        target="logitkit.processors.ensemble.deepen:Deepen",
        revision=4,
        formula="AdamW steps on KL(sum_i w_i p_i T_i || softmax(z) T_0);"
        "\nz: logits of the main model, T_i: softmax of 100 cosines to the shared tokens of model i",
        needs_models=("models",),
        needs=NEEDS,
        extra_forwards="every_step",
        cost=f"{COST}; a few optimiser steps on the logits",
        failure="models with very different embeddings disagree about the shared space, and the mean is noise",
        example="deepen(models=['other'], anchors=64)",
        example_resources={"other": "foreign_model"},
    ),
]


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Return the averaging ensemble, CoRE and DeePEn."""
    return SPECS
