"""transformers' own processors and warpers by name, so that a chain can own their order."""

from __future__ import annotations

from typing import Annotated

from logitkit.params import Parameters, number, option, whole
from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec

KEEP = Annotated[int, whole("always keep at least this many tokens", ge=1)]
HERE, THERE = "logitkit.processors.warpers", "transformers.generation.logits_process"
RESCALED = "it works on the sign or the size of the scores, so it treats logits and log-probabilities differently"


class Temperature(Parameters):
    """Parameters of `temperature`."""

    temperature: Annotated[float, number("divide the logits by this", gt=0, neutral=1)]


class TopK(Parameters):
    """Parameters of `top_k`."""

    top_k: Annotated[int, whole("keep this many of the likeliest tokens", ge=1)]
    min_tokens_to_keep: KEEP = 1


class TopP(Parameters):
    """Parameters of `top_p`."""

    top_p: Annotated[float, number("keep the likeliest tokens up to this mass", ge=0, le=1)]
    min_tokens_to_keep: KEEP = 1


class MinP(Parameters):
    """Parameters of `min_p`."""

    min_p: Annotated[float, number("keep tokens of at least this share of the best probability", ge=0, le=1)]
    min_tokens_to_keep: KEEP = 1


class TopH(Parameters):
    """Parameters of `top_h`."""

    top_h: Annotated[float, number("keep tokens up to this share of the entropy", gt=0, le=1)]


class Typical(Parameters):
    """Parameters of `typical_p`."""

    mass: Annotated[float, number("keep the most typical tokens up to this mass", gt=0, lt=1)] = 0.9
    min_tokens_to_keep: KEEP = 1


class Cutoff(Parameters):
    """Parameters of `epsilon_cutoff` and `eta_cutoff`."""

    epsilon: Annotated[float, number("cut tokens below this probability", gt=0, lt=1)]
    min_tokens_to_keep: KEEP = 1


class Suppress(Parameters):
    """Parameters of `suppress_tokens`."""

    suppress_tokens: Annotated[list[int], option("token ids that are never generated")]


class BadWords(Parameters):
    """Parameters of `bad_words`."""

    bad_words_ids: Annotated[list[list[int]], option("token id sequences that are never generated")]


def _spec(name: str, target: str, summary: str, example: str, **more: object) -> Spec:
    """One of transformers' own, with what they all share."""
    source = more.pop("source", "transformers")
    return Spec(
        name=name,
        target=target,
        summary=summary,
        example=example,
        source=str(source),
        family="transformers",
        **more,  # type: ignore[arg-type]
    )


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Offer transformers' own processors by name."""
    return [
        _spec(
            "temperature",
            f"{THERE}:TemperatureLogitsWarper",
            "Flatten (above 1) or sharpen (below 1) the distribution.",
            "temperature(0.7)",
            parameters=Temperature,
            replaces=("temperature",),
            formula="scores / temperature",
        ),
        _spec(
            "top_k",
            f"{THERE}:TopKLogitsWarper",
            "Keep the k likeliest tokens.",
            "top_k(5)",
            parameters=TopK,
            replaces=("top_k",),
        ),
        _spec(
            "top_p",
            f"{THERE}:TopPLogitsWarper",
            "Keep the likeliest tokens up to a mass (nucleus sampling).",
            "top_p(0.9)",
            parameters=TopP,
            replaces=("top_p",),
            source="arXiv:1904.09751",
        ),
        _spec(
            "min_p",
            f"{THERE}:MinPLogitsWarper",
            "Keep tokens at least a share as likely as the best one.",
            "min_p(0.05)",
            parameters=MinP,
            replaces=("min_p",),
            source="arXiv:2407.01082",
        ),
        _spec(
            "top_h",
            f"{THERE}:TopHLogitsWarper",
            "Keep the likeliest tokens up to a share of the entropy.",
            "top_h(0.4)",
            parameters=TopH,
            replaces=("top_h",),
            source="arXiv:2509.02510",
        ),
        _spec(
            "typical_p",
            f"{THERE}:TypicalLogitsWarper",
            "Keep tokens whose surprise is close to the expected one (locally typical sampling).",
            "typical_p(0.9)",
            parameters=Typical,
            replaces=("typical_p",),
            source="arXiv:2202.00666",
        ),
        _spec(
            "epsilon_cutoff",
            f"{THERE}:EpsilonLogitsWarper",
            "Cut tokens below a probability.",
            "epsilon_cutoff(0.001)",
            parameters=Cutoff,
            replaces=("epsilon_cutoff",),
            source="arXiv:2210.15191",
        ),
        _spec(
            "eta_cutoff",
            f"{THERE}:EtaLogitsWarper",
            "Cut tokens below a probability that follows the entropy.",
            "eta_cutoff(0.001)",
            parameters=Cutoff,
            replaces=("eta_cutoff",),
            source="arXiv:2210.15191",
        ),
        _spec(
            "repetition_penalty",
            f"{HERE}:RepetitionPenalty",
            "Make tokens of the text so far less likely; padding is not text.",
            "repetition_penalty(1.3)",
            replaces=("repetition_penalty",),
            source="arXiv:1909.05858",
            laws={"ignores_the_scale_of_a_row": RESCALED},
        ),
        _spec(
            "no_repeat_ngram",
            f"{HERE}:NoRepeatNgram",
            "Forbid to repeat any n-gram of the text so far; padding is not text.",
            "no_repeat_ngram(3)",
            replaces=("no_repeat_ngram_size",),
        ),
        _spec(
            "min_new_tokens",
            f"{HERE}:MinNewTokens",
            "Forbid to end before so many new tokens.",
            "min_new_tokens(3)",
            replaces=("min_new_tokens",),
        ),
        _spec(
            "suppress_tokens",
            f"{THERE}:SuppressTokensLogitsProcessor",
            "Never generate these tokens.",
            "suppress_tokens([3, 4])",
            parameters=Suppress,
        ),
        _spec(
            "bad_words",
            f"{THERE}:NoBadWordsLogitsProcessor",
            "Never generate these token sequences.",
            "bad_words([[3], [4, 5]])",
            parameters=BadWords,
        ),
    ]
