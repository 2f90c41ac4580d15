"""The sampling parameters of SGLang (``sampling_params`` of its native endpoint and the fields of its server).

The order is fixed: minimal length, penalties, temperature, then truncation. Version read: sglang 0.5.23
(srt/sampling, srt/layers/sampler.py). Its backends apply top_p before or after top_k's renormalisation, so a chain of
both means different things on different machines.
"""

from __future__ import annotations

from collections.abc import Sequence

from logitkit.errors import ChainError
from logitkit.registry.engines.common import new_token_penalty, temperature, truncation, zero
from logitkit.registry.engines.translation import Engine, Rule

RULES: tuple[Rule, ...] = (
    Rule(step="min_new_tokens", fields={"count": "min_new_tokens"}, neutral=0, is_off=zero),
    new_token_penalty("frequency_penalty"),
    new_token_penalty("presence_penalty"),
    temperature(),
    truncation("top_k", -1),
    truncation("top_p", 1.0),
    truncation("min_p", 0.0),
)


def _check(names: Sequence[str]) -> None:
    """Refuse what depends on the backend."""
    if {"top_k", "top_p"} <= set(names):
        raise ChainError(
            "chain: steps must not be both top_k and top_p for sglang, whose backends combine them in two ways, "
            f"got {' | '.join(names)}"
        )


REQUEST = """
prompt messages model seed sampling_seed stop stop_token_ids stop_regex stream n max_new_tokens max_tokens
ignore_eos skip_special_tokens spaces_between_special_tokens no_stop_trim logprobs stream_interval
"""  # fields that do not change the distribution of a token

ENGINE = Engine(
    name="sglang",
    rules=RULES,
    commuting=frozenset({frozenset({"frequency_penalty", "presence_penalty"}), frozenset({"min_p", "top_k"})}),
    defaults={rule.switch: rule.neutral for rule in RULES},
    differing={
        "repetition_penalty": "which counts the prompt here and the tokens of the answer alone there",
        "choices": "whose texts have other tokenizations there",
        "grammar": "whose backends read a JSON Schema or a grammar as other sets of texts",
    },
    without={
        "repetition_penalty": 1.0,
        "json_schema": None,
        "regex": None,
        "ebnf": None,
        "structural_tag": None,
        "logit_bias": None,
        "custom_params": None,
    },
    ignored=frozenset(REQUEST.split()),
    check=_check,
)
