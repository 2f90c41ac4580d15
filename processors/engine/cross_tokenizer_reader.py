"""Second streams of a model with another tokenizer.

The reader retokenizes the continuation of each row, and keeps the longest common token prefix in its KV cache. In one
step, rows gain and lose different numbers of tokens. A slot of the cache may therefore hold a token of one row and be
unused in another row. Unused slots are masked, and removed when they are many. Positions count the tokens of the row.
Like the logits of every reader, these depend on the tokens of the rows alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from logitkit.errors import ModelError
from logitkit.processors.engine.model_forward import forwarded
from logitkit.processors.engine.partial_rows import PartialRows, over_whole_batch
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.reader import Reader
from logitkit.processors.engine.reading_check import refuse_inexact
from logitkit.processors.engine.streams import stacked_positions
from logitkit.processors.model_facts import context_length, text_config
from logitkit.processors.tokens.retokenization import Retokenizer
from logitkit.processors.transformers_api import CACHE, with_cache

MAX_REWRITTEN = 4  # tokens that one step may rewrite in a row before the other cached rows are searched
MAX_SLACK = 1.25  # unused slots are removed when the cache is this many times longer than its longest row

Rows = Sequence[Sequence[int]]


class CrossTokenizerReader(PartialRows):
    """Next-token logits of a model with another tokenizer, in the vocabulary of that model; a `Stream`.

    `Binding.foreign_reader` builds these readers and shares them between the processors of a chain.

    Args:
        model: a causal language model with attention layers only.
        own: the reader's prompts as token ids of its model, one for each of ``prompts``, none empty.
        prompts: the prompts of the call.
        retokenize: maps tokens of the generating model to tokens of this model.
        label: name of the stream in errors.

    Attributes:
        forwards: forward passes of the model so far.
        tokens: tokens fed so far, summed over rows, padding included.
        context: number of tokens that the model can read; None: no limit.

    Raises:
        ModelError: a model without a cache, with an encoder, with a recurrent state, which cannot be rewound, or one
            that reads chunks or padded rows wrongly; an own prompt that exceeds the context.

    Example:
        >>> from logitkit.processors.engine import Binding, read_prompts
        >>> from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
        >>> binding = Binding(tiny_model(), tiny_tokenizer(), read_prompts(tiny_tokenizer(), tiny_model(), "a prompt"))
        >>> own = [foreign_tokenizer()("another prompt")["input_ids"]]
        >>> reader = binding.foreign_reader(own, foreign_model(), foreign_tokenizer())
        >>> reader(binding.prompts.ids).shape[0], reader.forwards
        (1, 1)
    """

    fusable = False

    def __init__(self, model: Any, own: Rows, prompts: Prompts, retokenize: Retokenizer, *, label: str) -> None:
        self.model, self.prompts, self.retokenize, self.label = model, prompts, retokenize, label
        self.own, self.forwards, self.tokens = tuple(tuple(ids) for ids in own), 0, 0
        if len(own) != len(prompts) or not all(self.own):
            raise ModelError(
                f"{label}: own prompts must be one for each prompt of the call, none empty, "
                f"got {len(own)} for {len(prompts)}"
            )
        parameters = inspect.signature(model.forward).parameters
        if model.config.is_encoder_decoder or not {CACHE, "position_ids"} <= set(parameters):
            raise ModelError(
                f"{label}: a model with another tokenizer must be a causal one that takes {CACHE} and "
                f"position_ids, got {type(model).__name__}"
            )
        self._last_logits_only = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._window, self.context = _window(model, label), context_length(model)
        self._refuse_long([list(ids) for ids in self.own])
        refuse_inexact(model, label, Reader)
        self.release()

    def __reduce__(self) -> Any:
        raise ModelError(
            "CrossTokenizerReader: cannot be pickled, because it holds a model; pickle the chain and bind it again"
        )

    def release(self) -> None:
        """Drop the cache; the next call reads from scratch."""
        self._cache: Any = None
        self._rows: list[list[int]] = []  # tokens of each cached row, own prompt included
        self._used = np.zeros((0, 0), dtype=bool)  # [rows, slots]; the used slots of a row hold its tokens in order
        self._logits = torch.empty(0, 0)  # after the last token of each row, [rows, vocab]

    @property
    def cache_length(self) -> int:
        """Number of slots of the cache."""
        return self._used.shape[1]

    @over_whole_batch
    @torch.no_grad()
    def __call__(self, rows: Tensor) -> Tensor:
        """Return fp32 logits of the token after each row, ``[rows, own vocab]``, on the device of the rows.

        Args:
            rows: rows of the generating model, ``[rows, length]``: bound prompt and continuation.

        Raises:
            PromptError: a row starts with no bound prompt.
            ModelError: a row is longer than the model's context.
        """
        index = self.prompts.rows(rows).tolist()
        tails = self.retokenize(rows[:, self.prompts.width :].tolist())
        wanted = [[*self.own[prompt], *tail] for prompt, tail in zip(index, tails, strict=True)]
        self._refuse_long(wanted)
        try:
            self._read(wanted)
        except BaseException:  # an interrupted forward leaves a cache that matches no tokens
            self.release()
            raise
        return self._logits.to(rows.device)

    @over_whole_batch
    def positions(self, rows: Tensor, count: int) -> Tensor:
        """Return the logits after each of the last ``count`` prefixes, ``[rows, count, own vocab]``.

        Each prefix is retokenized and read separately, since a prefix may end within a token of the whole row.
        """
        return stacked_positions(self, rows, count)

    def where(self, wanted: Tensor, rows: Tensor) -> Tensor | None:
        """Return the logits of all rows if any row wants them, else None without a forward."""
        return self(rows) if bool(wanted.any()) else None

    def _refuse_long(self, rows: Rows) -> None:
        """Raise an error for rows that exceed the context, before any forward."""
        longest = max(map(len, rows))
        if self.context is not None and longest > self.context:
            raise ModelError(
                f"{self.label}: a row must be at most {self.context} tokens of this model, its context, got {longest}; "
                "generate fewer tokens, shorten the prompt, or leave this model out"
            )

    def _read(self, rows: list[list[int]]) -> None:
        """Bring the cache to these rows."""
        if self._cache is None:
            self._open(rows)
            return
        source, kept = self._longest_cached_prefix(rows)
        self._select(source)
        self._feed(rows, kept)

    def _open(self, rows: list[list[int]]) -> None:
        """Read rows with a new cache; equal rows share one row of the forward."""
        distinct = list(dict.fromkeys(map(tuple, rows)))
        self._cache = DynamicCache(config=text_config(self.model))
        # Sliding layers keep every slot too, so that any row can be rewound; the mask applies the window.
        self._cache.layers = [DynamicLayer() for _ in self._cache.layers]
        self._rows = [[] for _ in distinct]
        self._used = np.zeros((len(distinct), 0), dtype=bool)
        self._feed([list(row) for row in distinct], [0] * len(distinct))
        place = {row: number for number, row in enumerate(distinct)}
        self._select([place[tuple(row)] for row in rows])

    def _longest_cached_prefix(self, rows: list[list[int]]) -> tuple[list[int], list[int]]:
        """Return for each row the cached row with the longest common prefix, and the length of that prefix."""
        if len(rows) == len(self._rows):
            kept = [_common_prefix(row, cached) for row, cached in zip(rows, self._rows, strict=True)]
            if all(count >= len(cached) - MAX_REWRITTEN for count, cached in zip(kept, self._rows, strict=True)):
                return list(range(len(rows))), kept
        new, old = _stacked(rows, -1), _stacked(self._rows, -2)
        width = min(new.shape[1], old.shape[1])
        shared = (new[:, None, :width] == old[None, :, :width]).cumprod(-1).sum(-1)  # [rows, cached]
        source = shared.argmax(-1)
        return source.tolist(), shared[np.arange(len(rows)), source].tolist()

    def _select(self, source: list[int]) -> None:
        """Reorder the cache: cached row ``source[r]`` becomes row ``r``."""
        if source == list(range(len(self._rows))):
            return
        index = torch.tensor(source, device=self._logits.device)
        self._cache.reorder_cache(index)
        self._rows, self._used = [self._rows[number] for number in source], self._used[source]
        self._logits = self._logits[index]

    def _feed(self, rows: list[list[int]], kept: list[int]) -> None:
        """Keep ``kept[r]`` tokens of each cached row and read the other tokens of ``rows[r]``, in one chunk."""
        # A row that only lost tokens reads its last token again: logits of earlier positions are not kept.
        kept = [
            count - (count == len(row) < len(cached)) for count, row, cached in zip(kept, rows, self._rows, strict=True)
        ]
        width = max(len(row) - count for row, count in zip(rows, kept, strict=True))
        if width == 0:
            return
        dense = self._window is not None and self.cache_length + width > self._window
        if dense:  # the window counts slots, so a row must have no unused slot between its tokens
            kept = [max(0, len(row) - width) for row in rows]
        self._drop(kept)
        if dense or self.cache_length > MAX_SLACK * max(kept) + 32:
            self._compact()
        chunk, positions = _unread(rows, kept, width)
        fed = np.arange(width)[None] >= width - np.array([len(r) - k for r, k in zip(rows, kept, strict=True)])[:, None]
        self._used = np.concatenate([self._used, fed], axis=1)
        logits = self._forward(chunk, positions)
        grew = torch.from_numpy(fed[:, -1]).to(logits.device)
        self._logits = logits if bool(grew.all()) else torch.where(grew[:, None], logits, self._logits)
        self._rows = rows

    def _drop(self, kept: list[int]) -> None:
        """Mark the slots after the first ``kept[r]`` tokens of each row unused, and remove trailing unused slots."""
        self._used = self._used & (self._used.cumsum(1) <= np.array(kept)[:, None])
        slots, used = self._used.shape[1], np.flatnonzero(self._used.any(axis=0))
        end = int(used[-1]) + 1 if len(used) else 0
        if end < slots:
            self._cache.crop(end - slots)
            self._used = self._used[:, :end]

    def _compact(self) -> None:
        """Move the tokens of every row together at the right end of the cache."""
        counts = self._used.sum(1)
        length = int(counts.max(initial=0))
        together = np.arange(length)[None] >= length - counts[:, None]
        if np.array_equal(self._used, together):
            return
        unused_first = np.argsort(self._used, axis=1, kind="stable")  # used slots last, in order
        order = unused_first[:, unused_first.shape[1] - length :]
        self._used = together
        index = torch.from_numpy(order)[:, None, :, None]
        for layer in self._cache.layers:
            if layer.is_initialized and layer.keys.numel():
                slots = index.to(layer.keys.device)
                layer.keys, layer.values = (
                    states.gather(2, slots.expand(-1, states.shape[1], -1, states.shape[3]))
                    for states in (layer.keys, layer.values)
                )

    def _forward(self, chunk: Tensor, positions: Tensor) -> Tensor:
        """Run the model on a chunk after the cached tokens; return fp32 logits at its last token, ``[rows, vocab]``."""
        extra: dict[str, Any] = dict(self._last_logits_only)
        device = self.model.device
        if not self._used.all():
            extra["attention_mask"] = torch.from_numpy(self._used.astype(np.int64)).to(device)
        inputs = {"input_ids": chunk.to(device), "position_ids": positions.to(device)}
        output = forwarded(self.model, **inputs, **with_cache(self._cache), **extra)
        self.forwards += 1
        self.tokens += chunk.numel()
        return output.logits[:, -1].float()  # type: ignore[no-any-return]


def _window(model: Any, label: str) -> int | None:
    """Return the narrowest sliding window of the model, or None; `ModelError` for layers without keys and values."""
    layers: list[Any] = DynamicCache(config=text_config(model)).layers
    unsupported = {
        type(layer).__name__ for layer in layers if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer)
    }
    if unsupported:
        raise ModelError(
            f"{label}: a model with another tokenizer must keep keys and values of each token, since rows are "
            f"rewound, got {', '.join(sorted(unsupported))}; choose a model with attention layers only"
        )
    windows = [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
    local = getattr(text_config(model), "window_size", None)  # GPT-Neo applies its window itself
    return min([*windows, *([local] if local else [])], default=None)


def _common_prefix(row: Sequence[int], cached: Sequence[int]) -> int:
    """Return the length of the longest common prefix."""
    width = min(len(row), len(cached))
    if row[:width] == cached[:width]:
        return width
    return int((np.array(row[:width]) != np.array(cached[:width])).argmax())


def _stacked(rows: Rows, pad: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return rows as one array, ``[rows, longest]``, padded on the right."""
    stacked = np.full((len(rows), max(map(len, rows))), pad, dtype=np.int64)
    for number, row in enumerate(rows):
        stacked[number, : len(row)] = row
    return stacked


def _unread(rows: Rows, kept: Sequence[int], width: int) -> tuple[Tensor, Tensor]:
    """Return the tokens to read and their positions in their rows, ``[rows, width]`` each, padded on the left."""
    chunk, positions = torch.zeros(2, len(rows), width, dtype=torch.long)
    for number, (row, count) in enumerate(zip(rows, kept, strict=True)):
        if unread := len(row) - count:
            chunk[number, width - unread :] = torch.tensor(row[count:])
            positions[number, width - unread :] = torch.arange(count, len(row))
    return chunk, positions
