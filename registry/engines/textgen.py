"""The sampling fields of text-generation-webui with its loader for transformers, as its server takes them.

The samplers run in the order of ``sampler_priority``; a field turns each on. Version read: the sources of May 2026
(modules/sampler_hijack.py, modules/presets.py). Its cut-offs are in units of 1e-4.
"""

from __future__ import annotations

from typing import Any

from logitkit.registry.engines.common import KEEP_ONE, WindowedPenalty, temperature, truncation, zero
from logitkit.registry.engines.translation import Engine, Rule

UNIT = 1e4
RANGE = "repetition_penalty_range"


def _penalty(step: str) -> Rule:
    return WindowedPenalty(
        step=step,
        fields={"penalty": step, "window": RANGE},
        neutral=0.0,
        is_off=lambda value: value == 0,
        fixed={"prompt": True},
        whole=0,
    )


def _cutoff(step: str) -> Rule:
    return Rule(
        step=step,
        fields={"epsilon": step},
        neutral=0.0,
        is_off=zero,
        fixed=KEEP_ONE,
        to_field=lambda value: round(value * UNIT, 9),
        from_field=lambda value: value / UNIT,
    )


class _Dynamic(Rule):
    """`dynamic_temperature`, which a flag turns on."""

    def write(self, engine: str, parameters: Any) -> dict[str, Any]:
        return {**super().write(engine, parameters), "dynamic_temperature": True}

    def read(self, data: Any) -> dict[str, Any] | None:
        return super().read(data) if data["dynamic_temperature"] else None


RULES: tuple[Rule, ...] = (
    Rule(
        step="repetition_penalty",
        fields={"penalty": "repetition_penalty"},
        neutral=1.0,
        is_off=lambda value: value == 1,
        constants={RANGE: 0},
    ),
    _penalty("presence_penalty"),
    _penalty("frequency_penalty"),
    temperature(),
    _Dynamic(
        step="dynamic_temperature",
        fields={"low": "dynatemp_low", "high": "dynatemp_high", "exponent": "dynatemp_exponent"},
        neutral=1.0,
        is_off=lambda _: False,
    ),
    Rule(
        step="quadratic",
        fields={"factor": "smoothing_factor", "curve": "smoothing_curve"},
        neutral=0.0,
        is_off=zero,
        sampler="quadratic_sampling",
    ),
    truncation("top_k", 0),
    truncation("top_p", 1.0),
    truncation("typical_p", 1.0, fields={"mass": "typical_p"}),
    _cutoff("epsilon_cutoff"),
    _cutoff("eta_cutoff"),
    truncation("top_a", 0.0, fields={"a": "top_a"}, fixed={"min_keep": 1}),
    truncation("min_p", 0.0),
    Rule(
        step="no_repeat_ngram",
        fields={"size": "no_repeat_ngram_size"},
        neutral=0,
        is_off=zero,
    ),
)
REQUEST = """
prompt messages model seed stop stream n max_tokens max_new_tokens do_sample preset mode character xtc_threshold
adaptive_decay dry_base dry_allowed_length dry_sequence_breakers mirostat_tau mirostat_eta ban_eos_token
add_bos_token skip_special_tokens
"""  # fields that do not change the distribution of a token

ENGINE = Engine(
    name="textgen",
    rules=RULES,
    order="sampler_priority",
    other_samplers=frozenset(
        {"dry", "top_n_sigma", "tfs", "adaptive_p", "mirostat", "xtc", "encoder_repetition_penalty"}
    ),
    defaults={
        **{rule.switch: rule.neutral for rule in RULES},
        RANGE: 1024,
        "dynamic_temperature": False,
        "dynatemp_high": 1.0,
        "dynatemp_exponent": 1.0,
        "smoothing_curve": 1.0,
    },
    differing={
        "dry": "which stops at 50 repeated tokens there",
        "top_n_sigma": "which divides by one less and counts masked tokens there",
        "tail_free": "which keeps one token more there",
        "xtc": "which leaves rows with an end token or a line break as they are there",
        "mirostat": "whose rule there was not compared",
        "adaptive_p": "whose rule there was not compared",
        "grammar": "which is written in another language there",
    },
    without={
        "temperature_last": False,
        "top_n_sigma": 0,
        "tfs": 1,
        "xtc_probability": 0,
        "adaptive_target": 0,
        "dry_multiplier": 0,
        "mirostat_mode": 0,
        "encoder_repetition_penalty": 1,
        "penalty_alpha": 0,
        "guidance_scale": 1,
        "custom_token_bans": "",
        "grammar_string": "",
        "logit_bias": None,
    },
    ignored=frozenset(REQUEST.split()),
)
