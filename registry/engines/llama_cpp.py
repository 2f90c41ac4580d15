"""The sampling fields of llama.cpp's server, as its completion and chat endpoints take them (server-schema.cpp).

The samplers run in the order of the list ``samplers``, and those that it lacks do not run. Version read: the sources
that llama-cpp-python 0.3.36 contains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logitkit.errors import ChainError
from logitkit.registry.engines.common import Temperature, WindowedPenalty, truncation, zero
from logitkit.registry.engines.translation import Engine, Rule, Step

NAME = "llama.cpp"
ORDER = ("penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature")
KEEP = {"min_tokens_to_keep": "min_keep"}


@dataclass(frozen=True, kw_only=True)
class _Fixed(Temperature):
    """`temperature`, which is dynamic where the range is not 0."""

    def read(self, data: Mapping[str, Any]) -> dict[str, Any] | None:
        return super().read(data) if data["dynatemp_range"] <= 0 else None


@dataclass(frozen=True, kw_only=True)
class _Dynamic(Rule):
    """`dynamic_temperature`: the middle of its two temperatures and half of their distance."""

    def write(self, engine: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        low, high = parameters["low"], parameters["high"]
        middle, half = round((low + high) / 2, 12), round((high - low) / 2, 12)
        return {"temperature": middle, "dynatemp_range": half, "dynatemp_exponent": parameters["exponent"]}

    def read(self, data: Mapping[str, Any]) -> dict[str, Any] | None:
        half = data["dynatemp_range"]
        if half <= 0:
            return None
        middle, exponent = data["temperature"], data["dynatemp_exponent"]
        low, high = round(max(0.0, middle - half), 12), round(middle + half, 12)
        return {"low": low, "high": high, "exponent": exponent}


@dataclass(frozen=True, kw_only=True)
class _Dry(WindowedPenalty):
    """`dry`, whose window 0 is the whole text here and turns the sampler off there."""

    def write(self, engine: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return super().write(engine, {**parameters, "window": parameters["window"] or None})


def _penalty(step: str) -> Rule:
    fields = {"penalty": step, "window": "repeat_last_n"}
    return WindowedPenalty(
        step=step,
        fields=fields,
        neutral=0.0,
        is_off=lambda value: value == 0,
        fixed={"prompt": True},
        sampler="penalties",
    )


RULES: tuple[Rule, ...] = (
    _penalty("frequency_penalty"),
    _penalty("presence_penalty"),
    _Dry(
        step="dry",
        fields={
            "multiplier": "dry_multiplier",
            "base": "dry_base",
            "allowed_length": "dry_allowed_length",
            "window": "dry_penalty_last_n",
            "breakers": "dry_sequence_breakers",
        },
        neutral=0.0,
        is_off=zero,
        fixed={"prompt": True},
    ),
    truncation("top_n_sigma", -1.0, fields={"n": "top_n_sigma"}, fixed={"min_keep": 1}),
    truncation("top_k", 0),
    truncation("typical_p", 1.0, fields={"mass": "typical_p", **KEEP}, fixed={}, sampler="typ_p"),
    truncation("top_p", 1.0, fields={"top_p": "top_p", **KEEP}, fixed={}),
    truncation("min_p", 0.0, fields={"min_p": "min_p", **KEEP}, fixed={}),
    Rule(
        step="xtc",
        fields={"probability": "xtc_probability", "threshold": "xtc_threshold", "min_keep": "min_keep"},
        neutral=0.0,
        is_off=zero,
        fixed={"seed": 0, "protect": None},
    ),
    _Fixed(
        step="temperature",
        fields={"temperature": "temperature"},
        neutral=1.0,
        is_off=lambda value: value == 1,
        constants={"dynatemp_range": 0.0},
    ),
    _Dynamic(
        step="dynamic_temperature",
        fields={"low": "temperature"},
        neutral=1.0,
        is_off=lambda value: value == 1,
        sampler="temperature",
    ),
    Rule(
        step="adaptive_p",
        fields={"target": "adaptive_target", "decay": "adaptive_decay"},
        neutral=-1.0,
        is_off=lambda value: value < 0,
    ),
)


@dataclass(frozen=True, kw_only=True)
class LlamaCpp(Engine):
    """llama.cpp, where mirostat replaces all samplers but the temperature."""

    def write(self, steps: Sequence[Step]) -> dict[str, Any]:
        """Return the fields of a request; see `Engine.write`."""
        names = [name for name, _ in steps]
        if "mirostat" not in names:
            if "adaptive_p" in names[:-1]:
                raise ChainError(f"chain: adaptive_p must be last for {NAME}, got {' | '.join(names)}")
            return {**super().write(steps), "mirostat": 0}
        if names not in (["mirostat"], ["temperature", "mirostat"]):
            raise ChainError(
                f"chain: mirostat must stand alone or behind temperature for {NAME}, which drops all other samplers, "
                f"got {' | '.join(names)}"
            )
        parameters = dict(steps[-1][1])
        fields = {"mirostat": 2, "mirostat_tau": parameters["tau"], "mirostat_eta": parameters["eta"]}
        return {"temperature": 1.0, **super().write(steps[:-1]), **fields}

    def read(self, data: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the steps; see `Engine.read`."""
        mode = data.get("mirostat", 0)
        data = {**data, "min_keep": max(1, data.get("min_keep", 1))}  # 0 keeps one token, too
        if mode not in (0, 2):
            raise ChainError(f"chain: mirostat must be 0 or 2, since no step is mirostat 1, got {mode!r}")
        if mode == 0:
            return [step for step in super().read(data) if step["name"] != "mirostat"]
        steps = super().read({**data, "samplers": ["temperature"]})
        filled = {**self.defaults, **data}
        return [*steps, {"name": "mirostat", "params": {"tau": filled["mirostat_tau"], "eta": filled["mirostat_eta"]}}]


REQUEST = """
prompt messages model seed stop stream n_predict max_tokens n n_probs logprobs ignore_eos cache_prompt id_slot
n_keep t_max_predict_ms return_tokens timings_per_token response_fields
"""  # fields that do not change the distribution of a token

ENGINE = LlamaCpp(
    name=NAME,
    rules=RULES,
    order="samplers",
    lists_all=True,
    defaults={
        "samplers": list(ORDER),
        "temperature": 0.8,
        "dynatemp_range": 0.0,
        "dynatemp_exponent": 1.0,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.05,
        "min_keep": 1,
        "typical_p": 1.0,
        "top_n_sigma": -1.0,
        "xtc_probability": 0.0,
        "xtc_threshold": 0.1,
        "repeat_last_n": 64,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "dry_multiplier": 0.0,
        "dry_base": 1.75,
        "dry_allowed_length": 2,
        "dry_penalty_last_n": 64,
        "dry_sequence_breakers": ["\n", ":", '"', "*"],
        "mirostat": 0,
        "mirostat_tau": 5.0,
        "mirostat_eta": 0.1,
        "adaptive_target": -1.0,
        "adaptive_decay": 0.9,
    },
    differing={
        "repetition_penalty": "which penalises the whole text here and the last repeat_last_n tokens there",
        "mirostat": "which must stand alone or behind temperature",
        "choices": "whose texts have other tokenizations there",
        "grammar": "which reads a JSON Schema as another set of texts",
    },
    without={"repeat_penalty": 1.0, "grammar": "", "json_schema": None, "logit_bias": []},
    ignored=frozenset(REQUEST.split()),
    other_samplers=frozenset({"infill"}),
)
