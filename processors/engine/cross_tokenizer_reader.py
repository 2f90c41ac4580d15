"""A reader whose model has another tokenizer: the same text, rows of unequal length, one KV cache.

The continuation of each row is retokenized; the longest common token prefix keeps its place in the cache.
Rows grow by different numbers of tokens and are rewritten by different numbers, so a slot of the cache may
be dead for one row and alive for another: dead slots are masked, and squeezed out now and then. Positions
are those of the row's own tokens. Like every reader it answers from the content of the rows alone.
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
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.streams import stacked_positions
from logitkit.processors.model_facts import context_length, text_config
from logitkit.processors.tokens.retokenization import Retokenizer

REWRITTEN = 4  # tokens that a row's last token may change before other cached rows are looked at
SQUEEZE = 1.25  # the cache is squeezed when it is this many times longer than its longest row

Rows = Sequence[Sequence[int]]


class CrossTokenizerReader:
    """Next-token logits of ``model``, in its own vocabulary, for (own prompt, retokenized continuation).

    Args:
        model: a causal language model with attention layers only.
        own: its own prompt for each of ``prompts``, as its own token ids, none empty.
        prompts: the prompts of the call.
        retokenize: from the generating model's tokens to this model's.
        label: its name in errors.

    Attributes:
        forwards: forward passes made so far.
        tokens: tokens fed so far, padding included, summed over rows.
        context: how many tokens the model can read, or None.

    Raises:
        ModelError: a model without cache, with an encoder, or with a recurrent state, which cannot be
            rewound; an own prompt that leaves no room in its context.
    """

    fusable = False

    def __init__(self, model: Any, own: Rows, prompts: Prompts, retokenize: Retokenizer, *, label: str) -> None:
        self.model, self.prompts, self.retokenize, self.label = model, prompts, retokenize, label
        self.own = tuple(tuple(ids) for ids in own)
        if len(own) != len(prompts) or not all(self.own):
            raise ModelError(
                f"{label}: own prompts must be one a prompt and not empty, got {len(own)} for {len(prompts)}"
            )
        self.forwards = self.tokens = 0
        takes = inspect.signature(model.forward).parameters
        if model.config.is_encoder_decoder or not {"past_key_values", "position_ids"} <= set(takes):
            raise ModelError(
                f"{label}: a model with another tokenizer must be a causal one that takes past_key_values and "
                f"position_ids, got {type(model).__name__}"
            )
        self._keeps_last = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        self._window = _window(model, label)
        self.context = context_length(model)
        self._refuse_long([list(ids) for ids in self.own])
        self.release()

    def __reduce__(self) -> Any:
        raise ModelError(
            "CrossTokenizerReader: cannot be pickled, it holds a model; pickle the chain and bind it again"
        )

    def release(self) -> None:
        """Drop the cache; the next call reads from scratch."""
        self._cache: Any = None
        self._rows: list[list[int]] = []  # what each cached row holds, own prompt included
        self._alive = np.zeros((0, 0), dtype=bool)  # [rows, slots]; a row's alive slots hold its tokens in order
        self._logits = torch.empty(0, 0)  # after the last token of each row, [rows, vocab]

    @torch.no_grad()
    def __call__(self, input_ids: Tensor) -> Tensor:
        """Return fp32 logits ``[rows, own vocab]`` of the token after each row, on the rows' device.

        Args:
            input_ids: rows of the generating model, ``[rows, length]``: bound prompt and continuation.

        Raises:
            PromptError: a row starts with no bound prompt.
            ModelError: a row is longer than the model's context.
        """
        index = self.prompts.rows(input_ids).tolist()
        tails = self.retokenize(input_ids[:, self.prompts.width :].tolist())
        rows = [[*self.own[prompt], *tail] for prompt, tail in zip(index, tails, strict=True)]
        self._refuse_long(rows)
        try:
            self._read(rows)
        except BaseException:  # an interrupted forward leaves a cache that matches no tokens
            self.release()
            raise
        return self._logits.to(input_ids.device)

    def positions(self, rows: Tensor, count: int) -> Tensor:
        """Return the logits after each of the last ``count`` prefixes, ``[rows, count, own vocab]``.

        Each prefix is retokenized and read by itself, since a prefix may end within a token of the whole row.
        """
        return stacked_positions(self, rows, count)

    def where(self, wanted: Tensor, rows: Tensor) -> Tensor | None:
        """Return the logits of all rows if any row wants them, else None without a forward."""
        return self(rows) if bool(wanted.any()) else None

    def _refuse_long(self, rows: Rows) -> None:
        """Refuse what the model cannot read, before it runs."""
        longest = max(map(len, rows))
        if self.context is not None and longest > self.context:
            raise ModelError(
                f"{self.label}: a row must be at most {self.context} of its tokens, its context, got {longest}; "
                "generate fewer tokens, shorten the prompt, or leave this model out"
            )

    def _read(self, rows: list[list[int]]) -> None:
        """Bring the cache to these rows."""
        if self._cache is None:
            self._open(rows)
            return
        source, kept = self._matched(rows)
        self._select(source)
        self._feed(rows, kept)

    def _open(self, rows: list[list[int]]) -> None:
        """Read from scratch; equal rows share one reading."""
        distinct = list(dict.fromkeys(map(tuple, rows)))
        self._cache = DynamicCache(config=text_config(self.model))
        # Every slot is kept, in sliding layers too, so that any row can be rewound; the mask does the sliding.
        self._cache.layers = [DynamicLayer() for _ in self._cache.layers]
        self._rows = [[] for _ in distinct]
        self._alive = np.zeros((len(distinct), 0), dtype=bool)
        self._feed([list(row) for row in distinct], [0] * len(distinct))
        place = {row: number for number, row in enumerate(distinct)}
        self._select([place[tuple(row)] for row in rows])

    def _matched(self, rows: list[list[int]]) -> tuple[list[int], list[int]]:
        """Return the cached row that shares most with each row, and how many leading tokens they share."""
        if len(rows) == len(self._rows):
            kept = [_shared(row, cached) for row, cached in zip(rows, self._rows, strict=True)]
            if all(count >= len(cached) - REWRITTEN for count, cached in zip(kept, self._rows, strict=True)):
                return list(range(len(rows))), kept
        new, old = _stacked(rows, -1), _stacked(self._rows, -2)
        width = min(new.shape[1], old.shape[1])
        shared = (new[:, None, :width] == old[None, :, :width]).cumprod(-1).sum(-1)  # [rows, cached]
        source = shared.argmax(-1)
        return source.tolist(), shared[np.arange(len(rows)), source].tolist()

    def _select(self, source: list[int]) -> None:
        """Make cached row ``source[r]`` row ``r``."""
        if source == list(range(len(self._rows))):
            return
        index = torch.tensor(source, device=self._logits.device)
        self._cache.reorder_cache(index)
        self._rows, self._alive = [self._rows[number] for number in source], self._alive[source]
        self._logits = self._logits[index]

    def _feed(self, rows: list[list[int]], kept: list[int]) -> None:
        """Keep ``kept[r]`` tokens of each cached row and read the rest of ``rows[r]``, in one chunk."""
        # A row that was cut without growing must read its last token again: only its last logits are remembered.
        kept = [
            count - (count == len(row) < len(cached)) for count, row, cached in zip(kept, rows, self._rows, strict=True)
        ]
        width = max(len(row) - count for row, count in zip(rows, kept, strict=True))
        if width == 0:
            return
        dense = self._window is not None and self._alive.shape[1] + width > self._window
        if dense:  # a window slides over slots, so there may be none between a row's tokens
            kept = [max(0, len(row) - width) for row in rows]
        self._forget(kept)
        if dense or self._alive.shape[1] > SQUEEZE * max(kept) + 32:
            self._squeeze()
        chunk, positions = _right(rows, kept, width)
        fed = np.arange(width)[None] >= width - np.array([len(r) - k for r, k in zip(rows, kept, strict=True)])[:, None]
        self._alive = np.concatenate([self._alive, fed], axis=1)
        logits = self._forward(chunk, positions)
        grew = torch.from_numpy(fed[:, -1]).to(logits.device)
        self._logits = logits if bool(grew.all()) else torch.where(grew[:, None], logits, self._logits)
        self._rows = rows

    def _forget(self, kept: list[int]) -> None:
        """Mark the slots behind each row's first ``kept[r]`` tokens dead, and cut off slots that no row uses."""
        self._alive = self._alive & (self._alive.cumsum(1) <= np.array(kept)[:, None])
        slots, used = self._alive.shape[1], np.flatnonzero(self._alive.any(axis=0))
        end = int(used[-1]) + 1 if len(used) else 0
        if end < slots:
            self._cache.crop(end - slots)
            self._alive = self._alive[:, :end]

    def _squeeze(self) -> None:
        """Move every row's tokens together at the right end of the cache."""
        counts = self._alive.sum(1)
        length = int(counts.max(initial=0))
        together = np.arange(length)[None] >= length - counts[:, None]
        if np.array_equal(self._alive, together):
            return
        dead_first = np.argsort(self._alive, axis=1, kind="stable")  # alive slots last, in order
        order = dead_first[:, dead_first.shape[1] - length :]
        self._alive = together
        index = torch.from_numpy(order)[:, None, :, None]
        for layer in self._cache.layers:
            if layer.is_initialized and layer.keys.numel():
                where = index.to(layer.keys.device)
                layer.keys, layer.values = (
                    states.gather(2, where.expand(-1, states.shape[1], -1, states.shape[3]))
                    for states in (layer.keys, layer.values)
                )

    def _forward(self, chunk: Tensor, positions: Tensor) -> Tensor:
        """Run the model over a chunk behind the cache; fp32 logits of its last token, ``[rows, vocab]``."""
        extra: dict[str, Any] = dict(self._keeps_last)
        device = self.model.device
        if not self._alive.all():
            extra["attention_mask"] = torch.from_numpy(self._alive.astype(np.int64)).to(device)
        output = self.model(
            input_ids=chunk.to(device),
            position_ids=positions.to(device),
            past_key_values=self._cache,
            use_cache=True,
            **extra,
        )
        self.forwards += 1
        self.tokens += chunk.numel()
        return output.logits[:, -1].float()  # type: ignore[no-any-return]


def _window(model: Any, label: str) -> int | None:
    """The narrowest sliding window of the model, or None.

    Raises:
        ModelError: layers with another memory than keys and values of each token.
    """
    layers: list[Any] = DynamicCache(config=text_config(model)).layers
    strange = {type(layer).__name__ for layer in layers if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer)}
    if strange:
        raise ModelError(
            f"{label}: a model with another tokenizer must keep keys and values of each token, since its reading is "
            f"rewound, got {', '.join(sorted(strange))}; choose a model with attention layers only"
        )
    windows = [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
    return min(windows, default=None)


def _shared(row: Sequence[int], cached: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    width = min(len(row), len(cached))
    if row[:width] == cached[:width]:
        return width
    return int((np.array(row[:width]) != np.array(cached[:width])).argmax())


def _stacked(rows: Rows, pad: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Rows as one array ``[rows, longest]``, padded on the right."""
    stacked = np.full((len(rows), max(map(len, rows))), pad, dtype=np.int64)
    for number, row in enumerate(rows):
        stacked[number, : len(row)] = row
    return stacked


def _right(rows: Rows, kept: Sequence[int], width: int) -> tuple[Tensor, Tensor]:
    """Tokens to read and their positions in their rows, ``[rows, width]`` each, padded on the left."""
    chunk = torch.zeros(len(rows), width, dtype=torch.long)
    positions = torch.zeros(len(rows), width, dtype=torch.long)
    for number, (row, count) in enumerate(zip(rows, kept, strict=True)):
        if fresh := len(row) - count:
            chunk[number, width - fresh :] = torch.tensor(row[count:])
            positions[number, width - fresh :] = torch.arange(count, len(row))
    return chunk, positions
