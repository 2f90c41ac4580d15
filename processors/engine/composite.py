"""A whole chain as one LogitsProcessor, which checks the scores before and after the chain."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import LogitkitError, ModeError, PluginError, ScoresError
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.history import History
from logitkit.processors.engine.log_probabilities import shared_log_probabilities
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.row_check import RowCheck
from logitkit.processors.engine.scores import are_usable, unusable_row
from logitkit.processors.engine.shared_vocabulary import SharedVocabulary
from logitkit.processors.engine.streams import Stream, declared_streams
from logitkit.processors.engine.trace import Trace


class Prefetcher(Protocol):
    """Supplies precomputed logits for second streams; implemented by `FusedStreams`."""

    def prefetch(self, rows: Tensor) -> Tensor | bool:
        """Store the precomputed logits in the streams.

        Returns:
            Whether the logits belong to these rows, a bool tensor on the device where the rows must be compared.
            Nothing is stored where the answer is False.
        """

    def invalidate(self) -> None:
        """Drop the stored logits."""


class _LateCheck(NamedTuple):
    """Whether a step left every row a token, which the host has not read, and the step's rows and scores."""

    finite: Tensor
    rows: Tensor
    scores: Tensor


class Observer(Protocol):
    """Sees the scores before and after the chain at every step, and changes nothing."""

    def observe(self, input_ids: Tensor, before: Tensor, after: Tensor) -> None:
        """Receive the rows, ``[rows, length]``, and the scores before and after the chain, ``[rows, vocab]``."""


class Composite(LogitsProcessor):
    """The processors of a chain in order, as one processor.

    transformers checks the signature of every processor at every step, drops processors that compare equal, and fixes
    the place of its own warpers. One composite pays the check once and keeps the order of the chain.

    Args:
        parts: ``(name, processor)`` in order.
        prompts: the prompts of the call.
        trace: receives counters and recorded steps.
        owners: the plugin that offers each processor, by the processor's name, for error messages.
        histories: the `History` that a processor reads, by the position of the processor in ``parts``.
        settings: the settings of the call, which state the length of a decoder's prompt; None: there is none.
        widths: widths that the scores of the generating model may have in `generate`; None: any.
        vocabulary: makes ids impossible before the first processor; None: none.

    Attributes:
        prefetcher: supplies logits of second streams before each step; None: each stream runs its own forwards.
        observer: receives what the whole chain did at each step; None: no observer.
        row_check: warns of rows in `generate` that this call did not write; None: rows may begin anywhere.

    Example:
        >>> import torch
        >>> from transformers import TopKLogitsWarper
        >>> from logitkit.processors.engine import Prompts, Trace
        >>> prompts = Prompts(ids=torch.tensor([[0]]), mask=torch.ones(1, 1), texts=("",), messages=(None,),
        ...                   adds_specials=False)
        >>> chain = Composite([("top_k", TopKLogitsWarper(1))], prompts=prompts, trace=Trace())
        >>> chain(prompts.ids, torch.tensor([[1.0, 2.0]]))
        tensor([[-inf, 2.]])
    """

    # Continuous batching hands over the last token of each row only, without prompts.
    supports_continuous_batching = False

    def __init__(
        self,
        parts: Sequence[tuple[str, LogitsProcessor]],
        *,
        prompts: Prompts,
        trace: Trace,
        owners: Mapping[str, str] | None = None,
        histories: Mapping[int, History] | None = None,
        settings: CallSettings | None = None,
        widths: Sequence[int] | None = None,
        vocabulary: SharedVocabulary | None = None,
    ) -> None:
        self.parts, self.prompts, self.trace, self.widths = tuple(parts), prompts, trace, widths
        self.owners, self.histories, self._settings = dict(owners or {}), dict(histories or {}), settings
        self.vocabulary = vocabulary or SharedVocabulary()
        self._lock = threading.RLock()  # the streams of a call serve one step at a time
        self.prefetcher: Prefetcher | None = None
        self.observer: Observer | None = None
        self.row_check: RowCheck | None = None
        self._late: _LateCheck | None = None  # of the last step
        self._reads_late = False
        self._left_out: Collection[int] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.RLock()

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The second streams that the processors declare in their ``streams``, each once."""
        return declared_streams(self.parts)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores after every processor.

        Args:
            input_ids: ``[rows, length]``.
            scores: logits or log-probabilities, ``[rows, vocab]``; not written to.

        Returns:
            ``[rows, vocab]``; every row has a token with a finite score. Without rows, the scores themselves; no
            processor is called.

        Raises:
            ScoresError: a row without a finite maximum, before or after some processor; names the processor.
            PluginError: a processor that raises, or returns anything but scores of the same shape.
        """
        if not len(scores):
            return scores
        with self._lock:
            return self._step(input_ids, scores, None)

    def in_generate(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores after every processor, as `generate` calls the chain: `__call__` with two more checks.

        Raises:
            ModeError: scores of another vocabulary.
        """
        if not len(scores):
            return scores
        if self.widths and self.parts and scores.shape[-1] not in self.widths:
            raise ModeError(
                f"logitkit: scores must have the {self.widths[0]} columns of the generating model, got "
                f"{scores.shape[-1]}; an assistant asks the chain too, so use call.generate beside assistant_tokenizer"
            )
        with self._lock:
            return self._step(input_ids, scores, self.row_check if self.parts else None)

    # Over 40 lines: the order of the comparisons of a step is easier to follow in one place.
    def _step(self, input_ids: Tensor, scores: Tensor, row_check: RowCheck | None) -> Tensor:
        """Return the scores after every processor; see `__call__`."""
        self.trace.calls += 1
        self.trace.rows += scores.shape[0]
        mark, caches = self.trace.mark(), {place: history.cache for place, history in self.histories.items()}
        grew = row_check.grew_by_one(input_ids) if row_check else None
        if row_check and grew is None:
            row_check.compare(input_ids)
        prefetched = self.prefetcher.prefetch(input_ids) if self.prefetcher and not self._left_out else False
        late, self._late = self._late, None
        with self.prompts.deferred_checks.collected(input_ids, grew) as checks:
            if self.prefetcher and isinstance(prefetched, Tensor):
                checks.add(prefetched, self.prefetcher.invalidate)
            if late is not None:
                checks.add(late.finite, None)
            processed = self._run(input_ids, scores)
            finite = _are_finite(scores, processed)
            if self._reads_late and checks.reads and not checks.unread:
                self._late = _LateCheck(finite, input_ids, scores)
            else:
                checks.add(finite, None)
            checks.read()  # one read for all comparisons of the step: each read makes the host wait for the device
        if late is not None and not checks.value_of(late.finite):
            self._refuse(late.rows, late.scores)
        if row_check and grew is not None:
            row_check.remember(input_ids) if checks.value_of(grew) else row_check.compare(input_ids)
        if checks.undo():
            self._late = None
            self.trace.rewind(mark)
            for place, cache in caches.items():
                self.histories[place].cache = cache
            processed = self._run(input_ids, scores)
            usable = bool(_are_finite(scores, processed))
        else:
            usable = self._late is not None or bool(checks.value_of(finite))
        if not usable:
            processed = self._refuse(input_ids, scores)
        if self.observer is not None:
            self.observer.observe(input_ids, scores, processed)
        return processed

    @contextmanager
    def reading_late(self, greedy: bool) -> Iterator[None]:
        """Let a step of greedy decoding whose gate made the host wait be checked at the next wait, or at the end.

        Sampling from a row without a token is an error of the device, after which no program can use it; each step is
        checked before its token is drawn.

        Args:
            greedy: whether `generate` draws no tokens inside this block.
        """
        self._late, self._reads_late = None, greedy
        try:
            yield
            late = self._late
            if late is not None and not bool(late.finite):
                self._refuse(late.rows, late.scores)
        finally:
            self._late, self._reads_late = None, False

    @contextmanager
    def leaving_out(self, places: Collection[int]) -> Iterator[None]:
        """Leave out steps inside this block, for a draft; trace and observer see nothing of it.

        Args:
            places: of the steps in ``parts``. Steps behind the first of them that read a history are left out too,
                since the history holds what the steps before them did.
        """
        observer, calls, rows = self.observer, self.trace.calls, self.trace.rows
        late, reads_late = self._late, self._reads_late  # of a step of the whole chain
        behind = {place for place in self.histories if places and place > min(places)}
        self._left_out, self.observer, self._late, self._reads_late = {*places, *behind}, None, None, False
        try:
            with self.trace.paused():
                yield
        finally:
            self._left_out, self.observer, self._late, self._reads_late = (), observer, late, reads_late
            self.trace.calls, self.trace.rows = calls, rows

    def _run(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores after every processor, and show the scores between them to histories and trace."""
        raw, scores = scores, self.vocabulary(input_ids, scores)
        start = self.prompts.width if self._settings is None else self._settings.start
        with shared_log_probabilities():
            for place, (name, part) in enumerate(self.parts):
                if place in self._left_out:
                    continue
                if place in self.histories:
                    self.histories[place].observe(input_ids, raw, scores)
                before, scores = scores, _processed(part, self.owners.get(name, name), input_ids, scores)
                if self.trace.recording:
                    self.trace.record(name, input_ids.shape[1] - start, before, scores)
        return scores

    def _refuse(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Note rows without a token where a search drops them, else raise an error that names the processor."""
        owner = "the model (or a processor before the chain)"
        fault, dead_ends = unusable_row(scores), self.prompts.dead_ends
        scores = self.vocabulary(input_ids, scores)
        for place, (name, part) in enumerate(self.parts):
            if fault or place in self._left_out:
                continue
            owner = self.owners.get(name, name)
            scores = dead_ends.without(part(input_ids, scores), scores, owner)
            fault = unusable_row(scores)
        if dead_ends.dropping and not fault:
            return scores
        row, problem = fault or (0, "scores that changed when computed again")
        raise ScoresError(
            f"logitkit: every row must keep a token with a finite score, got {problem} in row {row} from {owner}; "
            "loosen the processor that removes the last token, or check the model's dtype"
        )


def _processed(part: LogitsProcessor, owner: str, input_ids: Tensor, scores: Tensor) -> Tensor:
    """Return the scores after one processor; errors of the processor name its plugin."""
    try:
        processed = part(input_ids, scores)
    except (LogitkitError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise PluginError(
            f"{owner}: __call__ must accept rows {[*input_ids.shape]} and scores {[*scores.shape]}, "
            f"got {type(error).__name__}: {error}; correct __call__, `logitkit check` shows more"
        ) from error
    if not isinstance(processed, Tensor) or processed.shape != scores.shape:
        got = f"scores {[*processed.shape]}" if isinstance(processed, Tensor) else f"{processed!r:.40}"
        raise PluginError(f"{owner}: __call__ must return scores {[*scores.shape]}, got {got}; return all of them")
    return processed


def _are_finite(before: Tensor, after: Tensor) -> Tensor:
    """Return whether every row has a finite maximum in both; NaN and infinities survive a maximum."""
    maxima = before.amax(-1)
    if after is not before:
        maxima = torch.stack([maxima, after.amax(-1)])
    return are_usable(maxima).all()
