"""Second streams of a model with another tokenizer.

The reader retokenizes the continuation of each row, and keeps the longest common token prefix in its KV cache. In one
step, rows gain and lose different numbers of tokens. A slot of the cache may therefore hold a token of one row and be
unused in another row. Unused slots are masked, and removed when they are many. Positions count the tokens of the row.
Like the logits of every reader, these depend on the tokens of the rows alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from logitkit.errors import ModelError
from logitkit.processors.engine import ragged_rows
from logitkit.processors.engine.cache_rewinding import narrowest_window
from logitkit.processors.engine.model_forward import forwarded
from logitkit.processors.engine.partial_rows import PartialRows, over_whole_batch
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.reader import Reader
from logitkit.processors.engine.reading_check import refuse_inexact
from logitkit.processors.engine.thin_matmul import in_faster_order
from logitkit.processors.model_facts import context_length, text_config
from logitkit.processors.tokens.retokenization import Retokenizer
from logitkit.processors.transformers_api import CACHE, with_cache

MAX_REWRITTEN = 4  # tokens that one step may rewrite in a row before the other cached rows are searched
MAX_SLACK = 1.25  # unused slots are removed when the cache is this many times longer than its longest row


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

    def __init__(
        self, model: Any, own: ragged_rows.Ragged, prompts: Prompts, retokenize: Retokenizer, *, label: str
    ) -> None:
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
        self._limits_logits = "logits_to_keep" in parameters
        self._window, self.context = narrowest_window(model, label), context_length(model)
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
        self._ahead: dict[tuple[int, ...], Tensor] = {}  # logits of the rows that `positions` read last, [vocab] each

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
        wanted = self._wanted(rows)
        known = [self._ahead.get(tuple(row)) for row in wanted] if self._ahead else [None]
        if None not in known:
            return torch.stack(known).to(rows.device)  # type: ignore[arg-type]
        with self._whole_or_nothing():
            self._read(wanted)
        return self._logits.to(rows.device)

    @over_whole_batch
    @torch.no_grad()
    def positions(self, rows: Tensor, count: int) -> Tensor:
        """Return the logits after each of the last ``count`` prefixes, ``[rows, count, own vocab]``.

        One forward reads all of them, behind one that reads the prompts. A prefix that ends within a token of the whole
        row is a row of its own there.
        """
        length = rows.shape[1]
        prefixes = [self._wanted(rows[:, :end]) for end in range(length - count + 1, length + 1)]
        covering, shortest = ragged_rows.covering_rows([row for each in prefixes for row in each])
        with self._whole_or_nothing():
            if self._cache is None:
                self._open(prefixes[0])
            source, kept = self._longest_cached_prefix(covering)
            self._select(source)
            logits = self._feed(covering, kept, shortest)
        self._ahead = ragged_rows.values_by_prefix(covering, shortest, logits)
        by_prefix = [torch.stack([self._ahead[tuple(row)] for row in each]) for each in prefixes]
        return torch.stack(by_prefix, dim=1).to(rows.device)

    def _wanted(self, rows: Tensor) -> list[list[int]]:
        """Return own prompt and retokenized continuation of each row, after a check of their lengths."""
        index = self.prompts.rows(rows).tolist()
        tails = self.retokenize(rows[:, self.prompts.width :].tolist())
        wanted = [[*self.own[prompt], *tail] for prompt, tail in zip(index, tails, strict=True)]
        self._refuse_long(wanted)
        return wanted

    @contextmanager
    def _whole_or_nothing(self) -> Iterator[None]:
        """Drop the cache where an interrupted forward leaves one that matches no tokens."""
        try:
            yield
        except BaseException:
            self.release()
            raise

    def where(self, wanted: Tensor, rows: Tensor) -> Tensor | None:
        """Return the logits of all rows if any row wants them, else None without a forward."""
        return self(rows) if bool(wanted.any()) else None

    def _refuse_long(self, rows: ragged_rows.Ragged) -> None:
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
            kept = [ragged_rows.common_prefix(row, cached) for row, cached in zip(rows, self._rows, strict=True)]
            if all(count >= len(cached) - MAX_REWRITTEN for count, cached in zip(kept, self._rows, strict=True)):
                return list(range(len(rows))), kept
        new, old = ragged_rows.stacked(rows, -1), ragged_rows.stacked(self._rows, -2)
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

    def _feed(self, rows: list[list[int]], kept: list[int], shortest: list[int] | None = None) -> Tensor:
        """Keep ``kept[r]`` tokens of each cached row and read the other tokens of ``rows[r]``, in one chunk.

        Args:
            rows, kept: as said.
            shortest: number of tokens of the shortest prefix of each row whose logits are wanted; None: whole rows.

        Returns:
            Logits after the last prefixes of each row, ``[rows, prefixes, vocab]``, the whole row last.
        """
        # A row that only lost tokens reads its last token again: logits of earlier positions are not kept.
        known = [len(row) - (len(row) < len(cached)) for row, cached in zip(rows, self._rows, strict=True)]
        known = known if shortest is None else [length - 1 for length in shortest]
        kept = [min(pair) for pair in zip(kept, known, strict=True)]
        width = max(len(row) - count for row, count in zip(rows, kept, strict=True))
        if width == 0:
            return self._logits[:, None]
        span = 1 if shortest is None else 1 + max(len(row) - least for row, least in zip(rows, shortest, strict=True))
        dense = self._window is not None and self.cache_length + width > self._window
        if dense:  # the window counts slots, so a row must have no unused slot between its tokens
            kept = [max(0, len(row) - width) for row in rows]
        self._drop(kept)
        if dense or self.cache_length > MAX_SLACK * max(kept) + 32:
            self._compact()
        chunk, positions = ragged_rows.unread_chunk(rows, kept, width)
        fed = np.arange(width)[None] >= width - np.array([len(r) - k for r, k in zip(rows, kept, strict=True)])[:, None]
        self._used = np.concatenate([self._used, fed], axis=1)
        logits = self._forward(chunk, positions, span)
        grew = torch.from_numpy(fed[:, -1]).to(logits.device)
        last = logits[:, -1]
        self._logits = last if bool(grew.all()) else torch.where(grew[:, None], last, self._logits)
        self._rows = rows
        return logits

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

    def _forward(self, chunk: Tensor, positions: Tensor, span: int) -> Tensor:
        """Run the model on a chunk, ``[rows, tokens]``; return fp32 logits at its last ``span`` tokens."""
        extra: dict[str, Any] = {"logits_to_keep": span} if self._limits_logits else {}
        device = self.model.device
        if not self._used.all():
            extra["attention_mask"] = torch.from_numpy(self._used.astype(np.int64)).to(device)
        inputs = {"input_ids": chunk.to(device), "position_ids": positions.to(device)}
        output = forwarded(in_faster_order(self.model, chunk.numel()), **inputs, **with_cache(self._cache), **extra)
        self.forwards += 1
        self.tokens += chunk.numel()
        return output.logits[:, -span:].float()  # type: ignore[no-any-return]
