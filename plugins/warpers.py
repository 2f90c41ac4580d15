"""Specs of processors of transformers, so that a chain can name them and decide their order."""

from __future__ import annotations

from typing import Annotated

from pydantic import field_validator

from logitkit.params import Parameters, number, option, whole
from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec

KEEP = Annotated[int, whole("keep at least this many tokens", ge=1)]
WRAPPED = "logitkit.processors.warpers"  # processors that depend on padding, end tokens or the vocabulary
TRUNCATIONS = "logitkit.processors.truncations"  # keep more tokens under beams
ORIGINAL = "transformers.generation.logits_process"
SCALE = "the penalty depends on the sign of a score, so it differs between logits and log-probabilities"


class Temperature(Parameters):
    """Parameters of `temperature`."""

    temperature: Annotated[float, number("divide the logits by this", gt=0, neutral=1)]


class TopK(Parameters):
    """Parameters of `top_k`."""

    top_k: Annotated[int, whole("keep this many of the likeliest tokens", ge=1)]
    min_tokens_to_keep: KEEP = 1


class TopP(Parameters):
    """Parameters of `top_p`."""

    top_p: Annotated[float, number("keep the likeliest tokens whose probabilities sum up to this", ge=0, le=1)]
    min_tokens_to_keep: KEEP = 1


class MinP(Parameters):
    """Parameters of `min_p`."""

    min_p: Annotated[float, number("keep tokens of at least this multiple of the largest probability", ge=0, le=1)]
    min_tokens_to_keep: KEEP = 1


class TopH(Parameters):
    """Parameters of `top_h`."""

    top_h: Annotated[float, number("keep the likeliest tokens up to this share of the entropy", gt=0, le=1)]


class Typical(Parameters):
    """Parameters of `typical_p`."""

    mass: Annotated[float, number("keep the most typical tokens whose probabilities sum up to this", gt=0, lt=1)] = 0.9
    min_tokens_to_keep: KEEP = 1


class Cutoff(Parameters):
    """Parameters of `epsilon_cutoff` and `eta_cutoff`."""

    epsilon: Annotated[
        float, number("remove tokens below this probability; eta_cutoff lowers the limit for flat rows", gt=0, lt=1)
    ]
    min_tokens_to_keep: KEEP = 1


class Suppress(Parameters):
    """Parameters of `suppress_tokens`."""

    suppress_tokens: Annotated[list[int], option("ids of the forbidden tokens")]

    @field_validator("suppress_tokens")
    @classmethod
    def _ids(cls, tokens: list[int]) -> list[int]:
        """Refuse negative ids."""
        if any(token < 0 for token in tokens):
            raise ValueError("a list of token ids >= 0")
        return tokens


class BadWords(Parameters):
    """Parameters of `bad_words`."""

    bad_words_ids: Annotated[list[list[int]], option("forbidden sequences of token ids")]

    @field_validator("bad_words_ids")
    @classmethod
    def _ids(cls, words: list[list[int]]) -> list[list[int]]:
        """Refuse an empty list, an empty sequence, and negative ids."""
        if not words or not all(words) or any(token < 0 for word in words for token in word):
            raise ValueError("one or more lists of token ids >= 0, none empty")
        return words


def _spec(name: str, target: str, summary: str, example: str, **more: object) -> Spec:
    """Return the Spec of a processor of transformers."""
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


SPECS = [
    _spec(
        "temperature",
        f"{ORIGINAL}:TemperatureLogitsWarper",
        "Flatten (temperature above 1) or sharpen (below 1) the distribution.",
        "temperature(0.7)",
        parameters=Temperature,
        replaces=("temperature",),
        formula="scores / temperature",
        keeps_best=True,
    ),
    _spec(
        "top_k",
        f"{TRUNCATIONS}:TopK",
        "Keep the k likeliest tokens.",
        "top_k(5)",
        parameters=TopK,
        replaces=("top_k",),
        truncates=True,
        revision=2,
        keeps_best=True,
    ),
    _spec(
        "top_p",
        f"{TRUNCATIONS}:TopP",
        "Keep the likeliest tokens up to a cumulative probability (nucleus sampling).",
        "top_p(0.9)",
        parameters=TopP,
        replaces=("top_p",),
        truncates=True,
        source="arXiv:1904.09751",
        revision=2,
        keeps_best=True,
    ),
    _spec(
        "min_p",
        f"{TRUNCATIONS}:MinP",
        "Keep tokens whose probability is at least a fraction of the largest one.",
        "min_p(0.05)",
        parameters=MinP,
        replaces=("min_p",),
        truncates=True,
        source="arXiv:2407.01082",
        revision=2,
        keeps_best=True,
    ),
    _spec(
        "top_h",
        f"{ORIGINAL}:TopHLogitsWarper",
        "Keep the likeliest tokens up to a share of the entropy (top-H).",
        "top_h(0.4)",
        parameters=TopH,
        replaces=("top_h",),
        truncates=True,
        source="arXiv:2509.02510",
        keeps_best=True,
    ),
    _spec(
        "typical_p",
        f"{TRUNCATIONS}:Typical",
        "Keep tokens whose surprisal is close to the entropy (locally typical sampling).",
        "typical_p(0.9)",
        parameters=Typical,
        replaces=("typical_p",),
        truncates=True,
        source="arXiv:2202.00666",
        revision=2,
    ),
    _spec(
        "epsilon_cutoff",
        f"{TRUNCATIONS}:EpsilonCutoff",
        "Remove tokens below a fixed probability (epsilon sampling).",
        "epsilon_cutoff(0.001)",
        parameters=Cutoff,
        replaces=("epsilon_cutoff",),
        truncates=True,
        source="arXiv:2210.15191",
        revision=2,
        keeps_best=True,
    ),
    _spec(
        "eta_cutoff",
        f"{TRUNCATIONS}:EtaCutoff",
        "Remove tokens below a probability that depends on the entropy (eta sampling).",
        "eta_cutoff(0.001)",
        parameters=Cutoff,
        replaces=("eta_cutoff",),
        truncates=True,
        source="arXiv:2210.15191",
        revision=2,
        keeps_best=True,
    ),
    _spec(
        "repetition_penalty",
        f"{WRAPPED}:RepetitionPenalty",
        "Lower the scores of tokens that occur in the text so far; padding does not count.",
        "repetition_penalty(1.3)",
        replaces=("repetition_penalty",),
        source="arXiv:1909.05858",
        laws={"ignores_the_scale_of_a_row": SCALE},
    ),
    _spec(
        "no_repeat_ngram",
        f"{WRAPPED}:NoRepeatNgram",
        "Forbid to repeat an n-gram of the text so far; padding does not count.",
        "no_repeat_ngram(3)",
        replaces=("no_repeat_ngram_size",),
    ),
    _spec(
        "min_new_tokens",
        f"{WRAPPED}:MinNewTokens",
        "Forbid end tokens before a number of new tokens.",
        "min_new_tokens(3)",
        revision=2,
        replaces=("min_new_tokens",),
    ),
    _spec(
        "suppress_tokens",
        f"{WRAPPED}:SuppressTokens",
        "Forbid tokens.",
        "suppress_tokens([3, 4])",
        parameters=Suppress,
    ),
    _spec(
        "bad_words",
        f"{WRAPPED}:BadWords",
        "Forbid token sequences.",
        "bad_words([[3], [4, 5]])",
        parameters=BadWords,
        revision=2,
    ),
]


@hookimpl
def logitkit_specs() -> list[Spec]:
    """Return the Specs of the processors of transformers that chains may name."""
    return SPECS
