"""Second prompts of the generating model, and texts behind its rows, in its own forward while one `generate` runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from logitkit.processors.engine.behind_rows import BehindRows, CachedRows
from logitkit.processors.engine.composite import Composite
from logitkit.processors.engine.fed_rows import Fed
from logitkit.processors.engine.forward_plan import ForwardPlan
from logitkit.processors.engine.fusion_cost import fused_cost, padding_cost
from logitkit.processors.engine.model_view import model_view
from logitkit.processors.engine.reader import Reader
from logitkit.processors.engine.riding_text import RidingText
from logitkit.processors.engine.stream_joining import can_grow
from logitkit.processors.engine.streams import FusableStream
from logitkit.processors.engine.thin_matmul import is_faster
from logitkit.processors.engine.trace import FusionReport

TRIAL_STEPS = 24  # after so many steps, the costs of a rarely requested stream are compared
RARE_REQUESTS = 0.5  # a stream requested at a smaller share of steps is rarely requested
MIN_SAVING = 0.05  # least saving of separate forwards, in plain steps per step: opening their cache has a cost
# A forward reads all weights whatever its rows, so that few further rows cost about this share of it.
CHEAP_ROWS = 0.05


class FusedStreams:
    """Computes the second streams of one `generate` call in the forwards of its rows. A context manager.

    Streams that only gates request are read in forwards of their own until gates open often enough: a gate that never
    opens costs nothing then, not even the forward over the second prompt.

    Args:
        composite: the chain; its streams receive their logits before each of its steps.
        model: the model whose `generate` runs.
        readers: the streams to fuse; all of this model.
        texts: texts behind the rows, of this model. They are read behind its cache, and the first rides in the forward
            where that is cheaper.
        unfused: why no stream is fused, for the report; empty where there are ``readers``.
        may_separate: whether streams may return to forwards of their own where that is cheaper.
        cost: cost of a forward of ``times`` the rows in plain forwards, a function of ``(model, rows, times)``.

    Attributes:
        view: the model with the forwards of this call; run ``view.generate``. The model itself is not changed, so
            other threads may use it at the same time.
        plan: what the forwards of the view compute.
    """

    def __init__(
        self,
        composite: Composite,
        model: Any,
        readers: Sequence[FusableStream],
        *,
        texts: Sequence[BehindRows] = (),
        unfused: str = "",
        may_separate: bool = True,
        cost: Callable[[Any, int, int], float] | None = None,
    ) -> None:
        self.composite, self.trace = composite, composite.trace
        self.may_separate, self.cost = may_separate, cost or fused_cost
        self.plan = ForwardPlan(model, composite.prompts, tuple(dict.fromkeys(readers)), self._before_forward)
        self.view = model_view(self.plan)
        self.texts, self._unfused = tuple(texts), unfused
        self._riding = RidingText(self.plan, self.texts[0], always=not may_separate) if self.texts else None
        self._steps, self._requests = 0, [torch.tensor(0)] * len(self.plan.streams)
        self._served: Fed | None = None  # the last forward whose logits the streams received
        self._waiting: tuple[Reader, ...] = ()  # streams that gates have not requested often enough to be fused
        self._asked = self._forwards = 0  # steps that requested them, and their forwards so far

    def __enter__(self) -> FusedStreams:
        # The first forward of the model replaces this report.
        self.trace.fusion = FusionReport(state="lazy", reason="generate called no forward of this model")
        self.composite.prefetcher = self
        return self

    def __exit__(self, *_: object) -> None:
        if self._waiting:
            self._note_requests()
            self._report_waiting()
        self.invalidate()
        self.composite.prefetcher = self._served = None
        self.plan.close()

    def prefetch(self, rows: Tensor) -> Tensor | bool:
        """Store the last forward's logits in the streams; see `Prefetcher.prefetch`."""
        fed, plan = self.plan.fed, self.plan
        behind = 0 if fed is None else fed.rows.shape[1] - rows.shape[1]
        if fed is None or not (plan.streams or self.texts) or len(rows) != len(fed.rows):
            return False
        if not 0 <= behind < (fed.logits[0].shape[1] if fed.logits else 1):
            return False
        for stream, logits in zip(plan.streams, fed.logits, strict=True):
            used = stream.prefetch_used if self._served is fed else False  # for an earlier place of the same chunk
            stream.set_prefetched(rows, logits[:, logits.shape[1] - 1 - behind])
            stream.prefetch_used = used
        self._served = fed
        for text in () if behind else self.texts:
            own = fed.behind if text is self.texts[0] else None
            text.set_cached(CachedRows(rows, plan.cache, plan.own_mask(), plan.padded, own))
        self.composite.prompts.prompt_index_memo.put(plan.index, rows)
        # `generate` hands the same tensor to the forward and to the chain.
        return rows is fed.rows or (rows == fed.rows[:, : rows.shape[1]]).all()

    def invalidate(self) -> None:
        """Drop the stored logits."""
        for stream in self.plan.streams:
            stream.clear_prefetched()
        for text in self.texts:
            text.set_cached(None)
        self.composite.prompts.prompt_index_memo.clear()

    def _before_forward(self, first: bool) -> None:
        """Choose and report how the streams are read: before the first forward, and from time to time."""
        if first:
            reason = padding_cost(self.plan) if self.may_separate else None
            if reason is not None:
                self.plan.streams = ()
                self.trace.fusion = FusionReport(state="lazy", reason=reason)
                return
            self._waiting = self._gated_readers()
            if self._waiting:
                self.plan.streams, self._forwards = (), sum(reader.forwards for reader in self._waiting)
            elif self._unfused:
                self.trace.fusion = FusionReport(state="lazy", reason=self._unfused)
            else:
                self._report_fused("")
            return
        if self._waiting:
            self._steps += 1
            if self._note_requests() and self._asked >= self._least_share() * self._steps:
                self._join()
        elif self.may_separate and type(self.plan.cache) is DynamicCache:
            self._count()
        report = self._riding.before_forward() if self._riding is not None else None
        if report is not None and self._unfused:
            self.trace.fusion = report

    def _gated_readers(self) -> tuple[Reader, ...]:
        """Return the streams as readers if gates decide when each is requested and they can join later; else none."""
        readers = [stream for stream in self.plan.streams if type(stream) is Reader]
        if not self.may_separate or len(readers) < len(self.plan.streams) or not can_grow(self.plan.cache):
            return ()
        for _, part in self.composite.parts:
            if set(getattr(part, "streams", ())) & set(readers) and not getattr(part, "asks_by_gate", False):
                return ()
        return tuple(readers)

    def _note_requests(self) -> bool:
        """Return whether waiting streams were requested since the last forward, and count the step if so."""
        forwards = sum(reader.forwards for reader in self._waiting)
        asked, self._forwards = forwards > self._forwards, forwards
        self._asked += asked
        return asked

    def _least_share(self) -> float:
        """Return the share of steps with requests from which on a fused forward is cheaper; a heuristic."""
        model, rows = self.plan.model, len(self.plan.index) * (1 + len(self._waiting))
        return CHEAP_ROWS if model.device.type != "cpu" or is_faster(model, rows) else RARE_REQUESTS

    def _join(self) -> None:
        """Fuse the waiting streams from this step on, if their caches fit."""
        if self.plan.add_streams(self._waiting):
            self._report_fused(f" since gates opened at {self._asked} of {self._steps} steps")
            self._waiting, self._steps = (), 0

    def _report_fused(self, since: str) -> None:
        """Report that every forward computes the streams from now on."""
        streams = 1 + len(self.plan.streams)
        reason = f"each forward computes {streams} rows for each row of generate{since}"
        self.trace.fusion = FusionReport(state="fused", reason=reason, rows_per_row=streams)

    def _report_waiting(self) -> None:
        """Report that gates opened too rarely for fused forwards; the first step has no forward before it."""
        reason = f"gates opened at {self._asked} of {self._steps + 1} steps"
        self.trace.fusion = FusionReport(state="lazy", reason=reason)

    def _count(self) -> None:
        """Count the streams that were requested since the last forward; compare the costs from time to time."""
        if not self.plan.streams:
            return
        self._steps += 1
        pairs = zip(self._requests, self.plan.streams, strict=True)
        self._requests = [count + stream.prefetch_used for count, stream in pairs]
        if self._steps % TRIAL_STEPS:
            return
        shares = [float(count) / TRIAL_STEPS for count in self._requests]
        self._requests = [torch.tensor(0)] * len(self.plan.streams)
        if min(shares) < RARE_REQUESTS:
            self._compare_costs(shares)

    def _compare_costs(self, shares: Sequence[float]) -> None:
        """Return to separate forwards where they are cheaper, and report both costs.

        Args:
            shares: share of steps at which each stream was requested, 0 to 1.
        """
        model, rows, streams = self.plan.model, len(self.plan.index), 1 + len(self.plan.streams)
        fused = self.cost(model, rows, streams)
        # A reader requested at one step in four reads four tokens at once, which costs as much as four rows of one.
        separate = 1 + sum(share * self.cost(model, rows, round(1 / share)) for share in shares if share)
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
            self.invalidate()
            self.plan.drop_streams()
