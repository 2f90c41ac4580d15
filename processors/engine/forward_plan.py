"""One forward for the rows of `generate` and for the same continuations under second prompts.

A decoding step reads the weights once whatever the batch, so a larger batch costs far less than further forwards. A
`ForwardPlan` puts the rows of every second stream below the rows of `generate`, left-padded to one width, lets a text
ride behind the new token of each row where that is asked for, and takes the output apart again. It works on what
`generate` prepares for a forward, with any cache whose rows are independent: dynamic, static and sliding-window caches,
and forwards that `generate` compiled.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from logitkit.processors.engine.drafts import Drafts
from logitkit.processors.engine.fed_rows import Fed
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.reader import Reader
from logitkit.processors.engine.riding_tokens import can_drop_again, tokens_ride
from logitkit.processors.engine.separate_prefill import PromptPart, can_join, cheapest, join, with_tokens
from logitkit.processors.engine.static_settings import long_enough
from logitkit.processors.engine.stream_joining import can_grow, join_below
from logitkit.processors.engine.streams import FusableStream
from logitkit.processors.engine.thin_matmul import is_faster, thin_twin
from logitkit.processors.model_facts import text_config
from logitkit.processors.transformers_api import CACHE, cache_of

MASK_STEPS = 256  # columns by which the mask of padded rows grows at once


class ForwardPlan:
    """Widens the forwards of one `generate` by the rows of second streams; rows of another cache stay as they are.

    Args:
        model: the model whose forward runs.
        prompts: the prompts of the call.
        streams: the streams, whose prompts this model reads.
        before_forward: is called before each forward, with whether it is the first; it may set ``streams`` to ``()``
            before the first one, and call `drop_streams` before a later one.

    Attributes:
        cache: the cache of all rows; None before the first forward.
        width: tokens of the padded prompts in the cache.
        index: the prompt of each row of `generate`, ``[rows]``.
        fed: the last forward; None before it.
        padded: whether the cache holds padding.
        forwards: forwards of the model with the cache of this plan so far.
        separate: whether the first forward read the prompts of each stream apart.
        text: token ids of a text, ``[1, tokens]``, which rides behind the new token of every row and leaves the cache
            again; None: no text. It may change between two forwards.
        drafts: runs the ``generate`` of the model when it drafts for itself; None: as the model does.
    """

    def __init__(
        self,
        model: Any,
        prompts: Prompts,
        streams: Sequence[FusableStream],
        before_forward: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.model, self.prompts, self.streams, self._before_forward = model, prompts, tuple(streams), before_forward
        self.cache: Any = None
        self.width, self.index = 0, torch.empty(0, dtype=torch.long)
        self.fed: Fed | None = None
        self.separate = self.padded = False
        self.text: Tensor | None = None
        self.drafts: Drafts | None = None
        self.forwards = 0
        self._thin: Any = None  # the model with products of few rows in the faster order
        self._riding = 0  # tokens of the text in the forward that is being prepared
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self._mask = self._lengths = torch.empty(0)  # of the prompts of all rows: [all rows, columns], [all rows]
        self._stacked = torch.empty(0)  # tokens of the prompts of all rows
        self._ids = torch.empty(0)  # rows of `generate` in the forward that is being prepared
        self._cached = torch.empty(0)  # those of their tokens that are in the cache
        self._parts: Sequence[PromptPart] = ()  # prompts that the coming forward reads apart
        self._further_inputs: Sequence[dict[str, Any]] = ()  # of all parts but the first

    def prepare(self, ids: Tensor, count: int | None, settings: dict[str, Any]) -> Any:
        """Return the inputs of the next forward, as the model's ``prepare_inputs_for_generation`` does.

        Args:
            ids: rows of `generate`, ``[rows, length]``.
            count: number of their last tokens that are not in the cache; None: all.
            settings: what `generate` passes besides; mask and positions of its rows are replaced.
        """
        cache = cache_of(settings)
        if cache is None or (self.cache is not None and cache is not self.cache):  # of a draft, say
            return self._prepared(ids, count, settings)
        if self.cache is None:
            self._open(ids, cache)
            if self._parts:
                first, *self._further_inputs = self._prepared_parts(settings)
                return first
            chunk, positions = self._prompt_rows(ids)
        else:
            self._cached = ids[:, : ids.shape[1] - (count or 1)]
            self._before_forward(False)
            tail = self._with_text(ids[:, ids.shape[1] - (count or 1) :])
            chunk = tail.repeat(len(self._lengths) // len(ids), 1)
            behind = ids.shape[1] - self.prompts.width - (count or 1)
            positions = self._lengths[:, None] + torch.arange(behind, behind + tail.shape[1], device=ids.device)
        self._ids = ids
        widened: dict[str, Any] = {CACHE: self.cache, "position_ids": positions}
        # Without padding the mask is left out, since a model without a static cache would read it on the host.
        columns = self.width + ids.shape[1] - self.prompts.width + self._riding
        widened["attention_mask"] = self._mask_of(columns) if self.padded else None
        if self._riding:  # the token of the row comes last, where the hooks of captured outputs look
            widened["logits_to_keep"] = torch.arange(-1, -2 - self._riding, -self._riding, device=ids.device)
        return self._prepared(chunk, chunk.shape[1] if count else None, settings | widened)

    def run(self, forward: Callable[..., Any], inputs: dict[str, Any]) -> Any:
        """Run a forward on prepared inputs; return the output of the rows of `generate`, and keep the other logits."""
        cache = cache_of(inputs)
        if self._parts and cache is self._parts[0].cache:
            return self._run_parts(forward, inputs)
        if self.cache is None or cache is not self.cache:
            return forward(**inputs)
        with tokens_ride(self._riding):
            output = forward(**inputs)
        self.forwards += 1
        behind = output.logits[: len(self._ids), 0] if self._riding else None
        if self._riding:
            self.cache.crop(-self._riding)
            output.logits = output.logits[:, -1:]
        own, *others = output.logits.split(len(self._ids))
        self._keep(others, inputs["input_ids"].shape[1] - self._riding, behind)
        output.logits = own
        return output

    def run_eagerly(self, inputs: dict[str, Any]) -> Any:
        """Run the model as `run` does; products of few rows run in the faster order of their operands."""
        if not (self.streams or self._riding) or getattr(self.model, "_compiled_call_impl", None) is not None:
            return self.run(self.model, inputs)
        ids = inputs.get("input_ids")
        if ids is None or not is_faster(self.model, ids.numel()):
            return self.run(self.model, inputs)
        self._thin = thin_twin(self.model) if self._thin is None else self._thin
        return self.run(self._thin, inputs)

    def select(self, index: Tensor) -> Tensor:
        """Keep the rows of `generate` with these numbers; return the numbers of their rows in the cache, all streams.

        Args:
            index: numbers of rows, ``[new rows]``; a row may be kept several times, or dropped.
        """
        rows = len(self.index)
        every = torch.cat([index + rows * stream for stream in range(len(self._lengths) // rows)])
        self.index = self.index[index.to(self.index.device)]
        self._mask, self._lengths = self._mask[every], self._lengths[every]
        return every

    @property
    def _continued(self) -> int:
        """Tokens behind the prompt in the rows of the forward that is being prepared."""
        return self._ids.shape[1] - self.prompts.width

    def close(self) -> None:
        """Let go of the cache and of what the forwards computed."""
        self._riding, self._thin = 0, None
        self.cache, self.fed, self._parts, self._further_inputs = None, None, (), ()

    def drop_streams(self) -> None:
        """Remove the rows of the streams from a dynamic cache and from all later forwards."""
        rows = len(self.index)
        self.streams = ()
        self.cache.batch_select_indices(torch.arange(rows, device=self._lengths.device))
        self._mask, self._lengths = self._mask[:rows], self._lengths[:rows]
        self.fed = None

    def add_streams(self, streams: Sequence[Reader]) -> bool:
        """Move what readers have read below the rows of `generate`, and compute these streams in all later forwards.

        Args:
            streams: readers of this model, each asked for the rows of the last step.

        Returns:
            Whether the caches could be joined; if not, the plan is unchanged.
        """
        length = self.cache.get_seq_length()
        if not can_grow(self.cache) or length != self._cached.shape[1]:
            return False
        for stream in streams:
            stream(self._cached)  # rows that `generate` reordered since are reordered, without a forward
        caches = [stream.cache_of_rows(self._cached) for stream in streams]
        if not all(map(can_grow, caches)):
            return False
        self.streams = tuple(streams)
        self._lay_out(self._cached)
        self._stacked = torch.empty(0)
        join_below(self.cache, caches, self.width + length - self.prompts.width)
        for stream in streams:
            stream.release()
        return True

    def _open(self, ids: Tensor, cache: Any) -> None:
        """Lay out the prompts of all rows, and choose how the first forward reads them."""
        self.index, self.cache = self.prompts.rows(ids), cache
        self._ids = ids
        self._before_forward(True)
        prompts = self._lay_out(ids)
        self.cache = long_enough(cache, self.width - self.prompts.width, self.model)
        drafts = ids[:, self.prompts.width :]
        if self.streams and (len(ids) == 1 or not drafts.shape[1]) and can_join(self.cache):
            parts = [PromptPart.of(*with_tokens(one, mask, drafts), self.index) for one, mask in prompts]
            self._parts = cheapest(parts, self._stacked.numel() + len(self._stacked) * drafts.shape[1])
            self.separate = len(self._parts) > 1

    def _lay_out(self, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Pad the prompts of all rows to one width; return tokens and mask of the prompts of each stream."""
        own = (ids[:, : self.prompts.width], self.prompts.mask.to(ids.device)[self.index.to(ids.device)])
        prompts = [own, *(stream.own_rows(self.index) for stream in self.streams)]
        prompts = [(one.to(ids.device), mask.to(ids.device)) for one, mask in prompts]
        self.width = max(one.shape[1] for one, _ in prompts)
        padded = [pad(mask, (self.width - mask.shape[1], 0)) for _, mask in prompts]
        self._mask = torch.cat(padded)
        self.padded = not bool(self._mask.all())
        self._lengths = self._mask.sum(-1)
        self._stacked = torch.cat([pad(one, (self.width - one.shape[1], 0)) for one, _ in prompts])
        return prompts

    def _prompt_rows(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens and positions of all rows, ``[all rows, tokens]``: the prompts, and drafted tokens if any."""
        tail = ids[:, self.prompts.width :].repeat(len(self._lengths) // len(ids), 1)
        mask = torch.cat([self._mask, torch.ones_like(tail)], dim=1)
        chunk, self._stacked = torch.cat([self._stacked, tail], dim=1), torch.empty(0)
        return chunk, (mask.cumsum(-1) - 1).clamp_min(0)

    def own_mask(self) -> Tensor:
        """Return 1 for each token and 0 for padding in the cache of the rows of `generate`, ``[rows, columns]``."""
        return self._mask_of(self.width + self._ids.shape[1] - self.prompts.width)[: len(self._ids)]

    def _with_text(self, tail: Tensor) -> Tensor:
        """Return the new tokens of the rows, ``[rows, tokens]``, and the text behind them where it can ride."""
        self._riding = 0
        if self.text is None or tail.shape[1] > 1 or not can_drop_again(self.cache):
            return tail
        longest = getattr(text_config(self.model), "max_position_embeddings", None)
        if longest is not None and self.cache.get_seq_length() + 1 + self.text.shape[1] > longest:
            return tail  # no position is left for the text
        self._riding = self.text.shape[1]
        return torch.cat([tail, self.text.to(tail.device).expand(len(tail), -1)], dim=1)

    def _mask_of(self, columns: int) -> Tensor:
        """Return the mask of all rows with this many columns; every token after the prompts is read."""
        missing = columns - self._mask.shape[1]
        if missing > 0:
            self._mask = pad(self._mask, (0, missing + MASK_STEPS), value=1)
        return self._mask[:, :columns]

    def _prepared(self, ids: Tensor, count: int | None, settings: dict[str, Any]) -> Any:
        """Let the model prepare the inputs of a forward."""
        if not self._takes_positions:
            settings = {name: value for name, value in settings.items() if name != "position_ids"}
        return self.model.prepare_inputs_for_generation(ids, next_sequence_length=count, **settings)

    def _prepared_parts(self, settings: dict[str, Any]) -> list[Any]:
        """Return the inputs of the forwards that read the prompts of each stream into a cache of their own."""
        kept = {"logits_to_keep": self._continued + 1} if "logits_to_keep" in settings else {}
        return [
            self._prepared(
                part.ids,
                None,
                settings
                | kept
                | {CACHE: part.cache, "position_ids": part.positions}
                | {"attention_mask": None if bool(part.mask.all()) else part.mask},
            )
            for part in self._parts
        ]

    def _run_parts(self, forward: Callable[..., Any], inputs: dict[str, Any]) -> Any:
        """Read the prompts of each stream apart, and join their caches."""
        further = [forward(**one) for one in self._further_inputs]
        self.forwards += len(self._parts)
        output = forward(**inputs)  # last, since hooks on the model keep the outputs of the last forward
        kept = self._continued + 1
        read = [one.logits[:, -kept:][part.source] for part, one in zip(self._parts, (output, *further), strict=True)]
        join(self.cache, self._parts, self.width + kept - 1)
        self._parts = self._further_inputs = ()
        own, *others = torch.cat(read).split(len(self._ids))
        self._keep(others, kept, None)
        output.logits, output[CACHE] = own, self.cache
        return output

    def _keep(self, logits: Sequence[Tensor], fed: int, behind: Tensor | None) -> None:
        """Keep the logits behind the text, and those of the streams after the prefixes that end behind the prompt."""
        kept = min(fed, self._continued + 1)
        # A view would keep the logits of a whole prompt in memory, and a compiled forward would write over it.
        kept_logits = tuple(one[:, -kept:].to(torch.float32, copy=True) for one in logits)
        self.fed = Fed(self._ids, kept_logits, None if behind is None else behind.to(torch.float32, copy=True))
