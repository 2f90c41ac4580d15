"""Second streams of a model with the tokenizer of the generating model.

For rows of the generating model, a `Reader` returns the next-token logits of its model after the reader's own prompt
and the continuation of each row. The KV cache is found by the tokens of the rows, never by the row number or the count
of calls. Beams, rewound drafts and repeated calls therefore give the logits that reading from scratch gives.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from logitkit.errors import ModelError
from logitkit.processors.engine.cache_rewinding import can_crop, longest_cached_prefix
from logitkit.processors.engine.grown_rows import GrownRows
from logitkit.processors.engine.model_depth import ModelDepth
from logitkit.processors.engine.model_forward import forwarded
from logitkit.processors.engine.padded_rows import padded_for
from logitkit.processors.engine.partial_rows import PartialRows, over_whole_batch
from logitkit.processors.engine.positions_ahead import PositionsAhead
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.reading_check import ReadingAbilities, reading_abilities, refuse_padding
from logitkit.processors.engine.thin_matmul import in_faster_order
from logitkit.processors.model_facts import text_config
from logitkit.processors.transformers_api import CACHE, cache_of, with_cache

KEPT_POSITIONS = 16  # positions whose logits are kept, so that a short rewind needs no forward
KEPT_NUMBERS = 2**24  # limit on the numbers of these logits: 64 MiB in fp32


class Reader(PartialRows):
    """Next-token logits of a model after its own prompt and the continuation of each row; a fusable `Stream`.

    `Binding.reader` builds readers and shares them between the processors of a chain.

    Args:
        model: a causal language model whose forward takes a cache.
        own: the reader's prompts as token ids, one for each of ``prompts``, none empty.
        prompts: the prompts of the call; the tokens of a row after its prompt are its continuation.
        abilities: what the model's cache can do; None: checked at the first use of the model.

    Attributes:
        forwards: forward passes of the model so far.
        tokens: tokens fed so far, summed over rows, padding included.
        takes_positions: whether the model's forward takes ``position_ids``.
        prefetch_used: whether prefetched logits were requested; a bool, or a bool tensor on the device.

    Raises:
        ModelError: the number of own prompts is wrong, one is empty, or the model cannot read them exactly.

    Example:
        >>> from logitkit.processors.engine import Reader, read_prompts
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> prompts = read_prompts(tiny_tokenizer(), tiny_model(), "a prompt")
        >>> reader = Reader(tiny_model(), [[1, 2, 3]], prompts)
        >>> reader(prompts.ids).shape, reader.forwards
        (torch.Size([1, 272]), 1)
    """

    fusable = True

    def __init__(
        self,
        model: Any,
        own: Sequence[Sequence[int]],
        prompts: Prompts,
        *,
        abilities: ReadingAbilities | None = None,
    ) -> None:
        if len(own) != len(prompts) or not all(len(ids) for ids in own):
            got = f"got {len(own)} for {len(prompts)}"
            raise ModelError(f"Reader: own prompts must be one for each prompt of the call, none empty, {got}")
        self.model, self.prompts, self._depth = model, prompts, ModelDepth(model)
        self.own, self.forwards, self.tokens = tuple(tuple(ids) for ids in own), 0, 0
        self.prefetch_used: bool | Tensor
        self._read_rows = GrownRows(prompts, self.release)
        ids, mask = padded_for(self.own, 0, in_encoder=bool(model.config.is_encoder_decoder))
        self._own_ids, self._own_mask = ids.to(model.device), mask.to(model.device)
        self._own_length = mask.sum(-1).to(model.device)  # [prompts]
        self._ahead = PositionsAhead(self._own_length, self._own_mask)
        self._padded = not bool(mask.all())
        parameters = inspect.signature(model.forward).parameters
        self.takes_positions, self._limits_logits = "position_ids" in parameters, "logits_to_keep" in parameters
        self.abilities = abilities or reading_abilities(model, type(self))
        if self._padded and not self.abilities.padding:
            refuse_padding(model)
        self.release()

    def __reduce__(self) -> Any:
        raise ModelError(
            "Reader: cannot be pickled, because it holds a model and its cache; pickle the chain and bind it again"
        )

    def release(self) -> None:
        """Drop the cache and prefetched logits; the next call reads from scratch."""
        self._cache: Any = None
        self._read_rows.note(None)
        self._index = torch.empty(0, dtype=torch.long)  # number of the own prompt of each cached row
        self._tail = torch.empty(0, 0, dtype=torch.long)  # cached continuations, [rows, tokens]
        self._logits: list[Tensor] = []  # at the last positions of the tail, newest last, each [rows, vocab]
        self.clear_prefetched()

    @property
    def width(self) -> int:
        """Length of the longest own prompt, in tokens."""
        return self._own_ids.shape[1]

    def own_rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return ids and mask of the own prompts with these numbers, ``[rows, width]`` each, left-padded."""
        index = index.to(self._own_ids.device)
        return self._own_ids[index], self._own_mask[index]

    def cache_of_rows(self, rows: Tensor) -> Any:
        """Return the cache if it holds exactly these rows, ``[rows, length]``, in this order; else None."""
        index, tail = self.prompts.rows(rows), rows[:, self.prompts.width :].to(self._tail.device)
        is_same = torch.equal(index.to(self._index.device), self._index) and torch.equal(tail, self._tail)
        return self._cache if is_same else None

    def set_prefetched(self, rows: Tensor, logits: Tensor) -> None:
        """Store logits that another forward computed for these rows.

        Cache hits are by tensor identity; the caller guarantees that the logits belong to these rows.

        Args:
            rows: the tensor that the next call will pass, ``[rows, length]``.
            logits: fp32, ``[rows, vocab]``.
        """
        self._prefetched, self.prefetch_used = (rows, logits), False

    def clear_prefetched(self) -> None:
        """Drop the stored logits."""
        self._prefetched, self.prefetch_used = None, False

    def where(self, wanted: Tensor, rows: Tensor) -> Tensor | None:
        """Return the logits of all rows if any row wants them, else None without a forward.

        Args:
            wanted: bool, ``[rows]``. It is not read when the logits are prefetched, so the host does not wait.
            rows: token ids, ``[rows, length]``.
        """
        if self._prefetched is None or self._prefetched[0] is not rows:
            return self(rows) if self.prompts.deferred_checks.read(wanted.any()) else None
        used, logits = self.prefetch_used, self(rows)
        self.prefetch_used = wanted.any() | used
        return logits

    @over_whole_batch
    @torch.no_grad()
    def __call__(self, rows: Tensor) -> Tensor:
        """Return fp32 logits of the token after each row, ``[rows, vocab]``, on the device of the rows.

        Args:
            rows: rows of the generating model, ``[rows, length]``: bound prompt and continuation.

        Raises:
            PromptError: a row starts with no bound prompt.
        """
        if self._prefetched is not None and self._prefetched[0] is rows:
            self.prefetch_used = True
            return self._prefetched[1].to(rows.device)
        return self._read(rows, 1)[0].to(rows.device)

    @over_whole_batch
    @torch.no_grad()
    def positions(self, rows: Tensor, count: int) -> Tensor:
        """Return the logits after each of the last ``count`` prefixes of the rows, read in one chunk.

        Args:
            rows: rows of the generating model, ``[rows, length]``.
            count: 1 to the length of the continuation plus 1; the first prefix is then the prompt.

        Returns:
            fp32, ``[rows, count, vocab]``; the last position equals the result of calling the reader.
        """
        return torch.stack(self._read(rows, count), dim=1).to(rows.device)

    def _read(self, rows: Tensor, count: int) -> list[Tensor]:
        """Bring the cache to these rows; return the logits after the last ``count`` prefixes, oldest first."""
        try:
            with self._depth.restored():
                new = self._read_rows.new_tokens(rows) if count == 1 else 0
                if new:  # several tokens where a gate closed the stream for some steps
                    self._feed(rows[:, -new:], 1)
                else:
                    self._catch_up(self.prompts.rows(rows), rows[:, self.prompts.width :], count)
        except BaseException:  # an interrupted forward leaves a cache that matches no tokens
            self.release()
            raise
        is_whole = self._tail.shape[1] == rows.shape[1] - self.prompts.width  # after a short rewind the cache is longer
        self._read_rows.note(rows if is_whole else None)
        end = len(self._logits) - self._tail.shape[1] + rows.shape[1] - self.prompts.width
        return self._logits[end - count : end]

    def _catch_up(self, index: Tensor, tail: Tensor, count: int) -> None:
        """Bring the cache to these rows: keep the longest cached prefix, and feed the other tokens in one chunk."""
        index, tail = index.to(self.model.device), tail.to(self.model.device)
        keep, source = -1, index
        if self._cache is not None:
            keep, source = longest_cached_prefix(index, tail, self._index, self._tail)
        length = tail.shape[1]
        behind = self._tail.shape[1] - length
        # All logits are kept: the rows are a permutation of the cached ones, or a short rewind.
        if keep == length and 0 <= behind <= len(self._logits) - count:
            self._select(source)
            return
        keep = min(keep, length - count)
        removed = self._tail.shape[1] - keep
        if keep < 0 or not can_crop(self._cache, removed):
            self._open(index, tail, count)
            return
        self._select(source)
        self._crop(removed)
        self._feed(tail[:, keep:], count)

    def _select(self, source: Tensor) -> None:
        """Reorder the cache: cached row ``source[r]`` becomes row ``r``."""
        if torch.equal(source, torch.arange(len(self._index), device=source.device)):
            return
        self._reorder(source)
        self._index, self._tail = self._index[source], self._tail[source]
        self._logits = [logits[source.to(logits.device)] for logits in self._logits]

    def _reorder(self, source: Tensor) -> None:
        """Reorder the keys and values of the cache."""
        self._cache.reorder_cache(source)

    def _crop(self, removed: int) -> None:
        """Drop the last ``removed`` tokens of each cached row."""
        if removed:
            self._cache.crop(-removed)
            self._tail = self._tail[:, :-removed]
            self._logits = self._logits[:-removed]

    def _feed(self, chunk: Tensor, count: int) -> None:
        """Feed a chunk, ``[rows, tokens]``, after the cached tokens; keep the logits at its last ``count`` tokens."""
        chunk = chunk.to(self.model.device)
        for part in chunk.split(chunk.shape[1] if self.abilities.chunks else 1, dim=1):
            self._feed_at_once(part, count)

    def _feed_at_once(self, chunk: Tensor, count: int) -> None:
        """Feed a chunk in one forward."""
        positions = self._ahead.positions(self._index, self._tail.shape[1], chunk.shape[1])
        self._tail = torch.cat([self._tail, chunk], dim=1)
        self._push(self._forward(chunk, positions, min(count, chunk.shape[1])), chunk.shape[1], count)

    def _push(self, logits: Tensor, fed: int, count: int) -> None:
        """Keep the newest logits, ``[rows, kept, vocab]``.

        Older logits stay only if the newest cover every fed token, since kept positions are consecutive.
        """
        room = max(count, min(KEPT_POSITIONS, KEPT_NUMBERS // logits[:, -1].numel()))
        self._logits = [*(self._logits if logits.shape[1] == fed else []), *logits.unbind(1)][-room:]

    def _open(self, index: Tensor, tail: Tensor, count: int) -> None:
        """Read prompts and continuations with a new cache; rows of one prompt share the forward over that prompt."""
        distinct, inverse = torch.unique(index, return_inverse=True)
        if len(distinct) == len(index):
            self._start(index, tail, count)
            return
        self._start(distinct, tail[: len(distinct), :0], 1)
        self._select(inverse)
        if tail.shape[1]:
            self._feed(tail, count)

    def _start(self, index: Tensor, tail: Tensor, count: int) -> None:
        """Read own prompts and continuations in one forward, with a new cache."""
        self._cache = DynamicCache(config=text_config(self.model))
        self._cache.activate_past_recording()  # without it, a full sliding window cannot be rewound
        self._read_own(index, tail, count)

    def _read_own(self, index: Tensor, tail: Tensor, count: int) -> None:
        """Read own prompts and continuations in one forward, into an empty cache."""
        self._index, self._tail, self._logits = index, tail, []
        ids = torch.cat([self._own_ids[index], tail], dim=1)
        padding = self._own_ids.shape[1] - self._own_length[index]
        positions = torch.arange(ids.shape[1], device=ids.device) - padding[:, None]
        self._push(self._forward(ids, positions.clamp_min(0), count), ids.shape[1], count)

    def _forward(self, chunk: Tensor, positions: Tensor, count: int) -> Tensor:
        """Run the model on a chunk after the cached tokens; return its last logits, ``[rows, count, vocab]``."""
        extra = with_cache(self._cache) | ({"logits_to_keep": count} if self._limits_logits else {})
        if self._padded:
            extra["attention_mask"] = self._ahead.masks(self._index, self._tail.shape[1])
        extra |= {"position_ids": positions} if self.takes_positions else {}
        model = in_faster_order(self.model, chunk.numel())
        return self._counted(forwarded(model, input_ids=chunk, **extra), chunk, count)

    def _counted(self, output: Any, chunk: Tensor, count: int) -> Tensor:
        """Count a forward and return its last logits in fp32."""
        if cache_of(output) is None:
            raise ModelError(f"Reader: {type(self.model).__name__} must return a cache ({CACHE}), got None")
        self.forwards += 1
        self.tokens += chunk.numel()
        return output.logits[:, -count:].float()  # type: ignore[no-any-return]
