"""Second prompts of the generating model, computed in the model's own forward.

A decoding step reads the weights once whatever the batch, so a doubled batch costs far less than two forwards.
`FusedStreams` doubles the batch: while `generate` runs, every forward over the cache of `FusedStreams` takes the rows
of `generate` and, below them, the same continuations under the second prompts, left-padded together. `generate` sees
its own rows only, and each stream receives its logits. Sampling, streaming and stopping stay those of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from logitkit.processors.engine.composite import Composite
from logitkit.processors.engine.fusion_cost import fused_cost
from logitkit.processors.engine.model_view import model_view
from logitkit.processors.engine.streams import FusableStream
from logitkit.processors.engine.thin_matmul import ThinMatmul, is_faster
from logitkit.processors.engine.trace import FusionReport
from logitkit.processors.model_facts import text_config
from logitkit.processors.transformers_api import cache_of

TRIAL_STEPS = 24  # after so many steps, the costs of a rarely requested stream are compared
RARE_REQUESTS = 0.5  # a stream requested at a smaller share of steps is rarely requested
MIN_SAVING = 0.1  # least saving of separate forwards, in plain steps per step: opening their cache has a cost


class FusedStreams:
    """Computes the second streams of one `generate` call in the forwards of its rows. A context manager.

    Args:
        composite: the chain; its streams receive their logits before each of its steps.
        model: the generating model.
        readers: the streams to fuse; all of this model.
        may_separate: whether rarely requested streams may return to forwards of their own.
        cost: cost of a forward of ``times`` the rows in plain forwards, a function of ``(model, rows, times)``.

    Attributes:
        view: the model with the hooks of this call; run ``view.generate``. The model itself is not changed, so other
            threads may use it at the same time.
        cache: pass this cache to `generate` with `with_cache`; forwards over another cache are not changed.
    """

    def __init__(
        self,
        composite: Composite,
        model: Any,
        readers: Sequence[FusableStream],
        *,
        may_separate: bool = True,
        cost: Callable[[Any, int, int], float] | None = None,
    ) -> None:
        self.composite, self.model, self.streams = composite, model, tuple(dict.fromkeys(readers))
        self.view = model_view(model)
        self.trace, self.may_separate, self.cost = composite.trace, may_separate, cost or fused_cost
        self.cache = DynamicCache(config=text_config(model))
        self._takes_positions = readers[0].takes_positions
        self._rows: Tensor | None = None  # rows of generate so far, [rows, length]
        self._index = self._mask = self._positions = torch.empty(0)  # set with the first forward
        self._logits: tuple[Tensor, ...] = ()  # of the last forward, [rows, vocab] for each stream
        self._thin_products = ExitStack()  # entered while a fused forward runs
        self._steps, self._requests = 0, [torch.tensor(0)] * len(self.streams)

    def __enter__(self) -> FusedStreams:
        # The first forward of the model replaces this report.
        self.trace.fusion = FusionReport(state="lazy", reason="generate called no forward of this model")
        self.composite.prefetcher = self
        self._hooks = [
            self.view.register_forward_pre_hook(self._widen, with_kwargs=True),
            self.view.register_forward_hook(self._share_out, with_kwargs=True, always_call=True),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._thin_products.close()
        self.invalidate()
        self.composite.prefetcher = None

    def prefetch(self, rows: Tensor) -> Tensor | None:
        """Store the last forward's logits in the streams; see `Prefetcher.prefetch`."""
        if self._rows is None or not self.streams or rows.shape != self._rows.shape:
            return None
        for stream, logits in zip(self.streams, self._logits, strict=True):
            stream.set_prefetched(rows, logits)
        self.composite.prompts.prompt_index_memo.put(self._index, rows)
        return (rows == self._rows).all()

    def invalidate(self) -> None:
        """Drop the stored logits."""
        for stream in self.streams:
            stream.clear_prefetched()
        self.composite.prompts.prompt_index_memo.clear()

    def _widen(self, _: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """Add the rows of the second streams below the rows of a forward."""
        if cache_of(kwargs) is not self.cache:
            return None
        ids: Tensor = kwargs["input_ids"]
        if self._rows is None:
            chunk, positions = self._open(ids, kwargs.get("attention_mask"))
        else:
            self._count()
            self._rows = torch.cat([self._rows, ids], dim=1)
            chunk = ids.repeat(1 + len(self.streams), 1)
            self._mask = torch.cat([self._mask, torch.ones_like(chunk)], dim=1)
            positions = self._positions = self._positions + 1
        # Without padding the mask is left out, since the model would read it on the host at every step.
        widened: dict[str, Any] = {"input_ids": chunk, "attention_mask": self._mask if self._padded else None}
        if self._takes_positions:
            widened["position_ids"] = positions
        if self.streams and chunk.shape[1] == 1 and is_faster(self.model, len(chunk)):
            self._thin_products.enter_context(ThinMatmul())
        return args, kwargs | widened

    def _open(self, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return ids and positions of the prompts of all streams, ``[streams * rows, width]``, left-padded."""
        streams = 1 + len(self.streams)
        reason = f"each forward computes {streams} rows for each row of generate"
        self.trace.fusion = FusionReport(state="fused", reason=reason, rows_per_row=streams)
        self._rows, self._index = ids, self.composite.prompts.rows(ids)
        stacked = [(ids, torch.ones_like(ids) if mask is None else mask)]
        stacked += [reader.own_rows(self._index) for reader in self.streams]
        width = max(part.shape[1] for part, _ in stacked)
        padded = [[pad(tensor.to(ids.device), (width - tensor.shape[1], 0)) for tensor in stream] for stream in stacked]
        chunk, self._mask = (torch.cat(tensors) for tensors in zip(*padded, strict=True))
        self._padded = not bool(self._mask.all())
        positions = (self._mask.cumsum(-1) - 1).clamp_min(0)
        self._positions = positions[:, -1:]
        return chunk, positions

    def _share_out(self, _: Any, __: Any, kwargs: dict[str, Any], output: Any) -> Any:
        """Keep the logits of the streams, and return the rows of `generate`."""
        if cache_of(kwargs) is not self.cache or self._rows is None:
            return None
        self._thin_products.close()
        if output is None:  # the forward failed
            return None
        own, *others = output.logits.split(len(self._rows))
        # A view would keep the logits of a whole prompt in memory.
        self._logits = tuple(logits[:, -1].to(torch.float32, copy=True) for logits in others)
        output.logits = own
        return output

    def _count(self) -> None:
        """Count the streams that were requested since the last forward; compare the costs from time to time."""
        if not self.may_separate or not self.streams:
            return
        self._steps += 1
        pairs = zip(self._requests, self.streams, strict=True)
        self._requests = [count + stream.prefetch_used for count, stream in pairs]
        if self._steps % TRIAL_STEPS:
            return
        shares = [float(count) / TRIAL_STEPS for count in self._requests]
        self._requests = [torch.tensor(0)] * len(self.streams)
        if min(shares) < RARE_REQUESTS:
            self._compare_costs(shares)

    def _compare_costs(self, shares: Sequence[float]) -> None:
        """Return to separate forwards where they are cheaper, and report both costs.

        Args:
            shares: share of steps at which each stream was requested, 0 to 1.
        """
        streams = 1 + len(self.streams)
        rows = len(self._mask) // streams
        fused = self.cost(self.model, rows, streams)
        # A reader requested at one step in four reads four tokens at once, which costs as much as four rows of one.
        separate = 1 + sum(share * self.cost(self.model, rows, round(1 / share)) for share in shares if share)
        stays = fused <= separate + MIN_SAVING
        rates = " and ".join(f"{share:.2f}" for share in shares)
        costs = f"a fused step costs {fused:.2f} plain steps, separate forwards cost {separate:.2f}"
        self.trace.fusion = FusionReport(
            state="fused" if stays else "lazy",
            reason=f"{costs} (logits requested at {rates} of {self._steps} fused steps)",
            rows_per_row=streams if stays else 1,
            fused_steps=None if stays else self._steps,
            fused_cost=fused,
            separate_cost=separate,
            request_rates=tuple(shares),
        )
        if not stays:
            self._separate(rows)

    def _separate(self, rows: int) -> None:
        """Drop the rows of the streams from the cache; each stream runs its own forwards from now on."""
        self.invalidate()
        self.streams = ()
        self.cache.batch_select_indices(torch.arange(rows, device=self._mask.device))
        self._mask, self._positions = self._mask[:rows], self._positions[:rows]
