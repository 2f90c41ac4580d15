"""Generate continuations under a chain, with pinned settings, one seed per row, and stop texts.

`generate` draws all rows from one stream of random numbers, so the text of a row would depend on its neighbours in the
batch. Here every row has its own noise. The token with the largest score plus Gumbel noise is a draw from the softmax
of the scores (Gumbel 1954; Maddison et al., arXiv:1411.0030). The noise is a function of the row's seed and of the
position. The order of units, the batch size and sharding therefore do not change what is drawn, and two strategies
receive the same noise.
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

MOST_BESIDE = 64  # tokens of one step, and tokens without text, beside those of a stop text


def seed_of(*parts: object) -> int:
    """Return a seed of 63 bits that depends on the parts alone.

    Args:
        parts: objects with a stable ``repr``, such as ``(seed, task, sample, repeat)``.

    Examples:
        >>> seed_of(0, "arc", "q1") == seed_of(0, "arc", "q1")
        True
        >>> seed_of(0, "arc", "q1") == seed_of(1, "arc", "q1")
        False
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


class GumbelNoise(LogitsProcessor):
    """Add Gumbel noise to log-probabilities, so that the arg max is a draw from the softmax. -inf stays -inf.

    Args:
        seeds: one seed per row.
        width: tokens of the padded prompts; positions are counted from the end of the prompts.

    Examples:
        >>> ids, scores = torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 4)
        >>> noisy = GumbelNoise([7, 7], width=3)(ids, scores)
        >>> bool((noisy[0] == noisy[1]).all())  # the same seed and position: the same noise
        True
    """

    supports_continuous_batching = False

    def __init__(self, seeds: Sequence[int], width: int) -> None:
        self.seeds, self.width = list(seeds), width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities (nats) plus noise, float64 ``[rows, vocab]``."""
        position, vocab = input_ids.shape[1] - self.width, scores.shape[-1]
        noise = torch.empty(len(self.seeds), vocab, dtype=torch.float64)
        for row, seed in enumerate(self.seeds):
            generator = torch.Generator().manual_seed(seed_of(seed, position))
            noise[row].exponential_(generator=generator)
        return scores.double().log_softmax(-1) - noise.log().to(scores.device)


class StopAtText(StoppingCriteria):
    """End a row when its continuation contains one of the row's stop texts.

    Args:
        call: the call whose prompts are continued.
        stops: for each row its stop texts.

    Attributes:
        ended: for each row the number of tokens after the prompt at which the row ended; None while the row continues.
    """

    def __init__(self, call: Call, stops: Sequence[Sequence[str]]) -> None:
        self.call, self.stops, self._last = call, stops, _most_tokens(stops)
        self.ended: list[int | None] = [None] * len(stops)

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Return which rows have ended, bool ``[rows]``."""
        for row, text in enumerate(_last_texts(self.call, input_ids, self._last)):
            if self.ended[row] is None and before_stop(text, self.stops[row]) != text:
                self.ended[row] = input_ids.shape[1] - self.call.prompts.width
        return torch.tensor([position is not None for position in self.ended], device=input_ids.device)


def _most_tokens(stops: Sequence[Sequence[str]]) -> int:
    """Return the largest number of last tokens in which a stop text that a step completes can begin."""
    return MOST_BESIDE + max((len(stop.encode()) for each in stops for stop in each), default=0)


def _last_texts(call: Call, input_ids: Tensor, tokens: int) -> list[str]:
    """Return the text of the last tokens of each continuation; a stop text in earlier ones has ended the row before.

    Args:
        call: the call whose prompts are continued.
        input_ids: ``[rows, length]``.
        tokens: number of last tokens that are decoded.
    """
    if any(call.prompts.removed):  # the beginnings of these texts were bytes of the prompts
        return call.texts(input_ids)
    rows = input_ids[:, max(call.settings.start, input_ids.shape[1] - tokens) :].tolist()
    texts: list[str] = call.tokenizer.batch_decode(
        [call.settings.without_padding(row) for row in rows], skip_special_tokens=True
    )
    return texts


def before_stop(text: str, stops: Sequence[str]) -> str:
    r"""Return the text before the first occurrence of any stop text.

    Examples:
        >>> before_stop("return 1\ndef g", ["\ndef", "\nclass"])
        'return 1'
    """
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]


@contextlib.contextmanager
def pinned_settings(model: Any) -> Iterator[None]:
    """Remove a checkpoint's own generation settings for the duration of a ``with`` block.

    The special token ids are kept. Penalties, warpers, beams and forced tokens of the checkpoint's generation config
    would otherwise be part of every measurement.

    Examples:
        >>> from logitkit.registry.laws import tiny_model
        >>> model = tiny_model()
        >>> with pinned_settings(model):
        ...     model.generation_config.repetition_penalty in (None, 1.0)
        True
    """
    own = model.generation_config
    kept = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    model.generation_config = GenerationConfig(**{name: getattr(own, name, None) for name in kept})
    try:
        yield
    finally:
        model.generation_config = own


def continue_prompts(
    call: Call,
    *,
    max_new_tokens: int,
    seeds: Sequence[int] | None = None,
    stops: Sequence[Sequence[str]] = (),
    beams: int = 1,
) -> list[tuple[str, list[int]]]:
    """Continue every prompt of a call.

    Args:
        call: a call that was bound under `pinned_settings`, which must still be in force.
        max_new_tokens: largest number of tokens of a continuation.
        seeds: one seed per row; None decodes greedily, and seeds a search with the numbers of the rows.
        stops: for each row its stop texts; empty when no row has any.
        beams: width of the beam search. With more than one beam, rows end at an end token only, and their texts are
            cut at the first stop text afterwards.

    Returns:
        For each row the text before the first stop text, and the token ids up to the end of the row, including the
        end token.

    Raises:
        ModelError: prompt and continuation are longer than the model's context.

    Examples:
        >>> from logitkit.registry.chain import Chain
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> with pinned_settings(tiny_model()):
        ...     call = Chain("cfg(1.5)").bind(tiny_model(), tiny_tokenizer(), ["a prompt", "two"])
        ...     rows = continue_prompts(call, max_new_tokens=3, seeds=[0, 1])
        >>> [len(ids) <= 3 for text, ids in rows]
        [True, True]
    """
    _check_context_length(call, max_new_tokens)
    if call.search is not None:
        return _searched(call, max_new_tokens, seeds, stops)
    stops = stops or [()] * len(call.prompts)
    criterion = StopAtText(call, stops) if any(stops) and beams == 1 else None
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": False, "num_beams": beams}
    if seeds is not None:
        settings["logits_processor"] = LogitsProcessorList([GumbelNoise(seeds, call.prompts.width)])
    if criterion:
        settings["stopping_criteria"] = StoppingCriteriaList([criterion])
    output = call.ids(call.generate(**settings)).clone()
    rows = _cut_rows(call, output, criterion.ended if criterion else [None] * len(stops))
    return [(before_stop(text, each), row) for text, each, row in zip(call.texts(output), stops, rows, strict=True)]


class SearchStops(StoppingCriteria):
    """End a row of a search when its continuation contains one of the stop texts of its prompt.

    A search permutes, repeats and drops rows, so a row is known by its content alone.

    Args:
        call: the call whose prompts are continued.
        stops: for each prompt its stop texts.
    """

    def __init__(self, call: Call, stops: Sequence[Sequence[str]]) -> None:
        self.call, self.stops, self._last = call, stops, _most_tokens(stops)

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Return which rows have ended, bool ``[rows]``."""
        texts = _last_texts(self.call, input_ids, self._last)
        numbers = self.call.prompts.rows(input_ids).tolist()
        ended = [before_stop(text, self.stops[number]) != text for text, number in zip(texts, numbers, strict=True)]
        return torch.tensor(ended, device=input_ids.device)


def _searched(
    call: Call, max_new_tokens: int, seeds: Sequence[int] | None, stops: Sequence[Sequence[str]]
) -> list[tuple[str, list[int]]]:
    """Continue every prompt of a call with the search of its chain; see `continue_prompts`."""
    assert call.search is not None
    call.search.seeds = list(range(len(call.prompts))) if seeds is None else seeds
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens}
    if any(stops):
        settings["stopping_criteria"] = StoppingCriteriaList([SearchStops(call, stops)])
    output = call.ids(call.generate(**settings))
    rows = [call.settings.without_padding(row) for row in output[:, call.settings.start :].tolist()]
    texts = zip(call.texts(output), stops or [()] * len(rows), strict=True)
    return [(before_stop(text, each), row) for (text, each), row in zip(texts, rows, strict=True)]


def _cut_rows(call: Call, output: Tensor, ended: Sequence[int | None]) -> list[list[int]]:
    """Return each row's new tokens up to its end, and overwrite the tokens after the end in ``output``.

    Args:
        call: the call that generated ``output``.
        output: token ids of prompts and continuations, ``[rows, length]``; changed in place.
        ended: for each row the number of new tokens at which a stop text ended it, or None.
    """
    ends = end_tokens(call.model)
    filler = call.tokenizer.eos_token_id or pad_token(call.tokenizer, call.model)
    rows = []
    for number, row in enumerate(output[:, call.prompts.width :].tolist()):
        length = ended[number]
        length = len(row) if length is None else length
        length = next((place + 1 for place, token in enumerate(row[:length]) if token in ends), length)
        output[number, call.prompts.width + length :] = filler
        rows.append(row[:length])
    return rows


def _check_context_length(call: Call, tokens: int) -> None:
    """Refuse prompts whose continuation does not fit the model's context.

    Raises:
        ModelError: the prompts and ``tokens`` more tokens are longer than the context.
    """
    context = context_length(call.model)
    if context is not None and call.prompts.width + tokens > context:
        raise ModelError(
            f"bench: prompt and continuation must fit the model's {context} tokens, got {call.prompts.width} "
            f"and {tokens}; lower max_new_tokens or choose another model"
        )
