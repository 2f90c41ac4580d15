"""A whole chain as one LogitsProcessor: called once a step, guarding what goes in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import LogitkitError, PluginError, ScoresError
from logitkit.processors.engine.history import History
from logitkit.processors.engine.log_probabilities import shared
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.streams import Stream, declared_streams
from logitkit.processors.engine.trace import Trace


class Prefetcher(Protocol):
    """Supplies precomputed logits for second streams; implemented by `FusedStreams`."""

    def prefetch(self, rows: Tensor) -> Tensor | None:
        """Store the precomputed logits in the streams.

        Returns:
            Whether the logits belong to these rows, a bool tensor on the device. None when the shape of the rows
            already shows that they do not; nothing is stored then.
        """

    def invalidate(self) -> None:
        """Drop the stored logits."""


class Observer(Protocol):
    """Who looks on at every step; nothing depends on it."""

    def observe(self, input_ids: Tensor, before: Tensor, after: Tensor) -> None:
        """See the rows, and their scores before and after the chain; both are to be left alone."""


class Composite(LogitsProcessor):
    """Processors in order, as one.

    transformers checks the signature of every processor in its list at every step, drops processors
    that are equal, and cannot say their order; one composite has none of these costs.

    Args:
        parts: ``(name, processor)`` in order.
        prompts: the prompts of the call.
        trace: where counters and steps go.
        owners: the plugin that offers each processor, by the processor's name, for error messages.
        histories: the `History` that a processor reads, by the position of the processor in ``parts``.

    Attributes:
        prefetcher: supplies logits of second streams before each step; None: each stream runs its own forwards.
        observer: who is shown what the whole chain did at each step.
    """

    supports_continuous_batching = False  # there a processor gets neither rows nor their history

    def __init__(
        self,
        parts: Sequence[tuple[str, LogitsProcessor]],
        *,
        prompts: Prompts,
        trace: Trace,
        owners: Mapping[str, str] | None = None,
        histories: Mapping[int, History] | None = None,
    ) -> None:
        self.parts, self.prompts, self.trace = tuple(parts), prompts, trace
        self.owners, self.histories = dict(owners or {}), dict(histories or {})
        self.prefetcher: Prefetcher | None = None
        self.observer: Observer | None = None

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The second streams that the processors declare in their ``streams``, each once."""
        return declared_streams(self.parts)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores after every processor, ``[rows, vocab]``; the input is left alone.

        Raises:
            ScoresError: a row that is NaN, infinite, or leaves no token, with the processor that made it.
            PluginError: a processor that raises, or returns something else than scores.
        """
        self.trace.calls += 1
        self.trace.rows += scores.shape[0]
        before, caches = self.trace.mark(), {place: history.cache for place, history in self.histories.items()}
        prefetched = self.prefetcher.prefetch(input_ids) if self.prefetcher else None
        with self.prompts.deferred_checks.collected() as claims:
            done = self._run(input_ids, scores)
        # What was offered and taken for granted is read together with the guard: the host waits once a step.
        facts = [_has_choices(scores, done), *(holds for holds, _ in claims)]
        facts += [] if prefetched is None else [prefetched]
        if not bool(facts[0] if len(facts) == 1 else torch.stack(facts).all()):
            mistaken = [otherwise for holds, otherwise in claims if not bool(holds)]
            if self.prefetcher and prefetched is not None and not bool(prefetched):
                mistaken.append(self.prefetcher.invalidate)
            if mistaken:
                for otherwise in mistaken:
                    otherwise()
                self.trace.rewind(before)
                for place, cache in caches.items():
                    self.histories[place].cache = cache
                done = self._run(input_ids, scores)
            if not bool(_has_choices(scores, done)):
                self._refuse(input_ids, scores)
        if self.observer is not None:
            self.observer.observe(input_ids, scores, done)
        return done

    def _run(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Every processor in order."""
        raw = scores
        with shared():
            for place, (name, part) in enumerate(self.parts):
                if place in self.histories:
                    self.histories[place].observe(input_ids, raw, scores)
                before, scores = scores, _asked(part, self.owners.get(name, name), input_ids, scores)
                if self.trace.recording:
                    self.trace.record(name, input_ids.shape[1] - self.prompts.width, before, scores)
        return scores

    def _refuse(self, input_ids: Tensor, scores: Tensor) -> None:
        """Find who spoiled the scores, and say so."""
        blame = "the model (or a processor before the chain)"
        fault = _fault(scores)
        for name, part in self.parts:
            if fault:
                break
            scores = part(input_ids, scores)
            blame, fault = self.owners.get(name, name), _fault(scores)
        row, what = fault or (0, "scores that changed when computed again")
        raise ScoresError(
            f"logitkit: every row must keep a token with a finite score, got {what} in row {row} from {blame}; "
            "loosen the processor that removes the last token, or check the model's dtype"
        )


def _asked(part: LogitsProcessor, owner: str, input_ids: Tensor, scores: Tensor) -> Tensor:
    """What one processor answers; a fault of its own is told with who offers it."""
    try:
        done = part(input_ids, scores)
    except (LogitkitError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise PluginError(
            f"{owner}: __call__ must answer for rows {[*input_ids.shape]} and scores {[*scores.shape]}, "
            f"got {type(error).__name__}: {error}; correct it, `logitkit check` shows more"
        ) from error
    if not isinstance(done, Tensor) or done.shape != scores.shape:
        found = f"scores {[*done.shape]}" if isinstance(done, Tensor) else f"{done!r:.40}"
        raise PluginError(f"{owner}: __call__ must return scores {[*scores.shape]}, got {found}; return them all")
    return done


def _has_choices(given: Tensor, done: Tensor) -> Tensor:
    """Whether every row keeps a token before and after; NaN and infinities survive a maximum."""
    worst = done.amax(-1) if done is given else torch.stack([given.amax(-1), done.amax(-1)])
    return torch.isfinite(worst).all()


def _fault(scores: Tensor) -> tuple[int, str] | None:
    """Find the first row that leaves no choice, and what is wrong with it."""
    best = scores.amax(-1)
    bad = (~torch.isfinite(best)).nonzero()
    if not len(bad):
        return None
    row = int(bad[0])
    value = float(best[row])
    return row, "NaN" if value != value else "+inf" if value > 0 else "only -inf"
