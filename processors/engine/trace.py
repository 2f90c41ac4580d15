"""Counters of one call, and every step of every processor when the trace records steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from logitkit.processors.engine.divergences import js_bits
from logitkit.processors.engine.reader_counts import Counts, ReaderCounts
from logitkit.processors.engine.running_means import RunningMeans
from logitkit.processors.engine.search_report import SearchReport


@dataclass(frozen=True, eq=False, kw_only=True)
class Step:
    """What one processor did to one row at one step.

    Attributes:
        processor: name of the processor in the chain.
        row: number of the row in the batch; beam search changes the rows from step to step.
        position: number of tokens of the row after its prompt.
        js_bits: Jensen-Shannon divergence between the row before and after the processor, in bits, 0 to 1.
        before, after: the most probable tokens, ``(id, probability)``, best first.
        notes: values that the processor reported with `Trace.note`, such as ``gate`` and ``fired``.

    >>> best = ((7, 0.5), (3, 0.25))
    >>> step = Step(processor="cfg", row=0, position=2, js_bits=0.0, before=best, after=best, notes={})
    >>> step.before[0]
    (7, 0.5)
    """

    processor: str
    row: int
    position: int
    js_bits: float
    before: tuple[tuple[int, float], ...]
    after: tuple[tuple[int, float], ...]
    notes: dict[str, float | bool]


@dataclass(frozen=True, kw_only=True)
class FusionReport:
    """Whether the second streams of a call were computed in the generating model's own forward.

    Attributes:
        state: ``none``: no processor declares a second stream. ``lazy``: each stream runs its own forwards. ``fused``:
            the generating model's forward computes the streams too.
        reason: the reason for the state, for people.
        rows_per_row: rows that a fused forward computes for each row of `generate`; 1 when nothing is fused.
        fused_steps: fused steps before the streams became lazy; None: the call did not change its state.
        fused_cost, separate_cost: measured cost of a step in plain steps, with fused and with separate forwards;
            None: not measured.
        request_rates: share of steps at which each stream was requested, 0 to 1; empty: not measured.

    Example:
        >>> str(FusionReport(state="lazy", reason="num_beams=2"))
        'lazy: num_beams=2'
    """

    state: Literal["none", "lazy", "fused"]
    reason: str
    rows_per_row: int = 1
    fused_steps: int | None = None
    fused_cost: float | None = None
    separate_cost: float | None = None
    request_rates: tuple[float, ...] = ()

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}"


class TraceMark(NamedTuple):
    """A position of a trace, to which `Trace.rewind` returns.

    Attributes:
        steps: number of recorded steps.
        fired: totals of gates.
        means: the means.
    """

    steps: int
    fired: dict[str, Tensor]
    means: RunningMeans


NO_STREAMS = FusionReport(state="none", reason="no processor declares a second stream")


@dataclass(eq=False)
class Trace:
    """Counters of one call and, when ``recording``, every `Step`. No result of a chain depends on the trace.

    Attributes:
        recording: whether steps are recorded. Recording reads the scores of every step on the host.
        top: number of tokens that a step keeps before and after.
        calls: steps of the chain so far.
        rows: rows of all steps so far.
        steps: the recorded steps.
        notices: sentences for the user, such as what a lame prompt omits.
        readers: the readers of second streams, by label.
        fusion: whether the generating model's forward computed the second streams, and the reason.
        search: what the search of the chain cost and found; None: there is none, or it has not ended.

    Example:
        >>> import torch
        >>> trace = Trace(recording=True, rows=2)
        >>> trace.count_fired("uscd", torch.tensor([True, False]))
        >>> trace.record("uscd", 0, torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -torch.inf]]))
        >>> trace.fired, trace.steps[0].after
        ({'uscd': 0.5}, ((0, 1.0), (1, 0.0)))
    """

    recording: bool = False
    top: int = 5
    calls: int = 0
    rows: int = 0
    steps: list[Step] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    fusion: FusionReport = FusionReport(state="lazy", reason="the model's own generate runs the chain")
    readers: dict[str, Counts] = field(default_factory=dict)
    search: SearchReport | None = None
    _fired: dict[str, Tensor] = field(default_factory=dict)
    _means: RunningMeans = field(default_factory=RunningMeans)
    _interventions: set[tuple[str, str]] = field(default_factory=set)
    _pending: dict[str, Tensor] = field(default_factory=dict)

    def mark(self) -> TraceMark:
        """Return the present position of the trace."""
        return TraceMark(len(self.steps), dict(self._fired), self._means.copy())

    def rewind(self, mark: TraceMark) -> None:
        """Drop everything that processors reported after the mark."""
        del self.steps[mark.steps :]
        self._fired, self._means, self._pending = dict(mark.fired), mark.means.copy(), {}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Drop everything that processors report inside this block."""
        mark, recording, pending = self.mark(), self.recording, self._pending
        self.recording = False
        try:
            yield
        finally:
            self.rewind(mark)
            self.recording, self._pending = recording, pending

    def note(self, **values: Tensor) -> None:
        """Attach values, each ``[rows]``, to the step that is being recorded; does nothing without recording."""
        if self.recording:
            self._pending.update(values)

    @contextmanager
    def of_rows(self, name: str, index: Tensor, rows: int) -> Iterator[None]:
        """Receive reports of a gated processor inside this block, which sees some rows of a batch.

        Its notes get a place for each row of the batch, and the rows count as fired unless it counts rows itself.

        Args:
            name: name of the processor.
            index: number of each row that the processor sees, ``[part]``.
            rows: number of rows of the batch.
        """
        outside, self._pending, counted = self._pending, {}, self._fired.get(name)
        try:
            yield
        finally:
            for key, values in self._pending.items():
                outside[key] = values.new_zeros(rows).index_copy(0, index, values)
            self._pending = outside
            if self._fired.get(name) is counted:
                self.count_fired(name, torch.ones_like(index))

    def count_fired(self, name: str, fired: Tensor) -> None:
        """Add the rows on which a gate fired to a total; the total stays on the device without a host read.

        Args:
            name: name of the processor.
            fired: bool, ``[rows]``.
        """
        total = fired.sum()
        self._fired[name] = self._fired[name] + total if name in self._fired else total

    def average(self, processor: str, quantity: str, values: Tensor, *, intervention: bool = False) -> None:
        """Add the values of one step to the mean of a quantity; see `averages`.

        Args:
            processor: name of the processor that measured the values.
            quantity: what the values are, such as ``deferral``.
            values: one value per row, ``[rows]``.
            intervention: whether the values are shares, 0 to 1, of how far the processor replaced the generating
                model's own choice. `interventions` lists these means; reports show them beside the quality.
        """
        self.averages(processor, {quantity: values}, interventions=[quantity] if intervention else [])

    def averages(self, processor: str, values: Mapping[str, Tensor], *, interventions: Sequence[str] = ()) -> None:
        """Add the values of one step, ``[rows]`` for each quantity, to means, without a host read.

        The same quantities come together at every step; ``interventions`` names those that `average` calls so.
        """
        self._means.add(processor, values)
        self._interventions.update((processor, quantity) for quantity in interventions)

    def derive(self, processor: str, quantity: str, source: str, *, scale: float, offset: float) -> None:
        """State that the mean of a quantity is ``scale`` times the mean of another one, plus ``offset``."""
        self._means.derive(processor, quantity, source, scale=scale, offset=offset)

    def record(self, name: str, position: int, before: Tensor, after: Tensor) -> None:
        """Record one step of one processor from the scores before and after it, ``[rows, vocab]``."""
        notes, self._pending = {key: value.tolist() for key, value in self._pending.items()}, {}
        divergence = [0.0] * len(before) if after is before else js_bits(before, after).tolist()
        tops = [most_probable(scores, self.top) for scores in (before, after)]
        for row, bits in enumerate(divergence):
            self.steps.append(
                Step(
                    processor=name,
                    row=row,
                    position=position,
                    js_bits=bits,
                    before=tops[0][row],
                    after=tops[1][row],
                    notes={key: values[row] for key, values in notes.items()},
                )
            )

    @property
    def forwards(self) -> dict[str, int]:
        """Forward passes of each reader; those of the generating model are not counted."""
        return {name: reader.forwards for name, reader in self.readers.items()}

    @property
    def fired(self) -> dict[str, float]:
        """Share of (step, row) at which each gate fired, 0 to 1."""
        return {name: float(total) / max(1, self.rows) for name, total in self._fired.items()}

    @property
    def means(self) -> dict[str, dict[str, float]]:
        """Means over steps and rows, as ``{processor: {quantity: mean}}``."""
        return self._means.values()

    @property
    def interventions(self) -> dict[str, dict[str, float]]:
        """How often each processor intervened, as ``{processor: {quantity: share}}`` with shares from 0 to 1.

        Holds the share of rows at which a gate fired as the quantity ``fired``, and the means that `average` was
        given as interventions.
        """
        shares: dict[str, dict[str, float]] = {name: {"fired": share} for name, share in self.fired.items()}
        for processor, means in self.means.items():
            for quantity, mean in means.items():
                if (processor, quantity) in self._interventions:
                    shares.setdefault(processor, {})[quantity] = mean
        return shares

    def plain(self) -> Trace:
        """Return a copy that holds numbers only: counts in place of readers, and totals on the CPU."""
        return replace(
            self,
            steps=list(self.steps),
            notices=list(self.notices),
            readers={name: ReaderCounts(reader.forwards, reader.tokens) for name, reader in self.readers.items()},
            _fired={name: total.cpu() for name, total in self._fired.items()},
            _means=self._means.on_cpu(),
            _pending={},
        )

    def summary(self) -> dict[str, Any]:
        """Return the counters as plain data: calls, rows, forwards, fired gates, means, fusing and notices."""
        return {
            "calls": self.calls,
            "rows": self.rows,
            "forwards": self.forwards,
            "fired": self.fired,
            "means": self.means,
            "fusion": asdict(self.fusion) | {"request_rates": list(self.fusion.request_rates)},
            "notices": list(self.notices),
        } | ({} if self.search is None else {"search": asdict(self.search)})


def most_probable(scores: Tensor, count: int) -> list[tuple[tuple[int, float], ...]]:
    """Return the most probable tokens of each row.

    Args:
        scores: logits or log-probabilities, ``[rows, vocab]``.
        count: number of tokens.

    Returns:
        For each row ``(id, probability)`` pairs, best first.

    Example:
        >>> import torch
        >>> most_probable(torch.tensor([[0.0, -torch.inf]]), 1)
        [((0, 1.0),)]
    """
    probability, token = scores.float().softmax(-1).topk(min(count, scores.shape[-1]), dim=-1)
    return [tuple(zip(t, p, strict=True)) for t, p in zip(token.tolist(), probability.tolist(), strict=True)]
