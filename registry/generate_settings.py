"""Settings of ``model.generate`` that a chain replaces, refuses, or must supply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from logitkit.errors import ModeError
from logitkit.processors.engine.prompts import pad_token
from logitkit.registry.chain import Chain

# Settings for which generate adds a warper of its own when it samples, each with the value at which it adds none.
SAMPLING = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": None, "top_h": None}
SAMPLING |= {"typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0}
# The same for processors that generate adds under greedy decoding too.
PENALTIES = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_new_tokens": None}


def owned_settings(chain: Chain) -> dict[str, Any]:
    """Return neutral values for the settings that processors of a chain replace.

    A chain with one sampling warper replaces all of them: it decides their order.
    """
    owned = _replaced(chain)
    settings = {name: value for name, value in PENALTIES.items() if name in owned}
    return settings | (SAMPLING if owned & set(SAMPLING) else {})


def padding_settings(tokenizer: Any, model: Any) -> dict[str, Any]:
    """Return the end token as padding token for a model without one."""
    return {} if model.generation_config.pad_token_id is not None else {"pad_token_id": pad_token(tokenizer, model)}


def without_stated_padding(owned: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's own settings without its padding token where a given ``generation_config`` states one.

    >>> from transformers import GenerationConfig
    >>> without_stated_padding({"pad_token_id": 2}, {"generation_config": GenerationConfig(pad_token_id=5)})
    {}
    """
    stated = getattr(settings.get("generation_config"), "pad_token_id", None) is not None
    return {name: value for name, value in owned.items() if not (stated and name == "pad_token_id")}


def refuse_settings(chain: Chain, settings: Mapping[str, Any]) -> None:
    """Refuse settings under which `generate` would ignore the chain or apply a processor twice.

    Raises:
        ModeError: names the setting, the reason and what to do.
    """
    if settings.get("cache_implementation") == "paged":
        raise ModeError(
            "logitkit: cache_implementation must not be 'paged', continuous batching drops processors; leave it out"
        )
    healing = settings.get("token_healing", getattr(settings.get("generation_config"), "token_healing", False))
    if healing and chain.specs:
        raise ModeError(
            "logitkit: token_healing must not be set, it rewrites the bound prompts without the chain; "
            "leave it out and begin the chain with byte_boundary()"
        )
    if settings.get("assistant_tokenizer") is not None and chain.steps:
        raise ModeError(
            "logitkit: assistant_tokenizer must not be given, since the assistant would ask the chain about tokens of "
            "another vocabulary; use an assistant with the tokenizer of the model, or prompt_lookup_num_tokens"
        )
    for name in ("inputs_embeds", "input_ids", "attention_mask", "inputs"):
        if name in settings:
            raise ModeError(
                f"logitkit: {name} must not be given to generate, the prompts are bound; bind the chain to them"
            )
    for spec in chain.specs:
        for mode in modes_in(settings):
            if mode in spec.modes:
                raise ModeError(f"{spec.name}: cannot run under {mode}, {spec.modes[mode]}")
    twice = sorted(_replaced(chain) & {name for name, value in settings.items() if value is not None})
    if twice:
        raise ModeError(f"logitkit: {twice[0]} must be given once, got it in the chain and to generate; drop one")


def modes_in(settings: Mapping[str, Any]) -> list[str]:
    """Return the modes of generating, as named in `Spec.modes`, that these settings select.

    >>> modes_in({"num_beams": 4, "do_sample": True})
    ['beams']
    """
    modes = {
        "beams": (settings.get("num_beams") or 1) > 1,
        "assisted": settings.get("assistant_model") is not None,
        "prompt_lookup": settings.get("prompt_lookup_num_tokens") is not None,
        "static_cache": str(settings.get("cache_implementation", "")).startswith("static"),
    }
    return [mode for mode, selected in modes.items() if selected]


def _replaced(chain: Chain) -> set[str]:
    """Return the settings whose own processors the chain replaces."""
    return {name for spec in chain.specs for name in spec.replaces}
