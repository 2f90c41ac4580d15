"""What `generate` prepared for a search: one row for each prompt, and the settings that a search cannot follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import ModeError
from logitkit.processors.searches.rows import selected
from logitkit.processors.transformers_api import cache_of

OUTPUTS = ("return_dict_in_generate", "output_scores", "output_logits", "output_attentions", "output_hidden_states")
# Settings whose processors know the prompt of a row by its place, with the values that turn them off.
BY_PLACE = {
    "encoder_repetition_penalty": (None, 1.0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "guidance_scale": (None, 1.0),
}


def refuse_settings(name: str, config: Any, inputs: Mapping[str, Any]) -> None:
    """Refuse settings of `generate` that no search can follow.

    Args:
        name: of the search.
        config: the generation config.
        inputs: what `generate` prepared for the forwards.

    Raises:
        ModeError: names the setting and the way out.

    >>> from transformers import GenerationConfig
    >>> refuse_settings("smc", GenerationConfig(num_beams=2), {})
    Traceback (most recent call last):
    logitkit.errors.ModeError: smc: num_beams must be 1, since the search replaces beam search, got 2; leave it out
    """
    if (config.num_beams or 1) > 1:
        raise ModeError(
            f"{name}: num_beams must be 1, since the search replaces beam search, got {config.num_beams}; leave it out"
        )
    for output in OUTPUTS:
        if getattr(config, output, None):
            raise ModeError(f"{name}: {output} must not be set, since a search returns ids alone; leave it out")
    for setting, neutral in BY_PLACE.items():
        value = getattr(config, setting, None)
        if value not in neutral:
            way_out = "write cfg(...) before the search" if setting == "guidance_scale" else "leave it out"
            raise ModeError(
                f"{name}: {setting} must not be set, since it knows the prompt of a row by its place, and a search "
                f"moves rows, got {value}; {way_out}"
            )
    cache = cache_of(inputs)
    if cache is not None and cache.get_seq_length() > 0:
        raise ModeError(f"{name}: the KV cache must be empty, since a search reads the prompts itself; leave it out")


def one_row_per_prompt(ids: Tensor, inputs: Mapping[str, Any], copies: int) -> tuple[Tensor, dict[str, Any]]:
    """Return one row of each prompt, of rows that `generate` repeated for ``num_return_sequences``.

    Args:
        ids: ``[prompts * copies, length]``, the copies of one prompt next to each other.
        inputs: what `generate` prepared for the forwards of these rows.
        copies: rows of each prompt.

    >>> ids, inputs = one_row_per_prompt(torch.tensor([[1], [1], [2], [2]]), {"mask": torch.ones(4, 1)}, 2)
    >>> ids.tolist(), inputs["mask"].shape
    ([[1], [2]], torch.Size([2, 1]))
    """
    if copies == 1:
        return ids, dict(inputs)
    first = torch.arange(0, len(ids), copies, device=ids.device)
    cache = cache_of(inputs)
    kept = {name: value if value is cache else selected(value, first, len(ids)) for name, value in inputs.items()}
    return ids[first], kept
