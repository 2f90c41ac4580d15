"""Settings of ``model.generate`` that a chain replaces, refuses, or must supply."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from logitkit.errors import ModeError
from logitkit.processors.engine.prompts import pad_token
from logitkit.registry.chain import Chain
from logitkit.registry.chain_order import written

# Settings for which generate adds a warper of its own when it samples, each with the value at which it adds none.
SAMPLING = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": None, "top_h": None}
SAMPLING |= {"typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0}
UNSAMPLED = {*SAMPLING, "do_sample"}  # settings of a call that hold while `generate` samples
# The same for processors that generate adds under greedy decoding too.
PENALTIES = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_new_tokens": None}

# Settings under which another model, or the model itself cut short, drafts tokens.
DRAFTS = ("assistant_model", "assistant_early_exit", "use_mtp")


def owned_settings(chain: Chain) -> dict[str, Any]:
    """Return neutral values for the settings that processors of a chain replace.

    A chain with one sampling warper, of transformers or a `Spec.warper`, replaces all of them: it decides their order.
    So does a chain with a search, which draws from the law of its steps alone.
    """
    owned = _replaced(chain)
    settings = {name: value for name, value in PENALTIES.items() if name in owned}
    warps = chain.searches or bool(owned & set(SAMPLING)) or any(spec.warper for spec in chain.specs)
    if adds_rows(chain):  # transformers fits this penalty to the rows that it prepared
        settings |= {"repetition_penalty": 1.0}
    return settings | (SAMPLING if warps else {}) | ({"do_sample": True} if draws(chain) else {})


def adds_rows(chain: Chain) -> bool:
    """Return whether a search or a selector of a chain reads other rows than `generate` prepares.

    >>> from logitkit.registry.chain import Chain
    >>> adds_rows(Chain("smc()")), adds_rows(Chain("top_p(0.9)"))
    (True, False)
    """
    return any(spec.kind != "processor" and spec.extra_forwards != "none" for spec in chain.specs)


def draws(chain: Chain) -> bool:
    """Return whether a chain has a search that draws tokens, or a selector of samples, so that `generate` must sample.

    >>> from logitkit.registry.chain import Chain
    >>> draws(Chain("smc()")), draws(Chain("best_of()")), draws(Chain("goose()")), draws(Chain("top_p(0.9)"))
    (True, True, False, False)
    """
    searches = [spec for spec in chain.specs if spec.kind == "search"]
    return bool(chain.searches) and all(spec.factory.samples for spec in searches)


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


def stated(name: str, settings: Mapping[str, Any], model: Any) -> Any:
    """Return the value of a setting that `generate` will use, or None.

    Args:
        name: of the setting.
        settings: keyword arguments of `generate`; a ``generation_config`` among them comes second.
        model: the generating model, whose ``generation_config`` comes last.

    >>> from types import SimpleNamespace
    >>> model = SimpleNamespace(generation_config=SimpleNamespace(num_beams=4))
    >>> stated("num_beams", {}, model), stated("num_beams", {"num_beams": 1}, model)
    (4, 1)
    """
    configs = (settings.get("generation_config"), model.generation_config)
    values = (settings.get(name), *(getattr(config, name, None) for config in configs))
    return next((value for value in values if value is not None), None)


def refuse_settings(chain: Chain, settings: Mapping[str, Any], model: Any, *, bare: bool = False) -> None:
    """Refuse settings under which `generate` would ignore the chain or apply a processor twice.

    Args:
        chain: the chain.
        settings: keyword arguments of `generate`.
        model: the generating model; settings of its ``generation_config`` count where `generate` is told none.
        bare: whether they are those of a bare ``model.generate``, where every draft asks the whole chain.

    Raises:
        ModeError: names the setting, the reason and what to do.
    """
    setting = functools.partial(stated, settings=settings, model=model)
    if setting("cache_implementation") == "paged":
        raise ModeError(
            "logitkit: cache_implementation must not be 'paged', continuous batching drops processors; leave it out, "
            "or use logitkit.adapters.continuous_batching"
        )
    if setting("token_healing") and chain.specs:
        raise ModeError(
            "logitkit: token_healing must not be set, it rewrites the bound prompts without the chain; "
            "leave it out and begin the chain with byte_boundary()"
        )
    if bare and setting("assistant_tokenizer") is not None and chain.steps:
        raise ModeError(
            "logitkit: assistant_tokenizer must not be given to model.generate, since the assistant would ask the "
            "chain about tokens of another vocabulary; use call.generate, whose drafts leave out the chain"
        )
    if setting("assistant_early_exit") and not getattr(model, getattr(model, "base_model_prefix", "") or "-", None):
        raise ModeError(
            f"logitkit: assistant_early_exit must not be set, {type(model).__name__} has no layers to leave early; "
            "leave it out"
        )
    _refuse_beside_a_search(chain, settings, setting)
    for name in ("inputs_embeds", "input_ids", "attention_mask", "inputs"):
        if name in settings:
            raise ModeError(
                f"logitkit: {name} must not be given to generate, the prompts are bound; bind the chain to them"
            )
    for spec in chain.specs:
        for mode in modes_in(setting):
            if mode in spec.modes:
                raise ModeError(f"{spec.name}: cannot run under {mode}, {spec.modes[mode]}")
    _refuse_unnormalised(chain, setting)
    twice = sorted(_replaced(chain) & {name for name, value in settings.items() if value is not None})
    if twice:
        raise ModeError(f"logitkit: {twice[0]} must be given once, got it in the chain and to generate; drop one")


def _refuse_unnormalised(chain: Chain, setting: Callable[[str], Any]) -> None:
    """Refuse a step behind one whose scores add up under beams.

    Raises:
        ModeError: names the two steps and the order to write.
    """
    for spec, following in itertools.pairwise(chain.specs):
        if spec.last_under_beams and "beams" in modes_in(setting):
            raise ModeError(
                f"{spec.name}: must be the last step under beams, where its scores add up and {following.name} would "
                f"change them; write {written([following.name, spec.name])}"
            )


def _refuse_beside_a_search(chain: Chain, settings: Mapping[str, Any], setting: Callable[[str], Any]) -> None:
    """Refuse another loop beside the search of a chain, and a penalty that `generate` fits to its own rows.

    Raises:
        ModeError: names the setting and what to do.
    """
    if setting("custom_generate") is not None and chain.searches:
        raise ModeError(
            f"{chain.specs[-1].name}: custom_generate must not be given, since the search runs its own loop; leave it "
            "out"
        )
    if settings.get("synced_gpus") and chain.searches:
        raise ModeError(
            f"{chain.specs[-1].name}: synced_gpus must not be given, since the search runs its own loop and does not "
            "wait for other processes; leave it out"
        )
    if adds_rows(chain) and settings.get("repetition_penalty") not in (None, 1.0):
        raise ModeError(
            f"{chain.specs[-1].name}: repetition_penalty must be a step of the chain, since a search has rows that "
            f"generate does not prepare, got {settings['repetition_penalty']}; write repetition_penalty(...) first"
        )


def modes_in(setting: Callable[[str], Any]) -> list[str]:
    """Return the modes of generating, as named in `Spec.modes`, that the settings select.

    Args:
        setting: returns the value that `generate` will use for a setting, by name; None: not set.

    >>> modes_in({"num_beams": 4, "do_sample": True, "assistant_early_exit": 2}.get)
    ['beams', 'assisted']
    """
    modes = {
        "beams": (setting("num_beams") or 1) > 1,
        "assisted": any(setting(name) not in (None, False) for name in DRAFTS),
        "prompt_lookup": setting("prompt_lookup_num_tokens") is not None,
        "static_cache": str(setting("cache_implementation") or "").startswith("static"),
    }
    return [mode for mode, selected in modes.items() if selected]


def _replaced(chain: Chain) -> set[str]:
    """Return the settings whose own processors the chain replaces."""
    return {name for spec in chain.specs for name in spec.replaces}
