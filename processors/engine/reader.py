"""The Reader: a language model that reads along.

Given any rows of tokens it returns the next-token logits of its own model under its own prompt, as if
it had read that prompt and the row's continuation from scratch. What it computes is kept in a KV cache
keyed by the tokens themselves, never by row number or call count, so beams, rewinds and reuse are right.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from logitkit.errors import ModelError
from logitkit.processors.engine.prompts import Prompts, left_padded
from logitkit.processors.model_facts import text_config

REMEMBERED = 16  # positions whose logits are kept, so that a short rewind costs no forward ...
REMEMBERED_NUMBERS = 2**24  # ... and how many numbers they may be in all (64 MiB)


class Reader:
    """Next-token logits of ``model`` for (own prompt, continuation of a row).

    Args:
        model: a causal or encoder-decoder language model whose forward takes a cache.
        own: its own prompt for each of ``prompts``, as token ids.
        prompts: the prompts of the call; a row's tokens after its prompt are its continuation.

    Attributes:
        forwards: forward passes made so far.
        tokens: tokens fed so far, padding included, summed over rows.
    """

    fusable = True

    def __init__(self, model: Any, own: Sequence[Sequence[int]], prompts: Prompts) -> None:
        if len(own) != len(prompts) or not all(len(ids) for ids in own):
            raise ModelError(
                f"Reader: own prompts must be one a prompt and not empty, got {len(own)} for {len(prompts)}"
            )
        self.model, self.prompts = model, prompts
        self.own = tuple(tuple(ids) for ids in own)
        self.forwards = self.tokens = 0
        self.prefetch_used: bool | Tensor = False
        self._prefetched: tuple[Tensor, Tensor] | None = None
        self._trusting = True
        ids, mask = left_padded(self.own, pad=0)
        self._own_ids, self._own_mask = ids.to(model.device), mask.to(model.device)
        self._own_length = mask.sum(-1).to(model.device)  # [prompts]
        self._padded = not bool(mask.all())
        takes = inspect.signature(model.forward).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in takes.values())
        self.takes_positions = "position_ids" in takes
        self._keeps_last = "logits_to_keep" in takes
        if "past_key_values" not in takes and not anything:
            raise ModelError(
                f"Reader: {type(model).__name__} must take past_key_values; it has no cache to read along with"
            )
        self.release()

    def __reduce__(self) -> Any:
        raise ModelError(
            "Reader: cannot be pickled, it holds a model and its cache; pickle the chain and bind it again"
        )

    def release(self) -> None:
        """Drop the cache; the next call reads from scratch."""
        self._cache: Any = None
        self._seen: Tensor | None = None  # the rows last asked for, [rows, length]
        self._index = torch.empty(0, dtype=torch.long)  # own prompt of each cached row
        self._tail = torch.empty(0, 0, dtype=torch.long)  # cached continuation, [rows, tokens]
        self._logits: list[Tensor] = []  # of the last positions of the tail, newest last, each [rows, vocab]
        self.clear_prefetched()

    @property
    def width(self) -> int:
        """Length of its longest own prompt, in tokens."""
        return self._own_ids.shape[1]

    def own_rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Own prompts of these prompt numbers, left-padded: ids and mask, ``[rows, width]``."""
        index = index.to(self._own_ids.device)
        return self._own_ids[index], self._own_mask[index]

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
            return self(rows) if bool(wanted.any()) else None
        used, logits = self.prefetch_used, self(rows)
        self.prefetch_used = wanted.any() | used
        return logits

    @torch.no_grad()
    def __call__(self, input_ids: Tensor) -> Tensor:
        """Return fp32 logits ``[rows, vocab]`` of the token after each row, on the rows' device.

        Args:
            input_ids: rows of the generating model, ``[rows, length]``: bound prompt and continuation.

        Raises:
            PromptError: a row starts with no bound prompt.
        """
        if self._prefetched is not None and self._prefetched[0] is input_ids:
            self.prefetch_used = True
            return self._prefetched[1].to(input_ids.device)
        return self._read(input_ids, 1)[0].to(input_ids.device)

    @torch.no_grad()
    def positions(self, input_ids: Tensor, count: int) -> Tensor:
        """Return the logits after each of the last ``count`` prefixes of the rows, in one chunk.

        Args:
            input_ids: rows of the generating model, ``[rows, length]``.
            count: 1 to the length of the continuation and one more, which is right after the prompt.

        Returns:
            fp32 ``[rows, count, vocab]``; the last is what calling the reader gives.
        """
        return torch.stack(self._read(input_ids, count), dim=1).to(input_ids.device)

    def _read(self, input_ids: Tensor, count: int) -> list[Tensor]:
        """Logits after the last ``count`` prefixes, oldest first; bring the cache there."""
        try:
            if count == 1 and self._grew_by_one(input_ids):
                self._feed(input_ids[:, -1:], 1)
            else:
                self._catch_up(self.prompts.rows(input_ids), input_ids[:, self.prompts.width :], count)
        except BaseException:  # an interrupted forward leaves a cache that matches no tokens
            self.release()
            raise
        self._seen = input_ids
        end = len(self._logits) - self._tail.shape[1] + input_ids.shape[1] - self.prompts.width
        return self._logits[end - count : end]

    def _grew_by_one(self, input_ids: Tensor) -> bool:
        """Say whether these are the cached rows and one token more: the step of plain decoding."""
        seen = self._seen
        if seen is None or self._tail.shape[1] != seen.shape[1] - self.prompts.width:
            return False
        grew = self.prompts.grew_by_one(seen, input_ids)
        if grew is None:
            return False
        return self.prompts.deferred_checks.expect(grew, self._mistaken) if self._trusting else bool(grew)

    def _mistaken(self) -> None:
        """The rows were others: drop what was read for them, and look before each step from now on."""
        self.release()
        self._trusting = False

    def _catch_up(self, index: Tensor, tail: Tensor, count: int) -> None:
        """Bring the cache to these rows: reuse the longest cached prefix, feed the rest in one chunk."""
        index, tail = index.to(self.model.device), tail.to(self.model.device)
        keep, source = self._shared(index, tail)
        length = tail.shape[1]
        behind = self._tail.shape[1] - length
        if keep == length and 0 <= behind <= len(self._logits) - count:  # all known: a permutation or a short rewind
            self._select(source)
            return
        keep = min(keep, length - count)
        removed = self._tail.shape[1] - keep
        if keep < 0 or not _can_crop(self._cache, removed):
            self._open(index, tail, count)
            return
        self._select(source)
        self._crop(removed)
        self._feed(tail[:, keep:], count)

    def _shared(self, index: Tensor, tail: Tensor) -> tuple[int, Tensor]:
        """Return how many tokens all rows share with a cached row each, and which (-1: some row with none)."""
        if self._cache is None:
            return -1, index
        width = min(tail.shape[1], self._tail.shape[1])
        equal = tail[:, None, :width] == self._tail[None, :, :width]  # [rows, cached, width]
        prefix = equal.long().cumprod(-1).sum(-1)  # [rows, cached]
        prefix = prefix.masked_fill(index[:, None] != self._index[None], -1)
        best, source = prefix.max(-1)
        return int(best.min()), source

    def _select(self, source: Tensor) -> None:
        """Make cached row ``source[r]`` row ``r``."""
        if torch.equal(source, torch.arange(len(self._index), device=source.device)):
            return
        self._cache.reorder_cache(source)
        self._index, self._tail = self._index[source], self._tail[source]
        self._logits = [logits[source.to(logits.device)] for logits in self._logits]

    def _crop(self, removed: int) -> None:
        """Forget the last tokens."""
        if removed:
            self._cache.crop(-removed)
            self._tail = self._tail[:, :-removed]
            self._logits = self._logits[:-removed]

    def _feed(self, chunk: Tensor, count: int) -> None:
        """Read on by a chunk ``[rows, tokens]``; remember the logits of its last ``count`` tokens."""
        chunk = chunk.to(self.model.device)
        before = self._tail.shape[1]
        positions = self._own_length[self._index, None] + torch.arange(
            before, before + chunk.shape[1], device=chunk.device
        )
        self._tail = torch.cat([self._tail, chunk], dim=1)
        self._push(self._forward(chunk, positions, min(count, chunk.shape[1])), chunk.shape[1], count)

    def _push(self, logits: Tensor, fed: int, count: int) -> None:
        """Remember the newest logits ``[rows, kept, vocab]``; a gap before them ends the run of known positions."""
        room = max(count, min(REMEMBERED, REMEMBERED_NUMBERS // logits[:, -1].numel()))
        known = self._logits if logits.shape[1] == fed else []
        self._logits = [*known, *logits.unbind(1)][-room:]

    def _open(self, index: Tensor, tail: Tensor, count: int) -> None:
        """Read prompt and continuation from scratch; rows of one prompt share its reading."""
        distinct, inverse = torch.unique(index, return_inverse=True)
        if len(distinct) == len(index):
            self._start(index, tail, count)
            return
        self._start(distinct, tail[: len(distinct), :0], 1)
        self._select(inverse)
        if tail.shape[1]:
            self._feed(tail, count)

    def _start(self, index: Tensor, tail: Tensor, count: int) -> None:
        """Read the own prompts ``index`` and their continuations in one forward, with a new cache."""
        self._cache = DynamicCache(config=text_config(self.model))
        self._cache.activate_past_recording()  # or a sliding window that has slid could not be rewound
        self._index, self._tail, self._logits = index, tail, []
        ids = torch.cat([self._own_ids[index], tail], dim=1)
        padding = self._own_ids.shape[1] - self._own_length[index]
        positions = torch.arange(ids.shape[1], device=ids.device) - padding[:, None]
        self._push(self._forward(ids, positions.clamp_min(0), count), ids.shape[1], count)

    def _forward(self, chunk: Tensor, positions: Tensor, count: int) -> Tensor:
        """Run the model over a chunk behind the cache; logits of its last tokens, ``[rows, count, vocab]``."""
        extra: dict[str, Any] = {"logits_to_keep": count} if self._keeps_last else {}
        if self._padded:
            mask = torch.cat([self._own_mask[self._index], torch.ones_like(self._tail)], dim=1)
            extra["attention_mask"] = mask
        if self.takes_positions:
            extra["position_ids"] = positions
        output = self.model(input_ids=chunk, past_key_values=self._cache, use_cache=True, **extra)
        return self._counted(output, chunk, count)

    def _counted(self, output: Any, chunk: Tensor, count: int) -> Tensor:
        """Count a forward and take its last logits in fp32."""
        if output.get("past_key_values") is None:
            raise ModelError(f"Reader: {type(self.model).__name__} must return a cache (past_key_values); it did not")
        self.forwards += 1
        self.tokens += chunk.numel()
        return output.logits[:, -count:].float()  # type: ignore[no-any-return]


class EncoderDecoderReader(Reader):
    """A Reader whose model reads its own prompt in an encoder; rows hold decoder tokens only."""

    fusable = False

    def _open(self, index: Tensor, tail: Tensor, count: int) -> None:
        """Encode the own prompts, then read the decoder tokens from scratch."""
        distinct, inverse = torch.unique(index, return_inverse=True)
        mask = self._own_mask[distinct]
        encoded = self.model.get_encoder()(input_ids=self._own_ids[distinct], attention_mask=mask)
        self._encoded = encoded.last_hidden_state[inverse]
        config = text_config(self.model)
        self._cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
        self._index, self._tail, self._logits = index, tail[:, :0], []
        self._feed(tail, count)

    def _select(self, source: Tensor) -> None:
        """Reorder the encoder's answer with everything else."""
        super()._select(source)
        self._encoded = self._encoded[source]

    def _forward(self, chunk: Tensor, positions: Tensor, count: int) -> Tensor:
        """Run the decoder over a chunk behind the cache."""
        output = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._encoded),
            attention_mask=self._own_mask[self._index],
            decoder_input_ids=chunk,
            past_key_values=self._cache,
            use_cache=True,
        )
        return self._counted(output, chunk, count)


def _can_crop(cache: Any, removed: int) -> bool:
    """Say whether the last ``removed`` tokens can be taken off this cache exactly.

    A recurrent state cannot be rewound. A sliding window that has slid can be, while the states
    recorded behind it reach far enough; `crop` itself does not check that.
    """
    if removed == 0:
        return True
    if not cache.is_croppable or any(cache.is_linear):
        return False
    own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    layers: list[Any] = own.layers
    for layer in layers:
        window = getattr(layer, "sliding_window", None)
        if window is None or not layer.is_initialized or layer.get_seq_length() < window:
            continue
        left = layer.keys.shape[-2] - removed
        if not layer.record_past or left < min(window - 1, layer.get_seq_length() - removed):
            return False
    return True
