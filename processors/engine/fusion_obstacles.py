"""Obstacles to fusing: conditions under which the generating model's forward cannot compute second streams."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from transformers import DynamicCache

from logitkit.processors.engine.behind_rows import BehindRows
from logitkit.processors.engine.model_forward import forwarding_model
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.riding_tokens import can_drop_again
from logitkit.processors.engine.streams import FusableStream, Stream
from logitkit.processors.model_facts import text_config
from logitkit.processors.transformers_api import CACHE_NAMES

# Values of ``cache_implementation`` whose caches hold rows of any number and width.
CACHES = ("dynamic", "offloaded", "static", "offloaded_static", "hybrid", "sliding_window", "hybrid_chunked")

# Settings of generate under which a forward cannot hold other rows, or would save nothing.
OBSTACLES: dict[str, Callable[[Any], bool]] = {
    "cache_implementation": lambda value: value not in CACHES,
    "use_cache": lambda value: not value,
    "output_attentions": bool,
    "output_hidden_states": bool,
    "prefill_chunk_size": bool,
    "use_mtp": bool,
    "token_healing": bool,
}
OBSTACLES |= dict.fromkeys(("adapter_names", *CACHE_NAMES), lambda value: value is not None)
# Assistants that read states of the generating model, which has more rows than they expect.
OBSTACLES["speculation_type"] = bool
OBSTACLES["assistant_model"] = lambda value: type(value).__name__.startswith(("Gemma4Assistant", "Gemma4Unified"))
DRAFTS = ("prompt_lookup_num_tokens", "assistant_model", "assistant_early_exit")
# A search states whether it decodes with forwards as `generate` prepares them; any other callable may do anything.
OBSTACLES["custom_generate"] = lambda value: not getattr(value, "fuses", False)


class FusableParts(NamedTuple):
    """What a forward of the generating model can compute besides its own rows.

    Attributes:
        readers: second streams, as further rows.
        texts: texts behind the rows.
        unfused: why there are no further rows; empty where there are.
    """

    readers: list[FusableStream]
    texts: list[BehindRows]
    unfused: str


def fusable_streams(model: Any, streams: Sequence[Stream]) -> list[FusableStream]:
    """Return the streams whose logits a forward of this model can compute together with its own rows."""
    fusable = [cast(FusableStream, stream) for stream in streams if stream.fusable]
    return [stream for stream in fusable if stream.model is model]


def fusable_parts(model: Any, streams: Sequence[Stream], setting: Callable[[str], Any]) -> FusableParts:
    """Return the parts of a chain that a forward of the generating model can compute; see `obstacle`.

    Args:
        model, streams, setting: as in `obstacle`.
    """
    readers = fusable_streams(model, streams)
    texts = [stream for stream in streams if isinstance(stream, BehindRows)]
    unfused = "" if readers else _why_separate(streams)
    return FusableParts(readers, [] if text_obstacle(model, setting) else texts, unfused)


def text_obstacle(model: Any, setting: Callable[[str], Any]) -> str | None:
    """Return the reason why no text can ride behind the rows in the generating model's forward, or None.

    Args:
        model, setting: as in `obstacle`.
    """
    if any(setting(name) is not None for name in DRAFTS):
        return "a text cannot ride behind drafted tokens"
    if setting("cache_implementation") not in (None, "dynamic"):
        return f"no text can be removed from a cache of the kind {setting('cache_implementation')}"
    if not can_drop_again(DynamicCache(config=text_config(model))):
        return "no text can be removed from a sliding window"
    if "logits_to_keep" not in inspect.signature(forwarding_model(model).forward).parameters:
        return "the model's forward cannot leave out logits"
    return None


def obstacle(model: Any, streams: Sequence[Stream], prompts: Prompts, setting: Callable[[str], Any]) -> str | None:
    """Return the reason why no second stream can be computed in the generating model's forward, or None.

    Args:
        model: the generating model.
        streams: the second streams that the chain declares; at least one.
        prompts: the prompts of the call.
        setting: returns the value that `generate` will use for a setting, by name; None: not set.
    """
    readers, texts = fusable_streams(model, streams), [one for one in streams if isinstance(one, BehindRows)]
    if prompts.inputs:
        return f"the prompts hold {next(iter(prompts.inputs))} besides tokens"
    if not readers and (not texts or prompts.in_encoder):
        return "the prompt is read in an encoder" if prompts.in_encoder else _why_separate(streams)
    for name, hinders in OBSTACLES.items():
        if setting(name) is not None and hinders(setting(name)):
            return f"{name}={setting(name) if isinstance(setting(name), (int, str)) else '...'}"
    if "cache_position" in inspect.signature(model.forward).parameters:
        return "the model's forward computes its own positions"
    if not hasattr(forwarding_model(model), "prepare_inputs_for_generation"):
        return "generate calls no forward of this model itself"
    if any(DynamicCache(config=text_config(model)).is_linear):
        return "a recurrent state cannot be padded"
    if not readers:
        return text_obstacle(model, setting)
    width = max(reader.width for reader in readers)
    if width > 2 * prompts.width and width > prompts.width + 256:
        return f"a second prompt of {width} tokens beside {prompts.width} would be mostly padding"
    return None


def _why_separate(streams: Sequence[Stream]) -> str:
    """Return the reasons why none of these streams can be computed by the generating model, each once."""
    reasons = [getattr(stream, "why_separate", "the streams belong to other models") for stream in streams]
    return " and ".join(dict.fromkeys(reasons))
