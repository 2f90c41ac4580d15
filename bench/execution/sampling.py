"""Let a chain write: pinned settings, one seed a row, and stops.

`generate` draws all rows from one stream of random numbers, so a row's text would depend on its neighbours. Here
each row has its own: the token with the largest score plus Gumbel noise is a draw from the softmax of the scores
(Gumbel 1954; Maddison et al., arXiv:1411.0030), and the noise is a function of the row's seed and the position. So
order, batching and sharding do not change what is drawn, and two strategies meet the same noise.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from logitkit.errors import ModelError
from logitkit.processors.engine.prompts import pad_token
from logitkit.processors.model_facts import context_length, end_tokens
from logitkit.registry.call import Call


def seed_of(*parts: object) -> int:
    """A seed of 63 bits from anything that has a repr, such as (seed, task, sample, repeat)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


class Draw(LogitsProcessor):
    """Add Gumbel noise, so that taking the likeliest token is a draw; -inf stays -inf.

    Args:
        seeds: one a row.
        width: tokens of the prompts; the noise is counted from there.
    """

    supports_continuous_batching = False

    def __init__(self, seeds: Sequence[int], width: int) -> None:
        self.seeds, self.width = list(seeds), width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities and noise, float64 ``[rows, vocab]``."""
        place, vocab = input_ids.shape[1] - self.width, scores.shape[-1]
        noise = torch.empty(len(self.seeds), vocab, dtype=torch.float64)
        for row, seed in enumerate(self.seeds):
            generator = torch.Generator().manual_seed(seed_of(seed, place))
            noise[row].exponential_(generator=generator)
        return scores.double().log_softmax(-1) - noise.log().to(scores.device)


class Stops(StoppingCriteria):
    """End a row once its continuation holds a stop.

    Attributes:
        ended: for each row, tokens after the prompt at which it ended; None: it has not.
    """

    def __init__(self, call: Call, stops: Sequence[Sequence[str]]) -> None:
        self.call, self.stops = call, stops
        self.ended: list[int | None] = [None] * len(stops)

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Say which rows are done, ``[rows]``."""
        for row, text in enumerate(self.call.texts(input_ids)):
            if self.ended[row] is None and cut(text, self.stops[row]) != text:
                self.ended[row] = input_ids.shape[1] - self.call.prompts.width
        return torch.tensor([place is not None for place in self.ended], device=input_ids.device)


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop in it."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]


@contextlib.contextmanager
def pinned(model: Any) -> Iterator[None]:
    """The model without its checkpoint's generation settings: only what its special tokens are is kept."""
    own = model.generation_config
    kept = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    model.generation_config = GenerationConfig(**{name: getattr(own, name, None) for name in kept})
    try:
        yield
    finally:
        model.generation_config = own


def write(
    call: Call,
    *,
    max_new_tokens: int,
    seeds: Sequence[int] | None = None,
    stops: Sequence[Sequence[str]] = (),
    beams: int = 1,
) -> list[tuple[str, list[int]]]:
    """Continue every prompt of a call.

    Args:
        call: bound under `pinned`, which must still hold.
        max_new_tokens: longest continuation.
        seeds: one a row; None: the likeliest tokens.
        stops: for each row, texts at which it ends; empty: none has any.
        beams: of a search; rows then end at their end token only, and are cut afterwards.

    Returns:
        For each row its text before the first stop, and its token ids up to its end, the end token included.

    Raises:
        ModelError: prompt and continuation do not fit the model.
    """
    _check_context(call, max_new_tokens)
    stops = stops or [()] * len(call.prompts)
    criterion = Stops(call, stops) if any(stops) and beams == 1 else None
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": False, "num_beams": beams}
    if seeds is not None:
        settings["logits_processor"] = LogitsProcessorList([Draw(seeds, call.prompts.width)])
    if criterion:
        settings["stopping_criteria"] = StoppingCriteriaList([criterion])
    output = call.ids(call.generate(**settings)).clone()
    ends = end_tokens(call.model)
    pad, rows = pad_token(call.tokenizer, call.model), []
    for number, row in enumerate(output[:, call.prompts.width :].tolist()):
        length = criterion.ended[number] if criterion else None
        length = len(row) if length is None else length
        length = next((place + 1 for place, token in enumerate(row[:length]) if token in ends), length)
        output[number, call.prompts.width + length :] = call.tokenizer.eos_token_id or pad
        rows.append(row[:length])
    texts = call.texts(output)
    return [(cut(text, each), row) for text, each, row in zip(texts, stops, rows, strict=True)]


def _check_context(call: Call, tokens: int) -> None:
    """Refuse to write beyond what the model can read."""
    context = context_length(call.model)
    if context is not None and call.prompts.width + tokens > context:
        raise ModelError(
            f"bench: prompt and continuation must fit the model's {context} tokens, got {call.prompts.width} "
            f"and {tokens}; lower max_new_tokens or choose another model"
        )
