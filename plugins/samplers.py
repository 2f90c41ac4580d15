"""Specs of the samplers that transformers lacks."""

from __future__ import annotations

from logitkit.plugins import controls
from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec

TRUNCATIONS = "logitkit.processors.samplers.truncations"
TEMPERATURES = "logitkit.processors.samplers.temperatures"
PENALTIES = "logitkit.processors.samplers.penalties"

TRUNCATION_SPECS = [
    Spec(
        name="xtc",
        family="samplers",
        summary="Remove the most probable tokens but one at random steps (exclude top choices).",
        source="llama.cpp",
        target=f"{TRUNCATIONS}:XTC",
        formula="where u(seed, prefix) < probability: of the tokens p >= threshold, the least probable one alone stays",
        failure="also removes end tokens, line breaks and the only right answer; name such tokens in protect",
        warper=True,
        truncates=True,
        example="xtc(threshold=0.02, probability=0.5)",
    ),
    Spec(
        name="top_n_sigma",
        family="samplers",
        summary="Keep tokens whose logits are within n standard deviations of the largest logit.",
        source="arXiv:2411.07641",
        target=f"{TRUNCATIONS}:TopNSigma",
        formula="z >= max z - n sigma,  sigma: standard deviation of the possible logits",
        failure="after another truncation or a mask the deviation is that of the few tokens left; put it first",
        warper=True,
        truncates=True,
        keeps_best=True,
        example="top_n_sigma(1.0)",
    ),
    Spec(
        name="p_less",
        family="samplers",
        summary="Keep tokens at least as probable as the chance that two draws agree; there is no strength to set.",
        source="arXiv:2509.23234",
        target=f"{TRUNCATIONS}:PLess",
        formula="p >= min(L, max p),  L = sum p^2;  normalized: (V L - 1) / (V - 1)",
        failure="keeps few tokens where one token is certain, and many where none is",
        warper=True,
        truncates=True,
        keeps_best=True,
        example="p_less(normalized=True)",
    ),
    Spec(
        name="top_a",
        family="samplers",
        summary="Keep tokens of at least a multiple of the squared largest probability.",
        source="text-generation-webui",
        target=f"{TRUNCATIONS}:TopA",
        formula="p >= a (max p)^2",
        failure="the limit depends on one token alone, and a flat row keeps nearly all of its tail",
        warper=True,
        truncates=True,
        keeps_best=True,
        example="top_a(0.2)",
    ),
    Spec(
        name="tail_free",
        family="samplers",
        summary="Cut the tail at the place where the sorted probabilities stop bending (tail free sampling).",
        source="T. Phénix and J. Egan, Tail free sampling, 2019",
        target=f"{TRUNCATIONS}:TailFree",
        formula="the first i tokens, i the first place with d_0 + ... + d_i > z;"
        "\nd: |second differences of sorted p| / sum",
        failure="sorts every row, and one bend far down the row moves the cut; top_p and min_p are simpler",
        warper=True,
        truncates=True,
        keeps_best=True,
        example="tail_free(0.95)",
    ),
]

TEMPERATURE_SPECS = [
    Spec(
        name="dynamic_temperature",
        family="samplers",
        summary="Use a low temperature where the model is sure and a high one where it is not.",
        source="llama.cpp",
        target=f"{TEMPERATURES}:DynamicTemperature",
        formula="z / T,  T = low + (high - low) (H / log n)^exponent;  n: number of possible tokens",
        failure="behind a truncation n is the number of tokens left, so a few equal tokens get the high temperature",
        warper=True,
        keeps_best=True,
        example="dynamic_temperature(low=0.5, high=1.5)",
    ),
    Spec(
        name="entropy_temperature",
        family="samplers",
        summary="Lower the temperature where the model is sure (EDT).",
        source="arXiv:2403.14541",
        target=f"{TEMPERATURES}:EntropyTemperature",
        formula="z / T,  T = temperature base^(theta / H),  at least 0.001",
        failure="a large theta makes every step greedy",
        warper=True,
        keeps_best=True,
        example="entropy_temperature(theta=0.3)",
    ),
    Spec(
        name="quadratic",
        family="samplers",
        summary="Bend the logits below the largest by a parabola or a cubic (smooth sampling).",
        source="text-generation-webui",
        target=f"{TEMPERATURES}:Quadratic",
        formula="m - k factor x^2 + s factor x^3,  x = z - m,  m = max z,  k = (3 - curve) / 2,  s = (curve - 1) / 2",
        failure="a small factor flattens the row, the tail too; put a truncation before it",
        warper=True,
        keeps_best=True,
        example="quadratic(0.4, curve=1.5)",
    ),
]

PENALTY_SPECS = [
    Spec(
        name="dry",
        family="samplers",
        summary="Penalise tokens that continue a text which already occurs, the more the longer it is (DRY).",
        source="llama.cpp",
        target="logitkit.processors.samplers.dry:DRY",
        formula="z_v - multiplier base^(n - allowed_length)  where n >= allowed_length;"
        "\nn: the last n tokens of the row also stand before an earlier v, and no breaker is among them",
        failure="also penalises what must be repeated, such as names, code and tables; raise allowed_length there",
        example="dry(allowed_length=1, breakers=['\\n', 'a', 'the'])",
    ),
    Spec(
        name="frequency_penalty",
        family="samplers",
        summary="Lower the score of a token for each time that it occurs in the new text, as OpenAI does.",
        source="OpenAI API",
        target=f"{PENALTIES}:FrequencyPenalty",
        formula="z_v - penalty count(v)",
        failure="frequent words are penalised too, so long texts lose their articles and line breaks",
        example="frequency_penalty(0.6)",
    ),
    Spec(
        name="presence_penalty",
        family="samplers",
        summary="Lower the score of every token that occurs in the new text, as OpenAI does.",
        source="OpenAI API",
        target=f"{PENALTIES}:PresencePenalty",
        formula="z_v - penalty  where count(v) > 0",
        failure="says nothing against a loop of tokens that are all present; dry does",
        example="presence_penalty(0.6)",
    ),
]

SPECS = [*TRUNCATION_SPECS, *TEMPERATURE_SPECS, *PENALTY_SPECS, *controls.SPECS]


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Return the truncations, temperatures and penalties that transformers lacks."""
    return SPECS
