"""Ensembles: several models, whatever their tokenizers, choose each token together."""

from __future__ import annotations

from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec

FIXTURE = "logitkit.registry.laws.byte_subjects:stranger"
NEEDS = ("models: other models; their tokenizers where they cannot say where they came from",)
COST = "one forward of each helper; at a row where its tokens do not change, none"


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Offer the plain ensemble, CoRE and DeePEn."""
    return [
        Spec(
            name="ensemble",
            family="ensemble",
            summary="Average models with different tokenizers, all the time or where the main model is unsure.",
            source="arXiv:2406.12585, arXiv:2410.03777, arXiv:2404.09492",
            target="logitkit.processors.ensemble.processors:Ensemble",
            formula="log sum_i w_i p_i A_i  (or mean of logs, or maximum);  A_i: alignment to the main",
            needs=NEEDS,
            cost=COST,
            failure="a helper that is much weaker drags the mean down; give the main model more weight, or use core",
            example="ensemble(models=['stranger'], align='gac')",
            fixture=FIXTURE,
        ),
        Spec(
            name="core",
            family="ensemble",
            summary="Ensemble that trusts tokens on which models agree, and models that agree and are sure (CoRE).",
            source="arXiv:2510.13855",
            target="logitkit.processors.ensemble.processors:Core",
            formula="w_0 p + sum_i w_i (p_i A_i) f(abs(p_i A_i - mean));  w ~ sum f / entropy, w_0 >= main_floor",
            needs=NEEDS,
            cost=COST,
            failure="only the topk likeliest tokens of each model stay possible; topk=0 keeps all",
            example="core(models=['stranger'], align='mined')",
            fixture=FIXTURE,
        ),
        Spec(
            name="deepen",
            family="ensemble",
            summary="Ensemble through similarities to shared tokens: move the main logits towards the mean (DeePEn).",
            source="arXiv:2404.12715",
            target="logitkit.processors.ensemble.deepen:Deepen",
            formula="AdamW steps on KL(sum_i w_i p_i T_i || softmax(z) T_0);  T_i: softmax of 100 cosines to anchors",
            needs=NEEDS,
            cost=COST + "; a small search a step",
            failure="embeddings of unlike models place their anchors differently: the mean then says little",
            example="deepen(models=['stranger'], anchors=64)",
            fixture=FIXTURE,
        ),
    ]
