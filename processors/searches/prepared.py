"""What `generate` prepared for a search: one row for each prompt, and the settings that a search cannot follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PrefixConstrainedLogitsProcessor

from logitkit.errors import ModeError
from logitkit.processors.searches.rows import selected
from logitkit.processors.transformers_api import cache_of

# Settings of other loops, which a search would not follow: the values that turn them off, and what to write instead.
# A search replaces the loop that the configuration of a model names, so only what a call states is refused.
OTHER_LOOPS: dict[str, tuple[tuple[Any, ...], str]] = {
    "penalty_alpha": ((0, 0.0), "write contrastive_search(alpha, top) as the search"),
    "dola_layers": ((), "write dola(...) before the search"),
    "prompt_lookup_num_tokens": ((), "write goose(budget) as the search"),
    "num_beam_groups": ((1,), "write beams(width, groups, diversity) as the search"),
    "diversity_penalty": ((0, 0.0), "write beams(width, groups, diversity) as the search"),
    "length_penalty": ((1, 1.0), "write length_target(...) before the search, or a judge of best_of behind it"),
    "early_stopping": ((False,), "leave it out"),
    "force_words_ids": ((), "write attribute({'contains': [...]}) | beams(...)"),
    "constraints": ((), "write attribute({'contains': [...]}) | beams(...)"),
    "low_memory": ((False,), "leave it out"),
    "assistant_early_exit": ((), "leave it out"),
    "use_mtp": ((False,), "leave it out"),
    "prefill_chunk_size": ((), "leave it out"),
}
OUTPUTS = ("return_dict_in_generate", "output_scores", "output_logits", "output_attentions", "output_hidden_states")
# Settings whose processors know the prompt of a row by its place, with the values that turn them off.
BY_PLACE = {
    "encoder_repetition_penalty": (None, 1.0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "guidance_scale": (None, 1.0),
}


def refuse_settings(name: str, config: Any, inputs: Mapping[str, Any], own: Any = None) -> None:
    """Refuse settings of `generate` that no search can follow.

    Args:
        name: of the search.
        config: the generation config.
        inputs: what `generate` prepared for the forwards.
        own: the generation config of the model, whose loop the search replaces; None: there is none.

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
    for setting, (neutral, way_out) in OTHER_LOOPS.items():
        value = getattr(config, setting, None)
        if value is not None and value not in neutral and value != getattr(own, setting, None):
            raise ModeError(
                f"{name}: {setting} must not be given, since the search runs its own loop, got {value!r:.40}; {way_out}"
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
    if cache is not None and _holds_tokens(cache):
        raise ModeError(f"{name}: the KV cache must be empty, since a search reads the prompts itself; leave it out")


def _holds_tokens(cache: Any) -> bool:
    """Return whether a cache has read tokens; a cache of recurrent layers alone does not count them."""
    linear = list(cache.is_linear)
    return bool(cache.has_previous_state() if linear and all(linear) else cache.get_seq_length() > 0)


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


class PrefixTokensByPrompt(LogitsProcessor):
    """``prefix_allowed_tokens_fn`` of `generate`: it gets the number of the prompt of a row, wherever the row stands.

    Args:
        allowed: the function, ``(number of the prompt, row)`` to token ids.
        prompts: the prompts, ``[prompts, length]``. Where a decoder's prompts are equal, the rows of each prompt stand
            next to each other.
        in_encoder: whether an encoder reads the prompts.

    >>> step = PrefixTokensByPrompt(lambda number, row: [number], torch.tensor([[5], [6]]), in_encoder=False)
    >>> step(torch.tensor([[6, 1], [5, 1], [6, 2]]), torch.zeros(3, 2)).argmax(-1).tolist()
    [1, 0, 1]
    """

    supports_continuous_batching = False

    def __init__(self, allowed: Callable[[int, Tensor], Any], prompts: Tensor, *, in_encoder: bool) -> None:
        self.allowed, self.prompts, self.in_encoder = allowed, prompts, in_encoder

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with all tokens at -inf that the function does not allow, ``[rows, vocab]``."""
        if self.in_encoder:
            numbers = torch.arange(len(input_ids)) // max(1, len(input_ids) // len(self.prompts))
        else:
            starts = input_ids[:, None, : self.prompts.shape[1]]
            numbers = (starts == self.prompts).all(-1).int().argmax(-1)
        known = numbers.tolist()
        masked: Tensor = PrefixConstrainedLogitsProcessor(lambda row, ids: self.allowed(known[row], ids), 1)(
            input_ids, scores
        )
        return masked


def by_prompt(processors: Any, prompts: Tensor, *, in_encoder: bool) -> LogitsProcessorList:
    """Return processors of `generate` in which ``prefix_allowed_tokens_fn`` finds the prompt of a row by its content.

    Args:
        processors: as prepared by `generate`; None: there are none.
        prompts, in_encoder: as for `PrefixTokensByPrompt`.
    """
    return LogitsProcessorList(
        PrefixTokensByPrompt(one._prefix_allowed_tokens_fn, prompts, in_encoder=in_encoder)
        if type(one) is PrefixConstrainedLogitsProcessor
        else one
        for one in processors or ()
    )
